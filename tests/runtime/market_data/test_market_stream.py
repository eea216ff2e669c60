"""Market streams are followed for ever, on time that jumps."""

import asyncio
import json
import random
from collections import deque

import pytest

from bot4_runtime.domain.candle import Market
from bot4_runtime.exchange.binance.line_watch import ConnectPace, StreamWatch, Timing
from bot4_runtime.exchange.binance.market_line import STREAMS_MOST, Route, routes
from bot4_runtime.exchange.binance.market_stream import NAMES_A_REQUEST, MarketStream, follow_all
from bot4_runtime.exchange.binance.scripted_line import (
    ScriptedDialler,
    ScriptedLine,
    run_virtually,
)
from bot4_runtime.exchange.stream_hosts import StreamHosts

STREAM = "btcusdt@trade"
STEADY = Timing(
    stream_first=10**9, stream_least=10**9, stream_most=10**9
)  # no stream falls silent


def trade(number, symbol="BTCUSDT"):
    return {
        "stream": f"{symbol.lower()}@trade",
        "data": {"e": "trade", "E": 1, "s": symbol, "t": number, "p": "1", "q": "1", "T": 1, "m": True},
    }  # fmt: skip


class Heard:
    """Takes down what it is told, and when."""

    def __init__(self):
        self.ids = []
        self.told = []

    def event(self, event):
        self.ids.append(event.trade_id)

    def lost(self, reason):
        self.told.append((asyncio.get_running_loop().time(), f"lost: {reason}"))

    def restored(self):
        self.told.append((asyncio.get_running_loop().time(), "restored"))

    @property
    def words(self):
        return [word for _, word in self.told]


def played(script, *, plan=None, timing=STEADY, streams=(STREAM,), inbound=5, pace=None):
    """Follow a stream while a script plays the venue; return all that took part."""
    heard, dialler = Heard(), ScriptedDialler(plan)
    stream = MarketStream(
        Route("wss://venue/stream", tuple(streams), inbound),
        dialler,
        heard,
        pace or ConnectPace(),
        timing=timing,
        rng=random.Random(7),
    )

    async def play():
        following = asyncio.ensure_future(follow_all([stream]))
        acting = asyncio.ensure_future(script(dialler))
        await asyncio.wait({following, acting}, return_when=asyncio.FIRST_COMPLETED)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        acting.result()

    run_virtually(play())
    assert all(line.hung_up for line in dialler.lines), "no line is left open"
    return heard, dialler, stream


def test_events_come_with_the_subscription_and_pings_are_answered_with_what_they_brought():
    async def script(dialler):
        await asyncio.sleep(1)
        line = dialler.lines[0]
        for number in range(3):
            line.say(trade(number))
        line.ask_pong(b"payload")
        await asyncio.sleep(1)

    heard, dialler, stream = played(script)
    line = dialler.lines[0]
    assert json.loads(line.said[0][1]) == {"method": "SUBSCRIBE", "params": [STREAM], "id": 1}
    assert (heard.ids, heard.words, line.pongs) == ([0, 1, 2], ["restored"], [b"payload"])
    assert stream.counts == {"lines": 1}


def test_a_burst_of_pings_is_answered_within_what_a_second_allows():
    async def script(dialler):
        await asyncio.sleep(1)
        for number in range(1_000):
            dialler.lines[0].ask_pong(str(number).encode())
            if number % 100 == 0:
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)

    _, dialler, _ = played(script)
    assert len(dialler.lines[0].pongs) <= 5
    assert dialler.lines[0].pongs[-1] == b"999", "the last one is always answered"


@pytest.mark.parametrize("inbound", [5, 10])
def test_many_streams_are_asked_for_no_faster_than_the_venue_takes_it(inbound):
    names = [f"s{number}@trade" for number in range(STREAMS_MOST)]

    async def script(dialler):
        await asyncio.sleep(30)

    heard, dialler, _ = played(script, streams=names, inbound=inbound)
    said = dialler.lines[0].said
    assert [name for _, text in said for name in json.loads(text)["params"]] == names
    assert len(said) == -(-STREAMS_MOST // NAMES_A_REQUEST)
    window = deque(maxlen=inbound)
    for time, _ in said:
        assert len(window) < inbound or time - window[0] >= 1.0
        window.append(time)
    assert heard.words == ["restored"], "told once all of them are granted"
    assert heard.told[0][0] >= said[-1][0]


def test_a_lost_line_is_replaced_for_ever_with_growing_pauses():
    def plan(number, url):
        return ScriptedLine(url) if number in {0, 2_000} else None

    async def script(dialler):
        await asyncio.sleep(1)
        dialler.lines[0].hang_up()
        await asyncio.sleep(70_000)
        dialler.lines[1].say(trade(9))
        await asyncio.sleep(1)

    heard, dialler, stream = played(script, plan=plan)
    pauses = [b - a for a, b in zip(dialler.dialled[1:], dialler.dialled[2:], strict=False)]
    assert pauses[0] < 0.4
    assert max(pauses) <= 1.5 * STEADY.longest_pause
    assert len(set(pauses)) > 1_900, "they differ, lest all clients come at once"
    assert heard.words == ["restored", "lost: the venue ended the connection", "restored"]
    assert (heard.ids, stream.counts["lost"]) == ([9], 1)


def test_no_more_connections_are_opened_than_an_address_may():
    opened = []

    async def script(dialler):
        for _ in range(2_000):
            await asyncio.sleep(0.05)
            if dialler.lines:
                dialler.lines[-1].hang_up()
        opened.extend(dialler.dialled)

    pace = ConnectPace(most=20, window_s=300.0)
    played(script, pace=pace, timing=Timing(longest_pause=0.01, first_pause=0.01))
    window = deque(maxlen=20)
    for time in opened:
        assert len(window) < 20 or time - window[0] >= 300.0
        window.append(time)
    assert len(opened) == 20


def test_a_line_that_says_nothing_at_all_is_dead():
    def plan(number, url):
        return ScriptedLine(url)

    async def script(dialler):
        await asyncio.sleep(1)
        dialler.lines[0].say(trade(1))
        await asyncio.sleep(10)
        dialler.lines[0].deaf = True
        await asyncio.sleep(100)

    heard, dialler, _ = played(script, plan=plan)
    (_, _), (lost_at, why), (again_at, _) = heard.told
    assert "pongs neither" in why
    assert 45 <= lost_at - 1 <= 48
    assert again_at - lost_at < 1
    assert dialler.lines[0].pings > 20
    assert len(dialler.lines) == 2, "the next one answers pings and lives"


def test_a_line_that_answers_pings_is_not_dead():
    async def script(dialler):
        await asyncio.sleep(3_600)

    heard, dialler, _ = played(script)
    assert (heard.words, len(dialler.lines)) == (["restored"], 1)


def test_a_stream_that_falls_silent_while_the_line_lives_is_found_within_seconds():
    """S2: the socket is open, pongs come, and no data."""

    async def script(dialler):
        await asyncio.sleep(1)
        for number in range(100):
            dialler.lines[0].say(trade(number))
            dialler.lines[0].say(trade(number, "ETHUSDT"))
            await asyncio.sleep(2)
        for number in range(100, 130):
            dialler.lines[0].say(trade(number, "ETHUSDT"))
            await asyncio.sleep(2)

    heard, dialler, _ = played(script, timing=Timing(), streams=(STREAM, "ethusdt@trade"))
    assert heard.words[1] == "lost: btcusdt@trade fell silent while the line lives"
    assert 10 <= heard.told[1][0] - 199 <= 13
    assert len(dialler.lines) == 2


def test_patience_with_a_stream_follows_from_what_it_was_like():
    watch = StreamWatch(["slow@kline_1h"], Timing(), 0.0, {})
    watch.heard("other@trade", 1.0)
    assert [watch.silent(60.0), watch.silent(61.0)] == ["", "slow@kline_1h"]
    for now in range(0, 400, 40):
        watch.heard("slow@kline_1h", float(now))
    assert watch.silent(360.0 + 190) == ""
    assert watch.silent(360.0 + 201) == "slow@kline_1h"
    watch.heard("slow@kline_1h", 1_000.0)
    watch.heard("slow@kline_1h", 2_000.0)
    assert watch.silent(2_301.0) == "slow@kline_1h", "and never lasts longer than five minutes"


def test_a_market_in_which_nothing_happens_costs_few_lines():
    async def script(dialler):
        await asyncio.sleep(3_600)

    heard, dialler, _ = played(script, timing=Timing())
    assert heard.words[1] == "lost: btcusdt@trade fell silent while the line lives"
    gaps = [b - a for a, b in zip(dialler.dialled, dialler.dialled[1:], strict=False)]
    assert [round(gap / 30) * 30 for gap in gaps[:5]] == [60, 120, 240, 300, 300]
    assert len(dialler.lines) == 14


def test_the_next_line_takes_over_before_the_venue_ends_this_one():
    """S5: serverShutdown, then the end some seconds later; nothing is missed."""

    async def script(dialler):
        await asyncio.sleep(1)
        first = dialler.lines[0]
        first.say(trade(1))
        first.say({"e": "serverShutdown", "E": 1})
        for number in range(2, 40):
            await asyncio.sleep(0.1)
            for line in dialler.lines:
                if not line.hung_up:
                    line.say(trade(number))
            if number == 20:
                first.hang_up()

    heard, dialler, stream = played(script)
    assert sorted(set(heard.ids)) == list(range(1, 40))
    assert heard.ids.count(10) == 2, "both lines are read for a while"
    assert heard.ids.count(30) == 1
    assert heard.words == ["restored", "restored"], "no gap"
    assert (len(dialler.lines), stream.counts) == (2, {"lines": 2, "taken over": 1})


def test_lines_are_replaced_before_they_are_a_day_old():
    async def script(dialler):
        for number in range(4 * 24 * 60):
            await asyncio.sleep(60)
            for line in dialler.lines:
                if not line.hung_up:
                    line.say(trade(number))

    rarely = Timing(
        check=60, silence=200, stream_first=10**9, stream_least=10**9, stream_most=10**9
    )
    heard, dialler, _ = played(script, timing=rarely)
    assert set(heard.words) == {"restored"}
    ages = [b - a for a, b in zip(dialler.dialled, dialler.dialled[1:], strict=False)]
    assert len(ages) == 4
    assert all(22 * 3600 < age < 24 * 3600 for age in ages)
    assert sorted(set(heard.ids)) == list(range(4 * 24 * 60))


def test_a_line_that_ends_before_the_next_one_is_there_is_a_gap():
    def plan(number, url):
        return None if number in {1, 2, 3} else ScriptedLine(url)

    async def script(dialler):
        await asyncio.sleep(1)
        dialler.lines[0].say({"e": "serverShutdown"})
        await asyncio.sleep(0.05)
        dialler.lines[0].hang_up()
        await asyncio.sleep(30)

    heard, _, stream = played(script, plan=plan)
    assert heard.words == ["restored", "lost: the venue ended the connection", "restored"]
    assert (stream.counts["lost"], stream.counts["taken over"]) == (1, 1)


@pytest.mark.parametrize("after", [0.05, 0.5, 0.95])
def test_cancelled_while_another_line_takes_over_both_are_hung_up(after):
    def plan(number, url):
        return None if number == 1 else ScriptedLine(url)

    async def script(dialler):
        await asyncio.sleep(1)
        dialler.lines[0].say({"e": "serverShutdown"})
        await asyncio.sleep(after)

    heard, _, _ = played(script, plan=plan)
    assert heard.words == ["restored"]


def test_a_refused_subscription_and_one_without_an_answer_are_tried_again():
    def plan(number, url):
        return ScriptedLine(
            url, refuses="Invalid request" if number == 0 else "", deaf=number == 1
        )

    async def script(dialler):
        await asyncio.sleep(60)

    heard, dialler, stream = played(script, plan=plan)
    assert heard.words == ["restored"]
    assert 10 <= heard.told[0][0] <= 12
    assert (len(dialler.lines), stream.counts["refused"]) == (3, 1)


def test_what_cannot_be_read_is_counted_and_passed_over():
    async def script(dialler):
        await asyncio.sleep(1)
        line = dialler.lines[0]
        for nonsense in ["{", "[]", b"\xff\xfe", '{"e":"trade"}', "x" * 10_000_000, '{"z":' + "[" * 99_999]:  # fmt: skip
            line.say(nonsense)
        for _ in range(10):
            line.say("{")
        line.say({"e": "novelty"})
        line.say(trade(5))
        await asyncio.sleep(1)

    heard, dialler, stream = played(script)
    assert (heard.ids, heard.words, len(dialler.lines)) == ([5], ["restored"], 1)
    assert stream.counts["unreadable"] == 16
    assert stream.passed_over == {"event novelty": 1}


def test_cancelled_while_it_subscribes_it_hangs_up():
    async def script(dialler):
        await asyncio.sleep(5)

    heard, dialler, _ = played(script, plan=lambda _n, url: ScriptedLine(url, deaf=True))
    assert (heard.words, len(dialler.lines)) == ([], 1)


NAMES = ["btcusdt@kline_1h", "btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@aggTrade",
         "btcusdt@markPrice@1s", "!forceOrder@arr", "!bookTicker", "!markPrice@arr@1s"]  # fmt: skip


def test_usdm_streams_go_where_they_are_not_silent():
    public, market = routes(Market.USDM, StreamHosts(), NAMES)
    assert public.url == "wss://fstream.binance.com/public/stream"
    assert public.streams == ("btcusdt@depth@100ms", "btcusdt@bookTicker", "!bookTicker")
    assert market.url == "wss://fstream.binance.com/market/stream"
    assert market.streams == ("btcusdt@kline_1h", "btcusdt@aggTrade", "btcusdt@markPrice@1s", "!forceOrder@arr", "!markPrice@arr@1s")  # fmt: skip
    assert (public.inbound_per_s, market.inbound_per_s) == (10, 10)


def test_spot_has_one_address_and_no_connection_carries_too_much():
    names = [f"s{number}@trade" for number in range(2 * STREAMS_MOST + 1)]
    divided = routes(Market.SPOT, StreamHosts(spot="ws://127.0.0.1:9/"), names)
    assert [len(route.streams) for route in divided] == [STREAMS_MOST, STREAMS_MOST, 1]
    assert {(route.url, route.inbound_per_s) for route in divided} == {("ws://127.0.0.1:9/stream", 5)}  # fmt: skip
    assert routes(Market.USDM, StreamHosts(), []) == []
