"""Metrics count what happens and are served on loopback alone."""

import socket
import threading
import urllib.error
import urllib.request

import pytest

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import CandleClosed, Heartbeat
from bot4_runtime.event_bus import EventBus
from bot4_runtime.telemetry import Metrics


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def closed(open_time_ms: int) -> CandleClosed:
    candle = Candle(
        symbol="BTCUSDT", interval="1h", open_time_ms=open_time_ms,
        open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0,
    )  # fmt: skip
    return CandleClosed(ts_event_ns=candle.close_time_ms * 1_000_000, candle=candle)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_events_are_counted_by_type_and_the_last_close_is_kept() -> None:
    metrics, bus = Metrics(), EventBus(on_error=lambda *_: None)
    metrics.follow(bus)
    for event in (closed(0), closed(3_600_000)):
        bus.publish(event)
    bus.subscribe(Heartbeat, lambda _: 1 / 0)
    bus.publish(Heartbeat(ts_event_ns=0, events_total=1))
    assert sample(metrics, "bot4_events_total", type="CandleClosed") == 2
    assert sample(metrics, "bot4_events_total", type="Heartbeat") == 1
    assert sample(metrics, "bot4_handler_failures_total") == 1
    assert sample(metrics, "bot4_last_candle_close_seconds") == 7200.0


def test_what_rooms_count_themselves_is_read_when_it_is_asked_for() -> None:
    metrics, counted = Metrics(), {"published": 1, "queued": 2}
    metrics.watch("bus", lambda: counted)
    counted["published"] = 7
    assert sample(metrics, "bot4_bus_published_total") == 7
    assert sample(metrics, "bot4_bus_queued") == 2


def test_two_sessions_do_not_share_counters() -> None:
    one, two = Metrics(), Metrics()
    buses = EventBus(), EventBus()
    one.follow(buses[0])
    two.follow(buses[1])
    buses[0].publish(closed(0))
    assert sample(one, "bot4_events_total", type="CandleClosed") == 1
    assert sample(two, "bot4_events_total", type="CandleClosed") is None


def test_metrics_are_served_on_loopback_and_no_longer_than_the_block(port: int) -> None:
    metrics, bus = Metrics(), EventBus()
    metrics.follow(bus)
    bus.publish(closed(0))
    with metrics.served(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'bot4_events_total{type="CandleClosed"} 1.0' in text
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(2)
            other.connect(("127.0.0.2", port))
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_port_0_serves_nothing() -> None:
    before = threading.active_count()
    with Metrics().served(0):
        assert threading.active_count() == before


def test_a_taken_port_is_a_wrong_setting_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"127.0.0.1:{number}.*--metrics-port .*, or 0"),
            Metrics().served(number),
        ):
            pytest.fail("served on a taken port")
