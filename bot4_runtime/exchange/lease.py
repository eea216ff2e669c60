"""For how long a process may send orders after a commit proved that the account is its own.

A venue asks for no epoch, so that time is the fence between a runtime that was passed over
and its successor. Each commit compares the epoch; from the moment it was asked for, orders may
be signed for `ttl_ms`. The venue takes a signed order for the receive window. A successor that
cannot know its predecessor dead (another host) waits out both before its first reading of the
account, so that what the predecessor could still place is in that reading. A process that was
stopped wakes up with its lease run out: its order is not sent, or its signature is too old.

Martin Kleppmann, "How to do distributed locking" (2016), is the reason for signing before
asking: a pause between the two must make the signature old, not the question.
"""

import time
from collections.abc import Callable
from typing import Final

from bot4_runtime.exchange.unknown import RECV_WINDOW_MS

TTL_MS: Final = 5_000
CLOCK_ERROR_MS: Final = 500
_NS_PER_MS: Final = 1_000_000


def boot_ns() -> int:
    """Return nanoseconds since boot, the time a machine slept included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Lease:
    """The right to send, from one commit for a while.

    Args:
        timer: nanoseconds of a clock that never jumps and never stands still.
        ttl_ms: how long a commit speaks for the account.
        window_ms: how long the venue takes a signed order.
    """

    def __init__(
        self,
        timer: Callable[[], int] = boot_ns,
        ttl_ms: int = TTL_MS,
        window_ms: int = RECV_WINDOW_MS,
    ) -> None:
        self._timer = timer
        self._ttl_ms = ttl_ms
        self._window_ms = window_ms
        self._until_ns: int | None = None

    @property
    def takeover_ms(self) -> int:
        """How long a successor waits before it reads the account."""
        return self._ttl_ms + self._window_ms + CLOCK_ERROR_MS

    def now_ns(self) -> int:
        """Return the time; to be read before a commit is asked for."""
        return self._timer()

    def renewed(self, asked_ns: int) -> None:
        """Take note that a commit went through.

        Args:
            asked_ns: `now_ns` before it was asked for.
        """
        self._until_ns = asked_ns + self._ttl_ms * _NS_PER_MS

    def holds(self) -> bool:
        """Tell whether an order that is signed already may be sent."""
        return self._until_ns is not None and self._timer() < self._until_ns
