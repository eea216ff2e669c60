"""The first steps: candles, and the feature table of each series."""

import time
from collections.abc import Sequence
from typing import Any, Final

from bot4_pipelines.records import digest
from bot4_pipelines.sources import still_fresh, take_candles
from bot4_pipelines.step_numbers import candle_numbers
from bot4_pipelines.steps import Made, Outcome
from bot4_pipelines.workbench import Workbench, ids_of
from bot4_runtime.candles.series import CandleSeries

DEFAULT_MAX_AGE_HOURS: Final = 24.0
"""Age up to which downloaded candles are taken as they are."""


class CandleSteps(Workbench):
    """Candles in, features out."""

    def candles(self, *, max_age_hours: float = DEFAULT_MAX_AGE_HOURS) -> Outcome:
        """Ingest candles: from BOT4_CANDLES_DIR, else Binance, else the simulated market.

        Raises:
            DataError: the folder's files are unreadable or of several intervals.
            ConfigError: BOT4_CANDLES_MARKET is no market.
        """
        with self.records.one_writer():
            before = self.records.find("candles")
            if before is not None and still_fresh(before, max_age_hours) and self._stored(before):
                return self._steps.reused(before)
            self.report("looking for candles", 0.0)
            began = time.monotonic()
            taken = take_candles(self._store, before, self.report)
            series = self._series(taken["series"])
            content = digest([one.content_sha256() for one in series])
            numbers = taken | candle_numbers(series)
            plots = _price_plot(series) | _finding_plots(taken.get("excerpts", ()))
            stamp = digest("candles", taken["source"], content)
            same = before is not None and before.stamp == stamp
            return self._steps.keep(
                "candles", stamp, (content, numbers, plots), began, reused=same
            )

    def features(self) -> Outcome:
        """Compute the feature table of every series.

        Raises:
            DataError: there are no candles.
        """
        from bot4_pipelines.tables import write_features
        from bot4_runtime.features.batch import compute
        from bot4_runtime.features.schema import feature_schema_id

        candles = self.records.need("candles", "candles")
        stamp = digest(candles.content, feature_schema_id())
        paths = [self._features_path(one) for one in ids_of(candles)]

        def work() -> Made:
            rows, valid, by_symbol = 0, 0, []
            for place, one in enumerate(ids_of(candles)):
                self.report(f"computing {one.symbol}", place / len(paths))
                table = compute(self._store.read(one))
                write_features(self._features_path(one), table)
                rows, valid = rows + len(table), valid + int(table.valid.sum())
                by_symbol.append(
                    {
                        "symbol": one.symbol,
                        "rows": len(table),
                        "valid": int(table.valid.sum()),
                        "runs": len(table.runs()),
                    }
                )
            numbers = {
                "schema_id": feature_schema_id(),
                "rows": rows,
                "valid_rows": valid,
                "symbols": by_symbol,
            }
            return stamp, numbers, {}

        return self._steps.run("features", stamp, work, paths)


def _price_plot(series: Sequence[CandleSeries]) -> dict[str, bytes]:
    from bot4_pipelines.training.plots import price_history

    if not series:
        return {}
    closes = {one.id.symbol: (one.open_time_ms, one.close) for one in series}
    return {"price history": price_history(closes)}


def _finding_plots(excerpts: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    from bot4_pipelines.finding_plot import finding_plot

    return {f"finding {one['code']}": finding_plot(one) for one in excerpts}
