"""A journal's SQLite file as both its writer and its readers see it; and the readers.

Readers open it with ``mode=ro``: they can neither write nor checkpoint. Frames that were moved
to the archive beside it are read as if they had never left.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, cast

from bot4_runtime.domain.errors import JournalCorrupt, JournalError, JournalMissing
from bot4_runtime.domain.events import SCHEMA_VERSION
from bot4_runtime.state.frames import Frame, Keys
from bot4_runtime.state.migrations import check_revision

ARCHIVE: Final = "archive.sqlite"
"""Name of the file, beside the journal, that old frames are moved to."""


def archive_of(path: Path) -> Path:
    """Return where the archive of a journal lies, when it has one."""
    return path.with_name(ARCHIVE)


def has_archive(path: Path) -> bool:
    """Tell whether a journal has an archive; an empty file is one that was never begun."""
    archive = archive_of(path)
    return archive.is_file() and archive.stat().st_size > 0


def meta(sql: sqlite3.Connection, key: str) -> object:
    """Return a fact about the journal; None when it is not there."""
    row = sql.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def last_seq(sql: sqlite3.Connection) -> int:
    """Return the sequence number of the last event, 0 when there is none."""
    row = sql.execute("SELECT last_seq FROM frame ORDER BY first_seq DESC LIMIT 1").fetchone()
    return 0 if row is None else int(row[0])


def read_frames(sql: sqlite3.Connection, after_seq: int, table: str = "frame") -> Iterator[Frame]:
    """Yield a table's frames in order, from the one that holds or precedes `after_seq` + 1."""
    try:
        yield from map(
            _frame,
            sql.execute(
                "SELECT first_seq, last_seq, epoch, kinds, body, crc "  # noqa: S608  our own names
                f"FROM {table} WHERE first_seq >= (SELECT coalesce(max(first_seq), 0) "
                f"FROM {table} WHERE first_seq <= ?1) ORDER BY first_seq",
                (after_seq + 1,),
            ),
        )
    except sqlite3.DatabaseError as error:
        raise JournalCorrupt(
            f"the journal cannot be read on after {after_seq}: {error}"
        ) from error


def read_all(sql: sqlite3.Connection, path: Path, after_seq: int) -> Iterator[Frame]:
    """Yield the frames after `after_seq`, those in the archive first.

    The journal's own place is fixed before the archive is opened, so that frames that a writer
    moves meanwhile are seen in one of the two.
    """
    archive = archive_of(path)
    if not has_archive(path):
        yield from read_frames(sql, after_seq)
        return
    sql.execute("BEGIN")
    try:
        row = sql.execute("SELECT min(first_seq) FROM frame").fetchone()
        begins = row[0]
        old = sqlite3.connect(f"{archive.absolute().as_uri()}?mode=ro", uri=True)
        try:
            for frame in read_frames(old, after_seq):
                if begins is not None and frame.first_seq >= begins:
                    break
                yield frame
        finally:
            old.close()
        yield from read_frames(sql, after_seq)
    finally:
        sql.execute("COMMIT")


def read_keys(sql: sqlite3.Connection) -> Keys:
    """Return all keys that are held unique, in order.

    Raises:
        JournalCorrupt: they cannot be read.
    """
    try:
        intents = sql.execute("SELECT intent_no, seq FROM intent ORDER BY seq").fetchall()
        trades = sql.execute(
            "SELECT book, symbol, trade_id, seq FROM trade ORDER BY seq"
        ).fetchall()
    except sqlite3.DatabaseError as error:
        raise JournalCorrupt(f"the journal's unique keys cannot be read: {error}") from error
    if not all(type(row[-1]) is int for row in (*intents, *trades)):
        raise JournalCorrupt("a unique key of the journal names no event")
    return Keys(intents, trades)


def _frame(row: tuple[object, ...]) -> Frame:
    """Make a frame of a row; SQLite would also keep a text where a number belongs."""
    if tuple(map(type, row)) != (int, int, int, str, bytes, int):
        raise JournalCorrupt(
            f"journal frame {row[0]} is damaged: its columns are of other types than a frame's"
        )
    return Frame._make(cast(Any, row))


def check_journal(sql: sqlite3.Connection, path: Path) -> None:
    """Check that an open database is a whole journal of this program's schema version.

    Raises:
        JournalCorrupt: SQLite finds damage, or it is not a journal.
        JournalError: it is of another layout or schema version.
    """
    verdict = sql.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalCorrupt(f"{path} is damaged: {verdict}. Restore it from a copy")
    check_version(sql, path)


def check_version(sql: sqlite3.Connection, path: Path) -> None:
    """Raise JournalError when an open database is of another layout or schema version."""
    row = sql.execute("SELECT version_num FROM alembic_version").fetchone()
    check_revision(None if row is None else str(row[0]), str(path), str(meta(sql, "account")))
    version = meta(sql, "schema_version")
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"{path} is of schema version {version}; this program reads version "
            f"{SCHEMA_VERSION}. Use the release that wrote it, or another account folder"
        )


class SqliteSource:
    """A `FrameSource` over a journal's file; made by `open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._sql = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal for reading.

        Raises:
            JournalMissing: there is none.
            JournalError: it is of another layout or schema version.
            JournalCorrupt: the file is no journal.
        """
        if not path.is_file():
            raise JournalMissing(
                f"there is no journal at {path}; start the runtime first, or name its account"
            )
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
        )
        try:
            check_version(connection, path)
        except sqlite3.Error as error:
            connection.close()
            raise JournalCorrupt(
                f"{path} cannot be read as a journal ({error}); expected a Bot4 journal"
            ) from error
        except JournalError:
            connection.close()
            raise
        return cls(path, connection)

    @property
    def where(self) -> str:
        """Path of the file."""
        return str(self._path)

    def account(self) -> str:
        """Return whose journal it is."""
        return str(meta(self._sql, "account"))

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return last_seq(self._sql)

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`, in order."""
        return read_all(self._sql, self._path, after_seq)

    def keys(self) -> Keys:
        """Return all keys that are held unique, in order."""
        return read_keys(self._sql)

    def check(self) -> None:
        """Raise JournalCorrupt when SQLite finds damage."""
        check_journal(self._sql, self._path)

    def close(self) -> None:
        """Close the file."""
        self._sql.close()
