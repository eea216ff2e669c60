"""Packed frames: nothing is lost in one, and no changed bit goes unnoticed."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_scenario import Scenario, candle

from bot4_runtime.domain.errors import JournalCorrupt
from bot4_runtime.domain.events import Heartbeat, OrderFilled, OrderIntended
from bot4_runtime.domain.order import Side
from bot4_runtime.state import frames as frames_module
from bot4_runtime.state.frames import (
    FRAME_EVENTS,
    Frame,
    contiguous,
    decode_frame,
    encode_frames,
    keys_of,
)


def test_every_event_survives_its_frame():
    for batch in Scenario(3, 40).batches():
        (frame,) = encode_frames(7, 1, batch)
        assert decode_frame(frame) == batch
        assert (frame.first_seq, frame.last_seq) == (7, 6 + len(batch))
        assert frame.kinds.split() == sorted({type(event).__name__ for event in batch})


@pytest.mark.parametrize("count", [0, 1, FRAME_EVENTS, FRAME_EVENTS + 1, 3 * FRAME_EVENTS])
def test_many_events_are_cut_into_frames_that_follow_each_other(count):
    events = [candle("A", number, 1.0) for number in range(count)]
    frames = encode_frames(11, 1, events)
    assert len(frames) == -(-count // FRAME_EVENTS)
    assert [event for frame in frames for event in decode_frame(frame)] == events
    ends = [10, *(frame.last_seq for frame in frames)]
    assert [frame.first_seq for frame in frames] == [end + 1 for end in ends[:-1]]
    assert ends[-1] == 10 + count


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_changed_bit_of_a_frame_is_noticed(data):
    (frame,) = encode_frames(5, 1, [candle("BTCUSDT", n, 100.0) for n in range(3)])
    field = data.draw(st.sampled_from(Frame._fields))
    value = getattr(frame, field)
    if isinstance(value, int):
        changed = value ^ (1 << data.draw(st.integers(0, 31)))
    else:
        raw = bytearray(value if isinstance(value, bytes) else value.encode())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 6))
        changed = bytes(raw) if isinstance(value, bytes) else raw.decode()
    with pytest.raises(JournalCorrupt, match="checksum"):
        decode_frame(frame._replace(**{field: changed}))


def sealed(last_seq: int, body: bytes) -> Frame:
    crc = frames_module._crc(1, last_seq, 1, "Kind", body)
    return Frame(1, last_seq, 1, "Kind", body, crc)


def test_an_event_of_unknown_kind_is_refused_never_skipped():
    body = msgspec.msgpack.encode([{"type": "FromTheFuture", "ts_event_ns": 0}])
    with pytest.raises(JournalCorrupt, match="use the release that wrote it"):
        decode_frame(sealed(1, body))
    with pytest.raises(JournalCorrupt):
        decode_frame(*encode_frames(1, 1, [Heartbeat(ts_event_ns=0, events_total=1)]))


def test_a_frame_of_fewer_events_than_it_says_is_refused():
    body = msgspec.msgpack.encode([candle("A", 0, 1.0)])
    assert len(decode_frame(sealed(1, body))) == 1
    with pytest.raises(JournalCorrupt, match="holds 1 events, expected those up to 2"):
        decode_frame(sealed(2, body))


def test_the_unique_keys_of_a_batch_are_its_intents_and_trades():
    events = [event for batch in Scenario(1, 60).batches() for event in batch]
    keys = keys_of(1, events)
    expected = [(s, e) for s, e in enumerate(events, 1) if isinstance(e, OrderIntended)]
    assert keys.intents == [(event.intent.intent_no, seq) for seq, event in expected]
    fills = [(s, e.fill) for s, e in enumerate(events, 1) if isinstance(e, OrderFilled)]
    sides = {Side.BUY: "", Side.SELL: ":sell"}
    assert keys.trades == [
        (str(f.book), f.symbol, f.trade_id + sides[f.side], seq) for seq, f in fills
    ]
    assert keys_of(1, [candle("A", 0, 1.0)]) == ([], [])


def test_a_frame_whose_number_was_lost_does_not_disappear():
    """A damaged last number makes a frame look as if it ended before the place asked for."""
    one, two = (encode_frames(seq, 1, [candle("A", seq, 1.0)])[0] for seq in (1, 2))
    assert list(contiguous([one, two], 0)) == [one, two]
    assert list(contiguous([one, two], 1)) == [two]
    assert list(contiguous([two], 2)) == []
    for frames in ([one._replace(last_seq=0), two], [one, two._replace(last_seq=0)]):
        with pytest.raises(JournalCorrupt, match="fails its checksum"):
            list(contiguous(frames, 0))
    with pytest.raises(JournalCorrupt, match="fails its checksum"):
        list(contiguous([two._replace(last_seq=0)], 2))
