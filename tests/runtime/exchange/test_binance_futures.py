"""The USD-M client against the loopback venue, and against answers no sane venue gives."""

import itertools
from contextlib import contextmanager, suppress
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import (
    InvariantViolated,
    OutcomeUnknown,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.events import OrderAccepted, OrderRejected
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Liquidity,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.binance.failures import ErrorFields, Refusal
from bot4_runtime.exchange.binance.futures import (
    VERIFIED_S,
    BinanceFutures,
    Holding,
    order_request,
)
from bot4_runtime.exchange.binance.futures_failures import futures_failure
from bot4_runtime.exchange.binance.futures_stream import FuturesStream
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock
from bot4_runtime.exchange.binance.weights import cost
from bot4_runtime.exchange.protocols import RemoteVenue
from bot4_runtime.intents import in_parts
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted

SYMBOL = "BTCUSDT"
PRICES = {SYMBOL: 40_000.0, "ETHUSDT": 2_000.0}
D = Decimal


def intent(number=1, side=Side.BUY, kind=OrderType.MARKET, quantity="0.01", price=None, stop=None, force=TimeInForce.GTC, reduces=False):  # fmt: skip
    return OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.EXIT if reduces else Purpose.ENTRY,
        symbol=SYMBOL,
        side=side,
        order_type=kind,
        quantity=D(quantity),
        price=None if price is None else D(price),
        stop_price=None if stop is None else D(stop),
        time_in_force=force,
        reduce_only=reduces,
        reference_price=D(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )


def stop(number=2, price="38000", quantity="0.01"):
    return intent(number, Side.SELL, OrderType.STOP_MARKET, quantity, stop=price, reduces=True)


def ordered(asked, name):
    return Order(intent=asked, client_id=name, status=OrderStatus.ACCEPTED, filled=D(0), spent=D(0), cancel_requested=True, age=0, reason="")  # fmt: skip


def made_venue(clock=None):
    venue = FuturesLoopback(
        clock or LiveClock(),
        [
            (Contract.of(Instrument.assume(symbol, Market.USDM, price)), D(str(price)))
            for symbol, price in PRICES.items()
        ],
    )
    venue.open_account(1, "key", "secret", [("USDT", D(10_000))])
    return venue


@contextmanager
def connected(*, by_line=False, secret="secret", reply_s=5.0, clock=None, **options):
    """A venue on loopback, and a client of it without user stream."""
    venue = made_venue(clock)
    with hosted(venue) as server:
        client = BinanceFutures(
            f"http://127.0.0.1:{server.port}",
            None,
            Signer(Secret("key"), Secret(secret)),
            clock or LiveClock(),
            reply_s=reply_s,
            order_url=f"ws://127.0.0.1:{server.port}/ws-fapi/v1" if by_line else None,
            symbols=(SYMBOL,),
            **options,
        )
        client.start()
        if by_line:
            assert client.line_open(5)
        try:
            yield venue, client, server
        finally:
            client.close()


def account(venue):
    return venue.exchange.account("key")


both_ways = pytest.mark.parametrize("by_line", [False, True], ids=["REST", "line"])


def test_it_is_a_remote_venue():
    with connected() as (_venue, client, _server):
        remote: RemoteVenue = client
        assert not remote.in_process
        assert remote.poll() == ()
        assert not remote.stream_alive()


@both_ways
def test_a_market_order_is_accepted_and_its_fills_are_told_by_trades_alone(by_line):
    with connected(by_line=by_line) as (_venue, client, _server):
        (accepted,) = client.submit(intent(7), "b4-1-7", 0.0)
        assert isinstance(accepted, OrderAccepted)
        (trade,) = client.trades(SYMBOL, 0)
        assert (trade.venue_order_id, trade.side) == (accepted.venue_order_id, Side.BUY)
        assert (trade.price, trade.quantity) == (D("40000.1"), D("0.01"))
        assert (trade.fee_asset, trade.liquidity) == ("USDT", Liquidity.TAKER)
        assert client.balances() == {"USDT": D(10_000) - trade.fee}
        assert client.positions() == {SYMBOL: D("0.01")}
        told = client.query(SYMBOL, "b4-1-7")
        assert (told.status, told.filled, told.spent) == (OrderStatus.FILLED, D("0.01"), D("400.001"))  # fmt: skip


@both_ways
@pytest.mark.parametrize(
    ("force", "price", "status"),
    [
        (TimeInForce.GTC, "39000", OrderStatus.ACCEPTED),
        (TimeInForce.GTX, "39000", OrderStatus.ACCEPTED),
        (TimeInForce.IOC, "39000", OrderStatus.EXPIRED),
        (TimeInForce.IOC, "41000", OrderStatus.FILLED),
        (TimeInForce.FOK, "41000", OrderStatus.FILLED),
    ],
)
def test_a_limit_order_stays_for_as_long_as_was_said(by_line, force, price, status):
    with connected(by_line=by_line) as (_venue, client, _server):
        asked = intent(1, kind=OrderType.LIMIT, price=price, force=force)
        assert len(client.submit(asked, "b4-1-1", 0.0)) == 1
        assert client.query(SYMBOL, "b4-1-1").status is status
        assert client.cancel(ordered(asked, "b4-1-1"), 5) == []
        assert client.cancel(ordered(asked, "b4-1-1"), 5) == [], "a cancel may be repeated"
        ended = OrderStatus.CANCELED if status is OrderStatus.ACCEPTED else status
        assert client.query(SYMBOL, "b4-1-1").status is ended
        assert client.query(SYMBOL, "b4-1-9") is None


@both_ways
def test_a_stop_is_a_conditional_order_until_it_triggers_and_the_same_order_afterwards(by_line):
    with connected(by_line=by_line) as (venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        (accepted,) = client.submit(stop(2), "b4-1-2", 0.0)
        assert accepted.venue_order_id == "algo-1"
        assert account(venue) is not None
        assert [o.client_id for o in venue.exchange.orders(account(venue))] == ["b4-1-1"]
        (open_order,) = client.open_orders()
        assert (open_order.client_id, open_order.status) == ("b4-1-2", OrderStatus.ACCEPTED)
        assert (open_order.quantity, open_order.filled) == (D("0.01"), D(0))
        assert client.query(SYMBOL, "b4-1-2") == open_order
        server.do(lambda: venue.trade(SYMBOL, D(37_900), D(1)))
        for told in (client.query(SYMBOL, "b4-1-2"), asked_anew(server, "b4-1-2")):
            assert (told.status, told.filled) == (OrderStatus.FILLED, D("0.01"))
            assert told.client_id == "b4-1-2"
        assert [t.venue_order_id for t in client.trades(SYMBOL, 1)] == [told.venue_order_id]
        assert client.positions() == {}
        assert client.open_orders() == []


def asked_anew(server, name):
    """What a client is told that knows nothing of what was sent before."""
    client = BinanceFutures(
        f"http://127.0.0.1:{server.port}",
        None,
        Signer(Secret("key"), Secret("secret")),
        LiveClock(),
    )
    try:
        return client.query(SYMBOL, name)
    finally:
        client.close()


@both_ways
def test_a_stop_is_cancelled_and_may_be_cancelled_again(by_line):
    with connected(by_line=by_line) as (_venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        for _ in range(2):
            assert client.cancel(ordered(stop(2), "b4-1-2"), 5) == []
        for told in (client.query(SYMBOL, "b4-1-2"), asked_anew(server, "b4-1-2")):
            assert told.status is OrderStatus.CANCELED
        assert client.positions() == {SYMBOL: D("0.01")}


def test_a_stop_whose_order_is_refused_at_the_trigger_is_told_as_rejected():
    """Margin and position are looked at when it triggers: here there is nothing to close."""
    with connected() as (venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        client.submit(intent(3, Side.SELL, reduces=True), "b4-1-3", 0.0)
        server.do(lambda: venue.trade(SYMBOL, D(37_900), D(1)))
        assert client.query(SYMBOL, "b4-1-2").status is OrderStatus.REJECTED


@both_ways
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"quantity": "5"}, "-2019"),
        ({"side": Side.SELL, "reduces": True}, "-2022"),
        ({"side": Side.SELL, "kind": OrderType.STOP_MARKET, "stop": "41000", "reduces": True}, "-2021"),
        ({"kind": OrderType.LIMIT, "price": "41000", "force": TimeInForce.GTX}, "-5022"),
        ({"kind": OrderType.LIMIT, "price": "39000", "force": TimeInForce.FOK}, "-5021"),
    ],
)  # fmt: skip
def test_a_refused_order_is_rejected_with_the_venues_code(by_line, asked, code):
    with connected(by_line=by_line) as (_venue, client, _server):
        (rejected,) = client.submit(intent(4, **asked), "b4-1-4", 0.0)
        assert isinstance(rejected, OrderRejected)
        assert (rejected.intent_no, rejected.code) == (4, code)
        assert rejected.reason


@pytest.mark.parametrize("asked", [intent(1, kind=OrderType.LIMIT, price="39000"), stop(1)])
def test_an_order_whose_name_is_open_already_is_unknown_and_not_rejected(asked):
    with connected() as (_venue, client, _server):
        client.submit(intent(9), "b4-1-9", 0.0)
        client.submit(asked, "b4-1-1", 0.0)
        with pytest.raises(OutcomeUnknown, match="open at the venue already"):
            client.submit(asked, "b4-1-1", 0.0)


# ------------------------------------------------------------------------------ outcomes
AFTER = [
    Fault.DROP_REPLY,
    Fault.DELAY_REPLY,
    Fault.ERROR_AFTER,
    Fault.GATEWAY_AFTER,
    Fault.TRUNCATED,
    Fault.NOT_JSON,
    Fault.WRONG_TYPE,
]


@pytest.mark.parametrize("path", ["/fapi/v1/order", "/fapi/v1/algoOrder"])
@pytest.mark.parametrize("fault", [*AFTER, Fault.DROP_REQUEST, Fault.ERROR_BEFORE])
def test_an_order_without_a_readable_answer_is_unknown_and_found_by_its_name(fault, path):
    with connected(reply_s=0.3) as (venue, client, server):
        client.submit(intent(9), "b4-1-9", 0.0)
        rule = FaultRule(fault=fault, method="POST", path=path, times=1, seconds=0.5)
        server.do(lambda: venue.schedule(FaultSchedule([rule])))
        asked = stop(1) if path.endswith("algoOrder") else intent(1)
        with pytest.raises(OutcomeUnknown):
            client.submit(asked, "b4-1-1", 0.0)
        told = client.query(SYMBOL, "b4-1-1")
        assert (told is not None) == (fault in AFTER)


@pytest.mark.parametrize("fault", AFTER[2:])
def test_a_question_without_a_readable_answer_is_never_an_empty_one(fault):
    with connected() as (venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        rule = FaultRule(fault=fault, method="GET")
        server.do(lambda: venue.schedule(FaultSchedule([rule])))
        for ask in (client.open_orders, client.balances, client.positions, client.server_time_ms, lambda: client.query(SYMBOL, "b4-1-1"), lambda: client.trades(SYMBOL, 0)):  # fmt: skip
            with pytest.raises(OutcomeUnknown):
                ask()


@both_ways
def test_an_order_that_the_line_could_not_send_goes_by_rest_under_the_same_name(by_line):
    with connected(by_line=by_line) as (venue, client, server):
        if by_line:
            rule = FaultRule(fault=Fault.DROP_REPLY, method="WS", path="order.place", times=1)
            server.do(lambda: venue.schedule(FaultSchedule([rule])))
            with pytest.raises(OutcomeUnknown):
                client.submit(intent(1), "b4-1-1", 0.0)
            client._line._ready.clear()
        client.submit(intent(2), "b4-1-2", 0.0)
        names = server.do(lambda: [o.client_id for o in venue.exchange.orders(account(venue))])
        assert names == (["b4-1-1", "b4-1-2"] if by_line else ["b4-1-2"])


OVERLOADED = "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again."  # fmt: skip


@pytest.mark.parametrize(
    ("status", "told", "body", "outcome"),
    [
        (503, "Unknown error, please check your request or try again later.", None, OutcomeUnknown),
        (503, "Service Unavailable.", None, "HTTP 503"),
        (503, "Internal error; unable to process your request. Please try again.", None, "HTTP 503"),
        (503, None, b"Service Unavailable.", "HTTP 503"),
        (503, None, b"Unknown error, please check your request or try again later.", OutcomeUnknown),
        (503, None, b"<html>503 Service Unavailable.</html>", OutcomeUnknown),
        (503, "words nobody knows", None, OutcomeUnknown),
        (502, None, b"Service Unavailable.", OutcomeUnknown),
    ],
)  # fmt: skip
def test_what_http_503_means_is_told_by_its_words(status, told, body, outcome):
    error = None if told is None else ErrorFields(-1000, told)
    found = futures_failure("POST /fapi/v1/order", status, error, body or b"")
    if outcome is OutcomeUnknown:
        assert type(found) is OutcomeUnknown
    else:
        assert isinstance(found, Refusal)
        assert (found.code, found.looked_at) == (outcome, False)


@pytest.mark.parametrize("status", [429, 503])
def test_an_order_that_an_overloaded_venue_throttled_was_not_sent(status):
    found = futures_failure("order.place", status, ErrorFields(-1008, OVERLOADED))
    assert isinstance(found, Refusal)
    assert not found.looked_at


# -------------------------------------------------------------------------------- words
@pytest.mark.parametrize(
    ("side", "reduces", "position"),
    [
        (Side.BUY, False, "LONG"),
        (Side.SELL, True, "LONG"),
        (Side.SELL, False, "SHORT"),
        (Side.BUY, True, "SHORT"),
    ],
)
def test_in_hedge_mode_the_position_is_named_and_one_way_what_reduces_says_so(side, reduces, position):  # fmt: skip
    asked = intent(1, side, reduces=reduces)
    hedged = order_request(asked, "x", hedge=True).fields
    assert (hedged["positionSide"], hedged.get("reduceOnly")) == (position, None)
    one_way = order_request(asked, "x", hedge=False).fields
    assert one_way.get("positionSide") is None
    assert one_way.get("reduceOnly") == ("true" if reduces else None)


@pytest.mark.parametrize("kind", [OrderType.LIMIT, OrderType.STOP_MARKET])
def test_an_intent_without_its_price_is_no_order(kind):
    with pytest.raises(InvariantViolated):
        order_request(intent(1, kind=kind), "b4-1-1", hedge=False)


def test_a_stop_never_goes_to_the_endpoint_that_refuses_it():
    """-4120: since 2025-12-09 conditional orders have an endpoint of their own."""
    for hedge in (False, True):
        assert order_request(stop(1), "x", hedge=hedge).method == "algoOrder.place"
        assert "newClientOrderId" not in order_request(stop(1), "x", hedge=hedge).fields


def test_in_hedge_mode_a_position_is_opened_stopped_and_closed():
    with connected(holding=Holding(hedge=True)) as (_venue, client, _server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        assert client.positions() == {SYMBOL: D("0.01")}
        client.cancel(ordered(stop(2), "b4-1-2"), 5)
        (accepted,) = client.submit(intent(3, Side.SELL, reduces=True), "b4-1-3", 0.0)
        assert isinstance(accepted, OrderAccepted)
        assert client.positions() == {}


# ------------------------------------------------------------------------ how it is held
@pytest.mark.parametrize(
    "holding",
    [Holding(), Holding(leverage=7, isolated=False), Holding(hedge=True, leverage=2)],
)
def test_how_positions_are_held_is_set_before_the_account_is_read_and_once(holding):
    with connected(holding=holding) as (venue, client, _server):
        client.open_orders()
        held = account(venue).settings(SYMBOL)
        assert (held.leverage, held.isolated) == (holding.leverage, holding.isolated)
        assert account(venue).hedge is holding.hedge
        assert account(venue).settings("ETHUSDT").leverage != 7, "it is not traded"
        client._ask = None  # verified: nothing more is asked
        client._prepare()


def test_what_cannot_be_held_as_wanted_keeps_amounts_from_being_read_and_orders_not():
    """A venue changes little under a position: what stops and exits did must be read all the same."""
    with connected(holding=Holding(isolated=False, leverage=20)) as (_venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        other = BinanceFutures(
            f"http://127.0.0.1:{server.port}",
            None,
            Signer(Secret("key"), Secret("secret")),
            LiveClock(),
            symbols=(SYMBOL,),
        )
        other.start()  # a session comes up all the same: exits and stops must go
        try:
            for _ in range(2):
                assert [o.client_id for o in other.open_orders()] == ["b4-1-2"]
                assert len(other.trades(SYMBOL, 0)) == 1
                with pytest.raises(Refusal, match="-4047"):
                    other.balances()
        finally:
            other.close()


def test_leverage_that_was_raised_by_hand_under_a_position_is_told_and_hides_no_order():
    with connected() as (venue, client, _server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.open_orders()
        client._stream = silent()
        client._stream.counts["ACCOUNT_CONFIG_UPDATE"] = 1
        account(venue).settings(SYMBOL).leverage = 20
        client.submit(stop(2), "b4-1-2", 0.0)
        assert [o.client_id for o in client.open_orders()] == ["b4-1-2"]
        with pytest.raises(Refusal, match="-4161"):
            client.balances()
        account(venue).settings(SYMBOL).leverage = 3
        client.open_orders()
        client.balances()
        assert client.positions() == {SYMBOL: D("0.01")}


def test_a_venue_that_takes_a_setting_and_keeps_another_is_not_traded_at():
    with connected() as (_venue, client, _server):
        client._verified_until_s = float("-inf")
        client._set = lambda *_: None
        client._holding = Holding(leverage=9)
        with pytest.raises(VenueRefused, match="by hand"):
            client._prepare()


# ------------------------------------------------------------------------------- rules
def test_the_rules_of_what_is_traded_are_learnt_and_held_against_orders():
    with connected() as (venue, client, _server):
        client.open_orders()
        rules, contract = client.rules(SYMBOL), venue.exchange.market(SYMBOL).contract
        assert client.rules("ETHUSDT") is None, "it is not traded"
        told = rules.instrument()
        assert (told.market, told.base, told.quote) == (Market.USDM, "BTC", "USDT")
        assert (told.tick_size, told.step_size) == (contract.tick_size, contract.step_size)
        assert told.min_notional == contract.min_notional
        for asked, rule in (
            ({"kind": OrderType.LIMIT, "price": "39000.05"}, "PRICE_FILTER"),
            ({"quantity": "0.0000001"}, "LOT_SIZE"),
            ({"quantity": "0.0001"}, "MIN_NOTIONAL"),
            ({"kind": OrderType.LIMIT, "price": "43000"}, "PERCENT_PRICE_BY_SIDE"),
            ({"kind": OrderType.LIMIT, "price": "37000", "side": Side.SELL}, "PERCENT_PRICE_BY_SIDE"),
        ):  # fmt: skip
            (rejected,) = client.submit(intent(1, **asked), "b4-1-1", 0.0)
            assert rejected.code == rule
            assert rejected.reason.startswith("not sent")
        assert venue.exchange.orders(account(venue)) == []


def test_a_buy_may_be_far_below_the_mark_and_a_sell_far_above_it():
    with connected() as (_venue, client, _server):
        client.open_orders()
        for number, (side, price) in enumerate(((Side.BUY, "20000"), (Side.SELL, "80000")), 1):
            asked = intent(number, side, OrderType.LIMIT, price=price)
            assert isinstance(client.submit(asked, f"b4-1-{number}", 0.0)[0], OrderAccepted)


def test_a_price_band_is_of_the_mark_and_not_of_the_last_price():
    with connected() as (venue, client, server):
        server.do(lambda: venue.set_mark(SYMBOL, D(50_000)))
        client.open_orders()
        for price, kind in (("43000", OrderAccepted), ("53000", OrderRejected)):
            asked = intent(1, kind=OrderType.LIMIT, price=price)
            assert type(client.submit(asked, f"b4-1-{price}", 0.0)[0]) is kind


def test_what_reduces_needs_no_least_notional():
    with connected() as (_venue, client, _server):
        client.submit(intent(1, quantity="0.0101"), "b4-1-1", 0.0)
        client.submit(intent(2, Side.SELL, quantity="0.01", reduces=True), "b4-1-2", 0.0)
        client.open_orders()
        small = intent(3, Side.SELL, quantity="0.0001", reduces=True)
        assert isinstance(client.submit(small, "b4-1-3", 0.0)[0], OrderAccepted)
        assert client.positions() == {}


@pytest.mark.parametrize("quantity", ["0.0101", "0.1", "12", "999", "5000"])
@pytest.mark.parametrize("kind", [OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_MARKET])
def test_the_rules_here_say_what_the_venue_says(kind, quantity):
    """The venue judges by its own code; what only reduces is held against lots on both sides."""
    with connected() as (venue, client, _server):
        client.open_orders()
        more = {"price": "39000"} if kind is OrderType.LIMIT else {}
        more |= {"stop": "38000"} if kind is OrderType.STOP_MARKET else {}
        asked = intent(1, Side.SELL, kind, quantity, reduces=True, **more)
        fields = order_request(asked, "x", hedge=False).fields
        broken = client._rules.broken(asked, str(fields["type"]))
        contract = venue.exchange.market(SYMBOL).contract
        most = contract.max_quantity if kind is OrderType.LIMIT else contract.max_market_quantity
        assert (broken is None) == (D(quantity) <= most)


def test_a_stop_is_cut_by_the_rule_of_market_orders_which_the_venue_holds_it_to():
    with connected() as (_venue, client, _server):
        rules = client.rules(SYMBOL).instrument()
        assert rules.max_market_quantity < rules.max_quantity
        whole = rules.max_market_quantity * 2
        parts = in_parts(rules, whole, D(38_000), at_market=False)
        assert sum(parts) == whole
        for number, part in enumerate(parts, 1):
            (told,) = client.submit(stop(number, quantity=str(part)), f"b4-1-{number}", 0.0)
            assert isinstance(told, OrderAccepted)


def test_positions_of_what_is_not_traded_are_told_too():
    with connected() as (_venue, client, _server):
        told = [{"symbol": "SOLUSDT", "positionAmt": "-3"}, {"symbol": "ODD", "positionAmt": "1"}]
        client._ask = lambda *_: msgspec.json.encode(told)
        assert client.positions() == {"SOLUSDT": D(-3), "ODD": D(1)}


# ---------------------------------------------------------------------- odd messages
class Canned:
    """Stands in for the wire and answers everything alike."""

    def __init__(self, body):
        self.body = msgspec.json.encode(body)

    def get(self, *_):
        return self.body

    send = delete = get

    def close(self):
        pass


def canned(body):
    client = BinanceFutures(
        "http://127.0.0.1:9", None, Signer(Secret("k"), Secret("s")), LiveClock()
    )
    client._clock.synchronised = True
    client._http = client._entry.http = Canned(body)
    return client


# fmt: off
ORDER = {"symbol": SYMBOL, "orderId": 5, "clientOrderId": "b4-1-1", "side": "BUY", "status": "NEW", "origQty": "1", "executedQty": "0", "cumQuote": "0", "updateTime": 1, "news": {}}
ALGO = {"symbol": SYMBOL, "algoId": 7, "clientAlgoId": "b4-1-2", "side": "SELL", "algoStatus": "NEW", "quantity": "1", "updateTime": 1, "actualOrderId": ""}
TRADE = {"symbol": SYMBOL, "id": 4, "orderId": 5, "side": "BUY", "price": "1", "qty": "1", "commission": "-0.1", "commissionAsset": "USDT", "time": 1, "maker": True}
# fmt: on


@pytest.mark.parametrize(
    "changed",
    [
        {"symbol": "ETHUSDT"},
        {"clientOrderId": "b4-1-2"},
        {"status": "DREAMING"},
        {"side": "HOLD"},
        {"executedQty": "NaN"},
        {"origQty": "-1"},
        {"orderId": -1},
        {"updateTime": 10**15},
    ],
)
def test_an_order_that_cannot_be_true_is_not_believed(changed):
    assert canned(ORDER).query(SYMBOL, "b4-1-1").quantity == 1
    for ask in (
        lambda: canned(ORDER | changed).query(SYMBOL, "b4-1-1"),
        lambda: canned(ORDER | changed).submit(intent(1), "b4-1-1", 0.0),
    ):
        with pytest.raises(OutcomeUnknown):
            ask()


@pytest.mark.parametrize(
    "changed",
    [
        {"symbol": "ETHUSDT"},
        {"clientAlgoId": "other"},
        {"algoStatus": "DREAMING"},
        {"quantity": "NaN"},
    ],
)
def test_a_conditional_order_that_cannot_be_true_is_not_believed(changed):
    for ask in (
        lambda: canned(ALGO | changed)._conditional(SYMBOL, "b4-1-2"),
        lambda: canned(ALGO | changed).submit(stop(2), "b4-1-2", 0.0),
    ):
        with pytest.raises(OutcomeUnknown):
            ask()


@pytest.mark.parametrize(
    ("told", "became"),
    [
        ("", None),
        (None, None),
        ("0", None),
        (0, None),
        (12, 12),
        ("12", 12),
        ("x", None),
    ],
)
def test_what_a_conditional_order_became_is_a_number_or_nothing(told, became):
    from bot4_runtime.exchange.binance.futures_messages import AlgoOrder

    assert msgspec.convert(ALGO | {"actualOrderId": told}, AlgoOrder).became == became


def test_one_that_triggered_and_is_nowhere_is_unknown_and_not_absent():
    client = canned({})
    answers = itertools.chain([ALGO | {"actualOrderId": "9"}, None])
    client._if_known = lambda *_: (row := next(answers)) and msgspec.convert(row, _[2])
    with pytest.raises(OutcomeUnknown, match="triggered"):
        client._conditional(SYMBOL, "b4-1-2")


def test_a_rebate_is_a_negative_fee_and_trades_that_cannot_be_true_are_not_believed():
    assert canned([TRADE]).trades(SYMBOL, 3)[0].fee == D("-0.1")
    for rows in ([TRADE | {"price": "NaN"}], [TRADE | {"qty": "0"}], [TRADE | {"commission": "NaN"}], [TRADE | {"id": 3}], {}, None):  # fmt: skip
        with pytest.raises(OutcomeUnknown):
            canned(rows).trades(SYMBOL, 3)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_amounts_that_are_no_numbers_are_not_believed(value):
    with pytest.raises(OutcomeUnknown):
        canned([{"asset": "USDT", "balance": value}]).balances()
    with pytest.raises(OutcomeUnknown):
        canned([{"symbol": SYMBOL, "positionAmt": value}]).positions()
    odd = canned([{"symbol": SYMBOL, "markPrice": value}])
    odd._learn_marks()  # a contract that is not traded here may have no mark
    odd._symbols = (SYMBOL,)
    with pytest.raises(OutcomeUnknown):
        odd._learn_marks()


def test_only_so_many_conditional_orders_are_remembered():
    from bot4_runtime.exchange.binance.futures import ALGOS_KEPT

    client = canned({})
    for number in range(ALGOS_KEPT + 2):
        client._remember(str(number))
    assert next(iter(client._algos)) == "2"


def test_the_venues_own_count_of_weight_is_heeded():
    budget = RequestBudget(None, Market.USDM)
    with connected(budget=budget) as (_venue, client, _server):
        client.open_orders()
        assert budget.weight.most == 2_400
        assert budget._own.used["60000"].count >= 40 + 10


@pytest.mark.parametrize("leverage", [3, 20], ids=["held as wanted", "and not to be set"])
@pytest.mark.parametrize("asked", range(0, 40, 13))
def test_reading_after_reading_leaves_exits_what_they_need_of_the_budget(leverage, asked):
    """As long as an order that the venue lost is not accepted, say: one every two seconds."""
    budget = RequestBudget(None, Market.USDM, lambda: 0)
    with connected(budget=budget) as (venue, client, _server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        account(venue).settings(SYMBOL).leverage = leverage
        client._verified_until_s = float("-inf")
        for _ in range(asked):
            client.server_time_ms()
        read = []
        for _ in range(30):
            with suppress(VenueUnreachable, Refusal):
                client.server_time_ms()
                read.append(client.open_orders())
                client.query(SYMBOL, "b4-1-2")
                client.trades(SYMBOL, 0)
                client.balances()
                client.positions()
                client.trades(SYMBOL, 0)
        assert 10 <= len(read) < 30
        client.cancel(ordered(stop(2), "b4-1-2"), 0)
        assert client.query(SYMBOL, "b4-1-2").status is OrderStatus.CANCELED
        client.trades(SYMBOL, 0)
        (sold,) = client.submit(intent(3, Side.SELL, reduces=True), "b4-1-3", 0.0)
        assert isinstance(sold, OrderAccepted)


def test_a_countdown_ends_plain_orders_and_leaves_stops():
    clock = ManualClock(10**18)
    with connected(clock=clock) as (venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        client.submit(intent(3, kind=OrderType.LIMIT, price="39000"), "b4-1-3", 0.0)
        for length_ms, at_s in ((30_000, 20), (30_000, 40), (0, 90)):
            client.countdown(SYMBOL, length_ms)
            server.do(lambda at=at_s: venue.advance(10**12 + at * 1_000))
            assert len(client.open_orders()) == 2
        client.countdown(SYMBOL, 30_000)
        server.do(lambda: venue.advance(10**12 + 125_000))
        assert [o.client_id for o in client.open_orders()] == ["b4-1-2"]


@pytest.mark.parametrize("told", [{"symbol": "ETHUSDT", "countdownTime": "5"}, {"symbol": SYMBOL, "countdownTime": "6"}, {"symbol": SYMBOL, "countdownTime": "soon"}, {}])  # fmt: skip
def test_a_countdown_that_was_not_set_as_asked_is_not_believed(told):
    canned({"symbol": SYMBOL, "countdownTime": "5"}).countdown(SYMBOL, 5)
    with pytest.raises(OutcomeUnknown):
        canned(told).countdown(SYMBOL, 5)


def test_a_symbol_that_is_delisted_hides_no_order_of_the_others():
    with connected() as (_venue, client, _server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        client._rules._symbols = (SYMBOL, "GONEUSDT")
        client._rules.doubt()
        for _ in range(2):
            assert [o.client_id for o in client.open_orders()] == ["b4-1-2"]
            with pytest.raises(OutcomeUnknown, match="no trading rules of GONEUSDT"):
                client.balances()
        assert client.rules(SYMBOL) is not None
        client._rules._symbols = (SYMBOL,)
        client.open_orders()
        client.balances()


def test_a_symbol_that_closed_has_its_rules_learnt_again():
    with connected() as (_venue, client, _server):
        client.open_orders()
        for code, due in (("-2019", False), ("-4108", True), ("-4005", True)):
            client._learn_rules()
            client._heed(Refusal(code, "no"))
            assert (client._rules.due_query() is not None) is due


def test_settings_that_somebody_changes_are_put_right_with_the_next_reading():
    with connected() as (venue, client, _server):
        client.open_orders()
        client._stream = silent()
        client._stream.counts["ACCOUNT_CONFIG_UPDATE"] = 1
        account(venue).settings(SYMBOL).leverage = 20
        client.open_orders()
        assert account(venue).settings(SYMBOL).leverage == 3
        client.open_orders()


class Passing:
    """Seconds of a clock that a test moves."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


def by_hand(venue, **changed):
    """Change how the account holds its symbol, as by hand, without a word of it on any stream."""
    for name, value in changed.items():
        setattr(
            account(venue) if name == "hedge" else account(venue).settings(SYMBOL), name, value
        )


@pytest.mark.parametrize("changed", [{"isolated": False}, {"hedge": True}, {"leverage": 20}])
def test_what_was_changed_by_hand_and_never_told_is_noticed_within_a_minute(changed):
    timer = Passing()
    with connected(timer=timer) as (venue, client, _server):
        by_hand(venue, **changed)
        timer.now_s = VERIFIED_S - 1.0
        client.open_orders()
        assert account(venue).settings(SYMBOL).isolated is not ("isolated" in changed)
        timer.now_s = VERIFIED_S
        client.open_orders()
        settings = account(venue).settings(SYMBOL)
        assert (settings.isolated, settings.leverage, account(venue).hedge) == (True, 3, False)
        client.balances()


def test_a_margin_type_that_cannot_be_put_back_holds_entries_and_hides_no_order():
    timer = Passing()
    with connected(timer=timer) as (venue, client, _server):
        client.submit(intent(1), "b4-1-1", 0.0)
        client.submit(stop(2), "b4-1-2", 0.0)
        by_hand(venue, isolated=False)
        for _ in range(2):
            timer.now_s += VERIFIED_S
            assert [o.client_id for o in client.open_orders()] == ["b4-1-2"]
            with pytest.raises(Refusal, match=r"-404[78]"):
                client.balances()
        by_hand(venue, isolated=True)
        client.open_orders()
        client.balances()


def test_looking_how_positions_are_held_costs_little_weight():
    timer = Passing()
    with connected(timer=timer) as (_venue, client, _server):
        asked, get = [], client._http.get
        client._http.get = lambda path, *rest: [asked.append(f"GET {path}"), get(path, *rest)][1]
        for second in range(0, 600, 2):  # something is unclear for ten minutes
            timer.now_s = float(second)
            client._prepare()
        looks = [call for call in asked if call.endswith(("/dual", "/symbolConfig"))]
        assert 2 * 9 <= len(looks) <= 2 * 10
        share = sum(cost(call).weight for call in looks) / 10 / client._http._budget.weight.most
        assert share < 0.02


def test_a_margin_type_that_the_stream_tells_of_is_put_right_with_the_next_reading():
    with connected() as (venue, client, _server):
        client.open_orders()
        client._stream = silent()
        told = {"e": "ACCOUNT_UPDATE", "T": 1, "E": 1, "a": {"m": "MARGIN_TYPE_CHANGE", "B": [], "P": []}}  # fmt: skip
        client._stream._understand(msgspec.json.encode(told).decode())
        by_hand(venue, isolated=False)
        client.open_orders()
        assert account(venue).settings(SYMBOL).isolated


def silent():
    """A user stream that nobody started."""
    return FuturesStream("ws://127.0.0.1:9/private", "http://127.0.0.1:9", Signer(Secret("k"), Secret("s")), VenueClock(LiveClock()))  # fmt: skip


def test_whose_a_trade_is_can_be_asked_for():
    with connected() as (venue, client, server):
        client.submit(intent(1), "b4-1-1", 0.0)
        (trade,) = client.trades(SYMBOL, 0)
        assert client.name_of(trade) == "b4-1-1"
        assert client.name_of(msgspec.structs.replace(trade, venue_order_id="99")) == ""
        assert client.may_trade()
        assert client.account_uid() is None
        server.do(lambda: venue.set_mark(SYMBOL, D(1)))
        assert client.name_of(client.trades(SYMBOL, 1)[0]).startswith("autoclose-")


def test_no_order_leaves_when_the_lease_ran_out():
    with connected(may_send=lambda: False) as (venue, client, _server):
        for asked in (intent(1), stop(2)):
            with pytest.raises(VenueUnreachable, match="lease ran out before order b4-1-1"):
                client.submit(asked, "b4-1-1", 0.0)
        assert venue.exchange.orders(account(venue)) == []


def test_a_key_that_the_venue_refuses_is_told_by_the_first_that_is_signed():
    with connected(secret="another") as (_venue, client, _server):
        asked = []
        client._open_orders = asked.append
        with pytest.raises(Refusal, match="-1022"):
            client.open_orders()
        assert asked == []
