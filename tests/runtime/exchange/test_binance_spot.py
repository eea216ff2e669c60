"""The spot client against the loopback venue, and against answers no sane venue gives."""

import copy
import hashlib
import hmac
import pickle
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
from bot4_runtime.domain.events import OrderAccepted, OrderFilled, OrderRejected
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
from bot4_runtime.exchange.binance.http_connection import Refusal
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock
from bot4_runtime.exchange.binance.spot import PAGE, BinanceSpot, order_fields
from bot4_runtime.exchange.protocols import RemoteVenue
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.loopback import Loopback, SkewedClock
from bot4_runtime.venue.rules import SymbolRules

SYMBOL = "BTCUSDT"


def intent(number=1, side=Side.BUY, kind=OrderType.MARKET, quantity="0.01", price=None, stop=None, force=TimeInForce.GTC):  # fmt: skip
    return OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol=SYMBOL,
        side=side,
        order_type=kind,
        quantity=Decimal(quantity),
        price=None if price is None else Decimal(price),
        stop_price=None if stop is None else Decimal(stop),
        time_in_force=force,
        reduce_only=False,
        reference_price=Decimal(40_000),
        stop_loss=None,
        expires_after=0,
        signal_id="s",
        rule_id="r",
        ts_ns=1,
    )


def order(number=1, name="b4-1-1"):
    return Order(intent=intent(number), client_id=name, status=OrderStatus.ACCEPTED, filled=Decimal(0), spent=Decimal(0), cancel_requested=True, age=0, reason="")  # fmt: skip


@contextmanager
def connected(clock=None, venue_clock=None, secret="secret", reply_s=5.0, budget=None):
    """A venue on loopback, and a client of it without user stream."""
    instrument = Instrument.assume(SYMBOL, Market.SPOT, 40_000.0)
    venue = Loopback(venue_clock or LiveClock(), [(SymbolRules.of(instrument), Decimal(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", Decimal(100_000)), ("BTC", Decimal(1))])
    with hosted(venue) as server:
        client = BinanceSpot(
            f"http://127.0.0.1:{server.port}",
            None,
            Signer(Secret("key"), Secret(secret)),
            clock or LiveClock(),
            reply_s=reply_s,
            budget=budget,
        )
        try:
            yield venue, client
        finally:
            client.close()


def test_it_is_a_remote_venue():
    with connected() as (_venue, client):
        remote: RemoteVenue = client
        assert not remote.in_process
        assert remote.poll() == ()
        assert not remote.stream_alive()
        assert remote.on_candle(None, [], None) == []


def test_a_market_order_is_accepted_with_its_fills():
    with connected() as (_venue, client):
        client.start()
        accepted, filled = client.submit(intent(7), "b4-1-7", 0.0)
        assert isinstance(accepted, OrderAccepted)
        assert isinstance(filled, OrderFilled)
        fill = filled.fill
        assert (fill.intent_no, fill.trade_id, fill.liquidity) == (7, "1", Liquidity.TAKER)
        assert (fill.price, fill.quantity, fill.fee, fill.fee_asset) == (Decimal("40000.1"), Decimal("0.01"), Decimal("0.00001"), "BTC")  # fmt: skip
        (trade,) = client.trades(SYMBOL, 0)
        assert (trade.trade_id, trade.venue_order_id) == (1, accepted.venue_order_id)
        assert (trade.price, trade.quantity, trade.fee) == (fill.price, fill.quantity, fill.fee)
        assert client.balances() == {"BTC": Decimal("1.00999"), "USDT": Decimal("99599.999")}
        told = client.query(SYMBOL, "b4-1-7")
        assert (told.status, told.filled, told.spent) == (OrderStatus.FILLED, Decimal("0.01"), Decimal("400.001"))  # fmt: skip


@pytest.mark.parametrize("asked", range(0, 220, 40))
def test_reading_after_reading_leaves_exits_what_they_need_of_the_budget(asked):
    """Of three symbols, every two seconds, as while something is unclear."""
    with connected(budget=RequestBudget(None, clock_ms=lambda: 0)) as (_venue, client):
        client.submit(intent(1, side=Side.SELL, kind=OrderType.STOP_MARKET, stop="38000"), "b4-1-1", 0.0)  # fmt: skip
        read = []
        for _ in range(asked):
            client.server_time_ms()
        for _ in range(30):
            with suppress(VenueUnreachable):
                client.server_time_ms()
                read.append(client.open_orders())
                client.query(SYMBOL, "b4-1-1")
                for _ in range(6):
                    client.trades(SYMBOL, 0)
                client.balances()
        assert 20 <= len(read) < 30
        client.cancel(order(1, "b4-1-1"), 0)
        assert client.query(SYMBOL, "b4-1-1").status is OrderStatus.CANCELED
        client.trades(SYMBOL, 0)
        exit_ = msgspec.structs.replace(intent(2, side=Side.SELL), reduce_only=True)
        assert isinstance(client.submit(exit_, "b4-1-2", 0.0)[0], OrderAccepted)


@pytest.mark.parametrize("what", ["weight", "orders"])
def test_a_stop_stays_while_nothing_could_take_its_place(what):
    """Found by an hour of soaking: others used the minute's weight up, a stop was cancelled, and
    what was held was bare until the next minute, since no exit was let through."""
    budget = RequestBudget(None, clock_ms=lambda: now[0])
    now = [30_000_000 * 60_000]
    with connected(budget=budget) as (_venue, client):
        client.submit(intent(1, side=Side.SELL, kind=OrderType.STOP_MARKET, stop="38000"), "b4-1-1", 0.0)  # fmt: skip
        client.submit(intent(2, kind=OrderType.LIMIT, price="39000"), "b4-1-2", 0.0)
        stop = order(1, "b4-1-1")
        stop = msgspec.structs.replace(
            stop, intent=msgspec.structs.replace(stop.intent, reduce_only=True)
        )
        if what == "weight":
            budget.told({"X-MBX-USED-WEIGHT-1M": "5690"}, now[0])
        else:
            budget.hold_orders("key", 60_000)
        with pytest.raises(VenueUnreachable, match="the stop stays until then"):
            client.cancel(stop, 5)
        assert client.cancel(order(2, "b4-1-2"), 5) == [], "an entry ends all the same"
        now[0] += 60_000
        assert [told.client_id for told in client.open_orders()] == ["b4-1-1"]
        assert client.cancel(stop, 5) == []
        assert client.open_orders() == []


def test_resting_orders_are_told_and_cancelled():
    with connected() as (_venue, client):
        for number, kind, more in (
            (1, OrderType.LIMIT, {"price": "39000"}),
            (2, OrderType.LIMIT, {"price": "39000", "force": TimeInForce.GTX}),
            (3, OrderType.STOP_MARKET, {"stop": "38000", "side": Side.SELL}),
        ):
            assert (
                len(client.submit(intent(number, kind=kind, **more), f"b4-1-{number}", 0.0)) == 1
            )
        assert [o.client_id for o in client.open_orders()] == ["b4-1-1", "b4-1-2", "b4-1-3"]
        assert {o.status for o in client.open_orders()} == {OrderStatus.ACCEPTED}
        assert client.cancel(order(2, "b4-1-2"), 5) == []
        assert client.cancel(order(2, "b4-1-2"), 5) == [], "a cancel may be repeated"
        assert client.query(SYMBOL, "b4-1-2").status is OrderStatus.CANCELED
        assert client.query(SYMBOL, "b4-1-9") is None


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"kind": OrderType.LIMIT, "price": "39000.05"}, "-1013"),
        ({"quantity": "9"}, "-2010"),
        ({"kind": OrderType.LIMIT, "price": "41000", "force": TimeInForce.GTX}, "-2010"),
        ({"kind": OrderType.STOP_MARKET, "stop": "41000", "side": Side.SELL}, "-2010"),
    ],
)
def test_a_refused_order_is_rejected_with_the_venues_code(asked, code):
    with connected() as (_venue, client):
        (rejected,) = client.submit(intent(4, **asked), "b4-1-4", 0.0)
        assert isinstance(rejected, OrderRejected)
        assert (rejected.intent_no, rejected.code) == (4, code)
        assert rejected.reason


def test_an_order_whose_name_is_open_already_is_unknown_and_not_rejected():
    with connected() as (_venue, client):
        resting = intent(1, kind=OrderType.LIMIT, price="39000")
        client.submit(resting, "b4-1-1", 0.0)
        with pytest.raises(OutcomeUnknown, match="open at the venue already"):
            client.submit(resting, "b4-1-1", 0.0)


AFTER = [
    Fault.DROP_REPLY,
    Fault.DELAY_REPLY,
    Fault.ERROR_AFTER,
    Fault.GATEWAY_AFTER,
    Fault.TRUNCATED,
    Fault.NOT_JSON,
    Fault.WRONG_TYPE,
]


@pytest.mark.parametrize("fault", [*AFTER, Fault.DROP_REQUEST, Fault.ERROR_BEFORE])
def test_an_order_without_a_readable_answer_is_unknown_and_found_by_its_name(fault):
    with connected(reply_s=0.3) as (venue, client):
        client.start()
        venue.schedule(
            FaultSchedule([FaultRule(fault=fault, method="POST", times=1, seconds=0.5)])
        )
        with pytest.raises(OutcomeUnknown):
            client.submit(intent(1), "b4-1-1", 0.0)
        told = client.query(SYMBOL, "b4-1-1")
        assert (told is not None) == (fault in AFTER)
        assert len(venue.exchange.orders(venue.exchange.account("key"))) == (fault in AFTER)


@pytest.mark.parametrize("fault", AFTER[2:])
def test_a_question_without_a_readable_answer_is_never_an_empty_one(fault):
    with connected() as (venue, client):
        client.submit(intent(1, kind=OrderType.LIMIT, price="39000"), "b4-1-1", 0.0)
        venue.schedule(FaultSchedule([FaultRule(fault=fault, method="GET")]))
        for ask in (client.open_orders, client.balances, client.server_time_ms, lambda: client.query(SYMBOL, "b4-1-1"), lambda: client.trades(SYMBOL, 0)):  # fmt: skip
            with pytest.raises(OutcomeUnknown):
                ask()


def test_a_cancel_without_an_answer_is_unknown_and_one_that_is_refused_says_so():
    with connected() as (venue, client):
        client.submit(intent(1, kind=OrderType.LIMIT, price="39000"), "b4-1-1", 0.0)
        venue.schedule(
            FaultSchedule([FaultRule(fault=Fault.DROP_REPLY, method="DELETE", times=1)])
        )
        with pytest.raises(OutcomeUnknown):
            client.cancel(order(), 5)
        assert client.query(SYMBOL, "b4-1-1").status is OrderStatus.CANCELED
    with connected(secret="wrong") as (_venue, client), pytest.raises(VenueRefused, match="-1022"):
        client.cancel(order(), 5)


def test_trades_are_read_page_by_page_to_the_end():
    with connected() as (venue, client):
        account = venue.exchange.account("key")
        from bot4_runtime.venue.orders import Kind, OrderRequest

        for _ in range(PAGE + 3):
            venue.exchange.place(account, OrderRequest(symbol=SYMBOL, side=Side.BUY, kind=Kind.MARKET, quantity=Decimal("0.001")))  # fmt: skip
        assert [t.trade_id for t in client.trades(SYMBOL, 0)] == list(range(1, PAGE + 4))
        assert [t.trade_id for t in client.trades(SYMBOL, PAGE)] == [PAGE + 1, PAGE + 2, PAGE + 3]
        assert client.trades(SYMBOL, PAGE + 3) == []


# -------------------------------------------------------------------------- time
@pytest.mark.parametrize("skew_ms", [-30_000, -2_000, 2_000, 30_000])
def test_a_clock_that_is_off_is_corrected_before_anything_is_signed(skew_ms):
    with connected(venue_clock=SkewedClock(LiveClock(), skew_ms)) as (_venue, client):
        client.start()
        assert isinstance(client.submit(intent(1), "b4-1-1", 0.0)[0], OrderAccepted)


def test_a_clock_that_jumps_costs_one_question_a_repeat_and_leaves_an_order_unsent():
    ours, theirs = ManualClock(10**18), ManualClock(10**18)
    with connected(ours, theirs) as (_venue, client):
        client.start()
        theirs.advance_to(10**18 + 60 * 10**9)
        assert client.open_orders() == []
        theirs.advance_to(10**18 + 120 * 10**9)
        with pytest.raises(VenueUnreachable, match="-1021"):
            client.submit(intent(1), "b4-1-1", 0.0)
        assert client.query(SYMBOL, "b4-1-1") is None
        assert isinstance(client.submit(intent(2), "b4-1-2", 0.0)[0], OrderAccepted)


@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.BANNED, Fault.ORDER_LIMIT, Fault.FORBIDDEN])  # fmt: skip
def test_an_order_turned_away_at_the_door_was_not_sent_and_is_no_rejection(fault):
    with connected() as (venue, client):
        client.start()
        venue.schedule(FaultSchedule([FaultRule(fault=fault, method="POST", times=1, seconds=5)]))
        with pytest.raises(VenueUnreachable, match="before it was looked at"):
            client.submit(intent(1), "b4-1-1", 0.0)
        assert venue.exchange.orders(venue.exchange.account("key")) == []


@pytest.mark.parametrize("fault", [Fault.NOT_JSON, Fault.FORBIDDEN, Fault.RESTRICTED])
def test_without_the_venues_time_nothing_is_sent(fault):
    with connected() as (venue, client):
        venue.schedule(FaultSchedule([FaultRule(fault=fault, path="/api/v3/time")]))
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            client.submit(intent(1), "b4-1-1", 0.0)
        assert venue.exchange.orders(venue.exchange.account("key")) == []


@pytest.mark.parametrize("ahead_ms", [-30_000, -2_000, 0, 2_000, 30_000])
def test_the_median_of_the_quickest_answers_tells_the_time(ahead_ms):
    """Answers as (ms to the venue, ms back): slow ones and one quick one way only lie."""
    ours, now_s = ManualClock(10**18), [0.0]
    clock = VenueClock(ours, timer=lambda: now_s[0])
    ways = iter([(5, 400), (3, 3), (300, 2), (2, 2), (1, 9), (7, 7), (7, 7), (7, 7), (7, 7), (7, 7)])  # fmt: skip

    def pass_ms(span):
        now_s[0] += span / 1_000
        ours.advance_to(ours.now_ns() + span * 1_000_000)

    def ask():
        there, back = next(ways)
        pass_ms(there)
        told = ours.now_ns() // 1_000_000 + ahead_ms
        pass_ms(back)
        return told

    def error_ms():
        return abs(clock.now_ms() - ours.now_ns() // 1_000_000 - ahead_ms)

    assert clock.old
    clock.synchronise(ask)
    assert error_ms() <= 1
    assert clock.error_ms == pytest.approx(5)
    assert not clock.old
    pass_ms(600_000)
    assert clock.old
    assert clock.synchronised, "old is no reason to ask before an order"
    clock.synchronise(ask)
    assert error_ms() == 0
    clock.doubt()
    assert clock.old
    assert not clock.synchronised


def test_the_time_is_asked_for_again_with_a_reading_and_a_cancel_is_signed_again_once():
    ours, theirs = ManualClock(10**18), ManualClock(10**18)
    with connected(ours, theirs) as (_venue, client):
        client.start()
        client.submit(intent(1, kind=OrderType.LIMIT, price="39000"), "b4-1-1", 0.0)
        theirs.advance_to(10**18 + 120 * 10**9)
        assert client.cancel(order(1), 5) == []
        assert client.query(SYMBOL, "b4-1-1").status is OrderStatus.CANCELED
        asked = [0]
        client._clock._due_s = float("-inf")
        client._clock.synchronise = lambda _ask: asked.append(1)
        client.open_orders()
        assert asked == [0, 1]


# ----------------------------------------------------------------------- signing
def test_messages_of_the_websocket_api_are_signed_in_order_of_their_names():
    told = Signer(Secret("k"), Secret("s")).message({"timestamp": 5, "a": "x y"})
    expected = hmac.new(b"s", b"a=x y&apiKey=k&timestamp=5", hashlib.sha256).hexdigest()
    assert told == {"timestamp": 5, "a": "x y", "apiKey": "k", "signature": expected}


def test_a_secret_shows_itself_to_nobody():
    secret = Secret("hush-hush")
    assert "hush" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "hush-hush"
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    assert "hush" not in repr(Signer(secret, secret))


# ---------------------------------------------------------------------- messages
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
    client = BinanceSpot("http://127.0.0.1:9", None, Signer(Secret("k"), Secret("s")), LiveClock())
    client._clock.synchronised = True
    client._http = client._entry.http = Canned(body)
    return client


PLACED = {"symbol": SYMBOL, "orderId": 5, "clientOrderId": "b4-1-1", "status": "FILLED", "executedQty": "0.01", "transactTime": 1, "fills": [{"price": "1", "qty": "0.01", "commission": "0", "commissionAsset": "BTC", "tradeId": 3}], "news": {"of": ["2027"]}}  # fmt: skip
TOLD = {"symbol": SYMBOL, "orderId": 5, "clientOrderId": "b4-1-1", "side": "BUY", "status": "NEW", "origQty": "1", "executedQty": "0", "cummulativeQuoteQty": "0", "updateTime": 1}  # fmt: skip
TRADE = {"symbol": SYMBOL, "id": 4, "orderId": 5, "price": "1", "qty": "1", "commission": "0", "commissionAsset": "BTC", "time": 1, "isBuyer": True, "isMaker": False}  # fmt: skip


def test_unknown_fields_are_left_alone():
    assert len(canned(PLACED).submit(intent(1), "b4-1-1", 0.0)) == 2
    assert canned(TOLD | {"new": 1}).query(SYMBOL, "b4-1-1").quantity == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"symbol": "ETHUSDT"},
        {"clientOrderId": "b4-1-2"},
        {"status": "DREAMING"},
        {"executedQty": "0.02"},
        {"executedQty": "NaN"},
        {"orderId": -1},
        {"transactTime": 10**15},
        {"fills": [PLACED["fills"][0] | {"price": "0"}]},
        {"fills": [PLACED["fills"][0] | {"price": "Infinity"}]},
        {"fills": [PLACED["fills"][0] | {"qty": "-0.01"}]},
        {"fills": [PLACED["fills"][0] | {"commission": "-1"}]},
        {"fills": None},
        {"fills": []},
    ],
)
def test_an_answer_that_cannot_be_true_leaves_the_order_unknown(changed):
    with pytest.raises(OutcomeUnknown):
        canned(PLACED | changed).submit(intent(1), "b4-1-1", 0.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "DREAMING"},
        {"side": "HOLD"},
        {"origQty": "NaN"},
        {"executedQty": "-1"},
        {"cummulativeQuoteQty": "sNaN"},
        {"updateTime": "soon"},
        {"clientOrderId": ""},
        {"clientOrderId": "b4-1-2"},
        {"symbol": "ETHUSDT"},
    ],
)
def test_an_order_that_cannot_be_true_is_not_believed(changed):
    with pytest.raises(OutcomeUnknown):
        canned(TOLD | changed).query(SYMBOL, "b4-1-1")


@pytest.mark.parametrize(
    "rows",
    [
        [TRADE | {"price": "NaN"}],
        [TRADE | {"qty": "0"}],
        [TRADE | {"commission": "-1"}],
        [TRADE | {"symbol": "ETHUSDT"}],
        [TRADE | {"id": 3}],
        [TRADE, TRADE],
        {},
        None,
    ],
)
def test_trades_that_cannot_be_true_are_not_believed(rows):
    with pytest.raises(OutcomeUnknown):
        canned(rows).trades(SYMBOL, 3)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"balances": None},
        {"balances": [{"asset": "BTC", "free": "NaN", "locked": "0"}]},
        {"balances": [{"asset": "BTC", "free": "1", "locked": "-1"}]},
    ],
)
def test_balances_that_cannot_be_true_are_not_believed(told):
    with pytest.raises(OutcomeUnknown):
        canned(told).balances()


def test_a_refused_question_is_refused_and_its_time_is_put_right_once():
    with connected(secret="wrong") as (_venue, client):
        for ask in (client.open_orders, client.balances, lambda: client.query(SYMBOL, "x")):
            with pytest.raises(Refusal, match="-1022"):
                ask()


def test_an_intent_without_its_price_is_no_order():
    for kind in (OrderType.LIMIT, OrderType.STOP_MARKET):
        with pytest.raises(InvariantViolated):
            order_fields(intent(1, kind=kind), "b4-1-1")


@pytest.mark.parametrize("quantity", ["0.00001000", "1E-5", "1E+3", "123456.7"])
def test_quantities_are_written_without_exponent(quantity):
    text = order_fields(intent(1, quantity=quantity), "x")["quantity"]
    assert "E" not in text
    assert Decimal(text) == Decimal(quantity)


def test_an_order_is_signed_first_and_sent_only_while_the_lease_holds():
    with connected() as (venue, client):
        client.start()
        asked = []
        client._entry._may_send = lambda: asked.append(client._clock.now_ms()) or len(asked) > 1
        with pytest.raises(VenueUnreachable, match="lease"):
            client.submit(intent(1), "b4-1-1", 0.0)
        assert venue.exchange.orders(venue.exchange.account("key")) == []
        assert len(client.submit(intent(2), "b4-1-2", 0.0)) == 2
