"""A full disk, told by the calls that fail on one: for users who may not mount a small one.

What a real one of 3 MiB does is in `test_sqlite`.
"""

import errno
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from state_scenario import candle, session
from structlog.testing import capture_logs

from bot4_runtime.domain.errors import JournalWriteFailed
from bot4_runtime.state import snapshot
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.frames import encode_frames, keys_of
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import SCARCE, StateStore

RESERVE = 4_096


class Full:
    """A connection on whose disk a statement finds no room while a file is there."""

    def __init__(self, sql: sqlite3.Connection, statement: str, while_: Path) -> None:
        self.sql, self.statement, self.while_ = sql, statement, while_

    def execute(self, text: str, *values: object) -> sqlite3.Cursor:
        if text == self.statement and self.while_.exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self.sql.execute(text, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self.sql, name)


def frames(seq: int, count: int = 1):
    events = [candle(f"S{number}", seq, 1.0) for number in range(count)]
    return encode_frames(seq, 1, events), keys_of(seq, events)


@pytest.fixture
def disk(tmp_path: Path):
    opened = SqliteDisk.open(tmp_path / "journal.db", "paper", reserve_bytes=RESERVE)
    yield opened
    opened.close()


@pytest.fixture
def reserve(tmp_path: Path) -> Path:
    return tmp_path / "journal.db-reserve"


def test_the_reserve_is_freed_for_a_write_that_finds_no_room_and_entries_wait(disk, reserve):
    disk._connection = Full(disk._connection, "COMMIT", reserve)
    assert reserve.stat().st_size == RESERVE
    disk.write(*frames(1))
    assert not reserve.exists()
    assert "its reserve was freed" in disk.distress
    assert disk.last_seq() == 1
    disk.write(*frames(2))
    assert [frame.first_seq for frame in disk.read(0)] == [1, 2]


def test_a_disk_that_is_full_without_its_reserve_too_ends_the_journal_with_nothing_lost(
    disk, reserve
):
    disk.write(*frames(1))
    pages = disk._sql.execute("PRAGMA page_count").fetchone()[0]
    disk._sql.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalWriteFailed, match="full"):
        disk.write(*frames(2, 5_000))
    assert not reserve.exists()
    assert disk.last_seq() == 1
    assert not disk._sql.in_transaction


def test_a_log_that_finds_no_room_is_moved_once_there_is_some_and_keeps_the_reserve(
    disk, reserve, tmp_path
):
    neighbour = tmp_path / "neighbour"
    neighbour.touch()
    disk._connection = Full(disk._connection, "PRAGMA wal_checkpoint(PASSIVE)", neighbour)
    seq = 1
    while disk._log_bytes < 1 << 20:
        disk.write(*frames(seq, 400))
        seq += 400
    disk.tidy()
    assert "is full, so that its log cannot be moved" in disk.distress
    assert reserve.exists()
    assert disk._log_bytes >= 1 << 20
    neighbour.unlink()
    disk.tidy()
    assert disk._log_bytes == 0
    assert disk.last_seq() == seq - 1


def test_a_snapshot_that_finds_no_room_leaves_nothing_of_itself(tmp_path):
    def pieces():
        yield b"some"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        snapshot.write(tmp_path, 1, pieces())
    assert list(tmp_path.iterdir()) == []


def opened(folder: Path) -> StateStore:
    store = StateStore(Journal(MemoryDisk(), threaded=False), folder)
    store.recover()
    store.append([session(1)])
    return store


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_entries_wait_while_there_is_no_room_for_a_snapshot(tmp_path, monkeypatch, code):
    def full(*_: object) -> Path:
        raise OSError(code, "no room")

    store = opened(tmp_path)
    with monkeypatch.context() as filled, capture_logs() as logs:
        filled.setattr(snapshot, "write", full)
        store.create_snapshot()
    assert [log["event"] for log in logs] == ["snapshot skipped"]
    assert "there is no room for a snapshot" in store.distress
    store.append([session(1)])
    assert store.create_snapshot() == 2
    assert store.distress == ""


@pytest.mark.parametrize(("free", "told"), [(99, ["disk nearly full"]), (100, [])])
def test_every_snapshot_warns_of_a_disk_that_is_nearly_full(tmp_path, monkeypatch, free, told):
    assert SCARCE == 0.1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1_000, free=free))
    store = opened(tmp_path)
    with capture_logs() as logs:
        store.create_snapshot()
    assert [log["event"] for log in logs] == told
    assert store.distress == ""
