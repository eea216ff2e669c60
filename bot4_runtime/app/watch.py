"""One symbol's book and trades as Binance streams them now, for people who look. No keys.

The book is kept by Binance's rule (a snapshot over REST, changes joined to it) and is not told
while it cannot be right; trades are told each once. Nothing is traded on it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Final

from bot4_runtime.app.hosts import host_faults, request_budget
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, DataError, VenueError
from bot4_runtime.exchange.binance.http_connection import HttpConnection
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.line_watch import ConnectPace
from bot4_runtime.exchange.binance.market_line import routes
from bot4_runtime.exchange.binance.market_messages import (
    DepthUpdate,
    Event,
    Trade,
    decode_snapshot,
)
from bot4_runtime.exchange.binance.market_stream import MarketStream, follow_all
from bot4_runtime.exchange.binance.order_book import OrderBook
from bot4_runtime.exchange.binance.route_reader import over_aiohttp
from bot4_runtime.exchange.binance.trade_tape import TradeTape
from bot4_runtime.settings import Settings

DEPTH: Final = 10
"""Levels of a side that are summed up as what is near."""
ASK_AGAIN_S: Final = 1.0
LATE_MOST: Final = 1_000
"""Trades that may come before one that is late."""
_REST: Final = {Market.SPOT: "https://api.binance.com", Market.USDM: "https://fapi.binance.com"}
_PATHS: Final = {Market.SPOT: "/api/v3/depth", Market.USDM: "/fapi/v1/depth"}


class Seen:
    """What is known of one symbol; hears its streams.

    Attributes:
        gaps: lines that were lost.
        wanted: set while the book wants a snapshot.
    """

    def __init__(self, symbol: str, market: Market) -> None:
        self.symbol = symbol
        self.book = OrderBook(market)
        self.tape = TradeTape()
        self.gaps = 0
        self.wanted = asyncio.Event()
        self._after_gap = False
        self._trades = 0
        self._volume = Decimal(0)
        self._last: Trade | None = None

    def event(self, event: Event) -> None:
        """Take in a change of the book or a trade."""
        if isinstance(event, DepthUpdate):
            self.book.update(event)
            if self.book.wants_snapshot:
                self.wanted.set()
        elif isinstance(event, Trade):
            late = self.tape.last_id is not None and event.trade_id > self.tape.last_id + LATE_MOST
            taken = self.tape.take(event)
            if not taken and (self._after_gap or late):
                taken = self.tape.give_up()  # what was missed is counted, and not asked for
            self._after_gap &= not taken
            for trade in taken:
                self._trades += 1
                self._volume += trade.quantity
                self._last = trade

    def lost(self, reason: str) -> None:
        """Forget the book: changes may be missed from now on."""
        self.gaps += 1
        self._after_gap = True
        self.book.lost()

    def restored(self) -> None:
        """Do nothing: the next change and the next trade begin anew."""

    def told(self) -> dict[str, object]:
        """Return what is known now, for JSON; None where nothing is.

        Prices in quote, quantities in base, the spread in basis points of the middle.
        """
        best, last = self.book.best(), self._last
        bids, asks = self.book.levels(DEPTH)
        spread = None
        if best is not None:
            spread = float((best.ask - best.bid) / (best.ask + best.bid) * 20_000)
        return {
            "symbol": self.symbol,
            "bid": None if best is None else str(best.bid),
            "ask": None if best is None else str(best.ask),
            "spread_bps": spread,
            "bids_near": str(sum((quantity for _, quantity in bids), Decimal(0))),
            "asks_near": str(sum((quantity for _, quantity in asks), Decimal(0))),
            "last": None if last is None else str(last.price),
            "trades": self._trades,
            "volume": str(self._volume),
            "trades_repeated": self.tape.repeated,
            "trades_missed": self.tape.given_up,
            "lines_lost": self.gaps,
            "book": self.book.state.value,
            "book_faults": dict(self.book.counts),
        }


async def watched(
    settings: Settings, symbol: str, every_s: float
) -> AsyncGenerator[dict[str, object], None]:
    """Yield what is known of a symbol, again and again, until closed.

    Raises:
        ConfigError: the servers do not fit the mode, or it is not known where they stream.
    """
    market = Market(settings.runtime.market)
    hosts = settings.stream_hosts()
    faults = host_faults(settings) if settings.runtime.mode != "paper" else []
    if hosts is None or faults:
        raise ConfigError(
            "; ".join(faults)
            or "it is not known where the server of [binance] streams: set source.spot_stream"
        )
    traded_at = settings.binance.hosts(settings.runtime.mode, market.value)[0]
    rest_url = settings.source.rest_url or (
        traded_at if settings.runtime.mode != "paper" else _REST[market]
    )
    proxy = settings.binance.proxy or None
    rest = HttpConnection(rest_url, budget=request_budget(rest_url, market), proxy=proxy)
    seen = Seen(symbol, market)
    names = [f"{symbol.lower()}@depth@100ms", f"{symbol.lower()}@trade"]
    async with over_aiohttp(proxy) as dialler:
        pace = ConnectPace()
        streams = [
            MarketStream(route, dialler, seen, pace) for route in routes(market, hosts, names)
        ]
        ask = partial(rest.get, _PATHS[market], f"symbol={symbol}&limit=1000", {}, Lane.DATA)
        tasks = [
            asyncio.ensure_future(follow_all(streams)),
            asyncio.ensure_future(_snapshots(seen, ask)),
        ]
        try:
            while True:
                await asyncio.wait(tasks, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
                yield {"time": time.time()} | seen.told()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rest.close()


async def _snapshots(seen: Seen, ask: partial[bytes]) -> None:
    """Bring a snapshot whenever the book wants one; one that fails is asked for again."""
    while True:
        await seen.wanted.wait()
        seen.wanted.clear()
        with suppress(VenueError, DataError):
            book = decode_snapshot(await asyncio.to_thread(ask))
            if seen.book.wants_snapshot:
                seen.book.snapshot(book)
        if seen.book.wants_snapshot:
            await asyncio.sleep(ASK_AGAIN_S)
            seen.wanted.set()
