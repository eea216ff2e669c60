"""Longer candles made of shorter ones: whole bars only, a bar with a hole is left out.

A bar opens where Binance's own does: at a multiple of its length since 1970, a week on Monday.
"""

from typing import Final

import numpy as np

from bot4_runtime.candles.series import WEEK_ORIGIN_MS, CandleSeries
from bot4_runtime.domain.candle import INTERVALS_MS, SeriesId, interval_ms
from bot4_runtime.domain.errors import DataError

VOLUME_DIGITS: Final = 8
"""Binance's finest lot is 1e-8 base; sums are rounded to it, as its own candles are."""


def resample(series: CandleSeries, interval: str) -> CandleSeries:
    """Make candles of a longer interval.

    Args:
        series: closed candles whose interval divides the longer one.
        interval: of the result; the series' own returns the series.

    Returns:
        Open of the first, highest high, lowest low, close of the last, sum of the volumes of
        every bar all of whose candles are there. May be empty.

    Raises:
        DataError: the interval is unknown, or is no multiple of the series' own.
    """
    step, length = series.interval_ms, interval_ms(interval)
    if length == step:
        return series
    if length % step or (interval == "1w" and WEEK_ORIGIN_MS % step):
        raise DataError(
            f"{interval} candles cannot be made of {series.id.interval} ones ({series.id.key}); "
            f"expected one of: {' '.join(finer(interval))}"
        )
    origin = WEEK_ORIGIN_MS if interval == "1w" else 0
    bars = (series.open_time_ms - origin) // length
    first = np.flatnonzero(np.diff(bars, prepend=np.int64(-(2**62))))
    count = np.diff(first, append=len(bars))
    if not len(first):
        return CandleSeries(_id(series, interval), *_columns(series))
    whole = count == length // step
    last = first + count - 1
    columns = (
        series.open[first],
        np.maximum.reduceat(series.high, first),
        np.minimum.reduceat(series.low, first),
        series.close[last],
        np.round(np.add.reduceat(series.volume, first), VOLUME_DIGITS),
    )
    times = bars[first] * length + origin
    return CandleSeries(
        _id(series, interval), times[whole], *(column[whole] for column in columns)
    )


def finer(interval: str) -> list[str]:
    """Return the shorter intervals that an interval can be made of, longest first.

    Raises:
        DataError: the interval is unknown.
    """
    length = interval_ms(interval)
    shorter = [
        name
        for name, step in INTERVALS_MS.items()
        if step < length
        and length % step == 0
        and not (interval == "1w" and WEEK_ORIGIN_MS % step)
    ]
    return shorter[::-1]


def _id(series: CandleSeries, interval: str) -> SeriesId:
    one = series.id
    return SeriesId(one.origin, one.market, one.symbol, interval)


def _columns(series: CandleSeries) -> tuple[np.ndarray, ...]:
    return (
        series.open_time_ms, series.open, series.high, series.low, series.close, series.volume,
    )  # fmt: skip
