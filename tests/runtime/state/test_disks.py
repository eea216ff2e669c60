"""What every disk must do: memory, SQLite and PostgreSQL pass the same tests."""

import pytest
from state_scenario import Scenario, candle, fill, intended, session

from bot4_runtime.domain.errors import JournalCorrupt, JournalWriteFailed
from bot4_runtime.domain.events import SessionEnded
from bot4_runtime.state.frames import (
    Frame,
    Keys,
    contiguous,
    decode_frame,
    encode_frames,
    keys_of,
)
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.store import StateStore


def frames_of(first: int, *events, epoch: int = 1) -> tuple[list[Frame], Keys]:
    return encode_frames(first, epoch, events), keys_of(first, events)


def test_frames_come_back_as_they_were_written_from_any_place(open_disk):
    disk = open_disk()
    assert disk.last_seq() == 0
    assert list(disk.read(0)) == []
    events = [event for batch in Scenario(1, 60).batches() for event in batch]
    written = []
    for at in range(0, len(events), 7):
        frames, keys = frames_of(at + 1, *events[at : at + 7])
        disk.write(frames, keys)
        written += frames
    assert disk.last_seq() == len(events)
    for after in (*range(22), len(events) - 1):
        assert list(disk.read(after)) == written[after // 7 :]
    assert list(contiguous(disk.read(len(events)), len(events))) == []
    disk.tidy()
    again = open_disk()
    assert list(again.read(0)) == written
    assert again.last_seq() == len(events)


def test_many_frames_are_written_and_read_whole(open_disk):
    disk = open_disk()
    for first in range(1, 151):
        disk.write(*frames_of(first, candle("A", first, 1.0)))
    frames = list(disk.read(3))
    assert [frame.first_seq for frame in frames] == list(range(4, 151))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 17, 600])
def test_a_group_of_any_size_is_written_whole_or_not_at_all(open_disk, count):
    """Frames, intents and trades beyond what adapters write by one statement, and below."""
    disk = open_disk()
    candles = [candle("A", number, 1.0) for number in range(count)]
    single = [
        frame for seq, event in enumerate(candles, 1) for frame in encode_frames(seq, 1, [event])
    ]
    disk.write(single, Keys([], []))
    orders = [intended(number) for number in range(1, count + 1)]
    disk.write(*frames_of(count + 1, *orders))
    fills = [fill(number, f"tä{number}", "1", "100") for number in range(1, count + 1)]
    disk.write(*frames_of(2 * count + 1, *fills))
    assert disk.last_seq() == 3 * count
    with pytest.raises(JournalWriteFailed, match=r"(?i)unique"):
        disk.write(*frames_of(3 * count + 1, *fills[:-1], intended(count + 1), fills[-1]))
    again = open_disk()
    assert again.last_seq() == 3 * count
    frames = list(contiguous(again.read(0), 0))
    assert [event for frame in frames for event in decode_frame(frame)] == candles + orders + fills
    again.write(*frames_of(3 * count + 1, intended(count + 1)))


def test_an_older_writer_cannot_commit_a_large_group_either(open_disk):
    old, new = open_disk(), open_disk()
    many = [fill(number, f"t{number}", "1", "100") for number in range(1, 40)]
    with pytest.raises(JournalWriteFailed, match=r"newer runtime \(epoch 2\)"):
        old.write(*frames_of(1, *many))
    assert new.last_seq() == 0


@pytest.mark.parametrize(
    "twice", [intended(1), fill(1, "t", "1", "100")], ids=["intent number", "trade"]
)
def test_an_intent_or_trade_is_taken_once_and_a_failed_write_leaves_nothing(open_disk, twice):
    disk = open_disk()
    disk.write(*frames_of(1, session(1), twice))
    with pytest.raises(JournalWriteFailed, match=r"(?i)unique"):
        disk.write(*frames_of(3, candle("A", 0, 1.0), intended(7), twice))
    again = open_disk()
    assert again.last_seq() == 2
    again.write(*frames_of(3, candle("A", 0, 1.0), intended(7)))
    with pytest.raises(JournalWriteFailed, match=r"(?i)unique"):
        again.write(*frames_of(5, twice))


def test_each_opening_takes_the_next_epoch_and_an_older_one_cannot_commit(open_disk):
    old = open_disk()
    old.write(*frames_of(1, session(1)))
    new = open_disk()
    assert (old.epoch, new.epoch) == (1, 2)
    with pytest.raises(JournalWriteFailed, match=r"newer runtime \(epoch 2\)"):
        old.write(*frames_of(2, session(1), intended(1)))
    new.write(*frames_of(2, session(2), intended(1), epoch=2))
    assert new.last_seq() == 3


def test_a_restarted_store_goes_on_where_it_stopped(open_disk, tmp_path):
    scenario = Scenario(8, 60)
    batches = scenario.batches()
    for number, done in enumerate(range(0, len(batches), 25)):
        store = StateStore(Journal(open_disk(), threaded=number % 2 == 0), tmp_path / "snapshots")
        report = store.recover()
        assert report.last_seq == store.state.seq == store.durable_seq
        for batch in batches[done : done + 25]:
            store.append(batch)
        if number % 2:
            store.create_snapshot()
        store.close()
    assert store.state.state_hash() == scenario.hashes[-1]
    again = StateStore(Journal(open_disk()), None)
    again.recover()
    assert again.state.state_hash() == scenario.hashes[-1]
    again.close()


def test_a_damaged_frame_is_refused_at_recovery(open_disk):
    disk = open_disk()
    frames, keys = frames_of(1, session(1), candle("A", 0, 1.0))
    body = frames[0].body
    disk.write([frames[0]._replace(body=body[:-1] + bytes([body[-1] ^ 1]))], keys)
    with pytest.raises(JournalCorrupt, match="frame 1 fails its checksum"):
        StateStore(Journal(disk), None).recover()


def test_a_fact_is_kept_beside_the_events_and_by_the_newest_writer_alone(open_disk):
    old = open_disk()
    assert old.fact("account") is None
    old.keep_fact("account", "one")
    old.keep_fact("account", "zwei ß")
    old.keep_fact("epoch", "no number")  # a name of the journal's own is no trouble
    new = open_disk()
    assert (new.fact("account"), new.fact("epoch")) == ("zwei ß", "no number")
    with pytest.raises(JournalWriteFailed, match="newer runtime"):
        old.keep_fact("account", "three")
    assert new.fact("account") == "zwei ß"
    new.write(*frames_of(1, session(1)))
    assert open_disk().fact("account") == "zwei ß"


def test_a_store_keeps_facts_while_a_batch_is_open_and_tells_how_it_ended(open_disk):
    store = StateStore(Journal(open_disk()), None)
    store.recover()
    assert store.ended_in_order, "nobody ever began"
    store.stage(session(1))
    store.keep_fact("account", "one")
    store.commit()
    store.wait_durable(store.state.seq)
    following = StateStore(Journal(open_disk()), None)
    following.recover()
    assert following.fact("account") == "one"
    assert not following.ended_in_order
    following.append([SessionEnded(ts_event_ns=1, epoch=2, reason="stopped")])
    following.wait_durable(following.state.seq)
    with pytest.raises(JournalWriteFailed):
        store.keep_fact("account", "two")
    last = StateStore(Journal(open_disk()), None)
    last.recover()
    assert last.ended_in_order
    for each in (following, last):
        each.close()
