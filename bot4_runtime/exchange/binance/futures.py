"""Binance's USD-M perpetuals as a `RemoteVenue`: its words for orders, their answers, the account.

Stops are conditional ("algo") orders with an endpoint of their own; the plain one refuses them.
One that triggers becomes a plain order, and is told as the one order that was intended. How
positions are held (one-way or hedge, leverage, isolated or cross) is set before anything is read,
and verified then and every minute: not all that is changed by hand is told. What cannot be set
so, as under a position, keeps amounts from being read, so that entries wait; orders and trades
are read all the same, since stops and exits hang on them.

What it shares with other markets is `account.BinanceAccount`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import (
    DataError,
    InvariantViolated,
    OutcomeUnknown,
    VenueRefused,
)
from bot4_runtime.domain.events import OrderAccepted, OrderEvent
from bot4_runtime.domain.order import Order, OrderIntent, OrderType, Side
from bot4_runtime.exchange.binance.account import BinanceAccount
from bot4_runtime.exchange.binance.dialect import Dialect, Request
from bot4_runtime.exchange.binance.followed_stream import FollowedStream
from bot4_runtime.exchange.binance.futures_failures import futures_failure
from bot4_runtime.exchange.binance.futures_filters import ContractInfo
from bot4_runtime.exchange.binance.futures_messages import (
    AccountConfig,
    AlgoOrder,
    ContractOrder,
    ContractTrade,
    CountdownFields,
    MarkFields,
    PositionFields,
    PositionMode,
    SymbolSetting,
    WalletFields,
    finite,
)
from bot4_runtime.exchange.binance.futures_stream import PING_S, FuturesStream
from bot4_runtime.exchange.binance.http_connection import Refusal
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.meaning import asked_for, meant
from bot4_runtime.exchange.binance.messages import positive, read_answer
from bot4_runtime.exchange.binance.order_entry import USDM_REST
from bot4_runtime.exchange.binance.signed_rest import Parameters
from bot4_runtime.exchange.protocols import HearsMargin, VenueOrder, VenueTrade

DUPLICATE: Final = "-4116"
"""The client id is that of an open order."""
CLOSED: Final = "-4108"
"""The symbol is delivered, settled or closed."""
AS_IT_IS: Final = frozenset({"-4046", "-4059"})
"""Margin type, or position mode, need no change."""
ALGOS_KEPT: Final = 1_000
VERIFIED_S: Final = 60.0
"""How long positions are taken to be held as they were found; looking weighs 35 of 2,400."""
TOLD_CHANGES: Final = ("ACCOUNT_CONFIG_UPDATE", "ACCOUNT_UPDATE:MARGIN_TYPE_CHANGE")
"""What the user stream counts when leverage or margin type change; of the mode it is silent."""
USDM: Final = Dialect(
    market=Market.USDM,
    time="/fapi/v1/time",
    rules="/fapi/v1/exchangeInfo",
    info=ContractInfo,
    named=False,
    trades="/fapi/v1/userTrades",
    trade=ContractTrade,
    rest=USDM_REST,
    rules_broken=frozenset(
        {
            "-1111", "-1121", "-4001", "-4002", "-4003", "-4004", "-4005", "-4013", "-4014",
            "-4016", "-4023", "-4024", "-4164",
        }
    ),
    judge=futures_failure,
    ping_s=PING_S,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Holding:
    """How positions are to be held.

    Attributes:
        leverage: that the venue lets a position have; what is traded is risk's to limit.
        isolated: whether each position has margin of its own.
        hedge: whether longs and shorts of a symbol are held apart.
    """

    leverage: int = 3
    isolated: bool = True
    hedge: bool = False


class BinanceFutures(BinanceAccount):
    """A USD-M account.

    Args:
        holding: how positions are to be held.
        timer: seconds of a clock that never jumps.
        margin: hears with each reading of the account on what positions rest; None for nobody.

    The user stream is at ``wss://fstream.binance.com/private``; all other arguments are
    `BinanceAccount`'s.
    """

    name = "binance usdm"
    dialect = USDM

    def __init__(
        self,
        *ways: Any,
        holding: Holding = Holding(),
        timer: Callable[[], float] = time.monotonic,
        symbols: Sequence[str] = (),
        margin: HearsMargin | None = None,
        **options: Any,
    ) -> None:
        self._margin = margin
        super().__init__(*ways, symbols=symbols, **options)
        self._symbols = tuple(symbols)
        self._holding = holding
        self._timer = timer
        self._verified_until_s = float("-inf")
        self._changes = 0
        """How often the account's settings were changed, by us or by others, as far as told."""
        self._algos: dict[str, None] = {}
        """Client ids of conditional orders, the last `ALGOS_KEPT`."""

    def _followed(self, stream_url: str, rest_url: str, **options: Any) -> FollowedStream:
        return FuturesStream(
            stream_url, rest_url, self._signer, self._clock, margin=self._margin, **options
        )

    # ------------------------------------------------------------------- how it is held
    def _prepare(self) -> None:
        """Have positions held as wanted.

        Raises:
            VenueRefused: they are held otherwise, and the venue does not change it.
            VenueUnreachable, OutcomeUnknown: it could not be asked.
        """
        if self._timer() < self._verified_until_s or not self._symbols:
            return
        self._verified_until_s = float("-inf")
        wanted, dual = self._holding, "/fapi/v1/positionSide/dual"
        mode, otherwise = self._mode(), self._otherwise()
        if mode is not wanted.hedge:
            self._set(dual, {"dualSidePosition": str(wanted.hedge).lower()})
        for symbol in otherwise:
            kind = "ISOLATED" if wanted.isolated else "CROSSED"
            self._set("/fapi/v1/marginType", {"symbol": symbol, "marginType": kind})
            self._set("/fapi/v1/leverage", {"symbol": symbol, "leverage": wanted.leverage})
        changed = mode is not wanted.hedge or otherwise
        if changed and (self._mode() is not wanted.hedge or self._otherwise()):
            raise VenueRefused(
                f"the venue took the settings of {', '.join(self._symbols)} and holds others; "
                "set position mode, margin type and leverage by hand"
            )
        self._verified_until_s = self._timer() + VERIFIED_S

    def _mode(self) -> bool:
        body = self._ask("/fapi/v1/positionSide/dual", {}, Lane.OPEN)
        return read_answer(body, PositionMode, "the position mode").dual_side_position

    def _otherwise(self) -> list[str]:
        """Return the symbols that are not held as wanted."""
        body = self._ask("/fapi/v1/symbolConfig", {}, Lane.OPEN)
        rows = read_answer(body, list[SymbolSetting], "how symbols are held")
        wanted = ("ISOLATED" if self._holding.isolated else "CROSSED", self._holding.leverage)
        told = {row.symbol: (row.margin_type.upper(), row.leverage) for row in rows}
        return [symbol for symbol in self._symbols if told.get(symbol) != wanted]

    def _set(self, path: str, fields: Parameters) -> None:
        """Change a setting; that it is so already is no error."""
        try:
            self._http.send("POST", path, self._signed(fields), self._headers, Lane.OPEN)
        except Refusal as error:
            if error.code not in AS_IT_IS:
                raise

    # ---------------------------------------------------------------------- orders
    def _order(self, intent: OrderIntent, client_id: str) -> Request:
        return order_request(intent, client_id, hedge=self._holding.hedge)

    def _end(self, order: Order) -> Request:
        if order.intent.order_type is OrderType.STOP_MARKET:
            return Request("algoOrder.cancel", {"clientAlgoId": order.client_id})
        named: dict[str, str | int] = {
            "symbol": order.intent.symbol,
            "origClientOrderId": order.client_id,
        }
        return Request("order.cancel", named)

    def _placed(self, intent: OrderIntent, client_id: str, body: bytes) -> list[OrderEvent]:
        """Return the acceptance; what was filled comes with the user stream or by query."""
        if intent.order_type is OrderType.STOP_MARKET:
            self._remember(client_id)
            told = meant(read_answer(body, AlgoOrder, f"the answer to order {client_id}"))
        else:
            told = meant(read_answer(body, ContractOrder, f"the answer to order {client_id}"))
        if (told.symbol, told.client_id) != (intent.symbol, client_id):
            raise DataError(f"for {told.client_id} of {told.symbol}")
        return [
            OrderAccepted(
                ts_event_ns=told.updated_ms * NS_PER_MS,
                intent_no=intent.intent_no,
                venue_order_id=told.venue_order_id,
            )
        ]

    def _duplicate(self, error: Refusal) -> bool:
        return error.code == DUPLICATE

    def _closed(self, error: Refusal) -> bool:
        return error.code == CLOSED

    def countdown(self, symbol: str, length_ms: int) -> None:
        """Have the venue cancel a symbol's plain orders after a while, unless told anew.

        A length of 0 stops the countdown.

        Raises:
            VenueUnreachable, VenueRefused, OutcomeUnknown: it may not run.
        """
        path = "/fapi/v1/countdownCancelAll"
        asked: Parameters = {"symbol": symbol, "countdownTime": length_ms}
        body = self._http.send("POST", path, self._signed(asked), self._headers, Lane.REDUCE)
        told = read_answer(body, CountdownFields, f"the countdown of {symbol}")
        if (told.symbol, int(told.countdown_time)) != (symbol, length_ms):
            raise OutcomeUnknown(
                f"asked for a countdown of {length_ms} ms in {symbol}, the venue told of "
                f"{told.countdown_time} ms in {told.symbol}"
            )

    # --------------------------------------------------------------------- looking
    def query(self, symbol: str, client_id: str) -> VenueOrder | None:
        """Ask for one order, plain or conditional; None when the venue knows neither."""
        asks = [self._plain, self._conditional]
        for ask in reversed(asks) if client_id in self._algos else asks:
            order = ask(symbol, client_id)
            if order is not None:
                return order
        return None

    def open_orders(self) -> Sequence[VenueOrder]:
        """Return all open orders of the account, ours or not; begins a reading of the account.

        Trading rules that are old, or that an order was refused by, are learnt again first, and
        so are the venue's time, the marks and the leverage brackets.
        """
        self._begin_reading()
        changes = sum(self.stream_counts[name] for name in TOLD_CHANGES)
        if changes != self._changes:
            self._changes, self._verified_until_s = changes, float("-inf")
        self._attempt(self._prepare)
        self._attempt(self._learn_marks)
        self._attempt(self._learn_brackets)
        rows = read_answer(
            self._open_orders("/fapi/v1/openOrders"), list[ContractOrder], "the open orders"
        )
        waiting = read_answer(
            self._open_orders("/fapi/v1/openAlgoOrders"), list[AlgoOrder], "the open algo orders"
        )
        for algo in waiting:
            self._remember(algo.client_algo_id)
        orders = [meant(row) for row in rows] + [meant(algo) for algo in waiting]
        kinds = [(row.symbol, row.type) for row in rows]
        kinds += [(algo.symbol, algo.order_type) for algo in waiting]
        self._rules.open_orders(kinds, orders)
        return orders

    def balances(self) -> Mapping[str, Decimal]:
        """Return what is in the wallets, by margin asset; profit that is not realised is not."""
        self._require_fit()
        body = self._ask("/fapi/v3/balance", {})
        rows = read_answer(body, list[WalletFields], "the balances")
        return {row.asset: _amount(row.balance) for row in rows if row.balance}

    def positions(self) -> Mapping[str, Decimal]:
        """Return what is held, in base, shorts below zero: by symbol, both sides together."""
        asked_ms = self._clock.now_ms()
        body = self._ask("/fapi/v3/positionRisk", {})
        if self._margin is not None:
            self._tell_margin(self._margin, body, asked_ms)
        held: dict[str, Decimal] = {}
        for row in read_answer(body, list[PositionFields], "the positions"):
            quantity = _amount(row.position_amt)
            if quantity:
                held[row.symbol] = held.get(row.symbol, Decimal(0)) + quantity
        return held

    def _tell_margin(self, margin: HearsMargin, positions: bytes, asked_ms: int) -> None:
        account = self._ask("/fapi/v3/account", {})
        try:
            margin.read(
                read_answer(positions, list[dict[str, Any]], "the positions"),
                read_answer(account, dict[str, Any], "the account"),
                round((asked_ms - self._clock.error_ms) * NS_PER_MS),
            )
        except DataError as error:
            raise OutcomeUnknown(f"the venue told something impossible: {error}") from error

    def name_of(self, trade: VenueTrade) -> str:
        """Return the client id of the order that a trade is of, be it the venue's own."""
        named: Parameters = {"symbol": trade.symbol, "orderId": trade.venue_order_id}
        row = self._if_known("/fapi/v1/order", named, ContractOrder)
        return "" if row is None else row.client_order_id

    def may_trade(self) -> bool:
        """Tell whether the account of the key may trade here."""
        body = self._ask("/fapi/v1/accountConfig", {})
        return read_answer(body, AccountConfig, "how the account is set up").can_trade

    def account_uid(self) -> int | None:
        """Return None: this market does not tell the account's number."""
        return None

    def _learn_brackets(self) -> None:
        if self._margin is not None:
            body = self._ask("/fapi/v1/leverageBracket", {}, Lane.OPEN)
            self._margin.brackets(read_answer(body, list[dict[str, Any]], "the brackets"))

    def _learn_marks(self) -> None:
        rows = read_answer(
            self._http.get("/fapi/v1/premiumIndex", "", {}, Lane.OPEN),
            list[MarkFields],
            "the marks",
        )
        try:
            traded = [row for row in rows if row.symbol in self._symbols]
            self._rules.marks({row.symbol: positive(row.mark_price) for row in traded})
            if self._margin is not None:
                self._margin.marks(
                    {
                        row.symbol: (float(row.mark_price), row.time * NS_PER_MS)
                        for row in rows
                        if row.mark_price.is_finite() and row.mark_price > 0
                    }
                )
        except DataError as error:
            raise OutcomeUnknown(f"the venue told an impossible mark: {error}") from error

    def _remember(self, client_id: str) -> None:
        self._algos[client_id] = None
        if len(self._algos) > ALGOS_KEPT:
            del self._algos[next(iter(self._algos))]

    def _plain(self, symbol: str, client_id: str) -> VenueOrder | None:
        named: Parameters = {"symbol": symbol, "origClientOrderId": client_id}
        row = self._if_known("/fapi/v1/order", named, ContractOrder)
        return None if row is None else asked_for(meant(row), symbol, client_id)

    def _conditional(self, symbol: str, client_id: str) -> VenueOrder | None:
        """Ask for a conditional order, and for what it became when it triggered."""
        algo = self._if_known("/fapi/v1/algoOrder", {"clientAlgoId": client_id}, AlgoOrder)
        if algo is None:
            return None
        told = asked_for(meant(algo), symbol, client_id)
        self._remember(client_id)
        if algo.became is None:
            return told
        named: Parameters = {"symbol": symbol, "orderId": algo.became}
        row = self._if_known("/fapi/v1/order", named, ContractOrder)
        if row is None:
            raise OutcomeUnknown(
                f"order {client_id} triggered, and the venue does not know yet what it became"
            )
        became = msgspec.structs.replace(meant(row), client_id=client_id)
        return asked_for(became, symbol, client_id)


def order_request(intent: OrderIntent, client_id: str, *, hedge: bool) -> Request:
    """Return an intent in Binance's words; raises InvariantViolated when it is none."""
    fields: dict[str, str | int] = {
        "symbol": intent.symbol,
        "side": intent.side.name,
        "quantity": f"{intent.quantity:f}",
    }
    if hedge:
        opens_long = (intent.side is Side.BUY) is not intent.reduce_only
        fields["positionSide"] = "LONG" if opens_long else "SHORT"
    elif intent.reduce_only:
        fields["reduceOnly"] = "true"
    if intent.order_type is OrderType.STOP_MARKET and intent.stop_price is not None:
        fields |= {
            "algoType": "CONDITIONAL",
            "type": "STOP_MARKET",
            "triggerPrice": f"{intent.stop_price:f}",
            "clientAlgoId": client_id,
        }
        return Request("algoOrder.place", fields)
    fields |= {"newClientOrderId": client_id, "newOrderRespType": "RESULT"}
    if intent.order_type is OrderType.LIMIT and intent.price is not None:
        force = intent.time_in_force.name
        fields |= {"type": "LIMIT", "price": f"{intent.price:f}", "timeInForce": force}
    elif intent.order_type is OrderType.MARKET:
        fields["type"] = "MARKET"
    else:
        raise InvariantViolated(
            f"intent {intent.intent_no} is a {intent.order_type.value} order without its price"
        )
    return Request("order.place", fields)


def _amount(value: Decimal) -> Decimal:
    try:
        return finite(value)
    except DataError as error:
        raise OutcomeUnknown(f"the venue told something impossible: {error}") from error
