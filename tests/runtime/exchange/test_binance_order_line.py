"""Orders over the WebSocket API: one of four outcomes each, and never sent twice."""

import threading
import time
from contextlib import contextmanager
from decimal import Decimal

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ed25519

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import OutcomeUnknown, VenueUnreachable
from bot4_runtime.domain.events import OrderAccepted, OrderFilled, OrderRejected
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.exchange.binance.failures import Refusal
from bot4_runtime.exchange.binance.limits import Lane, Limit, RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

SYMBOL = "BTCUSDT"
KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE = KEY.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption()).decode()
PUBLIC = (
    KEY.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo).decode()
)
RULES = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))


def intent(number=1, kind=OrderType.MARKET, side=Side.BUY, quantity="0.01", price=None, stop=None, force=TimeInForce.GTC, reduce=False):  # fmt: skip
    return OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.EXIT if reduce else Purpose.ENTRY,
        symbol=SYMBOL,
        side=side,
        order_type=kind,
        quantity=Decimal(quantity),
        price=None if price is None else Decimal(price),
        stop_price=None if stop is None else Decimal(stop),
        time_in_force=force,
        reduce_only=reduce,
        reference_price=Decimal(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )


def resting(number=1):
    return intent(number, OrderType.LIMIT, price="39000")


def order(number=1):
    return Order(intent=intent(number), client_id=f"b4-1-{number}", status=OrderStatus.ACCEPTED, filled=Decimal(0), spent=Decimal(0), cancel_requested=True, age=0, reason="")  # fmt: skip


class World:
    """A venue, a client of it, and what the venue was asked."""

    def __init__(self, server, venue, sink, secret, **options):
        self.venue, self.sink = venue, sink
        self.server = server
        url = f"127.0.0.1:{server.port}"
        self.client = BinanceSpot(
            f"http://{url}",
            None,
            Signer(Secret("key"), Secret(secret)),
            LiveClock(),
            order_url=f"ws://{url}/ws-api/v3",
            **{"reply_s": 5.0} | options,
        )
        self.line = self.client._line

    def buy(self, number=1, made=None):
        return self.client.submit(made or resting(number), f"b4-1-{number}", 0.0)

    def names(self):
        """Client ids of all orders the venue ever took, oldest first."""
        account = self.venue.exchange.account("key")
        return [made.client_id for made in self.venue.exchange.orders(account)]

    def posts(self):
        """How many times the venue was asked to place an order, either way."""
        asked = [entry.body.get("call") for entry in self.sink.entries if entry.kind == "request"]
        return asked.count("POST /api/v3/order")

    def fault(self, fault, method="WS", path="order.", seconds=0.0, times=1):
        self.venue.schedule(FaultSchedule([FaultRule(fault=fault, method=method, path=path, seconds=seconds, times=times)]))  # fmt: skip


@contextmanager
def world(ed25519_key=True, **options):
    sink = MemorySink()
    venue = Loopback(LiveClock(), [(RULES, Decimal(40_000))], sink=sink)
    venue.open_account(1, "key", PUBLIC if ed25519_key else "secret", [("USDT", Decimal(100_000)), ("BTC", Decimal(1))])  # fmt: skip
    with hosted(venue) as server:
        made = World(server, venue, sink, PRIVATE if ed25519_key else "secret", **options)
        made.client.start()
        try:
            assert made.line.ready(5.0)
            yield made
        finally:
            made.client.close()
            made.client.close()


@pytest.mark.parametrize("ed25519_key", [True, False])
def test_every_kind_of_order_goes_by_the_line_logged_on_or_signed(ed25519_key):
    with world(ed25519_key) as here:
        accepted, filled = here.buy(1, intent(1))
        assert isinstance(accepted, OrderAccepted)
        assert isinstance(filled, OrderFilled)
        assert (filled.fill.quantity, filled.fill.price) == (Decimal("0.01"), Decimal("40000.1"))
        for number, asked, status in (
            (2, resting(2), OrderStatus.ACCEPTED),
            (3, intent(3, OrderType.LIMIT, price="39000", force=TimeInForce.GTX), OrderStatus.ACCEPTED),
            (4, intent(4, OrderType.STOP_MARKET, Side.SELL, stop="38000"), OrderStatus.ACCEPTED),
            (5, intent(5, OrderType.LIMIT, price="39000", force=TimeInForce.IOC), OrderStatus.EXPIRED),
            (6, intent(6, OrderType.LIMIT, price="39000", force=TimeInForce.FOK), OrderStatus.EXPIRED),
        ):  # fmt: skip
            assert isinstance(here.buy(number, asked)[0], OrderAccepted)
            assert here.client.query(SYMBOL, f"b4-1-{number}").status is status
        assert here.client.cancel(order(2), 5) == []
        assert here.client.cancel(order(2), 5) == [], "may be repeated"
        assert here.client.query(SYMBOL, "b4-1-2").status is OrderStatus.CANCELED
        (rejected,) = here.buy(7, intent(7, quantity="9"))
        assert isinstance(rejected, OrderRejected)
        assert (rejected.code, rejected.intent_no) == ("-2010", 7)
        calls = [e.body["call"] for e in here.sink.entries if e.kind == "request"]
        assert calls.count("POST /api/v3/order") == 7
        assert here.client._http._connection.sock is not None, "REST was for looking alone"


AFTER = [Fault.DROP_REPLY, Fault.DELAY_REPLY, Fault.ERROR_AFTER, Fault.TRUNCATED, Fault.NOT_JSON, Fault.WRONG_TYPE]  # fmt: skip
BEFORE = [Fault.DROP_REQUEST, Fault.ERROR_BEFORE]


@pytest.mark.parametrize("fault", AFTER + BEFORE)
def test_what_may_have_been_sent_is_unknown_and_goes_no_second_way(fault):
    with world(reply_s=0.4) as here:
        here.fault(fault, seconds=0.8)
        with pytest.raises(OutcomeUnknown):
            here.buy(1)
        assert here.names() == (["b4-1-1"] if fault in AFTER else [])
        assert here.posts() == (fault in AFTER)
        told = here.client.query(SYMBOL, "b4-1-1")
        assert (told is not None) == (fault in AFTER)


def test_a_line_that_is_not_open_leaves_the_order_to_rest_under_the_same_name():
    with world() as here:
        here.line._ready.clear()
        assert isinstance(here.buy(1)[0], OrderAccepted)
        assert here.client.cancel(order(1), 5) == []
        here.line._ready.set()
        assert isinstance(here.buy(2)[0], OrderAccepted)
        assert here.names() == ["b4-1-1", "b4-1-2"]
        assert here.posts() == 2


def test_a_line_that_never_came_to_send_leaves_the_order_to_rest():
    with world(reply_s=0.3) as here:
        held, free = threading.Event(), threading.Event()

        def hold():
            held.set()
            free.wait()

        here.line._thread.soon(hold)
        assert held.wait(5)
        assert isinstance(here.buy(1)[0], OrderAccepted), "by REST, after the deadline"
        free.set()
        assert here.line.ready(5)
        here.buy(2)
        assert here.names() == ["b4-1-1", "b4-1-2"], "the line did not send it later"
        assert here.posts() == 2


def test_a_late_answer_is_nobodys_and_answers_out_of_order_find_their_calls():
    with world(reply_s=0.5) as here:
        here.fault(Fault.DELAY_REPLY, seconds=0.8)
        with pytest.raises(OutcomeUnknown, match=r"not answered within 0.5 s"):
            here.buy(1)
        accepted = here.buy(2)[0]
        assert accepted.venue_order_id == "2"
        end = time.monotonic() + 5
        while here.line.counts["nobody's"] != 1:
            assert time.monotonic() < end
            time.sleep(0.01)
        here.fault(Fault.DELAY_REPLY, seconds=0.2)
        answers = {}

        def ask(number):
            named = {"symbol": SYMBOL, "origClientOrderId": f"b4-1-{number}"}
            answers[number] = here.line.call("order.status", named, Lane.REDUCE)

        asking = [threading.Thread(target=ask, args=(number,)) for number in (1, 2)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        told = {number: msgspec.json.decode(body)["clientOrderId"] for number, body in answers.items()}  # fmt: skip
        assert told == {1: "b4-1-1", 2: "b4-1-2"}


def test_a_broken_line_is_opened_and_logged_on_again():
    with world() as here:
        here.fault(Fault.DROP_REPLY)
        with pytest.raises(OutcomeUnknown, match="line broke"):
            here.buy(1)
        assert here.line.ready(5)
        assert here.line.counts["reconnects"] == 1
        here.buy(2)
        assert here.names() == ["b4-1-1", "b4-1-2"]


def test_the_four_answers_are_one_each_whatever_happens():
    """Every fault on every second order: what the venue holds is what was not refused."""
    faults = [*AFTER, *BEFORE]
    with world(reply_s=0.4) as here:
        outcomes = {}
        for number in range(1, 17):
            if number % 2:
                here.fault(faults[number // 2], seconds=0.6)
            try:
                outcomes[number] = type(here.buy(number)[0]).__name__
            except OutcomeUnknown:
                outcomes[number] = "unknown"
            except VenueUnreachable:
                outcomes[number] = "not sent"
            here.line.ready(5)
        names = here.names()
        assert len(set(names)) == len(names), "no order twice"
        assert here.posts() == len(names)
        for number, outcome in outcomes.items():
            there = f"b4-1-{number}" in names
            assert outcome in {"OrderAccepted", "unknown"}
            assert there or outcome == "unknown"
        assert list(outcomes.values()).count("OrderAccepted") >= 8


def test_without_a_session_orders_go_by_rest_and_a_wrong_key_never_has_one():
    sink = MemorySink()
    venue = Loopback(LiveClock(), [(RULES, Decimal(40_000))], sink=sink)
    venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000))])
    with hosted(venue) as server:
        here = World(server, venue, sink, PRIVATE)
        here.client.start()
        assert not here.line.ready(0.5)
        assert here.line.counts["session refused"] >= 1
        (rejected,) = here.buy(1)
        assert rejected.code == "-1022"
        here.client.close()


def test_limits_hold_for_both_ways_together():
    budget = RequestBudget(None)
    with world(budget=budget) as here:
        budget.orders = (Limit(86_400_000, 4),)
        for number in (1, 2, 3):
            here.buy(number)
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            here.buy(4)
        assert here.client.cancel(order(1), 5) == []
        budget.stay_away(60_000)
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            here.client.cancel(order(2), 5)
        assert here.names() == ["b4-1-1", "b4-1-2", "b4-1-3"]


def test_the_lease_is_asked_on_either_way():
    allowed = [True]
    with world(may_send=lambda: allowed[0]) as here:
        here.buy(1)
        allowed[0] = False
        for ready in (True, False):
            if not ready:
                here.line._ready.clear()
            with pytest.raises(VenueUnreachable, match="lease"):
                here.buy(2)
            assert here.client.cancel(order(1), 5) == [], "cancels need none"
        assert here.names() == ["b4-1-1"]


def test_orders_are_held_against_the_rules_and_rules_are_learnt_again():
    with world(symbols=[SYMBOL]) as here:
        assert here.client.rules(SYMBOL).instrument().tick_size == RULES.tick_size
        (rejected,) = here.buy(1, intent(1, OrderType.LIMIT, price="39000.05"))
        assert (rejected.code, here.posts()) == ("PRICE_FILTER", 0)
        assert "expected a multiple of 0.1" in rejected.reason
        here.venue.exchange.relist(msgspec.structs.replace(RULES, status="HALT"))
        assert here.buy(2)[0].code == "-2010"
        here.client.open_orders()
        (rejected,) = here.buy(3)
        assert (rejected.code, here.posts()) == ("MARKET_CLOSED", 1)
        here.venue.exchange.relist(msgspec.structs.replace(RULES, max_orders=1))
        here.client.open_orders()
        assert isinstance(here.buy(4)[0], OrderAccepted)
        assert here.buy(5)[0].code == "MAX_NUM_ORDERS"
        assert here.posts() == 2
        (rejected,) = here.buy(6, intent(6, OrderType.LIMIT, Side.SELL, price="41000", reduce=True))  # fmt: skip
        assert rejected.code == "-1013", "an exit is left to the venue where rules may be old"
        here.venue.exchange.relist(msgspec.structs.replace(RULES, max_position=Decimal("1.005")))
        here.client.open_orders()
        here.client.balances()
        assert here.buy(7)[0].code == "MAX_POSITION"


def test_a_refused_question_over_the_line_says_so():
    with world() as here, pytest.raises(Refusal, match="-2013"):
        here.line.call("order.status", {"symbol": SYMBOL, "origClientOrderId": "x"}, Lane.REDUCE)
