"""Closed candles polled from Binance's public REST through ccxt. No keys, no orders.

A candle is taken only when the clock says that it has closed and, lest that clock be fast, the
venue shows the next one too or a minute has passed. Errors of the network, answers nobody can
read and what a firewall turned away are asked for again with growing pauses, for ever; a refused
location or an unknown symbol is final. An impossible candle is logged, passed over, and asked for
again until the next one is there.
"""

import difflib
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from bot4_runtime.clock import Clock
from bot4_runtime.domain.candle import Candle, Market, Origin, interval_ms
from bot4_runtime.domain.errors import DataError, LocationRefused, VenueUnreachable
from bot4_runtime.domain.instrument import split_symbol
from bot4_runtime.domain.unreadable import UNSHAPED
from bot4_runtime.exchange.binance.failures import FIREWALL
from bot4_runtime.exchange.binance.http_connection import LOOPBACK
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget, pause_ms, shared_budget
from bot4_runtime.exchange.binance.proxy import by_socks, checked_proxy
from bot4_runtime.sources import waiting

PAGE: Final = 1000
TIMEOUT_MS: Final = 8_000
GRACE_MS: Final = 2_000
"""How long after a close the candle is first asked for."""
CLOCK_DOUBT_MS: Final = 60_000
"""How far our clock may be ahead of the venue's without a forming candle passing for closed."""
LONGEST_PAUSE_S: Final = 60.0
MOST_DIGITS: Final = 64
"""Of a market's precision."""
WEIGHTS: Final = {
    Market.SPOT: {"load_markets": 20, "fetch_ohlcv": 2},
    Market.USDM: {"load_markets": 1, "fetch_ohlcv": 5},
}
"""What Binance counts for a request; a page of candles has `PAGE` rows."""
NS_PER_MS: Final = 1_000_000


class BinanceSource:
    """Closed candles as Binance serves them.

    Args:
        symbols: Binance symbols, ``BTCUSDT``.
        clock: wall clock; tests pass their own.
        base_url: replaces Binance's REST host, for a proxy or a venue on loopback, which has
            a request count of its own; Binance's is shared with the machine's processes.
        proxy: ``http://`` or ``socks5://host:port`` to go through; None for none.
        budget: of the account that trades at the same host; None for that of the host.
    """

    origin = Origin.REAL
    start_ms: int | None = None

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        interval: str,
        market: Market,
        clock: Clock,
        base_url: str | None = None,
        proxy: str | None = None,
        budget: RequestBudget | None = None,
    ) -> None:
        self.label = "binance"
        self.symbols = tuple(sorted(symbols))
        self.interval = interval
        self.market = market
        self._clock = clock
        self._step_ms = interval_ms(interval)
        self._client = _client(market, base_url)
        if proxy is not None and by_socks(checked_proxy(proxy)):
            from bot4_runtime.exchange.binance.proxied_requests import go_through

            go_through(self._client.session, proxy)
        elif proxy is not None:
            plain = base_url is not None and base_url.startswith("http:")
            name = "http_proxy" if plain else "https_proxy"
            setattr(self._client, name, checked_proxy(proxy))
        if budget is None:
            local = urlsplit(base_url or "").hostname in LOOPBACK
            budget = RequestBudget(None, market) if local else shared_budget(market)
        self._budget = budget
        self._names = {symbol: _ccxt_symbol(symbol, market) for symbol in self.symbols}
        self._refused: dict[str, DataError] = {}
        self._checked = False
        self._log = structlog.get_logger("binance")

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Closed candles with open times in [from_ms, to_ms), merged over symbols.

        Raises:
            VenueUnreachable, LocationRefused, DataError: see `check`; also when no candle of
                the range is possible.
        """
        if not self._checked:
            self.check()
        rows = [
            candle
            for symbol in self.symbols
            for candle in self._fetch(symbol, from_ms, min(to_ms, self._closed_before()))
        ]
        if self._refused and not rows:
            raise next(iter(self._refused.values()))
        return iter(sorted(rows, key=lambda c: (c.open_time_ms, c.symbol)))

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """Candles as they close; a lost connection is retried until `stop` is set."""
        next_ms = {
            symbol: max(from_ms, cursor.get(symbol, from_ms - 1) + 1) for symbol in self.symbols
        }
        pause = 1.0
        while not stop.is_set():
            try:
                candles: list[Candle] = []
                for symbol, start in next_ms.items():
                    candles += self._fetch(symbol, start, self._closed_before())
                    yield None  # an answer may take `TIMEOUT_MS`: the reader looks around
                candles.sort(key=lambda c: (c.open_time_ms, c.symbol))
                pause = 1.0
            except VenueUnreachable:
                jitter = random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                yield from waiting(pause * jitter, stop)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            for candle in candles:
                next_ms[candle.symbol] = candle.open_time_ms + 1
                yield candle
            now_ms = self._clock.now_ns() // NS_PER_MS
            due_ms = (now_ms // self._step_ms + 1) * self._step_ms + GRACE_MS
            yield from waiting(min(due_ms - now_ms, 15_000) / 1000 if candles else 2.0, stop)

    def closed(self, symbol: str, from_ms: int) -> list[Candle]:
        """Closed candles of a symbol from an open time on; raises as `check` does."""
        return list(self._fetch(symbol, from_ms, self._closed_before()))

    def check(self) -> None:
        """Ask the venue for its markets.

        Raises:
            VenueUnreachable: nothing readable was answered in time.
            LocationRefused: HTTP 451.
            DataError: a symbol is unknown; the nearest are named.
        """
        markets = self._call("load_markets")
        known = {market["id"] for market in markets.values()}
        if not known:
            raise VenueUnreachable("Binance's list of markets was empty, or could not be read")
        for symbol in self.symbols:
            if symbol not in known:
                near = ", ".join(difflib.get_close_matches(symbol, known, n=3)) or "none"
                raise DataError(f"Binance {self.market.value} has no {symbol}; nearest: {near}")
        self._checked = True

    @property
    def held_off(self) -> bool:
        """Whether the venue's limits let nothing pass now."""
        return self._budget.take(Lane.DATA, 0) > 0

    def _closed_before(self) -> int:
        """Open times from here on belong to candles that are still forming."""
        now_ms = self._clock.now_ns() // NS_PER_MS
        return now_ms // self._step_ms * self._step_ms

    def _fetch(self, symbol: str, from_ms: int, to_ms: int) -> Iterator[Candle]:
        start = -(-from_ms // self._step_ms) * self._step_ms
        while start < to_ms:
            rows = self._call("fetch_ohlcv", self._names[symbol], self.interval, start, PAGE)
            taken = {int(row[0]): row for row in rows if start <= (row[0] or 0) < to_ms}
            newest_ms = max((int(row[0] or 0) for row in rows), default=0)
            sure_ms = self._clock.now_ns() // NS_PER_MS - CLOCK_DOUBT_MS
            if newest_ms + self._step_ms > sure_ms:
                taken.pop(newest_ms, None)
            for open_time_ms in sorted(taken):
                candle = self._possible(symbol, open_time_ms, taken[open_time_ms])
                if candle is not None:
                    yield candle
            if len(rows) < PAGE or not taken:
                return
            start = max(taken) + self._step_ms

    def _possible(self, symbol: str, open_time_ms: int, row: Sequence[Any]) -> Candle | None:
        """Read a row; one no market can print is told once and passed over."""
        try:
            candle = _candle(symbol, self.interval, open_time_ms, row)
            candle.check()
        except DataError as error:
            if str(error) != str(self._refused.get(symbol)):
                self._refused[symbol] = error
                self._log.error("candle refused", why=str(error))
            return None
        return candle

    def _call(self, method: str, *arguments: object) -> Any:
        import ccxt

        if method != "load_markets" or not self._client.markets:
            wait_ms = self._budget.take(Lane.DATA, WEIGHTS[self.market][method])
            if wait_ms > 0:
                raise VenueUnreachable(
                    f"Binance's request limit lets no candles pass for another "
                    f"{wait_ms / 1000:.0f} s; nothing was asked"
                )
        try:
            return getattr(self._client, method)(*arguments)
        except ccxt.BadSymbol as error:
            raise DataError(
                f"Binance {self.market.value} does not know the symbol: {error}"
            ) from error
        except ccxt.BaseError as error:
            text = str(error)
            firewall = " 403 " in text  # it wants silence as a ban does
            if firewall or isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
                asked = (self._client.last_response_headers or {}).get("Retry-After")
                self._budget.stay_away(pause_ms(asked, text, self._budget.clock_ms()))
            if " 451 " in text or "restricted location" in text:
                raise LocationRefused(
                    "Binance refuses this location (HTTP 451); use recorded or simulated candles"
                ) from error
            if firewall:
                raise VenueUnreachable(
                    f"Binance turned this address away (HTTP 403): {FIREWALL}"
                ) from error
            if isinstance(error, ccxt.OperationFailed):
                raise VenueUnreachable(
                    f"Binance did not answer ({type(error).__name__}); look at the network, or "
                    "use recorded or simulated candles"
                ) from error
            raise DataError(f"Binance answered {type(error).__name__}: {text[:200]}") from error
        except UNSHAPED as error:
            raise VenueUnreachable(
                f"Binance's answer to {method} cannot be read ({type(error).__name__}); ask again"
            ) from error


def _client(market: Market, base_url: str | None) -> Any:
    import ccxt

    client = (ccxt.binance if market is Market.SPOT else ccxt.binanceusdm)(
        {
            "timeout": TIMEOUT_MS,
            "enableRateLimit": True,
            "options": {
                "fetchCurrencies": False,
                "fetchMargins": False,
                "fetchMarkets": {"types": ["spot" if market is Market.SPOT else "linear"]},
            },
        }
    )
    client.parse_precision = partial(_written_out, client.parse_precision)
    if base_url is not None:
        api = client.urls["api"]
        for name, url in api.items():
            if isinstance(url, str):
                api[name] = f"{base_url}/{url.split('://', 1)[1].partition('/')[2]}"
    return client


def _written_out(write: Callable[[str | None], str | None], digits: str | None) -> str | None:
    """Return ccxt's number for so many digits, which it writes out one by one.

    Raises:
        ValueError: there are more than any market has; they would fill the memory.
    """
    if digits is not None and not abs(int(digits)) <= MOST_DIGITS:
        raise ValueError(f"a precision of {digits[:20]} digits")
    return write(digits)


def _ccxt_symbol(symbol: str, market: Market) -> str:
    base, quote = split_symbol(symbol)
    return f"{base}/{quote}" if market is Market.SPOT else f"{base}/{quote}:{quote}"


def _candle(symbol: str, interval: str, open_time_ms: int, row: Sequence[Any]) -> Candle:
    """Build a candle from ccxt's row; what is missing is NaN, which no check lets pass."""
    open_, high, low, close, volume = (
        math.nan if value is None else float(value) for value in row[1:6]
    )
    return Candle(
        symbol=symbol,
        interval=interval,
        open_time_ms=open_time_ms,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
    )
