"""Running moments against numpy and scipy: added, merged, told, over a million numbers."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from bot4_runtime.signals.moments import RunningMoments, moments_of, repeated

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60)


def added(numbers):
    moments = RunningMoments()
    for number in numbers:
        moments.add(number)
    return moments


def assert_numpys(moments, numbers, rel=1e-9):
    array = np.asarray(numbers, np.float64)
    spread = array.std()
    scale = float(np.abs(array).max())
    assert moments.n == len(array)
    assert moments.mean == pytest.approx(array.mean(), rel=rel, abs=1e-12 * scale)
    if spread > max(1e-6 * scale, 1e-40):
        assert moments.variance() == pytest.approx(array.var(), rel=rel)
        assert moments.std() == pytest.approx(array.std(ddof=1), rel=rel)
        skewness = float(stats.skew(array))
        assert moments.skewness() == pytest.approx(skewness, rel=1e-6, abs=1e-6)
        assert moments.kurtosis() == pytest.approx(
            float(stats.kurtosis(array, fisher=False)), rel=1e-6
        )


@given(values)
def test_added_one_by_one_they_are_numpys(numbers):
    assert_numpys(added(numbers), numbers)


@given(values, values)
def test_merged_they_are_those_of_both_together(first, second):
    merged = added(first)
    merged.merge(added(second))
    assert_numpys(merged, first + second)


@given(values, st.integers(0, 60))
def test_they_go_on_from_what_was_told(numbers, cut):
    first, rest = numbers[:cut], numbers[cut:]
    assume(len(first) > 1 and np.std(first) > 1e-3)
    before = added(first)
    told = moments_of(before.n, before.mean, before.std(), before.skewness(), before.kurtosis())
    for number in rest:
        told.add(number)
    assert_numpys(told, numbers, rel=1e-7)


@given(values, st.floats(-10, 10), st.integers(0, 20))
def test_a_repeated_value_is_that_many_additions(numbers, value, count):
    one, other = added(numbers), added(numbers)
    one.merge(repeated(value, count))
    for _ in range(count):
        other.add(value)
    assert one.n == other.n
    assert one.mean == pytest.approx(other.mean, abs=1e-9)
    assert one.m2 == pytest.approx(other.m2, rel=1e-9, abs=1e-9)


def test_after_a_million_additions_far_from_zero_no_digit_that_matters_is_lost():
    numbers = np.random.Generator(np.random.PCG64(1)).gamma(2.0, 1e-3, 1_000_000) + 1e4
    moments = RunningMoments()
    for number in numbers.tolist():
        moments.add(number)
    centred = numbers - numbers.mean()
    assert moments.n == 1_000_000
    assert moments.mean == pytest.approx(numbers.mean(), rel=1e-13)
    assert moments.variance() == pytest.approx(np.mean(centred**2), rel=1e-7)
    assert moments.skewness() == pytest.approx(float(stats.skew(numbers)), rel=1e-5)
    assert moments.kurtosis() == pytest.approx(
        float(stats.kurtosis(numbers, fisher=False)), rel=1e-5
    )
    naive = np.mean(numbers * numbers) - numbers.mean() ** 2
    assert abs(naive / np.mean(centred**2) - 1) > 1e-4  # sums of squares would lose them


@pytest.mark.parametrize("numbers", [[], [1.0], [0.1] * 7, [0.0] * 5, [math.nan, 1.0]])
def test_too_few_equal_or_broken_numbers_have_no_spread(numbers):
    moments = added(numbers)
    for value in (
        moments.variance(), moments.std(), moments.skewness(), moments.kurtosis(),
    ):  # fmt: skip
        assert math.isnan(value)


def test_numbers_equal_but_for_rounding_have_no_spread():
    moments = added([0.1 + 0.2, 0.3] * 4)
    assert moments.m2 > 0.0
    assert math.isnan(moments.std())
    assert not math.isnan(added([1.0, 1.0 + 1e-9]).std())
    assert math.isnan(added([0.0, 1e-60]).kurtosis())
    assert added([0.0, 1e-48]).kurtosis() == pytest.approx(1.0)


def test_two_numbers_have_the_spread_of_two_numbers():
    moments = added([1.0, 3.0])
    assert (moments.n, moments.mean, moments.variance()) == (2, 2.0, 1.0)
    assert moments.std() == math.sqrt(2.0)
    assert (moments.skewness(), moments.kurtosis()) == (0.0, 1.0)


def test_one_number_is_merged_with_others_and_gone_on_from_like_any():
    merged = added([1.0])
    merged.merge(added([2.0, 4.0, 9.0]))
    assert_numpys(merged, [1.0, 2.0, 4.0, 9.0])
    told = moments_of(1, 1.0, 0.0, 0.0, 0.0)
    for number in (2.0, 4.0, 9.0):
        told.add(number)
    assert_numpys(told, [1.0, 2.0, 4.0, 9.0])


def test_nothing_merges_to_nothing_and_a_copy_goes_its_own_way():
    moments = RunningMoments()
    moments.merge(RunningMoments())
    assert (moments.n, moments.mean, moments.m2, moments.m3, moments.m4) == (0, 0.0, 0.0, 0.0, 0.0)
    source = added([1.0, 2.0, 4.0])
    moments.merge(source)
    twin = moments.copy()
    told = [(m.n, m.mean, m.m2, m.m3, m.m4) for m in (source, moments, twin)]
    assert told[0] == told[1] == told[2]
    twin.add(100.0)
    assert moments.n == 3
    assert twin.n == 4
    before = (twin.n, twin.mean, twin.m2)
    twin.merge(RunningMoments())
    assert (twin.n, twin.mean, twin.m2) == before


def test_what_nobody_told_stays_unknown():
    unknown = moments_of(0, math.nan, math.nan, math.nan, math.nan)
    unknown.add(1.0)
    assert math.isnan(unknown.mean)
    assert math.isnan(unknown.std())
    assert repeated(5.0, 0).n == 0
    assert repeated(5.0, 0).mean == 0.0
    assert repeated(5.0, -1).n == 0
    assert (repeated(5.0, 1).n, repeated(5.0, 1).mean) == (1, 5.0)
