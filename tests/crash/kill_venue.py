"""A loopback venue in a process of its own, and the operator's door to it.

Forked from a process without threads; it outlives every client and is judged by what it holds.
"""

import asyncio
import ctypes
import http.client
import os
import signal
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.sources import merged
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.hosting import serve
from bot4_runtime.venue.journal import FileSink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.server import VenueServer
from bot4_runtime.venue.tape import candle_prints

KEY, SECRET = "campaign-key", "campaign-secret"
CASH = Decimal(100_000)
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def die_with_parent() -> None:
    """Let the system kill this process when the one that forked it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class VenueProcess:
    """Forks a venue whose tape follows candles; `close` ends it.

    Args:
        series: one a symbol; the venue's clock starts with their first candle.
        journal: where the venue writes what happened.
        from_ms: candles that open before it are the past and are not on the tape.
        live: whether the venue's clock is the machine's; else it moves with the tape.
    """

    def __init__(
        self,
        series: Iterable[CandleSeries],
        journal: Path,
        from_ms: int,
        *,
        live: bool = False,
    ) -> None:
        listed = [s.between(from_ms, None) for s in series]
        from_venue, to_parent = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            die_with_parent()
            os.close(from_venue)
            code = 1
            try:
                _serve(listed, journal, None if live else from_ms, to_parent)
                code = 0
            finally:
                os._exit(code)
        os.close(to_parent)
        told = os.read(from_venue, 64)
        os.close(from_venue)
        assert told, "the venue did not come up"
        self.port, self.admin_port = (int(port) for port in told.split())

    def close(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


class Door:
    """The operator's door of a venue."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def advance(self, to_ms: int) -> int:
        """Let the market move up to a time; return the venue's time."""
        return int(self._call("POST", f"/_admin/advance?to_ms={to_ms}")["now_ms"])

    def ledger(self, after_order_id: int = 0) -> dict[str, Any]:
        """Return the venue's orders after a number, with their trades, and the account."""
        return self._call("GET", f"/_admin/ledger?api_key={KEY}&after_order_id={after_order_id}")

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str) -> dict[str, Any]:
        self._connection.request(method, path)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, (method, path, response.status, body)
        told: dict[str, Any] = msgspec.json.decode(body)
        return told


def rules_of(series: CandleSeries) -> SymbolRules:
    """The rules the engine will assume of a symbol, from the first candle it trades."""
    return SymbolRules.of(Instrument.assume(series.id.symbol, Market.SPOT, float(series.close[0])))


def _serve(
    listed: list[CandleSeries],
    journal: Path,
    clock_ms: int | None,
    to_parent: int,
) -> None:
    rules = {s.id.symbol: rules_of(s) for s in listed}
    sink = FileSink(journal)
    venue = Loopback(
        LiveClock() if clock_ms is None else ManualClock(clock_ms * 1_000_000),
        [
            (
                rules[s.id.symbol],
                (Decimal(repr(float(s.open[0]))) // rules[s.id.symbol].tick_size)
                * rules[s.id.symbol].tick_size,
            )
            for s in listed
        ],
        prints=candle_prints(merged(listed), rules),
        depth=Depth(level_quantity=Decimal(1_000_000)),
        sink=sink,
    )
    venue.open_account(1, KEY, SECRET, [("USDT", CASH)])

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)

        def ready(server: VenueServer) -> None:
            os.write(to_parent, f"{server.port} {server.admin_port}".encode())
            os.close(to_parent)

        await serve(VenueServer(venue, admin_port=0), stop, ready=ready)

    asyncio.run(run())
    sink.close()
