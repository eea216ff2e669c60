"""What a first download may take: at most 3 symbols, 4 years, 90 seconds by default.

Months come from the archive, newest first and all symbols of a month together, so that a
download that ends early leaves symbols of equal length.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError

MAX_SYMBOLS: Final = 3
MAX_YEARS: Final = 4
DEFAULT_SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
DEFAULT_BUDGET_S: Final = 90.0
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
    """

    market: Market
    symbols: tuple[str, ...]
    interval: str
    from_ms: int
    to_ms: int

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
    years: float = MAX_YEARS,
) -> DownloadPlan:
    """Bound a download that ends now.

    Raises:
        ConfigError: more symbols or years than a download may take, or none.
    """
    chosen = tuple(dict.fromkeys(symbol.upper() for symbol in symbols)) or DEFAULT_SYMBOLS
    if len(chosen) > MAX_SYMBOLS:
        raise ConfigError(
            f"{len(chosen)} symbols to download ({' '.join(chosen)}); at most {MAX_SYMBOLS}: "
            "name fewer, or point BOT4_CANDLES_DIR at a folder of candles"
        )
    if not 0 < years <= MAX_YEARS:
        raise ConfigError(f"{years} years to download; expected more than 0, at most {MAX_YEARS}")
    from_ms = now_ms - round(years * 365.25 * DAY_MS)
    return DownloadPlan(market, chosen, interval, from_ms - from_ms % DAY_MS, now_ms)


def _day(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).date()
