"""What runs beside a session begins before it and ends after it, whatever else fails."""

import dataclasses
import threading
from pathlib import Path
from typing import Self

import pytest

from bot4_runtime import app
from bot4_runtime.domain.errors import JournalWriteFailed
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.store import StateStore

HOUR = 3_600_000


class Beside:
    """A service that writes down what is asked of it, and fails where it is told to."""

    def __init__(self, name: str, told: list[str], fails: str = "") -> None:
        self._name, self._told, self._fails = name, told, fails

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def _do(self, what: str) -> None:
        self._told.append(f"{what} {self._name}")
        if what == self._fails:
            raise RuntimeError(f"{what} of {self._name} failed")


class FullDisk:
    """A store that is closed and says that not everything became durable."""

    def __init__(self, store: StateStore, told: list[str]) -> None:
        self._store, self._told = store, told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()
        self._told.append("close")
        raise JournalWriteFailed("the disk is full")


@pytest.fixture
def run(make_settings, tmp_path: Path) -> app.Run:
    options = app.RunOptions(source="simulated:5", to_ms=SIMULATED_START_MS + 3 * HOUR)
    settings = make_settings(BOT4_RUNTIME__STRATEGY="drill")
    return app.build(settings, options, mode="paper", folder=tmp_path / "run")


def test_a_journal_that_fails_as_it_closes_leaves_no_service_running(run: app.Run) -> None:
    told: list[str] = []
    store = FullDisk(run.store, told)
    failing = dataclasses.replace(
        run, store=store, series=Beside("series", told), notice=Beside("notice", told)
    )
    with pytest.raises(JournalWriteFailed, match="the disk is full"):
        failing.execute(threading.Event())
    assert told == ["start series", "start notice", "close", "stop notice", "stop series"]


def test_a_service_that_cannot_stop_does_not_keep_the_others(run: app.Run) -> None:
    told: list[str] = []
    both = dataclasses.replace(
        run, series=Beside("series", told), notice=Beside("notice", told, fails="stop")
    )
    with pytest.raises(RuntimeError, match="stop of notice"):
        both.execute(threading.Event())
    assert told[2:] == ["stop notice", "stop series"]


def test_a_service_that_cannot_begin_ends_the_run_and_what_began(run: app.Run) -> None:
    told: list[str] = []
    both = dataclasses.replace(
        run, series=Beside("series", told), notice=Beside("notice", told, fails="start")
    )
    with pytest.raises(RuntimeError, match="start of notice"):
        both.execute(threading.Event())
    assert told == ["start series", "start notice", "stop series"]
    assert run.store.state.inputs == 0
