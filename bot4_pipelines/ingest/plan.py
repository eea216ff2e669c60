"""What a download asks for: three symbols, 4 years, 90 seconds unless settings say otherwise.

Months come from the archive, newest first and all symbols of a month together, so that a
download that ends early leaves symbols of equal length.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from bot4_pipelines.ingest.wanted import DEFAULT_YEARS, MOST_YEARS
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError

DEFAULT_SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingestion is: `done` of `total` steps, and what it does now."""

    done: int
    total: int
    message: str


class Budget:
    """Seconds a download may still take, by the monotonic clock.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.left_s <= 0.0


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """A bounded download.

    Attributes:
        from_ms: first open time asked for.
        to_ms: open times from here on are not asked for.
        now_ms: the present, UTC.
        mark: mark prices instead of those that were traded.
    """

    market: Market
    symbols: tuple[str, ...]
    interval: str
    from_ms: int
    to_ms: int
    now_ms: int
    mark: bool = False

    def age(self, month: date) -> int:
        """Months from a month until now."""
        now = _day(self.now_ms)
        return 12 * (now.year - month.year) + now.month - month.month

    def months(self) -> list[date]:
        """First days of the months the plan touches, oldest first."""
        first, last = _day(self.from_ms), _day(self.to_ms - 1)
        months = [first.replace(day=1)]
        while (months[-1].year, months[-1].month) < (last.year, last.month):
            months.append((months[-1] + timedelta(days=32)).replace(day=1))
        return months

    def days(self, month: date) -> Iterator[date]:
        """Days of a month inside the plan."""
        day = max(month, _day(self.from_ms))
        while day.month == month.month and day <= _day(self.to_ms - 1):
            yield day
            day += timedelta(days=1)


def plan_download(
    market: Market,
    symbols: Sequence[str],
    interval: str,
    now_ms: int,
    *,
    years: float = DEFAULT_YEARS,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> DownloadPlan:
    """Bound a download.

    Args:
        market: of the symbols.
        symbols: the three default ones when empty.
        interval: of the candles.
        now_ms: the present, UTC.
        years: before now that it begins.
        from_ms: begins here instead.
        to_ms: ends here, if that is before now.

    Raises:
        ConfigError: no years, or too many, or a range that has not begun.
    """
    chosen = tuple(dict.fromkeys(symbol.upper() for symbol in symbols)) or DEFAULT_SYMBOLS
    if not 0 < years <= MOST_YEARS:
        raise ConfigError(f"{years} years to download; expected above 0, at most {MOST_YEARS:g}")
    if from_ms is None:
        from_ms = now_ms - round(years * 365.25 * DAY_MS)
    end = now_ms if to_ms is None else min(now_ms, to_ms)
    if from_ms >= end:
        raise ConfigError(f"candles from {from_ms} ms on are not there yet; it is {now_ms} ms")
    return DownloadPlan(market, chosen, interval, from_ms - from_ms % DAY_MS, end, now_ms)


def _day(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).date()
