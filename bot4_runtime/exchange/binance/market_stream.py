"""Market streams of one route, followed for ever on an event loop.

A line that dies is replaced, with growing pauses and without an end; a line whose end is known
(`serverShutdown`, its age) is replaced before it ends, and both are read for a moment. What
cannot be read is counted and passed over. The listener is told of every event, possibly twice
and out of order, and of every gap between a line's end and the next one's subscription.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import msgspec
import structlog

from bot4_runtime.exchange.binance.line_watch import ConnectPace, Pauses, StreamWatch, Timing
from bot4_runtime.exchange.binance.market_line import (
    Dialler,
    Kind,
    Line,
    LineLost,
    Route,
)
from bot4_runtime.exchange.binance.market_messages import (
    Event,
    MarketDecoder,
    Reply,
    Shutdown,
    Unreadable,
)

NAMES_A_REQUEST: Final = 200
"""Streams named in one subscription."""
SPARE: Final = 2
"""Messages a second that are left to pings and pongs."""


class Listener(Protocol):
    """What hears the streams, on the event loop."""

    def event(self, event: Event) -> None:
        """Take in an event; never waits."""
        ...

    def lost(self, reason: str) -> None:
        """Know that events may be missed from now on."""
        ...

    def restored(self) -> None:
        """Know that events come again, from now on."""
        ...


class MarketStream:
    """Follows the streams of one route.

    Args:
        pace: shared by all routes of the process.
        rng: of jitter.
    """

    def __init__(
        self,
        route: Route,
        dialler: Dialler,
        listener: Listener,
        pace: ConnectPace,
        *,
        timing: Timing | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._route = route
        self._dialler = dialler
        self._listener = listener
        self._pace = pace
        self._timing = timing or Timing()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrecy
        self._pauses = Pauses(self._timing, self._rng)
        self._decoder = MarketDecoder()
        self._log = structlog.get_logger("market_stream")
        self.patience: dict[str, float] = {}
        """What was learnt of silent streams; see `StreamWatch`."""
        self.counts: Counter[str] = Counter()
        """What happened: ``lines``, ``lost``, ``taken over``, ``unreadable``, ``refused``."""

    @property
    def passed_over(self) -> Counter[str]:
        """What of the events was new to us, by name."""
        return self._decoder.counts

    async def follow(self) -> None:
        """Follow until cancelled."""
        line = await self._connect()
        try:
            while True:
                self._listener.restored()
                line = await self._stay_on(line)
        finally:
            await line.end()

    async def _stay_on(self, line: "_Subscribed") -> "_Subscribed":
        """Read a line until another one has taken its place; return that one."""
        retiring = asyncio.ensure_future(line.retiring.wait())
        try:
            await _first_of(line.done, retiring)
        finally:
            retiring.cancel()
        if line.done.done():
            self._lost(line)
            await line.end()
            return await self._connect()
        successor = asyncio.ensure_future(self._connect())
        try:
            await _first_of(line.done, successor)
            if not successor.done():
                self._lost(line)  # it ended before the next one was there
            following = await asyncio.shield(successor)
            if not line.done.done():
                await asyncio.wait({line.done}, timeout=self._timing.overlap)
        except asyncio.CancelledError:
            successor.cancel()
            for left in await asyncio.gather(successor, return_exceptions=True):
                if isinstance(left, _Subscribed):
                    await left.end()
            raise
        self.counts["taken over"] += 1
        await line.end()
        return following

    def _lost(self, line: "_Subscribed") -> None:
        self.counts["lost"] += 1
        error = line.done.exception()
        self._log.warning("market stream lost", url=self._route.url, why=str(error))
        self._listener.lost(str(error))

    async def _connect(self) -> "_Subscribed":
        """Open and subscribe a line, however often it takes."""
        clock = asyncio.get_running_loop().time
        while True:
            wait_s = self._pace.wait_s(clock())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            self.counts["lines"] += 1
            try:
                line = _Subscribed(await self._dialler.dial(self._route.url), self, clock())
            except LineLost as error:
                self._log.warning("no market stream", url=self._route.url, why=str(error))
            else:
                try:
                    await line.subscribe()
                except LineLost as error:
                    self._log.warning("not subscribed", url=self._route.url, why=str(error))
                    await line.end()
                except BaseException:
                    await line.end()
                    raise
                else:
                    return line
            await asyncio.sleep(self._pauses.next_s())

    # what a line needs of its stream
    @property
    def route(self) -> Route:
        """What is followed, and where."""
        return self._route

    @property
    def timing(self) -> Timing:
        """How patient to be."""
        return self._timing

    def lifetime_s(self) -> float:
        """Return how long a line may be used: not all of them end at once."""
        return self._timing.lifetime * self._rng.uniform(0.97, 1.0)

    def held(self) -> None:
        """Know that a line lived for a while."""
        self._pauses.short_again()

    def hear(self, text: str | bytes) -> "Reply | Shutdown | str":
        """Pass on what a text says; return the stream it came from, or what is for the line."""
        try:
            message = self._decoder.decode(text)
        except Unreadable as error:
            self.counts["unreadable"] += 1
            if self.counts["unreadable"] <= 10:  # told in full while it is news
                self._log.error("unreadable message", why=str(error))
            return ""
        if isinstance(message, Reply | Shutdown):
            return message
        if message is not None:
            self._listener.event(message)
        return self._decoder.stream


class _Subscribed:
    """An open line: reads it, keeps it alive, and knows when it is dead.

    Attributes:
        done: raises LineLost when it has ended.
        retiring: set when another line should take over.
    """

    def __init__(self, line: Line, stream: MarketStream, now: float) -> None:
        self._line = line
        self._stream = stream
        self._timing = stream.timing
        self._opened = self._heard = now
        self._watch = StreamWatch(stream.route.streams, stream.timing, now, stream.patience)
        self._lives_s = stream.lifetime_s()
        self._to_say: deque[str] = deque()
        self._to_pong: bytes | None = None
        self._speak = asyncio.Event()
        self._open_requests: set[int] = set()
        self._granted = asyncio.Event()
        self.retiring = asyncio.Event()
        self._tasks = [
            asyncio.create_task(work) for work in (self._read(), self._talk(), self._look())
        ]
        self.done: asyncio.Future[None] = asyncio.ensure_future(_first_failure(self._tasks))

    async def subscribe(self) -> None:
        """Ask for all streams and wait until they are granted; raises LineLost."""
        names = self._stream.route.streams
        for number, at in enumerate(range(0, len(names), NAMES_A_REQUEST), start=1):
            self._open_requests.add(number)
            asked = {
                "method": "SUBSCRIBE",
                "params": names[at : at + NAMES_A_REQUEST],
                "id": number,
            }
            self._to_say.append(msgspec.json.encode(asked).decode())
        self._speak.set()
        granted = asyncio.ensure_future(self._granted.wait())
        try:
            await _first_of(granted, self.done, within_s=self._timing.reply)
        finally:
            granted.cancel()
        if self.done.done():
            self.done.result()
        if not self._granted.is_set():
            raise LineLost(f"no answer to the subscription within {self._timing.reply:g} s")

    async def end(self) -> None:
        """Stop reading and hang up."""
        for task in (*self._tasks, self.done):
            task.cancel()
        await asyncio.gather(*self._tasks, self.done, return_exceptions=True)
        await self._line.close()

    async def _read(self) -> None:
        clock, line, watch = asyncio.get_running_loop().time, self._line, self._watch
        hear = self._stream.hear
        while True:
            frame = await line.receive()
            now = self._heard = clock()
            if frame.kind is Kind.TEXT:
                heard = hear(frame.body)
                if isinstance(heard, str):
                    watch.heard(heard, now)
                else:
                    self._take(heard)
            elif frame.kind is Kind.PING:
                self._to_pong = frame.body if isinstance(frame.body, bytes) else b""
                self._speak.set()

    def _take(self, message: Reply | Shutdown) -> None:
        if isinstance(message, Shutdown):
            self.retiring.set()
        elif message.code is not None:
            self._stream.counts["refused"] += 1
            raise LineLost(f"the venue refused a subscription ({message.code}): {message.reason}")
        else:
            self._open_requests.discard(message.request_id or 0)
            if not self._open_requests:
                self._granted.set()

    async def _talk(self) -> None:
        """Say what is to be said, no faster than the venue takes it; of pings, answer the last."""
        gap_s = 1.0 / (self._stream.route.inbound_per_s - SPARE)
        while True:
            await self._speak.wait()
            self._speak.clear()
            while self._to_say or self._to_pong is not None:
                if self._to_pong is not None:
                    payload, self._to_pong = self._to_pong, None
                    await self._line.pong(payload)
                else:
                    await self._line.send(self._to_say.popleft())
                await asyncio.sleep(gap_s)

    async def _look(self) -> None:
        """The two watchdogs, and the line's age."""
        clock, timing = asyncio.get_running_loop().time, self._timing
        while True:
            await asyncio.sleep(timing.check)
            now = clock()
            silence_s = now - self._heard
            if silence_s > timing.silence:
                raise LineLost(f"the line said nothing for {silence_s:.0f} s, pongs neither")
            if silence_s > timing.ping:
                await self._line.ping()
            if now - self._opened > timing.steady:
                self._stream.held()
            if now - self._opened > self._lives_s:
                self.retiring.set()
            silent = self._watch.silent(now)
            if silent:
                raise LineLost(f"{silent} fell silent while the line lives")


async def _first_of(*waited: "asyncio.Future[Any]", within_s: float | None = None) -> None:
    await asyncio.wait(waited, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)


async def _first_failure(tasks: list["asyncio.Task[Any]"]) -> None:
    """Wait for the first task that ends, and raise what ended it."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def follow_all(streams: list[MarketStream]) -> None:
    """Follow several routes until cancelled."""
    work: list[Coroutine[Any, Any, None]] = [stream.follow() for stream in streams]
    await asyncio.gather(*work)
