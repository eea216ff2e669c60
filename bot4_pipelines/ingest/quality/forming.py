"""FORMING_PERSISTED, TORN, UNCONFIRMED_LAST: candles that were stored while still open.

Such a candle is torn from what follows: its close is far from the next open, measured in usual
ranges, with less than the usual volume, while its neighbours join. Many are an ERROR, single ones
a WARN, since an outage inside a candle looks the same.

Good candles (1m to 1d, 2018 to 2025; 926,012 rows and their resamplings): torn rows with less
than the median volume are at most 0.06 % of a file (minutes of the crash of 2021-05-19) and
0.03 % of hours; at most 2 in 100 rows.
"""

from typing import Final

import numpy as np

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality.measures import Measured, around, most_within
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles

SPREAD_TICKS: Final = 2.0
"""Ticks between a close and the next open that the spread explains: coarse ticks, stablecoins."""
TORN: Final = 0.15
"""Ranges between a close and the next open from which a row may be torn."""
TORN_OVER_USUAL: Final = 5.0
"""... and how many times the 80 % quantile of its surroundings that must be."""
QUIET: Final = 0.65
"""The share of the usual volume below which a torn row counts in `TORN_IN_48`."""
TORN_IN_48: Final = 3
"""Quiet torn rows within 48 rows that are an error; good data: at most 2, in an outage."""
BELOW_USUAL: Final = 1.0
"""The share of the usual volume below which a torn row counts in `TORN_SHARE`."""
TORN_SHARE: Final = 0.005
"""Torn rows over all rows that are an error from `TORN_LEAST` on; good data: at most 0.0006."""
TORN_LEAST: Final = 5
"""See `TORN_SHARE`; good data: at most 4 in any 1,000 rows ..."""
TORN_LEAST_LONG: Final = 3
"""... and for candles of four hours and more, of which 1 is torn in 15,749."""
LONG_MS: Final = 14_400_000
WIDE: Final = 0.4
"""Ranges between close and next open in a file whose candles are mostly torn."""
WIDE_IN_100: Final = 0.3
"""Their share in 100 rows that is an error; good data: at most 0.23, in a crash."""
WIDE_SHARE: Final = 0.05
"""Their share of all rows that is an error; good data: at most 0.001 ..."""
WIDE_LEAST: Final = 60
"""... and that many of them; good data: about 43 in a month of minutes with a crash."""
UNCLOSED_VOLUME: Final = 0.3
"""Share of the usual volume below which a last row is taken to be open still."""


def forming_findings(rows: Measured) -> list[Finding]:
    """Find rows that were stored while their candle was open."""
    raw, n = rows.raw, len(rows)
    if n < 24:
        return []
    span = rows.span
    relative = span / raw.close
    usual = np.maximum(around(relative, 0.5, 48), 0.5 * np.median(relative))[:-1]
    apart_by = np.abs(raw.close[:-1] - raw.open[1:]) - SPREAD_TICKS * rows.ticks[:-1]
    torn = np.maximum(apart_by, 0.0) / raw.close[:-1]
    judged = rows.contiguous & (span[:-1] > 0)
    distance = np.where(judged & (usual > 0), torn / np.maximum(usual, 1e-12), 0.0)
    wide = np.flatnonzero(distance > WIDE)
    most = most_within(distance > WIDE, 100) / min(100, n - 1)
    if most > WIDE_IN_100 or wide.size > max(WIDE_LEAST, WIDE_SHARE * n):
        return [_forming(raw, wide)]
    if not rows.traded:
        return []
    volume = raw.volume[:-1]
    usual_volume = around(raw.volume, 0.5, 48)[:-1]
    apart = distance > np.maximum(TORN, TORN_OVER_USUAL * around(distance, 0.8, 96))
    apart &= (volume > 0) & (raw.volume[1:] > 0)
    quiet = apart & (volume < QUIET * usual_volume)
    below = apart & (volume < BELOW_USUAL * usual_volume)
    found_rows = np.flatnonzero(below)
    least = TORN_LEAST_LONG if rows.interval_ms >= LONG_MS else TORN_LEAST
    many = found_rows.size >= max(least, TORN_SHARE * n)
    if most_within(quiet, 48) >= TORN_IN_48 or many:
        return [_forming(raw, found_rows)]
    if not found_rows.size:
        return []
    message = (
        "candles whose close is far from the next open with little volume: stored while open, or "
        "an outage; a shorter interval would tell"
    )
    worst = int(found_rows[distance[found_rows].argmax()])
    return [found(raw, Code.TORN, Severity.WARN, message, found_rows, worst)]


def _forming(raw: RawCandles, rows: "np.ndarray[tuple[int], np.dtype[np.intp]]") -> Finding:
    message = (
        "candles were stored while still open: their close is far from the next open and their "
        "volume is too low; fetch them again after they closed"
    )
    return found(raw, Code.FORMING_PERSISTED, Severity.ERROR, message, rows)


def unconfirmed_last(
    raw: RawCandles, interval_ms: int, now_ms: int | None, *, traded: bool
) -> list[Finding]:
    """Tell whether the last candle may be open still, by the clock or by its volume."""
    if not len(raw):
        return []
    last = int(np.argmax(raw.open_time_ms))
    open_still = now_ms is not None and int(raw.open_time_ms[last]) + interval_ms > now_ms
    if traded and not open_still and len(raw) >= 25:
        before = np.lib.stride_tricks.sliding_window_view(raw.volume, 24)[:-1]
        share = raw.volume[24:] / np.maximum(np.median(before, axis=1), 1e-12)
        usual_low = float(np.quantile(share[-500:], 0.02)) if share.size >= 100 else np.inf
        open_still = share[-1] < min(UNCLOSED_VOLUME, max(usual_low, 0.5 * UNCLOSED_VOLUME))
    if not open_still:
        return []
    message = (
        "last candle looks unclosed; it is kept and masked until a later download confirms it"
    )
    return [found(raw, Code.UNCONFIRMED_LAST, Severity.WARN, message, np.array([last]))]
