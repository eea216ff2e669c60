"""CROSS_INTERVAL, and FORMING_PERSISTED by it: candles against the shorter ones they are made of.

A candle is compared where all of its shorter candles are there: first open, highest high, lowest
low, last close, sum of volumes, exactly. One with less volume and a smaller range than its parts
was stored while open, even a single one.

Good candles: 5,644 hours against 1m candles, BTC and ETH, 2021 to 2025: 6 differ (3 hours of
2021-04 and -05 in both, as Binance restated them), none as a candle stored while open.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.series import PRICE_COLUMNS, CandleSeries

EQUAL: Final = 1e-9
"""Relative difference of prices up to which they are equal."""
EQUAL_VOLUME: Final = 1e-6
"""... and of volumes, which are sums."""
MANY: Final = 0.05
"""Share of compared candles that may differ, as restated ones do, before it is an ERROR."""
PART: Final = 0.99
"""Share of the parts' volume below which a candle may have been stored while open."""
ENOUGH: Final = 20
"""Compared candles from which that share is judged."""


def interval_findings(
    raw: RawCandles, interval_ms: int, finer: CandleSeries, *, traded: bool
) -> list[Finding]:
    """Compare rows with what stored candles of a shorter interval say."""
    length = finer.interval_ms
    if length >= interval_ms or interval_ms % length or not len(finer):
        return []
    made = _whole(finer, interval_ms)
    _, mine, theirs = np.intersect1d(
        raw.open_time_ms, made.open_time_ms, assume_unique=True, return_indices=True
    )
    differs = np.zeros(mine.size, dtype=bool)
    for name in PRICE_COLUMNS:
        one, other = getattr(raw, name)[mine], getattr(made, name)[theirs]
        differs |= np.abs(one - other) > EQUAL * other
    if traded:
        volume, parts = raw.volume[mine], made.volume[theirs]
        differs |= np.abs(volume - parts) > EQUAL_VOLUME * parts
        less = volume < PART * parts
    else:
        less = np.ones(mine.size, dtype=bool)
    smaller = (raw.high[mine] <= made.high[theirs]) & (raw.low[mine] >= made.low[theirs])
    same_open = np.abs(raw.open[mine] - made.open[theirs]) <= EQUAL * made.open[theirs]
    open_still = differs & less & smaller & same_open
    findings = []
    if open_still.any():
        message = (
            f"candles hold a part of their {finer.id.interval} candles alone: stored while open"
        )
        rows = mine[open_still]
        findings.append(found(raw, Code.FORMING_PERSISTED, Severity.ERROR, message, rows))
    other_rows = mine[differs & ~open_still]
    if other_rows.size:
        many = mine.size >= ENOUGH and other_rows.size > MANY * mine.size
        message = f"candles differ from the {finer.id.interval} candles they are made of"
        severity = Severity.ERROR if many else Severity.WARN
        findings.append(found(raw, Code.CROSS_INTERVAL, severity, message, other_rows))
    return findings


def _whole(finer: CandleSeries, interval_ms: int) -> RawCandles:
    """Make candles of those shorter ones that are all there."""
    times = finer.open_time_ms
    offset = 345_600_000 if interval_ms == 604_800_000 else 0
    bucket = (times - offset) // interval_ms
    starts = np.flatnonzero(np.append(True, np.diff(bucket) > 0))
    stops = np.append(starts[1:], len(times))
    whole = stops - starts == interval_ms // finer.interval_ms
    first, last = starts[whole], stops[whole] - 1

    def reduced(ufunc: np.ufunc, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ufunc.reduceat(values, starts)[whole])

    return RawCandles(
        finer.id.symbol,
        finer.id.key,
        bucket[first] * interval_ms + offset,
        finer.open[first],
        reduced(np.maximum, finer.high),
        reduced(np.minimum, finer.low),
        finer.close[last],
        reduced(np.add, finer.volume),
    )
