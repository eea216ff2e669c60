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


def test_a_fill_of_an_earlier_day_is_refused():
    tracker = VolumeTracker()
    tracker.add(MS_PER_DAY, D(1))
    with pytest.raises(DataError, match="fills in order"):
        tracker.add(0, D(1))
