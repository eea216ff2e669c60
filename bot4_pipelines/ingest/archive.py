"""Binance's public archive: zips of candles by month and by day, each with its SHA-256.

Mark prices lie beside the candles they belong to, funding rates by month only.

Source of the layout: github.com/binance/binance-public-data. Verified zips are kept in a folder,
so a download that was cut short goes on where it stopped.
"""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, TypeVar

from bot4_pipelines.ingest.plan import Budget
from bot4_pipelines.ingest.rate import TRIES, pause_s, retry_after_s, wait
from bot4_runtime.candles.files import RawCandles, from_zip
from bot4_runtime.candles.funding import FundingRates, funding_from_zip
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError, LocationRefused, VenueRefused, VenueUnreachable

ARCHIVE_URL: Final = "https://data.binance.vision"
KLINES, MARK = "klines", "markPriceKlines"
FOLDERS: Final = {Market.SPOT: "spot", Market.USDM: "futures/um"}
Rows = TypeVar("Rows")
TIMEOUT_S: Final = 8.0
CHUNK: Final = 65_536
BUSY: Final = frozenset({418, http.client.TOO_MANY_REQUESTS})
"""Binance's answers to too many requests; 418 is a ban, and ends by itself."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive and the folder its verified zips are kept in.

    Attributes:
        base_url: host, replaceable for a mirror or a server on loopback.
        timeout_s: longest silence of a connection.
    """

    cache: Path
    base_url: str = ARCHIVE_URL
    timeout_s: float = TIMEOUT_S

    def month(
        self,
        market: Market,
        symbol: str,
        interval: str,
        month: date,
        budget: Budget,
        kind: str = KLINES,
    ) -> RawCandles | None:
        """Fetch a month of `KLINES` or `MARK` prices.

        None when the archive has none: not listed yet, or not published yet.

        Raises:
            VenueUnreachable: no answer within the timeout or the budget.
            LocationRefused: HTTP 451.
            DataError: the file does not have the published SHA-256, or holds no candles.
        """
        name = f"{symbol}-{interval}-{month:%Y-%m}.zip"
        return self._candles(
            f"{FOLDERS[market]}/monthly/{kind}/{symbol}/{interval}/{name}", budget
        )

    def day(
        self,
        market: Market,
        symbol: str,
        interval: str,
        day: date,
        budget: Budget,
        kind: str = KLINES,
    ) -> RawCandles | None:
        """Fetch a day; None when the archive has none. Raises as `month`."""
        name = f"{symbol}-{interval}-{day:%Y-%m-%d}.zip"
        return self._candles(f"{FOLDERS[market]}/daily/{kind}/{symbol}/{interval}/{name}", budget)

    def funding(self, symbol: str, month: date, budget: Budget) -> FundingRates | None:
        """Fetch a month of a USD-M perpetual's funding rates; None as `month`, raises as it."""
        place = f"{FOLDERS[Market.USDM]}/monthly/fundingRate/{symbol}"
        name = f"{symbol}-fundingRate-{month:%Y-%m}.zip"
        return self._file(f"{place}/{name}", budget, funding_from_zip)

    def _candles(self, place: str, budget: Budget) -> RawCandles | None:
        return self._file(place, budget, from_zip)

    def _file(
        self, place: str, budget: Budget, read: Callable[[bytes, str, str], Rows]
    ) -> Rows | None:
        name = place.rsplit("/", 1)[1]
        symbol = name.split("-", 1)[0]
        kept = self.cache / place
        if kept.exists():
            return read(kept.read_bytes(), symbol, name)
        data = self._verified(f"{self.base_url.rstrip('/')}/data/{place}", budget)
        if data is None:
            return None
        raw = read(data, symbol, name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(kept)
        return raw

    def _verified(self, url: str, budget: Budget) -> bytes | None:
        expected = found = ""
        for _ in range(TRIES):
            data = fetch(url, budget, self.timeout_s)
            if data is None:
                return None
            published = fetch(f"{url}.CHECKSUM", budget, self.timeout_s)
            expected = _published_sha256(published, url)
            found = hashlib.sha256(data).hexdigest()
            if found == expected:
                return data
        raise DataError(
            f"{url} has SHA-256 {found}, its CHECKSUM file says {expected}; "
            "nothing of it was kept: try again later"
        )


def fetch(url: str, budget: Budget, timeout_s: float = TIMEOUT_S) -> bytes | None:
    """Get a URL; None for HTTP 404.

    What may pass is tried again after a pause that doubles, or that the server asks for.

    Raises:
        LocationRefused: HTTP 451, never tried again.
        VenueRefused: another HTTP error below 500 but 418 and 429.
        VenueUnreachable: no answer, a broken one, HTTP 418, 429 or 5xx, after `TRIES` tries or
            when the budget ends before the next.
    """
    fault: Exception | None = None
    asked: float | None = None
    for attempt in range(TRIES):
        if attempt:
            wait(pause_s(attempt, asked), budget, f"no answer from {url}: {fault}")
        if budget.spent:
            break
        asked = None
        try:
            return _get(url, budget, timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.NOT_FOUND:
                return None
            if error.code not in BUSY:
                _refuse(url, error)
            asked = retry_after_s(error.headers.get("Retry-After"))
            fault = error
        except (OSError, http.client.HTTPException) as error:
            fault = error
    why = "the time budget is spent" if fault is None else str(fault)
    raise VenueUnreachable(f"no answer from {url}: {why}") from fault


def _get(url: str, budget: Budget, timeout_s: float) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "bot4"})  # noqa: S310 - setting
    limit = max(0.05, min(timeout_s, budget.left_s))
    parts = []
    with urllib.request.urlopen(request, timeout=limit) as answer:  # noqa: S310 - a setting
        while part := answer.read1(CHUNK):
            parts.append(part)
            if budget.spent:
                raise TimeoutError("the time budget is spent")
        length = answer.headers.get("Content-Length")
    data = b"".join(parts)
    if length is not None and len(data) != int(length):
        raise http.client.IncompleteRead(data, int(length) - len(data))
    return data


def _refuse(url: str, error: urllib.error.HTTPError) -> None:
    if error.code == http.client.UNAVAILABLE_FOR_LEGAL_REASONS:
        raise LocationRefused(
            f"Binance refuses this location (HTTP 451 from {url}); use candles of your own "
            "(BOT4_CANDLES_DIR) or the simulated market"
        ) from error
    if error.code < http.client.INTERNAL_SERVER_ERROR:
        raise VenueRefused(f"{url} was refused: HTTP {error.code} {error.reason}") from error


def _published_sha256(text: bytes | None, url: str) -> str:
    found = re.match(rb"\s*([0-9a-fA-F]{64})\b", text or b"")
    if found is None:
        raise DataError(f"{url}.CHECKSUM holds no SHA-256; nothing of the file was kept")
    return found.group(1).decode().lower()
