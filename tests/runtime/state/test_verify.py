"""`verify` says what is wrong with an account, and that nothing is when nothing is."""

import json
import sqlite3
from pathlib import Path

import pytest
from state_scenario import Scenario
from typer.testing import CliRunner

from bot4_runtime.cli import app as commands
from bot4_runtime.domain.errors import JournalMissing
from bot4_runtime.state import snapshot
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.state.verify import verify_account


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "paper"
    disk = SqliteDisk.open(folder / JOURNAL, "paper", tmp_path / "locks")
    store = StateStore(Journal(disk), folder / "snapshots")
    store.recover()
    for number, batch in enumerate(Scenario(31, 120).batches()):
        store.wait_durable(store.append(batch))
        if number % 30 == 29:
            store.create_snapshot()
    store.close()
    return tmp_path


def verified(home: Path, *options: str):
    environment = {"BOT4_HOME": str(home)}
    return CliRunner().invoke(
        commands, ["verify", "--account", "paper", *options], env=environment
    )


def test_a_sound_account_is_said_to_be_sound(home, monkeypatch):
    monkeypatch.chdir(home)
    told = verified(home, "--json")
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert found["ok"]
    assert found["problems"] == []
    assert len(found["snapshots"]) == snapshot.KEEP
    assert found["state_hash"] == Scenario(31, 120).hashes[-1]
    assert "every checksum and key holds; 3 snapshots agree" in verified(home).output
    lock = AccountLock(home / "locks" / "paper.lock", "paper")
    assert verified(home).exit_code == 0  # beside a running writer too
    lock.close()


def test_each_kept_snapshot_leads_to_the_state_of_a_full_replay_up_to_there(home):
    folder = home / "state" / "paper"
    for path in snapshot.list_snapshots(folder / "snapshots"):
        store = StateStore(
            Journal(SqliteDisk.open(folder / JOURNAL, "paper", home / "locks")),
            folder / "snapshots",
        )
        replay = TradingState()
        for seq, event in store._journal.read(0):
            if seq <= int(path.stem):
                replay.apply(event)
        assert snapshot.read(path).state_hash() == replay.state_hash()
        assert store.recover(version=int(path.stem)).snapshot_seq == int(path.stem)
        assert store.state.state_hash() == Scenario(31, 120).hashes[-1]
        store.close()


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


def another_state(path: Path) -> None:
    state = snapshot.read(path)
    state.marks["BTCUSDT"] += 1.0
    pieces = snapshot.encode(snapshot.picture(state))
    snapshot.write(path.parent, state.seq, pieces)


def ahead(path: Path) -> None:
    state = snapshot.read(path)
    state.seq = 10**6
    snapshot.write(path.parent, state.seq, snapshot.encode(snapshot.picture(state)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed, "does not match its sha256"),
        (another_state, "its state is not that of a replay"),
        (ahead, "the journal does not lead there"),
    ],
)
def test_a_snapshot_that_lies_is_named(home, damage, words, monkeypatch):
    monkeypatch.chdir(home)
    paths = snapshot.list_snapshots(home / "state" / "paper" / "snapshots")
    damage(paths[1])
    told = verified(home, "--json")
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert not found["ok"]
    assert any(words in problem for problem in found["problems"])
    assert verified(home).exit_code == 1
    (home / "state" / "paper" / "snapshots" / "odd.snapshot").write_bytes(b"x")
    assert verified(home).exit_code == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE frame SET epoch = epoch + 1 WHERE first_seq = (SELECT max(first_seq) FROM frame)",
        "DELETE FROM frame WHERE first_seq = (SELECT max(first_seq) FROM frame WHERE first_seq < 90)",
        "DELETE FROM trade",
        "UPDATE meta SET value = 9 WHERE key = 'schema_version'",
    ],
)
def test_a_damaged_journal_is_told(home, statement):
    folder = home / "state" / "paper"
    with sqlite3.connect(folder / JOURNAL) as sql:
        sql.execute(statement)
    sql.close()
    found = verify_account(folder, "paper", running=False)
    assert found["problems"]
    assert found["state_hash"] is None


def test_an_account_without_a_journal_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = verified(tmp_path)
    assert told.exit_code != 0
    with pytest.raises(JournalMissing, match="account 'paper' has no journal"):
        verify_account(tmp_path, "paper", running=False)


def test_another_accounts_journal_is_a_problem(home):
    folder = home / "state" / "paper"
    problem = verify_account(folder, "mine", running=False)["problems"][0]
    assert "is the journal of account 'paper', expected 'mine'" in problem
