"""Closed candles from kline streams, read on a thread of its own; nothing else of them is kept.

They lie in a bounded queue until they are taken. One that finds no room is a gap, as is a lost
line: who takes candles asks REST for what a gap may have swallowed.
"""

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, Protocol

import structlog

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import DataError
from bot4_runtime.exchange.binance.line_watch import ConnectPace, Timing
from bot4_runtime.exchange.binance.market_line import AiohttpDialler, Dialler, Route
from bot4_runtime.exchange.binance.market_messages import Event, Kline
from bot4_runtime.exchange.binance.market_stream import MarketStream, follow_all
from bot4_runtime.exchange.binance.proxy import session_through

ROOM: Final = 4_096
"""Candles that may wait to be taken."""
_Dialled = Callable[[], AbstractAsyncContextManager[Dialler]]


class ClosedCandles(Protocol):
    """Where closed candles come from at once."""

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def close(self) -> None:
        """End; may be repeated."""
        ...

    def take(self, within_s: float) -> Candle | None:
        """Return the next closed candle; None when none comes in time."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Return what happened so far, by names fit for metrics."""
        ...


@asynccontextmanager
async def over_aiohttp(proxy: str | None = None) -> AsyncIterator[Dialler]:
    """Yield a dialler of real connections, through a proxy where one is named."""
    async with session_through(proxy) as session:
        yield AiohttpDialler(session)


class CandleFeed:
    """Follows kline streams.

    Args:
        routes: of the kline streams.
        dialler: opens what makes connections, on the thread's loop.
        room: candles that may wait.

    Attributes:
        counts: ``overflow``, ``impossible``, ``gaps``.
        connected: of the routes, those that are subscribed now.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        dialler: _Dialled = over_aiohttp,
        timing: Timing | None = None,
        room: int = ROOM,
    ) -> None:
        self._routes = tuple(routes)
        self._dialler = dialler
        self._timing = timing
        self._arrived: queue.Queue[Candle | Exception] = queue.Queue(room)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._log = structlog.get_logger("candle_feed")
        self.streams: list[MarketStream] = []
        self.counts: Counter[str] = Counter()
        self.connected = 0

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="candle-feed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; may be repeated."""
        self._closing = True
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with suppress(RuntimeError):  # the loop ended on its own
                loop.call_soon_threadsafe(task.cancel)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def take(self, within_s: float) -> Candle | None:
        """Return the next closed candle, possibly once more; None when none comes in time.

        Raises whatever ended the thread.
        """
        try:
            arrived = self._arrived.get(timeout=within_s)
        except queue.Empty:
            return None
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    def counters(self) -> dict[str, int]:
        """Return how many lines and gaps there were, and what was not kept or not readable."""
        lines = sum(stream.counts["lines"] for stream in self.streams)
        unreadable = sum(stream.counts["unreadable"] for stream in self.streams)
        own = {name: self.counts[name] for name in ("gaps", "overflow", "impossible")}
        return own | {"lines": lines, "unreadable": unreadable}

    # ------------------------------------------------------------------- reader's thread
    def event(self, event: Event) -> None:
        """Keep a candle that closed."""
        if not (isinstance(event, Kline) and event.closed):
            return
        try:
            candle = event.candle()
        except DataError as error:
            self.counts["impossible"] += 1
            self._log.error("candle refused", why=str(error))
            return
        try:
            self._arrived.put_nowait(candle)
        except queue.Full:
            self.counts["overflow"] += 1
            self._log.error("candle not kept", why="nobody takes them; REST will be asked")

    def lost(self, reason: str) -> None:
        """Count a gap."""
        self.counts["gaps"] += 1
        self.connected -= 1

    def restored(self) -> None:
        """Count a line."""
        self.connected = min(self.connected + 1, len(self._routes))

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except asyncio.CancelledError:
            return
        except Exception as error:  # noqa: BLE001  raised where candles are taken
            with suppress(queue.Empty):
                self._arrived.get_nowait()  # it must find room
            self._arrived.put(error)

    async def _follow(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._closing:
            return
        async with self._dialler() as dialler:
            pace = ConnectPace()
            self.streams = [
                MarketStream(route, dialler, self, pace, timing=self._timing)
                for route in self._routes
            ]
            await follow_all(self.streams)


def kline_streams(symbols: Sequence[str], interval: str) -> list[str]:
    """Return the names of the streams of candles."""
    return [f"{symbol.lower()}@kline_{interval}" for symbol in symbols]
