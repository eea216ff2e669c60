"""Runs the asset graph through Dagster from the command line, and serves its UI.

The instance is DAGSTER_HOME = ``$BOT4_HOME/dagster`` with the project's dagster.yaml linked
into it, so the UI shows what a command materialised. Dagster is imported inside functions: a
machine with the runtime alone gets a clear message.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot4_pipelines.progress import Listener, listening
from bot4_pipelines.records import Folders
from bot4_pipelines.training.schedule import Schedule
from bot4_runtime.domain.errors import Bot4Error, ConfigError

if TYPE_CHECKING:
    import dagster as dg

NEEDED = ("dagster", "hmmlearn", "onnx", "scipy", "torch")
"""Packages of the extra ``pipelines`` without which nothing can be trained."""


class PipelineFailed(Bot4Error):
    """An asset or a blocking check failed; the message says which and why."""


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """A finished run of the asset graph."""

    run_id: str
    assets: tuple[str, ...]


def require_packages(names: Sequence[str] = NEEDED) -> None:
    """Refuse to start without the pipeline's packages.

    Raises:
        ConfigError: names the missing ones and how to install them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"not installed: {', '.join(missing)}; bot4-pipelines learns models and needs the "
            "extra 'pipelines': run `make setup`, or pip install 'bot4[pipelines]'. "
            "bot4-runtime alone trades without them"
        )


def project_root() -> Path | None:
    """Return the folder with dagster.yaml and workspace.yaml: this checkout, or here; or None."""
    for folder in (Path(__file__).resolve().parents[1], Path.cwd()):
        if (folder / "dagster.yaml").is_file() and (folder / "workspace.yaml").is_file():
            return folder
    return None


def prepare_dagster_home(folders: Folders) -> Path:
    """Make DAGSTER_HOME, link the project's dagster.yaml into it, and set the environment.

    A dagster.yaml that is a file of the operator's own (a PostgreSQL one, say) is left alone.
    """
    home = folders.dagster
    home.mkdir(parents=True, exist_ok=True)
    root, link = project_root(), home / "dagster.yaml"
    if root is not None and (link.is_symlink() or not link.exists()):
        source = root / "dagster.yaml"
        if not link.is_symlink() or link.resolve() != source:
            draft = home / f"dagster.yaml.{os.getpid()}.tmp"
            draft.symlink_to(source)
            draft.replace(link)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["BOT4_HOME"] = str(folders.home)
    os.environ["BOT4_MODELS"] = str(folders.models)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    return home


def run_pipeline(
    folders: Folders,
    listener: Listener,
    *,
    schedule: Schedule = Schedule.FULL,
    iterations: int = 0,
    from_model: str = "",
    max_age_hours: float | None = None,
) -> PipelineRun:
    """Materialise every asset in this process, recorded in the instance the UI shows.

    Args:
        folders: where to work.
        listener: told of each step's progress.
        schedule: of the LSTM's training.
        iterations: other than the schedule's own; 0 keeps them.
        from_model: sha256, or its start, of an LSTM to go on from.
        max_age_hours: of downloaded candles; None is the default.

    Raises:
        PipelineFailed: an asset failed, or a gate refused a model.
        Bot4Error: the reason, when it is one of ours.
    """
    prepare_dagster_home(folders)
    import dagster as dg

    from bot4_pipelines.definitions import defs

    learning = {
        "schedule": schedule.name,
        "iterations": iterations,
        "from_model": from_model,
    }
    ops: dict[str, Any] = {"lstm_candidate": {"config": learning}}
    if max_age_hours is not None:
        ops["candles"] = {"config": {"max_age_hours": max_age_hours}}
    config = {"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance, listening(listener):
        result = defs.resolve_job_def("pipeline").execute_in_process(
            instance=instance,
            run_config=config,
            raise_on_error=False,
            tags={"bot4/started_by": "command line"},
        )
    if not result.success:
        raise _reason(result)
    done = [event.step_key for event in result.get_step_success_events()]
    return PipelineRun(result.run_id, tuple(str(step) for step in done))


def _reason(result: "dg.ExecuteInProcessResult") -> Bot4Error:
    """Turn a failed run into the error that says why, without Dagster's frames."""
    refused = [
        f"{check.asset_key.to_user_string()}: {check.description or check.check_name + ' failed'}"
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
        and not (check := event.asset_check_evaluation_data).passed
        and check.blocking
    ]
    if refused:
        return PipelineFailed("refused: " + "; ".join(refused))
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            said = "unknown" if error is None else error.message.strip()
            kind, _, words = said.partition(": ")
            return _ours(kind, f"{event.step_key}: {words or said}")
    return PipelineFailed(f"run {result.run_id} failed before any asset started")


def _ours(kind: str, words: str) -> Bot4Error:
    """Give a failure the exit code of our own error's class; any other is a plain failure."""
    import bot4_runtime.domain.errors as tree

    known = getattr(tree, kind.rpartition(".")[2], None)
    if isinstance(known, type) and issubclass(known, Bot4Error):
        return known(words)
    return PipelineFailed(f"{words} ({kind})")


def serve_ui(folders: Folders, *, host: str = "127.0.0.1", port: int = 3000) -> int:
    """Run Dagster's webserver and daemon until they stop; Ctrl-C and SIGTERM stop both.

    Raises:
        ConfigError: the port is taken, or there is no workspace.yaml.
    """
    root = project_root()
    if root is None:
        raise ConfigError(
            "no workspace.yaml and dagster.yaml here; run this in a checkout of Bot4"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it or "
                "choose another: bot4-pipelines dev --port 3001"
            ) from None
    prepare_dagster_home(folders)
    command = [sys.executable, "-m", "dagster", "dev", "-h", host, "-p", str(port)]
    command += ["-w", str(root / "workspace.yaml"), "--log-level", "warning"]
    # `dagster dev` takes a workspace file, which `dg dev` does not; it says it is superseded.
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with subprocess.Popen(command, cwd=folders.home, env=environment) as process:  # noqa: S603
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            return 0
