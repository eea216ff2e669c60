"""Makes `state_scenario` importable for the tests of this folder, and gives them disks."""

import itertools
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from state_postgres import postgres_url

from bot4_runtime.state.disk import Disk, MemoryDisk
from bot4_runtime.state.sqlite import SqliteDisk


@pytest.fixture
def pg_account() -> Iterator[str]:
    """An account, and so a schema, of its own on the real server."""
    psycopg = pytest.importorskip("psycopg")
    account = f"test-{uuid.uuid4().hex[:12]}"
    yield account
    with closing(psycopg.connect(postgres_url(), autocommit=True)) as admin:
        admin.execute(f'DROP SCHEMA IF EXISTS "bot4_{account}" CASCADE')


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)],
)
def open_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Disk]]:
    """Open the account's disk again and again, each time as a runtime of another host would."""
    opened: list[Any] = []
    hosts = itertools.count()
    if request.param == "postgres":
        from bot4_runtime.state.postgres import PostgresDisk

        account = request.getfixturevalue("pg_account")

    def open_again() -> Disk:
        lock_dir = tmp_path / f"host{next(hosts)}"
        if request.param == "memory":
            disk: Disk = opened[-1].reopen() if opened else MemoryDisk()
        elif request.param == "sqlite":
            disk = SqliteDisk.open(tmp_path / "journal.db", "paper", lock_dir)
        else:
            if opened and not opened[-1]._connection.closed:  # as its host's end would
                opened[-1]._connection.execute("SELECT pg_advisory_unlock_all()")
            disk = PostgresDisk.open(postgres_url(), account, lock_dir)
        opened.append(disk)
        return disk

    yield open_again
    for disk in opened:
        disk.close()
