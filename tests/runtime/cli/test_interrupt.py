"""Ctrl-C while the program is still loading: one line, exit code 130, never a traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bot4_runtime.interrupt import Loading

WORDS = ("start", "--strategy", "drill", "--source", "simulated:5", "--speed", "3600")
BEGUN = "bot4_runtime.interrupt"
"""The first module of the command line: from its import on Ctrl-C is ours."""


def interrupted(folder: Path, moment: str, wait_s: float = 0.0) -> tuple[int, str]:
    """Return exit code and stderr of a start that gets Ctrl-C once a module is imported."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "bot4_runtime", *WORDS],
        env=os.environ | {"BOT4_HOME": str(folder / "home"), "BOT4_MODELS": str(folder)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.rpartition("|")[2].strip() == moment:
            break
    time.sleep(wait_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    return process.returncode, "\n".join(
        line for line in err.splitlines() if not line.startswith("import time:")
    )


@pytest.mark.parametrize(
    "moment",
    ["click", "typer", "rich.console", "msgspec", "pydantic", "structlog", "polars"],
)
def test_ctrl_c_during_an_import_is_one_line(tmp_path: Path, moment: str) -> None:
    code, err = interrupted(tmp_path, moment)
    assert code == 130
    assert err.strip() in {
        "bot4-runtime: interrupted before it began",
        "bot4-runtime: interrupted",  # the signal came when all was imported
    }


@pytest.mark.parametrize("wait_s", [0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_ctrl_c_at_any_moment_of_the_first_second_is_no_traceback(
    tmp_path: Path, wait_s: float
) -> None:
    code, err = interrupted(tmp_path, BEGUN, wait_s)
    assert "Traceback" not in err
    assert code in {0, 130}, err
    assert code == 0 or "bot4-runtime: interrupted" in err


def test_a_handler_of_others_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, lambda *_: None):
            signal.signal(signal.SIGINT, handler)
            with Loading():
                assert signal.getsignal(signal.SIGINT) is handler
            assert signal.getsignal(signal.SIGINT) is handler
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with Loading():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
