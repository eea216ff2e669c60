"""Which symbols Binance has: asked for once an hour by all processes over one BOT4_HOME.

The list is the heaviest thing that an hourly run would ask for, and hardly ever changes. It is
kept in a small file; one that is older than an hour, of another server, unreadable, or without the
symbol that is wanted is no list, and Binance is asked anew.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from bot4_pipelines.records import write_atomically
from bot4_runtime.candles.store import locked
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import StoreBusy

FORMAT: Final = 1
KEPT_MS: Final = 3_600_000
WAIT_S: Final = 20.0
"""How long to wait for a process that is asking just now, before asking beside it."""
MOST_BYTES: Final = 4_000_000


class _Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds.

    Attributes:
        server: whose list it is; empty for Binance's own host.
        asked_ms: when, UTC.
    """

    format: int
    market: Market
    server: str
    asked_ms: int
    symbols: tuple[str, ...]


class MarketList:
    """The symbols of one market of one server.

    Args:
        root: of the data; the file lies in its folder ``.markets``.
        market: whose symbols.
        server: replaces Binance's host; None is Binance's own.
        clock_ms: UTC.
    """

    def __init__(
        self,
        root: Path,
        market: Market,
        server: str | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._path = root / ".markets" / f"{market.value}.json"
        self._market = market
        self._server = server or ""
        self._clock_ms = clock_ms

    def symbols(
        self, wanted: Collection[str], ask: Callable[[], Collection[str]], wait_s: float = WAIT_S
    ) -> frozenset[str]:
        """Return the symbols there are: the kept list if it names those wanted, else a new one.

        Whoever finds no list asks; others that find none meanwhile wait for what it is told.

        Args:
            wanted: symbols that must be on a kept list.
            ask: asks the server; what it raises is raised here, and nothing is kept.
            wait_s: at most for another process that is asking.
        """
        kept = self._kept()
        if kept is not None and kept.issuperset(wanted):
            return kept
        with self._alone(wait_s):
            again = self._kept()
            if again is not None and again != kept and again.issuperset(wanted):
                return again
            asked_ms, found = self._clock_ms(), frozenset(ask())
            self._keep(asked_ms, found)
        return found

    @contextlib.contextmanager
    def _alone(self, wait_s: float) -> Iterator[None]:
        """Hold the list's lock, if it can be had: a list too many is no harm."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(StoreBusy, OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self._path.parent, wait_s))
            yield

    def _kept(self) -> frozenset[str] | None:
        """Return the list of the file; None when there is none that may be taken."""
        try:
            with self._path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            told = msgspec.json.decode(content, type=_Listed)
        except (OSError, msgspec.DecodeError, UnicodeError):
            return None
        whole = len(content) <= MOST_BYTES and told.symbols and all(told.symbols)
        mine = (told.format, told.market, told.server) == (FORMAT, self._market, self._server)
        fresh = 0 <= self._clock_ms() - told.asked_ms < KEPT_MS
        return frozenset(told.symbols) if whole and mine and fresh else None

    def _keep(self, asked_ms: int, symbols: frozenset[str]) -> None:
        """Write the list down; a folder that cannot be written to keeps none."""
        told = _Listed(
            format=FORMAT,
            market=self._market,
            server=self._server,
            asked_ms=asked_ms,
            symbols=tuple(sorted(symbols)),
        )
        with contextlib.suppress(OSError):
            write_atomically(self._path, msgspec.json.encode(told))
