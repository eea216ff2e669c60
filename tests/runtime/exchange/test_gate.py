"""Nothing reaches a venue that risk did not approve, that is not durable, or that was sent."""

from collections.abc import Sequence
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.errors import (
    InvariantViolated,
    OutcomeUnknown,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.events import (
    OrderAccepted,
    OrderClosed,
    OrderEvent,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
)
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
    payload_hash,
)
from bot4_runtime.domain.portfolio import BreakerState, RiskMetrics
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import HeldPosition, RiskApproved, RiskManager, RiskView


class RecordingVenue:
    name = "recording"

    def __init__(self, *, in_process: bool = True, error: Exception | None = None) -> None:
        self.in_process = in_process
        self.sent: list[int] = []
        self._error = error

    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        self.sent.append(intent.intent_no)
        if self._error is not None:
            raise self._error
        return [OrderAccepted(ts_event_ns=0, intent_no=intent.intent_no, venue_order_id="1")]

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        if self._error is not None:
            raise self._error
        return []

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        return []


def limits(orders_per_minute: int) -> GateLimits:
    return GateLimits(orders_per_minute, Decimal(1_000_000), 0.5)


def intended(number: int = 1, *, ts_ns: int = 0, reduce_only: bool = False) -> OrderIntended:
    intent = OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.EXIT if reduce_only else Purpose.ENTRY,
        symbol="BTCUSDT",
        side=Side.SELL if reduce_only else Side.BUY,
        order_type=OrderType.MARKET,
        quantity=Decimal("0.01"),
        price=None,
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=reduce_only,
        reference_price=Decimal(100),
        stop_loss=None if reduce_only else Decimal(90),
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


def approved(event: OrderIntended) -> RiskApproved:
    held = [HeldPosition("BTCUSDT", 1.0, 100.0)] if event.intent.reduce_only else []
    verdict = RiskManager(RiskLimits()).validate(
        event.intent,
        RiskView(
            equity=10_000.0,
            cash_free=10_000.0,
            marks={"BTCUSDT": 100.0},
            positions=held,
            open_orders=[],
            correlations=FixedCorrelations({}),
            depth_quote=1e6,
            breaker=BreakerState(),
            metrics=RiskMetrics(
                equity=Decimal(10_000),
                peak_equity=Decimal(10_000),
                drawdown=0.0,
                day=0,
                day_start_equity=Decimal(10_000),
                exposure=Decimal(0),
                leverage=0.0,
            ),
            now_ns=0,
        ),
    )
    assert isinstance(verdict, RiskApproved)
    return verdict


def send(gate: Gate, event: OrderIntended, **changed: object) -> list[OrderEvent]:
    arguments = {"approved": approved(event), "durable": True, "cash_free": 1e4} | changed
    return gate.send(
        arguments["approved"],
        event,
        durable=arguments["durable"],
        cash_free=arguments["cash_free"],
    )


def test_an_approved_durable_intent_is_sent_once() -> None:
    venue = RecordingVenue()
    gate = Gate(venue, limits(10), epoch=1)
    (answer,) = send(gate, intended())
    assert isinstance(answer, OrderAccepted)
    with pytest.raises(InvariantViolated, match="sent before"):
        send(gate, intended())
    assert venue.sent == [1]


@pytest.mark.parametrize("impostor", [None, object(), intended(), "RiskApproved"])
def test_only_an_approval_opens_the_gate(impostor: object) -> None:
    venue = RecordingVenue()
    with pytest.raises(InvariantViolated, match="expected RiskApproved"):
        send(Gate(venue, limits(10), epoch=1), intended(), approved=impostor)
    assert venue.sent == []


def test_an_approval_of_another_payload_does_not_open_it() -> None:
    event = intended()
    larger = msgspec.structs.replace(event.intent, quantity=Decimal(1))
    swapped = msgspec.structs.replace(event, intent=larger, payload_hash=payload_hash(larger))
    venue = RecordingVenue()
    with pytest.raises(InvariantViolated, match="differs from what risk approved"):
        send(Gate(venue, limits(10), epoch=1), swapped, approved=approved(event))
    assert venue.sent == []


def test_an_intent_altered_after_hashing_is_not_sent() -> None:
    event = intended()
    altered = msgspec.structs.replace(
        event, intent=msgspec.structs.replace(event.intent, quantity=Decimal(1))
    )
    venue = RecordingVenue()
    with pytest.raises(InvariantViolated, match="altered"):
        send(Gate(venue, limits(10), epoch=1), altered, approved=approved(event))
    assert venue.sent == []


def test_an_intent_that_is_not_durable_is_not_sent() -> None:
    venue = RecordingVenue()
    with pytest.raises(InvariantViolated, match="not durable"):
        send(Gate(venue, limits(10), epoch=1), intended(), durable=False)
    assert venue.sent == []


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OutcomeUnknown("the reply was lost"), OrderOutcomeUnknown, "the reply was lost"),
        (VenueUnreachable("no route"), OrderClosed, "not sent: no route"),
        (VenueRefused("-1013 filter"), OrderRejected, "-1013 filter"),
    ],
)
def test_each_failure_is_exactly_one_outcome_and_nothing_is_sent_again(
    error: Exception, kind: type, says: str
) -> None:
    venue = RecordingVenue(in_process=False, error=error)
    gate = Gate(venue, limits(10), epoch=1)
    (answer,) = send(gate, intended())
    assert type(answer) is kind
    assert (answer.intent_no, answer.reason) == (1, says)
    if isinstance(answer, OrderClosed):
        assert answer.status == "never_placed"
    with pytest.raises(InvariantViolated, match="sent before"):
        send(gate, intended())
    assert venue.sent == [1]


@pytest.mark.parametrize("name", ["b4-2-1", "b4-1-2", "web_1", ""])
def test_an_intent_of_another_epoch_is_never_sent(name: str) -> None:
    venue = RecordingVenue()
    event = msgspec.structs.replace(intended(), client_id=name)
    with pytest.raises(InvariantViolated, match="another process"):
        send(Gate(venue, limits(10), epoch=1), event)
    assert venue.sent == []


def test_entries_wait_for_a_reason_and_exits_do_not() -> None:
    venue = RecordingVenue()
    gate = Gate(venue, limits(10), epoch=1)
    gate.hold("the venue disagrees")
    (answer,) = send(gate, intended(1))
    assert isinstance(answer, OrderRejected)
    assert (answer.code, answer.reason) == ("ENTRIES_WAIT", "the venue disagrees")
    send(gate, intended(2, reduce_only=True))
    gate.hold("")
    send(gate, intended(3))
    assert venue.sent == [2, 3]


@pytest.mark.parametrize(
    "error", [OutcomeUnknown("lost"), VenueUnreachable("no route"), VenueRefused("-2011")]
)
def test_a_cancel_that_fails_leaves_the_order_as_it_is(error: Exception) -> None:
    gate = Gate(RecordingVenue(in_process=False, error=error), limits(10), epoch=1)
    assert gate.cancel(resting(1, OrderStatus.ACCEPTED), 5) == []


def test_after_a_restart_an_unanswered_intent_counts_as_sent_to_a_venue_outside() -> None:
    venue = RecordingVenue(in_process=False)
    gate = Gate(venue, limits(10), epoch=1)
    gate.remember([resting(1, OrderStatus.INTENDED)])
    with pytest.raises(InvariantViolated, match="sent before"):
        send(gate, intended(1))
    assert venue.sent == []


def resting(number: int, status: OrderStatus, reason: str = "") -> Order:
    return Order(
        intent=intended(number, ts_ns=number).intent,
        client_id=client_id(1, number),
        status=status,
        filled=Decimal(0),
        spent=Decimal(0),
        cancel_requested=False,
        age=0,
        reason=reason,
    )


def test_a_strategy_gone_mad_is_stopped_but_exits_pass() -> None:
    venue = RecordingVenue()
    gate = Gate(venue, limits(3), epoch=1)
    for number in (1, 2, 3):
        send(gate, intended(number, ts_ns=number))
    (refused,) = send(gate, intended(4, ts_ns=4))
    assert isinstance(refused, OrderRejected)
    assert (refused.code, refused.intent_no) == ("GATE_CEILING", 4)
    send(gate, intended(5, ts_ns=5, reduce_only=True))
    send(gate, intended(6, ts_ns=70_000_000_000))
    assert venue.sent == [1, 2, 3, 5, 6]


def test_a_restart_gives_no_second_minute() -> None:
    venue = RecordingVenue()
    gate = Gate(venue, limits(2), epoch=1)
    gate.remember(
        resting(number, status, reason)
        for number, status, reason in (
            (1, OrderStatus.FILLED, ""),
            (2, OrderStatus.REJECTED, "GATE_CEILING"),
            (3, OrderStatus.ACCEPTED, ""),
            (4, OrderStatus.INTENDED, ""),
        )
    )
    with pytest.raises(InvariantViolated, match="sent before"):
        send(gate, intended(3, ts_ns=3))
    (refused,) = gate.replay(intended(4, ts_ns=4), cash_free=1e4)
    assert isinstance(refused, OrderRejected)
    send(gate, intended(5, ts_ns=70_000_000_000))
    assert venue.sent == [5]


def test_an_unanswered_intent_is_replayed_to_a_venue_in_process_only() -> None:
    inside, outside = RecordingVenue(), RecordingVenue(in_process=False)
    Gate(inside, limits(10), epoch=1).replay(intended(), cash_free=1e4)
    assert inside.sent == [1]
    with pytest.raises(InvariantViolated, match="never sent again"):
        Gate(outside, limits(10), epoch=1).replay(intended(), cash_free=1e4)
    assert outside.sent == []


def test_a_cancel_always_passes() -> None:
    venue = RecordingVenue()
    gate = Gate(venue, limits(1), epoch=1)
    order = Order(
        intent=intended().intent,
        client_id="c1",
        status=OrderStatus.ACCEPTED,
        filled=Decimal(0),
        spent=Decimal(0),
        cancel_requested=True,
        age=0,
        reason="",
    )
    assert gate.cancel(order, 5) == []
    assert gate.venue is venue


def test_an_empty_intent_is_not_sent() -> None:
    event = intended()
    empty = msgspec.structs.replace(event.intent, quantity=Decimal(0))
    nothing = msgspec.structs.replace(event, intent=empty, payload_hash=payload_hash(empty))
    with pytest.raises(InvariantViolated, match="quantity 0"):
        Gate(RecordingVenue(), limits(10), epoch=1).replay(nothing, cash_free=1.0)


def test_at_the_ceiling_an_entry_waits_out_the_whole_minute() -> None:
    minute_ns = 60 * 10**9
    for wait_ns, passes in (
        (minute_ns - 1_000_000, False),
        (minute_ns - 1, False),
        (minute_ns, True),
    ):
        gate = Gate(RecordingVenue(), limits(1), epoch=1)
        send(gate, intended(1, ts_ns=0))
        (answer,) = send(gate, intended(2, ts_ns=wait_ns))
        assert isinstance(answer, OrderAccepted if passes else OrderRejected), wait_ns
