"""The soak's own arithmetic, and a short soak."""

import importlib.util
import math
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from bot4_runtime import app
from bot4_runtime.domain.events import BreakerChanged, OrderFilled, OrderIntended
from bot4_runtime.domain.order import Book, Purpose
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.identity import WARM_CANDLES
from bot4_runtime.rehearsal.verdict import Outcome
from bot4_runtime.settings import load_settings
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.reader import JournalReader

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
_named = importlib.util.spec_from_file_location("soak_main", HERE / "__main__.py")
soak_main = importlib.util.module_from_spec(_named)
_named.loader.exec_module(soak_main)
_venue = importlib.import_module("soak_venue")
SoakMarket, SoakVenue, SYMBOLS = _venue.SoakMarket, _venue.SoakVenue, _venue.SYMBOLS


def test_growth_is_the_last_quarters_over_the_seconds() -> None:
    warming_up = [50.0] * 10 + [100.0] * 30
    assert soak_main.growth(warming_up) == 0.0
    assert soak_main.growth([100.0] * 30 + [110.0] * 10) == pytest.approx(0.10)
    assert soak_main.growth([100.0]) == 0.0


HOUR = {**soak_main.LEAST, "memory_growth": 0.01, "violations": []}


def test_a_page_says_what_was_missed() -> None:
    page = soak_main.told(HOUR | {"memory_growth": 0.2, "violations": ["a", "b"]})
    assert "| memory_growth | 0.2 | <= 0.05 | MISSED |" in page
    assert "| violations | 2 | 0 | MISSED |" in page
    assert "- b" in page
    assert "Verdict: violated." in page
    assert "left out" in page
    assert "banned, clock_step, key_revoked" in page


@pytest.mark.parametrize("name", soak_main.LEAST)
def test_what_happened_too_seldom_shows_nothing(name: str) -> None:
    assert soak_main.outcome(HOUR) is Outcome.PASSED
    few = HOUR | {name: soak_main.LEAST[name] - 1}
    assert soak_main.outcome(few) is Outcome.INCONCLUSIVE
    page = soak_main.told(few)
    assert f"| {name} | {few[name]:,} | >= {soak_main.LEAST[name]} | MISSED |" in page
    assert "Verdict: inconclusive. Too little happened to show anything." in page
    assert soak_main.outcome(few | {"violations": ["a"]}) is Outcome.VIOLATED
    assert soak_main.outcome(few | {"memory_growth": math.nan}) is Outcome.VIOLATED


def test_the_market_pays_for_holding_and_hits_stops_every_tenth_minute() -> None:
    market = SoakMarket(4)
    step_ms, begin_ms = 60_000, SIMULATED_START_MS
    candles = [c for c in market.history(begin_ms - step_ms, begin_ms + 20 * step_ms)
               if c.symbol == "BTCUSDT"]  # fmt: skip
    for before, after in pairwise(candles):
        after.check()
        assert after.open == pytest.approx(before.close, rel=1e-4)
    moves = [candle.close / candle.open - 1 for candle in candles[1:]]
    assert all(move > 0.002 for move in moves[:9]), "more than two commissions"
    assert moves[9] < -0.01, "below a stop"
    assert moves[19] < -0.01


def test_an_hour_without_faults_holds_twice_what_it_must(tmp_path: Path) -> None:
    """On paper: no breaker, bias or limit keeps the strategy from trading all the hour."""
    minutes, step_ms = soak_main.LEAST["minutes"], 60_000
    begin_ms, end_ms = SIMULATED_START_MS, SIMULATED_START_MS + minutes * step_ms
    rows: dict[str, list[str]] = {symbol: [] for symbol in SYMBOLS}
    for c in SoakMarket(4).history(begin_ms - WARM_CANDLES * step_ms, end_ms):
        prices = ",".join(f"{price:.8f}" for price in (c.open, c.high, c.low, c.close, c.volume))
        rows[c.symbol].append(f"{c.open_time_ms},{prices},{c.close_time_ms - 1},0,0,0,0,0")
    (tmp_path / "candles").mkdir()
    for symbol, lines in rows.items():
        (tmp_path / "candles" / f"{symbol}-1m.csv").write_text("\n".join(lines))
    settings = load_settings(
        environment={
            "BOT4_HOME": str(tmp_path),
            "BOT4_MODELS": str(tmp_path / "models"),
            "BOT4_RUNTIME__STRATEGY": "soak_strategy:Busy",
            "BOT4_RUNTIME__INTERVAL": "1m",
            **soak_main.RISK,
        }
    )
    options = app.RunOptions(source=f"recorded:{tmp_path / 'candles'}", from_ms=begin_ms)
    run = app.build(settings, options, mode="paper", folder=tmp_path / "run")
    run.execute(threading.Event())
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        events = [event for _, event in journal.events()]
    ours = [event.intent for event in events if isinstance(event, OrderIntended)
            and event.intent.book is Book.VALIDATED]  # fmt: skip
    fills = [event.fill for event in events if isinstance(event, OrderFilled)
             and event.fill.book is Book.VALIDATED]  # fmt: skip
    assert len(ours) >= 2 * soak_main.LEAST["orders_held_by_venue"]
    assert len(fills) >= 2 * soak_main.LEAST["trades"]
    assert max(intent.ts_ns for intent in ours) > (end_ms - 5 * step_ms) * 1_000_000
    breakers = [event.state for event in events if isinstance(event, BreakerChanged)]
    assert {state.phase for state in breakers} == {BreakerPhase.CLOSED}
    assert {order.purpose for order in ours} == {Purpose.ENTRY, Purpose.STOP, Purpose.EXIT}


def test_the_venues_candles_end_with_the_one_that_forms() -> None:
    made = SoakVenue(soak_main.DEPOSITS, 1, 4)
    now_ms = made.venue.exchange.now_ms()
    rows = made.klines(
        {"symbol": "BTCUSDT", "startTime": str(now_ms - 3_600_000), "limit": "1000"}
    )
    assert [row[0] for row in rows] == [rows[0][0] + n * 60_000 for n in range(len(rows))]
    assert rows[-1][0] <= now_ms < rows[-1][0] + 120_000
    assert made.klines({"symbol": "BTCUSDT", "startTime": str(now_ms + 60_000)}) == []
    made.move()
    assert {entry.kind for entry in made.sink.entries} <= {"print"}


@pytest.mark.long
def test_two_minutes_lose_nothing(tmp_path: Path) -> None:
    measured = soak_main.soak(tmp_path, 2.0, 5)
    assert measured["violations"] == []
    assert measured["orders_held_by_venue"] > 3
