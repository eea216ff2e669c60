"""The journal: batches of events, committed in groups by a thread of their own.

A batch handed to `append` becomes durable whole or not at all. The first failure of a write
is final: after a failed fsync nobody knows what reached the disk (Rebello et al., "Can
Applications Recover from fsync Failures?", 2020), so the journal refuses everything after it.

There are three classes of durability. What an order depends on is waited for (`wait_durable`)
before anything leaves the process. All other events are in the same sequence and durable
within about 10 ms. What is not in the journal at all (`series`, metrics) may be lost.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bot4_runtime.domain.errors import JournalWriteFailed
from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.state.disk import Disk
from bot4_runtime.state.frames import contiguous, decode_frame, encode_frames, keys_of

MAX_PENDING: Final = 50_000
"""Events that may wait for the disk; `append` blocks beyond it."""

_MAX_GROUP: Final = 8_192
_LINGER_S: Final = 0.01
_IDLE_S: Final = 0.5
_CLOSE_S: Final = 30.0
_CLOSE_FAILED_S: Final = 1.0


class Journal:
    """Hands batches to the thread that owns the disk, and tells when they are durable.

    Args:
        disk: where frames go; closed by `close`.
        threaded: False for no thread: what is queued is written by whoever waits for it, by
            `pump`, by `close`, and by `append` once a whole group waits. The order of all
            calls of the disk then follows from the calls of the journal alone.
    """

    def __init__(self, disk: Disk, *, threaded: bool = True) -> None:
        self._disk = disk
        self._threaded = threaded
        self._pending: deque[Sequence[JournaledEvent] | Callable[[], None]] = deque()
        self._last_seq = disk.last_seq()
        self._durable_seq = self._last_seq
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._idle = False
        self._waiters = 0
        self._closing = False
        self._thread: threading.Thread | None = None
        self._helper: threading.Thread | None = None

    @property
    def epoch(self) -> int:
        """The epoch this writer took when it opened the disk."""
        return self._disk.epoch

    @property
    def last_seq(self) -> int:
        """Sequence number of the last event appended, durable or not."""
        return self._last_seq

    @property
    def durable_seq(self) -> int:
        """Sequence number up to which everything is durable."""
        return self._durable_seq

    @property
    def distress(self) -> str:
        """Why no new exposure may be taken though events are still written; empty when none."""
        return self._disk.distress

    def release(self, seq: int) -> None:
        """Allow durable events up to `seq` to be archived."""
        self.after_durable(lambda: self._disk.release(seq))

    def read(self, after_seq: int) -> Iterator[tuple[int, JournaledEvent]]:
        """Yield durable events after `after_seq` with their numbers; only before `append`.

        Raises:
            JournalCorrupt: a frame is damaged, unknown or missing.
        """
        for frame in contiguous(self._disk.read(after_seq), after_seq):
            first = max(frame.first_seq, after_seq + 1)
            events = decode_frame(frame)
            skipped = first - frame.first_seq
            yield from enumerate(events[skipped:] if skipped else events, first)

    def append(self, events: Sequence[JournaledEvent]) -> int:
        """Queue a batch to be committed as one unit; return its last sequence number.

        Args:
            events: not changed by the caller afterwards.

        Raises:
            JournalWriteFailed: an earlier write failed, or the journal is closed.
        """
        self.check()
        first = self._last_seq + 1
        self._last_seq += len(events)
        if self._last_seq - self._durable_seq > MAX_PENDING:
            self.wait_durable(first - MAX_PENDING // 2)
        self._enqueue(events)
        return self._last_seq

    def after_durable(self, action: Callable[[], object]) -> threading.Event:
        """Run an action on the journal's thread once all that was appended is durable.

        Returns:
            An event that is set when it is done, for `wait_for`.
        """
        self.check()
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._enqueue(run)
        return done

    def beside(self, seq: int, work: Callable[[Callable[[], object]], object]) -> threading.Event:
        """Do long work on a thread of its own, so that no commit waits for it.

        Args:
            seq: what must be durable before the work may show its result.
            work: called with a function that returns once `seq` is durable. What it raises
                fails the journal: the disk cannot be trusted.

        Returns:
            An event that is set when it is done, for `wait_for`.
        """
        if not self._threaded:
            return self.after_durable(lambda: work(bool))
        self.check()
        done = threading.Event()

        def run() -> None:
            try:
                work(lambda: self.wait_durable(seq))
            except Exception as error:  # noqa: BLE001  the thread's outermost: keep, tell
                with self._changed:
                    self._failure = self._failure or error
                    self._changed.notify_all()
            else:
                with self._changed:
                    done.set()
                    self._changed.notify_all()

        self._helper = threading.Thread(target=run, name="snapshot", daemon=True)
        self._helper.start()
        return done

    def check(self) -> None:
        """Raise JournalWriteFailed when the journal can take nothing more."""
        if self._failure is not None:
            raise JournalWriteFailed(
                f"the journal failed ({self._failure}) and is not written again; "
                "the process must stop, then restart and replay"
            ) from self._failure
        if self._closing:
            raise JournalWriteFailed("the journal is closed")

    def wait_durable(self, seq: int, timeout_s: float = 30.0) -> None:
        """Return once everything up to `seq` is durable.

        Raises:
            JournalWriteFailed: it cannot become durable, or did not in `timeout_s` seconds.
        """
        if seq > self._durable_seq:
            self._wait(lambda: self._durable_seq >= seq, f"event {seq}", timeout_s)

    def wait_for(self, done: threading.Event, timeout_s: float = 30.0) -> None:
        """Return once an action given to `after_durable` is done.

        Raises:
            JournalWriteFailed: it failed, or was not done in `timeout_s` seconds.
        """
        self._wait(done.is_set, "a snapshot", timeout_s)

    def _wait(self, done: Callable[[], bool], what: str, timeout_s: float) -> None:
        if not self._threaded:
            self.pump()
        with self._changed:
            self._waiters += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: done() or self._failure is not None, timeout_s)
            finally:
                self._waiters -= 1
            if not done() and self._failure is None:
                self._failure = TimeoutError(f"{what} was not durable after {timeout_s:g} s")
        if not done():
            self.check()

    def pump(self) -> None:
        """Write what is queued on this thread, as the journal's own would; never raises for it.

        A failure is kept, and raised by whoever waits or appends next.
        """
        try:
            while self._pending and self._failure is None:
                self._commit_group()
        except Exception as error:  # noqa: BLE001  as in the thread's outermost loop
            self._failure = error

    def close(self) -> None:
        """Write what is queued, then let go of the disk.

        Raises:
            JournalWriteFailed: something that was appended never became durable.
        """
        if self._helper is not None:
            self._helper.join(_CLOSE_S if self._failure is None else _CLOSE_FAILED_S)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_S if self._failure is None else _CLOSE_FAILED_S)
            if self._thread.is_alive():
                # A write that hangs may still land: the disk, and with it the account, is
                # held until the process ends.
                self._failure = self._failure or TimeoutError("a write did not end")
                self.check()
        elif not self._threaded:
            self.pump()
        self._disk.close()
        if self._durable_seq < self._last_seq:
            self.check()

    def _enqueue(self, item: Sequence[JournaledEvent] | Callable[[], None]) -> None:
        self._pending.append(item)
        if not self._threaded:
            if self._last_seq - self._durable_seq >= _MAX_GROUP:
                self.pump()
        elif self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        elif self._idle:
            with self._changed:
                self._changed.notify_all()

    # ------------------------------------------------------------ journal thread
    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._commit_group()
        except Exception as error:  # noqa: BLE001  the thread's outermost loop: keep, tell, stop
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to write; False when closing and all is written."""
        while True:
            with self._changed:
                self._idle = True
                if not self._pending and not self._closing:
                    self._changed.wait(_IDLE_S)
                self._idle = False
                if self._pending:
                    self._changed.wait_for(lambda: self._waiters or self._closing, _LINGER_S)
                    return True
                if self._closing:
                    return False
            self._disk.tidy()

    def _commit_group(self) -> None:
        events: list[JournaledEvent] = []
        actions: list[Callable[[], None]] = []
        while self._pending and len(events) < _MAX_GROUP and not actions:
            item = self._pending.popleft()
            if callable(item):
                actions.append(item)
            else:
                events += item
        if events:
            first = self._durable_seq + 1
            frames = encode_frames(first, self._disk.epoch, events)
            self._disk.write(frames, keys_of(first, events))
            with self._changed:
                self._durable_seq = frames[-1].last_seq
                self._changed.notify_all()
        for action in actions:
            action()
            with self._changed:
                self._changed.notify_all()
