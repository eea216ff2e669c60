"""The tier of a run: the journal, folded into a calculator [compiled].

What moves a calculator here are journaled candles and fills alone, in their order. So a run that
is killed and shown its journal again has the tier it had, and pays and decides as if nothing had
happened. The volume is that of the validated book. What is not known is not counted, so that the
tier is never better than the account's: the BNB held is the settings', and USD-M volume is turned
into BTC, in which the thresholds are stated, at the last close of BTC before the fill.
"""

from decimal import Decimal
from typing import Final

from bot4_runtime.domain.events import CandleClosed, JournaledEvent, OrderFilled
from bot4_runtime.domain.order import Book, Fill
from bot4_runtime.fees.calculator import FeeCalculator

NS_PER_MS: Final = 1_000_000
_VALIDATED: Final = Book.VALIDATED


class TierFold:
    """Moves a calculator on, candle by candle.

    Args:
        fees: what is moved.
        quote: asset the account trades in, such as USDT.
        bnb_held: by which spot tiers are judged, beside the volume.
    """

    def __init__(self, fees: FeeCalculator, quote: str, bnb_held: Decimal) -> None:
        self._fees: Final = fees
        self._quote: Final = quote
        self._bnb_held: Final = bnb_held
        self._btc_symbol: Final = "BTC" + quote
        self._btc_price: Decimal | None = None

    def apply(self, event: JournaledEvent) -> None:
        """Take a journaled event in; all but candles and fills are passed over."""
        if isinstance(event, CandleClosed):
            if event.candle.symbol == self._btc_symbol:
                self._btc_price = Decimal(repr(event.candle.close))
            self._fees.advance(event.ts_event_ns // NS_PER_MS, self._bnb_held)
        elif isinstance(event, OrderFilled) and event.fill.book is _VALIDATED:
            volume = self._volume(event.fill)
            if volume is not None:
                self._fees.record_volume(event.fill.ts_event_ns // NS_PER_MS, volume)

    def _volume(self, fill: Fill) -> Decimal | None:
        """Return a fill's volume in the unit of the thresholds; None when it cannot be told."""
        unit, notional = self._fees.volume_unit, fill.price * fill.quantity
        if unit == "BTC":
            if fill.symbol == self._btc_symbol:
                return fill.quantity
            return None if self._btc_price is None else notional / self._btc_price
        return notional if unit in self._quote else None
