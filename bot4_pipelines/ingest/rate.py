"""How often Binance may be asked: one budget of request weight for all processes on a machine.

Binance counts weight by IP address and minute, answers 429 when it is used up and 418, with a ban
of minutes to days, when that is ignored; both say in ``Retry-After`` how long to stay away. The
count is kept in a small file under a lock, so that workers of one machine do not add up to a ban.
Source: developers.binance.com, "LIMITS", general information of the spot and USD-M REST APIs.
"""

import fcntl
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bot4_pipelines.ingest.plan import Budget
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import VenueUnreachable

WEIGHTS: Final = {Market.SPOT: 3_000, Market.USDM: 1_200}
"""Weight a minute that is used at most: half of what Binance allows, the rest is for trading."""
TRIES: Final = 3
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0
MINUTE_MS: Final = 60_000


def machine_rate(market: Market, rest_url: str | None, root: Path) -> "SharedRate":
    """Return the budget of a market's requests.

    Args:
        market: whose limit it is.
        rest_url: a proxy or another server has a count of its own, kept with the data; Binance's
            is kept in this machine's folder of temporary files, since it counts by address.
        root: of the data.
    """
    name = f"rate-{market.value}.json"
    own = Path(tempfile.gettempdir()) / f"bot4-{os.getuid()}" / name
    return SharedRate(own if rest_url is None else root / f".{name}", WEIGHTS[market])


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
    """The weight that processes of this machine used in the present minute.

    Attributes:
        path: of the file; one a market.
        weight_a_minute: above which `take` waits for the next minute.
        clock_ms: the present, UTC.
    """

    path: Path
    weight_a_minute: int
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def take(self, weight: int, budget: Budget) -> None:
        """Use weight, after waiting for the next minute or the end of a ban where needed.

        Raises:
            VenueUnreachable: the time budget ends before.
        """
        while (left_ms := self._try(weight)) > 0:
            wait(left_ms / 1000, budget, "Binance's request limit is used up or it has banned us")

    def stay_away(self, seconds: float) -> None:
        """Let no process of this machine ask before this long."""
        now = self.clock_ms()

        def told(state: dict[str, int]) -> int:
            state["until_ms"] = max(state["until_ms"], now + round(seconds * 1000))
            return 0

        self._change(told)

    def _try(self, weight: int) -> int:
        """Take weight and return 0, or return in how many milliseconds there may be some."""
        now = self.clock_ms()
        minute = now // MINUTE_MS

        def taken(state: dict[str, int]) -> int:
            if state["until_ms"] > now:
                return state["until_ms"] - now
            used = state["used"] if state["minute"] == minute else 0
            if used and used + weight > self.weight_a_minute:
                return (minute + 1) * MINUTE_MS - now
            state["minute"], state["used"] = minute, used + weight
            return 0

        return self._change(taken)

    def _change(self, change: Callable[[dict[str, int]], int]) -> int:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123 - a descriptor
            fcntl.flock(file, fcntl.LOCK_EX)
            state = _read(file.read())
            answer = change(state)
            file.seek(0)
            file.truncate()
            file.write(json.dumps(state).encode())
        return answer


def _read(data: bytes) -> dict[str, int]:
    """Read the file; a torn one counts as nothing used."""
    empty = {"minute": 0, "used": 0, "until_ms": 0}
    try:
        held = json.loads(data)
        return {name: int(held[name]) for name in empty}
    except (ValueError, KeyError, TypeError):
        return empty
