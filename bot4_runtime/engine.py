"""The one consumer: a candle in, state changes and decisions out.

Pure: no IO, no clock, no randomness. Decisions become events (folded at once and journaled
as one batch) and commands (performed by `session` once the batch is durable). Replay,
paper and live run this same code.

The order within a candle: the candle, fills of resting orders inside it, circuit breaker,
protection of what is held, then signals. Exits and stops never wait for a validator.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.errors import DataError, InvariantViolated
from bot4_runtime.domain.events import (
    BreakerChanged,
    CancelRequested,
    CandleClosed,
    GapSeen,
    InstrumentDefined,
    JournaledEvent,
    OperatorCommand,
    OrderIntended,
    OverrideSet,
    RegimeNamed,
    RiskDecided,
    SignalDecided,
)
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Liquidity,
    Order,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    payload_hash,
)
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState, RiskMetrics
from bot4_runtime.domain.position import ClosedTrade, Position
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.exchange.protocols import Venue
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.optimizer import OrderToRoute, VenueQuote, suggest_order_type
from bot4_runtime.intents import entry_intent, in_parts, reducing_intent, relieves
from bot4_runtime.market import MarketMemory
from bot4_runtime.owed import exit_owed, sellable, stop_refused
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.manager import (
    HeldPosition,
    OpenOrder,
    RiskApproved,
    RiskManager,
    RiskView,
)
from bot4_runtime.risk.overrides import overrides_of
from bot4_runtime.signals.desk import Desk
from bot4_runtime.signals.validator import (
    Approved,
    MarketContext,
    SignalValidator,
    TradeCosts,
)
from bot4_runtime.state.book import KEPT, BookState
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.strategy.protocol import Strategy

REST_FILL_PROBABILITY: Final = 0.6
"""Assumed chance that an entry resting at the close fills before it expires."""
NS_PER_MS: Final = 1_000_000
_LEAVING: Final = (Purpose.EXIT, Purpose.EMERGENCY)


class Ledger(Protocol):
    """Where events go: folded into the state at once, journaled as one batch on commit."""

    @property
    def state(self) -> TradingState:
        """The state all emitted events were folded into."""
        ...

    def emit(self, event: JournaledEvent) -> None:
        """Fold an event and add it to the open batch."""
        ...


@dataclass(frozen=True, slots=True)
class Submit:
    """Send this approved intent, once its batch is durable."""

    approved: RiskApproved
    intended: OrderIntended


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel this order."""

    intent_no: int


Command = Submit | Cancel


def untold(_symbol: str) -> None:
    """Tell no rules: there is no venue that has any."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What the engine decides with.

    Attributes:
        evidence: evidence records by rule id; what is missing is rejected.
        costs: what a round trip is expected to cost, at the fees it begins with.
        fees: what trades cost now; by them the order type is chosen.
        half_spread: share of the mid price, expected.
        epoch: of this process; client ids carry it.
        told: a symbol's trading rules as the venue tells them; None where it tells none, and
            they are assumed from the first price.
    """

    strategy: Strategy
    validator: SignalValidator
    risk: RiskManager
    breaker: CircuitBreaker
    venue: Venue
    memory: MarketMemory
    detector: RegimeDetector | None
    evidence: Mapping[str, EvidenceRecord]
    costs: TradeCosts
    fees: FeeCalculator
    half_spread: float
    market: Market
    epoch: int
    told: Callable[[str], Instrument | None] = untold


class Engine:
    """Turns candles into events and commands.

    Args:
        parts: what it decides with.
        ledger: state and journal.
        books: the validated book, and the shadow book in replay and paper.
    """

    def __init__(self, parts: EngineParts, ledger: Ledger, books: Sequence[Book]) -> None:
        self._parts = parts
        self._ledger = ledger
        self._state = ledger.state
        self._books = tuple(books)
        self._desk = Desk(parts.evidence, KEPT)
        self._commands: list[Command] = []
        self._last: dict[str, Candle] = {}
        self._shown: dict[Book, tuple[BreakerState, RiskMetrics, int]] = {}
        self._settled: dict[str, int] = {}  # `moves` at which a symbol wanted nothing more
        self._last_exit = {
            (order.intent.book, order.intent.symbol): order.intent.intent_no
            for order in self._state.orders.values()
            if _exits(order.intent)
        }

    def swap(self, pair: ModelPair, evidence: Mapping[str, EvidenceRecord]) -> None:
        """Decide by other models and their evidence from the next candle on."""
        if self._parts.detector is not None:
            self._parts.detector.swap(pair)
        self.believe(evidence)

    def believe(self, evidence: Mapping[str, EvidenceRecord]) -> None:
        """Judge by other evidence from the next candle on; synthetic records stay."""
        kept = {rule: r for rule, r in self._parts.evidence.items() if r.synthetic}
        self._parts = dataclasses.replace(self._parts, evidence={**evidence, **kept})
        self._desk.believe(self._parts.evidence)

    def warm(self, candle: Candle) -> None:
        """Show history: windows, correlations and the strategy see it, nobody decides."""
        self._last[candle.symbol] = candle
        row = self._parts.memory.update(candle)
        if self._parts.detector is not None and row is not None:
            self._parts.detector.warm(candle, row)
        self._parts.strategy.warm(candle)

    def admit(self, candle: Candle) -> None:
        """Look at a candle before it may change anything.

        Raises:
            DataError: it is impossible, or not after the last one of its symbol.
        """
        candle.check()
        last_ms = self._state.cursor.get(candle.symbol, -1)
        if candle.open_time_ms <= last_ms:
            raise DataError(
                f"candle {candle.symbol} {candle.interval} at {candle.open_time_ms} came after "
                f"the one at {last_ms}; candles of a symbol must move forward in time"
            )

    def process(self, candle: Candle) -> list[Command]:
        """Process an admitted candle; return what must be done once its batch is durable."""
        parts, state, symbol = self._parts, self._state, candle.symbol
        self._commands = []
        self._last[symbol] = candle
        close_ms = candle.close_time_ms
        now_ns = close_ms * NS_PER_MS
        instrument = self._rules(candle, now_ns)
        live = state.live_orders(symbol)
        missing_from_ms = parts.memory.gap_before(candle)
        if missing_from_ms is not None:
            self._ledger.emit(
                GapSeen(
                    ts_event_ns=now_ns,
                    symbol=symbol,
                    interval=candle.interval,
                    from_ms=missing_from_ms,
                    to_ms=candle.open_time_ms,
                )
            )
        previous = state.regimes.get(symbol)
        self._ledger.emit(CandleClosed(ts_event_ns=now_ns, candle=candle))
        if live:
            for event in parts.venue.on_candle(candle, live, instrument):
                self._ledger.emit(event)
        row = parts.memory.update(candle)
        self._look_after(live, instrument, candle, now_ns)
        signals = parts.strategy.on_candle(candle)
        if parts.detector is not None and row is not None:
            estimate = parts.detector.update(candle, row)
            if estimate is not None:
                self._ledger.emit(RegimeNamed(ts_event_ns=now_ns, estimate=estimate))
                length_ms = close_ms - candle.open_time_ms
                fresh = previous and previous.open_time_ms + length_ms == candle.open_time_ms
                signals = (
                    *signals,
                    *parts.strategy.on_regime(
                        estimate, previous.regime if previous and fresh else None, candle
                    ),
                )
        for signal in signals:
            self._check(signal, candle)
            if signal.action is SignalAction.EXIT:
                self._exit(signal, instrument, candle)
            else:
                self._enter(signal, instrument, candle)
        return self._commands

    def _check(self, signal: TradingSignal, candle: Candle) -> None:
        """Hold a signal against its candle; overrides expire and the gate counts by its time."""
        strategy, now_ns = self._parts.strategy.name, candle.close_time_ms * NS_PER_MS
        if signal.symbol != candle.symbol:
            raise InvariantViolated(
                f"strategy {strategy} signals {signal.symbol} on a candle of {candle.symbol}; "
                "a signal must be of the candle it was decided on"
            )
        if signal.ts_ns != now_ns:
            raise InvariantViolated(
                f"strategy {strategy} signals at {signal.ts_ns} on a candle that closed at "
                f"{now_ns} (ns); a signal's time is the close of its candle"
            )

    def protect(self, symbol: str) -> list[Command]:
        """Give what was filled between two candles its stop; return what must be done then."""
        self._commands = []
        candle = self._last.get(symbol)
        if candle is not None:
            instrument = self._state.instruments[symbol]
            for book in self._books:
                self._cover(book, instrument, candle)
        return self._commands

    def leaving(self, symbol: str) -> bool:
        """Whether an order is at work that sells what is held of a symbol at once."""
        live = self._state.live_orders(symbol, Book.VALIDATED)
        return any(order.intent.purpose in _LEAVING for order in live)

    def relieve(
        self, symbol: str, quantity: Decimal, price: float, cause: str, now_ns: int
    ) -> list[Command]:
        """Sell some of what is held, since liquidation is near; return what must be done then.

        Entries that wait are called back and the stop is cancelled; `protect` stops what is
        left. Nothing is done where nothing is held or where it is sold already.

        Args:
            symbol: of what is held.
            quantity: in base; at most what is held is sold.
            price: of now, in quote.
            cause: begins with `intents.RELIEF`; whoever gives it repeats what fails.
            now_ns: UTC.
        """
        self._commands = []
        book = Book.VALIDATED
        position = self._state.books[book].positions.get(symbol)
        if position is None or self.leaving(symbol):
            return self._commands
        instrument = self._state.instruments[symbol]
        self._call_back(book, now_ns, cause)
        for order in self._state.live_orders(symbol, book):
            self._cancel(order, now_ns, cause)
        quantity = instrument.floor_quantity(
            min(quantity, sellable(self._state, position, instrument))
        )
        if quantity > 0:
            reference = instrument.floor_price(_decimal(price))
            self._reduce_by(position, quantity, reference, Purpose.EMERGENCY, cause, now_ns)
        return self._commands

    def withhold(self, now_ns: int, reason: str) -> list[Command]:
        """Call back every entry that waits; return what must be done then."""
        self._commands = []
        for book in self._books:
            self._call_back(book, now_ns, reason)
        return self._commands

    def obey(self, command: OperatorCommand | OverrideSet) -> list[Command]:
        """Carry out an operator's order; return what must be done once its batch is durable.

        ``halt``, ``flatten`` and ``resume`` move every book's breaker, and ``flatten`` leaves
        every market; what ``accept``, ``reset_peak`` and overrides do is in the fold, but an
        override that halts calls back the entries that wait.
        """
        self._commands = []
        self._ledger.emit(command)
        now_ns, reason = command.ts_event_ns, f"operator: {command.reason}"
        if isinstance(command, OverrideSet):
            for book in self._books if command.halt else ():
                self._call_back(book, now_ns, reason)
            return self._commands
        for book in self._books:
            before = self._state.books[book].breaker
            after = self._breaker_told(before, command)
            if after is not before:
                self._ledger.emit(BreakerChanged(ts_event_ns=now_ns, book=book, state=after))
            if after.halted:
                self._call_back(book, now_ns, reason)
            if command.verb == "flatten":
                for symbol in self._state.books[book].positions:
                    candle = self._last.get(symbol)
                    if candle is not None:  # else when its first candle comes
                        self._cover(book, self._state.instruments[symbol], candle)
        return self._commands

    def _breaker_told(self, state: BreakerState, command: OperatorCommand) -> BreakerState:
        if command.verb == "halt":
            return self._parts.breaker.halt(state, command.reason)
        if command.verb == "flatten":
            return self._parts.breaker.flatten(state, command.reason)
        return self._parts.breaker.resume(state) if command.verb == "resume" else state

    def cash_free(self, book: Book, *, without: int = 0) -> float:
        """Quote of a book that no live buy order reserves, the order `without` aside."""
        free = self._state.cash_free(book)
        order = self._state.orders.get(without)
        if order is not None and order.intent.side is Side.BUY:
            free += order.open_quantity * order.intent.worst_price
        return float(free)

    # ------------------------------------------------------------------ the parts
    def _rules(self, candle: Candle, now_ns: int) -> Instrument:
        """Return what a symbol is traded by: as the venue tells it, was known to, or assumed."""
        known = self._state.instruments.get(candle.symbol)
        told = self._parts.told(candle.symbol) or known
        if told is not None and (told is known or told == known):
            return told
        instrument = told or Instrument.assume(candle.symbol, self._parts.market, candle.close)
        self._ledger.emit(InstrumentDefined(ts_event_ns=now_ns, instrument=instrument))
        return instrument

    def _look_after(
        self, live: Sequence[Order], instrument: Instrument, candle: Candle, now_ns: int
    ) -> None:
        """Watch every book's breaker, and protect what is held or waits in a symbol.

        Where this changed nothing and no entry waits, it changes nothing again until an event
        moves an order, a position or a breaker: of the candle, only entries take notice. `live`
        are the symbol's orders that could still fill when the candle began.
        """
        state, symbol = self._state, instrument.symbol
        moves, settled = state.moves, self._settled.get(symbol)
        for book in self._books:
            self._watch_breaker(book, now_ns)
            if settled != state.moves and (live or symbol in state.books[book].positions):
                self._protect(book, instrument, candle, now_ns)
        if settled != moves == state.moves and not any(
            order.intent.purpose is Purpose.ENTRY for order in live
        ):
            self._settled[symbol] = moves

    def _watch_breaker(self, book: Book, now_ns: int) -> None:
        """Show the breaker every round trip it has not counted, wherever it was closed.

        Trades that change nothing need not be shown again, but may be, as after a restart:
        that changes nothing either.
        """
        book_state, breaker = self._state.books[book], self._parts.breaker
        before, metrics = book_state.breaker, book_state.metrics
        shown = self._shown.get(book)
        seen = before.trades_seen
        if shown is not None and shown[0] is before:
            seen = shown[2]
            closed = before.phase is not BreakerPhase.OPEN  # an open one also moves with time
            if closed and shown[1] is metrics and seen == book_state.trades_total:
                return
        state = breaker.on_time(before, now_ns)
        for trade in trades_since(book_state, seen):
            state = breaker.on_trade_closed(
                state, float(trade.pnl), opened_ns=trade.opened_ts_ns, now_ns=now_ns
            )
        state = breaker.on_equity(state, metrics, now_ns)
        if state is before or state == before:
            self._shown[book] = (before, metrics, book_state.trades_total)
            return
        state = msgspec.structs.replace(state, trades_seen=book_state.trades_total)
        self._ledger.emit(BreakerChanged(ts_event_ns=now_ns, book=book, state=state))
        if breaker.probing_factor(state) == 0.0:
            self._call_back(book, now_ns, f"circuit breaker: {state.reason}")

    def _call_back(self, book: Book, now_ns: int, reason: str) -> None:
        """Cancel the entries of a book that wait."""
        for order in self._state.all_live_orders(book):
            if order.intent.purpose is Purpose.ENTRY:
                self._cancel(order, now_ns, reason)

    def _protect(self, book: Book, instrument: Instrument, candle: Candle, now_ns: int) -> None:
        """Give every held quantity a live stop, and end entries that waited too long."""
        symbol = instrument.symbol
        live = self._state.live_orders(symbol, book)
        position = self._state.books[book].positions.get(symbol)
        if position is None and not live:
            return
        for order in live:
            entry = order.intent.purpose is Purpose.ENTRY
            if entry and 0 < order.intent.expires_after <= order.age:
                self._cancel(order, now_ns, "entry waited too long")
            elif entry and candle.low <= float(order.intent.stop_loss or 0):
                self._cancel(order, now_ns, "stopped out")  # its own stop has traded
            elif order.intent.reduce_only and position is None:
                self._cancel(order, now_ns, "nothing left to reduce")
        self._cover(book, instrument, candle)

    def _cover(self, book: Book, instrument: Instrument, candle: Candle) -> None:
        """Stop what is held and not on its way out; sell it where the operator said so."""
        symbol = instrument.symbol
        position = self._state.books[book].positions.get(symbol)
        if position is None:
            return
        breaker = self._state.books[book].breaker
        now_ns = candle.close_time_ms * NS_PER_MS
        if breaker.flattening:
            reason = f"operator: {breaker.halt_reason}"
            self._leave(book, instrument, candle, reason, now_ns, reason, Purpose.EMERGENCY)
            return
        owed = exit_owed(self._state, position, self._last_exit_of(position), now_ns)
        if owed is not None:
            cause, purpose = owed.signal_id, owed.purpose
            self._leave(book, instrument, candle, cause, now_ns, "exit repeated", purpose)
            return
        unprotected = sellable(self._state, position, instrument)
        for order in self._state.live_orders(symbol, book):
            if order.intent.reduce_only:
                unprotected -= order.open_quantity
        if unprotected < instrument.min_quantity:
            return
        unprotected = instrument.floor_quantity(unprotected)
        if instrument.sellable(unprotected, position.stop_price):
            refused = stop_refused(self._state, position)
            purpose = Purpose.EXIT if refused else Purpose.STOP
            self._reduce(position, instrument, candle, unprotected, purpose, position.signal_id)

    def _last_exit_of(self, position: Position) -> Order | None:
        number = self._last_exit.get((position.book, position.symbol), 0)
        return self._state.orders.get(number)

    def _exit(self, signal: TradingSignal, instrument: Instrument, candle: Candle) -> None:
        for book in self._books:
            self._leave(book, instrument, candle, signal.signal_id, signal.ts_ns, "exit signal")

    def _leave(
        self,
        book: Book,
        instrument: Instrument,
        candle: Candle,
        cause: str,
        now_ns: int,
        reason: str,
        purpose: Purpose = Purpose.EXIT,
    ) -> None:
        """Cancel what a book has open in a symbol and sell what it holds."""
        position = self._state.books[book].positions.get(instrument.symbol)
        live = self._state.live_orders(instrument.symbol, book)
        if position is None:
            for order in live:
                if order.intent.purpose is Purpose.ENTRY:
                    self._cancel(order, now_ns, reason)
            return
        if any(_exits(order.intent) for order in live):
            return
        there = sellable(self._state, position, instrument)
        for order in live:
            if relieves(order.intent):
                there -= order.open_quantity  # it is sold already
            else:
                self._cancel(order, now_ns, reason)
        quantity = instrument.floor_quantity(there)
        if quantity > 0:
            self._reduce(position, instrument, candle, quantity, purpose, cause)

    def _enter(self, signal: TradingSignal, instrument: Instrument, candle: Candle) -> None:
        if self._engaged(Book.VALIDATED, signal.symbol):
            return
        parts, symbol, session = self._parts, signal.symbol, self._state.session
        validated = self._state.books[Book.VALIDATED]
        self._desk.follow(
            validated.closed_trades,
            validated.trades_total,
            validated.entries,
            validated.positions.values(),
            self._state.marks,
            -1 if session is None else session.start_ms * NS_PER_MS,
        )
        verdict = parts.validator.validate(
            signal,
            self._desk.evidence(signal.rule_id),
            self._desk.history,
            MarketContext(
                regime=signal.regime,
                volatility=parts.memory.volatility(symbol),
                recent_return=parts.memory.recent_return(symbol),
                now_ns=signal.ts_ns,
                origin=None if session is None else session.origin,
                admitted=parts.detector is not None and parts.detector.pair.admits(symbol),
            ),
            self._costs(symbol),
        )
        approved = isinstance(verdict, Approved)
        self._ledger.emit(
            SignalDecided(
                ts_event_ns=signal.ts_ns,
                signal=signal,
                approved=approved,
                code=verdict.code,
                text=verdict.text,
                suggestion=verdict.suggestion,
                numbers=verdict.numbers,
            )
        )
        limit = parts.risk.limits.max_position_pct
        if isinstance(verdict, Approved):
            self._open(Book.VALIDATED, signal, min(verdict.size_fraction, limit), instrument)
        elif Book.SHADOW in self._books and not self._engaged(Book.SHADOW, symbol):
            self._open(Book.SHADOW, signal, limit, instrument)

    def _open(
        self, book: Book, signal: TradingSignal, fraction: float, instrument: Instrument
    ) -> None:
        """Size, judge and intend an entry; a refusal that names a size is tried once more."""
        book_state = self._state.books[book]
        # An open breaker is risk's to refuse: it sees the whole size, and names the reason.
        share = fraction * (self._parts.breaker.probing_factor(book_state.breaker) or 1.0)
        price = signal.limit_price if signal.limit_price is not None else signal.price
        if not 0.0 < price < math.inf:
            self._decide_risk(book, signal, Decimal(0), "NOT_FINITE", 0.0, 1.0)
            return
        if signal.side is not Side.BUY:  # exits and stops of this engine sell what is held
            self._decide_risk(book, signal, Decimal(0), "LONG_ONLY", 0.0, 1.0)
            return
        reference = instrument.floor_price(_decimal(price))
        budget = book_state.metrics.equity * _decimal(share)
        # A price below half a tick leaves nothing to buy by.
        quantity = instrument.floor_quantity(budget / reference) if reference else reference
        stop_loss = instrument.floor_price(reference * (1 - _decimal(signal.stop_distance)))
        view = self._risk_view(book, signal.symbol, signal.ts_ns)
        for _attempt in range(2):
            rests = signal.limit_price is not None or (
                quantity > 0 and self._rests(signal, quantity * reference)
            )
            quantity = instrument.in_one_order(quantity, reference, at_market=not rests)
            if not instrument.tradable(quantity, reference):
                minimum = float(instrument.min_notional)
                self._decide_risk(
                    book, signal, quantity, "BELOW_MINIMUM", minimum, float(quantity * reference)
                )
                return
            intent = entry_intent(
                self._state.next_intent_no,
                book,
                signal,
                quantity=quantity,
                reference=reference,
                stop_loss=stop_loss,
                rests=rests,
            )
            verdict = self._parts.risk.validate(intent, view)
            if isinstance(verdict, RiskApproved):
                self._decide_risk(
                    book, signal, quantity, "APPROVED", 1.0, verdict.risk_score, verdict.risk_score
                )
                self._intend(verdict, intent)
                return
            would_pass = verdict.would_pass_size
            self._decide_risk(
                book, signal, quantity, verdict.code, verdict.limit, verdict.value, 0.0, would_pass
            )
            if not would_pass > 0:
                return
            quantity = min(instrument.floor_quantity(would_pass), quantity)

    def _costs(self, symbol: str) -> TradeCosts:
        """Return what a round trip costs at the fees of this moment: they move with the tier."""
        costs, fees = self._parts.costs, self._parts.fees
        both = 2 * fees.rate(fees.venue, symbol, Liquidity.TAKER)
        if both == costs.fee_rate_round_trip:
            return costs
        return TradeCosts(
            both, costs.slippage_round_trip, costs.funding_per_day, costs.holding_days
        )

    def _rests(self, signal: TradingSignal, notional: Decimal) -> bool:
        """Whether fees and spread speak for resting at the close instead of taking."""
        depth = self._parts.memory.depth_quote(signal.symbol)
        volatility = self._parts.memory.volatility(signal.symbol)
        if not depth > 0.0 or volatility is None:
            return False
        quote = VenueQuote(
            self._parts.fees, self._parts.half_spread, depth, REST_FILL_PROBABILITY, volatility
        )
        order = OrderToRoute(signal.symbol, float(notional))
        return suggest_order_type(order, quote) is OrderType.LIMIT

    def _reduce(
        self,
        position: Position,
        instrument: Instrument,
        candle: Candle,
        quantity: Decimal,
        purpose: Purpose,
        signal_id: str,
    ) -> None:
        """Sell what is held, or stop it, in as many orders as the venue's rules ask for."""
        reference = instrument.floor_price(_decimal(candle.close))
        stop = purpose is Purpose.STOP
        price = position.stop_price if stop else reference
        now_ns = candle.close_time_ms * NS_PER_MS
        for part in in_parts(instrument, quantity, price, at_market=not stop):
            self._reduce_by(position, part, reference, purpose, signal_id, now_ns)

    def _reduce_by(
        self,
        position: Position,
        quantity: Decimal,
        reference: Decimal,
        purpose: Purpose,
        signal_id: str,
        now_ns: int,
    ) -> None:
        intent = reducing_intent(
            self._state.next_intent_no,
            position,
            purpose,
            signal_id,
            quantity=quantity,
            reference=reference,
            ts_ns=now_ns,
        )
        verdict = self._parts.risk.validate(
            intent, self._risk_view(position.book, position.symbol, now_ns)
        )
        if isinstance(verdict, RiskApproved):
            self._intend(verdict, intent)
            return
        self._ledger.emit(
            RiskDecided(
                ts_event_ns=now_ns,
                book=position.book,
                signal_id=signal_id,
                symbol=position.symbol,
                quantity=quantity,
                approved=False,
                code=verdict.code,
                limit=verdict.limit,
                value=verdict.value,
                would_pass_size=verdict.would_pass_size,
                risk_score=0.0,
            )
        )

    def _intend(self, approved: RiskApproved, intent: OrderIntent) -> None:
        if _exits(intent):
            self._last_exit[intent.book, intent.symbol] = intent.intent_no
        tag = "" if self._parts.venue.in_process else self._state.tag
        intended = OrderIntended(
            ts_event_ns=intent.ts_ns,
            intent=intent,
            client_id=client_id(self._parts.epoch, intent.intent_no, tag),
            payload_hash=payload_hash(intent),
        )
        self._ledger.emit(intended)
        self._commands.append(Submit(approved, intended))

    def _cancel(self, order: Order, now_ns: int, reason: str) -> None:
        if order.cancel_requested:
            return
        self._ledger.emit(
            CancelRequested(ts_event_ns=now_ns, intent_no=order.intent.intent_no, reason=reason)
        )
        self._commands.append(Cancel(order.intent.intent_no))

    def _decide_risk(
        self,
        book: Book,
        signal: TradingSignal,
        quantity: Decimal,
        code: str,
        limit: float,
        value: float,
        score: float = 0.0,
        would_pass: Decimal = Decimal(0),
    ) -> None:
        self._ledger.emit(
            RiskDecided(
                ts_event_ns=signal.ts_ns,
                book=book,
                signal_id=signal.signal_id,
                symbol=signal.symbol,
                quantity=quantity,
                approved=code == "APPROVED",
                code=code,
                limit=limit,
                value=value,
                would_pass_size=would_pass,
                risk_score=score,
            )
        )

    def _risk_view(self, book: Book, symbol: str, now_ns: int) -> RiskView:
        book_state = self._state.books[book]
        marks = self._state.marks
        return RiskView(
            equity=float(book_state.metrics.equity),
            cash_free=self.cash_free(book),
            marks=marks,
            positions=[
                HeldPosition(held.symbol, float(held.quantity), marks[held.symbol])
                for held in book_state.positions.values()
            ],
            open_orders=[
                OpenOrder(
                    order.intent.symbol,
                    order.intent.side.sign,
                    float(order.open_quantity),
                    float(order.intent.worst_price),
                    reduce_only=order.intent.reduce_only,
                )
                for order in self._state.all_live_orders(book)
            ],
            correlations=self._parts.memory.correlations,
            depth_quote=self._parts.memory.depth_quote(symbol),
            breaker=book_state.breaker,
            metrics=book_state.metrics,
            now_ns=now_ns,
            overrides=overrides_of(self._state.overrides),
        )

    def _engaged(self, book: Book, symbol: str) -> bool:
        held: BookState = self._state.books[book]
        return symbol in held.positions or any(
            order.intent.purpose is Purpose.ENTRY
            for order in self._state.live_orders(symbol, book)
        )


def trades_since(book: BookState, total_before: int) -> list[ClosedTrade]:
    """Return a book's round trips closed since it counted `total_before` of them."""
    fresh = book.trades_total - total_before
    return book.closed_trades[-fresh:] if fresh else []


def _exits(intent: OrderIntent) -> bool:
    """Whether an order is to leave a position whole, and is owed until that is done."""
    return intent.purpose in _LEAVING and not relieves(intent)


def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))
