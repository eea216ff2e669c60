"""One entry held against every limit: everything about it but its size is worked out once.

What is open is taken as filled at its worst. Conditions are written so that NaN fails.
"""

import math
from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

from bot4_runtime.domain.order import OrderIntent, OrderType, Side
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.risk import verdict
from bot4_runtime.risk.exposure import RiskView, WorstCase, positive, worst_cases
from bot4_runtime.risk.limits import RiskLimits

_SLACK: Final = 1.0 - 1e-12
"""Offered sizes stay this far inside a limit, which is far beyond rounding."""

_ROUND_DOWN: Final = Context(prec=12, rounding=ROUND_DOWN)
_NONE: Final = Decimal(0)


class Prices:
    """An intent's prices as float64, in quote; NaN where one is unusable.

    Attributes:
        worst: the dearest of the order's prices and the mark: what its exposure counts at.
        nearest: the entry price nearest to the stop, which the stop must lie beyond. A
            stop-market entry fills at its trigger; other orders may fill at the market.
        stop: the protective stop.
    """

    def __init__(self, intent: OrderIntent, mark: float) -> None:
        reference = number(intent.reference_price)
        own = reference
        usable = positive(reference) and positive(mark)
        dearest = max(reference, mark)
        for given in (intent.stop_price, intent.price):
            if given is not None:
                own = number(given)
                usable = usable and positive(own)
                dearest = max(dearest, own)
        self.worst: Final = dearest if usable else math.nan
        if intent.order_type is OrderType.STOP_MARKET:
            self.nearest = own
        elif intent.side is Side.BUY:
            self.nearest = min(own, reference, mark)
        else:
            self.nearest = max(own, reference, mark)
        self.stop: Final = number(intent.stop_loss)


class Entry:
    """An intent that opens or adds to a position, the view it is judged in, and the limits.

    The intent's prices and the view must have been found usable before.

    Attributes:
        price: what one unit of base is worth at worst, in quote.
        same: value on the intent's side of its symbol before it, in quote; may be negative.
        opposite: value on the other side, in quote.
        elsewhere: worst case of all other symbols, in quote.
        correlation: largest correlation of position returns, side included; -1 when alone.
        unknown: symbols with exposure whose correlation is not known.
        drawdown: of the book.
        position_pct: position limit in force, probing included.
    """

    def __init__(
        self, intent: OrderIntent, prices: Prices, view: RiskView, limits: RiskLimits
    ) -> None:
        self._intent: Final = intent
        self._view: Final = view
        self._limits: Final = limits
        self._prices: Final = prices
        self.price: Final = prices.worst
        buys = intent.side is Side.BUY
        cases = worst_cases(view, intent.symbol)
        own = cases[intent.symbol]
        self.same: Final = own.long if buys else own.short
        self.opposite: Final = own.short if buys else own.long
        self.elsewhere = 0.0
        self.correlation = -1.0
        self.unknown = 0
        for symbol, case in cases.items():
            if symbol != intent.symbol:
                self.elsewhere += case.most()
                self._correlate(symbol, case, 1.0 if buys else -1.0)
        self.drawdown: Final = view.drawdown
        probing = view.breaker.phase is BreakerPhase.HALF_OPEN
        self.position_pct: Final = limits.max_position_pct * (
            limits.probing_factor if probing else 1.0
        )

    def _correlate(self, other: str, case: WorstCase, sign: float) -> None:
        if not case.most() > 0.0:
            return
        found = self._view.correlations.correlation(self._intent.symbol, other)
        if found is None or not -1.0 <= found <= 1.0:
            self.unknown += 1
            return
        if case.long > 0.0:
            self.correlation = max(self.correlation, sign * found)
        if case.short > 0.0:
            self.correlation = max(self.correlation, -sign * found)

    def broken(self, quantity: float) -> str:  # noqa: C901, PLR0911 - one line a limit
        """Return the code of the first limit this base quantity breaks; empty when none."""
        view, limits = self._view, self._limits
        value = quantity * self.price
        margin = value * view.margin_rate
        if not (positive(value) and positive(margin)):
            return verdict.NOT_FINITE
        position = self._position(value)
        if not position / view.equity <= self.position_pct:
            return verdict.POSITION_SIZE
        if not (self.correlation < limits.max_correlation or limits.max_correlation >= 1.0):
            return verdict.CORRELATION
        if self.unknown > 0:
            return verdict.CORRELATION_UNKNOWN
        if self._intent.stop_loss is None:
            return verdict.STOP_LOSS_MISSING
        if not self._stop_protects():
            return verdict.STOP_LOSS_SIDE
        if not (position + self.elsewhere) / view.equity <= limits.max_leverage:
            return verdict.LEVERAGE
        if not self.drawdown <= limits.max_drawdown:
            return verdict.DRAWDOWN
        if not value * limits.min_liquidity_ratio <= view.depth_quote:
            return verdict.LIQUIDITY
        if not margin * limits.min_margin_ratio <= view.cash_free:
            return verdict.MARGIN
        return ""

    def score(self, quantity: float) -> float:
        """Return the largest share of a limit that a passing quantity uses, in [0, 1]."""
        view, limits = self._view, self._limits
        value = quantity * self.price
        position = self._position(value)
        used = position / view.equity / self.position_pct
        used = max(used, (position + self.elsewhere) / view.equity / limits.max_leverage)
        used = max(used, self.drawdown / limits.max_drawdown)
        used = max(used, value * limits.min_liquidity_ratio / view.depth_quote)
        used = max(used, value * view.margin_rate * limits.min_margin_ratio / view.cash_free)
        if self.correlation > 0.0:
            used = max(used, self.correlation / limits.max_correlation)
        return min(used, 1.0)

    def passing(self, quantity: float) -> Decimal:
        """Return the largest base quantity up to `quantity` that passes; 0 when none does."""
        view, limits = self._view, self._limits
        value = min(
            self.position_pct * view.equity * _SLACK - self.same,
            limits.max_leverage * view.equity * _SLACK - self.elsewhere - self.same,
            view.depth_quote / limits.min_liquidity_ratio * _SLACK,
            view.cash_free / limits.min_margin_ratio / view.margin_rate * _SLACK,
            quantity * self.price,
        )
        size = self._base(value)
        return size if size > _NONE and not self.broken(float(size)) else _NONE

    def position_room(self) -> Decimal:
        """Return the base quantity the position limit alone leaves; 0 when it leaves none."""
        return self._base(self.position_pct * self._view.equity * _SLACK - self.same)

    def numbers(self, code: str, quantity: float) -> tuple[float, float]:
        """Return the limit that `code` names and what this base quantity makes of it."""
        view, limits = self._view, self._limits
        value = quantity * self.price
        position = self._position(value)
        found: dict[str, tuple[float, float]] = {
            verdict.POSITION_SIZE: (self.position_pct, position / view.equity),
            verdict.CORRELATION: (limits.max_correlation, self.correlation),
            verdict.CORRELATION_UNKNOWN: (0.0, float(self.unknown)),
            verdict.STOP_LOSS_MISSING: (1.0, 0.0),
            verdict.STOP_LOSS_SIDE: (self._prices.nearest, self._prices.stop),
            verdict.LEVERAGE: (limits.max_leverage, (position + self.elsewhere) / view.equity),
            verdict.DRAWDOWN: (limits.max_drawdown, self.drawdown),
            verdict.LIQUIDITY: (limits.min_liquidity_ratio, view.depth_quote / value),
            verdict.MARGIN: (limits.min_margin_ratio, view.cash_free / value / view.margin_rate),
        }
        return found[code]

    def _position(self, value: float) -> float:
        return max(self.same + value, self.opposite)

    def _base(self, value: float) -> Decimal:
        size = value / self.price
        return _ROUND_DOWN.create_decimal_from_float(size) if positive(size) else _NONE

    def _stop_protects(self) -> bool:
        prices = self._prices
        if not positive(prices.stop):
            return False
        if self._intent.side is Side.BUY:
            return prices.stop < prices.nearest
        return prices.stop > prices.nearest


def number(amount: Decimal | None) -> float:
    """Return an amount as float64; NaN for what is missing or no number."""
    if amount is None:
        return math.nan
    try:
        return float(amount)
    except ValueError:  # a signalling NaN
        return math.nan
