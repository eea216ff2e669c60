"""What the runtime believes: a fold of journaled events, and nothing else.

`TradingState.apply` is the only way in. It is pure: the same events give the same state,
bit for bit, in any process. Here live orders, the position in the input and marks; the
accounts of a book are in `book`, the hash in `fingerprint`.

An order's status is the largest, in `_RANK`, of all it was told, so that the order in which
answers and fills arrive does not matter, and a finished order stays finished. Only
never-placed ranks below accepted: when the venue shows such an order after all, it is adopted.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.client_id import journal_tag
from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.domain.events import (
    OF_WHAT_TRADES,
    BreakerChanged,
    CancelRequested,
    CandleClosed,
    FundingPaid,
    GapSeen,
    InstrumentDefined,
    JournaledEvent,
    ModelPromoted,
    ModelTrial,
    OperatorCommand,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    OverrideSet,
    ProtectionAlarm,
    ProtectionPlanned,
    ProtectionSettled,
    Reconciled,
    RegimeNamed,
    RiskDecided,
    SessionEnded,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Order, OrderStatus, Purpose, Side
from bot4_runtime.domain.portfolio import Portfolio
from bot4_runtime.domain.regime import RegimeEstimate
from bot4_runtime.state.book import KEPT, ZERO, BookState, Entry, base_asset
from bot4_runtime.state.fingerprint import fingerprint
from bot4_runtime.state.venue_account import VenueAccount

STRAYS_KEPT: Final = 4 * KEPT
"""How many trades of unknown or forgotten orders are remembered by their ids."""
_DAY_MS: Final = 86_400_000
_RANK: Final = {
    OrderStatus.INTENDED: 0,
    OrderStatus.UNKNOWN: 1,
    OrderStatus.NEVER_PLACED: 2,
    OrderStatus.ACCEPTED: 3,
    OrderStatus.PARTIALLY_FILLED: 4,
    OrderStatus.REJECTED: 5,
    OrderStatus.EXPIRED: 6,
    OrderStatus.CANCELED: 7,
    OrderStatus.FILLED: 8,
}


class StateImage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a `TradingState` is made of, as it goes into a snapshot."""

    seq: int
    epoch: int
    inputs: int
    next_intent_no: int
    first_session: SessionStarted | None
    session: SessionStarted | None
    cursor: dict[str, int]
    marks: dict[str, float]
    instruments: dict[str, Instrument]
    books: dict[Book, BookState]
    orders: list[Order]
    trade_ids: dict[int, list[str]]
    finished: dict[Book, list[int]]
    withheld: dict[Book, list[int]]
    strays: list[str]
    regimes: dict[str, RegimeEstimate]
    models: dict[str, ModelPromoted]
    trials: dict[str, ModelTrial]
    account: VenueAccount
    counts: dict[str, int]
    overrides: list[OverrideSet]
    protection: dict[int, ProtectionPlanned]
    next_protection_no: int


class TradingState:
    """The state of one account; mutable, one writer.

    Attributes:
        seq: sequence number of the last event applied; the store sets it.
        epoch: of the last session.
        inputs: candles applied so far: the position in the input.
        cursor: open time (ms) of the last candle by symbol.
        marks: last close by symbol, in quote.
        next_intent_no: number the next intent must carry.
        books: accounts by book, in the order of the first session.
        orders: live orders, and of each book the last `KEPT` finished ones and, so that these do
            not push out what a venue answered, the last `KEPT` that the gate withheld; by intent
            number.
        first_session: what the account began with; `session` is the latest.
        models: which pair trades, by interval.
        trials: what became of the pair that was taken up last, by interval.
        account: what the venue should hold; see `VenueAccount`.
        counts: how often what happened, by ``EventType`` or ``EventType:code``.
        overrides: the operator's tightened limits; some may have expired.
        protection: actions against liquidation that are not over, by number.
        next_protection_no: number the next action must carry, or a larger one.
        moves: events of this process that were neither candles nor regimes. While it stands
            still, so do orders but for their age, positions, breakers and instruments.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.epoch = 0
        self.inputs = 0
        self.next_intent_no = 1
        self.first_session: SessionStarted | None = None
        self.session: SessionStarted | None = None
        self.cursor: dict[str, int] = {}
        self.marks: dict[str, float] = {}
        self.instruments: dict[str, Instrument] = {}
        self.books: dict[Book, BookState] = {}
        self.orders: dict[int, Order] = {}
        self.regimes: dict[str, RegimeEstimate] = {}
        self.models: dict[str, ModelPromoted] = {}
        self.trials: dict[str, ModelTrial] = {}
        self.account = VenueAccount()
        self.counts: dict[str, int] = {}
        self.overrides: list[OverrideSet] = []
        self.protection: dict[int, ProtectionPlanned] = {}
        self.next_protection_no = 1
        self.moves = 0
        self._live: dict[str, dict[int, Order]] = {}
        self._trade_ids: dict[int, list[str]] = {}
        self._finished: dict[Book, list[int]] = {}
        self._withheld: dict[Book, list[int]] = {}
        self._strays: list[str] = []
        self._fold: dict[type, Callable[[Any], bool]] = {
            CandleClosed: self._candle_closed,
            GapSeen: self._counted,
            OrderIntended: self._order_intended,
            OrderAccepted: self._order_accepted,
            OrderRejected: self._order_rejected,
            OrderFilled: self._order_filled,
            OrderClosed: self._order_closed,
            OrderOutcomeUnknown: self._order_unknown,
            CancelRequested: self._cancel_requested,
            SignalDecided: self._decided,
            RiskDecided: self._decided,
            OverrideSet: self._override_set,
            BreakerChanged: self._breaker_changed,
            ProtectionAlarm: self._protection_alarm,
            ProtectionPlanned: self._protection_planned,
            ProtectionSettled: self._protection_settled,
            SessionStarted: self._session_started,
            SessionEnded: self._counted,
            InstrumentDefined: self._instrument_defined,
            RegimeNamed: self._regime_named,
            ModelPromoted: self._model_promoted,
            ModelTrial: self._model_trial,
            Reconciled: self._reconciled,
            FundingPaid: self._funding_paid,
            OperatorCommand: self._operator_command,
        }

    # ------------------------------------------------------------------ reading
    @property
    def tag(self) -> str:
        """What the names of this journal's orders end with; empty before its first session.

        It follows from the first session, which no two journals have in common: orders of
        another one on the same account are recognised by it.
        """
        first = self.first_session
        return "" if first is None else journal_tag(first.ts_event_ns, first.config_hash)

    def live_orders(self, symbol: str, book: Book | None = None) -> list[Order]:
        """Return a symbol's orders that may still fill, oldest intent first."""
        live = self._live.get(symbol)
        if not live:
            return []
        if book is None:
            return list(live.values())
        return [order for order in live.values() if order.intent.book is book]

    def all_live_orders(self, book: Book | None = None) -> list[Order]:
        """Return all orders that may still fill, oldest intent first."""
        found = [
            order
            for live in self._live.values()
            for order in live.values()
            if book is None or order.intent.book is book
        ]
        return sorted(found, key=lambda order: order.intent.intent_no)

    def unanswered(self) -> list[Order]:
        """Return intents without any outcome, oldest first: what recovery must settle."""
        return [o for o in self.all_live_orders() if o.status is OrderStatus.INTENDED]

    def reserved(self, book: Book) -> Decimal:
        """Return the quote that live buy orders of a book may still cost, at worst price."""
        total = ZERO
        for live in self._live.values():
            for order in live.values():
                intent = order.intent
                if intent.book is book and intent.side is Side.BUY:
                    total += (intent.quantity - order.filled) * intent.worst_price
        return total

    def cash_free(self, book: Book) -> Decimal:
        """Return a book's quote that no live order may need."""
        return self.books[book].cash - self.reserved(book)

    def portfolio(self, book: Book) -> Portfolio:
        """Return a whole view of a book that later events do not change."""
        return self.books[book].portfolio()

    def state_hash(self) -> str:
        """Return the sha256 (hex) of the economic state; see `fingerprint`."""
        return fingerprint(
            inputs=self.inputs,
            cursor=self.cursor,
            marks=self.marks,
            next_intent_no=self.next_intent_no,
            books=self.books,
            orders=self.orders,
        )

    # ---------------------------------------------------------------- snapshots
    def to_snapshot(self) -> StateImage:
        """Return the state as one value. It shares parts with the state: encode it at once."""
        return StateImage(
            seq=self.seq,
            epoch=self.epoch,
            inputs=self.inputs,
            next_intent_no=self.next_intent_no,
            first_session=self.first_session,
            session=self.session,
            cursor=self.cursor,
            marks=self.marks,
            instruments=self.instruments,
            books=self.books,
            orders=list(self.orders.values()),
            trade_ids=self._trade_ids,
            finished=self._finished,
            withheld=self._withheld,
            strays=self._strays,
            regimes=self.regimes,
            models=self.models,
            trials=self.trials,
            account=self.account,
            counts=self.counts,
            overrides=self.overrides,
            protection=self.protection,
            next_protection_no=self.next_protection_no,
        )

    @classmethod
    def from_snapshot(cls, image: StateImage) -> "TradingState":
        """Rebuild a state; it takes over the image's parts."""
        state = cls()
        state.seq = image.seq
        state.epoch = image.epoch
        state.inputs = image.inputs
        state.next_intent_no = image.next_intent_no
        state.first_session = image.first_session
        state.session = image.session
        state.cursor = image.cursor
        state.marks = image.marks
        state.instruments = image.instruments
        state.books = image.books
        state.regimes = image.regimes
        state.models = image.models
        state.trials = image.trials
        state.account = image.account
        state.counts = image.counts
        state.overrides = image.overrides
        state.protection = image.protection
        state.next_protection_no = image.next_protection_no
        state._trade_ids = image.trade_ids
        state._finished = image.finished
        state._withheld = image.withheld
        state._strays = image.strays
        for order in image.orders:
            state.orders[order.intent.intent_no] = order
            if not order.status.terminal:
                state._enlist(order)
        return state

    # ------------------------------------------------------------------ the fold
    def apply(self, event: JournaledEvent) -> bool:
        """Fold one event in.

        Returns:
            False when the event is a fill or a funding that was booked before; it changes
            nothing and must not be journaled again.

        Raises:
            InvariantViolated: the event cannot follow this state; the state is unchanged.
        """
        kind = type(event)
        fresh = self._fold[kind](event)
        if kind is not CandleClosed and kind is not RegimeNamed:
            self.moves += 1
        return fresh

    def _counted(self, event: JournaledEvent) -> bool:
        self._count(type(event).__name__)
        return True

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    # -------------------------------------------------------------- market data
    def _candle_closed(self, event: CandleClosed) -> bool:
        candle = event.candle
        symbol = candle.symbol
        open_time_ms = candle.open_time_ms
        if open_time_ms <= self.cursor.get(symbol, -1):
            raise InvariantViolated(
                f"candle {symbol} at {open_time_ms} came after the one at "
                f"{self.cursor[symbol]}; candles of a symbol must move forward in time"
            )
        self.inputs += 1
        self.cursor[symbol] = open_time_ms
        self.marks[symbol] = candle.close
        live = self._live.get(symbol)
        if live:
            for intent_no, order in live.items():
                live[intent_no] = self.orders[intent_no] = Order(
                    intent=order.intent,
                    client_id=order.client_id,
                    status=order.status,
                    filled=order.filled,
                    spent=order.spent,
                    cancel_requested=order.cancel_requested,
                    age=order.age + 1,
                    reason=order.reason,
                )
        day = open_time_ms // _DAY_MS
        for book in self.books.values():
            if day > book.metrics.day:
                book.new_day(day)
            if symbol in book.positions:
                book.value(symbol, Decimal(repr(candle.close)))
                book.measure()
        return True

    # ------------------------------------------------------------------- orders
    def _order_intended(self, event: OrderIntended) -> bool:
        intent = event.intent
        if intent.intent_no != self.next_intent_no:
            raise InvariantViolated(
                f"intent {intent.intent_no} does not follow the last one; "
                f"expected number {self.next_intent_no}"
            )
        if intent.book not in self.books:
            raise InvariantViolated(f"intent {intent.intent_no} is for unknown book {intent.book}")
        self.next_intent_no += 1
        self.books[intent.book].orders_total += 1
        order = Order(
            intent=intent,
            client_id=event.client_id,
            status=OrderStatus.INTENDED,
            filled=ZERO,
            spent=ZERO,
            cancel_requested=False,
            age=0,
            reason="",
        )
        self.orders[intent.intent_no] = order
        self._enlist(order)
        return True

    def _order_accepted(self, event: OrderAccepted) -> bool:
        self._told(event.intent_no, OrderStatus.ACCEPTED, "")
        order = self.orders.get(event.intent_no)
        if order is not None:
            self.account.named(order.intent.symbol, event.venue_order_id, event.intent_no)
        return True

    def _order_rejected(self, event: OrderRejected) -> bool:
        self._count(f"OrderRejected:{event.code}")
        self._told(event.intent_no, OrderStatus.REJECTED, f"{event.code} {event.reason}")
        self._after_end(event.intent_no, event.ts_event_ns)
        return True

    def _order_closed(self, event: OrderClosed) -> bool:
        status = OrderStatus(event.status)
        if not status.terminal:
            raise InvariantViolated(f"an order cannot close as {event.status!r}")
        self._told(event.intent_no, status, event.reason)
        self._after_end(event.intent_no, event.ts_event_ns)
        return True

    def _order_unknown(self, event: OrderOutcomeUnknown) -> bool:
        self._told(event.intent_no, OrderStatus.UNKNOWN, event.reason)
        return True

    def _cancel_requested(self, event: CancelRequested) -> bool:
        order = self.orders.get(event.intent_no)
        if order is not None and not order.cancel_requested:
            self._put(msgspec.structs.replace(order, cancel_requested=True))
        return True

    def _order_filled(self, event: OrderFilled) -> bool:
        fill = event.fill
        book = self.books.get(fill.book)
        if book is None:
            raise InvariantViolated(f"fill {fill.trade_id} is for unknown book {fill.book}")
        order = self.orders.get(fill.intent_no)
        if not self._remember(fill.intent_no, f"{fill.book}|{fill.symbol}|{fill.trade_id}", order):
            return False
        intent = order.intent if order is not None else None
        instrument = self.instruments.get(fill.symbol)
        base = base_asset(fill.symbol, instrument)
        mark = self.marks.setdefault(fill.symbol, float(fill.price))
        fee_mark = self.marks.get(fill.fee_asset + book.quote)
        fee_price = None if fee_mark is None else Decimal(repr(fee_mark))
        if order is not None:
            if order.intent.purpose is Purpose.ENTRY and not order.filled:
                planned = order.intent.quantity * fill.price
                book.entered(
                    Entry(ts_ns=fill.ts_event_ns, symbol=fill.symbol, notional=float(planned))
                )
            self._filled(order, fill.quantity, fill.price * fill.quantity)
        if fill.book is Book.VALIDATED:
            contract = instrument is not None and instrument.market is Market.USDM
            self.account.booked(fill, fill.symbol if contract else base, book.quote)
        before = book.positions.get(fill.symbol)
        book.fill(fill, intent, base, fee_price)
        if before is not None and before.quantity * fill.side.sign < 0:
            self._close_if_unsellable(book, fill.symbol, fill.price, fill.ts_event_ns)
        book.value(fill.symbol, Decimal(repr(mark)))
        book.measure()
        return True

    def _filled(self, order: Order, quantity: Decimal, quote: Decimal) -> None:
        filled = order.filled + quantity
        whole = filled >= order.intent.quantity
        told = OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED
        status = told if _RANK[told] > _RANK[order.status] else order.status
        self._put(
            msgspec.structs.replace(order, status=status, filled=filled, spent=order.spent + quote)
        )

    def _told(self, intent_no: int, status: OrderStatus, reason: str) -> None:
        order = self.orders.get(intent_no)
        if order is None:
            self._count("AnswerToUnknownOrder")
        elif _RANK[status] > _RANK[order.status]:
            self._put(msgspec.structs.replace(order, status=status, reason=reason))

    def _put(self, order: Order) -> None:
        """Replace an order; keep the index of live ones and the memory of finished ones."""
        intent_no = order.intent.intent_no
        was_terminal = self.orders[intent_no].status.terminal
        terminal = order.status.terminal
        self.orders[intent_no] = order
        if not terminal:
            if was_terminal:
                self._finished[order.intent.book].remove(intent_no)
            self._enlist(order, resort=was_terminal)
        elif not was_terminal:
            del self._live[order.intent.symbol][intent_no]
            kind = self._withheld if order.withheld else self._finished
            ended = kind.setdefault(order.intent.book, [])
            ended.append(intent_no)
            self._count(f"{order.intent.book}:{order.status}")
            if len(ended) > KEPT:
                oldest = ended.pop(0)
                del self.orders[oldest]
                ids = self._trade_ids.pop(oldest, [])
                self._strays += [_stray(oldest, key) for key in ids]
                del self._strays[:-STRAYS_KEPT]

    def _enlist(self, order: Order, *, resort: bool = False) -> None:
        symbol = order.intent.symbol
        live = self._live.setdefault(symbol, {})
        live[order.intent.intent_no] = order
        if resort:
            self._live[symbol] = dict(sorted(live.items()))

    def _remember(self, intent_no: int, key: str, order: Order | None) -> bool:
        """Note a trade; False when it was known. Trades of unknown orders are counted.

        Ids outlive their order's memory, so that a trade told very late is not booked again.
        """
        if order is not None:
            known = self._trade_ids.setdefault(intent_no, [])
            if key in known:
                return False
            known.append(key)
            return True
        stray = _stray(intent_no, key)
        if stray in self._strays:
            return False
        self._count("FillOfUnknownOrder")
        self._strays.append(stray)
        del self._strays[:-STRAYS_KEPT]
        return True

    def _after_end(self, intent_no: int, ts_ns: int) -> None:
        """Close what an ended order leaves behind when it cannot be sold."""
        order = self.orders.get(intent_no)
        if order is None or not order.status.terminal:
            return
        symbol = order.intent.symbol
        book = self.books[order.intent.book]
        if symbol in book.positions:
            price = Decimal(repr(self.marks[symbol]))
            self._close_if_unsellable(book, symbol, price, ts_ns)
            if symbol not in book.positions:
                book.measure()

    def _close_if_unsellable(
        self, book: BookState, symbol: str, price: Decimal, ts_ns: int
    ) -> None:
        left = abs(book.positions[symbol].quantity)
        instrument = self.instruments.get(symbol)
        done = not left
        if instrument is not None and not done:
            done = left < instrument.step_size or (
                not instrument.sellable(left, price) and not self.live_orders(symbol, book.book)
            )
        if done:
            book.close(symbol, ts_ns, base_asset(symbol, instrument))

    # --------------------------------------------------------- risk and system
    def _decided(self, event: SignalDecided | RiskDecided) -> bool:
        self._count(f"{type(event).__name__}:{event.code}")
        return True

    def _override_set(self, event: OverrideSet) -> bool:
        self._count("OverrideSet")
        now_ns = event.ts_event_ns
        self.overrides = [each for each in self.overrides if now_ns < each.expires_ts_ns]
        self.overrides.append(event)
        return True

    def _breaker_changed(self, event: BreakerChanged) -> bool:
        self.books[event.book].breaker = event.state
        return True

    def _session_started(self, event: SessionStarted) -> bool:
        self._count("SessionStarted")
        self.epoch = event.epoch
        self.session = event
        if self.first_session is None:
            self.first_session = event
            for book in event.books:
                self.books[book] = BookState.opened(book, event.quote, event.initial_cash)
        return True

    def _instrument_defined(self, event: InstrumentDefined) -> bool:
        self.instruments[event.instrument.symbol] = event.instrument
        return True

    def _regime_named(self, event: RegimeNamed) -> bool:
        self.regimes[event.estimate.symbol] = event.estimate
        self._count(f"Regime:{event.estimate.regime.label}")
        return True

    def _model_promoted(self, event: ModelPromoted) -> bool:
        self.models[event.interval] = event
        self._count("ModelPromoted")
        return True

    def _model_trial(self, event: ModelTrial) -> bool:
        """Keep the last word on the pair that was taken up last, not on the one before it."""
        self._count(f"ModelTrial:{event.outcome}")
        last, interval = self.trials.get(event.interval), event.interval
        same = last is not None and last.shas == event.shas
        if same or (event.hmm_sha256 and event.outcome not in OF_WHAT_TRADES):
            self.trials[interval] = event
        return True

    def _protection_alarm(self, event: ProtectionAlarm) -> bool:
        self._count(f"ProtectionAlarm:{event.code}")
        return True

    def _protection_planned(self, event: ProtectionPlanned) -> bool:
        if event.number < self.next_protection_no:
            raise InvariantViolated(
                f"protection plan {event.number} was made before; expected number "
                f"{self.next_protection_no} or a larger one"
            )
        self._count(f"ProtectionPlanned:{event.action}")
        self.next_protection_no = event.number + 1
        self.protection[event.number] = event
        return True

    def _protection_settled(self, event: ProtectionSettled) -> bool:
        self._count(f"ProtectionSettled:{event.status}")
        self.protection.pop(event.number, None)
        return True

    def _reconciled(self, event: Reconciled) -> bool:
        self.account.reconciled(event)
        return True

    def _funding_paid(self, event: FundingPaid) -> bool:
        book = self.books.get(Book.VALIDATED)
        if event.ours and (book is None or event.asset != book.quote):
            raise InvariantViolated(
                f"funding {event.key} is paid in {event.asset}, and no book of ours is kept in it"
            )
        if not self.account.fund(event):
            return False
        self._count("FundingPaid")
        if event.ours and book is not None:
            book.fund(event.symbol, event.amount, event.ts_event_ns)
            book.measure()
        return True

    def _operator_command(self, event: OperatorCommand) -> bool:
        self._count(f"OperatorCommand:{event.verb}")
        if event.verb == "reset_peak":
            for book in self.books.values():
                book.measure(reset_peak=True)
        elif event.verb == "accept":
            self.account.accept()
        return True


def _stray(intent_no: int, key: str) -> str:
    """Name a trade beside those of other orders: both sides of one may be ours."""
    return f"{intent_no}|{key}"
