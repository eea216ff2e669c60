"""The features of `schema`, one candle at a time: what the trading process runs.

A row equals the batch row of the same candle to 1e-9. A missing candle restarts everything;
rows are invalid until enough contiguous candles have followed it.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot4_runtime.domain.candle import Candle, interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.features import schema as s

_LAST: Final = s.TREND_WINDOW - 1 - np.array(s.TREND_LAGS)
_ROOM: Final = 4_096
_FAST, _SLOW, _SMOOTH = (2.0 / (span + 1.0) for span in s.MACD_SPANS)
_KEEP: Final = 1.0 - 1.0 / s.RSI_WINDOW
_UNKNOWN: Final = np.full(len(s.FEATURE_NAMES), np.nan)
_UNKNOWN.setflags(write=False)
_TRENDS: Final = slice(1, 1 + len(s.TREND_LAGS))
_REST: Final = slice(1 + len(s.TREND_LAGS), len(s.FEATURE_NAMES))


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """Features of one candle, from candles up to it (filtered).

    Attributes:
        values: float64[F], columns `schema.FEATURE_NAMES`; NaN when not valid. Read-only.
        valid: whether `schema.LOOKBACK` contiguous candles end here.
        z: the trend the HMM observes; NaN until 72 returns are known.
        rv: sqrt of the sum of the last 72 squared log returns; NaN where z is.
        log_return: NaN for the first candle of a run.
        contiguous: how many candles in a row end here; 1 after a gap.
    """

    open_time_ms: int
    values: np.ndarray
    valid: bool
    z: float
    rv: float
    log_return: float
    contiguous: int


class _Window:
    """The last values of a sequence as one contiguous array; appending is amortised."""

    __slots__ = ("_data", "_end", "_size")

    def __init__(self, size: int) -> None:
        self._data = np.zeros(_ROOM)
        self._size = size
        self._end = 0

    def append(self, value: float) -> None:
        if self._end == _ROOM:
            self._data[: self._size] = self._data[-self._size :]
            self._end = self._size
        self._data[self._end] = value
        self._end += 1

    def last(self) -> np.ndarray:
        """Return the last `size` values, oldest first; a view."""
        return self._data[self._end - self._size : self._end]


class FeatureState:
    """Turns one symbol's closed candles into feature rows."""

    def __init__(self, symbol: str, interval: str) -> None:
        """Start with no candle seen.

        Raises:
            DataError: the interval is unknown.
        """
        self.symbol = symbol
        self.interval = interval
        self._step_ms = interval_ms(interval)
        self._last_ms: int | None = None
        self._restart()

    def _restart(self) -> None:
        self._contiguous = 0
        self._log_close = 0.0
        self._returns = _Window(s.TREND_WINDOW)
        self._log_closes = _Window(s.BOLLINGER_WINDOW)
        self._volumes = _Window(s.VOLUME_WINDOW)
        self._gain = self._loss = 0.0
        self._below_fast = self._below_slow = self._line = 0.0
        self._log_rvs: deque[float] = deque()
        self._ordered: list[float] = []

    def update(self, candle: Candle) -> FeatureRow:
        """Take the next closed candle and return its row.

        Raises:
            DataError: the candle is impossible, of another series, or not later than the last.
        """
        candle.check()
        if candle.symbol != self.symbol or candle.interval != self.interval:
            raise DataError(
                f"got a candle of {candle.symbol} {candle.interval}; "
                f"expected {self.symbol} {self.interval}"
            )
        if self._last_ms is not None:
            if candle.open_time_ms <= self._last_ms:
                raise DataError(
                    f"{self.symbol} {self.interval}: candle {candle.open_time_ms} is not later "
                    f"than the last one, {self._last_ms}; candles must arrive once and in order"
                )
            if candle.open_time_ms != self._last_ms + self._step_ms:
                self._restart()
        self._last_ms = candle.open_time_ms
        self._contiguous += 1
        x = math.log(candle.close)
        step = x - self._log_close if self._contiguous > 1 else math.nan
        self._log_close = x
        self._log_closes.append(x)
        self._volumes.append(candle.volume)
        if self._contiguous > 1:
            self._recur(step)
        return self._row(candle, step)

    def _recur(self, step: float) -> None:
        """Carry the recursions on by one return."""
        self._returns.append(step)
        up, down = max(step, 0.0), max(-step, 0.0)
        if self._contiguous == 2:
            self._gain, self._loss = up, down
        else:
            self._gain = _KEEP * self._gain + (1.0 - _KEEP) * up
            self._loss = _KEEP * self._loss + (1.0 - _KEEP) * down
        self._below_fast = (1.0 - _FAST) * (self._below_fast - step)
        self._below_slow = (1.0 - _SLOW) * (self._below_slow - step)
        self._line += _SMOOTH * (self._below_fast - self._below_slow - self._line)

    def _row(self, candle: Candle, step: float) -> FeatureRow:
        contiguous = self._contiguous
        if contiguous <= s.TREND_WINDOW:
            return FeatureRow(
                candle.open_time_ms, _UNKNOWN, False, math.nan, math.nan, step, contiguous
            )
        newest_first = self._returns.last()[::-1]
        rv = max(math.sqrt(newest_first @ newest_first), s.RV_FLOOR)
        trends = np.cumsum(newest_first)[_LAST] / rv
        level = self._level(math.log(rv))
        valid = contiguous >= s.LOOKBACK
        values = self._values(candle, step, rv, trends, level) if valid else _UNKNOWN
        return FeatureRow(
            candle.open_time_ms, values, valid, float(trends[0]), rv, step, contiguous
        )

    def _level(self, log_rv: float) -> float:
        """Return ln rv minus its running median; the median of fewer rows while warming."""
        self._log_rvs.append(log_rv)
        insort(self._ordered, log_rv)
        if len(self._log_rvs) > s.LEVEL_WINDOW:
            del self._ordered[bisect_left(self._ordered, self._log_rvs.popleft())]
        middle = len(self._ordered) // 2
        return log_rv - 0.5 * (self._ordered[middle - 1] + self._ordered[middle])

    def _values(
        self, candle: Candle, step: float, rv: float, trends: np.ndarray, level: float
    ) -> np.ndarray:
        unit = rv / s.ROOT_W
        x = self._log_close
        high, low = math.log(candle.high), math.log(candle.low)
        recent = self._returns.last()[-s.SHORT_WINDOW :]
        offsets = self._log_closes.last() - x
        mean = float(offsets.sum()) / s.BOLLINGER_WINDOW
        variance = float(offsets @ offsets) / s.BOLLINGER_WINDOW - mean * mean
        deviation = math.sqrt(max(variance, 0.0))
        volume = float(self._volumes.last().sum()) / s.VOLUME_WINDOW
        ratio = candle.volume / volume if volume > 0.0 else 1.0
        values = np.empty(len(s.FEATURE_NAMES))
        values[0] = step / unit
        values[_TRENDS] = trends
        values[_REST] = (
            0.5 * (self._gain - self._loss) / max(self._gain + self._loss, s.RSI_FLOOR),
            (self._below_fast - self._below_slow) / unit,
            self._line / unit,
            -mean / (4.0 * max(deviation, s.RV_FLOOR)),
            (high + low - 2.0 * x) / unit,
            math.log(max(ratio, s.RATIO_FLOOR)),
            math.log(max((high - low) / unit, s.RATIO_FLOOR)),
            math.log(max(math.sqrt(recent @ recent) / rv, s.RATIO_FLOOR)),
            level,
        )
        values.setflags(write=False)
        return values
