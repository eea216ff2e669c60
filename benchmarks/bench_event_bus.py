"""Publishing: < 50 ns with one Python subscriber, more than a million events a second."""

from benchmarks.harness import Result, empty_call, floors, measure
from bot4_runtime.domain.events import Heartbeat
from bot4_runtime.event_bus import EventBus
from bot4_runtime.event_queue import Overflow

TITLE = "Event bus: publish, events of domain.events"


def run() -> list[Result]:
    event = Heartbeat(ts_event_ns=1, events_total=1)
    results = floors()
    for count, target in ((0, None), (1, 50), (4, None), (16, None)):
        bus = EventBus()
        for _ in range(count):
            bus.subscribe(Heartbeat, empty_call)
        results.append(
            measure(f"publish, {count} Python subscribers", bus.publish, event, specified=target)
        )
    bus = EventBus()
    for _ in range(4):
        bus.subscribe(Heartbeat, empty_call)

    def construct_and_publish() -> None:
        bus.publish(Heartbeat(ts_event_ns=1, events_total=1))

    results.append(
        measure("construct + publish, 4 Python subscribers", construct_and_publish, specified=1000)
    )
    queued = EventBus()
    queued.subscribe_queue(Heartbeat, Overflow.DROP_OLDEST, capacity=100)
    results.append(measure("publish, 1 queue (drop oldest)", queued.publish, event))
    return results + peers()


def peers() -> list[Result]:
    """Other libraries, where they are installed."""
    results: list[Result] = []
    try:
        from blinker import Signal
    except ImportError:
        pass
    else:
        signal = Signal()

        def receiver(sender: object, **_: object) -> None: ...

        signal.connect(receiver)
        results.append(measure("blinker Signal.send, 1", signal.send, 1, kind="peer"))
    try:
        from nautilus_trader.common.component import MessageBus, TestClock
        from nautilus_trader.model.identifiers import TraderId
    except ImportError:
        pass
    else:
        other = MessageBus(trader_id=TraderId("T-1"), clock=TestClock())
        other.subscribe("t", empty_call)
        results.append(measure("NautilusTrader publish, 1", other.publish, "t", 1, kind="peer"))
    return results
