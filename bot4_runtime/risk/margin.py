"""Margin of USD-M positions: maintenance, balance, ratio, margin consumed, liquidation price.

A wallet is what is liquidated as one: an isolated position with its own margin, or all cross
positions of an account with its balance. Its slack = margin balance - maintenance margin; it is
liquidated when the slack is gone, which is when maintenance margin / margin balance reaches 1.

Margin consumed = 1 - distance to liquidation now / distance at entry. In one bracket the slack
is the distance in price times a constant, so it is measured as 1 - slack now / slack with every
price at its entry. That needs no memory of how a position was opened, holds for cross wallets,
where the liquidation price of each symbol moves with the others, and for hedged ones, which may
have no price of liquidation below or above.

Formulas: Binance, "How to Calculate Liquidation Price of USD-M Futures Contracts".
float64 throughout; a number that is not finite makes every measure NaN.
"""

import math
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.errors import DataError
from bot4_runtime.risk.brackets import Brackets


class Leg:
    """One side of one symbol's position; in hedge mode a symbol has two.

    Args:
        symbol: what is held.
        side: +1 long, -1 short.
        size: base quantity held, positive.
        entry_price: average, in quote.
        brackets: the symbol's.
        stop_price: trigger of its protective stop, in quote; NaN when it has none.
        stop_live: whether a stop order rests at the venue.
        venue_liquidation_price: as the venue tells it, in quote; NaN when it does not.
        foreign: it is somebody else's, so that it is measured and never sold.

    Attributes:
        name: ``BTCUSDT long``.
        stop_name: the same with its exact stop price: a stop that was moved is another one.
        price: the one it is valued at, in quote; NaN until one is known.
        blind: that price is too old to sell by; see `bot4_runtime.risk.liquidation`.
        quantity: `size` as float64; `signed` is negative for a short.

    Raises:
        DataError: the side is neither.
    """

    def __init__(
        self,
        symbol: str,
        side: int,
        size: Decimal,
        entry_price: float,
        brackets: Brackets,
        *,
        stop_price: float = math.nan,
        stop_live: bool = False,
        venue_liquidation_price: float = math.nan,
        foreign: bool = False,
    ) -> None:
        if side not in (1, -1):
            raise DataError(f"position {symbol} has side {side}; expected 1 (long) or -1 (short)")
        self.symbol: Final = symbol
        self.side: Final = side
        self.size: Final = size
        self.entry_price: Final = entry_price
        self.brackets: Final = brackets
        self.stop_price: Final = stop_price
        self.stop_live: Final = stop_live
        self.venue_liquidation_price: Final = venue_liquidation_price
        self.foreign: Final = foreign
        self.name: Final = f"{symbol} {'long' if side > 0 else 'short'}"
        self.stop_name: Final = f"{self.name}, stop {stop_price!r}"
        self.quantity: Final = float(size)
        self.signed: Final = side * self.quantity
        self.price = math.nan
        self.blind = False

    @property
    def known_price(self) -> float:
        """Its price, or the entry price while none is known, in quote."""
        return self.price if 0.0 < self.price < math.inf else self.entry_price

    @property
    def unrealised(self) -> float:
        """Profit at its price, in quote."""
        return self.signed * (self.price - self.entry_price)

    @property
    def maintenance(self) -> float:
        """Maintenance margin at its price, in quote."""
        return self.brackets.maintenance(self.quantity * self.price)


class Wallet:
    """Legs that share one margin balance, and how near they are to liquidation.

    Args:
        name: unique in an account: ``cross``, or ``BTCUSDT long`` for an isolated one.
        balance: wallet balance in quote, unrealised profit not included.
        legs: what it carries, at least one.
        isolated: margin can be added to it.

    Attributes:
        maintenance, margin_balance: in quote, as of the last `measure`.
        ratio: maintenance margin / margin balance; infinite when nothing is left.
        consumed: share of the margin consumed: 0 at entry, 1 at liquidation.
        worst: the larger of the two; NaN when either is unknown.

    Raises:
        DataError: it carries nothing.
    """

    def __init__(self, name: str, balance: float, legs: list[Leg], *, isolated: bool) -> None:
        if not legs:
            raise DataError(f"wallet {name} has no positions; there is nothing to measure")
        self.name: Final = name
        self.balance: Final = balance
        self.legs: Final = legs
        self.isolated: Final = isolated
        self._slack_at_entry: Final = balance - _maintenance_at_entry(legs)
        self.maintenance = math.nan
        self.margin_balance = math.nan
        self.ratio = math.nan
        self.consumed = math.nan
        self.worst = math.nan

    def measure(self) -> float:
        """Take both measures at the legs' prices; return the larger one, NaN when unknown."""
        maintenance = 0.0
        balance = self.balance
        for leg in self.legs:
            price = leg.price
            quantity = leg.quantity
            # Zero, infinite and negative prices or sizes are as unknown as NaN.
            if not (0.0 < price < math.inf and 0.0 < quantity < math.inf):
                balance = maintenance = math.nan
                break
            balance += leg.signed * (price - leg.entry_price)
            maintenance += leg.brackets.maintenance(quantity * price)
        self.maintenance = maintenance
        self.margin_balance = balance
        slack = balance - maintenance
        at_entry = self._slack_at_entry
        if not (-math.inf < slack < math.inf and -math.inf < at_entry < math.inf):
            self.ratio = self.consumed = self.worst = math.nan
            return math.nan
        ratio = maintenance / balance if balance > 0.0 else math.inf
        consumed = 0.0 if slack > 0.0 else math.inf
        if at_entry > 0.0:  # else there was nothing to lose at entry: the ratio alone speaks
            consumed = 1.0 - slack / at_entry
        worst = max(ratio, consumed)
        self.ratio, self.consumed, self.worst = ratio, consumed, worst
        return worst

    def liquidation_range(self, symbol: str) -> tuple[float, float]:
        """Return the prices of a symbol between which the wallet lives, the others held still.

        Returns:
            (low, high) in quote: 0 when it survives any fall, infinity when any rise; (inf, 0)
            when it lives at no price; NaN when a price or a size is unknown.
        """
        budget = self.balance
        own: list[Leg] = []
        for leg in self.legs:
            if leg.symbol == symbol:
                own.append(leg)
            else:
                budget += leg.unrealised - leg.maintenance
        return liquidation_range(own, budget)

    def liquidation_price(self, leg: Leg) -> float | None:
        """Return the liquidation price of a leg's symbol nearest to its price, in quote.

        The legs of a hedged symbol share it. None when no price liquidates, NaN when unknown.
        """
        low, high = self.liquidation_range(leg.symbol)
        if math.isnan(low):
            return math.nan
        if low > high:
            return leg.price
        if low <= 0.0:
            return high if high < math.inf else None
        return low if high == math.inf or leg.price - low <= high - leg.price else high


def liquidation_range(legs: list[Leg], budget: float) -> tuple[float, float]:
    """Return the prices between which one symbol's legs keep some slack.

    The slack is concave and piecewise linear in the price. Binance's formula, with the brackets
    at some price, is the zero of the slack's tangent there; taken again and again from outside
    it comes nearer in every round, and stays once the brackets are those at the liquidation
    notional itself. That is the fixed point Binance prescribes.

    Args:
        legs: of one symbol, one or both sides.
        budget: balance that the legs may lose, in quote: isolated margin; on cross the wallet
            balance - maintenance margin + unrealised profit of all other symbols.

    Returns:
        As `Wallet.liquidation_range`.
    """
    highest = 0.0
    rounds = 2
    for leg in legs:
        known = 0.0 < leg.quantity < math.inf and 0.0 < leg.entry_price < math.inf
        if not (known and -math.inf < budget < math.inf):
            return math.nan, math.nan
        highest = max(highest, leg.brackets.floors[-1] / leg.quantity)
        rounds += len(leg.brackets.floors)
    low, high = 0.0, math.inf
    slack, slope = _tangent(legs, budget, 0.0)
    if slack < 0.0:
        for _ in range(rounds):
            if not slope > 0.0:
                return math.inf, 0.0
            low = -slack / slope
            slack, slope = _tangent(legs, budget, low)
    slack, slope = _tangent(legs, budget, 2.0 * highest + 1.0)
    if slope < 0.0:
        for _ in range(rounds):
            if not (slope < 0.0 and slack > 0.0):
                return math.inf, 0.0
            high = -slack / slope
            slack, slope = _tangent(legs, budget, high)
    return low, high


def _tangent(legs: list[Leg], budget: float, price: float) -> tuple[float, float]:
    """Return slack at price 0 and its slope, by the brackets at a price."""
    slack = budget
    slope = 0.0
    for leg in legs:
        brackets = leg.brackets
        at = brackets.index(leg.quantity * price)
        slack += brackets.cums[at] - leg.signed * leg.entry_price
        slope += leg.signed - leg.quantity * brackets.rates[at]
    return slack, slope


def _maintenance_at_entry(legs: list[Leg]) -> float:
    total = 0.0
    for leg in legs:
        total += leg.brackets.maintenance(leg.quantity * leg.entry_price)
    return total
