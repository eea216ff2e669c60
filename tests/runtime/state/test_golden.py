"""Journals of every released schema version still replay to their golden hash.

What a version learnt to journal later has a golden journal beside the first one.
"""

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

from bot4_runtime.domain.events import SCHEMA_VERSION, JournaledEvent
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

GOLDEN = sorted((Path(__file__).parent / "golden").glob("journal-v*.db"))


def test_the_present_version_has_a_golden_journal():
    assert f"journal-v{SCHEMA_VERSION}.db" in {path.name for path in GOLDEN}


def test_golden_journals_of_the_present_version_hold_every_kind_of_event():
    kinds = set()
    for golden in GOLDEN:
        if golden.stem.split("-")[1] == f"v{SCHEMA_VERSION}":
            with JournalReader.open(golden) as reader:
                kinds |= {type(event) for _, event in reader.events()}
    assert kinds == set(get_args(JournaledEvent))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_journal_replays_to_its_hash(golden, tmp_path):
    path = tmp_path / "journal.db"
    shutil.copy(golden, path)
    facts = json.loads(golden.with_suffix(".json").read_text())
    with JournalReader.open(path) as reader:
        assert reader.verify() == facts["last_seq"]
        assert reader.state().state_hash() == facts["state_hash"]
    store = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    assert store.recover().last_seq == facts["last_seq"]
    assert store.state.state_hash() == facts["state_hash"]
    store.close()
