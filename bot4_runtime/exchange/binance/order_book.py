"""A market's order book, kept by snapshot and changes as Binance's documentation says.

Changes are kept until a snapshot comes, are applied only when they join without a gap, and after
a gap the book is unknown until the next snapshot. A book that is unknown, empty on one side or
crossed is not traded on: `best` returns None.

Sources: "How to manage a local order book correctly" (spot: U = local + 1), "How to manage a
local order book correctly" (USD-M: pu = the u before).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from bot4_runtime.domain.candle import Market
from bot4_runtime.exchange.binance.market_messages import DepthSnapshot, DepthUpdate, Level

WAITING_MOST: Final = 10_000
"""Changes that wait for a snapshot; the oldest go, which makes a later snapshot necessary."""
LEVELS_MOST: Final = 50_000
"""Levels of a side; a book that grows beyond is begun anew from a snapshot."""


class BookState(StrEnum):
    """How much a book is to be believed."""

    UNKNOWN = "unknown"
    KNOWN = "known"


class Best(NamedTuple):
    """The best prices, in quote, and what is offered there, in base."""

    bid: Decimal
    bid_quantity: Decimal
    ask: Decimal
    ask_quantity: Decimal


class _Side:
    """Levels of one side by price; prices also in order, lowest first."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.quantities = {price: quantity for price, quantity in levels if quantity}
        self.prices = sorted(self.quantities)

    def apply(self, levels: Sequence[Level]) -> None:
        quantities, prices = self.quantities, self.prices
        for price, quantity in levels:
            if quantity:
                if price not in quantities:
                    prices.insert(bisect_left(prices, price), price)
                quantities[price] = quantity
            elif quantities.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]


class OrderBook:
    """One symbol's book.

    Args:
        market: decides by which rule changes join.

    Attributes:
        wants_snapshot: whether one must be asked for; answer with `snapshot`.
        last_id: of the last change in it; 0 while it is unknown.
        counts: ``gaps``, ``crossed``, ``old snapshots``, ``overgrown``.
    """

    def __init__(self, market: Market) -> None:
        self._spot = market is Market.SPOT
        self._waiting: list[DepthUpdate] = []
        self._bids, self._asks = _Side(()), _Side(())
        self._joined = False  # whether a change has joined the snapshot
        self.state = BookState.UNKNOWN
        self.last_id = 0
        self.counts: Counter[str] = Counter()

    @property
    def wants_snapshot(self) -> bool:
        """Whether it needs one; Binance wants the changes to have begun first."""
        return self.state is BookState.UNKNOWN and bool(self._waiting)

    def update(self, change: DepthUpdate) -> BookState:
        """Take in a change, in the order they came."""
        if self.state is BookState.UNKNOWN:
            self._waiting.append(change)
            del self._waiting[:-WAITING_MOST]
        elif change.last_id > self.last_id or not self._joined:
            self._take(change)
        return self.state

    def snapshot(self, book: DepthSnapshot) -> BookState:
        """Take in a snapshot that was asked for after the first waiting change."""
        waiting = self._waiting
        if waiting and not self._reaches(book.last_id, waiting[0]):
            self.counts["old snapshots"] += 1
            return self.state  # it is older than the changes: ask again
        self._bids, self._asks = _Side(book.bids), _Side(book.asks)
        self.last_id, self._joined, self._waiting = book.last_id, False, []
        self.state = BookState.KNOWN
        self._judge()
        for change in waiting:
            self.update(change)
        return self.state

    def lost(self) -> None:
        """Forget everything: changes may have been missed."""
        self.state = BookState.UNKNOWN
        self.last_id, self._joined, self._waiting = 0, False, []
        self._bids, self._asks = _Side(()), _Side(())

    def best(self) -> Best | None:
        """Return the best prices; None when the book must not be traded on."""
        bids, asks = self._bids, self._asks
        if self.state is BookState.UNKNOWN or not (bids.prices and asks.prices):
            return None
        bid, ask = bids.prices[-1], asks.prices[0]
        return Best(bid, bids.quantities[bid], ask, asks.quantities[ask])

    def levels(self, depth: int) -> tuple[list[Level], list[Level]]:
        """Return bids and asks, best first, at most `depth` each; empty while unknown."""
        bids, asks = self._bids, self._asks
        return (
            [(price, bids.quantities[price]) for price in reversed(bids.prices[-depth:])],
            [(price, asks.quantities[price]) for price in asks.prices[:depth]],
        )

    def _reaches(self, snapshot_id: int, first: DepthUpdate) -> bool:
        """Tell whether a snapshot is new enough for the first waiting change to join it."""
        if self._spot:
            return first.first_id <= snapshot_id + 1
        return first.first_id <= snapshot_id or first.before_id == snapshot_id

    def _take(self, change: DepthUpdate) -> None:
        if not self._joined:
            old = change.last_id <= self.last_id if self._spot else change.last_id < self.last_id
            if old:
                return
        if not self._joins(change):
            self.counts["gaps"] += 1
            self.lost()
            self._waiting = [change]
            return
        self._bids.apply(change.bids)
        self._asks.apply(change.asks)
        self.last_id, self._joined = change.last_id, True
        self._judge()

    def _joins(self, change: DepthUpdate) -> bool:
        if self._spot:
            return change.first_id <= self.last_id + 1
        if self._joined:
            return change.before_id == self.last_id
        return self._reaches(self.last_id, change)

    def _judge(self) -> None:
        """Forget a book that cannot be right."""
        bids, asks = self._bids.prices, self._asks.prices
        if bids and asks and bids[-1] >= asks[0]:
            self.counts["crossed"] += 1
            self.lost()
        elif max(len(bids), len(asks)) > LEVELS_MOST:
            self.counts["overgrown"] += 1
            self.lost()
