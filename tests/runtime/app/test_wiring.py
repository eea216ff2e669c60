"""What settings and options become; what cannot become anything is refused before a journal."""

import errno
import os
import threading
from pathlib import Path

import polars as pl
import pytest
import structlog

from bot4_runtime import app, why
from bot4_runtime.app.source import build_source
from bot4_runtime.candles.simulated import DEFAULT_SEED, SimulatedMarket
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.errors import ConfigError, DataError, JournalLocked
from bot4_runtime.domain.events import (
    OrderIntended,
    OrderRejected,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.order import Purpose
from bot4_runtime.report.record import gather
from bot4_runtime.sources import SIMULATED_START_MS, SIMULATED_SYMBOLS
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import LOG_BYTES

HOUR = 3_600_000
BEGIN = 1_700_000_000_000 // HOUR * HOUR


@pytest.fixture
def drill(make_settings):
    return make_settings(BOT4_RUNTIME__STRATEGY="drill")


def simulated(hours: int, **changed) -> app.RunOptions:
    changed = {"source": "simulated:5", "to_ms": SIMULATED_START_MS + hours * HOUR} | changed
    return app.RunOptions(**changed)


def test_the_simulated_market_is_the_default_symbols_without_models(drill) -> None:
    source = build_source(drill, app.RunOptions(source="simulated"), None)
    assert source.symbols == SIMULATED_SYMBOLS
    assert source.label == f"simulated:{DEFAULT_SEED}"
    assert source.start_ms == SIMULATED_START_MS


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (app.RunOptions(source="simulated:seven"), ConfigError, "seed must be a number"),
        (app.RunOptions(source="simulated", from_ms=0), ConfigError, "cannot begin at 1970"),
        (simulated(0), ConfigError, "would end at"),
        (app.RunOptions(source="ftp"), ConfigError, "unknown source 'ftp'"),
        (app.RunOptions(source="binance", speed=2.0), ConfigError, "own pace"),
        (app.RunOptions(source="binance", to_ms=1), ConfigError, "--to"),
    ],
)
def test_impossible_sources_are_refused(drill, tmp_path: Path, options, error, told: str) -> None:
    with pytest.raises(error, match=told):
        app.build(drill, options, mode="paper", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_money_counted_in_another_asset_takes_symbols_of_that_asset_alone(make_settings) -> None:
    in_btc = make_settings(BOT4_RUNTIME__QUOTE="BTC", BOT4_RUNTIME__SYMBOLS='["ETHBTC"]')
    options = app.RunOptions(source="simulated")
    assert build_source(in_btc, options, None).symbols == ("ETHBTC",)
    all_usdt = make_settings(BOT4_RUNTIME__QUOTE="BTC")
    with pytest.raises(ConfigError, match=r"BTCUSDT.* not quoted in BTC"):
        build_source(all_usdt, options, None)


def test_the_simulated_market_is_no_futures_market(make_settings) -> None:
    settings = make_settings(BOT4_RUNTIME__MARKET="usdm")
    with pytest.raises(ConfigError, match=r"runtime\.market is 'usdm'.*spot"):
        build_source(settings, app.RunOptions(source="simulated"), None)


@pytest.mark.parametrize(("mode", "filled"), [("paper", True), ("replay", False)])
def test_the_log_of_a_journal_that_orders_wait_for_is_long_from_the_start(
    drill, tmp_path: Path, mode, filled
) -> None:
    run = app.build(drill, simulated(30), mode=mode, folder=tmp_path / "run")
    size = (tmp_path / "run" / "journal.sqlite-wal").stat().st_size
    assert (size == LOG_BYTES) is filled
    run.execute(threading.Event())


def test_too_little_room_for_the_reserve_is_told_counted_and_logged(
    drill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        run = app.build(drill, simulated(30), mode="paper", folder=tmp_path / "run")
    (told,) = [notice for notice in run.notices if "No entry will be sent" in notice]
    assert "no room for the reserve of 64 MiB" in told
    with structlog.testing.capture_logs() as logs:
        run.execute(threading.Event())
    assert [log["why"] for log in logs if log["event"] == "entries wait"] == [
        told.partition(": ")[2]
    ]
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        books = gather(event for _, event in journal.events()).books
    assert all(
        book.rejections["ENTRIES_WAIT"] == len(book.intents) > 0
        for book in books.values()
        if book.intents
    )


def test_entries_over_the_turnover_that_is_set_are_refused_and_why_tells_it(
    drill, tmp_path: Path
) -> None:
    settings = drill.model_copy(
        update={"risk": drill.risk.model_copy(update={"max_turnover_per_minute": 0.02})}
    )
    run = app.build(settings, simulated(60), mode="paper", folder=tmp_path / "run")
    run.execute(threading.Event())
    refused: dict[int, str] = {}
    entries: dict[int, OrderIntended] = {}
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        for _, event in journal.events(kinds=(OrderIntended, OrderRejected)):
            if isinstance(event, OrderIntended):
                entries[event.intent.intent_no] = event
            elif event.code == "GATE_NOTIONAL":
                refused[event.intent_no] = event.reason
        assert refused
        assert len(refused) < len(entries)
        first = min(refused)
        assert {entries[number].intent.purpose for number in refused} == {Purpose.ENTRY}
        story = why.tell(journal, None, entries[first].intent.signal_id)
    (told,) = [order for order in story["orders"] if order["intent_no"] == first]
    assert told["status"] == "rejected (GATE_NOTIONAL)"
    assert "over the gate's own ceiling of 2000" in told["why"]


def test_an_end_before_what_was_traded_is_told(drill, tmp_path: Path) -> None:
    run = app.build(drill, simulated(5), mode="paper", folder=tmp_path / "run")
    run.execute(threading.Event())
    for hours, told in ((5, 0), (2, 1)):
        run = app.build(drill, simulated(hours), mode="paper", folder=tmp_path / "run")
        run.store.close()
        assert sum("nothing left to trade" in notice for notice in run.notices) == told


def test_binance_knows_what_a_symbol_looks_like(make_settings) -> None:
    settings = make_settings(BOT4_RUNTIME__SYMBOLS='["BTCXYZ"]')
    with pytest.raises(DataError, match="BTCXYZ"):
        build_source(settings, app.RunOptions(source="binance"), None)


def test_stored_candles_of_another_market_or_interval_are_not_taken(drill, tmp_path: Path) -> None:
    store = CandleStore(tmp_path / "home" / "candles")
    store.write(SimulatedMarket(1).series("BTCUSDT", "4h", BEGIN, BEGIN + 4000 * HOUR))
    with pytest.raises(DataError, match="no 1h candles of any symbol"):
        build_source(drill, app.RunOptions(source="store"), None)


def test_recorded_candles_must_be_of_the_interval_that_is_set(drill, tmp_path: Path) -> None:
    series = SimulatedMarket(1).series("BTCUSDT", "2h", BEGIN, BEGIN + 40 * HOUR)
    columns = ("open", "high", "low", "close", "volume")
    frame = {"timestamp": series.open_time_ms} | {name: getattr(series, name) for name in columns}
    (tmp_path / "two").mkdir()
    pl.DataFrame(frame).write_parquet(tmp_path / "two" / "BTCUSDT.parquet")
    with pytest.raises(DataError, match=r"holds 2h candles.*BOT4_RUNTIME__INTERVAL"):
        build_source(drill, app.RunOptions(source=f"recorded:{tmp_path / 'two'}"), None)


def test_a_run_that_cannot_be_wired_lets_go_of_its_account(
    drill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = drill.model_copy(
        update={"risk": drill.risk.model_copy(update={"max_orders_per_minute": 1})}
    )

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("wiring")

    with monkeypatch.context() as patch:
        patch.setattr(type(drill), "trading_hash", fail)
        with pytest.raises(RuntimeError, match="wiring"):
            app.build(broken, simulated(5), mode="paper", folder=tmp_path / "run")
    run = app.build(drill, simulated(5), mode="paper", folder=tmp_path / "run")
    with pytest.raises(JournalLocked):
        app.build(drill, simulated(5), mode="paper", folder=tmp_path / "run")
    run.store.close()


def test_a_session_that_never_saw_a_candle_still_has_its_source(drill, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    run = app.build(drill, simulated(50), mode="paper", folder=tmp_path / "run")
    assert run.execute(stop).candles == 0
    other = simulated(50, source="simulated:6")
    run = app.build(drill, other, mode="paper", folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="--account"):
        run.execute(threading.Event())
    run = app.build(drill, simulated(2), mode="paper", folder=tmp_path / "run")
    assert run.execute(threading.Event()).candles == 2 * len(SIMULATED_SYMBOLS)


def test_the_start_of_the_first_session_is_kept(drill, tmp_path: Path) -> None:
    for hours, from_ms in ((5, None), (8, SIMULATED_START_MS)):
        options = simulated(hours, from_ms=from_ms)
        run = app.build(drill, options, mode="paper", folder=tmp_path / "run")
        run.execute(threading.Event())
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        starts = {event.start_ms for _, event in journal.sessions()}
        count = sum(type(event) is SessionStarted for _, event in journal.events())
    assert (starts, count) == ({SIMULATED_START_MS}, 2)


def test_only_a_live_source_reads_the_wall_clock() -> None:
    clock = ManualClock(5)
    clock.advance_to(3)
    assert clock.now_ns() == 5
    clock.advance_to(9)
    assert clock.now_ns() == 9
    first = LiveClock().now_ns()
    assert LiveClock().now_ns() >= first > 1_600_000_000 * 10**9


@pytest.mark.parametrize(
    ("market", "environment", "taker", "funding_bps"),
    [
        ("spot", {}, 0.001, 0.0),
        ("spot", {"BOT4_FEES__FUNDING_BPS_PER_DAY": "9.0"}, 0.001, 0.0),
        ("usdm", {}, 0.0005, 4.4),
        ("usdm", {"BOT4_FEES__FUNDING_BPS_PER_DAY": "9.0"}, 0.0005, 9.0),
    ],
)
def test_an_entry_is_judged_by_todays_fees_the_stated_slippage_and_funding(
    make_settings, tmp_path: Path, market: str, environment: dict, taker: float, funding_bps: float
) -> None:
    candles = tmp_path / "candles"
    candles.mkdir()
    series = SimulatedMarket(1).series("BTCUSDT", "1h", BEGIN, BEGIN + 730 * HOUR)
    columns = ("open", "high", "low", "close", "volume")
    frame = {"timestamp": series.open_time_ms} | {name: getattr(series, name) for name in columns}
    pl.DataFrame(frame).write_parquet(candles / "BTCUSDT.parquet")
    settings = make_settings(
        BOT4_RUNTIME__STRATEGY="drill", BOT4_RUNTIME__MARKET=market, **environment
    )
    options = app.RunOptions(source=f"recorded:{candles}")
    app.build(settings, options, mode="paper", folder=tmp_path / "run").execute(threading.Event())
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        numbers = [event.numbers for _, event in journal.events() if type(event) is SignalDecided]
    assert numbers
    for told in numbers:
        # Half of a 2 bps spread, and 10 bps x sqrt(1 %) of impact, both ways; the drill's
        # drawn record was net of 0.3 %.
        now = 2 * taker + 2 * (0.0001 + 0.0010 * 0.1) + funding_bps * 1e-4 * told["holding_days"]
        assert told["extra_costs"] == pytest.approx(now - 0.003)
