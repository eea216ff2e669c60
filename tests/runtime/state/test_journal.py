"""Frames, group commit, durability, and faults that are final."""

import threading
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_scenario import Scenario, candle, session

from bot4_runtime.domain.errors import JournalCorrupt, JournalWriteFailed
from bot4_runtime.domain.events import Heartbeat, JournaledEvent
from bot4_runtime.state import journal as journal_module
from bot4_runtime.state.journal import (
    MAX_PENDING,
    Frame,
    Journal,
    Keys,
    MemoryDisk,
    decode_frame,
    encode_frame,
)


class SlowDisk(MemoryDisk):
    """A disk whose writes wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.groups: list[int] = []
        self.tidied = 0

    def write(self, frames, keys: Keys) -> None:
        self.gate.wait(10)
        self.groups.append(len(frames))
        super().write(frames, keys)

    def tidy(self) -> None:
        self.tidied += 1


def test_every_event_survives_its_frame():
    for batch in Scenario(3, 40).batches():
        for seq, event in enumerate(batch, 1):
            assert decode_frame(encode_frame(seq, 1, event)) == event


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_changed_bit_of_a_frame_is_noticed(data):
    frame = encode_frame(5, 1, candle("BTCUSDT", 0, 100.0))
    field = data.draw(st.sampled_from(Frame._fields))
    value = getattr(frame, field)
    if isinstance(value, int):
        changed = value ^ (1 << data.draw(st.integers(0, 31)))
    else:
        raw = bytearray(value if isinstance(value, bytes) else value.encode())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 6))
        changed = bytes(raw) if isinstance(value, bytes) else raw.decode()
    with pytest.raises(JournalCorrupt, match="checksum"):
        decode_frame(frame._replace(**{field: changed}))


def test_an_event_of_unknown_kind_is_refused_never_skipped():
    body = msgspec.msgpack.encode({"type": "FromTheFuture", "ts_event_ns": 0})
    crc = journal_module._crc(1, 1, 0, "FromTheFuture", body)
    with pytest.raises(JournalCorrupt, match="use the release that wrote it"):
        decode_frame(Frame(1, 1, 0, "FromTheFuture", body, crc))
    with pytest.raises(JournalCorrupt):
        decode_frame(encode_frame(1, 1, Heartbeat(ts_event_ns=0, events_total=1)))


def test_batches_are_committed_whole_and_in_groups():
    disk = SlowDisk()
    journal = Journal(disk)
    journal.append([session(1)])
    last = 0
    for number in range(500):
        last = journal.append([candle("A", number, 1.0), candle("B", number, 1.0)])
    assert last == 1_001 == journal.last_seq
    assert journal.durable_seq == 0
    disk.gate.set()
    journal.wait_durable(last)
    assert journal.durable_seq == last
    assert len(disk.groups) <= 3
    assert [frame.seq for frame in disk.frames] == list(range(1, last + 1))
    journal.close()


def test_what_waits_for_the_disk_is_bounded():
    disk = SlowDisk()
    journal = Journal(disk)
    events: list[JournaledEvent] = [candle("A", 0, 1.0)] * 1_000
    done = threading.Event()

    def fill_up() -> None:
        for _ in range(MAX_PENDING // 1_000 + 1):
            journal.append(events)
        done.set()

    thread = threading.Thread(target=fill_up)
    thread.start()
    assert not done.wait(0.3)
    disk.gate.set()
    thread.join()
    assert done.is_set()
    journal.close()
    assert len(disk.frames) == MAX_PENDING + 1_000


def test_the_first_failed_write_is_final():
    disk = MemoryDisk(fail_at=2)
    journal = Journal(disk)
    seq = journal.append([session(1)])
    journal.wait_durable(seq)
    seq = journal.append([candle("A", 0, 1.0)])
    with pytest.raises(JournalWriteFailed, match=r"Input/output error.*not written again"):
        journal.wait_durable(seq)
    with pytest.raises(JournalWriteFailed):
        journal.append([candle("A", 1, 1.0)])
    with pytest.raises(JournalWriteFailed):
        journal.after_durable(lambda: None)
    with pytest.raises(JournalWriteFailed):
        journal.close()
    assert disk.writes == 2
    assert len(disk.frames) == 1


def test_a_write_that_takes_too_long_is_a_failure_for_ever():
    disk = SlowDisk()
    journal = Journal(disk)
    seq = journal.append([session(1)])
    with pytest.raises(JournalWriteFailed, match=r"frame 1 was not durable after 0.05 s"):
        journal.wait_durable(seq, timeout_s=0.05)
    disk.gate.set()
    with pytest.raises(JournalWriteFailed):
        journal.append([session(1)])
    journal.close()


def test_an_action_runs_after_all_that_was_appended_is_durable():
    disk = SlowDisk()
    journal = Journal(disk)
    journal.append([session(1)])
    seen = []
    done = journal.after_durable(lambda: seen.append(len(disk.frames)))
    journal.append([candle("A", 0, 1.0)])
    disk.gate.set()
    journal.wait_for(done)
    assert seen == [1]
    journal.close()
    with pytest.raises(JournalWriteFailed, match="closed"):
        journal.append([session(1)])


def test_an_idle_journal_tidies_its_disk(monkeypatch):
    monkeypatch.setattr(journal_module, "_IDLE_S", 0.01)
    disk = SlowDisk()
    disk.gate.set()
    journal = Journal(disk)
    journal.wait_durable(journal.append([session(1)]))
    deadline = time.monotonic() + 5
    while not disk.tidied and time.monotonic() < deadline:
        time.sleep(0.01)
    assert disk.tidied
    journal.close()


def test_a_missing_frame_is_noticed_when_reading():
    frames = [encode_frame(seq, 1, candle("A", seq, 1.0)) for seq in (1, 2, 3)]
    journal = Journal(MemoryDisk([frames[0], frames[2]]))
    with pytest.raises(JournalCorrupt, match="frame 2 is missing"):
        list(journal.read(0))
    assert journal.epoch == 1
    journal.close()


def test_without_a_thread_batches_are_written_where_somebody_waits():
    disk = MemoryDisk()
    journal = Journal(disk, threaded=False)
    before = threading.active_count()
    first = journal.append([session(1)])
    seen: list[int] = []
    done = journal.after_durable(lambda: seen.append(journal.durable_seq))
    last = journal.append([candle("A", 0, 1.0)])
    assert (disk.writes, journal.durable_seq, seen) == (0, 0, [])
    journal.wait_durable(first)
    assert (disk.writes, journal.durable_seq, seen) == (2, last, [first])
    journal.wait_for(done)
    journal.wait_durable(last)
    journal.append([candle("A", 1, 1.0)])
    journal.pump()
    assert journal.durable_seq == 3
    for number in range(2, 2 + journal_module._MAX_GROUP):
        journal.append([candle("A", number, 1.0)])
    assert journal.durable_seq == 3 + journal_module._MAX_GROUP
    journal.append([candle("A", 10**6, 1.0)])
    journal.close()
    assert len(disk.frames) == 4 + journal_module._MAX_GROUP
    assert threading.active_count() == before


def test_without_a_thread_the_first_failed_write_is_final_too():
    disk = MemoryDisk(fail_at=1)
    journal = Journal(disk, threaded=False)
    seq = journal.append([session(1)])
    with pytest.raises(JournalWriteFailed, match=r"Input/output error"):
        journal.wait_durable(seq)
    journal.pump()
    assert disk.writes == 1
    with pytest.raises(JournalWriteFailed):
        journal.append([session(1)])
    with pytest.raises(JournalWriteFailed):
        journal.close()
