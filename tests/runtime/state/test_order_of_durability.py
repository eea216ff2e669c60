"""In which order files reach the disk: what a power cut at any moment leaves follows from it.

The calls that make something durable are written down as they happen.
"""

import os
import sqlite3
from pathlib import Path

import pytest
from state_scenario import candle, session

from bot4_runtime.state import snapshot
from bot4_runtime.state import sqlite as sqlite_module
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.frames import encode_frames, keys_of
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was synced and renamed, by name; a file is synced with the bytes it has then."""
    calls: list[tuple[str, str]] = []
    sync, replace, statements = os.fsync, Path.replace, sqlite3.connect

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        size = "" if path.is_dir() else f" {path.stat().st_size}"
        calls.append(("sync", path.name + size))
        sync(handle)

    def rename(self: Path, target: Path) -> Path:
        calls.append(("rename", f"{self.name} {target.name}"))
        return replace(self, target)

    def connect(path: Path, *arguments: object, **named: object) -> sqlite3.Connection:
        connection = statements(path, *arguments, **named)
        connection.set_trace_callback(lambda text: calls.append((Path(path).name, text)))
        return connection

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(sqlite_module.sqlite3, "connect", connect)
    return calls


def test_a_snapshot_is_whole_on_the_disk_before_it_has_its_name_and_then_its_folder_is(
    tmp_path, done
):
    folder = tmp_path / "snapshots"
    path = snapshot.write(
        folder, 7, iter([b"ab", b"c"]), lambda: done.append(("journal", "durable"))
    )
    tmp = f"{7:020d}.tmp"
    assert done == [
        ("sync", f"{tmp} {path.stat().st_size}"),
        ("journal", "durable"),
        ("rename", f"{tmp} {path.name}"),
        ("sync", "snapshots"),
    ]


def test_older_snapshots_go_only_once_the_newer_one_is_there_to_stay(tmp_path, monkeypatch, done):
    unlink = Path.unlink

    def forget(self: Path, *arguments: object, **named: object) -> None:
        done.append(("unlink", self.name))
        unlink(self, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", forget)
    for seq in (1, 2, 3, 4):
        done.clear()
        snapshot.write(tmp_path, seq, iter([b"x"]))
    assert done[-2:] == [("sync", tmp_path.name), ("unlink", f"{1:020d}.snapshot")]


def test_a_new_journal_is_synced_whole_then_named_and_then_its_folder_is_synced(tmp_path, done):
    folder = tmp_path / "account"
    SqliteDisk.open(folder / "journal.db", "paper").close()
    whole = [call for call in done if call[0] == "journal.db-new"]
    after = done[len(whole) :]
    assert done[: len(whole)] == whole
    assert whole[0][1] == "PRAGMA synchronous = EXTRA"
    assert whole[-1][1] == "COMMIT"
    assert after[:2] == [("rename", "journal.db-new journal.db"), ("sync", "account")]
    assert [call for call in after[2:] if call[0] != "journal.db"] == [
        ("sync", "paper.epoch 21"),
        ("sync", "account"),
    ]
    done.clear()
    SqliteDisk.open(folder / "journal.db", "paper").close()
    assert [call for call in done if call[0] == "sync"] == [("sync", "paper.epoch 21")]


def test_frames_are_durable_in_the_archive_before_they_are_deleted_from_the_journal(
    tmp_path, done
):
    disk = SqliteDisk.open(tmp_path / "account" / "journal.db", "paper", archives=True)
    for round_ in (1, 2):
        event = session(1) if round_ == 1 else candle("A", 1, 1.0)
        disk.write(encode_frames(round_, 1, [event]), keys_of(round_, [event]))
        disk.release(round_)
        done.clear()
        disk.tidy()
        archived = [text for name, text in done if name == "archive.sqlite"]
        assert archived[0] == "PRAGMA synchronous = EXTRA"
        assert archived[-1] == "COMMIT"
        assert (("sync", "account") in done) is (round_ == 1), "the folder, when it is new"
        deleted = next(i for i, (_, text) in enumerate(done) if text.startswith("DELETE"))
        assert done.index(("archive.sqlite", "COMMIT")) < deleted
        assert ("sync", "account") not in done[deleted:]
    disk.close()


def test_frames_are_released_once_three_snapshots_have_them_and_only_up_to_the_oldest(tmp_path):
    released: list[int] = []
    journal = Journal(MemoryDisk())
    journal.release = released.append  # type: ignore[method-assign]
    store = StateStore(journal, tmp_path)
    store.recover()
    for seq, expected in ((1, []), (2, []), (3, [1]), (4, [1, 2])):
        store.append([session(1)])
        assert store.create_snapshot() == seq
        assert released == expected
    store.close()


def test_snapshots_are_a_minute_apart(tmp_path):
    store = StateStore(Journal(MemoryDisk()), tmp_path)
    store.recover()
    assert not store.tick(0)
    store.append([session(1)])
    assert not store.tick(60 * 10**9 - 1)
    assert store.tick(60 * 10**9)
    store.close()
