"""What stands at the venue's door: bans, limits of new orders, revoked keys, and used weight.

All times are the venue's. A request that comes while the venue wants silence is refused and
journaled as a ``trespass``, one with a revoked key as ``revoked``. Trespassing on a 429 leads to
a ban with 418, and each one more doubles it, from two minutes up to three days.

Weights and limits: rest-api.md of binance/binance-spot-api-docs at a5e0bc3 (2026-07-17); calls
not named there are refused anyway.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from bot4_runtime.venue.journal import VenueJournal

WEIGHT_LIMIT: Final = 6_000
"""Weight that an address may use within a minute of the venue's clock."""
FOREIGN_USE: Final = WEIGHT_LIMIT - 100
"""Weight of a minute that is gone when another process of the same address used it; what is
left is less than a look at the account with its orders and trades costs."""
FIRST_BAN_S: Final = 120.0
LONGEST_BAN_S: Final = 3 * 86_400.0
MINUTE_MS: Final = 60_000
_WEIGHTS: Final = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/exchangeInfo": 20,
    "/api/v3/klines": 2,
    "/api/v3/depth": 5,
    "/api/v3/trades": 25,
    "/api/v3/order": 4,
    "/api/v3/openOrders": 80,
    "/api/v3/myTrades": 20,
    "/api/v3/account": 20,
}
_OPEN_OF_ONE: Final = 6
_TRADES_OF_ONE: Final = 5
SPOT_ORDERS: Final = frozenset({"POST /api/v3/order"})


class Refusal(NamedTuple):
    """An answer from the door: HTTP status, Binance's code and text, seconds to stay away."""

    status: int
    code: int
    text: str
    retry_after_s: int | None


def weight_of(call: str, values: Mapping[str, Any]) -> int:
    """Return what a call costs; new orders and cancels cost theirs only when they fail."""
    method, _, path = call.partition(" ")
    if path == "/api/v3/openOrders" and "symbol" in values:
        return _OPEN_OF_ONE
    if path == "/api/v3/myTrades" and "orderId" in values:
        return _TRADES_OF_ONE
    return 1 if method != "GET" else _WEIGHTS.get(path, 1)


class Door:
    """Lets requests in, or sends them away.

    Args:
        journal: is told of trespasses.
        weigh: what a call with these values costs; None where weight is counted elsewhere.
        orders: calls that bring new orders about.
    """

    def __init__(
        self,
        journal: VenueJournal,
        weigh: Callable[[str, Mapping[str, str]], int] | None = weight_of,
        orders: AbstractSet[str] = SPOT_ORDERS,
    ) -> None:
        self._journal = journal
        self._weigh = weigh
        self._orders = orders
        self._silent_until_ms = 0
        self._banned = False
        self._ban_s = FIRST_BAN_S
        self._orders_until_ms = 0
        self._revoked_until_ms: dict[str, float] = {}
        self._minute = 0
        self._used = 0

    def limit(self, now_ms: int, seconds: float) -> None:
        """Want silence for a while: 429."""
        self._silent_until_ms = max(self._silent_until_ms, now_ms + math.ceil(seconds * 1000))

    def ban(self, now_ms: int, seconds: float) -> None:
        """Want silence for a while: 418."""
        self._banned = True
        self._ban_s = max(self._ban_s, seconds)
        self.limit(now_ms, seconds)

    def limit_orders(self, now_ms: int, seconds: float) -> None:
        """Want no new orders for a while: 429 with -1015."""
        self._orders_until_ms = max(self._orders_until_ms, now_ms + math.ceil(seconds * 1000))

    def revoke(self, api_key: str, now_ms: int, seconds: float) -> None:
        """Let a key open nothing for a while; 0 is for ever."""
        self._revoked_until_ms[api_key] = now_ms + seconds * 1000 if seconds else math.inf

    def denies(self, api_key: str, now_ms: int, call: str) -> bool:
        """Tell whether a key opens nothing now, and note what it was to open."""
        denied = now_ms < self._revoked_until_ms.get(api_key, 0)
        if denied:
            self._journal.add(now_ms, "revoked", 0, {"call": call})
        return denied

    def use(self, now_ms: int) -> None:
        """Count what somebody else at the same address used: most of this minute's weight."""
        self._turn(now_ms)
        self._used = max(self._used, FOREIGN_USE)

    def refusal(self, now_ms: int, call: str, values: Mapping[str, str]) -> Refusal | None:
        """Return why a request is sent away; None lets it in and counts its weight.

        Args:
            now_ms: the venue's time.
            call: ``GET /api/v3/account`` and the like.
            values: its parameters.
        """
        self._turn(now_ms)
        if now_ms < self._silent_until_ms:
            self._note(now_ms, call)
            if self._banned:
                self._ban_s = min(self._ban_s * 2, LONGEST_BAN_S)
            self.ban(now_ms, self._ban_s)
            return self._silence(now_ms)
        self._banned = False
        if call in self._orders and now_ms < self._orders_until_ms:
            self._note(now_ms, call)
            return self.order_limit(now_ms)
        if self._weigh is None:
            return None
        self._used += self._weigh(call, values)
        if self._used > WEIGHT_LIMIT:
            self._journal.add(now_ms, "over_weight", 0, {"call": call, "used": self._used})
            self.limit(now_ms, (MINUTE_MS - now_ms % MINUTE_MS) / 1000)
            return self._silence(now_ms)
        return None

    def silence(self, now_ms: int) -> Refusal | None:
        """Return why the venue wants silence; None when it wants none. Nothing is counted."""
        return self._silence(now_ms) if now_ms < self._silent_until_ms else None

    def order_limit(self, now_ms: int) -> Refusal:
        """Return the refusal of a new order while the venue wants none."""
        left_s = math.ceil(max(self._orders_until_ms - now_ms, 0) / 1000)
        text = "Too many new orders; current limit is 100 orders per 10 SECOND."
        return Refusal(429, -1015, text, left_s)

    def given_back(self, call: str) -> None:
        """Take back the weight of a call that costs none when it succeeds."""
        if call in {"POST /api/v3/order", "DELETE /api/v3/order"}:
            self._used -= 1

    def headers(self, now_ms: int) -> dict[str, str]:
        """Return what every answer tells of the weight used in this minute."""
        self._turn(now_ms)
        return {"X-MBX-USED-WEIGHT-1M": str(self._used)}

    def _silence(self, now_ms: int) -> Refusal:
        until_ms = self._silent_until_ms
        left_s = math.ceil((until_ms - now_ms) / 1000)
        if self._banned:
            text = (
                f"Way too much request weight used; IP banned until {until_ms}. Please use "
                "WebSocket Streams for live updates to avoid bans."
            )
            return Refusal(418, -1003, text, left_s)
        text = (
            f"Too much request weight used; current limit is {WEIGHT_LIMIT} request weight per "
            "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return Refusal(429, -1003, text, left_s)

    def _turn(self, now_ms: int) -> None:
        if now_ms // MINUTE_MS != self._minute:
            self._minute, self._used = now_ms // MINUTE_MS, 0

    def _note(self, now_ms: int, call: str) -> None:
        self._journal.add(now_ms, "trespass", 0, {"call": call})
