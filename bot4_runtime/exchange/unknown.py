"""Orders whose outcome is not known: asked for by name, and never sent again.

An order that a venue does not know may still be on its way. It counts as never placed only
after the last moment at which it could have been sent, plus the window within which the venue
takes it, plus what the clocks may be apart, plus a margin, and only when two reads at some
distance both miss it. Until then its whole quantity stays reserved.
"""

from typing import Final

RECV_WINDOW_MS: Final = 2_000
"""How long after its timestamp a venue still takes a request; sent with every order."""
MARGIN_MS: Final = 10_000
APART_MS: Final = 2_000
"""Least distance of the two reads."""


class UnknownOrders:
    """When orders of unknown outcome were last sent, and since when the venue misses them.

    Times are of a clock that never jumps, in milliseconds.
    """

    def __init__(self) -> None:
        self._sent_ms: dict[int, int] = {}
        self._missed_ms: dict[int, int] = {}

    def sent(self, intent_no: int, latest_ms: int) -> None:
        """Note the last moment at which an order can have been sent."""
        self._sent_ms[intent_no] = latest_ms

    def missed(self, intent_no: int, now_ms: int, clock_error_ms: int) -> bool:
        """Note that the venue does not know an order; True when it was never placed.

        Args:
            intent_no: the order.
            now_ms: when the venue was asked.
            clock_error_ms: how far our clock and the venue's may be apart.
        """
        sent_ms = self._sent_ms.setdefault(intent_no, now_ms)
        if now_ms < sent_ms + RECV_WINDOW_MS + clock_error_ms + MARGIN_MS:
            return False
        if now_ms < self._missed_ms.setdefault(intent_no, now_ms) + APART_MS:
            return False
        self.found(intent_no)
        return True

    def found(self, intent_no: int) -> None:
        """Forget an order: its outcome is known."""
        self._sent_ms.pop(intent_no, None)
        self._missed_ms.pop(intent_no, None)
