"""One symbol's trades, each once and in order of their contiguous numbers, and their candles.

Two lines read at once, repeats after a reconnect and late messages are put right here; a number
that never came is told as missing, and what follows it waits until it is filled in or given up.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.candle import Candle, interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.exchange.binance.market_messages import Trade

WAITING_MOST: Final = 100_000
"""Trades that may wait for a missing one; more halt the tape."""


class TradeTape:
    """Puts trades in order.

    Attributes:
        last_id: of the last trade handed out; None before the first.
        repeated: trades that came once more.
        given_up: numbers that were never seen.
    """

    def __init__(self, last_id: int | None = None) -> None:
        self.last_id = last_id
        self.repeated = 0
        self.given_up = 0
        self._waiting: dict[int, Trade] = {}

    @property
    def missing(self) -> tuple[int, int] | None:
        """The first run of numbers that is missing, both ends included; None when none is."""
        if not self._waiting or self.last_id is None:
            return None
        return self.last_id + 1, min(self._waiting) - 1

    def take(self, trade: Trade) -> list[Trade]:
        """Take in a trade and return those that are next, in order.

        Raises:
            DataError: more wait for a missing one than may.
        """
        number, last = trade.trade_id, self.last_id
        if last is None or number == last + 1:
            self.last_id = number
            return [trade, *self._released()] if self._waiting else [trade]
        if number <= last or number in self._waiting:
            self.repeated += 1
            return []
        if len(self._waiting) >= WAITING_MOST:
            raise DataError(
                f"{len(self._waiting)} trades of {trade.symbol} wait for number {last + 1}; ask "
                "for it over REST, or give it up"
            )
        self._waiting[number] = trade
        return []

    def give_up(self) -> list[Trade]:
        """Go on without what is missing; return what waited for it."""
        gap = self.missing
        if gap is None:
            return []
        self.given_up += gap[1] - gap[0] + 1
        self.last_id = gap[1]
        return list(self._released())

    def _released(self) -> Iterator[Trade]:
        while self.last_id is not None:
            following = self._waiting.pop(self.last_id + 1, None)
            if following is None:
                return
            self.last_id = following.trade_id
            yield following


class TradeCandles:
    """Candles made of trades in order; exact, volumes are summed as Decimal.

    Args:
        interval: of the candles.

    A candle is handed out when the first trade of a later one comes. Those in which nothing was
    traded are not made, as REST's flat ones say nothing either. The first one is whole only when
    the tape began with it.
    """

    def __init__(self, interval: str) -> None:
        self._interval = interval
        self._step_ms = interval_ms(interval)
        self._open_ms = -1
        self._prices = (Decimal(0), Decimal(0), Decimal(0), Decimal(0))
        self._volume = Decimal(0)

    def add(self, trade: Trade) -> Candle | None:
        """Take in a trade; return the candle that it ended, if it did."""
        if trade.kind != "MARKET":
            return None
        time_ms, price = trade.ts_event_ns // NS_PER_MS, trade.price
        open_ms = time_ms - time_ms % self._step_ms
        if open_ms <= self._open_ms:
            first, high, low, _ = self._prices
            self._prices = (first, max(high, price), min(low, price), price)
            self._volume += trade.quantity
            return None
        ended = self._candle(trade.symbol) if self._open_ms >= 0 else None
        self._open_ms, self._volume = open_ms, trade.quantity
        self._prices = (price, price, price, price)
        return ended

    def _candle(self, symbol: str) -> Candle:
        first, high, low, last = map(float, self._prices)
        return Candle(
            symbol=symbol, interval=self._interval, open_time_ms=self._open_ms, open=first,
            high=high, low=low, close=last, volume=float(self._volume),
        )  # fmt: skip
