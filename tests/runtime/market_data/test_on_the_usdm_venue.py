"""USD-M's market streams against its venue: candles over /market, books over /public, no gap."""

import threading
import time
import urllib.request
from decimal import Decimal

import pytest
from followed import followed, until
from market_tape import FROM, MINUTE

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.binance.candle_feed import CandleFeed, kline_streams
from bot4_runtime.exchange.binance.market_line import routes
from bot4_runtime.exchange.binance.market_messages import (  # fmt: skip
    BookTicker,
    DepthUpdate,
    MarkPrice,
    Trade,
    decode_snapshot,
)
from bot4_runtime.exchange.binance.order_book import BookState, OrderBook
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.binance.streamed import StreamedSource
from bot4_runtime.exchange.stream_hosts import StreamHosts
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.tape import Print


def tape():
    for number in range(200):
        price = Decimal(40_000 + number * 37 % 101)
        yield Print(FROM + number * 10_000, "BTCUSDT", price, Decimal(1 + number % 7) / 100)


class Usdm:
    def __init__(self, server):
        self.port = server.port
        self.hosts = StreamHosts(
            usdm_public=f"ws://127.0.0.1:{server.port}/public",
            usdm_market=f"ws://127.0.0.1:{server.port}/market",
        )
        self._door = f"http://127.0.0.1:{server.admin_port}/_admin/advance?to_ms="

    def advance(self, to_ms):
        call = urllib.request.Request(f"{self._door}{to_ms}", method="POST")
        urllib.request.urlopen(call, timeout=10).close()

    def depth(self):
        url = f"http://127.0.0.1:{self.port}/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return decode_snapshot(answer.read())


@pytest.fixture
def usdm():
    contract = Contract.of(Instrument.assume("BTCUSDT", Market.USDM, 40_000.0))
    venue = FuturesLoopback(
        ManualClock(FROM * 1_000_000), [(contract, Decimal(40_000))], prints=tape()
    )
    with hosted(venue, admin=True, ping_s=0.2) as server:
        yield Usdm(server)


def test_closed_candles_of_perpetuals_come_from_the_market_route(usdm):
    clock = ManualClock(FROM * 1_000_000)
    rest = BinanceSource(
        symbols=["BTCUSDT"], interval="1m", market=Market.USDM, clock=clock,
        base_url=f"http://127.0.0.1:{usdm.port}",
    )  # fmt: skip
    rest.check()
    names = kline_streams(rest.symbols, "1m")
    feed = CandleFeed(routes(Market.USDM, usdm.hosts, names))
    source = StreamedSource(rest, feed, clock, lambda: time.monotonic() * 40)
    stop, got = threading.Event(), []

    def read():
        for candle in source.stream(FROM, {}, stop):
            if candle is not None:
                got.append(candle)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        until(lambda: feed.connected == 1)
        for minute in range(1, 4):
            usdm.advance(FROM + minute * MINUTE + 1)
            clock.advance_to((FROM + minute * MINUTE + 1) * 1_000_000)  # too early for REST
            until(lambda minute=minute: len(got) >= minute)
    finally:
        stop.set()
        reader.join(10)
    own = [[made for made in tape() if 0 <= made.time_ms - candle.open_time_ms < MINUTE] for candle in got]  # fmt: skip
    assert [candle.open_time_ms for candle in got] == [FROM + n * MINUTE for n in range(3)]
    for candle, prints in zip(got, own, strict=True):
        prices = [float(made.price) for made in prints]
        told = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        assert told == (prices[0], max(prices), min(prices), prices[-1], float(sum(p.quantity for p in prints)))  # fmt: skip
    assert source.counts["streamed"] == 3
    assert source.counts["contradicted"] == 0


def test_books_marks_and_trades_come_over_their_routes_and_agree_with_rest(usdm):
    names = ("btcusdt@depth", "btcusdt@bookTicker", "btcusdt@markPrice@1s", "btcusdt@aggTrade", "btcusdt@trade")  # fmt: skip
    public, market = routes(Market.USDM, usdm.hosts, names)
    book = OrderBook(Market.USDM)
    with followed(public) as books, followed(market) as others:
        usdm.advance(FROM + MINUTE)
        until(lambda: any(isinstance(e, DepthUpdate) for e in books.events))
        snapshot = usdm.depth()
        usdm.advance(FROM + 5 * MINUTE)
        final = usdm.depth()
        until(lambda: [e for e in books.events if isinstance(e, DepthUpdate) and e.last_id >= final.last_id])  # fmt: skip
        until(lambda: any(isinstance(e, MarkPrice) for e in others.events))
    changes = [event for event in books.events if isinstance(event, DepthUpdate)]
    book.update(changes[0])
    for change in changes[1:2]:
        book.update(change)
    assert book.wants_snapshot
    book.snapshot(snapshot)
    for change in changes[2:]:
        assert book.update(change) is BookState.KNOWN
    assert (book.last_id, book.counts) == (final.last_id, {})
    assert book.levels(1_000) == (final.bids, final.asks)
    best = next(e for e in reversed(books.events) if isinstance(e, BookTicker))
    assert book.best()[:1] + book.best()[2:3] == (best.bid, best.ask)
    assert all(event.before_id is not None for event in changes)
    assert {type(event).__name__ for event in others.events} >= {"MarkPrice", "AggregateTrade"}
    assert not [event for event in books.events if isinstance(event, Trade | MarkPrice)]
