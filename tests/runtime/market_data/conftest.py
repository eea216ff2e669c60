"""Recorded messages of a real market, and a small venue on loopback."""

import gzip
import sys
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue.faults import FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

sys.path.insert(0, str(Path(__file__).parent))
from market_tape import FROM, tape


@pytest.fixture(scope="session")
def captured(test_data):
    """Yield (nanoseconds at the recorder, message) of a market's capture."""

    def read(market: str) -> Iterator[tuple[int, bytes]]:
        with gzip.open(test_data / "wire" / f"{market}_btcusdt_20240808.gz") as lines:
            for line in lines:
                received, _, message = line.partition(b" ")
                yield int(received), message.strip()

    return read


class Wire:
    """A venue being served, with its operator's door."""

    def __init__(self, venue, server):
        self.venue, self.port = venue, server.port
        self._admin = f"http://127.0.0.1:{server.admin_port}/_admin"

    def advance(self, to_ms):
        call = urllib.request.Request(f"{self._admin}/advance?to_ms={to_ms}", method="POST")
        urllib.request.urlopen(call, timeout=10).close()

    def faults(self, *rules):
        self.venue.schedule(FaultSchedule(rules))

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.read()

    def say(self, message):
        """Let the venue say something as it is, on its own thread."""
        followers = list(self.venue.market.followers)
        loop = self.loop
        loop.call_soon_threadsafe(lambda: [follower.send(message) for follower in followers])

    loop = kept = None


@pytest.fixture
def wire():
    kept = MemorySink()
    venue = Loopback(
        ManualClock(FROM * 1_000_000),
        [
            (SymbolRules.of(Instrument.assume(symbol, Market.SPOT, price)), Decimal(str(price)))
            for symbol, price in (("BTCUSDT", 40_000.0), ("ETHUSDT", 4_000.0))
        ],
        prints=tape(),
        sink=kept,
    )
    with hosted(venue, admin=True, ping_s=0.05) as server:
        made = Wire(venue, server)
        made.loop, made.kept = server_loop(server), kept
        yield made


def server_loop(server):
    return server._runners[0].server._loop
