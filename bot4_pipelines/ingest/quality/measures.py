"""What several rules measure on the same rows, computed once: ticks, ranges, tears, runs.

A tear is the distance between a close and the next open. Not here: what is good or bad.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.series import PRICE_COLUMNS

FINE_TICKS: Final = 20
"""Ticks in the median range from which prices count as fine."""
BLOCK: Final = 480
"""Rows over which ticks are told."""
NEIGHBOURS: Final = 12
"""Rows on either side that a row or a tear is compared with."""


@dataclass(frozen=True)
class Measured:
    """Rows in order, all possible, and what is measured on them.

    Attributes:
        traded: whether the file has volumes.
    """

    raw: RawCandles
    interval_ms: int
    traded: bool

    def __len__(self) -> int:
        return len(self.raw)

    @cached_property
    def ticks(self) -> NDArray[np.float64]:
        """Least step between prices around each row, in quote."""
        return ticks(self.raw)

    @cached_property
    def span(self) -> NDArray[np.float64]:
        """Range of each row, in quote."""
        return np.asarray(self.raw.high - self.raw.low)

    @cached_property
    def log_span(self) -> NDArray[np.float64]:
        """Range of each row, ln(high / low)."""
        return np.log(self.raw.high / self.raw.low)

    @cached_property
    def contiguous(self) -> NDArray[np.bool_]:
        """bool[n - 1]: the next row follows without a gap."""
        return np.asarray(np.diff(self.raw.open_time_ms) == self.interval_ms)

    @cached_property
    def tears(self) -> NDArray[np.float64]:
        """float64[n - 1]: ln(next open / close), less what two ticks explain."""
        raw = self.raw
        apart = np.log(raw.open[1:] / raw.close[:-1])
        spread = 2.0 * self.ticks[:-1] / raw.close[:-1]
        return np.asarray(np.sign(apart) * np.maximum(np.abs(apart) - spread, 0.0))

    @cached_property
    def span_ticks(self) -> float:
        """Ticks in the median range of the rows that have any; 0 where none has."""
        spans = self.span[self.span > 0.0]
        tick = float(np.median(self.ticks))
        return float(np.median(spans)) / max(tick, 1e-300) if spans.size else 0.0

    @cached_property
    def local_ticks(self) -> NDArray[np.float64]:
        """Ticks in the median range around each row: a price that fell a lot has coarse ticks."""
        local = np.zeros(len(self))
        for start in range(0, len(self), BLOCK):
            rows = slice(start, start + BLOCK)
            spans = self.span[rows][self.span[rows] > 0.0]
            if spans.size:
                local[rows] = np.median(spans) / max(float(self.ticks[start]), 1e-300)
        return local

    @cached_property
    def moving(self) -> float:
        """Share of rows with a range: little of it is a market hardly traded."""
        return float(np.mean(self.span > 0.0)) if len(self) else 0.0

    @property
    def fine(self) -> bool:
        """Whether a usual range holds many ticks, so that equal prices are no chance."""
        return self.span_ticks >= FINE_TICKS


def ticks(raw: RawCandles, block: int = BLOCK) -> NDArray[np.float64]:
    """Return the least step between prices around each row: ticks change over the years."""
    steps_of = np.zeros(len(raw))
    for start in range(0, len(raw), block):
        rows = slice(start, start + block)
        prices = np.unique([getattr(raw, name)[rows] for name in PRICE_COLUMNS])
        steps = np.diff(prices)
        steps_of[rows] = steps.min(initial=np.inf, where=steps > 1e-9 * prices[1:])
    return np.where(np.isfinite(steps_of), steps_of, 0.0)


def largest_before(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return float64[n + 1]: the largest of the `width` values before each place; 0 for none."""
    padded = np.concatenate([np.zeros(width), values])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, width).max(axis=1))


def around(values: NDArray[np.float64], quantile: float, width: int) -> NDArray[np.float64]:
    """Rolling quantile over `width` + 1 rows centred on each; reflected at the ends."""
    half = min(width, (len(values) - 1) // 2 * 2) // 2
    padded = np.pad(values, half, mode="reflect") if half else values
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    place = round(quantile * 2 * half)
    return np.concatenate(
        [
            np.partition(windows[start : start + 8_192], place, axis=1)[:, place]
            for start in range(0, len(windows), 8_192)
        ]
    )


def most_within(flags: NDArray[np.bool_], width: int) -> int:
    """Return the most flags that are set within `width` rows."""
    sums = np.concatenate(([0], np.cumsum(flags)))
    width = min(width, len(flags))
    return int((sums[width:] - sums[:-width]).max())


def runs(flags: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where runs of set flags start, and the places after their ends."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return edges[::2], edges[1::2]


def long_runs(flags: NDArray[np.bool_], least: int, usual_share: float) -> NDArray[np.intp]:
    """Return the rows of runs of set flags that are no chance.

    Args:
        flags: bool[n].
        least: rows of a run.
        usual_share: the share of set flags outside such runs above which none is reported.
    """
    starts, stops = runs(flags)
    long = stops - starts >= least
    inside = np.zeros(len(flags), dtype=bool)
    for start, stop in zip(starts[long], stops[long], strict=True):
        inside[start:stop] = True
    outside = flags[~inside]
    if outside.size and outside.mean() > usual_share:
        return np.empty(0, np.intp)
    return np.flatnonzero(inside)


def decimals(values: NDArray[np.float64], most: int = 10) -> int:
    """Return how many decimals nearly all positive values need; `most` + 1 when more."""
    for places in range(most + 1):
        scaled = values * 10.0**places
        judged = scaled < 1e14  # beyond, float64 does not hold the decimals
        whole = np.round(scaled)
        off = ((np.abs(scaled - whole) > 0.1) | (whole == 0.0))[judged]
        if not off.size or off.mean() <= 0.01:
            return places
    return most + 1
