"""The gate's own ceilings: orders, notional and rejections, over restarts, never against exits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.clock import NS_PER_S
from bot4_runtime.domain.candle import Candle, Origin
from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.errors import OutcomeUnknown, VenueRefused, VenueUnreachable
from bot4_runtime.domain.events import (
    SCHEMA_VERSION,
    OrderAccepted,
    OrderClosed,
    OrderEvent,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    SessionStarted,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    OWN_CODES,
    Book,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.exchange.gate import (
    JUDGED_ORDERS,
    NO_ENTRIES,
    REJECTION_PAUSE_NS,
    Gate,
    GateLimits,
)
from bot4_runtime.state.book import KEPT
from bot4_runtime.state.trading_state import TradingState

MINUTE_NS = 60 * NS_PER_S
PAUSE_NS = REJECTION_PAUSE_NS
D = Decimal
ONE = D(1)
BEGUN = SessionStarted(
    ts_event_ns=0, epoch=1, mode="paper", source="simulated", origin=Origin.SIMULATED,
    strategy="drill", config_hash="", schema_version=SCHEMA_VERSION, warm_from_ms=0, start_ms=0,
    quote="USDT", initial_cash=D(10_000), books=(Book.VALIDATED, Book.SHADOW),
)  # fmt: skip
WIDE = GateLimits(orders_per_minute=600, notional_per_minute=D(10**9), reject_ratio=0.5)


class AnsweringVenue:
    """Answers each order as the test says; what reached it is in `sent`."""

    name = "answering"
    in_process = False

    def __init__(self) -> None:
        self.answer = "accept"
        self.sent: list[int] = []

    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        if self.answer == "unreachable":
            raise VenueUnreachable("no route")
        self.sent.append(intent.intent_no)
        if self.answer == "refuse":
            raise VenueRefused("-1013 filter")
        if self.answer == "lose":
            raise OutcomeUnknown("the reply was lost")
        if self.answer == "reject":
            return [
                OrderRejected(
                    ts_event_ns=0, intent_no=intent.intent_no, code="-2010", reason="no balance"
                )
            ]
        return [OrderAccepted(ts_event_ns=0, intent_no=intent.intent_no, venue_order_id="1")]

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        return [
            OrderClosed(
                ts_event_ns=now_ns, intent_no=order.intent.intent_no, status="canceled", reason=""
            )
        ]

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        return []


@dataclass
class Wire:
    """A gate, its venue, and the orders that went through, as the journal has them."""

    gate: Gate
    venue: AnsweringVenue
    orders: dict[int, Order]
    events: list[OrderEvent | OrderIntended] = field(default_factory=list)

    @classmethod
    def open(cls, limits: GateLimits) -> "Wire":
        venue = AnsweringVenue()
        return cls(Gate(venue, limits, epoch=1), venue, {})

    def send(
        self,
        *,
        ts_ns: int = 0,
        quantity: Decimal = ONE,
        purpose: Purpose = Purpose.ENTRY,
        answer: str = "accept",
    ) -> str:
        """Return the code an order was rejected with; empty when it was not."""
        number = len(self.orders) + 1
        event = self.intended(number, ts_ns=ts_ns, quantity=quantity, purpose=purpose)
        self.venue.answer = answer
        (told,) = self.gate._submit(event, durable=True, cash_free=1e9)
        self.events += [event, told]
        status, reason, code = _outcome(told)
        self.orders[number] = Order(
            intent=event.intent,
            client_id=event.client_id,
            status=status,
            filled=D(0),
            spent=D(0),
            cancel_requested=False,
            age=0,
            reason=reason,
        )
        return code

    @staticmethod
    def intended(
        number: int,
        *,
        ts_ns: int = 0,
        quantity: Decimal = ONE,
        purpose: Purpose = Purpose.ENTRY,
    ) -> OrderIntended:
        leaves = purpose is not Purpose.ENTRY
        intent = OrderIntent(
            intent_no=number,
            book=Book.SHADOW if number % 2 else Book.VALIDATED,
            purpose=purpose,
            symbol="BTCUSDT",
            side=Side.SELL if leaves else Side.BUY,
            order_type=OrderType.STOP_MARKET if purpose is Purpose.STOP else OrderType.MARKET,
            quantity=quantity,
            price=None,
            stop_price=D(100) if purpose is Purpose.STOP else None,
            time_in_force=TimeInForce.GTC,
            reduce_only=leaves,
            reference_price=D(100),
            stop_loss=None if leaves else D(90),
            expires_after=0,
            signal_id="s",
            rule_id="r",
            ts_ns=ts_ns,
        )
        return OrderIntended(
            ts_event_ns=ts_ns,
            intent=intent,
            client_id=client_id(1, number),
            payload_hash=payload_hash(intent),
        )

    def restarted(self, limits: GateLimits) -> "Wire":
        """Return the gate of the next process, over the same orders."""
        again = Wire(Gate(self.venue, limits, epoch=1), self.venue, dict(self.orders))
        again.gate.remember(again.orders.values())
        return again


def _outcome(told: OrderEvent) -> tuple[OrderStatus, str, str]:
    if isinstance(told, OrderRejected):
        return OrderStatus.REJECTED, f"{told.code} {told.reason}", told.code
    if isinstance(told, OrderClosed):
        return OrderStatus(told.status), told.reason, ""
    unknown = isinstance(told, OrderOutcomeUnknown)
    return OrderStatus.UNKNOWN if unknown else OrderStatus.ACCEPTED, "", ""


def limits(**changed: object) -> GateLimits:
    return GateLimits(
        **{
            "orders_per_minute": 600,
            "notional_per_minute": D(10**9),
            "reject_ratio": 0.5,
        }
        | changed
    )


# ---------------------------------------------------------------------- notional
def test_entries_within_a_minute_come_to_the_ceiling_and_no_further() -> None:
    wire = Wire.open(limits(notional_per_minute=D(300)))
    assert [wire.send(quantity=D(n)) for n in (2, 1)] == ["", ""]
    assert wire.send(ts_ns=MINUTE_NS - 1, quantity=D("0.00000001")) == "GATE_NOTIONAL"
    assert wire.send(ts_ns=MINUTE_NS, quantity=D(3)) == ""
    assert wire.venue.sent == [1, 2, 4]


def test_an_entry_larger_than_the_ceiling_never_passes_and_says_both_numbers() -> None:
    wire = Wire.open(limits(notional_per_minute=D(300)))
    assert wire.send(quantity=D("3.5")) == "GATE_NOTIONAL"
    assert wire.orders[1].reason == (
        "GATE_NOTIONAL with it, entries within a minute come to 350.0 of quote, over the gate's "
        "own ceiling of 300"
    )


@pytest.mark.parametrize("answer", ["refuse", "reject", "lose", "unreachable"])
def test_what_went_out_counts_whatever_came_of_it(answer: str) -> None:
    wire = Wire.open(limits(notional_per_minute=D(100)))
    wire.send(answer=answer)
    assert wire.send() == "GATE_NOTIONAL"


def test_what_the_gate_refused_is_not_counted() -> None:
    wire = Wire.open(limits(notional_per_minute=D(100)))
    assert wire.send(quantity=D(2)) == "GATE_NOTIONAL"
    assert wire.send() == ""


@pytest.mark.parametrize("purpose", [Purpose.EXIT, Purpose.STOP, Purpose.EMERGENCY])
def test_what_reduces_neither_counts_as_notional_nor_is_stopped_by_it(purpose: Purpose) -> None:
    wire = Wire.open(limits(notional_per_minute=D(100)))
    assert wire.send(quantity=D(50), purpose=purpose) == ""
    assert wire.send() == ""
    assert wire.send() == "GATE_NOTIONAL"
    assert wire.send(quantity=D(50), purpose=purpose) == ""
    assert wire.gate.cancel(wire.orders[2], 5) != []


def test_a_gate_without_entries_passes_what_reduces() -> None:
    wire = Wire.open(NO_ENTRIES)
    assert wire.send(purpose=Purpose.STOP) == ""
    assert wire.send(ts_ns=2 * MINUTE_NS) == "GATE_CEILING"
    assert wire.send(purpose=Purpose.EXIT, answer="refuse") == "VENUE_REFUSED"


# -------------------------------------------------------------------- rejections
def rejections_until_paused(wire: Wire, answer: str = "reject", at_ns: int = 0) -> int:
    for count in range(JUDGED_ORDERS + 1):
        if wire.send(ts_ns=at_ns, answer=answer) == "GATE_REJECTIONS":
            return count
    raise AssertionError("entries never paused")


@pytest.mark.parametrize("answer", ["reject", "refuse"])
def test_entries_pause_when_more_than_the_ratio_was_rejected(answer: str) -> None:
    wire = Wire.open(WIDE)
    assert rejections_until_paused(wire, answer) == JUDGED_ORDERS // 2 + 1
    assert wire.orders[12].reason == (
        "GATE_REJECTIONS 11 of the last 20 orders were rejected, more than the gate's own "
        "ceiling of 50%; entries pause for 60 minutes after the last"
    )


def test_orders_that_went_well_keep_the_ratio_down() -> None:
    wire = Wire.open(WIDE)
    codes = [wire.send(answer=("accept", "refuse")[n % 2]) for n in range(100)]
    assert set(codes) == {"", "VENUE_REFUSED"}


@pytest.mark.parametrize("answer", ["lose", "unreachable"])
def test_what_has_no_answer_is_no_rejection(answer: str) -> None:
    wire = Wire.open(WIDE)
    assert [wire.send(answer=answer) for _ in range(50)] == [""] * 50


def test_what_never_reached_the_venue_does_not_water_the_ratio_down() -> None:
    wire = Wire.open(WIDE)
    for _ in range(11):
        wire.send(answer="refuse")
        wire.send(purpose=Purpose.EXIT, answer="unreachable")
    assert wire.restarted(WIDE).send() == "GATE_REJECTIONS"
    assert wire.send() == "GATE_REJECTIONS"


@pytest.mark.parametrize("purpose", [Purpose.EXIT, Purpose.STOP, Purpose.EMERGENCY])
def test_what_reduces_is_judged_and_never_stopped_by_rejections(purpose: Purpose) -> None:
    wire = Wire.open(WIDE)
    assert [wire.send(purpose=purpose, answer="refuse") for _ in range(50)] == [
        "VENUE_REFUSED"
    ] * 50
    assert wire.send() == "GATE_REJECTIONS"
    assert wire.gate.cancel(wire.orders[1], 5) != []


def test_after_the_pause_entries_pass_and_a_rejection_pauses_them_again() -> None:
    wire = Wire.open(WIDE)
    rejections_until_paused(wire)
    assert wire.send(ts_ns=PAUSE_NS - 1) == "GATE_REJECTIONS"
    assert wire.send(ts_ns=PAUSE_NS) == ""
    assert wire.send(ts_ns=PAUSE_NS, answer="refuse") == "VENUE_REFUSED"
    assert wire.send(ts_ns=PAUSE_NS) == "GATE_REJECTIONS"
    assert wire.send(ts_ns=2 * PAUSE_NS - 1) == "GATE_REJECTIONS"
    assert wire.send(ts_ns=2 * PAUSE_NS) == ""


def test_only_the_last_orders_are_judged() -> None:
    wire = Wire.open(WIDE)
    for _ in range(10):
        wire.send(answer="refuse")
    for _ in range(JUDGED_ORDERS - 1):
        wire.send()
    assert wire.send(answer="refuse") == "VENUE_REFUSED"
    assert wire.send() == ""


# ----------------------------------------------------------------------- restarts
def test_a_restart_forgets_neither_notional_nor_rejections() -> None:
    rich = limits(notional_per_minute=D(300))
    wire = Wire.open(rich)
    wire.send(quantity=D(3))
    assert wire.restarted(rich).send() == "GATE_NOTIONAL"
    wire = Wire.open(WIDE)
    rejections_until_paused(wire)
    again = wire.restarted(WIDE).restarted(WIDE)
    assert again.send(ts_ns=PAUSE_NS - 1) == "GATE_REJECTIONS"
    assert again.send(ts_ns=PAUSE_NS) == ""


def test_an_order_that_turned_out_rejected_counts_so_after_a_restart() -> None:
    wire = Wire.open(WIDE)
    for _ in range(11):
        wire.send(answer="lose")
    for number, order in wire.orders.items():
        told = {"status": OrderStatus.REJECTED, "reason": "VENUE_REFUSED asked for"}
        fields = {name: getattr(order, name) for name in order.__struct_fields__} | told
        wire.orders[number] = Order(**fields)
    assert wire.restarted(WIDE).send() == "GATE_REJECTIONS"


def test_a_flood_that_the_gate_refused_does_not_wash_rejections_out_of_the_journal() -> None:
    """A strategy gone mad must not end the pause by its own refusals and a restart."""
    wire = Wire.open(WIDE)
    rejections_until_paused(wire)
    for _ in range(2 * KEPT + 1):
        assert wire.send() == "GATE_REJECTIONS"
    state = TradingState()
    for event in (BEGUN, *wire.events):
        state.apply(event)
    sent = [order for order in state.orders.values() if not order.withheld]
    assert [order.reason for order in sent] == ["-2010 no balance"] * 11
    assert len(state.orders) == 11 + 2 * KEPT, "what was withheld is remembered within bounds"
    state = TradingState.from_snapshot(state.to_snapshot())
    again = Gate(wire.venue, WIDE, epoch=1)
    again.remember(state.orders.values())
    assert Wire(again, wire.venue, dict(wire.orders)).send(ts_ns=PAUSE_NS - 1) == "GATE_REJECTIONS"
    for number in range(state.next_intent_no, state.next_intent_no + 4):
        state.apply(Wire.intended(number))
        state.apply(OrderRejected(ts_event_ns=0, intent_no=number, code="ENTRIES_WAIT", reason=""))
    assert len(state.orders) == 11 + 2 * KEPT


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 20 * NS_PER_S, MINUTE_NS, PAUSE_NS // 2, PAUSE_NS]),
        st.integers(1, 8).map(D),
        st.sampled_from([Purpose.ENTRY, Purpose.ENTRY, Purpose.ENTRY, Purpose.EXIT]),
        st.sampled_from(["accept", "reject", "refuse", "lose", "unreachable"]),
        st.booleans(),
    ),
    max_size=60,
)


def expected(wire: Wire, bounds: GateLimits, ts_ns: int, quantity: Decimal) -> str:
    """Say by the definitions, over all orders there were, what becomes of an entry."""
    sent = [o for o in wire.orders.values() if not o.reason.startswith(OWN_CODES)]
    recent = [o.intent for o in sent if o.intent.ts_ns > ts_ns - MINUTE_NS]
    entries = [i.quantity * 100 for i in recent if not i.reduce_only]
    judged = [o for o in sent if o.status is not OrderStatus.NEVER_PLACED][-JUDGED_ORDERS:]
    rejected = [o.intent.ts_ns for o in judged if o.status is OrderStatus.REJECTED]
    if len(recent) >= bounds.orders_per_minute:
        return "GATE_CEILING"
    if sum(entries) + quantity * 100 > bounds.notional_per_minute:
        return "GATE_NOTIONAL"
    if len(rejected) / JUDGED_ORDERS > bounds.reject_ratio and ts_ns - rejected[-1] < PAUSE_NS:
        return "GATE_REJECTIONS"
    return ""


@given(
    steps=STEPS,
    orders=st.integers(1, 12),
    notional=st.integers(100, 3_000).map(D),
    ratio=st.sampled_from([0.05, 0.1, 0.25, 0.5]),
)
def test_the_gate_decides_as_its_definitions_say_over_any_restarts(
    steps: list, orders: int, notional: Decimal, ratio: float
) -> None:
    bounds = GateLimits(orders, notional, ratio)
    wire, now_ns = Wire.open(bounds), 0
    for wait_ns, quantity, purpose, answer, restart in steps:
        now_ns += wait_ns
        if restart:
            wire = wire.restarted(bounds)
        awaited = ""
        if purpose is Purpose.ENTRY:
            awaited = expected(wire, bounds, now_ns, quantity)
        code = wire.send(ts_ns=now_ns, quantity=quantity, purpose=purpose, answer=answer)
        assert awaited == (code if code in OWN_CODES else "")
        reached = not awaited and answer != "unreachable"
        assert (wire.venue.sent[-1:] == [len(wire.orders)]) == reached


def test_the_gate_keeps_no_more_than_it_counts() -> None:
    wire = Wire.open(WIDE)
    for minute in range(50):
        wire.send(ts_ns=minute * MINUTE_NS, purpose=Purpose.EXIT)
    assert (len(wire.gate._sent), len(wire.gate._judged)) == (1, JUDGED_ORDERS)
