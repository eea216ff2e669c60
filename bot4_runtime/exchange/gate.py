"""The last hop: nothing reaches a venue but through here.

The gate trusts nobody. It takes only what the risk manager approved, compares the payload
hash, demands that the intent is durable, sends each intent at most once in its life, and
counts orders itself, so that a strategy gone mad is stopped even when all else agrees
(Knight Capital, 2012). What is over its ceiling is rejected, not thrown: the process lives on
to protect what is held. A restart gives it its memory back, so that nothing is allowed twice.

It counts orders and no amounts, which are the risk manager's to bound; it never refuses what
only reduces, however often, and it does not yet stop entries after rejections in a row.

Each order it sends is answered in exactly one of four ways: accepted, rejected, not sent
(closed as never placed), or unknown, which is asked for and never sent again.
"""

from collections import deque
from collections.abc import Iterable
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
from bot4_runtime.domain.order import Order, OrderIntent, OrderStatus, payload_hash
from bot4_runtime.exchange.protocols import Venue
from bot4_runtime.risk.manager import RiskApproved

CEILING_REACHED: Final = "GATE_CEILING"
ENTRIES_WAIT: Final = "ENTRIES_WAIT"
"""Codes of the gate's own rejections: such an order was never sent."""
REFUSED: Final = "VENUE_REFUSED"
"""Code of a venue's rejection that carries none."""


class Gate:
    """Hands approved, durable intents to one venue.

    Args:
        venue: where orders go.
        max_orders_per_minute: own ceiling over all books, in event time.
        epoch: of this process; an intent of another one is not sent.
    """

    def __init__(self, venue: Venue, max_orders_per_minute: int, epoch: int) -> None:
        self._venue = venue
        self._epoch = epoch
        self._max_orders_per_minute = max_orders_per_minute
        self._highest_sent = 0
        self._recent_ns: deque[int] = deque()
        self._hold = ""

    def remember(self, orders: Iterable[Order]) -> None:
        """Take in what was sent before this process began, orders of all books.

        An intent without outcome counts as sent, unless the venue is in-process: there it was
        lost with the process, and is replayed.
        """
        sent = [
            order.intent
            for order in orders
            if not (self._venue.in_process and order.status is OrderStatus.INTENDED)
            and not order.reason.startswith((CEILING_REACHED, ENTRIES_WAIT))
        ]
        self._recent_ns = deque(sorted(intent.ts_ns for intent in sent))
        self._highest_sent = max((intent.intent_no for intent in sent), default=0)

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
        if self._hold and not intent.reduce_only:
            return [_rejected(intent, ENTRIES_WAIT, self._hold)]
        if not self._counted(intent):
            return [
                _rejected(
                    intent,
                    CEILING_REACHED,
                    f"{len(self._recent_ns)} orders within a minute reached the gate's own "
                    f"ceiling of {self._max_orders_per_minute}",
                )
            ]
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

    def _counted(self, intent: OrderIntent) -> bool:
        """Count an order that may go out; False for an entry beyond the ceiling."""
        recent = self._recent_ns
        while recent and recent[0] <= intent.ts_ns - 60 * NS_PER_S:
            recent.popleft()
        if not intent.reduce_only and len(recent) >= self._max_orders_per_minute:
            return False
        recent.append(intent.ts_ns)
        return True


def _rejected(intent: OrderIntent, code: str, reason: str) -> OrderRejected:
    return OrderRejected(
        ts_event_ns=intent.ts_ns, intent_no=intent.intent_no, code=code, reason=reason
    )
