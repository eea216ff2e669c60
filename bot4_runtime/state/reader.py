"""Read-only access to a journal, beside a running writer or after it.

Readers open SQLite with ``mode=ro``: they can neither write nor checkpoint.
"""

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

from bot4_runtime.domain.errors import JournalCorrupt, JournalError
from bot4_runtime.domain.events import JournaledEvent, SessionStarted
from bot4_runtime.state import snapshot
from bot4_runtime.state.frames import decode_frame
from bot4_runtime.state.sqlite import check_journal, check_version, last_seq, read_frames
from bot4_runtime.state.trading_state import TradingState


class JournalReader:
    """Reads a journal; made by `open`, closed by `close` or a with block."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._sql = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal for reading.

        Raises:
            JournalError: there is no journal, or it is of another schema version.
            JournalCorrupt: the file is no journal.
        """
        if not path.is_file():
            raise JournalError(
                f"there is no journal at {path}; start the runtime first, or name its account"
            )
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return last_seq(self._sql)

    def account(self) -> str:
        """Return whose journal it is."""
        row = self._sql.execute("SELECT value FROM meta WHERE key = 'account'").fetchone()
        return str(row[0])

    def events(
        self, from_seq: int = 0, kinds: Collection[type] | None = None
    ) -> Iterator[tuple[int, JournaledEvent]]:
        """Yield events with their sequence numbers, in order.

        Args:
            from_seq: first sequence number wanted.
            kinds: event types wanted; all when None.

        Raises:
            JournalCorrupt: a frame is damaged or of unknown kind.
        """
        wanted = None if kinds is None else {kind.__name__ for kind in kinds}
        types = () if kinds is None else tuple(kinds)
        for frame in read_frames(self._sql, from_seq - 1):
            if wanted is not None and wanted.isdisjoint(frame.kinds.split()):
                continue
            for seq, event in enumerate(decode_frame(frame), frame.first_seq):
                if seq >= from_seq and (wanted is None or isinstance(event, types)):
                    yield seq, event

    def sessions(self) -> list[tuple[int, SessionStarted]]:
        """Return every session's start with its sequence number, oldest first."""
        return [
            (seq, event)
            for seq, event in self.events(kinds=(SessionStarted,))
            if isinstance(event, SessionStarted)
        ]

    def state(self, snapshot_dir: Path | None = None) -> TradingState:
        """Fold the journal as it stands now, beside a running writer too.

        Args:
            snapshot_dir: folder of snapshots to begin from; damaged ones are passed over.
        """
        state = self._newest_snapshot(snapshot_dir)
        for seq, event in self.events(state.seq + 1):
            state.apply(event)
            state.seq = seq
        return state

    def verify(self) -> int:
        """Check the whole file, every frame and its place; return the number of events.

        Raises:
            JournalCorrupt: anything is damaged, unknown or missing.
        """
        check_journal(self._sql, self._path)
        last = 0
        for frame in read_frames(self._sql, 0):
            if frame.first_seq != last + 1:
                raise JournalCorrupt(
                    f"{self._path}: event {last + 1} is missing (found {frame.first_seq})"
                )
            decode_frame(frame)
            last = frame.last_seq
        return last

    def _newest_snapshot(self, folder: Path | None) -> TradingState:
        last = self.last_seq()
        for path in [] if folder is None else snapshot.list_snapshots(folder):
            try:
                state = snapshot.read(path)
            except (JournalCorrupt, FileNotFoundError):
                continue
            if state.seq <= last:
                return state
        return TradingState()
