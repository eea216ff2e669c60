"""Can Binance be reached from here? Decided within 10 seconds, whatever the network does."""

import threading
from dataclasses import dataclass
from typing import Final

from bot4_pipelines.ingest.archive import ARCHIVE_URL, FOLDERS, fetch
from bot4_pipelines.ingest.plan import Budget
from bot4_pipelines.ingest.rest import APIS
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import LocationRefused, VenueError

REST_URLS: Final = {
    Market.SPOT: "https://api.binance.com",
    Market.USDM: "https://fapi.binance.com",
}
DECIDE_S: Final = 9.0


@dataclass(frozen=True, slots=True)
class Reach:
    """What of Binance answers.

    Attributes:
        archive: the public archive answers.
        rest: the public REST API answers.
        reason: why not, when one does not; says so when Binance refuses this location.
    """

    archive: bool
    rest: bool
    reason: str = ""

    @property
    def any(self) -> bool:
        """Whether candles can be downloaded at all."""
        return self.archive or self.rest


def reach_binance(
    market: Market = Market.SPOT,
    *,
    archive_url: str | None = None,
    rest_url: str | None = None,
    within_s: float = DECIDE_S,
) -> Reach:
    """Ask the archive and the REST API for something small, both at once.

    Name resolution has no timeout of its own, so both run in threads that are left behind when
    the time is over.
    """
    sample = f"{FOLDERS[market]}/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-2021-01.zip.CHECKSUM"
    urls = {
        "archive": f"{(archive_url or ARCHIVE_URL).rstrip('/')}/data/{sample}",
        "REST": f"{(rest_url or REST_URLS[market]).rstrip('/')}{APIS[market][1]}/ping",
    }
    found: dict[str, str] = {}
    budget = Budget(within_s)

    def ask(name: str, url: str) -> None:
        try:
            fetch(url, budget, timeout_s=within_s / 3)
        except LocationRefused:
            found[name] = f"{name}: Binance refuses this location (HTTP 451)"
        except VenueError as error:
            found[name] = f"{name}: {error}"
        else:
            found[name] = ""

    threads = [
        threading.Thread(target=ask, args=item, daemon=True, name=f"reach {item[0]}")
        for item in urls.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(budget.left_s)
    answers = {name: found.get(name, f"{name}: no answer in {within_s:.0f} s") for name in urls}
    reason = "; ".join(answer for answer in answers.values() if answer)
    return Reach(archive=not answers["archive"], rest=not answers["REST"], reason=reason)
