"""status: what the journal says, beside a running process or after it."""

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import AccountLock
from bot4_runtime.status import holder_of


@pytest.fixture
def traded(command, home: Path) -> dict[str, object]:
    ended = command(
        "start", "--source", "simulated:5", "--strategy", "drill", "--symbols", "BTCUSDT,ETHUSDT",
        "--speed", "max", "--to", "2025-01-02T03:00", "--json",
    )  # fmt: skip
    assert ended.code == 0
    return json.loads(ended.out)


def test_a_stopped_account_shows_the_state_its_run_ended_in(command, traded, home: Path) -> None:
    ended = command("status", "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert found["running_pid"] is None
    assert found["state_hash"] == traded["state_hash"]
    assert found["candles"] == traded["candles"] == 2 * 27
    assert (found["mode"], found["source"], found["strategy"]) == ("paper", "simulated:5", "drill")
    assert (found["regimes"], found["models"]) == ({}, {})
    book, told = found["books"]["validated"], traded["books"]["validated"]
    for key in ("equity_quote", "pnl_quote", "fees_quote"):
        assert abs(Decimal(book[key]) - Decimal(told[key])) < Decimal("1e-7")
    assert book["trades"] == told["trades"]
    assert book["orders"] == told["orders"]
    with JournalReader.open(home / "state" / "paper" / "journal.sqlite") as journal:
        state = journal.state()
        assert found["events"] == journal.last_seq()
    live = {order.intent.intent_no for order in state.all_live_orders()}
    told_live = {o["intent_no"] for b in found["books"].values() for o in b["live_orders"]}
    assert told_live == live
    held = {s for b in state.books.values() for s in b.positions}
    assert {p["symbol"] for b in found["books"].values() for p in b["positions"]} == held
    assert live
    assert held


def test_a_running_account_names_its_process(command, traded, home: Path) -> None:
    lock = AccountLock(home / "locks" / "paper.lock", "paper")
    try:
        found = json.loads(command("status", "--json").out)
        shown = command("status").out
    finally:
        lock.close()
    assert found["running_pid"] == os.getpid()
    assert f"running, process {os.getpid()}" in " ".join(shown.split())


def test_people_get_a_table(command, traded) -> None:
    ended = command("status")
    text = " ".join(ended.out.split())
    assert "Account paper: not running; drill on simulated:5, 54 candles" in text
    assert traded["state_hash"] in text
    assert "validated" in text
    assert "Equity" in text


def test_status_changes_nothing(command, traded, home: Path) -> None:
    folder = home / "state" / "paper"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    command("status", "--json")
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    changed = {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed <= {"journal.sqlite-shm", "journal.sqlite-wal"}


def test_an_account_without_a_journal_is_named(command, home: Path) -> None:
    ended = command("status", "--account", "nobody")
    assert ended.code == 2
    assert "account 'nobody' has no journal at" in ended.words
    assert "bot4-runtime start" in ended.words
    assert not (home / "state").exists()


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "gone.lock") is None
    lock = AccountLock(tmp_path / "a.lock", "a")
    assert holder_of(tmp_path / "a.lock") == os.getpid()
    lock.close()
    assert holder_of(tmp_path / "a.lock") is None
