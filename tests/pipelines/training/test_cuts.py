"""The dates of the splits."""

from datetime import UTC, datetime

import numpy as np
import pytest

from bot4_pipelines.training.cuts import choose_cuts, months_before, scored, split_slices
from bot4_runtime.domain.errors import DataError

HOUR = 3_600_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


POOL = {
    "BTCUSDT": (ms("2018-01-01"), ms("2025-06-30T23:00")),
    "BNBUSDT": (ms("2020-09-01"), ms("2025-07-03T05:00")),
}


def test_test_is_the_last_six_months_and_validation_the_year_before():
    cuts = choose_cuts(POOL, "1h")
    assert cuts.train_start_ms == ms("2018-01-01")
    assert cuts.validation_start_ms == ms("2024-01-01")
    assert cuts.test_start_ms == ms("2025-01-01")
    assert cuts.end_ms == ms("2025-07-01")


def test_short_histories_are_cut_70_15_15():
    start, end = ms("2022-01-01"), ms("2024-06-01")
    cuts = choose_cuts({"A": (start, end - HOUR)}, "1h")
    shares = [
        (moment - start) / (end - start)
        for moment in (cuts.validation_start_ms, cuts.test_start_ms)
    ]
    assert shares == pytest.approx([0.70, 0.85], abs=0.002)


def test_less_than_eighteen_months_are_refused():
    with pytest.raises(DataError, match="at least 18 months"):
        choose_cuts({"A": (ms("2023-01-02"), ms("2024-06-30T23:00"))}, "1h")
    choose_cuts({"A": (ms("2023-01-01"), ms("2024-06-30T23:00"))}, "1h")


def test_dates_can_be_overridden_but_not_by_halves_nor_out_of_order():
    chosen = choose_cuts(
        POOL, "1h", validation_start_ms=ms("2023-01-01"), test_start_ms=ms("2024-01-01")
    )
    assert chosen.test_start_ms == ms("2024-01-01")
    with pytest.raises(DataError, match="both"):
        choose_cuts(POOL, "1h", test_start_ms=ms("2024-01-01"))
    with pytest.raises(DataError, match="out of order"):
        choose_cuts(
            POOL, "1h", validation_start_ms=ms("2024-01-01"), test_start_ms=ms("2023-01-01")
        )


def test_a_symbol_that_begins_after_training_is_named():
    with pytest.raises(DataError, match="NEWUSDT begins 2024-05-01"):
        choose_cuts({**POOL, "NEWUSDT": (ms("2024-05-01"), ms("2025-06-30T23:00"))}, "1h")


def test_no_symbols_is_an_error():
    with pytest.raises(DataError, match="no symbols"):
        choose_cuts({}, "1h")


def test_months_end_where_months_end():
    assert months_before(ms("2025-03-31T13:00"), 1) == ms("2025-02-28")
    assert months_before(ms("2025-01-15"), 1) == ms("2024-12-15")


def test_splits_share_no_row_and_leave_none_out():
    cuts = choose_cuts(POOL, "1h")
    times = np.arange(ms("2018-01-01"), ms("2025-07-01"), HOUR)
    slices = split_slices(times, cuts)
    assert [slices[name].start for name in ("validation", "test")] == [
        slices[name].stop for name in ("train", "validation")
    ]
    assert (slices["train"].start, slices["test"].stop) == (0, len(times))
    assert times[slices["test"].start] == cuts.test_start_ms


def test_an_empty_split_is_an_error_never_a_pass():
    cuts = choose_cuts(POOL, "1h")
    with pytest.raises(DataError, match="test split has no candles"):
        split_slices(np.arange(ms("2018-01-01"), ms("2024-12-01"), HOUR), cuts)


def test_scored_rows_leave_out_the_embargo_and_the_unsettled():
    assert scored(slice(1_000, 2_000)) == slice(1_200, 1_976)
    empty = scored(slice(0, 100))
    assert empty.stop - empty.start <= 0
