"""The venue put together: core, tape, journal and both interfaces around one clock. No sockets."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from bot4_runtime.clock import NS_PER_MS, Clock, ManualClock
from bot4_runtime.venue import auth, messages, refusals
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.door import Door, Refusal
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.faults import OF_SPOT, Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.journal import Entry, VenueJournal, no_sink
from bot4_runtime.venue.limits import Limit
from bot4_runtime.venue.market_data import MarketHub
from bot4_runtime.venue.order_counts import OrderCounts
from bot4_runtime.venue.orders import Report
from bot4_runtime.venue.rest import Rest, WireAnswer, WireRequest
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.spoiled import Asked, sent_away
from bot4_runtime.venue.stream import Connection, Hub
from bot4_runtime.venue.tape import Print, Tape


class SkewedClock:
    """Another clock, ahead of it or behind.

    Args:
        skew_ms: added to its time; negative is behind.
    """

    def __init__(self, clock: Clock, skew_ms: int) -> None:
        self._clock = clock
        self._skew_ns = skew_ms * NS_PER_MS

    def step(self, seconds: float) -> None:
        """Jump; back when negative."""
        self._skew_ns += round(seconds * 1_000_000_000)

    def now_ns(self) -> int:
        """Return the other clock's time with the skew, in nanoseconds since 1970 UTC."""
        return self._clock.now_ns() + self._skew_ns


class Loopback:
    """A whole exchange in one object.

    Args:
        clock: of the venue; a `ManualClock` is moved by the tape.
        symbols: rules and first price of each market.
        prints: what others trade, in order of time.
        depth: what the rest of the market offers around the last price.
        sink: keeps the journal.
        order_limits: how many new orders an account may have; none for any number.
    """

    sockets: ClassVar[tuple[str, ...]] = ("/ws-api/v3",)

    def __init__(
        self,
        clock: Clock,
        symbols: Iterable[tuple[SymbolRules, Decimal]],
        *,
        prints: Iterable[Print] = (),
        depth: Depth | None = None,
        faults: FaultSchedule | None = None,
        sink: Callable[[Entry], None] = no_sink,
        order_limits: Sequence[Limit] = (),
    ) -> None:
        self.clock = clock
        self.shown = SkewedClock(clock, 0)
        """The clock that customers see; a fault may let it jump."""
        self.faults = (faults or FaultSchedule()).require(OF_SPOT, "spot")
        self.journal = VenueJournal(sink)
        self.door = Door(self.journal)
        self.exchange = Exchange(self.shown, self._on_report)
        for rules, last in symbols:
            self.exchange.list_symbol(rules, last, depth)
        self.market = MarketHub(self.exchange, self.journal, self.faults)
        self.counts = OrderCounts(self.journal, order_limits)
        self.rest = Rest(self.exchange, self.journal, self.market.calls(), self.counts)
        self.hub = Hub(self.exchange, self.journal, self.door, self.faults, self.rest)
        self._tape = Tape(prints)

    def advance(self, to_ms: int) -> int:
        """Let everybody else trade up to a time of the tape; return how many prints there were.

        An earlier time changes nothing, so that a client that died may ask for it again.
        """
        number = 0
        clock = self.clock
        for made in self._tape.until(to_ms):
            if isinstance(clock, ManualClock):
                clock.advance_to(made.time_ms * NS_PER_MS)
            told = {"s": made.symbol, "p": str(made.price), "q": str(made.quantity)}
            self.journal.add(self.exchange.now_ms(), "print", 0, told)
            self.exchange.print(made.symbol, made.price, made.quantity)
            self.market.printed(made)
            number += 1
        if isinstance(clock, ManualClock):
            clock.advance_to(to_ms * NS_PER_MS)
        self.market.passed(to_ms)
        return number

    def answer(self, call: WireRequest) -> WireAnswer:
        """Answer a request at the door, or let it in."""
        now_ms = self.exchange.now_ms()
        name = f"{call.method} {call.path}"
        values = auth.parameters(call.query, call.body)
        refusal = self.door.refusal(now_ms, name, values)
        if refusal is not None:
            return sent_away(refusal)
        if self.door.denies(call.api_key or "", now_ms, name):
            return sent_away(Refusal(401, *refusals.REJECTED_KEY, None))
        answer = self.rest.answer(call)
        if answer.status == 200:
            self.door.given_back(name)
        return answer._replace(headers={**answer.headers, **self.door.headers(now_ms)})

    def spared(self, call: str, values: Mapping[str, object]) -> AbstractSet[Fault]:
        """Return the faults that a call cannot have: all may hit what their rules name."""
        return frozenset()

    def act_out(self, call: WireRequest, rule: FaultRule) -> WireAnswer:
        """Answer a request that a fault of the venue's own hits; others are the shell's."""
        refusal = self._strike(rule, call.api_key or "")
        if refusal is not None:
            return sent_away(refusal)
        values = auth.parameters(call.query, call.body)
        with self._spoiled(rule, call.api_key or "", values):
            return self.answer(call)

    def act_out_message(self, connection: Connection, asked: Asked, rule: FaultRule) -> None:
        """Answer a message that a fault of the venue's own hits."""
        params = asked.params if isinstance(asked.params, dict) else {}
        values = {name: str(value) for name, value in params.items()}
        session = connection.session
        key = values.get("apiKey") or (session.api_key if session is not None else "")
        refusal = self._strike(rule, key)
        if refusal is not None:
            self.hub.send_away(connection, asked.id, refusal)
            return
        with self._spoiled(rule, key, values):
            self.hub.answer(connection, msgspec.json.encode(asked))

    def _strike(self, rule: FaultRule, api_key: str) -> Refusal | None:
        """Let a fault begin; return why the request that it hit is sent away, if it is."""
        now_ms = self.exchange.now_ms()
        fault = rule.fault
        if fault is Fault.ORDER_LIMIT:
            self.door.limit_orders(now_ms, rule.seconds)
            return self.door.order_limit(now_ms)
        if fault in {Fault.RATE_LIMITED, Fault.BANNED}:
            want = self.door.limit if fault is Fault.RATE_LIMITED else self.door.ban
            want(now_ms, rule.seconds)
            return self.door.silence(now_ms)
        if fault is Fault.FOREIGN_WEIGHT:
            self.door.use(now_ms)
        elif fault is Fault.CLOCK_STEP:
            self.shown.step(rule.seconds)
        elif fault is Fault.KEY_REVOKED and api_key:
            self._revoke(api_key, rule.seconds)
        return None

    def _revoke(self, api_key: str, seconds: float) -> None:
        self.door.revoke(api_key, self.exchange.now_ms(), seconds)
        account = self.exchange.account(api_key)
        if account is not None:
            self.hub.terminate(account)

    @contextmanager
    def _spoiled(self, rule: FaultRule, api_key: str, values: Mapping[str, str]) -> Iterator[None]:
        """Let an order expire, be pulled, or find its market or its money gone."""
        account = self.exchange.account(api_key)
        symbol = values.get("symbol", "")
        if rule.fault is Fault.HALTED:
            self.exchange.halt(symbol, self.exchange.now_ms() + round(rule.seconds * 1000))
        free = []
        if account is not None and rule.fault is Fault.FUNDS_TAKEN:
            free = [(asset, balance.free) for asset, balance in account.held()]
            for asset, amount in free:
                account.lock(asset, amount)
        yield
        if account is None:
            return
        for asset, amount in free:
            account.unlock(asset, amount)
        if rule.fault in {Fault.ORDER_EXPIRED, Fault.ORDER_PULLED}:
            expired = rule.fault is Fault.ORDER_EXPIRED
            self.exchange.end(account, symbol, values.get("newClientOrderId", ""), expired=expired)

    def schedule(self, faults: FaultSchedule) -> None:
        """Let other things go wrong from now on.

        Raises:
            ConfigError: one of them is acted out by the USD-M venue alone.
        """
        self.faults = self.hub.faults = self.market.faults = faults.require(OF_SPOT, "spot")

    def open_account(
        self, uid: int, api_key: str, secret: str, deposits: Iterable[tuple[str, Decimal]]
    ) -> Account:
        """Open an account with money in it; one that is there stays as it is."""
        known = self.exchange.account(api_key)
        if known is not None:
            return known
        account = Account(uid, api_key, secret)
        for asset, amount in deposits:
            account.deposit(asset, amount)
        self.exchange.open_account(account)
        return account

    def script(self, told: Mapping[str, str]) -> None:
        """Obey the operator: somebody else trades ``quantity`` of ``symbol`` at ``price``."""
        self.exchange.print(told["symbol"], Decimal(told["price"]), Decimal(told["quantity"]))

    def ledger(self, api_key: str, after_order_id: int) -> dict[str, Any] | None:
        """Tell an account with its orders and trades; None when there is none by that key."""
        account = self.exchange.account(api_key)
        if account is None:
            return None
        orders = [
            messages.order_told(order)
            | {"trades": [messages.trade_told(trade) for trade in order.trades]}
            for order in self.exchange.orders(account)
            if order.order_id > after_order_id
        ]
        return {
            "orders": orders,
            "account": messages.account_told(account, self.exchange.now_ms()),
        }

    def _on_report(self, account: Account, report: Report) -> None:
        trade = report.trade
        if trade is not None and trade.quantity == report.filled:
            self.counts.filled(self.exchange.now_ms(), account.uid, maker=trade.maker)
        self.hub.report(account, report)
