"""SAME_SERIES: two symbols, or two markets, that have one and the same market's candles.

No two markets trade equal amounts candle after candle, nor move by equal factors to the last
digit. Which of the two has the wrong name, their candles do not say; both are blocked.

Good candles, 55 pairs of 1h series (spot, USD-M, mark price): no equal volumes, equal moves in at
most 0.17 % of the sampled candles.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles

SAMPLE_EVERY: Final = 16
"""Candles of which one is compared, by its place in time, so that series share their samples."""
ENOUGH: Final = 30
"""Compared candles from which equality is no chance."""
SAME: Final = 0.5
"""Share of them that must be equal; good data: at most 0.0017."""
EQUAL: Final = 1e-6
"""Difference of ln(close / open), or of ranges, up to which two candles moved alike."""
MOVED: Final = 2e-4
"""Range from which a candle's move tells anything."""


def same_series(files: Mapping[str, RawCandles], interval_ms: int) -> dict[str, list[Finding]]:
    """Find symbols whose candles are another's.

    Args:
        files: symbol to rows, one market and interval.
        interval_ms: length of a candle.

    Returns:
        Findings of each symbol that has a twin.
    """
    samples = {symbol: _sample(raw, interval_ms) for symbol, raw in files.items()}
    names = sorted(samples)
    twins: dict[str, list[str]] = {}
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            if _alike(samples[one], samples[other]):
                twins.setdefault(one, []).append(other)
                twins.setdefault(other, []).append(one)
    return {
        symbol: [
            found(
                files[symbol],
                Code.SAME_SERIES,
                Severity.ERROR,
                f"rows are the same market's as those of {' '.join(others)}; one of them has a "
                "wrong name",
                np.arange(len(files[symbol])),
            )
        ]
        for symbol, others in twins.items()
    }


Sample = dict[str, NDArray[np.float64]]


def _sample(raw: RawCandles, interval_ms: int) -> Sample:
    keep = (raw.open_time_ms // interval_ms) % SAMPLE_EVERY == 0
    if np.count_nonzero(keep) < 4 * ENOUGH:
        keep = np.ones(len(raw), dtype=bool)
    keep &= (raw.low > 0.0) & (raw.high > raw.low)
    times, first = np.unique(raw.open_time_ms[keep], return_index=True)
    one = raw.take(keep).take(first)
    return {
        "time": times.astype(np.float64),
        "volume": one.volume,
        "move": np.log(one.close / one.open),
        "range": np.log(one.high / one.low),
    }


def _alike(one: Sample, other: Sample) -> bool:
    _, mine, theirs = np.intersect1d(
        one["time"], other["time"], assume_unique=True, return_indices=True
    )
    if mine.size < ENOUGH:
        return False
    volume = one["volume"][mine]
    traded = volume > 0.0
    equal = volume[traded] == other["volume"][theirs][traded]
    if equal.size >= ENOUGH and equal.mean() >= SAME:
        return True
    told = one["range"][mine] > MOVED
    apart = [
        np.abs(one[name][mine][told] - other[name][theirs][told]) for name in ("move", "range")
    ]
    return bool(
        told.sum() >= ENOUGH and ((apart[0] <= EQUAL) & (apart[1] <= EQUAL)).mean() >= SAME
    )
