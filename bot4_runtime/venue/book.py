"""One symbol's market: resting orders by price and time, and the liquidity of everybody else.

Everybody else is the tape: the last price, and around it a depth that is consumed by who takes
and filled up again by the next print. Level k lies `half_spread_ticks + k` ticks from the last
price and offers `level_quantity`.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.orders import VenueOrder
from bot4_runtime.venue.rules import SymbolRules

LEVELS: Final = 50
"""Price levels the rest of the market offers on each side."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What the rest of the market offers.

    Attributes:
        half_spread_ticks: from the last price to the best level, at least 1.
        level_quantity: base a level offers.
        queue_ahead: base that was at a price before an order of ours joined it.
    """

    half_spread_ticks: int = 1
    level_quantity: Decimal = Decimal(1_000)
    queue_ahead: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Offer:
    """Something a taker may take: a resting order, or a level of the rest of the market."""

    price: Decimal
    quantity: Decimal
    resting: VenueOrder | None


class Book:
    """Resting orders and the rest of the market of one symbol.

    Args:
        last: the first price, in quote.
    """

    def __init__(self, rules: SymbolRules, last: Decimal, depth: Depth) -> None:
        self.rules = rules
        self.last = last
        self._depth = depth
        self._resting: dict[Side, list[VenueOrder]] = {Side.BUY: [], Side.SELL: []}
        self._stops: list[VenueOrder] = []
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}

    def resting(self, side: Side) -> list[VenueOrder]:
        """Return resting orders, best price first, then oldest."""
        return list(self._resting[side])

    def stops(self) -> list[VenueOrder]:
        """Return stop orders that wait for their price, oldest first."""
        return list(self._stops)

    def add(self, order: VenueOrder) -> None:
        """Let an order rest at its price, behind what is there."""
        if not order.working:
            self._stops.append(order)
            return
        order.queue_ahead = self._depth.queue_ahead
        insort(self._resting[order.side], order, key=_priority)

    def remove(self, order: VenueOrder) -> None:
        """Take an order away, wherever it is; one that is nowhere is left alone."""
        for orders in (self._resting[order.side], self._stops):
            if order in orders:
                orders.remove(order)

    def best(self, taking: Side) -> Decimal | None:
        """Return the price at which an order of side `taking` would trade first."""
        return next((offer.price for offer in self.offers(taking)), None)

    def offers(self, taking: Side) -> Iterator[Offer]:
        """Yield what an order of side `taking` may take, best price first, ours before others."""
        ours = iter(self.resting(taking.opposite))
        others = self._levels(taking)
        order, level = next(ours, None), next(others, None)
        while order is not None or level is not None:
            if order is not None and (
                level is None or (order.price - level.price) * taking.sign <= 0
            ):
                yield Offer(order.price, order.left, order)
                order = next(ours, None)
            elif level is not None:
                yield level
                level = next(others, None)

    def take(self, taking: Side, quantity: Decimal) -> None:
        """Remember what the rest of the market gave, until the next print."""
        self._taken[taking] += quantity

    def print(self, price: Decimal) -> None:
        """Move the last price; the rest of the market offers its whole depth again."""
        self.last = price
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}

    def _levels(self, taking: Side) -> Iterator[Offer]:
        gone = self._taken[taking]
        tick, depth = self.rules.tick_size, self._depth
        for level in range(LEVELS):
            price = self.last + taking.sign * tick * (depth.half_spread_ticks + level)
            if price < tick:
                return
            left = depth.level_quantity - gone
            gone = max(gone - depth.level_quantity, ZERO)
            if left > 0:
                yield Offer(price, left, None)


def _priority(order: VenueOrder) -> tuple[Decimal, int]:
    return -order.side.sign * order.price, order.order_id
