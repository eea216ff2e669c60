"""The thread that follows kline streams keeps closed candles, says what it lost, and ends."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import pytest

from bot4_runtime.exchange.binance.candle_feed import CandleFeed, kline_streams
from bot4_runtime.exchange.binance.market_line import Route
from bot4_runtime.exchange.binance.scripted_line import ScriptedDialler, ScriptedLine

MINUTE = 60_000
NAMES = kline_streams(["BTCUSDT"], "1m")
ROUTE = Route("wss://venue/stream", tuple(NAMES), 5)


def kline(number, closed=True, high="12"):
    fields = {"t": number * MINUTE, "i": "1m", "o": "10", "c": "11", "h": high, "l": "9", "v": "1", "x": closed}  # fmt: skip
    return {"stream": NAMES[0], "data": {"e": "kline", "E": 1, "s": "BTCUSDT", "k": fields}}


class Script:
    """Says things on the first line, as soon as it is subscribed."""

    def __init__(self, *messages):
        self.messages = messages
        self.dialler = ScriptedDialler(self.line)

    def line(self, number, url):
        line = ScriptedLine(url)
        asyncio.get_running_loop().call_later(0.02, lambda: [line.say(m) for m in self.messages])
        return line

    @asynccontextmanager
    async def __call__(self):
        yield self.dialler


def until(wanted):
    end = time.monotonic() + 10
    while not wanted():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def test_only_closed_candles_are_kept():
    trade = {"stream": "btcusdt@trade", "data": {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "T": 1, "m": True}}  # fmt: skip
    feed = CandleFeed([ROUTE], dialler=Script(kline(1, closed=False), trade, kline(1), kline(2, high="1"), kline(3)))  # fmt: skip
    assert feed.take(0.0) is None
    feed.start()
    try:
        assert [feed.take(10).open_time_ms for _ in range(2)] == [MINUTE, 3 * MINUTE]
        assert feed.counters() == {"gaps": 0, "overflow": 0, "impossible": 1, "lines": 1, "unreadable": 0}  # fmt: skip
    finally:
        feed.close()
        feed.close()
    assert not [t for t in threading.enumerate() if t.name == "candle-feed"]


def test_candles_that_find_no_room_are_counted_not_waited_for():
    feed = CandleFeed([ROUTE], dialler=Script(*map(kline, range(5))), room=2)
    feed.start()
    try:
        until(lambda: feed.counts["overflow"] == 3)
        assert [feed.take(1).open_time_ms for _ in range(2)] == [0, MINUTE]
        assert feed.take(0.0) is None
    finally:
        feed.close()


def test_it_can_be_started_again_and_closed_before_it_began():
    feed = CandleFeed([ROUTE], dialler=Script(kline(1)))
    feed.close()
    for _ in range(2):
        feed.start()
        assert feed.take(10).open_time_ms == MINUTE
        feed.close()


@pytest.mark.parametrize("room", [1, 4])
def test_what_ends_the_thread_is_raised_where_candles_are_taken(room):
    @asynccontextmanager
    async def broken():
        raise RuntimeError("no network at all")
        yield

    feed = CandleFeed([ROUTE], dialler=broken, room=room)
    feed.start()
    with pytest.raises(RuntimeError, match="no network at all"):
        feed.take(10)
    feed.close()
