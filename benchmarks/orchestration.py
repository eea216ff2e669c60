"""What stands around a step of the pipeline: the code location's import, pictures, a Dagster run.

The run is of one partition, a stored year of a series that is asked for again, as the hourly
schedule does; the plain function beside it is `Fleet.candles`. Runs are made in this process and
kept in a Dagster storage on disk, SQLite's or PostgreSQL's, as a Celery worker makes them. A run
launched without Celery is a process of its own, which pays the import as well.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

HEAVY = ("torch", "hmmlearn", "pandas", "matplotlib", "sklearn", "onnx", "optuna")
YEAR = 2024
YEAR_MS = (1_704_067_200_000, 1_735_689_600_000)
SYMBOL, INTERVAL = "BTCUSDT", "1h"
_IMPORT = """
import json, sys, time
began, busy = time.perf_counter(), time.process_time()
import {module}
took = time.perf_counter() - began, time.process_time() - busy
print(json.dumps({{"wall_s": took[0], "cpu_s": took[1], "modules": sorted(sys.modules)}}))
"""


@dataclass(frozen=True)
class Imported:
    """What importing a module took, in a process of its own; seconds."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    heavy: tuple[str, ...]


def imported(module: str, rounds: int) -> Imported:
    """Import a module in fresh interpreters; the first, with a cold disk perhaps, is not told."""
    told = []
    for _ in range(rounds + 1):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT.format(module=module)],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        told.append(json.loads(done.stdout))
    return Imported(
        tuple(one["wall_s"] for one in told[1:]),
        tuple(one["cpu_s"] for one in told[1:]),
        tuple(name for name in HEAVY if name in told[0]["modules"]),
    )


def picture_cpu_ms(rounds: int) -> float:
    """Return what a picture of a finding takes, CPU milliseconds, the median of so many."""
    from bot4_pipelines.finding_plot import finding_plot
    from bot4_pipelines.ingest.quality.finding import SHOWN

    rows = range(2 * SHOWN + 1)
    excerpt = {
        "code": "GAP", "symbol": SYMBOL, "marked": SHOWN,
        "open_time_ms": [YEAR_MS[0] + 3_600_000 * row for row in rows],
        "open": [100.0 + row % 7 for row in rows], "close": [101.0 + row % 5 for row in rows],
        "high": [109.0] * len(rows), "low": [99.0] * len(rows), "volume": [5.0] * len(rows),
    }  # fmt: skip
    finding_plot(excerpt)  # matplotlib is imported
    took = []
    for _ in range(rounds):
        busy = time.process_time()
        finding_plot(excerpt)
        took.append(1_000 * (time.process_time() - busy))
    return statistics.median(took)


@dataclass(frozen=True)
class PartitionRuns:
    """One partition, ingested again and again; CPU milliseconds of each time.

    Attributes:
        function_ms: by the plain function.
        run_ms: by a Dagster run around it, storage included.
        storage_bytes: by which a run lets Dagster's storage grow, on average.
    """

    function_ms: tuple[float, ...]
    run_ms: tuple[float, ...]
    storage_bytes: float


def partition_runs(folder: Path, rounds: int, *, server: str = "") -> PartitionRuns:
    """Time a partition with and without Dagster.

    Args:
        folder: an empty one, for all that is written.
        rounds: of each.
        server: ``user@host:port/database`` of a PostgreSQL server, where a database is made for
            the time being; SQLite in the folder when empty.

    Raises:
        RuntimeError: a run failed.
    """
    environment = {
        "BOT4_HOME": str(folder),
        "BOT4_MODELS": str(folder / "models"),
        "BOT4_CANDLES_SOURCE": "simulated",
        "BOT4_YEARS": "1",
        "DAGSTER_HOME": str(folder / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    with _environment(environment), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _partition_runs(folder, rounds, server)


def _partition_runs(folder: Path, rounds: int, server: str) -> PartitionRuns:
    from bot4_pipelines.definitions import defs
    from bot4_pipelines.fleet import Fleet, SeriesPart
    from bot4_pipelines.records import Folders

    part, key = SeriesPart(SYMBOL, INTERVAL), f"{SYMBOL}_{INTERVAL}|{YEAR}"
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job = defs.resolve_job_def("fleet_candles")
    function_ms, run_ms = [], []
    with _storage(folder / "dagster", server) as (instance, size):
        instance.add_dynamic_partitions("series", [part.key])

        def run() -> None:
            done = job.execute_in_process(
                instance=instance, partition_key=key, run_config=quiet, raise_on_error=False
            )
            if not done.success:
                raise RuntimeError(f"the run of {key} failed: {done.all_events[-1].message}")

        def function() -> None:
            Fleet(Folders.from_environment(), lambda *_: None).candles(part, YEAR)

        function()
        run()
        before = size()
        for _ in range(rounds):
            for call, times in ((function, function_ms), (run, run_ms)):
                busy = time.process_time()
                call()
                times.append(1_000 * (time.process_time() - busy))
        grown = (size() - before) / rounds
    return PartitionRuns(tuple(function_ms), tuple(run_ms), grown)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _storage(home: Path, server: str) -> Iterator[tuple[Any, Any]]:
    """Yield a Dagster instance and what tells its storage's size in bytes."""
    import dagster as dg

    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").touch()  # without one Dagster says so
    silent: dict[str, Any] = {"telemetry": {"enabled": False}}
    if not server:
        with dg.DagsterInstance.local_temp(str(home), overrides=silent) as instance:
            yield instance, lambda: sum(one.stat().st_size for one in home.rglob("*.db*"))
        return
    import psycopg

    user, _, place = server.partition("@")
    host, _, port = place.partition("/")[0].partition(":")
    name = f"bot4_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"postgresql://{server}", autocommit=True, connect_timeout=2) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            config = {
                "storage": {
                    "postgres": {
                        "postgres_db": {
                            "scheme": "postgresql+psycopg2", "username": user,
                            "password": os.environ.get("PGPASSWORD", "not asked for"),
                            "hostname": host, "port": int(port), "db_name": name,
                        }
                    }
                }
            }  # fmt: skip

            def size() -> int:
                found = admin.execute("SELECT pg_database_size(%s)", [name]).fetchone()
                return 0 if found is None else int(found[0])

            with dg.DagsterInstance.local_temp(str(home), overrides=silent | config) as instance:
                yield instance, size
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
