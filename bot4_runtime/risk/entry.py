"""A whole entry before its `EntryCheck`: its prices, its score, the size that would pass."""

import math
from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

from bot4_runtime.domain.order import OrderIntent, OrderType, Side
from bot4_runtime.risk import entry_check as code
from bot4_runtime.risk.entry_check import EntryCheck
from bot4_runtime.risk.exposure import positive

_SLACK: Final = 1.0 - 1e-12
"""Offered sizes stay this far inside a limit, which is far beyond rounding."""

_SMALLEST: Final = 1e-18
"""Base quantities below this are finer than any venue's step: they are no offer."""

_ROUND_DOWN: Final = Context(prec=12, rounding=ROUND_DOWN)
_NONE: Final = Decimal(0)


class Prices:
    """An intent's prices as float64, in quote; NaN where one is unusable.

    Attributes:
        worst: the dearest of the order's prices and the mark: what its exposure counts at.
        nearest: the entry price nearest to the stop, which the stop must lie beyond. A
            stop-market entry fills at its trigger; other orders may fill at the market.
        stop: the protective stop; NaN when there is none.
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
    """Prices of an intent that opens or adds to a position, and what they are held against."""

    def __init__(self, prices: Prices, check: EntryCheck) -> None:
        self._prices: Final = prices
        self._check: Final = check

    def broken(self, quantity: float) -> int:
        """Return `EntryCheck.code` of this base quantity."""
        prices = self._prices
        return self._check.code(quantity, prices.worst, prices.nearest, prices.stop)

    def score(self, quantity: float) -> float:
        """Return the largest share of a limit that a passing quantity uses, in [0, 1]."""
        check = self._check
        value = quantity * self._prices.worst
        position = check.position(value)
        used = position / check.equity / check.position_pct
        used = max(used, (position + check.elsewhere) / check.equity / check.max_leverage)
        used = max(used, check.drawdown / check.max_drawdown)
        used = max(used, value * check.min_liquidity_ratio / check.depth_quote)
        margin = value * check.margin_rate
        used = max(used, margin * check.min_margin_ratio / check.cash_free)
        if check.correlation > 0.0:
            used = max(used, check.correlation / check.max_correlation)
        return min(used, 1.0)

    def passing(self, quantity: float) -> Decimal:
        """Return the largest base quantity up to `quantity` that passes; 0 when none does."""
        check = self._check
        value = min(
            check.position_pct * check.equity * _SLACK - check.same,
            check.max_leverage * check.equity * _SLACK - check.elsewhere - check.same,
            check.depth_quote / check.min_liquidity_ratio * _SLACK,
            check.cash_free / check.min_margin_ratio / check.margin_rate * _SLACK,
            quantity * self._prices.worst,
        )
        size = self._base(value)
        return size if size > _NONE and self.broken(float(size)) == 0 else _NONE

    def position_room(self) -> Decimal:
        """Return the base quantity the position limit alone leaves; 0 when it leaves none."""
        check = self._check
        return self._base(check.position_pct * check.equity * _SLACK - check.same)

    def numbers(  # noqa: PLR0911 - one line a limit
        self, broken: int, quantity: float
    ) -> tuple[float, float]:
        """Return the limit that a code names and what this base quantity makes of it."""
        check = self._check
        value = quantity * self._prices.worst
        position = check.position(value)
        if broken == code.POSITION_SIZE:
            return check.position_pct, position / check.equity
        if broken == code.CORRELATION:
            return check.max_correlation, check.correlation
        if broken == code.CORRELATION_UNKNOWN:
            return 0.0, float(check.unknown)
        if broken == code.STOP_LOSS_MISSING:
            return 1.0, 0.0
        if broken == code.STOP_LOSS_SIDE:
            return self._prices.nearest, self._prices.stop
        if broken == code.LEVERAGE:
            return check.max_leverage, (position + check.elsewhere) / check.equity
        if broken == code.DRAWDOWN:
            return check.max_drawdown, check.drawdown
        if broken == code.LIQUIDITY:
            return check.min_liquidity_ratio, check.depth_quote / value
        if broken == code.MARGIN:
            return check.min_margin_ratio, check.cash_free / value / check.margin_rate
        return 0.0, 1.0

    def _base(self, value: float) -> Decimal:
        size = value / self._prices.worst
        sane = _SMALLEST <= size < math.inf
        return _ROUND_DOWN.create_decimal_from_float(size) if sane else _NONE


def number(amount: Decimal | None) -> float:
    """Return an amount as float64; NaN for what is missing or no number."""
    if amount is None:
        return math.nan
    try:
        return float(amount)
    except ValueError:  # a signalling NaN
        return math.nan
