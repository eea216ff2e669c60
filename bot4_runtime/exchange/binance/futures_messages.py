"""Binance's USD-M messages: their typed forms, checked, and what they mean to the engine.

A conditional ("algo") order has a number of its own until it triggers; then it becomes a plain
order under another number, and both go by the same client id. What triggers keeps being the one
order that was intended. Sources: Binance's USD-M documentation as of 2026-05-28, "New Algo Order",
"Event: Order Update", "Event: Algo Order Update", "Event: Balance and Position Update".
"""

from decimal import Decimal
from typing import Annotated, Final

import msgspec

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Liquidity, OrderStatus
from bot4_runtime.exchange.binance.messages import (
    SIDES,
    STATUSES,
    Id,
    Milliseconds,
    Name,
    amount,
    positive,
    word,
)
from bot4_runtime.exchange.protocols import UserUpdate, VenueOrder, VenueTrade

CONTRACT_STATUSES: Final = STATUSES | {
    "NEW_INSURANCE": OrderStatus.ACCEPTED,
    "NEW_ADL": OrderStatus.ACCEPTED,
}
"""Beside the common ones those of orders that the venue places itself."""
ALGO_STATUSES: Final = {
    "NEW": OrderStatus.ACCEPTED,
    "TRIGGERING": OrderStatus.ACCEPTED,
    "TRIGGERED": OrderStatus.ACCEPTED,
    "FINISHED": OrderStatus.ACCEPTED,
    "CANCELED": OrderStatus.CANCELED,
    "REJECTED": OrderStatus.REJECTED,
    "EXPIRED": OrderStatus.EXPIRED,
}
"""What a conditional order is by itself; how the order it became ended, that one tells."""
ZERO: Final = Decimal(0)


def algo_name(algo_id: int) -> str:
    """Return the venue order id of a conditional order that has not triggered."""
    return f"algo-{algo_id}"


def finite(value: Decimal) -> Decimal:
    """Return an amount of either sign; raises DataError for NaN and infinity."""
    if not value.is_finite():
        raise DataError(f"amount {value} in a message; expected a number")
    return value


class ContractOrder(msgspec.Struct, rename="camel"):
    """A plain order as `GET order`, `openOrders` and the answer to a new one tell it."""

    symbol: Name
    order_id: Id
    client_order_id: Name
    side: Name
    status: Name
    orig_qty: Decimal
    executed_qty: Decimal
    cum_quote: Decimal
    update_time: Milliseconds
    type: str = ""

    def meaning(self) -> VenueOrder:
        """Return it as the engine knows orders; raises DataError."""
        return VenueOrder(
            client_id=self.client_order_id,
            venue_order_id=str(self.order_id),
            symbol=self.symbol,
            side=word(SIDES, self.side, "side"),
            status=word(CONTRACT_STATUSES, self.status, "status"),
            quantity=amount(self.orig_qty),
            filled=amount(self.executed_qty),
            spent=amount(self.cum_quote),
            updated_ms=self.update_time,
        )


class AlgoOrder(msgspec.Struct, rename="camel"):
    """A conditional order as `algoOrder` and `openAlgoOrders` tell it."""

    symbol: Name
    algo_id: Id
    client_algo_id: Name
    side: Name
    algo_status: Name
    quantity: Decimal
    update_time: Milliseconds
    actual_order_id: str | int | None = None
    order_type: str = ""

    @property
    def became(self) -> int | None:
        """Number of the order it became; None while there is none."""
        return _number(self.actual_order_id)

    def meaning(self) -> VenueOrder:
        """Return it as the engine knows orders, by itself; raises DataError."""
        became = self.became
        return VenueOrder(
            client_id=self.client_algo_id,
            venue_order_id=algo_name(self.algo_id) if became is None else str(became),
            symbol=self.symbol,
            side=word(SIDES, self.side, "side"),
            status=word(ALGO_STATUSES, self.algo_status, "status"),
            quantity=amount(self.quantity),
            filled=ZERO,
            spent=ZERO,
            updated_ms=self.update_time,
        )


class ContractTrade(msgspec.Struct, rename="camel"):
    """An execution as `userTrades` tells it; a negative commission is a rebate."""

    symbol: Name
    id: Id
    order_id: Id
    side: Name
    price: Decimal
    qty: Decimal
    commission: Decimal
    commission_asset: Name
    time: Milliseconds
    maker: bool

    def meaning(self) -> VenueTrade:
        """Return it as the engine knows executions; raises DataError."""
        return VenueTrade(
            symbol=self.symbol,
            trade_id=self.id,
            venue_order_id=str(self.order_id),
            side=word(SIDES, self.side, "side"),
            price=positive(self.price),
            quantity=positive(self.qty),
            fee=finite(self.commission),
            fee_asset=self.commission_asset,
            liquidity=Liquidity.MAKER if self.maker else Liquidity.TAKER,
            time_ms=self.time,
        )


class WalletFields(msgspec.Struct):
    """A margin asset as `GET /fapi/v3/balance` tells it."""

    asset: Name
    balance: Decimal


class PositionFields(msgspec.Struct, rename="camel"):
    """A position as `GET /fapi/v3/positionRisk` tells it."""

    symbol: Name
    position_amt: Decimal


class SymbolSetting(msgspec.Struct, rename="camel"):
    """How positions of a symbol are held, as `GET /fapi/v1/symbolConfig` tells it."""

    symbol: Name
    margin_type: Name
    leverage: int


class PositionMode(msgspec.Struct, rename="camel"):
    """`GET /fapi/v1/positionSide/dual`."""

    dual_side_position: bool


class AccountConfig(msgspec.Struct, rename="camel"):
    """`GET /fapi/v1/accountConfig`."""

    can_trade: bool


class CountdownFields(msgspec.Struct, rename="camel"):
    """The answer to `POST /fapi/v1/countdownCancelAll`."""

    symbol: Name
    countdown_time: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,12}$")]


class MarkFields(msgspec.Struct, rename="camel"):
    """A mark as `GET /fapi/v1/premiumIndex` tells it."""

    symbol: Name
    mark_price: Decimal
    time: Milliseconds = 0


# ------------------------------------------------------------------------- the user stream
class _OrderChange(msgspec.Struct):
    """What `ORDER_TRADE_UPDATE` is about; the letters are Binance's."""

    s: Name
    c: Name
    S: Name
    x: Name
    X: Name
    i: Id
    q: Decimal
    z: Decimal
    ap: Decimal
    T: Milliseconds
    l: Decimal = ZERO  # noqa: E741 - Binance's name
    L: Decimal = ZERO
    n: Decimal = ZERO
    N: str | None = None
    t: int = 0
    m: bool = False


class OrderTradeUpdate(msgspec.Struct):
    """`ORDER_TRADE_UPDATE`."""

    o: _OrderChange

    def meaning(self) -> UserUpdate:
        """Return it as the engine knows updates; raises DataError."""
        told = self.o
        filled = amount(told.z)
        order = VenueOrder(
            client_id=told.c,
            venue_order_id=str(told.i),
            symbol=told.s,
            side=word(SIDES, told.S, "side"),
            status=word(CONTRACT_STATUSES, told.X, "status"),
            quantity=amount(told.q),
            filled=filled,
            spent=filled * amount(told.ap),
            updated_ms=told.T,
        )
        return UserUpdate(order=order, trade=self._trade(order) if told.l else None)

    def _trade(self, order: VenueOrder) -> VenueTrade:
        """Return the execution; one of a liquidation is told as any other."""
        told = self.o
        if not told.t > 0 or not told.N:
            raise DataError(f"an execution of {told.s} without number or fee asset")
        return VenueTrade(
            symbol=told.s,
            trade_id=told.t,
            venue_order_id=order.venue_order_id,
            side=order.side,
            price=positive(told.L),
            quantity=positive(told.l),
            fee=finite(told.n),
            fee_asset=told.N,
            liquidity=Liquidity.MAKER if told.m else Liquidity.TAKER,
            time_ms=told.T,
        )


class _AlgoChange(msgspec.Struct):
    caid: Name
    aid: Id
    s: Name
    S: Name
    X: Name
    q: Decimal
    ai: str | int | None = None
    rm: str = ""


class AlgoUpdate(msgspec.Struct):
    """`ALGO_UPDATE`."""

    T: Milliseconds
    o: _AlgoChange

    def meaning(self) -> UserUpdate:
        """Return it as the engine knows updates; raises DataError."""
        told = self.o
        order = AlgoOrder(
            symbol=told.s,
            algo_id=told.aid,
            client_algo_id=told.caid,
            side=told.S,
            algo_status=told.X,
            quantity=told.q,
            update_time=self.T,
            actual_order_id=told.ai,
        )
        return UserUpdate(order=order.meaning(), trade=None)


class _WalletChange(msgspec.Struct):
    a: Name
    wb: Decimal
    bc: Decimal = ZERO


class _AccountChange(msgspec.Struct):
    m: Name
    B: list[_WalletChange] = []


class AccountUpdate(msgspec.Struct):
    """`ACCOUNT_UPDATE`: what changed, and why; never the whole account."""

    a: _AccountChange

    @property
    def reason(self) -> str:
        """Binance's word for why: ORDER, FUNDING_FEE, MARGIN_TRANSFER, DEPOSIT and others."""
        return self.a.m

    def moved(self) -> dict[str, Decimal]:
        """Return what went into each wallet beside trades; raises DataError."""
        return {row.a: finite(row.bc) for row in self.a.B if row.bc}


class _CalledPosition(msgspec.Struct):
    s: Name
    mm: Decimal = ZERO


class MarginCall(msgspec.Struct):
    """`MARGIN_CALL`: the venue says that positions are close to liquidation."""

    p: list[_CalledPosition]

    @property
    def symbols(self) -> list[str]:
        """What it is about."""
        return sorted({row.s for row in self.p})


def _number(told: str | int | None) -> int | None:
    """Return an order's number; None for none, which Binance writes as nothing or as 0."""
    text = str(told or "")
    return int(text) or None if text.isdigit() else None
