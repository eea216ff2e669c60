"""Feature rows and hindsight labels on disk: one Parquet file a series, written whole.

The next asset reads what the last one wrote; people read it with any Parquet tool.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl

from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.batch import FeatureTable
from bot4_runtime.features.schema import FEATURE_NAMES

_PLAIN = ("open_time_ms", "valid", "z", "rv", "log_return")


def write_features(path: Path, table: FeatureTable) -> None:
    """Write a feature table; columns `FEATURE_NAMES` beside times, validity, z and returns."""
    starts = np.zeros(len(table), dtype=bool)
    starts[table.starts] = True
    columns = {name: getattr(table, name) for name in _PLAIN} | {"starts_run": starts}
    for place, name in enumerate(FEATURE_NAMES):
        columns[f"feature:{name}"] = table.values[:, place]
    _write(path, pl.DataFrame(columns))


def read_features(path: Path) -> FeatureTable:
    """Read a feature table back, exactly as it was written.

    Raises:
        DataError: the file is missing, unreadable, or of another feature schema.
    """
    frame = _read(path, "features")
    names = [f"feature:{name}" for name in FEATURE_NAMES]
    wanted = {*_PLAIN, "starts_run", *names}
    if set(frame.columns) != wanted:
        raise DataError(
            f"{path} holds other features than this version computes: "
            f"{sorted(set(frame.columns) ^ wanted)}; materialise the asset 'features' again"
        )
    return FeatureTable(
        open_time_ms=frame["open_time_ms"].to_numpy(),
        values=frame.select(names).to_numpy(),
        valid=frame["valid"].to_numpy(),
        z=frame["z"].to_numpy(),
        rv=frame["rv"].to_numpy(),
        log_return=frame["log_return"].to_numpy(),
        starts=np.flatnonzero(frame["starts_run"].to_numpy()).astype(np.int64),
    )


def write_labels(path: Path, open_time_ms: np.ndarray, labels: np.ndarray) -> None:
    """Write hindsight labels int8[n]: 0 = StrongBear … 4 = StrongBull, -1 unknown."""
    _write(path, pl.DataFrame({"open_time_ms": open_time_ms, "label": labels.astype(np.int8)}))


def read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (open time ms int64[n], labels int8[n]).

    Raises:
        DataError: the file is missing or unreadable.
    """
    frame = _read(path, "hindsight_labels")
    return frame["open_time_ms"].to_numpy(), frame["label"].to_numpy()


def _write(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    frame.write_parquet(draft)
    draft.replace(path)


def _read(path: Path, asset: str) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; materialise the asset {asset!r}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); materialise the asset {asset!r} again"
        ) from None
