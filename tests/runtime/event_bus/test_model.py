"""The bus beside a model of a few lines, on scripts that publish and subscribe inside handlers."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.events import GapSeen, HandlerFailed, Heartbeat
from bot4_runtime.event_bus import EventBus

TYPES = (Heartbeat, GapSeen, HandlerFailed, (Heartbeat, GapSeen), (GapSeen, HandlerFailed))


class ModelBus:
    """What the bus means: a queue of events, each given to everybody before the next."""

    def __init__(self) -> None:
        self.subscribers, self.pending, self.busy = [], deque(), False
        self.calls, self.failures, self.taken = 0, 0, 0

    def subscribe(self, kinds, handler):
        entry = {"kinds": kinds, "handler": handler}
        self.subscribers.append(entry)
        return entry

    def unsubscribe(self, entry):
        self.subscribers = [kept for kept in self.subscribers if kept is not entry]

    def publish(self, event):
        self.pending.append(event)
        if self.busy:
            return
        self.busy = True
        try:
            while self.pending:
                event = self.pending.popleft()
                self.taken += 1
                for entry in [s for s in self.subscribers if isinstance(event, s["kinds"])]:
                    if any(entry is kept for kept in self.subscribers):
                        self.call(entry["handler"], event)
        finally:
            self.busy = False

    def call(self, handler, event):
        self.calls += 1
        try:
            handler(event)
        except Exception as error:  # noqa: BLE001 - the bus isolates all of these
            self.failures += 1
            if not isinstance(event, HandlerFailed):
                self.pending.append(
                    HandlerFailed(
                        ts_event_ns=event.ts_event_ns,
                        event_type=type(event).__name__,
                        handler="h",
                        error=f"{type(error).__name__}: {error}",
                    )
                )


def play(bus, steps, reactions, **options):
    """Run a script; return who got what in which order."""
    trace, subscriptions, reactions = [], [], deque(reactions)
    published = iter(range(1_000_000))

    def act(step):
        verb, argument = step
        if verb == "publish":
            number = next(published)
            if argument % 2:
                event = Heartbeat(ts_event_ns=number, events_total=number)
            else:
                event = GapSeen(
                    ts_event_ns=number, symbol="A", interval="1h", from_ms=0, to_ms=number
                )
            bus.publish(event)
        elif verb == "subscribe":
            place = len(subscriptions)
            subscriptions.append(
                bus.subscribe(TYPES[argument % 5], lambda event: take(place, event), **options)
            )
        elif verb == "unsubscribe" and subscriptions:
            bus.unsubscribe(subscriptions[argument % len(subscriptions)])
        elif verb == "fail":
            raise ValueError(argument)
        elif verb == "interrupt":
            raise KeyboardInterrupt

    def take(place, event):
        trace.append((place, type(event), event.ts_event_ns))
        for step in reactions.popleft() if reactions else ():
            act(step)

    for step in steps:
        try:
            act(step)
        except KeyboardInterrupt:
            trace.append("interrupted")
    return trace


outside = st.tuples(st.sampled_from(["publish", "subscribe", "unsubscribe"]), st.integers(0, 9))
inside = st.tuples(
    st.sampled_from(["publish", "publish", "subscribe", "unsubscribe", "fail", "interrupt"]),
    st.integers(0, 9),
)


@settings(max_examples=400)
@given(
    st.lists(outside, max_size=25),
    st.lists(st.lists(inside, max_size=3), max_size=25),
)
def test_the_bus_does_what_the_model_does(steps, reactions):
    steps = [("subscribe", 0), ("subscribe", 3), *steps]
    model, bus = ModelBus(), EventBus(on_error=lambda *_: None)
    expected = play(model, steps, reactions)
    assert play(bus, steps, reactions, name="h") == expected
    counted = {
        "published": model.taken,
        "delivered": model.calls,
        "handler_errors": model.failures,
        "subscriptions": len(model.subscribers),
    }
    assert bus.counters() | counted == bus.counters()
