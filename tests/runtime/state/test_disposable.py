"""A replay's journal is thrown away with its run: nothing waits for it, all of it is written."""

from decimal import Decimal
from pathlib import Path

from bot4_runtime.domain.candle import Candle, Origin
from bot4_runtime.domain.events import SCHEMA_VERSION, CandleClosed, SessionStarted
from bot4_runtime.domain.order import Book
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.snapshot import list_snapshots
from bot4_runtime.state.store import SNAPSHOT_NS, StateStore

STARTED = SessionStarted(
    ts_event_ns=0, epoch=1, mode="replay", source="recorded:x", origin=Origin.SIMULATED,
    strategy="drill", config_hash="", schema_version=SCHEMA_VERSION, warm_from_ms=0, start_ms=0,
    quote="USDT", initial_cash=Decimal(1), books=(Book.VALIDATED,),
)  # fmt: skip
CLOSED = CandleClosed(
    ts_event_ns=1,
    candle=Candle(
        symbol="BTCUSDT", interval="1m", open_time_ms=0,
        open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0,
    ),
)  # fmt: skip


def test_nothing_waits_for_a_disposable_journal_yet_it_is_whole_at_the_end(tmp_path: Path) -> None:
    disk = MemoryDisk()
    journal = Journal(disk, threaded=False)
    store = StateStore(journal, tmp_path, disposable=True)
    store.recover()
    seq = store.append([STARTED, CLOSED])
    store.wait_durable(seq)
    assert journal.durable_seq == 0
    assert store.durable_seq == seq
    assert not store.tick(0)
    assert not store.tick(2 * SNAPSHOT_NS)
    assert store.create_snapshot() == seq
    assert journal.durable_seq == seq
    assert len(list_snapshots(tmp_path)) == 1
    store.close()

    again = StateStore(Journal(MemoryDisk(disk.frames, epoch=2)), None)
    again.recover()
    assert again.state.state_hash() == store.state.state_hash()
    again.close()
