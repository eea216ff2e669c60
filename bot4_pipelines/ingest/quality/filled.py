"""STALE, INTERPOLATED: rows that somebody filled in.

A market with fine prices does not print the same row, the same volume or the same price again and
again, nor prices on a line. Each rule looks for runs that are far longer than good candles' and
is silent where such rows are usual (coarse ticks, stablecoins, markets hardly traded).

Good candles (926,012 rows, 1m and 1h, also resampled up to 1d): no two equal rows anywhere, no
two equal volumes in a row; flat candles with volume 0.00 %; on a line in all four prices at most
4 rows in a row, in the close at most 5; without wicks at most 11.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality.measures import Measured, long_runs, runs
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.series import COLUMNS, PRICE_COLUMNS

TICKS: Final = 8
"""Ticks in the median range below which rows repeat by chance and most rules are silent."""
REPEATED: Final = 4
"""Rows in a row that are copies of earlier ones, all of the same lag; good candles: none."""
FROZEN: Final = 8
"""Flat candles of one price in a row, though traded; good candles with fine prices: none."""
FROZEN_VOLUME: Final = 0.3
"""... with at least this share of the usual volume: one lone trade makes a flat candle too."""
SAME_VOLUME: Final = 8
"""Equal volumes in a row while prices move; good candles: 1."""
ON_A_LINE: Final = 8
"""Rows in a row whose four prices lie on lines; good candles: at most 4."""
CLOSE_ON_A_LINE: Final = 12
"""Rows in a row whose closes do; good candles: at most 5."""
BODIES: Final = 24
"""Candles without wicks in a row; good candles: at most 11, in quiet minutes."""
RARE: Final = 0.05
"""Share of such rows elsewhere in the series up to which a run of them is no chance ..."""
RARE_BODIES: Final = 0.2
"""... and for candles without wicks; good candles: at most 0.13, minutes of 2025."""
ONE_VOLUME: Final = 0.5
"""Share of traded rows with the commonest volume; good candles from 100 rows on: 0.01."""
LINE_SHARE: Final = 0.02
"""Part of a step by which rows on a line may be off it, but for a tick and a half."""
ENOUGH: Final = 48
"""Traded rows from which one volume in half of them is no chance."""


def filled_findings(rows: Measured) -> list[Finding]:
    """Find rows that somebody filled in."""
    if rows.span_ticks < TICKS:
        return _copies(rows, Severity.WARN)
    return _copies(rows, Severity.ERROR) + _frozen(rows) + _one_volume(rows) + _lines(rows)


def _copies(rows: Measured, severity: Severity) -> list[Finding]:
    """Find runs of rows equal to those a fixed number of rows before."""
    raw = rows.raw
    moved = (rows.span > 0.0) & ((rows.local_ticks >= TICKS) | (severity is Severity.WARN))
    if rows.traded:
        moved &= raw.volume > 0.0
    names = COLUMNS if rows.traded else PRICE_COLUMNS
    places = np.flatnonzero(moved)
    key = np.zeros(places.size, dtype=np.uint64)
    for name in names:
        key *= np.uint64(0x9E3779B97F4A7C15)
        key ^= getattr(raw, name)[places].view(np.uint64)
        key ^= key >> np.uint64(29)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    lag = np.zeros(len(raw), dtype=np.int64)
    lag[places[order[same + 1]]] = places[order[same + 1]] - places[order[same]]
    copied = long_runs((lag[1:] > 0) & (lag[1:] == lag[:-1]), REPEATED - 1, RARE) + 1
    if not copied.size:
        return []
    message = "rows that repeat earlier ones value by value: filled in, or copied"
    return [found(raw, Code.STALE, severity, message, copied)]


def _frozen(rows: Measured) -> list[Finding]:
    """Find runs of flat candles of one price that were traded."""
    raw = rows.raw
    flat = (rows.span == 0.0) & (rows.local_ticks >= TICKS)
    moving = raw.volume[(rows.span > 0.0) & (raw.volume > 0.0)]
    if rows.traded:
        flat &= raw.volume > 0.0
    again = np.append(False, flat[1:] & (raw.close[1:] == raw.close[:-1]))
    frozen = long_runs(again, FROZEN - 1, RARE)
    if rows.traded and frozen.size:
        frozen = _well_traded(rows, frozen, FROZEN_VOLUME * float(np.median(moving)))
    if not frozen.size:
        return []
    severity = Severity.ERROR if rows.traded else Severity.WARN
    message = "candles of one and the same price, though traded: filled forward"
    return [found(raw, Code.STALE, severity, message, frozen)]


def _well_traded(rows: Measured, frozen: NDArray[np.intp], least: float) -> NDArray[np.intp]:
    """Keep the runs whose median volume is at least that."""
    flags = np.zeros(len(rows), dtype=bool)
    flags[frozen] = True
    for start, stop in zip(*runs(flags), strict=True):
        flags[start:stop] = np.median(rows.raw.volume[start:stop]) >= least
    return np.flatnonzero(flags)


def _one_volume(rows: Measured) -> list[Finding]:
    """Find volumes that say the same again and again while prices move."""
    raw = rows.raw
    moved = (rows.span > 0.0) & (raw.volume > 0.0)
    volumes = raw.volume[moved]
    if volumes.size >= ENOUGH:
        values, counts = np.unique(volumes, return_counts=True)
        if counts.max() >= ONE_VOLUME * volumes.size:
            same = np.flatnonzero(moved & (raw.volume == values[counts.argmax()]))
            message = "rows with one and the same volume while prices move"
            return [found(raw, Code.STALE, Severity.ERROR, message, same)]
    again = np.append(False, moved[1:] & (raw.volume[1:] == raw.volume[:-1]))
    same = long_runs(again, SAME_VOLUME - 1, 0.01)
    if not same.size:
        return []
    message = "rows that repeat the volume before while prices move"
    return [found(raw, Code.STALE, Severity.ERROR, message, same)]


def _lines(rows: Measured) -> list[Finding]:
    """Find runs of rows between two real ones: on lines, or bodies without wicks."""
    raw = rows.raw
    if len(raw) < ON_A_LINE:
        return []
    bends = {name: np.abs(np.diff(getattr(raw, name), 2)) for name in PRICE_COLUMNS}
    step = 0.5 * np.abs(raw.close[2:] - raw.close[:-2])
    allowed = np.maximum(1.5 * rows.ticks[1:-1], LINE_SHARE * step)
    fine = rows.local_ticks >= TICKS
    stepped = (step > 0.0) & fine[1:-1]
    straight = stepped & (bends["close"] <= allowed)
    all_straight = straight.copy()
    for bend in bends.values():
        all_straight &= bend <= allowed
    bodies = fine & (rows.span > 0.0) & (raw.high == np.maximum(raw.open, raw.close))
    bodies &= raw.low == np.minimum(raw.open, raw.close)
    filled = np.unique(
        np.concatenate(
            [
                long_runs(all_straight, ON_A_LINE, RARE) + 1,
                long_runs(straight, CLOSE_ON_A_LINE, RARE) + 1,
                long_runs(bodies, BODIES, RARE_BODIES),
            ]
        )
    )
    if not filled.size:
        return []
    message = "rows on a line between two others, or without any wick: interpolated"
    return [found(raw, Code.INTERPOLATED, Severity.ERROR, message, _as_places(filled))]


def _as_places(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return rows.astype(np.intp)
