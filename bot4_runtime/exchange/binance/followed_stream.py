"""A user stream of whatever market, read on a thread of its own.

How one line is opened and what its frames mean is the market's: `user_stream` of spot,
`futures_stream` of USD-M. What it brings lies in a bounded queue until `poll`. Nothing is lost
silently: when the queue is full, when the venue ends the stream or when the line breaks, the
stream says that it is not alive until it is connected again, and once more after that, so that
a gap between two looks is seen too. Who sees a gap reconciles over REST.
"""

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import aiohttp
import structlog

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.exchange.binance.doorway import Doorway
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.loop_thread import LoopThread
from bot4_runtime.exchange.binance.proxy import session_through
from bot4_runtime.exchange.binance.signing import Signer, VenueClock
from bot4_runtime.exchange.protocols import UserUpdate

SILENCE_S: Final = 60.0
"""Binance pings every 20 s; a line that is silent for longer than this is dead."""
QUEUE: Final = 10_000
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
LIFETIME_S: Final = 23.5 * 3_600
"""Binance ends a line after 24 hours."""
OVERLAP_S: Final = 0.2
"""How long a line that is left is read beside the next one: what it was sent may lie unread."""
HANDOVER_S: Final = 20.0
"""How long the next line may take to stand before the one that ends is left."""
PONG_S: Final = 0.4
"""From one pong to the next at least: a line may say five things a second, pongs among them."""
REPORT_S: Final = 5.0
"""How long the report of an order may take that the venue answered; then the stream is deaf."""
MAX_FRAME: Final = 16 * 1024 * 1024
WILL_END: Final = "serverShutdown"


class StreamEnded(Exception):
    """The stream must be opened anew."""


def _seen(task: asyncio.Task[Any]) -> None:
    """Look at how a line ended that was left already."""
    if not task.cancelled():
        task.exception()


class Pongs:
    """Answers pings with their own words, the newest of a burst for all (RFC 6455, 5.5.3)."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self._line = line
        self._due_s = 0.0
        self._words: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    async def answer(self, words: bytes) -> None:
        """Answer a ping, now or with the next answer that is due."""
        loop = asyncio.get_running_loop()
        waiting, self._words = self._words is not None, words
        if waiting:
            return
        if loop.time() >= self._due_s:
            await self._send()
        else:
            loop.call_at(self._due_s, self._later)

    def _later(self) -> None:
        self._task = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        words, self._words = self._words, None
        self._due_s = asyncio.get_running_loop().time() + PONG_S
        if words is not None and not self._line.closed:
            with suppress(ConnectionError):  # told by the next read
                await self._line.pong(words)


_REMEMBERED: Final = 1_000
"""Names of orders whose reports came."""


class FollowedStream(ABC):
    """Follows one account.

    Args:
        url: of the market's streams, without what names the account.
        queue: updates that may wait for `poll`.
        silence_s: how long a living line may say nothing, pings included.
        report_s: how long the report of an order that the venue answered may take.
        budget: what may be asked of the venue; its own when None.
        proxy: ``http://`` or ``socks5://host:port`` to go through; None for none.
        weight: of opening a line.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        clock: VenueClock,
        *,
        queue: int = QUEUE,
        silence_s: float = SILENCE_S,
        report_s: float = REPORT_S,
        budget: RequestBudget | None = None,
        proxy: str | None = None,
        weight: int = 1,
    ) -> None:
        self._url = url
        self._signer = signer
        self._clock = clock
        self._limit = queue
        self._silence_s = silence_s
        self._report_s = report_s
        self._budget = budget or RequestBudget(None)
        self._door = Doorway(self._budget, weight)
        self._expected: dict[str, tuple[float, int]] = {}
        """By order: until when its report may take, and the gap after which it was answered."""
        self._reported: deque[str] = deque(maxlen=_REMEMBERED)
        self._line: aiohttp.ClientWebSocketResponse | None = None
        self._leaving: asyncio.Event | None = None
        self._hanging_up: asyncio.Task[bool] | None = None
        self._proxy = proxy
        self._updates: deque[UserUpdate] = deque()
        self._connected = False
        self._gaps = 1  # written by the reader alone
        self._gaps_told = 0  # written by `alive` alone
        self._heard_s = 0.0
        self._thread = LoopThread("user-stream", self._follow)
        self._log = structlog.get_logger("user_stream")
        self.counts: Counter[str] = Counter()
        """What was passed over or went wrong, by name."""

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; may be repeated."""
        self._thread.close()

    def poll(self) -> Sequence[UserUpdate]:
        """Return what came since the last call; never waits."""
        return [self._updates.popleft() for _ in range(len(self._updates))]

    def expect(self, client_id: str) -> None:
        """Take note that the venue answered an order: its report is due, or the stream is deaf.

        A line whose pings are answered may yet bring no events. Every order is a probe of it.
        """
        if client_id not in self._reported:
            self._expected[client_id] = (time.monotonic() + self._report_s, self._gaps)

    @property
    def connected(self) -> bool:
        """Whether the subscription stands now, whatever was missed before."""
        return self._connected

    def alive(self) -> bool:
        """Tell whether updates arrive, and none were missed since the last call."""
        self._listen_for_expected()
        gaps, connected = self._gaps, self._connected  # in this order
        if gaps != self._gaps_told:
            if connected:
                self._gaps_told = gaps
            return False
        return connected and time.monotonic() - self._heard_s <= self._silence_s

    def _listen_for_expected(self) -> None:
        """End a line that does not bring what the venue must have sent."""
        self._expected = {
            name: (due_s, gap)
            for name, (due_s, gap) in self._expected.items()
            if name not in self._reported and gap == self._gaps  # else it may lie in the gap
        }
        if not any(due_s <= time.monotonic() for due_s, _ in self._expected.values()):
            return
        self._expected.clear()
        self.counts["deaf"] += 1
        self._thread.soon(self._hang_up)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._hanging_up = asyncio.ensure_future(self._line.close())

    # ---------------------------------------------------------------- reader's thread
    async def _follow(self) -> None:
        pause_s = FIRST_PAUSE_S
        async with session_through(self._proxy) as session:
            while not self._thread.closing:
                try:
                    await self._lead(session)
                except (aiohttp.ClientError, OSError, TimeoutError, StreamEnded) as error:
                    self._door.heed(error)
                    self.counts["reconnects"] += 1
                    self._log.warning("user stream lost", why=type(error).__name__)
                    pause_s = FIRST_PAUSE_S if self._connected else pause_s
                finally:
                    self._connected = False
                    self._gaps += 1
                jitter = random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not secrecy
                await asyncio.sleep(pause_s * jitter)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _lead(self, session: aiohttp.ClientSession) -> None:
        """Follow one line after the other until one ends unforeseen, which always raises.

        A line that is about to end, or has nearly lived its 24 hours, is left only when the next
        one stands: what both bring comes twice, and nothing is missed. One that ends before that
        leaves a gap.
        """
        leaving = self._leaving = asyncio.Event()
        line = asyncio.create_task(self._listen(session, asyncio.Event()))
        tasks: set[asyncio.Task[Any]] = {line}
        try:
            while True:
                tasks = {line, asyncio.create_task(leaving.wait())}
                await asyncio.wait(tasks, timeout=LIFETIME_S, return_when=asyncio.FIRST_COMPLETED)
                if line.done():
                    line.result()
                stands = asyncio.Event()
                successor = asyncio.create_task(self._listen(session, stands))
                standing = asyncio.create_task(stands.wait())
                tasks |= {successor, standing}
                line.add_done_callback(nobody_listens := partial(self._nobody_listens, stands))
                await asyncio.wait(
                    {successor, standing}, timeout=HANDOVER_S, return_when=asyncio.FIRST_COMPLETED
                )
                line.remove_done_callback(nobody_listens)
                if not stands.is_set():
                    raise StreamEnded("no line stands to take over from one that ends")
                self.counts["handovers"] += 1
                leaving.clear()
                await asyncio.wait({line}, timeout=OVERLAP_S)  # it may have brought what is unread
                for task in tasks - {successor}:
                    task.add_done_callback(_seen)
                    task.cancel()
                line = successor
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _nobody_listens(self, stands: asyncio.Event, _ended: asyncio.Task[Any]) -> None:
        """Take note of a line that ended before the next one stood."""
        self._connected = stands.is_set()
        self._gaps += 1

    @abstractmethod
    async def _listen(self, session: aiohttp.ClientSession, stands: asyncio.Event) -> None:
        """Connect, subscribe and read until the line ends, which always raises.

        Args:
            session: of all lines.
            stands: set when the subscription is there.
        """

    @abstractmethod
    def _understand(self, text: str) -> bool:
        """Read one frame; tell whether it says that the subscription stands.

        Raises:
            DataError, UNREADABLE: it cannot be read.
            StreamEnded: it ends the stream.
        """

    async def _read(self, line: aiohttp.ClientWebSocketResponse, stands: asyncio.Event) -> None:
        """Read a line that was asked for until it ends, which always raises."""
        pongs = Pongs(line)
        while True:
            message = await line.receive(timeout=self._silence_s)
            self._heard_s = time.monotonic()
            if message.type is aiohttp.WSMsgType.PING:
                await pongs.answer(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                if self._take(message.data):
                    stands.set()
            elif message.type is aiohttp.WSMsgType.PONG:
                self._ponged(stands)
            else:
                raise StreamEnded(message.type.name)

    def _ponged(self, stands: asyncio.Event) -> None:  # noqa: B027 - most ask for none
        """Take note that the venue answered a ping of ours."""

    def _take(self, text: str) -> bool:
        """Read one frame; what cannot be read is counted and passed over."""
        try:
            return self._understand(text)
        except (*UNREADABLE, DataError) as error:
            self.counts["unreadable"] += 1
            self._gaps += 1
            self._log.error("unreadable message of the user stream", why=str(error))
            return False

    def _will_end(self) -> None:
        """Have the next line take over: this one is about to end."""
        if self._leaving is not None:
            self._leaving.set()

    def _bring(self, update: UserUpdate) -> None:
        """Lay an update into the queue; raises StreamEnded when it is full."""
        if len(self._updates) >= self._limit:
            self.counts["overflow"] += 1
            raise StreamEnded("nobody took the updates; the queue is full")
        self._reported.append(update.order.client_id)
        self._updates.append(update)
