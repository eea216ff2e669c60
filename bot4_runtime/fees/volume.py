"""The account's trading volume over 30 days, by which its fee tier is set [compiled].

Binance evaluates tiers once a day at 00:00 UTC over the 30 days before (Binance fee page).
"""

from decimal import Decimal
from typing import Final

from bot4_runtime.domain.errors import DataError

WINDOW_DAYS: Final = 30
MS_PER_DAY: Final = 86_400_000
_ZERO: Final = Decimal(0)


class VolumeTracker:
    """Sums volume by UTC day and forgets days older than the window."""

    def __init__(self) -> None:
        self._volumes: dict[int, Decimal] = {}
        self._newest = 0

    def add(self, ts_ms: int, volume: Decimal) -> None:
        """Count a fill on its own day, in the schedule's volume unit; it may be told late.

        One from before the window is left out: it counts towards no tier any more.

        Raises:
            DataError: the volume is negative or not a number.
        """
        if not (volume.is_finite() and volume >= 0):
            raise DataError(f"traded volume {volume} is impossible; expected a number >= 0")
        day = ts_ms // MS_PER_DAY
        if day > self._newest:
            self._newest = day
            oldest = day - WINDOW_DAYS
            self._volumes = {old: total for old, total in self._volumes.items() if old >= oldest}
        if day >= self._newest - WINDOW_DAYS:
            self._volumes[day] = self._volumes.get(day, _ZERO) + volume

    def total(self, ts_ms: int) -> Decimal:
        """Return the volume of the 30 whole UTC days before the day of `ts_ms`."""
        today = ts_ms // MS_PER_DAY
        total = _ZERO
        for day, volume in self._volumes.items():
            if today - WINDOW_DAYS <= day < today:
                total += volume
        return total
