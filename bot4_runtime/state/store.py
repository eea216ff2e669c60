"""One writer folds events into `TradingState` and hands them to the journal as whole batches.

What other threads read is the state between two batches, never inside one. After a crash the
state is the fold of all batches that became durable: a snapshot and the events after it, by
sequence number.
"""

import errno
import gc
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec
import structlog

from bot4_runtime.domain.errors import InvariantViolated, JournalCorrupt, JournalError
from bot4_runtime.domain.events import JournaledEvent, OrderEvent, OrderFilled, SessionEnded
from bot4_runtime.domain.order import Book, Fill
from bot4_runtime.domain.portfolio import Portfolio
from bot4_runtime.state import snapshot
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.trading_state import StateImage, TradingState

SNAPSHOT_EVENTS: Final = 20_000
SNAPSHOT_NS: Final = 60 * 1_000_000_000
SCARCE: Final = 0.1
"""Share of the disk that is free below which every snapshot warns."""

T = TypeVar("T")


class RecoveryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What recovery did.

    Attributes:
        snapshot_seq: of the snapshot it began with; None when the whole journal was replayed.
        refused: snapshots passed over, with the reason.
        events_replayed: events folded after the snapshot.
        last_seq: of the recovered state.
        unanswered: intent numbers that have no outcome yet.
        seconds: what it took.
    """

    snapshot_seq: int | None
    refused: tuple[str, ...]
    events_replayed: int
    last_seq: int
    unanswered: tuple[int, ...]
    seconds: float


class StateStore:
    """The state of one account, folded in memory and remembered by the journal.

    Call `recover` before anything else, `append` from one thread only, and `close` at the end.

    Args:
        journal: where batches go; closed by `close`.
        snapshot_dir: folder of the snapshots; None takes none.
        patience_s: how long an order may wait for its journal; longer is a failed journal.
        disposable: the journal is thrown away with its run, as a replay's is: nothing waits
            for the disk, and there is no snapshot before the end.
    """

    def __init__(
        self,
        journal: Journal,
        snapshot_dir: Path | None,
        *,
        patience_s: float = 30.0,
        disposable: bool = False,
    ) -> None:
        self._journal = journal
        self._snapshot_dir = snapshot_dir
        self._patience_s = patience_s
        self._disposable = disposable
        self._state = TradingState()
        self._lock = threading.RLock()
        self._staged: list[JournaledEvent] = []
        self._broken = False
        self._snapshot_seq = 0
        self._snapshot_ns: int | None = None
        self._snapshot: threading.Event | None = None
        self._no_room = ""
        self._log = structlog.get_logger("state")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> TradingState:
        """The live state, for the writing thread alone; `recover` replaces it."""
        return self._state

    @property
    def epoch(self) -> int:
        """The epoch this process took."""
        return self._journal.epoch

    @property
    def durable_seq(self) -> int:
        """Sequence number up to which everything is as durable as it will be waited for."""
        return self._state.seq if self._disposable else self._journal.durable_seq

    @property
    def distress(self) -> str:
        """Why no new exposure may be taken though events are still written; empty when none."""
        return self._journal.distress or self._no_room

    # --------------------------------------------------------------------- facts
    def fact(self, key: str) -> str | None:
        """Return a fact that the journal keeps beside its events; only before the first batch."""
        return self._journal.fact(key)

    def keep_fact(self, key: str, value: str) -> None:
        """Return once a fact is durable in the place of the former one.

        Raises:
            JournalWriteFailed: it cannot become durable, or did not in time.
        """
        self._journal.keep_fact(key, value)

    @property
    def ended_in_order(self) -> bool:
        """Whether the journal's last event is the end of a session; only before a batch."""
        after = max(self._state.seq - 1, 0)
        last = [event for _, event in self._journal.read(after)]
        return not last or type(last[-1]) is SessionEnded

    # ------------------------------------------------------------------- writing
    def stage(self, event: JournaledEvent) -> bool:
        """Fold an event at once and keep it for the batch that `commit` closes.

        Readers of other threads wait until then, also while a venue outside the process is
        asked within a batch: what they would see is half a batch. They may wait for as long as
        its answers take. An event that cannot follow the state breaks the store, since the
        batch is half folded.

        Returns:
            False for a fill that was booked before; it is not journaled again.

        Raises:
            InvariantViolated: the event cannot follow the state.
            JournalWriteFailed: the journal takes nothing more.
        """
        if not self._staged:
            self._check()
            self._lock.acquire()
        try:
            fresh = self._state.apply(event)
        except BaseException:
            self._broken = True
            self._staged.clear()
            self._lock.release()
            raise
        if fresh:
            self._staged.append(event)
        elif not self._staged:
            self._lock.release()
        return fresh

    def commit(self) -> int:
        """Hand the staged batch to the journal as one unit; return the last sequence number."""
        if not self._staged:
            return self._state.seq
        batch = self._staged
        self._staged = []
        try:
            self._state.seq += len(batch)
            self._journal.append(batch)
        except BaseException:
            self._broken = True
            raise
        finally:
            self._lock.release()
        return self._state.seq

    def append(self, events: Sequence[JournaledEvent]) -> int:
        """Fold a batch and hand it to the journal as one unit: durable whole or not at all.

        Returns:
            The sequence number of its last event, for `wait_durable`.

        Raises:
            InvariantViolated: an event cannot follow the state; the store is broken.
            JournalWriteFailed: the journal takes nothing more.
        """
        self._check()
        state = self._state
        with self._lock:
            try:
                batch = [event for event in events if state.apply(event)]
                if batch:
                    state.seq += len(batch)
                    self._journal.append(batch)
            except BaseException:
                self._broken = True
                raise
        return state.seq

    def update_position(self, fill: Fill) -> int:
        """Book an execution, the only thing that moves a position; return its number."""
        return self.append([OrderFilled(ts_event_ns=fill.ts_event_ns, fill=fill)])

    def update_order(self, event: OrderEvent) -> int:
        """Book what became of an order; return the event's number."""
        return self.append([event])

    def wait_durable(self, seq: int, timeout_s: float | None = None) -> None:
        """Return once everything up to `seq` would survive a power cut.

        Args:
            seq: a sequence number.
            timeout_s: the store's patience when None.

        Raises:
            JournalWriteFailed: it cannot become durable, or did not in time.
        """
        if not self._disposable:
            self._journal.wait_durable(seq, self._patience_s if timeout_s is None else timeout_s)

    def _check(self) -> None:
        if self._staged:
            raise InvariantViolated("a staged batch is open; commit it first")
        if self._broken:
            raise InvariantViolated(
                "an earlier batch could not be folded or queued, so the state is ahead of the "
                "journal; stop the process, then restart and replay"
            )
        if self._state.seq != self._journal.last_seq:
            raise InvariantViolated(
                f"the state is at {self._state.seq} and the journal at {self._journal.last_seq}; "
                "recover before the first batch"
            )
        self._journal.check()

    # ------------------------------------------------------------------- reading
    def get_portfolio(self, book: Book) -> Portfolio:
        """Return a whole, consistent view of a book; any thread may ask."""
        with self._lock:
            return self._state.portfolio(book)

    def read(self, look: Callable[[TradingState], T]) -> T:
        """Let any thread look at the state between two batches.

        Args:
            look: reads the state quickly and returns copies, never parts of it.
        """
        with self._lock:
            return look(self._state)

    # ----------------------------------------------------------------- snapshots
    def tick(self, now_ns: int) -> bool:
        """Begin a snapshot when 20,000 events or 60 s have passed; True when one was begun.

        Args:
            now_ns: time of the machine, not of the candles.
        """
        if self._snapshot_dir is None or self._disposable:
            return False
        if self._snapshot_ns is None:
            self._snapshot_ns = now_ns
        due = (
            self._state.seq - self._snapshot_seq >= SNAPSHOT_EVENTS
            or now_ns - self._snapshot_ns >= SNAPSHOT_NS
        )
        if not due or self._state.seq == self._snapshot_seq:
            return False
        if self._snapshot is not None and not self._snapshot.is_set():
            return False  # the last one is still being written
        self._snapshot_ns = now_ns
        self._begin_snapshot(self._snapshot_dir)
        return True

    def create_snapshot(self, timeout_s: float = 30.0) -> int | None:
        """Write a snapshot and wait until it lies on the disk.

        Returns:
            Its sequence number; None when the store takes no snapshots, or when the disk is
            full: the journal has it all.

        Raises:
            JournalWriteFailed: the journal or the snapshot could not be written.
        """
        if self._snapshot_dir is None:
            return None
        self._finish_snapshot(timeout_s)
        self._begin_snapshot(self._snapshot_dir)
        self._finish_snapshot(timeout_s)
        return None if self._no_room else self._snapshot_seq

    def _begin_snapshot(self, folder: Path) -> None:
        self._check()
        with self._lock:
            image = snapshot.picture(self._state)
        self._snapshot_seq = image.seq
        self._snapshot = self._journal.beside(
            image.seq,
            lambda durable: self._write_snapshot(folder, image, durable),
        )

    def _write_snapshot(
        self, folder: Path, image: StateImage, durable: Callable[[], object]
    ) -> None:
        try:
            snapshot.write(folder, image.seq, snapshot.encode(image), durable)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self._no_room = f"there is no room for a snapshot in {folder}; free some"
            self._log.error("snapshot skipped", why=self._no_room)
            return
        self._no_room = ""
        disk = shutil.disk_usage(folder)
        if disk.free < SCARCE * disk.total:
            self._log.warning("disk nearly full", folder=str(folder), free_mib=disk.free >> 20)
        kept = snapshot.list_snapshots(folder)
        if len(kept) == snapshot.KEEP:
            self._journal.release(int(kept[-1].stem))

    def _finish_snapshot(self, timeout_s: float) -> None:
        if self._snapshot is not None:
            self._journal.wait_for(self._snapshot, timeout_s)
            self._snapshot = None

    # ------------------------------------------------------------------ recovery
    def recover(self, version: int | None = None) -> RecoveryReport:
        """Rebuild the state: a snapshot, then the events after it by sequence number.

        Args:
            version: sequence number of the snapshot to begin with; the newest sound one
                when None.

        Raises:
            JournalCorrupt: the chosen snapshot or the journal is damaged, or the journal
                ends before a sound snapshot.
        """
        started = time.perf_counter()
        collecting = gc.isenabled()
        gc.disable()
        try:
            state, snapshot_seq, refused = self._from_snapshot(version)
            replayed = 0
            for seq, event in self._journal.read(state.seq):
                state.apply(event)
                state.seq = seq
                replayed += 1
        finally:
            if collecting:
                gc.enable()
        if state.seq != self._journal.last_seq:
            raise JournalCorrupt(
                f"the journal ends at {self._journal.last_seq}, before the snapshot at "
                f"{state.seq}: acknowledged events are missing. Restore the journal from a copy"
            )
        with self._lock:
            self._state = state
        self._snapshot_seq = snapshot_seq or 0
        return RecoveryReport(
            snapshot_seq=snapshot_seq,
            refused=tuple(refused),
            events_replayed=replayed,
            last_seq=state.seq,
            unanswered=tuple(order.intent.intent_no for order in state.unanswered()),
            seconds=time.perf_counter() - started,
        )

    def _from_snapshot(self, version: int | None) -> tuple[TradingState, int | None, list[str]]:
        refused: list[str] = []
        paths = [] if self._snapshot_dir is None else snapshot.list_snapshots(self._snapshot_dir)
        if version is not None:
            paths = [path for path in paths if path.stem == f"{version:020d}"]
            if not paths:
                raise JournalError(
                    f"there is no snapshot {version}; leave the version out for the newest"
                )
        for path in paths:
            try:
                state = snapshot.read(path)
            except JournalCorrupt as error:
                if version is not None:
                    raise
                refused.append(str(error))
            else:
                return state, state.seq, refused
        return TradingState(), None, refused

    def close(self) -> None:
        """Write what is queued and close the journal; may be repeated.

        Raises:
            JournalWriteFailed: something that was appended never became durable.
        """
        self._journal.close()
