"""`.ci/peers`: what could not be installed is tried again, what was is not."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "peers"
if not SCRIPT.exists():  # mutation testing copies the tests alone
    pytest.skip(".ci/peers is not here", allow_module_level=True)
PYTHON = """#!/usr/bin/env bash
pin="${!#}"
echo "$pin" >>asked
[ "$pin" != bad==2 ] || [ -e reachable ]
"""


def asked(folder):
    """Run the script; return the pins that pip was asked for, and its words."""
    (folder / "asked").write_text("")
    done = subprocess.run(
        ["bash", folder / ".ci" / "peers", "python3"], check=True, capture_output=True, text=True
    )
    return (folder / "asked").read_text().split(), done.stdout


def test_a_failed_install_is_tried_again_and_a_done_one_is_not(tmp_path):
    for name in (".ci", "benchmarks/peers", ".venv-peers/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / ".ci" / "peers")
    requirements = tmp_path / "benchmarks" / "peers" / "requirements.txt"
    requirements.write_text("# peers\ngood==1\nbad==2\n")
    python = tmp_path / ".venv-peers" / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    pins, words = asked(tmp_path)
    assert pins == ["good==1", "bad==2"]
    assert "no peer bad==2" in words
    assert "good" not in words
    assert asked(tmp_path)[0] == ["bad==2"]
    (tmp_path / "reachable").touch()
    assert asked(tmp_path) == (["bad==2"], "")
    assert asked(tmp_path) == ([], "")
    requirements.write_text("good==3\nbad==2\n")
    assert asked(tmp_path)[0] == ["good==3"]
