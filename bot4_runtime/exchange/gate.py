"""The last hop: nothing reaches a venue but through here.

The gate trusts nobody. It takes only what the risk manager approved, compares the payload
hash, demands that the intent is durable, sends each intent at most once in its life, and
keeps its own counts, so that a strategy gone mad is stopped even when all else agrees
(Knight Capital, 2012): orders and notional of entries within a minute, and how many of the last
orders were rejected. What is over a ceiling is rejected, not thrown: the process lives on to
protect what is held. It never refuses what only reduces, however often. Time is the intents'
own, so that a replay decides as the run did; a restart gives it its memory back, so that
nothing is allowed twice.

Each order it sends is answered in exactly one of four ways: accepted, rejected, not sent
(closed as never placed), or unknown, which is asked for and never sent again.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot4_runtime.clock import NS_PER_S
from bot4_runtime.domain.client_id import parse_client_id
from bot4_runtime.domain.errors import (
    InvariantViolated,
    OutcomeUnknown,
    VenueError,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.events import (
    OrderClosed,
    OrderEvent,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
)
from bot4_runtime.domain.order import (
    CEILING_REACHED,
    ENTRIES_WAIT,
    NOTIONAL_REACHED,
    REJECTIONS_REACHED,
    Order,
    OrderIntent,
    OrderStatus,
    payload_hash,
)
from bot4_runtime.exchange.protocols import Venue
from bot4_runtime.risk.manager import RiskApproved

REFUSED: Final = "VENUE_REFUSED"
"""Code of a venue's rejection that carries none."""
JUDGED_ORDERS: Final = 20
"""The ratio of rejected orders is taken over the last so many."""
REJECTION_PAUSE_NS: Final = 3600 * NS_PER_S
"""How long after a rejection entries pause while the ratio is too high."""
_MINUTE_NS: Final = 60 * NS_PER_S
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The gate's own ceilings, over all books; what only reduces passes them all.

    Attributes:
        orders_per_minute: that many orders within a minute, exits among them, let no entry pass.
        notional_per_minute: of entries, in quote at their worst price.
        reject_ratio: share of the last `JUDGED_ORDERS` orders; with more rejected, entries pause
            for `REJECTION_PAUSE_NS` after the last rejection. Orders not there yet count as
            accepted, those that never reached the venue do not count; a rejection that is only
            learnt by asking counts after the next restart.
    """

    orders_per_minute: int
    notional_per_minute: Decimal
    reject_ratio: float


NO_ENTRIES: Final = GateLimits(orders_per_minute=0, notional_per_minute=_ZERO, reject_ratio=0.0)
"""Ceilings that only what reduces passes."""


class Gate:
    """Hands approved, durable intents to one venue.

    Args:
        venue: where orders go.
        limits: own ceilings over all books, in event time.
        epoch: of this process; an intent of another one is not sent.
    """

    def __init__(self, venue: Venue, limits: GateLimits, epoch: int) -> None:
        self._venue = venue
        self._epoch = epoch
        self._limits = limits
        self._highest_sent = 0
        self._sent: deque[tuple[int, Decimal]] = deque()
        """Of what was sent within a minute: when, and the notional of entries."""
        self._judged: deque[tuple[int, bool]] = deque(maxlen=JUDGED_ORDERS)
        """Of the last orders the venue was asked: when, and whether it rejected them."""
        self._hold = ""

    def remember(self, orders: Iterable[Order]) -> None:
        """Take in what was sent before this process began, orders of all books.

        An intent without outcome counts as sent, unless the venue is in-process: there it was
        lost with the process, and is replayed.
        """
        sent = sorted(
            (
                order
                for order in orders
                if not (self._venue.in_process and order.status is OrderStatus.INTENDED)
                and not order.withheld
            ),
            key=lambda order: order.intent.intent_no,
        )
        self._sent = deque(sorted((o.intent.ts_ns, _exposure(o.intent)) for o in sent))
        self._judged = deque(
            (
                (order.intent.ts_ns, order.status is OrderStatus.REJECTED)
                for order in sent
                if order.status is not OrderStatus.NEVER_PLACED
            ),
            maxlen=JUDGED_ORDERS,
        )
        self._highest_sent = sent[-1].intent.intent_no if sent else 0

    def hold(self, reason: str) -> None:
        """Reject entries for a reason; an empty one lets them pass. Exits always pass."""
        self._hold = reason

    @property
    def venue(self) -> Venue:
        """The venue behind the gate."""
        return self._venue

    def send(
        self,
        approved: RiskApproved,
        intended: OrderIntended,
        *,
        durable: bool,
        cash_free: float,
    ) -> list[OrderEvent]:
        """Send an approved intent, once.

        Args:
            approved: the risk manager's witness.
            intended: the journaled intent it belongs to.
            durable: whether the journal has synced the intent.
            cash_free: quote not reserved by other orders of the book.

        Raises:
            InvariantViolated: no approval, another payload, not durable, or sent before.
        """
        if type(approved) is not RiskApproved:
            raise InvariantViolated(
                f"gate received {type(approved).__name__}, expected RiskApproved: "
                "only the risk manager's approvals leave the house"
            )
        if approved.payload_hash != intended.payload_hash:
            raise InvariantViolated(
                f"intent {intended.intent.intent_no} differs from what risk approved "
                f"({intended.payload_hash[:12]} against {approved.payload_hash[:12]})"
            )
        if parse_client_id(intended.client_id) != (self._epoch, intended.intent.intent_no):
            raise InvariantViolated(
                f"intent {intended.intent.intent_no} carries {intended.client_id}, and this is "
                f"epoch {self._epoch}; an intent of another process is never sent"
            )
        return self._submit(intended, durable=durable, cash_free=cash_free)

    def replay(self, intended: OrderIntended, *, cash_free: float) -> list[OrderEvent]:
        """Hand a durable intent without outcome to an in-process venue again.

        The venue is part of the fold, so this is replay, not a second send.

        Raises:
            InvariantViolated: the venue is not in-process, or the payload was altered.
        """
        if not self._venue.in_process:
            raise InvariantViolated(
                f"intent {intended.intent.intent_no} must be queried at {self._venue.name}, "
                "never sent again"
            )
        return self._submit(intended, durable=True, cash_free=cash_free)

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        """Cancel an order; always allowed.

        A venue that cannot be asked, or whose answer is lost, leaves the order as it is:
        what became of it is asked for, and the cancel repeated.
        """
        try:
            return self._venue.cancel(order, now_ns)
        except VenueError:
            return []

    def _submit(
        self, intended: OrderIntended, *, durable: bool, cash_free: float
    ) -> list[OrderEvent]:
        intent = intended.intent
        if payload_hash(intent) != intended.payload_hash:
            raise InvariantViolated(f"intent {intent.intent_no} was altered after it was hashed")
        if not durable:
            raise InvariantViolated(f"intent {intent.intent_no} is not durable; it is not sent")
        if intent.intent_no <= self._highest_sent:
            raise InvariantViolated(f"intent {intent.intent_no} was sent before")
        if not intent.quantity > Decimal(0):
            raise InvariantViolated(f"intent {intent.intent_no} has quantity {intent.quantity}")
        self._highest_sent = intent.intent_no
        while self._sent and self._sent[0][0] <= intent.ts_ns - _MINUTE_NS:
            self._sent.popleft()
        if not intent.reduce_only:
            refused = self._refusal(intent)
            if refused is not None:
                return [_rejected(intent, *refused)]
        self._sent.append((intent.ts_ns, _exposure(intent)))
        answers = self._hand_over(intended, cash_free)
        if not any(_never_placed(answer) for answer in answers):
            rejected = any(isinstance(answer, OrderRejected) for answer in answers)
            self._judged.append((intent.ts_ns, rejected))
        return answers

    def _hand_over(self, intended: OrderIntended, cash_free: float) -> list[OrderEvent]:
        """Submit an order; whatever comes of it is one of the four answers."""
        intent = intended.intent
        try:
            return self._venue.submit(intent, intended.client_id, cash_free)
        except VenueUnreachable as error:
            return [
                OrderClosed(
                    ts_event_ns=intent.ts_ns,
                    intent_no=intent.intent_no,
                    status=OrderStatus.NEVER_PLACED.value,
                    reason=f"not sent: {error}",
                )
            ]
        except VenueRefused as error:
            return [_rejected(intent, REFUSED, str(error))]
        except OutcomeUnknown as error:
            return [
                OrderOutcomeUnknown(
                    ts_event_ns=intent.ts_ns, intent_no=intent.intent_no, reason=str(error)
                )
            ]

    def _refusal(self, intent: OrderIntent) -> tuple[str, str] | None:
        """Return code and reason for which an entry may not go out; None when it may."""
        limits, sent = self._limits, self._sent
        if self._hold:
            return ENTRIES_WAIT, self._hold
        if len(sent) >= limits.orders_per_minute:
            return CEILING_REACHED, (
                f"{len(sent)} orders within a minute reached the gate's own ceiling of "
                f"{limits.orders_per_minute}"
            )
        notional = sum((exposure for _, exposure in sent), _exposure(intent))
        if not notional <= limits.notional_per_minute:
            return NOTIONAL_REACHED, (
                f"with it, entries within a minute come to {notional:f} of quote, over the gate's "
                f"own ceiling of {limits.notional_per_minute:f}"
            )
        rejected_ns = [ts_ns for ts_ns, rejected in self._judged if rejected]
        if (
            len(rejected_ns) > limits.reject_ratio * JUDGED_ORDERS
            and intent.ts_ns - max(rejected_ns) < REJECTION_PAUSE_NS
        ):
            return REJECTIONS_REACHED, (
                f"{len(rejected_ns)} of the last {JUDGED_ORDERS} orders were rejected, more than "
                f"the gate's own ceiling of {limits.reject_ratio:.0%}; entries pause for "
                f"{REJECTION_PAUSE_NS // _MINUTE_NS} minutes after the last"
            )
        return None


def _exposure(intent: OrderIntent) -> Decimal:
    """Return the notional an order may add, in quote; 0 for what only reduces."""
    return _ZERO if intent.reduce_only else intent.quantity * intent.worst_price


def _never_placed(answer: OrderEvent) -> bool:
    return isinstance(answer, OrderClosed) and answer.status == OrderStatus.NEVER_PLACED.value


def _rejected(intent: OrderIntent, code: str, reason: str) -> OrderRejected:
    return OrderRejected(
        ts_event_ns=intent.ts_ns, intent_no=intent.intent_no, code=code, reason=reason
    )
