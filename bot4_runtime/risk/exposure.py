"""What a book stands to hold if every order that may still fill does: the view risk judges.

Pre-trade numbers are float64. An order's value is taken at the dearest of its own price and
the symbol's mark, so neither a sell limit far below the market nor a stale price hides it.
Open means open or UNKNOWN: an order whose outcome is not known counts in full.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.portfolio import BreakerState, RiskMetrics
from bot4_runtime.risk.correlation import Correlations
from bot4_runtime.risk.limits import RiskOverride

# Literals, which the compiler inlines: the least and the largest normal float64.
_LEAST: Final = 2.2250738585072014e-308
_LARGEST: Final = 1.7976931348623157e308
_NAN: Final = math.nan


class HeldPosition:
    """One symbol a book holds: signed base quantity and its mark, in quote."""

    def __init__(self, symbol: str, quantity: float, mark: float) -> None:
        self.symbol: Final = symbol
        self.quantity: Final = quantity
        self.mark: Final = mark


class OpenOrder:
    """An order that may still fill.

    Attributes:
        sign: +1 for a buy, -1 for a sell.
        quantity: base quantity that may still fill.
        price: its worst price, in quote.
        reduce_only: it cannot open or flip a position; all it can do is to bring it to flat.
    """

    def __init__(
        self, symbol: str, sign: int, quantity: float, price: float, *, reduce_only: bool = False
    ) -> None:
        self.symbol: Final = symbol
        self.sign: Final = sign
        self.quantity: Final = quantity
        self.price: Final = price
        self.reduce_only: Final = reduce_only


class RiskView:
    """One book as the risk manager sees it at the moment an intent is judged.

    It does not change: containers are copied. Correlations alone may learn on; see
    `Correlations.learnt`.

    Attributes:
        equity: cash and positions at their marks, in quote.
        cash_free: quote that no open order has reserved.
        marks: last price by symbol, in quote; of the intent's symbol and of every symbol
            with an open entry order that holds no position.
        positions: what is held, one entry a symbol; marks are of the same moment.
        open_orders: open and UNKNOWN orders of all symbols, stops and exits included.
        correlations: how the symbols' returns move together.
        depth_quote: value on the exit side of the intent's symbol within 10 bps, in quote.
        margin_rate: quote an order ties up per quote of value: 1 on spot, 1 / leverage else.
        overrides: the operator's orders; expired ones have no effect.
        now_ns: UTC.
        drawdown: the worse of the journaled one and this view's own; NaN when unknown.
        laid_buys: the manager's own: what it laid out of this view to judge buys by.
        laid_sells: the same for sells.
    """

    def __init__(
        self,
        *,
        equity: float,
        cash_free: float,
        marks: dict[str, float],
        positions: Sequence[HeldPosition],
        open_orders: Sequence[OpenOrder],
        correlations: Correlations,
        depth_quote: float,
        breaker: BreakerState,
        metrics: RiskMetrics,
        now_ns: int,
        margin_rate: float = 1.0,
        overrides: Sequence[RiskOverride] = (),
    ) -> None:
        self.equity: Final = equity
        self.cash_free: Final = cash_free
        self.marks: Final = marks.copy()
        self.positions: Final = tuple(positions)
        self.open_orders: Final = tuple(open_orders)
        self.correlations: Final = correlations
        self.depth_quote: Final = depth_quote
        self.breaker: Final = breaker
        self.metrics: Final = metrics
        self.now_ns: Final = now_ns
        self.margin_rate: Final = margin_rate
        self.overrides: Final = tuple(overrides)
        self.drawdown: Final = _drawdown(equity, metrics)
        self.laid_buys: object = None
        self.laid_sells: object = None
        self._held_marks: Final[dict[str, float]] = {}
        for position in self.positions:
            # In this order an unknown mark gives way, and a position's that is NaN stays.
            known = marks.get(position.symbol)
            dearest = max(position.mark, _NAN if known is None else known)
            self._held_marks[position.symbol] = dearest

    def held(self, symbol: str) -> float:
        """Return the signed base quantity held of a symbol; 0 when none is."""
        total = 0.0
        for position in self.positions:
            if position.symbol == symbol:
                total += position.quantity
        return total

    def mark(self, symbol: str) -> float:
        """Return the dearest mark known of a symbol, in quote; NaN when none is."""
        known = self._held_marks.get(symbol)
        if known is None:
            known = self.marks.get(symbol)
        return _NAN if known is None else known

    def fault(self) -> str:  # noqa: PLR0911 - one line a number
        """Name the first number that cannot be judged, with its value; empty when none is."""
        metrics = self.metrics
        if not positive(self.equity):
            return f"equity is {self.equity!r}"
        if not abs(self.cash_free) <= _LARGEST:
            return f"free cash is {self.cash_free!r}"
        if not usable(self.depth_quote):
            return f"depth is {self.depth_quote!r}"
        if not (positive(self.margin_rate) and self.margin_rate <= 1.0):
            return f"margin rate is {self.margin_rate!r}"
        if not usable(metrics.leverage):
            return f"leverage is {metrics.leverage!r}"
        for amount in (metrics.equity, metrics.day_start_equity, metrics.exposure):
            if not amount.is_finite():
                return f"one of the book's amounts is {amount}"
        if not self.drawdown >= 0.0:
            return f"drawdown is {metrics.drawdown!r} of a peak of {metrics.peak_equity}"
        return self._market_fault()

    def _market_fault(self) -> str:
        for symbol, mark in self.marks.items():
            if not positive(mark):
                return f"mark of {symbol} is {mark!r}"
        for position in self.positions:
            if not (usable(position.quantity) and positive(position.mark)):
                return f"position {position.symbol} is {position.quantity!r} at {position.mark!r}"
        if len(self._held_marks) != len(self.positions):
            return "a symbol is held twice, and its two positions would hide each other"
        for order in self.open_orders:
            sane = order.sign in (1, -1) and order.quantity >= 0.0
            if not (sane and usable(order.quantity) and positive(order.price)):
                return (
                    f"open order {order.symbol} is {order.sign} x {order.quantity!r} "
                    f"at {order.price!r}"
                )
            if not positive(self.mark(order.symbol)):
                return f"open order {order.symbol} has no mark"
        return ""


class WorstCase:
    """A symbol's value in quote if all its buys fill, and if all its sells do.

    What is held on the other side is no credit: an exit may be approved at any time and fill
    first. 10 bought against a short of 3 count as 10, not as 7.

    Attributes:
        long: value when every buy fills, after whatever is short was closed.
        short: the same downwards, counted positive.
        mark: the symbol's dearest mark, in quote.
    """

    def __init__(self, mark: float) -> None:
        self.mark: Final = mark
        self.long = 0.0
        self.short = 0.0

    def hold(self, value: float) -> None:
        """Count a position of this signed value, in quote."""
        if value > 0.0:
            self.long += value
        else:
            self.short -= value

    def add(self, order: OpenOrder, value: float) -> None:
        """Count an open order of this value, in quote; one that only reduces adds nothing."""
        if order.reduce_only:
            return
        if order.sign > 0:
            self.long += value
        else:
            self.short += value

    def most(self) -> float:
        """Return the larger of the two."""
        return max(self.long, self.short)


def worst_cases(view: RiskView, symbol: str) -> dict[str, WorstCase]:
    """Return every symbol's worst case, that of `symbol` always among them."""
    cases: dict[str, WorstCase] = {symbol: WorstCase(view.mark(symbol))}
    for position in view.positions:
        case = _case(cases, position.symbol, view)
        case.hold(position.quantity * case.mark)
    for order in view.open_orders:
        case = _case(cases, order.symbol, view)
        case.add(order, order.quantity * max(order.price, case.mark))
    return cases


def _case(cases: dict[str, WorstCase], symbol: str, view: RiskView) -> WorstCase:
    case = cases.get(symbol)
    if case is None:
        case = WorstCase(view.mark(symbol))
        cases[symbol] = case
    return case


def _drawdown(equity: float, metrics: RiskMetrics) -> float:
    recorded = metrics.drawdown
    peak = number(metrics.peak_equity)
    if not (usable(recorded) and recorded >= 0.0 and positive(peak)):
        return _NAN
    return max(recorded, 1.0 - equity / peak)


def number(amount: Decimal | None) -> float:
    """Return an amount as float64; NaN for what is missing or no number."""
    if amount is None:
        return _NAN
    try:
        return float(amount)
    except ValueError:  # a signalling NaN
        return _NAN


def usable(number: float) -> bool:
    """Whether a number is zero or finite and normal; NaN, infinity, subnormal are not."""
    return number == 0.0 or _LEAST <= abs(number) <= _LARGEST


def positive(number: float) -> bool:
    """Whether a number is positive, finite and normal."""
    return _LEAST <= number <= _LARGEST
