"""Sealed snapshots: every cut and every sampled flip is noticed."""

import gc
import random
from pathlib import Path

import msgspec
import pytest
from state_scenario import Scenario

from bot4_runtime.domain.errors import JournalCorrupt
from bot4_runtime.state import snapshot


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = Scenario(2, 60).state
    state.seq = 77
    pieces = snapshot.encode(snapshot.picture(state))
    return snapshot.write(tmp_path_factory.mktemp("snapshots"), 77, pieces)


def test_a_snapshot_comes_back_with_the_same_hash(sealed):
    state = snapshot.read(sealed)
    assert state.seq == 77
    assert state.state_hash() == Scenario(2, 60).state.state_hash()
    assert not list(sealed.parent.glob("*.tmp"))


def test_every_truncation_is_refused(sealed, tmp_path):
    data = sealed.read_bytes()
    torn = tmp_path / sealed.name
    rng = random.Random(3)
    lengths = [*range(200), *rng.sample(range(len(data)), 500), len(data) - 1]
    for length in lengths:
        torn.write_bytes(data[:length])
        with pytest.raises(JournalCorrupt):
            snapshot.read(torn)


def test_every_flipped_bit_is_refused(sealed, tmp_path):
    data = sealed.read_bytes()
    flipped = tmp_path / sealed.name
    rng = random.Random(4)
    places = [*range(120), *rng.sample(range(len(data)), 1_000)]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        flipped.write_bytes(changed)
        with pytest.raises(JournalCorrupt):
            snapshot.read(flipped)


def test_a_snapshot_under_another_name_or_of_another_shape_is_refused(sealed, tmp_path):
    renamed = tmp_path / f"{78:020d}.snapshot"
    renamed.write_bytes(sealed.read_bytes())
    with pytest.raises(JournalCorrupt, match="holds the state at 77"):
        snapshot.read(renamed)
    odd = snapshot.write(tmp_path, 5, iter([msgspec.msgpack.encode({"seq": "five"})]))
    with pytest.raises(JournalCorrupt, match="cannot be read"):
        snapshot.read(odd)


def test_the_last_three_are_kept(tmp_path):
    for seq in range(1, 7):
        snapshot.write(tmp_path, seq, iter([b"x"]))
    assert [int(path.stem) for path in snapshot.list_snapshots(tmp_path)] == [6, 5, 4]


class Inner(msgspec.Struct):
    names: list[str]


class Odd(msgspec.Struct, frozen=True):
    """What a later state may hold."""

    inner: Inner | None
    bag: set[int]
    pairs: dict[str, list[int]]
    big: list[int]
    map: dict[int, str]


def test_pieces_are_what_the_encoder_would_write_at_once():
    state = Scenario(2, 60).state
    odd = Odd(Inner(["a"]), {1}, {"a": [1]}, list(range(70_000)), dict.fromkeys(range(500), "x"))
    for image in (snapshot.picture(state), odd, Odd(None, set(), {}, [], {})):
        pieces = list(snapshot.encode(image))
        assert b"".join(pieces) == msgspec.msgpack.encode(image)
    assert len(list(snapshot.encode(odd))) > 70_000 // 256


def test_a_picture_shares_nothing_that_can_change():
    odd = Odd(Inner(["a"]), {1}, {"a": [1]}, [1], {1: "x"})
    twin = snapshot._copied(odd)
    odd.inner.names.append("b")
    odd.bag.add(2)
    odd.pairs["a"].append(2)
    odd.big.append(2)
    odd.map[2] = "y"
    assert twin == Odd(Inner(["a"]), {1}, {"a": [1]}, [1], {1: "x"})


def test_what_a_crash_left_half_written_is_swept_up(tmp_path):
    (tmp_path / "1.tmp").write_bytes(b"half")
    snapshot.write(tmp_path, 2, iter([b"x"]))
    assert [path.name for path in tmp_path.iterdir()] == [f"{2:020d}.snapshot"]


def test_lists_of_what_can_change_are_copied_to_the_bottom():
    boxes = [[Inner(["a"])], [Inner(["b"])]]
    twins = snapshot._copied(boxes)
    boxes[0][0].names.append("c")
    assert twins == [[Inner(["a"])], [Inner(["b"])]]


class Tally(msgspec.Struct):
    count: int


def test_what_can_change_and_holds_nothing_is_copied_too():
    """One by one, and as a list of many of one kind."""
    tallies = [Tally(1), Tally(2)]
    alone, together = snapshot._copied(tallies[0]), snapshot._copied(tallies)
    for tally in tallies:
        tally.count = 9
    assert alone == Tally(1)
    assert together == [Tally(1), Tally(2)]


@pytest.mark.parametrize("collecting", [True, False])
def test_a_picture_leaves_the_garbage_collector_as_it_was(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        snapshot.picture(Scenario(2, 5).state)
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()
