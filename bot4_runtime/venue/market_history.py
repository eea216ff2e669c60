"""What a market remembers: its latest trades, and the minutes that candles are made of."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from bot4_runtime.venue.account import ZERO

MINUTE_MS: Final = 60_000
KEPT_TRADES: Final = 1_000
KEPT_MINUTES: Final = 20_000


class MarketTrade(NamedTuple):
    """A trade, whoever made it. Price in quote, quantity in base."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    time_ms: int
    buyer_maker: bool


@dataclass(slots=True)
class Bar:
    """Prices and volumes of an interval; prices in quote, `volume` and `bought` in base.

    Attributes:
        turnover: sum of price x quantity, in quote.
        trades: number of trades, and ids of the first and the last one.
        bought: what takers bought of the volume; `bought_quote` in quote.
    """

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    turnover: Decimal = ZERO
    trades: int = 0
    bought: Decimal = ZERO
    bought_quote: Decimal = ZERO
    first_id: int = -1
    last_id: int = -1

    def join(self, later: "Bar") -> None:
        """Take a later interval in."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.volume += later.volume
        self.turnover += later.turnover
        self.trades += later.trades
        self.bought += later.bought
        self.bought_quote += later.bought_quote
        self.first_id = later.first_id if self.first_id < 0 else self.first_id
        self.last_id = max(self.last_id, later.last_id)


class Bars:
    """Candles of a price, kept by the minute."""

    def __init__(self) -> None:
        self._minutes: deque[Bar] = deque(maxlen=KEPT_MINUTES)

    def price(self, time_ms: int, price: Decimal) -> None:
        """Note a price without a trade."""
        self._add(Bar(time_ms // MINUTE_MS * MINUTE_MS, price, price, price, price))

    def trade(self, trade: MarketTrade) -> None:
        """Note a trade."""
        price, quantity = trade.price, trade.quantity
        bought = ZERO if trade.buyer_maker else quantity
        self._add(
            Bar(
                trade.time_ms // MINUTE_MS * MINUTE_MS,
                price,
                price,
                price,
                price,
                quantity,
                price * quantity,
                1,
                bought,
                price * bought,
                trade.trade_id,
                trade.trade_id,
            )
        )

    def of(self, interval_ms: int) -> Iterator[Bar]:
        """Yield candles of whole minutes, oldest first; the last one may not be over."""
        made: Bar | None = None
        for minute in self._minutes:
            open_ms = minute.open_ms // interval_ms * interval_ms
            if made is not None and made.open_ms == open_ms:
                made.join(minute)
                continue
            if made is not None:
                yield made
            made = Bar(open_ms, minute.open, minute.open, minute.open, minute.open)
            made.join(minute)
        if made is not None:
            yield made

    def _add(self, bar: Bar) -> None:
        if self._minutes and self._minutes[-1].open_ms >= bar.open_ms:
            self._minutes[-1].join(bar)
        else:
            self._minutes.append(bar)


class MarketHistory:
    """A market's latest trades and its candles, of trades and of marks."""

    def __init__(self) -> None:
        self.trades: deque[MarketTrade] = deque(maxlen=KEPT_TRADES)
        self.bars = Bars()
        self.marks = Bars()

    def add(self, trade: MarketTrade) -> None:
        """Note a trade."""
        self.trades.append(trade)
        self.bars.trade(trade)
