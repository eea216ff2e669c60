"""Marks from streams: the latest of each symbol, on a thread of its own."""

from followed import until

from bot4_runtime.exchange.binance.mark_feed import MarkFeed, mark_streams
from bot4_runtime.exchange.binance.market_messages import MarketDecoder


def told(symbol="BTCUSDT", at_ms=1_700_000_000_000, price="100.5"):
    text = (
        f'{{"e":"markPriceUpdate","E":{at_ms},"s":"{symbol}","p":"{price}","i":"100",'
        f'"P":"100","r":"0.0001","T":{at_ms + 1}}}'
    )
    return MarketDecoder().decode(text)


def test_streams_are_those_of_every_second():
    assert mark_streams(["BTCUSDT", "ETHUSDT"]) == ["btcusdt@markPrice@1s", "ethusdt@markPrice@1s"]


def test_the_latest_mark_of_each_symbol_is_kept():
    feed = MarkFeed([])
    feed.event(told(price="100", at_ms=2_000_000_000_000))
    feed.event(told(price="99", at_ms=1_999_999_999_999))  # of the line that is left
    feed.event(told("ETHUSDT", price="7"))
    assert feed.latest() == {
        "BTCUSDT": (100.0, 2_000_000_000_000_000_000),
        "ETHUSDT": (7.0, 1_700_000_000_000_000_000),
    }
    feed.event(told(price="101", at_ms=2_000_000_000_000))
    assert feed.latest()["BTCUSDT"][0] == 101.0


def test_other_events_are_passed_over_and_gaps_counted():
    feed = MarkFeed([])
    text = (
        '{"e":"aggTrade","E":1700000000000,"s":"BTCUSDT","a":1,"p":"1","q":"1","f":1,"l":1,'
        '"T":1700000000000,"m":true}'
    )
    feed.event(MarketDecoder().decode(text))
    feed.lost("the line broke")
    feed.restored()
    assert (feed.latest(), feed.gaps) == ({}, 1)


def test_a_reader_that_cannot_go_on_says_so_and_its_marks_stay(capsys):
    def broken():
        raise OSError("no descriptors are left")

    feed = MarkFeed([], dialler=broken)
    feed.event(told())
    feed.start()
    until(lambda: not feed._thread.alive)
    feed.close()
    assert feed.latest()["BTCUSDT"][0] == 100.5
    assert "marks are not read any more" in capsys.readouterr().out


def test_it_may_be_closed_before_it_began_and_twice():
    feed = MarkFeed([])
    feed.close()
    feed.start()
    feed.close()
    feed.close()
