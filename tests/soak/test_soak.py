"""The soak's own arithmetic, and a short soak."""

import importlib.util
import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from bot4_runtime.rehearsal.verdict import Outcome
from bot4_runtime.sources import SIMULATED_START_MS

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
_named = importlib.util.spec_from_file_location("soak_main", HERE / "__main__.py")
soak_main = importlib.util.module_from_spec(_named)
_named.loader.exec_module(soak_main)
SoakVenue = importlib.import_module("soak_venue").SoakVenue


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
    market = sys.modules["soak_venue"].SoakMarket(4)
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
    assert candles[0].close == pytest.approx(candles[0].open, rel=0.01)


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
