"""What the command line says and how it ends."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "UserWarning", "ResourceWarning", "FutureWarning")
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command line in this process; returns exit code and what it printed."""
    from bot4_pipelines.cli import main

    for name in ("DAGSTER_HOME", "DAGSTER_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["bot4-pipelines", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return SimpleNamespace(
            returncode=ended.value.code, stdout=printed.out, stderr=" ".join(printed.err.split())
        )

    return command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rollback"], "nothing is promoted for 1h"),
        (["promote"], "materialise the asset 'hmm_candidate' first"),
        (["promote", "abc"], "give the sha256 of both models"),
        (["promote", "abc", "def"], "0 archived models begin with 'abc'"),
        (["rollback", "--interval", "7h"], "unknown interval"),
        (["evaluate", "--candles", "nowhere"], "is no folder"),
        (["evaluate", "--candles", ".", "--since", "soon"], "is no ISO time"),
        (["evaluate", "--candles", ".", "--symbols", ","], "names no symbol"),
        (["evaluate", "--candles", ".", "--market", "moon"], "moon"),
        (["run", "--interval", "7m"], "is no interval"),
        (["run", "--symbols", "BTC-USDT"], "is no symbol"),
        (["run", "--years", "-1"], "above 0"),
        (["run", "--lookback", "9"], "from 10 to 180"),
        (["run", "--lookback", "fifty"], "lookback in Dagster) is 'fifty'"),
        (["dance"], "No such command"),
        (["dev", "--port", "99999999"], "65535"),
    ],
)
def test_wrong_input_ends_with_2_and_says_what_is_wrong(run, arguments, words):
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_evaluate_takes_the_folder_of_candles_that_is_named_for_all_commands(run, monkeypatch):
    monkeypatch.delenv("BOT4_CANDLES_DIR", raising=False)
    assert "--candles" in run("evaluate").stderr
    monkeypatch.setenv("BOT4_CANDLES_DIR", "nowhere")
    assert "nowhere is no folder" in run("evaluate").stderr


def test_no_models_is_an_empty_list_and_says_what_to_run(run):
    assert json.loads(run("models", "--json").stdout) == {"models": []}
    told = run("models")
    assert told.returncode == 0
    assert "bot4-pipelines run" in told.stderr


def test_an_empty_folder_of_candles_ends_the_run_with_2_and_promotes_nothing(
    run, tmp_path, monkeypatch
):
    folder = tmp_path / "candles"
    folder.mkdir()
    monkeypatch.setenv("BOT4_CANDLES_DIR", str(folder))
    done = run("run", "--json")
    assert done.returncode == 2, done.stderr
    assert "no candle files" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models" / "current.json").exists()


def test_a_taken_port_is_named(run):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("dev", "--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_seeds_need_a_candidate_and_at_least_two(run):
    done = run("seeds", "--seeds", "2")
    assert done.returncode == 2
    assert "materialise the asset 'hmm_candidate'" in done.stderr
    assert "--seeds" in run("seeds", "--seeds", "1").stderr


def test_missing_packages_are_named_with_the_remedy():
    from bot4_pipelines.orchestrate import require_packages
    from bot4_runtime.domain.errors import ConfigError

    require_packages(("json",))
    with pytest.raises(ConfigError, match=r"no_such_package.*pip install 'bot4\[pipelines\]'"):
        require_packages(("json", "no_such_package"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gate_that_refuses_a_model_fails_the_demo_and_promotes_nothing(
    run, tmp_path, monkeypatch
):
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "simulated")
    done = run("demo", "--iterations", "3", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert told["simulated"] is True
    assert told["replay"] is None
    assert "refused: lstm_candidate: " in told["failures"][0]
    assert "needs >= 0.9" in told["failures"][0]
    assert not (tmp_path / "models" / "current.json").exists()
    listed = json.loads(run("models", "--json").stdout)["models"]
    assert {(row["kind"], row["gates_passed"]) for row in listed} == {
        ("hmm", True),
        ("lstm", False),
    }
    assert "REFUSED" in run("models").stdout
    again = run("promote")
    assert again.returncode == 2
    assert "is not promoted" in again.stderr
    assert run("demo", "--iterations", "3").returncode == 1


def test_the_package_runs_as_the_command_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bot4_pipelines", "models", "--json"],
        env=os.environ | {"BOT4_HOME": str(tmp_path), "BOT4_MODELS": str(tmp_path / "models")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"models": []}
