"""The demo, run once for all tests that look at what it leaves behind; Dagster's database."""

import gc
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Demo:
    """A finished demo: its folders, the environment it ran in, and what it said."""

    home: Path
    models: Path
    candles: Path | None
    document: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home.parent, self.candles)

    def runtime(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run([str(BIN / "bot4-runtime"), *words], self.environment | variables)

    def pipelines(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run([str(BIN / "bot4-pipelines"), *words], self.environment | variables)


def environment(home: Path, candles: Path | None) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("BOT4_CANDLES")
    }
    return kept | {
        "BOT4_HOME": str(home / "home"),
        "BOT4_MODELS": str(home / "models"),
        "OMP_NUM_THREADS": "1",
        **(
            {"BOT4_CANDLES_DIR": str(candles)} if candles else {"BOT4_CANDLES_SOURCE": "simulated"}
        ),
    }


def run(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=900
    )


def run_demo(home: Path, candles: Path | None, *words: str) -> Demo:
    done = run([str(BIN / "bot4-pipelines"), "demo", "--json", *words], environment(home, candles))
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return Demo(home / "home", home / "models", candles, json.loads(done.stdout))


@pytest.fixture(scope="session")
def real_demo(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo on real 1h candles."""
    return run_demo(tmp_path_factory.mktemp("real"), test_data / "spot" / "1h")


@pytest.fixture(scope="session")
def simulated_demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo on the simulated market, with a shorter training."""
    return run_demo(tmp_path_factory.mktemp("simulated"), None, "--iterations", "600")


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest) -> Demo:
    """The demo on real candles where there are any, else the simulated one."""
    named = os.environ.get("BOT4_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return request.getfixturevalue("real_demo" if folder.is_dir() else "simulated_demo")


@pytest.fixture
def collected() -> Iterator[None]:
    """Let go of code servers' process objects, which Dagster leaves to the collector, at the end.

    Else their warnings come in a test that ignores none.
    """
    yield
    gc.collect()


@pytest.fixture
def dagster_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of its own on the local server, where the PostgreSQL profile looks for it."""
    psycopg2 = pytest.importorskip("psycopg2")
    user = os.environ.get("PGUSER", "root")
    name = f"bot4_dagster_{uuid.uuid4().hex[:12]}"
    admin = psycopg2.connect(host="127.0.0.1", port=5432, user=user, dbname="test")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    for key, value in {
        "BOT4_POSTGRES_USER": user,
        "BOT4_POSTGRES_PASSWORD": "not asked for",
        "BOT4_POSTGRES_HOST": "127.0.0.1",
        "BOT4_POSTGRES_PORT": "5432",
        "BOT4_DAGSTER_DB": name,
    }.items():
        monkeypatch.setenv(key, value)
    yield name
    with admin.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    admin.close()
