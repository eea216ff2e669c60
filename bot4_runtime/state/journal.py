"""The journal: batches of events, committed in groups by a thread of their own.

A batch handed to `append` becomes durable whole or not at all. The first failure of a write
is final: after a failed fsync nobody knows what reached the disk (Rebello et al., "Can
Applications Recover from fsync Failures?", 2020), so the journal refuses everything after it.

There are three classes of durability. What an order depends on is waited for (`wait_durable`)
before anything leaves the process. All other events are in the same sequence and durable
within about 10 ms. What is not in the journal at all (`series`, metrics) may be lost.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from bot4_runtime.domain.errors import JournalWriteFailed
from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.state.disk import Disk
from bot4_runtime.state.frames import contiguous, decode_frame, encode_frames, keys_of

MAX_PENDING: Final = 50_000
"""Events that may wait for the disk; `append` blocks beyond it."""

_GROUP: Final = 8_192
"""Events after which a journal without a thread writes though nobody waits."""

LINGER_S: Final = 0.01
"""How long a batch that nobody waits for may lie before it is written."""
DISPOSABLE_LINGER_S: Final = 0.25
"""The same in a journal that is thrown away with its run, for fewer and larger groups."""

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
        linger_s: how long the thread lets a batch lie that nobody waits for.
    """

    def __init__(self, disk: Disk, *, threaded: bool = True, linger_s: float = LINGER_S) -> None:
        self._disk = disk
        self._threaded = threaded
        self._linger_s = linger_s
        self._pending: list[JournaledEvent] = []
        self._actions: deque[tuple[int, Callable[[], None]]] = deque()
        self._last_seq = disk.last_seq()
        self._durable_seq = self._last_seq
        self._failure: BaseException | None = None
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._idle = True
        self._waiting: list[SimpleQueue[None]] = []
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

    def fact(self, key: str) -> str | None:
        """Return a fact that is kept beside the events; only before `append`."""
        return self._disk.fact(key)

    def keep_fact(self, key: str, value: str, timeout_s: float = 30.0) -> None:
        """Return once a fact is durable.

        Raises:
            JournalWriteFailed: it cannot become durable, or did not in `timeout_s` seconds.
        """
        done = self.after_durable(lambda: self._disk.keep_fact(key, value))
        self._wait(done.is_set, f"the fact {key!r}", timeout_s)

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
        if self._failure is not None or self._closing:
            self.check()
        last = self._last_seq + len(events)
        if last - self._durable_seq > MAX_PENDING:
            self.wait_durable(self._last_seq + 1 - MAX_PENDING // 2)
        self._pending.extend(events)
        self._last_seq = last  # not before: the thread takes what is up to here, whole batches
        if self._idle:
            self._stir()
        return last

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

        self._actions.append((self._last_seq, run))
        if self._idle:
            self._stir()
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
                self._failure = self._failure or error
            else:
                done.set()
            self._tell()

        self._ring()
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
        until = time.monotonic() + timeout_s
        told: SimpleQueue[None] = SimpleQueue()
        self._waiting.append(told)
        try:
            if self._threaded:
                self._ring()
            else:
                self.pump()
            while not done() and self._failure is None:
                if (left := until - time.monotonic()) <= 0:
                    self._failure = TimeoutError(f"{what} was not durable after {timeout_s:g} s")
                else:
                    with suppress(Empty):
                        told.get(timeout=left)
        finally:
            self._waiting.remove(told)
        if not done():
            self.check()

    def pump(self) -> None:
        """Write what is queued on this thread, as the journal's own would; never raises for it.

        A failure is kept, and raised by whoever waits or appends next.
        """
        try:
            while self._queued and self._failure is None:
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
        self._closing = True
        self._bell.put(None)
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

    def _stir(self) -> None:
        """Have what was queued written: soon by the thread, by us once a whole group waits."""
        if self._threaded:
            self._idle = False
            self._ring()
        elif self._last_seq - self._durable_seq >= _GROUP:
            self.pump()

    def _ring(self) -> None:
        """Wake the thread; the first call, by whoever appends, starts it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()
        self._bell.put(None)

    def _tell(self) -> None:
        """Wake all who wait, to look whether it was for this."""
        for told in tuple(self._waiting):
            told.put(None)

    @property
    def _queued(self) -> bool:
        return self._durable_seq < self._last_seq or bool(self._actions)

    # ------------------------------------------------------------ journal thread
    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._commit_group()
        except Exception as error:  # noqa: BLE001  the thread's outermost loop: keep, tell, stop
            self._failure = self._failure or error
            self._tell()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to write; False when closing and all is written."""
        while True:
            self._idle = True  # before the look, so that nothing is queued unseen
            if self._queued:
                break
            if self._closing:
                return False
            try:
                self._bell.get(timeout=_IDLE_S)
            except Empty:
                self._disk.tidy()
        self._idle = False
        until = time.monotonic() + self._linger_s
        with suppress(Empty):
            while not self._waiting and not self._closing:
                self._bell.get(timeout=max(0.0, until - time.monotonic()))
        return True

    def _commit_group(self) -> None:
        """Write what is queued, but no further than an action that comes before the rest."""
        last = self._last_seq
        if self._actions:
            last = min(last, self._actions[0][0])
        first = self._durable_seq + 1
        if last >= first:
            events = self._pending[: last - first + 1]
            del self._pending[: len(events)]
            self._disk.write(
                encode_frames(first, self._disk.epoch, events), keys_of(first, events)
            )
            self._durable_seq = last
            self._tell()
        while self._actions and self._actions[0][0] <= self._durable_seq:
            _, action = self._actions.popleft()
            action()
            self._tell()
