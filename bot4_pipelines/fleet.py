"""The steps cut into parts that several machines can do at the same time on one BOT4_HOME.

Candles are a part for each series and year, features one for each series, models one for each
interval. No part holds more than one series in memory until models are trained. A part has its
own records and lock below ``pipelines/fleet/INTERVAL``, so parts wait for each other only where
they write the same file. No Dagster here: `bot4_pipelines.defs.fleet` makes partitions of it.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bot4_pipelines.ingest.wanted import interval_name, symbol_name, wanted
from bot4_pipelines.progress import Report
from bot4_pipelines.records import Folders, Record, Records, digest, now_ms
from bot4_pipelines.sources import report_numbers, series_id
from bot4_pipelines.step_numbers import candle_numbers
from bot4_pipelines.steps import Made, Outcome, Steps
from bot4_pipelines.workflow import Workflow
from bot4_runtime.candles.funding import FundingStore
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import SeriesId
from bot4_runtime.domain.errors import ConfigError, DataError, VenueUnreachable

if TYPE_CHECKING:
    from bot4_pipelines.ingest.perpetual import FundingReport
    from bot4_pipelines.ingest.source import Source

_YEAR: Final = re.compile(r"candles-(\d{4})\.json")
_TOTALS: Final = ("conflicts", "inserted", "unchanged", "restated")


@dataclass(frozen=True, slots=True, order=True)
class SeriesPart:
    """A series of the fleet, as its partition names it: ``BTCUSDT_1h``."""

    symbol: str
    interval: str

    @classmethod
    def of(cls, key: str) -> "SeriesPart":
        """Read a partition's key.

        Raises:
            ConfigError: it is no symbol and interval.
        """
        symbol, cut, interval = key.rpartition("_")
        where = f"the partition {key!r}"
        if not cut:
            raise ConfigError(f"{where} is no series; expected SYMBOL_INTERVAL as in BTCUSDT_1h")
        if symbol_name(symbol, where) != symbol:
            raise ConfigError(f"{where} is no series; expected capitals as in BTCUSDT_1h")
        return cls(symbol, interval_name(interval, where))

    @property
    def key(self) -> str:
        """The partition's key."""
        return f"{self.symbol}_{self.interval}"


@dataclass(frozen=True)
class Pool:
    """What an interval's models are made of.

    Attributes:
        flow: the steps over it.
        waiting: series of the interval that were left out, and why.
    """

    flow: Workflow
    waiting: dict[str, str]


class Fleet:
    """The parts of the pipeline over one pair of folders.

    Args:
        folders: where to work.
        report: told of the progress.
    """

    def __init__(self, folders: Folders, report: Report) -> None:
        self.folders = folders
        self.report = report
        self._store = CandleStore(folders.candles)
        self._sources: dict[str, Source] = {}
        self._marks: dict[str, Source] = {}

    def candles(self, part: SeriesPart, year: int) -> Outcome:
        """Ingest a year of a series.

        Raises:
            VenueUnreachable: Binance does not answer, or not all came in time; try again.
            DataError: the folder's files are unreadable or of a longer interval.
            ConfigError: a variable has an impossible value, or the year has not begun.
        """
        return self._year(part, year, "candles", self._source(part), self._store)

    def mark(self, part: SeriesPart, year: int) -> Outcome:
        """Ingest a year of mark prices of a USD-M perpetual.

        Raises:
            VenueUnreachable, DataError, ConfigError: as `candles`; there is no simulated mark.
        """
        from bot4_pipelines.ingest.perpetual import mark_source

        if part.interval not in self._marks:
            self._marks[part.interval] = mark_source(part.interval)
        store = CandleStore(self.folders.mark)
        return self._year(part, year, "mark", self._marks[part.interval], store)

    def funding(self, symbol: str) -> "FundingReport":
        """Ingest the funding rates of a USD-M perpetual.

        Raises:
            VenueUnreachable: Binance does not answer, or not all came in time; try again.
            DataError: the folder has none, or a file is damaged.
        """
        from bot4_pipelines.ingest.perpetual import ingest_funding
        from bot4_pipelines.ingest.plan import Progress

        def tell(progress: Progress) -> None:
            self.report(progress.message, progress.done / max(progress.total, 1))

        want = wanted()
        done = ingest_funding(
            symbol,
            FundingStore(self.folders.funding),
            self.folders.candles,
            now_ms(),
            years=want.years,
            progress=tell,
            budget_s=want.budget_s,
        )
        if not done.complete:
            raise VenueUnreachable(
                f"funding of {symbol} did not come whole: {'; '.join(done.notes)}"
            )
        return done

    def _year(
        self, part: SeriesPart, year: int, what: str, source: "Source", store: CandleStore
    ) -> Outcome:
        from bot4_pipelines.ingest.plan import Progress
        from bot4_pipelines.ingest.source import ingest

        records = self._records(part)
        began, step = time.monotonic(), f"{what}-{year}"
        source = replace(
            source,
            symbols=(part.symbol,),
            from_ms=_year_ms(year),
            to_ms=_year_ms(year + 1),
        )

        def tell(progress: Progress) -> None:
            self.report(f"{part.key} {year}: {progress.message}", 0.5)

        with records.one_writer():
            before = records.find(step)
            done = ingest(source, store, tell)
            numbers = report_numbers(done)
            rows = [
                store.read(series_id(key), source.from_ms, source.to_ms)
                for key in numbers["series"]
            ]
            content = digest([one.content_sha256() for one in rows])
            numbers |= {"candles": sum(map(len, rows)), "year": year}
            stamp = digest(what, numbers["source"], content)
            same = before is not None and before.stamp == stamp
            outcome = self._steps(part).keep(
                step, stamp, (content, numbers, _plots_of(numbers)), began, reused=same
            )
        if not done.complete:
            raise VenueUnreachable(
                f"{part.key} {year} did not come whole: {'; '.join(done.notes)}"
            )
        return outcome

    def series(self, part: SeriesPart) -> CandleSeries:
        """Return all stored candles of a series.

        Raises:
            DataError: there are none.
        """
        return self._store.read(self._stored(part))

    def features(self, part: SeriesPart) -> Outcome:
        """Compute the feature table of a series from all its years.

        Raises:
            DataError: there are no candles of it.
        """
        from bot4_pipelines.tables import write_features
        from bot4_runtime.features.batch import compute
        from bot4_runtime.features.schema import feature_schema_id

        one = self._stored(part)
        series = self._store.read(one)
        stamp = digest(series.content_sha256(), feature_schema_id())
        path = self._scope(part.interval).work / "features" / f"{one.key}.parquet"

        def work() -> Made:
            self.report(f"computing {part.key}", 0.1)
            table = compute(series)
            write_features(path, table)
            numbers = {
                "schema_id": feature_schema_id(),
                "series": one.key,
                "rows": len(table),
                "valid_rows": int(table.valid.sum()),
                "candles": candle_numbers([series])["by_symbol"],
            }
            return series.content_sha256(), numbers, {}

        return self._steps(part).run("features", stamp, work, [path])

    def pool(self, interval: str, parts: Sequence[SeriesPart]) -> Pool:
        """Lay the series of an interval together for its models.

        Their features are brought up to date; a series without candles is left out and named.

        Raises:
            DataError: no series has candles, or they are of several markets.
        """
        from bot4_runtime.features.schema import feature_schema_id

        flow = self.models(interval)
        ready: list[tuple[SeriesPart, Record]] = []
        waiting: dict[str, str] = {}
        for part in sorted(part for part in parts if part.interval == interval):
            try:
                ready.append((part, self.features(part).record))
            except DataError as error:
                waiting[part.key] = str(error)
        if not ready:
            raise DataError(
                f"no series of {interval} has candles ({' '.join(waiting) or 'none is known'}); "
                "materialise the asset 'series_candles' first"
            )
        numbers = self._pooled(interval, ready)
        content = digest([record.content for _, record in ready])
        with flow.records.one_writer():
            for step, stamp, kept, told in (
                ("candles", digest("pool", content), content, numbers),
                _features_of(content, feature_schema_id(), numbers),
            ):
                before = flow.records.find(step)
                if (
                    before is None
                    or before.stamp != stamp
                    or _found(before.numbers) != _found(told)
                ):
                    flow.records.write(
                        Record(
                            step=step,
                            stamp=stamp,
                            content=kept,
                            finished_ms=now_ms(),
                            seconds=0.0,
                            numbers=told,
                        )
                    )
        return Pool(flow, waiting)

    def models(self, interval: str) -> Workflow:
        """Return the steps of an interval's models, over its last pool."""
        return Workflow(self._scope(interval), self.report)

    # ------------------------------------------------------------------- shared
    def _scope(self, interval: str) -> Folders:
        return self.folders.scoped(f"fleet/{interval}")

    def _records(self, part: SeriesPart) -> Records:
        return Records(self._scope(part.interval).work / "series" / part.symbol)

    def _steps(self, part: SeriesPart) -> Steps:
        records = self._records(part)
        return Steps(records, records.root / "plots", self.report)

    def _source(self, part: SeriesPart) -> "Source":
        """Choose the source once; simulated candles only when they were asked for."""
        from bot4_pipelines.ingest.source import (
            SourceKind,
            choose_source,
            chosen_market,
            shorter_stored,
            stored_source,
        )

        if part.interval not in self._sources:
            self._sources[part.interval] = choose_source(interval=part.interval)
        source = self._sources[part.interval]
        if source.kind is not SourceKind.SIMULATED or os.environ.get("BOT4_CANDLES_SOURCE"):
            return source
        market = chosen_market(os.environ)
        if shorter_stored(self._store, market, part.symbol, part.interval) is None:
            raise VenueUnreachable(
                f"{part.key}: {source.reason}, and no shorter candles of it are stored; simulated "
                "ones are taken only when BOT4_CANDLES_SOURCE=simulated asks for them"
            )
        return stored_source(market, part.interval)

    def _years(self, part: SeriesPart) -> list[Record]:
        records = self._records(part)
        found = sorted(
            path.stem for path in records.root.glob("candles-*.json") if _YEAR.fullmatch(path.name)
        )
        return [record for step in found if (record := records.find(step)) is not None]

    def _stored(self, part: SeriesPart) -> SeriesId:
        """Return which stored series a part is.

        Raises:
            DataError: none, or several: real and simulated ones, or of two markets.
        """
        keys = sorted({key for record in self._years(part) for key in record.numbers["series"]})
        if len(keys) != 1:
            told = (
                f"is several series ({' '.join(keys)}): choose one source" if keys else "has none"
            )
            raise DataError(
                f"{part.key} {told}; materialise its years of the asset 'series_candles'"
            )
        return series_id(keys[0])

    def _pooled(self, interval: str, ready: Sequence[tuple[SeriesPart, Record]]) -> dict[str, Any]:
        """Return what the record of an ingestion tells, over all series of a pool."""
        ids = [series_id(record.numbers["series"]) for _, record in ready]
        if len({(one.origin, one.market) for one in ids}) != 1:
            raise DataError(
                f"the series of {interval} are of several markets "
                f"({' '.join(one.key for one in ids)}); a model learns from one"
            )
        years = [record for part, _ in ready for record in self._years(part)]
        rows = [row for _, record in ready for row in record.numbers["candles"]]
        last = years[-1].numbers
        return {
            **{name: last[name] for name in ("source", "label", "why", "years")},
            "interval": interval,
            "market": ids[0].market.value,
            "origin": ids[0].origin.value,
            "complete": all(record.numbers["complete"] for record in years),
            "series": [one.key for one in ids],
            "asked": [one.symbol for one in ids],
            "notes": sorted({note for record in years for note in record.numbers["notes"]}),
            "findings": [one for record in years for one in record.numbers["findings"]],
            "restatements": [one for record in years for one in record.numbers["restatements"]],
            **{name: sum(record.numbers[name] for record in years) for name in _TOTALS},
            "candles": sum(row["candles"] for row in rows),
            "symbols": [row["symbol"] for row in rows],
            "from_ms": min(row["from_ms"] for row in rows),
            "to_ms": max(row["to_ms"] for row in rows),
            "gaps": sum(row["gaps"] for row in rows),
            "by_symbol": rows,
        }


def _features_of(
    candles: str, schema_id: str, numbers: dict[str, Any]
) -> tuple[str, str, str, dict[str, Any]]:
    """Return step, stamp, content and numbers of a pool's features, as the workflow has them."""
    stamp = digest(candles, schema_id)
    told = {"schema_id": schema_id, "rows": numbers["candles"], "symbols": numbers["by_symbol"]}
    return "features", stamp, stamp, told


def _found(numbers: dict[str, Any]) -> object:
    """Return what quality rules found, which may change while the candles do not."""
    return numbers.get("findings")


def _plots_of(numbers: dict[str, Any]) -> dict[str, bytes]:
    """Draw the candles around the worst of each finding."""
    excerpts = numbers["excerpts"]
    if not excerpts:
        return {}
    from bot4_pipelines.finding_plot import finding_plot

    return {f"finding {one['code']}": finding_plot(one) for one in excerpts}


def _year_ms(year: int) -> int:
    return round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000)
