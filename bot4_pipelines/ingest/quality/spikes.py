"""SPIKE, UNIT_CHANGE: prices that leave their neighbours for a row, or for good.

Measured in tears (a close against the next open) and wicks, each held against the largest range
of the 12 rows on either side, so that crashes, in which all ranges are large, stay out.

Good candles (926,012 rows of spot, USD-M and mark prices, 1m and 1h, also resampled up to 1d):
of tears above 3 % one is above 3 ranges (15 %, 4.5 ranges, USD-M ETH in 2019); none is above
20 % or 10 ranges. Of wicks above 10 %, two of 1h are above 6 ranges (7.6 and 18.9).
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality.measures import NEIGHBOURS, Measured, largest_before
from bot4_pipelines.ingest.quality_codes import Code

TEAR: Final = 0.03
"""ln of close against next open from which a tear is looked at ..."""
TEAR_RANGES: Final = 3.0
"""... and how many of the largest ranges beside it that must be: a WARN, the row is masked."""
TORN_APART: Final = 0.2
"""Tear that, together with `RANGES_APART`, no market shows: an ERROR."""
RANGES_APART: Final = 10.0
"""See `TORN_APART`; good candles: at most 4.5."""
WICK: Final = 0.1
"""ln of high against body, or body against low, from which a wick is looked at ..."""
WICK_RANGES: Final = 6.0
"""... and how many of the largest ranges beside it that must be. Real wicks reach it: a WARN."""
ANOTHER_SCALE: Final = math.log(1.5)
"""Tear after which prices stay away, without a gap: an ERROR below 12 hours' candles."""
AFTER_A_HALT: Final = math.log(3.0)
"""The same across a gap or after empty candles, where redenominations really happen: a WARN."""
HALT_MS: Final = 30 * 86_400_000
"""Gaps longer than this may bring any price."""
HALF_DAY_MS: Final = 43_200_000
LIQUID: Final = 0.8
"""Share of rows with a range below which nothing here is an ERROR: prices of a market hardly
traded jump between its trades."""
CONTEXT: Final = 6
"""Rows needed to know what is usual."""


def spike_findings(rows: Measured) -> list[Finding]:
    """Find prices that leave their neighbours."""
    if len(rows) < CONTEXT:
        return []
    tears, beside = rows.tears, _beside_tears(rows)
    suspect = (np.abs(tears) > TEAR) & (np.abs(tears) > TEAR_RANGES * beside)
    level = _level_change(rows, np.flatnonzero(suspect))
    return (
        _returning(rows, np.flatnonzero(suspect), level, beside)
        + _wicks(rows)
        + _another_scale(rows, np.flatnonzero(suspect), level, beside)
    )


def _beside_tears(rows: Measured) -> NDArray[np.float64]:
    """Return float64[n - 1]: the largest range beside a tear, its own two rows left out."""
    before = largest_before(rows.log_span, NEIGHBOURS)[: len(rows) - 1]
    after = largest_before(rows.log_span[::-1], NEIGHBOURS)[::-1][2:]
    return np.maximum(before, after)


def _level_change(rows: Measured, at: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return ln of the usual close after a tear over that before it, its own rows left out."""
    close = np.log(rows.raw.close)
    last = len(rows) - 1
    return np.array(
        [
            np.median(close[min(tear + 2, last) : tear + 7])
            - np.median(close[max(tear - 5, 0) : max(tear, 1)])
            for tear in at
        ]
    )


def _returning(
    rows: Measured,
    at: NDArray[np.intp],
    level: NDArray[np.float64],
    beside: NDArray[np.float64],
) -> list[Finding]:
    tears = rows.tears[at]
    back = rows.contiguous[at] & (np.abs(level) < 0.5 * np.abs(tears))
    if not back.any():
        return []
    at, sizes = at[back], np.abs(tears[back])
    raw = rows.raw
    usual = np.array([np.median(raw.close[max(t - 5, 0) : t + 7]) for t in at])
    first_is_off = np.abs(np.log(raw.close[at] / usual)) > np.abs(np.log(raw.open[at + 1] / usual))
    places = np.where(first_is_off, at, at + 1)
    apart = (sizes > TORN_APART) & (sizes > RANGES_APART * beside[at])
    hard = bool(apart.any()) and rows.moving >= LIQUID
    severity = Severity.ERROR if hard else Severity.WARN
    worst = int(places[sizes.argmax()])
    message = (
        f"prices far from their neighbours that come back at once, the worst by "
        f"{math.expm1(float(sizes.max())):.0%}"
    )
    return [found(raw, Code.SPIKE, severity, message, np.unique(places), worst)]


def _wicks(rows: Measured) -> list[Finding]:
    raw = rows.raw
    above = np.log(raw.high / np.maximum(raw.open, raw.close))
    below = np.log(np.minimum(raw.open, raw.close) / raw.low)
    wick = np.maximum(above, below)
    before = largest_before(rows.log_span, NEIGHBOURS)[: len(rows)]
    after = largest_before(rows.log_span[::-1], NEIGHBOURS)[::-1][1:]
    long = np.flatnonzero((wick > WICK) & (wick > WICK_RANGES * np.maximum(before, after)))
    if not long.size:
        return []
    worst = int(long[wick[long].argmax()])
    message = (
        f"highs or lows far from all prices beside them, the worst by "
        f"{math.expm1(float(wick[worst])):.0%}"
    )
    return [found(raw, Code.SPIKE, Severity.WARN, message, long, worst)]


def _another_scale(
    rows: Measured,
    at: NDArray[np.intp],
    level: NDArray[np.float64],
    beside: NDArray[np.float64],
) -> list[Finding]:
    raw, tears = rows.raw, rows.tears[at]
    stays = (np.abs(level) >= 0.5 * np.abs(tears)) & (np.sign(level) == np.sign(tears))
    at, sizes = at[stays], np.abs(tears[stays])
    far = sizes > RANGES_APART * beside[at]
    halted = ~rows.contiguous[at]
    if rows.traded:
        halted |= raw.volume[at] == 0.0
    short = np.diff(raw.open_time_ms)[at] <= HALT_MS
    sudden = far & ~halted & (sizes > ANOTHER_SCALE)
    after_halt = far & halted & short & (sizes > AFTER_A_HALT)
    picked = np.flatnonzero(sudden | after_halt)
    if not picked.size:
        return []
    hard = bool(sudden.any()) and rows.interval_ms < HALF_DAY_MS and rows.moving >= LIQUID
    places, worst = at[picked] + 1, int(at[picked][sizes[picked].argmax()] + 1)
    message = (
        f"rows from which on prices are on another scale, the worst by a factor of "
        f"{math.exp(float(sizes[picked].max())):.4g}: a change of unit, or two series in one"
    )
    severity = Severity.ERROR if hard else Severity.WARN
    return [found(raw, Code.UNIT_CHANGE, severity, message, places, worst)]
