"""NautilusTrader's message bus and blinker's signal, handed one object for empty handlers.

Prints rows for `benchmarks.harness.peers`; a library that is not installed has none.
"""

import json
import statistics
import time


def empty(*_, **__):
    """Take an event and do nothing."""


def row(name, call, *arguments, seconds=0.5):
    clock, loops, rounds = time.perf_counter_ns, 1_000, []
    end = clock() + int(seconds * 1e9)
    while clock() < end:
        start = clock()
        for _ in range(loops):
            call(*arguments)
        rounds.append((clock() - start) / loops)
    rounds.sort()
    return {
        "name": name,
        "min": rounds[0],
        "median": statistics.median(rounds),
        "p99": rounds[int(0.99 * len(rounds))],
        "unit": "ns",
    }


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
            row(
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
    return [row("blinker Signal.send, 1 receiver", signal.send, 1)]


print(json.dumps(nautilus() + blinker()))
