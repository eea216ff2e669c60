"""Parameters in query, body or both; signatures over both; every refusal by its own code."""

import hashlib
import hmac
from decimal import Decimal
from urllib.parse import urlencode

import msgspec
import pytest

from bot4_runtime.venue.rest import WireRequest

NOW_MS = 1_800_000_000_000
ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "39000"}  # fmt: skip


def ask(venue, method, path, query=None, body=None, *, key="key1", secret="secret1", stamp=True):
    """Sign and send; what is in neither query nor body goes into the query."""
    query, body = dict(query or {}), dict(body or {})
    if stamp:
        query.setdefault("timestamp", NOW_MS)
    payload = urlencode(query) + urlencode(body)
    signature = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    signed = urlencode({**query, "signature": signature})
    answer = venue.rest.answer(WireRequest(method, path, signed, urlencode(body), key))
    return answer.status, msgspec.json.decode(answer.body)


def code(venue, method, path, query=None, **more):
    status, told = ask(venue, method, path, query, **more)
    assert status >= 400
    return told["code"]


@pytest.mark.parametrize("in_query", [set(ORDER), set(), {"symbol", "side"}])
def test_parameters_may_come_in_query_body_or_both(make, in_query):
    query = {name: ORDER[name] for name in ORDER if name in in_query}
    body = {name: ORDER[name] for name in ORDER if name not in in_query}
    status, told = ask(make(), "POST", "/api/v3/order", query, body)
    assert (status, told["status"], told["fills"]) == (200, "NEW", [])


def test_the_query_wins_when_both_name_a_parameter(make):
    status, told = ask(make(), "POST", "/api/v3/order", ORDER, {"quantity": "0.02"})
    assert (status, told["origQty"]) == (200, "0.01000000")


def test_a_signature_that_leaves_out_the_body_is_refused(make):
    payload = urlencode(ORDER | {"timestamp": NOW_MS})
    signature = hmac.new(b"secret1", payload.encode(), hashlib.sha256).hexdigest()
    request = WireRequest(
        "POST", "/api/v3/order", f"{payload}&signature={signature}", "newClientOrderId=x", "key1"
    )
    assert b"-1022" in make().rest.answer(request).body


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"symbol": "NOPE"}, -1121),
        ({"symbol": ""}, -1102),
        ({"side": "HOLD"}, -1117),
        ({"type": "TRAILING"}, -1116),
        ({"timeInForce": "LATER"}, -1115),
        ({"type": "MARKET"}, -1114),
        ({"type": "MARKET", "timeInForce": ""}, -1106),
        ({"price": ""}, -1102),
        ({"price": "4e4"}, -1100),
        ({"quantity": "-1"}, -1100),
        ({"quantity": "NaN"}, -1100),
        ({"newClientOrderId": "a b"}, -1100),
        ({"newClientOrderId": "a" * 37}, -1100),
        ({"newOrderRespType": "SOME"}, -1102),
        ({"recvWindow": "60001"}, -1131),
        ({"recvWindow": "x"}, -1102),
        ({"timestamp": ""}, -1102),
        ({"timestamp": NOW_MS + 1_000}, -1021),
        ({"timestamp": NOW_MS - 5_001}, -1021),
        ({"timestamp": NOW_MS - 11, "recvWindow": 10}, -1021),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_code(make, changed, expected):
    assert code(make(), "POST", "/api/v3/order", ORDER | changed) == expected


@pytest.mark.parametrize("changed", [{"timestamp": NOW_MS + 999}, {"timestamp": NOW_MS - 5_000}])
def test_a_timestamp_inside_the_window_is_taken(make, changed):
    assert ask(make(), "POST", "/api/v3/order", ORDER | changed)[0] == 200


def test_keys_and_signatures_are_demanded(make):
    venue = make()
    assert code(venue, "GET", "/api/v3/account", key=None) == -2014
    assert code(venue, "GET", "/api/v3/account", key="nobody") == -2015
    assert code(venue, "GET", "/api/v3/account", secret="wrong") == -1022
    unsigned = WireRequest("GET", "/api/v3/account", f"timestamp={NOW_MS}", "", "key1")
    assert b"'signature'" in venue.rest.answer(unsigned).body
    assert ask(venue, "PUT", "/api/v3/order")[0] == 404


@pytest.mark.parametrize(
    ("kind", "detail", "names"),
    [
        ("LIMIT", "ACK", {"transactTime"}),
        ("LIMIT", "RESULT", {"executedQty", "status"}),
        ("LIMIT", "", {"fills"}),
    ],
)
def test_the_answer_is_as_long_as_asked_for(make, kind, detail, names):
    told = ask(make(), "POST", "/api/v3/order", ORDER | {"newOrderRespType": detail})[1]
    assert names <= set(told)
    assert ("fills" in told) == (detail == "")
    assert ("status" in told) == (detail != "ACK")


def test_an_order_is_found_and_cancelled_by_either_id(make):
    venue = make()
    told = ask(venue, "POST", "/api/v3/order", ORDER | {"newClientOrderId": "mine"})[1]
    by_name = {"symbol": "BTCUSDT", "origClientOrderId": "mine"}
    by_number = {"symbol": "BTCUSDT", "orderId": told["orderId"]}
    assert ask(venue, "GET", "/api/v3/order", by_name) == ask(
        venue, "GET", "/api/v3/order", by_number
    )
    assert code(venue, "GET", "/api/v3/order", {"symbol": "BTCUSDT"}) == -1102
    assert code(venue, "DELETE", "/api/v3/order", {"symbol": "BTCUSDT"}) == -2011
    assert code(venue, "GET", "/api/v3/order", by_name, key="key2", secret="secret2") == -2013
    status, cancelled = ask(venue, "DELETE", "/api/v3/order", by_number)
    assert (status, cancelled["status"], cancelled["origClientOrderId"]) == (
        200,
        "CANCELED",
        "mine",
    )
    assert code(venue, "DELETE", "/api/v3/order", by_name) == -2011
    assert ask(venue, "GET", "/api/v3/openOrders")[1] == []


def test_trades_are_paged_by_number(make):
    venue = make()
    for _ in range(7):
        market = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
        assert ask(venue, "POST", "/api/v3/order", market)[0] == 200
    page = {"symbol": "BTCUSDT", "limit": 3}
    ids = [[row["id"] for row in ask(venue, "GET", "/api/v3/myTrades", page | more)[1]] for more in ({}, {"fromId": 1}, {"fromId": 4}, {"fromId": 7}, {"orderId": 2}, {"startTime": NOW_MS}, {"endTime": NOW_MS - 1})]  # fmt: skip
    assert ids == [[5, 6, 7], [1, 2, 3], [4, 5, 6], [7], [2], [1, 2, 3], []]
    assert code(venue, "GET", "/api/v3/myTrades", page | {"limit": 1001}) == -1130
    assert code(venue, "GET", "/api/v3/myTrades", page | {"fromId": "x"}) == -1100


def test_public_questions_need_no_key(make):
    venue = make()
    told = ask(venue, "GET", "/api/v3/exchangeInfo", {"symbol": "BTCUSDT"}, stamp=False, key=None)[
        1
    ]
    (market,) = told["symbols"]
    filters = {row["filterType"]: row for row in market["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.10000000"
    assert filters["LOT_SIZE"]["stepSize"] == "0.00001000"
    assert ask(venue, "GET", "/api/v3/time", key=None)[1] == {"serverTime": NOW_MS}
    assert ask(venue, "GET", "/api/v3/ping", key=None) == (200, {})
    assert len(ask(venue, "GET", "/api/v3/exchangeInfo", key=None)[1]["symbols"]) == 2


def test_the_journal_holds_requests_answers_and_reports_in_order_and_no_signature(make, sink):
    venue = make()
    ask(venue, "POST", "/api/v3/order", ORDER)
    code(venue, "POST", "/api/v3/order", ORDER | {"price": "1"})
    assert [entry.kind for entry in sink.entries] == [
        "request",
        "report",
        "answer",
        "request",
        "answer",
    ]
    assert [entry.seq for entry in sink.entries] == [1, 2, 3, 4, 5]
    assert {entry.uid for entry in sink.entries} == {1}
    assert sink.entries[2].body == {"status": 200, "code": 0}
    assert sink.entries[4].body == {"status": 400, "code": -1013}
    text = msgspec.json.encode(sink.entries).decode()
    assert "signature" not in text
    assert "secret1" not in text


def test_an_account_without_zero_balances_leaves_them_out(make):
    venue = make()
    venue.exchange.account("key1").balance("BNB")
    rows = [ask(venue, "GET", "/api/v3/account", query)[1]["balances"] for query in ({}, {"omitZeroBalances": "true"})]  # fmt: skip
    assert [len(found) for found in rows] == [3, 2]
    assert sum(Decimal(row["free"]) for row in rows[1]) == 100_002
