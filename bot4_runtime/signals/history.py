"""What the desk did lately, kept so that the bias detectors need no search.

Fed trade by trade and entry by entry, it gives the figures that a search through the last
`kept` of each would give, bit for bit: so a restart, which begins from those, decides as an
uninterrupted run does. One writer feeds it; judging changes nothing but a cached median.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.position import ClosedTrade, Position

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS
KEPT: Final = 1_000
"""How many closed trades, and how many entries, are looked back on."""
USUAL: Final = 20
"""Entries before a streak whose median size is the usual one."""
LEAST_SIZES: Final = 3
"""Entries before a streak, and since, without which sizes are not compared."""
LEAST_TODAY: Final = 4
"""Entries of the last day without which frequencies are not compared."""
SCALE: Final = 1e12
"""Returns are summed in whole trillionths, so that taking one away again leaves no rounding."""


class Entry(Protocol):
    """An entry that was made: its time (ns, UTC), symbol and notional in quote."""

    @property
    def ts_ns(self) -> int:
        """When."""
        ...

    @property
    def symbol(self) -> str:
        """Of what."""
        ...

    @property
    def notional(self) -> float:
        """How much, in quote."""
        ...


class Held:
    """An open position as floats: +1 long or -1 short, entry and stop in quote."""

    def __init__(self, position: Position) -> None:
        self.source = position
        self.symbol: str = position.symbol
        self.sign: float = 1.0 if position.quantity > 0 else -1.0
        self.entry: float = float(position.entry_price)
        self.stop: float = float(position.stop_price)


class Past:
    """A closed trade as the detectors read it: when it closed, from which price, lost or not."""

    def __init__(self, trade: ClosedTrade) -> None:
        self.closed_ns: int = trade.closed_ts_ns
        self.entry_price: float = float(trade.entry_price)
        self.lost: bool = trade.pnl < 0


class RulePast:
    """A rule's net returns, oldest first, and their sum."""

    def __init__(self) -> None:
        self.returns: list[float] = []
        self.sum_scaled: int = 0

    def mean_before(self, recent: int) -> float:
        """Return the mean of all but the last `recent`; NaN when nothing is left."""
        count = len(self.returns) - recent
        if count <= 0:
            return math.nan
        total = self.sum_scaled
        for i in range(count, len(self.returns)):
            total -= round(self.returns[i] * SCALE)
        return total / SCALE / count


class SignalHistory:
    """The last trades and entries of a book, what it holds, and what that is worth.

    Args:
        trades: closed round trips, newest last.
        entries: what was entered, newest last; one told late counts from its telling.
        positions: what is held.
        marks: last price by symbol, in quote; read when a signal is judged.
        kept: how many trades, and how many entries, are looked back on.

    Attributes:
        trades: the last `kept`, oldest first.
        streak: trades in a row, up to the last, that all won or all did not.
        winning: whether the streak is one of wins.
    """

    def __init__(
        self,
        trades: Iterable[ClosedTrade] = (),
        entries: Iterable[Entry] = (),
        positions: Iterable[Position] = (),
        marks: Mapping[str, float] | None = None,
        kept: int = KEPT,
    ) -> None:
        self.kept: int = kept
        self.trades: list[ClosedTrade] = []
        self.streak: int = 0
        self.winning: bool = False
        self.held: list[Held] = []
        self.marks: Mapping[str, float] = {} if marks is None else marks
        self._rules: dict[str, RulePast] = {}
        self._pasts: list[Past] = []
        self._long: dict[str, list[Past]] = {}
        self._short: dict[str, list[Past]] = {}
        self._times: list[int] = []
        self._symbols: list[str] = []
        self._notionals: list[float] = []
        self._symbol_times: dict[str, list[int]] = {}
        self._ratio: float = 1.0
        self._ratio_known: bool = True
        for trade in trades:
            self.close(trade)
        for entry in entries:
            self.enter(entry)
        self.hold(positions)

    # ------------------------------------------------------------------- writing
    def close(self, trade: ClosedTrade) -> ClosedTrade | None:
        """Take in a closed round trip; return the one that is forgotten for it.

        Raises:
            DataError: its return is not finite.
        """
        if not -math.inf < trade.return_net < math.inf:
            raise DataError(
                f"trade {trade.signal_id} of {trade.symbol} has a return of {trade.return_net}; "
                "expected a finite share"
            )
        won = trade.pnl > 0
        self.streak = self.streak + 1 if won is self.winning else 1
        self.winning = won
        self.trades.append(trade)
        past = Past(trade)
        self._pasts.append(past)
        self._side(trade.side).setdefault(trade.symbol, []).append(past)
        of_rule = self._rule(trade.rule_id)
        of_rule.returns.append(trade.return_net)
        of_rule.sum_scaled += round(trade.return_net * SCALE)
        self._ratio_known = False
        return self._forget() if len(self.trades) > self.kept else None

    def enter(self, entry: Entry) -> None:
        """Take in an entry.

        Raises:
            DataError: its notional is negative or not finite.
        """
        if not 0.0 <= entry.notional < math.inf:
            raise DataError(
                f"entry of {entry.symbol} has a notional of {entry.notional}; "
                "expected a finite one, not below 0"
            )
        ts_ns = entry.ts_ns
        if self._times:
            ts_ns = max(ts_ns, self._times[-1])
        symbol = entry.symbol
        self._times.append(ts_ns)
        self._symbols.append(symbol)
        self._notionals.append(entry.notional)
        self._symbol_times.setdefault(symbol, []).append(ts_ns)
        self._ratio_known = False
        if len(self._times) > self.kept:
            del self._times[0]
            del self._notionals[0]
            del self._symbol_times[self._symbols[0]][0]
            del self._symbols[0]

    def hold(self, positions: Iterable[Position]) -> None:
        """Learn what is held now; a position that did not change is not read again."""
        before = self.held
        self.held = []
        for position in positions:
            place = len(self.held)
            if place < len(before) and before[place].source is position:
                self.held.append(before[place])
            else:
                self.held.append(Held(position))

    # ------------------------------------------------------------------- reading
    def losses(self) -> int:
        """Return how many of the last trades, in a row, did not win."""
        return 0 if self.winning else self.streak

    def wins(self) -> int:
        """Return how many of the last trades, in a row, won."""
        return self.streak if self.winning else 0

    def rule(self, rule_id: str) -> RulePast | None:
        """Return a rule's past, None when it has none."""
        return self._rules.get(rule_id)

    def last_closed_ns(self) -> int:
        """Return when the last trade closed; 0 before the first."""
        return self._pasts[-1].closed_ns if self._pasts else 0

    def of(self, symbol: str, side: Side) -> list[Past]:
        """Return the trades of a symbol on one side, oldest first; not to be changed."""
        return self._side(side).get(symbol, [])

    def entries_total(self) -> int:
        """Count the entries that are looked back on."""
        return len(self._times)

    def entries_between(self, after_ns: int, until_ns: int) -> int:
        """Count entries with after < time <= until."""
        times = self._times
        return _not_after(times, until_ns) - _not_after(times, after_ns)

    def symbol_entries_between(self, symbol: str, after_ns: int, until_ns: int) -> int:
        """Count entries of a symbol with after < time <= until."""
        times = self._symbol_times.get(symbol)
        if times is None:
            return 0
        return _not_after(times, until_ns) - _not_after(times, after_ns)

    def rate_ratio(self, now_ns: int) -> float:
        """Return entries of the last day over the daily mean of the week before.

        1 with fewer than four entries in the day, or none in the week.
        """
        times = self._times
        day_ago = _not_after(times, now_ns - DAY_NS)
        week_ago = _not_after(times, now_ns - 8 * DAY_NS)
        today, week = _not_after(times, now_ns) - day_ago, day_ago - week_ago
        if today < LEAST_TODAY or week == 0:
            return 1.0
        days = max((now_ns - DAY_NS - times[week_ago]) / DAY_NS, 1.0)
        return today / (week / days)

    def size_ratio(self) -> float:
        """Return the median size since the streak began over the usual median before it.

        1 with fewer than three entries before it, or since.
        """
        if not self._ratio_known:
            self._ratio = self._find_size_ratio()
            self._ratio_known = True
        return self._ratio

    def _find_size_ratio(self) -> float:
        if not self.streak:
            return 1.0
        since_ns = self._pasts[-self.streak].closed_ns
        first = _not_after(self._times, since_ns - 1)
        if first < LEAST_SIZES or len(self._times) - first < LEAST_SIZES:
            return 1.0
        usual = _median(self._notionals[max(first - USUAL, 0) : first])
        return _median(self._notionals[first:]) / usual if usual > 0.0 else 1.0

    def _rule(self, rule_id: str) -> RulePast:
        past = self._rules.get(rule_id)
        if past is None:
            past = self._rules[rule_id] = RulePast()
        return past

    def _side(self, side: Side) -> dict[str, list[Past]]:
        return self._long if side is Side.BUY else self._short

    def _forget(self) -> ClosedTrade:
        oldest = self.trades[0]
        del self.trades[0]
        del self._pasts[0]
        past = self._rule(oldest.rule_id)
        past.sum_scaled -= round(past.returns[0] * SCALE)
        del past.returns[0]
        del self._side(oldest.side)[oldest.symbol][0]
        self.streak = min(self.streak, len(self.trades))
        return oldest


def _not_after(times: list[int], at_ns: int) -> int:
    """Count the times, ascending, that are not after `at_ns`."""
    low, high = 0, len(times)
    while low < high:
        middle = (low + high) // 2
        if times[middle] <= at_ns:
            low = middle + 1
        else:
            high = middle
    return low


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return 0.5 * (ordered[middle - 1] + ordered[middle])
