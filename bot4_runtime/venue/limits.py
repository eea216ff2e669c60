"""Request limits: windows on the wall clock, for the weight of requests and the count of orders.

Who goes on while over a limit is banned, longer every time. All clients of a venue on loopback
come from one address, so there is one set of windows for weight; orders count by account.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from bot4_runtime.venue.refusals import Refused

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
INTERVALS_MS: Final = {"SECOND": SECOND_MS, "MINUTE": MINUTE_MS, "DAY": 86_400_000}
LEFT_BY_OTHERS: Final = 100
"""Weight that another process of the same address leaves when it used up most."""
PATIENCE: Final = 10
"""Refused requests within a window from which their sender is banned."""
BANS_MS: Final = (2 * MINUTE_MS, 10 * MINUTE_MS, 60 * MINUTE_MS, 3 * 24 * 60 * MINUTE_MS)


class Limit(NamedTuple):
    """At most `most` within every `number` of an interval, ``SECOND``, ``MINUTE`` or ``DAY``."""

    kind: str
    interval: str
    number: int
    most: int

    @property
    def length_ms(self) -> int:
        """How long a window is."""
        return self.number * INTERVALS_MS[self.interval]

    @property
    def name(self) -> str:
        """As headers name it, such as ``1M``."""
        return f"{self.number}{self.interval[0]}"

    def told(self) -> dict[str, Any]:
        """Return what `exchangeInfo` tells of it."""
        return {
            "rateLimitType": self.kind,
            "interval": self.interval,
            "intervalNum": self.number,
            "limit": self.most,
        }


WEIGHT: Final = Limit("REQUEST_WEIGHT", "MINUTE", 1, 2_400)
ORDERS: Final = (Limit("ORDERS", "MINUTE", 1, 1_200), Limit("ORDERS", "SECOND", 10, 300))


class Window:
    """Counts within the present window of a limit."""

    def __init__(self, limit: Limit) -> None:
        self.limit: Final = limit
        self._number = -1
        self._used = 0

    def used(self, now_ms: int) -> int:
        """Return what the present window has seen."""
        number = now_ms // self.limit.length_ms
        if number != self._number:
            self._number, self._used = number, 0
        return self._used

    def add(self, now_ms: int, amount: int) -> int:
        """Count; return what the window has seen with it."""
        self._used = self.used(now_ms) + amount
        return self._used

    def wait_s(self, now_ms: int) -> int:
        """Return the seconds until the next window."""
        length_ms = self.limit.length_ms
        return -(-(length_ms - now_ms % length_ms) // SECOND_MS)


class Limited(Refused):
    """Refused for a limit; `retry_after_s` goes into a header."""

    def __init__(self, code: int, message: str, status: int, retry_after_s: int) -> None:
        super().__init__(code, message, status)
        self.retry_after_s = retry_after_s


class Limiter:
    """All windows of a venue.

    Args:
        weight: of requests; orders: counts of new orders.
        note: told when a client goes over one: the venue's time, and ``trespass`` (while it is
            banned), ``over_weight`` or ``over_orders``.
    """

    def __init__(
        self,
        weight: Limit = WEIGHT,
        orders: Sequence[Limit] = ORDERS,
        note: Callable[[int, str], object] = lambda _now_ms, _kind: None,
    ) -> None:
        self._note = note
        self.limits: Final = (weight, *orders)
        self._weight = Window(weight)
        self._order_limits = tuple(orders)
        self._orders: dict[str, tuple[Window, ...]] = {}
        self._refused = Window(weight)
        self._banned_until_ms = 0
        self._bans = 0

    def spend(self, now_ms: int, weight: int) -> None:
        """Count a request.

        Raises:
            Limited: -1003, with HTTP status 429 over the limit and 418 while banned.
        """
        if now_ms < self._banned_until_ms:
            self._note(now_ms, "trespass")
            raise self._banned(now_ms)
        most = self._weight.limit.most
        if self._weight.add(now_ms, weight) <= most:
            return
        self._note(now_ms, "over_weight")
        if self._refused.add(now_ms, 1) > PATIENCE:
            self._banned_until_ms = now_ms + BANS_MS[min(self._bans, len(BANS_MS) - 1)]
            self._bans += 1
            raise self._banned(now_ms)
        text = (
            f"Too many requests; current limit is {most} requests per minute. "
            "Please use the websocket for live updates to avoid polling the API."
        )
        raise Limited(-1003, text, 429, self._weight.wait_s(now_ms))

    def use(self, now_ms: int) -> None:
        """Count what somebody else at the same address used: most of this window's weight."""
        left = self._weight.limit.most - LEFT_BY_OTHERS - self._weight.used(now_ms)
        self._weight.add(now_ms, max(left, 0))

    def order(self, now_ms: int, api_key: str, number: int = 1) -> None:
        """Count new orders of an account; raises Limited -1015 with HTTP status 429."""
        windows = self._windows(api_key)
        for window in windows:
            limit = window.limit
            if not window.used(now_ms) + number <= limit.most:
                self._note(now_ms, "over_orders")
                text = (
                    f"Too many new orders; current limit is {limit.most} orders per "
                    f"{limit.number} {limit.interval}."
                )
                raise Limited(-1015, text, 429, window.wait_s(now_ms))
        for window in windows:
            window.add(now_ms, number)

    def headers(self, now_ms: int, api_key: str | None) -> dict[str, str]:
        """Return what answers carry: the weight used, and an account's orders."""
        told = {f"X-MBX-USED-WEIGHT-{WEIGHT.name}": str(self._weight.used(now_ms))}
        for window in self._windows(api_key) if api_key else ():
            told[f"X-MBX-ORDER-COUNT-{window.limit.name}"] = str(window.used(now_ms))
        return told

    def counts(self, now_ms: int, api_key: str | None) -> list[dict[str, Any]]:
        """Return what replies of the WebSocket API carry."""
        windows = (self._weight, *(self._windows(api_key) if api_key else ()))
        return [window.limit.told() | {"count": window.used(now_ms)} for window in windows]

    def _windows(self, api_key: str) -> tuple[Window, ...]:
        made = tuple(Window(limit) for limit in self._order_limits)
        return self._orders.setdefault(api_key, made)

    def _banned(self, now_ms: int) -> Limited:
        text = (
            f"Way too many requests; IP banned until {self._banned_until_ms}. "
            "Please use the websocket for live updates to avoid bans."
        )
        return Limited(-1003, text, 418, -(-(self._banned_until_ms - now_ms) // SECOND_MS))
