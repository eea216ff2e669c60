"""The steps of the pipeline, as Dagster's assets and the command line run them.

A step reads what the steps before it left in Bot4's stores, does nothing when nothing changed
since it last ran, and leaves a record that says in numbers what it did. No Dagster here; torch,
hmmlearn and matplotlib are imported by the steps that need them. Models are made and promoted
here; the steps before are `candle_steps`', those after it `evidence_steps`'.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from bot4_pipelines.candle_steps import CandleSteps
from bot4_pipelines.evidence_steps import EvidenceSteps
from bot4_pipelines.models import promote_pair
from bot4_pipelines.records import digest, now_ms, source_sha256
from bot4_pipelines.step_numbers import (
    leak_numbers,
    model_numbers,
    pair_numbers,
    reference_numbers,
    search_numbers,
)
from bot4_pipelines.steps import Made, Outcome
from bot4_pipelines.training.schedule import Schedule, wanted_window
from bot4_pipelines.triggers import DAY_MS, reference_path, trained_on
from bot4_pipelines.workbench import TRAINING, ids_of, promoted_pair
from bot4_runtime import __version__
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.regime.manifest import WINDOW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bot4_pipelines.training.candidates import Material
    from bot4_runtime.features.batch import FeatureTable

_BANDS: Final = 1_000
"""Candles that the plot of regimes shows: the last of the test period."""


class Workflow(CandleSteps, EvidenceSteps):
    """The steps, over one pair of folders.

    Args:
        folders: where to work.
        report: told of the progress.
    """

    # ------------------------------------------------------------------- models
    def hmm_candidate(self) -> Outcome:
        """Fit, export, judge and archive the HMM.

        Raises:
            DataError: there are no features, or too few of them.
        """
        features = self.records.need("features", "features")
        stamp = digest(
            "hmm", features.content, source_sha256(*TRAINING), os.environ.get("BOT4_HOLDOUT", "")
        )

        def work() -> Made:
            from bot4_pipelines.training.candidates import make_hmm

            made = make_hmm(self._material(), self._registry, self.report)
            return made.sha256, model_numbers(made), made.images

        return self._model_step("hmm_candidate", stamp, work)

    def hindsight_labels(self) -> Outcome:
        """Decode every split of every series by itself under the candidate HMM.

        Raises:
            DataError: there is no candidate.
        """
        from bot4_pipelines.tables import write_labels

        features = self.records.need("features", "features")
        hmm = self.records.need("hmm_candidate", "hmm_candidate")
        stamp = digest("labels", features.content, hmm.content)
        paths = [self._labels_path(one) for one in ids_of(self._candles)]

        def work() -> Made:
            import numpy as np

            from bot4_pipelines.training.candidates import hmm_parameters
            from bot4_pipelines.training.cuts import split_slices
            from bot4_pipelines.training.labels import hindsight_labels
            from bot4_pipelines.training.plots import regime_bands
            from bot4_runtime.domain.regime import REGIME_LABELS

            cuts = self._registry.manifest(hmm.content).cuts
            params = hmm_parameters(self._registry, hmm.content)
            counts: dict[str, Any] = {}
            plots = {}
            for place, one in enumerate(ids_of(self._candles)):
                self.report(f"decoding {one.symbol}", place / len(paths))
                table = self._table(one)
                splits = split_slices(table.open_time_ms, cuts)
                labels = hindsight_labels(table.z, params, splits.values())
                write_labels(self._labels_path(one), table.open_time_ms, labels)
                for split, rows in splits.items():
                    known = labels[rows][labels[rows] >= 0]
                    total = counts.setdefault(split, np.zeros(len(REGIME_LABELS), dtype=int))
                    total += np.bincount(known, minlength=len(REGIME_LABELS))
                if place == 0:
                    series = self._store.read(one)
                    shown = slice(max(0, splits["test"].stop - _BANDS), splits["test"].stop)
                    plots["regimes"] = regime_bands(
                        table.open_time_ms[shown],
                        series.close[shown],
                        labels[shown],
                        f"{one.symbol}: regimes in hindsight, end of the test period",
                    )
            shares = [
                {"split": split, "rows": int(total.sum())}
                | {
                    label: round(float(total[k] / max(total.sum(), 1)), 4)
                    for k, label in enumerate(REGIME_LABELS)
                }
                for split, total in counts.items()
            ]
            return stamp, {"hmm_sha256": hmm.content, "state_shares": shares}, plots

        return self._steps.run("hindsight_labels", stamp, work, paths)

    def lstm_candidate(
        self,
        schedule: Schedule = Schedule.FULL,
        *,
        iterations: int = 0,
        from_model: str = "",
        lookback: int = 0,
    ) -> Outcome:
        """Train, export, judge and archive the LSTM of the candidate HMM.

        A candidate of the full schedule on the same labels serves who asks for the quick one.

        Args:
            schedule: how long it learns.
            iterations: training steps other than the schedule's own; 0 keeps them.
            from_model: sha256, or its start, of an archived LSTM to go on from.
            lookback: candles it reads; 0 takes ``BOT4_LOOKBACK``.

        Raises:
            ConfigError: the lookback cannot be.
            DataError: there are no labels, too few of them, or the HMM learnt from other candles.
            ModelError: the model to go on from is none that may be.
        """
        hmm = self.records.need("hmm_candidate", "hmm_candidate")
        labels = self.records.need("hindsight_labels", "hindsight_labels")
        before, window = self.records.find("lstm_candidate"), wanted_window(asked=lookback)
        full = lstm_stamp(labels.content, Schedule.FULL, window=window)
        if before is not None and before.stamp == full:
            plain = not iterations and not from_model
            schedule = Schedule.FULL if plain else schedule
        stamp = lstm_stamp(labels.content, schedule, iterations, from_model, window)

        def work() -> Made:
            from bot4_pipelines.training.candidates import make_lstm
            from bot4_pipelines.training.continued import start_from
            from bot4_pipelines.training.schedule import LstmSettings

            material = self._material()
            features = self.records.need("features", "features")
            start = None
            if from_model:
                start = start_from(
                    self._registry,
                    from_model,
                    interval=str(self._candles.numbers["interval"]),
                    cuts=material.cuts,
                    held_out=tuple(material.held_out),
                    window=window,
                )
            had = trained_on(
                [*material.series.values(), *material.held_out.values()],
                material.data_sha256,
                features.finished_ms - round(1000 * features.seconds),
            )
            settings = LstmSettings.of(
                schedule, iterations=iterations, continued=start is not None, window=window
            )
            made = make_lstm(material, hmm.content, self._registry, settings, self.report, start)
            return made.sha256, model_numbers(made) | {"trained_on": had}, made.images

        return self._model_step("lstm_candidate", stamp, work)

    def leak_audit(self) -> Outcome:
        """Alter the future and see that nothing the candidates saw before it changes.

        Raises:
            DataError: there is no candidate, or of some column no number could be compared.
        """
        hmm = self.records.need("hmm_candidate", "hmm_candidate")
        lstm = self.records.need("lstm_candidate", "lstm_candidate")
        stamp = digest("leaks", self._candles.content, lstm.content, source_sha256(*TRAINING))

        def work() -> Made:
            from bot4_pipelines.training.candidates import hmm_parameters
            from bot4_pipelines.training.leak_audit import audit

            params = hmm_parameters(self._registry, hmm.content)
            session = self._registry.verify(lstm.content).session
            series = self._series(self._candles.numbers["series"])
            found = audit(series, params, session, report=self.report)
            return stamp, leak_numbers(found, lstm.content), {}

        return self._steps.run("leak_audit", stamp, work, [])

    def seed_spread(
        self, schedule: Schedule = Schedule.FULL, *, iterations: int = 0, seeds: int = 3
    ) -> dict[str, Any]:
        """Train the LSTM of the candidate HMM from several seeds; keep their numbers alone.

        Args:
            schedule: how long each learns.
            iterations: training steps other than the schedule's own; 0 keeps them.
            seeds: how many.

        Raises:
            ConfigError: fewer than 2 seeds, or a ``BOT4_LOOKBACK`` that cannot be.
            DataError: there is no candidate, or there are too few candles.
        """
        from bot4_pipelines.training.candidates import hmm_parameters
        from bot4_pipelines.training.schedule import LstmSettings
        from bot4_pipelines.training.seeds import seed_spread

        settings = LstmSettings.of(schedule, iterations=iterations, window=wanted_window())
        hmm = self.records.need("hmm_candidate", "hmm_candidate")
        params = hmm_parameters(self._registry, hmm.content)
        told = seed_spread(self._material(), params, settings, seeds, self.report)
        return {"schedule": schedule, "hmm_sha256": hmm.content, **told}

    def promoted_models(self) -> Outcome:
        """Judge both candidates again and point the runtime at them.

        Candidates that an operator went back from stay left; the record's ``note`` says so.

        Raises:
            ModelError: a gate refuses one of them, or something looks ahead.
        """
        from bot4_pipelines.training.promotion import taken_back

        hmm, lstm = (
            self.records.need(name, name).content for name in ("hmm_candidate", "lstm_candidate")
        )
        interval = str(self._candles.numbers["interval"])
        current = self._registry.current(interval)
        left = taken_back(self._registry, interval, (hmm, lstm))
        stamp = digest("promoted", hmm, lstm, left) if left else digest("promoted", hmm, lstm)

        def work() -> Made:
            if current is not None and left:
                return stamp, pair_numbers(interval, current) | {"note": left}, {}
            self.report("judging both models again", 0.2)
            return stamp, promote_pair(self.folders, interval, (hmm, lstm)), {}

        as_it_was = bool(left) or (current is not None and current.shas == (hmm, lstm))
        return self._steps.run("promoted_models", stamp, work, [], again=not as_it_was)

    def training_reference(self) -> Outcome:
        """Describe what the models that trade were trained on, for the sensors to compare with.

        Raises:
            ModelError: nothing is promoted.
            DataError: a symbol it was trained on is not among the candles, or the training range
                is too short to say what is usual.
        """
        features = self.records.need("features", "features")
        interval = str(self._candles.numbers["interval"])
        pair = promoted_pair(self._registry, interval)
        code = source_sha256("bot4_pipelines.training.drift", "bot4_pipelines.ingest.quality")
        stamp = digest("reference", features.content, pair.shas, code)
        path = reference_path(self.folders, pair.hmm_sha256)

        def work() -> Made:
            from bot4_pipelines.training.candidates import hmm_parameters
            from bot4_pipelines.training.cuts import split_slices
            from bot4_pipelines.training.drift import WINDOW_DAYS, make_reference, write_reference
            from bot4_pipelines.training.drift_plots import drift_limits

            manifest = self._registry.manifest(pair.hmm_sha256)
            tables = self._learnt(manifest.symbols)
            train = {
                symbol: split_slices(table.open_time_ms, manifest.cuts)["train"]
                for symbol, table in tables.items()
            }
            self.report("measuring training's own months", 0.2)
            window = WINDOW_DAYS * DAY_MS // interval_ms(interval)
            params = hmm_parameters(self._registry, pair.hmm_sha256)
            made = make_reference(tables, train, params, window)
            write_reference(path, made)
            numbers = pair_numbers(interval, pair) | reference_numbers(made)
            return stamp, numbers, {"limits of drift": drift_limits(made)}

        return self._steps.run("training_reference", stamp, work, [path])

    # ------------------------------------------------------------------- search
    def lstm_search(
        self, *, trials: int, workers: int, iterations: int, seed: int, lookback: int = 0
    ) -> Outcome:
        """Try other settings of the LSTM on the validation range; nothing is used by itself.

        The pipeline's lock is not held meanwhile: candles keep coming in.

        Args:
            trials: in all, those of an earlier search on the same candles counted; 0 makes
                none and shows those that are there.
            workers: processes.
            iterations: steps of a trial.
            seed: of sampler and trainings.
            lookback: candles that every trial reads; 0 takes ``BOT4_LOOKBACK``.

        Raises:
            DataError: there are no labels, or every trial failed.
            ConfigError: a number that cannot be.
        """
        from bot4_pipelines.training.search import (
            known_trials,
            search,
            search_data,
            search_settings,
        )
        from bot4_pipelines.training.search_plots import search_plots

        labels = self.records.need("hindsight_labels", "hindsight_labels")
        hmm = self.records.need("hmm_candidate", "hmm_candidate")
        base = search_settings(iterations, seed, wanted_window(asked=lookback))
        asked = (iterations, seed, base.window)
        study = digest("search", labels.content, source_sha256(*TRAINING), *asked)
        began = time.monotonic()
        folder = self.folders.work / "search" / study[:16]
        if trials:
            material = self._material()
            data = search_data(material, hmm.content, self._registry, base, self.report)
            report = self.report
            found = search(*data, folder, base, trials=trials, workers=workers, report=report)
        else:
            found = known_trials(folder, base)
        with self.records.one_writer():
            stamp = digest(study, len(found.trials))
            made: Made = (stamp, search_numbers(found, folder.name), search_plots(found))
            return self._steps.keep("lstm_search", stamp, made, began, reused=not found.made)

    # ------------------------------------------------------------------- shared
    def _learnt(self, symbols: Sequence[str]) -> "dict[str, FeatureTable]":
        """Return the features of symbols a model was trained on, as it learnt from them.

        Raises:
            DataError: one of them is not among the candles.
        """
        from bot4_pipelines.training.dataset import learnt_table

        ids = {one.symbol: one for one in ids_of(self._candles)}
        missing = [symbol for symbol in symbols if symbol not in ids]
        if missing:
            raise DataError(
                f"the models that trade were trained on {', '.join(missing)} too, of which there "
                f"are no candles here ({', '.join(ids)}); ingest them, or train and promote anew"
            )
        tables = {}
        for symbol in symbols:
            table = self._table(ids[symbol])
            series = self._candles_of(ids[symbol], table)
            tables[symbol] = learnt_table(series, table, self._masked(series))
        return tables

    def _material(self) -> "Material":
        """Return what candidates are made of."""
        from bot4_pipelines.training.candidates import Material
        from bot4_pipelines.training.cuts import choose_cuts
        from bot4_pipelines.training.unseen import holdout_symbols

        ids = ids_of(self._candles)
        tables = {one.symbol: self._table(one) for one in ids}
        series = {one.symbol: self._candles_of(one, tables[one.symbol]) for one in ids}
        self.report("asking which candles may be learnt from", 0.0)
        ranges = {
            symbol: (int(one.open_time_ms[0]), int(one.open_time_ms[-1]))
            for symbol, one in series.items()
        }
        held_out = holdout_symbols(list(series))
        return Material(
            series={symbol: one for symbol, one in series.items() if symbol not in held_out},
            tables={symbol: one for symbol, one in tables.items() if symbol not in held_out},
            held_out={symbol: series[symbol] for symbol in held_out},
            masked={
                symbol: self._masked(one)
                for symbol, one in series.items()
                if symbol not in held_out
            },
            cuts=choose_cuts(ranges, ids[0].interval),
            data_sha256=digest([series[one.symbol].content_sha256() for one in ids]),
            code_version=f"{__version__}+{source_sha256(*TRAINING)[:12]}",
            now_ms=now_ms(),
        )

    def _masked(self, series: CandleSeries) -> "NDArray[np.bool_]":
        """Return which candles nothing is learnt from: those that findings name."""
        from bot4_pipelines.ingest.quality import judge_series, training_mask
        from bot4_pipelines.ingest.source import finer_series
        from bot4_runtime.features.schema import TREND_WINDOW

        finer = finer_series(self._store, series.id, int(series.open_time_ms[0]))
        findings = judge_series(series, finer=finer)
        mask: NDArray[np.bool_] = ~training_mask(findings, len(series), memory=TREND_WINDOW)
        return mask

    def _model_step(self, name: str, stamp: str, work: Callable[[], Made]) -> Outcome:
        before = self.records.find(name)
        there = [] if before is None else [self.folders.models / "archive" / before.content]
        return self._steps.run(name, stamp, work, there)


def lstm_stamp(
    labels: str,
    schedule: Schedule,
    iterations: int = 0,
    from_model: str = "",
    window: int = WINDOW,
) -> str:
    """Return what an LSTM candidate is made from: labels, code, and how it learns."""
    return digest(
        "lstm", labels, source_sha256(*TRAINING), schedule, iterations, from_model, window
    )
