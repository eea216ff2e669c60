from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError
from bot4_runtime.fees.volume import MS_PER_DAY, VolumeTracker

fills = st.lists(
    st.tuples(st.integers(0, 80 * MS_PER_DAY), st.decimals(0, 1000, places=2)), max_size=40
)


@given(fills)
def test_the_total_equals_a_sum_over_the_thirty_days_before(fills):
    tracker, seen = VolumeTracker(), []
    for ts_ms, volume in sorted(fills):
        tracker.add(ts_ms, volume)
        seen.append((ts_ms // MS_PER_DAY, volume))
        today = ts_ms // MS_PER_DAY
        expected = sum((v for day, v in seen if today - 30 <= day < today), D(0))
        assert tracker.total(ts_ms) == expected


@pytest.mark.parametrize("bad", ["NaN", "-1", "Infinity"])
def test_impossible_volume_is_refused(bad):
    with pytest.raises(DataError, match="impossible"):
        VolumeTracker().add(0, D(bad))


@given(st.permutations(range(40)))
def test_fills_count_on_their_day_in_whatever_order_they_are_told(days):
    tracker = VolumeTracker()
    for day in days:
        tracker.add(day * MS_PER_DAY, D(1 << day))
    for today in (39, 40, 50, 69):
        due = sum(1 << day for day in range(40) if today - 30 <= day < today)
        assert tracker.total(today * MS_PER_DAY) == due


def test_a_fill_from_before_the_window_counts_towards_nothing():
    tracker = VolumeTracker()
    tracker.add(31 * MS_PER_DAY, D(1))
    tracker.add(0, D(7))
    assert [tracker.total(day * MS_PER_DAY) for day in (1, 31, 32)] == [0, 0, 1]
