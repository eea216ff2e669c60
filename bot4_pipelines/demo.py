"""The demo: the main job on real candles where there are any, end to end, with its numbers.

Candles → models through Dagster, then the trading process over the test period, which no model
has seen, at full speed, as a process of its own. Everything it says is read from what those two
wrote.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bot4_pipelines.orchestrate import PipelineFailed, run_pipeline
from bot4_pipelines.records import Folders
from bot4_pipelines.summary import summary
from bot4_pipelines.terminal import StepBars
from bot4_pipelines.training.schedule import Schedule

REPLAY = "Paper trading"


def run_demo(
    folders: Folders,
    console: Console,
    *,
    schedule: Schedule = Schedule.QUICK,
    iterations: int = 0,
) -> dict[str, Any]:
    """Run pipeline and replay; return one document that says how it went.

    ``ok`` is False, and ``failures`` says why, when a gate refused a model, when nothing was
    traded in the shadow book, or when recovery led to another state.

    Raises:
        Bot4Error: the input is wrong or a step failed.
    """
    began = time.monotonic()
    document: dict[str, Any] = {"ok": False, "failures": [], "models": None, "replay": None}
    with StepBars(console) as bars:
        try:
            done = run_pipeline(folders, bars.update, schedule=schedule, iterations=iterations)
            document["run_id"] = done.run_id
        except PipelineFailed as refused:
            document["failures"] = [str(refused)]
            return document | summary(folders) | {"seconds": time.monotonic() - began}
        document |= summary(folders)
        bars.update(REPLAY, "the test period, candle by candle", 0.0)
        document["replay"] = replay(folders, document)
        bars.update(REPLAY, "done", 1.0)
    document["failures"] = failures(document["replay"])
    document["ok"] = not document["failures"]
    document["next"] = next_commands(folders)
    document["seconds"] = time.monotonic() - began
    return document


def replay(folders: Folders, document: dict[str, Any]) -> dict[str, Any]:
    """Trade the test period on paper in a process of its own and return what it reports.

    Raises:
        PipelineFailed: it ended badly; its last words are in the message.
    """
    candles = document["candles"]
    first = datetime.fromtimestamp(document["cuts"]["test_start_ms"] / 1000, UTC)
    command = [sys.executable, "-c", "from bot4_runtime.cli import main; main()", "replay"]
    command += ["--from", first.isoformat(), "--interval", candles["interval"]]
    command += ["--symbols", ",".join(candles["symbols"]), "--json"]
    environment = os.environ | {
        "BOT4_HOME": str(folders.home),
        "BOT4_MODELS": str(folders.models),
        "BOT4_RUNTIME__MARKET": candles["market"],
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(  # noqa: S603 - our own program and arguments
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said, complained = process.communicate()
        except KeyboardInterrupt:
            process.terminate()
            process.wait(timeout=30)
            raise
    if process.returncode != 0:
        words = complained.strip().splitlines()[-5:]
        raise PipelineFailed(
            f"the replay ended with exit code {process.returncode}: " + " / ".join(words)
        )
    result: dict[str, Any] = json.loads(said)
    return result


def failures(replayed: dict[str, Any]) -> list[str]:
    """Say what makes a finished replay a failed demo."""
    found = []
    shadow = replayed["books"].get("shadow", {"orders_filled": 0})
    if not shadow["orders_filled"]:
        found.append(
            "the shadow book is empty: not one order of the refused signals was filled over "
            f"{replayed['candles']} candles; see the report {replayed['report_html']}"
        )
    if replayed["recovered_state_hash"] != replayed["state_hash"]:
        found.append(
            f"recovery led to state {replayed['recovered_state_hash'][:16]}, the run to "
            f"{replayed['state_hash'][:16]}"
        )
    return found


def next_commands(folders: Folders) -> dict[str, str]:
    """Return what to run next, by what it shows."""
    prefix = ""
    if folders.home != Path(".bot4").absolute():
        prefix += f"BOT4_HOME={folders.home} "
    if folders.models != Path("models").absolute():
        prefix += f"BOT4_MODELS={folders.models} "
    return {
        "the asset graph and its plots, in a browser": f"{prefix}make dev",
        "trade on paper until you stop it": f"{prefix}.venv/bin/bot4-runtime start",
        "what the models are and how they did": f"{prefix}.venv/bin/bot4-pipelines models",
    }
