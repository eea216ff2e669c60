"""What a step of the pipeline did, remembered in one small JSON file a step.

A record's stamp hashes everything its step read: the content of the steps before it, the
source of the code that ran, its parameters. Equal stamp, outputs still there: the step has
nothing to do. Records hold numbers and names; candles, tables and models lie in their stores.
Not here: the steps themselves (`bot4_pipelines.workflow`).
"""

import fcntl
import hashlib
import importlib.util
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from bot4_pipelines.ingest.wanted import DEFAULT_INTERVAL, interval_name
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.unreadable import UNREADABLE


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the pipeline reads and writes: ``BOT4_HOME`` and ``BOT4_MODELS``.

    Attributes:
        scope: whose records and tables these are: those of different scopes lie side by side and
            have a writer each. Empty for the pipeline of 1h, or of a folder's own interval.
    """

    home: Path
    models: Path
    scope: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Folders":
        """Read them from the environment; ``.bot4`` and ``models`` of the working folder else.

        Raises:
            ConfigError: ``BOT4_INTERVAL`` is no interval.
        """
        env = os.environ if environment is None else environment
        folders = cls(
            home=Path(env.get("BOT4_HOME") or ".bot4").absolute(),
            models=Path(env.get("BOT4_MODELS") or "models").absolute(),
        )
        said = env.get("BOT4_INTERVAL", "").strip() or DEFAULT_INTERVAL
        interval = interval_name(said, "BOT4_INTERVAL")
        return folders if interval == DEFAULT_INTERVAL else folders.scoped(interval)

    def scoped(self, scope: str) -> "Folders":
        """Return the folders of a scope: an interval, or ``fleet/`` and an interval."""
        return replace(self, scope=scope)

    def of_interval(self, interval: str) -> "Folders":
        """Return the folders of an interval's own scope; without work there, those of no scope.

        Those are of 1h, or of a folder's own interval.
        """
        own = self.scoped(interval)
        return own if interval != DEFAULT_INTERVAL and own.work.is_dir() else self.scoped("")

    @property
    def candles(self) -> Path:
        """Root of the candle store."""
        return self.home / "candles"

    @property
    def mark(self) -> Path:
        """Root of the store of mark prices."""
        return self.home / "mark"

    @property
    def funding(self) -> Path:
        """Root of the store of funding rates."""
        return self.home / "funding"

    @property
    def work(self) -> Path:
        """Records, feature and label tables of the pipeline."""
        return self.home / "pipelines" / self.scope

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME."""
        return self.home / "dagster"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One step's last success.

    Attributes:
        stamp: sha256 of all the step read.
        content: sha256 that stands for all the step wrote.
        numbers: what there is to say of it, JSON values only.
    """

    step: str
    stamp: str
    content: str
    finished_ms: int
    seconds: float
    numbers: dict[str, Any]


class Records:
    """The records below a folder; one writer at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, step: str) -> Record | None:
        """Return a step's record; None when there is none that can be read."""
        try:
            return msgspec.json.decode(self._path(step).read_bytes(), type=Record)
        except (FileNotFoundError, *UNREADABLE):
            return None

    def need(self, step: str, asset: str) -> Record:
        """Return the record of a step that must have run.

        Raises:
            DataError: it did not; names the asset to materialise.
        """
        record = self.find(step)
        if record is None:
            raise DataError(
                f"nothing is known of step {step!r} below {self.root}; materialise the asset "
                f"{asset!r} first (or all of them: bot4-pipelines run)"
            )
        return record

    def write(self, record: Record) -> Record:
        """Replace a step's record in one rename."""
        write_atomically(self._path(record.step), msgspec.json.encode(record))
        return record

    @contextmanager
    def one_writer(self) -> Iterator[None]:
        """Hold the pipeline's lock; a second process waits until the first is done."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _path(self, step: str) -> Path:
        return self.root / f"{step}.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with draft.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)


def digest(*parts: object) -> str:
    """Return the sha256 (hex) of values that JSON can hold, order kept."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


@cache
def source_sha256(*modules: str) -> str:
    """Return the sha256 (hex) of the sources of modules and packages, by name.

    A package counts with all its ``.py`` files, so changed code makes its outputs stale.

    Raises:
        ConfigError: a module is not installed.
    """
    sha = hashlib.sha256()
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ConfigError(f"module {name!r} is not installed; run `make setup`")
        origin = Path(spec.origin)
        files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
        for file in files:
            sha.update(file.name.encode())
            sha.update(file.read_bytes())
    return sha.hexdigest()


def now_ms() -> int:
    """Return the wall clock in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
