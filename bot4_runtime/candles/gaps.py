"""Gaps: candles missing between two that are there. They are kept and reported, never filled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing candles.

    Attributes:
        from_ms: open time of the first missing candle.
        to_ms: open time of the first candle after the gap.
        missing: how many candles are missing.
    """

    from_ms: int
    to_ms: int
    missing: int


def find_gaps(open_time_ms: NDArray[np.int64], interval_ms: int) -> list[Gap]:
    """Find the gaps of a series.

    Args:
        open_time_ms: int64[n], strictly increasing.
        interval_ms: length of a candle.

    Returns:
        One `Gap` for each step longer than the interval, in time order.
    """
    steps = np.diff(open_time_ms)
    return [
        Gap(
            from_ms=int(open_time_ms[row]) + interval_ms,
            to_ms=int(open_time_ms[row + 1]),
            missing=int(steps[row]) // interval_ms - 1,
        )
        for row in np.flatnonzero(steps > interval_ms)
    ]
