"""What people see: progress, the demo's one screen, and what makes a demo fail."""

import io
import os
import pty
import select

import pytest
from rich.console import Console

from bot4_pipelines import demo
from bot4_pipelines.orchestrate import PipelineFailed, prepare_dagster_home, project_root
from bot4_pipelines.records import Folders
from bot4_pipelines.terminal import (
    StepBars,
    accuracy_rows,
    print_demo,
    print_evaluation,
    print_seeds,
)

SPLIT = {
    "accuracy": 0.94,
    "accuracy_low": 0.93,
    "accuracy_high": 0.95,
    "balanced_accuracy": 0.94,
    "macro_f1": 0.93,
    "ece": 0.01,
}
BASELINES = {"majority": 0.25, "static_cuts": 0.91, "hmm_filter": 0.9, "random_walk_hmm": 0.905}
LSTM = {
    "metrics": {
        "validation": SPLIT,
        "test": {**SPLIT, "accuracy": 0.9376},
        "baselines_validation": BASELINES,
        "baselines_test": BASELINES,
    },
    "gates": [{"passed": False, "says": "test ece 0.05, needs <= 0.03"}],
}
BOOK = {
    "orders": 3,
    "orders_filled": 2,
    "trades": 1,
    "fees_quote": "1.25000000",
    "pnl_quote": "-10.50000000",
    "return": -0.01,
    "max_drawdown": None,
}
REPLAY = {
    "candles": 10,
    "regimes": {"Bull": 7, "Bear": 3},
    "signals": {"entries": 2, "approved": 0, "rejected": {"SHARPE": 2}},
    "books": {"shadow": BOOK, "validated": {**BOOK, "orders_filled": 0}},
    "buy_and_hold": {"return": 0.2, "pnl_quote": 20_000.0},
    "state_hash": "a" * 64,
    "recovered_state_hash": "a" * 64,
    "report_html": "/r/report.html",
    "summary_json": "/r/summary.json",
}
CANDLES = {
    "origin": "simulated",
    "why": "Binance cannot be reached",
    "candles": 1_000,
    "interval": "1h",
    "market": "spot",
    "symbols": ["BTCUSDT"],
    "from_ms": 0,
    "to_ms": 86_400_000,
    "gaps": 0,
}
CUTS = {"train_start_ms": 0, "validation_start_ms": 0, "test_start_ms": 0}


def document(**changes):
    whole = {
        "candles": CANDLES,
        "cuts": CUTS,
        "models": {"lstm": LSTM},
        "replay": REPLAY,
        "next": {"the graph": "make dev"},
        "seconds": 3.0,
    }
    return {**whole, **changes}


def shown(draw, value):
    page = io.StringIO()
    draw(value, Console(file=page, width=140))
    return page.getvalue()


def test_the_screen_tells_models_signals_books_and_recovery():
    text = shown(print_demo, document())
    for words in (
        "SIMULATED market",
        "0.9376",
        "random walk hmm",
        "test ece 0.05, needs <= 0.03",
        "SHARPE 2",
        "what the validator refused",
        "-10.50",
        "+20,000.00",
        "lead to the same",
        "/r/report.html",
        "Next: make dev",
    ):
        assert words in text, words


def test_another_state_after_recovery_is_told_and_fails_the_demo():
    other = {**REPLAY, "recovered_state_hash": "b" * 64}
    assert "ANOTHER" in shown(print_demo, document(replay=other))
    assert "recovery led to state bbbb" in demo.failures(other)[0]


def test_an_empty_shadow_book_fails_the_demo():
    assert demo.failures(REPLAY) == []
    empty = {**REPLAY, "books": {"shadow": {**BOOK, "orders_filled": 0}}}
    assert "shadow book is empty" in demo.failures(empty)[0]
    assert "shadow book is empty" in demo.failures({**REPLAY, "books": {}})[0]


def test_what_is_not_there_is_not_printed():
    assert shown(print_demo, document(candles=None, replay=None)) == ""
    assert "accuracy" not in shown(print_demo, document(models=None, cuts=None, replay=None))
    assert accuracy_rows({}) == []
    (row,) = accuracy_rows({"hmm": {"metrics": {"test": {"accuracy": None}}}})
    assert row == ("HMM filter", "-", "-", "-", "-", "-", "-")


def test_an_evaluation_lists_symbols_and_baselines():
    scored = {"pooled": SPLIT, "symbols": {"BTCUSDT": SPLIT}}
    control = {"pooled": {"accuracy": 0.9055, "macro_f1": 0.8811}}
    baselines = {"majority": {"accuracy": 0.25}, "x": 0.5, "random_walk_hmm": control}
    told = [
        {"severity": severity, "code": code, "says": f"BTCUSDT: {code}"}
        for severity, code in (("ERROR", "SPIKE"), ("INFO", "GAP"))
    ]
    document = {"hmm": scored, "lstm": None, "baselines": baselines, "findings": told}
    text = shown(print_evaluation, document)
    assert "ERROR SPIKE: BTCUSDT: SPIKE" in text
    assert "GAP" not in text
    assert "0.9055" in text
    assert "0.8811" in text
    assert "hmm BTCUSDT" in text
    assert "0.2500" in text
    assert "0.5000" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_when_a_step_starts_and_ends(terminal):
    page = io.StringIO()
    with StepBars(Console(file=page, force_terminal=terminal, width=100)) as bars:
        for share in (0.0, 0.5, 1.0, 1.0):
            bars.update("candles", "reading [files]", share)
    text = page.getvalue()
    assert "Candles" in text
    assert "reading [files]" in text
    if not terminal:
        assert len(text.splitlines()) == 2


def test_bars_keep_the_terminal_while_stderr_is_a_file(tmp_path):
    master, slave = pty.openpty()
    elsewhere = tmp_path / "captured"
    with os.fdopen(master, "rb", buffering=0) as seen, os.fdopen(slave, "w") as stderr:
        with StepBars(Console(file=stderr, force_terminal=True, width=80)) as bars:
            with elsewhere.open("w") as file:
                os.dup2(file.fileno(), slave)
            bars.update("candles", "reading", 0.5)
        shown = b""
        while select.select([seen], [], [], 1.0)[0] and b"reading" not in shown:
            shown += seen.read(65536)
    assert b"reading" in shown
    assert elsewhere.read_text() == ""


def test_a_replay_that_ends_badly_fails_with_its_own_words(tmp_path):
    folders = Folders(home=tmp_path / "home", models=tmp_path / "models")
    wish = document(candles={**CANDLES, "symbols": ["BTCUSDT"]})
    with pytest.raises(PipelineFailed, match="exit code 2"):
        demo.replay(folders, wish)


def test_next_commands_name_folders_only_when_they_are_not_the_usual(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual = demo.next_commands(Folders.from_environment({}))
    assert "make dev" in usual.values()
    other = demo.next_commands(Folders.from_environment({"BOT4_HOME": "/x", "BOT4_MODELS": "/y"}))
    assert "BOT4_HOME=/x BOT4_MODELS=/y make dev" in other.values()


def test_dagster_home_links_the_projects_file_and_leaves_an_operators_own(tmp_path, monkeypatch):
    for name in ("DAGSTER_HOME", "BOT4_HOME", "BOT4_MODELS", "DAGSTER_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")
    folders = Folders(home=tmp_path / "home", models=tmp_path / "models")
    home = prepare_dagster_home(folders)
    link = home / "dagster.yaml"
    assert link.resolve() == project_root() / "dagster.yaml"
    link.unlink()
    link.symlink_to(tmp_path / "moved.yaml")
    prepare_dagster_home(folders)
    assert link.resolve() == project_root() / "dagster.yaml"
    link.unlink()
    link.write_text("# mine\n")
    prepare_dagster_home(folders)
    assert link.read_text() == "# mine\n"


def test_the_spread_over_seeds_is_a_table_and_an_unknown_number_a_dash():
    def numbers(value):
        return dict.fromkeys(("mean", "deviation", "least", "largest"), value)

    document = {
        "schedule": "full",
        "runs": [{"seed": 5}, {"seed": 6}],
        "numbers": {
            "test_accuracy": numbers(0.94567),
            "test_ece": numbers(None),
            "cpu_seconds": numbers(201.26),
        },
    }
    screen = io.StringIO()
    print_seeds(document, Console(file=screen, width=100))
    text = screen.getvalue()
    assert "LSTM, full schedule, 2 seeds from 5" in text
    assert "0.9457" in text
    assert "201.3" in text
    assert text.count(" - ") >= 3
