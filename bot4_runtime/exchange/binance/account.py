"""One account at Binance, whatever the market: its connections, its time, orders and questions.

An order is sent once. What its answer does not prove is `OutcomeUnknown`, and the one who asks
must query it. Nothing here retries, waits for a fill, or guesses. How a market is asked and what
it answers is its `Dialect` and a class of its own: `spot`, `futures`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple, Protocol, TypeVar

from bot4_runtime.clock import Clock
from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import (
    DataError,
    LocationRefused,
    OutcomeUnknown,
    VenueError,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.events import OrderEvent, OrderRejected
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Order, OrderIntent
from bot4_runtime.exchange.binance.failures import Judge, failure
from bot4_runtime.exchange.binance.filters import SymbolRules
from bot4_runtime.exchange.binance.http_connection import REPLY_S, HttpConnection, Refusal
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.messages import ServerTime, read_answer
from bot4_runtime.exchange.binance.order_entry import OrderEntry
from bot4_runtime.exchange.binance.order_line import OrderLine
from bot4_runtime.exchange.binance.rule_book import ExchangeInfo, RuleBook
from bot4_runtime.exchange.binance.signing import Signer, VenueClock
from bot4_runtime.exchange.protocols import UserUpdate, VenueOrder, VenueTrade
from bot4_runtime.exchange.unknown import RECV_WINDOW_MS

PAGE: Final = 1_000
NO_SUCH_ORDER: Final = "-2013"
CANCEL_REJECTED: Final = "-2011"
INVALID_TIMESTAMP: Final = "-1021"

Meaning_co = TypeVar("Meaning_co", covariant=True)
Told = TypeVar("Told")
Parameters = Mapping[str, str | int]


class TradeMessage(Protocol):
    """An execution as a market tells it."""

    def meaning(self) -> VenueTrade:
        """Return it as the engine knows executions; raises DataError."""
        ...


class Follows(Protocol):
    """A user stream of whatever market."""

    counts: Counter[str]

    @property
    def connected(self) -> bool:
        """Whether the subscription stands now, whatever was missed before."""
        ...

    def start(self) -> None:
        """Begin to follow; returns at once."""
        ...

    def close(self) -> None:
        """Stop following; may be repeated."""
        ...

    def poll(self) -> Sequence[UserUpdate]:
        """Return what came since the last call; never waits."""
        ...

    def expect(self, client_id: str) -> None:
        """Take note that the venue answered an order: its report is due."""
        ...

    def alive(self) -> bool:
        """Tell whether updates arrive, and none were missed since the last call."""
        ...


class Request(NamedTuple):
    """What is asked about an order: a method of the WebSocket API, and its parameters."""

    method: str
    fields: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a market of Binance is asked.

    Attributes:
        time: path of its clock.
        rules: path of its trading rules; `info` reads them.
        named: whether rules can be asked for by symbol.
        trades: path of the account's executions; `trade` reads one.
        rest: methods of the WebSocket API, and what they are called in REST.
        rules_broken: codes after which the rules are learnt again.
        judge: what an answer that is no success means.
        ping_s: of a line's silence after which a pong is asked for; None where the venue pings.
    """

    time: str
    rules: str
    info: type[ExchangeInfo]
    named: bool
    trades: str
    trade: type[TradeMessage]
    rest: Mapping[str, tuple[str, str]]
    rules_broken: frozenset[str]
    judge: Judge = failure
    ping_s: float | None = None


class BinanceAccount(ABC):
    """An account at one of Binance's markets, or at a loopback venue.

    Args:
        rest_url: ``https://api.binance.com`` and the like.
        clock: ours; the venue's is estimated from it.
        dialect: of the market.
        reply_s: how long an answer may take before the outcome counts as unknown.
        window_ms: how long after its signature an order may be taken.
        may_send: asked when an order is signed; False leaves it unsent.
        budget: what may be asked of the venue.
        order_url: of the WebSocket API that orders go by; None for REST alone.
        symbols: those whose trading rules are learnt, and held against orders before they go.
        proxy: ``http://`` or ``socks5://host:port`` to go through on all ways; None for none.
    """

    in_process = False

    def __init__(
        self,
        rest_url: str,
        signer: Signer,
        clock: Clock,
        dialect: Dialect,
        *,
        budget: RequestBudget,
        reply_s: float = REPLY_S,
        window_ms: int = RECV_WINDOW_MS,
        may_send: Callable[[], bool] | None = None,
        order_url: str | None = None,
        symbols: Sequence[str] = (),
        proxy: str | None = None,
    ) -> None:
        self._dialect = dialect
        self._window_ms = window_ms
        self._http = HttpConnection(
            rest_url,
            reply_s,
            budget=budget,
            account=signer.api_key,
            proxy=proxy,
            judge=dialect.judge,
        )
        self._signer = signer
        self._headers = {"X-MBX-APIKEY": signer.api_key}
        self._clock = VenueClock(clock)
        self._stream: Follows | None = None
        self._line = (
            OrderLine(
                order_url,
                signer,
                self._clock,
                window_ms=window_ms,
                budget=budget,
                reply_s=reply_s,
                proxy=proxy,
                judge=dialect.judge,
                ping_s=dialect.ping_s,
            )
            if order_url is not None
            else None
        )
        self._entry = OrderEntry(
            self._http,
            self._line,
            rest=dialect.rest,
            signed=self._signed,
            in_time=self._in_time,
            headers=self._headers,
            may_send=may_send,
        )
        self._rules = RuleBook(symbols, budget, signer.api_key)
        self._unfit: VenueError | None = None
        """Why nothing may be begun though orders and trades can be read; None when it may."""

    # -------------------------------------------------------------------- the market's own
    @abstractmethod
    def _order(self, intent: OrderIntent, client_id: str) -> Request:
        """Return what asks for an order; raises InvariantViolated when the intent is none."""

    @abstractmethod
    def _end(self, order: Order) -> Request:
        """Return what asks for the end of an order."""

    @abstractmethod
    def _placed(self, intent: OrderIntent, client_id: str, body: bytes) -> list[OrderEvent]:
        """Return what the answer to a new order says; raises DataError or OutcomeUnknown."""

    @abstractmethod
    def _duplicate(self, error: Refusal) -> bool:
        """Whether the id is that of an open order, so that it is no rejection of that order."""

    @abstractmethod
    def _closed(self, error: Refusal) -> bool:
        """Whether the market does not trade now."""

    # ------------------------------------------------------------------------------- life
    def start(self) -> None:
        """Learn the venue's time and rules, open the line and begin to follow the user stream.

        A venue that does not answer now is asked again before the first signature.

        Raises:
            LocationRefused: HTTP 451.
        """
        try:
            self._clock.synchronise(self.server_time_ms)
            self._learn_rules()
            self._prepare()
        except LocationRefused:
            self._http.close()
            raise
        except VenueError:
            pass
        if self._line is not None:
            self._line.start()
        if self._stream is not None:
            self._stream.start()

    def _prepare(self) -> None:  # noqa: B027 - most markets want nothing
        """Set the account up for trading where the market wants that."""

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
        method, fields = self._order(intent, client_id)
        broken = self._rules.broken(intent, str(fields["type"]))
        if broken is not None:
            return [
                _rejected(
                    intent,
                    broken.rule,
                    f"not sent, {intent.symbol} does not take it: {broken.told}",
                )
            ]
        try:
            lane = Lane.REDUCE if intent.reduce_only else Lane.OPEN
            body = self._entry.send(method, fields, lane)
        except Refusal as error:
            self._heed(error)
            if not error.looked_at:
                raise VenueUnreachable(
                    f"order {client_id} was turned away before it was looked at: {error}"
                ) from error
            if self._duplicate(error):
                raise OutcomeUnknown(
                    f"order {client_id} is open at the venue already; query it"
                ) from error
            return [_rejected(intent, error.code, error.reason)]
        if self._stream is not None:
            self._stream.expect(client_id)
        try:
            events = self._placed(intent, client_id, body)
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
        method, named = self._end(order)
        try:
            self._cancel(named, method)
        except Refusal as error:
            if error.code != CANCEL_REJECTED:
                raise
        return []

    def _cancel(self, named: Parameters, method: str = "order.cancel") -> None:
        """Ask for an end; a wrong timestamp is put right once, since it was not looked at."""
        try:
            self._entry.send(method, named, Lane.CANCEL)
        except Refusal as error:
            if error.code != INVALID_TIMESTAMP:
                raise
            self._clock.doubt()
            self._entry.send(method, named, Lane.CANCEL)

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

    def trades(self, symbol: str, after_trade_id: int) -> Sequence[VenueTrade]:
        """Return all executions in a symbol after a trade id, oldest first, paged to the end."""
        found: list[VenueTrade] = []
        last = after_trade_id
        while True:
            asked: dict[str, str | int] = {"symbol": symbol, "fromId": last + 1, "limit": PAGE}
            body = self._ask(self._dialect.trades, asked)
            rows = read_answer(body, list[self._dialect.trade], f"trades of {symbol}")  # type: ignore[name-defined]
            for row in rows:
                trade = meant(row)
                if trade.symbol != symbol or not trade.trade_id > last:
                    raise OutcomeUnknown(
                        f"asked for trades of {symbol} after {last}, the venue told trade "
                        f"{trade.trade_id} of {trade.symbol}"
                    )
                last = trade.trade_id
                found.append(trade)
            if len(rows) < PAGE:
                return found

    def positions(self) -> Mapping[str, Decimal] | None:
        """Return None: what is held is in the balances."""
        return None

    def name_of(self, trade: VenueTrade) -> str:
        """Return nothing: whose a trade is, the names of our own orders tell."""
        return ""

    def _if_known(self, path: str, asked: Parameters, shape: type[Told]) -> Told | None:
        """Ask for one order; None when the venue says that it does not know it."""
        try:
            body = self._ask(path, asked)
        except Refusal as error:
            if error.code == NO_SUCH_ORDER:
                return None
            raise
        return read_answer(body, shape, "an order")

    def clock_error_ms(self) -> float:
        """Return how far the venue's time as we know it may have been off when it was learnt."""
        return self._clock.error_ms

    def server_time_ms(self) -> int:
        """Return the venue's clock."""
        body = self._http.get(self._dialect.time, "", {})
        return read_answer(body, ServerTime, "the venue's time").serverTime

    def rules(self, symbol: str) -> SymbolRules | None:
        """Return a symbol's trading rules as they were last told."""
        return self._rules.of(symbol)

    def _begin_reading(self) -> None:
        """Before the account is read: learn time and rules again where they are old."""
        if self._clock.old:
            self._clock.synchronise(self.server_time_ms)
        self._unfit = None
        self._attempt(self._learn_rules)

    def _attempt(self, step: Callable[[], object]) -> None:
        """Do what only entries need; where it fails, amounts are not told, and entries wait.

        Orders and trades are told all the same: stops and exits hang on them.
        """
        try:
            step()
        except VenueError as error:
            if isinstance(error, VenueRefused) and error.for_good:
                raise
            self._unfit = self._unfit or error

    def _require_fit(self) -> None:
        """Raise what failed since this reading of the account began."""
        if self._unfit is not None:
            raise self._unfit

    def _learn_rules(self) -> None:
        query = self._rules.due_query()
        if query is not None:
            sent_ms = self._clock.now_ms()
            asked = query if self._dialect.named else ""
            body = self._http.get(self._dialect.rules, asked, {}, Lane.OPEN)
            self._rules.take_over(
                read_answer(body, self._dialect.info, "the trading rules"), sent_ms
            )

    # --------------------------------------------------------------------- signing
    def _ask(self, path: str, parameters: Parameters, lane: Lane = Lane.REDUCE) -> bytes:
        """Make a signed question; a wrong timestamp is put right once."""
        try:
            return self._http.get(path, self._signed(parameters), self._headers, lane)
        except Refusal as error:
            if error.code != INVALID_TIMESTAMP:
                raise
            self._clock.doubt()
            return self._http.get(path, self._signed(parameters), self._headers, lane)

    def _open_orders(self, path: str) -> bytes:
        """Ask for open orders, with which a reading of the account begins.

        It begins in the lane of entries: one reading after the other, as while something is
        unclear, would use up what exits and stops, and what is asked before them, go by.
        """
        return self._ask(path, {}, Lane.OPEN)

    def _signed(self, parameters: Parameters) -> str:
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
        elif error.code in self._dialect.rules_broken or self._closed(error):
            self._rules.doubt()


def _rejected(intent: OrderIntent, code: str, reason: str) -> OrderRejected:
    return OrderRejected(
        ts_event_ns=intent.ts_ns, intent_no=intent.intent_no, code=code, reason=reason
    )


class _Meaningful(Protocol[Meaning_co]):
    """A message that can be checked and told in the engine's words."""

    def meaning(self) -> Meaning_co:
        """Return what it says; raises DataError for what cannot be."""
        ...


def meant(fields: _Meaningful[Meaning_co]) -> Meaning_co:
    """Return what a message says; raises OutcomeUnknown for what cannot be."""
    try:
        return fields.meaning()
    except DataError as error:
        raise OutcomeUnknown(f"the venue told something impossible: {error}") from error


def asked_for(order: VenueOrder, symbol: str, client_id: str) -> VenueOrder:
    """Return an order that was asked for; raises OutcomeUnknown when another one was told."""
    if (order.symbol, order.client_id) != (symbol, client_id):
        raise OutcomeUnknown(
            f"asked for order {client_id} of {symbol}, the venue told of {order.client_id} "
            f"of {order.symbol}"
        )
    return order
