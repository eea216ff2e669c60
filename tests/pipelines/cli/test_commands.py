"""What the command line says and how it ends."""

import json
import subprocess
import sys

import pytest

MAIN = "from bot4_pipelines.cli import main; main()"


def run(tmp_path, *arguments, **environment):
    import os

    env = {
        **os.environ,
        "BOT4_HOME": str(tmp_path / "home"),
        "BOT4_MODELS": str(tmp_path / "models"),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )


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
        (["dance"], "No such command"),
        (["dev", "--port", "99999999"], "65535"),
    ],
)
def test_wrong_input_ends_with_2_and_says_what_is_wrong(tmp_path, arguments, words):
    done = run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_no_models_is_an_empty_list_and_says_what_to_run(tmp_path):
    assert json.loads(run(tmp_path, "models", "--json").stdout) == {"models": []}
    told = run(tmp_path, "models")
    assert told.returncode == 0
    assert "bot4-pipelines run" in told.stderr


def test_an_empty_folder_of_candles_ends_the_run_with_2_and_promotes_nothing(tmp_path):
    folder = tmp_path / "candles"
    folder.mkdir()
    done = run(tmp_path, "run", "--json", BOT4_CANDLES_DIR=str(folder))
    assert done.returncode == 2, done.stderr
    assert "no candle files" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models" / "current.json").exists()


def test_a_taken_port_is_named(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(tmp_path, "dev", "--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_missing_packages_are_named_with_the_remedy():
    from bot4_pipelines.orchestrate import require_packages
    from bot4_runtime.domain.errors import ConfigError

    require_packages(("json",))
    with pytest.raises(ConfigError, match=r"no_such_package.*pip install 'bot4\[pipelines\]'"):
        require_packages(("json", "no_such_package"))
