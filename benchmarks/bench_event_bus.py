"""Publishing: < 50 ns to one Python subscriber and to four compiled ones, > 1 M events/s.

A compiled subscriber is one whose `take` is called natively (`event_bus.Subscriber`); here an
`EventCounter`, checked afterwards to have counted every event. A Python subscriber is an empty
function: the floor "C calls a Python function" is what calling it alone costs, from compiled
code. Memory is the growth of the process over ten million events.
"""

import time
from collections import deque
from queue import SimpleQueue

from benchmarks.harness import (
    EMPTY_CALL,
    Result,
    empty_call,
    floors,
    measure,
    of_rounds,
    peers,
    resident_bytes,
    throughput,
)
from bot4_runtime.domain.events import Heartbeat
from bot4_runtime.event_bus import EventBus, EventCounter
from bot4_runtime.event_queue import Overflow

TITLE = "Event bus: publish, events of domain.events"
MANY = 10_000_000
ROUND = 1_000
CALLED = "C calls a Python function"
NAUTILUS = "NautilusTrader MessageBus.publish, {}"
BLINKER = "blinker Signal.send, 1 receiver"
HANDLERS = {1: "1 handler", 4: "4 handlers"}
PEERS = (*(NAUTILUS.format(words) for words in HANDLERS.values()), BLINKER)
ONE = "publish, 1 Python subscriber"


def run() -> list[Result]:
    results = [*floors(), called_from_c()]
    results += [python_subscribers(count) for count in (0, 1, 4, 16)]
    results += [compiled_subscribers(count) for count in (1, 4, 16)]
    results += [construct_and_publish(), many_at_once(), to_a_queue(), memory()]
    results += queues()
    results += peers("bus", PEERS)
    return [*results, compared(results)]


def event() -> Heartbeat:
    return Heartbeat(ts_event_ns=1, events_total=1)


def bus_of(count: int) -> EventBus:
    bus = EventBus()
    for _ in range(count):
        bus.subscribe(Heartbeat, empty_call)
    return bus


def called_from_c() -> Result:
    """What a Python function costs that C calls: `map` drained by a deque."""
    numbers = [1] * 10_000
    rounds = []
    for _ in range(200):
        start = time.perf_counter_ns()
        deque(map(empty_call, numbers), maxlen=0)
        rounds.append((time.perf_counter_ns() - start) / len(numbers))
    return of_rounds(CALLED, rounds, kind="floor")


def python_subscribers(count: int) -> Result:
    target = 50 if count == 1 else None
    name = f"publish, {count} Python subscriber{'s' * (count != 1)}"
    beside = (NAUTILUS.format(HANDLERS[1]), BLINKER) if count == 1 else ()
    return measure(
        name, bus_of(count).publish, event(), specified=target, goal=target,
        floor=CALLED, peers=beside,
    )  # fmt: skip


def compiled_subscribers(count: int) -> Result:
    bus, counters = EventBus(), [EventCounter() for _ in range(count)]
    for counter in counters:
        bus.subscribe(Heartbeat, counter)
    result = measure(
        f"publish, {count} compiled subscriber{'s' * (count != 1)}", bus.publish, event(),
        specified=50 if count <= 4 else None, goal=50 if count <= 4 else None, floor=EMPTY_CALL,
    )  # fmt: skip
    assert {counter.events for counter in counters} == {bus.counters()["published"]}
    return result


def construct_and_publish() -> Result:
    bus = bus_of(4)

    def work() -> int:
        publish = bus.publish
        for number in range(ROUND):
            publish(Heartbeat(ts_event_ns=number, events_total=number))
        return ROUND

    return throughput(
        "construct + publish, 4 Python subscribers", work, unit="events/s", rounds=1_000,
        specified=1_000_000, goal=2_000_000,
    )  # fmt: skip


def many_at_once() -> Result:
    bus, events = bus_of(1), [event()] * ROUND

    def work() -> int:
        bus.publish_many(events)
        return len(events)

    return throughput("publish_many, 1 Python subscriber", work, unit="events/s", rounds=1_000)


def to_a_queue() -> Result:
    bus = EventBus()
    bus.subscribe_queue(Heartbeat, Overflow.DROP_OLDEST, capacity=100)
    return measure("publish, 1 queue (drop oldest)", bus.publish, event())


def memory() -> Result:
    """Publish ten million events to a function, a counter and a queue that overflows."""
    bus, counter = bus_of(1), EventCounter()
    bus.subscribe(Heartbeat, counter)
    bus.subscribe_queue(Heartbeat, Overflow.DROP_OLDEST, capacity=100)

    def publish(count: int) -> None:
        for number in range(count):
            bus.publish(Heartbeat(ts_event_ns=number, events_total=number))

    publish(100_000)
    before = resident_bytes()
    publish(MANY)
    grown = (resident_bytes() - before) / 2**20
    assert counter.events == MANY + 100_000
    return of_rounds("memory grown over 10 M events", [grown], unit="MB", specified=1.0, goal=1.0)


def queues() -> list[Result]:
    """The standard library's own way to hand an event to a thread."""
    queue: SimpleQueue[object] = SimpleQueue()

    def hand_over(item: object) -> object:
        queue.put(item)
        return queue.get()

    return [measure("queue.SimpleQueue put + get", hand_over, event(), kind="peer")]


def compared(results: list[Result]) -> Result:
    """How many times as fast as NautilusTrader's bus: the median of its time over ours."""
    named = {row.name: row for row in results}
    ratio = named[NAUTILUS.format(HANDLERS[1])].median / named[ONE].median
    return of_rounds(
        "NautilusTrader's time over ours, 1 Python subscriber", [ratio],
        unit="x", goal=25, better="higher", note="medians",
    )  # fmt: skip
