"""A SQLite write-ahead log as a file: is it damaged before its end, and is it long enough?

Damage is looked for before SQLite opens the file. SQLite reads a log up to the first bad frame,
drops the rest without a word, and overwrites it with the next commit. Every commit of the
journal is synced before the next begins, so a crash can tear the last one only: two or more
commits behind a bad frame were acknowledged once, and losing them in silence is worse than
stopping. Format: sqlite.org/walformat.html.

The file is read as plain bytes; its -shm file is never touched, since closing a descriptor of
that would drop SQLite's locks (sqlite.org/howtocorrupt.html, 2.2).
"""

import os
import struct
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import JournalCorrupt

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = {0x377F0682: "<u4", 0x377F0683: ">u4"}

Words = npt.NDArray[np.uint32]


def check_log(path: Path) -> None:
    """Check the log of the database at `path`; no log is a sound log.

    Raises:
        JournalCorrupt: acknowledged commits lie behind a bad frame.
    """
    log = path.with_name(path.name + "-wal")
    data = log.read_bytes() if log.is_file() else b""
    if len(data) < _HEADER.size:
        return
    magic, _, _, _, salt_1, salt_2, *seal = _HEADER.unpack_from(data)
    order = _MAGIC.get(magic, "<u4")
    page_size = _page_size(path)
    state = _checksum(np.zeros(2, np.uint32), data[:24], order)
    sound = magic in _MAGIC and state.tolist() == seal
    good = commits = 0
    for at in range(
        _HEADER.size, len(data) - _FRAME.size - page_size + 1, _FRAME.size + page_size
    ):
        _, pages, frame_salt_1, frame_salt_2, *seal = _FRAME.unpack_from(data, at)
        if sound:
            body = data[at : at + 8] + data[at + _FRAME.size : at + _FRAME.size + page_size]
            state = _checksum(state, body, order)
            sound = (frame_salt_1, frame_salt_2) == (salt_1, salt_2) and state.tolist() == seal
            good += sound
        if not sound:
            commits += pages != 0 and (frame_salt_1 == salt_1 or frame_salt_2 == salt_2)
    if commits > 1:
        raise JournalCorrupt(
            f"{log} is damaged after {good} sound frames: {commits} acknowledged commits lie "
            "behind the damage. Restore the journal and its log from a copy"
        )


def fill_log(path: Path, size: int) -> None:
    """Lengthen the log of the database at `path` to `size` bytes of zeros, durably.

    A commit then overwrites what the file has already, so that its flush is one of data alone;
    where the file grows, the file system's own journal is flushed too, which takes as long
    again. SQLite passes over what follows the last sealed frame, and keeps the file's length.
    Where there is no room for it, nothing is done: commits are only slower.
    """
    with path.with_name(path.name + "-wal").open("r+b") as log:
        end = log.seek(0, os.SEEK_END)
        if end >= size:
            return
        try:
            os.posix_fallocate(log.fileno(), end, size - end)
        except OSError:
            log.truncate(end)
            return
        log.write(bytes(size - end))
        log.flush()
        os.fsync(log.fileno())


def _page_size(path: Path) -> int:
    """Return the database's own page size; the log's copy of it may be what is damaged."""
    head = b""
    with suppress(FileNotFoundError), path.open("rb") as database:
        head = database.read(18)
    told = int.from_bytes(head[16:], "big")
    if told == 1:  # as SQLite writes 65,536 in two bytes
        return 65_536
    return told if told >= 512 and told.bit_count() == 1 else 4_096


def _checksum(state: Words, data: bytes, order: str) -> Words:
    """Continue SQLite's checksum over `data` (a multiple of 8 bytes).

    For each pair of words (a, b): s0 += a + s1; s1 += b + s0, modulo 2^32. That is linear, so
    the sum over all pairs is one product with powers of [[1, 1], [1, 2]].
    """
    words = np.frombuffer(data, order).astype(np.uint32)
    weights, power = _weights(len(words))
    added: Words = (weights * words).sum(axis=1, dtype=np.uint32)
    carried: Words = (power * state).sum(axis=1, dtype=np.uint32)
    return added + carried


@lru_cache(maxsize=4)
def _weights(words: int) -> tuple[Words, Words]:
    """Return what each word adds to (s0, s1), uint32[2, words], and to what power s is taken."""
    weights = np.zeros((2, words), np.uint32)
    power = np.eye(2, dtype=np.uint32)
    step = np.array([[1, 1], [1, 2]], np.uint32)
    for at in range(words - 2, -1, -2):
        weights[:, at] = power[:, 0] + power[:, 1]
        weights[:, at + 1] = power[:, 1]
        power = power @ step
    return weights, power
