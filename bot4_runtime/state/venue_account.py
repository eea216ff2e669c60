"""What the journal leads us to expect of an account at a venue outside the process.

Amounts by asset are the opening balance plus exactly what each fill moved, so that they can
be compared to the last digit. Part of `TradingState`, changed only by its fold.
"""

from decimal import Decimal
from typing import Final

import msgspec

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.events import FundingPaid, Reconciled
from bot4_runtime.domain.order import Fill, Side

_ZERO: Final = Decimal(0)
_NAMES_KEPT: Final = 4_000
_FUNDINGS_KEPT: Final = 4_000
_NS_PER_MS: Final = 1_000_000


class VenueAccount(msgspec.Struct, kw_only=True):
    """One account at a venue, as the journal tells it.

    Attributes:
        opening: what the venue held of each asset before our first trade, operator's
            adjustments included; None until it was read.
        opened_ms: when `opening` was read, UTC; 0 until then.
        flows: what our fills, their fees and funding moved, by asset; what is held of contracts,
            by symbol.
        trades_through: trade id up to which all trades were read, by symbol.
        intents: intent numbers by ``SYMBOL|venue order id``, the last 4,000.
        differences: what the last comparison found, unless accepted since.
        accepted: keys of foreign orders, trades and fundings the operator accepted.
        funded: times (ms UTC) of fundings by `FundingPaid.key`, the last 4,000 taken in.
    """

    opening: dict[str, Decimal] | None = None
    flows: dict[str, Decimal] = {}
    trades_through: dict[str, int] = {}
    intents: dict[str, int] = {}
    differences: tuple[Difference, ...] = ()
    accepted: list[str] = []
    opened_ms: int = 0
    funded: dict[str, int] = {}

    def expected(self, asset: str) -> Decimal:
        """Return the amount the venue should hold of an asset."""
        opening = self.opening or {}
        return opening.get(asset, _ZERO) + self.flows.get(asset, _ZERO)

    def assets(self) -> set[str]:
        """Return all assets anything is expected of."""
        return {*(self.opening or {}), *self.flows}

    def intent_of(self, symbol: str, venue_order_id: str) -> int | None:
        """Return whose order the venue's id names; None when it is not known."""
        return self.intents.get(f"{symbol}|{venue_order_id}")

    def named(self, symbol: str, venue_order_id: str, intent_no: int) -> None:
        """Remember under which id the venue holds an order."""
        self.intents[f"{symbol}|{venue_order_id}"] = intent_no
        if len(self.intents) > _NAMES_KEPT:
            del self.intents[next(iter(self.intents))]

    def booked(self, fill: Fill, base: str, quote: str) -> None:
        """Move what an execution moved.

        Args:
            fill: the execution.
            base: what its quantity is of: an asset, or of a contract its symbol.
            quote: asset of its price. A contract's wallet moves by what was realised, where
                the venue tells it, and by the whole price where it does not.
        """
        flows = self.flows
        gross = fill.price * fill.quantity
        bought = fill.side is Side.BUY
        moved = fill.realised
        if moved is None:
            moved = -gross if bought else gross
        flows[base] = flows.get(base, _ZERO) + (fill.quantity if bought else -fill.quantity)
        flows[quote] = flows.get(quote, _ZERO) + moved
        flows[fill.fee_asset] = flows.get(fill.fee_asset, _ZERO) - fill.fee

    def fund(self, event: FundingPaid) -> bool:
        """Move what a funding moved; False when it was taken in before."""
        if event.key in self.funded:
            return False
        self.funded[event.key] = event.ts_event_ns // _NS_PER_MS
        if len(self.funded) > _FUNDINGS_KEPT:
            del self.funded[next(iter(self.funded))]
        self.flows[event.asset] = self.flows.get(event.asset, _ZERO) + event.amount
        return True

    def reconciled(self, event: Reconciled) -> None:
        """Take in what a whole reading of the venue found."""
        self.trades_through.update(event.trades_through)
        if event.opening is not None:
            self.opening = dict(event.opening)
            self.opened_ms = self.opened_ms or event.ts_event_ns // _NS_PER_MS
        self.differences = event.differences

    def accept(self) -> None:
        """Take the venue's word for all differences, by the operator's order."""
        for difference in self.differences:
            if difference.kind is DifferenceKind.BALANCE:
                opening = {} if self.opening is None else self.opening
                moved = difference.venue - difference.ours
                opening[difference.name] = opening.get(difference.name, _ZERO) + moved
                self.opening = opening
            else:
                self.accepted.append(difference.key)
        self.differences = ()
