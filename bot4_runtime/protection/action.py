"""One action against liquidation, and what became of it, in whatever order that is told.

A venue tells twice, late and out of order. Each trade counts once; of several ends the firmest
holds, so that no message can take back what a firmer one said; and an action is over as of the
latest message about it, since a reading of the account from before that may miss what it did.
"""

from decimal import Decimal
from typing import Final

from bot4_runtime.domain.events import ProtectionPlanned, ProtectionSettled
from bot4_runtime.domain.order import Fill, OrderStatus

_FIRMNESS: Final = {
    OrderStatus.UNKNOWN: 0,
    OrderStatus.NEVER_PLACED: 1,
    OrderStatus.ACCEPTED: 2,
    OrderStatus.CANCELED: 3,
    OrderStatus.EXPIRED: 3,
    OrderStatus.REJECTED: 3,
    OrderStatus.FILLED: 4,
}
"""What ends an action: an order that was missed and then accepted was placed after all."""


class Action:
    """An action in flight.

    Attributes:
        planned: as it was journaled.
        told: people know that its answer is late or lost.
    """

    def __init__(self, planned: ProtectionPlanned) -> None:
        self.planned: Final = planned
        self.told = False
        self._trades: set[tuple[str, str]] = set()
        self._filled = Decimal(0)
        self._spent = Decimal(0)
        self._end: tuple[int, str, str] | None = None
        self._last_ns = 0

    def fill(self, fill: Fill, ts_ns: int) -> None:
        """Count a trade, once; all of the order's quantity ends it."""
        trade = (fill.symbol, fill.trade_id)
        intent = self.planned.intent
        if intent is None or trade in self._trades:
            return
        self._trades.add(trade)
        self._filled += fill.quantity
        self._spent += fill.quantity * fill.price
        self._last_ns = max(self._last_ns, ts_ns)
        if self._filled >= intent.quantity:
            self.end(OrderStatus.FILLED, ts_ns)

    def end(self, status: OrderStatus, ts_ns: int, text: str = "") -> bool:
        """Note an end; return whether none as firm was known."""
        end = (_FIRMNESS[status], status.value, text)
        self._last_ns = max(self._last_ns, ts_ns)
        if self._end is not None and end <= self._end:
            return False
        self._end = end
        return True

    def settled(self) -> ProtectionSettled | None:
        """Return how it ended, and when (venue time, UTC, ns); None while it has not."""
        if self._end is None:
            return None
        return ProtectionSettled(
            ts_event_ns=self._last_ns,
            number=self.planned.number,
            status=self._end[1],
            filled=self._filled,
            spent=self._spent,
            text=self._end[2],
        )
