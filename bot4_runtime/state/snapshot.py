"""Snapshots: the whole state in one file, sealed by its sha256.

A snapshot only saves time. It is written when everything it contains is durable in the
journal, by tmp, fsync, rename and fsync of the folder; three are kept. A damaged one is
passed over for the one before, and without any the journal is replayed from its beginning.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from bot4_runtime.domain.errors import JournalCorrupt
from bot4_runtime.state.trading_state import StateImage, TradingState

KEEP: Final = 3
"""How many snapshots are kept."""

FORMAT: Final = b"bot4 snapshot 1\n"
"""First line of the file; its number changes whenever `StateImage` does."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(StateImage)
_DIGEST: Final = 64


def encode(state: TradingState) -> bytes:
    """Return the state as msgpack, not yet sealed."""
    return _ENCODER.encode(state.to_snapshot())


def write(folder: Path, seq: int, payload: bytes) -> Path:
    """Seal and write a snapshot durably, and forget all but the last `KEEP`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seq:020d}.snapshot"
    tmp = path.with_suffix(".tmp")
    with tmp.open("wb") as file:
        file.write(FORMAT + hashlib.sha256(FORMAT + payload).hexdigest().encode() + payload)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for old in list_snapshots(folder)[KEEP:]:
        old.unlink()
    return path


def list_snapshots(folder: Path) -> list[Path]:
    """Return the snapshots of a folder, newest first."""
    return sorted(folder.glob("*.snapshot"), reverse=True)


def read(path: Path) -> TradingState:
    """Read a snapshot back.

    Raises:
        JournalCorrupt: it is damaged, cut short, or of another format.
    """
    data = path.read_bytes()
    start = len(FORMAT) + _DIGEST
    payload = data[start:]
    if not data.startswith(FORMAT):
        raise JournalCorrupt(f"{path.name} is not a snapshot of this program's format")
    seal = hashlib.sha256(FORMAT + payload).hexdigest().encode()
    if data[len(FORMAT) : start] != seal:
        raise JournalCorrupt(f"{path.name} does not match its sha256")
    try:
        state = TradingState.from_snapshot(_DECODER.decode(payload))
    except msgspec.MsgspecError as error:
        raise JournalCorrupt(f"{path.name} cannot be read: {error}") from error
    if path.stem != f"{state.seq:020d}":
        raise JournalCorrupt(f"{path.name} holds the state at {state.seq}")
    return state
