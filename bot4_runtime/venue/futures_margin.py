"""Margin of a USD-M account at given marks: initial, maintenance, available, liquidation price.

A wallet is what is liquidated as one: an isolated position with its own margin, or all cross
positions in one margin asset with the cross wallet. Source: Binance, "How to Calculate
Liquidation Price of USD-M Futures Contracts".
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_account import FuturesAccount, Position, PositionSide
from bot4_runtime.venue.futures_orders import FuturesOrder

ROUNDS: Final = 40
"""After which a liquidation price has settled: more than twice the brackets of a symbol."""


@dataclass(frozen=True, slots=True)
class Margin:
    """A wallet as it stands, in quote.

    Attributes:
        wallet: balance, unrealised profit not included.
        maintenance: below this the margin balance is liquidated.
        legs: its positions.
    """

    wallet: Decimal
    unrealised: Decimal
    maintenance: Decimal
    legs: tuple[Position, ...]

    @property
    def balance(self) -> Decimal:
        """Margin balance: wallet and unrealised profit."""
        return self.wallet + self.unrealised

    @property
    def liquidated(self) -> bool:
        """Whether maintenance margin / margin balance reached 1."""
        return bool(self.legs) and not self.balance > self.maintenance


class MarginBook:
    """Measures accounts.

    Args:
        contract: of a symbol.
        mark: of a symbol, in quote.
        orders: open orders of an account.
    """

    def __init__(
        self,
        contract: Callable[[str], Contract],
        mark: Callable[[str], Decimal],
        orders: Callable[[FuturesAccount], Iterable[FuturesOrder]],
    ) -> None:
        self._contract = contract
        self._mark = mark
        self._orders = orders

    # -------------------------------------------------------------------- positions
    def notional(self, position: Position) -> Decimal:
        """Return quantity x mark, negative for a short."""
        return position.quantity * self._mark(position.symbol)

    def maintenance(self, position: Position) -> Decimal:
        """Return a position's maintenance margin, in quote."""
        ladder = self._contract(position.symbol).ladder
        return ladder.maintenance(abs(self.notional(position)))

    def unrealised(self, position: Position) -> Decimal:
        """Return a position's profit at the mark, in quote."""
        return position.unrealised(self._mark(position.symbol))

    def initial(self, account: FuturesAccount, position: Position) -> Decimal:
        """Return a position's initial margin, in quote."""
        return abs(self.notional(position)) / account.settings(position.symbol).leverage

    def order_notionals(
        self, account: FuturesAccount, symbol: str, more: FuturesOrder | None = None
    ) -> tuple[Decimal, Decimal]:
        """Return what open orders that may open, and one `more`, would buy and sell, in quote."""
        sums = {Side.BUY: ZERO, Side.SELL: ZERO}
        orders = [order for order in self._orders(account) if order.symbol == symbol]
        for order in orders if more is None else [*orders, more]:
            if order.may_open:
                price = order.price or self._mark(symbol)
                sums[order.side] += order.left * price
        return sums[Side.BUY], sums[Side.SELL]

    def order_margin(
        self, account: FuturesAccount, symbol: str, more: FuturesOrder | None = None
    ) -> Decimal:
        """Return the initial margin of a symbol's open orders, in quote.

        In one-way mode only the direction that would leave more needs margin.
        """
        bid, ask = self.order_notionals(account, symbol, more)
        opened = bid + ask
        if not account.hedge:
            held = self.notional(account.position(self._contract(symbol), PositionSide.BOTH))
            opened = max(abs(held + bid), abs(held - ask), abs(held)) - abs(held)
        return opened / account.settings(symbol).leverage

    # ---------------------------------------------------------------------- wallets
    def cross(self, account: FuturesAccount, asset: str) -> Margin:
        """Measure the cross wallet of a margin asset."""
        legs = [
            position
            for position in account.positions()
            if not account.settings(position.symbol).isolated and position.asset == asset
        ]
        return self._measure(account.cross.get(asset, ZERO), legs)

    def own(self, position: Position) -> Margin:
        """Measure an isolated position."""
        return self._measure(position.isolated, [position] if position.quantity else [])

    def of(self, account: FuturesAccount, position: Position) -> Margin:
        """Measure the wallet that carries a position."""
        if account.settings(position.symbol).isolated:
            return self.own(position)
        return self.cross(account, position.asset)

    def available(self, account: FuturesAccount, asset: str) -> Decimal:
        """Return what may be used for new orders, in the margin asset; not below zero."""
        cross = self.cross(account, asset)
        used = sum((self.initial(account, leg) for leg in cross.legs), ZERO)
        for symbol in {order.symbol for order in self._orders(account)}:
            if self._contract(symbol).quote == asset:
                used += self.order_margin(account, symbol)
        return max(cross.balance - used, ZERO)

    def liquidation_price(self, account: FuturesAccount, position: Position) -> Decimal:
        """Return the mark at which a position's wallet is liquidated, other marks held still.

        Zero when no price liquidates it. The brackets are those at the liquidation notional:
        the price is computed again with the brackets at the last one until they stay.
        """
        margin = self.of(account, position)
        legs = [leg for leg in margin.legs if leg.symbol == position.symbol]
        spare = margin.wallet
        for leg in margin.legs:
            if leg.symbol != position.symbol:
                spare += self.unrealised(leg) - self.maintenance(leg)
        ladder = self._contract(position.symbol).ladder
        price = self._mark(position.symbol)
        for _ in range(ROUNDS):
            slack, slope = spare, ZERO
            for leg in legs:
                bracket = ladder.at(abs(leg.quantity) * price)
                slack += bracket.cum - leg.cost
                slope += leg.quantity - abs(leg.quantity) * bracket.rate
            before, price = price, -slack / slope if slope else ZERO
            if not price > 0:
                return ZERO
            if price == before:
                break
        return price

    def bankruptcy_price(self, account: FuturesAccount, position: Position) -> Decimal:
        """Return the price at which closing a position leaves its wallet nothing."""
        return self._mark(position.symbol) - self.of(account, position).balance / position.quantity

    def _measure(self, wallet: Decimal, legs: Sequence[Position]) -> Margin:
        return Margin(
            wallet,
            sum((self.unrealised(leg) for leg in legs), ZERO),
            sum((self.maintenance(leg) for leg in legs), ZERO),
            tuple(legs),
        )
