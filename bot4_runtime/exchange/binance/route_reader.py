"""Reads market streams of some routes on a thread of its own, for others to take what came."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from bot4_runtime.exchange.binance.line_watch import ConnectPace, Timing
from bot4_runtime.exchange.binance.loop_thread import LoopThread
from bot4_runtime.exchange.binance.market_line import AiohttpDialler, Dialler, Route
from bot4_runtime.exchange.binance.market_messages import Event
from bot4_runtime.exchange.binance.market_stream import MarketStream, follow_all
from bot4_runtime.exchange.binance.proxy import session_through

Dialled = Callable[[], AbstractAsyncContextManager[Dialler]]


@asynccontextmanager
async def over_aiohttp(proxy: str | None = None) -> AsyncIterator[Dialler]:
    """Yield a dialler of real connections, through a proxy where one is named."""
    async with session_through(proxy) as session:
        yield AiohttpDialler(session)


class RouteReader(ABC):
    """Follows routes; what it hears, it hears on its thread.

    Args:
        routes: what is followed, and where.
        name: of the thread.
        dialler: opens what makes connections, on the thread's loop.
    """

    def __init__(
        self, routes: Sequence[Route], name: str, dialler: Dialled, timing: Timing | None
    ) -> None:
        self._routes = tuple(routes)
        self._dialler = dialler
        self._timing = timing
        self._thread = LoopThread(name, self._work)
        self.streams: list[MarketStream] = []

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; may be repeated."""
        self._thread.close()

    # ------------------------------------------------------------------- reader's thread
    @abstractmethod
    def event(self, event: Event) -> None:
        """Take in an event; never waits."""

    @abstractmethod
    def lost(self, reason: str) -> None:
        """Know that events may be missed from now on."""

    @abstractmethod
    def restored(self) -> None:
        """Know that events come again, from now on."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Know that the thread has ended, and of what; nothing comes any more."""

    async def _work(self) -> None:
        try:
            await self._follow()
        except Exception as error:  # noqa: BLE001  told to whoever takes what came
            self.failed(error)

    async def _follow(self) -> None:
        async with self._dialler() as dialler:
            pace = ConnectPace()
            self.streams = [
                MarketStream(route, dialler, self, pace, timing=self._timing)
                for route in self._routes
            ]
            await follow_all(self.streams)
