"""When a connection of the WebSocket API may be opened, and what a refused one asks for.

One for each line that is followed; the budget is shared by all ways to the venue.
"""

import asyncio
import time
from typing import Final

import aiohttp

from bot4_runtime.exchange.binance.failures import silence_ms
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.line_watch import ConnectPace

LOOK_AGAIN_S: Final = 0.5
"""How long is slept at most while the venue wants silence."""
MOST: Final = 75
"""Connections in five minutes: user stream and order line leave half of an address's 300."""


class Doorway:
    """Lets connections be opened while the venue wants no silence, and not too often.

    Args:
        budget: what may be asked of the venue.
        weight: what opening costs, with what is asked at once.
        pace: of the connections.
    """

    def __init__(
        self, budget: RequestBudget, weight: int, pace: ConnectPace | None = None
    ) -> None:
        self._budget = budget
        self._weight = weight
        self._pace = pace or ConnectPace(MOST)

    async def permitted(self) -> None:
        """Wait until a connection may be opened; it counts as opened."""
        while (wait_s := self._pace.wait_s(time.monotonic())) > 0:  # noqa: ASYNC110 - a clock
            await asyncio.sleep(min(wait_s, LOOK_AGAIN_S))
        while (wait_ms := self._budget.take(Lane.CANCEL, self._weight)) > 0:  # noqa: ASYNC110 - a clock
            await asyncio.sleep(min(wait_ms / 1000, LOOK_AGAIN_S))

    def heed(self, error: Exception) -> None:
        """Keep the silence that a refused handshake asks for: 403, 418 and 429 do."""
        if not isinstance(error, aiohttp.WSServerHandshakeError):
            return
        retry_after = error.headers.get("Retry-After") if error.headers is not None else None
        asked_ms = silence_ms(error.status, None, retry_after, self._budget.clock_ms())
        if asked_ms is not None:
            self._budget.stay_away(asked_ms)
