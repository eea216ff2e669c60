"""The SQLite disk: fencing, uniqueness, versions, torn and damaged files."""

import os
import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from state_scenario import Scenario, candle, fill, intended, session

from bot4_runtime.domain.errors import (
    JournalCorrupt,
    JournalError,
    JournalLocked,
    JournalWriteFailed,
)
from bot4_runtime.state import sqlite as sqlite_module
from bot4_runtime.state import sqlite_file
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.frames import Frame, Keys, contiguous, encode_frames, keys_of
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore


def frames_of(first: int, *events) -> tuple[list[Frame], Keys]:
    return encode_frames(first, 1, events), keys_of(first, events)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "paper" / "journal.db"


def test_the_file_is_a_write_ahead_log_with_full_synchronisation(path):
    disk = SqliteDisk.open(path, "paper")
    sql = disk._sql
    assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sql.execute("PRAGMA synchronous").fetchone() == (2,)
    assert sql.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert sql.execute("PRAGMA page_size").fetchone() == (4_096,)
    disk.close()
    disk.close()
    with pytest.raises(JournalWriteFailed, match="is closed"):
        disk.last_seq()


def test_frames_come_back_as_they_were_written(path):
    events = [e for batch in Scenario(1, 100).batches() for e in batch]
    disk = SqliteDisk.open(path, "paper")
    assert disk.last_seq() == 0
    frames = []
    for at in range(0, len(events), 10):
        some, keys = frames_of(at + 1, *events[at : at + 10])
        disk.write(some, keys)
        frames += some
    assert disk.last_seq() == len(events)
    for after in range(35):
        assert list(disk.read(after)) == frames[after // 10 :]
    assert list(contiguous(disk.read(len(events)), len(events))) == []
    disk.tidy()
    disk.close()


def test_a_second_runtime_on_the_account_is_told_who_holds_it(path, tmp_path):
    disk = SqliteDisk.open(path, "paper", lock_dir=tmp_path)
    with pytest.raises(JournalLocked, match=rf"'paper' is held .*process {os.getpid()}\)"):
        SqliteDisk.open(path, "paper", lock_dir=tmp_path)
    with pytest.raises(JournalLocked):
        SqliteDisk.open(tmp_path / "elsewhere" / "journal.db", "paper", lock_dir=tmp_path)
    other = SqliteDisk.open(tmp_path / "other.db", "other", lock_dir=tmp_path)
    other.close()
    disk.close()
    SqliteDisk.open(path, "paper", lock_dir=tmp_path).close()


def test_each_opening_takes_the_next_epoch_and_an_older_one_cannot_commit(path, tmp_path):
    old = SqliteDisk.open(path, "paper", lock_dir=tmp_path / "a")
    new = SqliteDisk.open(path, "paper", lock_dir=tmp_path / "b")
    assert (old.epoch, new.epoch) == (1, 2)
    with pytest.raises(JournalWriteFailed, match=r"newer runtime \(epoch 2\)"):
        old.write(*frames_of(1, session(1), intended(1)))
    new.write(*frames_of(1, session(2)))
    assert new.last_seq() == 1
    old.close()
    new.close()


@pytest.mark.parametrize(
    "twice", [intended(1), fill(1, "t", "1", "100")], ids=["intent number", "trade"]
)
def test_the_storage_engine_refuses_an_intent_or_trade_twice(path, twice):
    disk = SqliteDisk.open(path, "paper")
    disk.write(*frames_of(1, session(1), twice))
    with pytest.raises(JournalWriteFailed, match="UNIQUE"):
        disk.write(*frames_of(3, candle("A", 0, 1.0), twice))
    disk.close()
    disk = SqliteDisk.open(path, "paper")
    assert disk.last_seq() == 2
    disk.close()


@pytest.mark.parametrize("kth", range(1, 8))
def test_a_commit_that_fails_leaves_whole_batches_only(path, kth):
    scenario = Scenario(5, 12)
    store = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    store.recover()
    disk = store._journal._disk
    write, calls = disk.write, []

    def failing(frames, keys):
        calls.append(1)
        if len(calls) == kth:
            disk._sql.execute("PRAGMA max_page_count = 1")  # the disk is full from here on
        write(frames, keys)

    disk.write = failing
    acknowledged = 0
    with pytest.raises(JournalWriteFailed, match="full"):
        for batch in scenario.batches() * 2:
            big = [session(1)] * 200  # outgrows the pages that are free already
            seq = store.append([*batch, *big])
            store.wait_durable(seq)
            acknowledged = seq
    with pytest.raises(JournalWriteFailed):
        store.close()
    after = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    assert after.recover().last_seq == acknowledged
    after.close()


def test_another_schema_version_is_refused_with_the_remedy(path):
    SqliteDisk.open(path, "paper").close()
    with sqlite3.connect(path) as sql:
        sql.execute("UPDATE meta SET value = 2 WHERE key = 'schema_version'")
    sql.close()
    with pytest.raises(JournalError, match=r"version 2; this program reads version 1\. Use"):
        SqliteDisk.open(path, "paper")


def test_another_accounts_journal_is_refused(path):
    SqliteDisk.open(path, "paper").close()
    with pytest.raises(JournalError, match="account 'paper', expected 'live'"):
        SqliteDisk.open(path, "live")


@pytest.mark.parametrize("content", [b"not a database at all" * 100, None])
def test_a_file_that_is_no_journal_is_refused(path, content):
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    else:
        sql = sqlite3.connect(path)
        sql.execute("CREATE TABLE t (a)")
        sql.commit()
        sql.close()
    with pytest.raises(JournalCorrupt, match="expected a Bot4 journal"):
        SqliteDisk.open(path, "paper")
    path.unlink()
    SqliteDisk.open(path, "paper").close()


def test_a_journal_is_made_whole_so_that_an_empty_file_is_damage(path):
    path.parent.mkdir()
    (path.parent / "journal.db-new").write_bytes(b"cut short while it was made")
    SqliteDisk.open(path, "paper").close()
    assert {p.name for p in path.parent.iterdir()} == {"journal.db", "paper.epoch", "paper.lock"}
    path.write_bytes(b"")
    with pytest.raises(JournalCorrupt, match="expected a Bot4 journal"):
        SqliteDisk.open(path, "paper")
    path.unlink()
    (path.parent / "journal.db-wal").write_bytes(b"its log")
    with pytest.raises(JournalCorrupt, match="log of a journal that is gone"):
        SqliteDisk.open(path, "paper")


def test_a_damaged_page_is_found_at_the_start(path):
    disk = SqliteDisk.open(path, "paper")
    disk.write(*frames_of(1, *(candle("A", n, 1.0) for n in range(500))))
    disk.close()
    data = bytearray(path.read_bytes())
    data[4096 * 6 : 4096 * 6 + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(JournalCorrupt, match=r"damaged|cannot be"):
        SqliteDisk.open(path, "paper")


def test_the_log_is_moved_into_the_database_when_it_has_grown(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "_FORCED_TIDY_BYTES", 110_000)
    monkeypatch.setattr(sqlite_module, "_TIDY_BYTES", 20_000)
    disk = SqliteDisk.open(path, "paper")
    sizes = []
    for number in range(3):
        disk.write(*frames_of(1 + 200 * number, *[candle("A", 0, 1.0)] * 200))  # 34 kB
        sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1] < sizes[2]
    disk.write(*frames_of(601, *[candle("A", 0, 1.0)] * 200))
    assert path.stat().st_size == sizes[2]
    disk.tidy()
    assert path.stat().st_size > sizes[2]
    disk._connection.close()
    disk._log_bytes = 1 << 20
    with pytest.raises(sqlite3.ProgrammingError):
        disk.last_seq()
    with pytest.raises(JournalWriteFailed):
        disk.tidy()
    disk.close()


def recovered(folder: Path) -> tuple[int, str] | None:
    """Last number and hash of what a damaged folder recovers to; None when it is refused."""
    try:
        store = StateStore(Journal(SqliteDisk.open(folder / "journal.db", "paper")), None)
    except JournalError:
        return None
    try:
        store.recover()
        return store.state.seq, store.state.state_hash()
    except JournalCorrupt:
        return None
    finally:
        store.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, str]]:
    """A journal as kill -9 leaves it, half of it in the log, and the hash after each batch."""
    folder = tmp_path_factory.mktemp("written")
    live = folder / "live"
    store = StateStore(Journal(SqliteDisk.open(live / "journal.db", "paper")), None)
    store.recover()
    hashes = {0: store.state.state_hash()}
    batches = Scenario(11, 40).batches()
    for number, batch in enumerate(batches):
        seq = store.append(batch)
        store.wait_durable(seq)
        hashes[seq] = store.state.state_hash()
        if number == len(batches) // 2:
            store._journal._disk._log_bytes = 1 << 20
            store._journal._disk.tidy()
    shutil.copytree(live, folder / "killed")
    store.close()
    (folder / "killed" / "journal.db-shm").unlink()
    return folder / "killed", hashes


def test_a_log_cut_anywhere_recovers_to_whole_batches(written, tmp_path):
    killed, hashes = written
    log = (killed / "journal.db-wal").read_bytes()
    rng = random.Random(1)
    found = set()
    for number, length in enumerate([0, 31, len(log), *rng.sample(range(len(log)), 40)]):
        folder = tmp_path / str(number)
        shutil.copytree(killed, folder)
        (folder / "journal.db-wal").write_bytes(log[:length])
        result = recovered(folder)
        assert result is not None
        assert hashes[result[0]] == result[1]
        found.add(result[0])
        shutil.rmtree(folder)
    assert max(hashes) in found
    assert len(found) > 10


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
def test_flipped_bits_are_refused_or_harmless(written, tmp_path, name):
    killed, hashes = written
    whole = (killed / name).read_bytes()
    *_, before_last, last = sorted(hashes)
    sound = {last} if name == "journal.db" else {before_last, last}  # the last may be torn
    rng = random.Random(2)
    refused = 0
    header = range(0, 32, 4) if name == "journal.db-wal" else ()
    for number, place in enumerate([*header, *rng.sample(range(len(whole)), 80)]):
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        folder = tmp_path / str(number)
        shutil.copytree(killed, folder)
        (folder / name).write_bytes(data)
        result = recovered(folder)
        assert recovered(folder) == result
        refused += result is None
        assert result is None or (result[0] in sound and hashes[result[0]] == result[1]), place
        shutil.rmtree(folder)
    assert refused > 20


def test_a_torn_last_commit_is_dropped_and_damage_before_it_is_refused(written, tmp_path):
    killed, hashes = written
    *_, before_last, _ = sorted(hashes)
    log = (killed / "journal.db-wal").read_bytes()
    step = 24 + 4_096
    frames = [at for at in range(32, len(log), step) if log[at + 8 : at + 16] == log[16:24]]
    for number, (at, expected) in enumerate([(frames[-1], before_last), (frames[3], None)]):
        folder = tmp_path / str(number)
        shutil.copytree(killed, folder)
        data = bytearray(log)
        data[at + 100] ^= 1
        (folder / "journal.db-wal").write_bytes(data)
        result = recovered(folder)
        assert recovered(folder) == result, "a second start must not accept what the first refused"
        assert result == (None if expected is None else (expected, hashes[expected]))


# ------------------------------------------------------------------ the full disk
@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True
    )
    if made.returncode:
        pytest.skip(
            f"mount: this user may not mount a small disk ({made.stderr.decode().strip()})"
        )
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill_until_refused(store: StateStore) -> list[int]:
    """Append until the journal fails; return the acknowledged numbers."""
    told = []
    with pytest.raises(JournalWriteFailed, match="full"):
        while True:
            seq = store.append([session(1)] * 200)
            store.wait_durable(seq)
            told.append(seq)
    return told


def test_on_a_full_disk_the_reserve_lets_what_is_held_be_closed(small_disk):
    path = small_disk / "journal.db"
    disk = SqliteDisk.open(path, "paper", reserve_bytes=1 << 20)
    store = StateStore(Journal(disk), None)
    store.recover()
    distressed_at = None
    with pytest.raises(JournalWriteFailed, match="full"):
        while True:
            seq = store.append([session(1)] * 200)
            store.wait_durable(seq)
            if store.distress and distressed_at is None:
                distressed_at = seq
    assert distressed_at is not None
    assert "is full; its reserve was freed" in store.distress
    assert seq - distressed_at >= 2_000  # the closing path had room
    with pytest.raises(JournalWriteFailed):
        store.close()
    (small_disk / "journal.db-shm").unlink(missing_ok=True)
    again = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    assert again.recover().last_seq == seq - 200
    again.close()


def test_without_a_reserve_a_full_disk_ends_it_with_nothing_lost(small_disk):
    path = small_disk / "journal.db"
    store = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    store.recover()
    told = fill_until_refused(store)
    with pytest.raises(JournalWriteFailed):
        store.close()
    again = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    assert again.recover().last_seq == told[-1]
    again.close()


def leave(folder: Path, free: int) -> None:
    """Have a neighbour fill a disk but for some bytes."""
    disk = os.statvfs(folder)
    (folder / "neighbour").write_bytes(b"x" * (disk.f_bavail * disk.f_frsize - free))


def test_a_log_that_a_full_disk_keeps_from_being_moved_costs_neither_events_nor_the_reserve(
    small_disk,
):
    path = small_disk / "journal.db"
    disk = SqliteDisk.open(path, "paper", reserve_bytes=1 << 20)
    seq = 0
    while disk._log_bytes < 1 << 20:
        disk.write(*frames_of(seq + 1, *[candle(f"S{n}", seq, 1.0) for n in range(1, 401)]))
        seq += 400
    leave(small_disk, 8_192)
    disk.tidy()
    assert "is full, so that its log cannot be moved" in disk.distress
    assert (small_disk / "journal.db-reserve").exists()
    disk.write(*frames_of(seq + 1, *[session(1)] * 400))
    assert disk.last_seq() == seq + 400
    disk.tidy()
    (small_disk / "neighbour").unlink()
    disk.tidy()
    assert disk._log_bytes == 0
    assert [f.first_seq for f in disk.read(0)] == [*range(1, seq + 401, 400)]
    disk.close()


def test_an_archive_that_does_not_fit_waits_and_the_journal_goes_on(small_disk):
    path = small_disk / "journal.db"
    disk = SqliteDisk.open(path, "paper", archives=True, reserve_bytes=1 << 20)
    disk.write(*frames_of(1, *[candle("S", seq, 1.0) for seq in range(1, 1_001)]))
    leave(small_disk, 8_192)
    disk.release(1_000)
    disk.tidy()
    assert "is full" in disk.distress
    disk.write(*frames_of(1_001, *[session(1)] * 400))
    assert [f.first_seq for f in disk.read(0)] == [1, 1_001]
    disk.close()


def test_a_snapshot_that_does_not_fit_is_skipped_and_entries_wait_until_one_does(small_disk):
    disk = SqliteDisk.open(small_disk / "journal.db", "paper", reserve_bytes=1 << 20)
    snapshots = small_disk / "snapshots"
    with StateStore(Journal(disk), snapshots) as store:
        store.recover()
        store.append([session(1)])
        store.wait_durable(store.state.seq)
        store.state.counts.update({f"kind {number}": number for number in range(4_000)})
        leave(small_disk, 16_384)
        assert store.create_snapshot() is None
        assert "no room for a snapshot" in store.distress
        assert [*snapshots.iterdir()] == []
        store.wait_durable(store.append([session(1)]))
        (small_disk / "neighbour").unlink()
        assert store.create_snapshot() == 2
        assert store.distress == ""


def test_without_room_for_the_reserve_it_starts_in_distress(small_disk):
    disk = SqliteDisk.open(small_disk / "journal.db", "paper", reserve_bytes=64 << 20)
    assert "no room for the reserve of 64 MiB" in disk.distress
    disk.write(*frames_of(1, session(1)))
    assert not (small_disk / "journal.db-reserve").exists()
    disk.close()


# ------------------------------------------------------------------- the archive
def test_released_frames_move_to_the_archive_and_are_read_as_before(path):
    scenario = Scenario(9, 200)
    disk = SqliteDisk.open(path, "paper", archives=True)
    store = StateStore(Journal(disk, threaded=False), path.parent / "snapshots")
    store.recover()
    for number, batch in enumerate(scenario.batches()):
        store.wait_durable(store.append(batch))
        if number % 50 == 0:
            store.create_snapshot()
        disk.tidy()
    store._journal.pump()
    disk.tidy()
    kept = min(int(p.stem) for p in (path.parent / "snapshots").iterdir())
    events = [event for batch in scenario.batches() for event in batch]
    first = disk._sql.execute("SELECT min(first_seq) FROM frame").fetchone()[0]
    assert 1 < first <= kept + 1
    with JournalReader.open(path) as reader:
        assert reader.verify() == len(events)
        assert [event for _, event in reader.events()] == events
        assert [seq for seq, _ in reader.events(first - 3)] == [*range(first - 3, len(events) + 1)]
    assert [seq for seq, _ in store._journal.read(0)] == [*range(1, len(events) + 1)]
    with pytest.raises(JournalWriteFailed, match="UNIQUE"):  # keys outlive their frames
        disk.write(*frames_of(len(events) + 1, intended(1)))
    store.close()
    for version in (None, kept):
        again = StateStore(Journal(SqliteDisk.open(path, "paper")), path.parent / "snapshots")
        again.recover(version)
        assert again.state.state_hash() == scenario.hashes[-1]
        again.close()
    sqlite_file.archive_of(path).unlink()
    again = StateStore(Journal(SqliteDisk.open(path, "paper")), path.parent / "snapshots")
    again.recover()
    assert again.state.state_hash() == scenario.hashes[-1]
    again.close()
    without = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    with pytest.raises(JournalCorrupt, match="event 1 is missing"):
        without.recover()
    without.close()


def test_a_move_that_was_cut_short_is_made_again(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "_MOVED_AT_ONCE", 2)
    disk = SqliteDisk.open(path, "paper", archives=True)
    for seq in range(1, 6):
        disk.write(*frames_of(seq, candle("A", seq, 1.0)))
    disk.tidy()
    assert not sqlite_file.archive_of(path).exists()
    disk.release(5)
    begin = disk._begin

    def cut(sql):
        raise sqlite3.OperationalError("cut")

    disk._begin = cut
    with pytest.raises(JournalWriteFailed, match="cut"):
        disk.tidy()
    assert [f.first_seq for f in disk.read(0)] == [1, 2, 3, 4, 5]
    disk._begin = begin
    for left in ([3, 4, 5], [5], [], []):
        disk.tidy()
        assert [f.first_seq for f in sqlite_file.read_frames(disk._sql, 0)] == left
        assert [f.first_seq for f in disk.read(0)] == [1, 2, 3, 4, 5]
    disk.close()


# -------------------------------------------------------------- failed flushes, readers
class FailingCommits:
    """A connection whose k-th COMMIT fails as a failed fsync does."""

    def __init__(self, sql: sqlite3.Connection, kth: int) -> None:
        self.sql, self.left, self.commits = sql, kth, 0

    def execute(self, text, *values):
        if text == "COMMIT":
            self.commits += 1
            self.left -= 1
            if not self.left:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
        return self.sql.execute(text, *values)

    def __getattr__(self, name):
        return getattr(self.sql, name)


@pytest.mark.parametrize("kth", range(1, 9))
def test_a_failed_flush_is_never_retried_and_loses_nothing_acknowledged(path, kth):
    disk = SqliteDisk.open(path, "paper")
    disk._connection = failing = FailingCommits(disk._connection, kth)
    store = StateStore(Journal(disk, threaded=False), None)
    store.recover()
    hashes = {0: store.state.state_hash()}
    acknowledged = 0
    with pytest.raises(JournalWriteFailed, match="disk I/O error"):
        for batch in Scenario(6, 30).batches():
            seq = store.append(batch)
            hashes[seq] = store.state.state_hash()
            store.wait_durable(seq)
            acknowledged = seq
    for _ in range(3):
        with pytest.raises(JournalWriteFailed):
            store.append([candle("BTCUSDT", 10**13, 1.0)])
    with pytest.raises(JournalWriteFailed):
        store.close()
    assert failing.commits == kth
    again = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    assert again.recover().last_seq == acknowledged
    assert again.state.state_hash() == hashes[acknowledged]
    again.close()


def test_a_reader_never_moves_the_log(written, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(written[0], folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("-shm")}
    for _ in range(2):
        with JournalReader.open(folder / "journal.db") as reader:
            assert reader.last_seq() == max(written[1])
    after = {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("-shm")}
    assert after == before


def test_a_journal_that_is_thrown_away_is_not_flushed(path):
    disk = SqliteDisk.open(path, "replay", durable=False)
    assert disk._sql.execute("PRAGMA synchronous").fetchone() == (0,)
    assert disk._sql.execute("PRAGMA page_size").fetchone() == (16_384,)
    disk.close()


def test_commits_do_not_make_a_filled_log_grow_and_a_kill_loses_none_of_them(path, tmp_path):
    disk = SqliteDisk.open(path, "paper", log_bytes=1 << 20)
    log = path.with_name("journal.db-wal")
    for seq in range(1, 51):
        disk.write(*frames_of(seq, candle("A", seq, 1.0)))
        assert log.stat().st_size == 1 << 20
    shutil.copytree(path.parent, tmp_path / "killed")
    disk._checkpoint()
    disk.write(*frames_of(51, candle("A", 51, 1.0)))
    assert log.stat().st_size == 1 << 20
    shutil.copytree(path.parent, tmp_path / "killed later")
    disk.close()
    for folder, last in (("killed", 50), ("killed later", 51)):
        again = SqliteDisk.open(tmp_path / folder / "journal.db", "paper", log_bytes=1 << 20)
        assert [frame.first_seq for frame in again.read(0)] == [*range(1, last + 1)]
        again.close()


def test_a_log_that_cannot_be_moved_fails_the_journal(path):
    disk = SqliteDisk.open(path, "paper")
    disk.write(*frames_of(1, session(1)))
    disk._log_bytes = 1 << 30
    disk._connection.close()
    with pytest.raises(JournalWriteFailed, match="closed"):
        disk.tidy()
    with pytest.raises(JournalWriteFailed, match="closed"):
        disk.write(*frames_of(2, session(1)))


def test_a_reserve_that_is_too_small_is_no_help(small_disk):
    disk = SqliteDisk.open(small_disk / "journal.db", "paper", reserve_bytes=4_096)
    with pytest.raises(JournalWriteFailed, match="full"):
        disk.write(*frames_of(1, *[session(1)] * 20_000))
    assert disk.distress
    assert disk.last_seq() == 0
    disk.close()


def test_a_file_system_without_shared_memory_is_refused(path):
    class Odd:
        def execute(self, text):
            return self

        def fetchone(self):
            return ("delete",)

    with pytest.raises(JournalError, match="journal mode 'delete', expected 'wal'"):
        sqlite_module._start(Odd(), path, "paper", durable=True)


def test_a_table_that_cannot_be_read_on_is_damage(path):
    disk = SqliteDisk.open(path, "paper")
    disk._sql.execute("DROP TABLE frame")
    with pytest.raises(JournalCorrupt, match="cannot be read on after 3"):
        list(disk.read(3))
    disk.close()


def test_a_released_journal_without_old_frames_moves_nothing(path):
    disk = SqliteDisk.open(path, "paper", archives=True)
    disk.release(5)
    disk.tidy()
    assert not sqlite_file.archive_of(path).exists()
    disk.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET value = 0 WHERE key = 'epoch'",
        "UPDATE meta SET value = 'x' WHERE key = 'epoch'",
        "UPDATE meta SET key = 'epocg' WHERE key = 'epoch'",
        "UPDATE frame SET epoch = 'x'",
    ],
)
def test_an_epoch_that_may_have_been_used_is_refused(path, damage):
    disk = SqliteDisk.open(path, "paper")
    disk.write(*frames_of(1, session(1)))
    disk.close()
    with sqlite3.connect(path) as sql:
        sql.execute(damage)
    sql.close()
    with pytest.raises(JournalCorrupt, match="must never be given twice"):
        SqliteDisk.open(path, "paper")


def test_a_journal_restored_from_an_older_copy_takes_an_epoch_nobody_had(path, tmp_path):
    locks = tmp_path / "locks"
    SqliteDisk.open(path, "paper", locks).close()
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    had = set()
    for _ in range(3):
        disk = SqliteDisk.open(path, "paper", locks)
        had.add(disk.epoch)
        disk.close()
    for restored in (True, True, False):
        if restored:
            shutil.copy(copy, path)
        else:
            path.unlink()
        disk = SqliteDisk.open(path, "paper", locks)
        assert disk.epoch > max(had)
        had.add(disk.epoch)
        disk.close()
    other = SqliteDisk.open(tmp_path / "other.db", "other", locks)
    assert other.epoch == 1
    other.close()


def test_a_journal_that_is_thrown_away_begins_with_the_same_epoch_each_time(tmp_path):
    for name in ("one", "two"):
        disk = SqliteDisk.open(tmp_path / name, "replay", tmp_path, durable=False)
        assert disk.epoch == 1
        disk.close()


def test_a_highest_epoch_that_cannot_be_read_is_told(path):
    path.parent.mkdir()
    (path.parent / "paper.epoch").write_bytes(b"seven")
    with pytest.raises(JournalError, match="expected the highest epoch"):
        SqliteDisk.open(path, "paper")
    (path.parent / "paper.epoch").unlink()
    (path.parent / "paper.epoch").mkdir()
    with pytest.raises(JournalError, match="cannot be read"):
        SqliteDisk.open(path, "paper")


def test_a_highest_epoch_that_cannot_be_kept_is_told(tmp_path):
    lock = AccountLock(tmp_path / "paper.lock", "paper")
    lock.keep_epoch(7)
    assert lock.highest_epoch() == 7
    (tmp_path / "paper.epoch").unlink()
    (tmp_path / "paper.epoch").mkdir()
    with pytest.raises(JournalError, match=r"paper\.epoch cannot be written: Is a dir"):
        lock.keep_epoch(8)
    lock.close()


@pytest.mark.parametrize("code", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_BUSY"])
def test_only_a_full_disk_frees_the_reserve_and_tries_again(path, code):
    """After a failed flush the kernel may call pages clean that it never wrote."""

    class Fails(FailingCommits):
        def execute(self, text, *values):
            if text == "COMMIT":
                self.commits += 1
                error = sqlite3.OperationalError(code)
                error.sqlite_errorcode = getattr(sqlite3, code)
                raise error
            return self.sql.execute(text, *values)

    disk = SqliteDisk.open(path, "paper", reserve_bytes=4_096)
    disk._connection = failing = Fails(disk._connection, 0)
    with pytest.raises(JournalWriteFailed, match=code):
        disk.write(*frames_of(1, session(1)))
    assert failing.commits == 1
    assert path.with_name("journal.db-reserve").stat().st_size == 4_096
    assert disk.distress == ""
    disk.close()
