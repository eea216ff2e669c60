"""Candles the archive does not have yet, through ccxt's public REST. No keys.

Only closed candles are taken: a candle that ends after the present, ours or Binance's, is not.
ccxt's errors are mapped here, once. Every request takes its weight from the machine's shared
budget (`bot4_pipelines.ingest.rate`) first.
"""

import difflib
from typing import Any, Final

import numpy as np

from bot4_pipelines.ingest.plan import Budget
from bot4_pipelines.ingest.rate import TRIES, SharedRate, pause_s, retry_after_s, wait
from bot4_pipelines.ingest.wanted import DEFAULT_BUDGET_S
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.funding import FundingRates, funding_of
from bot4_runtime.domain.candle import Market, interval_ms
from bot4_runtime.domain.errors import (
    DataError,
    LocationRefused,
    VenueError,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.unreadable import UNSHAPED

PAGE: Final = 1_000
TIMEOUT_MS: Final = 8_000
APIS: Final = {Market.SPOT: ("public", "/api/v3"), Market.USDM: ("fapiPublic", "/fapi/v1")}
WEIGHT: Final = {
    Market.SPOT: {"load_markets": 20, "fetch_time": 1, "fetch_ohlcv": 2},
    Market.USDM: {"load_markets": 1, "fetch_time": 1, "fetch_ohlcv": 5},
}
"""What Binance counts for a request; a page of candles has `PAGE` rows."""
KINDS: Final = {Market.SPOT: "spot", Market.USDM: "linear"}


class RestCandles:
    """Binance's candles by REST.

    Args:
        base_url: replaces Binance's host, for a proxy or a server on loopback.
        timeout_ms: of one request.
        budget: seconds that requests, pauses and waits for the rate may take.
        rate: shared by the machine's processes; None counts nothing.
    """

    def __init__(
        self,
        market: Market,
        base_url: str | None = None,
        timeout_ms: int = TIMEOUT_MS,
        *,
        budget: Budget | None = None,
        rate: SharedRate | None = None,
    ) -> None:
        import ccxt

        self.market = market
        self._budget = budget or Budget(DEFAULT_BUDGET_S)
        self._rate = rate
        self._client: Any = ccxt.binance(
            {
                "enableRateLimit": True,
                "timeout": timeout_ms,
                "options": {
                    "defaultType": KINDS[market],
                    "fetchMarkets": {"types": [KINDS[market]]},
                    "fetchCurrencies": False,
                },
            }
        )
        self._client.has["fetchCurrencies"] = False
        self._client.requests_trust_env = True
        if base_url is not None:
            api, path = APIS[market]
            self._client.urls["api"][api] = base_url.rstrip("/") + path

    def close(self) -> None:
        """Give the connections back."""
        self._client.session.close()

    def check(self, symbols: tuple[str, ...]) -> None:
        """Ask Binance for its markets.

        Raises:
            VenueUnreachable, LocationRefused: see `fetch`.
            DataError: a symbol is unknown; the nearest are named.
        """
        known = {str(market["id"]) for market in self._call("load_markets").values()}
        for symbol in symbols:
            if symbol not in known:
                near = difflib.get_close_matches(symbol, sorted(known), n=3, cutoff=0.5)
                raise DataError(
                    f"Binance {self.market.value} has no symbol {symbol}; "
                    f"nearest: {' '.join(near) or 'none'}"
                )

    def fetch(
        self,
        symbol: str,
        interval: str,
        from_ms: int,
        to_ms: int,
        budget: Budget,
        *,
        mark: bool = False,
    ) -> RawCandles:
        """Fetch closed candles that open in [from_ms, to_ms); fewer when the budget is spent.

        Args:
            symbol: as Binance writes it.
            interval: of the candles.
            from_ms: first open time.
            to_ms: open times from here on are left out.
            budget: seconds.
            mark: mark prices, without volume, instead of those that were traded.

        Raises:
            VenueUnreachable: no answer, or Binance is busy.
            LocationRefused: HTTP 451.
            VenueRefused: another refusal.
            DataError: the symbol is unknown.
        """
        self.check((symbol,))
        name = next(m["symbol"] for m in self._client.markets.values() if m["id"] == symbol)
        step = interval_ms(interval)
        end = min(to_ms, self._venue_ms(to_ms)) // step * step
        price = {"price": "mark"} if mark else {}
        rows: list[list[float]] = []
        start = -(-from_ms // step) * step
        while start < end and not budget.spent:
            page = self._call("fetch_ohlcv", name, interval, start, PAGE, price)
            rows += [row for row in page if start <= row[0] < end]
            if not page:
                break
            start = max(int(page[-1][0]) + step, start + step)
        table = np.array([[*row[:5], row[5] or 0.0] for row in rows], dtype=np.float64).reshape(
            -1, 6
        )
        times = table[:, 0].astype(np.int64)
        return RawCandles(symbol, f"REST {symbol} {interval}", times, *table[:, 1:].T.copy())

    def funding(self, symbol: str, from_ms: int, to_ms: int, budget: Budget) -> FundingRates:
        """Fetch funding rates due in [from_ms, to_ms); fewer when the budget is spent.

        Raises:
            VenueError, DataError: as `fetch`.
        """
        self.check((symbol,))
        name = next(m["symbol"] for m in self._client.markets.values() if m["id"] == symbol)
        rows: list[dict[str, Any]] = []
        start = from_ms
        while start < to_ms and not budget.spent:
            page = self._call("fetch_funding_rate_history", name, start, PAGE)
            rows += [row for row in page if start <= row["timestamp"] < to_ms]
            if len(page) < PAGE:
                break
            start = int(page[-1]["timestamp"]) + 1
        times = [int(row["timestamp"]) for row in rows]
        return funding_of(symbol, times, [float(row["fundingRate"]) for row in rows])

    def _venue_ms(self, ours_ms: int) -> int:
        try:
            return int(self._call("fetch_time"))
        except LocationRefused:
            raise
        except VenueError:
            return ours_ms

    def _call(self, method: str, *arguments: object) -> Any:
        """Ask; what may pass is asked again, after a pause that doubles or that Binance says."""
        import ccxt

        for attempt in range(1, TRIES + 1):
            known = method == "load_markets" and self._client.markets
            if self._rate is not None and not known:
                self._rate.take(WEIGHT[self.market].get(method, 1), self._budget)
            try:
                return self._once(method, *arguments)
            except VenueUnreachable as error:
                asked = retry_after_s(
                    (self._client.last_response_headers or {}).get("Retry-After")
                )
                busy = isinstance(error.__cause__, ccxt.DDoSProtection | ccxt.RateLimitExceeded)
                if busy and asked is not None and self._rate is not None:
                    self._rate.stay_away(asked)
                if attempt == TRIES:
                    raise
                wait(pause_s(attempt, asked if busy else None), self._budget, str(error))
        raise AssertionError("unreachable")  # pragma: no cover - the last try returns or raises

    def _once(self, method: str, *arguments: object) -> Any:
        import ccxt

        try:
            return getattr(self._client, method)(*arguments)
        except ccxt.BaseError as error:
            text = str(error)
            if " 451 " in text or "restricted location" in text.lower():
                raise LocationRefused(
                    "Binance refuses this location (HTTP 451); use candles of your own "
                    "(BOT4_CANDLES_DIR) or the simulated market"
                ) from error
            if isinstance(error, ccxt.NetworkError):
                raise VenueUnreachable(f"Binance does not answer: {text[:200]}") from error
            raise VenueRefused(f"Binance refused {method}: {text[:200]}") from error
        except UNSHAPED as error:
            raise VenueUnreachable(
                f"Binance's answer to {method} cannot be read ({type(error).__name__}); ask again"
            ) from error
