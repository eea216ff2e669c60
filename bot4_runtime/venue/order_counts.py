"""How many new orders of an account have not filled yet, in windows of the venue's clock.

Spot counts so: an order that is taken adds one to each window, its first fill gives some back, to
who made the price more than to who took it, and never below nothing. Who has used a window up is
refused with -1015 and HTTP status 429 until it ends; cancels go. Source: rest-api.md, "Unfilled
Order Count", and faqs/order_count_decrement.md of binance/binance-spot-api-docs at a5e0bc3; the
numbers given back are this venue's.
"""

from collections.abc import Sequence
from typing import Any, Final

from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.limits import Limit, Limited, Window

SPOT_ORDERS: Final = (Limit("ORDERS", "SECOND", 10, 100), Limit("ORDERS", "DAY", 1, 200_000))
"""What Binance's documentation shows."""
TAKER_GETS: Final = 1
MAKER_GETS: Final = 5


class OrderCounts:
    """The counts of all accounts.

    Args:
        journal: is told ``over_orders`` of who asks for more.
        limits: none count nothing.
    """

    def __init__(self, journal: VenueJournal, limits: Sequence[Limit] = ()) -> None:
        self.limits: Final = tuple(limits)
        self._journal = journal
        self._windows: dict[int, tuple[Window, ...]] = {}

    def take(self, now_ms: int, uid: int, number: int = 1) -> None:
        """Count new orders; raises Limited when a window has no room for them."""
        self.require(now_ms, uid, number)
        for window in self._of(uid):
            window.add(now_ms, number)

    def require(self, now_ms: int, uid: int, number: int = 1) -> None:
        """Refuse new orders for which a window has no room, and count none."""
        for window in self._of(uid):
            limit = window.limit
            if not window.used(now_ms) + number <= limit.most:
                self._journal.add(now_ms, "over_orders", uid, {"call": f"{number} orders"})
                text = (
                    f"Too many new orders; current limit is {limit.most} orders per "
                    f"{limit.number} {limit.interval}."
                )
                raise Limited(-1015, text, 429, window.wait_s(now_ms))

    def give_back(self, now_ms: int, uid: int, number: int) -> None:
        """Take orders off the counts, as far as there are any."""
        for window in self._of(uid):
            window.add(now_ms, -min(number, window.used(now_ms)))

    def filled(self, now_ms: int, uid: int, *, maker: bool) -> None:
        """Give back what an order's first fill does."""
        self.give_back(now_ms, uid, MAKER_GETS if maker else TAKER_GETS)

    def headers(self, now_ms: int, uid: int) -> dict[str, str]:
        """Return what answers to new orders carry."""
        return {
            f"X-MBX-ORDER-COUNT-{window.limit.name}": str(window.used(now_ms))
            for window in self._of(uid)
        }

    def told(self, now_ms: int, uid: int) -> list[dict[str, Any]]:
        """Return what replies of the WebSocket API to new orders carry."""
        return [window.limit.told() | {"count": window.used(now_ms)} for window in self._of(uid)]

    def _of(self, uid: int) -> tuple[Window, ...]:
        made = tuple(Window(limit) for limit in self.limits)
        return self._windows.setdefault(uid, made)
