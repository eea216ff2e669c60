"""What the venue tells of its markets follows from its tape."""

import itertools
import json
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.venue import market_data
from bot4_runtime.venue.market_data import STREAMS_MOST, Follower
from bot4_runtime.venue.rest import WireRequest
from bot4_runtime.venue.tape import Print

START = 1_800_000_000_000
MINUTE = 60_000


def prints(count=40, step_ms=17_000):
    return [
        Print(
            START + n * step_ms,
            "BTCUSDT",
            Decimal(40_000 + n * 37 % 11),
            Decimal(1 + n % 3) / 10,
        )
        for n in range(count)
    ]


def ask(venue, path, query):
    answer = venue.rest.answer(WireRequest("GET", path, query, "", None))
    return answer.status, json.loads(answer.body)


@pytest.fixture
def joined(make):
    venue = make(prints=prints())

    def join(*streams, route="spot", wrapped=True):
        follower = Follower(lambda: None, route, wrapped=wrapped)
        venue.market.follow(follower, list(streams))
        return follower

    return venue, join


def heard(follower):
    told = [json.loads(message) for message in follower.outbox]
    follower.outbox.clear()
    return told


def test_klines_are_those_of_all_prints(make):
    venue = make(prints=prints())
    venue.advance(START + 11 * MINUTE)
    status, rows = ask(venue, "/api/v3/klines", f"symbol=BTCUSDT&interval=1m&startTime={START}")
    assert status == 200
    price = None
    for minute, row in enumerate(rows):
        begin = START + minute * MINUTE
        own = [
            made
            for made in prints()
            if begin <= made.time_ms < min(begin, START + 10 * MINUTE) + MINUTE
        ]
        prices = [made.price for made in own] or [price]
        expected = [prices[0], max(prices), min(prices), prices[-1], sum(p.quantity for p in own)]
        assert (row[0], [Decimal(text) for text in row[1:6]]) == (begin, expected)
        assert (row[6], row[8]) == (begin + MINUTE - 1, len(own))
        price = prices[-1]
    assert len(rows) == 12
    assert len(rows[0]) == 12
    newest = ask(venue, "/api/v3/klines", "symbol=BTCUSDT&interval=1m&limit=3")[1]
    assert newest == rows[-3:]
    some = f"symbol=BTCUSDT&interval=1m&startTime={START + 1}&endTime={START + 3 * MINUTE}&limit=2"
    assert ask(venue, "/api/v3/klines", some)[1] == rows[1:3]


def test_what_was_forgotten_is_no_longer_told_and_the_rest_is_right(make, monkeypatch):
    whole = make(prints=prints())
    whole.advance(START + 11 * MINUTE)
    monkeypatch.setattr(market_data, "PRINTS_KEPT", 10)
    short = make(prints=prints())
    short.advance(START + 11 * MINUTE)
    assert len(short.market._markets["BTCUSDT"]._prints) <= 20
    late = f"symbol=BTCUSDT&interval=1m&startTime={START + 8 * MINUTE}"
    assert ask(short, "/api/v3/klines", late) == ask(whole, "/api/v3/klines", late)
    last = ask(short, "/api/v3/trades", "symbol=BTCUSDT&limit=5")[1]
    assert last == ask(whole, "/api/v3/trades", "symbol=BTCUSDT&limit=5")[1]
    assert [row["id"] for row in last] == [35, 36, 37, 38, 39]


@pytest.mark.parametrize(
    ("query", "code"),
    [("symbol=BTCUSDT&interval=7m", -1120), ("symbol=NONE&interval=1m", -1121), ("interval=1m", -1102),
     ("symbol=BTCUSDT", -1102), ("symbol=BTCUSDT&interval=1m&limit=x", -1100)],
)  # fmt: skip
def test_impossible_questions_are_refused_in_binances_words(make, query, code):
    status, told = ask(make(), "/api/v3/klines", query)
    assert (status, told["code"]) == (400, code)


def test_a_market_nobody_traded_in_has_no_candles_and_a_book(make):
    venue = make()
    assert ask(venue, "/api/v3/klines", "symbol=BNBUSDT&interval=1m") == (200, [])
    book = ask(venue, "/api/v3/depth", "symbol=BNBUSDT")[1]
    assert Decimal(book["bids"][0][0]) < 320 < Decimal(book["asks"][0][0])


def test_events_are_wrapped_the_way_a_client_connected(joined):
    venue, join = joined
    plain, wrapped = join("btcusdt@trade", wrapped=False), join("btcusdt@trade")
    venue.advance(START + 1)
    (event,), (message,) = heard(plain), heard(wrapped)
    assert message == {"stream": "btcusdt@trade", "data": event}
    assert (event["e"], event["t"], event["p"]) == ("trade", 1, "40000.00000000")


def test_a_kline_stream_tells_each_close_once_and_agrees_with_rest(joined):
    venue, join = joined
    follower = join("btcusdt@kline_1m", "btcusdt@kline_7m", "nobody@kline_1m")
    venue.advance(START + 10 * MINUTE)
    told = [message["data"]["k"] for message in heard(follower)]
    closed = [fields for fields in told if fields["x"]]
    assert [fields["t"] for fields in closed] == [START + n * MINUTE for n in range(10)]
    rows = ask(venue, "/api/v3/klines", f"symbol=BTCUSDT&interval=1m&startTime={START}")[1]
    for fields, row in zip(closed, rows, strict=False):
        assert [fields[name] for name in "ohlcv"] == row[1:6]
    late = join("btcusdt@kline_5m")
    venue.advance(START + 11 * MINUTE)
    assert heard(late)[-1]["data"]["k"]["t"] == START + 10 * MINUTE


def test_subscriptions_are_given_taken_and_listed(joined):
    venue, join = joined
    follower = join()

    def obey(text):
        venue.market.answer(follower, text)
        return heard(follower)[0]

    def say(method, *names):
        return obey(msgspec.json.encode({"method": method, "params": names, "id": 4}))

    assert say("SUBSCRIBE", "btcusdt@trade", "btcusdt@depth") == {"result": None, "id": 4}
    assert say("UNSUBSCRIBE", "btcusdt@depth") == {"result": None, "id": 4}
    assert say("LIST_SUBSCRIPTIONS") == {"result": ["btcusdt@trade"], "id": 4}
    assert say("SHOUT")["error"]["code"] == 2
    assert say("SUBSCRIBE", "nonsense")["error"]["code"] == 2
    assert obey("{")["error"]["code"] == 3
    many = [f"s{number}@trade" for number in range(STREAMS_MOST)]
    assert "more than 1024" in say("SUBSCRIBE", *many)["error"]["msg"]
    assert follower.streams == {"btcusdt@trade"}


def test_a_frozen_client_hears_nothing_not_even_an_answer(joined):
    venue, join = joined
    follower = join("btcusdt@trade")
    follower.frozen = True
    venue.market.answer(follower, b'{"method":"LIST_SUBSCRIPTIONS","id":1}')
    venue.market.say(b"notice")
    venue.advance(START + MINUTE)
    assert not follower.outbox
    follower.frozen = False
    venue.market.say(b'{"e":"serverShutdown"}')
    assert heard(follower) == [{"e": "serverShutdown"}]


ALL = ("btcusdt@trade", "btcusdt@kline_1m", "btcusdt@depth@100ms", "btcusdt@bookTicker")


@pytest.mark.parametrize(
    ("route", "names"),
    [("spot", set(ALL)), ("public", set(ALL[2:])), ("market", set(ALL[:2])), ("unrouted", set(ALL[2:]))],
)  # fmt: skip
def test_usdm_routes_are_silent_about_what_others_bring(joined, route, names):
    venue, join = joined
    follower = join(*ALL, route=route)
    venue.advance(START + 2 * MINUTE)
    told = heard(follower)
    assert {message["stream"] for message in told} == names
    books = [message["data"] for message in told if "@depth" in message["stream"]]
    if route == "spot":
        assert all("pu" not in book for book in books)
        assert all(b["U"] == a["u"] + 1 for a, b in itertools.pairwise(books))
    else:
        assert all(b["pu"] == a["u"] for a, b in itertools.pairwise(books))
