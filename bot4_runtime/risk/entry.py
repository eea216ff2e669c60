"""A whole entry before its `EntryCheck`: its terms as float64, the size that would pass."""

import math
from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

import msgspec

from bot4_runtime.domain.order import OrderIntent, OrderType, Side
from bot4_runtime.risk import entry_check as code
from bot4_runtime.risk.entry_check import EntryCheck
from bot4_runtime.risk.exposure import number, positive

_SLACK: Final = 1.0 - 1e-12
"""Offered sizes stay this far inside a limit, which is far beyond rounding."""

_SMALLEST: Final = 1e-18
"""Base quantities below this are finer than any venue's step: they are no offer."""

_ROUND_DOWN: Final = Context(prec=12, rounding=ROUND_DOWN)
_NONE: Final = Decimal(0)
_keep: Final = msgspec.structs.force_setattr
_BUY: Final = Side.BUY
_STOP_MARKET: Final = OrderType.STOP_MARKET


class OrderTerms:
    """What an intent says that a limit can be held against; amounts as float64.

    Attributes:
        quantity: in base; NaN when it is no number.
        dearest: the dearest of the order's own prices, in quote; NaN when one is unusable.
        nearest: the entry price nearest to the stop before the mark is known, in quote.
        at_market: whether it may fill at the market; a stop-market entry fills at its trigger.
        stop: the protective stop, in quote; NaN when there is none.
    """

    def __init__(self, intent: OrderIntent) -> None:
        self.symbol: Final = intent.symbol
        self.buys: Final = intent.side is _BUY
        self.reduce_only: Final = intent.reduce_only
        self.quantity: Final = number(intent.quantity)
        reference = number(intent.reference_price)
        own = reference
        usable = positive(reference)
        dearest = reference
        for given in (intent.stop_price, intent.price):
            if given is not None:
                own = number(given)
                usable = usable and positive(own)
                dearest = max(dearest, own)
        self.dearest: Final = dearest if usable else math.nan
        self.at_market: Final = intent.order_type is not _STOP_MARKET
        if self.at_market:
            own = min(own, reference) if self.buys else max(own, reference)
        self.nearest: Final = own
        self.stop: Final = number(intent.stop_loss)

    def worst(self, mark: float) -> float:
        """Return what one unit of base counts at: the dearest of its prices and the mark.

        NaN when a price of the order is unusable.
        """
        return max(self.dearest, mark)

    def first(self, mark: float) -> float:
        """Return the entry price nearest to the stop, which the stop must lie beyond."""
        if not self.at_market:
            return self.nearest
        return min(self.nearest, mark) if self.buys else max(self.nearest, mark)


def terms_of(intent: OrderIntent) -> OrderTerms:
    """Return the terms of an intent, which are read once and kept with it."""
    kept = intent.judged
    if isinstance(kept, OrderTerms):
        return kept
    terms = OrderTerms(intent)
    _keep(intent, "judged", terms)
    return terms


class Entry:
    """Terms of an intent that opens or adds to a position, and what they are held against."""

    def __init__(self, terms: OrderTerms, check: EntryCheck) -> None:
        self._terms: Final = terms
        self._check: Final = check
        self._worst: Final = terms.worst(check.mark)

    def passing(self) -> Decimal:
        """Return the largest base quantity up to the entry's own that passes; 0 when none does."""
        terms, check = self._terms, self._check
        value = min(
            check.position_pct * check.equity * _SLACK - check.same,
            check.max_leverage * check.equity * _SLACK - check.elsewhere - check.same,
            check.depth_quote / check.min_liquidity_ratio * _SLACK,
            check.cash_free / check.min_margin_ratio / check.margin_rate * _SLACK,
            terms.quantity * self._worst,
        )
        size = self._base(value)
        if not size > _NONE:
            return _NONE
        broken = check.code(float(size), self._worst, terms.first(check.mark), terms.stop)
        return size if broken == 0 else _NONE

    def position_room(self) -> Decimal:
        """Return the base quantity the position limit alone leaves; 0 when it leaves none."""
        check = self._check
        return self._base(check.position_pct * check.equity * _SLACK - check.same)

    def numbers(self, broken: int) -> tuple[float, float]:  # noqa: PLR0911 - one line a limit
        """Return the limit that a code names and what the entry's quantity makes of it."""
        check = self._check
        value = self._terms.quantity * self._worst
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
            return self._terms.first(check.mark), self._terms.stop
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
        size = value / self._worst
        sane = _SMALLEST <= size < math.inf
        return _ROUND_DOWN.create_decimal_from_float(size) if sane else _NONE
