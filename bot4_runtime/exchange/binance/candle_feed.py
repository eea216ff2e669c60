"""Closed candles from kline streams, read on a thread of its own; nothing else of them is kept.

They lie in a bounded queue until they are taken. One that finds no room is a gap, as is a lost
line: who takes candles asks REST for what a gap may have swallowed.
"""

import queue
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import DataError
from bot4_runtime.exchange.binance.line_watch import Timing
from bot4_runtime.exchange.binance.market_line import Route
from bot4_runtime.exchange.binance.market_messages import Event, Kline
from bot4_runtime.exchange.binance.route_reader import Dialled, RouteReader, over_aiohttp

ROOM: Final = 4_096
"""Candles that may wait to be taken."""


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


class CandleFeed(RouteReader):
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
        dialler: Dialled = over_aiohttp,
        timing: Timing | None = None,
        room: int = ROOM,
    ) -> None:
        super().__init__(routes, "candle-feed", dialler, timing)
        self._arrived: queue.Queue[Candle | Exception] = queue.Queue(room)
        self._log = structlog.get_logger("candle_feed")
        self.counts: Counter[str] = Counter()
        self.connected = 0

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

    def failed(self, error: Exception) -> None:
        """Have it raised where candles are taken."""
        with suppress(queue.Empty):
            self._arrived.get_nowait()  # it must find room
        self._arrived.put(error)


def kline_streams(symbols: Sequence[str], interval: str) -> list[str]:
    """Return the names of the streams of candles."""
    return [f"{symbol.lower()}@kline_{interval}" for symbol in symbols]
