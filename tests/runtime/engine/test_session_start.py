"""Where a session begins: a source that runs now has no first candle to name."""

import threading
from collections.abc import Iterator, Mapping
from decimal import Decimal

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.order import Book
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.exchange.paper import PaperVenue
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.identity import WARM_CANDLES, Identity
from bot4_runtime.session import Ledger, Session
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.store import StateStore

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


class Silent:
    """A source that begins now and has nothing to tell yet; it remembers what it is asked."""

    label = "live"
    origin = Origin.REAL
    market = Market.SPOT
    interval = "1h"
    symbols = ("BTCUSDT",)
    start_ms = None

    def __init__(self) -> None:
        self.shown: list[tuple[int, int]] = []
        self.streamed: list[int] = []

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        self.shown.append((from_ms, to_ms))
        return iter(())

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        self.streamed.append(from_ms)
        return iter(())


def run(disk: MemoryDisk, source: Silent, now_ms: int) -> StateStore:
    """Run a session that ends at once; the engine is never asked for anything."""
    store = StateStore(Journal(disk, threaded=False), None)
    recovery = store.recover()
    venue = PaperVenue(PaperModel(), FeeCalculator(binance_schedule(Market.SPOT)))
    session = Session(
        identity=Identity("paper", "none", "c" * 64, "USDT", Decimal(100), (Book.VALIDATED,)),
        source=source,
        ledger=Ledger(store, EventBus()),
        engine=None,
        gate=Gate(venue, GateLimits(60, Decimal(1_000_000), 0.5), store.epoch),
        clock=ManualClock(now_ms * 1_000_000),
    )
    assert session.run(threading.Event(), recovery).candles == 0
    return store


def test_a_source_that_runs_now_begins_with_the_candle_that_is_open_and_stays_there() -> None:
    disk, source = MemoryDisk(), Silent()
    first = run(disk, source, NOON_MS + 59 * 60_000)
    assert first.state.session.start_ms == NOON_MS
    assert first.state.session.warm_from_ms == NOON_MS - WARM_CANDLES * HOUR_MS
    again = run(disk.reopen(), source, NOON_MS + 30 * HOUR_MS)
    assert again.state.session.start_ms == NOON_MS
    assert source.streamed == [NOON_MS, NOON_MS]


class Waiting(Silent):
    """A source that waits twice for a candle and then ends."""

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        self.streamed.append(from_ms)
        yield None
        yield None


def test_a_wait_with_nobody_to_ask_meanwhile_passes() -> None:
    store = run(MemoryDisk(), Waiting(), NOON_MS)
    assert store.state.cursor == {}
    assert store.state.session.start_ms == NOON_MS
