import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bot4_runtime.domain.errors import DataError, UndefinedStatistic
from bot4_runtime.risk.exposure import HeldPosition
from bot4_runtime.risk.metrics import (
    correlation_matrix,
    drawdowns,
    expected_shortfall,
    exposure_by_symbol,
    leverage,
    max_drawdown,
    portfolio_risk,
    sharpe,
    value_at_risk,
)

LEVELS = (0.9, 0.95, 0.99)


def _returns(seed, shape):
    return 0.01 * np.random.default_rng(seed).standard_t(4, shape)


@given(hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0.01, 1e6)))
def test_drawdowns_equal_brute_force(equity):
    brute = [1 - value / max(equity[: at + 1]) for at, value in enumerate(equity)]
    assert drawdowns(equity) == pytest.approx(brute)
    assert max_drawdown(equity) == pytest.approx(max(brute))


def test_the_worked_drawdown_example():
    assert max_drawdown(np.array([100.0, 120.0, 90.0, 130.0, 117.0])) == pytest.approx(0.25)


@pytest.mark.parametrize("equity", [[], [[1.0]], [1.0, np.nan], [np.inf], [0.0, 1.0], [-1.0, 1.0]])
def test_an_equity_curve_that_is_none_is_refused(equity):
    with pytest.raises(DataError, match="equity"):
        drawdowns(np.array(equity, dtype=np.float64))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", [100, 137, 500])
def test_value_at_risk_is_the_empirical_quantile_of_numpy(level, count):
    returns = _returns(1, count)
    # numpy is asked a hair inside the step, which 1 - level misses by rounding.
    oracle = -np.quantile(returns, 1 - level - 1e-12, method="inverted_cdf")
    assert value_at_risk(returns, level) == pytest.approx(oracle)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", [100, 137, 500])
def test_expected_shortfall_is_the_mean_of_the_quantile_function_over_the_tail(level, count):
    returns = _returns(2, count)
    grid = (np.arange(200_000) + 0.5) / 200_000 * (1 - level)
    oracle = -np.quantile(returns, grid, method="inverted_cdf").mean()
    assert expected_shortfall(returns, level) == pytest.approx(oracle, rel=1e-4)


def test_the_worked_tail_example():
    returns = np.arange(-5.0, 95.0) / 100
    assert value_at_risk(returns, 0.95) == pytest.approx(0.01)
    assert expected_shortfall(returns, 0.95) == pytest.approx(0.03)
    assert expected_shortfall(returns, 0.985) == pytest.approx((0.05 + 0.5 * 0.04) / 1.5)


@given(hnp.arrays(np.float64, 40, elements=st.floats(-1, 1)), st.sampled_from([0.9, 0.95]))
def test_expected_shortfall_is_never_below_value_at_risk(returns, level):
    assert expected_shortfall(returns, level) >= value_at_risk(returns, level) - 1e-12


@pytest.mark.parametrize(
    ("returns", "level", "words"),
    [
        ([0.1] * 19, 0.95, "at least 20"),
        ([0.1] * 99, 0.99, "at least 100"),
        ([], 0.5, "at least 2"),
        ([0.1, np.nan] * 20, 0.95, "not finite"),
        ([0.1] * 20, 1.0, "level"),
        ([0.1] * 20, 0.0, "level"),
        ([0.1] * 20, np.nan, "level"),
    ],
)
def test_a_tail_that_cannot_be_known_is_undefined(returns, level, words):
    for measure in (value_at_risk, expected_shortfall):
        with pytest.raises(UndefinedStatistic, match=words):
            measure(np.array(returns), level)


def test_correlations_equal_numpy():
    returns = _returns(3, (300, 6))
    assert correlation_matrix(returns) == pytest.approx(np.corrcoef(returns.T))


def test_an_asset_that_never_moved_has_no_correlation():
    returns = _returns(4, (50, 3))
    returns[:, 1] = 0.01
    matrix = correlation_matrix(returns)
    assert np.isnan(matrix[1]).all()
    assert np.isnan(matrix[:, 1]).all()
    assert matrix[0, 2] == pytest.approx(np.corrcoef(returns[:, [0, 2]].T)[0, 1])


@pytest.mark.parametrize("returns", [np.zeros(3), np.zeros((1, 2)), np.full((3, 2), np.nan)])
def test_returns_that_cannot_be_correlated_are_refused(returns):
    with pytest.raises(DataError, match="periods by asset"):
        correlation_matrix(returns)


def test_exposure_is_signed_and_leverage_is_gross():
    held = [HeldPosition("A", 2.0, 100.0), HeldPosition("B", -1.0, 50.0)]
    assert exposure_by_symbol(held) == {"A": 200.0, "B": -50.0}
    assert leverage(held, 500.0) == pytest.approx(0.5)
    assert leverage([], 500.0) == 0.0


@pytest.mark.parametrize("equity", [0.0, -1.0, np.nan, np.inf])
def test_leverage_without_equity_is_undefined(equity):
    with pytest.raises(UndefinedStatistic, match="leverage"):
        leverage([], equity)


@pytest.mark.parametrize(("interval", "periods"), [("1h", 8760), ("1d", 365), ("1m", 525_600)])
def test_sharpe_equals_the_textbook_and_mertens_interval(interval, periods):
    returns = _returns(5, 700) + 0.001
    found = sharpe(returns, interval, risk_free=0.04)
    ratio = (returns.mean() - 0.04 / periods) / returns.std(ddof=1)
    skew, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    error = np.sqrt((1 + ratio**2 / 2 - skew * ratio + (kurtosis - 3) / 4 * ratio**2) / 700)
    assert found.interval == interval
    assert found.value == pytest.approx(ratio * np.sqrt(periods))
    assert found.low == pytest.approx((ratio - 1.959964 * error) * np.sqrt(periods), rel=1e-6)
    assert found.high == pytest.approx((ratio + 1.959964 * error) * np.sqrt(periods), rel=1e-6)
    assert found.level == 0.95


def test_the_sharpe_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(400):
        found = sharpe(0.1 + rng.standard_normal(400), "1d", risk_free=0.0)
        hits += found.low <= 0.1 * np.sqrt(365) <= found.high
    assert 0.91 <= hits / 400 <= 0.985


@pytest.mark.parametrize(
    ("returns", "level"),
    [([0.01] * 50, 0.95), ([0.0, 0.0], 0.95), ([0.1], 0.95), ([0.1, np.nan], 0.95), ([1, 2], 1.0)],
)
def test_a_sharpe_without_value_is_undefined_not_zero(returns, level):
    with pytest.raises(UndefinedStatistic):
        sharpe(np.array(returns, dtype=np.float64), "1d", level=level)


def test_sharpe_refuses_an_unknown_interval():
    with pytest.raises(DataError, match="unknown interval"):
        sharpe(_returns(7, 30), "7h")


def test_the_whole_look_agrees_with_its_parts_and_is_quick():
    returns = _returns(8, (500, 20))
    held = [HeldPosition(f"S{at}", (-1.0) ** at, 10.0 + at) for at in range(20)]
    equity = 1_000.0 * np.exp(np.cumsum(_returns(9, 500)))
    look = portfolio_risk(held, equity, returns)
    weights = np.array([position.quantity * position.mark for position in held]) / equity[-1]
    assert look.exposure == exposure_by_symbol(held)
    assert look.leverage == pytest.approx(np.abs(weights).sum())
    assert look.drawdown == pytest.approx(1 - equity[-1] / equity.max())
    assert look.max_drawdown == pytest.approx(max_drawdown(equity))
    assert look.correlation == pytest.approx(np.corrcoef(returns.T))
    assert look.value_at_risk == pytest.approx(value_at_risk(returns @ weights))
    assert look.expected_shortfall == pytest.approx(expected_shortfall(returns @ weights))
    assert look.level == 0.95
    best = np.inf
    for _ in range(30):
        begun = time.perf_counter()
        portfolio_risk(held, equity, returns)
        best = min(best, time.perf_counter() - begun)
    assert best < 1e-3


def test_returns_must_have_one_column_a_position():
    with pytest.raises(DataError, match="one column"):
        portfolio_risk([HeldPosition("A", 1.0, 1.0)], np.ones(3), np.zeros((30, 2)))
