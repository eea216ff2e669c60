"""Every position has a live stop, and a stop that was crossed gets done.

A stop that does not rest at the venue alarms and is asked for again. One whose price was crossed
must end the position within some seconds; if it does not, the watchdog closes, wherever the
price has gone since: a stop that fails once is not waited for. A price that is too old
(`Leg.blind`) crosses no stop. Legs of somebody else have none of ours.
"""

from typing import Final

from bot4_runtime.risk.alarm import CRITICAL, STOP_MISSING, STOP_NOT_DONE, Alarm
from bot4_runtime.risk.margin import Leg, Wallet

_NS_PER_S: Final = 1_000_000_000


class StopWatch:
    """What one look at the stops found.

    Attributes:
        alarms: what people do not know yet.
        overdue: legs to close now, with their wallets.
        missing: legs whose stop must be placed again; each is named once in `wait_s`.
    """

    def __init__(self) -> None:
        self.alarms: Final[list[Alarm]] = []
        self.overdue: Final[list[tuple[Wallet, Leg]]] = []
        self.missing: Final[list[tuple[Wallet, Leg]]] = []


class StopWatchdog:
    """Remembers which stops were crossed, and when.

    Args:
        wait_s: seconds that a stop may take to be done, or to be placed again.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_ns: Final = int(wait_s * _NS_PER_S)
        self._crossed: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        self._told: set[str] = set()

    def look(self, wallets: list[Wallet], now_ns: int) -> StopWatch:
        """Look at every leg's stop, at its price of now."""
        found = StopWatch()
        seen: set[str] = set()
        for wallet in wallets:
            for leg in wallet.legs:
                if leg.foreign:
                    continue
                seen.add(leg.stop_name)
                self._watch(wallet, leg, now_ns, found)
        for known in (self._crossed, self._asked):
            for gone in [name for name in known if name not in seen]:
                del known[gone]
                self._told.discard(gone)
        return found

    def _watch(self, wallet: Wallet, leg: Leg, now_ns: int, found: StopWatch) -> None:
        name = leg.stop_name
        beyond = (leg.price - leg.stop_price) * leg.side <= 0.0
        if name not in self._crossed and beyond and not leg.blind:
            self._crossed[name] = now_ns
            self._told.discard(name)
        crossed_ns = self._crossed.get(name, -1)
        if crossed_ns >= 0:
            if now_ns - crossed_ns >= self._wait_ns:
                found.overdue.append((wallet, leg))
                waited_s = (now_ns - crossed_ns) / _NS_PER_S
                self._tell(STOP_NOT_DONE, leg, f"crossed {waited_s:.1f} s ago, not done", found)
        elif leg.stop_live:
            if name in self._asked:
                del self._asked[name]
                self._told.discard(name)
        elif now_ns - self._asked.get(name, now_ns - self._wait_ns) >= self._wait_ns:
            self._asked[name] = now_ns
            found.missing.append((wallet, leg))
            self._tell(STOP_MISSING, leg, "no live stop protects it", found)

    def _tell(self, code: str, leg: Leg, text: str, found: StopWatch) -> None:
        if leg.stop_name in self._told:
            return
        self._told.add(leg.stop_name)
        numbers = {"price": leg.price, "stop_price": leg.stop_price}
        said = f"{leg.stop_name}: {text}"
        found.alarms.append(Alarm(CRITICAL, code, leg.symbol, said, numbers))
