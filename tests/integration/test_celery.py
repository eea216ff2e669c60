"""A fleet: two Celery workers, a real Redis and PostgreSQL, one BOT4_HOME; runs go both ways.

Candles of two symbols at two intervals are ingested by two runs at the same time, then each
interval's HMM and LSTM are made by a run of its own. The market is tiny and the training a few
steps long, so the gates must refuse both models: a fleet promotes no more easily than one machine.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INTERVALS = ("6h", "8h")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
YEARS = (2022, 2024)
LONGEST_S = 240.0
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Farm:
    """What runs: the instance all share, its launcher, and what the workers say."""

    instance: dg.DagsterInstance
    home: Path
    logs: Path

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()


@contextmanager
def program(farm_logs: Path, name: str, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; end it, and what it started, with SIGTERM and then SIGKILL."""
    with (farm_logs / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def wait_for(what: str, done, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def farm(dagster_database, tmp_path, monkeypatch) -> Iterator[Farm]:
    """Redis, two workers and the daemon, by the files in deploy/."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis: redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dagster_home, logs = tmp_path / "dagster", tmp_path / "logs"
    dagster_home.mkdir()
    logs.mkdir()
    shutil.copy(ROOT / "deploy/dagster.celery.yaml", dagster_home / "dagster.yaml")
    for key, value in {
        "BOT4_HOME": str(tmp_path / "home"),
        "BOT4_MODELS": str(tmp_path / "models"),
        "BOT4_CANDLES_SOURCE": "simulated",
        "BOT4_CELERY_BROKER": f"redis://127.0.0.1:{port}/1",
        "BOT4_CELERY_BACKEND": f"redis://127.0.0.1:{port}/2",
        "DAGSTER_HOME": str(dagster_home),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(key, value)
    redis = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    worker = [str(BIN / "dagster-celery"), "worker", "start", "-A", "dagster_celery.app"]
    worker += ["-q", "bot4", "-y", "deploy/celery.worker.yaml", "-l", "INFO"]
    daemon = [str(BIN / "dagster-daemon"), "run", "-w", str(ROOT / "workspace.yaml")]
    with ExitStack() as stack:
        stack.enter_context(program(logs, "redis", [*redis, "--dir", str(tmp_path)]))
        wait_for("redis", lambda: answers(port))
        # the tables are made here, once, before three programs would make them at the same time
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(dagster_home)))
        instance.get_runs()
        for name in ("one", "two"):
            alone = ["-n", f"{name}@%h", "--", "--concurrency=1"]
            stack.enter_context(program(logs, name, [*worker, *alone]))
        stack.enter_context(program(logs, "daemon", daemon))
        made = Farm(instance, tmp_path / "home", logs)
        for name in ("one", "two"):
            wait_for(f"worker {name}", lambda name=name: "ready." in made.log(name))
        yield made


class Launcher:
    """Submits runs of a job's assets to the queue, as the UI does."""

    def __init__(self, instance: dg.DagsterInstance, workspace) -> None:
        self._instance = instance
        self._workspace = workspace
        self._location = workspace.get_code_location("bot4_pipelines")
        self._repository = next(iter(self._location.get_repositories().values()))

    def submit(self, job: str, assets: list[str], tags: dict[str, str], config=None) -> str:
        from dagster._core.definitions.selector import JobSubsetSelector

        keys = frozenset(dg.AssetKey(name) for name in assets)
        selected = self._location.get_job(
            JobSubsetSelector(
                location_name=self._location.name,
                repository_name=self._repository.name,
                job_name=job,
                op_selection=None,
                asset_selection=keys,
            )
        )
        plan = self._location.get_execution_plan(
            selected, config or {}, step_keys_to_execute=None, known_state=None,
            instance=self._instance,
        ).execution_plan_snapshot  # fmt: skip
        run = self._instance.create_run(
            job_name=job,
            run_id=None,
            run_config=config or {},
            status=None,
            tags=tags,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=plan.step_keys_to_execute,
            execution_plan_snapshot=plan,
            job_snapshot=selected.job_snapshot,
            parent_job_snapshot=selected.parent_job_snapshot,
            asset_selection=keys,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=selected.get_remote_origin(),
            job_code_origin=selected.get_python_origin(),
            asset_graph=self._repository.asset_graph,
        )
        self._instance.submit_run(run.run_id, self._workspace)
        return run.run_id


def finished(farm: Farm, runs: list[str]) -> list[dg.DagsterRunStatus]:
    """Wait until runs are over, and return how they ended."""

    def over() -> bool:
        held = [farm.instance.get_run_by_id(run) for run in runs]
        return all(run is not None and run.is_finished for run in held)

    try:
        wait_for("runs", over, LONGEST_S)
    except AssertionError as late:
        raise AssertionError(
            "\n".join(farm.log(one)[-2000:] for one in ("one", "daemon"))
        ) from late
    return [farm.instance.get_run_by_id(run).status for run in runs]


def why(farm: Farm, runs: list[str]) -> str:
    return "\n".join(
        event.dagster_event.step_failure_data.error.to_string()
        for run in runs
        for event in farm.instance.all_logs(run)
        if event.is_dagster_event and event.dagster_event.is_step_failure
    )


def test_two_workers_make_two_series_and_the_models_of_two_intervals(farm):
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    instance = farm.instance
    names = [f"{symbol}_{interval}" for symbol in SYMBOLS for interval in INTERVALS]
    instance.add_dynamic_partitions("series", names)
    instance.add_dynamic_partitions("interval", list(INTERVALS))
    target = WorkspaceFileTarget([str(ROOT / "workspace.yaml")])
    with WorkspaceProcessContext(instance, target) as process:
        launcher = Launcher(instance, process.create_request_context())

        candles = [
            launcher.submit(
                "fleet_candles",
                ["series_candles"],
                {
                    "dagster/asset_partition_range_start": f"{symbol}_{INTERVALS[0]}|{YEARS[0]}",
                    "dagster/asset_partition_range_end": f"{symbol}_{INTERVALS[1]}|{YEARS[1]}",
                },
            )
            for symbol in SYMBOLS
        ]
        ended = finished(farm, candles)
        assert ended == [dg.DagsterRunStatus.SUCCESS] * 2, why(farm, candles)
        made = instance.get_materialized_partitions(dg.AssetKey("series_candles"))
        years = range(YEARS[0], YEARS[1] + 1)
        assert made == {f"{name}|{year}" for name in names for year in years}

        # a gate that refuses the HMM ends its run, so labels and LSTM are runs of their own
        for assets in (["interval_hmm"], ["interval_labels", "interval_lstm"]):
            ops = {"interval_lstm": {"config": {"iterations": 2}}}
            runs = [
                launcher.submit(
                    "fleet_models",
                    assets,
                    {"dagster/partition": interval},
                    {"ops": ops} if "interval_lstm" in assets else None,
                )
                for interval in INTERVALS
            ]
            finished(farm, runs)
            for name in assets:
                done = instance.get_materialized_partitions(dg.AssetKey(name))
                assert done == set(INTERVALS), why(farm, runs)
            refused = why(farm, runs)
            assert refused.count("blocking asset check failed") == 2, refused
            assert refused.count("gates_passed") == 2

    for name in ("one", "two"):
        assert "succeeded in" in farm.log(name), f"worker {name} took no work"
    scopes = farm.home / "pipelines" / "fleet"
    assert sorted(path.name for path in scopes.iterdir()) == list(INTERVALS)
    for interval in INTERVALS:
        for step in ("hmm_candidate", "hindsight_labels", "lstm_candidate"):
            assert (scopes / interval / f"{step}.json").is_file()
        assert not (scopes / interval / "promoted_models.json").exists()
