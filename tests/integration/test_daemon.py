"""The real Dagster daemon: what is switched on starts runs, and every tick says why or why not.

Once on SQLite as on one machine, once on PostgreSQL as in the containers. The market is simulated.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.instance import DagsterInstance
from dagster._core.scheduler.instigation import ScheduleInstigatorData, TickStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from bot4_pipelines.records import Folders, Records

ROOT = Path(__file__).parents[2]
SECONDS = 200
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.long),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def home(request, tmp_path, monkeypatch):
    """DAGSTER_HOME below a fresh BOT4_HOME, with the profile of this storage."""
    profile = ROOT / "dagster.yaml"
    if request.param == "postgres":
        request.getfixturevalue("dagster_database")
        profile = ROOT / "deploy" / "dagster.postgres.yaml"
    home = tmp_path / "home" / "dagster"
    home.mkdir(parents=True)
    shutil.copy(profile, home / "dagster.yaml")
    for key, value in {
        "DAGSTER_HOME": str(home),
        "BOT4_HOME": str(tmp_path / "home"),
        "BOT4_MODELS": str(tmp_path / "models"),
        "BOT4_CANDLES_SOURCE": "simulated",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }.items():
        monkeypatch.setenv(key, value)
    return home


@contextmanager
def daemon(home):
    """`dagster-daemon run` beside us, and all it starts; ended at the end."""
    log = (home / "daemon.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster._daemon", "run", "-w", str(ROOT / "workspace.yaml")],
        cwd=home,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def until(home, what, wanted):
    """Return what is wanted, as soon as it is there."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = wanted()
        if found:
            return found
        time.sleep(0.5)
    return pytest.fail(f"no {what} in {SECONDS} s: {(home / 'daemon.log').read_text()[-3000:]}")


def switch_on(instance, repository, *names):
    """Start schedules and sensors as their switches in the UI do.

    A schedule is begun an hour ago, so that the daemon makes up for the tick it missed.
    """
    began = {}
    for name in names:
        if repository.has_schedule(name):
            one = repository.get_schedule(name)
            state = instance.start_schedule(one)
            earlier = ScheduleInstigatorData(
                cron_schedule=state.instigator_data.cron_schedule,
                start_timestamp=time.time() - 3_700,
            )
            instance.update_instigator_state(state.with_data(earlier))
        else:
            one = repository.get_sensor(name)
            state = instance.start_sensor(one)
        began[name] = (one.get_remote_origin_id(), one.selector_id)
    return began


def backfill(instance, workspace, asset, partitions):
    """Ask for partitions of an asset as the UI's dialogue does."""
    instance.add_dynamic_partitions("series", ["BTCUSDT_1h"])
    one = PartitionBackfill.from_asset_partitions(
        backfill_id=uuid.uuid4().hex[:8],
        asset_graph=workspace.create_request_context().asset_graph,
        partition_names=[
            dg.MultiPartitionKey(dict(zip(("series", "year"), name.split("|"), strict=True)))
            for name in partitions
        ],
        asset_selection=[dg.AssetKey(asset)],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(one)
    return one.backfill_id


def test_what_is_switched_on_starts_runs_and_every_tick_says_why(home, tmp_path):
    with (
        DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(
            instance, WorkspaceFileTarget(paths=[str(ROOT / "workspace.yaml")])
        ) as workspace,
    ):
        location = workspace.create_request_context().get_code_location("bot4_pipelines")
        (repository,) = location.get_repositories().values()
        ids = switch_on(
            instance, repository, "candles_hourly", "retrain_on_drift", "alert_on_failure"
        )
        with daemon(home):
            run = until(
                home,
                "run of the schedule",
                lambda: instance.get_runs(
                    dg.RunsFilter(
                        job_name="refresh_candles", statuses=[dg.DagsterRunStatus.SUCCESS]
                    )
                ),
            )[0]
            assert run.tags["dagster/schedule_name"] == "candles_hourly"
            assert run.run_config["ops"]["candles"]["config"] == {"max_age_hours": 0.0}
            folders = Folders(tmp_path / "home", tmp_path / "models")
            assert Records(folders.work).need("candles", "candles").numbers["candles"] > 100_000

            skipped = until(home, "tick of the drift sensor", lambda: instance.get_ticks(
                *ids["retrain_on_drift"], limit=1, statuses=[TickStatus.SKIPPED]
            ))[0]  # fmt: skip
            assert "nothing was promoted yet" in skipped.tick_data.skip_reason

            years = ["BTCUSDT_1h|2022", "BTCUSDT_1h|2023"]
            backfill_id = backfill(instance, workspace, "series_candles", years)
            ids |= switch_on(instance, repository, "retrain_on_new_candles")
            requested = until(home, "tick of the volume sensor", lambda: instance.get_ticks(
                *ids["retrain_on_new_candles"], limit=1, statuses=[TickStatus.SUCCESS]
            ))[0]  # fmt: skip
            (run_id,) = requested.tick_data.run_ids
            training = until(
                home,
                "training that began",
                lambda: (
                    (found := instance.get_run_by_id(run_id))
                    and found.status == dg.DagsterRunStatus.STARTED
                    and found
                ),
            )
            assert training.job_name == "pipeline"
            assert "nothing was trained yet" in training.tags["bot4/why"]
            assert training.tags["bot4/writes"] == "store"
            assert training.tags["dagster/sensor_name"] == "retrain_on_new_candles"
            until(
                home,
                "backfill that is done",
                lambda: (
                    instance.get_backfill(backfill_id).status == BulkActionStatus.COMPLETED_SUCCESS
                ),
            )
            (filled,) = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
            assert filled.status == dg.DagsterRunStatus.SUCCESS  # one run for both years
            made = instance.get_materialized_partitions(dg.AssetKey("series_candles"))
            assert made == set(years)
    if "BOT4_DAGSTER_DB" in os.environ:
        assert not list(home.rglob("*.db"))
