"""A candle series: the columns of one symbol's closed candles, checked once when made.

Times are open times, UTC, milliseconds. Prices are in the quote asset, volume in the base asset.
Gaps are allowed; a row that no market can print is not.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_runtime.domain.candle import Candle, SeriesId, interval_ms
from bot4_runtime.domain.errors import DataError

PRICE_COLUMNS: Final = ("open", "high", "low", "close")
COLUMNS: Final = (*PRICE_COLUMNS, "volume")
_CHUNK: Final = 1_024
"""Rows turned into Python's numbers at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class CandleSeries:
    """Closed candles of one symbol and interval, in columns of equal length n.

    Attributes:
        id: what identifies the series.
        open_time_ms: int64[n], strictly increasing multiples of the interval.
        open: float64[n], in quote, as `high`, `low` and `close`.
        volume: float64[n], in base, >= 0.

    Raises:
        DataError: columns differ in length, times are not strictly increasing or not on the
            interval's grid, or a row is no candle (NaN, torn range, negative volume).
    """

    id: SeriesId
    open_time_ms: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __post_init__(self) -> None:
        columns = [self.open_time_ms, *(getattr(self, name) for name in COLUMNS)]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
            shapes = [column.shape for column in columns]
            raise DataError(f"columns of {self.id.key} differ in length: {shapes}")
        kinds = [column.dtype for column in columns]
        if kinds != [np.dtype(np.int64)] + [np.dtype(np.float64)] * 5:
            raise DataError(f"columns of {self.id.key} must be int64 and float64, not {kinds}")
        _check_times(self)
        _check_rows(self)
        for column in columns:
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.open_time_ms)

    @property
    def interval_ms(self) -> int:
        """Length of one candle in milliseconds."""
        return interval_ms(self.id.interval)

    def between(self, from_ms: int | None, to_ms: int | None) -> "CandleSeries":
        """Return the candles that open in [from_ms, to_ms); None leaves a side open."""
        times = self.open_time_ms
        first = 0 if from_ms is None else int(np.searchsorted(times, from_ms))
        last = len(times) if to_ms is None else int(np.searchsorted(times, to_ms))
        return self.rows(slice(first, max(first, last)))

    def rows(self, rows: slice) -> "CandleSeries":
        """Return some rows, as views."""
        return CandleSeries(
            self.id, self.open_time_ms[rows], *(getattr(self, name)[rows] for name in COLUMNS)
        )

    def runs(self) -> list[slice]:
        """Return the maximal contiguous stretches, in time order; none when empty."""
        if not len(self):
            return []
        breaks = np.flatnonzero(np.diff(self.open_time_ms) != self.interval_ms) + 1
        edges = [0, *(int(edge) for edge in breaks), len(self)]
        return [slice(start, stop) for start, stop in itertools.pairwise(edges)]

    def candle(self, row: int) -> Candle:
        """Return one row as a candle."""
        return Candle(
            symbol=self.id.symbol,
            interval=self.id.interval,
            open_time_ms=int(self.open_time_ms[row]),
            open=float(self.open[row]),
            high=float(self.high[row]),
            low=float(self.low[row]),
            close=float(self.close[row]),
            volume=float(self.volume[row]),
        )

    def __iter__(self) -> Iterator[Candle]:
        symbol, interval = self.id.symbol, self.id.interval
        columns = (self.open_time_ms, *(getattr(self, name) for name in COLUMNS))
        for at in range(0, len(self), _CHUNK):
            rows = (column[at : at + _CHUNK].tolist() for column in columns)
            for open_time_ms, open_, high, low, close, volume in zip(*rows, strict=True):
                yield Candle(
                    symbol=symbol,
                    interval=interval,
                    open_time_ms=open_time_ms,
                    open=open_,
                    high=high,
                    low=low,
                    close=close,
                    volume=volume,
                )

    def content_sha256(self) -> str:
        """Return the sha256 (hex) over identity and columns; the same on every machine."""
        digest = hashlib.sha256(self.id.key.encode())
        digest.update(self.open_time_ms.astype("<i8").tobytes())
        for name in COLUMNS:
            digest.update(getattr(self, name).astype("<f8").tobytes())
        return digest.hexdigest()


def possible_rows(
    open_: NDArray[np.float64],
    high: NDArray[np.float64],
    low: NDArray[np.float64],
    close: NDArray[np.float64],
    volume: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell which rows a market can print: 0 < low <= open, close <= high < inf, volume >= 0.

    Args:
        open_: float64[n], in quote. NaN in any column makes a row impossible.
        high: float64[n], in quote.
        low: float64[n], in quote.
        close: float64[n], in quote.
        volume: float64[n], in base.

    Returns:
        bool[n].
    """
    return np.asarray(
        (low > 0.0)
        & (low <= np.minimum(open_, close))
        & (np.maximum(open_, close) <= high)
        & (high < np.inf)
        & (volume >= 0.0)
        & (volume < np.inf)
    )


def _check_times(series: CandleSeries) -> None:
    times, step = series.open_time_ms, series.interval_ms
    back = np.flatnonzero(np.diff(times) <= 0)
    if back.size:
        raise DataError(
            f"candles of {series.id.key} are not in order: {int(times[back[0]])} ms is followed "
            f"by {int(times[back[0] + 1])} ms; expected strictly increasing open times"
        )
    origin = WEEK_ORIGIN_MS if series.id.interval == "1w" else 0
    off = np.flatnonzero((times - origin) % step)
    if off.size:
        raise DataError(
            f"candles of {series.id.key} are off the interval's grid: {int(times[off[0]])} ms is "
            f"no multiple of {step} ms; expected UTC open times"
        )


WEEK_ORIGIN_MS: Final = 345_600_000
"""1970-01-05, a Monday: Binance's weeks begin on Mondays."""


def _check_rows(series: CandleSeries) -> None:
    columns = (series.open, series.high, series.low, series.close, series.volume)
    bad = np.flatnonzero(~possible_rows(*columns))
    if bad.size:
        series_row = int(bad[0])
        raise DataError(
            f"{bad.size} of {len(series)} candles of {series.id.key} are impossible, first at "
            f"{int(series.open_time_ms[series_row])} ms (open high low close volume "
            f"{[float(column[series_row]) for column in columns]}); "
            "expected 0 < low <= open, close <= high, volume >= 0"
        )
