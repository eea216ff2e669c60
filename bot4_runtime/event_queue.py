"""A bounded queue between the publishing thread and one reader, with a declared overflow policy.

What does not live here: who feeds it (`event_bus`) and who reads it.
"""

import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import HandlerFailed, Heartbeat, MarketEvent

DEFAULT_CAPACITY: Final = 10_000
"""Events a queued subscriber may fall behind by."""


class Overflow(StrEnum):
    """What a full queue does: orders and fills HALT, ticks CONFLATE, telemetry DROP_OLDEST."""

    HALT = "halt"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop_oldest"


_TICKS: Final[tuple[type, ...]] = MarketEvent.__args__
_TELEMETRY: Final[tuple[type, ...]] = (Heartbeat, HandlerFailed)


def declared_overflow(kinds: tuple[type, ...]) -> Overflow:
    """Return the policy that types of events declare.

    Market data conflates, heartbeats and failures of handlers drop their oldest, everything
    else (orders, fills, risk, the session) loses nothing and halts.

    Raises:
        ConfigError: the types declare different policies.
    """
    found: list[Overflow] = []
    for kind in kinds:
        if issubclass(kind, _TICKS):
            policy = Overflow.CONFLATE
        elif issubclass(kind, _TELEMETRY):
            policy = Overflow.DROP_OLDEST
        else:
            policy = Overflow.HALT
        if policy not in found:
            found.append(policy)
    if len(found) != 1:
        named = " and ".join([kind.__name__ for kind in kinds])
        raise ConfigError(
            f"a queue of {named} has no one overflow policy (they declare "
            f"{', '.join([policy.value for policy in found])}); name one, or take a queue a topic"
        )
    return found[0]


def instrument_key(event: object) -> object:
    """Return what a market event replaces in a conflating queue: its type and symbol.

    Events without a symbol, of their own or of their candle, replace those of their type.
    """
    symbol = getattr(event, "symbol", None)
    if symbol is None:
        symbol = getattr(getattr(event, "candle", None), "symbol", None)
    return (type(event), symbol)


class EventQueue:
    """A bounded queue between the publishing thread and one reader thread.

    HALT keeps every event and makes `EventBus.publish` raise `InvariantViolated` once the
    reader is `capacity` behind. CONFLATE keeps the newest event of each key. DROP_OLDEST
    counts what it drops.

    Args:
        name: what messages and counters call it.
        capacity: events, at least 1.
        overflow: what it does when full.
        key: for CONFLATE, what an event replaces; `instrument_key` by default.

    Attributes:
        dropped: events lost to a full queue; always 0 under HALT.
        conflated: events replaced by a newer one of the same key.

    Raises:
        ConfigError: the capacity is below 1.
    """

    def __init__(
        self,
        name: str,
        capacity: int,
        overflow: Overflow,
        key: Callable[[object], object] | None = None,
    ) -> None:
        if not capacity >= 1:
            raise ConfigError(f"queue {name!r} has capacity {capacity}; expected at least 1")
        self.name: Final = name
        self.capacity: Final = capacity
        self.overflow: Final = overflow
        self.dropped = 0
        self.conflated = 0
        self._key: Final = instrument_key if key is None else key
        self._lock: Final = threading.Lock()
        self._events: deque[object] = deque()
        self._latest: dict[object, object] = {}
        self._taken = 0

    def __len__(self) -> int:
        return len(self._events) + len(self._latest)

    def push(self, event: object) -> bool:
        """Add an event; False when the queue is over its capacity and must halt."""
        with self._lock:
            if self.overflow is Overflow.CONFLATE:
                self._replace(event)
                return True
            full = len(self._events) >= self.capacity
            if full and self.overflow is Overflow.DROP_OLDEST:
                self._events.popleft()
                self.dropped += 1
                full = False
            self._events.append(event)
            return not full

    def _replace(self, event: object) -> None:
        key = self._key(event)
        if key in self._latest:
            del self._latest[key]
            self.conflated += 1
        elif len(self._latest) >= self.capacity:
            del self._latest[next(iter(self._latest))]
            self.dropped += 1
        self._latest[key] = event

    def drain(self) -> list[object]:
        """Take everything that waits, in the order of publication."""
        return self.drain_numbered()[1]

    def drain_numbered(self) -> tuple[int, list[object]]:
        """Take everything that waits, with the number of its first event.

        Numbers count the events taken and dropped from 0 on, so that a reader sees what a
        DROP_OLDEST queue lost: the next drain does not begin where this one ended.
        """
        if len(self) == 0:
            return self._taken + self.dropped, []
        with self._lock:
            first = self._taken + self.dropped
            events, self._events = self._events, deque()
            latest, self._latest = self._latest, {}
            self._taken += len(events) + len(latest)
        return first, [*events, *latest.values()]
