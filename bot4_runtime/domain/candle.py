"""Candles, their intervals, and what identifies a series of them.

A candle in Bot4 is closed. Its time is the open time, UTC, in milliseconds.
Columns of many candles live in `bot4_runtime.candles.series`.
"""

import math
from enum import StrEnum
from typing import Final

import msgspec

from bot4_runtime.domain.errors import DataError

INTERVALS_MS: Final[dict[str, int]] = {
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
    "3d": 259_200_000,
    "1w": 604_800_000,
}
"""Binance's fixed-length intervals and their length in milliseconds."""


def interval_ms(interval: str) -> int:
    """Return the length of an interval in milliseconds.

    Raises:
        DataError: the interval is not one of `INTERVALS_MS`.
    """
    try:
        return INTERVALS_MS[interval]
    except KeyError:
        known = " ".join(INTERVALS_MS)
        raise DataError(f"unknown interval {interval!r}; known intervals: {known}") from None


def interval_of_ms(milliseconds: int) -> str:
    """Return the name of the interval that is this long.

    Raises:
        DataError: no Binance interval has this length.
    """
    for name, length in INTERVALS_MS.items():
        if length == milliseconds:
            return name
    raise DataError(
        f"candles are {milliseconds} ms apart, which is no Binance interval; "
        f"known intervals: {' '.join(INTERVALS_MS)}"
    )


class Market(StrEnum):
    """Which of Binance's markets."""

    SPOT = "spot"
    USDM = "usdm"


class Origin(StrEnum):
    """Whether prices come from a real market; part of a series' identity."""

    REAL = "real"
    SIMULATED = "simulated"


class SeriesId(msgspec.Struct, frozen=True, order=True):
    """What identifies a candle series; simulated series never mix with real ones."""

    origin: Origin
    market: Market
    symbol: str
    interval: str

    @property
    def key(self) -> str:
        """``real/spot/BTCUSDT/1h``: the series' folder in the store."""
        return f"{self.origin.value}/{self.market.value}/{self.symbol}/{self.interval}"

    @property
    def partition(self) -> str:
        """``BTCUSDT_1h``: the series' Dagster partition."""
        return f"{self.symbol}_{self.interval}"


class Candle(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One closed candle. Prices in the quote asset, volume in the base asset."""

    symbol: str
    interval: str
    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float

    @property
    def close_time_ms(self) -> int:
        """First millisecond after the candle: the moment from which it may be known."""
        return self.open_time_ms + INTERVALS_MS[self.interval]

    def check(self) -> None:
        """Refuse a candle no market can print; NaN and infinity fail.

        Raises:
            DataError: a price is not positive and finite, the range is torn,
                or the volume is negative.
        """
        low, high = self.low, self.high
        if not (
            0.0 < low <= self.open <= high < math.inf
            and low <= self.close <= high
            and 0.0 <= self.volume < math.inf
        ):
            raise DataError(
                f"impossible candle {self.symbol} {self.interval} at {self.open_time_ms}: "
                f"open {self.open} high {self.high} low {self.low} close {self.close} "
                f"volume {self.volume}; expected 0 < low <= open, close <= high, volume >= 0"
            )
