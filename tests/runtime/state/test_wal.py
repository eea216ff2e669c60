"""SQLite's own checksum, recomputed; damage before the end of the log is found."""

import errno
import os
import random
import sqlite3
import struct
from contextlib import closing

import pytest

from bot4_runtime.domain.errors import JournalCorrupt
from bot4_runtime.state.wal import _checksum, _weights, check_log, fill_log


def slow_checksum(state: tuple[int, int], data: bytes) -> tuple[int, int]:
    s0, s1 = state
    for a, b in struct.iter_unpack("<II", data):
        s0 = (s0 + a + s1) & 0xFFFFFFFF
        s1 = (s1 + b + s0) & 0xFFFFFFFF
    return s0, s1


def test_the_checksum_is_the_one_of_the_format_document():
    data = random.Random(1).randbytes(4_104)
    state = _weights(6)[1][0] * 0 + [7, 9]
    assert tuple(_checksum(state, data, "<u4").tolist()) == slow_checksum((7, 9), data)


@pytest.fixture
def log(tmp_path):
    """A log of ten commits, as kill -9 leaves it."""
    live = tmp_path / "live.db"
    sql = sqlite3.connect(live, isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("CREATE TABLE t (a)")
    for number in range(10):
        sql.execute("INSERT INTO t VALUES (?)", (str(number) * 3_000,))
    for name in ("live.db", "live.db-wal"):
        (tmp_path / name.replace("live", "copy")).write_bytes((tmp_path / name).read_bytes())
    sql.close()
    return tmp_path / "copy.db-wal"


def test_a_sound_log_and_no_log_pass(log, tmp_path):
    check_log(tmp_path / "copy.db")
    check_log(tmp_path / "nothing.db")
    log.write_bytes(log.read_bytes()[:20])
    check_log(tmp_path / "copy.db")


def test_old_frames_behind_a_restarted_log_are_no_damage(tmp_path):
    sql = sqlite3.connect(tmp_path / "copy.db", isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("CREATE TABLE t (a)")
    for number in range(50):
        sql.execute("INSERT INTO t VALUES (?)", (str(number) * 3_000,))
    sql.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    sql.execute("INSERT INTO t VALUES (1)")
    check_log(tmp_path / "copy.db")
    sql.close()


@pytest.mark.parametrize("at", [0, 4, 8, 16, 20, 24, 32 + 8, 32 + 16, 32 + 200, 5_000])
def test_damage_with_commits_behind_it_is_found(log, tmp_path, at):
    data = bytearray(log.read_bytes())
    data[at] ^= 4
    log.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="acknowledged commits lie"):
        check_log(tmp_path / "copy.db")


def test_every_flipped_bit_of_the_header_is_found(log, tmp_path):
    """The page size among them: read by another stride, the commits would look like none.

    Four bytes are free: SQLite ignores how often the log was begun anew, but its checksum does
    not, so that a change there drops the log too.
    """
    sound = log.read_bytes()
    for bit in range(32 * 8):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        log.write_bytes(data)
        with pytest.raises(JournalCorrupt, match="acknowledged commits lie"):
            check_log(tmp_path / "copy.db")


@pytest.mark.parametrize("size", [512, 4_096, 65_536])
def test_logs_of_other_page_sizes_are_understood(tmp_path, size):
    sql = sqlite3.connect(tmp_path / "copy.db", isolation_level=None)
    sql.execute(f"PRAGMA page_size = {size}")
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("CREATE TABLE t (a)")
    for number in range(3):
        sql.execute("INSERT INTO t VALUES (?)", (number,))
    check_log(tmp_path / "copy.db")
    log = tmp_path / "copy.db-wal"
    data = bytearray(log.read_bytes())
    data[40] ^= 1
    log.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="after 0 sound frames"):
        check_log(tmp_path / "copy.db")
    sql.close()


@pytest.mark.parametrize("cut", [0, 20, 32, 9_000, None])
def test_a_filled_log_is_read_as_it_was_before(log, tmp_path, cut):
    """Also one that ends anywhere, as a crash leaves it."""
    data = log.read_bytes()[:cut]
    log.write_bytes(data)
    before = rows(tmp_path)
    for size in (1 << 20, 1 << 19):
        log.write_bytes(data)
        fill_log(tmp_path / "copy.db", size)
        assert log.read_bytes() == data + bytes(size - len(data))
        check_log(tmp_path / "copy.db")
        assert rows(tmp_path) == before
    log.write_bytes(data)
    fill_log(tmp_path / "copy.db", len(data))
    assert log.read_bytes() == data


def rows(folder) -> list[str]:
    """Return what SQLite recovers of a copy's log."""
    for name in ("copy.db", "copy.db-wal"):
        (folder / name.replace("copy", "again")).write_bytes((folder / name).read_bytes())
    with closing(sqlite3.connect(folder / "again.db")) as sql:
        if not sql.execute("SELECT 1 FROM sqlite_master").fetchall():
            return []
        return [row[0][0] for row in sql.execute("SELECT a FROM t")]


def test_damage_in_a_filled_log_is_found_and_its_commits_stay_where_they_are(tmp_path):
    path, log = tmp_path / "live.db", tmp_path / "live.db-wal"
    sql = sqlite3.connect(path, isolation_level=None)
    sql.execute("PRAGMA journal_mode = WAL")
    sql.execute("CREATE TABLE t (a)")
    fill_log(path, 1 << 20)
    for number in range(10):
        sql.execute("INSERT INTO t VALUES (?)", (str(number) * 3_000,))
    assert log.stat().st_size == 1 << 20
    check_log(path)
    data = bytearray(log.read_bytes())
    data[5_000] ^= 4
    path.with_name("copy.db").write_bytes(path.read_bytes())
    path.with_name("copy.db-wal").write_bytes(data)
    with pytest.raises(JournalCorrupt, match="acknowledged commits lie"):
        check_log(tmp_path / "copy.db")
    sql.close()


def test_a_log_that_finds_no_room_is_left_as_it_was(log, tmp_path, monkeypatch):
    def full(file: int, offset: int, length: int) -> None:
        os.ftruncate(file, offset + length // 2)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = log.read_bytes()
    monkeypatch.setattr(os, "posix_fallocate", full)
    fill_log(tmp_path / "copy.db", 1 << 20)
    assert log.read_bytes() == before


def test_a_log_without_its_database_is_read_by_the_usual_size(log, tmp_path):
    (tmp_path / "copy.db").unlink()
    check_log(tmp_path / "copy.db")
    data = bytearray(log.read_bytes())
    data[40] ^= 1
    log.write_bytes(data)
    with pytest.raises(JournalCorrupt, match="acknowledged commits lie"):
        check_log(tmp_path / "copy.db")
