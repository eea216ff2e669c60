"""Where training ends, validation begins and the test begins: one set of dates for all symbols.

Test is the last 6 months before the end of the candles that all symbols have, validation the 12
months before, training everything earlier, at least 2 years of it; with less the whole is cut
70/15/15 by time, and less than 18 months is refused.
"""

import calendar
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.regime.manifest import Cuts

TEST_MONTHS: Final = 6
VALIDATION_MONTHS: Final = 12
TRAIN_MONTHS: Final = 24
LEAST_MONTHS: Final = 18
EMBARGO: Final = 200
"""Candles not scored or trained on after each boundary, since windows reach across it."""
UNSETTLED: Final = 24
"""Candles not scored before the end of a split, since their hindsight may still change."""
SPLITS: Final = ("train", "validation", "test")
_DAY_MS: Final = 86_400_000


def choose_cuts(
    ranges: Mapping[str, tuple[int, int]],
    interval: str,
    *,
    validation_start_ms: int | None = None,
    test_start_ms: int | None = None,
) -> Cuts:
    """Choose the dates of the splits.

    Args:
        ranges: first and last open time of each symbol's candles, UTC ms.
        interval: of the candles.
        validation_start_ms: overrides the rule; needs `test_start_ms` too.
        test_start_ms: overrides the rule; needs `validation_start_ms` too.

    Raises:
        DataError: no symbols, less than 18 months in common time, dates out of order, or a
            symbol without candles in one of the splits.
    """
    if not ranges:
        raise DataError("no symbols to choose training dates for; ingest candles first")
    start = min(first for first, _ in ranges.values())
    end = min(last for _, last in ranges.values()) + interval_ms(interval)
    if (validation_start_ms is None) != (test_start_ms is None):
        raise DataError("set both validation_start_ms and test_start_ms, or neither")
    if validation_start_ms is None or test_start_ms is None:
        validation_start_ms, test_start_ms = _by_rule(start, end)
    cuts = Cuts(
        train_start_ms=start,
        validation_start_ms=validation_start_ms,
        test_start_ms=test_start_ms,
        end_ms=end,
    )
    if not start < validation_start_ms < test_start_ms < end:
        raise DataError(f"the dates are out of order: {describe(cuts)}; choose others")
    for symbol, (first, _) in ranges.items():
        if first >= validation_start_ms:
            raise DataError(
                f"{symbol} begins {_day(first)}, after training ends ({describe(cuts)}): "
                "leave it out, or set the dates yourself"
            )
    return cuts


def _by_rule(start: int, end: int) -> tuple[int, int]:
    """Return validation start and test start, UTC ms."""
    if months_before(end, LEAST_MONTHS) < start:
        raise DataError(
            f"the candles of all symbols together reach from {_day(start)} to {_day(end)}; "
            f"training needs at least {LEAST_MONTHS} months: ingest more history"
        )
    test = months_before(end, TEST_MONTHS)
    validation = months_before(test, VALIDATION_MONTHS)
    if months_before(validation, TRAIN_MONTHS) >= start:
        return validation, test
    validation, test = (
        (start + (end - start) * share // 100) // _DAY_MS * _DAY_MS for share in (70, 85)
    )
    return validation, test


def months_before(moment_ms: int, months: int) -> int:
    """Return the UTC midnight this many calendar months before the day of a moment, ms."""
    day = datetime.fromtimestamp(moment_ms / 1000, UTC)
    index = day.year * 12 + day.month - 1 - months
    year, month = divmod(index, 12)
    last = calendar.monthrange(year, month + 1)[1]
    midnight = datetime(year, month + 1, min(day.day, last), tzinfo=UTC)
    return int(midnight.timestamp()) * 1000


def split_slices(open_time_ms: npt.NDArray[np.int64], cuts: Cuts) -> dict[str, slice]:
    """Return the rows of ``train``, ``validation`` and ``test`` in a sorted column of times.

    Raises:
        DataError: a split is empty.
    """
    edges = (cuts.train_start_ms, cuts.validation_start_ms, cuts.test_start_ms, cuts.end_ms)
    rows = np.searchsorted(open_time_ms, edges).tolist()
    slices = {name: slice(rows[number], rows[number + 1]) for number, name in enumerate(SPLITS)}
    for name, rows_of in slices.items():
        if rows_of.start >= rows_of.stop:
            raise DataError(f"the {name} split has no candles ({describe(cuts)})")
    return slices


def scored(rows: slice) -> slice:
    """Return the rows of a split that are scored: not the first 200, not the last 24."""
    return slice(min(rows.start + EMBARGO, rows.stop), max(rows.stop - UNSETTLED, rows.start))


def describe(cuts: Cuts) -> str:
    """Return the dates in words."""
    return (
        f"training from {_day(cuts.train_start_ms)}, validation from "
        f"{_day(cuts.validation_start_ms)}, test from {_day(cuts.test_start_ms)} to "
        f"{_day(cuts.end_ms)}"
    )


def _day(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d")
