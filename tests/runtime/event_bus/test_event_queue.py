"""Queued subscribers: bounded, with the overflow policy that their topic declares."""

import threading

import pytest

from bot4_runtime.domain.errors import ConfigError, InvariantViolated
from bot4_runtime.domain.events import (
    CandleClosed,
    GapSeen,
    HandlerFailed,
    Heartbeat,
    MarketEvent,
    OrderAccepted,
    OrderEvent,
    OrderFilled,
    RiskEvent,
    SystemEvent,
)
from bot4_runtime.event_bus import EventBus, EventCounter
from bot4_runtime.event_queue import DEFAULT_CAPACITY, Overflow, instrument_key


def beat(number: int) -> Heartbeat:
    return Heartbeat(ts_event_ns=number, events_total=number)


def gap(symbol: str, number: int = 0) -> GapSeen:
    return GapSeen(ts_event_ns=number, symbol=symbol, interval="1h", from_ms=0, to_ms=number)


def accepted(number: int) -> OrderAccepted:
    return OrderAccepted(ts_event_ns=number, intent_no=number, venue_order_id="v")


def test_a_halt_queue_loses_nothing_and_stops_the_publisher():
    bus, seen = EventBus(), []
    queue = bus.subscribe_queue(OrderEvent, Overflow.HALT, capacity=2, name="fills")
    bus.subscribe(OrderAccepted, seen.append)
    bus.publish_many([accepted(1), accepted(2)])
    with pytest.raises(InvariantViolated, match=r"fills is full.*nothing is lost"):
        bus.publish(accepted(3))
    assert queue.drain() == seen == [accepted(1), accepted(2), accepted(3)]
    bus.publish(accepted(4))
    assert queue.drain() == [accepted(4)]
    assert queue.dropped == 0


def test_a_full_halt_queue_is_named_once_for_nested_events():
    bus = EventBus()
    bus.subscribe_queue(OrderEvent, Overflow.HALT, capacity=1, name="fills")
    bus.subscribe(Heartbeat, lambda _: bus.publish_many([accepted(1), accepted(2), accepted(3)]))
    with pytest.raises(InvariantViolated, match="queue fills is full"):
        bus.publish(beat(1))


def test_those_after_a_full_halt_queue_get_the_event_too():
    bus, counter = EventBus(), EventCounter()
    bus.subscribe_queue(OrderEvent, capacity=1)
    bus.subscribe(OrderEvent, counter)
    bus.publish(accepted(1))
    with pytest.raises(InvariantViolated):
        bus.publish(accepted(2))
    assert counter.events == 2


def test_drop_oldest_keeps_the_newest_and_counts():
    bus = EventBus()
    queue = bus.subscribe_queue(Heartbeat, Overflow.DROP_OLDEST, capacity=3)
    bus.publish_many([beat(number) for number in range(10)])
    assert bus.counters() | {"queued": 3, "dropped": 7, "conflated": 0} == bus.counters()
    assert queue.drain() == [beat(7), beat(8), beat(9)]
    assert len(queue) == 0


def test_conflate_keeps_the_newest_of_each_key_in_order_of_publication():
    bus = EventBus()
    queue = bus.subscribe_queue(
        GapSeen, Overflow.CONFLATE, capacity=2, key=lambda event: event.symbol
    )
    bus.publish_many([gap("A", 1), gap("B", 2), gap("A", 3)])
    assert len(queue) == 2
    assert queue.drain() == [gap("B", 2), gap("A", 3)]
    bus.publish_many([gap("A", 4), gap("B", 5), gap("C", 6)])
    assert queue.drain() == [gap("B", 5), gap("C", 6)]
    assert (queue.conflated, queue.dropped) == (1, 1)


def test_conflate_goes_by_type_and_symbol_when_no_key_is_given():
    bus = EventBus()
    queue = bus.subscribe_queue((Heartbeat, GapSeen), Overflow.CONFLATE)
    bus.publish_many([beat(1), gap("A", 1), gap("B"), beat(2), gap("A", 2)])
    assert queue.drain() == [gap("B"), beat(2), gap("A", 2)]


def test_a_candle_is_conflated_by_its_symbol(candle_closed):
    assert instrument_key(candle_closed) == (CandleClosed, candle_closed.candle.symbol)


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        (MarketEvent, Overflow.CONFLATE),
        (GapSeen, Overflow.CONFLATE),
        (OrderEvent, Overflow.HALT),
        (OrderFilled, Overflow.HALT),
        (RiskEvent, Overflow.HALT),
        (SystemEvent, Overflow.HALT),
        ((Heartbeat, HandlerFailed), Overflow.DROP_OLDEST),
    ],
)
def test_every_topic_declares_what_a_full_queue_does(kind, policy):
    queue = EventBus().subscribe_queue(kind)
    assert DEFAULT_CAPACITY == 10_000
    assert (queue.overflow, queue.capacity) == (policy, DEFAULT_CAPACITY)


def test_topics_of_different_policies_need_one_named():
    bus = EventBus()
    with pytest.raises(ConfigError, match="Heartbeat and GapSeen has no one overflow policy"):
        bus.subscribe_queue((Heartbeat, GapSeen))
    assert bus.subscribe_queue((Heartbeat, GapSeen), Overflow.HALT).overflow is Overflow.HALT


def test_a_closed_queue_is_fed_no_more_and_can_still_be_drained():
    bus = EventBus()
    other = bus.subscribe_queue(Heartbeat, Overflow.HALT, name="other")
    queue = bus.subscribe_queue(Heartbeat, Overflow.HALT)
    bus.publish(beat(1))
    bus.close_queue(queue)
    bus.close_queue(queue)
    bus.publish(beat(2))
    assert queue.drain() == [beat(1)]
    assert other.drain() == [beat(1), beat(2)]


def test_a_queue_without_room_is_refused():
    with pytest.raises(ConfigError, match="capacity 0; expected at least 1"):
        EventBus().subscribe_queue(Heartbeat, Overflow.HALT, capacity=0)


def test_a_reader_thread_gets_every_event_once_and_in_order():
    bus, got, done = EventBus(), [], threading.Event()
    queue = bus.subscribe_queue(Heartbeat, Overflow.HALT, capacity=50_000)

    def read() -> None:
        while not (done.is_set() and len(queue) == 0):
            got.extend(queue.drain())

    reader = threading.Thread(target=read)
    reader.start()
    events = [beat(number) for number in range(20_000)]
    bus.publish_many(events)
    done.set()
    reader.join(timeout=20)
    assert got == events


def test_readers_and_subscribers_in_other_threads_disturb_no_one():
    """Eight threads read, subscribe and unsubscribe while the publisher publishes."""
    bus, stop, wrong = EventBus(), threading.Event(), []
    whole: list[object] = []
    bus.subscribe(Heartbeat, whole.append)

    def read() -> None:
        for _ in range(1_000):
            queue = bus.subscribe_queue(Heartbeat, Overflow.HALT, capacity=1_000_000)
            got: list[Heartbeat] = []
            while len(got) < 50 and not stop.wait(0.001):
                got += queue.drain()
            bus.close_queue(queue)
            got += queue.drain()
            numbers = [event.events_total for event in got]
            if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                wrong.append(numbers)
            if stop.is_set():
                return

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    events = [beat(number) for number in range(10_000)]
    bus.publish_many(events)
    stop.set()
    for reader in readers:
        reader.join(timeout=30)
        assert not reader.is_alive()
    assert whole == events
    assert wrong == []
    assert bus.counters()["subscriptions"] == 1
    assert bus.published() == {"Heartbeat": 10_000}
