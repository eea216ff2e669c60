"""The journal's ports, its frames, and the thread that commits them in groups.

A batch handed to `append` becomes durable whole or not at all. The first failure of a write
is final: after a failed fsync nobody knows what reached the disk (Rebello et al., "Can
Applications Recover from fsync Failures?", 2020), so the journal refuses everything after it.
Adapters: `sqlite`; in memory, here.
"""

import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from bot4_runtime.domain.errors import JournalCorrupt, JournalWriteFailed
from bot4_runtime.domain.events import JournaledEvent, OrderFilled, OrderIntended

MAX_PENDING: Final = 50_000
"""Events that may wait for the disk; `append` blocks beyond it."""

_MAX_GROUP: Final = 8_192
_LINGER_S: Final = 0.01
_IDLE_S: Final = 0.5
_HEADER: Final = struct.Struct("<qqq")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[JournaledEvent]] = msgspec.msgpack.Decoder(JournaledEvent)


class Frame(NamedTuple):
    """One event as it lies on disk. `crc` covers all other fields."""

    seq: int
    epoch: int
    ts_ns: int
    kind: str
    body: bytes
    crc: int


class Keys(NamedTuple):
    """What the storage engine must hold unique: intents, and trades by book and symbol."""

    intents: list[tuple[int, int]]
    trades: list[tuple[str, str, str, int]]


def encode_frame(seq: int, epoch: int, event: JournaledEvent) -> Frame:
    """Seal an event for the disk."""
    kind = type(event).__name__
    body = _ENCODER.encode(event)
    return Frame(
        seq, epoch, event.ts_event_ns, kind, body, _crc(seq, epoch, event.ts_event_ns, kind, body)
    )


def decode_frame(frame: Frame) -> JournaledEvent:
    """Open a frame.

    Raises:
        JournalCorrupt: its checksum fails, or its event is of a kind this program does not know.
    """
    seq, epoch, ts_ns, kind, body, crc = frame
    if _crc(seq, epoch, ts_ns, kind, body) != crc:
        raise JournalCorrupt(
            f"journal frame {seq} fails its checksum; nothing is traded on a damaged journal. "
            "Restore the file from a copy, or set it aside and start a new account folder"
        )
    try:
        return _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise JournalCorrupt(
            f"journal frame {seq} holds an event {kind!r} that this program cannot read "
            f"({error}); use the release that wrote it"
        ) from error


def keys_of(seq: int, event: JournaledEvent, keys: Keys) -> None:
    """Add what must be unique about an event."""
    if type(event) is OrderIntended:
        keys.intents.append((event.intent.intent_no, seq))
    elif type(event) is OrderFilled:
        fill = event.fill
        keys.trades.append((fill.book.value, fill.symbol, fill.trade_id, seq))


def _crc(seq: int, epoch: int, ts_ns: int, kind: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(kind.encode(), zlib.crc32(_HEADER.pack(seq, epoch, ts_ns))))


class Disk(Protocol):
    """Where frames become durable. All calls but the first reads come from one thread."""

    @property
    def epoch(self) -> int:
        """The epoch this writer took when it opened."""
        ...

    def last_seq(self) -> int:
        """Return the sequence number of the last durable frame, 0 when there is none."""
        ...

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames after `after_seq`, in order."""
        ...

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Make frames durable, all or none; raises OSError or JournalError when it cannot."""
        ...

    def tidy(self) -> None:
        """Do housekeeping while nothing waits; may do nothing."""
        ...

    def close(self) -> None:
        """Let go of the disk and of the account."""
        ...


class MemoryDisk:
    """A disk that forgets at the end of the process; replays and tests use it.

    Args:
        frames: what is on it already, as another MemoryDisk left it.
        fail_at: the number (from 1) of the write that fails, and all after it.
    """

    def __init__(
        self, frames: Sequence[Frame] = (), epoch: int = 1, fail_at: int | None = None
    ) -> None:
        self.frames = list(frames)
        self.writes = 0
        self._epoch = epoch
        self._fail_at = fail_at

    @property
    def epoch(self) -> int:
        """The epoch given at construction."""
        return self._epoch

    def last_seq(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames after `after_seq`."""
        yield from self.frames[after_seq:]

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Keep the frames, or raise OSError when this write was told to fail."""
        self.writes += 1
        if self._fail_at is not None and self.writes >= self._fail_at:
            raise OSError(5, "Input/output error")
        self.frames.extend(frames)

    def tidy(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


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
        self._pending: deque[tuple[int, Sequence[JournaledEvent]] | Callable[[], None]] = deque()
        self._last_seq = disk.last_seq()
        self._durable_seq = self._last_seq
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._idle = False
        self._waiters = 0
        self._closing = False
        self._thread: threading.Thread | None = None

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

    def read(self, after_seq: int) -> Iterator[tuple[int, JournaledEvent]]:
        """Yield durable events after `after_seq` with their numbers; only before `append`.

        Raises:
            JournalCorrupt: a frame is damaged, unknown or missing.
        """
        expected = after_seq
        for frame in self._disk.read(after_seq):
            expected += 1
            if frame.seq != expected:
                raise JournalCorrupt(
                    f"journal frame {expected} is missing (found {frame.seq}); nothing is "
                    "traded on a damaged journal. Restore the file from a copy"
                )
            yield frame.seq, decode_frame(frame)

    def append(self, events: Sequence[JournaledEvent]) -> int:
        """Queue a batch to be committed as one unit; return its last sequence number.

        Raises:
            JournalWriteFailed: an earlier write failed, or the journal is closed.
        """
        self.check()
        first = self._last_seq + 1
        self._last_seq += len(events)
        if self._last_seq - self._durable_seq > MAX_PENDING:
            self.wait_durable(first - MAX_PENDING // 2)
        self._enqueue((first, events))
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
            self._wait(lambda: self._durable_seq >= seq, f"frame {seq}", timeout_s)

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
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        elif not self._threaded:
            self.pump()
        self._disk.close()
        if self._durable_seq < self._last_seq:
            self.check()

    def _enqueue(self, item: tuple[int, Sequence[JournaledEvent]] | Callable[[], None]) -> None:
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
        frames: list[Frame] = []
        keys = Keys([], [])
        actions: list[Callable[[], None]] = []
        epoch = self._disk.epoch
        while self._pending and len(frames) < _MAX_GROUP and not actions:
            item = self._pending.popleft()
            if not isinstance(item, tuple):
                actions.append(item)
                continue
            first, events = item
            for seq, event in enumerate(events, first):
                frames.append(encode_frame(seq, epoch, event))
                keys_of(seq, event, keys)
        if frames:
            self._disk.write(frames, keys)
            with self._changed:
                self._durable_seq = frames[-1].seq
                self._changed.notify_all()
        for action in actions:
            action()
            with self._changed:
                self._changed.notify_all()
