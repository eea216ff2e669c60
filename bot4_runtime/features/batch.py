"""Feature rows of a whole candle series at once; the definition is in `schema`.

Window sums are computed window by window, never as differences of running totals, so that a row
does not depend on what happened before its window, and a flat market gives exact zeros.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.features import schema as s

_CHUNK = 4_096


@dataclass(frozen=True)
class FeatureTable:
    """Features of a series, one row a candle, each from candles up to that one (filtered).

    Attributes:
        open_time_ms: int64[n].
        values: float64[n, F], columns `schema.FEATURE_NAMES`; NaN where not valid.
        valid: bool[n], whether `schema.LOOKBACK` contiguous candles end here.
        z: float64[n], the trend the HMM observes; NaN unless 72 returns end here.
        rv: float64[n], sqrt of the sum of the last 72 squared log returns; NaN where z is.
        log_return: float64[n], ln of close over previous close; NaN where a run starts.
        starts: int64[r], the row at which each contiguous run starts.
    """

    open_time_ms: np.ndarray
    values: np.ndarray
    valid: np.ndarray
    z: np.ndarray
    rv: np.ndarray
    log_return: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.open_time_ms)

    def runs(self) -> list[slice]:
        """Return the contiguous stretches of rows."""
        edges = [*self.starts.tolist(), len(self)]
        return [slice(start, end) for start, end in pairwise(edges)]


@dataclass(frozen=True)
class RunFeatures:
    """Features of one contiguous run; columns as in `FeatureTable`."""

    values: np.ndarray
    z: np.ndarray
    rv: np.ndarray
    log_return: np.ndarray


def compute(series: CandleSeries) -> FeatureTable:
    """Compute the features of every candle of a series; each run by itself.

    Returns:
        A table with one row a candle, in the series' order.
    """
    n = len(series)
    values = np.full((n, len(s.FEATURE_NAMES)), np.nan)
    z, rv, log_return = (np.full(n, np.nan) for _ in range(3))
    valid = np.zeros(n, dtype=bool)
    runs = series.runs()
    for run in runs:
        part = compute_run(
            series.high[run], series.low[run], series.close[run], series.volume[run]
        )
        values[run], z[run], rv[run], log_return[run] = (
            part.values,
            part.z,
            part.rv,
            part.log_return,
        )
        valid[run.start + s.LOOKBACK - 1 : run.stop] = True
    starts = np.array([run.start for run in runs], dtype=np.int64)
    return FeatureTable(series.open_time_ms, values, valid, z, rv, log_return, starts)


def compute_run(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray
) -> RunFeatures:
    """Compute the features of one contiguous run.

    Args:
        high: float64[n], in quote.
        low: float64[n], in quote.
        close: float64[n], in quote.
        volume: float64[n], in base.
    """
    n = len(close)
    x = np.log(close)
    r = np.full(n, np.nan)
    r[1:] = np.diff(x)
    values = np.full((n, len(s.FEATURE_NAMES)), np.nan)
    z, rv = np.full(n, np.nan), np.full(n, np.nan)
    trends, short = _trends(r, z, rv)
    if n < s.LOOKBACK:
        return RunFeatures(values, z, rv, r)
    first = s.LOOKBACK - 1
    unit = rv[first:] / s.ROOT_W
    rsi, macd, signal = _recursions(r)
    log_high, log_low = np.log(high[first:]), np.log(low[first:])
    columns = [
        r[first:] / unit,
        *trends[first:].T,
        rsi[first:],
        macd[first:] / unit,
        signal[first:] / unit,
        _bollinger(x)[first:],
        (log_high + log_low - 2.0 * x[first:]) / unit,
        _volume_ratio(volume)[first:],
        np.log(np.maximum((log_high - log_low) / unit, s.RATIO_FLOOR)),
        np.log(np.maximum(short[first:] / rv[first:], s.RATIO_FLOOR)),
        _level(np.log(rv))[first:],
    ]
    values[first:] = np.stack(columns, axis=1)
    return RunFeatures(values, z, rv, r)


def _trends(r: np.ndarray, z: np.ndarray, rv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill z and rv; return the trends float64[n, lags] and the short volatility float64[n]."""
    w = s.TREND_WINDOW
    trends = np.full((len(r), len(s.TREND_LAGS)), np.nan)
    short = np.full(len(r), np.nan)
    if len(r) <= w:
        return trends, short
    windows = sliding_window_view(r[1:], w)
    last = np.array(s.TREND_LAGS)
    for begin in range(0, len(windows), _CHUNK):
        newest_first = windows[begin : begin + _CHUNK, ::-1]
        rows = slice(w + begin, w + begin + len(newest_first))
        sums = np.cumsum(newest_first, axis=1)
        squares = newest_first * newest_first
        rv[rows] = np.maximum(np.sqrt(squares.sum(axis=1)), s.RV_FLOOR)
        short[rows] = np.sqrt(squares[:, : s.SHORT_WINDOW].sum(axis=1))
        trends[rows] = sums[:, w - 1 - last] / rv[rows, None]
    z[:] = trends[:, 0]
    return trends, short


def _recursions(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return RSI - 1/2, MACD and its signal line of one run, float64[n] each.

    MACD is kept as the averages' distance from the current price, which needs returns alone.
    """
    fast, slow, smooth = (2.0 / (span + 1.0) for span in s.MACD_SPANS)
    keep = 1.0 - 1.0 / s.RSI_WINDOW
    gain, loss = max(r[1], 0.0), max(-r[1], 0.0)
    below_fast = below_slow = line = 0.0
    rsi, macd, signal = [0.0], [0.0], [0.0]
    for number, step in enumerate(r[1:].tolist()):
        if number:
            gain = keep * gain + (1.0 - keep) * max(step, 0.0)
            loss = keep * loss + (1.0 - keep) * max(-step, 0.0)
        below_fast = (1.0 - fast) * (below_fast - step)
        below_slow = (1.0 - slow) * (below_slow - step)
        distance = below_fast - below_slow
        line += smooth * (distance - line)
        rsi.append(0.5 * (gain - loss) / max(gain + loss, s.RSI_FLOOR))
        macd.append(distance)
        signal.append(line)
    return np.array(rsi), np.array(macd), np.array(signal)


def _bollinger(x: np.ndarray) -> np.ndarray:
    """Return %b - 1/2 of log prices float64[n]; NaN in the first rows."""
    w = s.BOLLINGER_WINDOW
    result = np.full(len(x), np.nan)
    offsets = sliding_window_view(x, w) - x[w - 1 :, None]
    mean = offsets.mean(axis=1)
    deviation = np.sqrt(np.maximum((offsets * offsets).mean(axis=1) - mean * mean, 0.0))
    result[w - 1 :] = -mean / (4.0 * np.maximum(deviation, s.RV_FLOOR))
    return result


def _volume_ratio(volume: np.ndarray) -> np.ndarray:
    """Return ln(volume / its mean over 10), 0 where nothing traded; NaN in the first rows."""
    w = s.VOLUME_WINDOW
    result = np.full(len(volume), np.nan)
    mean = sliding_window_view(volume, w).mean(axis=1)
    dead = mean <= 0.0
    ratio = np.where(dead, 1.0, volume[w - 1 :] / np.where(dead, 1.0, mean))
    result[w - 1 :] = np.log(np.maximum(ratio, s.RATIO_FLOOR))
    return result


def _level(log_rv: np.ndarray) -> np.ndarray:
    """Return ln rv minus its median over the last 250 rows, float64[n]."""
    w, first = s.LEVEL_WINDOW, s.TREND_WINDOW
    result = np.full(len(log_rv), np.nan)
    known = log_rv[first:].tolist()
    ordered: list[float] = []
    for row, value in enumerate(known):
        insort(ordered, value)
        if row >= w:
            del ordered[bisect_left(ordered, known[row - w])]
        if row >= w - 1:
            middle = 0.5 * (ordered[w // 2 - 1] + ordered[w // 2])
            result[first + row] = value - middle
    return result
