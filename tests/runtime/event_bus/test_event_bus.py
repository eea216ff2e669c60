import logging
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import (
    CancelRequested,
    Event,
    GapSeen,
    HandlerFailed,
    Heartbeat,
    OrderAccepted,
    OrderEvent,
    RiskEvent,
    SystemEvent,
)
from bot4_runtime.event_bus import EventBus, EventCounter, Subscriber


def beat(number: int) -> Heartbeat:
    return Heartbeat(ts_event_ns=number, events_total=number)


def gap(symbol: str, number: int = 0) -> GapSeen:
    return GapSeen(ts_event_ns=number, symbol=symbol, interval="1h", from_ms=0, to_ms=number)


def accepted(number: int) -> OrderAccepted:
    return OrderAccepted(ts_event_ns=number, intent_no=number, venue_order_id="v")


def test_an_event_goes_to_the_subscribers_of_its_type_in_order_of_subscription():
    bus, seen = EventBus(), []
    bus.subscribe(Heartbeat, lambda event: seen.append(("a", event)))
    bus.subscribe(GapSeen, lambda event: seen.append(("gap", event)))
    bus.subscribe(Heartbeat, lambda event: seen.append(("b", event)))
    event = beat(1)
    bus.publish(event)
    assert seen == [("a", event), ("b", event)]
    assert seen[0][1] is event, "no copy is made"


def test_a_family_a_tuple_and_a_base_class_subscribe_to_all_their_types():
    bus = EventBus()
    family, several, every = [], [], []
    bus.subscribe(OrderEvent, family.append)
    bus.subscribe((RiskEvent, SystemEvent, GapSeen), several.append)
    bus.subscribe(Event, every.append)
    cancel = CancelRequested(ts_event_ns=1, intent_no=1, reason="r")
    bus.publish_many([accepted(1), gap("A"), cancel, beat(4)])
    assert family == [accepted(1), cancel]
    assert several == [gap("A")]
    assert every == [accepted(1), gap("A"), cancel, beat(4)]


@pytest.mark.parametrize("kind", ["Heartbeat", 3, (), None, (Heartbeat, "GapSeen")])
def test_what_is_no_type_of_event_is_refused(kind):
    with pytest.raises(ConfigError, match="expected an event class"):
        EventBus().subscribe(kind, print)


def test_a_handler_that_cannot_be_called_is_refused():
    with pytest.raises(ConfigError, match="cannot be called"):
        EventBus().subscribe(Heartbeat, None)


def test_an_unsubscribed_handler_gets_nothing_more_even_of_the_present_event():
    bus, seen = EventBus(), []
    bus.subscribe(Heartbeat, lambda _: bus.unsubscribe(second))
    second = bus.subscribe(Heartbeat, seen.append)
    bus.publish(beat(1))
    bus.unsubscribe(second)
    bus.publish(beat(2))
    assert seen == []
    assert bus.counters()["subscriptions"] == 1


def test_subscribing_while_publishing_takes_effect_with_the_next_event():
    bus, seen = EventBus(), []

    def grow(_: object) -> None:
        bus.subscribe(Heartbeat, seen.append)

    first = bus.subscribe(Heartbeat, grow)
    bus.publish(beat(1))
    assert seen == []
    bus.unsubscribe(first)
    bus.publish(beat(2))
    assert seen == [beat(2)]


def test_a_handler_that_raises_is_isolated_counted_and_reported():
    reports, seen, failures = [], [], []
    bus = EventBus(on_error=lambda *report: reports.append(report))
    bad = bus.subscribe(Heartbeat, lambda _: 1 / 0, name="divider")
    bus.subscribe(Heartbeat, seen.append)
    bus.subscribe(HandlerFailed, failures.append)
    event = beat(7)
    bus.publish(event)
    assert seen == [event]
    assert bad.failed == 1
    assert bus.counters()["handler_errors"] == 1
    assert reports[0][:2] == (bad, event)
    assert isinstance(reports[0][2], ZeroDivisionError)
    assert failures == [
        HandlerFailed(
            ts_event_ns=7,
            event_type="Heartbeat",
            handler="divider",
            error="ZeroDivisionError: division by zero",
        )
    ]


def test_without_a_reporter_a_failure_is_logged_with_its_traceback(caplog):
    bus = EventBus()
    bus.subscribe(Heartbeat, lambda _: 1 / 0, name="divider")
    with caplog.at_level(logging.ERROR):
        bus.publish(beat(1))
    assert "divider" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_failing_reporter_and_failing_failure_handlers_stop_nothing(caplog):
    def broken(*_: object) -> None:
        raise ValueError("reporter")

    bus = EventBus(on_error=broken)
    bus.subscribe(Heartbeat, broken)
    bus.subscribe(HandlerFailed, broken)
    bus.publish(beat(1))
    assert bus.counters()["handler_errors"] == 4
    assert bus.counters()["published"] == 2
    assert "reporter failed" in caplog.text


def test_failures_on_foreign_events_are_counted_without_a_failure_event():
    bus = EventBus(on_error=lambda *_: None)
    bus.subscribe(str, lambda _: 1 / 0)
    bus.publish("plain")
    assert bus.counters() | {"published": 1, "handler_errors": 1} == bus.counters()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_and_what_was_pending_comes_first_afterwards(stop):
    bus, seen = EventBus(), []

    def interrupted(event: object) -> None:
        if event == beat(1):
            bus.publish(beat(2))
            raise stop

    bus.subscribe(Heartbeat, interrupted)
    bus.subscribe(Heartbeat, seen.append)
    with pytest.raises(stop):
        bus.publish(beat(1))
    bus.publish(beat(3))
    assert seen == [beat(2), beat(3)]


def test_an_interrupt_of_the_error_reporter_passes_and_the_rest_is_counted_as_not_called():
    def reporter(*_):
        raise KeyboardInterrupt

    bus, seen = EventBus(on_error=reporter), []
    bus.subscribe(Heartbeat, lambda _: 1 / 0)
    late = bus.subscribe(Heartbeat, seen.append)
    with pytest.raises(KeyboardInterrupt):
        bus.publish(beat(1))
    assert (seen, bus.delivered(late), bus.counters()["delivered"]) == ([], 0, 1)
    bus.publish(gap("A"))
    assert bus.counters()["published"] == 2


def test_everybody_sees_nested_publications_in_order_of_publication():
    bus, first, second = EventBus(), [], []

    def answer(event: Heartbeat) -> None:
        first.append(event.events_total)
        if event.events_total < 5:
            bus.publish(beat(event.events_total + 10))
            bus.publish(beat(event.events_total + 20))

    bus.subscribe(Heartbeat, answer)
    bus.subscribe(Heartbeat, lambda event: second.append(event.events_total))
    bus.publish_many([beat(1), beat(2)])
    assert first == second == [1, 11, 21, 2, 12, 22]


@given(
    st.lists(st.sampled_from([beat(1), gap("A"), accepted(2)]), max_size=30),
    st.lists(st.sampled_from([Heartbeat, GapSeen, OrderEvent, Event]), max_size=6),
)
def test_delivery_equals_a_filter_over_what_was_published(events, kinds):
    bus = EventBus()
    got = [[] for _ in kinds]
    for kind, box in zip(kinds, got, strict=True):
        bus.subscribe(kind, box.append)
    bus.publish_many(events)
    for kind, box in zip(kinds, got, strict=True):
        assert box == [event for event in events if isinstance(event, kind)]
    assert bus.counters()["published"] == len(events)


def test_many_events_leave_no_memory_behind():
    bus, total = EventBus(), [0]

    def count(_: object) -> None:
        total[0] += 1

    bus.subscribe(Heartbeat, count)
    event = beat(1)
    bus.publish(event)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20_000):
        bus.publish(event)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 10_000
    for _ in range(180_000):
        bus.publish(event)
    assert total[0] == 200_001


def test_native_subscribers_and_functions_are_called_in_order_of_subscription():
    bus, seen = EventBus(), []
    first = EventCounter()
    bus.subscribe(Heartbeat, first)
    bus.publish(beat(1))
    bus.subscribe(Heartbeat, lambda _: seen.append(first.events))
    second = EventCounter()
    bus.subscribe(Heartbeat, lambda _: seen.append(second.events))
    bus.subscribe(Heartbeat, second)
    bus.publish(beat(2))
    assert seen == [2, 0], "each saw those before it called, and none after"
    assert (first.events, second.events) == (2, 1)


def test_a_subscriber_that_says_nothing_fails_on_every_event():
    bus = EventBus(on_error=lambda *_: None)
    idle = bus.subscribe(Heartbeat, Subscriber())
    counter = EventCounter()
    bus.subscribe(Heartbeat, counter)
    bus.publish_many(beat(number) for number in range(3))
    assert (idle.failed, counter.events) == (3, 3)


def test_calls_are_counted_by_subscription_and_events_by_type():
    bus = EventBus(on_error=lambda *_: None)
    every = bus.subscribe(Event, lambda event: 1 / (event.ts_event_ns - 2), name="every")
    beats = bus.subscribe(Heartbeat, lambda _: None)
    bus.publish_many([beat(1), gap("A", 1), beat(2)])
    bus.unsubscribe(beats)
    bus.publish(beat(3))
    assert bus.published() == {"Heartbeat": 3, "GapSeen": 1, "HandlerFailed": 1}
    # the failure of beat(2) carries its time, so that `every` fails on that too
    assert (bus.delivered(every), every.failed) == (5, 2)
    assert (bus.delivered(beats), beats.failed) == (2, 0)
    assert bus.counters() | {"published": 5, "delivered": 7, "handler_errors": 2} == bus.counters()


def test_a_handler_that_subscribes_another_after_publishing_lets_it_see_what_waits():
    bus, seen = EventBus(), []

    def grow(event):
        if event.events_total == 1:
            bus.publish(beat(2))
            bus.subscribe(Heartbeat, seen.append)

    bus.subscribe(Heartbeat, grow)
    bus.publish(beat(1))
    assert seen == [beat(2)]
