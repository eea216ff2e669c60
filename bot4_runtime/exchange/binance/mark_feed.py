"""Marks of USD-M as they are streamed, once a second, read on a thread of its own: the latest.

A reader that ended for good says so in the log; its marks grow old, which whoever values positions
by them must see.
"""

from collections.abc import Mapping, Sequence

import structlog

from bot4_runtime.exchange.binance.line_watch import Timing
from bot4_runtime.exchange.binance.market_line import Route
from bot4_runtime.exchange.binance.market_messages import Event, MarkPrice
from bot4_runtime.exchange.binance.route_reader import Dialled, RouteReader, over_aiohttp


class MarkFeed(RouteReader):
    """Follows mark price streams.

    Args:
        routes: of the streams, see `mark_streams`.
        dialler: opens what makes connections, on the thread's loop.

    Attributes:
        gaps: lines that were lost.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        dialler: Dialled = over_aiohttp,
        timing: Timing | None = None,
    ) -> None:
        super().__init__(routes, "mark-feed", dialler, timing)
        self._latest: dict[str, tuple[float, int]] = {}
        self._log = structlog.get_logger("mark_feed")
        self.gaps = 0

    def latest(self) -> Mapping[str, tuple[float, int]]:
        """Return the last mark of each symbol, in quote, and when the venue told it (UTC, ns)."""
        return self._latest.copy()

    # ------------------------------------------------------------------- reader's thread
    def event(self, event: Event) -> None:
        """Keep a mark, unless a later one came before it."""
        if isinstance(event, MarkPrice):
            told = (float(event.price), event.ts_event_ns)
            known = self._latest.get(event.symbol)
            if known is None or told[1] >= known[1]:
                self._latest[event.symbol] = told

    def lost(self, reason: str) -> None:
        """Count a gap."""
        self.gaps += 1

    def restored(self) -> None:
        """Do nothing: the next mark tells all."""

    def failed(self, error: Exception) -> None:
        """Say that no mark comes any more."""
        self._log.error("marks are not read any more", why=f"{type(error).__name__} {error}")


def mark_streams(symbols: Sequence[str]) -> list[str]:
    """Return the names of the streams of marks."""
    return [f"{symbol.lower()}@markPrice@1s" for symbol in symbols]
