"""Snapshots: the whole state in one file, sealed by its sha256.

A snapshot only saves time. The writing thread takes a picture: it copies containers, not the
frozen values within. Another thread encodes the picture piece by piece, so that the writing
one never waits long for the interpreter lock, and gives the file its name once everything it
contains is durable in the journal (tmp, fsync, rename, fsync of the folder). Three are kept. A
damaged one is passed over for the one before; without any the journal is replayed from its
beginning.
"""

import copy
import gc
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from bot4_runtime.domain.errors import JournalCorrupt
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.state.place import sync_folder
from bot4_runtime.state.trading_state import StateImage, TradingState

KEEP: Final = 3
"""How many snapshots are kept."""

FORMAT: Final = b"bot4 snapshot 4\n"
"""First line of the file; its number changes whenever `StateImage` does."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(StateImage)
_DIGEST: Final = 64
_PIECE: Final = 256
_IMMUTABLE: Final = (int, float, str, bytes, NoneType, Decimal, Enum, tuple, frozenset)


def picture(state: TradingState) -> StateImage:
    """Return the state as a value that later events do not change."""
    collecting = gc.isenabled()
    gc.disable()  # so many new objects would set off a collection of all the old ones
    try:
        image: StateImage = _copied(state.to_snapshot())
    finally:
        if collecting:
            gc.enable()
    return image


def encode(image: StateImage) -> Iterator[bytes]:
    """Yield the msgpack form of a picture in pieces of about half a millisecond each."""
    return _pieces(image)


def write(
    folder: Path, seq: int, pieces: Iterator[bytes], durable: Callable[[], object] = bool
) -> Path:
    """Seal and write a snapshot durably, and forget all but the last `KEEP`.

    Args:
        folder: made when it is not there.
        seq: sequence number of the last event within.
        pieces: of `encode`.
        durable: returns once the journal holds everything up to `seq`, or raises.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob("*.tmp"):
        torn.unlink()
    path = folder / f"{seq:020d}.snapshot"
    tmp = path.with_suffix(".tmp")
    seal = hashlib.sha256(FORMAT)
    try:
        with tmp.open("wb") as file:
            file.write(FORMAT + b" " * _DIGEST)
            for piece in pieces:
                seal.update(piece)
                file.write(piece)
            file.seek(len(FORMAT))
            file.write(seal.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        tmp.unlink(missing_ok=True)
        raise
    durable()
    tmp.replace(path)
    sync_folder(folder)
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
    except UNREADABLE as error:
        raise JournalCorrupt(f"{path.name} cannot be read: {error}") from error
    if path.stem != f"{state.seq:020d}":
        raise JournalCorrupt(f"{path.name} holds the state at {state.seq}")
    return state


# ------------------------------------------------------------------ copy and encode
def _copied(value: Any) -> Any:
    """Copy what may change later: dicts, lists and mutable structs, however deep."""
    kind = value.__class__
    if kind is list:
        return _copied_all(value)
    if kind is dict:
        if all(map(_fixed, set(map(type, value.values())))):
            return value.copy()
        return dict(zip(value, _copied_all(list(value.values())), strict=True))
    if _fixed(kind):
        return value
    if not issubclass(kind, msgspec.Struct):
        return copy.deepcopy(value)
    twin = copy.copy(value)
    for name in _container_fields(kind):
        msgspec.structs.force_setattr(twin, name, _copied(getattr(value, name)))
    return twin


def _copied_all(values: list[Any]) -> list[Any]:
    """Copy values; many of one kind at C speed, since this is what the loop waits for."""
    kinds = set(map(type, values))
    if all(map(_fixed, kinds)):
        return values.copy()
    if kinds == {list} and all(map(_fixed, set(map(type, chain.from_iterable(values))))):
        return list(map(list.copy, values))
    return list(map(_copied, values))


@lru_cache(maxsize=256)
def _fixed(kind: type) -> bool:
    """Tell whether values of a type never change, nor anything within them."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.frozen and not _container_fields(kind)
    return issubclass(kind, _IMMUTABLE)


@lru_cache(maxsize=256)
def _container_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields that hold containers or mutable structs."""
    hints = get_type_hints(kind)
    return tuple(name for name in kind.__struct_fields__ if _holds(hints[name]))


def _holds(hint: Any) -> bool:
    if get_origin(hint) in {UnionType, Union}:
        return any(map(_holds, get_args(hint)))
    return not _fixed(get_origin(hint) or hint)


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield what `_ENCODER.encode` would return, cut up."""
    kind = type(value)
    if kind is list:
        yield _head(0x90, 0xDC, len(value))
        for at in range(0, len(value), _PIECE):
            yield _bare(value[at : at + _PIECE])
    elif kind is dict and len(value) < _PIECE:
        yield _head(0x80, 0xDE, len(value))
        for key, item in value.items():
            yield _ENCODER.encode(key)
            yield from _pieces(item)
    elif kind is dict:
        yield _head(0x80, 0xDE, len(value))
        items = list(value.items())
        for at in range(0, len(items), _PIECE):
            yield _bare(dict(items[at : at + _PIECE]))
    elif issubclass(kind, msgspec.Struct) and _plain(kind) and _container_fields(kind):
        yield _head(0x80, 0xDE, len(kind.__struct_fields__))
        for name in kind.__struct_fields__:
            yield _ENCODER.encode(name)
            yield from _pieces(getattr(value, name))
    else:
        yield _ENCODER.encode(value)


def _plain(kind: type[msgspec.Struct]) -> bool:
    """Tell whether a struct is written as a map of all its fields and nothing else."""
    config = kind.__struct_config__
    return config.tag is None and not config.array_like and not config.omit_defaults


def _bare(part: list[Any] | dict[Any, Any]) -> bytes:
    """Return the msgpack form of a short list or dict without its head."""
    return _ENCODER.encode(part)[1 if len(part) < 16 else 3 :]


def _head(short: int, long: int, count: int) -> bytes:
    """Return the msgpack head of an array or map; the numbers are the format's."""
    if count < 16:
        return bytes((short | count,))
    if count < 65_536:
        return struct.pack(">BH", long, count)
    return struct.pack(">BI", long + 1, count)
