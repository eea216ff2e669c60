"""The pipeline's share of what Binance may be asked, and its pauses.

The count is the machine's, `bot4_runtime.exchange.binance.limits`: weight that the runtime uses
counts here too, and a ban that either was told holds for both. Data may use half of the limit;
the rest is for trading.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bot4_pipelines.ingest.plan import Budget
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.exchange.binance.limits import WEIGHT, Lane, RequestBudget, shared_budget

TRIES: Final = 3
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
WEIGHTS: Final = {market: int(limit.most * Lane.DATA.value) for market, limit in WEIGHT.items()}
"""Weight a minute that data may use at most, until the venue tells another limit."""


def machine_rate(market: Market, rest_url: str | None, root: Path) -> "SharedRate":
    """Return the budget of a market's requests.

    Args:
        market: whose limit it is.
        rest_url: a proxy or another server has a count of its own, kept with the data; Binance's
            is kept in this machine's folder of temporary files, since it counts by address.
        root: of the data.
    """
    own = shared_budget(market)
    return SharedRate(
        own if rest_url is None else RequestBudget(root / f".rate-{market.value}.json", market)
    )


def pause_s(attempt: int, retry_after_s: float | None = None) -> float:
    """Return how long to wait before the next try: what the server says, else twice as long.

    Args:
        attempt: tries that failed, from 1.
        retry_after_s: of the answer, seconds.
    """
    if retry_after_s is not None:
        return retry_after_s
    grown = min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LONGEST_PAUSE_S)
    return grown * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, hides nothing


def retry_after_s(text: str | None) -> float | None:
    """Read a ``Retry-After`` header of seconds; None when there is none that can be read."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < float("inf") else None


def wait(seconds: float, budget: Budget, why: str) -> None:
    """Wait, if the time budget allows it.

    Raises:
        VenueUnreachable: it would be over before.
    """
    if seconds > budget.left_s:
        raise VenueUnreachable(
            f"{why}; the next try is due in {seconds:.0f} s, the time budget ends in "
            f"{budget.left_s:.0f} s: run again later"
        )
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class SharedRate:
    """Waits for the machine's budget, as long as a time budget allows.

    Attributes:
        requests: the budget.
    """

    requests: RequestBudget

    def take(self, weight: int, budget: Budget) -> None:
        """Use weight, after waiting for the next minute or the end of a ban where needed.

        Raises:
            VenueUnreachable: the time budget ends before.
        """
        while (left_ms := self.requests.take(Lane.DATA, weight)) > 0:
            wait(left_ms / 1000, budget, "Binance's request limit is used up or it has banned us")

    def stay_away(self, seconds: float) -> None:
        """Let no process of this machine ask before this long."""
        self.requests.stay_away(seconds * 1000)
