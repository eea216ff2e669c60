"""The journal on SQLite: write-ahead log, synchronous FULL, one writing connection.

Fencing has two parts. A `flock` keyed by account, which the kernel frees on kill -9, keeps a
second runtime out. An epoch, raised when the journal is opened for writing, is compared in
every transaction, so that a writer that was passed over cannot commit. The highest one is kept
beside the lock too, for the day the file is restored from an older copy.

Checkpoints are the journal thread's own and happen when it is idle, since an automatic one
would land in a commit that somebody waits for. SQLite before 3.51.3 can lose frames when two
connections reset the log (sqlite.org/wal.html); here one connection writes and checkpoints.

A full disk is the one failure that is not final: SQLite then takes the transaction back whole.
A write frees the reserve and is repeated; housekeeping leaves the reserve alone and waits. Either
way `distress` says that nothing new may be opened.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from bot4_runtime.domain.errors import JournalCorrupt, JournalError, JournalWriteFailed
from bot4_runtime.domain.events import SCHEMA_VERSION
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.frames import Frame, Keys
from bot4_runtime.state.migrations import statements
from bot4_runtime.state.place import sync_folder
from bot4_runtime.state.sqlite_file import (
    archive_of,
    check_journal,
    has_archive,
    last_seq,
    meta,
    read_all,
)
from bot4_runtime.state.wal import check_log, fill_log

LOG_BYTES: Final = 4 << 20
"""How long a log is made at once: what is written between two times of idleness, as a rule."""

_ROWS: Final = (512, 64, 8, 1)
_PAGE: Final = 4_096
_DISPOSABLE_PAGE: Final = 16_384
"""Page of journals whose commits are not flushed: each page costs two calls of the system."""
_TIDY_BYTES: Final = 1 << 20
_FORCED_TIDY_BYTES: Final = 64 << 20
_MOVED_AT_ONCE: Final = 1_024
_FACT: Final = "fact:"


class SqliteDisk:
    """A `Disk` in one SQLite file; made by `open`."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: AccountLock,
        epoch: int,
        *,
        archives: bool = False,
    ) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._lock = lock
        self._epoch = epoch
        self._archives = archives
        self._released = 0
        self._distress = ""
        self._log_bytes = 0

    @classmethod
    def open(
        cls,
        path: Path,
        account: str,
        lock_dir: Path | None = None,
        *,
        durable: bool = True,
        archives: bool = False,
        reserve_bytes: int = 0,
        log_bytes: int = 0,
    ) -> Self:
        """Take the account, check the file, and take the next epoch.

        Args:
            path: the database; made when it is not there.
            account: whose journal it is; a file of another account is refused.
            lock_dir: where the account's lock file lies; the database's folder by default.
                All runtimes that could trade an account must be given the same one.
            durable: False leaves it to the system when the disk is written, for journals that
                are thrown away with their run; after a power cut they may be damaged.
            archives: whether released events move to a file of their own.
            reserve_bytes: space kept for the day the disk is full.
            log_bytes: what the log is lengthened to, so that commits need not (`fill_log`).

        Raises:
            JournalLocked: another runtime holds the account.
            JournalCorrupt: the file is damaged or no journal.
            JournalError: the journal is of another layout, schema version or account.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = AccountLock((lock_dir or path.parent) / f"{account}.lock", account)
        connection: sqlite3.Connection | None = None
        try:
            if not path.exists():
                _create(path, account, _PAGE if durable else _DISPOSABLE_PAGE)
            check_log(path)
            connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            used = lock.highest_epoch() if durable else 0
            epoch = _start(connection, path, account, durable=durable, used=used)
            if durable:
                lock.keep_epoch(epoch)
            disk = cls(path, connection, lock, epoch, archives=archives)
            disk._put_by(reserve_bytes)
            fill_log(path, log_bytes)
        except BaseException as error:
            if connection is not None:
                connection.close()
            lock.close()
            if isinstance(error, sqlite3.Error):
                raise JournalCorrupt(
                    f"{path} cannot be opened as a journal ({error}); expected a Bot4 journal. "
                    "Restore it from a copy, or set it and its -wal file aside"
                ) from error
            raise
        return disk

    @property
    def epoch(self) -> int:
        """The epoch this writer took when it opened."""
        return self._epoch

    @property
    def distress(self) -> str:
        """Why no new exposure may be taken; empty when there is no reason."""
        return self._distress

    @property
    def _sql(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalWriteFailed(f"the journal {self._path} is closed")
        return self._connection

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return last_seq(self._sql)

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames after `after_seq`, archived ones included; the one before may lead."""
        return read_all(self._sql, self._path, after_seq)

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Commit frames in one transaction, if this writer's epoch still stands.

        Raises:
            JournalWriteFailed: it could not be committed, or a newer runtime took over.
        """
        try:
            self._commit(frames, keys)
        except sqlite3.OperationalError as error:
            if not _is_full(error) or not self._free_reserve():
                raise JournalWriteFailed(f"{self._path}: {error}") from error
            try:
                self._commit(frames, keys)
            except sqlite3.Error as again:
                raise JournalWriteFailed(f"{self._path}: {again}") from again
        except sqlite3.Error as error:
            raise JournalWriteFailed(f"{self._path}: {error}") from error
        self._log_bytes += 3 * _PAGE + sum(len(frame.body) for frame in frames)
        if self._log_bytes > _FORCED_TIDY_BYTES:
            self._checkpoint()

    def fact(self, key: str) -> str | None:
        """Return a fact that is kept beside the events; None when there is none."""
        found = meta(self._sql, _FACT + key)
        return None if found is None else str(found)

    def keep_fact(self, key: str, value: str) -> None:
        """Commit a fact in the place of the former one, if this writer's epoch still stands.

        Raises:
            JournalWriteFailed: it could not be committed, or a newer runtime took over.
        """
        sql = self._sql
        try:
            self._begin(sql)
            sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_FACT + key, value))
            sql.execute("COMMIT")
        except (sqlite3.Error, JournalWriteFailed) as error:
            with suppress(sqlite3.Error):
                sql.rollback()
            raise JournalWriteFailed(f"{self._path}: {error}") from error

    def _commit(self, frames: Sequence[Frame], keys: Keys) -> None:
        sql = self._sql
        try:
            self._begin(sql)
            _insert(sql, "frame", 6, frames)
            _insert(sql, "intent", 2, keys.intents)
            _insert(sql, "trade", 4, keys.trades)
            sql.execute("COMMIT")
        except (sqlite3.Error, JournalWriteFailed):
            with suppress(sqlite3.Error):  # a newer runtime must not wait for us
                sql.rollback()
            raise

    def _begin(self, sql: sqlite3.Connection) -> None:
        """Begin a transaction that only the newest epoch may commit."""
        sql.execute("BEGIN IMMEDIATE")
        epoch = meta(sql, "epoch")
        if epoch != self._epoch:
            raise JournalWriteFailed(
                f"{self._path}: a newer runtime (epoch {epoch}) took this journal over from "
                f"epoch {self._epoch}; this one must stop"
            )

    # ------------------------------------------------------------- the full disk
    @property
    def _reserve(self) -> Path:
        return self._path.with_name(self._path.name + "-reserve")

    def _put_by(self, size: int) -> None:
        """Keep space for later; where there is none, trading begins in distress."""
        if not size:
            return
        try:
            with self._reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            self._distress = (
                f"there is no room for the reserve of {size // 2**20} MiB at {self._reserve} "
                f"({error.strerror}); free some and start again"
            )

    def _free_reserve(self) -> bool:
        if not self._reserve.exists():
            return False
        self._reserve.unlink()
        self._distress = (
            f"the disk of {self._path} is full; its reserve was freed so that what is held can "
            "be closed. Free some space and start again"
        )
        return True

    def _wait_for_room(self, error: sqlite3.Error) -> None:
        """Take note that housekeeping found the disk full; raise any other failure."""
        if not _is_full(error):
            raise JournalWriteFailed(f"{self._path}: {error}") from error
        self._distress = self._distress or (
            f"the disk of {self._path} is full, so that its log cannot be moved. Free some space "
            "and start again"
        )

    # ---------------------------------------------------------------- when idle
    def release(self, seq: int) -> None:
        """Allow events up to `seq` to be archived: every kept snapshot contains them."""
        self._released = seq

    def tidy(self) -> None:
        """Move the log into the database when enough has gathered, and released frames out.

        On a full disk it waits: the log can be moved later, and the reserve is for writes.
        """
        if self._archives and self._released and not self._distress:
            self._archive()
        if self._log_bytes >= _TIDY_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._wait_for_room(error)
            self._log_bytes = _TIDY_BYTES
        else:
            self._log_bytes = 0

    def _archive(self) -> None:
        """Copy some frames to the archive durably, then delete them here; keys stay."""
        sql = self._sql
        try:
            rows = sql.execute(
                "SELECT * FROM frame WHERE last_seq <= ? ORDER BY first_seq LIMIT ?",
                (self._released, _MOVED_AT_ONCE),
            ).fetchall()
            if rows:
                with closing(sqlite3.connect(archive_of(self._path))) as archive, archive:
                    _prepare_archive(archive, self._path)
                    archive.executemany(
                        "INSERT OR IGNORE INTO frame VALUES (?, ?, ?, ?, ?, ?)", rows
                    )
                self._begin(sql)
                sql.execute("DELETE FROM frame WHERE first_seq <= ?", (rows[-1][0],))
                sql.execute("COMMIT")
            if len(rows) < _MOVED_AT_ONCE:
                self._released = 0
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                sql.rollback()
            self._wait_for_room(error)

    def close(self) -> None:
        """Close the database and let go of the account; may be repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._lock.close()


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _prepare_archive(archive: sqlite3.Connection, path: Path) -> None:
    new = not has_archive(path)
    archive.execute("PRAGMA synchronous = EXTRA")
    archive.execute(
        "CREATE TABLE IF NOT EXISTS frame (first_seq INTEGER PRIMARY KEY, last_seq INTEGER, "
        "epoch INTEGER, kinds TEXT, body BLOB, crc INTEGER)"
    )
    if new:
        sync_folder(path.parent)


def _create(path: Path, account: str, page: int) -> None:
    """Make a journal whole or not at all, so that an empty file is damage and not a new one."""
    log = path.with_name(path.name + "-wal")
    if log.exists():
        raise JournalCorrupt(
            f"{log} is the log of a journal that is gone; restore {path.name} beside it, or set "
            "the log aside"
        )
    new = path.with_name(path.name + "-new")
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as sql:
        sql.execute("PRAGMA synchronous = EXTRA")
        sql.execute(f"PRAGMA page_size = {page}")
        sql.execute("BEGIN IMMEDIATE")
        for text in statements("sqlite"):
            sql.execute(text)
        sql.execute(
            "INSERT INTO meta VALUES ('schema_version', ?), ('epoch', 0), ('account', ?)",
            (SCHEMA_VERSION, account),
        )
        sql.execute("COMMIT")
    new.replace(path)
    sync_folder(path.parent)


def _start(
    sql: sqlite3.Connection, path: Path, account: str, *, durable: bool, used: int = 0
) -> int:
    """Prepare and check the file, then take the epoch after its last and after `used`."""
    sql.execute("PRAGMA busy_timeout = 5000")
    (mode,) = sql.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalError(
            f"{path}: the file system gives SQLite journal mode {mode!r}, expected 'wal'; "
            "put the account folder on a local disk"
        )
    sql.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    sql.execute("PRAGMA wal_autocheckpoint = 0")
    check_journal(sql, path)
    found = meta(sql, "account")
    if found != account:
        raise JournalError(f"{path} is the journal of account {found!r}, expected {account!r}")
    sql.execute("BEGIN IMMEDIATE")
    row = sql.execute("SELECT epoch FROM frame ORDER BY first_seq DESC LIMIT 1").fetchone()
    written, last = (0 if row is None else row[0]), meta(sql, "epoch")
    if not (isinstance(last, int) and isinstance(written, int) and last >= written):
        raise JournalCorrupt(
            f"{path} says that its last epoch is {last!r}, and its last frame is of epoch "
            f"{written!r}; a client id must never be given twice. Restore it from a copy"
        )
    epoch = max(last, used) + 1
    sql.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (epoch,))
    sql.execute("COMMIT")
    return epoch


def _insert(
    sql: sqlite3.Connection, table: str, columns: int, rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows by as few statements as possible.

    Each statement hands the interpreter lock to a busy loop, which keeps it for a whole
    switch interval (5 ms); one statement a row would let the journal fall behind.
    """
    at = 0
    for size in _ROWS:
        while len(rows) - at >= size:
            chunk = rows[at : at + size]
            sql.execute(_insert_text(table, columns, size), [v for row in chunk for v in row])
            at += size


@lru_cache(maxsize=16)
def _insert_text(table: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608  our own names
