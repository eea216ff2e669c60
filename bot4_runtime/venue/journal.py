"""What happened at the venue, in order: the oracle that clients are judged by.

It holds requests, answers, reports, what the streams were sent, prints and faults, each with a
sequence number and the venue's time, and outlives every client.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    Attributes:
        kind: ``sent`` (a new order at the door), ``request``, ``answer``, ``report``, ``event``,
            ``print``, ``fault`` or ``listens`` (after a fault), or what a client must not do.
        uid: of the account it concerns; 0 when of none.
    """

    seq: int
    time_ms: int
    kind: str
    uid: int
    body: Mapping[str, Any]


class VenueJournal:
    """Numbers entries and hands each to a sink.

    Args:
        sink: keeps them; `MemorySink` or `FileSink`.
    """

    def __init__(self, sink: Callable[[Entry], None]) -> None:
        self._sink = sink
        self._seq = 0

    def add(self, time_ms: int, kind: str, uid: int, body: Mapping[str, Any]) -> None:
        """Write down what happened."""
        self._seq += 1
        self._sink(Entry(seq=self._seq, time_ms=time_ms, kind=kind, uid=uid, body=body))


class MemorySink:
    """Keeps entries in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def __call__(self, entry: Entry) -> None:
        """Keep an entry."""
        self.entries.append(entry)


class FileSink:
    """Appends entries to a file, one JSON document a line.

    A client's death takes nothing away: the file belongs to the venue's process, and what was
    written before a line is with the system.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __call__(self, entry: Entry) -> None:
        """Write an entry."""
        self._file.write(_ENCODER.encode(entry) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def no_sink(entry: Entry) -> None:
    """Keep nothing."""
