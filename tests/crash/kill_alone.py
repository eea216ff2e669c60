"""Runs a campaign that forks in a process of its own, since whoever shows progress has threads."""

import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

Progress = Callable[[float, str], None]
Work = Callable[[bool, int, Progress], dict[str, object]]


def run_alone(script: Path, full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Run a script that ends with `speak`; AssertionError with its words when it fails."""
    command = [sys.executable, str(script), str(int(full)), str(jobs)]
    result: dict[str, object] | None = None
    failure = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for row in process.stdout:
            told = json.loads(row)
            result = told.get("result", result)
            failure = told.get("failed", failure)
            if "done" in told:
                progress(told["done"], told["text"])
    assert result is not None, failure or f"{script.name} ended with {process.returncode}"
    return result


def speak(work: Work) -> None:
    """Do the work and say how it goes, one JSON document a line."""

    def say(**told: object) -> None:
        print(json.dumps(told), flush=True)

    full, jobs = sys.argv[1:]
    try:
        say(result=work(full == "1", int(jobs), lambda done, text: say(done=done, text=text)))
    except BaseException:  # told to whoever asked, and seen by the exit code
        say(failed=traceback.format_exc())
        raise
