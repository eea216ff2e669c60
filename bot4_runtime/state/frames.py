"""Frames: consecutive events packed and sealed for the disk.

A frame holds up to `FRAME_EVENTS` events as one msgpack array under one CRC-32, which finds
every flipped bit and every burst up to 32 bits. Packing is what makes the journal cheap: a
candle costs a quarter of a microsecond in a full frame and ten times that in one of its own.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from bot4_runtime.domain.errors import JournalCorrupt
from bot4_runtime.domain.events import JournaledEvent, OrderFilled, OrderIntended
from bot4_runtime.domain.order import Fill, Side
from bot4_runtime.domain.unreadable import UNREADABLE

FRAME_EVENTS: Final = 1_024
"""Most events of a frame: what a read that starts in its middle decodes in vain, and for how
long encoding one may hold the interpreter lock (0.2 ms)."""

_HEADER: Final = struct.Struct("<qqq")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[list[JournaledEvent]]] = msgspec.msgpack.Decoder(
    list[JournaledEvent]
)

SOLD: Final = ":sell"


class Frame(NamedTuple):
    """Consecutive events as they lie on disk. `crc` covers all other fields.

    Attributes:
        first_seq: sequence number of the first event; `last_seq` of the last.
        epoch: of the writer.
        kinds: names of the event types within, sorted, separated by spaces.
        body: the events, a msgpack array.
    """

    first_seq: int
    last_seq: int
    epoch: int
    kinds: str
    body: bytes
    crc: int


class Keys(NamedTuple):
    """What the storage engine must hold unique: intents, and trades by book and symbol.

    Attributes:
        intents: (intent number, sequence number of its event).
        trades: (book, symbol, `trade_key`, sequence number of its event).
    """

    intents: list[tuple[int, int]]
    trades: list[tuple[str, str, str, int]]


def encode_frames(first_seq: int, epoch: int, events: Sequence[JournaledEvent]) -> list[Frame]:
    """Pack and seal consecutive events, in as few frames as may be."""
    return [
        _encode(first_seq + at, epoch, events[at : at + FRAME_EVENTS])
        for at in range(0, len(events), FRAME_EVENTS)
    ]


def _encode(first_seq: int, epoch: int, events: Sequence[JournaledEvent]) -> Frame:
    last_seq = first_seq + len(events) - 1
    kinds = " ".join(sorted({kind.__name__ for kind in set(map(type, events))}))
    body = _ENCODER.encode(events)
    return Frame(
        first_seq, last_seq, epoch, kinds, body, _crc(first_seq, last_seq, epoch, kinds, body)
    )


def check_frame(frame: Frame) -> None:
    """Raise JournalCorrupt when a frame's checksum fails."""
    first_seq, last_seq, epoch, kinds, body, crc = frame
    if _crc(first_seq, last_seq, epoch, kinds, body) != crc:
        raise JournalCorrupt(
            f"journal frame {first_seq} fails its checksum; nothing is traded on a damaged "
            "journal. Restore the file from a copy, or set it aside and start a new account folder"
        )


def contiguous(frames: Iterable[Frame], after_seq: int) -> Iterator[Frame]:
    """Yield the sound frames that hold the events after `after_seq`, each next to the last.

    Frames that end before are passed over, but only once their numbers are known to be theirs:
    a flipped bit in a number must not make a frame disappear.

    Raises:
        JournalCorrupt: a frame is damaged or missing.
    """
    expected = after_seq + 1
    for frame in frames:
        check_frame(frame)
        if frame.last_seq <= after_seq:
            continue
        if frame.first_seq > expected or frame.last_seq < expected:
            raise JournalCorrupt(
                f"journal event {expected} is missing (found {frame.first_seq} to "
                f"{frame.last_seq}); nothing is traded on a damaged journal. Restore the "
                "file from a copy"
            )
        yield frame
        expected = frame.last_seq + 1


def decode_frame(frame: Frame) -> list[JournaledEvent]:
    """Open a frame.

    Raises:
        JournalCorrupt: its checksum fails, its events are not as many as its numbers, or one
            is of a kind this program does not know.
    """
    check_frame(frame)
    first_seq, last_seq, _, kinds, body, _ = frame
    try:
        events = _DECODER.decode(body)
    except UNREADABLE as error:
        raise JournalCorrupt(
            f"journal frame {first_seq} holds an event among {kinds!r} that this program cannot "
            f"read ({error}); use the release that wrote it"
        ) from error
    if len(events) != last_seq - first_seq + 1:
        raise JournalCorrupt(
            f"journal frame {first_seq} holds {len(events)} events, expected those up to "
            f"{last_seq}; use the release that wrote it"
        )
    return events


def keys_of(first_seq: int, events: Sequence[JournaledEvent]) -> Keys:
    """Return what must be unique about consecutive events."""
    keys = Keys([], [])
    if not {OrderIntended, OrderFilled} & set(map(type, events)):
        return keys
    for seq, event in enumerate(events, first_seq):
        if type(event) is OrderIntended:
            keys.intents.append((event.intent.intent_no, seq))
        elif type(event) is OrderFilled:
            fill = event.fill
            keys.trades.append((fill.book.value, fill.symbol, trade_key(fill), seq))
    return keys


def trade_key(fill: Fill) -> str:
    """Return what names one side of a trade within its book and symbol.

    Both sides of a trade may be ours, under one id of the venue's. Buys keep the bare id, as
    both sides did before.
    """
    return fill.trade_id if fill.side is Side.BUY else f"{fill.trade_id}{SOLD}"


def keys_before(keys: Keys) -> Keys:
    """Return keys as journals held them before sides were told apart."""
    bare = [(book, symbol, key.removesuffix(SOLD), seq) for book, symbol, key, seq in keys.trades]
    return Keys(keys.intents, bare)


def _crc(first_seq: int, last_seq: int, epoch: int, kinds: str, body: bytes) -> int:
    header = _HEADER.pack(first_seq, last_seq, epoch) + kinds.encode()
    return zlib.crc32(body, zlib.crc32(header))
