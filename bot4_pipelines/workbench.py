"""What every step works with: the folders' stores, what earlier steps left, the promoted pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot4_pipelines.progress import Report
from bot4_pipelines.records import Folders, Record, Records
from bot4_pipelines.sources import series_id
from bot4_pipelines.steps import Steps
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import SeriesId
from bot4_runtime.domain.errors import DataError, ModelError

if TYPE_CHECKING:
    from bot4_runtime.features.batch import FeatureTable
    from bot4_runtime.regime.registry import CurrentPair, ModelRegistry

TRAINING: Final = (
    "bot4_pipelines.ingest.quality",
    "bot4_pipelines.ingest.quality_codes",
    "bot4_pipelines.training",
    "bot4_runtime.features",
    "bot4_runtime.regime",
)
"""What models are made by: where this code changes, they are made anew."""


class Workbench:
    """One pair of folders, and how steps read them.

    Args:
        folders: where to work.
        report: told of the progress.
    """

    def __init__(self, folders: Folders, report: Report) -> None:
        self.folders = folders
        self.report = report
        self.records = Records(folders.work)
        self._steps = Steps(self.records, folders.work / "plots", report)

    @property
    def _candles(self) -> Record:
        return self.records.need("candles", "candles")

    @property
    def _store(self) -> CandleStore:
        return CandleStore(self.folders.candles)

    @property
    def _registry(self) -> "ModelRegistry":
        from bot4_runtime.regime.registry import ModelRegistry

        return ModelRegistry(self.folders.models)

    def _series(self, keys: Sequence[str]) -> list[CandleSeries]:
        return [self._store.read(series_id(key)) for key in keys]

    def _stored(self, record: Record) -> bool:
        held = {one.key for one in self._store.list_series()}
        return set(record.numbers["series"]) <= held

    def _features_path(self, one: SeriesId) -> Path:
        return self.folders.work / "features" / f"{one.key}.parquet"

    def _labels_path(self, one: SeriesId) -> Path:
        return self.folders.work / "labels" / f"{one.key}.parquet"

    def _table(self, one: SeriesId) -> "FeatureTable":
        from bot4_pipelines.tables import read_features

        return read_features(self._features_path(one))

    def _candles_of(self, one: SeriesId, table: "FeatureTable") -> CandleSeries:
        """Return the candles that a table was made of; later ones may have come meanwhile."""
        first, last = (int(table.open_time_ms[row]) for row in (0, -1))
        return self._store.read(one, first, last + 1)


def ids_of(candles: Record) -> list[SeriesId]:
    """Return the series that were ingested.

    Raises:
        DataError: none was good enough to be stored.
    """
    keys = candles.numbers["series"]
    if not keys:
        raise DataError("no candles were stored: every series has an ERROR; see the candle checks")
    return [series_id(key) for key in keys]


def promoted_pair(registry: "ModelRegistry", interval: str) -> "CurrentPair":
    """Return the pair that trades an interval.

    Raises:
        ModelError: there is none.
    """
    pair = registry.current(interval)
    if pair is None:
        raise ModelError(
            f"no models are promoted for {interval}; materialise the asset 'promoted_models'"
        )
    return pair
