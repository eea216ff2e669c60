"""Read-only access to a journal, beside a running writer or after it."""

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Self

from bot4_runtime.domain.errors import ConfigError, JournalCorrupt, JournalError, JournalMissing
from bot4_runtime.domain.events import JournaledEvent, SessionStarted
from bot4_runtime.state import snapshot
from bot4_runtime.state.disk import FrameSource
from bot4_runtime.state.frames import Keys, contiguous, decode_frame, keys_before, keys_of
from bot4_runtime.state.place import JOURNAL, Elsewhere, has_journal, read_note
from bot4_runtime.state.sqlite_file import SqliteSource
from bot4_runtime.state.trading_state import TradingState


class JournalReader:
    """Reads a journal; made by `open`, closed by `close` or a with block."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal for reading.

        Args:
            path: its file; where a note lies in the file's place, the database it names.

        Raises:
            JournalError: there is no journal, or it is of another layout or schema version.
            JournalCorrupt: the file is no journal.
        """
        elsewhere = None if path.is_file() else read_note(path.parent)
        if elsewhere is None:
            return cls(SqliteSource.open(path))
        return cls._from_server(elsewhere)

    @classmethod
    def of_account(cls, folder: Path, account: str, configured: str = "sqlite") -> Self:
        """Open an account's journal for reading, and see that it is its own.

        Args:
            folder: of the account.
            account: whose journal is wanted.
            configured: ``state.journal``: a database's URL is asked where the folder has neither
                a journal nor a note, as on another machine than the runtime's.

        Raises:
            JournalMissing: the account has none.
            JournalError: it is another account's, or cannot be read.
        """
        if has_journal(folder):
            reader = cls.open(folder / JOURNAL)
        elif configured == "sqlite":
            raise JournalMissing(
                f"account {account!r} has no journal at {folder / JOURNAL}; `bot4-runtime start` "
                "begins one, --account names another"
            )
        else:
            reader = cls._from_server(Elsewhere(configured, account))
        found = reader.account()
        if found != account:
            reader.close()
            raise JournalError(
                f"{reader.where} is the journal of account {found!r}, expected {account!r}; put "
                f"it where it belongs, or look at a copy with `why --folder {folder}`"
            )
        return reader

    @classmethod
    def _from_server(cls, elsewhere: Elsewhere) -> Self:
        try:
            from bot4_runtime.state.postgres import PostgresSource
        except ImportError as error:
            raise ConfigError(
                f"a journal in PostgreSQL needs {error.name}; install Bot4 with its extra: pip "
                "install 'bot4[postgres]'"
            ) from None
        return cls(PostgresSource.open(elsewhere.url, elsewhere.account))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the journal."""
        self._source.close()

    @property
    def where(self) -> str:
        """Where the journal lies, in words."""
        return self._source.where

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return self._source.last_seq()

    def account(self) -> str:
        """Return whose journal it is."""
        return self._source.account()

    def events(
        self, from_seq: int = 0, kinds: Collection[type] | None = None
    ) -> Iterator[tuple[int, JournaledEvent]]:
        """Yield events with their sequence numbers, in order.

        Args:
            from_seq: first sequence number wanted.
            kinds: event types wanted; all when None.

        Raises:
            JournalCorrupt: a frame is damaged, missing or of unknown kind.
        """
        wanted = None if kinds is None else {kind.__name__ for kind in kinds}
        types = () if kinds is None else tuple(kinds)
        after_seq = max(from_seq, 1) - 1
        for frame in contiguous(self._source.read(after_seq), after_seq):
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
        """Check every frame, its place, and the unique keys; return the number of events.

        Raises:
            JournalCorrupt: anything is damaged, unknown or missing.
        """
        self._source.check()
        end = self._source.last_seq()  # a writer beside us may go on
        keys = self._source.keys()
        intents = iter([key for key in keys.intents if key[-1] <= end])
        trades = iter([key for key in keys.trades if key[-1] <= end])
        last = 0
        for frame in contiguous(self._source.read(0), 0):
            if frame.first_seq > end:
                break
            due = keys_of(frame.first_seq, decode_frame(frame))
            held = Keys(
                list(islice(intents, len(due.intents))), list(islice(trades, len(due.trades)))
            )
            if held not in (due, keys_before(due)):
                raise JournalCorrupt(
                    f"{self.where}: the unique keys of events {frame.first_seq} to "
                    f"{frame.last_seq} are not those of its intents and trades"
                )
            last = frame.last_seq
        if next(intents, None) or next(trades, None):
            raise JournalCorrupt(f"{self.where}: there are unique keys of no event")
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
