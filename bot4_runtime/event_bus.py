"""Publish and subscribe by event type: ordered, isolated, counted [compiled].

One thread publishes and calls the direct handlers; no lock is taken on that way. Readers in
other threads take a queue with a declared overflow policy. The order of delivery is the order
of publication: an event published by a handler waits until the present one went to everybody.

What does not live here: the events (`domain.events`), and what becomes of them.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from types import UnionType
from typing import Final

from bot4_runtime.domain.errors import ConfigError, InvariantViolated
from bot4_runtime.domain.events import Event, HandlerFailed

DEFAULT_CAPACITY: Final = 10_000
"""Events a queued subscriber may fall behind by."""

Handler = Callable[[object], object]
"""Takes an event; what it returns is ignored."""

ErrorReporter = Callable[["Subscription", object, Exception], object]
"""Called with the failing subscription, the event and the error."""

_LOG: Final = logging.getLogger("bot4.event_bus")


class Overflow(StrEnum):
    """What a full queue does: orders and fills HALT, ticks CONFLATE, telemetry DROP_OLDEST."""

    HALT = "halt"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop_oldest"


class Subscription:
    """One handler's place on the bus; give it to `EventBus.unsubscribe`.

    Attributes:
        active: False once unsubscribed; the handler is not called from then on.
        errors: events on which the handler raised.
    """

    def __init__(self, kinds: tuple[type, ...], handler: Handler, name: str) -> None:
        self.kinds: Final = kinds
        self.handler: Final = handler
        self.name: Final = name
        self.active = True
        self.errors = 0


class EventQueue:
    """A bounded queue between the publishing thread and one reader thread.

    HALT keeps every event and makes `publish` raise `InvariantViolated` once the reader is
    `capacity` behind. CONFLATE keeps the newest event of each key. DROP_OLDEST counts what
    it drops.

    Attributes:
        dropped: events lost to a full queue; always 0 under HALT.
        conflated: events replaced by a newer one of the same key.
    """

    def __init__(
        self, name: str, capacity: int, overflow: Overflow, key: Callable[[object], object] | None
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"queue {name!r} has capacity {capacity}; expected at least 1")
        self.name: Final = name
        self.capacity: Final = capacity
        self.overflow: Final = overflow
        self.dropped = 0
        self.conflated = 0
        self._key = key
        self._lock = threading.Lock()
        self._events: deque[object] = deque()
        self._latest: dict[object, object] = {}

    def __len__(self) -> int:
        return len(self._latest) if self.overflow == Overflow.CONFLATE else len(self._events)

    def push(self, event: object) -> bool:
        """Add an event; False when the queue is over its capacity and must halt."""
        with self._lock:
            if self.overflow == Overflow.CONFLATE:
                key: object = type(event) if self._key is None else self._key(event)
                if key in self._latest:
                    del self._latest[key]
                    self.conflated += 1
                elif len(self._latest) >= self.capacity:
                    del self._latest[next(iter(self._latest))]
                    self.dropped += 1
                self._latest[key] = event
                return True
            full = len(self._events) >= self.capacity
            if full and self.overflow == Overflow.DROP_OLDEST:
                self._events.popleft()
                self.dropped += 1
                full = False
            self._events.append(event)
            return not full

    def drain(self) -> list[object]:
        """Take everything that waits, in the order of publication."""
        with self._lock:
            events = [*self._events, *self._latest.values()]
            self._events.clear()
            self._latest.clear()
            return events


class _Route:
    """Who takes one type of event. Its list is never changed, only replaced."""

    def __init__(self, subscriptions: list[Subscription]) -> None:
        self.subscriptions: Final = subscriptions


class EventBus:
    """The bus of one process.

    Args:
        on_error: told of every handler that raised; without one the error is logged with its
            traceback. A `HandlerFailed` event is published as well.

    Examples:
        >>> from bot4_runtime.domain.events import Heartbeat
        >>> bus = EventBus()
        >>> seen = []
        >>> subscription = bus.subscribe(Heartbeat, seen.append)
        >>> bus.publish(Heartbeat(ts_event_ns=1, events_total=7))
        >>> seen[0].events_total
        7
    """

    def __init__(self, on_error: ErrorReporter | None = None) -> None:
        self._on_error = on_error
        self._subscriptions: list[Subscription] = []
        self._queues: list[tuple[Subscription, EventQueue]] = []
        self._routes: dict[type, _Route] = {}
        self._pending: deque[object] = deque()
        self._overflowed: list[str] = []
        self._busy = False
        self._waiting = False
        self._published = 0
        self._errors = 0

    # ------------------------------------------------------------- subscribing
    def subscribe(self, kind: object, handler: Handler, name: str = "") -> Subscription:
        """Call a handler with every event of a type, in order of subscription.

        A subscription made while an event is delivered sees the events after it.

        Args:
            kind: an event class (its subclasses included), a union of them such as
                `domain.events.OrderEvent`, or a tuple of either.
            handler: called with the event in the publishing thread.
            name: what errors call it; the handler's own name by default.

        Raises:
            ConfigError: `kind` is none of these, or the handler cannot be called.
        """
        if not callable(handler):
            raise ConfigError(f"handler {handler!r} cannot be called; expected a function")
        named = name or str(getattr(handler, "__qualname__", type(handler).__qualname__))
        subscription = Subscription(_kinds(kind), handler, named)
        self._subscriptions.append(subscription)
        self._routes = {}
        return subscription

    def subscribe_queue(
        self,
        kind: object,
        overflow: Overflow,
        capacity: int = DEFAULT_CAPACITY,
        key: Callable[[object], object] | None = None,
        name: str = "queue",
    ) -> EventQueue:
        """Collect events for a reader in another thread.

        Args:
            kind: as in `subscribe`.
            overflow: what happens when the reader is `capacity` events behind.
            capacity: events, at least 1.
            key: for CONFLATE, what an event replaces; its type by default.
            name: what messages and counters call it.

        Raises:
            ConfigError: `kind` is not a type of event, or the capacity is below 1.
        """
        queue = EventQueue(name, capacity, overflow, key)
        subscription = self.subscribe(kind, _QueueHandler(queue, self._overflowed), name)
        self._queues.append((subscription, queue))
        return queue

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop calling a handler, from the present event on; twice does no harm."""
        subscription.active = False
        self._subscriptions = [kept for kept in self._subscriptions if kept is not subscription]
        self._queues = [kept for kept in self._queues if kept[0] is not subscription]
        self._routes = {}

    def close_queue(self, queue: EventQueue) -> None:
        """Stop feeding a queue; what waits in it can still be drained."""
        for subscription, fed in self._queues:
            if fed is queue:
                self.unsubscribe(subscription)
                return

    # -------------------------------------------------------------- publishing
    def publish(self, event: object) -> None:
        """Give an event to all its subscribers.

        Raises:
            InvariantViolated: a HALT queue is full. Everybody, that queue included, got the
                event; the reader has stopped and the process must.
        """
        if self._busy:
            self._wait(event)
            return
        self._busy = True
        try:
            if self._waiting:  # an interrupt left events
                self._wait(event)
            else:
                self._deliver(event)
            if self._waiting:
                while self._pending:
                    self._deliver(self._pending.popleft())
                self._waiting = False
        finally:
            self._busy = False
        if self._overflowed:
            self._halt()

    def publish_many(self, events: list[object]) -> None:
        """Publish events in order.

        Raises:
            InvariantViolated: as in `publish`; the events after it are not published.
        """
        for event in events:
            self.publish(event)

    def _wait(self, event: object) -> None:
        self._pending.append(event)
        self._waiting = True

    def _deliver(self, event: object) -> None:
        route = self._routes.get(type(event))
        if route is None:
            route = self._route(type(event))
        self._published += 1
        for subscription in route.subscriptions:
            if subscription.active:
                try:
                    subscription.handler(event)
                except Exception as error:  # noqa: BLE001 - isolated, counted and reported
                    self._failed(subscription, event, error)

    def _route(self, kind: type) -> _Route:
        takers = [taker for taker in self._subscriptions if issubclass(kind, taker.kinds)]
        route = _Route(takers)
        self._routes[kind] = route
        return route

    def _failed(self, subscription: Subscription, event: object, error: Exception) -> None:
        self._errors += 1
        subscription.errors += 1
        if self._on_error is None:
            _LOG.error("handler %s failed on %r", subscription.name, event, exc_info=error)
        else:
            try:
                self._on_error(subscription, event, error)
            except Exception:  # noqa: BLE001 - the same
                self._errors += 1
                _LOG.exception("the error reporter failed on %r", error)
        if isinstance(event, Event) and not isinstance(event, HandlerFailed):
            failure = HandlerFailed(
                ts_event_ns=event.ts_event_ns,
                event_type=type(event).__name__,
                handler=subscription.name,
                error=f"{type(error).__name__}: {error}",
            )
            self._wait(failure)

    def _halt(self) -> None:
        names = ", ".join(self._overflowed)
        self._overflowed.clear()
        raise InvariantViolated(
            f"event queue {names} is full and may drop nothing; its reader has stopped: "
            "nothing is lost, restart the process"
        )

    # ---------------------------------------------------------------- counting
    def counters(self) -> dict[str, int]:
        """Return what happened so far.

        Returns:
            ``published`` and ``handler_errors`` (events), ``subscriptions``, and over the
            queues ``queued`` (waiting now), ``dropped`` and ``conflated``.
        """
        queued = dropped = conflated = 0
        for _, queue in self._queues:
            queued += len(queue)
            dropped += queue.dropped
            conflated += queue.conflated
        return {
            "published": self._published,
            "handler_errors": self._errors,
            "subscriptions": len(self._subscriptions),
            "queued": queued,
            "dropped": dropped,
            "conflated": conflated,
        }


class _QueueHandler:
    """Pushes events into a queue and names it when it must halt."""

    def __init__(self, queue: EventQueue, overflowed: list[str]) -> None:
        self._queue = queue
        self._overflowed = overflowed

    def __call__(self, event: object) -> None:
        if not self._queue.push(event) and self._queue.name not in self._overflowed:
            self._overflowed.append(self._queue.name)


def _kinds(kind: object) -> tuple[type, ...]:
    if isinstance(kind, type):
        return (kind,)
    parts: tuple[object, ...] = ()
    if isinstance(kind, UnionType):
        parts = kind.__args__
    elif isinstance(kind, tuple):
        parts = kind
    found: list[type] = []
    for part in parts:
        found.extend(_kinds(part))
    if not found:
        raise ConfigError(
            f"cannot subscribe to {kind!r}; expected an event class, a union of event classes "
            "such as OrderEvent, or a tuple of them"
        )
    return tuple(found)
