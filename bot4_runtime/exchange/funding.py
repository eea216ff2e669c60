"""Funding of perpetuals: read when it is due, booked once, and wallets held against it.

The venue's own list of what was paid is the source; streams and times only say when to look: at
the start, when a funding time passed while something was held, when the user stream told of one,
and when a wallet is not what it should be. It is read again until what is owed was told, and from
a day before the last one booked, so that what the venue tells late, or a process that died
between two pages, leaves nothing out; the fold leaves out what it knows.

What was paid for a position that is not ours moves the amount expected at the venue, and no book.
In a symbol that is traded here it is told as a difference too, once two readings agree on it.
`keeper` asks for all of this; `binance.income` reads pages.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Protocol

from bot4_runtime.domain.account import Difference
from bot4_runtime.domain.errors import VenueError
from bot4_runtime.domain.events import FundingPaid, JournaledEvent
from bot4_runtime.domain.order import Book
from bot4_runtime.exchange.protocols import FundedVenue, VenueFunding
from bot4_runtime.exchange.reconcile import compare_wallets, foreign_funding
from bot4_runtime.exchange.unknown import APART_MS
from bot4_runtime.state.book import SETTLING_NS
from bot4_runtime.state.trading_state import TradingState

OVERLAP_MS: Final = 86_400_000
"""How long before the last funding booked a reading begins."""
LATE_MS: Final = 10 * 60_000
"""How long after its time a funding is waited for; wallets are not compared until then."""
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


class FundingDesk:
    """Books the funding of one account.

    Args:
        venue: says what was paid, and when is paid next.
        ledger: fundings are emitted here; the caller commits.
        symbols: those that are traded.
    """

    def __init__(self, venue: FundedVenue, ledger: Ledger, symbols: tuple[str, ...]) -> None:
        self._venue = venue
        self._ledger = ledger
        self._symbols = symbols
        self._read_ms = 0
        """When all was read last; 0 in a process that did not yet."""
        self._due = False
        self._fresh = False
        self._heard = 0
        self._next_ms: dict[str, int] = {}
        self._owed_ms: dict[str, int] = {}
        """Funding times of symbols that were held, while the venue has not told what was paid."""
        self._strange_ms: dict[str, int] = {}
        """When a funding that seems to be of no position of ours was first seen, by its key."""
        self._failure = ""

    @property
    def hold(self) -> str:
        """Why entries wait; empty when they need not."""
        if self._failure:
            return self._failure
        if self._strange_ms:
            return f"to be confirmed: funding {', '.join(sorted(self._strange_ms))}"
        return ""

    def look(self, now_ms: int) -> list[Difference]:
        """Book what was paid, where it is due to be asked for.

        Args:
            now_ms: the present, UTC.

        Returns:
            What is to be told: fundings that concern what is traded and are not ours.
        """
        self._fresh = False
        if self._ledger.state.account.opening is None:
            return []
        self._pass_time(now_ms)
        heard = self._venue.fundings_heard()
        self._due |= heard != self._heard or not self._read_ms
        if not (self._due or self._failure or self._owed_ms or self._strange_ms):
            return []
        told = self._read(now_ms)
        if not self._failure:
            self._heard, self._due = heard, False
        return told

    def compared(
        self, wallets: Mapping[str, Decimal], positions: Mapping[str, Decimal], now_ms: int
    ) -> list[Difference]:
        """Hold wallets against what is expected; nothing while a funding is owed or unread.

        One that differs is a reason to ask for fundings that nothing else told of.
        """
        found = self._differences(wallets, positions)
        if found and not self._fresh and not self._failure:
            self._read(now_ms)
            found = self._differences(wallets, positions)
        return [] if self._failure or self._owed_ms or self._strange_ms else found

    def _differences(
        self, wallets: Mapping[str, Decimal], positions: Mapping[str, Decimal]
    ) -> list[Difference]:
        state = self._ledger.state
        bookings = state.books[Book.VALIDATED].fills_total + len(state.account.funded)
        return compare_wallets(state.account, wallets, {*self._ours(), *positions}, bookings)

    def _ours(self) -> set[str]:
        return {*self._symbols, *self._ledger.state.instruments}

    def _pass_time(self, now_ms: int) -> None:
        """Note what is owed since a funding time passed; what was owed too long, forget."""
        self._owed_ms = {s: at for s, at in self._owed_ms.items() if now_ms < at + LATE_MS}
        coming = self._venue.next_fundings()
        for symbol in self._ours():
            due_ms = self._next_ms.get(symbol, 0)
            if 0 < due_ms <= now_ms and self._held(symbol, due_ms):
                self._due = True
                if now_ms < due_ms + LATE_MS:
                    self._owed_ms[symbol] = due_ms
            self._next_ms[symbol] = coming.get(symbol, 0)

    def _held(self, symbol: str, time_ms: int) -> bool:
        book = self._ledger.state.books.get(Book.VALIDATED)
        return book is not None and book.held_at(symbol, time_ms * NS_PER_MS) is not None

    # ------------------------------------------------------------------ one reading
    def _read(self, now_ms: int) -> list[Difference]:
        account = self._ledger.state.account
        known_ms = max(account.funded.values(), default=0)
        from_ms = max(account.opened_ms, max(known_ms, self._read_ms) - OVERLAP_MS)
        try:
            rows = self._venue.fundings(from_ms, now_ms)
        except VenueError as error:
            self._failure = f"funding could not be read: {error}"
            return []
        self._failure, self._fresh, self._read_ms = "", True, now_ms
        there = {row.key for row in rows}
        self._strange_ms = {key: at for key, at in self._strange_ms.items() if key in there}
        told = []
        for row in sorted(rows, key=lambda row: (row.time_ms, row.transaction_id)):
            found = self._take(row, now_ms)
            if found is not None:
                told.append(found)
            settled_ms = self._owed_ms.get(row.symbol)
            if settled_ms is not None and row.time_ms * NS_PER_MS >= (
                settled_ms * NS_PER_MS - SETTLING_NS
            ):
                del self._owed_ms[row.symbol]
        return told

    def _take(self, row: VenueFunding, now_ms: int) -> Difference | None:
        """Book a funding that is new; return what is to be told of it."""
        state = self._ledger.state
        if row.key in state.account.funded:
            return None
        event = FundingPaid(
            ts_event_ns=row.time_ms * NS_PER_MS,
            symbol=row.symbol,
            asset=row.asset,
            amount=row.amount,
            transaction_id=row.transaction_id,
            ours=self._held(row.symbol, row.time_ms)
            and row.asset == state.books[Book.VALIDATED].quote,
        )
        concerns = row.symbol in self._ours()
        if concerns and not event.ours:
            first_ms = self._strange_ms.setdefault(row.key, now_ms)
            if now_ms < first_ms + APART_MS:
                return None
        self._strange_ms.pop(row.key, None)
        self._ledger.emit(event)
        return foreign_funding(row) if concerns and not event.ours else None
