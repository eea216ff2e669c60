"""Dagster on PostgreSQL, by the profile that the containers use, on a real server."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dg.asset(check_specs=[dg.AssetCheckSpec("whole", asset="counted")])
def counted():
    return dg.MaterializeResult(
        metadata={"rows": 3},
        check_results=[dg.AssetCheckResult(check_name="whole", passed=True)],
    )


def open_instance(home: Path) -> dg.DagsterInstance:
    home.mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "dagster.postgres.yaml", home / "dagster.yaml")
    return dg.DagsterInstance.from_config(str(home))


def test_a_materialisation_survives_in_postgresql_for_another_process(dagster_database, tmp_path):
    import psycopg2

    with open_instance(tmp_path / "one") as instance:
        result = dg.materialize([counted], instance=instance)
        assert result.success
    with open_instance(tmp_path / "another") as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("counted"))
        assert event is not None
        assert event.asset_materialization.metadata["rows"].value == 3
        assert [run.run_id for run in instance.get_runs()] == [result.run_id]
    assert not list(tmp_path.rglob("*.db"))
    user = os.environ["BOT4_POSTGRES_USER"]
    with (
        closing(
            psycopg2.connect(host="127.0.0.1", user=user, dbname=dagster_database)
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*) FROM asset_check_executions")
        assert cursor.fetchone()[0] == 1


def test_an_unset_password_is_an_error_that_names_it(dagster_database, tmp_path, monkeypatch):
    monkeypatch.delenv("BOT4_POSTGRES_PASSWORD")
    with pytest.raises(Exception, match="BOT4_POSTGRES_PASSWORD"):
        open_instance(tmp_path / "one").run_storage.get_runs()


def test_the_init_sql_makes_both_databases_and_can_run_twice(dagster_database):
    import subprocess

    import psycopg2

    name = f"{dagster_database}_two"
    user = os.environ["BOT4_POSTGRES_USER"]
    command = ["psql", "-h", "127.0.0.1", "-U", user, "-d", dagster_database]
    command += ["-v", "ON_ERROR_STOP=1", "-v", f"dagster_db={name}"]
    command += ["-f", str(ROOT / "deploy/postgres/databases.sql")]
    if shutil.which("psql") is None:
        pytest.skip("postgres: psql is not installed")
    try:
        for _ in range(2):
            subprocess.run(command, check=True, capture_output=True)
        with (
            closing(psycopg2.connect(host="127.0.0.1", user=user, dbname=name)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
    finally:
        drop = ["psql", "-h", "127.0.0.1", "-U", user, "-d", dagster_database]
        subprocess.run([*drop, "-c", f'DROP DATABASE IF EXISTS "{name}"'], check=True)
