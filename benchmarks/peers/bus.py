"""NautilusTrader's message bus and blinker's signal, handed one object for empty handlers.

Tells rows to `benchmarks.harness.peers`, timed as ours are; a library that is not installed
has none.
"""

from benchmarks.harness import measure, tell


def empty(*_, **__):
    """Take an event and do nothing."""


def nautilus():
    try:
        from nautilus_trader.common.component import MessageBus, TestClock
        from nautilus_trader.model.identifiers import TraderId
    except ImportError:
        return []
    rows = []
    for count, words in ((1, "1 handler"), (4, "4 handlers")):
        bus, taken = MessageBus(trader_id=TraderId("BENCH-001"), clock=TestClock()), []
        # a handler subscribes to a topic once: each is another function
        for handler in [lambda _: None for _ in range(count - 1)]:
            bus.subscribe("events.system.Heartbeat", handler)
        bus.subscribe("events.system.Heartbeat", taken.append)
        bus.publish("events.system.Heartbeat", 1)
        if taken != [1]:
            raise SystemExit("NautilusTrader's bus did not deliver")
        bus.unsubscribe("events.system.Heartbeat", taken.append)
        bus.subscribe("events.system.Heartbeat", lambda _: None)
        rows.append(
            measure(
                f"NautilusTrader MessageBus.publish, {words}",
                bus.publish,
                "events.system.Heartbeat",
                1,
            )
        )
    return rows


def blinker():
    try:
        from blinker import Signal
    except ImportError:
        return []
    signal = Signal()
    signal.connect(empty)
    return [measure("blinker Signal.send, 1 receiver", signal.send, 1)]


tell(nautilus() + blinker())
