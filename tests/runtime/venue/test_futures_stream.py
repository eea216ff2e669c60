"""USD-M streams and WebSocket API without sockets: who is told what, through which door."""

import asyncio
import base64
import hashlib
import hmac

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from futures_venue import NOW_NS, dec, request, venue

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.venue.auth import genuine
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_market_data import depth_told
from bot4_runtime.venue.futures_orders import AlgoKind, AlgoRequest
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.stream import Act, Connection
from bot4_runtime.venue.tape import Print

NOW_MS = NOW_NS // 1_000_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@pytest.fixture
def made():
    return venue()


class Client:
    def __init__(self, made, path, query=""):
        self.made = made
        self.connection = Connection(lambda: None)
        made.hub.join(self.connection, path, query)

    def told(self):
        rows = [msgspec.json.decode(row) for row in self.connection.outbox]
        self.connection.outbox.clear()
        return rows

    def kinds(self):
        return [row["e"] for row in self.told()]

    def ask(self, method, **params):
        self.say({"id": 7, "method": method, "params": params})
        return self.told()[-1]

    def say(self, message):
        self.made.hub.answer(self.connection, msgspec.json.encode(message))

    def signed(self, method, key="1", **params):
        params |= {"apiKey": f"key{key}", "timestamp": self.made.exchange.now_ms()}
        payload = "&".join(f"{name}={params[name]}" for name in sorted(params))
        sign = hmac.new(f"secret{key}".encode(), payload.encode(), hashlib.sha256)
        return self.ask(method, **params, signature=sign.hexdigest())


def key_of(made, key="key1"):
    return made.keys.give(made.exchange.account(key), made.exchange.now_ms())


def user(made, rest=""):
    return Client(made, "/private/ws", f"listenKey={key_of(made)}{rest}")


# ------------------------------------------------------------------------ user streams
def test_a_fill_is_told_with_the_account_it_changed(made):
    client, account = user(made), made.exchange.account("key1")
    made.exchange.place(account, request("0.1", client_id="mine"))
    new, changed, filled, lite = client.told()
    assert (new["o"]["x"], new["o"]["X"], new["o"]["c"]) == ("NEW", "NEW", "mine")
    assert changed["a"]["m"] == "ORDER"
    (balance,) = changed["a"]["B"]
    assert (balance["wb"], balance["bc"]) == ("9997.99999500", "0.00000000")
    (position,) = changed["a"]["P"]
    assert (position["pa"], position["ep"], position["ps"]) == (
        "0.10000000",
        "40000.10000000",
        "BOTH",
    )
    order = filled["o"]
    assert (order["x"], order["X"], order["l"], order["L"], order["m"]) == (
        "TRADE",
        "FILLED",
        "0.10000000",
        "40000.10000000",
        False,
    )
    assert (order["n"], order["N"]) == ("2.00000500", "USDT")
    assert (lite["e"], lite["t"]) == ("TRADE_LITE", order["t"])


def test_only_the_events_asked_for_come_and_only_to_their_owner(made):
    some = user(made, "&events=ORDER_TRADE_UPDATE/ACCOUNT_CONFIG_UPDATE")
    other = Client(made, "/private/ws", f"listenKey={key_of(made, 'key2')}")
    wrong_door = Client(made, "/market/ws", f"listenKey={key_of(made)}")
    account = made.exchange.account("key1")
    made.settings.set_leverage(account, "BTCUSDT", 10)
    made.exchange.place(account, request("0.1"))
    assert some.kinds() == ["ACCOUNT_CONFIG_UPDATE", "ORDER_TRADE_UPDATE", "ORDER_TRADE_UPDATE"]
    assert other.told() == wrong_door.told() == []


def test_a_stop_is_told_through_its_life(made):
    client = user(made, "&events=ALGO_UPDATE/ORDER_TRADE_UPDATE")
    account = made.exchange.account("key1")
    made.exchange.place(account, request("0.1"))
    client.told()
    made.algos.place(
        account,
        AlgoRequest(
            kind=AlgoKind.STOP_MARKET, order=request("-0.1"), trigger=dec(39_000), client_id="s"
        ),
    )
    made.trade("BTCUSDT", dec(39_000), dec(0))
    rows = client.told()
    assert [row["o"]["X"] for row in rows if row["e"] == "ALGO_UPDATE"] == [
        "NEW",
        "TRIGGERED",
        "FINISHED",
    ]
    assert rows[-1]["o"]["ai"] == str(rows[-2]["o"]["i"])
    assert rows[-2]["o"]["ot"] == "STOP_MARKET"


def test_a_margin_call_comes_before_a_liquidation(made):
    client, public = user(made), Client(made, "/market/stream", "streams=btcusdt@forceOrder")
    account = made.exchange.account("key1")
    made.exchange.place(account, request("4"))
    client.told()
    price = made.exchange.margins.liquidation_price(account, next(account.positions()))
    made.set_mark("BTCUSDT", price + 20)
    (call,) = client.told()
    assert (call["e"], call["p"][0]["mt"], call["p"][0]["pa"]) == (
        "MARGIN_CALL",
        "CROSSED",
        "4.00000000",
    )
    made.set_mark("BTCUSDT", price - 1)
    rows = client.told()
    closing = [row["o"] for row in rows if row["e"] == "ORDER_TRADE_UPDATE"]
    assert {row["o"] for row in closing} == {"LIQUIDATION"}
    assert [row["x"] for row in closing] == ["NEW", "CALCULATED"]
    assert closing[0]["c"].startswith("autoclose-")
    reasons = [row["a"]["m"] for row in rows if row["e"] == "ACCOUNT_UPDATE"]
    assert reasons == ["ORDER", "INSURANCE_CLEAR"]
    (forced,) = public.told()
    assert forced["stream"] == "btcusdt@forceOrder"
    assert (forced["data"]["o"]["S"], forced["data"]["o"]["z"]) == ("SELL", "4.00000000")


def test_funding_and_margin_transfers_are_told(made):
    client, account = user(made, "&events=ACCOUNT_UPDATE"), made.exchange.account("key1")
    made.settings.set_margin_type(account, "BTCUSDT", isolated=True)
    made.exchange.place(account, request("0.1"))
    made.settings.move_margin(account, "BTCUSDT", next(account.positions()).side, dec(5))
    made.advance(made.exchange.market("BTCUSDT").next_funding_ms)
    rows = [row["a"] for row in client.told() if row["e"] == "ACCOUNT_UPDATE"]
    assert [row["m"] for row in rows] == [
        "MARGIN_TYPE_CHANGE",
        "ORDER",
        "MARGIN_TRANSFER",
        "FUNDING_FEE",
    ]
    assert [row["B"][0]["bc"] for row in rows[2:]] == ["-5.00000000", "-0.40000000"]


def test_a_listen_key_that_runs_out_is_told_and_silent_from_then_on(made):
    client = user(made)
    made.advance(NOW_MS + 3_600_000)
    assert client.kinds() == ["listenKeyExpired"]
    made.exchange.place(made.exchange.account("key1"), request("0.1"))
    assert client.told() == []


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        (Fault.EVENT_LOST, ["ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE", "TRADE_LITE"]),
        (
            Fault.EVENT_TWICE,
            ["ORDER_TRADE_UPDATE"] * 2 + ["ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE", "TRADE_LITE"],
        ),
        (
            Fault.EVENT_LATE,
            ["ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE", "ORDER_TRADE_UPDATE", "TRADE_LITE"],
        ),
        (Fault.EVENT_STALL, []),
    ],
)
def test_user_events_go_wrong_by_schedule(made, fault, kinds):
    client = user(made)
    made.schedule(FaultSchedule([FaultRule(fault=fault, path="ORDER", times=1)]))
    made.exchange.place(made.exchange.account("key1"), request("0.1"))
    assert client.kinds() == kinds


def test_a_stream_can_end_inside_a_frame(made):
    client = user(made)
    made.schedule(FaultSchedule([FaultRule(fault=Fault.EVENT_CUT, path="ORDER", times=1)]))
    made.exchange.place(made.exchange.account("key1"), request("0.1"))
    assert list(client.connection.outbox) == [Act.CUT]


def test_a_fault_of_the_spot_venues_core_is_refused_by_name(made):
    with pytest.raises(ConfigError, match="USD-M venue cannot act out clock_step, halted; expected"):  # fmt: skip
        made.schedule(FaultSchedule([FaultRule(fault=Fault.HALTED), FaultRule(fault=Fault.CLOCK_STEP)]))  # fmt: skip


# ---------------------------------------------------------------------- market streams
def test_each_door_carries_its_own_streams(made):
    streams = "streams=btcusdt@aggTrade/btcusdt@bookTicker/btcusdt@kline_1m/btcusdt@markPrice@1s"
    market, public, plain = (
        Client(made, path, streams) for path in ("/market/stream", "/public/stream", "/stream")
    )
    made.advance(NOW_MS + 1_000)
    made.trade("BTCUSDT", dec(40_100), dec(2))
    assert [row["stream"] for row in market.told()] == [
        "btcusdt@markPrice@1s",
        "btcusdt@aggTrade",
        "btcusdt@kline_1m",
    ]
    assert {row["stream"] for row in public.told()} == {"btcusdt@bookTicker"}
    assert {row["stream"] for row in plain.told()} == {"btcusdt@bookTicker"}


def test_depth_events_lead_from_a_snapshot_to_the_book(made):
    client = Client(made, "/public/ws/btcusdt@depth@100ms")
    account = made.exchange.account("key1")

    def snapshot():
        told = depth_told(made.exchange.market("BTCUSDT"), 0, 1_000)
        return told["lastUpdateId"], dict(told["bids"]), dict(told["asks"])

    last, bids, asks = snapshot()
    made.exchange.place(account, request("0.5", "39999.9"))
    made.exchange.place(account, request("1"))
    made.trade("BTCUSDT", dec(39_980), dec(1))
    made.exchange.place(account, request("-0.2"))
    made.hub.flush()
    events = client.told()
    assert events
    for event in events:
        assert event["pu"] == last
        assert event["U"] == last + 1 <= event["u"]
        last = event["u"]
        for side, rows in ((bids, event["b"]), (asks, event["a"])):
            for price, quantity in rows:
                side[price] = quantity
                if not dec(quantity):
                    del side[price]
    assert (last, bids, asks) == snapshot()


def test_subscriptions_are_taken_given_back_and_listed(made):
    client = Client(made, "/public/ws")
    client.say({"method": "SUBSCRIBE", "params": ["btcusdt@depth5", "!bookTicker"], "id": 1})
    client.say({"method": "UNSUBSCRIBE", "params": ["!bookTicker"], "id": 2})
    client.say({"method": "LIST_SUBSCRIPTIONS", "id": 3})
    client.say({"method": "SHOUT", "id": 4})
    client.say({"method": "SUBSCRIBE", "params": [5], "id": 5})
    many = [f"s{number}@depth" for number in range(1_024)]
    client.say({"method": "SUBSCRIBE", "params": many, "id": 6})
    made.hub.answer(client.connection, "{")
    rows = client.told()
    assert rows[:3] == [
        {"result": None, "id": 1},
        {"result": None, "id": 2},
        {"result": ["btcusdt@depth5"], "id": 3},
    ]
    assert [row["error"]["code"] for row in rows[3:]] == [2, 2, 2, 3]
    made.trade("BTCUSDT", dec(40_001), dec(1))
    (row,) = client.told()
    assert [len(row["b"]), len(row["a"])] == [5, 5]
    made.hub.leave(client.connection)
    made.trade("BTCUSDT", dec(40_002), dec(1))
    assert client.told() == []


def test_who_says_too_much_at_a_stream_is_thrown_out(made):
    client = Client(made, "/market/ws")
    for second in range(2):
        made.advance(NOW_MS + 1_000 * second)
        for number in range(10):
            client.say({"method": "LIST_SUBSCRIPTIONS", "id": number})
    assert len(client.told()) == 20
    client.say({"method": "LIST_SUBSCRIPTIONS", "id": 11})
    assert list(client.connection.outbox) == [Act.THROW_OUT]


def test_the_door_closes_behind_who_is_thrown_out():
    async def run(port):
        url = f"ws://127.0.0.1:{port}/market/ws"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            for number in range(1_000):
                await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
                if (message := await socket.receive()).type is not aiohttp.WSMsgType.TEXT:
                    break
            return message.type, socket.close_code

    with hosted(venue(live=True)) as server:
        assert asyncio.run(run(server.port)) == (aiohttp.WSMsgType.CLOSE, 1008)


def test_all_marks_come_as_one_list_each(made):
    client = Client(made, "/market/ws/!markPrice@arr@1s")
    made.advance(NOW_MS + 5_000)
    rows = client.told()
    assert [row[0]["s"] for row in rows] == ["BTCUSDT", "ETHUSDT"]
    assert rows[0][0]["r"] == "0.00010000"


def test_a_candle_is_told_only_after_a_trade(made):
    client = Client(made, "/market/ws/btcusdt@kline_1h")
    made.trade("BTCUSDT", dec(40_001), dec(0))
    assert client.told() == []
    made.trade("BTCUSDT", dec(40_002), dec(1))
    (row,) = client.told()
    assert (row["k"]["i"], row["k"]["c"], row["k"]["x"]) == ("1h", "40002.00000000", False)


# ---------------------------------------------------------------------- WebSocket API
def test_orders_are_placed_modified_looked_up_and_cancelled(made):
    client = Client(made, "/ws-fapi/v1")
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
    placed = client.signed("order.place", **order, quantity="0.01", price="39000")
    assert (placed["status"], placed["result"]["status"]) == (200, "NEW")
    counts = {(r["rateLimitType"], r["interval"]): r["count"] for r in placed["rateLimits"]}
    assert counts["ORDERS", "SECOND"] == 1
    named = {"symbol": "BTCUSDT", "orderId": placed["result"]["orderId"]}
    moved = client.signed("order.modify", **named, side="BUY", quantity="0.02", price="39100")
    assert moved["result"]["origQty"] == "0.02000000"
    assert client.signed("order.status", **named)["result"]["price"] == "39100.00000000"
    assert client.signed("order.cancel", **named)["result"]["status"] == "CANCELED"
    gone = client.signed("order.cancel", **named)
    assert (gone["status"], gone["error"]["code"], gone["id"]) == (400, -2011, 7)


def test_conditional_orders_and_accounts_are_there_as_well(made):
    client = Client(made, "/ws-fapi/v1")
    placed = client.signed(
        "algoOrder.place",
        algoType="CONDITIONAL",
        symbol="BTCUSDT",
        side="SELL",
        type="STOP_MARKET",
        triggerPrice="39000",
        quantity="0.01",
    )["result"]
    gone = client.signed("algoOrder.cancel", algoId=placed["algoId"])
    assert gone["result"]["msg"] == "success"
    made.exchange.place(made.exchange.account("key1"), request("0.1"))
    assert client.signed("account.status")["result"]["positions"][0]["symbol"] == "BTCUSDT"
    assert client.signed("v2/account.balance")["result"][0]["asset"] == "USDT"
    assert client.signed("account.position")["result"][0]["positionAmt"] == "0.10000000"


def test_market_data_and_listen_keys_need_no_signature(made):
    client = Client(made, "/ws-fapi/v1")
    assert client.ask("time")["result"] == {"serverTime": NOW_MS}
    assert client.ask("ticker.price", symbol="BTCUSDT")["result"]["price"] == "40000.00000000"
    assert client.ask("depth", symbol="BTCUSDT", limit=5)["result"]["bids"]
    assert client.ask("ping", returnRateLimits=False).keys() == {"id", "status", "result"}
    key = client.ask("userDataStream.start", apiKey="key1")["result"]["listenKey"]
    assert client.ask("userDataStream.ping", apiKey="key1")["result"]["listenKey"] == key
    assert client.ask("userDataStream.stop", apiKey="key1")["result"] == {}
    assert client.ask("userDataStream.stop", apiKey="key1")["error"]["code"] == -1125
    assert client.ask("userDataStream.ping", apiKey="key1")["error"]["code"] == -1125
    assert client.ask("userDataStream.start", apiKey="no")["error"]["code"] == -2015


def test_a_session_needs_an_ed25519_key_and_then_no_signatures(made):
    made.open_account(9, "key9", PEM.decode(), [("USDT", dec(1_000))])
    client = Client(made, "/ws-fapi/v1")
    assert client.signed("session.logon")["error"]["code"] == -4056

    def logon(sign):
        params = {"apiKey": "key9", "timestamp": NOW_MS}
        payload = f"apiKey=key9&timestamp={NOW_MS}"
        signature = base64.b64encode(sign(payload.encode())).decode()
        return client.ask("session.logon", **params, signature=signature)

    assert logon(lambda _: b"x" * 64)["error"]["code"] == -1022
    assert client.ask("session.logon", apiKey="key9", timestamp=NOW_MS, signature="%")["error"][
        "code"
    ] == (-1022)
    assert logon(KEY.sign)["result"]["apiKey"] == "key9"
    balance = client.ask("account.balance", timestamp=NOW_MS)["result"]
    assert balance[0]["balance"] == "1000.00000000"
    assert client.ask("account.balance", timestamp=NOW_MS - 6_000)["error"]["code"] == -1021
    assert client.ask("userDataStream.start")["result"]["listenKey"]
    assert client.ask("session.status")["result"]["authorizedSince"] == NOW_MS
    assert client.ask("session.logout")["result"]["apiKey"] is None
    assert client.ask("account.balance", timestamp=NOW_MS)["error"]["code"] == -2014


def test_messages_that_are_none_are_refused(made):
    client = Client(made, "/ws-fapi/v1")
    made.hub.answer(client.connection, "{")
    made.hub.answer(client.connection, '{"id":1,"method":"ping","params":[1]}')
    assert [row["error"]["code"] for row in client.told()] == [-1135, -1135]
    assert client.ask("order.shout")["error"]["code"] == -1020


def test_who_asks_too_much_is_told_when_he_may_again(made):
    client = Client(made, "/ws-fapi/v1")
    for _ in range(241):
        refused = client.ask("depth", symbol="BTCUSDT")
    assert refused["status"] == 429
    assert refused["error"]["data"]["retryAfter"] == NOW_MS + 60_000


def test_rsa_signs_and_a_key_of_another_kind_signs_nothing():
    def pem(key):
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_key().public_bytes(serialization.Encoding.PEM, public).decode()

    key = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
    signature = base64.b64encode(key.sign(b"payload", PKCS1v15(), SHA256())).decode()
    assert genuine(pem(key), "payload", signature)
    assert not genuine(pem(key), "payloaf", signature)
    assert not genuine(pem(key), "payload", "not base64")
    assert not genuine(pem(ec.generate_private_key(ec.SECP256R1())), "payload", signature)


def test_each_candle_is_told_as_closed_once_whether_or_not_somebody_trades_next():
    minute, start = 60_000, 1_800_000_000_000
    prints = [Print(start + at, "BTCUSDT", dec(40_000 + at // 1_000), dec(1)) for at in (1, 30_000, 61_000, 300_000)]  # fmt: skip
    made = venue(prints=prints)
    client = Client(made, "/market/ws/btcusdt@kline_1m")
    made.advance(start + 50_000)
    assert [row["k"]["x"] for row in client.told()] == [False, False]
    made.advance(start + 70_000)
    closed, forming = client.told()
    assert [closed["k"][name] for name in "txovn"] == [start, True, "40000.00000000", "2.00000000", 2]  # fmt: skip
    assert [forming["k"][name] for name in "tx"] == [start + minute, False]
    made.advance(start + 2 * minute)
    (second,) = client.told()
    assert [second["k"][name] for name in "tx"] == [start + minute, True]
    made.advance(start + 3 * minute)
    assert all(not row["k"]["x"] or row["k"]["t"] > start + minute for row in client.told())
