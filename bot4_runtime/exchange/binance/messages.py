"""Binance's spot messages: their typed forms, checked, and what they mean to the engine.

Fields that are not named here are left alone. Numbers must be finite and not negative; an
unknown word for a status, a side or an event is an error of the message, never a guess.
"""

from decimal import Decimal
from typing import Annotated, Final, TypeVar

import msgspec

from bot4_runtime.domain.errors import DataError, OutcomeUnknown
from bot4_runtime.domain.order import Liquidity, OrderStatus, Side
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.exchange.protocols import UserUpdate, VenueOrder, VenueTrade

Id = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=10**14)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

STATUSES: Final = {
    "NEW": OrderStatus.ACCEPTED,
    "PENDING_NEW": OrderStatus.ACCEPTED,
    "PENDING_CANCEL": OrderStatus.ACCEPTED,
    "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
    "FILLED": OrderStatus.FILLED,
    "CANCELED": OrderStatus.CANCELED,
    "REJECTED": OrderStatus.REJECTED,
    "EXPIRED": OrderStatus.EXPIRED,
    "EXPIRED_IN_MATCH": OrderStatus.EXPIRED,
}
MOST: Final = Decimal(10) ** 18
DECIMALS: Final = 18
"""Amounts up to `MOST`, of so many decimals at most, can be added and written out."""
SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}

Meaning = TypeVar("Meaning")
Told = TypeVar("Told")


class ServerTime(msgspec.Struct):
    """`GET /api/v3/time`."""

    serverTime: Milliseconds  # noqa: N815 - Binance's name


class OrderFields(msgspec.Struct, rename="camel"):
    """An order as `GET order` and `openOrders` tell it."""

    symbol: Name
    order_id: Id
    client_order_id: Name
    side: Name
    status: Name
    orig_qty: Decimal
    executed_qty: Decimal
    cummulative_quote_qty: Decimal
    update_time: Milliseconds
    type: str = ""

    def meaning(self) -> VenueOrder:
        """Return it as the engine knows orders; raises DataError."""
        return VenueOrder(
            client_id=self.client_order_id,
            venue_order_id=str(self.order_id),
            symbol=self.symbol,
            side=word(SIDES, self.side, "side"),
            status=word(STATUSES, self.status, "status"),
            quantity=amount(self.orig_qty),
            filled=amount(self.executed_qty),
            spent=amount(self.cummulative_quote_qty),
            updated_ms=self.update_time,
        )


class PlacedFill(msgspec.Struct, rename="camel"):
    """An execution in the answer to a new order; always a taker's."""

    price: Decimal
    qty: Decimal
    commission: Decimal
    commission_asset: Name
    trade_id: Id


class PlacedFields(msgspec.Struct, rename="camel"):
    """The full answer to a new order."""

    symbol: Name
    order_id: Id
    client_order_id: Name
    status: Name
    executed_qty: Decimal
    transact_time: Milliseconds
    fills: list[PlacedFill]


class TradeFields(msgspec.Struct, rename="camel"):
    """An execution as `myTrades` tells it."""

    symbol: Name
    id: Id
    order_id: Id
    price: Decimal
    qty: Decimal
    commission: Decimal
    commission_asset: Name
    time: Milliseconds
    is_buyer: bool
    is_maker: bool

    def meaning(self) -> VenueTrade:
        """Return it as the engine knows executions; raises DataError."""
        return VenueTrade(
            symbol=self.symbol,
            trade_id=self.id,
            venue_order_id=str(self.order_id),
            side=Side.BUY if self.is_buyer else Side.SELL,
            price=positive(self.price),
            quantity=positive(self.qty),
            fee=amount(self.commission),
            fee_asset=self.commission_asset,
            liquidity=Liquidity.MAKER if self.is_maker else Liquidity.TAKER,
            time_ms=self.time,
        )


class BalanceFields(msgspec.Struct):
    """An asset of the account."""

    asset: Name
    free: Decimal
    locked: Decimal


class AccountFields(msgspec.Struct):
    """`GET /api/v3/account`."""

    balances: list[BalanceFields]

    def meaning(self) -> dict[str, Decimal]:
        """Return free plus locked by asset; raises DataError."""
        return {row.asset: amount(row.free) + amount(row.locked) for row in self.balances}


class ExecutionReport(msgspec.Struct):
    """`executionReport` of the user stream; the letters are Binance's."""

    s: Name
    c: str
    C: str
    S: Name
    x: Name
    X: Name
    i: Id
    q: Decimal
    z: Decimal
    Z: Decimal
    l: Decimal  # noqa: E741 - Binance's name
    L: Decimal
    n: Decimal
    N: str | None
    T: Milliseconds
    t: int
    m: bool

    def meaning(self) -> UserUpdate:
        """Return it as the engine knows updates; raises DataError.

        `C` names the order when `c` names the request that cancelled it.
        """
        side = word(SIDES, self.S, "side")
        order = VenueOrder(
            client_id=self.C or self.c,
            venue_order_id=str(self.i),
            symbol=self.s,
            side=side,
            status=word(STATUSES, self.X, "status"),
            quantity=amount(self.q),
            filled=amount(self.z),
            spent=amount(self.Z),
            updated_ms=self.T,
        )
        return UserUpdate(order=order, trade=self._trade(side) if self.x == "TRADE" else None)

    def _trade(self, side: Side) -> VenueTrade:
        if self.t < 0 or not self.N:
            raise DataError(f"an execution of {self.s} without number or fee asset")
        return VenueTrade(
            symbol=self.s,
            trade_id=self.t,
            venue_order_id=str(self.i),
            side=side,
            price=positive(self.L),
            quantity=positive(self.l),
            fee=amount(self.n),
            fee_asset=self.N,
            liquidity=Liquidity.MAKER if self.m else Liquidity.TAKER,
            time_ms=self.T,
        )


def read_answer(body: bytes, shape: type[Told], what: str) -> Told:
    """Decode an answer; one that cannot be read proves nothing, and is never an empty one.

    Raises:
        OutcomeUnknown: it is not of this shape.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except UNREADABLE as error:
        raise OutcomeUnknown(
            f"{what} cannot be read ({error}); what the venue holds is not known, ask again"
        ) from error


def word(meanings: dict[str, Meaning], text: str, what: str) -> Meaning:
    """Return what one of Binance's words means; raises DataError for a word nobody knows."""
    meaning = meanings.get(text)
    if meaning is None:
        raise DataError(f"unknown {what} {text[:32]!r}; expected one of {', '.join(meanings)}")
    return meaning


def amount(value: Decimal) -> Decimal:
    """Return an amount that may be zero; raises DataError for what `is_amount` is not true of."""
    if not is_amount(value):
        raise DataError(f"amount {_short(value)} in a message; expected a number from 0 to 1e18")
    return value


def positive(value: Decimal) -> Decimal:
    """Return an amount above zero; raises DataError for anything else."""
    if not (is_amount(value) and value > 0):
        raise DataError(
            f"amount {_short(value)} in a message; expected a number above 0, at most 1e18"
        )
    return value


def is_amount(value: Decimal) -> bool:
    """Tell whether a number is finite, from 0 to `MOST`, and of `DECIMALS` at most.

    A venue that tells more is not believed: sums of it would overflow, and written out it would
    fill the memory.
    """
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and -DECIMALS <= exponent <= DECIMALS and 0 <= value <= MOST


def _short(value: Decimal) -> str:
    return str(value)[:40]
