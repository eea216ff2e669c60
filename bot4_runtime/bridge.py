"""Events for other processes: forwarded to Redis Streams, and read from them.

The bridge is a subscriber with a bounded queue and a thread of its own. Trading never depends
on it: publishing into it neither blocks nor raises, whatever Redis does. While Redis is away
the newest events wait, the oldest are dropped and counted, and the thread tries again after a
jittered, growing pause. Streams are named ``bot4:<account>:<family>``, families being market,
orders, risk and system, and are trimmed to about `MAX_LENGTH` entries each.

An entry has the fields ``run`` (one bridge's life), ``number`` (its events counted from 0) and
``event`` (tagged JSON). A number that is missing was dropped; one that comes again was sent
again after an unclear answer, and `read_stream` passes over it. Numbers that JSON has not are
written as the texts ``NaN``, ``Infinity`` and ``-Infinity``. Redis is a view of what happened; the
journal is the record.
"""

import math
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import AnyEvent, MarketEvent, OrderEvent, RiskEvent
from bot4_runtime.event_bus import EventBus
from bot4_runtime.event_queue import DEFAULT_CAPACITY, Overflow
from bot4_runtime.redis_client import SOCKET_SECONDS, connect, shown

FAMILIES: Final = ("market", "orders", "risk", "system")
MAX_LENGTH: Final = 100_000
"""Entries a stream keeps, about."""
BATCH: Final = 500
"""Entries sent, or read, at a time."""
IDLE_SECONDS: Final = 0.01
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0


def family_of(kind: type) -> str:
    """Return the family of a type of event; what is of no other is of the system."""
    if issubclass(kind, MarketEvent.__args__):
        return "market"
    if issubclass(kind, OrderEvent.__args__):
        return "orders"
    return "risk" if issubclass(kind, RiskEvent.__args__) else "system"


def stream_name(account: str, family: str) -> str:
    """Return ``bot4:<account>:<family>``."""
    return f"bot4:{account}:{family}"


def encode(event: object) -> bytes:
    """Return an event as tagged JSON.

    Raises:
        ValueError: it cannot be written, as a text with half a character cannot.
    """
    body = msgspec.json.encode(event)
    if b"null" not in body:  # what msgspec makes of a number that is none, too
        return body
    return msgspec.json.encode(_spelled(msgspec.to_builtins(event)))


def _spelled(value: Any) -> Any:
    """Spell out the numbers within that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return value


class RedisBridge:
    """Forwards the events of a bus to Redis.

    Args:
        bus: whose events; subscribed to at once.
        url: ``redis://``, ``rediss://`` or ``unix://``; a password in it is never shown.
        account: names the streams.
        capacity: events that may wait for Redis.

    Raises:
        ConfigError: the URL is none of Redis.
    """

    def __init__(
        self, bus: EventBus, url: str, account: str, capacity: int = DEFAULT_CAPACITY
    ) -> None:
        self._client: Final = connect(url)
        self._where: Final = shown(url)
        self._streams: Final = {name: stream_name(account, name) for name in FAMILIES}
        self._bus: Final = bus
        self._queue: Final = bus.subscribe_queue(
            AnyEvent, Overflow.DROP_OLDEST, capacity, name="redis bridge"
        )
        self._run: Final = uuid.uuid4().hex
        self._waiting: deque[tuple[int, object]] = deque()
        self._forwarded = self._unsendable = 0
        self._link: bool | None = None  # None: not tried yet
        self._behind = False
        self._told_dropped = 0
        self._stop: Final = threading.Event()
        self._deadline = math.inf  # set before the stop
        self._thread: Final = threading.Thread(target=self._work, name="bridge", daemon=True)
        self._log: Final = structlog.get_logger("bridge")

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def stop(self, grace: float = 1.0) -> None:
        """Take no more events, forward what waits for up to `grace` seconds, and end."""
        self._bus.close_queue(self._queue)
        self._deadline = time.monotonic() + grace
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=grace + 3 * SOCKET_SECONDS)
            self._client.close()

    def counters(self) -> dict[str, int]:
        """Return ``forwarded``, ``dropped``, ``queued`` (events) and ``connected`` (0 or 1)."""
        return {
            "forwarded": self._forwarded,
            "dropped": self._queue.dropped + self._unsendable,
            "queued": self._backlog(),
            "connected": int(self._link is True),
        }

    def _backlog(self) -> int:
        return len(self._queue) + len(self._waiting)

    # ------------------------------------------------------------------ thread
    def _work(self) -> None:
        import redis

        pause = FIRST_PAUSE
        while True:
            if not self._waiting:
                first, events = self._queue.drain_numbered()
                self._waiting.extend(enumerate(events, first))
            if self._stop.is_set() and (not self._waiting or self._link is False or self._late()):
                return
            try:
                if self._link is not True:
                    self._client.ping()
                while self._waiting and not self._late():
                    self._send()
            except (redis.RedisError, OSError) as error:
                self._lost(error)
                self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._found()
            self._stop.wait(IDLE_SECONDS)

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _send(self) -> None:
        """Send one batch; it stays waiting until Redis has answered for all of it."""
        batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        pipeline = self._client.pipeline(transaction=True)
        unsendable = 0
        for number, event in batch:
            try:
                body = encode(event)
            except ValueError as error:
                unsendable += 1
                self._log.error("event not forwarded", kind=type(event).__name__, why=str(error))
                continue
            entry: dict[Any, Any] = {"run": self._run, "number": number, "event": body}
            pipeline.xadd(
                self._streams[family_of(type(event))], entry, maxlen=MAX_LENGTH, approximate=True
            )
        pipeline.execute()
        self._forwarded += len(batch) - unsendable
        self._unsendable += unsendable
        for _ in batch:
            self._waiting.popleft()

    def _lost(self, error: Exception) -> None:
        if self._link is not False:
            self._log.warning("redis is away, trading goes on", redis=self._where, why=str(error))
        self._link = False

    def _found(self) -> None:
        """Take note that everything was sent; each change is logged once."""
        dropped = self._queue.dropped
        if self._link is not True:
            self._log.info("forwarding to redis", redis=self._where)
        if dropped != self._told_dropped and not self._behind:
            self._log.warning("redis is too slow or was away, events were dropped", total=dropped)
        elif dropped == self._told_dropped and self._behind:
            self._log.info("redis keeps up again", dropped=dropped)
        self._behind = dropped != self._told_dropped
        self._link, self._told_dropped = True, dropped


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event of another process.

    Attributes:
        entry_id: Redis's; where to continue.
        run: the bridge's life it is of.
        number: its place among that run's events; a gap was dropped.
    """

    family: str
    entry_id: str
    run: str
    number: int
    event: AnyEvent


def read_stream(
    url: str,
    account: str,
    families: Sequence[str] = FAMILIES,
    *,
    after: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[StreamEvent]:
    """Yield an account's events as they arrive, in another process than the runtime's.

    In order within a family; each once, though Redis be restarted in between. Waits for more
    until `stop` is set, while Redis is away too. An entry that is no event of this version is
    passed over and logged.

    Args:
        url: as in `RedisBridge`.
        account: whose events.
        families: those wanted.
        after: by family, the entry to begin after; from the oldest kept where none is named.
        stop: ends it, within about a second.

    Raises:
        ConfigError: the URL is none of Redis, its password is refused, or a family is unknown.
    """
    import redis

    unknown = sorted(set(families) - set(FAMILIES))
    if unknown or not families:
        raise ConfigError(
            f"unknown family {', '.join(unknown) or '(none)'}; "
            f"expected some of {' '.join(FAMILIES)}"
        )
    client = connect(url)
    decoder = msgspec.json.Decoder(AnyEvent, strict=False)  # numbers may be spelled out
    log, unreadable = structlog.get_logger("bridge"), 0
    family_by_stream = {stream_name(account, family).encode(): family for family in families}
    places: dict[Any, Any] = {
        name: (after or {}).get(family, "0") for name, family in family_by_stream.items()
    }
    newest: dict[tuple[str, str], int] = {}
    ending = stop or threading.Event()
    pause = FIRST_PAUSE
    try:
        while not ending.is_set():
            try:
                found: Any = client.xread(places, count=BATCH, block=int(SOCKET_SECONDS * 500))
            except redis.AuthenticationError as error:
                raise ConfigError(f"{shown(url)} lets us not in: {error}") from None
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                ending.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            for name, entries in found:
                family = family_by_stream[name]
                for entry_id, fields in entries:
                    places[name] = entry_id
                    try:
                        run, number = fields[b"run"].decode(), int(fields[b"number"])
                        event = decoder.decode(fields[b"event"])
                    except (KeyError, ValueError) as error:
                        unreadable += 1
                        log.warning(
                            "entry passed over",
                            entry=entry_id.decode(),
                            why=str(error),
                            stream=name.decode(),
                            total=unreadable,
                        )
                        continue
                    if number <= newest.get((family, run), -1):
                        continue
                    newest[family, run] = number
                    yield StreamEvent(family, entry_id.decode(), run, number, event)
    finally:
        client.close()


def ping(url: str) -> None:
    """Ask Redis whether it is there.

    Raises:
        ConfigError: the URL is none of Redis, or nobody answers there.
    """
    from redis.exceptions import RedisError

    client = connect(url)
    try:
        client.ping()
    except RedisError as error:
        raise ConfigError(
            f"Redis at {shown(url)} does not answer ({error}); start it, or leave "
            "bridge.redis_url empty"
        ) from None
    finally:
        client.close()
