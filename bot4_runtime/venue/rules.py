"""Trading rules of a symbol: Binance's filters, and what `exchangeInfo` tells of them."""

from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue.refusals import Refused, filter_failure, too_precise

DIGITS: Final = 8
"""Decimals of every asset."""
ORDER_TYPES: Final = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)


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
        market_min: least base quantity of a market order, beside the others' rule.
        market_max: most; 0 for no rule of its own.
        market_step: quantity step of market orders; 0 for no rule of its own.
        max_position: base an account may hold, its open buys included; None for no rule.
        both_sides: the band holds for bids and asks alike (PERCENT_PRICE).
        least_alone: tell the least notional alone (MIN_NOTIONAL).
        status: ``TRADING``, or why there is none.
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
    market_min: Decimal = Decimal(0)
    market_max: Decimal = Decimal(0)
    market_step: Decimal = Decimal(0)
    max_position: Decimal | None = None
    both_sides: bool = False
    least_alone: bool = False
    status: str = "TRADING"

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
        """Hold a price against the band around the last one; raises Refused -1013."""
        highest, lowest = last * self.price_band, last * self._lowest()
        inside = (not (buying or self.both_sides) or price <= highest) and (
            (buying and not self.both_sides) or price >= lowest
        )
        if not inside:
            raise filter_failure("PERCENT_PRICE" if self.both_sides else "PERCENT_PRICE_BY_SIDE")

    def _lowest(self) -> Decimal:
        """The band's lower multiplier, as it is told: eight decimals."""
        return Decimal(plain(1 / self.price_band))

    def check_quantity(self, quantity: Decimal) -> None:
        """Hold a quantity against LOT_SIZE; raises Refused -1111 or -1013."""
        _check_digits("quantity", quantity)
        inside = self.min_quantity <= quantity <= self.max_quantity
        if not inside or quantity % self.step_size:
            raise filter_failure("LOT_SIZE")

    def check_market_quantity(self, quantity: Decimal) -> None:
        """Hold a market order's quantity against MARKET_LOT_SIZE; raises Refused -1013."""
        inside = self.market_min <= quantity and not 0 < self.market_max < quantity
        if not inside or (self.market_step and quantity % self.market_step):
            raise filter_failure("MARKET_LOT_SIZE")

    def check_position(self, base: Decimal) -> None:
        """Hold what an account would own with a buy against MAX_POSITION; raises Refused -1013."""
        if self.max_position is not None and not base <= self.max_position:
            raise filter_failure("MAX_POSITION")

    def check_notional(self, notional: Decimal) -> None:
        """Hold price x quantity against NOTIONAL; raises Refused -1013."""
        if not self.min_notional <= notional:
            raise filter_failure("MIN_NOTIONAL" if self.least_alone else "NOTIONAL")
        if not (self.least_alone or notional <= self.max_notional):
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
            "status": self.status,
            "baseAsset": self.base,
            "baseAssetPrecision": DIGITS,
            "quoteAsset": self.quote,
            "quotePrecision": DIGITS,
            "quoteAssetPrecision": DIGITS,
            "baseCommissionPrecision": DIGITS,
            "quoteCommissionPrecision": DIGITS,
            "orderTypes": list(ORDER_TYPES),
            "icebergAllowed": False,
            "ocoAllowed": True,
            "otoAllowed": False,
            "opoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": True,
            "amendAllowed": True,
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
            self._band(),
            self._notional(),
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": plain(self.market_min),
                "maxQty": plain(self.market_max or self.max_quantity),
                "stepSize": plain(self.market_step),
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": self.max_stops},
            *(
                [{"filterType": "MAX_POSITION", "maxPosition": plain(self.max_position)}]
                if self.max_position is not None
                else []
            ),
        ]

    def _band(self) -> dict[str, Any]:
        up, down = plain(self.price_band), plain(self._lowest())
        if self.both_sides:
            return {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": up,
                "multiplierDown": down,
                "avgPriceMins": 0,
            }
        return {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": up,
            "bidMultiplierDown": plain(Decimal(0)),
            "askMultiplierUp": plain(self.max_price),
            "askMultiplierDown": down,
            "avgPriceMins": 0,
        }

    def _notional(self) -> dict[str, Any]:
        if self.least_alone:
            return {
                "filterType": "MIN_NOTIONAL",
                "minNotional": plain(self.min_notional),
                "applyToMarket": True,
                "avgPriceMins": 0,
            }
        return {
            "filterType": "NOTIONAL",
            "minNotional": plain(self.min_notional),
            "applyMinToMarket": True,
            "maxNotional": plain(self.max_notional),
            "applyMaxToMarket": True,
            "avgPriceMins": 0,
        }


def plain(value: Decimal) -> str:
    """Write an amount as Binance does: eight decimals, no exponent."""
    return f"{value:.{DIGITS}f}"


def _check_digits(name: str, value: Decimal) -> None:
    exponent = value.normalize().as_tuple().exponent
    if not isinstance(exponent, int):  # NaN, infinity
        raise Refused(-1100, f"Illegal characters found in parameter '{name}'.")
    if -exponent > DIGITS:
        raise too_precise(name)
