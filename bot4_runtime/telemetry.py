"""Logs without secrets, and metrics on loopback. Never in the way of trading."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from structlog.typing import Processor

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import CandleClosed
from bot4_runtime.event_bus import EventBus, Latest

SECRET_KEYS: Final = re.compile(
    r"(secret|token|passw|passphrase|api_?key|signature|private|credential|authorization)",
    re.IGNORECASE,
)
SECRET_IN_TEXT: Final = re.compile(
    r"((?:secret|token|passw|passphrase|api_?key|signature|private|credential|listen_?key)"
    r"\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,}]+",
    re.IGNORECASE,
)
BEARER: Final = re.compile(r"(\bbearer\s+)\S+", re.IGNORECASE)
URL_CREDENTIALS: Final = re.compile(r"(://[^:/@\s]*:)[^@/\s]+(?=@)")
HIDDEN: Final = "[hidden]"


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Hide values of secret-sounding keys, and what looks like one inside text."""
    for key, value in event.items():
        event[key] = _hidden(key, value)
    return event


def _hidden(key: str, value: Any) -> Any:
    if SECRET_KEYS.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(name): _hidden(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden("", inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """Return the text with secret values hidden."""
    for pattern in (BEARER, SECRET_IN_TEXT, URL_CREDENTIALS):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def configure_logging(level: str, file: Path | None = None) -> None:
    """Log JSON lines to a file, or readable lines to stderr where there is none."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    if file is None:
        structlog.configure(
            processors=[*shared, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file.open("a", encoding="utf-8")),
    )


class Metrics:
    """What Prometheus may ask for: read from the rooms' own counters when it does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._last = Latest()

    def follow(self, bus: EventBus) -> None:
        """Export a bus's counts of events by type, and when the last candle closed."""
        bus.subscribe(CandleClosed, self._last)
        self.registry.register(_Published(bus, self))
        self.watch("bus", bus.counters)

    @property
    def last_close_s(self) -> float:
        """Close time of the last candle in seconds since 1970; 0 before the first."""
        last = self._last.event
        return last.ts_event_ns / 1e9 if isinstance(last, CandleClosed) else 0.0

    def watch(self, room: str, counters: Callable[[], Mapping[str, int]]) -> None:
        """Export what a room counts itself, as ``bot4_<room>_<name>``, read at each request."""
        self.registry.register(_Counted(room, counters))

    @contextmanager
    def served(self, port: int) -> Iterator[None]:
        """Serve ``/metrics`` on 127.0.0.1 within the block; port 0 serves nothing.

        Raises:
            ConfigError: the port is taken.
        """
        if port == 0:
            yield
            return
        try:
            server, thread = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on 127.0.0.1:{port}: {error.strerror}; "
                "choose another --metrics-port (telemetry.metrics_port), or 0 for none"
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Published(Collector):
    """What went over a bus, by type."""

    def __init__(self, bus: EventBus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        events = CounterMetricFamily("bot4_events", "Events by type", labels=["type"])
        for kind, count in self._bus.published().items():
            events.add_metric([kind], count)
        yield events
        failures = self._bus.counters()["handler_errors"]
        yield CounterMetricFamily("bot4_handler_failures", "Bus handlers that raised", failures)
        yield GaugeMetricFamily(
            "bot4_last_candle_close_seconds",
            "Close time of the last candle, seconds since 1970",
            self._metrics.last_close_s,
        )


class _Counted(Collector):
    """A room's own counters; those of `NOW` are gauges."""

    NOW: Final = frozenset({"subscriptions", "queued", "connected"})

    def __init__(self, room: str, counters: Callable[[], Mapping[str, int]]) -> None:
        self._room = room
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        for name, value in self._counters().items():
            told = f"{name} of {self._room}".replace("_", " ")
            kind = GaugeMetricFamily if name in self.NOW else CounterMetricFamily
            yield kind(f"bot4_{self._room}_{name}", told, value=value)
