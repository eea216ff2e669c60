"""status: what the journal says, beside a running process or after it."""

import errno
import json
import os
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bot4_runtime.domain.events import ModelPromoted, ProtectionAlarm, ProtectionPlanned
from bot4_runtime.report.record import gather
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import AccountLock, SqliteDisk
from bot4_runtime.state.store import StateStore
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


def test_risk_is_told_where_the_journal_knows_enough(command, traded, home: Path) -> None:
    """27 hours are no history; 40 days are: a second library's numbers from the same journal."""
    for book in json.loads(command("status", "--json").out)["books"].values():
        risk = book["risk"]
        assert risk["value_at_risk_95"] is risk["expected_shortfall_95"] is None
        assert risk["sharpe_realised"] is None
    assert "value at risk (95 %) not known" in " ".join(command("status").out.split())
    assert command(
        "start", "--source", "simulated:5", "--strategy", "drill", "--symbols", "BTCUSDT,ETHUSDT",
        "--speed", "max", "--to", "2025-02-10T07:00",
    ).code == 0  # fmt: skip
    with JournalReader.open(home / "state" / "paper" / "journal.sqlite") as journal:
        state = journal.state()
        record = gather(event for _, event in journal.events())
    closes = pd.DataFrame({s: pd.Series(dict(rows)) for s, rows in record.closes.items()})
    returns = closes.pct_change().iloc[1:].tail(500)
    told = json.loads(command("status", "--json").out)["books"]
    assert any(book.positions for book in state.books.values())
    for name, book in state.books.items():
        risk, equity = told[name.value]["risk"], float(book.metrics.equity)
        values = {s: float(p.quantity) * state.marks[s] for s, p in book.positions.items()}
        assert risk["exposure_quote"] == pytest.approx(values)
        assert risk["leverage"] == pytest.approx(sum(map(abs, values.values())) / equity)
        if values:
            profits = sum(returns[s] * value / equity for s, value in values.items())
            tail = np.sort(profits)[:25]
            assert risk["returns"] == len(profits) == 500
            assert risk["value_at_risk_95"] == pytest.approx(-tail[-1])
            assert risk["expected_shortfall_95"] == pytest.approx(-tail.mean())
        else:
            assert risk["value_at_risk_95"] is None
        daily = np.zeros(41)
        for trade in record.books[name].trades:
            day = (trade.closed_ts_ns // 1_000_000 - 1) // 86_400_000 - 20_089
            daily[day] += float(trade.pnl) / 100_000
        if not daily.any():
            assert risk["sharpe_realised"] is None
            continue
        expected = (daily.mean() * 365 - 0.04) / (daily.std(ddof=1) * np.sqrt(365))
        assert risk["sharpe_realised"]["value"] == pytest.approx(expected)
        assert risk["sharpe_realised"]["days"] == 41


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


def test_overrides_and_orders_that_wait_are_shown(command, traded, home: Path) -> None:
    words = ("start", "--source", "simulated:5", "--strategy", "drill", "--symbols",
             "BTCUSDT,ETHUSDT", "--speed", "max")  # fmt: skip
    given = ("override", "--reason", "a storm", "--for", "2d", "--max-leverage", 1.5, "--halt")
    assert command(*given).code == 0
    queued = json.loads(command("status", "--json").out)
    assert [order["verb"] for order in queued["queued_orders"]] == ["override"]
    assert queued["overrides"] == []
    assert "Queued orders: 1 (override)" in command("status").out
    assert command(*words, "--to", "2025-01-02T12:00").code == 0
    found = json.loads(command("status", "--json").out)
    assert found["queued_orders"] == []
    (override,) = found["overrides"]
    assert (override["halt"], override["limits"]) == (True, {"max_leverage": 1.5})
    assert override["reason"] == "a storm"
    assert override["until"].startswith("2025-01-04T0")
    shown = " ".join(command("status").out.split())
    assert "Override: no entries, max_leverage 1.5 until 2025-01-04T0" in shown
    assert command(*words, "--to", "2025-01-05").code == 0
    assert json.loads(command("status", "--json").out)["overrides"] == []


def test_why_entries_wait_and_what_was_rejected_are_shown(
    command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    words = ("start", "--source", "simulated:5", "--strategy", "drill", "--symbols", "BTCUSDT",
             "--speed", "max")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        ended = command(*words, "--to", "2025-01-03")
    assert "No entry will be sent, exits and stops will: there is no room" in ended.words
    assert "orders rejected by the gate or the venue: ENTRIES_WAIT" in ended.words
    found = json.loads(command("status", "--json").out)
    assert found["rejected"].keys() == {"ENTRIES_WAIT"}
    assert found["rejected"]["ENTRIES_WAIT"] == sum(b["orders"] for b in found["books"].values())
    assert "no room for the reserve" in found["entries_wait"]
    shown = " ".join(command("status").out.split())
    assert "Entries waited last because there is no room for the reserve" in shown
    assert command(*words, "--to", "2025-01-04").code == 0
    again = json.loads(command("status", "--json").out)
    assert again["entries_wait"] == ""
    assert again["rejected"] == found["rejected"]


def test_another_accounts_journal_is_refused_as_start_refuses_it(
    command, traded, home: Path
) -> None:
    shutil.copytree(home / "state" / "paper", home / "state" / "copied")
    for words in (("status",), ("halt", "--reason", "r"), ("verify",), ("why",), ("fees",)):
        ended = command(*words, "--account", "copied")
        assert ended.code == 1
        assert "is the journal of account 'paper', expected 'copied'" in ended.words
    assert list((home / "state" / "copied" / "commands").iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("verify",), ("why",), ("fees",), ("migrate",), ("accept", "--reason", "r"),
        ("halt", "--reason", "r"), ("resume", "--reason", "r"), ("why", "--folder", "nowhere"),
        ("flatten", "--yes", "--reason", "r"), ("fees", "--folder", "nowhere"),
        ("override", "--reason", "r", "--for", "1h", "--halt"),
    ],
)  # fmt: skip
def test_what_has_no_journal_is_wrong_input_to_every_command(
    command, home: Path, words: tuple[str, ...]
) -> None:
    ended = command(*words)
    assert ended.code == 2
    assert "no journal at" in ended.words
    assert "start" in ended.words
    assert not (home / "state").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--for", "0h", "--halt"), "--for '0h'"),
        (("--for", "-1h", "--halt"), "--for '-1h'"),
        (("--for", "nanh", "--halt"), "--for 'nanh'"),
        (("--for", "31d", "--halt"), "--for '31d'"),
        (("--for", "1h", "--max-leverage", "nan"), "'max_leverage': nan"),
        (("--for", "1h"), "received neither"),
    ],
)
def test_an_impossible_override_is_refused_before_it_is_queued(
    command, traded, home: Path, words: tuple[str, ...], told: str
) -> None:
    ended = command("override", "--reason", "r", *words)
    assert ended.code == 2
    assert told in ended.words
    assert list((home / "state" / "paper" / "commands").iterdir()) == []


def test_migrate_tells_its_answer_as_json_too(command, traded) -> None:
    told = json.loads(command("migrate", "--json").out)
    assert told["layout_found"] == told["layout"]
    assert told["journal"].endswith("journal.sqlite")


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


def test_alarms_of_liquidation_prevention_are_shown_until_they_are_over(
    command, traded, home: Path
) -> None:
    """One of a wallet takes the place of the last; what was taken back is not shown."""

    def alarm(severity: str, code: str, subject: str) -> ProtectionAlarm:
        return ProtectionAlarm(
            ts_event_ns=1_735_700_000 * 10**9, severity=severity, code=code, subject=subject,
            text=f"{subject}: {code}", numbers={},
        )  # fmt: skip

    plan = ProtectionPlanned(
        ts_event_ns=0, number=1, action="reduce", wallet="BTCUSDT long", symbol="BTCUSDT",
        intent=None, client_id="", payload_hash="", amount=Decimal(0),
        reason="margin ratio reached 90%", numbers={},
    )  # fmt: skip
    told = [
        alarm("warning", "MARGIN_ALERT", "BTCUSDT long"),
        alarm("critical", "MARGIN_ACT", "BTCUSDT long"),
        alarm("critical", "MARGIN_ACT", "ETHUSDT long"),
        alarm("critical", "MARK_STALE", "BTCUSDT"),
        alarm("info", "MARK_STALE", "BTCUSDT"),
        alarm("info", "MARGIN_CLEARED", "ETHUSDT long"),
        alarm("critical", "LIQUIDATED", "BTCUSDT"),
    ]
    disk = SqliteDisk.open(home / "state" / "paper" / "journal.sqlite", "paper", home / "locks")
    with StateStore(Journal(disk, threaded=False), None) as store:
        store.recover()
        for event in (*told, plan):
            store.stage(event)
        store.commit()
    found = json.loads(command("status", "--json").out)["protection"]
    assert [(a["code"], a["subject"]) for a in found["alarms"]] == [
        ("MARGIN_ACT", "BTCUSDT long"),
        ("LIQUIDATED", "BTCUSDT"),
    ]
    assert found["in_flight"] == [
        {
            "number": 1, "action": "reduce", "symbol": "BTCUSDT",
            "reason": "margin ratio reached 90%",
        }
    ]  # fmt: skip
    shown = " ".join(command("status").out.split())
    assert "Critical at 2025-01-01T02:53:20+00:00: BTCUSDT long: MARGIN_ACT" in shown
    assert "Liquidation prevention: reduce BTCUSDT is in flight (margin ratio reached" in shown
    assert "ETHUSDT long" not in shown


def test_models_that_do_not_trade_any_more_are_shown(command, traded, home: Path) -> None:
    journal = home / "state" / "paper" / "journal.sqlite"
    disk = SqliteDisk.open(journal, "paper", home / "locks")
    with StateStore(Journal(disk, threaded=False), None) as store:
        store.recover()
        for hmm in ("a" * 64, ""):
            store.stage(
                ModelPromoted(
                    ts_event_ns=0, interval="1h", hmm_sha256=hmm, lstm_sha256="", schema_id="",
                )
            )  # fmt: skip
            store.wait_durable(store.commit())
            shown = " ".join(command("status").out.split())
            silent = "No 1h models trade, and nothing is entered until a pair is promoted" in shown
            assert silent is (hmm == "")
