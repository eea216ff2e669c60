"""A sample of `benchmarks/power.py`, which runs the whole: what chance and skill get through."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[3] / "benchmarks" / "power.py"
if not PATH.exists():  # mutation testing copies the tests alone
    pytest.skip("benchmarks/power.py is not here", allow_module_level=True)
SPEC = importlib.util.spec_from_file_location("benchmarks_power", PATH)
power = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = power
SPEC.loader.exec_module(power)


def test_a_rule_of_true_sharpe_three_gets_through_nearly_always():
    found = power.power(40)
    assert found.least == 0.85
    assert found.share >= 0.85


@pytest.mark.parametrize(
    ("scenario", "count"),
    [("single_nulls", 60), ("family_nulls", 4), ("duplicate_nulls", 3), ("pooled_nulls", 60)],
)
def test_chance_gets_through_no_more_often_than_stated(scenario, count):
    found = getattr(power, scenario)(count)
    assert (found.most, found.what) == (0.05, "approved")
    assert found.judged == count
    assert found.share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / count)


@pytest.mark.parametrize(
    ("scenario", "count", "most"),
    [
        ("zero_means", 60, 0.064),
        ("zero_mean_families", 4, 0.064),
        ("lasting_luck", 60, 0.10),
        ("overlapping_trades", 60, 0.10),
    ],
)
def test_a_mean_of_zero_is_significant_no_more_often_than_stated(scenario, count, most):
    """By the p-value alone: a Sharpe ratio above 2 would keep chance out without it."""
    found = getattr(power, scenario)(count)
    assert (found.most, found.what) == (most, "p < 5 %")
    assert found.judged == count
    assert found.share <= most + 2 * math.sqrt(most * (1 - most) / count)


def test_the_rows_of_the_p_value_count_p_values_and_not_approvals():
    """A true Sharpe ratio just below 2: significant more often than approved."""
    good = [[power.drawn(seed, 1.9)] for seed in range(12)]
    assert power.significant("", good, 1.0).counted > power.judge("", good, 0.0, 1.0).counted + 3


def test_trades_taken_as_independent_would_let_correlated_coins_through():
    """The scenario bites: the specification's own test is fooled by it."""
    histories = [power._pooled(seed, 9) for seed in range(60)]
    fooled = sum(
        history.net.mean() > 0 and power.make_records(
            [history], power.Provenance(power.Origin.REAL, "1h", (), power.NOW_MS, "", "", 1),
            draws=19,
        )[0].p_spec_t < 0.05
        for history in histories
    )  # fmt: skip
    assert fooled / len(histories) > 0.15
