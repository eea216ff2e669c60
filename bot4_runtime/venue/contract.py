"""Trading rules of a USD-M perpetual: Binance's filters, and what `exchangeInfo` tells of them."""

from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.brackets import LADDERS, SMALL, Ladder
from bot4_runtime.venue.refusals import Refused

HOUR_MS: Final = 3_600_000
ONBOARD_MS: Final = 1_569_398_400_000
PERPETUAL_DELIVERY_MS: Final = 4_133_404_800_000
ORDER_TYPES: Final = (
    "LIMIT",
    "MARKET",
    "STOP",
    "STOP_MARKET",
    "TAKE_PROFIT",
    "TAKE_PROFIT_MARKET",
    "TRAILING_STOP_MARKET",
)


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What an order in a perpetual must keep to, and what holding it costs.

    Attributes:
        quote: what prices are in, and what margin is paid in.
        tick_size: price step and least price, in quote.
        step_size: quantity step, in base.
        max_market_quantity: of a MARKET order, in base.
        min_notional: least price x quantity, in quote; orders that only reduce are exempt.
        band: a buy may lie at most this share above the mark, a sell at most as far below.
        max_orders: open orders an account may have in the symbol.
        liquidation_fee: clearance fee of a liquidation, as a share of its notional.
        funding_hours: from one funding to the next.
        ladder: leverage brackets.
    """

    symbol: str
    base: str
    quote: str
    tick_size: Decimal
    step_size: Decimal
    min_quantity: Decimal
    max_quantity: Decimal = Decimal(1_000_000)
    max_market_quantity: Decimal = Decimal(100_000)
    max_price: Decimal = Decimal(10_000_000)
    min_notional: Decimal = Decimal(5)
    band: Decimal = Decimal("0.05")
    max_orders: int = 200
    liquidation_fee: Decimal = Decimal("0.0125")
    funding_hours: int = 8
    ladder: Ladder = SMALL

    @classmethod
    def of(cls, instrument: Instrument) -> "Contract":
        """Take over the rules by which the engine trades a symbol."""
        return cls(
            symbol=instrument.symbol,
            base=instrument.base,
            quote=instrument.quote,
            tick_size=instrument.tick_size,
            step_size=instrument.step_size,
            min_quantity=instrument.min_quantity,
            min_notional=instrument.min_notional,
            ladder=LADDERS.get(instrument.symbol, SMALL),
        )

    def next_funding_ms(self, now_ms: int) -> int:
        """Return the first funding time after a time, both ms UTC."""
        interval_ms = self.funding_hours * HOUR_MS
        return (now_ms // interval_ms + 1) * interval_ms

    def check_price(self, price: Decimal) -> None:
        """Hold a price against PRICE_FILTER.

        Raises:
            Refused: -4001, -4002, -4013, -1111 or -4014.
        """
        if not price > 0:
            raise Refused(*no.PRICE_BELOW_ZERO)
        if not price <= self.max_price:
            raise Refused(*no.PRICE_ABOVE_MAX)
        if not price >= self.tick_size:
            raise Refused(*no.PRICE_BELOW_MIN)
        _check_digits(price, self.tick_size)
        if price % self.tick_size:
            raise Refused(*no.PRICE_OFF_TICK)

    def check_band(self, price: Decimal, mark: Decimal, *, buying: bool) -> None:
        """Hold a price against PERCENT_PRICE; raises Refused -4016 or -4024."""
        if buying and not price <= mark * (1 + self.band):
            raise Refused(*no.PRICE_ABOVE_BAND)
        if not buying and not price >= mark * (1 - self.band):
            raise Refused(*no.PRICE_BELOW_BAND)

    def check_quantity(self, quantity: Decimal, *, market: bool) -> None:
        """Hold a quantity against LOT_SIZE, or MARKET_LOT_SIZE.

        Raises:
            Refused: -4003, -4004, -4005, -1111 or -4023.
        """
        if not quantity > 0:
            raise Refused(*no.QUANTITY_BELOW_ZERO)
        if not quantity >= self.min_quantity:
            raise Refused(*no.QUANTITY_BELOW_MIN)
        if not quantity <= (self.max_market_quantity if market else self.max_quantity):
            raise Refused(*no.QUANTITY_ABOVE_MAX)
        _check_digits(quantity, self.step_size)
        if (quantity - self.min_quantity) % self.step_size:
            raise Refused(*no.QUANTITY_OFF_STEP)

    def check_notional(self, notional: Decimal) -> None:
        """Hold price x quantity against MIN_NOTIONAL; raises Refused -4164."""
        if not notional >= self.min_notional:
            raise no.notional_too_small(self.min_notional)

    def told(self) -> dict[str, Any]:
        """Return the symbol's part of `exchangeInfo`."""
        return {
            "symbol": self.symbol,
            "pair": self.symbol,
            "contractType": "PERPETUAL",
            "deliveryDate": PERPETUAL_DELIVERY_MS,
            "onboardDate": ONBOARD_MS,
            "status": "TRADING",
            "maintMarginPercent": "2.5000",
            "requiredMarginPercent": "5.0000",
            "baseAsset": self.base,
            "quoteAsset": self.quote,
            "marginAsset": self.quote,
            "pricePrecision": _digits(self.tick_size),
            "quantityPrecision": _digits(self.step_size),
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "underlyingSubType": [],
            "settlePlan": 0,
            "triggerProtect": "0.0500",
            "liquidationFee": f"{self.liquidation_fee:.6f}",
            "marketTakeBound": f"{self.band:.2f}",
            "maxMoveOrderLimit": 10_000,
            "filters": self._filters(),
            "orderTypes": list(ORDER_TYPES),
            "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        }

    def _filters(self) -> list[dict[str, Any]]:
        return [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": f"{self.tick_size:f}",
                "maxPrice": f"{self.max_price:f}",
                "tickSize": f"{self.tick_size:f}",
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": f"{self.min_quantity:f}",
                "maxQty": f"{self.max_quantity:f}",
                "stepSize": f"{self.step_size:f}",
            },
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": f"{self.min_quantity:f}",
                "maxQty": f"{self.max_market_quantity:f}",
                "stepSize": f"{self.step_size:f}",
            },
            {"filterType": "MAX_NUM_ORDERS", "limit": self.max_orders},
            {"filterType": "MIN_NOTIONAL", "notional": f"{self.min_notional:f}"},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": f"{1 + self.band:.4f}",
                "multiplierDown": f"{1 - self.band:.4f}",
                "multiplierDecimal": "4",
            },
        ]


def _digits(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _check_digits(value: Decimal, step: Decimal) -> None:
    if _digits(value) > _digits(step):
        raise Refused(*no.TOO_PRECISE)
