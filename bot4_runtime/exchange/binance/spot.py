"""Binance's spot market as a `RemoteVenue`: orders, what became of them, and the account.

An order is sent once. What its answer does not prove is `OutcomeUnknown`, and the one who asks
must query it. Nothing here retries, waits for a fill, or guesses.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Final, Protocol, TypeVar

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import (
    DataError,
    InvariantViolated,
    OutcomeUnknown,
    VenueError,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.events import (
    OrderAccepted,
    OrderEvent,
    OrderFilled,
    OrderRejected,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Fill,
    Liquidity,
    Order,
    OrderIntent,
    OrderType,
    TimeInForce,
)
from bot4_runtime.exchange.binance.filters import SymbolRules
from bot4_runtime.exchange.binance.http_connection import REPLY_S, HttpConnection, Refusal
from bot4_runtime.exchange.binance.key_rights import KeyHolder, KeyRights, KeyTold
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.messages import (
    STATUSES,
    AccountFields,
    OrderFields,
    PlacedFields,
    PlacedFill,
    ServerTime,
    TradeFields,
    amount,
    positive,
    read_answer,
    word,
)
from bot4_runtime.exchange.binance.order_changes import OrderChanges
from bot4_runtime.exchange.binance.order_entry import OrderEntry
from bot4_runtime.exchange.binance.order_line import OrderLine
from bot4_runtime.exchange.binance.rule_book import ExchangeInfo, RuleBook
from bot4_runtime.exchange.binance.signing import Signer, VenueClock
from bot4_runtime.exchange.binance.user_stream import REPORT_S, SILENCE_S, UserStream
from bot4_runtime.exchange.protocols import UserUpdate, VenueOrder, VenueTrade
from bot4_runtime.exchange.unknown import RECV_WINDOW_MS

PAGE: Final = 1_000
NO_SUCH_ORDER: Final = "-2013"
CANCEL_REJECTED: Final = "-2011"
INVALID_TIMESTAMP: Final = "-1021"
RULES_BROKEN: Final = frozenset({"-1013", "-1111", "-1121"})
CLOSED: Final = "Market is closed."
DUPLICATE: Final = "Duplicate order sent."
"""Of -2010: the id is that of an open order, so that it is no rejection of that order."""

Meaning_co = TypeVar("Meaning_co", covariant=True)


class BinanceSpot:
    """A spot account at Binance, or at the loopback venue.

    Args:
        rest_url: ``https://api.binance.com``.
        stream_url: ``wss://ws-api.binance.com/ws-api/v3``; None follows no user stream.
        clock: ours; the venue's is estimated from it.
        reply_s: how long an answer may take before the outcome counts as unknown.
        window_ms: how long after its signature an order may be taken.
        may_send: asked when an order is signed; False leaves it unsent.
        silence_s: how long a living user stream may say nothing, pings included.
        report_s: how long it may take to report an order that the venue answered.
        budget: what may be asked of the venue; its own when None.
        order_url: of the WebSocket API that orders go by; None for REST alone.
        symbols: those whose trading rules are learnt, and held against orders before they go.
        proxy: ``http://`` or ``socks5://host:port`` to go through on all ways; None for none.
    """

    name = "binance spot"
    in_process = False

    def __init__(
        self,
        rest_url: str,
        stream_url: str | None,
        signer: Signer,
        clock: Clock,
        *,
        reply_s: float = REPLY_S,
        window_ms: int = RECV_WINDOW_MS,
        may_send: Callable[[], bool] | None = None,
        silence_s: float = SILENCE_S,
        report_s: float = REPORT_S,
        budget: RequestBudget | None = None,
        order_url: str | None = None,
        symbols: Sequence[str] = (),
        proxy: str | None = None,
    ) -> None:
        self._window_ms = window_ms
        budget = budget or RequestBudget(None)
        self._http = HttpConnection(
            rest_url, reply_s, budget=budget, account=signer.api_key, proxy=proxy
        )
        self._signer = signer
        self._headers = {"X-MBX-APIKEY": signer.api_key}
        self._clock = VenueClock(clock)
        self._stream = (
            UserStream(
                stream_url,
                signer,
                self._clock,
                silence_s=silence_s,
                report_s=report_s,
                budget=budget,
                proxy=proxy,
            )
            if stream_url is not None
            else None
        )
        self._line = (
            OrderLine(
                order_url,
                signer,
                self._clock,
                window_ms=window_ms,
                budget=budget,
                reply_s=reply_s,
                proxy=proxy,
            )
            if order_url is not None
            else None
        )
        self._entry = OrderEntry(
            self._http,
            self._line,
            signed=self._signed,
            in_time=self._in_time,
            headers=self._headers,
            may_send=may_send,
        )
        self.changes = OrderChanges(self._entry)
        self._rules = RuleBook(symbols, budget, signer.api_key)

    def start(self) -> None:
        """Learn the venue's time and rules, open the line and begin to follow the user stream.

        A venue that does not answer now is asked again before the first signature.
        """
        with suppress(VenueError):
            self._clock.synchronise(self.server_time_ms)
            self._learn_rules()
        if self._line is not None:
            self._line.start()
        if self._stream is not None:
            self._stream.start()

    def line_open(self, within_s: float = 0.0) -> bool:
        """Tell whether orders go by the WebSocket API, waiting for it for a while."""
        return self._line is not None and self._line.ready(within_s)

    def close(self) -> None:
        """Let go of all connections."""
        if self._stream is not None:
            self._stream.close()
        if self._line is not None:
            self._line.close()
        self._http.close()

    # ---------------------------------------------------------------------- orders
    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        """Send an order, once.

        Returns:
            The acceptance with the fills it brought, or the rejection, by the venue or by its
            rules as they are known here. How the order ends is not told here.

        Raises:
            VenueUnreachable: it surely was not sent, or was turned away before it was looked at
                (a limit, a ban, a firewall, its timestamp).
            OutcomeUnknown: it may have been taken: query it, never send it again.
        """
        fields = order_fields(intent, client_id)
        broken = self._rules.broken(intent, str(fields["type"]))
        if broken is not None:
            return [
                OrderRejected(
                    ts_event_ns=intent.ts_ns,
                    intent_no=intent.intent_no,
                    code=broken.rule,
                    reason=f"not sent, {intent.symbol} does not take it: {broken.told}",
                )
            ]
        try:
            lane = Lane.REDUCE if intent.reduce_only else Lane.OPEN
            body = self._entry.send("order.place", fields, lane)
        except Refusal as error:
            self._heed(error)
            if not error.looked_at:
                raise VenueUnreachable(
                    f"order {client_id} was turned away before it was looked at: {error}"
                ) from error
            if error.reason == DUPLICATE:
                raise OutcomeUnknown(
                    f"order {client_id} is open at the venue already; query it"
                ) from error
            return [
                OrderRejected(
                    ts_event_ns=intent.ts_ns,
                    intent_no=intent.intent_no,
                    code=error.code,
                    reason=error.reason,
                )
            ]
        if self._stream is not None:
            self._stream.expect(client_id)
        placed = read_answer(body, PlacedFields, f"the answer to order {client_id}")
        try:
            events = _placed_events(intent, client_id, placed)
        except DataError as error:
            raise OutcomeUnknown(f"order {client_id} was answered, but {error}") from error
        self._rules.placed(intent)
        return events

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        """Ask for the end of an order; may be repeated.

        Returns:
            Nothing: the end comes with the user stream or by query. An order that the venue
            says it cannot cancel has ended already, or never was there.

        Raises:
            VenueUnreachable: it was not sent.
            VenueRefused: the venue would not look at it.
            OutcomeUnknown: it may have been cancelled.
        """
        named: dict[str, str | int] = {
            "symbol": order.intent.symbol,
            "origClientOrderId": order.client_id,
        }
        try:
            self._cancel(named)
        except Refusal as error:
            if error.code != CANCEL_REJECTED:
                raise
        return []

    def _cancel(self, named: Mapping[str, str | int]) -> None:
        """Ask for an end; a wrong timestamp is put right once, since it was not looked at."""
        try:
            self._entry.send("order.cancel", named, Lane.CANCEL)
        except Refusal as error:
            if error.code != INVALID_TIMESTAMP:
                raise
            self._clock.doubt()
            self._entry.send("order.cancel", named, Lane.CANCEL)

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        """Return nothing: the venue matches by itself."""
        return []

    # --------------------------------------------------------------------- looking
    def poll(self) -> Sequence[UserUpdate]:
        """Return what the user stream brought since the last call; never waits."""
        return self._stream.poll() if self._stream is not None else ()

    def stream_alive(self) -> bool:
        """Tell whether the user stream is connected and missed nothing since the last call."""
        return self._stream is not None and self._stream.alive()

    @property
    def following(self) -> bool:
        """Whether the user stream is connected now; gaps are `stream_alive`'s to tell."""
        return self._stream is not None and self._stream.connected

    @property
    def stream_counts(self) -> Counter[str]:
        """What the user stream passed over or lost, by name."""
        return Counter() if self._stream is None else self._stream.counts

    def query(self, symbol: str, client_id: str) -> VenueOrder | None:
        """Ask for one order; None when the venue says that it does not know it."""
        try:
            body = self._ask("/api/v3/order", {"symbol": symbol, "origClientOrderId": client_id})
        except Refusal as error:
            if error.code == NO_SUCH_ORDER:
                return None
            raise
        order = _meaning(read_answer(body, OrderFields, f"order {client_id}"))
        if (order.symbol, order.client_id) != (symbol, client_id):
            raise OutcomeUnknown(
                f"asked for order {client_id} of {symbol}, the venue told of {order.client_id} "
                f"of {order.symbol}"
            )
        return order

    def open_orders(self) -> Sequence[VenueOrder]:
        """Return all open orders of the account, ours or not; begins a reading of the account.

        Trading rules that are old, or that an order was refused by, are learnt again first, and
        so is the venue's time.
        """
        if self._clock.old:
            self._clock.synchronise(self.server_time_ms)
        self._learn_rules()
        rows = read_answer(
            self._ask("/api/v3/openOrders", {}), list[OrderFields], "the open orders"
        )
        orders = [_meaning(row) for row in rows]
        self._rules.open_orders([(row.symbol, row.type) for row in rows], orders)
        return orders

    def trades(self, symbol: str, after_trade_id: int) -> Sequence[VenueTrade]:
        """Return all executions in a symbol after a trade id, oldest first, paged to the end."""
        found: list[VenueTrade] = []
        last = after_trade_id
        while True:
            asked: dict[str, str | int] = {"symbol": symbol, "fromId": last + 1, "limit": PAGE}
            rows = read_answer(
                self._ask("/api/v3/myTrades", asked), list[TradeFields], f"trades of {symbol}"
            )
            for row in rows:
                trade = _meaning(row)
                if trade.symbol != symbol or not trade.trade_id > last:
                    raise OutcomeUnknown(
                        f"asked for trades of {symbol} after {last}, the venue told trade "
                        f"{trade.trade_id} of {trade.symbol}"
                    )
                last = trade.trade_id
                found.append(trade)
            if len(rows) < PAGE:
                return found

    def balances(self) -> Mapping[str, Decimal]:
        """Return free plus locked amounts by asset."""
        body = self._ask("/api/v3/account", {})
        held = _meaning(read_answer(body, AccountFields, "the account"))
        self._rules.balances(held)
        return held

    def key(self, *, with_rights: bool = True) -> KeyTold:
        """Return whose key it is and what it may do; a testnet does not tell the latter."""
        holder = read_answer(self._ask("/api/v3/account", {}), KeyHolder, "the account")
        if not with_rights:
            return KeyTold(holder, None)
        body = self._ask("/sapi/v1/account/apiRestrictions", {})
        return KeyTold(holder, read_answer(body, KeyRights, "what the key may do"))

    def clock_error_ms(self) -> float:
        """Return how far the venue's time as we know it may have been off when it was learnt."""
        return self._clock.error_ms

    def server_time_ms(self) -> int:
        """Return the venue's clock."""
        body = self._http.get("/api/v3/time", "", {})
        return read_answer(body, ServerTime, "the venue's time").serverTime

    def rules(self, symbol: str) -> SymbolRules | None:
        """Return a symbol's trading rules as they were last told."""
        return self._rules.of(symbol)

    def _learn_rules(self) -> None:
        query = self._rules.due_query()
        if query is not None:
            sent_ms = self._clock.now_ms()
            body = self._http.get("/api/v3/exchangeInfo", query, {})
            self._rules.take_over(read_answer(body, ExchangeInfo, "the trading rules"), sent_ms)

    # --------------------------------------------------------------------- signing
    def _ask(self, path: str, parameters: Mapping[str, str | int]) -> bytes:
        """Make a signed question; a wrong timestamp is put right once."""
        try:
            return self._http.get(path, self._signed(parameters), self._headers)
        except Refusal as error:
            if error.code != INVALID_TIMESTAMP:
                raise
            self._clock.doubt()
            return self._http.get(path, self._signed(parameters), self._headers)

    def _signed(self, parameters: Mapping[str, str | int]) -> str:
        self._in_time()
        stamp = {"recvWindow": self._window_ms, "timestamp": self._clock.now_ms()}
        return self._signer.query({**parameters, **stamp})

    def _in_time(self) -> None:
        """Know the venue's time before anything is signed."""
        if not self._clock.synchronised:
            try:
                self._clock.synchronise(self.server_time_ms)
            except (OutcomeUnknown, VenueRefused) as error:
                raise VenueUnreachable(
                    f"no time from the venue, nothing was sent: {error}"
                ) from error

    def _heed(self, error: Refusal) -> None:
        """Learn time or rules again before the next order; what was refused is not sent twice."""
        if error.code == INVALID_TIMESTAMP:
            self._clock.doubt()
        elif error.code in RULES_BROKEN or error.reason == CLOSED:
            self._rules.doubt()


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


class _Meaningful(Protocol[Meaning_co]):
    """A message that can be checked and told in the engine's words."""

    def meaning(self) -> Meaning_co:
        """Return what it says; raises DataError for what cannot be."""
        ...


def _meaning(fields: _Meaningful[Meaning_co]) -> Meaning_co:
    try:
        return fields.meaning()
    except DataError as error:
        raise OutcomeUnknown(f"the venue told something impossible: {error}") from error
