"""What may be traded: a symbol's assets, price tick, quantity step and least notional.

Rounding is exact, in Decimal. Rules come from the venue where there is one; offline,
`assumed` derives plausible ones from a price, and reports say so.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

import msgspec

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError

QUOTE_ASSETS: Final = (
    "FDUSD",
    "USDT",
    "USDC",
    "TUSD",
    "BUSD",
    "DAI",
    "EUR",
    "TRY",
    "BTC",
    "ETH",
    "BNB",
)
"""Quote assets by which a Binance symbol is split, in the order they are tried."""

_ROOM: Final = Decimal("0.9")
"""Share of the largest notional that is used: prices move until an order arrives."""


def split_symbol(symbol: str) -> tuple[str, str]:
    """Split ``BTCUSDT`` into ``("BTC", "USDT")``.

    Raises:
        DataError: the symbol ends with none of `QUOTE_ASSETS`.
    """
    for quote in QUOTE_ASSETS:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol[: -len(quote)], quote
    raise DataError(
        f"cannot tell base and quote of symbol {symbol!r}; "
        f"expected it to end with one of {' '.join(QUOTE_ASSETS)}"
    )


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """Trading rules of one symbol.

    Attributes:
        tick_size: price step, in quote.
        step_size: quantity step, in base.
        min_quantity: least quantity, in base.
        min_notional: least price x quantity, in quote.
        assumed: True when the rules were derived from a price, not told by the venue.
        max_quantity: most of one order, in base; None for no rule.
        max_market_quantity: the same of a market order, beside it.
        max_market_notional: most price x quantity of a market order, in quote; None for no rule.
    """

    symbol: str
    market: Market
    base: str
    quote: str
    tick_size: Decimal
    step_size: Decimal
    min_quantity: Decimal
    min_notional: Decimal
    assumed: bool = False
    max_quantity: Decimal | None = None
    max_market_quantity: Decimal | None = None
    max_market_notional: Decimal | None = None

    @classmethod
    def assume(cls, symbol: str, market: Market, price: float) -> "Instrument":
        """Derive rules from a price: five digits of price, steps worth about 0.1 quote.

        Raises:
            DataError: the price is not positive and finite, or the symbol has no known quote.
        """
        if not 0.0 < price < math.inf:
            raise DataError(f"cannot derive trading rules of {symbol} from price {price}")
        base, quote = split_symbol(symbol)
        magnitude = math.floor(math.log10(price))
        step = Decimal(1).scaleb(-1 - magnitude)
        return cls(
            symbol=symbol,
            market=market,
            base=base,
            quote=quote,
            tick_size=Decimal(1).scaleb(magnitude - 5),
            step_size=step,
            min_quantity=step,
            min_notional=Decimal(5),
            assumed=True,
        )

    def floor_quantity(self, quantity: Decimal) -> Decimal:
        """Cut a quantity down to the step; zero when it is below the least quantity."""
        cut = _to_multiple(quantity, self.step_size, ROUND_FLOOR)
        return cut if cut >= self.min_quantity else Decimal(0)

    def largest(self, price: Decimal, *, at_market: bool) -> Decimal | None:
        """Return the most that one order may trade, cut to the step; None for no rule.

        Args:
            price: by which it will be valued, as well as it is known.
            at_market: of a market order, and of a stop in contracts, else of one that rests.
        """
        most = [self.max_quantity]
        if at_market:
            most.append(self.max_market_quantity)
            if self.max_market_notional is not None and price > 0:
                most.append(self.max_market_notional * _ROOM / price)
        known = [limit for limit in most if limit is not None]
        return _to_multiple(min(known), self.step_size, ROUND_FLOOR) if known else None

    def in_one_order(self, quantity: Decimal, price: Decimal, *, at_market: bool) -> Decimal:
        """Return what one order takes of a quantity; arguments as of `largest`."""
        most = self.largest(price, at_market=at_market)
        return min(quantity, most) if most is not None and most > 0 else quantity

    def floor_price(self, price: Decimal) -> Decimal:
        """Cut a price down to the tick."""
        return _to_multiple(price, self.tick_size, ROUND_FLOOR)

    def ceil_price(self, price: Decimal) -> Decimal:
        """Lift a price up to the tick."""
        return _to_multiple(price, self.tick_size, ROUND_CEILING)

    def tradable(self, quantity: Decimal, price: Decimal) -> bool:
        """Whether the venue's filters let this quantity through at this price."""
        return quantity >= self.min_quantity and quantity * price >= self.min_notional

    def sellable(self, quantity: Decimal, price: Decimal) -> bool:
        """Whether so much of what is held can be left: of contracts the least notional is none."""
        if self.market is Market.USDM:
            return quantity >= self.min_quantity
        return self.tradable(quantity, price)


def _to_multiple(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return (value / step).to_integral_value(rounding=rounding) * step
