"""The USD-M venue put together: core, tape, journal, interfaces around one clock. No sockets."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, ClassVar

import msgspec

from bot4_runtime.clock import NS_PER_MS, Clock, ManualClock
from bot4_runtime.venue import auth, refusals
from bot4_runtime.venue import futures_messages as messages
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.door import Door, Refusal
from bot4_runtime.venue.faults import OF_USDM, Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_accounting import Accounting
from bot4_runtime.venue.futures_algo import AlgoDesk
from bot4_runtime.venue.futures_calendar import Calendar
from bot4_runtime.venue.futures_events import FuturesEvent
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_faults import NEW_ORDERS, FuturesFaults, spared
from bot4_runtime.venue.futures_liquidation import Liquidator
from bot4_runtime.venue.futures_market_data import MarketData
from bot4_runtime.venue.futures_messages import AccountTold
from bot4_runtime.venue.futures_orders import FuturesReport
from bot4_runtime.venue.futures_rest import FuturesRest
from bot4_runtime.venue.futures_settings import SettingsDesk
from bot4_runtime.venue.futures_stream import FuturesHub
from bot4_runtime.venue.futures_trading import Trading
from bot4_runtime.venue.futures_wsapi import FuturesApi
from bot4_runtime.venue.journal import Entry, VenueJournal, no_sink
from bot4_runtime.venue.limits import Limiter
from bot4_runtime.venue.listen_keys import ListenKeys
from bot4_runtime.venue.rest import WireAnswer, WireRequest
from bot4_runtime.venue.spoiled import Asked, sent_away
from bot4_runtime.venue.stream import Connection
from bot4_runtime.venue.tape import Print, Tape


class FuturesLoopback:
    """A whole USD-M exchange in one object.

    Args:
        clock: of the venue; a `ManualClock` is moved by the tape.
        symbols: rules and first price of each market.
        prints: what others trade, in order of time.
        depth: what the rest of the market offers around the last price.
        insurance: what the insurance fund holds at first, by margin asset.
        sink: keeps the journal.
        countdown_takes_algos: whether `countdownCancelAll` cancels conditional orders as well.
    """

    sockets: ClassVar[tuple[str, ...]] = (
        "/ws-fapi/v1",
        "/ws",
        "/stream",
        "/{route:ws|private|market|public}/{path:.*}",
    )

    def __init__(
        self,
        clock: Clock,
        symbols: Iterable[tuple[Contract, Decimal]],
        *,
        prints: Iterable[Print] = (),
        depth: Depth | None = None,
        insurance: Iterable[tuple[str, Decimal]] = (("USDT", Decimal(1_000_000)),),
        faults: FaultSchedule | None = None,
        sink: Callable[[Entry], None] = no_sink,
        countdown_takes_algos: bool = False,
    ) -> None:
        self.clock = clock
        self.faults = (faults or FaultSchedule()).require(OF_USDM, "USD-M")
        self.journal = VenueJournal(sink)
        self.door = Door(self.journal, weigh=None, orders=NEW_ORDERS)
        self.exchange = FuturesExchange(clock, self._on_event, insurance)
        for contract, last in symbols:
            self.exchange.list_symbol(contract, last, depth)
        self.algos = AlgoDesk(self.exchange)
        self.settings = SettingsDesk(self.exchange, self.algos)
        self.calendar = Calendar(self.exchange, self.algos if countdown_takes_algos else None)
        self.liquidator = Liquidator(self.exchange, self.algos)
        self.keys = ListenKeys()
        limiter = Limiter(note=self._over)
        trading = Trading(self.exchange, self.algos, self.calendar, limiter)
        accounting = Accounting(self.exchange, self.settings, self.liquidator)
        data = MarketData(self.exchange, limiter)
        parts = (self.exchange, self.journal, limiter, data, trading, accounting, self.keys)
        self.rest = FuturesRest(*parts)
        api = FuturesApi(*parts, self.door)
        self.hub = FuturesHub(self.exchange, self.journal, self.faults, self.keys, api)
        self._mischief = FuturesFaults(
            self.exchange, self.algos, self.calendar, self.door, self.hub, limiter
        )
        self.rest.after = self.hub.flush
        self.hub.flush()
        self._tape = Tape(prints)

    def advance(self, to_ms: int) -> int:
        """Let everybody else trade up to a time of the tape; return how many prints there were.

        An earlier time changes nothing, so that a client that died may ask for it again.
        """
        number = 0
        for made in self._tape.until(to_ms):
            self._pass_time(made.time_ms)
            told = {"s": made.symbol, "p": str(made.price), "q": str(made.quantity)}
            self.journal.add(self.exchange.now_ms(), "print", 0, told)
            self.trade(made.symbol, made.price, made.quantity)
            number += 1
        self._pass_time(to_ms)
        self.hub.flush()
        return number

    def trade(self, symbol: str, price: Decimal, quantity: Decimal) -> None:
        """Let somebody else trade, and do what follows from the new price."""
        self.exchange.print(symbol, price, quantity)
        self._settle(symbol)
        self.hub.flush()

    def set_mark(self, symbol: str, mark: Decimal | None) -> None:
        """Set a mark that the tape does not move; None lets it follow the tape again."""
        market = self.exchange.market(symbol)
        market.scripted = mark
        self.exchange.remark(market)
        self._settle(symbol)
        self.hub.flush()

    def answer(self, call: WireRequest) -> WireAnswer:
        """Answer a request at the door, or let it in."""
        now_ms, name = self.exchange.now_ms(), f"{call.method} {call.path}"
        refusal = self.door.refusal(now_ms, name, auth.parameters(call.query, call.body))
        if refusal is not None:
            return sent_away(refusal)
        if call.api_key and self.door.denies(call.api_key, now_ms, name):
            return sent_away(Refusal(401, *refusals.REJECTED_KEY, None))
        return self.rest.answer(call)

    def spared(self, call: str, values: Mapping[str, object]) -> AbstractSet[Fault]:
        """Return the faults that a call cannot have: ``POST /path``, or an API's method."""
        return spared(call, values)

    def act_out(self, call: WireRequest, rule: FaultRule) -> WireAnswer:
        """Answer a request that a fault of the venue's own hits; others are the shell's."""
        key = call.api_key or ""
        refusal = self._mischief.strike(rule, key)
        if refusal is not None:
            return sent_away(refusal)
        values = auth.parameters(call.query, call.body)
        with self._mischief.spoiled(rule, key, values):
            answer = self.answer(call)
        self.hub.flush()
        return answer

    def act_out_message(self, connection: Connection, asked: Asked, rule: FaultRule) -> None:
        """Answer a message that a fault of the venue's own hits."""
        params = asked.params if isinstance(asked.params, dict) else {}
        values = {name: str(value) for name, value in params.items()}
        key = self.hub.caller(connection) or values.get("apiKey", "")
        refusal = self._mischief.strike(rule, key)
        if refusal is not None:
            self.hub.send_away(connection, asked.id, refusal)
            return
        with self._mischief.spoiled(rule, key, values):
            self.hub.answer(connection, msgspec.json.encode(asked))
        self.hub.flush()

    def _over(self, now_ms: int, kind: str) -> None:
        """Write down that somebody asks for more than the limits grant."""
        self.journal.add(now_ms, kind, 0, {"call": "the windows of the address"})

    def script(self, told: Mapping[str, str]) -> None:
        """Obey the operator, who names a ``symbol`` and what is to happen there.

        ``price`` and ``quantity``: somebody else trades. ``mark``: is set, or follows the tape
        again when empty. ``funding``: the rate that longs pay from now on.
        """
        symbol = told["symbol"]
        if "price" in told:
            self.trade(symbol, Decimal(told["price"]), Decimal(told["quantity"]))
        if "mark" in told:
            self.set_mark(symbol, Decimal(told["mark"]) if told["mark"] else None)
        if "funding" in told:
            self.exchange.market(symbol).funding_rate = Decimal(told["funding"])

    def schedule(self, faults: FaultSchedule) -> None:
        """Let other things go wrong from now on.

        Raises:
            ConfigError: one of them is acted out by the spot venue alone.
        """
        self.faults = self.hub.faults = faults.require(OF_USDM, "USD-M")

    def open_account(
        self, uid: int, api_key: str, secret: str, deposits: Iterable[tuple[str, Decimal]]
    ) -> FuturesAccount:
        """Open an account with money in it; one that is there stays as it is."""
        known = self.exchange.account(api_key)
        if known is not None:
            return known
        account = FuturesAccount(uid, api_key, secret)
        self.exchange.open_account(account)
        for asset, amount in deposits:
            account.deposit(asset, amount, self.exchange.now_ms())
        return account

    def _pass_time(self, to_ms: int) -> None:
        """Move the clock, stopping wherever something is due."""
        clock = self.clock
        if isinstance(clock, ManualClock):
            while (due_ms := self.calendar.next_ms()) is not None and due_ms <= to_ms:
                clock.advance_to(due_ms * NS_PER_MS)
                self._due()
            clock.advance_to(to_ms * NS_PER_MS)
        self._due()

    def _due(self) -> None:
        self.calendar.pass_time()
        self.liquidator.check()

    def _settle(self, symbol: str) -> None:
        """Liquidate first: a stop that the same price crosses comes too late."""
        self.liquidator.check()
        self.algos.on_price(self.exchange.market(symbol))
        self.liquidator.check()

    def _on_event(self, event: FuturesEvent) -> None:
        self.hub.on_event(event)
        if isinstance(event, FuturesReport) and not event.status.open:
            self.algos.ended(event.order)

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
        told = AccountTold(self.exchange, self.liquidator)
        return {"orders": orders, "account": told.account(account)}
