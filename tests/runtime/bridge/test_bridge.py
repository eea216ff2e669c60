"""Events reach other processes, and trading does not notice what Redis does."""

import math
import signal
import subprocess
import sys
import threading
import time

import pytest
from structlog.testing import capture_logs

from bot4_runtime.bridge import (
    FAMILIES,
    MAX_LENGTH,
    RedisBridge,
    family_of,
    read_stream,
    shown,
    stream_name,
)
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import (
    BreakerChanged,
    CandleClosed,
    GapSeen,
    HandlerFailed,
    Heartbeat,
    OrderAccepted,
    OrderFilled,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.event_bus import EventBus

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]


def beat(number):
    return Heartbeat(ts_event_ns=number, events_total=number)


def accepted(number):
    return OrderAccepted(ts_event_ns=number, intent_no=number, venue_order_id="v")


@pytest.fixture
def bus():
    return EventBus()


@pytest.fixture
def bridged(bus):
    """Start bridges; all are stopped afterwards."""
    started = []

    def begin(url, capacity=10_000):
        bridge = RedisBridge(bus, url, "test", capacity)
        bridge.start()
        started.append(bridge)
        return bridge

    yield begin
    for bridge in started:
        bridge.stop(grace=0.1)


class Reader:
    """Reads streams in a thread of its own."""

    def __init__(self, url, families=FAMILIES, after=None):
        self.got, self.error, self.stop = [], None, threading.Event()
        self.arguments = (url, "test", families)
        self.after = after
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        try:
            for item in read_stream(*self.arguments, after=self.after, stop=self.stop):
                self.got.append(item)
        except ConfigError as error:
            self.error = error

    def end(self):
        self.stop.set()
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()

    def numbers(self):
        return [item.number for item in self.got]


@pytest.fixture
def reading():
    readers = []

    def begin(*arguments, **options):
        readers.append(Reader(*arguments, **options))
        return readers[-1]

    yield begin
    for reader in readers:
        reader.end()


@pytest.mark.parametrize(
    ("kind", "family"),
    [(CandleClosed, "market"), (GapSeen, "market"), (OrderFilled, "orders"),
     (BreakerChanged, "risk"), (SessionStarted, "system"), (Heartbeat, "system"),
     (HandlerFailed, "system")],
)  # fmt: skip
def test_every_event_has_a_family(kind, family):
    assert family_of(kind) == family


def test_events_arrive_whole_in_order_and_by_family(own_redis, bus, bridged, reading, wait_until):
    own_redis.start()
    bridge = bridged(own_redis.url)
    everything = reading(own_redis.url)
    orders = reading(own_redis.url, ("orders",))
    sent = [accepted(n) if n % 3 else beat(n) for n in range(1_500)]
    bus.publish_many(sent)
    wait_until(lambda: len(everything.got) == 1_500, "all were read")
    wait_until(lambda: len(orders.got) == 1_000, "all orders were read")
    assert [item.event for item in orders.got] == [
        event for event in sent if event.ts_event_ns % 3
    ]
    by_number = sorted(everything.got, key=lambda item: item.number)
    assert [item.event for item in by_number] == sent
    assert {item.run for item in everything.got} == {everything.got[0].run}
    wait_until(lambda: bridge.counters()["queued"] == 0, "all were forwarded")
    assert bridge.counters() == {"forwarded": 1_500, "dropped": 0, "queued": 0, "connected": 1}
    later = reading(own_redis.url, ("orders",), after={"orders": orders.got[-3].entry_id})
    wait_until(lambda: len(later.got) == 2, "the last two were read again")
    assert [item.number for item in later.got] == orders.numbers()[-2:]


def test_another_process_reads_the_events(own_redis, bus, bridged):
    own_redis.start()
    bridged(own_redis.url)
    program = (
        "import itertools, sys\n"
        "from bot4_runtime.bridge import read_stream\n"
        "events = read_stream(sys.argv[1], 'test', ('system',))\n"
        "for item in itertools.islice(events, 100): print(item.event.events_total)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", program, own_redis.url], stdout=subprocess.PIPE, text=True
    )
    bus.publish_many([beat(number) for number in range(100)])
    told, _ = reader.communicate(timeout=60)
    assert [int(line) for line in told.split()] == list(range(100))
    assert reader.returncode == 0


def test_no_redis_at_the_start_costs_nothing_and_what_waits_arrives_later(
    own_redis, bus, bridged, reading, wait_until
):
    bridge = bridged(own_redis.url)
    start = time.perf_counter()
    bus.publish_many([accepted(number) for number in range(5_000)])
    assert time.perf_counter() - start < 5.0, "nobody waits for a server that is not there"
    assert bridge.counters()["connected"] == 0
    own_redis.start()
    reader = reading(own_redis.url)
    wait_until(lambda: len(reader.got) == 5_000, "all were read")
    assert reader.numbers() == list(range(5_000))


def test_a_killed_and_restarted_redis_loses_only_what_it_forgot(
    own_redis, bus, bridged, reading, wait_until
):
    own_redis.start()
    bridge = bridged(own_redis.url)
    reader = reading(own_redis.url)
    with capture_logs() as logs:
        bus.publish_many([accepted(number) for number in range(100)])
        wait_until(lambda: len(reader.got) == 100, "the first were read")
        own_redis.kill()
        bus.publish_many([accepted(number) for number in range(100, 200)])
        wait_until(lambda: bridge.counters()["connected"] == 0, "the bridge knows")
        own_redis.start()
        wait_until(lambda: len(reader.got) == 200, "what waited was read")
        wait_until(lambda: bridge.counters()["connected"] == 1, "the bridge knows")
    assert reader.numbers() == list(range(200))
    told = [entry["event"] for entry in logs if "redis" in entry["event"]]
    assert told.count("redis is away, trading goes on") == 1
    assert told[-1] == "forwarding to redis"


def test_a_flushed_redis_is_filled_again(own_redis, bus, bridged, reading, wait_until):
    own_redis.start()
    bridge = bridged(own_redis.url)
    reader = reading(own_redis.url)
    bus.publish_many([accepted(number) for number in range(10)])
    wait_until(lambda: len(reader.got) == 10, "the first were read")
    own_redis.client().flushall()
    bus.publish_many([accepted(number) for number in range(10, 20)])
    wait_until(lambda: len(reader.got) == 20, "the later were read")
    assert reader.numbers() == list(range(20))
    assert bridge.counters()["dropped"] == 0


def test_a_frozen_redis_blocks_nobody_and_drops_the_oldest_counted(
    own_redis, bus, bridged, reading, wait_until
):
    own_redis.start()
    bridge = bridged(own_redis.url, capacity=50)
    reader = reading(own_redis.url)
    bus.publish(accepted(0))
    wait_until(lambda: len(reader.got) == 1, "the first was read")
    own_redis.send(signal.SIGSTOP)
    with capture_logs() as logs:
        longest = 0.0
        for number in range(1, 3_001):
            start = time.perf_counter()
            bus.publish(accepted(number))
            longest = max(longest, time.perf_counter() - start)
            if number % 100 == 0:
                time.sleep(0.05)
        assert longest < 0.9, "less than the time Redis has to answer"
        dropped = bridge.counters()["dropped"]
        assert dropped >= 2_000
        own_redis.send(signal.SIGCONT)
        wait_until(lambda: reader.numbers()[-1:] == [3_000], "the newest was read")
        wait_until(lambda: bridge.counters()["connected"] == 1, "all was forwarded")
    numbers = reader.numbers()
    assert numbers == sorted(set(numbers)), "in order, each once"
    assert 3_001 - len(numbers) == bridge.counters()["dropped"] == dropped
    assert all(item.event == accepted(item.number) for item in reader.got)
    warned = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert warned == [
        "redis is away, trading goes on",
        "redis is too slow or was away, events were dropped",
    ]


def test_a_redis_out_of_memory_is_as_good_as_away(own_redis, bus, bridged, reading, wait_until):
    own_redis.start()
    client = own_redis.client()
    client.config_set("maxmemory", 1)
    bridge = bridged(own_redis.url)
    bus.publish_many([accepted(number) for number in range(10)])
    wait_until(lambda: bridge.counters()["queued"] == 10, "they wait")
    time.sleep(0.3)
    assert bridge.counters()["forwarded"] == 0
    client.config_set("maxmemory", 0)
    reader = reading(own_redis.url)
    wait_until(lambda: len(reader.got) == 10, "they were read")
    assert reader.numbers() == list(range(10))


def test_streams_are_trimmed(own_redis, bus, bridged, wait_until, monkeypatch):
    own_redis.start()
    monkeypatch.setattr("bot4_runtime.bridge.MAX_LENGTH", 500)
    bridge = bridged(own_redis.url)
    bus.publish_many([accepted(number) for number in range(5_000)])
    wait_until(lambda: bridge.counters()["forwarded"] == 5_000, "all were forwarded")
    length = own_redis.client().xlen(stream_name("test", "orders"))
    assert 500 <= length <= 700
    assert MAX_LENGTH == 100_000


def test_a_password_opens_and_is_never_shown(locked_redis, bus, bridged, reading, wait_until):
    wrong = locked_redis.url.replace("hunter2secret", "wrongsecret")
    with capture_logs() as logs:
        refused = bridged(wrong)
        wait_until(lambda: bool(logs), "the refusal is logged")
        bridge = bridged(locked_redis.url)
        bus.publish(beat(1))
        wait_until(lambda: bridge.counters()["forwarded"] == 1, "the other bridge forwards")
        refused_reader, reader = reading(wrong), reading(locked_redis.url)
        wait_until(lambda: len(reader.got) == 1, "the reader reads")
        wait_until(lambda: refused_reader.error is not None, "the other is told")
    assert refused.counters()["connected"] == 0
    words = f"{logs} {refused_reader.error}"
    assert "hunter2secret" not in words
    assert "wrongsecret" not in words
    assert f"127.0.0.1:{locked_redis.port}" in words


def test_stopping_forwards_what_waits_and_takes_no_more(own_redis, bus, bridged):
    own_redis.start()
    bridge = bridged(own_redis.url)
    bus.publish_many([accepted(number) for number in range(2_000)])
    bridge.stop(grace=10)
    bus.publish(accepted(2_000))
    assert bridge.counters() == {"forwarded": 2_000, "dropped": 0, "queued": 0, "connected": 1}
    assert bus.counters()["subscriptions"] == 0


def test_a_bridge_never_started_can_be_stopped(bus):
    RedisBridge(bus, "redis://127.0.0.1:1/0", "test").stop()
    assert bus.counters()["subscriptions"] == 0


@pytest.mark.parametrize("url", ["http://u:word@host/0", "redis", "redis://:word@host:number/0"])
def test_what_is_no_url_of_redis_is_refused_without_its_password(bus, url):
    with pytest.raises(ConfigError, match=r"bridge\.redis_url leads to") as refused:
        RedisBridge(bus, url, "test")
    assert "word" not in str(refused.value)


def test_unknown_families_are_refused():
    for families in ((), ("orders", "prices")):
        with pytest.raises(ConfigError, match="unknown family"):
            next(read_stream("redis://127.0.0.1:1/0", "test", families))


@pytest.mark.parametrize(
    ("url", "plain"),
    [("redis://user:secret@host:6379/2", "redis://host:6379/2"),
     ("redis://:se@cret@host/0?password=secret", "redis://host/0"),
     ("unix://secret@/run/redis.sock", "unix:///run/redis.sock")],
)  # fmt: skip
def test_a_url_is_shown_without_user_and_password(url, plain):
    assert shown(url) == plain


def decision(**numbers):
    signal = TradingSignal(
        signal_id="a:B:1", rule_id="a", symbol="B", action=SignalAction.ENTER, side=Side.BUY,
        confidence=0.9, price=math.nan, stop_distance=-math.inf, regime=None, volatility=None,
        ts_ns=1,
    )  # fmt: skip
    return SignalDecided(
        ts_event_ns=1, signal=signal, approved=False, code="NOT_FINITE", text="", suggestion="",
        numbers=numbers,
    )  # fmt: skip


def test_numbers_that_json_has_not_reach_the_reader_as_they_were(
    bus, bridged, reading, own_redis, wait_until
):
    sent = decision(a=math.nan, b=math.inf, c=None, d=0.1)
    own_redis.start()
    bridged(own_redis.url)
    reader = reading(own_redis.url)
    bus.publish(sent)
    bus.publish(beat(7))
    wait_until(lambda: len(reader.got) == 2, "both were read")
    (got,) = [item.event for item in reader.got if item.family == "risk"]
    assert repr(got) == repr(sent)  # NaN differs from itself, and not in writing


def test_an_event_that_cannot_be_written_is_counted_and_the_next_ones_follow(
    bus, bridged, reading, own_redis, wait_until
):
    own_redis.start()
    bridge = bridged(own_redis.url)
    reader = reading(own_redis.url, ("system",))
    with capture_logs() as logs:
        bus.publish(HandlerFailed(ts_event_ns=1, event_type="x", handler="h", error="caf\udce9"))
        bus.publish(beat(1))
        wait_until(lambda: reader.numbers() == [1], "the other was read")
    assert bridge.counters()["dropped"] == 1
    assert bridge.counters()["forwarded"] == 1
    assert [entry["kind"] for entry in logs if entry["event"] == "event not forwarded"] == [
        "HandlerFailed"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"run": "r", "number": 0, "event": b'{"type":"Heartbeat","events_total":null}'},
        {"run": "r", "number": 0, "event": b'{"type":"of another version"}'},
        {"run": "r", "number": "x", "event": b"{}"},
        {"else": "where"},
    ],
)
def test_an_entry_that_nobody_can_read_is_passed_over(
    bus, bridged, reading, own_redis, wait_until, entry
):
    own_redis.start()
    with own_redis.client() as client:
        client.xadd(stream_name("test", "system"), entry)
    bridged(own_redis.url)
    with capture_logs() as logs:
        reader = reading(own_redis.url, ("system",))
        bus.publish(beat(7))
        wait_until(lambda: [item.event for item in reader.got] == [beat(7)], "it was read")
    assert [log["total"] for log in logs if log["event"] == "entry passed over"] == [1]
