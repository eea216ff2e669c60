"""What must hold across restarts and bad input: killed anywhere, fed anything."""

import dataclasses
import itertools
import math
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import ccxt
import msgspec
import polars as pl
import pytest

from bot4_runtime import app
from bot4_runtime.app.accepted import SETTINGS
from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.events import (
    CancelRequested,
    CandleClosed,
    GapSeen,
    InstrumentDefined,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderRejected,
    RiskDecided,
)
from bot4_runtime.domain.order import Book, Purpose
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.session import SessionResult
from bot4_runtime.settings import Settings
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.frames import Frame, decode_frame, encode_frames
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.strategy.drill import Drill

HOUR_MS = 3_600_000
SYMBOLS = ("AAAUSDT", "BBBUSDT", "CCCUSDT")


def changed(settings: Settings, section: str, **values: object) -> Settings:
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})


def run(
    settings: Settings, source: Path, folder: Path, *, stop_after: int = 0, **options: object
) -> SessionResult:
    stop = threading.Event()

    def progress(done: int, _: object) -> None:
        if done == stop_after:
            stop.set()

    chosen = app.RunOptions(source=f"recorded:{source}", **options)
    return app.build(settings, chosen, mode="paper", folder=folder, on_progress=progress).execute(
        stop
    )


def batch_ends(folder: Path) -> Iterator[tuple[int, bool]]:
    """Sequence numbers after which a kill leaves decisions without their outcomes."""
    with JournalReader.open(folder / "journal.sqlite") as journal:
        events = list(journal.events())
    settled = False
    for (seq, _), (_, following) in itertools.pairwise(events):
        if isinstance(following, CandleClosed | GapSeen | InstrumentDefined):
            settled = False
        canceled = isinstance(following, OrderClosed) and following.reason == "canceled by us"
        if not settled and (canceled or isinstance(following, OrderAccepted | OrderRejected)):
            settled = True
            yield seq, canceled


def cut(journal: Path, folder: Path, seq: int) -> None:
    """Leave what a kill after `seq` became durable would leave."""
    folder.mkdir()
    shutil.copy(journal, folder)
    with sqlite3.connect(folder / "journal.sqlite") as disk:
        for table in ("intent", "trade"):
            disk.execute(f"DELETE FROM {table} WHERE seq > ?", (seq,))
        rows = disk.execute(
            "SELECT * FROM frame WHERE last_seq > ? ORDER BY first_seq", (seq,)
        ).fetchall()
        disk.execute("DELETE FROM frame WHERE last_seq > ?", (seq,))
        for whole in map(Frame._make, rows[:1]):
            kept = decode_frame(whole)[: seq - whole.first_seq + 1]
            for frame in encode_frames(whole.first_seq, whole.epoch, kept):
                disk.execute("INSERT INTO frame VALUES (?, ?, ?, ?, ?, ?)", frame)
    disk.close()


@pytest.mark.parametrize(("shrink", "cash"), [(1.0, 100_000.0), (0.0001, 900.0)])
def test_killed_between_decision_and_outcome_it_ends_in_the_same_state(
    tmp_path: Path, settings: Settings, make_market, shrink: float, cash: float
) -> None:
    source = make_market(tmp_path / "market", SYMBOLS, 860, 3)
    for path in source.iterdir():
        pl.read_parquet(path).with_columns(pl.col("volume") * shrink).write_parquet(path)
    thin = changed(settings, "paper", initial_cash=cash, depth_share=1.0)
    whole = run(thin, source, tmp_path / "whole")
    ends = list(batch_ends(tmp_path / "whole"))
    canceled = [seq for seq, cancels in ends if cancels]
    assert canceled
    for seq in (*canceled[:6], *(seq for seq, _ in ends[:: max(len(ends) // 6, 1)])):
        folder = tmp_path / f"killed{seq}"
        if not folder.exists():
            cut(tmp_path / "whole" / "journal.sqlite", folder, seq)
            assert run(thin, source, folder).state_hash == whole.state_hash


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("risk", {"max_position_pct": 0.1}),
        ("risk", {"max_drawdown": 0.3}),
        ("paper", {"seed": 8}),
        ("runtime", {"symbols": ("AAAUSDT",)}),
        ("fees", {"vip_tier": 9}),
        ("promotion", {"trial_candles": 0}),
    ],
)
def test_settings_do_not_change_by_a_restart_unless_accepted(
    tmp_path: Path, settings: Settings, market: Path, section: str, values: dict[str, object]
) -> None:
    run(settings, market, tmp_path / "run", stop_after=3)
    other = changed(settings, section, **values)
    with pytest.raises(ConfigError, match=f"--accept {other.trading_hash()[:12]}"):
        run(other, market, tmp_path / "run", stop_after=3)
    with pytest.raises(ConfigError, match="--accept"):
        run(other, market, tmp_path / "run", stop_after=3, accept=other.trading_hash()[:11])
    assert run(other, market, tmp_path / "run", stop_after=3, accept=other.trading_hash()).stopped
    with pytest.raises(ConfigError, match="--accept"):
        run(settings, market, tmp_path / "run", stop_after=3)


def test_changed_settings_are_named_with_their_old_and_new_values(
    tmp_path: Path, settings: Settings, market: Path
) -> None:
    run(settings, market, tmp_path / "run", stop_after=3)
    other = changed(settings, "risk", max_leverage=2.0, max_drawdown=0.1)
    named = r"risk\.max_drawdown 0\.15 -> 0\.1; risk\.max_leverage 3\.0 -> 2\.0\. Start"
    with pytest.raises(ConfigError, match=named):
        run(other, market, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / SETTINGS)
    with pytest.raises(ConfigError, match=r"no record of them is left.*--accept"):
        run(other, market, tmp_path / "run")


def test_what_the_books_began_with_never_changes_even_when_accepted(
    tmp_path: Path, settings: Settings, market: Path
) -> None:
    run(settings, market, tmp_path / "run", stop_after=3)
    richer = changed(settings, "paper", initial_cash=5_000.0)
    with pytest.raises(ConfigError, match=r"opened with 100000\.0 USDT, .* say 5000\.0 USDT"):
        run(richer, market, tmp_path / "run", accept=richer.trading_hash())
    assert run(settings, market, tmp_path / "run", stop_after=3).stopped


def test_an_account_keeps_its_interval_even_when_another_is_accepted(
    tmp_path: Path, settings: Settings
) -> None:
    def begin(interval: str) -> object:
        chosen = changed(settings, "runtime", interval=interval)
        options = app.RunOptions(
            source="simulated:5", to_ms=SIMULATED_START_MS + 4 * HOUR_MS,
            accept=chosen.trading_hash(),
        )  # fmt: skip
        built = app.build(chosen, options, mode="paper", folder=tmp_path / "run")
        return built.execute(threading.Event())

    begin("1h")
    with pytest.raises(ConfigError, match=r"candles of 60 minutes.*candles of 240 minutes"):
        begin("4h")


def test_another_start_is_ignored_aloud(tmp_path: Path, settings: Settings, market: Path) -> None:
    first_ms = int(pl.read_parquet(market / "AAAUSDT.parquet")["timestamp"][0])
    start_ms = first_ms + 800 * HOUR_MS
    run(settings, market, tmp_path / "run", stop_after=3, from_ms=start_ms)
    for from_ms, told in ((start_ms + HOUR_MS, True), (start_ms, False), (None, False)):
        options = app.RunOptions(source=f"recorded:{market}", from_ms=from_ms)
        built = app.build(settings, options, mode="paper", folder=tmp_path / "run")
        built.store.close()
        assert any("--from is ignored" in notice for notice in built.notices) is told


def test_a_held_symbol_cannot_be_left_without_candles(
    tmp_path: Path, settings: Settings, make_market
) -> None:
    source = make_market(tmp_path / "market", SYMBOLS, 800)
    folder = tmp_path / "run"
    held: set[str] = set()
    while not held:
        assert run(settings, source, folder, stop_after=5).stopped
        with JournalReader.open(folder / "journal.sqlite") as journal:
            state = journal.state(folder / "snapshots")
        held = {o.intent.symbol for o in state.all_live_orders()}
    for symbol in held:
        (source / f"{symbol}.parquet").unlink()
    if len(held) == len(SYMBOLS):
        make_market(source, ("DDDUSDT",), 800)
    with pytest.raises(ConfigError, match="nothing would watch"):
        run(settings, source, folder)


@dataclasses.dataclass
class Torn:
    """A source that begins now, and says wrong things between the right ones."""

    inner: object
    wrong: Callable[[Candle], Candle]
    start_ms: int | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle]:
        for number, candle in enumerate(self.inner.stream(from_ms, cursor, stop)):
            yield candle
            if number % 7 == 3:
                yield self.wrong(candle)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c: c,
        lambda c: msgspec.structs.replace(c, open_time_ms=c.open_time_ms - HOUR_MS),
        lambda c: msgspec.structs.replace(
            c, open_time_ms=c.open_time_ms + HOUR_MS, close=math.nan
        ),
        lambda c: msgspec.structs.replace(c, open_time_ms=c.open_time_ms + HOUR_MS, high=math.inf),
        lambda c: msgspec.structs.replace(c, open_time_ms=c.open_time_ms + HOUR_MS, volume=-1.0),
    ],
    ids=["twice", "late", "nan", "infinite", "negative volume"],
)
def test_a_bad_candle_is_passed_over_by_a_live_source_and_ends_a_recorded_one(
    tmp_path: Path, settings: Settings, make_market, wrong: Callable[[Candle], Candle]
) -> None:
    source = make_market(tmp_path / "market", SYMBOLS, 760)
    whole = run(settings, source, tmp_path / "whole")
    for name, live in (("live", True), ("recorded", False)):
        options = app.RunOptions(source=f"recorded:{source}")
        built = app.build(settings, options, mode="paper", folder=tmp_path / name)
        start_ms = built.source.start_ms
        built.session._source = Torn(built.source, wrong, None if live else start_ms)
        if live:
            built.session._start_ms = lambda begin=start_ms: begin
            result = built.execute(threading.Event())
            assert result.refused == 26
            assert result.state_hash == whole.state_hash
        else:
            with pytest.raises(DataError, match=r"impossible candle|came after"):
                built.execute(threading.Event())


class Mad(Drill):
    """The drill with numbers nobody can trade on."""

    changes: Mapping[str, float] = {}

    def on_candle(self, candle: Candle):
        return [msgspec.structs.replace(s, **self.changes) for s in super().on_candle(candle)]


@pytest.mark.parametrize(
    "changes",
    [
        {"limit_price": math.nan},
        {"limit_price": math.inf},
        {"limit_price": None, "price": math.nan},
        {"price": 0.0},
        {"stop_distance": math.nan},
        {"stop_distance": math.inf},
        {"confidence": math.nan},
    ],
    ids=str,
)
def test_a_signal_with_impossible_numbers_is_refused_in_both_books(
    tmp_path: Path, settings: Settings, make_market, changes: dict[str, float], monkeypatch
) -> None:
    monkeypatch.setattr(Mad, "changes", changes)
    source = make_market(tmp_path / "market", ("AAAUSDT",), 760)
    mad = changed(settings, "runtime", strategy=f"{__name__}:Mad")
    assert run(mad, source, tmp_path / "run").candles == 60
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        state = journal.state(None)
    assert state.books[Book.VALIDATED].orders_total == 0


def test_a_price_that_falls_below_its_tick_is_not_traded_and_stops_nothing(
    tmp_path: Path, settings: Settings, make_market
) -> None:
    source = make_market(tmp_path / "market", ("AAAUSDT",), 900)
    path = source / "AAAUSDT.parquet"
    table = pl.read_parquet(path)
    fall = pl.when(pl.int_range(pl.len()) < 760).then(1.0).otherwise(1e-8)
    prices = ("open", "high", "low", "close")
    table.with_columns(pl.col(name) * fall for name in prices).write_parquet(path)
    assert run(settings, source, tmp_path / "run").candles == 200
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        codes = [e.code for _, e in journal.events() if isinstance(e, RiskDecided)]
    assert "BELOW_MINIMUM" in codes


def test_a_stop_during_warm_up_decides_nothing_and_the_next_start_goes_on(
    tmp_path: Path, settings: Settings, make_market
) -> None:
    source = make_market(tmp_path / "market", ("AAAUSDT",), 760)
    whole = run(settings, source, tmp_path / "whole")
    options = app.RunOptions(source=f"recorded:{source}")
    built = app.build(settings, options, mode="paper", folder=tmp_path / "run")
    stop = threading.Event()
    shown: list[Candle] = []
    warm = built.session._engine.warm

    def warm_and_stop(candle: Candle) -> None:
        shown.append(candle)
        warm(candle)
        stop.set()

    built.session._engine.warm = warm_and_stop
    result = built.execute(stop)
    assert (result.candles, len(shown)) == (0, 1)
    assert run(settings, source, tmp_path / "run").state_hash == whole.state_hash


def test_what_was_stopped_out_is_not_bought_on(
    tmp_path: Path, settings: Settings, make_market
) -> None:
    """The market falls through limit and stop while most of the entry still rests."""
    source = make_market(tmp_path / "market", ("AAAUSDT",), 760)
    path = source / "AAAUSDT.parquet"
    table = pl.read_parquet(path)
    phase = (table["timestamp"] // HOUR_MS + zlib.crc32(b"AAAUSDT")) % 12
    entry = next(n for n in range(700, 760) if phase[n] == 0)
    row = pl.int_range(pl.len())
    level = pl.when(row <= entry).then(100.0).otherwise(100.0 - 2.0 * (row - entry))
    level = pl.when(row > entry + 5).then(90.0).otherwise(level)
    flat = dict.fromkeys(("open", "high", "close"), level)
    volume = pl.when(row <= entry).then(10_000.0).otherwise(100.0)
    table.with_columns(**flat, low=level - 0.5, volume=volume).write_parquet(path)
    run(settings, source, tmp_path / "run")
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        events = [event for _, event in journal.events()]
    reasons = [e.reason for e in events if isinstance(e, CancelRequested)]
    assert "stopped out" in reasons
    first: dict[int, Purpose] = {
        e.intent.intent_no: e.intent.purpose for e in events if isinstance(e, OrderIntended)
    }
    fills = [(first[e.fill.intent_no], e) for e in events if isinstance(e, OrderFilled)]
    stopped = next(n for n, (purpose, _) in enumerate(fills) if purpose is Purpose.STOP)
    assert Purpose.ENTRY in {purpose for purpose, _ in fills[:stopped]}
    cancel = next(
        e for e in events if isinstance(e, CancelRequested) and e.reason == "stopped out"
    )
    later = [e for _, e in fills if e.fill.intent_no == cancel.intent_no]
    assert max(e.ts_event_ns for e in later) <= cancel.ts_event_ns


class Garbled:
    """Binance on a bad day: two answers nobody can read, then rows that are torn and repeated."""

    markets: ClassVar = {"BTC/USDT": {"id": "BTCUSDT"}}

    def __init__(self, first_ms: int) -> None:
        self.faults: list[Exception] = [ccxt.OperationFailed("-1000"), ccxt.BadResponse("<html>")]
        rows = [[first_ms + n * HOUR_MS, 1.0, 2.0, 0.5, 1.5, 3.0] for n in range(6)]
        rows[2][4] = None
        rows[3][1] = math.nan
        self.rows = [rows[1], rows[0], *rows[2:], rows[4]]

    def load_markets(self) -> dict:
        return self.markets

    def fetch_ohlcv(
        self, _name: str, _interval: str, start: int, _limit: int
    ) -> list[list[float]]:
        if self.faults:
            raise self.faults.pop(0)
        return [row for row in self.rows if row[0] >= start]


def test_a_garbled_answer_neither_ends_a_live_stream_nor_enters_it() -> None:
    first_ms = 1_704_067_200_000
    clock = ManualClock((first_ms + 6 * HOUR_MS + 61_000) * 1_000_000)
    source = BinanceSource(symbols=["BTCUSDT"], interval="1h", market=Market.SPOT, clock=clock)
    source._client = Garbled(first_ms)
    stop = threading.Event()
    got: list[int] = []
    for candle in source.stream(first_ms, {}, stop):
        if candle is None:
            continue
        got.append((candle.open_time_ms - first_ms) // HOUR_MS)
        if len(got) == 4:
            stop.set()
    assert got == [0, 1, 4, 5]


@pytest.mark.parametrize(("ahead_ms", "taken"), [(0, 5), (59_000, 5), (61_000, 6)])
def test_a_fast_clock_does_not_close_a_candle_before_the_venue_does(
    ahead_ms: int, taken: int
) -> None:
    """The newest candle shown may still be forming; after a minute of silence it is believed."""
    first_ms = 1_704_067_200_000
    clock = ManualClock((first_ms + 6 * HOUR_MS + ahead_ms) * 1_000_000)
    source = BinanceSource(symbols=["BTCUSDT"], interval="1h", market=Market.SPOT, clock=clock)
    source._client = Garbled(first_ms)
    source._client.faults = []
    source._client.rows = [[first_ms + n * HOUR_MS, 1.0, 2.0, 0.5, 1.5, 3.0] for n in range(6)]
    assert len(list(source.history(first_ms, first_ms + 9 * HOUR_MS))) == taken
