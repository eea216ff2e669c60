"""What anybody may see of a venue: trades, candles, best prices and books, over REST and streams.

Everything follows from the prints of the tape, as they were told; the book shown is what the
exchange offered after the last print. `MarketHub` knows who follows which stream, wraps what they
are told the way they connected, and lets faults happen to it. No sockets.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import msgspec

from bot4_runtime.domain.candle import INTERVALS_MS
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.faults import MARKET, Fault, FaultSchedule
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rest import Values, text, whole
from bot4_runtime.venue.rules import plain
from bot4_runtime.venue.stream import Connection, delivered
from bot4_runtime.venue.tape import Print

STREAMS_MOST: Final = 1_024
KLINES_MOST: Final = 1_000
PRINTS_KEPT: Final = 100_000
"""Prints of a symbol that are remembered at least."""
PUBLIC: Final = frozenset({"bookTicker", "depth"})
"""What USD-M's ``/public`` route brings; ``/market`` brings the rest."""
_ENCODE: Final = msgspec.json.encode
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """A candle of prints, closed or not."""

    open_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    quote_volume: Decimal = ZERO
    trades: int = 0

    def after(self, made: Print) -> "Bar":
        """Return it with one more print."""
        first = not self.trades
        return replace(
            self,
            open=made.price if first else self.open,
            high=made.price if first else max(self.high, made.price),
            low=made.price if first else min(self.low, made.price),
            close=made.price,
            volume=self.volume + made.quantity,
            quote_volume=self.quote_volume + made.quantity * made.price,
            trades=self.trades + 1,
        )

    @classmethod
    def flat(cls, open_ms: int, price: Decimal) -> "Bar":
        """Return one in which nothing was traded yet."""
        return cls(open_ms, price, price, price, price)


class Market:
    """One symbol's prints, and what follows from them.

    Args:
        last: the price before the first print.
    """

    def __init__(self, symbol: str, last: Decimal) -> None:
        self.symbol = symbol
        self._first = last
        self._gone = 0
        self._prints: list[Print] = []
        self._times: list[int] = []
        self.wanted: set[str] = set()
        self.running: dict[str, Bar] = {}
        self.shown: dict[Side, dict[Decimal, Decimal]] = {}
        self.update_id = 1_000

    def take(self, made: Print) -> int:
        """Remember a print; return its trade id."""
        if len(self._prints) >= 2 * PRINTS_KEPT:
            self._first = self._prints[PRINTS_KEPT - 1].price
            self._gone += PRINTS_KEPT
            del self._prints[:PRINTS_KEPT], self._times[:PRINTS_KEPT]
        self._prints.append(made)
        self._times.append(made.time_ms)
        return self._gone + len(self._prints)

    def bars(self, interval: str, from_ms: int, to_ms: int) -> Iterator[Bar]:
        """Yield candles of open times in [from_ms, to_ms], from the first print on."""
        step = INTERVALS_MS[interval]
        if not self._times:
            return
        start = max(-(-from_ms // step) * step, self._times[0] // step * step)
        index = bisect_left(self._times, start)
        price = self._prints[index - 1].price if index else self._first
        while start <= to_ms:
            bar = Bar.flat(start, price)
            while index < len(self._times) and self._times[index] < start + step:
                bar = bar.after(self._prints[index])
                index += 1
            yield bar
            price, start = bar.close, start + step

    def latest(self, limit: int) -> list[tuple[int, Print]]:
        """Return the last trades with their ids, oldest first."""
        first = max(len(self._prints) - limit, 0)
        return [(self._gone + first + n + 1, made) for n, made in enumerate(self._prints[first:])]


class Follower(Connection):
    """One client of market streams.

    Args:
        wake: called when something lies in the outbox.
        route: ``spot``, or of USD-M ``public``, ``market`` or ``unrouted``.
        wrapped: whether events come with their stream's name.

    Attributes:
        frozen: the line is open and says nothing at all, not even a pong.
    """

    def __init__(self, wake: Callable[[], None], route: str, *, wrapped: bool) -> None:
        super().__init__(wake)
        self.route = route
        self.wrapped = wrapped
        self.streams: set[str] = set()
        self.frozen = False

    def hears(self, stream: str) -> bool:
        """Tell whether a stream comes to it; USD-M is silent about what another route brings."""
        if self.frozen or stream not in self.streams:
            return False
        public = stream.partition("@")[2].partition("@")[0] in PUBLIC
        return self.route == "spot" or public == (self.route != "market")


class MarketHub:
    """Tells prints to those who follow, and answers what REST asks.

    Args:
        exchange: whose markets they are.
        faults: of what is told; the shell may exchange it. Method ``MARKET``, path the stream.
    """

    def __init__(self, exchange: Exchange, journal: VenueJournal, faults: FaultSchedule) -> None:
        self.faults = faults
        self.followers: set[Follower] = set()
        self._exchange = exchange
        self._journal = journal
        self._markets: dict[str, Market] = {}
        self._now_ms = 0

    def calls(self) -> dict[tuple[str, str], Callable[[Values], Any]]:
        """Return what it answers over REST."""
        return {
            ("GET", "/api/v3/klines"): self._klines,
            ("GET", "/api/v3/depth"): self._depth,
            ("GET", "/api/v3/trades"): self._trades,
        }

    # ------------------------------------------------------------------------- tape
    def printed(self, made: Print) -> None:
        """Tell a print, and what it changed."""
        self.passed(made.time_ms)
        market = self._market(made.symbol)
        number = market.take(made)
        for interval, bar in market.running.items():
            market.running[interval] = bar.after(made)
        if not self.followers:
            return
        name = made.symbol.lower()
        common = {
            "E": made.time_ms, "s": made.symbol, "p": plain(made.price),
            "q": plain(made.quantity), "T": made.time_ms, "m": False, "M": True,
        }  # fmt: skip
        self._tell(f"{name}@trade", lambda: {"e": "trade", "t": number} | common)
        self._tell(
            f"{name}@aggTrade",
            lambda: {"e": "aggTrade", "a": number, "f": number, "l": number} | common,
        )
        for interval, bar in market.running.items():
            self._tell_bar(market, interval, bar, closed=False)
        if any(self._heard(f"{name}@{kind}") for kind in ("depth", "depth@100ms", "bookTicker")):
            self._tell_book(market, made.time_ms)

    def passed(self, now_ms: int) -> None:
        """Let time pass: candles that ended are told as closed."""
        self._now_ms = max(self._now_ms, now_ms)
        for market in self._markets.values():
            for interval in market.wanted:
                self._begin_bar(market, interval)
            for interval, bar in list(market.running.items()):
                step, current = INTERVALS_MS[interval], bar
                while current.open_ms + step <= now_ms:
                    self._tell_bar(market, interval, current, closed=True)
                    current = Bar.flat(current.open_ms + step, current.close)
                market.running[interval] = current

    # ------------------------------------------------------------------- followers
    def answer(self, follower: Follower, request: str | bytes) -> None:
        """Answer SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
        identifier: object = None
        try:
            asked = msgspec.json.decode(request, type=dict[str, Any])
            identifier = asked.get("id")
            reply: Message = {"result": self._obey(follower, asked), "id": identifier}
        except UNREADABLE:
            reply = _error(3, "Invalid JSON: expected value", identifier)
        except Refused as error:
            reply = _error(error.code, error.message, identifier)
        if not follower.frozen:
            follower.send(_ENCODE(reply))

    def follow(self, follower: Follower, streams: list[str]) -> None:
        """Let a client hear streams from now on; raises Refused when they are too many."""
        if len(follower.streams | set(streams)) > STREAMS_MOST:
            raise Refused(2, f"Invalid request: more than {STREAMS_MOST} streams")
        self.followers.add(follower)
        follower.streams |= set(streams)
        for stream in streams:
            symbol, _, channel = stream.partition("@")
            interval = channel.removeprefix("kline_")
            listed = {rules.symbol for rules in self._exchange.symbols}
            if symbol.upper() in listed and interval in INTERVALS_MS:
                market = self._market(symbol.upper())
                market.wanted.add(interval)
                if self._now_ms:  # before, nobody knows what time it is
                    self._begin_bar(market, interval)

    def say(self, message: bytes) -> None:
        """Send all followers something as it is: a notice, or nonsense."""
        for follower in self.followers:
            if not follower.frozen:
                follower.send(message)

    def _obey(self, follower: Follower, asked: Mapping[str, Any]) -> object:
        method, names = asked.get("method"), asked.get("params") or []
        if method == "LIST_SUBSCRIPTIONS":
            return sorted(follower.streams)
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            raise Refused(2, f"Invalid request: unknown variant `{method}`")
        if not isinstance(names, list) or not all(
            isinstance(name, str) and "@" in name for name in names
        ):
            raise Refused(2, "Invalid request: request ID must be an unsigned integer")
        if method == "SUBSCRIBE":
            self.follow(follower, names)
        else:
            follower.streams -= set(names)
        return None

    # ------------------------------------------------------------------------ telling
    def _heard(self, stream: str) -> bool:
        return any(follower.hears(stream) for follower in self.followers)

    def _tell(self, stream: str, made: Callable[[], Message]) -> None:
        hearing = [follower for follower in self.followers if follower.hears(stream)]
        if not hearing:
            return
        rule = self.faults.next(MARKET, stream, self._now_ms)
        fault = rule.fault if rule is not None else None
        if fault is not None:
            self._journal.add(self._now_ms, "fault", 0, {"fault": fault.value, "stream": stream})
        if fault is Fault.EVENT_LOST:
            return
        event = made()
        for follower in hearing:
            told = {"stream": stream, "data": event} if follower.wrapped else event
            delivered(follower, _ENCODE(told), fault)

    def _tell_bar(self, market: Market, interval: str, bar: Bar, *, closed: bool) -> None:
        close_ms = bar.open_ms + INTERVALS_MS[interval] - 1
        self._tell(
            f"{market.symbol.lower()}@kline_{interval}",
            lambda: {
                "e": "kline",
                "E": max(self._now_ms, bar.open_ms),
                "s": market.symbol,
                "k": {
                    "t": bar.open_ms, "T": close_ms, "s": market.symbol, "i": interval,
                    "f": -1, "L": -1, "o": plain(bar.open), "c": plain(bar.close),
                    "h": plain(bar.high), "l": plain(bar.low), "v": plain(bar.volume),
                    "n": bar.trades, "x": closed, "q": plain(bar.quote_volume),
                    "V": plain(ZERO), "Q": plain(ZERO), "B": "0",
                },
            },
        )  # fmt: skip

    def _tell_book(self, market: Market, now_ms: int) -> None:
        """Tell what changed since the book was last shown."""
        before, now = market.shown, self._offered(market.symbol)
        changed = {
            side: [
                [plain(price), plain(now[side].get(price, ZERO))]
                for price in {**before.get(side, {}), **now[side]}
                if before.get(side, {}).get(price) != now[side].get(price)
            ]
            for side in Side
        }
        first, former = market.update_id + 1, market.update_id
        market.shown, market.update_id = now, market.update_id + 2
        name, bids, asks = market.symbol.lower(), now[Side.BUY], now[Side.SELL]
        update = {
            "e": "depthUpdate", "E": now_ms, "s": market.symbol, "U": first,
            "u": market.update_id, "b": changed[Side.BUY], "a": changed[Side.SELL],
        }  # fmt: skip
        best = {
            "u": market.update_id, "s": market.symbol,
            "b": plain(max(bids)), "B": plain(bids[max(bids)]),
            "a": plain(min(asks)), "A": plain(asks[min(asks)]),
        }  # fmt: skip
        if any(follower.route != "spot" for follower in self.followers):
            update |= {"T": now_ms, "pu": former}
            best |= {"e": "bookTicker", "E": now_ms, "T": now_ms}
        for stream in (f"{name}@depth", f"{name}@depth@100ms"):
            self._tell(stream, lambda: update)
        self._tell(f"{name}@bookTicker", lambda: best)

    def _offered(self, symbol: str) -> dict[Side, dict[Decimal, Decimal]]:
        """Return what the exchange offers, by the side that rests, price to quantity."""
        told: dict[Side, dict[Decimal, Decimal]] = {}
        for taking in Side:
            levels = told[taking.opposite] = {}
            for offer in self._exchange.offers(symbol, taking):
                levels[offer.price] = levels.get(offer.price, ZERO) + offer.quantity
        return told

    # --------------------------------------------------------------------------- REST
    def _klines(self, values: Values) -> Any:
        market, interval = self._market(text(values, "symbol")), text(values, "interval")
        if interval not in INTERVALS_MS:
            raise Refused(-1120, "Invalid interval.")
        limit = whole(values, "limit", 500) or 500
        start, end = whole(values, "startTime", 0) or 0, whole(values, "endTime")
        end = self._now_ms if end is None else min(end, self._now_ms)
        step = INTERVALS_MS[interval]
        if "startTime" not in values:
            start = end - (limit - 1) * step
        rows: list[list[object]] = []
        for bar in market.bars(interval, start, end):
            if len(rows) >= min(limit, KLINES_MOST):
                break
            prices = (bar.open, bar.high, bar.low, bar.close, bar.volume)
            rows.append(
                [bar.open_ms, *map(plain, prices), bar.open_ms + step - 1,
                 plain(bar.quote_volume), bar.trades, plain(ZERO), plain(ZERO), "0"]
            )  # fmt: skip
        return rows

    def _depth(self, values: Values) -> Any:
        market = self._market(text(values, "symbol"))
        if not market.shown:
            market.shown = self._offered(market.symbol)
        return {"lastUpdateId": market.update_id} | {
            name: [
                [plain(price), plain(market.shown[side][price])]
                for price in sorted(market.shown[side], reverse=side is Side.BUY)
            ]
            for name, side in (("bids", Side.BUY), ("asks", Side.SELL))
        }

    def _trades(self, values: Values) -> Any:
        market = self._market(text(values, "symbol"))
        return [
            {
                "id": number, "price": plain(made.price), "qty": plain(made.quantity),
                "quoteQty": plain(made.price * made.quantity), "time": made.time_ms,
                "isBuyerMaker": False, "isBestMatch": True,
            }
            for number, made in market.latest(whole(values, "limit", 500) or 500)
        ]  # fmt: skip

    def _market(self, symbol: str) -> Market:
        market = self._markets.get(symbol)
        if market is None:
            market = Market(symbol, self._exchange.last_price(symbol))
            self._markets[symbol] = market
        return market

    def _begin_bar(self, market: Market, interval: str) -> None:
        if interval in market.running:
            return
        step = INTERVALS_MS[interval]
        start = self._now_ms // step * step
        last = self._exchange.last_price(market.symbol)
        bars = list(market.bars(interval, start, start))
        market.running[interval] = bars[0] if bars else Bar.flat(start, last)


def _error(code: int, reason: str, identifier: object) -> Message:
    return {"error": {"code": code, "msg": reason}, "id": identifier}
