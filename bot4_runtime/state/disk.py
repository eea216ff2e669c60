"""The port behind the journal: where frames become durable; and its form in memory.

Adapters: `sqlite` (default), `postgres`; in memory, here.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from bot4_runtime.domain.errors import JournalWriteFailed
from bot4_runtime.state.frames import Frame, Keys


class Disk(Protocol):
    """Where frames become durable. All calls but the first reads come from one thread."""

    @property
    def epoch(self) -> int:
        """The epoch this writer took when it opened."""
        ...

    @property
    def distress(self) -> str:
        """Why no new exposure may be taken though writes still succeed; empty when none."""
        ...

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        ...

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`, in order; one before may lead."""
        ...

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Make frames durable, all or none; raises OSError or JournalError when it cannot."""
        ...

    def fact(self, key: str) -> str | None:
        """Return a fact that is kept beside the events; None when there is none."""
        ...

    def keep_fact(self, key: str, value: str) -> None:
        """Make a fact durable in the place of the former one; raises as `write` does."""
        ...

    def release(self, seq: int) -> None:
        """Allow events up to `seq` to be archived; may do nothing."""
        ...

    def tidy(self) -> None:
        """Do housekeeping while nothing waits; may do nothing."""
        ...

    def close(self) -> None:
        """Let go of the disk and of the account."""
        ...


class FrameSource(Protocol):
    """A journal opened for reading, beside its writer or after it."""

    @property
    def where(self) -> str:
        """Where it lies, in words."""
        ...

    def account(self) -> str:
        """Return whose journal it is."""
        ...

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        ...

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`, in order; one before may lead."""
        ...

    def keys(self) -> Keys:
        """Return all keys that are held unique, in the order of their events."""
        ...

    def check(self) -> None:
        """Raise JournalCorrupt when the storage engine finds damage."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class MemoryDisk:
    """A disk that forgets at the end of the process; tests use it.

    Args:
        frames: what is on it already, as another MemoryDisk left it.
        fail_at: the number (from 1) of the write that fails, and all after it.
    """

    distress = ""

    def __init__(
        self, frames: Sequence[Frame] = (), epoch: int = 1, fail_at: int | None = None
    ) -> None:
        self.frames = list(frames)
        self.writes = 0
        self._epoch = epoch
        self._newest = [epoch]
        self._unique: set[tuple[object, ...]] = set()
        self._facts: dict[str, str] = {}
        self._fail_at = fail_at

    def reopen(self) -> "MemoryDisk":
        """Return the writer of the next epoch on the same medium; this one is passed over."""
        newer = MemoryDisk(epoch=self._newest[-1] + 1)
        newer.frames, newer._unique, newer._newest = self.frames, self._unique, self._newest
        newer._facts = self._facts
        self._newest.append(newer.epoch)
        return newer

    @property
    def epoch(self) -> int:
        """The epoch given at construction."""
        return self._epoch

    def last_seq(self) -> int:
        """Return the number of the last event kept."""
        return self.frames[-1].last_seq if self.frames else 0

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`."""
        yield from (frame for frame in self.frames if frame.last_seq > after_seq)

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Keep the frames.

        Raises:
            OSError: this write was told to fail.
            JournalWriteFailed: a newer writer took over, or a key is not unique.
        """
        self.writes += 1
        if self._fail_at is not None and self.writes >= self._fail_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._check_epoch()
        unique = {key[:-1] for key in (*keys.intents, *keys.trades)}
        if unique & self._unique or len(unique) < len(keys.intents) + len(keys.trades):
            raise JournalWriteFailed("an intent or trade is not unique")
        self._unique |= unique
        self.frames.extend(frames)

    def fact(self, key: str) -> str | None:
        """Return a fact; None when there is none."""
        return self._facts.get(key)

    def keep_fact(self, key: str, value: str) -> None:
        """Keep a fact; raises JournalWriteFailed when a newer writer took over."""
        self._check_epoch()
        self._facts[key] = value

    def _check_epoch(self) -> None:
        if self._newest[-1] != self._epoch:
            raise JournalWriteFailed(f"a newer runtime (epoch {self._newest[-1]}) took over")

    def release(self, seq: int) -> None:
        """Do nothing."""

    def tidy(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
