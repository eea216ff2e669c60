"""The journal on SQLite: write-ahead log, synchronous FULL, one writing connection.

Fencing has two parts. A `flock` keyed by account, which the kernel frees on kill -9, keeps a
second runtime out. An epoch, raised by one when the journal is opened for writing, is
compared in every transaction, so that a writer that was passed over cannot commit.

Checkpoints are the journal thread's own and happen when it is idle, since an automatic one
would land in a commit that somebody waits for. SQLite before 3.51.3 can lose frames when two
connections reset the log (sqlite.org/wal.html); here one connection writes and checkpoints.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from bot4_runtime.domain.errors import (
    JournalCorrupt,
    JournalError,
    JournalWriteFailed,
)
from bot4_runtime.domain.events import SCHEMA_VERSION
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.frames import Frame, Keys
from bot4_runtime.state.migrations import check_revision, statements
from bot4_runtime.state.wal import check_log

_ROWS: Final = (512, 64, 8, 1)
_PAGE: Final = 4_096
_TIDY_BYTES: Final = 1 << 20
_FORCED_TIDY_BYTES: Final = 64 << 20


class SqliteDisk:
    """A `Disk` in one SQLite file; made by `open`."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: AccountLock, epoch: int
    ) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._lock = lock
        self._epoch = epoch
        self._log_bytes = 0

    @classmethod
    def open(cls, path: Path, account: str, lock_dir: Path | None = None) -> Self:
        """Take the account, check the file, and take the next epoch.

        Args:
            path: the database; made when it is not there.
            account: whose journal it is; a file of another account is refused.
            lock_dir: where the account's lock file lies; the database's folder by default.
                All runtimes that could trade an account must be given the same one.

        Raises:
            JournalLocked: another runtime holds the account.
            JournalCorrupt: the file is damaged or no journal.
            JournalError: the journal is of another schema version or account.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = AccountLock((lock_dir or path.parent) / f"{account}.lock", account)
        connection: sqlite3.Connection | None = None
        try:
            check_log(path)
            connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            epoch = _start(connection, path, account)
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
        return cls(path, connection, lock, epoch)

    @property
    def epoch(self) -> int:
        """The epoch this writer took when it opened."""
        return self._epoch

    @property
    def distress(self) -> str:
        """Why no new exposure may be taken; empty when there is no reason."""
        return ""

    @property
    def _sql(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalWriteFailed(f"the journal {self._path} is closed")
        return self._connection

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return last_seq(self._sql)

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`, in order."""
        return read_frames(self._sql, after_seq)

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Commit frames in one transaction, if this writer's epoch still stands.

        Raises:
            JournalWriteFailed: it could not be committed, or a newer runtime took over.
        """
        sql = self._sql
        try:
            sql.execute("BEGIN IMMEDIATE")
            self._check_epoch(sql)
            _insert(sql, "frame", 6, frames)
            _insert(sql, "intent", 2, keys.intents)
            _insert(sql, "trade", 4, keys.trades)
            sql.execute("COMMIT")
        except (sqlite3.Error, JournalWriteFailed) as error:
            with suppress(sqlite3.Error):  # never retried; a newer runtime must not wait for us
                sql.rollback()
            raise JournalWriteFailed(f"{self._path}: {error}") from error
        self._log_bytes += 3 * _PAGE + sum(len(frame.body) for frame in frames)
        if self._log_bytes > _FORCED_TIDY_BYTES:
            self.tidy()

    def _check_epoch(self, sql: sqlite3.Connection) -> None:
        epoch = _meta(sql, "epoch")
        if epoch != self._epoch:
            raise JournalWriteFailed(
                f"a newer runtime (epoch {epoch}) took this journal over from epoch "
                f"{self._epoch}; this one must stop"
            )

    def tidy(self) -> None:
        """Move the log into the database when enough has gathered."""
        if self._log_bytes < _TIDY_BYTES:
            return
        self._log_bytes = 0
        try:
            self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise JournalWriteFailed(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the database and let go of the account; may be repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._lock.close()


def _start(sql: sqlite3.Connection, path: Path, account: str) -> int:
    """Prepare and check the file, then raise the epoch by one and return it."""
    sql.execute("PRAGMA busy_timeout = 5000")
    (mode,) = sql.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalError(
            f"{path}: the file system gives SQLite journal mode {mode!r}, expected 'wal'; "
            "put the account folder on a local disk"
        )
    sql.execute("PRAGMA synchronous = FULL")
    sql.execute("PRAGMA wal_autocheckpoint = 0")
    if not sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        sql.execute("BEGIN IMMEDIATE")
        for text in statements("sqlite"):
            sql.execute(text)
        sql.execute(
            "INSERT INTO meta VALUES ('schema_version', ?), ('epoch', 0), ('account', ?)",
            (SCHEMA_VERSION, account),
        )
        sql.execute("COMMIT")
        _sync_folder(path.parent)
    check_journal(sql, path)
    found = _meta(sql, "account")
    if found != account:
        raise JournalError(f"{path} is the journal of account {found!r}, expected {account!r}")
    sql.execute("BEGIN IMMEDIATE")
    sql.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'")
    epoch = int(str(_meta(sql, "epoch")))
    sql.execute("COMMIT")
    return epoch


def last_seq(sql: sqlite3.Connection) -> int:
    """Return the sequence number of the last event, 0 when there is none."""
    row = sql.execute("SELECT last_seq FROM frame ORDER BY first_seq DESC LIMIT 1").fetchone()
    return 0 if row is None else int(row[0])


def read_frames(sql: sqlite3.Connection, after_seq: int) -> Iterator[Frame]:
    """Yield the frames that hold events after `after_seq` in order."""
    try:
        for row in sql.execute(
            "SELECT first_seq, last_seq, epoch, kinds, body, crc FROM frame WHERE first_seq >= "
            "(SELECT coalesce(max(first_seq), 0) FROM frame WHERE first_seq <= ?1) "
            "AND last_seq >= ?1 ORDER BY first_seq",
            (after_seq + 1,),
        ):
            yield Frame._make(row)
    except sqlite3.DatabaseError as error:
        raise JournalCorrupt(
            f"the journal cannot be read on after {after_seq}: {error}"
        ) from error


def check_journal(sql: sqlite3.Connection, path: Path) -> None:
    """Check that an open database is a whole journal of this program's schema version.

    Raises:
        JournalCorrupt: SQLite finds damage, or it is not a journal.
        JournalError: it is of another schema version.
    """
    verdict = sql.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalCorrupt(f"{path} is damaged: {verdict}. Restore it from a copy")
    check_version(sql, path)


def check_version(sql: sqlite3.Connection, path: Path) -> None:
    """Raise JournalError when an open database is of another schema version."""
    (revision,) = sql.execute("SELECT version_num FROM alembic_version").fetchone()
    check_revision(str(revision), str(path), str(_meta(sql, "account")))
    version = _meta(sql, "schema_version")
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"{path} is of schema version {version}; this program reads version "
            f"{SCHEMA_VERSION}. Use the release that wrote it, or another account folder"
        )


def _meta(sql: sqlite3.Connection, key: str) -> object:
    row = sql.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


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


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
