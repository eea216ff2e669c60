"""May this intent leave the house? Entries are held against every limit, exits pass.

An entry is judged with all that is open filled at its worst: its symbol's position, the open
and UNKNOWN orders in it, and the intent itself. Refusals name the first check that failed, in
the order of `verdict.CODES`; the size they offer has been judged by the very same checks. The
manager keeps no state: any number of threads may ask it at once.
"""

import math
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.order import OrderIntent, Side
from bot4_runtime.risk import verdict
from bot4_runtime.risk.entry import Entry, Prices, number
from bot4_runtime.risk.entry_check import NOT_FINITE, EntryCheck, Revision
from bot4_runtime.risk.exposure import HeldPosition, OpenOrder, RiskView, positive
from bot4_runtime.risk.limits import RiskLimits, tightened
from bot4_runtime.risk.verdict import WITNESS, RiskApproved, RiskRefused, RiskVerdict

__all__ = [
    "EntryCheck",
    "HeldPosition",
    "OpenOrder",
    "Revision",
    "RiskApproved",
    "RiskManager",
    "RiskRefused",
    "RiskVerdict",
    "RiskView",
]

_NONE: Final = Decimal(0)


class RiskManager:
    """Holds every intent against the limits.

    Example:
        >>> RiskManager(RiskLimits()).limits.max_position_pct
        0.02
    """

    def __init__(self, limits: RiskLimits) -> None:
        self._limits: Final = limits

    @property
    def limits(self) -> RiskLimits:
        """The configured limits, before overrides."""
        return self._limits

    def validate(self, intent: OrderIntent, view: RiskView) -> RiskVerdict:
        """Approve an intent as it is, or refuse it with code, numbers and a size that passes.

        A reduce-only intent passes whenever it reduces what is held, whatever else is true.
        Any quantity up to an offered size passes too, so it may be cut to the venue's step.
        """
        quantity = number(intent.quantity)
        if not positive(quantity):
            return _unjudged(f"quantity is {intent.quantity}")
        if intent.reduce_only:
            return _exit(intent, quantity, view)
        check = self.prepare(intent.symbol, intent.side, view)
        prices = Prices(intent, check.mark)
        entry = Entry(prices, check)
        broken = entry.broken(quantity)
        if broken == 0:
            return RiskApproved(intent, entry.score(quantity), WITNESS)
        if broken == NOT_FINITE:
            return _unjudged(check.fault or _fault(intent, prices, check))
        limit, value = entry.numbers(broken, quantity)
        return RiskRefused(verdict.CODES[broken - 1], limit, value, entry.passing(quantity))

    def prepare(
        self,
        symbol: str,
        side: Side,
        view: RiskView,
        revision: Revision | None = None,
        max_age_ns: int = 0,
    ) -> EntryCheck:
        """Work out what entries on one side of one symbol are held against, for many of them.

        Args:
            symbol: of the entries; the view's depth is its.
            side: of the entries.
            view: the book as it is now.
            revision: of the book; without one only `RiskManager` can tell that it is current.
            max_age_ns: how long `EntryCheck.check` may use it.
        """
        return EntryCheck(
            symbol, side, view, self._in_force(view), revision or Revision(), max_age_ns
        )

    def position_room(self, intent: OrderIntent, view: RiskView) -> Decimal:
        """Return the largest base quantity the position limit alone lets this intent have.

        Overrides, open orders and probing size count; the intent's own quantity does not.
        Zero when nothing fits or the numbers cannot be judged. For sizing before the intent
        is final: `validate` alone approves.
        """
        check = self.prepare(intent.symbol, intent.side, view)
        prices = Prices(intent, check.mark)
        if check.fault or not positive(prices.worst):
            return _NONE
        return Entry(prices, check).position_room()

    def _in_force(self, view: RiskView) -> RiskLimits:
        if not view.overrides:
            return self._limits
        return tightened(self._limits, view.overrides, view.now_ns)


def _exit(intent: OrderIntent, quantity: float, view: RiskView) -> RiskVerdict:
    held = view.held(intent.symbol)
    if not math.isfinite(held):
        return _unjudged(f"position {intent.symbol} is {held!r}")
    against = max(-held if intent.side is Side.BUY else held, 0.0)
    if quantity <= against:
        return RiskApproved(intent, 0.0, WITNESS)
    size = Decimal(repr(against)) if positive(against) else _NONE
    return RiskRefused(verdict.REDUCE_ONLY, against, quantity, size)


def _fault(intent: OrderIntent, prices: Prices, check: EntryCheck) -> str:
    if not positive(prices.worst):
        return (
            f"one of price {intent.price}, stop price {intent.stop_price}, reference price "
            f"{intent.reference_price} and mark {check.mark!r} is no usable price"
        )
    return f"{intent.quantity} at {prices.worst!r} has no usable value"


def _unjudged(fault: str) -> RiskRefused:
    return RiskRefused(verdict.NOT_FINITE, 0.0, 1.0, _NONE, fault)
