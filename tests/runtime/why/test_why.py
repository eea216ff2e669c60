"""Why: told from the journal of a real run, and held against what the journal says."""

import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from bot4_runtime import why
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.events import (
    FundingPaid,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    RiskDecided,
    SignalDecided,
)
from bot4_runtime.domain.order import Book, Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.report.record import gather
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

PROGRAM = str(Path(sys.executable).with_name("bot4-runtime"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The home of a run of the drill over two months."""
    home = tmp_path_factory.mktemp("why") / "home"
    ended = call(
        home, "start", "--strategy", "drill", "--source", "simulated:5", "--symbols",
        "BTCUSDT,ETHUSDT", "--speed", "max", "--to", "2025-03-01T00:00",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return home


def call(home, *words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BOT4_")} | {
        "BOT4_HOME": str(home),
        "BOT4_MODELS": str(home.parent / "models"),
        "BOT4_RISK__MAX_CORRELATION": "0.7",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }
    return subprocess.run(
        [PROGRAM, *words],
        env=environment, cwd=home.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(home):
    return home / "state" / "paper"


@pytest.fixture(scope="module")
def events(folder):
    with JournalReader.open(folder / "journal.sqlite") as journal:
        return [event for _, event in journal.events()]


def tell(folder, name):
    with JournalReader.open(folder / "journal.sqlite") as journal:
        return why.tell(journal, folder / "snapshots", name)


def printed(story):
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        why.print_story(story, console)
    return console.export_text()


def test_every_decision_of_the_run_is_told_as_it_was_journaled(folder, events):
    decided = [e for e in events if isinstance(e, SignalDecided)]
    trades = gather(events).books
    assert len({d.code for d in decided}) >= 2
    assert len(decided) > 50
    for decision in decided[::7]:
        name = decision.signal.signal_id
        story = tell(folder, name)
        assert (story["code"], story["text"], story["numbers"]) == (
            decision.code, decision.text, decision.numbers,
        )  # fmt: skip
        passed = [step["verdict"] == why.PASSED for step in story["steps"]]
        assert all(passed) == decision.approved
        assert [s["decided"] for s in story["steps"]].count(True) == (not decision.approved)
        risks = [e for e in events if isinstance(e, RiskDecided) and e.signal_id == name]
        assert [r["code"] for r in story["risk"]] == [r.code for r in risks]
        intents = [
            e.intent for e in events if isinstance(e, OrderIntended) and e.intent.signal_id == name
        ]
        assert [o["intent_no"] for o in story["orders"]] == [i.intent_no for i in intents]
        fills = [
            e.fill for e in events
            if isinstance(e, OrderFilled) and e.fill.intent_no in {i.intent_no for i in intents}
        ]  # fmt: skip
        assert sum(len(o["fills"]) for o in story["orders"]) == len(fills)
        closed = [t for b in trades.values() for t in b.trades if t.signal_id == name]
        assert [Decimal(o["pnl"]) for o in story["outcome"] if o["state"] == "closed"] == [
            t.pnl for t in closed
        ]
        text = printed(story)
        assert all(len(line) <= 80 for line in text.splitlines())
        assert f"Signal {name}" in text


def test_a_trade_longer_ago_than_the_book_remembers_is_still_told(folder, events, tmp_path):
    first = next(t for b in gather(events).books.values() for t in b.trades)
    with JournalReader.open(folder / "journal.sqlite") as journal:
        story = why.tell(journal, folder / "snapshots", first.signal_id)
        state = journal.state(folder / "snapshots")
        for book in state.books.values():
            book.closed_trades.clear()
        forgetful = SimpleNamespace(events=journal.events, state=lambda _: state)
        assert why.tell(forgetful, None, first.signal_id) == story
    assert story["outcome"][0]["exit_reason"] == first.exit_reason
    assert story["synthetic_evidence"] is True  # it is the drill's


def test_a_signal_is_found_by_id_beginning_or_last(folder, events):
    ids = [e.signal.signal_id for e in events if isinstance(e, SignalDecided)]
    with JournalReader.open(folder / "journal.sqlite") as journal:
        assert why.find(journal, "last")[1].signal.signal_id == ids[-1]
        assert why.find(journal, ids[3])[1].signal.signal_id == ids[3]
        unique = next(
            i[:k] for i in ids for k in range(5, len(i))
            if sum(j.startswith(i[:k]) for j in ids) == 1
        )  # fmt: skip
        assert why.find(journal, unique)[1].signal.signal_id.startswith(unique)
        with pytest.raises(ConfigError) as refused:
            why.find(journal, "drill:")
        assert str(refused.value) == (
            f"{len(ids)} signals begin with 'drill:'; some: {', '.join(ids[-3:])}"
        )
        with pytest.raises(ConfigError) as refused:
            why.find(journal, ids[3][:-1] + "x")
        assert str(refused.value).startswith(f"there is no signal '{ids[3][:-1]}x'; nearest: ")
        assert ids[3] in str(refused.value)
        listed = why.recent(journal)
        assert [each["signal_id"] for each in listed] == ids[::-1][: why.RECENT]


def test_a_journal_without_decisions_says_so():
    nothing = SimpleNamespace(events=lambda *_, **__: iter(()))
    with pytest.raises(DataError, match="no decision"):
        why.find(nothing, "last")
    assert why.recent(nothing) == []


def test_the_command_tells_lists_and_names_what_is_near(home, folder, events):
    last = [e for e in events if isinstance(e, SignalDecided)][-1]
    told = call(home, "why", "last")
    assert told.returncode == 0
    assert f"Signal {last.signal.signal_id}" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80
    document = json.loads(call(home, "why", last.signal.signal_id, "--json").stdout)
    assert document == json.loads(json.dumps(tell(folder, "last")))
    listed = call(home, "why")
    assert last.signal.signal_id in listed.stdout
    assert max(map(len, listed.stdout.splitlines())) <= 80
    assert len(json.loads(call(home, "why", "--json").stdout)["decisions"]) == 20
    moved = home.parent / "elsewhere"
    shutil.copytree(folder, moved)
    by_folder = call(home, "why", "last", "--folder", str(moved), "--account", "nobody")
    assert by_folder.stdout == told.stdout
    wrong = call(home, "why", "drill:BTCUSDT:1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "begin with" in wrong.stderr
    unknown = call(home, "why", "mars")
    assert unknown.returncode == 2
    assert "nearest: drill:" in unknown.stderr
    nobody = call(home, "why", "--account", "nobody")
    assert nobody.returncode != 0
    assert "no journal" in nobody.stderr
    assert "Traceback" not in nobody.stderr + unknown.stderr + wrong.stderr


# --------------------------------------------------------------------- every step
FULL = {
    "confidence": 0.9, "confidence_above": 0.75, "volatility": 0.005, "history_trades": 4.0,
    "history_entries": 5.0, "n_trades": 400.0, "n_trades_least": 30.0, "n_eff_weeks": 140.0,
    "n_eff_weeks_least": 30.0, "rules_tried": 7.0, "p_value": 0.004, "p_value_below": 0.05,
    "win_rate": 0.4, "average_win": 0.05, "average_loss": 0.016, "extra_costs": 0.0,
    "expected_value": 0.01, "sharpe": 2.6, "sharpe_above": 2.0, "sharpe_low": 1.4,
    "sharpe_high": 3.8, "deflated_sharpe": 0.98, "live_trades": 0.0,
}  # fmt: skip


def decision(code="APPROVED", text="", **changes):
    signal = TradingSignal(
        signal_id="r:X:1", rule_id="r", symbol="X", action=SignalAction.ENTER, side=Side.BUY,
        confidence=0.9, price=100.0, stop_distance=0.05, regime=None, volatility=None, ts_ns=1,
    )  # fmt: skip
    return SignalDecided(
        ts_event_ns=1, signal=signal, approved=code == "APPROVED", code=code, text=text,
        suggestion="", numbers=FULL | changes,
    )  # fmt: skip


P, F, U = why.PASSED, why.FAILED, why.NOT_KNOWN


@pytest.mark.parametrize(
    ("decided", "verdicts", "at"),
    [
        (decision(), (P, P, P, P, P), None),
        (decision("BIAS_FOMO", "chased", bias_value=4.0, bias_threshold=3.0), (F, P, P, P, P), 0),
        (decision("NOT_FINITE", "the volatility is missing"), (U, P, P, P, P), 0),
        (decision("NO_EVIDENCE", "there is none"), (P, F, P, P, P), 1),
        (decision("BIAS_FOMO", n_trades=None, n_eff_weeks=None), (F, F, P, P, P), 0),
        (decision("TOO_FEW", n_trades=29.0), (P, F, P, P, P), 1),
        (decision("TOO_FEW", n_eff_weeks=29.0), (P, F, P, P, P), 1),
        (decision("NOT_SIGNIFICANT", p_value=0.05), (P, F, P, P, P), 1),
        (decision("NOT_FINITE", "the p-value of the evidence", p_value=None), (P, U, P, P, P), 1),
        (decision("EXPECTED_VALUE", expected_value=0.0), (P, P, F, P, P), 2),
        (decision("NOT_FINITE", "x of the evidence", expected_value=None), (P, P, U, P, P), 2),
        (decision("SHARPE", sharpe=2.0, confidence=0.1), (P, P, P, F, F), 3),
        (decision("NOT_FINITE", "x of the evidence", sharpe_above=None), (P, P, P, U, P), 3),
        (decision("CONFIDENCE", confidence=0.75), (P, P, P, P, F), 4),
    ],
)
def test_each_question_gets_its_own_verdict(decided, verdicts, at):
    told = why.steps(decided)
    assert tuple(step["verdict"] for step in told) == verdicts
    assert [k for k, step in enumerate(told) if step["decided"]] == ([] if at is None else [at])
    if decided.code.startswith("BIAS"):
        assert told[0]["detail"] == decided.text


def test_the_numbers_and_bounds_are_shown_as_they_were_compared():
    told = {step["step"]: step for step in why.steps(decision())}
    assert {name: (s["number"], s["bound"]) for name, s in told.items()} == {
        "bias": ("none of 7", "none"),
        "significance": ("p 0.0040", "p below 0.05"),
        "expected value": ("100 bps", "above 0 bps"),
        "Sharpe ratio": ("2.6", "above 2"),
        "confidence": ("90 %", "above 75 %"),
    }
    assert told["significance"]["detail"] == "400 trades in 140 weeks, 7 rules tried"
    assert told["expected value"]["detail"] == (
        "wins 40 %, average win 500 bps, average loss 160 bps, costs beyond the record's 0 bps"
    )
    assert told["Sharpe ratio"]["detail"] == (
        "95 % interval 1.4 to 3.8, deflated 0.98, 0 live trades"
    )


def test_every_end_of_an_order_is_told(folder, events):
    signal = next(e for e in events if isinstance(e, SignalDecided) and e.approved)
    intended = next(
        e for e in events
        if isinstance(e, OrderIntended) and e.intent.signal_id == signal.signal.signal_id
    )  # fmt: skip
    no = intended.intent.intent_no
    happened = {
        "accepted": OrderAccepted(ts_event_ns=2, intent_no=no, venue_order_id="v"),
        "rejected (X)": OrderRejected(ts_event_ns=2, intent_no=no, code="X", reason="why"),
        "expired": OrderClosed(ts_event_ns=2, intent_no=no, status="expired", reason="late"),
        "unknown": OrderOutcomeUnknown(ts_event_ns=2, intent_no=no, reason="lost"),
    }
    refused = RiskDecided(
        ts_event_ns=2, book=Book.VALIDATED, signal_id=signal.signal.signal_id, symbol="X",
        quantity=Decimal(3), approved=False, code="LEVERAGE", limit=3.0, value=3.5,
        would_pass_size=Decimal("1.5"), risk_score=0.0,
    )  # fmt: skip
    for status, event in happened.items():
        other = type(event)(**{f: getattr(event, f) for f in event.__struct_fields__}
                            | {"intent_no": no + 10_000})  # fmt: skip
        journal = SimpleNamespace(
            events=lambda from_seq=0, kinds=(), last=(refused, intended, event, other): iter(
                [(1, signal), *((2, e) for e in last)] if SignalDecided not in kinds
                else [(1, signal)]
            )
        )  # fmt: skip
        story = why.tell(journal, None, "last")
        assert story["orders"][0]["status"] == status
        text = " ".join(printed(story).split())
        assert "Outcome: nothing was bought." in text
        assert "3 refused, LEVERAGE: 3.5 against 3; 1.5 would pass" in text
        reason = getattr(event, "reason", "")
        assert f"({reason})" in text if reason else True


def test_words_of_a_hand_a_limit_and_an_open_position():
    story = {
        "signal_id": "s", "time": "t", "action": "enter", "symbol": "X", "side": "buy",
        "price": 1.0, "stop_distance": 0.05, "regime": "Bull", "reason": "r",
        "override_reason": "me", "approved": True, "code": "APPROVED", "text": "fine",
        "suggestion": "", "synthetic_evidence": True, "steps": why.steps(decision()), "risk": [], "orders": [],
        "outcome": [
            {"book": "validated", "state": "open", "quantity": "2", "funding": "0"},
            {"book": "shadow", "state": "open", "quantity": "3", "funding": "-1.234"},
        ],
    }  # fmt: skip
    text = printed(story)
    for words in ("regime Bull", "Reason: r", "Ordered by hand: me", "APPROVED: fine",
                  "evidence of this rule is SYNTHETIC", "Risk was not asked.", "2 is still held\n",
                  "3 is still held, funding -1.23\n"):  # fmt: skip
        assert words in text
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        why.print_recent([], console)
    assert "No signal was decided on yet." in console.export_text()


def test_what_a_position_paid_is_told_with_its_outcome(folder, events, tmp_path):
    """A journal of the same run in which two round trips and what is held were funded."""
    book = gather(events).books[Book.VALIDATED]
    first, last = book.trades[0], book.trades[-1]
    funded = [
        FundingPaid(
            ts_event_ns=trade.opened_ts_ns, symbol=trade.symbol, asset="USDT",
            amount=Decimal("-1.5"), transaction_id=number, ours=True,
        )
        for number, trade in enumerate((first, last))
    ]  # fmt: skip
    store = StateStore(Journal(SqliteDisk.open(tmp_path / "journal.sqlite", "paper")), None)
    store.recover()
    store.append([*events, *funded])
    store.close()
    for trade in (first, last):
        story = tell(tmp_path, trade.signal_id)
        (end,) = [e for e in story["outcome"] if e["book"] == "validated"]
        assert end["funding"] == "-1.5"
        assert Decimal(end["pnl"]) == trade.pnl - Decimal("1.5")
        assert "funding -1.50" in printed(story)
