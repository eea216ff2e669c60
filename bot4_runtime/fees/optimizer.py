"""Where and how to send an order for the least expected cost [compiled].

Costs are shares of the notional against the mid price. Taking costs the taker fee, half the
spread and the impact of eating into the book. Resting costs the maker fee when it fills; when
it does not, the order is taken later, after the price has moved away. No credit is given for
the half spread a resting order may earn: adverse selection tends to take it back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Liquidity, OrderType
from bot4_runtime.fees.calculator import FeeCalculator

DEPTH_SPAN: Final = 0.001
"""`VenueQuote.depth_quote` is what lies within 10 bps of the mid."""

_INFINITY: Final = float("inf")
_MAKER: Final = Liquidity.MAKER
_TAKER: Final = Liquidity.TAKER
_LIMIT: Final = OrderType.LIMIT
_MARKET: Final = OrderType.MARKET


@dataclass(frozen=True)
class OrderToRoute:
    """What is to be traded.

    Attributes:
        notional: price x quantity, in quote.
    """

    symbol: str
    notional: float


class VenueQuote:
    """How a venue stands for one symbol.

    Args:
        calculator: the account's fees there.
        half_spread: share of the mid price.
        depth_quote: what rests within 10 bps on the side that would be taken, in quote.
        fill_probability: chance that a resting order fills in the time it is given.
        drift: adverse move expected when it does not, as a share of the price.

    Raises:
        DataError: a number is outside its range or not finite.
    """

    def __init__(
        self,
        calculator: FeeCalculator,
        half_spread: float,
        depth_quote: float,
        fill_probability: float,
        drift: float,
    ) -> None:
        _check("half spread", half_spread, 0.0, 1.0)
        _check("drift", drift, 0.0, 1.0)
        _check("fill probability", fill_probability, 0.0, 1.0)
        if not 0.0 < depth_quote < _INFINITY:
            raise DataError(f"depth {depth_quote} cannot be traded into; expected a number > 0")
        self.calculator: Final = calculator
        self.half_spread: Final = half_spread
        self.depth_quote: Final = depth_quote
        self.fill_probability: Final = fill_probability
        self.drift: Final = drift

    def taking(self, notional: float) -> float:
        """Return half spread and impact of a market order, as a share of the notional.

        An evenly filled book of which a share is eaten moves the average by half of that.
        """
        return self.half_spread + DEPTH_SPAN * (notional / self.depth_quote) / 2

    def waiting(self, notional: float) -> float:
        """Return what a limit order is expected to lose by not filling, fees left out."""
        return (1.0 - self.fill_probability) * (self.taking(notional) + self.drift)


@dataclass(frozen=True)
class Route:
    """The cheapest way and its cost.

    Attributes:
        cost: expected fee and slippage, as a share of the notional.
        cost_quote: the same, in quote.
        fee: the fee's part of `cost`.
        compared: every venue and order type with its cost, in the order asked.
    """

    venue: str
    order_type: OrderType
    cost: float
    cost_quote: float
    fee: float
    compared: tuple[tuple[str, OrderType, float], ...]

    @property
    def reason(self) -> str:
        """The comparison, in words."""
        words = [
            f"{venue} {order_type.value} {cost * 10_000:.2f} bps"
            for venue, order_type, cost in self.compared
        ]
        return f"cheapest of {'; '.join(words)}"


def suggest_order_type(order: OrderToRoute, quote: VenueQuote) -> OrderType:
    """Suggest LIMIT when limit fee + slippage < market fee, else MARKET.

    This is the specification's rule: the market order's own slippage is left out of it, which
    favours taking; `optimize_order_routing` counts both sides.

    Raises:
        DataError: the notional is not positive and finite.
    """
    _check_notional(order.notional)
    fees = quote.calculator
    resting = fees.rate(fees.venue, order.symbol, _MAKER) + quote.waiting(order.notional)
    if resting < fees.rate(fees.venue, order.symbol, _TAKER):
        return OrderType.LIMIT
    return OrderType.MARKET


def optimize_order_routing(order: OrderToRoute, exchanges: Sequence[VenueQuote]) -> Route:
    """Choose the venue and order type of least expected fee and slippage.

    Ties go to the earlier venue and to the market order.

    Raises:
        DataError: there is no venue, or the notional is not positive and finite.
    """
    _check_notional(order.notional)
    if not exchanges:
        raise DataError(f"no venue to send {order.symbol} to; expected at least one")
    compared: list[tuple[str, OrderType, float]] = []
    best, best_fee = 0, 0.0
    for quote in exchanges:
        fees = quote.calculator
        maker = fees.rate(fees.venue, order.symbol, _MAKER)
        taker = fees.rate(fees.venue, order.symbol, _TAKER)
        resting = quote.fill_probability * maker + (1.0 - quote.fill_probability) * taker
        market = taker + quote.taking(order.notional)
        limit = resting + quote.waiting(order.notional)
        compared.append((fees.venue, _MARKET, market))
        if len(compared) == 1 or market < compared[best][2]:
            best, best_fee = len(compared) - 1, taker
        compared.append((fees.venue, _LIMIT, limit))
        if limit < compared[best][2]:
            best, best_fee = len(compared) - 1, resting
    venue, order_type, cost = compared[best]
    return Route(venue, order_type, cost, cost * order.notional, best_fee, tuple(compared))


def _check(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise DataError(f"{what} {value} is impossible; expected {least:g} to {most:g}")


def _check_notional(notional: float) -> None:
    if not 0.0 < notional < _INFINITY:
        raise DataError(f"order of {notional} in quote cannot be routed; expected a number > 0")
