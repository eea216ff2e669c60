"""DUPLICATE, TIME_ORDER, OHLC: rows that contradict what a candle file is. No thresholds."""

import numpy as np

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.series import COLUMNS, WEEK_ORIGIN_MS, possible_rows

WEEK_MS = 604_800_000


def order_findings(raw: RawCandles, interval_ms: int) -> list[Finding]:
    """Judge the order of one file's rows: DUPLICATE and TIME_ORDER."""
    times = raw.open_time_ms
    findings = []
    _, first = np.unique(times, return_index=True)
    repeated = np.setdiff1d(np.arange(len(raw)), first)
    if repeated.size:
        message = "open times that are there already; expected each once"
        findings.append(found(raw, Code.DUPLICATE, Severity.ERROR, message, repeated))
    back = np.flatnonzero(np.diff(times) < 0) + 1
    if back.size:
        message = "rows earlier than the row before; expected ascending open times"
        findings.append(found(raw, Code.TIME_ORDER, Severity.ERROR, message, back))
    origin = WEEK_ORIGIN_MS if interval_ms == WEEK_MS else 0
    off = np.flatnonzero((times - origin) % interval_ms)
    if off.size:
        message = f"open times off the grid of {interval_ms} ms; expected UTC open times"
        findings.append(found(raw, Code.TIME_ORDER, Severity.ERROR, message, off))
    return findings


def impossible_rows(raw: RawCandles) -> list[Finding]:
    """Find rows no market can print; a file without volumes is judged by its prices."""
    columns = [getattr(raw, name) for name in COLUMNS]
    if np.isnan(raw.volume).all():
        columns[-1] = np.zeros(len(raw))
    bad = np.flatnonzero(~possible_rows(*columns))
    if not bad.size:
        return []
    message = "rows no market can print; expected 0 < low <= open, close <= high, volume >= 0"
    return [found(raw, Code.OHLC, Severity.ERROR, message, bad)]
