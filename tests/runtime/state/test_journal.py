"""Frames, group commit, durability, and faults that are final."""

import threading
import time

import pytest
from state_scenario import candle, session

from bot4_runtime.domain.errors import JournalCorrupt, JournalWriteFailed
from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.state import journal as journal_module
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.frames import Frame, Keys, encode_frames
from bot4_runtime.state.journal import MAX_PENDING, Journal


def events_in(frame: Frame) -> int:
    return frame.last_seq - frame.first_seq + 1


class SlowDisk(MemoryDisk):
    """A disk whose writes wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.groups: list[int] = []
        self.tidied = 0

    def write(self, frames, keys: Keys) -> None:
        self.gate.wait(10)
        self.groups.append(sum(map(events_in, frames)))
        super().write(frames, keys)

    def tidy(self) -> None:
        self.tidied += 1


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
    journal.close()
    assert [seq for seq, _ in Journal(disk).read(0)] == list(range(1, last + 1))


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
    assert disk.last_seq() == MAX_PENDING + 1_000 == sum(map(events_in, disk.frames))


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
    with pytest.raises(JournalWriteFailed, match=r"event 1 was not durable after 0.05 s"):
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


def test_a_batch_that_nobody_waits_for_lies_until_its_time_is_over():
    disk = SlowDisk()
    disk.gate.set()
    journal = Journal(disk, linger_s=0.2)
    before = time.monotonic()
    journal.append([candle("A", 0, 1.0)])
    journal.append([candle("A", 1, 1.0)])
    while not disk.groups and time.monotonic() < before + 10:
        time.sleep(0.001)
    assert time.monotonic() - before >= 0.2
    assert disk.groups == [2]
    journal.close()


def test_a_batch_is_written_at_once_when_somebody_waits_or_the_journal_closes():
    disk = SlowDisk()
    disk.gate.set()
    journal = Journal(disk, linger_s=60.0)
    journal.append([candle("A", 0, 1.0)])
    time.sleep(0.02)
    assert disk.groups == []
    journal.wait_durable(journal.append([candle("A", 1, 1.0)]), timeout_s=20.0)
    journal.append([candle("A", 2, 1.0)])
    time.sleep(0.02)
    journal.close()
    assert disk.groups == [2, 1]


def test_whoever_waits_is_told_though_several_wait_and_others_append():
    journal = Journal(MemoryDisk(), linger_s=0.001)
    failures: list[BaseException] = []

    def order() -> None:
        try:
            for _ in range(2_000):
                journal.wait_durable(journal.last_seq, timeout_s=20.0)
        except BaseException as failure:  # noqa: BLE001  told below
            failures.append(failure)

    waiting = [threading.Thread(target=order) for _ in range(3)]
    for thread in waiting:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in waiting):
        journal.append([candle("A", number, 1.0)])
        journal.wait_durable(journal.last_seq, timeout_s=20.0)
        number += 1
    journal.close()
    assert failures == []
    assert journal.durable_seq == number


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
    one, two, three = (encode_frames(seq, 1, [candle("A", seq, 1.0)])[0] for seq in (1, 2, 3))
    journal = Journal(MemoryDisk([one, three]))
    with pytest.raises(JournalCorrupt, match=r"event 2 is missing \(found 3 to 3\)"):
        list(journal.read(0))
    with pytest.raises(JournalCorrupt, match="event 2 is missing"):
        list(Journal(MemoryDisk([one, one, two])).read(0))
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
    for number in range(2, 2 + journal_module._GROUP):
        journal.append([candle("A", number, 1.0)])
    assert journal.durable_seq == 3 + journal_module._GROUP
    journal.append([candle("A", 10**6, 1.0)])
    journal.close()
    assert disk.last_seq() == 4 + journal_module._GROUP
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


def test_reading_may_start_anywhere_inside_a_frame():
    events = [candle("A", number, 1.0) for number in range(3_000)]
    disk = MemoryDisk(encode_frames(1, 1, events))
    for after in (0, 1, 1_023, 1_024, 1_025, 2_999, 3_000):
        read = list(Journal(disk).read(after))
        assert read == list(enumerate(events[after:], after + 1))
