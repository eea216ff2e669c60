"""The candle store: Parquet by series and year under one root, one writer at a time a series.

Layout ``<root>/<origin>/<market>/<symbol>/<interval>/<year>.parquet``. Writing is idempotent; a
candle that Binance restated replaces the old one, is counted, and is remembered in
``restatements.jsonl`` with when and from where the new value came. Files are replaced by rename,
so a reader sees old or new, never half; a line of the history that a killed writer left half is
dropped by the next. Writers of different series do not wait for each other.
"""

import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.domain.candle import INTERVALS_MS, Market, Origin, SeriesId
from bot4_runtime.domain.errors import DataError, StoreBusy
from bot4_runtime.domain.unreadable import UNREADABLE

SCHEMA: Final = {"open_time_ms": pl.Int64} | dict.fromkeys(COLUMNS, pl.Float64)
HISTORY: Final = "restatements.jsonl"
LOCK_WAIT_S: Final = 60.0
"""How long a writer waits for another of the same series."""
_LOOK_AGAIN_S: Final = 0.02


class Restatement(msgspec.Struct, frozen=True, kw_only=True):
    """A stored value that later data contradicted.

    Attributes:
        column: ``open`` to ``volume``.
        at_ms: when the new value was written, UTC; None in histories older than this field.
        source: where it came from; None as `at_ms`.
    """

    open_time_ms: int
    column: str
    old: float
    new: float
    at_ms: int | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write changed.

    Attributes:
        restatements: (open_time_ms, column, old, new), one for each changed value.
    """

    inserted: int
    unchanged: int
    restated: int
    restatements: tuple[tuple[int, str, float, float], ...]


class CandleStore:
    """Candle series on disk.

    Args:
        root: folder of the store; made when first written to.
        lock_wait_s: how long `write` waits for another writer of the same series.
    """

    def __init__(self, root: Path, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self.root = root
        self._lock_wait_s = lock_wait_s

    def write(
        self, series: CandleSeries, *, source: str | None = None, now_ms: int | None = None
    ) -> WriteReport:
        """Insert new candles and replace restated ones; the same candles again change nothing.

        Args:
            series: what to write.
            source: where it comes from, for the history of restatements.
            now_ms: the present, UTC; the machine's when None.

        Raises:
            DataError: a stored file is unreadable.
            StoreBusy: another process kept writing this series.
        """
        folder = self.root / series.id.key
        folder.mkdir(parents=True, exist_ok=True)
        inserted = unchanged = restated = 0
        changes: list[tuple[int, str, float, float]] = []
        years = series.open_time_ms.astype("datetime64[ms]").astype("datetime64[Y]").astype(int)
        edges = [0, *(np.flatnonzero(np.diff(years)) + 1).tolist(), len(series)]
        now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        with locked(folder, self._lock_wait_s):
            for start, stop in itertools.pairwise(edges):
                if start == stop:
                    continue
                part = series.rows(slice(start, stop))
                path = folder / f"{int(years[start]) + 1970}.parquet"
                old = self._load(series.id, [path]) if path.exists() else None
                whole, found = _overlay(old, part)
                inserted += found.inserted
                unchanged += found.unchanged
                restated += found.restated
                changes += found.restatements
                if found.inserted or found.restated:
                    _remember(folder, found, source, now_ms)
                    _replace(path, whole)
        return WriteReport(inserted, unchanged, restated, tuple(changes))

    def read(
        self, series_id: SeriesId, from_ms: int | None = None, to_ms: int | None = None
    ) -> CandleSeries:
        """Read the candles that open in [from_ms, to_ms).

        Raises:
            DataError: there are none, or a file is unreadable.
        """
        if series := self.find(series_id, from_ms, to_ms):
            return series
        known = self.range(series_id)
        if known is None:
            stored = " ".join(other.key for other in self.list_series()) or "no series"
            raise DataError(f"no candles of {series_id.key} in {self.root}; it holds {stored}")
        raise DataError(
            f"no candles of {series_id.key} in [{from_ms}, {to_ms}) ms; "
            f"stored are {known[0]} to {known[1]} ms"
        )

    def find(
        self, series_id: SeriesId, from_ms: int | None = None, to_ms: int | None = None
    ) -> CandleSeries | None:
        """Read as `read` does; None when there are none. Only the years asked for are opened.

        Raises:
            DataError: a file is unreadable.
        """
        first, last = _year(from_ms, 0), _year(None if to_ms is None else to_ms - 1, 9999)
        paths = [path for path in self._paths(series_id) if first <= int(path.stem) <= last]
        if not paths:
            return None
        series = self._load(series_id, paths).between(from_ms, to_ms)
        return series if len(series) else None

    def list_series(self, symbol: str | None = None) -> list[SeriesId]:
        """List what is stored, sorted; of one symbol, without a look at the others' folders."""
        found = []
        for path in self.root.glob(f"*/*/{symbol or '*'}/*"):
            origin, market, symbol, interval = path.relative_to(self.root).parts
            known = origin in set(Origin) and market in set(Market) and interval in INTERVALS_MS
            if known and any(path.glob("*.parquet")):
                found.append(SeriesId(Origin(origin), Market(market), symbol, interval))
        return sorted(found)

    def range(self, series_id: SeriesId) -> tuple[int, int] | None:
        """Return the first and last stored open time (ms), None when nothing is stored."""
        paths = self._paths(series_id)
        if not paths:
            return None
        first = self._load(series_id, paths[:1])
        last = self._load(series_id, paths[-1:])
        return int(first.open_time_ms[0]), int(last.open_time_ms[-1])

    def _paths(self, series_id: SeriesId) -> list[Path]:
        return sorted((self.root / series_id.key).glob("[0-9]*.parquet"))

    def _load(self, series_id: SeriesId, paths: list[Path]) -> CandleSeries:
        frames = []
        for path in paths:
            try:
                frame = pl.read_parquet(path)
            except (OSError, pl.exceptions.PolarsError) as error:
                raise DataError(f"cannot read stored candles from {path}: {error}") from error
            if dict(frame.schema) != SCHEMA:
                raise DataError(f"{path} has columns {frame.schema}; expected {SCHEMA}")
            frames.append(frame)
        columns = {
            name: np.concatenate([frame[name].to_numpy() for frame in frames]) for name in SCHEMA
        }
        times = columns.pop("open_time_ms")
        return CandleSeries(series_id, times, *columns.values())

    def restatements(self, series_id: SeriesId) -> list[Restatement]:
        """Return a series' history of restated values, oldest first; a torn last line is left out.

        Raises:
            DataError: another line is damaged.
        """
        path = self.root / series_id.key / HISTORY
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(_mended(content).splitlines(), 1):
            try:
                found.append(msgspec.json.decode(line, type=Restatement))
            except UNREADABLE as error:
                raise DataError(
                    f"line {number} of the history {path} is damaged ({error}): {line[:80]!r}; "
                    "expected one JSON object a line. Take that line out: stored candles are not "
                    "made from it"
                ) from error
        return found


@contextmanager
def locked(folder: Path, wait_s: float) -> Iterator[None]:
    """Hold a folder's lock; wait for another writer.

    Raises:
        StoreBusy: it was not free in time.
    """
    end = time.monotonic() + wait_s
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise StoreBusy(
                        f"another process has been writing candles to {folder} for "
                        f"{wait_s:g} s; wait until it is done"
                    ) from error
                time.sleep(_LOOK_AGAIN_S)
        yield


def _year(time_ms: int | None, default: int) -> int:
    """Return the year, UTC, of a time."""
    if time_ms is None:
        return default
    return int(np.datetime64(time_ms, "ms").astype("datetime64[Y]").astype(int)) + 1970


def _overlay(old: CandleSeries | None, new: CandleSeries) -> tuple[CandleSeries, WriteReport]:
    if old is None:
        return new, WriteReport(len(new), 0, 0, ())
    at = np.searchsorted(old.open_time_ms, new.open_time_ms)
    known = np.append(old.open_time_ms, -1)[at] == new.open_time_ms
    changes: list[tuple[int, str, float, float]] = []
    differs = np.zeros(len(new), dtype=bool)
    for name in COLUMNS:
        before, after = getattr(old, name), getattr(new, name)
        rows = np.flatnonzero(known)
        rows = rows[before[at[rows]] != after[rows]]
        differs[rows] = True
        changes += [
            (int(new.open_time_ms[row]), name, float(before[at[row]]), float(after[row]))
            for row in rows
        ]
    keep = ~np.isin(old.open_time_ms, new.open_time_ms)
    times = np.concatenate([old.open_time_ms[keep], new.open_time_ms])
    order = np.argsort(times)
    columns = [
        np.concatenate([getattr(old, name)[keep], getattr(new, name)])[order] for name in COLUMNS
    ]
    restated = int(differs.sum())
    report = WriteReport(
        inserted=int((~known).sum()),
        unchanged=int(known.sum()) - restated,
        restated=restated,
        restatements=tuple(sorted(changes)),
    )
    return CandleSeries(new.id, times[order], *columns), report


def _remember(folder: Path, report: WriteReport, source: str | None, now_ms: int) -> None:
    """Append to a series' history, before its candles are replaced.

    What a killed writer left half is cut off first: its candles were not replaced, so whoever
    writes them again finds and remembers them again.
    """
    if not report.restatements:
        return
    lines = b""
    for time_ms, column, old, new in report.restatements:
        line = {"open_time_ms": time_ms, "column": column, "old": old, "new": new}
        lines += json.dumps(line | {"at_ms": now_ms, "source": source}).encode() + b"\n"
    with (folder / HISTORY).open("ab+") as file:
        file.seek(0)
        content = file.read()
        mended = _mended(content)
        file.truncate(min(len(mended), len(content)))
        file.write(mended[len(content) :] + lines)
        file.flush()
        os.fsync(file.fileno())


def _mended(content: bytes) -> bytes:
    """Return a history without a torn last line; one that only lacks its newline gets it."""
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return content
    try:
        msgspec.json.decode(content[whole:], type=Restatement)
    except UNREADABLE:
        return content[:whole]
    return content + b"\n"


def _replace(path: Path, series: CandleSeries) -> None:
    frame = pl.DataFrame(
        {"open_time_ms": series.open_time_ms} | {name: getattr(series, name) for name in COLUMNS},
        schema=SCHEMA,
    )
    replace_file(path, frame)


def replace_file(path: Path, frame: pl.DataFrame) -> None:
    """Replace a Parquet file by rename, flushed, so that readers see the old one or the new."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        frame.write_parquet(file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
