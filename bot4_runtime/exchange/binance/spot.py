"""Binance's spot market as a `RemoteVenue`: its words for orders, their answers and the account.

What it shares with other markets is `account.BinanceAccount`.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError, InvariantViolated
from bot4_runtime.domain.events import OrderAccepted, OrderEvent, OrderFilled
from bot4_runtime.domain.order import (
    Fill,
    Liquidity,
    Order,
    OrderIntent,
    OrderType,
    TimeInForce,
)
from bot4_runtime.exchange.binance.account import PAGE, BinanceAccount
from bot4_runtime.exchange.binance.dialect import Dialect, Request
from bot4_runtime.exchange.binance.followed_stream import FollowedStream
from bot4_runtime.exchange.binance.http_connection import Refusal
from bot4_runtime.exchange.binance.key_rights import AccountNumber, KeyHolder, KeyRights, KeyTold
from bot4_runtime.exchange.binance.meaning import asked_for, meant
from bot4_runtime.exchange.binance.messages import (
    STATUSES,
    AccountFields,
    OrderFields,
    PlacedFields,
    PlacedFill,
    TradeFields,
    amount,
    positive,
    read_answer,
    word,
)
from bot4_runtime.exchange.binance.order_changes import OrderChanges
from bot4_runtime.exchange.binance.order_entry import SPOT_REST
from bot4_runtime.exchange.binance.rule_book import ExchangeInfo
from bot4_runtime.exchange.binance.user_stream import UserStream
from bot4_runtime.exchange.protocols import VenueOrder

__all__ = ["PAGE", "BinanceSpot", "order_fields"]

CLOSED: Final = "Market is closed."
DUPLICATE: Final = "Duplicate order sent."
"""Of -2010."""
SPOT: Final = Dialect(
    market=Market.SPOT,
    time="/api/v3/time",
    rules="/api/v3/exchangeInfo",
    info=ExchangeInfo,
    named=True,
    trades="/api/v3/myTrades",
    trade=TradeFields,
    rest=SPOT_REST,
    rules_broken=frozenset({"-1013", "-1111", "-1121"}),
)


class BinanceSpot(BinanceAccount):
    """A spot account.

    The user stream is at ``wss://ws-api.binance.com/ws-api/v3``; arguments are `BinanceAccount`'s.
    """

    name = "binance spot"
    dialect = SPOT

    def _followed(self, stream_url: str, rest_url: str, **options: Any) -> FollowedStream:
        return UserStream(stream_url, self._signer, self._clock, **options)

    @cached_property
    def changes(self) -> OrderChanges:
        """What changes orders that are there."""
        return OrderChanges(self._entry)

    # ---------------------------------------------------------------------- orders
    def _order(self, intent: OrderIntent, client_id: str) -> Request:
        return Request("order.place", order_fields(intent, client_id))

    def _end(self, order: Order) -> Request:
        named: dict[str, str | int] = {
            "symbol": order.intent.symbol,
            "origClientOrderId": order.client_id,
        }
        return Request("order.cancel", named)

    def _placed(self, intent: OrderIntent, client_id: str, body: bytes) -> list[OrderEvent]:
        placed = read_answer(body, PlacedFields, f"the answer to order {client_id}")
        return _placed_events(intent, client_id, placed)

    def _duplicate(self, error: Refusal) -> bool:
        return error.reason == DUPLICATE

    def _closed(self, error: Refusal) -> bool:
        return error.reason == CLOSED

    # --------------------------------------------------------------------- looking
    def query(self, symbol: str, client_id: str) -> VenueOrder | None:
        """Ask for one order; None when the venue says that it does not know it."""
        named: dict[str, str | int] = {"symbol": symbol, "origClientOrderId": client_id}
        row = self._if_known("/api/v3/order", named, OrderFields)
        return None if row is None else asked_for(meant(row), symbol, client_id)

    def open_orders(self) -> Sequence[VenueOrder]:
        """Return all open orders of the account, ours or not; begins a reading of the account.

        Trading rules that are old, or that an order was refused by, are learnt again first, and
        so is the venue's time.
        """
        self._begin_reading()
        rows = read_answer(
            self._open_orders("/api/v3/openOrders"), list[OrderFields], "the open orders"
        )
        orders = [meant(row) for row in rows]
        self._rules.open_orders([(row.symbol, row.type) for row in rows], orders)
        return orders

    def balances(self) -> Mapping[str, Decimal]:
        """Return free plus locked amounts by asset."""
        self._require_fit()
        body = self._ask("/api/v3/account", {})
        held = meant(read_answer(body, AccountFields, "the account"))
        self._rules.balances(held)
        return held

    def account_uid(self) -> int | None:
        """Return Binance's number of the account; None when the venue tells none."""
        return read_answer(self._ask("/api/v3/account", {}), AccountNumber, "the account").uid

    def key(self, *, with_rights: bool = True) -> KeyTold:
        """Return whose key it is and what it may do; a testnet does not tell the latter."""
        holder = read_answer(self._ask("/api/v3/account", {}), KeyHolder, "the account")
        if not with_rights:
            return KeyTold(holder, None)
        body = self._ask("/sapi/v1/account/apiRestrictions", {})
        return KeyTold(holder, read_answer(body, KeyRights, "what the key may do"))


def order_fields(intent: OrderIntent, client_id: str) -> dict[str, str | int]:
    """Return an intent in Binance's words; raises InvariantViolated when it is none."""
    fields: dict[str, str | int] = {
        "symbol": intent.symbol,
        "side": intent.side.name,
        "quantity": f"{intent.quantity:f}",
        "newClientOrderId": client_id,
        "newOrderRespType": "FULL",
    }
    if intent.order_type is OrderType.LIMIT and intent.price is not None:
        fields["price"] = f"{intent.price:f}"
        if intent.time_in_force is TimeInForce.GTX:
            fields["type"] = "LIMIT_MAKER"
        else:
            fields |= {"type": "LIMIT", "timeInForce": intent.time_in_force.name}
    elif intent.order_type is OrderType.STOP_MARKET and intent.stop_price is not None:
        fields |= {"type": "STOP_LOSS", "stopPrice": f"{intent.stop_price:f}"}
    elif intent.order_type is OrderType.MARKET:
        fields["type"] = "MARKET"
    else:
        raise InvariantViolated(
            f"intent {intent.intent_no} is a {intent.order_type.value} order without its price"
        )
    return fields


def _placed_events(intent: OrderIntent, client_id: str, placed: PlacedFields) -> list[OrderEvent]:
    if (placed.symbol, placed.client_order_id) != (intent.symbol, client_id):
        raise DataError(f"for {placed.client_order_id} of {placed.symbol}")
    ts_ns = placed.transact_time * NS_PER_MS
    fills = [_fill(intent, row, ts_ns) for row in placed.fills]
    word(STATUSES, placed.status, "status")
    if sum((fill.quantity for fill in fills), Decimal(0)) != amount(placed.executed_qty):
        raise DataError(f"its fills do not make up the {placed.executed_qty} it says are filled")
    accepted = OrderAccepted(
        ts_event_ns=ts_ns, intent_no=intent.intent_no, venue_order_id=str(placed.order_id)
    )
    return [accepted, *(OrderFilled(ts_event_ns=ts_ns, fill=fill) for fill in fills)]


def _fill(intent: OrderIntent, row: PlacedFill, ts_ns: int) -> Fill:
    return Fill(
        trade_id=str(row.trade_id),
        intent_no=intent.intent_no,
        book=intent.book,
        symbol=intent.symbol,
        side=intent.side,
        price=positive(row.price),
        quantity=positive(row.qty),
        fee=amount(row.commission),
        fee_asset=row.commission_asset,
        liquidity=Liquidity.TAKER,
        ts_event_ns=ts_ns,
    )
