"""The one rule of entries: what an order that opens or adds in a symbol is held against.

An `EntryCheck` is worked out once from a view and then judges any number of entries on its
side of its symbol. It has three doors and one rule behind them, `code`:

- `RiskManager.validate` comes in with a whole intent and makes a verdict with words;
- `check` takes an entry as four numbers and returns a number: 0, or the place of the refusal
  in `verdict.CODES`, from 1;
- `check_many` does the same for columns of entries.

A number is not an approval: the exchange gate takes only what `validate` made. `check` and
`check_many` refuse (STALE) once the book has changed since, or time has run out.

What is open is taken as filled at its worst. Conditions are written so that NaN fails.
"""

from collections.abc import Sequence
from typing import Final

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.risk.exposure import RiskView, WorstCase, positive, worst_cases
from bot4_runtime.risk.limits import RiskLimits, RiskOverride, halting, tightened

# Places in `verdict.CODES`, from 1; literals, which the compiler inlines.
STALE: Final = 1
NOT_FINITE: Final = 2
HALTED: Final = 4
BREAKER_OPEN: Final = 5
POSITION_SIZE: Final = 6
CORRELATION: Final = 7
CORRELATION_UNKNOWN: Final = 8
STOP_LOSS_MISSING: Final = 9
STOP_LOSS_SIDE: Final = 10
LEVERAGE: Final = 11
DRAWDOWN: Final = 12
LIQUIDITY: Final = 13
MARGIN: Final = 14

_LEAST: Final = 2.2250738585072014e-308
_LARGEST: Final = 1.7976931348623157e308
"""The least and the largest normal float64: `positive`, without a call."""

# To look an enum's member up takes longer than to compare it.
_BUY: Final = Side.BUY
_HALF_OPEN: Final = BreakerPhase.HALF_OPEN
_OPEN: Final = BreakerPhase.OPEN


class Revision:
    """Counts the changes of a book, so that what was worked out before them is not used after.

    Its owner advances it with every change: positions, orders, marks, correlations, breaker,
    overrides.
    """

    def __init__(self) -> None:
        self.number = 0

    def advance(self) -> None:
        """Say that something changed."""
        self.number += 1


class EntryCheck:
    """One side of one symbol in a book at a moment, and the limits in force.

    Args:
        symbol: of the entries to judge.
        side: likewise.
        view: the book; `depth_quote` is that of the symbol.
        limits: as configured; the view's overrides tighten them.
        revision: of the book, as it stands in `view`.
        max_age_ns: how long after the view's time it may be used; an override that ends
            earlier ends it.

    Attributes:
        fault: what in the view cannot be judged, in words; empty when all can.
        judgeable: whether there is no fault and a usable mark.
        mark: the symbol's dearest mark, in quote.
        same: value on this side of the symbol before the entry, in quote.
        opposite: value on the other side, in quote.
        elsewhere: worst case of all other symbols, in quote.
        correlation: largest correlation of position returns, side included; -1 when alone.
        unknown: symbols with exposure whose correlation is not known.
        position_pct: position limit in force, probing included; `max_position` in quote.
        max_exposure: what all symbols may come to, in quote.
        stopped: HALTED, BREAKER_OPEN, or 0.
    """

    def __init__(
        self,
        symbol: str,
        side: Side,
        view: RiskView,
        limits: RiskLimits,
        revision: Revision,
        max_age_ns: int = 0,
    ) -> None:
        self._symbol: Final = symbol
        self._configured: Final = limits
        self._learnt: Final = view.correlations.learnt  # before any of them is asked
        if view.overrides:
            limits = tightened(limits, view.overrides, view.now_ns)
        self._revision: Final = revision
        self._number: Final = revision.number
        self._from_ns: Final = view.now_ns
        self._until_ns: Final = _until(view.overrides, view.now_ns, max_age_ns)
        self.buys: Final = side is _BUY
        self.mark: Final = view.mark(symbol)
        self.fault: Final = view.fault()
        self.judgeable: Final = not self.fault and positive(self.mark)
        self.equity: Final = view.equity
        self.cash_free: Final = view.cash_free
        self.depth_quote: Final = view.depth_quote
        self.margin_rate: Final = view.margin_rate
        self.drawdown: Final = view.drawdown
        self.max_correlation: Final = limits.max_correlation
        self.max_leverage: Final = limits.max_leverage
        self.max_drawdown: Final = limits.max_drawdown
        self.min_liquidity_ratio: Final = limits.min_liquidity_ratio
        self.min_margin_ratio: Final = limits.min_margin_ratio
        probing = view.breaker.phase is _HALF_OPEN
        self.position_pct: Final = limits.max_position_pct * (
            limits.probing_factor if probing else 1.0
        )
        self.max_position: Final = min(self.position_pct * view.equity, _LARGEST)
        self.max_exposure: Final = min(limits.max_leverage * view.equity, _LARGEST)
        self.stopped: Final = _stopped(view)
        self.same = 0.0
        self.opposite = 0.0
        self.elsewhere = 0.0
        self.correlation = -1.0
        self.unknown = 0
        self._together = 0
        self._used = 0.0
        if self.judgeable:
            self._expose(symbol, view)

    def laid_for(self, symbol: str, limits: RiskLimits, learnt: int) -> bool:
        """Whether one laid out of the same view, for the same side, now would be its equal.

        Args:
            symbol: of the entries to judge.
            limits: as configured.
            learnt: of the view's correlations.
        """
        return self._configured is limits and self._learnt == learnt and self._symbol == symbol

    def check(self, quantity: float, price: float, stop: float, now_ns: int) -> int:
        """Judge a market order, or a limit order decided at its own price.

        Args:
            quantity: in base.
            price: limit price, or the price it was decided at, in quote.
            stop: the protective stop it will carry, in quote; NaN for none.
            now_ns: UTC.

        Returns:
            0 when it passes; else the place of the refusal in `verdict.CODES`, from 1.
        """
        if self._revision.number != self._number or not self._from_ns <= now_ns < self._until_ns:
            return STALE
        return self._judge(quantity, price, stop)

    def check_many(
        self, quantities: list[float], prices: list[float], stops: list[float], now_ns: int
    ) -> list[int]:
        """Judge columns of entries, each on its own, not one after the other.

        Returns:
            What `check` returns for each row.

        Raises:
            DataError: the columns are not of one length.
        """
        count = len(quantities)
        if not (len(prices) == count and len(stops) == count):
            raise DataError(
                f"columns of {count} quantities, {len(prices)} prices and {len(stops)} stops; "
                "expected one of each an entry"
            )
        if self._revision.number != self._number or not self._from_ns <= now_ns < self._until_ns:
            return [STALE] * count
        return [self._judge(quantities[at], prices[at], stops[at]) for at in range(count)]

    def _judge(self, quantity: float, price: float, stop: float) -> int:
        mark = self.mark
        if not _LEAST <= price <= _LARGEST:
            return NOT_FINITE
        dearest = max(mark, price)
        return self.code(quantity, dearest, min(mark, price) if self.buys else dearest, stop)

    def code(  # noqa: C901, PLR0911 - one line a limit
        self, quantity: float, worst: float, nearest: float, stop: float
    ) -> int:
        """Return the place in `verdict.CODES`, from 1, of the first limit broken; 0 when none.

        Args:
            quantity: in base.
            worst: what one unit of base counts at, in quote.
            nearest: the entry price nearest to the stop, in quote.
            stop: the protective stop, in quote; NaN when there is none.
        """
        value = quantity * worst
        margin = value * self.margin_rate
        if not (
            self.judgeable
            and _LEAST <= quantity <= _LARGEST
            and _LEAST <= worst <= _LARGEST
            and _LEAST <= value <= _LARGEST
            and _LEAST <= margin <= _LARGEST
        ):
            return NOT_FINITE
        if self.stopped != 0:
            return self.stopped
        position = self.position(value)
        if not position <= self.max_position:
            return POSITION_SIZE
        if self._together != 0:
            return self._together
        if stop != stop:  # noqa: PLR0124 - NaN
            return STOP_LOSS_MISSING
        if not _LEAST <= stop <= _LARGEST or not (stop < nearest if self.buys else stop > nearest):
            return STOP_LOSS_SIDE
        if not position + self.elsewhere <= self.max_exposure:
            return LEVERAGE
        if not self.drawdown <= self.max_drawdown:
            return DRAWDOWN
        if not value * self.min_liquidity_ratio <= self.depth_quote:
            return LIQUIDITY
        if not margin * self.min_margin_ratio <= self.cash_free:
            return MARGIN
        return 0

    def score(self, value: float) -> float:
        """Return the largest share of a limit that an entry that passes uses, in [0, 1].

        Args:
            value: of the entry at its worst, in quote.
        """
        position = self.position(value)
        used = position / self.equity / self.position_pct
        used = max(used, (position + self.elsewhere) / self.equity / self.max_leverage)
        used = max(used, self._used)
        used = max(used, value * self.min_liquidity_ratio / self.depth_quote)
        used = max(used, value * self.margin_rate * self.min_margin_ratio / self.cash_free)
        return min(used, 1.0)

    def position(self, value: float) -> float:
        """Return the symbol's worst case with an entry of this value, in quote."""
        return max(self.same + value, self.opposite)

    def _expose(self, symbol: str, view: RiskView) -> None:
        cases = worst_cases(view, symbol)
        own = cases[symbol]
        self.same = own.long if self.buys else own.short
        self.opposite = own.short if self.buys else own.long
        for other, case in cases.items():
            if other != symbol:
                self.elsewhere += case.most()
                self._correlate(symbol, other, case, view)
        if not (self.correlation < self.max_correlation or self.max_correlation >= 1.0):
            self._together = CORRELATION
        elif self.unknown != 0:
            self._together = CORRELATION_UNKNOWN
        elif self.correlation > 0.0:
            self._used = self.correlation / self.max_correlation
        self._used = max(self._used, self.drawdown / self.max_drawdown)

    def _correlate(self, symbol: str, other: str, case: WorstCase, view: RiskView) -> None:
        if not case.most() > 0.0:
            return
        found = view.correlations.correlation(symbol, other)
        if found is None or not -1.0 <= found <= 1.0:
            self.unknown += 1
            return
        together = found if self.buys else -found
        if case.long > 0.0:
            self.correlation = max(self.correlation, together)
        if case.short > 0.0:
            self.correlation = max(self.correlation, -together)


def _until(overrides: Sequence[RiskOverride], now_ns: int, max_age_ns: int) -> int:
    until_ns = now_ns + max_age_ns
    for override in overrides:
        if now_ns < override.expires_ts_ns:
            until_ns = min(until_ns, override.expires_ts_ns)
    return until_ns


def _stopped(view: RiskView) -> int:
    if view.breaker.halted or halting(view.overrides, view.now_ns):
        return HALTED
    return BREAKER_OPEN if view.breaker.phase is _OPEN else 0
