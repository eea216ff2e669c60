"""Keeps the journal and a venue outside the process in agreement, and says when entries wait.

Between candles it folds what the user stream brings; at the start, after a reconnect, every
30 s and soon after anything unclear it reads the account whole: open orders, each of our live
orders by name, trades from the last trade read on, balances, and of contracts positions and
funding. A failed reading is repeated and entries wait; a difference makes them wait until the
operator accepts it. What only absence or an amount speaks for is believed when two readings agree
on it. What the venue closed itself is booked, and entries wait until the operator accepts that
too.

At the start everything that was intended and never answered is UNKNOWN: see `unknown`.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, Protocol

from bot4_runtime.clock import Clock
from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.errors import ConfigError, VenueError, VenueRefused
from bot4_runtime.domain.events import (
    JournaledEvent,
    OrderAccepted,
    OrderClosed,
    OrderOutcomeUnknown,
    Reconciled,
)
from bot4_runtime.domain.order import Order, OrderIntent, OrderStatus, Purpose
from bot4_runtime.exchange.dead_man import DeadMan
from bot4_runtime.exchange.funding import FundingDesk
from bot4_runtime.exchange.protocols import RemoteVenue, VenueOrder, VenueTrade
from bot4_runtime.exchange.reconcile import (
    claim,
    compare_balances,
    compare_positions,
    ending,
    fill_event,
    forced,
    forced_fill,
    forced_order,
    foreign_order,
    foreign_trade,
    lost_order,
    owes_trades,
    undead_order,
)
from bot4_runtime.exchange.unknown import APART_MS, UnknownOrders
from bot4_runtime.state.trading_state import TradingState

INTERVAL_MS: Final = 30_000
"""From one whole reading of the account to the next."""
URGENT_MS: Final = 2_000
"""The same while something is unclear."""
FRESH_MS: Final = 40_000
"""How long a whole comparison holds; entries wait when the last one is older."""
MAX_CLOCK_ERROR_MS: Final = 500
"""How far our clock may be from the venue's before entries wait."""
ASKED_AGAIN: Final = 20
"""How many orders taken for never placed are asked for when a trade is nobody's."""
FIRST_READING: Final = "the account was not read twice yet"
NS_PER_MS: Final = 1_000_000


class Ledger(Protocol):
    """Where events go."""

    @property
    def state(self) -> TradingState:
        """The state all emitted events were folded into."""
        ...

    def emit(self, event: JournaledEvent) -> None:
        """Fold an event and add it to the open batch."""
        ...


class AccountKeeper:
    """Reads one venue and tells the journal.

    Args:
        venue: outside the process.
        ledger: what it tells is emitted here; the caller commits.
        epoch: of this process.
        symbols: those that are traded.
        cancel: the gate's; cancels that had no effect are repeated.
        clock: UTC, held against the venue's.
        timer: nanoseconds of a clock that never jumps.
        confirm: raises when the account is not this journal's; asked before each whole reading.
        dead_man: ends entries at the venue when nobody looks after them; None for no such switch.
        funding: books what perpetuals pay, and compares wallets; None leaves both out.
    """

    def __init__(
        self,
        venue: RemoteVenue,
        ledger: Ledger,
        *,
        epoch: int,
        symbols: tuple[str, ...],
        cancel: Callable[[Order, int], object],
        clock: Clock,
        timer: Callable[[], int],
        confirm: Callable[[], object] = bool,
        dead_man: DeadMan | None = None,
        funding: FundingDesk | None = None,
    ) -> None:
        self._confirm = confirm
        self._dead_man = dead_man
        self._funding = funding
        self._venue = venue
        self._ledger = ledger
        self._epoch = epoch
        self._symbols = symbols
        self._cancel = cancel
        self._clock = clock
        self._timer = timer
        self._unknown = UnknownOrders()
        self._due_ms = 0
        self._streaming = False
        self._failure = FIRST_READING
        self._answered = False
        self._balances: dict[str, Decimal] | None = None
        self._clock_error_ms = 0
        self._compared_ms = -FRESH_MS - 1
        self._compared = False
        self._apart = False
        self._suspects: dict[str, tuple[Decimal, int]] = {}
        self._told: dict[int, VenueOrder] = {}
        self._found: dict[str, Difference] = {}
        self._unclear = False
        self._touched: set[str] = set()
        self._asking: tuple[object, ...] = ()
        """What was decided by the parts that are being sent."""
        self._certain: set[int] = set()
        """Orders that told these parts all their fills."""
        self._doubtful = False

    @property
    def venue(self) -> RemoteVenue:
        """The venue it reads."""
        return self._venue

    @property
    def hold(self) -> str:
        """Why entries wait; empty when they need not."""
        differences = self._ledger.state.account.differences
        if differences:
            more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
            return f"the venue disagrees: {differences[0].text}{more}"
        return self._failure or self._unpaid or self._doubt()

    @property
    def _unpaid(self) -> str:
        return "" if self._funding is None else self._funding.hold

    def _doubt(self) -> str:
        if not self._streaming:
            return "the user stream is down"
        if self._suspects:
            return f"to be confirmed: {', '.join(sorted(self._suspects))}"
        if self._apart:
            return "the balances differed when they were last compared"
        if not self._now_ms() <= self._compared_ms + FRESH_MS:
            return "the last whole comparison is too old: an order's outcome is not known"
        if not self._clock_error_ms <= MAX_CLOCK_ERROR_MS:
            return f"our clock and the venue's are {self._clock_error_ms} ms apart"
        return ""

    def start(self) -> None:
        """Take all intents that were never answered for UNKNOWN: they may have been sent."""
        now_ms = self._now_ms()
        for order in self._ledger.state.all_live_orders():
            intent_no = order.intent.intent_no
            if order.status is OrderStatus.INTENDED:
                self._ledger.emit(
                    OrderOutcomeUnknown(
                        ts_event_ns=self._clock.now_ns(),
                        intent_no=intent_no,
                        reason="its answer was lost with the process",
                    )
                )
            self._unknown.sent(intent_no, now_ms)

    def sent(self, intent_no: int) -> None:
        """Take note of an order whose outcome the gate could not tell."""
        self._unknown.sent(intent_no, self._now_ms())
        self.hurry()

    def unsure(self, intent: OrderIntent) -> str:
        """Say why a reducing order must not be sent now; empty when it may.

        What is left of a position is certain only when every other order that reduces it has
        told all its fills. On a spot market nothing else keeps two of them from selling what
        the account holds beside it, so they are asked for by name, and trades are read, first.
        Those that were not sent yet, as the parts after this one, need not be asked for, and
        what one that was asked for sells afterwards lies within what is reserved for it: so parts
        that were decided together ask for each other order once.
        """
        if not intent.reduce_only:
            return ""
        if intent.decision != self._asking:
            self._asking, self._certain, self._doubtful = intent.decision, set(), False
        others = [
            order
            for order in self._reducing(intent)
            if order.status is not OrderStatus.INTENDED
            and order.intent.intent_no not in self._certain
        ]
        told = self._sold_by(others, intent.symbol) if others else ""
        if told:
            return told
        position = self._ledger.state.books[intent.book].positions.get(intent.symbol)
        left = Decimal(0) if position is None else position.quantity
        left -= sum((order.open_quantity for order in self._reducing(intent)), Decimal(0))
        if not intent.quantity <= left:
            return f"{left} {intent.symbol} are left to reduce, not {intent.quantity}"
        return ""

    def _sold_by(self, others: list[Order], symbol: str) -> str:
        """Ask what orders sold, and book it; return why that is not certain.

        While one of them is in doubt it alone is asked for, and the others once it is certain.
        """
        self.hurry()
        asked = others[:1] if self._doubtful else others
        self._doubtful = True
        try:
            answers = [self._venue.query(symbol, order.client_id) for order in asked]
            self._book_symbol(symbol, dict(self._ledger.state.account.trades_through))
        except VenueError as error:
            return f"what is left of {symbol} could not be read: {error}"
        certain = set()
        for told in answers:
            order = None if told is None else self._hear(told, None)
            if told is not None and order is not None and told.filled == order.filled:
                certain.add(order.intent.intent_no)
        self._certain |= certain
        if len(certain) < len(asked):
            return f"what was sold of {symbol} is not known yet"
        self._doubtful = False
        return self._sold_by(others[len(asked) :], symbol) if len(asked) < len(others) else ""

    def _reducing(self, intent: OrderIntent) -> list[Order]:
        """Return the other live orders that reduce what an order is to reduce."""
        return [
            order
            for order in self._ledger.state.live_orders(intent.symbol, intent.book)
            if order.intent.reduce_only and order.intent.intent_no != intent.intent_no
        ]

    def hurry(self) -> None:
        """Read the account soon."""
        self._due_ms = min(self._due_ms, self._now_ms() + URGENT_MS)

    def turn(self) -> list[str]:
        """Do what is due.

        Raises:
            VenueRefused: the venue never answered but to refuse the key or the location.

        Returns:
            The symbols whose protection should be looked at: those with new fills, those with
            a stop that the venue ended of its own accord, and after a whole reading all that
            are held.
        """
        self._asking = ()
        streaming = self._venue.stream_alive()
        if streaming and not self._streaming:
            self._due_ms = self._now_ms()
        self._streaming = streaming
        for update in self._venue.poll():
            name, trade = update.order.client_id, update.trade
            if forced(name):
                if trade is not None:
                    self._book_forced(trade, name)
            else:
                self._hear(update.order, trade)
        if self._now_ms() >= self._due_ms:
            self._reconcile()
        if self._dead_man is not None:  # after the reading, which may have ended entries
            self._look_after(self._dead_man)
        touched = sorted(self._touched)
        self._touched.clear()
        return touched

    def _look_after(self, dead_man: DeadMan) -> None:
        """Keep the countdowns of entries running; read the account when one ran out."""
        at_work = {
            order.intent.symbol
            for order in self._ledger.state.all_live_orders()
            if order.intent.purpose is Purpose.ENTRY
        }
        gone = dead_man.look(at_work)
        if gone:
            self._failure = f"the dead-man switch of {', '.join(gone)} went off"
            self._due_ms = self._now_ms()

    # ------------------------------------------------------------- one reading
    def _reconcile(self) -> None:
        self._told.clear()
        self._found.clear()
        self._unclear = self._compared = False
        self._failure = ""
        try:
            self._read()
        except VenueError as error:
            if not self._answered and isinstance(error, VenueRefused) and error.for_good:
                raise
            self._failure = f"the account could not be read: {error}"
            self._suspects.clear()
            self._balances = None
            self._unclear = True
        else:
            self._answered = True
            state = self._ledger.state
            self._touched.update(
                symbol for book in state.books.values() for symbol in book.positions
            )
        waits = self._unclear or self._suspects or self._unpaid
        self._due_ms = self._now_ms() + (URGENT_MS if waits else INTERVAL_MS)

    def _read(self) -> None:
        self._confirm()
        self._measure_clock()
        state = self._ledger.state
        for told in self._venue.open_orders():
            if not forced(told.client_id):
                self._hear_whole(told)
        missed = []
        for order in state.all_live_orders():
            answer = self._venue.query(order.intent.symbol, order.client_id)
            if answer is None:
                missed.append(order.intent.intent_no)
            else:
                self._hear_whole(answer)
        through = self._book_trades(dict(state.account.trades_through))
        for intent_no in missed:
            self._on_missed(state.orders[intent_no])
        for intent_no, told in self._told.items():
            self._settle(state.orders[intent_no], told)
        balances, positions = self._amounts()
        after = self._book_trades(dict(through))
        opening = None
        if state.account.opening is None:
            opening = self._opening(balances, positions or {})
            if opening is not None:
                self._compared_ms = self._now_ms()
        elif after == through and not self._unclear:
            self._found |= {d.key: d for d in self._compared_with(balances, positions)}
            self._compared_ms = self._now_ms()
            self._compared = True
        self._unclear |= after != through
        self._conclude(after, opening)

    def _amounts(self) -> tuple[dict[str, Decimal], Mapping[str, Decimal] | None]:
        """Read what is held, and book what it cost to hold it."""
        balances, positions = dict(self._venue.balances()), self._venue.positions()
        if self._funding is not None:
            for foreign in self._funding.look(self._clock.now_ns() // NS_PER_MS):
                self._trip(foreign)
        return balances, positions

    def _compared_with(
        self, balances: Mapping[str, Decimal], positions: Mapping[str, Decimal] | None
    ) -> list[Difference]:
        state = self._ledger.state
        if positions is None:
            return compare_balances(state.account, balances)
        found = compare_positions(state.account, positions, {*self._symbols, *state.instruments})
        if self._funding is not None:
            found += self._funding.compared(balances, positions, self._clock.now_ns() // NS_PER_MS)
        return found

    def _measure_clock(self) -> None:
        before_ns = self._clock.now_ns()
        venue_ms = self._venue.server_time_ms()
        after_ns = self._clock.now_ns()
        middle_ms = (before_ns + after_ns) // 2 // NS_PER_MS
        self._clock_error_ms = abs(venue_ms - middle_ms) + (after_ns - before_ns) // NS_PER_MS // 2

    def _hear_whole(self, told: VenueOrder) -> None:
        order = self._hear(told, None)
        if order is not None:
            known = self._told.get(order.intent.intent_no)
            if known is None or (told.filled, told.updated_ms) >= (known.filled, known.updated_ms):
                self._told[order.intent.intent_no] = told

    def _hear(self, told: VenueOrder, trade: VenueTrade | None) -> Order | None:
        """Fold what the venue says of one order; return it when it is ours and known."""
        state = self._ledger.state
        order, foreign = claim(state, self._epoch, told)
        if foreign:
            self._trip(foreign_order(told, foreign))
        if order is None:
            return None
        intent_no = order.intent.intent_no
        account = state.account
        self._unknown.found(intent_no)
        if (
            account.intent_of(told.symbol, told.venue_order_id) is None
            and told.status is not OrderStatus.REJECTED
        ):
            self._ledger.emit(
                OrderAccepted(
                    ts_event_ns=told.updated_ms * NS_PER_MS,
                    intent_no=intent_no,
                    venue_order_id=told.venue_order_id,
                )
            )
        if trade is not None:
            self._book(order, trade)
        order = state.orders[intent_no]
        end = ending(order, told)
        if end is not None:
            self._ledger.emit(end)
            if order.intent.reduce_only and not order.cancel_requested:
                self._touched.add(told.symbol)  # the venue ended a stop: it must be put back
        elif owes_trades(order, told):
            self.hurry()
        return order

    def _book(self, order: Order, trade: VenueTrade) -> None:
        """Book a trade of ours; the fold leaves out what was booked before."""
        self._ledger.emit(fill_event(order, trade))
        self._touched.add(trade.symbol)

    def _book_forced(self, trade: VenueTrade, name: str) -> None:
        """Book a trade by which the venue closed a position; entries wait until it is accepted."""
        self._trip(forced_order(trade, name, forced(name)))
        self._ledger.emit(forced_fill(trade))
        self._touched.add(trade.symbol)

    def _book_trades(self, through: dict[str, int]) -> dict[str, int]:
        """Read and book all trades after the given ids; return the new ones.

        What is there when a symbol is first read was traded before us. Reading stops before a
        trade that may be ours though its order is not known yet, so that it is read again.
        """
        live = {order.intent.symbol for order in self._ledger.state.all_live_orders()}
        for symbol in sorted(live.union(self._symbols, through)):
            self._book_symbol(symbol, through)
        return through

    def _book_symbol(self, symbol: str, through: dict[str, int]) -> None:
        first = symbol not in through
        last = through.get(symbol, 0)
        for trade in self._venue.trades(symbol, last):
            if not first and not self._claimed(trade):
                self._unclear = True
                break
            last = trade.trade_id
        through[symbol] = last

    def _claimed(self, trade: VenueTrade) -> bool:
        """Book a trade of ours; False for one that nobody is known to have made."""
        state = self._ledger.state
        intent_no = state.account.intent_of(trade.symbol, trade.venue_order_id)
        if intent_no is None:
            name = self._venue.name_of(trade)
            if forced(name):
                self._book_forced(trade, name)
                return True
            self._look_for_contradicted(trade.symbol)
            intent_no = state.account.intent_of(trade.symbol, trade.venue_order_id)
        order = None if intent_no is None else state.orders.get(intent_no)
        if order is not None:
            self._book(order, trade)
            return True
        foreign = foreign_trade(trade)
        if self._settled(foreign.key):
            return True
        if any(o.status is OrderStatus.UNKNOWN for o in state.live_orders(trade.symbol)):
            self._failure = f"{foreign.key} may be of an order whose outcome is not known"
        else:
            self._found[foreign.key] = foreign
        return False

    def _look_for_contradicted(self, symbol: str) -> None:
        """Ask again for orders taken for never placed: a trade is nobody's."""
        never = [
            order
            for order in self._ledger.state.orders.values()
            if order.status is OrderStatus.NEVER_PLACED and order.intent.symbol == symbol
        ]
        for order in never[-ASKED_AGAIN:]:
            answer = self._venue.query(symbol, order.client_id)
            if answer is not None:
                self._hear_whole(answer)

    def _on_missed(self, order: Order) -> None:
        """Judge a live order that the venue, asked by name, does not know."""
        intent_no = order.intent.intent_no
        if order.status.terminal or intent_no in self._told:
            return
        self._unclear = True
        lost = lost_order(order)
        if order.status is OrderStatus.UNKNOWN:
            if self._unknown.missed(intent_no, self._now_ms(), self._clock_error_ms):
                self._close(order, OrderStatus.NEVER_PLACED, "the venue never knew it")
        elif lost.key in self._ledger.state.account.accepted:
            self._close(order, OrderStatus.CANCELED, "lost by the venue, as the operator accepted")
        else:
            self._found[lost.key] = lost

    def _settle(self, order: Order, told: VenueOrder) -> None:
        """Bring an order to where the venue has it, now that its trades are booked."""
        end = ending(order, told)
        if end is not None:
            self._ledger.emit(end)
        elif told.filled != order.filled:
            self._unclear = True
        elif not told.status.terminal and order.status.terminal:
            undead = undead_order(order, told)
            self._found[undead.key] = undead
        elif not told.status.terminal and order.cancel_requested:
            self._unclear = True
            self._cancel(order, self._clock.now_ns())

    def _close(self, order: Order, status: OrderStatus, reason: str) -> None:
        self._ledger.emit(
            OrderClosed(
                ts_event_ns=self._clock.now_ns(),
                intent_no=order.intent.intent_no,
                status=status.value,
                reason=reason,
            )
        )

    # -------------------------------------------------------------- conclusions
    def _opening(
        self, balances: dict[str, Decimal], positions: Mapping[str, Decimal]
    ) -> dict[str, Decimal] | None:
        """Return what the account began with, once two readings agree.

        Raises:
            ConfigError: it holds less quote than the account is to begin with, or a position in
                what is to be traded, which would be taken for ours.
        """
        whole = {**balances, **positions}
        before, self._balances = self._balances, whole
        if before != whole:
            self._unclear = True
            self._failure = FIRST_READING
            return None
        first = self._ledger.state.first_session
        if first is not None and balances.get(first.quote, Decimal(0)) < first.initial_cash:
            raise ConfigError(
                f"the account at {self._venue.name} holds "
                f"{balances.get(first.quote, Decimal(0))} {first.quote}, and initial_cash is "
                f"{first.initial_cash}; lower paper.initial_cash or fund the account"
            )
        held = sorted(set(positions) & set(self._symbols))
        if held:
            raise ConfigError(
                f"the account at {self._venue.name} holds positions in {', '.join(held)} that "
                "nothing here opened; close them, or trade other symbols"
            )
        return whole

    def _trip(self, found: Difference) -> None:
        """Journal at once what needs no second look: an order that is not ours."""
        if not self._settled(found.key):
            self._tell({}, None, (*self._ledger.state.account.differences, found))

    def _settled(self, key: str) -> bool:
        """Whether a difference was told already."""
        account = self._ledger.state.account
        return key in account.accepted or any(d.key == key for d in account.differences)

    def _conclude(self, through: dict[str, int], opening: dict[str, Decimal] | None) -> None:
        """Journal what this reading found, if anything is new.

        Balances that differed hold entries until a later reading has compared them again: one
        that could not, since trades came in or it failed, says nothing of them.
        """
        account = self._ledger.state.account
        known = {d.key: d for d in account.differences}
        now_ms = self._now_ms()
        suspects: dict[str, tuple[Decimal, int]] = {}
        confirmed: dict[str, Difference] = {}
        if self._compared:
            self._apart = False
        for key, found in self._found.items():
            delta = found.venue - found.ours
            if key in account.accepted or (key in known and _delta(known[key]) == delta):
                continue
            self._apart |= found.kind is DifferenceKind.BALANCE
            since_ms = now_ms
            if key in self._suspects and self._suspects[key][0] == delta:
                since_ms = self._suspects[key][1]
            if now_ms >= since_ms + APART_MS:
                confirmed[key] = found
            else:
                suspects[key] = (delta, since_ms)
        self._suspects = suspects
        if confirmed or opening is not None or through != account.trades_through:
            self._tell(through, opening, tuple({**known, **confirmed}.values()))

    def _tell(
        self,
        through: dict[str, int],
        opening: dict[str, Decimal] | None,
        differences: tuple[Difference, ...],
    ) -> None:
        self._ledger.emit(
            Reconciled(
                ts_event_ns=self._clock.now_ns(),
                trades_through=through,
                opening=opening,
                differences=differences,
            )
        )

    def _now_ms(self) -> int:
        return self._timer() // NS_PER_MS


def _delta(found: Difference) -> Decimal:
    return found.venue - found.ours
