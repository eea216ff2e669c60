import re

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


@pytest.mark.parametrize(
    ("quantity", "mark"),
    [(1.0, np.nan), (np.nan, 1.0), (np.inf, 1.0), (-1.0, np.inf), (0.0, np.inf), (1e200, 1e200)],
)
def test_a_position_whose_value_is_not_finite_is_refused_by_name_everywhere(quantity, mark):
    held = [HeldPosition("A", 1.0, 10.0), HeldPosition("B", quantity, mark)]
    for look in (
        lambda: exposure_by_symbol(held),
        lambda: leverage(held, 500.0),
        lambda: portfolio_risk(held, np.ones(3), _returns(1, (100, 2))),
    ):
        with pytest.raises(DataError, match=re.escape(f"B: {quantity} at a mark of {mark}")):
            look()


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


def test_the_whole_look_agrees_with_its_parts():
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


def test_the_level_of_the_whole_look_is_the_one_that_was_asked_for():
    returns = _returns(8, (500, 2))
    held = [HeldPosition("A", 3.0, 100.0), HeldPosition("B", -2.0, 50.0)]
    look = portfolio_risk(held, np.array([900.0, 1_000.0]), returns, level=0.99)
    profits = returns @ np.array([0.3, -0.1])
    assert look.level == 0.99
    assert look.value_at_risk == pytest.approx(value_at_risk(profits, 0.99))
    assert look.expected_shortfall == pytest.approx(expected_shortfall(profits, 0.99))


@pytest.mark.parametrize("shape", [(30, 2), (30,)])
def test_returns_must_have_one_column_a_position(shape):
    with pytest.raises(DataError) as refused:
        portfolio_risk([HeldPosition("A", 1.0, 1.0)], np.ones(3), np.zeros(shape))
    assert (
        str(refused.value) == f"returns are {shape}; expected (periods, 1), one column a position"
    )


# ------------------------------------------------------------------------------ words
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: drawdowns(np.array([-1.0, 5.0])),
            "equity must start above zero; received -1.0",
        ),
        (
            lambda: drawdowns(np.ones((2, 3))),
            "equity must be a finite, non-empty row; received shape (2, 3)",
        ),
        (
            lambda: value_at_risk(np.zeros(9), 0.95),
            "9 returns say nothing about the worst 5.000%; at least 20 are needed",
        ),
        (
            lambda: value_at_risk(np.array([np.nan] * 20), 0.95),
            "a return is not finite; leave out periods without a return",
        ),
        (
            lambda: value_at_risk(np.zeros(9), 2.0),
            "a tail needs a level between 0 and 1; received 2.0",
        ),
        (
            lambda: correlation_matrix(np.zeros((1, 2))),
            "returns must be finite, at least two periods by asset; received (1, 2)",
        ),
        (lambda: leverage([], -3.0), "leverage has no value at an equity of -3.0"),
        (
            lambda: sharpe(np.array([0.1]), "1d"),
            "a Sharpe ratio needs two finite returns; received 1",
        ),
        (
            lambda: sharpe(np.array([0.1, 0.2]), "1d", level=0.0),
            "an interval needs a level between 0 and 1; received 0.0",
        ),
        (
            lambda: sharpe(np.full(5, 0.1), "1d"),
            "a Sharpe ratio of returns without variance has no value",
        ),
    ],
)
def test_what_has_no_value_says_so_in_words(call, words):
    with pytest.raises((DataError, UndefinedStatistic)) as refused:
        call()
    assert str(refused.value) == words


# ------------------------------------------------------------------------------ edges
def test_two_periods_are_enough_for_a_correlation_and_a_sharpe_ratio():
    matrix = correlation_matrix(np.array([[0.1, -0.3], [0.2, -0.5]]))
    assert matrix == pytest.approx(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert (np.abs(matrix) <= 1.0).all()
    returns = np.array([0.01, 0.03])
    expected = 0.02 / np.std(returns, ddof=1) * np.sqrt(365)
    assert sharpe(returns, "1d", risk_free=0.0).value == pytest.approx(expected)


def test_the_usual_sharpe_ratio_is_over_four_percent_at_95_percent():
    returns = _returns(11, 300)
    usual, spelled = sharpe(returns, "1d"), sharpe(returns, "1d", risk_free=0.04, level=0.95)
    assert (usual.value, usual.low, usual.high) == (spelled.value, spelled.low, spelled.high)


def test_leverage_of_less_than_one_unit_of_equity_has_a_value():
    assert leverage([HeldPosition("A", 1.0, 1.0)], 0.5) == 2.0


def test_positions_of_one_symbol_are_one_exposure():
    legs = [HeldPosition("A", 2.0, 10.0), HeldPosition("B", 1.0, 5.0), HeldPosition("A", -1, 10.0)]
    assert exposure_by_symbol(legs) == {"A": 10.0, "B": 5.0}


def test_a_constant_large_return_never_moved_and_a_tiny_one_did():
    """What counts as no variance is relative: rounding of a constant is not movement."""
    rng = np.random.default_rng(3)
    for constant in (0.1, -0.1):
        returns = np.column_stack([np.full(60, constant), 1e-9 * rng.standard_normal((60, 2))])
        matrix = correlation_matrix(returns)
        assert np.isnan(matrix[0]).all()
        assert matrix[1, 2] == pytest.approx(np.corrcoef(returns[:, 1:].T)[0, 1])
    assert np.isfinite(sharpe(-5.0 + 1e-6 * rng.standard_normal(50), "1d").value)


@pytest.mark.parametrize("constant", [0.1, -0.1, 0.3, -0.3])
def test_rounding_of_a_constants_mean_is_no_movement_at_any_length(constant):
    for n in range(2, 60):
        returns = np.full(n, constant)
        with pytest.raises(UndefinedStatistic, match="without variance"):
            sharpe(returns, "1d")
        matrix = correlation_matrix(np.column_stack([returns, np.arange(n)]))
        assert np.isnan(matrix[0]).all()


def test_a_perfect_correlation_is_one_and_no_more():
    rng = np.random.default_rng(4)
    base = rng.standard_normal(997)
    matrix = correlation_matrix(np.column_stack([base * k for k in (1, 3, -7, 0.1, 1e-5, -1e7)]))
    assert (np.abs(matrix) <= 1.0).all()
