"""What USD-M market streams say, in Binance's words."""

from decimal import Decimal
from typing import Any, Final

from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_ledger import FuturesMarket
from bot4_runtime.venue.futures_market_data import best_offers, depth_told, levels
from bot4_runtime.venue.futures_orders import FuturesOrder
from bot4_runtime.venue.market_history import Bar, MarketTrade
from bot4_runtime.venue.rules import plain

Message = dict[str, Any]
PUBLIC: Final = ("bookTicker", "depth", "trade")
"""Beginnings of stream names that ``/public`` carries; ``/market`` carries all others."""


def agg_trade(symbol: str, trade: MarketTrade, now_ms: int) -> Message:
    """Tell a trade; every one is an aggregate of its own."""
    return {
        "e": "aggTrade",
        "E": now_ms,
        "s": symbol,
        "a": trade.trade_id,
        "p": plain(trade.price),
        "q": plain(trade.quantity),
        "nq": plain(trade.quantity),
        "f": trade.trade_id,
        "l": trade.trade_id,
        "T": trade.time_ms,
        "m": trade.buyer_maker,
    }


def raw_trade(symbol: str, trade: MarketTrade, now_ms: int) -> Message:
    """Tell a trade as the undocumented stream ``trade`` does."""
    return {
        "e": "trade",
        "E": now_ms,
        "T": trade.time_ms,
        "s": symbol,
        "t": trade.trade_id,
        "p": plain(trade.price),
        "q": plain(trade.quantity),
        "X": "MARKET",
        "m": trade.buyer_maker,
    }


def mark_price(market: FuturesMarket, now_ms: int) -> Message:
    """Tell mark, index and funding."""
    return {
        "e": "markPriceUpdate",
        "E": now_ms,
        "s": market.contract.symbol,
        "p": plain(market.mark),
        "i": plain(market.index),
        "P": plain(market.mark),
        "r": plain(market.funding_rate),
        "T": market.next_funding_ms,
    }


def klines(market: FuturesMarket, interval: str, since_ms: int, now_ms: int) -> list[Message]:
    """Tell the candles from an open time on; of none, the latest. Only the latest may be open."""
    bars = list(market.history.bars.of(interval_ms(interval)))
    return [
        kline(market.contract.symbol, interval, bar, now_ms)
        for bar in bars
        if bar.open_ms >= since_ms or bar is bars[-1]
    ]


def kline(symbol: str, interval: str, bar: Bar, now_ms: int) -> Message:
    """Tell a candle."""
    end_ms = bar.open_ms + interval_ms(interval)
    return {
        "e": "kline",
        "E": now_ms,
        "s": symbol,
        "k": {
            "t": bar.open_ms,
            "T": end_ms - 1,
            "s": symbol,
            "i": interval,
            "f": bar.first_id,
            "L": bar.last_id,
            "o": plain(bar.open),
            "c": plain(bar.close),
            "h": plain(bar.high),
            "l": plain(bar.low),
            "v": plain(bar.volume),
            "n": bar.trades,
            "x": now_ms >= end_ms,
            "q": plain(bar.turnover),
            "V": plain(bar.bought),
            "Q": plain(bar.bought_quote),
            "B": "0",
        },
    }


def book_ticker(market: FuturesMarket, now_ms: int) -> Message:
    """Tell the best bid and ask."""
    (bid, bought), (ask, sold) = best_offers(market)
    return {
        "e": "bookTicker",
        "u": market.updates,
        "E": now_ms,
        "T": now_ms,
        "s": market.contract.symbol,
        "b": plain(bid),
        "B": plain(bought),
        "a": plain(ask),
        "A": plain(sold),
    }


def partial_depth(market: FuturesMarket, now_ms: int, limit: int) -> Message:
    """Tell the best levels."""
    told = depth_told(market, now_ms, limit)
    number = told["lastUpdateId"]
    return {
        "e": "depthUpdate",
        "E": now_ms,
        "T": now_ms,
        "s": market.contract.symbol,
        "U": number,
        "u": number,
        "pu": number - 1,
        "b": told["bids"],
        "a": told["asks"],
    }


def forced_order(order: FuturesOrder, now_ms: int) -> Message:
    """Tell that the venue closed somebody's position."""
    last = order.trades[-1].quantity if order.trades else ZERO
    return {
        "e": "forceOrder",
        "E": now_ms,
        "o": {
            "s": order.symbol,
            "S": order.side.name,
            "o": "LIMIT",
            "f": "IOC",
            "q": plain(order.quantity),
            "p": plain(order.price),
            "ap": plain(order.average),
            "X": order.status.value,
            "l": plain(last),
            "z": plain(order.filled),
            "T": order.updated_ms,
        },
    }


class DepthTape:
    """The book of one market as it was last told, and what has changed since."""

    def __init__(self, market: FuturesMarket) -> None:
        self._market = market
        self._told = self._levels()
        self._last = market.updates

    def changes(self, now_ms: int) -> Message | None:
        """Return a depth event and number it; None when nothing changed."""
        told, new = self._told, self._levels()
        rows: dict[Side, list[list[str]]] = {Side.SELL: [], Side.BUY: []}
        for side, price in sorted(told.keys() | new.keys()):
            quantity = new.get((side, price), ZERO)
            if quantity != told.get((side, price), ZERO):
                rows[side].append([plain(price), plain(quantity)])
        if not (rows[Side.SELL] or rows[Side.BUY]):
            return None
        before, market = self._last, self._market
        market.updates = max(market.updates, before) + 1
        self._told, self._last = new, market.updates
        return {
            "e": "depthUpdate",
            "E": now_ms,
            "T": now_ms,
            "s": market.contract.symbol,
            "U": before + 1,
            "u": market.updates,
            "pu": before,
            "b": rows[Side.SELL],
            "a": rows[Side.BUY],
        }

    def _levels(self) -> dict[tuple[Side, Decimal], Decimal]:
        return {
            (side, price): quantity
            for side in (Side.SELL, Side.BUY)
            for price, quantity in levels(self._market, side)
        }
