"""Binance's trading rules of a symbol, held against an order before it is sent. Pure, exact.

What the rules need and nobody knows (a last price, how many orders are open, what is owned) is
left to the venue to judge. Rules of an unknown kind are named and left to it too. Source:
binance-spot-api-docs, filters.md, at a5e0bc3 (2026-07-17).
"""

import math
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import ClassVar, Final, NamedTuple, TypeVar

import msgspec

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.exchange.binance.messages import Name, is_amount

TRADING: Final = "TRADING"
ZERO: Final = Decimal(0)
MOST: Final = Decimal(10) ** 15
"""Above any amount of an order."""
_EXACT: Final = Context(prec=80)
"""Enough for remainders and multiples of all amounts by all steps that a venue can tell."""
Shape = TypeVar("Shape", bound="Filter")


class Ask(NamedTuple):
    """An order as far as rules look at it.

    Attributes:
        kind: Binance's word for the type.
        quantity: in base; None for a market order by quote quantity.
        quote_quantity: in quote, of such an order.
        price: limit, in quote.
        stop_price: trigger, in quote.
    """

    side: Side
    kind: str
    quantity: Decimal | None = None
    quote_quantity: Decimal | None = None
    price: Decimal | None = None
    stop_price: Decimal | None = None


class Surroundings(NamedTuple):
    """What rules look at beside the order; None where nobody knows.

    Attributes:
        last: price, in quote, that bands and market orders are measured by.
        orders: open ones of the account in the symbol.
        stops: those among them with a stop price.
        owned: base on the account, free and locked, and of its open buys.
    """

    last: Decimal | None = None
    orders: int | None = None
    stops: int | None = None
    owned: Decimal | None = None


class Broken(NamedTuple):
    """A rule that an order breaks, and how."""

    rule: str
    told: str


class Filter(msgspec.Struct, rename="camel"):
    """A trading rule; its numbers are finite and not negative."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Decimal | int) and not is_amount(Decimal(value)):
                raise DataError(
                    f"{name} {str(Decimal(value))[:40]} in a trading rule; expected a number "
                    "from 0 to 1e18"
                )

    def common(self) -> "Filter":
        """Return the rule in the terms that orders are held against."""
        return self


class PriceFilter(Filter):
    """`PRICE_FILTER`; what is 0 is no rule."""

    min_price: Decimal
    max_price: Decimal
    tick_size: Decimal


class LotSize(Filter):
    """`LOT_SIZE` and `MARKET_LOT_SIZE`; a step of 0 is no rule."""

    min_qty: Decimal
    max_qty: Decimal
    step_size: Decimal


class PercentPrice(Filter):
    """`PERCENT_PRICE`: of the last price, for both sides."""

    multiplier_up: Decimal
    multiplier_down: Decimal


class PercentPriceBySide(Filter):
    """`PERCENT_PRICE_BY_SIDE`: of the last price."""

    bid_multiplier_up: Decimal
    bid_multiplier_down: Decimal
    ask_multiplier_up: Decimal
    ask_multiplier_down: Decimal


class MinNotional(Filter):
    """`MIN_NOTIONAL`, in quote."""

    min_notional: Decimal
    apply_to_market: bool


class Notional(Filter):
    """`NOTIONAL`, in quote."""

    min_notional: Decimal
    apply_min_to_market: bool
    max_notional: Decimal
    apply_max_to_market: bool


class MaxNumOrders(Filter):
    """`MAX_NUM_ORDERS`."""

    max_num_orders: int


class MaxNumAlgoOrders(Filter):
    """`MAX_NUM_ALGO_ORDERS`: of orders with a stop price."""

    max_num_algo_orders: int


class MaxPosition(Filter):
    """`MAX_POSITION`, in base."""

    max_position: Decimal


KINDS: Final[dict[str, type[Filter]]] = {
    "PRICE_FILTER": PriceFilter,
    "LOT_SIZE": LotSize,
    "MARKET_LOT_SIZE": LotSize,
    "PERCENT_PRICE": PercentPrice,
    "PERCENT_PRICE_BY_SIDE": PercentPriceBySide,
    "MIN_NOTIONAL": MinNotional,
    "NOTIONAL": Notional,
    "MAX_NUM_ORDERS": MaxNumOrders,
    "MAX_NUM_ALGO_ORDERS": MaxNumAlgoOrders,
    "MAX_POSITION": MaxPosition,
}


class _Kind(msgspec.Struct, rename="camel"):
    filter_type: Name


class SymbolFields(msgspec.Struct, rename="camel"):
    """A symbol as `exchangeInfo` tells it."""

    symbol: Name
    status: Name
    base_asset: Name
    base_asset_precision: int
    quote_asset: Name
    quote_asset_precision: int
    order_types: list[str]
    filters: list[msgspec.Raw]

    def rules(self) -> "SymbolRules":
        """Return what an order must keep to; raises DataError."""
        return SymbolRules(self)


class SymbolRules:
    """What an order in a symbol must keep to.

    Args:
        fields: as the venue tells it.

    Attributes:
        market: of the symbol.
        at_market: kinds of orders that `MARKET_LOT_SIZE` is for.
        kinds: rules that are known, by Binance's name.

    Raises:
        DataError: a rule that is known cannot be read.
    """

    market: ClassVar[Market] = Market.SPOT
    at_market: ClassVar[frozenset[str]] = frozenset({"MARKET"})
    kinds: ClassVar[Mapping[str, type[Filter]]] = KINDS

    def __init__(self, fields: SymbolFields) -> None:
        self.symbol = fields.symbol
        self.status = fields.status
        self.base, self.quote = fields.base_asset, fields.quote_asset
        self._digits = fields.base_asset_precision, fields.quote_asset_precision
        self._kinds = frozenset(fields.order_types)
        self._filters: dict[str, Filter] = {}
        self.unknown: list[str] = []
        """Names of rules that are left to the venue."""
        for raw in fields.filters:
            try:
                name = msgspec.json.decode(raw, type=_Kind).filter_type
                shape = self.kinds.get(name)
                if shape is None:
                    self.unknown.append(name)
                else:
                    rule = msgspec.json.decode(raw, type=shape).common()
                    sided = isinstance(rule, PercentPriceBySide)
                    self._filters["PERCENT_PRICE_BY_SIDE" if sided else name] = rule
            except UNREADABLE as error:
                raise DataError(
                    f"a trading rule of {fields.symbol} is unreadable: {error}"
                ) from error

    def broken(self, ask: Ask, around: Surroundings) -> Iterator[Broken]:
        """Yield the rules that an order breaks."""
        amounts = (ask.quantity, ask.quote_quantity, ask.price, ask.stop_price)
        for amount in amounts:
            if amount is not None and not (amount.is_finite() and 0 <= amount < MOST):
                yield Broken("PRECISION", f"{amount}; expected a number from 0 to {MOST:f}")
                return
        if self.status != TRADING:
            yield Broken(
                "MARKET_CLOSED",
                f"{self.symbol} is {self.status}; orders wait until it trades again",
            )
        if ask.kind not in self._kinds:
            yield Broken("ORDER_TYPE", f"{self.symbol} takes no {ask.kind} orders")
        for what, price in (("price", ask.price), ("stop price", ask.stop_price)):
            if price is not None:
                yield from self._price(what, price)
        if ask.quantity is not None:
            yield from self._quantity(ask, ask.quantity)
        if ask.price is not None and around.last is not None:
            yield from self._band(ask.side, ask.price, around.last)
        yield from self._notional(ask, around.last)
        yield from self._counts(ask, around)

    def _price(self, what: str, price: Decimal) -> Iterator[Broken]:
        yield from self._precision(what, price, self._digits[1])
        rule = self._get("PRICE_FILTER", PriceFilter)
        if rule is not None and not (
            rule.min_price <= price
            and (not rule.max_price or price <= rule.max_price)
            and _divides(rule.tick_size, price)
        ):
            yield Broken(
                "PRICE_FILTER",
                f"{what} {price:f}; expected a multiple of {rule.tick_size:f} from "
                f"{rule.min_price:f} to {rule.max_price:f}",
            )

    def _quantity(self, ask: Ask, quantity: Decimal) -> Iterator[Broken]:
        yield from self._precision("quantity", quantity, self._digits[0])
        for name in (
            ("LOT_SIZE", "MARKET_LOT_SIZE") if ask.kind in self.at_market else ("LOT_SIZE",)
        ):
            rule = self._get(name, LotSize)
            if rule is not None and not (
                rule.min_qty <= quantity <= rule.max_qty and _divides(rule.step_size, quantity)
            ):
                yield Broken(
                    name,
                    f"quantity {quantity:f}; expected a multiple of {rule.step_size:f} from "
                    f"{rule.min_qty:f} to {rule.max_qty:f}",
                )

    def _band(self, side: Side, price: Decimal, last: Decimal) -> Iterator[Broken]:
        both = self._get("PERCENT_PRICE", PercentPrice)
        if both is not None:
            yield from _outside(
                "PERCENT_PRICE", price, last * both.multiplier_down, last * both.multiplier_up
            )
        sided = self._get("PERCENT_PRICE_BY_SIDE", PercentPriceBySide)
        if sided is not None:
            down, up = (
                (sided.bid_multiplier_down, sided.bid_multiplier_up)
                if side is Side.BUY
                else (sided.ask_multiplier_down, sided.ask_multiplier_up)
            )
            yield from _outside("PERCENT_PRICE_BY_SIDE", price, last * down, last * up)

    def _notional(self, ask: Ask, last: Decimal | None) -> Iterator[Broken]:
        price = ask.price if ask.price is not None else last
        notional = ask.quote_quantity
        if notional is None and ask.quantity is not None and price is not None:
            notional = ask.quantity * price
        if notional is None:
            return
        at_market = ask.price is None
        least = self._get("MIN_NOTIONAL", MinNotional)
        if least is not None and (least.apply_to_market or not at_market):
            yield from _outside("MIN_NOTIONAL", notional, least.min_notional, None)
        rule = self._get("NOTIONAL", Notional)
        if rule is not None:
            yield from _outside(
                "NOTIONAL",
                notional,
                rule.min_notional if rule.apply_min_to_market or not at_market else ZERO,
                rule.max_notional if rule.apply_max_to_market or not at_market else None,
            )

    def _counts(self, ask: Ask, around: Surroundings) -> Iterator[Broken]:
        orders = self._get("MAX_NUM_ORDERS", MaxNumOrders)
        if orders is not None and around.orders is not None:
            most = Decimal(orders.max_num_orders)
            yield from _outside("MAX_NUM_ORDERS", Decimal(around.orders + 1), ZERO, most)
        stops = self._get("MAX_NUM_ALGO_ORDERS", MaxNumAlgoOrders)
        if stops is not None and around.stops is not None and ask.stop_price is not None:
            most = Decimal(stops.max_num_algo_orders)
            yield from _outside("MAX_NUM_ALGO_ORDERS", Decimal(around.stops + 1), ZERO, most)
        position = self._get("MAX_POSITION", MaxPosition)
        if position is not None and around.owned is not None and ask.side is Side.BUY:
            owned = around.owned + (ask.quantity or ZERO)
            yield from _outside("MAX_POSITION", owned, ZERO, position.max_position)

    def _precision(self, what: str, value: Decimal, digits: int) -> Iterator[Broken]:
        exponent = value.normalize().as_tuple().exponent
        if not (isinstance(exponent, int) and -exponent <= digits):
            yield Broken("PRECISION", f"{what} {value}; expected at most {digits} decimals")

    # ---------------------------------------------------------------------- rounding
    def floor_quantity(self, quantity: Decimal, *, at_market: bool = False) -> Decimal:
        """Cut a quantity down to what the rules let pass; 0 when that is nothing.

        Args:
            quantity: in base.
            at_market: of a market order, which has a rule of its own beside.
        """
        names = ("LOT_SIZE", "MARKET_LOT_SIZE") if at_market else ("LOT_SIZE",)
        rules = [rule for name in names if (rule := self._get(name, LotSize)) is not None]
        cut = min([quantity, *(rule.max_qty for rule in rules)])
        step = _common([rule.step_size for rule in rules if rule.step_size])
        cut = _to_multiple(cut, step, ROUND_FLOOR)
        return cut if cut > 0 and all(cut >= rule.min_qty for rule in rules) else ZERO

    def price(self, price: Decimal, *, up: bool) -> Decimal:
        """Move a price to the tick above or below."""
        rule = self._get("PRICE_FILTER", PriceFilter)
        tick = rule.tick_size if rule is not None else ZERO
        return _to_multiple(price, tick, ROUND_CEILING if up else ROUND_FLOOR)

    def instrument(self) -> Instrument:
        """Return the rules as the engine trades by them; raises DataError without their steps.

        Steps and least quantities are those of market orders too: what is bought can be sold.
        """
        price, lot = self._get("PRICE_FILTER", PriceFilter), self._get("LOT_SIZE", LotSize)
        if price is None or lot is None or not (price.tick_size > 0 and lot.step_size > 0):
            raise DataError(
                f"{self.symbol} tells no tick or no step; expected both from the venue"
            )
        at_market = self._get("MARKET_LOT_SIZE", LotSize) or LotSize(
            min_qty=ZERO, max_qty=lot.max_qty, step_size=ZERO
        )
        value = self._get("NOTIONAL", Notional)
        notional = value or self._get("MIN_NOTIONAL", MinNotional)
        step = _common([each for each in (lot.step_size, at_market.step_size) if each])
        return Instrument(
            symbol=self.symbol,
            market=self.market,
            base=self.base,
            quote=self.quote,
            tick_size=price.tick_size,
            step_size=step,
            min_quantity=max(lot.min_qty, at_market.min_qty, step),
            min_notional=notional.min_notional if notional is not None else ZERO,
            max_quantity=lot.max_qty,
            max_market_quantity=at_market.max_qty,
            max_market_notional=(
                value.max_notional if value is not None and value.apply_max_to_market else None
            ),
        )

    def _get(self, name: str, shape: type[Shape]) -> Shape | None:
        rule = self._filters.get(name)
        return rule if isinstance(rule, shape) else None


def _outside(rule: str, value: Decimal, least: Decimal, most: Decimal | None) -> Iterator[Broken]:
    if not (least <= value and (most is None or value <= most)):
        above = "up" if most is None else f"to {most:f}"
        yield Broken(rule, f"{value:f}; expected from {least:f} {above}")


def _divides(step: Decimal, value: Decimal) -> bool:
    return not step or not _EXACT.remainder(value, step)


def _to_multiple(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    if not step:
        return value
    return _EXACT.multiply(_EXACT.divide(value, step).to_integral_value(rounding), step)


def _common(steps: list[Decimal]) -> Decimal:
    """Return the least step that all of them divide; 0 of none."""
    if not steps:
        return ZERO
    finest = min(int(step.as_tuple().exponent) for step in steps)
    whole = math.lcm(*(int(step.scaleb(-finest, _EXACT)) for step in steps))
    return Decimal(whole).scaleb(finest, _EXACT)
