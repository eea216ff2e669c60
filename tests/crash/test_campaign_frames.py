"""A sample of the campaign of cuts and flipped bits; the whole of it runs in `make crash`."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import campaign_frames
from campaign_frames import Case

from bot4_runtime.state import snapshot, sqlite


@pytest.mark.crash
def test_cuts_and_flipped_bits_are_found_or_harmless():
    told: list[float] = []
    numbers = campaign_frames.run(False, 1, lambda share, text: told.append(share))
    assert told[-1] == 1.0
    assert numbers["cases"] >= 6 * campaign_frames.SAMPLE
    assert numbers["snapshot cut refused"] >= campaign_frames.SAMPLE
    assert numbers["snapshot flip refused"] >= campaign_frames.SAMPLE
    assert numbers["journal.db flip refused"] > 20
    assert numbers["journal.db-wal flip refused"] > 20
    assert numbers["journal.db-wal cut recovered"] > 20


@pytest.mark.crash
@pytest.mark.parametrize("gone", ["checksum of frames", "check of the log", "seal of snapshots"])
def test_the_campaign_sees_when_a_guard_is_gone(gone, monkeypatch, tmp_path):
    found = campaign_frames.subject()
    if gone == "checksum of frames":
        monkeypatch.setattr(campaign_frames, "decode_frame", lambda frame: [])
        name = "journal.db"
        begin = found.files[name].find(found.frames[3].body) + 200
    elif gone == "check of the log":
        monkeypatch.setattr(sqlite, "check_log", lambda path: None)
        name, begin = "journal.db-wal", 32 + 24 + 2_000
    else:
        seal = found.files["snapshot"][len(snapshot.FORMAT) :][:64].decode()
        blind = SimpleNamespace(sha256=lambda _: SimpleNamespace(hexdigest=lambda: seal))
        monkeypatch.setattr(snapshot, "hashlib", blind)
        name, begin = "snapshot", len(found.files["snapshot"]) // 2
    with pytest.raises(AssertionError, match=f"name='{name}'"):
        for bit in range(8 * begin, 8 * begin + 4_000):
            campaign_frames.look(found, Case(name, "flip", bit), tmp_path)
