"""Publish and subscribe by event type: ordered, isolated, counted [compiled].

One thread publishes and calls the direct handlers; no lock is taken on that way. Any thread may
subscribe and unsubscribe at any time. The order of delivery is the order of publication: an
event published by a handler waits until everybody has the present one (nothing is re-entered).
Readers in other threads take a queue (`event_queue`); other processes the bridge (`bridge`).

What does not live here: the events (`domain.events`), and what becomes of them.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Final

from bot4_runtime.domain.errors import ConfigError, InvariantViolated
from bot4_runtime.domain.events import Event, HandlerFailed
from bot4_runtime.event_queue import DEFAULT_CAPACITY, EventQueue, Overflow, declared_overflow

Handler = Callable[[object], object]
"""Takes an event; what it returns is ignored."""

ErrorReporter = Callable[["Subscription", object, Exception], object]
"""Called with the failing subscription, the event and the error."""

_LOG: Final = logging.getLogger("bot4.event_bus")


class Subscriber:
    """A subscriber whose `take` is called natively where it is compiled too.

    A function is called through Python's calling convention; this saves most of that. Only
    compiled modules can derive from it, and in a compiled build nothing else can.
    """

    def take(self, event: object) -> None:
        """Take an event.

        Raises:
            NotImplementedError: the subclass does not say what becomes of it.
        """
        raise NotImplementedError


class EventCounter(Subscriber):
    """Counts the events it is given: the smallest compiled subscriber.

    Examples:
        >>> bus, counter = EventBus(), EventCounter()
        >>> _ = bus.subscribe(str, counter)
        >>> bus.publish_many(["a", "b"])
        >>> counter.events
        2
    """

    def __init__(self) -> None:
        self.events = 0

    def take(self, event: object) -> None:
        """Count one event."""
        self.events += 1


class Latest(Subscriber):
    """Keeps the last event it was given; None before the first.

    Examples:
        >>> bus, latest = EventBus(), Latest()
        >>> _ = bus.subscribe(str, latest)
        >>> bus.publish_many(["a", "b"])
        >>> latest.event
        'b'
    """

    def __init__(self) -> None:
        self.event: object = None

    def take(self, event: object) -> None:
        """Keep the event."""
        self.event = event


class Subscription:
    """One handler's place on the bus; give it to `EventBus.unsubscribe`.

    Attributes:
        active: False once unsubscribed; the handler is not called from then on.
        failed: events on which the handler raised.
    """

    def __init__(self, kinds: tuple[type, ...], handler: Handler | Subscriber, name: str) -> None:
        self.kinds: Final = kinds
        self.native: Final = handler if isinstance(handler, Subscriber) else None
        self.handler: Final[Handler] = handler.take if isinstance(handler, Subscriber) else handler
        self.name: Final = name
        self.active = True
        self.failed = 0
        self.counted = 0  # by routes that are no more; calls that were left out are taken off


class _Route:
    """Who takes one type of event, never changed but for the count of what was published."""

    def __init__(self, kind: type, takers: list[Subscription]) -> None:
        self.kind: Final = kind
        self.takers: Final = tuple(takers)
        natives = [taker.native for taker in takers if taker.native is not None]
        alike = len(natives) == len(takers)  # one of the two is empty; order goes before speed
        self.natives: Final = tuple(natives if alike else [])
        self.handlers: Final = tuple([] if alike else [taker.handler for taker in takers])
        self.published = 0


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
        self._changing: Final = threading.Lock()  # whoever subscribes, in whatever thread
        self._subscriptions: list[Subscription] = []
        self._queues: list[tuple[Subscription, EventQueue]] = []
        self._routes: dict[type, _Route] = {}
        self._retired: list[_Route] = []  # their counts are not in `_past` yet
        self._past: dict[type, int] = {}  # events published over routes that are no more
        self._pending: deque[object] = deque()
        self._overflowed: list[str] = []
        self._busy = False
        self._alert = 0  # 1: something is pending, overflowed or was unsubscribed
        self._errors = 0
        self._delivered = 0  # calls over routes that are no more; those left out are taken off

    # ------------------------------------------------------------- subscribing
    def subscribe(
        self, event_type: object, handler: Handler | Subscriber, name: str = ""
    ) -> Subscription:
        """Call a handler with every event of a type, in order of subscription.

        A subscription made while an event is delivered sees the events delivered after it, those
        included that wait for their turn because a handler published them.

        Args:
            event_type: an event class (its subclasses included), a union of them such as the
                family `domain.events.OrderEvent`, or a tuple of either.
            handler: called with the event in the publishing thread; a function or a `Subscriber`.
            name: what errors call it; the handler's own name by default.

        Raises:
            ConfigError: `event_type` is none of these, or the handler cannot be called.
        """
        if not (isinstance(handler, Subscriber) or callable(handler)):
            raise ConfigError(f"handler {handler!r} cannot be called; expected a function")
        named = name or str(getattr(handler, "__qualname__", type(handler).__qualname__))
        subscription = Subscription(_kinds(event_type), handler, named)
        with self._changing:
            self._subscriptions = [*self._subscriptions, subscription]
            self._retire_routes()
        return subscription

    def subscribe_queue(
        self,
        event_type: object,
        overflow: Overflow | None = None,
        capacity: int = DEFAULT_CAPACITY,
        key: Callable[[object], object] | None = None,
        name: str = "queue",
    ) -> EventQueue:
        """Collect events for a reader in another thread.

        Args:
            event_type: as in `subscribe`.
            overflow: what happens when the reader is `capacity` events behind; as declared for
                these types by default (`event_queue.declared_overflow`).
            capacity: events, at least 1.
            key: for CONFLATE, what an event replaces; its type and symbol by default.
            name: what messages and counters call it.

        Raises:
            ConfigError: `event_type` is not a type of event, its topics declare different
                policies and none is named, or the capacity is below 1.
        """
        policy = declared_overflow(_kinds(event_type)) if overflow is None else overflow
        queue = EventQueue(name, capacity, policy, key)
        subscription = self.subscribe(event_type, _QueueFeeder(queue, self), name)
        with self._changing:
            self._queues = [*self._queues, (subscription, queue)]
        return queue

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop calling a handler, from the present event on; twice does no harm."""
        with self._changing:
            subscription.active = False
            kept = [other for other in self._subscriptions if other is not subscription]
            self._subscriptions = kept
            self._queues = [fed for fed in self._queues if fed[0] is not subscription]
            self._retire_routes()
            self._alert = 1

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
        if self._busy or self._alert != 0:
            self._later(event)
            return
        route = self._routes.get(type(event))
        if route is None:
            route = self._route(type(event))
        route.published += 1
        done = 0
        self._busy = True
        try:
            for subscriber in route.natives:
                done += 1
                subscriber.take(event)
                if self._alert != 0:
                    break
            for handler in route.handlers:
                done += 1
                handler(event)
                if self._alert != 0:
                    break
        except Exception as error:  # noqa: BLE001 - isolated, counted and reported
            self._go_on(route, event, done, error)
            return
        except BaseException:
            self._busy = False
            self._leave_out(route, done)
            raise
        self._busy = False
        if self._alert != 0:
            self._go_on(route, event, done, None)

    def publish_many(self, events: Iterable[object]) -> None:
        """Publish events in order.

        Raises:
            InvariantViolated: as in `publish`; the events after it are not published.
        """
        for event in events:
            self.publish(event)

    def _later(self, event: object) -> None:
        """Keep an event of a handler for its turn; or catch up on what an interrupt left."""
        self._pending.append(event)
        if self._busy:
            self._alert = 1
        else:
            self._catch_up()

    def _go_on(self, route: _Route, event: object, done: int, error: Exception | None) -> None:
        """Finish a delivery that is out of the ordinary, then deliver what it published."""
        self._busy = True
        try:
            self._deliver(route, event, done, error)
        finally:
            self._busy = False
        self._catch_up()

    def _catch_up(self) -> None:
        self._busy = True
        try:
            while self._pending:
                event = self._pending.popleft()
                route = self._routes.get(type(event))
                if route is None:
                    route = self._route(type(event))
                route.published += 1
                self._deliver(route, event, 0, None)
            self._alert = 0
        finally:
            self._busy = False
        if self._overflowed:
            self._halt()

    def _deliver(self, route: _Route, event: object, done: int, failure: Exception | None) -> None:
        """Call the takers after the first `done`, the last of whom failed if there is an error."""
        try:
            if failure is not None:
                self._failed(route.takers[done - 1], event, failure)
            for taker in route.takers[done:]:
                done += 1
                if not taker.active:
                    self._missed(taker)
                    continue
                try:
                    taker.handler(event)
                except Exception as error:  # noqa: BLE001 - isolated, counted and reported
                    self._failed(taker, event, error)
        except BaseException:
            self._leave_out(route, done)
            raise

    def _leave_out(self, route: _Route, done: int) -> None:
        """Count off the takers that an interrupt kept from an event."""
        self._alert = 1
        for taker in route.takers[done:]:
            self._missed(taker)

    def _missed(self, taker: Subscription) -> None:
        taker.counted -= 1
        self._delivered -= 1

    def _failed(self, taker: Subscription, event: object, error: Exception) -> None:
        self._errors += 1
        taker.failed += 1
        if self._on_error is None:
            _LOG.error("handler %s failed on %r", taker.name, event, exc_info=error)
        else:
            try:
                self._on_error(taker, event, error)
            except Exception:  # noqa: BLE001 - the same
                self._errors += 1
                _LOG.exception("the error reporter failed on %r", error)
        if isinstance(event, Event) and not isinstance(event, HandlerFailed):
            failure = HandlerFailed(
                ts_event_ns=event.ts_event_ns,
                event_type=type(event).__name__,
                handler=taker.name,
                error=f"{type(error).__name__}: {error}",
            )
            self._pending.append(failure)

    def _overflow(self, name: str) -> None:
        """Take note that a HALT queue is full; `publish` raises when everybody has the event."""
        if name not in self._overflowed:
            self._overflowed.append(name)
        self._alert = 1

    def _halt(self) -> None:
        names = ", ".join(self._overflowed)
        self._overflowed = []
        raise InvariantViolated(
            f"event queue {names} is full and may drop nothing; its reader has stopped: "
            "nothing is lost, restart the process"
        )

    # ------------------------------------------------------------------ routes
    def _route(self, kind: type) -> _Route:
        """Make the route of a type, in the publishing thread, where no count is on its way."""
        with self._changing:
            for old in self._retired:
                self._past[old.kind] = self._past.get(old.kind, 0) + old.published
                self._delivered += old.published * len(old.takers)
                for taker in old.takers:
                    taker.counted += old.published
            self._retired = []
            takers = [taker for taker in self._subscriptions if issubclass(kind, taker.kinds)]
            route = _Route(kind, takers)
            self._routes[kind] = route
        return route

    def _retire_routes(self) -> None:
        """Forget all routes; each is made anew when it is needed."""
        self._retired = [*self._retired, *self._routes.values()]
        self._routes = {}

    # ---------------------------------------------------------------- counting
    def delivered(self, subscription: Subscription) -> int:
        """Return how many events a handler was called with, those it failed on included."""
        with self._changing:
            calls = subscription.counted
            for route in [*self._routes.values(), *self._retired]:
                if subscription in route.takers:
                    calls += route.published
        return calls

    def published(self) -> dict[str, int]:
        """Return how many events of each type were published, by the type's name."""
        counts: dict[str, int] = {}
        with self._changing:
            for kind, past in self._past.items():
                counts[kind.__name__] = counts.get(kind.__name__, 0) + past
            for route in [*self._routes.values(), *self._retired]:
                name = route.kind.__name__
                counts[name] = counts.get(name, 0) + route.published
        return {name: count for name, count in counts.items() if count}

    def counters(self) -> dict[str, int]:
        """Return what happened so far.

        Returns:
            ``published`` (events), ``delivered`` (calls of handlers), ``handler_errors``,
            ``subscriptions``, and over the queues ``queued`` (waiting now), ``dropped`` and
            ``conflated``.
        """
        published = sum(self.published().values())
        with self._changing:
            delivered = self._delivered
            for route in [*self._routes.values(), *self._retired]:
                delivered += route.published * len(route.takers)
        queued = dropped = conflated = 0
        for _, queue in self._queues:
            queued += len(queue)
            dropped += queue.dropped
            conflated += queue.conflated
        return {
            "published": published,
            "delivered": delivered,
            "handler_errors": self._errors,
            "subscriptions": len(self._subscriptions),
            "queued": queued,
            "dropped": dropped,
            "conflated": conflated,
        }


class _QueueFeeder(Subscriber):
    """Pushes events into a queue and tells the bus when it must halt."""

    def __init__(self, queue: EventQueue, bus: EventBus) -> None:
        self._queue = queue
        self._bus = bus

    def take(self, event: object) -> None:
        """Push an event."""
        if not self._queue.push(event):
            self._bus._overflow(self._queue.name)  # noqa: SLF001 - of this module


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
