"""Market streams against the venue on loopback: its faults cost no candle and no trade."""

import asyncio
import dataclasses
import json
import threading
import time

import aiohttp
import pytest
from followed import QUICK, followed, until
from market_tape import FROM, MINUTE, SYMBOLS, tape

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.exchange.binance.candle_feed import CandleFeed, kline_streams
from bot4_runtime.exchange.binance.market_line import Route, routes
from bot4_runtime.exchange.binance.market_messages import (  # fmt: skip
    BookTicker,
    DepthUpdate,
    Trade,
    decode_snapshot,
)
from bot4_runtime.exchange.binance.order_book import BookState, OrderBook
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.binance.streamed import StreamedSource
from bot4_runtime.exchange.stream_hosts import StreamHosts
from bot4_runtime.venue.faults import Fault, FaultRule


def expected(symbol, minutes):
    """Candles of the tape, by looking at all of it."""
    made = []
    for minute in range(minutes):
        start = FROM + minute * MINUTE
        own = [p for p in tape() if p.symbol == symbol and start <= p.time_ms < start + MINUTE]
        prices = [float(p.price) for p in own]
        made.append(
            Candle(
                symbol=symbol, interval="1m", open_time_ms=start, open=prices[0], high=max(prices),
                low=min(prices), close=prices[-1], volume=float(sum(p.quantity for p in own)),
            )
        )  # fmt: skip
    return made


EXPECTED = {symbol: expected(symbol, 12) for symbol in SYMBOLS}


class Session:
    """Reads a streamed source as a session does, on a thread of its own."""

    def __init__(self, wire, timing=QUICK):
        self.clock = ManualClock(FROM * 1_000_000)
        self.wire = wire
        hosts = StreamHosts(spot=f"ws://127.0.0.1:{wire.port}")
        rest = BinanceSource(
            symbols=SYMBOLS, interval="1m", market=Market.SPOT, clock=self.clock,
            base_url=f"http://127.0.0.1:{wire.port}",
        )  # fmt: skip
        rest.check()
        names = kline_streams(SYMBOLS, "1m")
        self.feed = CandleFeed(routes(Market.SPOT, hosts, names), timing=timing)
        hurried = lambda: time.monotonic() * 40  # noqa: E731
        self.source = StreamedSource(rest, self.feed, self.clock, hurried)
        self.got = []
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        for candle in self.source.stream(FROM, {}, self.stop):
            if candle is not None:
                self.got.append(candle)

    def connected(self):
        until(lambda: self.feed.connected == 1 and self.wire.venue.market.followers)

    def pass_minutes(self, first, last, *, by_stream=False):
        """Let the market go on minute by minute, as fast as candles are read."""
        for minute in range(first, last):
            end = FROM + (minute + 1) * MINUTE
            self.wire.advance(end)
            if by_stream:
                self.clock.advance_to(end * 1_000_000)  # too early for REST
                self.wait_for(minute + 1)
                continue
            self.clock.advance_to((end + 61_000) * 1_000_000)  # REST may be believed
            self.wait_for(minute + 1)
            self.clock.advance_to(end * 1_000_000)

    def wait_for(self, minutes):
        until(lambda: len(self.got) >= minutes * len(SYMBOLS))

    def check(self, minutes):
        for symbol in SYMBOLS:
            own = [candle for candle in self.got if candle.symbol == symbol]
            assert own == EXPECTED[symbol][:minutes]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_closed_candles_come_from_the_stream_and_rest_agrees(wire):
    with Session(wire) as session:
        session.connected()
        session.pass_minutes(0, 5, by_stream=True)
        session.clock.advance_to((FROM + 5 * MINUTE + 20_000) * 1_000_000)
        wire.advance(FROM + 5 * MINUTE + 20_000)  # so that REST shows the next ones too
        until(lambda: session.source.counts["confirmed"] == 10)
    session.check(5)
    assert session.source.counts == {"streamed": 10, "confirmed": 10}


STREAM = f"{SYMBOLS[0].lower()}@kline_1m"
FAULTS = {
    "S1 the line is cut inside a frame": FaultRule(fault=Fault.EVENT_CUT, method="MARKET", after=9, times=1),
    "S2 the line stays open and brings nothing": FaultRule(fault=Fault.EVENT_STALL, method="MARKET", after=9, times=1),
    "S6 every event comes twice": FaultRule(fault=Fault.EVENT_TWICE, method="MARKET"),
    "S7 events come after the next one": FaultRule(fault=Fault.EVENT_LATE, method="MARKET", probability=0.4),
    "S8 events are lost": FaultRule(fault=Fault.EVENT_LOST, method="MARKET", probability=0.3),
    "S8 one market's events are all lost": FaultRule(fault=Fault.EVENT_LOST, method="MARKET", path=STREAM),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_of_the_stream_costs_a_candle(wire, name):
    with Session(wire) as session:
        session.connected()
        wire.faults(FAULTS[name])
        session.pass_minutes(0, 5)
    session.check(5)


NONSENSE = [b"{", b'{"e":"novelty"}', b'{"e":"trade"}', b"x" * 10_000_000, b"[" * 50_000,
            '{"stream":"币@kline_1m","data":{"e":"kline","E":1,"s":"币","k":{}}}'.encode()]  # fmt: skip


def test_s12_nonsense_is_passed_over(wire):
    with Session(wire) as session:
        session.connected()
        for message in NONSENSE:
            wire.say(message)
        session.pass_minutes(0, 3)
        (stream,) = session.feed.streams
        assert (stream.counts["unreadable"], stream.counts["lost"]) == (5, 0)
        assert stream.passed_over["event novelty"] == 1
    session.check(3)


def test_s5_the_next_line_is_there_before_this_one_ends(wire):
    with Session(wire) as session:
        session.connected()
        session.pass_minutes(0, 1)
        wire.say(b'{"e":"serverShutdown","E":1}')
        (stream,) = session.feed.streams
        until(lambda: stream.counts["taken over"] == 1)
        session.pass_minutes(1, 3)
        assert (stream.counts["lost"], session.feed.counts["gaps"]) == (0, 0)
    session.check(3)


def test_s3_a_line_without_pongs_is_replaced(wire):
    with Session(wire, dataclasses.replace(QUICK, silence=1.0)) as session:
        session.connected()
        (follower,) = wire.venue.market.followers
        follower.frozen = True
        (stream,) = session.feed.streams
        until(lambda: stream.counts["lines"] >= 2 and session.feed.connected == 1)
        assert stream.counts["lost"] >= 1
        session.pass_minutes(0, 2)
    session.check(2)


def test_nobody_at_the_other_end_is_no_obstacle_while_rest_answers(wire):
    session = Session(wire)
    session.feed._routes = (Route("ws://127.0.0.1:9/stream", ("x@kline_1m",), 5),)
    with session:
        session.pass_minutes(0, 2)
    session.check(2)
    assert session.source.counts["streamed"] == 0


# ------------------------------------------------------------------ other streams, one loop
def following(wire, *streams, prefix="", ready=True):
    route = Route(f"ws://127.0.0.1:{wire.port}{prefix}/stream", streams, 5)
    return followed(route, ready=ready)


def test_trades_come_whole_and_in_order(wire):
    with following(wire, "btcusdt@trade", "ethusdt@aggTrade") as heard:
        wire.advance(FROM + 5 * MINUTE)
        until(lambda: len(heard.events) == 60)
    trades = [event for event in heard.events if isinstance(event, Trade)]
    told = [made for made in tape() if made.time_ms < FROM + 5 * MINUTE]
    own = [(made.price, made.quantity) for made in told if made.symbol == "BTCUSDT"]
    assert [(event.price, event.quantity) for event in trades] == own
    assert [event.trade_id for event in trades] == list(range(1, 31))


@pytest.mark.parametrize("prefix", ["", "/public"])
def test_a_book_kept_from_the_stream_is_the_book_rest_shows(wire, prefix):
    market = Market.USDM if prefix else Market.SPOT
    book = OrderBook(market)
    with following(wire, "btcusdt@depth@100ms", "btcusdt@bookTicker", prefix=prefix) as heard:
        wire.advance(FROM + MINUTE)
        until(lambda: len(heard.events) == 12)
        snapshot = decode_snapshot(wire.get("/api/v3/depth?symbol=BTCUSDT"))
        wire.advance(FROM + 5 * MINUTE)
        until(lambda: len(heard.events) == 60)
        final = decode_snapshot(wire.get("/api/v3/depth?symbol=BTCUSDT"))
    changes = [event for event in heard.events if isinstance(event, DepthUpdate)]
    for change in changes[:6]:
        book.update(change)
    assert book.wants_snapshot
    assert book.snapshot(snapshot) is BookState.KNOWN
    for change in changes[6:]:
        assert book.update(change) is BookState.KNOWN
    assert book.levels(1_000) == (final.bids, final.asks)
    assert (book.last_id, book.counts) == (final.last_id, {})
    tickers = [event for event in heard.events if isinstance(event, BookTicker)]
    best = tickers[-1]
    assert book.best() == (best.bid, best.bid_quantity, best.ask, best.ask_quantity)


def test_s10_a_lost_change_makes_the_book_unknown_until_the_next_snapshot(wire):
    book = OrderBook(Market.SPOT)
    with following(wire, "btcusdt@depth") as heard:
        wire.advance(FROM + MINUTE)
        until(lambda: len(heard.events) == 6)
        book.update(heard.events[0])
        book.snapshot(decode_snapshot(wire.get("/api/v3/depth?symbol=BTCUSDT")))
        assert book.state is BookState.KNOWN
        wire.faults(FaultRule(fault=Fault.EVENT_LOST, method="MARKET", after=1, times=1))
        wire.advance(FROM + 2 * MINUTE)
        until(lambda: len(heard.events) == 11)
        for change in heard.events[1:]:
            book.update(change)
        assert (book.state, book.best(), book.counts["gaps"]) == (BookState.UNKNOWN, None, 1)
        snapshot = decode_snapshot(wire.get("/api/v3/depth?symbol=BTCUSDT"))
        assert book.snapshot(snapshot) is BookState.KNOWN
        assert book.best() is not None


def test_a_stream_on_the_wrong_usdm_route_is_silent_and_on_the_right_one_is_not(wire):
    names = ["btcusdt@bookTicker", "btcusdt@kline_1m"]
    hosts = StreamHosts(usdm_public=f"ws://127.0.0.1:{wire.port}/public", usdm_market=f"ws://127.0.0.1:{wire.port}/market")  # fmt: skip
    public, market = routes(Market.USDM, hosts, names)
    assert (public.url.endswith("/public/stream"), market.url.endswith("/market/stream")) == (True, True)  # fmt: skip
    with following(wire, *names, prefix="/market") as heard:
        wire.advance(FROM + MINUTE)
        until(lambda: len(heard.events) == 7)
    assert {type(event).__name__ for event in heard.events} == {"Kline"}


def test_what_the_venue_refuses_to_subscribe_is_never_taken_for_granted(wire):
    with following(wire, "nonsense", ready=False) as heard:
        until(lambda: heard.stream is not None and heard.stream.counts["refused"] >= 3)
    assert heard.told == []


def test_a_client_that_says_too_much_is_thrown_out_and_told_in_the_journal(wire):
    async def shout():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{wire.port}/ws") as socket,
        ):
            for number in range(6):
                await socket.send_str(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            async for _ in socket:
                pass
            return socket.close_code

    assert asyncio.run(shout()) == 1008
    assert [entry.kind for entry in wire.kept.entries] == ["over-limit"]
