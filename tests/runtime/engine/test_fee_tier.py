"""Fees move with volume, date and BNB in a run, and a stopped run has the fees of a whole one."""

import datetime as dt
import threading
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

import pytest

from bot4_runtime import app
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import CandleClosed, OrderFilled
from bot4_runtime.domain.order import Book, Liquidity, Side
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.settings import load_settings

STEP = Decimal("1e-8")
DAY_NS = 86_400 * 10**9


@pytest.fixture
def rich(tmp_path: Path):
    """Return settings of an account whose volume reaches higher tiers."""

    def make(**changed: str):
        return load_settings(
            environment={
                "BOT4_HOME": str(tmp_path / "home"),
                "BOT4_MODELS": str(tmp_path / "models"),
                "BOT4_RUNTIME__STRATEGY": "drill",
                "BOT4_RISK__MAX_CORRELATION": "1.0",
                "BOT4_PAPER__INITIAL_CASH": "30000000.0",
                "BOT4_PAPER__DEPTH_SHARE": "0.5",
                "BOT4_FEES__BNB_HELD": "1000.0",
            }
            | changed
        )

    return make


def share(fill) -> Decimal:
    """The share of the notional a fill was charged."""
    received = fill.quantity if fill.side is Side.BUY else fill.quantity * fill.price
    return (fill.fee / received).quantize(Decimal("1e-6"))


def test_the_tier_of_each_day_follows_the_volume_of_the_days_before(
    tmp_path: Path, run_it, journal_of, rich
) -> None:
    run_it(tmp_path / "run", with_=rich())
    fills = [e.fill for e in journal_of(tmp_path / "run") if isinstance(e, OrderFilled)]
    volumes: dict[int, Decimal] = {}
    schedule = binance_schedule(Market.SPOT, dt.date(2023, 12, 1))
    tiers = set()
    for fill in fills:
        today = fill.ts_event_ns // DAY_NS
        total = sum(v for day, v in volumes.items() if today - 30 <= day < today)
        tier = schedule.tier_for(Decimal(total), Decimal(1000))
        row = schedule.tiers[tier]
        rate = row.maker if fill.liquidity is Liquidity.MAKER else row.taker
        assert share(fill) == rate
        tiers.add(tier)
        if fill.book is Book.VALIDATED:
            volumes[today] = volumes.get(today, 0) + fill.price * fill.quantity
    assert len(tiers) > 1


@pytest.mark.parametrize("market", ["spot", "usdm"])
@pytest.mark.parametrize("stop_after", [500, 1201, 1777])
def test_a_stopped_run_goes_on_in_the_tier_it_had(
    tmp_path: Path, run_it, make_market, rich, market: str, stop_after: int
) -> None:
    source = make_market(tmp_path / "market", ("BNBUSDT", "BTCUSDT", "ETHUSDT"), 1500)
    settings = rich(BOT4_RUNTIME__MARKET=market, BOT4_FEES__BNB_DISCOUNT="true")
    whole = run_it(tmp_path / "whole", with_=settings, source=source)
    part = run_it(tmp_path / "parts", with_=settings, source=source, stop_after=stop_after)
    assert part.stopped
    rest = run_it(tmp_path / "parts", with_=settings, source=source)
    assert rest.state_hash == whole.state_hash


def test_fees_in_bnb_are_priced_at_its_last_close_or_its_own_fill(
    tmp_path: Path, run_it, make_market, journal_of, rich
) -> None:
    source = make_market(tmp_path / "market", ("AAAUSDT", "BNBUSDT", "ETHUSDT"), 1500)
    settings = rich(BOT4_FEES__BNB_DISCOUNT="true", BOT4_FEES__BNB_HELD="0.0")
    run_it(tmp_path / "run", with_=settings, source=source)
    close, seen = None, set()
    for event in journal_of(tmp_path / "run"):
        if isinstance(event, CandleClosed) and event.candle.symbol == "BNBUSDT":
            close = Decimal(repr(event.candle.close))
        elif isinstance(event, OrderFilled):
            fill = event.fill
            bnb = fill.price if fill.symbol == "BNBUSDT" else close
            due = fill.price * fill.quantity * Decimal("0.00075") / bnb
            assert (fill.fee, fill.fee_asset) == (due.quantize(STEP, ROUND_DOWN), "BNB")
            seen.add(fill.symbol)
    assert len(seen) == 3


def test_a_discount_that_nothing_can_price_is_told_and_not_given(
    tmp_path: Path, run_it, market, journal_of, rich
) -> None:
    settings = rich(BOT4_FEES__BNB_DISCOUNT="true", BOT4_FEES__BNB_HELD="0.0")
    options = app.RunOptions(source=f"recorded:{market}")
    built = app.build(settings, options, mode="paper", folder=tmp_path / "told")
    built.store.close()
    assert any("BNBUSDT is not among the symbols" in notice for notice in built.notices)
    run_it(tmp_path / "run", with_=settings)
    fills = [e.fill for e in journal_of(tmp_path / "run") if isinstance(e, OrderFilled)]
    assert {share(fill) for fill in fills} == {Decimal("0.001")}
    assert "BNB" not in {fill.fee_asset for fill in fills}


def test_a_replay_pays_the_rates_of_its_days(tmp_path: Path, journal_of, rich) -> None:
    settings = rich(BOT4_FEES__VIP_TIER="4", BOT4_RUNTIME__SYMBOLS='["BTCUSDT"]')
    change_ms = binance_schedule(Market.SPOT, dt.date(2022, 6, 1)).effective_ms
    options = app.RunOptions(
        source="simulated:5",
        from_ms=change_ms - 12 * 86_400_000,
        to_ms=change_ms + 18 * 86_400_000,
    )
    built = app.build(settings, options, mode="replay", folder=tmp_path / "run")
    built.execute(threading.Event())
    paid: dict[bool, set[str]] = {True: set(), False: set()}
    for event in journal_of(tmp_path / "run"):
        if isinstance(event, OrderFilled) and event.fill.liquidity is Liquidity.TAKER:
            before = event.fill.ts_event_ns < change_ms * 10**6
            paid[before].add(str(share(event.fill)))
    assert paid == {True: {"0.000900"}, False: {"0.000400"}}
