"""Sealed snapshots: every cut and every sampled flip is noticed."""

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
    return snapshot.write(tmp_path_factory.mktemp("snapshots"), 77, snapshot.encode(state))


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
    odd = snapshot.write(tmp_path, 5, msgspec.msgpack.encode({"seq": "five"}))
    with pytest.raises(JournalCorrupt, match="cannot be read"):
        snapshot.read(odd)


def test_the_last_three_are_kept(tmp_path):
    for seq in range(1, 7):
        snapshot.write(tmp_path, seq, b"x")
    assert [int(path.stem) for path in snapshot.list_snapshots(tmp_path)] == [6, 5, 4]
