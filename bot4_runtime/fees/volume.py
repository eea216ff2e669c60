"""The account's trading volume over 30 days, by which its fee tier is set [compiled].

Binance evaluates tiers once a day at 00:00 UTC over the 30 days before (Binance fee page).
"""

from collections import deque
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.errors import DataError

WINDOW_DAYS: Final = 30
MS_PER_DAY: Final = 86_400_000
_ZERO: Final = Decimal(0)


class VolumeTracker:
    """Sums volume by UTC day and forgets days older than the window."""

    def __init__(self) -> None:
        self._days: deque[int] = deque()
        self._volumes: deque[Decimal] = deque()

    def add(self, ts_ms: int, volume: Decimal) -> None:
        """Count a fill, in the schedule's volume unit.

        Raises:
            DataError: the volume is negative or not a number, or the fill is older than the
                last day counted.
        """
        if not (volume.is_finite() and volume >= 0):
            raise DataError(f"traded volume {volume} is impossible; expected a number >= 0")
        day = ts_ms // MS_PER_DAY
        if self._days and day < self._days[-1]:
            raise DataError(
                f"a fill of day {day} came after day {self._days[-1]}; expected fills in order"
            )
        if self._days and day == self._days[-1]:
            self._volumes[-1] += volume
        else:
            self._days.append(day)
            self._volumes.append(volume)
        self._forget(day)

    def total(self, ts_ms: int) -> Decimal:
        """Return the volume of the 30 whole UTC days before the day of `ts_ms`."""
        today = ts_ms // MS_PER_DAY
        total = _ZERO
        for day, volume in zip(self._days, self._volumes, strict=True):
            if today - WINDOW_DAYS <= day < today:
                total += volume
        return total

    def _forget(self, today: int) -> None:
        while self._days and self._days[0] < today - WINDOW_DAYS:
            self._days.popleft()
            self._volumes.popleft()
