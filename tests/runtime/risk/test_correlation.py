import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.risk.correlation import (
    Correlations,
    CorrelationTable,
    FixedCorrelations,
    most_observations,
)

HOUR = 3_600_000


def _walk(seed, count, symbols):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(count)
    own = rng.standard_normal((count, symbols))
    return 0.01 * (0.8 * common[:, None] + 0.6 * own) + 0.0005


def _fill(table, returns, times=None, names="ABCDEFGH"):
    for row, values in enumerate(returns):
        at = (row if times is None else int(times[row])) * HOUR
        for name, value in zip(names, values, strict=False):
            table.update(name, at, float(value))


@pytest.mark.parametrize("half_life", [24.0, 720.0])
def test_it_equals_the_weighted_correlation_of_pandas(half_life):
    returns = _walk(1, 900, 4)
    table = CorrelationTable(half_life_hours=half_life, min_observations=24)
    _fill(table, returns)
    expected = pd.DataFrame(returns).ewm(halflife=half_life).corr().loc[899].to_numpy()
    assert table.matrix(list("ABCD")) == pytest.approx(expected, abs=1e-9)


def test_without_forgetting_it_equals_the_plain_correlation_of_numpy():
    returns = _walk(2, 500, 3)
    table = CorrelationTable(half_life_hours=1e12)
    _fill(table, returns)
    assert table.matrix(list("ABC")) == pytest.approx(np.corrcoef(returns.T), abs=1e-9)


def test_a_gap_ages_what_came_before_by_its_length():
    returns = _walk(3, 200, 2)
    times = np.concatenate([np.arange(100), np.arange(100) + 5_000])
    table = CorrelationTable(half_life_hours=48.0)
    _fill(table, returns, times)
    weights = 0.5 ** ((times[-1] - times) / 48.0)
    covariance = np.cov(returns.T, aweights=weights, bias=True)
    expected = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert table.correlation("A", "B") == pytest.approx(expected, abs=1e-9)


def test_only_returns_at_the_same_time_count():
    returns = _walk(4, 400, 2)
    table = CorrelationTable(half_life_hours=100.0)
    kept = []
    for row, (one, two) in enumerate(returns):
        if row % 3:
            table.update("A", row * HOUR, float(one))
        if row % 5:
            table.update("B", row * HOUR, float(two))
        if row % 3 and row % 5:
            kept.append(row)
    rows = np.array(kept)
    weights = 0.5 ** ((rows[-1] - rows) / 100.0)
    covariance = np.cov(returns[rows].T, aweights=weights, bias=True)
    expected = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert table.observations("A", "B") == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert table.correlation("B", "A") == pytest.approx(expected, abs=1e-9)


def test_the_order_of_symbols_within_a_candle_does_not_matter():
    returns = _walk(5, 100, 3)
    straight, shuffled = CorrelationTable(), CorrelationTable()
    _fill(straight, returns)
    orders = list(itertools.permutations(range(3)))
    for row, values in enumerate(returns):
        for at in orders[row % len(orders)]:
            shuffled.update("ABC"[at], row * HOUR, float(values[at]))
    assert (straight.matrix(list("ABC")) == shuffled.matrix(list("ABC"))).all()


def test_the_past_before_the_start_of_a_run_leaves_the_bits_alone():
    """A restart that feeds the same returns gets the same number to the last bit."""
    returns = _walk(6, 300, 2)
    one, two = CorrelationTable(), CorrelationTable()
    two.update("C", 0, 0.5)
    _fill(one, returns, np.arange(300) + 400_000)
    _fill(two, returns, np.arange(300) + 400_000)
    assert one.correlation("A", "B") == two.correlation("A", "B")


def test_it_is_unknown_until_there_are_enough_joint_returns():
    returns = _walk(7, 72, 2)
    table = CorrelationTable()
    _fill(table, returns[:71])
    assert table.correlation("A", "B") is None
    table.update("A", 71 * HOUR, 0.01)
    assert table.correlation("A", "B") is None
    table.update("B", 71 * HOUR, 0.02)
    assert table.correlation("A", "B") is not None


@pytest.mark.parametrize(
    ("gap_days", "unknown_for"),
    [(0, 0), (90, 0), (365, 72), (3_650, 72)],
)
def test_a_long_gap_makes_it_unknown_until_fresh_returns_have_replaced_the_past(
    gap_days, unknown_for
):
    """Kish's effective sample size of the weights, sum(w)^2 / sum(w^2), by hand."""
    table = CorrelationTable()
    times = np.concatenate([np.arange(2_000), 2_000 + 24 * gap_days + np.arange(120)])
    returns = _walk(13, len(times), 2)
    _fill(table, returns[:2_000], times[:2_000])
    known_at = []
    for fresh in range(120):
        at = slice(2_000 + fresh, 2_001 + fresh)
        _fill(table, returns[at], times[at])
        weights = 0.5 ** ((times[2_000 + fresh] - times[: 2_001 + fresh]) / 720.0)
        effective = weights.sum() ** 2 / (weights**2).sum()
        assert table.observations("A", "B") == pytest.approx(effective)
        known = table.correlation("A", "B") is not None
        assert known == (effective >= 71.5)
        if known:
            known_at.append(fresh)
    assert len(known_at) == 120 - known_at[0]
    assert unknown_for - 10 < known_at[0] <= unknown_for


def test_the_most_observations_a_half_life_can_tell_is_where_an_endless_run_ends():
    for half_life, hours in ((720.0, 1), (720.0, 24), (24.0, 1), (720.0, 168)):
        table = CorrelationTable(half_life_hours=half_life, min_observations=3)
        _fill(table, _walk(14, 9_000, 2), np.arange(9_000) * hours)
        most = most_observations(half_life, hours * HOUR)
        assert table.observations("A", "B") == pytest.approx(most, rel=1e-3)


def test_it_is_unknown_for_symbols_never_seen_and_for_a_symbol_with_itself():
    table = CorrelationTable()
    _fill(table, _walk(8, 100, 2))
    assert table.correlation("A", "Z") is None
    assert table.correlation("Z", "A") is None
    assert table.correlation("A", "A") is None
    assert table.observations("A", "Z") == 0
    assert np.isnan(table.matrix(["A", "Z"])[0, 1])


def test_it_is_unknown_when_a_return_never_varies():
    table = CorrelationTable(min_observations=3)
    for row in range(50):
        table.update("A", row * HOUR, 0.01)
        table.update("B", row * HOUR, 0.01 * (-1) ** row)
    assert table.correlation("A", "B") is None


def test_a_missing_return_is_no_observation_and_leaves_the_table_whole():
    table = CorrelationTable(min_observations=3)
    _fill(table, _walk(9, 10, 2))
    before = table.correlation("A", "B")
    for value in (math.nan, math.inf, -math.inf):
        table.update("A", 10 * HOUR, value)
    table.update("B", 10 * HOUR, 0.01)
    assert table.correlation("A", "B") == before


@pytest.mark.parametrize("size", [1e200, 1e-162, 5e-324, 0.0])
def test_moments_that_overflow_or_vanish_make_it_unknown(size):
    table = CorrelationTable(min_observations=3)
    for row in range(5):
        table.update("A", row * HOUR, size * (-1) ** row)
        table.update("B", row * HOUR, 0.01 * row)
    assert table.correlation("A", "B") is None


def test_weights_that_die_out_over_a_very_long_gap_leave_only_what_is_new():
    table = CorrelationTable(half_life_hours=24.0, min_observations=3)
    _fill(table, _walk(10, 50, 2))
    later = _walk(11, 50, 2)
    _fill(table, later, np.arange(50) + 1_000_000)
    fresh = CorrelationTable(half_life_hours=24.0, min_observations=3)
    _fill(fresh, later, np.arange(50) + 1_000_000)
    assert table.correlation("A", "B") == fresh.correlation("A", "B")


@pytest.mark.parametrize("time", [5 * HOUR, 4 * HOUR])
def test_time_that_does_not_advance_is_refused(time):
    table = CorrelationTable()
    table.update("A", 5 * HOUR, 0.01)
    with pytest.raises(DataError, match="order of their time"):
        table.update("A", time, 0.01)


@pytest.mark.parametrize("half_life", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_half_life_is_refused(half_life):
    with pytest.raises(ConfigError, match="half-life"):
        CorrelationTable(half_life_hours=half_life)


def test_too_few_observations_to_correlate_are_refused():
    with pytest.raises(ConfigError, match="observations"):
        CorrelationTable(min_observations=2)


def test_given_correlations_are_found_in_either_order_and_nothing_else_is():
    fixed = FixedCorrelations({("A", "B"): 0.5})
    assert fixed.correlation("A", "B") == fixed.correlation("B", "A") == 0.5
    assert fixed.correlation("A", "C") is None


def test_the_bare_interface_knows_nothing():
    with pytest.raises(NotImplementedError):
        Correlations().correlation("A", "B")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
        min_size=3,
        max_size=30,
    )
)
def test_it_is_unknown_or_lies_between_minus_one_and_one(returns):
    table = CorrelationTable(min_observations=3)
    _fill(table, returns)
    found = table.correlation("A", "B")
    assert found is None or -1.0 <= found <= 1.0
    if found is not None:
        array = np.array(returns)
        spread = array.std(axis=0) / np.sqrt((array**2).mean(axis=0))
        if spread.min() > 1e-3:
            weights = 0.5 ** (np.arange(len(array))[::-1] / 720.0)
            c = np.cov(array.T, aweights=weights, bias=True)
            assert found == pytest.approx(c[0, 1] / math.sqrt(c[0, 0] * c[1, 1]), abs=1e-6)
