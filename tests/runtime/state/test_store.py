"""Recovery, snapshots, faults, and readers beside the writer."""

import gc
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_scenario import SYMBOLS, Scenario, candle, fill, intended, session

from bot4_runtime.domain.errors import (
    InvariantViolated,
    JournalCorrupt,
    JournalError,
    JournalWriteFailed,
)
from bot4_runtime.domain.events import CandleClosed, OrderAccepted
from bot4_runtime.domain.order import Book, Purpose, Side
from bot4_runtime.state import journal as journal_module
from bot4_runtime.state import snapshot
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.frames import decode_frame, encode_frames
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import SNAPSHOT_NS, StateStore

MINUTE_NS = 60_000_000_000


def started(disk: MemoryDisk | None = None, snapshots: Path | None = None) -> StateStore:
    store = StateStore(Journal(disk or MemoryDisk()), snapshots)
    store.recover()
    return store


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    crash=st.floats(0, 1),
    snapshots=st.lists(st.floats(0, 1), max_size=3),
)
def test_a_crash_after_any_durable_batch_recovers_and_ends_with_the_same_hash(
    tmp_path_factory, seed, crash, snapshots
):
    scenario = Scenario(seed, 40)
    batches = scenario.batches()
    folder = tmp_path_factory.mktemp("snapshots")
    stop = int(crash * len(batches))
    take_at = {int(share * stop) for share in snapshots}
    disk = MemoryDisk()
    store = started(disk, folder)
    for number, batch in enumerate(batches[:stop]):
        store.append(batch)
        if number in take_at:
            assert store.create_snapshot() == store.state.seq
    store.wait_durable(store.state.seq)
    before = store.state.state_hash()

    again = StateStore(Journal(MemoryDisk(disk.frames, epoch=2)), folder)
    report = again.recover()
    assert again.state.state_hash() == before
    assert (report.snapshot_seq is not None) == any(number < stop for number in take_at)
    assert report.last_seq == report.events_replayed + (report.snapshot_seq or 0)
    again.append([session(again.epoch)] if stop else [])
    for batch in batches[stop:]:
        again.append(batch)
    assert again.state.state_hash() == scenario.hashes[-1]
    if stop:
        assert again.state.epoch == 2 or stop == len(batches)
    store.close()
    again.close()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1_000), fail_at=st.integers(1, 30))
def test_after_a_failed_write_recovery_finds_every_acknowledged_batch(seed, fail_at):
    disk = MemoryDisk(fail_at=fail_at)
    store = started(disk)
    hashes = {0: store.state.state_hash()}
    acknowledged = 0
    with pytest.raises(JournalWriteFailed):
        for batch in Scenario(seed, 40).batches():
            seq = store.append(batch)
            hashes[seq] = store.state.state_hash()
            store.wait_durable(seq)
            acknowledged = seq
    with pytest.raises(JournalWriteFailed):
        store.append([candle("X", 0, 1.0)])
    again = started(MemoryDisk(disk.frames))
    assert again.state.seq == acknowledged
    assert again.state.state_hash() == hashes[acknowledged]
    again.close()


def test_on_sqlite_a_restarted_store_goes_on_where_it_stopped(tmp_path):
    scenario = Scenario(8, 60)
    batches = scenario.batches()
    done = 0
    while done < len(batches):
        store = StateStore(
            Journal(SqliteDisk.open(tmp_path / "journal.db", "paper")), tmp_path / "snapshots"
        )
        report = store.recover()
        assert report.last_seq == store.state.seq == store.durable_seq
        for batch in batches[done : done + 25]:
            store.append(batch)
        done += 25
        if done % 2:
            store.create_snapshot()
        store.close()
        store.close()
    assert store.state.state_hash() == scenario.hashes[-1]


def test_the_version_to_recover_from_can_be_chosen(tmp_path):
    disk = MemoryDisk()
    store = started(disk, tmp_path)
    store.append([session(1)])
    first = store.create_snapshot()
    store.append([candle("BTCUSDT", 0, 100.0)])
    store.create_snapshot()
    again = StateStore(Journal(MemoryDisk(disk.frames)), tmp_path)
    report = again.recover(version=first)
    assert (report.snapshot_seq, report.events_replayed) == (first, 1)
    assert again.state.state_hash() == store.state.state_hash()
    with pytest.raises(JournalError, match="no snapshot 99"):
        again.recover(version=99)
    path = tmp_path / f"{first:020d}.snapshot"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JournalCorrupt):
        again.recover(version=first)
    store.close()
    again.close()


def test_damaged_snapshots_fall_back_to_the_one_before_and_at_last_to_the_journal(tmp_path):
    disk = MemoryDisk()
    store = started(disk, tmp_path)
    for number in range(4):
        store.append([session(1), candle("BTCUSDT", number, 100.0 + number)])
        store.create_snapshot()
    store.close()
    whole = store.state.state_hash()
    expected = [8, 6, 4, None]
    for damaged, begins_with in enumerate(expected):
        again = StateStore(Journal(MemoryDisk(disk.frames)), tmp_path)
        report = again.recover()
        assert report.snapshot_seq == begins_with
        assert len(report.refused) == damaged
        assert again.state.state_hash() == whole
        again.close()
        if begins_with is not None:
            path = tmp_path / f"{begins_with:020d}.snapshot"
            data = bytearray(path.read_bytes())
            data[-10] ^= 1
            path.write_bytes(data)


def test_a_journal_that_ends_before_a_sound_snapshot_is_refused(tmp_path):
    disk = MemoryDisk()
    store = started(disk, tmp_path)
    store.append([session(1), candle("BTCUSDT", 0, 1.0)])
    store.create_snapshot()
    store.close()
    again = StateStore(Journal(MemoryDisk(encode_frames(1, 1, [session(1)]))), tmp_path)
    with pytest.raises(JournalCorrupt, match="acknowledged events are missing"):
        again.recover()


def test_snapshots_are_begun_after_a_minute_or_twenty_thousand_events(tmp_path):
    store = started(snapshots=tmp_path)
    assert not store.tick(0)
    store.append([session(1)])
    assert not store.tick(SNAPSHOT_NS - 1)
    assert store.tick(SNAPSHOT_NS)
    assert not store.tick(3 * SNAPSHOT_NS)
    store.append([session(1)] * 20_000)
    store._finish_snapshot(30)
    assert store.tick(3 * SNAPSHOT_NS)
    store.close()
    assert [int(p.stem) for p in snapshot.list_snapshots(tmp_path)] == [20_001, 1]


def test_no_snapshot_is_begun_while_one_is_being_written(tmp_path, monkeypatch):
    written, go_on = snapshot.write, threading.Event()

    def slow(*arguments):
        go_on.wait(10)
        return written(*arguments)

    monkeypatch.setattr(snapshot, "write", slow)
    store = started(snapshots=tmp_path)
    store.append([session(1)])
    assert not store.tick(0)
    assert store.tick(SNAPSHOT_NS)
    store.wait_durable(store.append([candle("BTCUSDT", 0, 1.0)]))  # commits do not wait for it
    assert not store.tick(2 * SNAPSHOT_NS)
    go_on.set()
    store._finish_snapshot(30)
    assert store.tick(2 * SNAPSHOT_NS)
    store.close()
    assert [int(p.stem) for p in snapshot.list_snapshots(tmp_path)] == [2, 1]


def test_a_snapshot_shows_nothing_that_came_after_it_and_nothing_that_is_not_durable(tmp_path):
    gate = threading.Event()

    class SlowDisk(MemoryDisk):
        def write(self, frames, keys):
            gate.wait(10)
            super().write(frames, keys)

    store = started(SlowDisk(), tmp_path)
    scenario = Scenario(5, 60)
    batches = scenario.batches()
    for batch in batches[:40]:
        store.append(batch)
    before = store.state.state_hash()
    assert not store.tick(0)
    assert store.tick(SNAPSHOT_NS)
    for batch in batches[40:]:
        store.append(batch)
    store._journal._helper.join(0.3)
    assert snapshot.list_snapshots(tmp_path) == []
    gate.set()
    store.close()
    (path,) = snapshot.list_snapshots(tmp_path)
    assert snapshot.read(path).state_hash() == before != store.state.state_hash()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_store_without_snapshots_takes_none():
    store = started()
    assert store.create_snapshot() is None
    assert not store.tick(10 * SNAPSHOT_NS)
    store.close()


def test_a_snapshot_that_cannot_be_written_fails_the_journal(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = StateStore(Journal(MemoryDisk()), tmp_path / "file")
    store.recover()
    store.append([session(1)])
    with pytest.raises(JournalWriteFailed):
        store.create_snapshot()
    store.close()


def test_an_event_that_cannot_follow_breaks_the_store():
    store = started()
    store.append([session(1)])
    with pytest.raises(InvariantViolated, match="expected number 1"):
        store.append([candle("BTCUSDT", 0, 1.0), intended(5)])
    with pytest.raises(InvariantViolated, match="ahead of the journal"):
        store.append([candle("BTCUSDT", 1, 1.0)])
    with pytest.raises(InvariantViolated):
        store.stage(candle("BTCUSDT", 1, 1.0))
    store.close()


def test_nothing_is_appended_before_recovery():
    disk = MemoryDisk()
    store = started(disk)
    store.append([session(1)])
    store.close()
    again = StateStore(Journal(MemoryDisk(disk.frames)), None)
    with pytest.raises(InvariantViolated, match="recover before"):
        again.append([session(1)])
    again.close()


def test_a_repeated_fill_is_not_journaled_again():
    disk = MemoryDisk()
    with started(disk) as store:
        store.append([session(1), intended(1)])
        event = fill(1, "a", "1", "100")
        first = store.update_position(event.fill)
        assert store.update_position(event.fill) == first == 3
        assert store.update_order(OrderAccepted(ts_event_ns=0, intent_no=1, venue_order_id="v"))
        assert store.append([event]) == 4
        assert store.get_portfolio(Book.VALIDATED).cash == 9_900
    kinds = [type(event).__name__ for frame in disk.frames for event in decode_frame(frame)]
    assert kinds[2:] == ["OrderFilled", "OrderAccepted"]


def test_staged_events_fold_at_once_and_are_one_batch_when_committed():
    disk = MemoryDisk()
    store = started(disk)
    store.append([session(1), intended(1)])
    event = fill(1, "a", "1", "100")
    assert store.stage(event)
    assert not store.stage(event)
    assert store.state.books[Book.VALIDATED].cash == 9_900
    with pytest.raises(InvariantViolated, match="commit it first"):
        store.append([event])
    seen: list[Decimal] = []
    reader = threading.Thread(target=lambda: seen.append(store.get_portfolio(Book.VALIDATED).cash))
    reader.start()
    reader.join(0.05)
    assert not seen
    store.stage(candle("BTCUSDT", 0, 100.0))
    assert store.commit() == 4
    reader.join()
    assert seen == [9_900]
    assert store.commit() == 4
    assert not store.stage(event)
    assert store.commit() == 4
    with pytest.raises(InvariantViolated):
        store.stage(intended(9))
    with pytest.raises(InvariantViolated):
        store.stage(candle("BTCUSDT", 1, 100.0))
    assert store.get_portfolio(Book.VALIDATED).cash == 9_900
    store.close()


def test_a_staged_batch_the_journal_refuses_breaks_the_store():
    store = started(MemoryDisk(fail_at=1))
    store.stage(session(1))
    with pytest.raises(JournalWriteFailed):
        store.wait_durable(store.commit())
    with pytest.raises(JournalWriteFailed):
        store.stage(candle("A", 0, 1.0))
    late = started()
    late.stage(session(1))
    late._journal.close()
    with pytest.raises(JournalWriteFailed):
        late.commit()
    with pytest.raises(InvariantViolated):
        late.append([session(1)])


def test_eight_readers_beside_the_writer_see_whole_states_only():
    store = started()
    store.append([session(1)])
    stop = threading.Event()
    wrong: list[str] = []
    looks = [0] * 8

    def look(number: int) -> None:
        while not stop.is_set():
            marks = store.read(lambda state: (dict(state.marks), state.inputs, state.seq))
            if len(set(marks[0].values())) > 1 or marks[1] % 3 or (marks[2] - 1) % 3:
                wrong.append(f"torn candles: {marks}")
            folio = store.get_portfolio(Book.VALIDATED)
            value = sum((p.quantity for p in folio.positions.values()), Decimal(0)) * 0
            if folio.metrics.equity < folio.cash + value:
                wrong.append("equity below cash")
            looks[number] += 1

    threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    serial = StateStore(Journal(MemoryDisk()), None)
    serial.recover()
    serial.append([session(1)])
    for hour in range(2_000):
        batch: list[CandleClosed] = [
            candle(symbol, hour * 3_600_000, 100.0 + hour % 7) for symbol in SYMBOLS
        ]
        store.append(batch)
        serial.append(batch)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(looks) > 0
    assert store.state.state_hash() == serial.state.state_hash()
    store.close()
    serial.close()


def test_a_replays_store_waits_for_nothing_and_snapshots_at_the_end(tmp_path, monkeypatch):
    disk = MemoryDisk()
    store = StateStore(Journal(disk, threaded=False), tmp_path, disposable=True)
    store.recover()
    store.wait_durable(store.append([session(1)]))
    assert (disk.writes, store.durable_seq) == (0, 1)
    assert not store.tick(0)
    assert not store.tick(10 * SNAPSHOT_NS)
    assert store.create_snapshot() == 1
    assert disk.writes == 1
    store.close()


@pytest.mark.parametrize("collecting", [True, False])
def test_recovery_leaves_the_garbage_collector_as_it_was(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        started().close()
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_distress_of_the_disk_is_the_stores():
    disk = MemoryDisk()
    store = started(disk)
    assert store.distress == ""
    disk.distress = "the disk is full"
    assert store.distress == "the disk is full"
    store.close()


def test_a_write_that_hangs_keeps_the_account_and_is_told_at_the_end(monkeypatch):
    monkeypatch.setattr(journal_module, "_CLOSE_S", 0.1)
    go_on, closed = threading.Event(), []

    class Hanging(MemoryDisk):
        def write(self, frames, keys):
            go_on.wait(10)
            super().write(frames, keys)

        def close(self):
            closed.append(1)

    store = started(Hanging())
    store.append([session(1)])
    with pytest.raises(JournalWriteFailed, match="a write did not end"):
        store.close()
    assert not closed
    go_on.set()
    store._journal._thread.join()


@pytest.mark.parametrize("known", [True, False])
def test_a_trade_between_two_orders_of_ours_is_booked_on_both_sides_once(tmp_path, known):
    """The venue gives both sides one id; on disk and in memory they are told apart alike."""

    def opened() -> StateStore:
        store = StateStore(Journal(SqliteDisk.open(tmp_path / "journal.db", "paper")), None)
        store.recover()
        return store

    with opened() as store:
        store.append([session(1)])
        if known:
            store.append([intended(1), intended(2, side=Side.SELL, purpose=Purpose.EXIT)])
        store.append([fill(1, "76", "1", "100")])
        both = [fill(1, "77", "0.5", "100"), fill(2, "77", "0.5", "100", side=Side.SELL)]
        store.append(both)
        store.append(both)
        store.wait_durable(store.state.seq)
        held = store.state.state_hash()
        assert store.get_portfolio(Book.VALIDATED).positions["BTCUSDT"].quantity == 1
    with opened() as again:
        assert again.state.state_hash() == held
        assert again.state.books[Book.VALIDATED].fills_total == 3
    with JournalReader.open(tmp_path / "journal.db") as reader:
        assert reader.verify() == again.state.seq
