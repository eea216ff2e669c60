"""Where time comes from. Nothing else in the runtime reads a clock."""

import time
from typing import Protocol

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Tells the time, UTC, in nanoseconds since 1970."""

    def now_ns(self) -> int:
        """Return the present time in nanoseconds since 1970-01-01 UTC."""
        ...


class LiveClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Return the machine's time in nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()


class ManualClock:
    """A clock that stands still until it is told the time; replays and tests use it."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the time last told, in nanoseconds since 1970-01-01 UTC."""
        return self._now_ns

    def advance_to(self, now_ns: int) -> None:
        """Move forward to `now_ns`; an earlier time is ignored, so time never goes back."""
        self._now_ns = max(self._now_ns, now_ns)
