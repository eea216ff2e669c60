"""A small venue: one market in BTCUSDT at 40,000, one in BNBUSDT at 320, and two customers.

Makes `futures_venue` importable for the tests of this folder.
"""

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

PRICES = {"BTCUSDT": 40_000.0, "BNBUSDT": 320.0}
NOW_NS = 1_800_000_000_000 * 1_000_000


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make(sink) -> Callable[..., Loopback]:
    def made(*, live=False, prints=(), depth=None) -> Loopback:
        venue = Loopback(
            LiveClock() if live else ManualClock(NOW_NS),
            [
                (
                    SymbolRules.of(Instrument.assume(symbol, Market.SPOT, price)),
                    Decimal(str(price)),
                )
                for symbol, price in PRICES.items()
            ],
            prints=prints,
            depth=depth or Depth(),
            sink=sink,
        )
        for uid in (1, 2):
            money = [("USDT", Decimal(100_000)), ("BTC", Decimal(2))]
            venue.open_account(uid, f"key{uid}", f"secret{uid}", money)
        return venue

    return made
