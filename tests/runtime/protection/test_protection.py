"""The driver: approved, journaled, durable, sent once, over only when the account says so."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.client_id import client_id, parse_client_id
from bot4_runtime.domain.errors import OutcomeUnknown, VenueRefused
from bot4_runtime.domain.events import (
    JournaledEvent,
    OrderAccepted,
    OrderClosed,
    OrderEvent,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    ProtectionAlarm,
    ProtectionPlanned,
    ProtectionSettled,
)
from bot4_runtime.domain.order import (
    Book,
    Fill,
    Liquidity,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.protection.hands import GateHands
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.monitor import ProtectionMonitor
from bot4_runtime.protection.orders import FIRST_INTENT
from bot4_runtime.protection.simulated import Faults, SimulatedUsdm
from bot4_runtime.protection.stress import lot_rules
from bot4_runtime.risk.brackets import Brackets
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.liquidation import LiquidationLimits
from bot4_runtime.risk.manager import RiskManager, RiskRefused

D = Decimal
MS = 1_000_000
S = 1_000 * MS
FLAT = {name: Brackets(name, [0.0], [0.004]) for name in ("BTCUSDT", "ETHUSDT")}


class Tape:
    """A ledger that remembers what was durable when."""

    def __init__(self) -> None:
        self.events: list[JournaledEvent] = []
        self.durable = 0

    def emit(self, event: JournaledEvent) -> None:
        self.events.append(event)

    def make_durable(self) -> None:
        self.durable = len(self.events)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


class Venue:
    """A venue that says what a test tells it to; it checks that plans are durable first."""

    name = "told"
    in_process = False

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.sent = []
        self.moved = []
        self.fault: Exception | None = None

    def submit(self, intent, client_id, cash_free) -> list[OrderEvent]:
        planned = self.tape.events[self.tape.durable - 1]
        assert isinstance(planned, ProtectionPlanned)
        assert planned.intent == intent
        assert planned.client_id == client_id
        self.sent.append(intent)
        if self.fault is not None:
            raise self.fault
        return [
            OrderAccepted(ts_event_ns=intent.ts_ns, intent_no=intent.intent_no, venue_order_id="1")
        ]

    def cancel(self, order, now_ns):
        return []

    def on_candle(self, candle, orders, instrument):
        return []

    def add_margin(self, number, symbol, side, amount, now_ns) -> int:
        assert self.tape.durable == len(self.tape.events)
        self.moved.append((number, symbol, side, amount))
        if self.fault is not None:
            raise self.fault
        return now_ns + 100 * MS


class Refusing:
    """Stands for a risk manager that lets nothing leave the house."""

    def validate(self, intent, view):
        return RiskRefused("REDUCE_ONLY", 0.0, float(intent.quantity), D(0))


class Desk:
    """A driver with its venue and tape."""

    def __init__(self, first_number=1, brackets=FLAT, risk=None, **limits) -> None:
        self.tape = Tape()
        self.venue = Venue(self.tape)
        self.driver = ProtectionMonitor(
            limits=LiquidationLimits(**limits),
            rules=lot_rules({"BTCUSDT": 100.0, "ETHUSDT": 100.0}),
            brackets=brackets,
            hands=GateHands(
                risk=risk or RiskManager(RiskLimits()),
                gate=Gate(self.venue, GateLimits(120, Decimal(1_000_000), 0.5), 5),
                margin=self.venue,
                epoch=5,
            ),
            ledger=self.tape,
            first_number=first_number,
        )

    def alarms(self) -> list[str]:
        return [alarm.code for alarm in self.tape.of(ProtectionAlarm)]

    def codes(self) -> list[str]:
        """Alarms without those about stops, which these positions lack."""
        return [code for code in self.alarms() if code != "STOP_MISSING"]


def position(size="10", symbol="BTCUSDT", side="long", isolated="250", **told) -> MarginPosition:
    return MarginPosition(
        symbol=symbol,
        side=side,
        size=D(size),
        entry_price=D(100),
        isolated_wallet=None if isolated is None else D(isolated),
        **told,
    )


def account(*positions: MarginPosition, as_of_ns=0, free="1000", cross="1000") -> Holdings:
    return Holdings(cross_balance=D(cross), free=D(free), positions=positions, as_of_ns=as_of_ns)


def fill(number: int, quantity: str, ts_ns: int, price="77") -> OrderFilled:
    return OrderFilled(
        ts_event_ns=ts_ns,
        fill=Fill(
            trade_id=f"{number}-{ts_ns}",
            intent_no=FIRST_INTENT + number,
            book=Book.VALIDATED,
            symbol="BTCUSDT",
            side=Side.SELL,
            price=D(price),
            quantity=D(quantity),
            fee=D(0),
            fee_asset="USDT",
            liquidity=Liquidity.TAKER,
            ts_event_ns=ts_ns,
        ),
    )


DANGER = 77.3  # 92 % of an isolated 4x long's margin consumed


def in_danger(**limits) -> Desk:
    desk = Desk(**limits)
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    desk.driver.hold(account(position()), 0)
    desk.driver.on_mark("BTCUSDT", DANGER, S, S)
    return desk


# -------------------------------------------------------------------- the way of an action
def test_an_action_is_approved_journaled_durable_and_sent_once():
    desk = in_danger()
    [planned] = desk.tape.of(ProtectionPlanned)
    [intent] = desk.venue.sent
    assert (planned.number, planned.action, planned.wallet, planned.symbol) == (
        1,
        "reduce",
        "BTCUSDT long",
        "BTCUSDT",
    )
    assert planned.intent == intent
    assert planned.client_id == client_id(5, FIRST_INTENT + 1)
    assert planned.payload_hash == payload_hash(intent)
    assert planned.reason == "margin consumed reached 90%"
    assert planned.numbers["price"] == DANGER
    assert planned.numbers["consumed"] == pytest.approx(1 - 19.908 / 246)
    assert planned.numbers["liquidation_price"] == pytest.approx(75 / 0.996)
    assert (intent.side, intent.quantity, intent.reduce_only) == (Side.SELL, D(2), True)
    assert (intent.order_type, intent.time_in_force) == (OrderType.MARKET, TimeInForce.IOC)
    assert intent.purpose is Purpose.EMERGENCY
    assert desk.codes() == ["MARGIN_ACT"]
    assert not desk.driver.entries_allowed
    for tick in range(10):
        desk.driver.on_time(S + tick * 100 * MS)
    assert len(desk.venue.sent) == 1


def test_an_action_is_over_when_its_order_is_and_the_account_was_read_since():
    desk = in_danger()
    desk.driver.on_order(fill(1, "1", 2 * S))
    desk.driver.hold(account(position("9", isolated="225"), as_of_ns=2 * S), 2 * S)
    assert desk.driver.busy, "partly filled is not over"
    desk.driver.on_order(fill(1, "1", 3 * S, price="76"))
    desk.driver.on_time(3 * S)
    assert desk.driver.busy, "the account was not read since"
    desk.driver.hold(account(position("9", isolated="225"), as_of_ns=3 * S - 1), 3 * S)
    assert desk.driver.busy, "the account was read before"
    desk.driver.on_mark("BTCUSDT", DANGER, 3 * S, 3 * S)
    desk.driver.hold(account(position("8", isolated="200"), as_of_ns=3 * S), 3 * S)
    [settled] = desk.tape.of(ProtectionSettled)
    assert (settled.number, settled.status, settled.filled, settled.spent) == (
        1,
        "filled",
        D(2),
        D(153),
    )
    assert desk.venue.moved == [(2, "BTCUSDT", 1, D(500))]


@pytest.mark.parametrize("status", ["expired", "canceled", "never_placed"])
def test_an_order_that_ends_short_is_over_too(status):
    desk = in_danger()
    desk.driver.on_order(fill(1, "0.5", 2 * S))
    desk.driver.on_order(
        OrderClosed(
            ts_event_ns=2 * S, intent_no=FIRST_INTENT + 1, status=status, reason="no one there"
        )
    )
    desk.driver.hold(account(position("9.5"), as_of_ns=2 * S), 2 * S)
    [settled] = desk.tape.of(ProtectionSettled)
    assert (settled.status, settled.filled, settled.text) == (status, D("0.5"), "no one there")


def test_a_fill_that_comes_after_the_end_still_counts():
    desk = in_danger()
    desk.driver.on_order(
        OrderClosed(
            ts_event_ns=2 * S, intent_no=FIRST_INTENT + 1, status="never_placed", reason="absent"
        )
    )
    desk.driver.on_order(fill(1, "0.5", 3 * S))
    desk.driver.hold(account(position("9.5"), as_of_ns=2 * S), 2 * S)
    assert desk.driver.busy
    desk.driver.hold(account(position("9.5"), as_of_ns=3 * S), 3 * S)
    [settled] = desk.tape.of(ProtectionSettled)
    assert (settled.status, settled.filled) == ("never_placed", D("0.5"))


def test_a_rejected_order_is_told_and_over():
    desk = in_danger()
    desk.driver.on_order(
        OrderRejected(ts_event_ns=S, intent_no=FIRST_INTENT + 1, code="-2022", reason="refused")
    )
    assert desk.codes() == ["MARGIN_ACT", "ACTION_REFUSED"]
    desk.driver.hold(account(position(), as_of_ns=S), S)
    assert [settled.status for settled in desk.tape.of(ProtectionSettled)] == ["rejected"]


def test_a_rejection_that_comes_twice_is_told_once():
    desk = in_danger()
    for ts_ns in (S, 2 * S):
        desk.driver.on_order(
            OrderRejected(
                ts_event_ns=ts_ns, intent_no=FIRST_INTENT + 1, code="-2022", reason="refused"
            )
        )
    assert desk.codes() == ["MARGIN_ACT", "ACTION_REFUSED"]
    desk.driver.hold(account(position(), as_of_ns=2 * S), 2 * S)
    assert len(desk.tape.of(ProtectionSettled)) == 1


def test_an_unknown_outcome_blocks_the_symbol_until_it_is_known():
    desk = Desk()
    desk.venue.fault = OutcomeUnknown("no answer")
    desk.driver.on_mark("BTCUSDT", DANGER, 0, 0)
    desk.driver.hold(account(position()), 0)
    for tick in range(200):
        now = tick * 100 * MS
        desk.driver.on_mark("BTCUSDT", DANGER, now, now)
        desk.driver.hold(account(position(), as_of_ns=now), now)
    assert len(desk.venue.sent) == 1
    assert desk.codes() == ["MARGIN_ACT", "ACTION_UNKNOWN"]
    desk.venue.fault = None
    desk.driver.on_order(fill(1, "2", 20 * S))
    desk.driver.hold(account(position("8", isolated="200"), as_of_ns=20 * S), 20 * S)
    assert desk.venue.moved != []


def test_an_answer_that_does_not_come_is_told_after_ten_seconds():
    desk = in_danger()
    desk.driver.on_time(11 * S - 1)
    assert "ACTION_UNKNOWN" not in desk.alarms()
    desk.driver.on_time(11 * S)
    desk.driver.on_time(12 * S)
    assert desk.alarms().count("ACTION_UNKNOWN") == 1


def test_an_answer_that_was_told_as_late_and_is_then_lost_is_not_told_again():
    desk = in_danger()
    desk.driver.on_time(11 * S)
    intent_no = desk.venue.sent[0].intent_no
    desk.driver.on_order(
        OrderOutcomeUnknown(ts_event_ns=12 * S, intent_no=intent_no, reason="lost")
    )
    assert desk.alarms().count("ACTION_UNKNOWN") == 1
    assert desk.driver.busy


def test_events_of_other_orders_are_left_aside():
    desk = in_danger()
    before = len(desk.tape.events)
    desk.driver.on_order(fill(77, "1", S))
    desk.driver.on_order(
        OrderClosed(ts_event_ns=S, intent_no=FIRST_INTENT + 77, status="expired", reason="")
    )
    desk.driver.on_order(
        OrderAccepted(ts_event_ns=S, intent_no=FIRST_INTENT + 1, venue_order_id="1")
    )
    intent = desk.venue.sent[0]
    desk.driver.on_order(
        OrderIntended(ts_event_ns=S, intent=intent, client_id="x", payload_hash="y")
    )
    assert len(desk.tape.events) == before
    assert desk.driver.busy


@given(st.integers(1, 2**32), st.integers(1, 2**40), st.integers(1, 2**40))
def test_its_orders_share_no_number_and_no_name_with_the_engines(epoch, plan, intent_no):
    name = client_id(epoch, FIRST_INTENT + plan)
    assert parse_client_id(name) == (epoch, FIRST_INTENT + plan)
    assert name != client_id(epoch, intent_no)
    assert len(name) <= 36


def test_events_of_the_engines_intent_of_the_same_number_are_left_aside():
    desk = in_danger()
    [planned] = desk.tape.of(ProtectionPlanned)
    assert (planned.number, planned.intent.intent_no) == (1, FIRST_INTENT + 1)
    engines = fill(1 - FIRST_INTENT, "2", 2 * S)
    assert engines.fill.intent_no == 1
    desk.driver.on_order(engines)
    desk.driver.on_order(OrderClosed(ts_event_ns=2 * S, intent_no=1, status="canceled", reason=""))
    desk.driver.hold(account(position(), as_of_ns=2 * S), 2 * S)
    assert desk.driver.busy


def test_a_plan_of_an_older_journal_is_known_by_the_number_its_intent_had():
    [planned] = in_danger().tape.of(ProtectionPlanned)
    older = msgspec.structs.replace(
        planned, intent=msgspec.structs.replace(planned.intent, intent_no=1)
    )
    after = Desk(first_number=2)
    after.driver.resume([older])
    after.driver.on_order(fill(1 - FIRST_INTENT, "2", 2 * S))
    after.driver.hold(account(position("8", isolated="200"), as_of_ns=2 * S), 2 * S)
    assert [settled.status for settled in after.tape.of(ProtectionSettled)] == ["filled"]


def test_what_risk_refuses_is_told_and_not_sent():
    desk = in_danger(first_number=1)
    wallet = desk.driver.wallets[0]
    desk.driver._carry_out(  # a plan for more than the leg holds, which no ladder makes
        desk.driver._ladder.close(wallet, wallet.legs[0], "x", S) or _plan_of(desk, wallet, D(11)),
        wallet,
        wallet.legs[0],
    )
    assert len(desk.venue.sent) == 1
    assert "ACTION_REFUSED" in desk.alarms()


def _plan_of(desk, wallet, quantity):
    from bot4_runtime.risk.ladder import Plan

    return Plan(99, "close", wallet, wallet.legs[0], quantity, D(0), "too much", S)


# --------------------------------------------------- twice, late and out of order
def test_a_trade_that_is_told_twice_counts_once_and_does_not_end_an_action():
    desk = in_danger()
    half = fill(1, "1", 2 * S)
    desk.driver.on_order(half)
    desk.driver.on_order(half)
    desk.driver.on_mark("BTCUSDT", 76.9, 3 * S, 3 * S)
    desk.driver.hold(account(position("9", isolated="225"), as_of_ns=3 * S), 3 * S)
    assert desk.driver.busy
    assert desk.tape.of(ProtectionSettled) == []
    assert len(desk.tape.of(ProtectionPlanned)) == 1, "the next action would overlap"


def test_an_action_is_not_over_by_a_reading_from_before_its_latest_trade():
    desk = in_danger()
    desk.driver.on_order(fill(1, "0.5", 3 * S))
    desk.driver.on_order(
        OrderClosed(ts_event_ns=2 * S, intent_no=FIRST_INTENT + 1, status="expired", reason="")
    )
    desk.driver.hold(account(position(), as_of_ns=2 * S), 3 * S)
    assert desk.driver.busy
    desk.driver.hold(account(position("9.5"), as_of_ns=3 * S), 3 * S)
    [settled] = desk.tape.of(ProtectionSettled)
    assert settled.ts_event_ns == 3 * S


@given(st.data(), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_duplicates_and_any_order_of_messages_end_an_action_the_same(data, parts):
    """F10: 2 BTC are to be sold; the parts, in tenths, are told until the order is done."""
    left, messages = 20, []
    for at, part in enumerate(parts, start=2):
        sold = min(part, left)
        left -= sold
        if sold:
            messages.append(fill(1, str(D(sold) / 10), at * S, price=str(70 + at)))
    done = D(20 - left) / 10
    spent = sum((one.fill.quantity * one.fill.price for one in messages), D(0))
    end = "filled" if left == 0 else data.draw(st.sampled_from(["expired", "canceled"]))
    if left:
        messages.append(
            OrderClosed(ts_event_ns=9 * S, intent_no=FIRST_INTENT + 1, status=end, reason="short")
        )
    messages += [
        OrderAccepted(ts_event_ns=S, intent_no=FIRST_INTENT + 1, venue_order_id="1"),
        OrderOutcomeUnknown(ts_event_ns=S, intent_no=FIRST_INTENT + 1, reason="no answer"),
    ]
    again = data.draw(st.lists(st.sampled_from(messages), max_size=4))
    desk = in_danger()
    for message in data.draw(st.permutations(messages + again)):
        desk.driver.on_order(message)
    last_ns = 9 * S if left else max(one.ts_event_ns for one in messages)
    desk.driver.hold(account(position(str(10 - done)), as_of_ns=last_ns - 1), 10 * S)
    assert desk.driver.busy
    desk.driver.hold(account(position(str(10 - done)), as_of_ns=last_ns), 10 * S)
    assert desk.tape.of(ProtectionSettled) == [
        ProtectionSettled(
            ts_event_ns=last_ns,
            number=1,
            status=end,
            filled=done,
            spent=spent,
            text="short" if left else "",
        )
    ]
    assert desk.codes().count("ACTION_UNKNOWN") == 1


# ------------------------------------------------------------------------- margin
def margin_desk(fault=None) -> Desk:
    desk = Desk(actions=("add_margin",))
    desk.venue.fault = fault
    desk.driver.on_mark("BTCUSDT", DANGER, 0, 0)
    desk.driver.hold(account(position()), 0)
    return desk


def test_added_margin_is_over_once_the_account_shows_it():
    desk = margin_desk()
    [planned] = desk.tape.of(ProtectionPlanned)
    assert (planned.action, planned.amount, planned.intent, planned.client_id) == (
        "add_margin",
        D(500),
        None,
        "",
    )
    desk.driver.hold(account(position(), as_of_ns=100 * MS - 1), 100 * MS)
    assert desk.driver.busy
    desk.driver.hold(account(position(isolated="750"), as_of_ns=100 * MS), 100 * MS)
    assert not desk.driver.busy
    assert [settled.status for settled in desk.tape.of(ProtectionSettled)] == ["filled"]


def test_refused_margin_is_told_and_tried_again():
    desk = margin_desk(VenueRefused("not enough"))
    assert desk.codes() == ["MARGIN_ACT", "ACTION_REFUSED"]
    desk.driver.hold(account(position(), as_of_ns=1), 1)
    assert [settled.status for settled in desk.tape.of(ProtectionSettled)] == ["rejected"]
    assert len(desk.venue.moved) == 2


def test_margin_of_unknown_outcome_is_looked_up_after_ten_seconds():
    desk = margin_desk(OutcomeUnknown("no answer"))
    assert desk.codes() == ["MARGIN_ACT", "ACTION_UNKNOWN"]
    desk.driver.hold(account(position(), as_of_ns=10 * S - 1), 10 * S)
    assert desk.driver.busy
    desk.venue.fault = None
    desk.driver.hold(account(position(isolated="750"), as_of_ns=10 * S), 10 * S)
    assert not desk.driver.busy


# ------------------------------------------------------------------- after a restart
def test_actions_left_open_block_their_symbols_after_a_restart():
    before = in_danger()
    [planned] = before.tape.of(ProtectionPlanned)
    after = Desk(first_number=2)
    after.driver.resume([planned])
    after.driver.on_mark("BTCUSDT", DANGER, S, S)
    after.driver.hold(account(position()), S)
    assert after.venue.sent == []
    after.driver.on_order(fill(1, "2", 2 * S))
    after.driver.hold(account(position("8", isolated="200"), as_of_ns=2 * S), 2 * S)
    assert [settled.number for settled in after.tape.of(ProtectionSettled)] == [1]
    assert after.venue.moved == [(2, "BTCUSDT", 1, D(500))]


def test_margin_left_open_waits_for_a_late_reading_of_the_account():
    [planned] = margin_desk().tape.of(ProtectionPlanned)
    after = Desk(actions=("add_margin",), first_number=2)
    after.driver.resume([planned])
    after.driver.on_mark("BTCUSDT", DANGER, S, S)
    after.driver.hold(account(position(), as_of_ns=S), S)
    assert after.venue.moved == []
    after.driver.hold(account(position(isolated="750"), as_of_ns=10 * S), 10 * S)
    assert [settled.status for settled in after.tape.of(ProtectionSettled)] == ["unknown"]


# ---------------------------------------------------------------------- the account
def test_an_older_reading_of_the_account_is_left_aside():
    desk = Desk()
    desk.driver.hold(account(position("5"), as_of_ns=2), 2)
    desk.driver.hold(account(position("9"), as_of_ns=1), 3)
    assert desk.driver.wallets[0].legs[0].size == D(5)


def test_isolated_legs_have_wallets_of_their_own_and_cross_ones_share():
    desk = Desk()
    positions = (
        position(),
        position(side="short"),
        position(symbol="ETHUSDT", isolated=None),
        position(symbol="ETHUSDT", side="short", isolated=None),
    )
    desk.driver.hold(account(*positions), 0)
    assert [(one.name, one.balance, len(one.legs)) for one in desk.driver.wallets] == [
        ("BTCUSDT long", 250.0, 1),
        ("BTCUSDT short", 250.0, 1),
        ("cross", 1000.0, 2),
    ]


def test_a_symbol_without_brackets_is_told_once_stops_entries_and_is_protected():
    """4x, maintenance 2.5 %: (100 - 25) / 0.975 = 76.92 liquidates, 79.23 is 90 % of the way."""
    desk = Desk(brackets={})
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    desk.driver.hold(account(position()), 0)
    desk.driver.hold(account(position(), as_of_ns=1), 1)
    assert desk.codes() == ["BRACKETS_UNKNOWN"]
    assert not desk.driver.entries_allowed
    desk.driver.on_mark("BTCUSDT", 79.3, 1, 1)
    assert desk.venue.sent == []
    desk.driver.on_mark("BTCUSDT", 79.2, 2, 2)
    assert [sent.quantity for sent in desk.venue.sent] == [D(2)]
    desk.driver.hold(account(as_of_ns=3), 3)
    assert desk.driver.entries_allowed


def test_dust_without_brackets_leaves_its_cross_wallet_protected():
    """100 of balance, 10 BTCUSDT bought at 100: at 91 it has 10 left and needs 3.6 of it."""
    legs = (position(isolated=None), position("0.001", symbol="ETHUSDT", isolated=None))
    desks = Desk(), Desk(brackets={"BTCUSDT": FLAT["BTCUSDT"]})
    for desk in desks:
        desk.driver.on_marks({"BTCUSDT": 91.0, "ETHUSDT": 100.0}, S, S)
        desk.driver.hold(account(*legs, as_of_ns=S, cross="100"), S)
        assert [(sent.symbol, sent.quantity) for sent in desk.venue.sent] == [("BTCUSDT", D(2))]
    known, assumed = (desk.driver.wallets[0].worst for desk in desks)
    assert known < assumed < known + 0.001


def test_a_crossed_stop_of_a_symbol_without_brackets_is_done():
    desk = Desk(brackets={})
    desk.driver.on_mark("BTCUSDT", 100.0, S, S)
    desk.driver.hold(account(position(stop_price=D(98), stop_live=True), as_of_ns=S), S)
    desk.driver.on_mark("BTCUSDT", 97.0, 2 * S, 2 * S)
    desk.driver.on_mark("BTCUSDT", 97.0, 9 * S, 9 * S)
    assert [sent.quantity for sent in desk.venue.sent] == [D(10)]


@pytest.mark.parametrize(("own", "price"), [("-1.5", 100.0), ("0", 100.0), ("-1.5", 100.1)])
def test_an_isolated_position_that_used_up_its_margin_is_acted_on_at_once(own, price):
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", price, 0, 0)
    desk.driver.hold(account(position(isolated=own)), 0)
    assert desk.driver.wallets[0].worst == float("inf")
    assert desk.codes() == ["MARGIN_CRITICAL"]
    assert [sent.quantity for sent in desk.venue.sent] == [D(2)]


def test_profit_carries_an_isolated_position_that_used_up_its_margin():
    """-1.5 of margin and 50 of profit on 10 at 105: 4.2 of 48.5 is maintenance."""
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", 105.0, 0, 0)
    desk.driver.hold(account(position(isolated="-1.5")), 0)
    assert desk.driver.wallets[0].worst == pytest.approx(4.2 / 48.5)
    assert desk.venue.sent == []


def test_another_liquidation_price_of_the_venue_is_told_once_while_it_differs():
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    wrong = position(liquidation_price=D(80))
    right = position(liquidation_price=D("75.3012"))
    for at, told in enumerate([wrong, wrong, right, wrong]):
        desk.driver.hold(account(told, as_of_ns=at), at)
    assert desk.codes() == ["VENUE_DIFFERS", "VENUE_DIFFERS"]


def test_being_out_of_steps_is_told_once():
    desk = in_danger(actions=())
    desk.driver.on_time(2 * S)
    assert desk.codes() == ["MARGIN_ACT", "ACTION_IMPOSSIBLE"]
    desk.driver.on_mark("BTCUSDT", 100.0, 3 * S, 3 * S)
    desk.driver.on_mark("BTCUSDT", DANGER, 4 * S, 4 * S)
    assert desk.codes()[2:] == ["MARGIN_CLEARED", "MARGIN_ACT", "ACTION_IMPOSSIBLE"]


def test_every_kind_of_price_and_the_clock_make_it_look():
    desk = Desk()
    desk.driver.on_marks({"BTCUSDT": 100.0}, 0, 0)
    desk.driver.hold(account(position()), 0)
    desk.driver.on_mid("BTCUSDT", DANGER, 1, 1)
    assert desk.codes() == ["MARGIN_ACT"]
    desk.driver.on_trade(4 * S)
    assert desk.codes()[-1] == "MARK_STALE"
    desk.driver.on_marks({"BTCUSDT": 100.0}, 5 * S, 5 * S)
    assert desk.driver.entries_allowed


def test_numbers_that_are_not_known_are_none_in_events():
    desk = Desk()
    desk.driver.hold(account(position()), 0)
    assert all(
        msgspec.json.decode(msgspec.json.encode(alarm), type=ProtectionAlarm) == alarm
        for alarm in desk.tape.of(ProtectionAlarm)
    )
    [unknown] = [a for a in desk.tape.of(ProtectionAlarm) if a.code == "MARGIN_UNKNOWN"]
    assert set(unknown.numbers.values()) == {None}


# -------------------------------------------------------------------- prices too old
def test_the_last_known_danger_is_acted_on_for_a_minute_and_not_after_it():
    desk = in_danger()
    for second in range(2, 200):
        desk.driver.on_time(second * S)
        for plan in desk.tape.of(ProtectionPlanned):  # every order fills a second later
            if plan.intent is not None and plan.ts_event_ns == (second - 1) * S:
                desk.driver.on_order(fill(plan.number, str(plan.intent.quantity), second * S))
        size = 10 - sum(sent.quantity for sent in desk.venue.sent)
        held = position(str(size), isolated=str(25 * size))
        if second % 10 == 0:
            desk.driver.hold(account(held, as_of_ns=second * S, free="0"), second * S)
    begun = [plan.ts_event_ns // S for plan in desk.tape.of(ProtectionPlanned)]
    assert len(begun) > 3
    assert max(begun) <= 61
    assert desk.codes()[-1] == "ACTION_IMPOSSIBLE"
    assert desk.codes().count("MARK_STALE") == 1
    before = len(begun)
    desk.driver.on_mid("BTCUSDT", 77.0, 200 * S, 200 * S)
    assert len(desk.tape.of(ProtectionPlanned)) == before + 1


@pytest.mark.parametrize(("age_s", "steps"), [(0, 1), (60, 1), (61, 0), (99, 0)])
def test_a_position_first_seen_by_an_old_price_is_not_cut_on_it(age_s, steps):
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", DANGER, S, S)
    desk.driver.hold(account(position()), (1 + age_s) * S)
    assert len(desk.venue.sent) == steps
    assert desk.driver.entries_allowed is False


def test_a_blind_leg_of_a_cross_wallet_leaves_the_others_protected():
    desk = Desk()
    desk.driver.on_marks({"BTCUSDT": 100.0, "ETHUSDT": 100.0}, 0, 0)
    legs = (position(isolated=None), position("1", symbol="ETHUSDT", isolated=None))
    desk.driver.hold(account(*legs, cross="100"), 0)
    desk.driver.on_mark("BTCUSDT", 91.0, 100 * S, 100 * S)
    [planned] = desk.tape.of(ProtectionPlanned)
    assert (planned.symbol, planned.wallet) == ("BTCUSDT", "cross")


def test_margin_goes_to_no_leg_whose_price_is_too_old():
    desk = Desk(actions=("add_margin",))
    desk.driver.on_mark("BTCUSDT", DANGER, 0, 0)
    desk.driver.hold(account(position()), 61 * S)
    assert desk.venue.moved == []
    assert "ACTION_IMPOSSIBLE" in desk.alarms()


def test_a_price_that_is_too_old_crosses_no_stop_but_an_old_crossing_is_done():
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", 97.0, 0, 0)
    desk.driver.hold(account(position(stop_price=D(98), stop_live=True)), 61 * S)
    desk.driver.on_time(70 * S)
    assert desk.venue.sent == []
    desk.driver.on_mark("BTCUSDT", 97.0, 71 * S, 71 * S)
    desk.driver.on_time(76 * S)
    assert [sent.quantity for sent in desk.venue.sent] == [D(10)]


# --------------------------------------------------------------------------- stops
def test_a_stop_that_is_crossed_and_not_done_is_closed_whatever_the_measure():
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    desk.driver.hold(account(position(stop_price=D(98), stop_live=True)), 0)
    desk.driver.on_mark("BTCUSDT", 97.0, S, S)
    desk.driver.on_mark("BTCUSDT", 99.0, 6 * S, 6 * S)
    [planned] = desk.tape.of(ProtectionPlanned)
    assert (planned.action, planned.reason) == ("close", "BTCUSDT long, stop 98.0 is not done")
    assert desk.venue.sent[0].quantity == D(10)
    desk.driver.on_time(7 * S)
    assert len(desk.venue.sent) == 1
    assert desk.alarms() == ["STOP_NOT_DONE"]


@given(
    st.integers(10**6, 10**9).map(lambda ticks: D(ticks) / 10),
    st.sampled_from([D("0.1"), D("0.8"), D(1), D(5)]),
)
def test_a_stop_that_was_moved_by_a_tick_is_another_one_and_is_waited_for_anew(stop, lower):
    desk = Desk()
    price = float(stop) - 0.05
    desk.driver.on_mark("BTCUSDT", price, 0, 0)

    def held(trigger):
        return MarginPosition(
            symbol="BTCUSDT",
            side="long",
            size=D(1),
            entry_price=stop,
            isolated_wallet=stop,
            stop_price=trigger,
            stop_live=True,
        )

    desk.driver.hold(account(held(stop)), 0)
    desk.driver.hold(account(held(stop - lower), as_of_ns=S), S)
    for second in range(2, 10):
        desk.driver.on_mark("BTCUSDT", price, second * S, second * S)
    assert desk.venue.sent == []


def test_a_missing_stop_is_placed_again_once_for_every_reading_that_lacks_it():
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    lacking = position(stop_price=D(95))
    desk.driver.hold(account(lacking), 0)
    [intent] = desk.venue.sent
    assert (intent.order_type, intent.purpose, intent.stop_price, intent.quantity) == (
        OrderType.STOP_MARKET,
        Purpose.STOP,
        D("95.0"),
        D(10),
    )
    assert (intent.side, intent.reduce_only, intent.time_in_force) == (
        Side.SELL,
        True,
        TimeInForce.GTC,
    )
    desk.driver.on_mark("BTCUSDT", 100.0, 6 * S, 6 * S)
    assert len(desk.venue.sent) == 1
    desk.driver.on_mark("BTCUSDT", 100.0, 12 * S, 12 * S)
    desk.driver.hold(account(lacking, as_of_ns=12 * S), 12 * S)
    assert [settled.status for settled in desk.tape.of(ProtectionSettled)] == ["accepted"]
    assert [sent.intent_no - FIRST_INTENT for sent in desk.venue.sent] == [1]
    desk.driver.on_mark("BTCUSDT", 100.0, 18 * S, 18 * S)
    assert [sent.intent_no - FIRST_INTENT for sent in desk.venue.sent] == [1, 2]


def asking(fault=None) -> Desk:
    """A desk that asked for a stop at 95 and got no answer, or an acceptance."""
    desk = Desk()
    desk.venue.fault = fault
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    desk.driver.hold(account(position(stop_price=D(95))), 0)
    return desk


def test_a_stop_of_unknown_outcome_is_never_sent_again_while_it_is_unknown():
    """F9: whatever the readings say, the first may have been placed."""
    desk = asking(OutcomeUnknown("no answer"))
    for at in range(1, 100):
        desk.driver.on_mark("BTCUSDT", 100.0, at * S, at * S)
        lacking = position(stop_price=D(95 if at < 50 else 94))
        desk.driver.hold(account(lacking, as_of_ns=at * S), at * S)
    assert len(desk.venue.sent) == 1
    assert desk.driver.busy
    assert desk.alarms().count("ACTION_UNKNOWN") == 1


def test_a_stop_of_unknown_outcome_is_placed_once_a_reading_shows_it():
    desk = asking(OutcomeUnknown("no answer"))
    others = position(stop_price=D(94), stop_live=True)
    desk.driver.hold(account(others, as_of_ns=1), 1)
    assert desk.driver.busy, "another stop rests"
    desk.driver.hold(account(position(stop_price=D(95)), as_of_ns=2), 2)
    assert desk.driver.busy, "it does not rest"
    desk.driver.hold(account(position(stop_price=D("95.0"), stop_live=True), as_of_ns=3), 3)
    [settled] = desk.tape.of(ProtectionSettled)
    assert (settled.status, settled.ts_event_ns) == ("accepted", 3)


def test_a_stop_that_was_never_placed_is_asked_for_anew():
    desk = asking(OutcomeUnknown("no answer"))
    desk.venue.fault = None
    desk.driver.on_order(
        OrderClosed(
            ts_event_ns=20 * S, intent_no=FIRST_INTENT + 1, status="never_placed", reason="absent"
        )
    )
    lacking = position(stop_price=D(95))
    desk.driver.on_mark("BTCUSDT", 100.0, 20 * S, 20 * S)
    desk.driver.hold(account(lacking, as_of_ns=20 * S - 1), 20 * S)
    assert len(desk.venue.sent) == 1
    desk.driver.hold(account(lacking, as_of_ns=25 * S), 25 * S)
    assert [sent.intent_no - FIRST_INTENT for sent in desk.venue.sent] == [1, 2]
    assert [settled.status for settled in desk.tape.of(ProtectionSettled)] == ["never_placed"]


def test_stops_of_other_legs_are_asked_for_while_one_is_unknown():
    desk = asking(OutcomeUnknown("no answer"))
    both = (
        position(stop_price=D(95)),
        position(side="short", stop_price=D(105)),
        position(symbol="ETHUSDT", stop_price=D(95)),
    )
    desk.driver.on_mark("ETHUSDT", 100.0, S, S)
    desk.driver.hold(account(*both, as_of_ns=S), S)
    assert [(sent.symbol, sent.side) for sent in desk.venue.sent] == [
        ("BTCUSDT", Side.SELL),
        ("BTCUSDT", Side.BUY),
        ("ETHUSDT", Side.SELL),
    ]


@pytest.mark.parametrize("known", ["nothing", "accepted", "shown"])
def test_a_stop_left_open_by_a_crash_leaves_its_symbol_protected(known):
    [planned] = asking().tape.of(ProtectionPlanned)
    after = Desk(first_number=2)
    after.driver.resume([planned])
    after.driver.on_mark("BTCUSDT", 100.0, S, S)
    if known == "accepted":
        after.driver.on_order(
            OrderAccepted(ts_event_ns=S, intent_no=FIRST_INTENT + 1, venue_order_id="1")
        )
    held = position(stop_price=D(95), stop_live=known == "shown")
    after.driver.hold(account(held, as_of_ns=S), S)
    settled = [one.status for one in after.tape.of(ProtectionSettled)]
    assert settled == ([] if known == "nothing" else ["accepted"])
    stops = [sent for sent in after.venue.sent if sent.purpose is Purpose.STOP]
    assert [sent.intent_no - FIRST_INTENT for sent in stops] == (
        [2] if known == "accepted" else []
    )
    after.driver.on_mark("BTCUSDT", DANGER, 2 * S, 2 * S)
    cuts = [sent for sent in after.venue.sent if sent.purpose is Purpose.EMERGENCY]
    assert [sent.quantity for sent in cuts] == [D(2)]


@given(
    st.permutations(["accepted", "unknown", "never_placed", "canceled"]),
    st.sets(st.sampled_from(["unknown", "never_placed", "canceled"])),
)
def test_what_is_told_of_a_stop_in_any_order_ends_it_the_same(order, left_out):
    """Accepted is firmer than missed, and a cancel firmer than both."""
    desk = asking(OutcomeUnknown("no answer"))
    told = [kind for kind in order if kind not in left_out]
    for kind in told:
        if kind == "accepted":
            event = OrderAccepted(ts_event_ns=S, intent_no=FIRST_INTENT + 1, venue_order_id="1")
        elif kind == "unknown":
            event = OrderOutcomeUnknown(
                ts_event_ns=S, intent_no=FIRST_INTENT + 1, reason="no answer"
            )
        else:
            event = OrderClosed(ts_event_ns=S, intent_no=FIRST_INTENT + 1, status=kind, reason="")
        desk.driver.on_order(event)
    desk.driver.hold(account(position(stop_price=D(95)), as_of_ns=S), S)
    [settled] = desk.tape.of(ProtectionSettled)
    assert settled.status == ("canceled" if "canceled" in told else "accepted")


def test_a_stop_that_risk_refuses_is_told_once_for_every_reading_and_not_sent():
    desk = Desk(risk=Refusing())
    for number in range(3):
        at = number * 6 * S
        desk.driver.on_mark("BTCUSDT", 100.0, at, at)
        desk.driver.hold(account(position(stop_price=D(95)), as_of_ns=at), at)
        desk.driver.on_mark("BTCUSDT", 100.0, at + 5 * S, at + 5 * S)
        assert desk.alarms().count("ACTION_REFUSED") == number + 1
    assert desk.venue.sent == []
    assert desk.tape.of(ProtectionPlanned) == []
    assert not desk.driver.busy


def test_a_position_without_a_stop_price_alarms_and_nothing_can_be_placed():
    desk = Desk()
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    desk.driver.hold(account(position()), 0)
    assert desk.alarms() == ["STOP_MISSING"]
    assert desk.venue.sent == []


def test_a_missing_stop_of_a_symbol_without_brackets_is_placed_for_all_it_holds():
    desk = Desk(brackets={})
    desk.driver.on_mark("BTCUSDT", 100.0, 0, 0)
    desk.driver.hold(account(position(stop_price=D(95))), 0)
    assert [(sent.purpose, sent.quantity) for sent in desk.venue.sent] == [(Purpose.STOP, D(10))]


# ------------------------------------------------------- storms: latency, loss, parts
@given(
    seed=st.integers(0, 2**32),
    latency=st.tuples(st.integers(0, 2500), st.integers(2500, 5000)),
    ack_loss=st.floats(0, 0.7),
    partial=st.floats(0, 0.9),
    shape=st.sampled_from(["isolated", "cross", "hedge"]),
    side=st.sampled_from(["long", "short"]),
    moves=st.lists(st.floats(-0.03, 0.012), min_size=5, max_size=25),
)
def test_protective_cuts_never_pass_their_plans_overlap_or_turn_a_position(
    seed, latency, ack_loss, partial, shape, side, moves
):
    """F18, I6: latency 0-5 s, lost answers, partial fills; the sum of cuts stays in the plan."""
    sign = 1 if side == "long" else -1
    own = "250" if shape == "isolated" else None
    legs = [position(side=side, isolated=own)]
    if shape != "isolated":
        legs.append(position(symbol="ETHUSDT", side=side, isolated=None))
    if shape == "hedge":
        opposite = "short" if side == "long" else "long"
        legs.append(position("4", side=opposite, isolated=None))
    marks = {"BTCUSDT": 100.0, "ETHUSDT": 100.0}
    rules = lot_rules(marks)
    begun = account(*legs, free="100", cross="100" if own else "500")
    venue = SimulatedUsdm(
        begun,
        FLAT,
        rules=rules,
        faults=Faults(latency_ms=latency, ack_loss=ack_loss, partial=partial),
        seed=seed,
    )
    tape = Tape()
    driver = ProtectionMonitor(
        limits=LiquidationLimits(),
        rules=rules,
        brackets=FLAT,
        hands=GateHands(
            risk=RiskManager(RiskLimits()),
            gate=Gate(venue, GateLimits(120, Decimal(1_000_000), 0.5), 1),
            margin=venue,
            epoch=1,
        ),
        ledger=tape,
    )
    venue.set_marks(marks, 0)
    driver.on_marks(marks, 0, 0)
    driver.hold(begun, 0)
    held = venue.positions
    now = 0
    for move in moves:
        marks = {symbol: price * (1 + sign * move) for symbol, price in marks.items()}
        for tick in range(12):
            now += 100 * MS
            gone = venue.set_marks(marks if tick == 0 else {}, now)
            filled: dict[str, Decimal] = {}
            for event in venue.poll(now):
                driver.on_order(event)
                if isinstance(event, OrderFilled):
                    leg = "long" if event.fill.side is Side.SELL else "short"
                    name = f"{event.fill.symbol} {leg}"
                    filled[name] = filled.get(name, D(0)) + event.fill.quantity
            if tick % 3 == 0 or gone:
                driver.hold(venue.holdings(now), now)
            driver.on_marks(marks, now, now)
            for name, size in venue.positions.items():
                assert size * held[name] > 0, "a position turned"
                assert abs(size) == abs(held[name]) - filled.get(name, D(0))
            held = venue.positions
            _no_overlap(tape)
    planned = {plan.number: plan for plan in tape.of(ProtectionPlanned)}
    for settled in tape.of(ProtectionSettled):
        intent = planned[settled.number].intent
        assert settled.filled <= (intent.quantity if intent is not None else 0)
    assert len({plan.client_id for plan in planned.values() if plan.intent is not None}) == len(
        [plan for plan in planned.values() if plan.intent is not None]
    )


def _no_overlap(tape: Tape) -> None:
    """At most one plan a leg is open at any time, and one symbol's plans begin together."""
    open_plans: dict[str, list[ProtectionPlanned]] = {}
    for event in tape.events:
        if isinstance(event, ProtectionPlanned):
            others = open_plans.setdefault(event.symbol, [])
            assert all(other.ts_event_ns == event.ts_event_ns for other in others)
            sides = [other.intent.side for other in others if other.intent is not None]
            assert event.intent is None or event.intent.side not in sides
            others.append(event)
        elif isinstance(event, ProtectionSettled):
            for plans in open_plans.values():
                plans[:] = [plan for plan in plans if plan.number != event.number]
