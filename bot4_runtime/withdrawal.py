"""The end of a run at a venue outside the process: no entry is left to fill unwatched.

A cancel that was asked for proves nothing: it may be lost, refused, or come after a fill. So
entries are called back until the venue, asked or by its user stream, tells each of them ended
with all its trades booked, and until what they bought has its stop. All of it takes a bounded
time; what is not confirmed by then is named, and found by the next start, which asks for every
order that the journal holds open. Stops stay.

After an error that leaves the journal or the state in doubt, as one that is not ours may amid a
candle, nothing is decided or booked any more: entries are cancelled and asked for, and that is
all.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.errors import (
    Bot4Error,
    InvariantViolated,
    JournalError,
    VenueError,
    WrongAccount,
)
from bot4_runtime.domain.events import CancelRequested, JournaledEvent
from bot4_runtime.domain.order import Order, OrderStatus, Purpose
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.exchange.keeper import MAX_CLOCK_ERROR_MS, AccountKeeper
from bot4_runtime.exchange.unknown import UnknownOrders
from bot4_runtime.state.store import StateStore
from bot4_runtime.state.trading_state import TradingState

WITHIN_MS: Final = 60_000
"""How long an end is waited for; what is unknown at a venue that answers takes about 15 s."""
REPEAT_MS: Final = 2_000
"""From one cancel of an order to the next."""
LOOK_S: Final = 0.25
"""From one look at the venue to the next."""
_UNSURE: Final = (OrderStatus.UNKNOWN, OrderStatus.INTENDED)


class Ledger(Protocol):
    """Where events go, and what was made of them."""

    store: StateStore

    def emit(self, event: JournaledEvent) -> None:
        """Fold an event and add it to the open batch."""
        ...

    def commit(self) -> int:
        """Close the batch; return its last sequence number."""
        ...


class Withdrawal:
    """Calls entries back when a run ends.

    Args:
        ledger: state and journal.
        gate: cancels; it never raises for the venue's sake.
        keeper: reads the venue and books what it tells.
        protect: gives what is held of symbols its stops; tells whether it ordered anything.
        clock: UTC.
        timer: nanoseconds of a clock that never jumps.
        wait: lets that many seconds pass.
        within_ms: how long it may take.
    """

    def __init__(
        self,
        ledger: Ledger,
        gate: Gate,
        keeper: AccountKeeper,
        *,
        protect: Callable[[Sequence[str]], bool],
        clock: Clock,
        timer: Callable[[], int],
        wait: Callable[[float], object],
        within_ms: int = WITHIN_MS,
    ) -> None:
        self._ledger = ledger
        self._store = ledger.store
        self._gate = gate
        self._keeper = keeper
        self._protect = protect
        self._clock = clock
        self._timer = timer
        self._wait = wait
        self._within_ms = within_ms
        self._log = structlog.get_logger("withdrawal")

    def in_order(self, reason: str) -> list[str]:
        """Call entries back until they ended and what they bought is stopped.

        Args:
            reason: journaled with the cancels.

        Returns:
            What may still rest or fill, and what is held without a stop, in words; empty when
            the venue confirmed that there is nothing.

        Raises:
            Bot4Error: the journal took no more, or the account is not fit to be traded.
        """
        state = self._store.state
        until_ms = self._now_ms() + self._within_ms
        symbols = held_symbols(state)
        repeat_ms = self._now_ms()
        while True:
            entries = _live_entries(state)
            if entries and self._now_ms() >= repeat_ms:
                self._call_back(entries, reason)
                repeat_ms = self._now_ms() + REPEAT_MS
            symbols |= set(self._keeper.turn())
            acted = self._protect(sorted(symbols))
            bare = _bare(state)
            unclear = bool(_live_entries(state) or _unsure(state))
            if not (unclear or acted) and bare <= symbols:
                return [f"{symbol} is held without a stop" for symbol in sorted(bare)]
            if not self._now_ms() < until_ms:
                return self._told([*_live_entries(state), *_unsure(state)], bare)
            self._keeper.hurry()
            self._wait(LOOK_S)
            symbols = set()

    def after(self, error: Exception) -> None:
        """Call entries back after an error, as well as it still goes, and note what is left.

        Where journal and state are sound it goes as in order; else, and when that fails too,
        entries are cancelled and asked for alone. At another account there is nothing of ours.
        """
        if isinstance(error, WrongAccount):
            return
        left: list[str] | None = None
        told = isinstance(error, Bot4Error)
        if told and not isinstance(error, JournalError | InvariantViolated):
            with suppress(Bot4Error):
                left = self.in_order(f"the session fails: {type(error).__name__}")
                self._store.wait_durable(self._ledger.commit())
        if left is None:
            left = self._unbooked()
        if left:
            error.add_note(
                f"When it ended, {'; '.join(left)}. Look at the venue; the next start looks too"
            )

    def _unbooked(self) -> list[str]:
        """Cancel entries and ask for them by name, without the journal's help."""
        until_ms = self._now_ms() + self._within_ms
        left = {order.intent.intent_no: order for order in _live_entries(self._store.state)}
        filled: set[str] = set()
        unknown = UnknownOrders()
        repeat_ms = self._now_ms()
        while left:
            if self._now_ms() >= repeat_ms:
                for order in left.values():
                    self._gate.cancel(order, self._clock.now_ns())
                repeat_ms = self._now_ms() + REPEAT_MS
            for order in list(left.values()):
                if self._ended(order, unknown, filled):
                    del left[order.intent.intent_no]
            if not self._now_ms() < until_ms:
                break
            if left:
                self._wait(LOOK_S)
        return self._told(list(left.values()), filled)

    def _ended(self, order: Order, unknown: UnknownOrders, filled: set[str]) -> bool:
        """Ask for an order; note its symbol where it filled more than is booked."""
        intent = order.intent
        try:
            told = self._keeper.venue.query(intent.symbol, order.client_id)
        except VenueError:
            return False
        if told is None:
            never = unknown.missed(intent.intent_no, self._now_ms(), MAX_CLOCK_ERROR_MS)
            return never and order.status in _UNSURE
        if told.filled > order.filled:
            filled.add(intent.symbol)
        return told.status.terminal

    def _call_back(self, entries: Sequence[Order], reason: str) -> None:
        for order in entries:
            if not order.cancel_requested:
                self._ledger.emit(
                    CancelRequested(
                        ts_event_ns=self._clock.now_ns(),
                        intent_no=order.intent.intent_no,
                        reason=reason,
                    )
                )
        self._store.wait_durable(self._ledger.commit())
        for order in entries:
            self._gate.cancel(order, self._clock.now_ns())

    def _told(self, orders: Sequence[Order], bare: set[str]) -> list[str]:
        names = sorted({f"{order.intent.symbol} {order.client_id}" for order in orders})
        told = [f"{symbol} may be held without a stop" for symbol in sorted(bare)]
        if names:
            seconds = f"{self._within_ms / 1000:g} s"
            told.insert(0, f"not confirmed as ended within {seconds}: {', '.join(names)}")
        if told:
            self._log.error("orders may rest at the venue", what=told)
        return told

    def _now_ms(self) -> int:
        return self._timer() // NS_PER_MS


def held_symbols(state: TradingState) -> set[str]:
    """Return the symbols that any book holds."""
    return {symbol for book in state.books.values() for symbol in book.positions}


def has_open(state: TradingState) -> bool:
    """Tell whether an order is open or anything is held."""
    return bool(held_symbols(state)) or any(True for _ in state.all_live_orders())


def _live_entries(state: TradingState) -> list[Order]:
    return [o for o in state.all_live_orders() if o.intent.purpose is Purpose.ENTRY]


def _unsure(state: TradingState) -> list[Order]:
    return [o for o in state.all_live_orders() if o.status in _UNSURE]


def _bare(state: TradingState) -> set[str]:
    """Return the symbols held of which more than dust is in no order that rests."""
    found = set()
    for book, held in state.books.items():
        for symbol, position in held.positions.items():
            resting = [
                order.open_quantity
                for order in state.live_orders(symbol, book)
                if order.intent.reduce_only and order.status not in _UNSURE
            ]
            left = position.quantity - sum(resting)
            instrument = state.instruments[symbol]
            if left >= instrument.min_quantity and instrument.sellable(left, position.stop_price):
                found.add(symbol)
    return found
