"""May this intent leave the house? Entries are held against every limit, exits pass.

An entry is judged with all that is open filled at its worst: its symbol's position, the open
and UNKNOWN orders in it, and the intent itself. Refusals name the first check that failed, in
the order of `verdict.CODES`; the size they offer has been judged by the very same checks. The
manager keeps no state: any number of threads may ask it at once. What a view holds entries
against is laid out with the first intent and kept with the view, for one symbol a side.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.order import OrderIntent, Side
from bot4_runtime.risk import verdict
from bot4_runtime.risk.entry import Entry, OrderTerms, terms_of
from bot4_runtime.risk.entry_check import NOT_FINITE, EntryCheck, Revision
from bot4_runtime.risk.exposure import HeldPosition, OpenOrder, RiskView, positive
from bot4_runtime.risk.limits import RiskLimits
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
_BUY: Final = Side.BUY
_SELL: Final = Side.SELL


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
        terms = terms_of(intent)
        if not positive(terms.quantity):
            return _unjudged(f"quantity is {intent.quantity}")
        if terms.reduce_only:
            return _exit(intent, terms, view)
        check = self._laid_out(terms, view)
        worst = terms.worst(check.mark)
        broken = check.code(terms.quantity, worst, terms.first(check.mark), terms.stop)
        if broken == 0:
            return RiskApproved(intent, check.score(terms.quantity * worst), WITNESS)
        if broken == NOT_FINITE:
            return _unjudged(check.fault or _fault(intent, worst, check.mark))
        entry = Entry(terms, check)
        limit, value = entry.numbers(broken)
        return RiskRefused(verdict.CODES[broken - 1], limit, value, entry)

    def validate_many(self, intents: Sequence[OrderIntent], view: RiskView) -> list[RiskVerdict]:
        """Return what `validate` answers to each intent, each on its own.

        For choosing among entries. Two that pass alone may together be too much: what is sent
        after the first is judged again, against a view that holds the first.
        """
        return [self.validate(intent, view) for intent in intents]

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
        return EntryCheck(symbol, side, view, self._limits, revision or Revision(), max_age_ns)

    def position_room(self, intent: OrderIntent, view: RiskView) -> Decimal:
        """Return the largest base quantity the position limit alone lets this intent have.

        Overrides, open orders and probing size count; the intent's own quantity does not.
        Zero when nothing fits or the numbers cannot be judged. For sizing before the intent
        is final: `validate` alone approves.
        """
        terms = terms_of(intent)
        check = self._laid_out(terms, view)
        if not (check.judgeable and positive(terms.dearest)):
            return _NONE
        return Entry(terms, check).position_room()

    def _laid_out(self, terms: OrderTerms, view: RiskView) -> EntryCheck:
        """Return the check kept with the view, or lay one out and keep it there.

        Threads that lay one out at once make equals, and each uses its own.
        """
        kept = view.laid_buys if terms.buys else view.laid_sells
        if isinstance(kept, EntryCheck) and kept.laid_for(
            terms.symbol, self._limits, view.correlations.learnt
        ):
            return kept
        side = _BUY if terms.buys else _SELL
        check = self.prepare(terms.symbol, side, view)
        if terms.buys:
            view.laid_buys = check
        else:
            view.laid_sells = check
        return check


def _exit(intent: OrderIntent, terms: OrderTerms, view: RiskView) -> RiskVerdict:
    held = view.held(terms.symbol)
    if not math.isfinite(held):
        return _unjudged(f"position {terms.symbol} is {held!r}")
    against = max(-held if terms.buys else held, 0.0)
    if terms.quantity <= against:
        return RiskApproved(intent, 0.0, WITNESS)
    size = Decimal(repr(against)) if positive(against) else _NONE
    return RiskRefused(verdict.REDUCE_ONLY, against, terms.quantity, size)


def _fault(intent: OrderIntent, worst: float, mark: float) -> str:
    if not (positive(worst) and positive(mark)):
        return (
            f"one of price {intent.price}, stop price {intent.stop_price}, reference price "
            f"{intent.reference_price} and mark {mark!r} is no usable price"
        )
    return f"{intent.quantity} at {worst!r} has no usable value"


def _unjudged(fault: str) -> RiskRefused:
    return RiskRefused(verdict.NOT_FINITE, 0.0, 1.0, _NONE, fault)
