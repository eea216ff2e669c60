"""One account at Binance, whatever the market: its connections, its time, orders and questions.

An order is sent once. What its answer does not prove is `OutcomeUnknown`, and the one who asks
must query it. Nothing here retries, waits for a fill, or guesses. How a market is asked and what
it answers is its `Dialect` and a class of its own: `spot`, `futures`. How questions are signed is
`signed_rest`'s.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeVar

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
from bot4_runtime.exchange.binance.dialect import Dialect, Request
from bot4_runtime.exchange.binance.filters import SymbolRules
from bot4_runtime.exchange.binance.followed_stream import REPORT_S, SILENCE_S, FollowedStream
from bot4_runtime.exchange.binance.http_connection import REPLY_S, HttpConnection, Refusal
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.meaning import meant
from bot4_runtime.exchange.binance.messages import read_answer
from bot4_runtime.exchange.binance.order_entry import OrderEntry
from bot4_runtime.exchange.binance.order_line import OrderLine
from bot4_runtime.exchange.binance.rule_book import RuleBook
from bot4_runtime.exchange.binance.signed_rest import INVALID_TIMESTAMP, Parameters, SignedRest
from bot4_runtime.exchange.binance.signing import Signer, VenueClock
from bot4_runtime.exchange.protocols import UserUpdate, VenueTrade
from bot4_runtime.exchange.unknown import RECV_WINDOW_MS

PAGE: Final = 1_000
NO_SUCH_ORDER: Final = "-2013"
CANCEL_REJECTED: Final = "-2011"
FOLLOWS: Final = 30
"""Weight of what follows the end of a stop: its order and trades are read, an exit is sent."""

Told = TypeVar("Told")


class BinanceAccount(SignedRest, ABC):
    """An account at one of Binance's markets, or at a loopback venue.

    Args:
        rest_url: ``https://api.binance.com`` and the like.
        stream_url: of the market's user streams; None follows none.
        clock: ours; the venue's is estimated from it.
        budget: what may be asked of the venue; its own when None.
        reply_s: how long an answer may take before the outcome counts as unknown.
        window_ms: how long after its signature an order may be taken.
        may_send: asked when an order is signed; False leaves it unsent.
        silence_s: how long a living user stream may say nothing, pings and pongs included.
        report_s: how long it may take to report an order that the venue answered.
        order_url: of the WebSocket API that orders go by; None for REST alone.
        symbols: those whose trading rules are learnt, and held against orders before they go.
        proxy: ``http://`` or ``socks5://host:port`` to go through on all ways; None for none.
    """

    dialect: ClassVar[Dialect]
    in_process = False

    def __init__(
        self,
        rest_url: str,
        stream_url: str | None,
        signer: Signer,
        clock: Clock,
        *,
        budget: RequestBudget | None = None,
        reply_s: float = REPLY_S,
        window_ms: int = RECV_WINDOW_MS,
        may_send: Callable[[], bool] | None = None,
        silence_s: float = SILENCE_S,
        report_s: float = REPORT_S,
        order_url: str | None = None,
        symbols: Sequence[str] = (),
        proxy: str | None = None,
    ) -> None:
        dialect, account = self.dialect, signer.api_key
        budget = budget or RequestBudget(None, dialect.market)
        http = HttpConnection(
            rest_url, reply_s, budget=budget, account=account, proxy=proxy, judge=dialect.judge
        )
        super().__init__(
            http, signer, VenueClock(clock), time_path=dialect.time, window_ms=window_ms
        )
        self._line: OrderLine | None = None
        if order_url is not None:
            self._line = OrderLine(
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
        self._stream: FollowedStream | None = None
        if stream_url is not None:
            self._stream = self._followed(
                stream_url,
                rest_url,
                silence_s=silence_s,
                report_s=report_s,
                budget=budget,
                proxy=proxy,
            )
        self._entry = OrderEntry(
            http,
            self._line,
            rest=dialect.rest,
            signed=self._signed,
            in_time=self._in_time,
            headers=self._headers,
            may_send=may_send,
        )
        self._budget = budget
        self._rules = RuleBook(symbols, budget, account)
        self._unfit: VenueError | None = None
        """Why nothing may be begun though orders and trades can be read; None when it may."""

    # -------------------------------------------------------------------- the market's own
    @abstractmethod
    def _followed(self, stream_url: str, rest_url: str, **options: Any) -> FollowedStream:
        """Return the user stream; options are those of `FollowedStream`."""

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

    def _prepare(self) -> None:
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

        What reduces stays while the venue's limits would not let through what takes its place:
        what is held would be bare until they do.

        Returns:
            Nothing: the end comes with the user stream or by query. An order that the venue
            says it cannot cancel has ended already, or never was there.

        Raises:
            VenueUnreachable: it was not sent.
            VenueRefused: the venue would not look at it.
            OutcomeUnknown: it may have been cancelled.
        """
        if order.intent.reduce_only:
            self._require_room()
        method, named = self._end(order)
        try:
            self._cancel(named, method)
        except Refusal as error:
            if error.code != CANCEL_REJECTED:
                raise
        return []

    def _require_room(self) -> None:
        """Raise VenueUnreachable where what follows the end of a stop would not be let through."""
        left_ms = self._budget.look(Lane.REDUCE, FOLLOWS, account=self._signer.api_key, orders=1)
        if left_ms > 0:
            raise VenueUnreachable(
                f"the venue's limits let no exit pass for another {left_ms / 1000:.0f} s; the "
                "stop stays until then"
            )

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
            body = self._ask(self.dialect.trades, asked)
            rows = read_answer(body, list[self.dialect.trade], f"trades of {symbol}")  # type: ignore[name-defined]
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
            asked = query if self.dialect.named else ""
            body = self._http.get(self.dialect.rules, asked, {}, Lane.OPEN)
            self._rules.take_over(
                read_answer(body, self.dialect.info, "the trading rules"), sent_ms
            )

    def _open_orders(self, path: str) -> bytes:
        """Ask for open orders, with which a reading of the account begins.

        It begins in the lane of entries: one reading after the other, as while something is
        unclear, would use up what exits and stops, and what is asked before them, go by.
        """
        return self._ask(path, {}, Lane.OPEN)

    def _heed(self, error: Refusal) -> None:
        """Learn time or rules again before the next order; what was refused is not sent twice."""
        if error.code == INVALID_TIMESTAMP:
            self._clock.doubt()
        elif error.code in self.dialect.rules_broken or self._closed(error):
            self._rules.doubt()


def _rejected(intent: OrderIntent, code: str, reason: str) -> OrderRejected:
    return OrderRejected(
        ts_event_ns=intent.ts_ns, intent_no=intent.intent_no, code=code, reason=reason
    )
