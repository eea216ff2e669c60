"""USD-M market data over REST: time, rules, book, trades, candles, marks and fundings."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Side
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_ledger import FuturesMarket
from bot4_runtime.venue.limits import Limiter
from bot4_runtime.venue.market_history import Bar, Bars
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rest import Values, text, whole
from bot4_runtime.venue.rules import plain

DEPTHS: Final = (5, 10, 20, 50, 100, 500, 1_000)
MAX_CANDLES: Final = 1_500


class MarketData:
    """Answers what anybody may ask.

    Args:
        limiter: its limits are told by `exchangeInfo`.
    """

    def __init__(self, exchange: FuturesExchange, limiter: Limiter) -> None:
        self._exchange = exchange
        self._limiter = limiter
        self.calls: Final[dict[tuple[str, str], Callable[[Values], Any]]] = {
            ("GET", "/fapi/v1/ping"): lambda _values: {},
            ("GET", "/fapi/v1/time"): lambda _values: {"serverTime": exchange.now_ms()},
            ("GET", "/fapi/v1/exchangeInfo"): self._exchange_info,
            ("GET", "/fapi/v1/depth"): self._depth,
            ("GET", "/fapi/v1/trades"): self._trades,
            ("GET", "/fapi/v1/aggTrades"): self._agg_trades,
            ("GET", "/fapi/v1/klines"): self._klines,
            ("GET", "/fapi/v1/markPriceKlines"): self._mark_klines,
            ("GET", "/fapi/v1/premiumIndex"): self._premium_index,
            ("GET", "/fapi/v1/fundingRate"): self._funding_rate,
            ("GET", "/fapi/v1/fundingInfo"): self._funding_info,
            ("GET", "/fapi/v1/ticker/price"): self._ticker_price,
            ("GET", "/fapi/v1/ticker/bookTicker"): self._book_ticker,
            ("GET", "/fapi/v2/ticker/price"): self._ticker_price,
        }

    def _exchange_info(self, values: Values) -> Any:
        return {
            "timezone": "UTC",
            "serverTime": self._exchange.now_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": [limit.told() for limit in self._limiter.limits],
            "exchangeFilters": [],
            "assets": [
                {"asset": asset, "marginAvailable": True, "autoAssetExchange": "0"}
                for asset in sorted({m.contract.quote for m in self._exchange.markets})
            ],
            "symbols": [market.contract.told() for market in self._exchange.markets],
        }

    def _depth(self, values: Values) -> Any:
        market = self._market(values)
        limit = whole(values, "limit", 500)
        if limit not in DEPTHS:
            raise Refused(*no.BAD_DEPTH_LIMIT)
        return depth_told(market, self._exchange.now_ms(), limit or 0)

    def _trades(self, values: Values) -> Any:
        market, limit = self._market(values), _limit(values, 500, 1_000)
        return [
            {
                "id": trade.trade_id,
                "price": plain(trade.price),
                "qty": plain(trade.quantity),
                "quoteQty": plain(trade.price * trade.quantity),
                "time": trade.time_ms,
                "isBuyerMaker": trade.buyer_maker,
                "isRPITrade": False,
            }
            for trade in list(market.history.trades)[-limit:]
        ]

    def _agg_trades(self, values: Values) -> Any:
        market, limit = self._market(values), _limit(values, 500, 1_000)
        from_id = whole(values, "fromId")
        start, end = whole(values, "startTime"), whole(values, "endTime")
        rows = [
            {
                "a": trade.trade_id,
                "p": plain(trade.price),
                "q": plain(trade.quantity),
                "nq": plain(trade.quantity),
                "f": trade.trade_id,
                "l": trade.trade_id,
                "T": trade.time_ms,
                "m": trade.buyer_maker,
            }
            for trade in market.history.trades
            if (from_id is None or trade.trade_id >= from_id)
            and (start is None or trade.time_ms >= start)
            and (end is None or trade.time_ms <= end)
        ]
        return rows[-limit:] if from_id is None and start is None else rows[:limit]

    def _klines(self, values: Values) -> Any:
        return self._bars(self._market(values).history.bars, values)

    def _mark_klines(self, values: Values) -> Any:
        return self._bars(self._market(values).history.marks, values)

    def _bars(self, bars: Bars, values: Values) -> Any:
        try:
            length_ms = interval_ms(text(values, "interval"))
        except DataError:
            raise Refused(*no.BAD_INTERVAL) from None
        limit = _limit(values, 500, MAX_CANDLES)
        start, end = whole(values, "startTime"), whole(values, "endTime")
        rows = [
            kline_told(bar, length_ms)
            for bar in bars.of(length_ms)
            if (start is None or bar.open_ms >= start) and (end is None or bar.open_ms <= end)
        ]
        return rows[:limit] if start is not None else rows[-limit:]

    def _premium_index(self, values: Values) -> Any:
        told = [premium_told(m, self._exchange.now_ms()) for m in self._markets(values)]
        return told[0] if values.get("symbol") else told

    def _funding_rate(self, values: Values) -> Any:
        start, end = whole(values, "startTime"), whole(values, "endTime")
        limit = _limit(values, 100, 1_000)
        rows: list[dict[str, Any]] = [
            {
                "symbol": market.contract.symbol,
                "fundingTime": time_ms,
                "fundingRate": plain(rate),
                "markPrice": plain(mark),
            }
            for market in self._markets(values)
            for time_ms, rate, mark in market.fundings
            if (start is None or time_ms >= start) and (end is None or time_ms <= end)
        ]
        rows.sort(key=lambda row: row["fundingTime"])
        return rows[:limit] if start is not None else rows[-limit:]

    def _funding_info(self, values: Values) -> Any:
        return [
            {
                "symbol": market.contract.symbol,
                "adjustedFundingRateCap": "0.02000000",
                "adjustedFundingRateFloor": "-0.02000000",
                "fundingIntervalHours": market.contract.funding_hours,
                "disclaimer": False,
            }
            for market in self._exchange.markets
        ]

    def _ticker_price(self, values: Values) -> Any:
        now_ms = self._exchange.now_ms()
        told = [
            {"symbol": m.contract.symbol, "price": plain(m.book.last), "time": now_ms}
            for m in self._markets(values)
        ]
        return told[0] if values.get("symbol") else told

    def _book_ticker(self, values: Values) -> Any:
        now_ms = self._exchange.now_ms()
        told = []
        for market in self._markets(values):
            (bid, bought), (ask, sold) = best_offers(market)
            told.append(
                {
                    "symbol": market.contract.symbol,
                    "bidPrice": plain(bid),
                    "bidQty": plain(bought),
                    "askPrice": plain(ask),
                    "askQty": plain(sold),
                    "time": now_ms,
                    "lastUpdateId": market.updates,
                }
            )
        return told[0] if values.get("symbol") else told

    def _market(self, values: Values) -> FuturesMarket:
        return self._exchange.market(text(values, "symbol"))

    def _markets(self, values: Values) -> list[FuturesMarket]:
        symbol = values.get("symbol")
        return [self._exchange.market(symbol)] if symbol else list(self._exchange.markets)


def levels(market: FuturesMarket, taking: Side) -> Iterator[tuple[Decimal, Decimal]]:
    """Yield price and quantity of each level that an order of side `taking` may take."""
    at, total = ZERO, ZERO
    for offer in market.book.offers(taking):
        if total and offer.price != at:
            yield at, total
            total = ZERO
        at = offer.price
        total += offer.quantity
    if total:
        yield at, total


def best_offers(market: FuturesMarket) -> tuple[tuple[Decimal, Decimal], ...]:
    """Return price and quantity of the best bid, then of the best ask; zeros for none."""
    nothing = (ZERO, ZERO)
    return tuple(next(levels(market, side), nothing) for side in (Side.SELL, Side.BUY))


def depth_told(market: FuturesMarket, now_ms: int, limit: int) -> dict[str, Any]:
    """A snapshot of the book."""
    return {
        "lastUpdateId": market.updates,
        "E": now_ms,
        "T": now_ms,
        "bids": [[plain(p), plain(q)] for p, q in islice(levels(market, Side.SELL), limit)],
        "asks": [[plain(p), plain(q)] for p, q in islice(levels(market, Side.BUY), limit)],
    }


def premium_told(market: FuturesMarket, now_ms: int) -> dict[str, Any]:
    """Mark, index and funding of a market."""
    return {
        "symbol": market.contract.symbol,
        "markPrice": plain(market.mark),
        "indexPrice": plain(market.index),
        "estimatedSettlePrice": plain(market.mark),
        "lastFundingRate": plain(market.funding_rate),
        "interestRate": "0.00010000",
        "nextFundingTime": market.next_funding_ms,
        "time": now_ms,
    }


def kline_told(bar: Bar, length_ms: int) -> list[Any]:
    """A candle as a row."""
    return [
        bar.open_ms,
        plain(bar.open),
        plain(bar.high),
        plain(bar.low),
        plain(bar.close),
        plain(bar.volume),
        bar.open_ms + length_ms - 1,
        plain(bar.turnover),
        bar.trades,
        plain(bar.bought),
        plain(bar.bought_quote),
        "0",
    ]


def _limit(values: Values, default: int, most: int) -> int:
    limit = whole(values, "limit", default) or 0
    if not 0 < limit <= most:
        raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit
