"""Faults that the USD-M venue acts out: HTTP 503 in its variants, the door, stops, funding, countdowns.

Over real sockets both ways where what is said matters; without them where the books do.
"""  # fmt: skip

import asyncio
import hashlib
import hmac
import http.client
from contextlib import closing
from decimal import Decimal
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
from futures_venue import NOW_NS, held_in_all, request, venue

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.venue.faults import WS, Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_algo import AlgoStatus
from bot4_runtime.venue.futures_faults import spared
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.orders import Status
from bot4_runtime.venue.rest import WireRequest
from bot4_runtime.venue.stream import Act, Connection, Later

NOW_MS = NOW_NS // 1_000_000
ENTRY = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "39000", "newClientOrderId": "entry"}  # fmt: skip
EXIT = {"symbol": "BTCUSDT", "side": "SELL", "type": "MARKET", "quantity": "0.01", "reduceOnly": "true", "newClientOrderId": "exit"}  # fmt: skip
STOP = {"symbol": "BTCUSDT", "side": "SELL", "algoType": "CONDITIONAL", "type": "STOP_MARKET", "triggerPrice": "39000", "quantity": "0.01", "reduceOnly": "true", "clientAlgoId": "stop"}  # fmt: skip
UNKNOWN = "Unknown error, please check your request or try again later."
INTERNAL = "Internal error; unable to process your request. Please try again."
THROTTLED = "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again."  # fmt: skip


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def made(sink):
    return venue(sink=sink)


@pytest.fixture
def account(made):
    return made.exchange.account("key1")


def faulty(made: FuturesLoopback, fault: Fault, method: str = "", path: str = "", **more) -> None:
    made.schedule(FaultSchedule([FaultRule(fault=fault, method=method, path=path, **more)]))


def mac(text: str) -> str:
    return hmac.new(b"secret1", text.encode(), hashlib.sha256).hexdigest()


def by_rest(server, made, method: str, path: str, **values):
    """Ask over HTTP; return status and body."""
    query = urlencode(values | {"timestamp": made.exchange.now_ms()})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with closing(connection):
        headers = {"X-MBX-APIKEY": "key1"}
        connection.request(method, f"{path}?{query}&signature={mac(query)}", headers=headers)
        with connection.getresponse() as response:
            return response.status, response.read()


def by_line(server, made, method: str, **values):
    """Ask over the WebSocket API; return the reply."""
    params = {name: str(v) for name, v in values.items()} | {"apiKey": "key1", "timestamp": made.exchange.now_ms()}  # fmt: skip
    text = "&".join(f"{name}={params[name]}" for name in sorted(params))
    message = {"id": "1", "method": method, "params": params | {"signature": mac(text)}}

    async def ask():
        url = f"http://127.0.0.1:{server.port}/ws-fapi/v1"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as line:
            await line.send_json(message)
            return await line.receive_json(timeout=5)

    return asyncio.run(ask())


# ------------------------------------------------------------------------------------ N5
VARIANTS = [
    (Fault.UNKNOWN_BEFORE, -1000, UNKNOWN, False),
    (Fault.UNKNOWN_AFTER, -1000, UNKNOWN, True),
    (Fault.UNAVAILABLE, -1016, "Service Unavailable.", False),
    (Fault.INTERNAL_ERROR, -1001, INTERNAL, False),
    (Fault.THROTTLED, -1008, THROTTLED, False),
]


@pytest.mark.parametrize(("fault", "code", "words", "done"), VARIANTS)
def test_503_says_its_words_over_http_and_the_effect_is_there_or_not(made, account, sink, fault, code, words, done):  # fmt: skip
    faulty(made, fault, "POST", times=1)
    with hosted(made) as server:
        status, body = by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)
    assert status == 503
    if fault is Fault.UNAVAILABLE:
        assert body.decode() == words
    else:
        assert msgspec.json.decode(body) == {"code": code, "msg": words}
    placed = made.exchange.find(account, "BTCUSDT", None, "entry")
    assert (placed is not None) is done
    assert [e.body["id"] for e in sink.entries if e.kind == "sent"] == ["entry"]


@pytest.mark.parametrize(("fault", "code", "words", "done"), VARIANTS)
def test_503_says_its_words_over_the_line_and_the_effect_is_there_or_not(made, account, sink, fault, code, words, done):  # fmt: skip
    faulty(made, fault, WS, "algoOrder.place" if fault is not Fault.THROTTLED else "order.place", times=1)  # fmt: skip
    opens = {name: value for name, value in STOP.items() if name != "reduceOnly"}
    asked = ("order.place", ENTRY) if fault is Fault.THROTTLED else ("algoOrder.place", opens)
    with hosted(made) as server:
        reply = by_line(server, made, asked[0], **asked[1])
    assert reply["status"] == 503
    assert reply["error"] == {"code": code, "msg": words}
    assert (made.algos.find(account, None, "stop") is not None) is done
    assert made.exchange.find(account, "BTCUSDT", None, "entry") is None
    assert len([e for e in sink.entries if e.kind == "sent"]) == 1


@pytest.mark.parametrize("way", ["REST", "line"])
def test_throttling_lets_through_what_only_reduces_and_cancels(made, account, way):
    made.exchange.place(account, request("0.03"))
    resting = made.exchange.place(account, request("0.01", 39_000))
    rules = [FaultRule(fault=Fault.THROTTLED), FaultRule(fault=Fault.THROTTLED, method=WS)]
    made.schedule(FaultSchedule(rules))
    with hosted(made) as server:

        def ask(method, path, api_method, **values):
            if way == "line":
                return by_line(server, made, api_method, **values)["status"]
            return by_rest(server, made, method, path, **values)[0]

        assert ask("POST", "/fapi/v1/order", "order.place", **ENTRY) == 503
        assert ask("POST", "/fapi/v1/order", "order.place", **EXIT) == 200
        assert ask("POST", "/fapi/v1/algoOrder", "algoOrder.place", **STOP) == 200
        named = {"symbol": "BTCUSDT", "orderId": resting.order_id}
        assert ask("GET", "/fapi/v1/order", "order.status", **named) == 200
        assert ask("DELETE", "/fapi/v1/order", "order.cancel", **named) == 200
        assert ask("DELETE", "/fapi/v1/algoOrder", "algoOrder.cancel", clientAlgoId="stop") == 200
    assert account.position(made.exchange.market("BTCUSDT").contract, "BOTH").quantity == Decimal("0.02")  # fmt: skip


@pytest.mark.parametrize(
    ("call", "values", "hit"),
    [
        ("POST /fapi/v1/order", ENTRY, True),
        ("order.place", ENTRY, True),
        ("POST /fapi/v1/order", EXIT, False),
        ("order.place", EXIT | {"reduceOnly": True}, False),
        ("POST /fapi/v1/algoOrder", STOP, False),
        ("POST /fapi/v1/algoOrder", {"closePosition": "true", "side": "SELL"}, False),
        ("POST /fapi/v1/order", {"side": "SELL", "positionSide": "LONG"}, False),
        ("POST /fapi/v1/order", {"side": "BUY", "positionSide": "SHORT"}, False),
        ("POST /fapi/v1/order", {"side": "BUY", "positionSide": "LONG"}, True),
        ("POST /fapi/v1/order", {"side": "SELL", "positionSide": "BOTH"}, True),
        ("POST /fapi/v1/listenKey", {}, False),
        ("GET /fapi/v1/order", {}, False),
        ("DELETE /fapi/v1/order", {}, False),
        ("order.cancel", {}, False),
    ],
)
def test_what_throttling_hits(call, values, hit):
    assert (Fault.THROTTLED not in spared(call, values)) is hit


def test_other_faults_hit_what_they_are_about_alone():
    countdown, algo, plain = "POST /fapi/v1/countdownCancelAll", "algoOrder.place", "order.place"
    assert [Fault.COUNTDOWN in spared(call, {}) for call in (countdown, algo, plain)] == [False, True, True]  # fmt: skip
    assert [Fault.TRIGGER_REFUSED in spared(call, {}) for call in (countdown, algo, plain)] == [True, False, True]  # fmt: skip
    assert [Fault.ORDER_LIMIT in spared(call, {}) for call in (countdown, algo, plain)] == [True, False, False]  # fmt: skip
    assert Fault.DROP_REPLY not in spared("GET /fapi/v1/time", {})


def test_the_spot_venue_does_not_pass_over_what_it_cannot_act_out():
    spot, rules = Loopback(ManualClock(NOW_NS), []), [FaultRule(fault=Fault.THROTTLED)]
    with pytest.raises(ConfigError, match="the spot venue cannot act out throttled"):
        spot.schedule(FaultSchedule(rules))
    with pytest.raises(ConfigError, match="throttled"):
        Loopback(ManualClock(NOW_NS), [], faults=FaultSchedule(rules))


# ------------------------------------------------------------------------------ the door
@pytest.mark.parametrize("way", ["REST", "line"])
@pytest.mark.parametrize(("fault", "status"), [(Fault.RATE_LIMITED, 429), (Fault.BANNED, 418)])
def test_the_venue_wants_silence_and_writes_down_who_does_not_keep_it(made, sink, way, fault, status):  # fmt: skip
    method, path = (WS, "order.place") if way == "line" else ("POST", "")
    faulty(made, fault, method, path, times=1, seconds=30)
    with hosted(made) as server:
        if way == "line":
            reply = by_line(server, made, "order.place", **ENTRY)
            assert (reply["status"], reply["error"]["code"]) == (status, -1003)
            assert reply["error"]["data"]["retryAfter"] == NOW_MS + 30_000
        else:
            assert by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[0] == status
        assert [entry.kind for entry in sink.entries].count("trespass") == 0
        assert by_line(server, made, "order.place", **ENTRY)["status"] == 418
        assert by_rest(server, made, "GET", "/fapi/v3/balance")[0] == 418
    assert [entry.kind for entry in sink.entries].count("trespass") == 2


@pytest.mark.parametrize("way", ["REST", "line"])
def test_a_limit_of_orders_turns_new_orders_of_both_kinds_away(made, sink, way):
    method, path = (WS, "order.place") if way == "line" else ("POST", "")
    faulty(made, Fault.ORDER_LIMIT, method, path, times=1, seconds=10)
    with hosted(made) as server:
        if way == "line":
            assert by_line(server, made, "order.place", **ENTRY)["error"]["code"] == -1015
        else:
            assert b"-1015" in by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[1]
        assert by_rest(server, made, "POST", "/fapi/v1/algoOrder", **STOP)[0] == 429
        assert by_rest(server, made, "GET", "/fapi/v3/balance")[0] == 200
    assert [entry.kind for entry in sink.entries].count("trespass") == 1


@pytest.mark.parametrize("way", ["REST", "line"])
def test_a_revoked_key_opens_nothing_and_ends_its_stream(made, account, way):
    key = made.keys.give(account, NOW_MS)
    stream = Connection(lambda: None)
    made.hub.join(stream, "/private/ws", f"listenKey={key}")
    method, path = (WS, "order.place") if way == "line" else ("POST", "")
    faulty(made, Fault.KEY_REVOKED, method, path, times=1, seconds=5)
    with hosted(made) as server:
        if way == "line":
            reply = by_line(server, made, "order.place", **ENTRY)
            assert (reply["status"], reply["error"]["code"]) == (401, -2015)
        else:
            assert by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[0] == 401
        assert by_line(server, made, "v2/account.balance")["error"]["code"] == -2015
        made.advance(NOW_MS + 6_000)
        assert by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[0] == 200
    (told,) = [msgspec.json.decode(frame) for frame in stream.outbox]
    assert told["e"] == "listenKeyExpired"
    assert made.keys.of(account) is None


def test_going_over_a_limit_is_written_down(made, account, sink):
    with hosted(made) as server:
        for _ in range(60):
            by_rest(server, made, "GET", "/fapi/v1/openOrders")
        assert by_rest(server, made, "GET", "/fapi/v1/openOrders")[0] == 429
    assert [entry.kind for entry in sink.entries].count("over_weight") == 1


# --------------------------------------------------------------------- what orders meet
@pytest.mark.parametrize("way", ["REST", "line"])
@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.ORDER_EXPIRED, Status.EXPIRED), (Fault.ORDER_PULLED, Status.CANCELED)],
)
def test_an_order_that_was_taken_ends_by_the_venues_will(made, account, way, fault, status):
    made.exchange.place(account, request("0.01"))
    made.schedule(FaultSchedule([FaultRule(fault=fault), FaultRule(fault=fault, method=WS)]))
    with hosted(made) as server:
        for name, path, values in (("order.place", "order", ENTRY), ("algoOrder.place", "algoOrder", STOP)):  # fmt: skip
            if way == "line":
                assert by_line(server, made, name, **values)["status"] == 200
            else:
                assert by_rest(server, made, "POST", f"/fapi/v1/{path}", **values)[0] == 200
        assert by_rest(server, made, "POST", "/fapi/v1/order", **EXIT)[0] == 200
        assert by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY | {"symbol": "NONE"})[0] == 400  # fmt: skip
    assert made.exchange.find(account, "BTCUSDT", None, "entry").status is status
    assert made.algos.find(account, None, "stop").status.value == status.value
    assert made.exchange.find(account, "BTCUSDT", None, "exit").status is Status.FILLED


@pytest.mark.parametrize("way", ["REST", "line"])
def test_an_order_finds_its_margin_gone_and_the_money_is_there_again_afterwards(made, account, way):  # fmt: skip
    before = account.wallet("USDT")
    rules = [FaultRule(fault=Fault.FUNDS_TAKEN), FaultRule(fault=Fault.FUNDS_TAKEN, method=WS)]
    made.schedule(FaultSchedule(rules))
    with hosted(made) as server:
        if way == "line":
            assert by_line(server, made, "order.place", **ENTRY)["error"]["code"] == -2019
        else:
            assert b"-2019" in by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[1]
    assert account.wallet("USDT") == before


def test_a_stop_is_refused_at_its_trigger_and_says_so(made, account):
    made.exchange.place(account, request("0.01"))
    faulty(made, Fault.TRIGGER_REFUSED, "POST", times=1)
    with hosted(made) as server:
        assert by_rest(server, made, "POST", "/fapi/v1/algoOrder", **STOP)[0] == 200
        assert by_rest(server, made, "POST", "/fapi/v1/algoOrder", **STOP | {"clientAlgoId": "other"})[0] == 200  # fmt: skip
        made.trade("BTCUSDT", Decimal(38_000), Decimal(1))
    doomed, other = (made.algos.find(account, None, name) for name in ("stop", "other"))
    assert (doomed.status, doomed.reason) == (AlgoStatus.REJECTED, "Margin is insufficient.")
    assert other.status is AlgoStatus.FINISHED
    assert not list(account.positions())


def test_funding_out_of_its_time_takes_a_share_of_what_is_held_and_loses_no_money(made, account):
    made.exchange.place(account, request("0.1"))
    made.exchange.place(account, request("1", symbol="ETHUSDT"))
    whole = held_in_all(made)
    faulty(made, Fault.FUNDED, "POST", times=1)
    with hosted(made) as server:
        assert by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[0] == 200
    (paid,) = [row for row in account.incomes if row.kind == "FUNDING_FEE"]
    assert (paid.symbol, paid.amount) == ("BTCUSDT", -Decimal("0.1") * made.exchange.market("BTCUSDT").mark * Decimal("0.02"))  # fmt: skip
    assert held_in_all(made) == whole


@pytest.mark.parametrize("takes_algos", [False, True])
def test_a_countdown_goes_off_before_its_time_and_does_once(sink, takes_algos):
    made = venue(sink=sink)
    made.calendar._algos = made.algos if takes_algos else None
    account = made.exchange.account("key1")
    made.exchange.place(account, request("0.02"))
    faulty(made, Fault.COUNTDOWN, times=1)
    countdown = {"symbol": "BTCUSDT", "countdownTime": 60_000}
    with hosted(made) as server:
        assert by_rest(server, made, "POST", "/fapi/v1/algoOrder", **STOP)[0] == 200
        assert by_rest(server, made, "POST", "/fapi/v1/order", **ENTRY)[0] == 200
        status, body = by_rest(server, made, "POST", "/fapi/v1/countdownCancelAll", **countdown)
    assert (status, msgspec.json.decode(body)["countdownTime"]) == (200, "60000")
    assert made.exchange.find(account, "BTCUSDT", None, "entry").status is Status.CANCELED
    stopped = made.algos.find(account, None, "stop").status
    assert stopped is (AlgoStatus.CANCELED if takes_algos else AlgoStatus.NEW)
    later = made.exchange.place(account, request("0.01", 39_000))
    made.advance(NOW_MS + 61_000)
    assert later.status.open, "it went off, and does not again"
    made.calendar.hasten(account, "ETHUSDT")  # none runs there


# ------------------------------------------------------------------------------- streams
@pytest.mark.parametrize(
    ("fault", "last"),
    [
        (Fault.LINE_CLOSED, [Act.CLOSE]),
        (Fault.SHUTDOWN, ["serverShutdown", Later(Act.CLOSE, 0.5)]),
        (Fault.TERMINATED, ["listenKeyExpired"]),
    ],
)
def test_a_user_stream_ends_after_an_event(made, account, sink, fault, last):
    key = made.keys.give(account, NOW_MS)
    stream = Connection(lambda: None)
    made.hub.join(stream, "/private/ws", f"listenKey={key}")
    faulty(made, fault, "EVENT", "ORDER_TRADE_UPDATE", times=1, seconds=0.5)
    made.exchange.place(account, request("0.01", 39_000))
    told = [msgspec.json.decode(p)["e"] if isinstance(p, bytes) else p for p in stream.outbox]
    assert told == ["ORDER_TRADE_UPDATE", *last]
    assert [e.body["call"] for e in sink.entries if e.kind == "fault"] == ["EVENT ORDER_TRADE_UPDATE"]  # fmt: skip
    assert (made.keys.of(account) is None) is (fault is Fault.TERMINATED)


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (Fault.MALFORMED, [None, None, None, None, "ORDER_TRADE_UPDATE"]),
        (Fault.UNKNOWN_EVENT, ["somethingNew", "ORDER_TRADE_UPDATE"]),
        (Fault.HUGE_FRAME, ["somethingNew", "ORDER_TRADE_UPDATE"]),
        (Fault.ERROR_FRAME, [None, "ORDER_TRADE_UPDATE"]),
        (Fault.FOREIGN_SYMBOL, ["ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE"]),
        (Fault.NEW_WORD, ["ORDER_TRADE_UPDATE"]),
        (Fault.PING_BURST, [Act.PINGS, "ORDER_TRADE_UPDATE"]),
        (Fault.LINE_DEAD, [Act.DEAD]),
        (Fault.REPLAYED, ["ORDER_TRADE_UPDATE", "ORDER_TRADE_UPDATE"]),
        (Fault.EVENT_DELAYED, ["later ORDER_TRADE_UPDATE"]),
    ],
)
def test_a_user_stream_says_strange_things(made, account, fault, kinds, combined):
    key = made.keys.give(account, NOW_MS)
    stream = Connection(lambda: None)
    door, query = ("stream", f"streams={key}") if combined else ("ws", f"listenKey={key}")
    made.hub.join(stream, f"/private/{door}", query)
    made.exchange.place(account, request("0.01", 39_000))  # what a replay has to tell
    stream.outbox.clear()
    faulty(made, fault, "EVENT", "ORDER_TRADE_UPDATE", times=1, seconds=0.5)
    made.exchange.place(account, request("0.01", 38_900))

    def kind(parcel):
        if isinstance(parcel, Later):
            return f"later {kind(parcel.what)}"
        if not isinstance(parcel, bytes):
            return parcel
        try:
            told = msgspec.json.decode(parcel)
        except msgspec.DecodeError:
            return None
        if not isinstance(told, dict):
            return None
        event = told.get("data", {}) if combined else told
        return event.get("e")

    assert [kind(parcel) for parcel in stream.outbox] == kinds
    if fault is Fault.NEW_WORD:
        assert b"SOMETHING_NEW" in stream.outbox[0]


def test_others_use_up_most_of_the_weight_and_headers_tell(made, account, sink):
    faulty(made, Fault.FOREIGN_WEIGHT, "GET", times=1)
    with hosted(made) as server:
        assert by_rest(server, made, "GET", "/fapi/v3/balance")[0] == 200
        call = WireRequest("GET", "/fapi/v1/time", "", "", None)
        used = made.answer(call).headers["X-MBX-USED-WEIGHT-1M"]
    assert int(used) == 2_400 - 100 + 5 + 1
    assert "over_weight" not in {entry.kind for entry in sink.entries}


def test_a_request_that_was_late_has_its_effect_though_its_line_is_gone(made, account):
    line = Connection(lambda: None)
    made.hub.join(line, "/ws-fapi/v1", "")
    made.hub.leave(line)
    params = ENTRY | {"apiKey": "key1", "timestamp": str(NOW_MS)}
    text = "&".join(f"{name}={params[name]}" for name in sorted(params))
    message = {"id": 1, "method": "order.place", "params": params | {"signature": mac(text)}}
    made.hub.answer(line, msgspec.json.encode(message))
    assert made.exchange.find(account, "BTCUSDT", None, "entry").status.open
