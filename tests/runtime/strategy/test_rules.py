import math

import pytest

from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.domain.regime import Regime
from bot4_runtime.strategy.rules import REGIME_FOLLOWER, RULES_TRIED, RegimeRule, stop_distance


def test_the_regime_follower_enters_where_strong_bull_is_newly_reached():
    rule = REGIME_FOLLOWER
    assert rule.rule_id == "regime_follower"
    for previous in Regime:
        for current in Regime:
            expected = current is Regime.STRONG_BULL and previous is not Regime.STRONG_BULL
            assert rule.enters(previous, current) is expected
    assert not rule.enters(None, Regime.STRONG_BULL)


def test_the_regime_follower_leaves_at_bear_or_worse():
    leaving = [regime for regime in Regime if REGIME_FOLLOWER.exits(regime, 10_000)]
    assert leaving == [Regime.STRONG_BEAR, Regime.BEAR]


def test_a_timed_rule_leaves_after_its_candles():
    rule = RegimeRule("timed", (Regime.BULL,), (), hold_candles=72)
    assert not rule.exits(Regime.STRONG_BEAR, 71)
    assert rule.exits(Regime.STRONG_BULL, 72)


def test_rules_have_names_of_their_own_and_no_rule_leaves_where_it_enters():
    assert len({rule.rule_id for rule in RULES_TRIED}) == len(RULES_TRIED)
    for rule in RULES_TRIED:
        assert not set(rule.entry) & set(rule.leave)


@pytest.mark.parametrize(
    ("volatility", "distance"),
    [(0.0001, 0.02), (0.005, 4 * 0.005 * math.sqrt(24)), (0.02, 0.15)],
)
def test_the_stop_lies_four_daily_volatilities_away_within_bounds(volatility, distance):
    assert stop_distance(volatility) == pytest.approx(distance)


@pytest.mark.parametrize("volatility", [0.0, -1.0, math.nan, math.inf])
def test_a_stop_from_no_volatility_is_refused(volatility):
    with pytest.raises(UndefinedStatistic):
        stop_distance(volatility)
