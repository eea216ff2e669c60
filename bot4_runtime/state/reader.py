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
from bot4_runtime.state.journal import Frame, decode_frame
from bot4_runtime.state.sqlite import check_journal, check_version, read_frames
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
        (last,) = self._sql.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
        return int(last)

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
        names = None if kinds is None else {kind.__name__ for kind in kinds}
        for frame in self._frames(from_seq):
            if names is None or frame.kind in names:
                yield frame.seq, decode_frame(frame)

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
        """Check the whole file, every frame and its place; return the number of frames.

        Raises:
            JournalCorrupt: anything is damaged, unknown or missing.
        """
        check_journal(self._sql, self._path)
        expected = 0
        for frame in self._frames(0):
            expected += 1
            if frame.seq != expected:
                raise JournalCorrupt(
                    f"{self._path}: frame {expected} is missing (found {frame.seq})"
                )
            decode_frame(frame)
        return expected

    def _frames(self, from_seq: int) -> Iterator[Frame]:
        return read_frames(self._sql, from_seq - 1)

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
