"""Trading rules of a symbol: Binance's filters, and what `exchangeInfo` tells of them."""

from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue.refusals import Refused, filter_failure, too_precise

DIGITS: Final = 8
"""Decimals of every asset."""
ORDER_TYPES: Final = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS")


class SymbolRules(msgspec.Struct, frozen=True, kw_only=True):
    """What an order in a symbol must keep to.

    Attributes:
        tick_size: price step and least price, in quote.
        step_size: quantity step, in base.
        min_notional: least price x quantity, in quote; market orders are valued at the last
            price.
        max_notional: most, in quote.
        price_band: a bid may lie at most this many times above the last price, and an ask at
            most this many times below it.
        max_orders: open orders an account may have in the symbol.
        max_stops: open stop orders among them.
    """

    symbol: str
    base: str
    quote: str
    tick_size: Decimal
    step_size: Decimal
    min_quantity: Decimal
    max_quantity: Decimal = Decimal(9_000_000)
    max_price: Decimal = Decimal(10_000_000)
    min_notional: Decimal = Decimal(5)
    max_notional: Decimal = Decimal(90_000_000)
    price_band: Decimal = Decimal(5)
    max_orders: int = 200
    max_stops: int = 5

    @classmethod
    def of(cls, instrument: Instrument) -> "SymbolRules":
        """Take over the rules by which the engine trades a symbol."""
        return cls(
            symbol=instrument.symbol,
            base=instrument.base,
            quote=instrument.quote,
            tick_size=instrument.tick_size,
            step_size=instrument.step_size,
            min_quantity=instrument.min_quantity,
            min_notional=instrument.min_notional,
        )

    def check_price(self, name: str, price: Decimal) -> None:
        """Hold a price against PRICE_FILTER.

        Raises:
            Refused: -1111 or -1013.
        """
        _check_digits(name, price)
        if not self.tick_size <= price <= self.max_price or price % self.tick_size:
            raise filter_failure("PRICE_FILTER")

    def check_band(self, price: Decimal, last: Decimal, *, buying: bool) -> None:
        """Hold a price against PERCENT_PRICE_BY_SIDE; raises Refused -1013."""
        inside = price <= last * self.price_band if buying else price >= last / self.price_band
        if not inside:
            raise filter_failure("PERCENT_PRICE_BY_SIDE")

    def check_quantity(self, quantity: Decimal) -> None:
        """Hold a quantity against LOT_SIZE; raises Refused -1111 or -1013."""
        _check_digits("quantity", quantity)
        inside = self.min_quantity <= quantity <= self.max_quantity
        if not inside or (quantity - self.min_quantity) % self.step_size:
            raise filter_failure("LOT_SIZE")

    def check_notional(self, notional: Decimal) -> None:
        """Hold price x quantity against NOTIONAL; raises Refused -1013."""
        if not self.min_notional <= notional <= self.max_notional:
            raise filter_failure("NOTIONAL")

    def check_counts(self, orders: int, stops: int, *, is_stop: bool) -> None:
        """Hold the account's open orders, this one included, against their caps."""
        if not orders <= self.max_orders:
            raise filter_failure("MAX_NUM_ORDERS")
        if is_stop and not stops <= self.max_stops:
            raise filter_failure("MAX_NUM_ALGO_ORDERS")

    def told(self) -> dict[str, Any]:
        """Return the symbol's part of `exchangeInfo`."""
        return {
            "symbol": self.symbol,
            "status": "TRADING",
            "baseAsset": self.base,
            "baseAssetPrecision": DIGITS,
            "quoteAsset": self.quote,
            "quotePrecision": DIGITS,
            "quoteAssetPrecision": DIGITS,
            "baseCommissionPrecision": DIGITS,
            "quoteCommissionPrecision": DIGITS,
            "orderTypes": list(ORDER_TYPES),
            "icebergAllowed": False,
            "ocoAllowed": False,
            "otoAllowed": False,
            "opoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": False,
            "amendAllowed": False,
            "pegInstructionsAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
            "allowedSelfTradePreventionModes": ["EXPIRE_MAKER"],
            "filters": self._filters(),
        }

    def _filters(self) -> list[dict[str, Any]]:
        return [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": plain(self.tick_size),
                "maxPrice": plain(self.max_price),
                "tickSize": plain(self.tick_size),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": plain(self.min_quantity),
                "maxQty": plain(self.max_quantity),
                "stepSize": plain(self.step_size),
            },
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": plain(self.price_band),
                "bidMultiplierDown": plain(Decimal(0)),
                "askMultiplierUp": plain(self.max_price),
                "askMultiplierDown": plain(1 / self.price_band),
                "avgPriceMins": 0,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": plain(self.min_notional),
                "applyMinToMarket": True,
                "maxNotional": plain(self.max_notional),
                "applyMaxToMarket": True,
                "avgPriceMins": 0,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": self.max_stops},
        ]


def plain(value: Decimal) -> str:
    """Write an amount as Binance does: eight decimals, no exponent."""
    return f"{value:.{DIGITS}f}"


def _check_digits(name: str, value: Decimal) -> None:
    exponent = value.normalize().as_tuple().exponent
    if not isinstance(exponent, int):  # NaN, infinity
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'.")
    if -exponent > DIGITS:
        raise too_precise(name)
