"""USD-M REST without sockets: every call, codes and texts of refusals, weights and limits."""

import hashlib
import hmac
from decimal import Decimal
from urllib.parse import urlencode

import msgspec
import pytest
from futures_venue import NOW_NS, dec, request, venue

from bot4_runtime.venue.futures_rest import weight_of
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.rest import WireRequest

NOW_MS = NOW_NS // 1_000_000
LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
ORDER = LIMIT | {"quantity": "0.01", "price": "39000"}
STOP = {
    "algoType": "CONDITIONAL",
    "symbol": "BTCUSDT",
    "side": "SELL",
    "type": "STOP_MARKET",
    "triggerPrice": "39000",
    "quantity": "0.01",
}


@pytest.fixture
def sink():
    return MemorySink()


@pytest.fixture
def made(sink):
    return venue(sink=sink)


@pytest.fixture
def call(made):
    def called(method, path, key="1", **values):
        now_ms = made.exchange.now_ms()
        query = urlencode(values | {"timestamp": now_ms})
        sign = hmac.new(f"secret{key}".encode(), query.encode(), hashlib.sha256).hexdigest()
        answer = made.rest.answer(
            WireRequest(method, f"/fapi/{path}", f"{query}&signature={sign}", "", f"key{key}")
        )
        called.headers, called.status = answer.headers, answer.status
        return msgspec.json.decode(answer.body)

    return called


def code(answer):
    return answer["code"]


def test_public_calls_need_no_key(made):
    made.trade("BTCUSDT", dec(40_100), dec(2))
    made.trade("BTCUSDT", dec(40_050), dec(1))

    def get(path, query=""):
        answer = made.rest.answer(WireRequest("GET", f"/fapi/{path}", query, "", None))
        return msgspec.json.decode(answer.body)

    btc = "symbol=BTCUSDT"
    assert get("v1/ping") == {}
    assert get("v1/time") == {"serverTime": NOW_MS}
    info = get("v1/exchangeInfo")
    assert [s["symbol"] for s in info["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    assert {f["filterType"] for f in info["symbols"][0]["filters"]} == {
        "PRICE_FILTER",
        "LOT_SIZE",
        "MARKET_LOT_SIZE",
        "MAX_NUM_ORDERS",
        "MIN_NOTIONAL",
        "PERCENT_PRICE",
    }
    assert {limit["limit"] for limit in info["rateLimits"]} == {2_400, 1_200, 300}
    assert get("v1/depth", f"{btc}&limit=5")["asks"][0] == ["40050.10000000", "1000.00000000"]
    assert code(get("v1/depth", f"{btc}&limit=7")) == -4021
    assert [t["isBuyerMaker"] for t in get("v1/trades", btc)] == [False, True]
    assert [t["a"] for t in get("v1/aggTrades", f"{btc}&fromId=2")] == [2]
    (row,) = get("v1/klines", f"{btc}&interval=1m")
    assert row[1:6] == [
        "40100.00000000",
        "40100.00000000",
        "40050.00000000",
        "40050.00000000",
        "3.00000000",
    ]
    assert row[9] == "2.00000000"
    assert get("v1/klines", f"{btc}&interval=1m&startTime={NOW_MS + 60_000}") == []
    assert len(get("v1/markPriceKlines", f"{btc}&interval=1h")) == 1
    assert code(get("v1/klines", f"{btc}&interval=7m")) == -1120
    assert code(get("v1/klines", f"{btc}&interval=1m&limit=9999")) == -1130
    assert get("v1/premiumIndex", btc)["markPrice"] == "40050.00000000"
    assert len(get("v1/premiumIndex")) == 2
    made.advance(made.exchange.market("BTCUSDT").next_funding_ms)
    assert get("v1/fundingRate", btc)[0]["fundingRate"] == "0.00010000"
    assert get("v1/fundingInfo")[0]["fundingIntervalHours"] == 8
    assert get("v1/ticker/price", btc)["price"] == "40050.00000000"
    assert get("v2/ticker/price", btc)["price"] == "40050.00000000"
    assert get("v1/ticker/bookTicker", btc)["bidPrice"] == "40049.90000000"
    assert code(get("v1/depth", "symbol=NONE")) == -1121
    assert code(get("v1/depth")) == -1102


def test_an_order_lives_and_ends(call, made):
    placed = call("POST", "v1/order", **ORDER, newClientOrderId="mine")
    assert (placed["status"], placed["clientOrderId"]) == ("NEW", "mine")
    named = {"symbol": "BTCUSDT", "origClientOrderId": "mine"}
    assert call("GET", "v1/order", **named)["orderId"] == placed["orderId"]
    assert call("GET", "v1/openOrder", **named)["status"] == "NEW"
    moved = call("PUT", "v1/order", **named, side="BUY", quantity="0.02", price="39100")
    assert (moved["origQty"], moved["price"]) == ("0.02000000", "39100.00000000")
    made.trade("BTCUSDT", dec("39099.9"), dec("0.005"))
    found = call("GET", "v1/order", **named)
    assert (found["status"], found["avgPrice"]) == ("PARTIALLY_FILLED", "39100.00000000")
    assert call("DELETE", "v1/order", **named)["status"] == "CANCELED"
    assert code(call("DELETE", "v1/order", **named)) == -2011
    assert code(call("GET", "v1/openOrder", **named)) == -2013
    assert [o["clientOrderId"] for o in call("GET", "v1/allOrders", symbol="BTCUSDT")] == ["mine"]
    (trade,) = call("GET", "v1/userTrades", symbol="BTCUSDT")
    assert (trade["qty"], trade["maker"], trade["commissionAsset"]) == ("0.00500000", True, "USDT")
    assert call("GET", "v1/userTrades", symbol="BTCUSDT", fromId=trade["id"] + 1) == []
    assert code(call("GET", "v1/userTrades", symbol="BTCUSDT", limit=0)) == -1130
    assert code(call("PUT", "v1/order", **named, side="BUY", quantity="1")) == -1102
    assert code(call("GET", "v1/order", symbol="BTCUSDT")) == -1102


def test_an_acknowledged_order_tells_no_fills_and_a_result_does(call):
    market = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    assert call("POST", "v1/order", **market)["executedQty"] == "0.00000000"
    told = call("POST", "v1/order", **market, newOrderRespType="RESULT")
    assert (told["status"], told["executedQty"]) == ("FILLED", "0.01000000")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ORDER | {"type": "STOP_MARKET"}, -4120),
        (ORDER | {"type": "TRAILING_STOP_MARKET"}, -4120),
        (ORDER | {"type": "ICEBERG"}, -1116),
        (ORDER | {"side": "LONG"}, -1117),
        (ORDER | {"timeInForce": "DAY"}, -1115),
        (LIMIT | {"quantity": "1"}, -1102),
        (LIMIT | {"price": "39000"}, -1102),
        (ORDER | {"timeInForce": ""}, -1102),
        (ORDER | {"type": "MARKET"}, -1106),
        (ORDER | {"stopPrice": "1"}, -1106),
        (ORDER | {"quantity": "1e2"}, -1100),
        (ORDER | {"reduceOnly": "yes"}, -1100),
        (ORDER | {"positionSide": "UP"}, -4060),
        (ORDER | {"positionSide": "LONG"}, -4061),
        (ORDER | {"newClientOrderId": "a b"}, -4015),
        (ORDER | {"newOrderRespType": "FULL"}, -1136),
        (ORDER | {"selfTradePreventionMode": "DECREMENT"}, -5039),
        (ORDER | {"priceMatch": "OPPONENT"}, -5037),
        (ORDER | {"quantity": "99"}, -2019),
        (ORDER | {"symbol": "XRPUSDT"}, -1121),
    ],
)
def test_orders_that_are_not_taken(call, made, values, expected):
    assert code(call("POST", "v1/order", **values)) == expected
    assert call.status == 400
    assert made.exchange.orders(made.exchange.account("key1")) == []


def test_texts_are_binances(call):
    assert call("POST", "v1/order", **ORDER | {"quantity": "0.0001"}) == {
        "code": -4164,
        "msg": "Order's notional must be no smaller than 5 (unless you choose reduce only)",
    }
    assert (
        call("POST", "v1/order", **ORDER | {"quantity": "9"})["msg"] == "Margin is insufficient."
    )


def test_batches_answer_one_by_one(call):
    batch = [ORDER | {"newClientOrderId": "a"}, ORDER | {"quantity": "99"}, 7]
    told = call("POST", "v1/batchOrders", batchOrders=msgspec.json.encode(batch).decode())
    assert told[0]["clientOrderId"] == "a"
    assert [one.get("code") for one in told] == [None, -2019, -4082]
    change = {"symbol": "BTCUSDT", "origClientOrderId": "a", "side": "BUY", "quantity": 0.02}
    batch = [change | {"price": 39_000}, change]
    told = call("PUT", "v1/batchOrders", batchOrders=msgspec.json.encode(batch).decode())
    assert [one.get("code", one.get("origQty")) for one in told] == ["0.02000000", -1102]
    assert code(call("POST", "v1/batchOrders", batchOrders="[")) == -1102
    assert code(call("POST", "v1/batchOrders", batchOrders="[]")) == -4082
    gone = call("DELETE", "v1/batchOrders", symbol="BTCUSDT", origClientOrderIdList='["a","b"]')
    assert [one.get("code") for one in gone] == [None, -2011]
    number = call("POST", "v1/order", **ORDER)["orderId"]
    (gone,) = call("DELETE", "v1/batchOrders", symbol="BTCUSDT", orderIdList=f"[{number}]")
    assert gone["status"] == "CANCELED"


def test_all_orders_of_a_symbol_are_cancelled_and_by_countdown(call, made):
    call("POST", "v1/order", **ORDER)
    assert call("DELETE", "v1/allOpenOrders", symbol="BTCUSDT")["code"] == 200
    assert call("GET", "v1/openOrders") == []
    call("POST", "v1/order", **ORDER)
    told = call("POST", "v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=60_000)
    assert told == {"symbol": "BTCUSDT", "countdownTime": "60000"}
    made.advance(NOW_MS + 60_000)
    assert call("GET", "v1/openOrders", symbol="BTCUSDT") == []
    assert code(call("POST", "v1/countdownCancelAll", symbol="BTCUSDT")) == -1102


def test_conditional_orders_live_and_end(call):
    placed = call("POST", "v1/algoOrder", **STOP, clientAlgoId="s")
    assert (placed["algoStatus"], placed["triggerPrice"]) == ("NEW", "39000.00000000")
    assert call("GET", "v1/algoOrder", clientAlgoId="s")["algoId"] == placed["algoId"]
    assert len(call("GET", "v1/openAlgoOrders", symbol="BTCUSDT")) == 1
    assert call("DELETE", "v1/algoOrder", algoId=placed["algoId"])["code"] == "200"
    assert code(call("DELETE", "v1/algoOrder", algoId=placed["algoId"])) == -2011
    assert call("GET", "v1/openAlgoOrders") == []
    (known,) = call("GET", "v1/allAlgoOrders", symbol="BTCUSDT")
    assert known["algoStatus"] == "CANCELED"
    call("POST", "v1/algoOrder", **STOP)
    assert call("DELETE", "v1/algoOpenOrders", symbol="BTCUSDT")["code"] == 200
    assert call("GET", "v1/openAlgoOrders") == []
    assert code(call("GET", "v1/algoOrder", algoId=77)) == -2013
    assert code(call("GET", "v1/algoOrder")) == -1102


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"algoType": "VP"}, -1116),
        ({"type": "LIMIT"}, -1116),
        ({"triggerPrice": ""}, -1102),
        ({"quantity": ""}, -1102),
        ({"type": "STOP"}, -1102),
        ({"price": "1"}, -1106),
        ({"closePosition": "true"}, -4137),
        ({"closePosition": "true", "type": "STOP", "price": "1"}, -1106),
        ({"workingType": "INDEX"}, -4031),
        ({"triggerPrice": "40001"}, -2021),
        ({"type": "TRAILING_STOP_MARKET"}, -1102),
        ({"type": "TRAILING_STOP_MARKET", "callbackRate": "20"}, -1130),
    ],
)
def test_conditional_orders_that_are_not_taken(call, values, expected):
    assert code(call("POST", "v1/algoOrder", **STOP | values)) == expected


def test_trailing_and_closing_stops_are_taken(call):
    trailing = STOP | {"type": "TRAILING_STOP_MARKET", "callbackRate": "1", "triggerPrice": ""}
    assert call("POST", "v1/algoOrder", **trailing)["callbackRate"] == "1.00"
    closing = STOP | {"quantity": "", "closePosition": "true", "workingType": "MARK_PRICE"}
    assert call("POST", "v1/algoOrder", **closing)["closePosition"] is True


def test_an_account_is_told_with_its_margins(call, made):
    account = made.exchange.account("key1")
    made.exchange.place(account, request("0.1"))
    made.exchange.place(account, request("0.1", 39_000))
    made.trade("BTCUSDT", dec(41_000), dec(0))
    told = call("GET", "v3/account")
    (asset,) = told["assets"]
    wallet = Decimal(10000) - Decimal("2.000005")
    assert Decimal(told["totalWalletBalance"]) == wallet
    assert Decimal(asset["marginBalance"]) == wallet + Decimal("99.99")
    assert told["totalMaintMargin"] == "16.40000000"  # 4,100 at 0.4 %
    assert told["totalPositionInitialMargin"] == "205.00000000"
    assert told["totalOpenOrderInitialMargin"] == "195.00000000"
    free = wallet + Decimal("99.99") - 400
    assert Decimal(told["availableBalance"]) == Decimal(free)
    assert told["positions"][0]["positionAmt"] == "0.10000000"
    (balance,) = call("GET", "v3/balance")
    assert Decimal(balance["balance"]) == wallet
    (risk,) = call("GET", "v3/positionRisk", symbol="BTCUSDT")
    assert (risk["entryPrice"], risk["adl"]) == ("40000.10000000", 0)
    assert (risk["liquidationPrice"], risk["bidNotional"]) == ("0.00000000", "3900.00000000")
    made.exchange.place(account, request("0.1", 1_950, symbol="ETHUSDT"))
    assert [r["symbol"] for r in call("GET", "v3/positionRisk")] == ["BTCUSDT", "ETHUSDT"]
    assert call("GET", "v1/adlQuantile") == [{"symbol": "BTCUSDT", "adlQuantile": {"BOTH": 0}}]
    kinds = [row["incomeType"] for row in call("GET", "v1/income")]
    assert kinds == ["TRANSFER", "COMMISSION"]
    assert len(call("GET", "v1/income", incomeType="COMMISSION", limit=1)) == 1
    assert code(call("GET", "v1/income", limit=0)) == -1130


def test_income_is_told_by_kind_and_time_page_by_page(made, call):
    made.exchange.place(made.exchange.account("key1"), request("0.1"))
    market = made.exchange.market("BTCUSDT")
    first = market.next_funding_ms
    made.advance(first + 9 * 8 * 3_600_000)
    day = {"incomeType": "FUNDING_FEE"}
    rows = call("GET", "v1/income", startTime=first, **day)
    assert rows == [
        {
            "symbol": "BTCUSDT",
            "incomeType": "FUNDING_FEE",
            "income": "-0.40000000",
            "asset": "USDT",
            "time": first + n * 8 * 3_600_000,
            "info": "FUNDING_FEE",
            "tranId": row["tranId"],
            "tradeId": "",
        }
        for n, row in enumerate(rows)
    ]
    assert len({row["tranId"] for row in rows}) == len(rows) == 10
    assert call("GET", "v1/income", startTime=first, limit=3, **day) == rows[:3]
    assert call("GET", "v1/income", startTime=rows[2]["time"], limit=3, **day) == rows[2:5]
    assert call("GET", "v1/income", endTime=rows[2]["time"], **day) == rows[:3]
    assert call("GET", "v1/income", limit=2, **day) == rows[-2:]
    assert call("GET", "v1/income", startTime=first, symbol="ETHUSDT", **day) == []
    made.advance(rows[-1]["time"] + 7 * 86_400_000)
    told = call("GET", "v1/income", **day)
    assert min(row["time"] for row in told) == rows[-1]["time"], "a week where no time is named"
    made.advance(rows[0]["time"] + 90 * 86_400_000 + 1)
    told = call("GET", "v1/income", startTime=first, **day)
    assert told[0]["tranId"] == rows[1]["tranId"], "three months and no more"


def test_settings_are_told_and_changed(call):
    assert call("GET", "v1/accountConfig")["dualSidePosition"] is False
    assert call("GET", "v1/multiAssetsMargin") == {"multiAssetsMargin": False}
    assert call("POST", "v1/leverage", symbol="BTCUSDT", leverage=50) == {
        "symbol": "BTCUSDT",
        "leverage": 50,
        "maxNotionalValue": "12000000",
    }
    assert code(call("POST", "v1/leverage", symbol="BTCUSDT", leverage=126)) == -4028
    assert code(call("POST", "v1/leverage", symbol="BTCUSDT")) == -1102
    kind = {"symbol": "BTCUSDT", "marginType": "ISOLATED"}
    assert code(call("POST", "v1/marginType", **kind)) == 200
    assert code(call("POST", "v1/marginType", **kind)) == -4046
    assert code(call("POST", "v1/marginType", symbol="BTCUSDT", marginType="X")) == -1102
    (config,) = call("GET", "v1/symbolConfig", symbol="BTCUSDT")
    assert (config["marginType"], config["leverage"]) == ("ISOLATED", 50)
    moved = {"symbol": "BTCUSDT", "amount": "10", "type": 1}
    assert code(call("POST", "v1/positionMargin", **moved)) == -4054
    call("POST", "v1/order", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.1")
    assert code(call("POST", "v1/positionMargin", **moved)) == 200
    assert code(call("POST", "v1/positionMargin", **moved | {"type": 3})) == -1102
    assert code(call("POST", "v1/positionMargin", symbol="BTCUSDT", type=1)) == -1102
    assert code(call("POST", "v1/positionSide/dual", key="2", dualSidePosition="false")) == -4059
    assert code(call("POST", "v1/positionSide/dual", key="2", dualSidePosition="true")) == 200
    assert call("GET", "v1/positionSide/dual", key="2") == {"dualSidePosition": True}
    (brackets,) = call("GET", "v1/leverageBracket", symbol="BTCUSDT")
    assert brackets["notionalCoef"] == 1.0
    assert brackets["brackets"][1] == {
        "bracket": 2,
        "initialLeverage": 100,
        "notionalCap": 600_000,
        "notionalFloor": 50_000,
        "maintMarginRatio": 0.005,
        "cum": 50.0,
    }
    assert len(call("GET", "v1/leverageBracket")) == 2
    assert (
        call("GET", "v1/commissionRate", symbol="BTCUSDT")["takerCommissionRate"] == "0.00050000"
    )


def test_listen_keys_live_an_hour_from_the_last_time_they_were_kept(call, made):
    assert code(call("PUT", "v1/listenKey")) == -1125
    key = call("POST", "v1/listenKey")["listenKey"]
    assert call("POST", "v1/listenKey")["listenKey"] == key
    made.advance(NOW_MS + 3_000_000)
    assert call("PUT", "v1/listenKey")["listenKey"] == key
    made.advance(NOW_MS + 6_000_000)
    assert call("PUT", "v1/listenKey")["listenKey"] == key
    made.advance(NOW_MS + 9_600_000)
    assert code(call("PUT", "v1/listenKey")) == -1125
    other = call("POST", "v1/listenKey")["listenKey"]
    assert other != key
    assert call("DELETE", "v1/listenKey") == {}
    assert code(call("DELETE", "v1/listenKey")) == -1125


def test_signatures_keys_and_paths_are_checked(call, made):
    def raw(method, path, query, key):
        answer = made.rest.answer(WireRequest(method, path, query, "", key))
        return answer.status, msgspec.json.decode(answer.body)["code"]

    signed = f"timestamp={NOW_MS}&signature=00"
    assert raw("GET", "/fapi/v3/account", signed, "key1") == (400, -1022)
    assert raw("GET", "/fapi/v3/account", signed, None) == (401, -2014)
    assert raw("GET", "/fapi/v3/account", signed, "nobody") == (401, -2015)
    assert raw("GET", "/fapi/v3/account", f"timestamp={NOW_MS - 6_000}", "key1") == (400, -1021)
    assert raw("GET", "/fapi/v9/nothing", "", None) == (404, -5000)


def test_weight_is_counted_by_the_minute_and_who_goes_on_is_banned(call, made):
    for _ in range(80):
        call("GET", "v1/income")
    assert call.headers["X-MBX-USED-WEIGHT-1M"] == "2400"
    assert code(call("GET", "v1/income")) == -1003
    assert (call.status, call.headers["Retry-After"]) == (429, "60")
    made.advance(NOW_MS + 60_000)
    assert isinstance(call("GET", "v1/income"), list)
    for _ in range(100):
        call("GET", "v1/income")
    assert call.status == 418
    banned_s = int(call.headers["Retry-After"])
    assert 60 < banned_s <= 120
    assert f"{NOW_MS + 180_000}" in call("GET", "v1/ping")["msg"]
    made.advance(NOW_MS + 180_000)
    call("GET", "v1/ping")
    assert call.status == 200
    for _ in range(100):
        call("GET", "v1/income")
    assert int(call.headers["Retry-After"]) == 600


def test_orders_are_counted_by_account(call, made):
    for _ in range(300):
        call("POST", "v1/order", **ORDER | {"quantity": "99"})
    assert call.headers["X-MBX-ORDER-COUNT-10S"] == "300"
    refused = call("POST", "v1/order", **ORDER)
    assert (refused["code"], call.status) == (-1015, 429)
    assert refused["msg"] == "Too many new orders; current limit is 300 orders per 10 SECOND."
    call("POST", "v1/order", "2", **ORDER)
    assert call.status == 200
    made.advance(NOW_MS + 10_000)
    call("POST", "v1/order", **ORDER)
    assert call.status == 200


@pytest.mark.parametrize(
    ("method", "path", "values", "weight"),
    [
        ("GET", "v1/depth", {"limit": "50"}, 2),
        ("GET", "v1/depth", {"limit": "100"}, 5),
        ("GET", "v1/depth", {}, 10),
        ("GET", "v1/depth", {"limit": "1000"}, 20),
        ("GET", "v1/klines", {"limit": "99"}, 1),
        ("GET", "v1/klines", {"limit": "1500"}, 10),
        ("GET", "v1/openOrders", {"symbol": "BTCUSDT"}, 1),
        ("GET", "v1/openOrders", {}, 40),
        ("POST", "v1/order", {}, 0),
        ("PUT", "v1/order", {}, 1),
        ("POST", "v1/countdownCancelAll", {}, 10),
        ("GET", "v1/commissionRate", {}, 20),
    ],
)
def test_weights_are_the_documented_ones(method, path, values, weight):
    assert weight_of((method, f"/fapi/{path}"), values) == weight


def test_the_journal_holds_what_was_asked_and_said(call, sink):
    call("POST", "v1/order", **ORDER)
    assert [entry.kind for entry in sink.entries] == ["request", "report", "answer"]
    assert "signature" not in sink.entries[0].body["with"]
