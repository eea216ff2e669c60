"""Candles the archive does not have yet, through ccxt's public REST. No keys.

Only closed candles are taken: a candle that ends after the present, ours or Binance's, is not.
ccxt's errors are mapped here, once. Every request takes its weight from the machine's shared
budget (`bot4_pipelines.ingest.rate`) first.
"""

import difflib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np

from bot4_pipelines.ingest.markets import WAIT_S, MarketList
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
LAST_MS: Final = 10**14
"""No candle opens this late: the year 5138."""
TIMEOUT_MS: Final = 8_000
APIS: Final = {Market.SPOT: ("public", "/api/v3"), Market.USDM: ("fapiPublic", "/fapi/v1")}
WEIGHT: Final = {
    Market.SPOT: {"ping": 1, "markets": 20, "time": 1, "candles": 2},
    Market.USDM: {"ping": 1, "markets": 1, "time": 1, "candles": 5, "mark": 5, "funding": 1},
}
"""What Binance counts for a request; a page of candles has `PAGE` rows."""
PATHS: Final = {
    "markets": "ExchangeInfo",
    "time": "Time",
    "candles": "Klines",
    "mark": "MarkPriceKlines",
    "funding": "FundingRate",
}
"""ccxt's names of Binance's own endpoints, which need no list of markets first."""

_Answer = TypeVar("_Answer")


class RestCandles:
    """Binance's candles by REST.

    Args:
        base_url: replaces Binance's host, for a proxy or a server on loopback.
        timeout_ms: of one request.
        budget: seconds that requests, pauses and waits for the rate may take.
        rate: shared by the machine's processes; None counts nothing.
        markets: the list of symbols that is kept; None asks for one.
    """

    def __init__(
        self,
        market: Market,
        base_url: str | None = None,
        timeout_ms: int = TIMEOUT_MS,
        *,
        budget: Budget | None = None,
        rate: SharedRate | None = None,
        markets: MarketList | None = None,
    ) -> None:
        import ccxt

        self.market = market
        self._budget = budget or Budget(DEFAULT_BUDGET_S)
        self._rate = rate
        self._markets = markets
        self._known: frozenset[str] = frozenset()
        self._client: Any = ccxt.binance(
            {
                "enableRateLimit": True,
                "timeout": timeout_ms,
            }
        )
        self._client.requests_trust_env = True
        if base_url is not None:
            api, path = APIS[market]
            self._client.urls["api"][api] = base_url.rstrip("/") + path

    def close(self) -> None:
        """Give the connections back."""
        self._client.session.close()

    def check(self, symbols: tuple[str, ...]) -> None:
        """See that Binance has these symbols, by a list that is kept for an hour.

        Raises:
            VenueUnreachable, LocationRefused: see `fetch`.
            DataError: a symbol is unknown; the nearest are named.
        """
        if not self._known.issuperset(symbols):
            if self._markets is None:
                self._known = frozenset(self._listed())
            else:
                wait_s = min(WAIT_S, self._budget.left_s)
                self._known = self._markets.symbols(symbols, self._listed, wait_s)
        for symbol in symbols:
            if symbol not in self._known:
                near = difflib.get_close_matches(symbol, sorted(self._known), n=3, cutoff=0.5)
                raise DataError(
                    f"Binance {self.market.value} has no symbol {symbol}; "
                    f"nearest: {' '.join(near) or 'none'}"
                )

    def _listed(self) -> set[str]:
        """Ask Binance for its markets."""
        found = self._read(
            "markets", lambda told: {_name(one["symbol"]) for one in told["symbols"]}
        )
        if not found:
            raise VenueUnreachable("Binance names no market at all; run again later")
        return found

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
        step = interval_ms(interval)
        end = min(to_ms, self._venue_ms(to_ms)) // step * step
        rows: list[list[float]] = []
        start = -(-from_ms // step) * step
        while start < end and not budget.spent:
            page = self._read(
                "mark" if mark else "candles",
                lambda told: [_candle(row, mark=mark) for row in told],
                symbol=symbol,
                interval=interval,
                startTime=start,
                limit=PAGE,
            )
            rows += [row for row in page if start <= row[0] < end]
            if not page:
                break
            start = max(int(page[-1][0]) + step, start + step)
        table = np.array(rows, dtype=np.float64).reshape(-1, 6)
        times = table[:, 0].astype(np.int64)
        return RawCandles(symbol, f"REST {symbol} {interval}", times, *table[:, 1:].T.copy())

    def funding(self, symbol: str, from_ms: int, to_ms: int, budget: Budget) -> FundingRates:
        """Fetch funding rates due in [from_ms, to_ms); fewer when the budget is spent.

        Raises:
            VenueError, DataError: as `fetch`.
        """
        self.check((symbol,))
        rows: list[tuple[int, float]] = []
        start = from_ms
        while start < to_ms and not budget.spent:
            page = self._read(
                "funding",
                lambda told: [
                    (int(row["fundingTime"]), float(row["fundingRate"])) for row in told
                ],
                symbol=symbol,
                startTime=start,
                limit=PAGE,
            )
            rows += [row for row in page if start <= row[0] < to_ms]
            if len(page) < PAGE:
                break
            start = page[-1][0] + 1
        return funding_of(symbol, [row[0] for row in rows], [row[1] for row in rows])

    def _venue_ms(self, ours_ms: int) -> int:
        try:
            return self._read("time", lambda told: int(told["serverTime"]))
        except LocationRefused:
            raise
        except VenueError:
            return ours_ms

    def _read(self, kind: str, read: Callable[[Any], _Answer], **parameters: object) -> _Answer:
        """Ask, and read the answer.

        Raises:
            VenueUnreachable: it is not what was asked for.
        """
        told = self._call(kind, **parameters)
        try:
            return read(told)
        except UNSHAPED as error:
            raise VenueUnreachable(
                f"Binance's answer to {kind} cannot be read ({type(error).__name__}: {error}); "
                "run again later"
            ) from error

    def _call(self, kind: str, **parameters: object) -> Any:
        """Ask; what may pass is asked again, after a pause that doubles or that Binance says."""
        import ccxt

        for attempt in range(1, TRIES + 1):
            if self._rate is not None:
                self._rate.take(WEIGHT[self.market][kind], self._budget)
            try:
                return self._once(kind, parameters)
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

    def _once(self, kind: str, parameters: dict[str, object]) -> Any:
        import ccxt

        try:
            return getattr(self._client, f"{APIS[self.market][0]}Get{PATHS[kind]}")(parameters)
        except ccxt.BaseError as error:
            text = str(error)
            if " 451 " in text or "restricted location" in text.lower():
                raise LocationRefused(
                    "Binance refuses this location (HTTP 451); use candles of your own "
                    "(BOT4_CANDLES_DIR) or the simulated market"
                ) from error
            if isinstance(error, ccxt.NetworkError):
                raise VenueUnreachable(f"Binance does not answer: {text[:200]}") from error
            raise VenueRefused(f"Binance refused {kind}: {text[:200]}") from error
        except UNSHAPED as error:
            raise VenueUnreachable(
                f"Binance's answer to {kind} cannot be read ({type(error).__name__}); ask again"
            ) from error


def _name(told: object) -> str:
    if not isinstance(told, str) or not told:
        raise TypeError(f"a symbol {told!r}")
    return told


def _candle(row: Any, *, mark: bool) -> list[float]:
    """Read a candle: open time, prices, volume; marks have none."""
    open_ms = int(row[0])
    if not 0 <= open_ms < LAST_MS:
        raise ValueError(f"a candle that opens at {row[0]}")
    return [float(open_ms), *map(float, row[1:5]), 0.0 if mark else float(row[5])]
