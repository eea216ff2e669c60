"""A dead-man switch: countdowns at the venue that end entries when nobody is left to watch them.

While an entry is at work in a symbol, a countdown runs there that cancels its plain orders, and is
set anew at a third of its length. Stops are conditional orders and stay; where a venue's countdown
takes them too, they are put back as those of any stop that a venue ended. One that ran out while
this process stood still is told, so that the account is read before anything is begun.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from bot4_runtime.domain.errors import VenueError

REFRESHES: Final = 3
"""How often a countdown is set anew within its length."""
NS_PER_MS: Final = 1_000_000


class DeadMan:
    """Keeps countdowns running.

    Args:
        countdown: sets one of a symbol, in milliseconds; 0 stops it. May raise VenueError.
        length_ms: of each.
        timer: nanoseconds of a clock that never jumps.
    """

    def __init__(
        self,
        countdown: Callable[[str, int], object],
        length_ms: int,
        timer: Callable[[], int],
    ) -> None:
        self._countdown = countdown
        self._length_ms = length_ms
        self._timer = timer
        self._set_ms: dict[str, int] = {}

    def look(self, symbols: AbstractSet[str]) -> list[str]:
        """Set the countdowns that are due, and stop those that nothing needs any more.

        A venue that cannot be asked is asked again at the next look.

        Args:
            symbols: those with an entry at work.

        Returns:
            The symbols whose countdown ran out since the last look: their entries are gone.
        """
        now_ms = self._timer() // NS_PER_MS
        gone = sorted(s for s, at in self._set_ms.items() if now_ms >= at + self._length_ms)
        for symbol in gone:
            del self._set_ms[symbol]
        for symbol in sorted(self._set_ms.keys() - symbols):
            if self._asked(symbol, 0):
                del self._set_ms[symbol]
        for symbol in sorted(symbols - set(gone)):
            due_ms = self._set_ms.get(symbol, now_ms - self._length_ms)
            due_ms += self._length_ms // REFRESHES
            if now_ms >= due_ms and self._asked(symbol, self._length_ms):
                self._set_ms[symbol] = now_ms
        return gone

    def _asked(self, symbol: str, length_ms: int) -> bool:
        try:
            self._countdown(symbol, length_ms)
        except VenueError:
            return False
        return True
