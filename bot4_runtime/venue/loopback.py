"""The venue put together: core, tape, journal and both interfaces around one clock. No sockets."""

from collections.abc import Callable, Iterable
from decimal import Decimal

from bot4_runtime.clock import NS_PER_MS, Clock, ManualClock
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.faults import FaultSchedule
from bot4_runtime.venue.journal import Entry, VenueJournal, no_sink
from bot4_runtime.venue.orders import Report
from bot4_runtime.venue.rest import Rest
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.stream import Hub
from bot4_runtime.venue.tape import Print, Tape


class SkewedClock:
    """Another clock, ahead of it or behind.

    Args:
        skew_ms: added to its time; negative is behind.
    """

    def __init__(self, clock: Clock, skew_ms: int) -> None:
        self._clock = clock
        self._skew_ns = skew_ms * NS_PER_MS

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
    """

    def __init__(
        self,
        clock: Clock,
        symbols: Iterable[tuple[SymbolRules, Decimal]],
        *,
        prints: Iterable[Print] = (),
        depth: Depth | None = None,
        faults: FaultSchedule | None = None,
        sink: Callable[[Entry], None] = no_sink,
    ) -> None:
        self.clock = clock
        self.faults = faults or FaultSchedule()
        self.journal = VenueJournal(sink)
        self.exchange = Exchange(clock, self._on_report)
        for rules, last in symbols:
            self.exchange.list_symbol(rules, last, depth)
        self.rest = Rest(self.exchange, self.journal)
        self.hub = Hub(self.exchange, self.journal, self.faults, self.rest)
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
            number += 1
        if isinstance(clock, ManualClock):
            clock.advance_to(to_ms * NS_PER_MS)
        return number

    def schedule(self, faults: FaultSchedule) -> None:
        """Let other things go wrong from now on."""
        self.faults = self.hub.faults = faults

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

    def _on_report(self, account: Account, report: Report) -> None:
        self.hub.report(account, report)
