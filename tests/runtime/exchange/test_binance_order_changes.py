"""Replacing, amending and pairs, over both ways, against the venue and its faults."""

from contextlib import contextmanager
from decimal import Decimal

import ccxt
import msgspec
import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import InvariantViolated, OutcomeUnknown
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import OrderStatus, Side
from bot4_runtime.exchange.binance.failures import Refusal
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.order_changes import Leg, OrderChanges
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

SYMBOL = "BTCUSDT"
D = Decimal


@contextmanager
def connected(by_line):
    rules = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))
    venue = Loopback(LiveClock(), [(rules, D(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", D(100_000)), ("BTC", D(1))])
    with hosted(venue) as server:
        url = f"127.0.0.1:{server.port}"
        client = BinanceSpot(f"http://{url}", None, Signer(Secret("key"), Secret("secret")), LiveClock(), reply_s=0.5, order_url=f"ws://{url}/ws-api/v3" if by_line else None)  # fmt: skip
        client.start()
        assert client._line is None or client._line.ready(5)
        try:
            yield venue, client
        finally:
            client.close()


both_ways = pytest.mark.parametrize("by_line", [True, False])


def limit(name, price="39000", quantity="0.01", kind="LIMIT"):
    fields = {"symbol": SYMBOL, "side": "BUY", "type": kind, "quantity": quantity, "price": price, "newClientOrderId": name}  # fmt: skip
    return fields | ({"timeInForce": "GTC"} if kind == "LIMIT" else {})


def open_names(client):
    return {order.client_id for order in client.open_orders()}


@both_ways
def test_a_replacement_tells_both_halves(by_line):
    with connected(by_line) as (_venue, client):
        replace = client.changes.replace
        client._entry.send("order.place", limit("a"), Lane.OPEN)
        done = replace("a", limit("b", "38000"), Lane.OPEN)
        assert (done.canceled, done.refusal) == (True, None)
        assert msgspec.json.decode(done.placed)["clientOrderId"] == "b"
        assert open_names(client) == {"b"}
        half = replace("b", limit("c", "41000", kind="LIMIT_MAKER"), Lane.OPEN)
        assert (half.canceled, half.placed, half.refusal.code) == (True, b"", "-2010")
        assert "match and take" in half.refusal.reason
        assert open_names(client) == set()
        neither = replace("b", limit("d"), Lane.OPEN)
        assert (neither.canceled, neither.placed, neither.refusal.code) == (False, b"", "-2011")
        other = replace("b", limit("e"), Lane.OPEN, although_filled=True)
        assert (other.canceled, other.refusal.code) == (False, "-2011")
        assert msgspec.json.decode(other.placed)["clientOrderId"] == "e"
        worst = replace("b", limit("e"), Lane.OPEN, although_filled=True)
        assert (worst.canceled, worst.placed, worst.refusal.reason) == (False, b"", "Duplicate order sent.")  # fmt: skip
        assert open_names(client) == {"e"}
        with pytest.raises(Refusal, match="-1102"):
            replace("e", limit("f") | {"symbol": ""}, Lane.OPEN)


@pytest.mark.parametrize("fault", [Fault.DROP_REPLY, Fault.ERROR_AFTER, Fault.TRUNCATED, Fault.WRONG_TYPE, Fault.DELAY_REPLY])  # fmt: skip
@both_ways
def test_what_has_no_readable_answer_is_unknown_and_was_sent_once(by_line, fault):
    changes = {
        "order.cancelReplace": lambda c: c.replace("a", limit("b"), Lane.OPEN),
        "order.amend.keepPriority": lambda c: c.amend(SYMBOL, "a", D("0.005")),
        "orderList.place.oco": lambda c: c.place_pair(
            SYMBOL,
            Side.SELL,
            D("0.1"),
            Leg("LIMIT_MAKER", "x", D(41_000)),
            Leg("STOP_LOSS", "y", None, D(39_000)),
            Lane.OPEN,
        ),
    }
    for method, change in changes.items():
        with connected(by_line) as (venue, client):
            client._entry.send("order.place", limit("a"), Lane.OPEN)
            verb = "WS" if by_line else "PUT" if "amend" in method else "POST"
            venue.schedule(FaultSchedule([FaultRule(fault=fault, method=verb, path="order" if by_line else "", times=1, seconds=0.9)]))  # fmt: skip
            with pytest.raises(OutcomeUnknown):
                change(client.changes)
            orders = venue.exchange.orders(venue.exchange.account("key"))
            assert len(orders) == {"order.cancelReplace": 2, "order.amend.keepPriority": 1, "orderList.place.oco": 3}[method]  # fmt: skip


@both_ways
def test_an_amended_order_keeps_name_and_place_and_gives_back_what_it_held(by_line):
    with connected(by_line) as (venue, client):
        client._entry.send("order.place", limit("a", quantity="0.02"), Lane.OPEN)
        client._entry.send("order.place", limit("b", quantity="0.02"), Lane.OPEN)
        assert client.changes.amend(SYMBOL, "a", D("0.005")) == 0
        told = client.query(SYMBOL, "a")
        assert (told.quantity, told.status) == (D("0.005"), OrderStatus.ACCEPTED)
        account = venue.exchange.account("key")
        assert account.balance("USDT").locked == D("39000") * D("0.025")
        venue.exchange.print(SYMBOL, D(39_000), D("0.01"))
        assert client.query(SYMBOL, "a").status is OrderStatus.FILLED, "it was first in the queue"
        assert client.query(SYMBOL, "b").filled == D("0.005")
        for quantity, code in (("0.03", "-2038"), ("0.005", "-2038"), ("0.0100001", "-1013")):
            with pytest.raises(Refusal, match=code):
                client.changes.amend(SYMBOL, "b", D(quantity))
        with pytest.raises(Refusal, match="-2013"):
            client.changes.amend(SYMBOL, "a", D("0.001"))


PAIRS = [
    (Side.SELL, Leg("LIMIT_MAKER", "x", D(41_000)), Leg("STOP_LOSS", "y", None, D(39_000))),
    (Side.SELL, Leg("TAKE_PROFIT", "x", None, D(41_000)), Leg("STOP_LOSS_LIMIT", "y", D(38_900), D(39_000))),
    (Side.SELL, Leg("TAKE_PROFIT_LIMIT", "x", D(41_000), D(41_000)), Leg("STOP_LOSS", "y", None, D(39_000))),
    (Side.BUY, Leg("STOP_LOSS", "x", None, D(41_000)), Leg("LIMIT_MAKER", "y", D(39_000))),
]  # fmt: skip


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize(("side", "above", "below"), PAIRS)
def test_of_a_pair_one_trades_and_the_other_ends(side, above, below, upwards):
    with connected(by_line=True) as (venue, client):
        account = venue.exchange.account("key")
        before = {asset: balance.total for asset, balance in account.held()}
        placed = client.changes.place_pair(SYMBOL, side, D("0.1"), above, below, Lane.REDUCE)
        assert set(placed) == {"x", "y"}
        assert open_names(client) == {"x", "y"}
        for price in (41_001, 41_000) if upwards else (38_999, 38_950):
            venue.exchange.print(SYMBOL, D(price), D(5))
        first, other = ("x", "y") if upwards else ("y", "x")
        assert client.query(SYMBOL, first).status is OrderStatus.FILLED
        assert client.query(SYMBOL, other).status is OrderStatus.EXPIRED
        after = dict(account.held())
        assert all(balance.locked == 0 for balance in after.values())
        moved = after["BTC"].total - before["BTC"]
        assert abs(moved - side.sign * D("0.1")) <= D("0.0001"), "once, less commission"


@both_ways
def test_the_end_of_one_of_a_pair_is_that_of_both(by_line):
    with connected(by_line) as (venue, client):
        client.changes.place_pair(SYMBOL, *PAIRS[0][:1], D("0.1"), *PAIRS[0][1:], Lane.REDUCE)
        client._cancel({"symbol": SYMBOL, "origClientOrderId": "y"})
        assert client.query(SYMBOL, "x").status is OrderStatus.CANCELED
        assert venue.exchange.account("key").balance("BTC").locked == 0
        with pytest.raises(Refusal, match="relationship of the prices"):
            client.changes.place_pair(SYMBOL, Side.SELL, D("0.1"), Leg("LIMIT_MAKER", "x", D(39_500)), Leg("STOP_LOSS", "z", None, D(39_000)), Lane.REDUCE)  # fmt: skip
        assert open_names(client) == set()


@pytest.mark.parametrize(
    "leg",
    [
        Leg("LIMIT_MAKER", "x"),
        Leg("LIMIT_MAKER", "x", D(1), D(1)),
        Leg("STOP_LOSS", "x", D(1), D(1)),
        Leg("STOP_LOSS_LIMIT", "x", D(1)),
        Leg("MARKET", "x"),
    ],
)
def test_a_leg_without_its_prices_is_none(leg):
    with pytest.raises(InvariantViolated, match="expected those its type takes"):
        OrderChanges(None).place_pair(SYMBOL, Side.SELL, D(1), leg, leg, Lane.OPEN)


class Canned:
    def __init__(self, body, error=None):
        self._body, self._error = msgspec.json.encode(body), error

    def send(self, *_):
        if self._error is not None:
            raise self._error
        return self._body


@pytest.mark.parametrize(
    "halves",
    [
        {"cancelResult": "SUCCESS", "newOrderResult": "FAILURE", "cancelResponse": None, "newOrderResponse": {"code": -1007, "msg": "Timeout"}},
        {"cancelResult": "SUCCESS", "newOrderResult": "FAILURE", "cancelResponse": None, "newOrderResponse": None},
        {"cancelResult": "FAILURE", "newOrderResult": "SUCCESS", "cancelResponse": None, "newOrderResponse": {"orderId": 1}},
        {"cancelResult": "MAYBE", "newOrderResult": "SUCCESS", "cancelResponse": None, "newOrderResponse": {}},
    ],
)  # fmt: skip
def test_a_half_without_proof_leaves_the_replacement_unknown(halves):
    with pytest.raises(OutcomeUnknown):
        OrderChanges(Canned(halves)).replace("a", limit("b"), Lane.OPEN)


def test_what_was_changed_otherwise_than_asked_is_unknown():
    amended = {"amendedOrder": {"clientOrderId": "a", "qty": "2", "executedQty": "0"}}
    with pytest.raises(OutcomeUnknown, match="told of 2"):
        OrderChanges(Canned(amended)).amend(SYMBOL, "a", D(1))
    listed = {"orderListId": 1, "orders": [{"clientOrderId": "q", "orderId": 1}]}
    with pytest.raises(OutcomeUnknown, match="told of q"):
        OrderChanges(Canned(listed)).place_pair(SYMBOL, Side.SELL, D(1), *PAIRS[0][1:], Lane.OPEN)
    refused = OrderChanges(Canned({}, Refusal("-2022", "no data")))
    with pytest.raises(Refusal):
        refused.replace("a", limit("b"), Lane.OPEN)


def test_ccxt_replaces_on_the_venue_too():
    rules = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))
    venue = Loopback(LiveClock(), [(rules, D(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", D(100_000))])
    with hosted(venue) as server:
        client = ccxt.binance({"apiKey": "key", "secret": "secret", "options": {"fetchCurrencies": False, "fetchMargins": False, "fetchMarkets": {"types": ["spot"]}}})  # fmt: skip
        for name, url in client.urls["api"].items():
            if isinstance(url, str):
                client.urls["api"][name] = f"http://127.0.0.1:{server.port}/{url.split('://', 1)[1].partition('/')[2]}"  # fmt: skip
        placed = client.create_order("BTC/USDT", "limit", "buy", 0.01, 39_000)
        changed = client.edit_order(placed["id"], "BTC/USDT", "limit", "buy", 0.02, 38_000)
        assert (changed["amount"], changed["price"], changed["status"]) == (0.02, 38_000, "open")
        assert client.fetch_order(placed["id"], "BTC/USDT")["status"] == "canceled"
        client.session.close()
