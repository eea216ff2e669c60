"""VOLUME_UNIT: volume that is not counted in the base asset, or not in one unit throughout.

Two signs. The level: the median of 48 volumes against that of the 48 before. The product: a
volume that needs fewer decimals when divided by its own price is amount times price.

Good candles (1m to 1d, 2018 to 2025): the level moves by e^3.3 at most (minutes), e^2.5 in hours;
no volume gets shorter when divided by its price.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality.measures import Measured, decimals
from bot4_pipelines.ingest.quality_codes import Code

LEVEL_ROWS: Final = 48
"""Rows of a level."""
LEVEL_STEP: Final = 4.5
"""ln between two levels from which a unit may have changed; good candles: at most 3.3 ..."""
LASTS: Final = 0.6
"""... and the share of it by which all volumes after, up to 500, must differ from all before."""
AS_THE_PRICE: Final = 0.7
"""ln by which the step may differ from the price itself to be an ERROR: base to quote."""
SAMPLE: Final = 400
"""Rows whose decimals are looked at, at either end and in the middle."""
MOVING: Final = 10
"""Prices among those rows that are needed: divided by one price, decimals tell nothing."""


def volume_findings(rows: Measured) -> list[Finding]:
    """Find volumes that are not in the base asset, or change their unit."""
    traded = np.flatnonzero(rows.raw.volume > 0.0)
    if traded.size < 2 * LEVEL_ROWS:
        return []
    return _level(rows, traded) or _product(rows, traded)


def _level(rows: Measured, traded: NDArray[np.intp]) -> list[Finding]:
    raw = rows.raw
    logs = np.log(raw.volume[traded])
    stride = LEVEL_ROWS // 4
    windows = np.lib.stride_tricks.sliding_window_view(logs, LEVEL_ROWS)[::stride]
    levels = np.median(windows, axis=1)
    steps = levels[4:] - levels[:-4]
    if not steps.size or np.abs(steps).max() <= LEVEL_STEP:
        return []
    at = (int(np.abs(steps).argmax()) + 4) * stride
    at = _edge(logs, at)
    step = float(np.median(logs[at : at + 500]) - np.median(logs[max(0, at - 500) : at]))
    if abs(step) <= LASTS * LEVEL_STEP:
        return []
    before = math.log(float(np.median(raw.close[traded[max(0, at - 24) : at]])))
    price = math.log(float(np.median(raw.close[traded[at : at + 24]])))
    as_price = (
        abs(abs(step) - abs(price)) <= AS_THE_PRICE
        and abs(step) > LEVEL_STEP
        and abs(price - before) <= AS_THE_PRICE  # else the price itself was redenominated
    )
    after = traded[at:] if as_price else traded[max(0, at - LEVEL_ROWS) : at + LEVEL_ROWS]
    message = f"volumes where their level changes by a factor of {math.exp(abs(step)):.4g}" + (
        ", which is the price: counted in quote, not in base" if as_price else ""
    )
    severity = Severity.ERROR if as_price else Severity.WARN
    return [found(raw, Code.VOLUME_UNIT, severity, message, after)]


def _edge(logs: NDArray[np.float64], about: int) -> int:
    """Return the row about there that parts the volumes best."""
    start, stop = max(1, about - LEVEL_ROWS), min(len(logs) - 1, about + LEVEL_ROWS)
    around = logs[max(0, start - LEVEL_ROWS) : stop + LEVEL_ROWS]
    sums = np.cumsum(around - around.mean())
    offset = max(0, start - LEVEL_ROWS)
    return offset + 1 + int(np.abs(sums[:-1]).argmax())


def _sample(traded: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    middle = max(0, len(traded) // 2 - SAMPLE // 2)
    starts = (0, middle, max(0, len(traded) - SAMPLE))
    return [traded[start : start + SAMPLE] for start in starts]


def _product(rows: Measured, traded: NDArray[np.intp]) -> list[Finding]:
    raw = rows.raw
    for part in _sample(traded):
        own = decimals(raw.volume[part])
        for price in (raw.close, raw.open):
            moving = np.unique(price[part]).size >= MOVING
            if moving and decimals(raw.volume[part] / price[part]) < own:
                message = (
                    "volumes are amounts times prices: divided by the price they need "
                    "fewer decimals; expected volume in the base asset"
                )
                return [found(raw, Code.VOLUME_UNIT, Severity.ERROR, message, traded)]
    return []
