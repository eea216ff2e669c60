"""From feature tables to an archived candidate: fit, export, score, judge, seal.

A candidate is a file in the model archive with its manifest and card. It trades nothing until
`promotion` has judged its recorded numbers again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from bot4_pipelines.progress import Report
from bot4_pipelines.training import plots
from bot4_pipelines.training.baselines import fit_baselines
from bot4_pipelines.training.card import model_card
from bot4_pipelines.training.continued import Start
from bot4_pipelines.training.cuts import SPLITS, split_slices
from bot4_pipelines.training.dataset import (
    CLIP,
    INPUT_NAMES,
    SymbolRows,
    simulated_shares,
    symbol_rows,
    training_set,
    window_ends,
)
from bot4_pipelines.training.definition_gate import SymbolTrend, definition_metrics
from bot4_pipelines.training.evaluation import training_metrics
from bot4_pipelines.training.hmm import fit_hmm, known_runs
from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph, seal
from bot4_pipelines.training.hmm_figures import hmm_images, hmm_metrics, judge_hmm
from bot4_pipelines.training.judged import HMM, Judged, flat, judge, summarise
from bot4_pipelines.training.lstm import LstmFit, fit_lstm
from bot4_pipelines.training.lstm_export import lstm_graph, open_session
from bot4_pipelines.training.model_card import drift_samples, lstm_images
from bot4_pipelines.training.promotion import LSTM_ACCURACY
from bot4_pipelines.training.promotion import judge as judge_gates
from bot4_pipelines.training.random_walk import random_walk_accuracy
from bot4_pipelines.training.schedule import LstmSettings
from bot4_pipelines.training.unseen import hmm_unseen, lstm_unseen
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.batch import FeatureTable
from bot4_runtime.features.schema import TREND_WINDOW, feature_schema_id
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.lookahead import MAX_POOL, LookAhead
from bot4_runtime.regime.manifest import (
    Cuts,
    GoldenVector,
    HmmDefinition,
    Manifest,
    Metrics,
    ModelKind,
    Scaler,
    UnseenVerdict,
)
from bot4_runtime.regime.registry import ModelRegistry

VALID_DAYS: Final = 90
"""Days after which a model is refused: regimes are refitted at least that often."""
BLOCK: Final = 24
"""Candles of a block in the pool that look-ahead simulation draws from."""
DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Material:
    """What candidates are made of: one interval, one market, all symbols.

    Attributes:
        series: by symbol, those that are trained on.
        tables: features of the same candles.
        cuts: dates of the splits.
        data_sha256: over the candles.
        code_version: of what trains.
        now_ms: when, UTC.
        held_out: by symbol, never trained on; their features are made when they are judged.
        masked: by symbol bool[n], candles that nothing is learnt from; none where left out.
    """

    series: Mapping[str, CandleSeries]
    tables: Mapping[str, FeatureTable]
    cuts: Cuts
    data_sha256: str
    code_version: str
    now_ms: int
    held_out: Mapping[str, CandleSeries] = field(default_factory=dict)
    masked: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, params: HmmParameters) -> list[SymbolRows]:
        """Return every training symbol's inputs under an HMM."""
        return [
            symbol_rows(series, params, self.tables[symbol], self.masked.get(symbol))
            for symbol, series in self.series.items()
        ]

    def trend(self, symbol: str) -> np.ndarray:
        """Return a symbol's z, float64[n]; NaN where nothing may be learnt from it."""
        z = self.tables[symbol].z
        masked = self.masked.get(symbol)
        return z if masked is None else np.where(masked, np.nan, z)

    @property
    def interval_ms(self) -> int:
        """Length of a candle in milliseconds."""
        return next(iter(self.series.values())).interval_ms


@dataclass(frozen=True)
class Candidate:
    """An archived model.

    Attributes:
        images: title to PNG.
    """

    sha256: str
    manifest: Manifest
    images: dict[str, bytes]


def make_hmm(material: Material, registry: ModelRegistry, report: Report) -> Candidate:
    """Fit, export, score and archive the HMM.

    Raises:
        DataError: too few candles, or a split without any.
    """
    report("fitting five states", 0.05)
    tables, cuts = material.tables, material.cuts
    train = {
        symbol: split_slices(table.open_time_ms, cuts)["train"] for symbol, table in tables.items()
    }
    runs = {symbol: known_runs(material.trend(symbol), train[symbol]) for symbol in tables}
    fit = fit_hmm(runs)
    report(f"scoring the causal filter after {fit.iterations} iterations", 0.5)
    metrics = _hmm_metrics(material, fit.params)
    report("refitting on other years and symbols", 0.6)
    trends = {symbol: SymbolTrend(table.open_time_ms, table.z) for symbol, table in tables.items()}
    definition = definition_metrics(trends, fit.params, cuts)
    metrics["definition"] = definition["definition"]
    metrics["fit"] = {
        "iterations": float(fit.iterations),
        "converged": float(fit.converged),
        "loglik": fit.loglik[-1],
        "rows": float(fit.rows),
    }
    accuracy, (low, high) = random_walk_accuracy()
    metrics["random_walk"] = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    report("looking ahead", 0.8)
    blocks = return_blocks(tables, train)
    judged = judge_hmm(tables, LookAhead(fit.params, blocks), cuts, material.interval_ms)
    metrics |= hmm_metrics(judged)
    graph = hmm_graph(fit.params, blocks)
    report("judging and archiving", 0.9)
    manifest = _manifest(
        material,
        ModelKind.HMM,
        feature_names=("z",),
        metrics=metrics,
        golden=hmm_golden(graph, fit.params),
        definition=HmmDefinition.of(fit.params, TREND_WINDOW),
        unseen=hmm_unseen(
            fit.params,
            [symbol_rows(one, fit.params) for one in material.held_out.values()],
            cuts,
            interval_ms=material.interval_ms,
        ),
    )
    everything = np.concatenate([table.z for table in tables.values()])
    images = {
        "states": plots.hmm_states(
            fit.params.means, fit.params.variances, fit.params.transitions, everything
        ),
        **hmm_images(judged, fit.loglik, next(iter(material.series.values())), tables, cuts),
    }
    return _archive(registry, graph, manifest, images)


def _hmm_metrics(material: Material, params: HmmParameters) -> Metrics:
    """Score the filter on every split, on all rows that have a label."""
    metrics: Metrics = {}
    nothing = np.empty((0, 0))  # the filter reads z alone
    rows = [
        SymbolRows(symbol, table, nothing, np.zeros(len(table), dtype=bool))
        for symbol, table in material.tables.items()
    ]
    for split in SPLITS:
        judged = [
            judge(
                one,
                params,
                split_slices(one.table.open_time_ms, material.cuts)[split],
                interval_ms=material.interval_ms,
            )
            for one in rows
        ]
        count = float(sum(int(one.scored.sum()) for one in judged))
        metrics[split] = flat(summarise(judged, HMM, same=False)["pooled"]) | {"rows": count}
    return metrics


def return_blocks(
    tables: Mapping[str, FeatureTable], train: Mapping[str, slice], length: int = BLOCK
) -> np.ndarray:
    """Take blocks of contiguous training returns, evenly spread, in units of their volatility.

    Returns:
        float32[blocks, length], at most `MAX_POOL` numbers.

    Raises:
        DataError: no training stretch is long enough.
    """
    found = []
    for symbol, table in tables.items():
        ends = window_ends(np.isfinite(table.rv) & np.isfinite(table.log_return), length + 1)
        ends = ends[(ends - length >= train[symbol].start) & (ends < train[symbol].stop)]
        rows = ends[:, None] + np.arange(1 - length, 1)
        unit = table.rv[ends - length]
        keep = unit > 0.0
        found.append((table.log_return[rows] / np.where(keep, unit, 1.0)[:, None])[keep])
    blocks = np.concatenate(found)
    if not len(blocks):
        raise DataError(f"no {length} contiguous training returns; ingest more history")
    picked = np.linspace(0, len(blocks) - 1, min(len(blocks), MAX_POOL // length)).astype(int)
    return np.asarray(blocks[picked], dtype=np.float32)


@dataclass(frozen=True)
class Learnt:
    """A trained LSTM and how it did, not archived yet.

    Attributes:
        graph: the ONNX model, without metadata.
        metrics: as the manifest has them.
        judged: the symbols by split.
        rows: of the training symbols.
        unseen: the verdict on held-out symbols, if there are any.
    """

    fit: LstmFit
    graph: bytes
    metrics: Metrics
    judged: Mapping[str, list[Judged]]
    rows: Sequence[SymbolRows]
    unseen: UnseenVerdict | None


def learn(
    material: Material,
    params: HmmParameters,
    settings: LstmSettings,
    report: Report,
    start: Start | None = None,
) -> Learnt:
    """Train an LSTM under an HMM and score it on every split.

    Args:
        material: the candles.
        params: the HMM.
        settings: the schedule.
        report: told of the progress.
        start: the model gone on from; None trains anew.

    Raises:
        DataError: too few candles, or a split without any.
    """
    report("preparing inputs", 0.0)
    rows = material.rows(params)
    soft = None
    if settings.soft_paths:
        report("simulating what labels will be", 0.03)
        soft = simulated_shares(
            rows,
            params,
            material.cuts,
            paths=settings.soft_paths,
            horizon=settings.soft_horizon,
            seed=settings.seed,
        )
    data = training_set(
        rows,
        params,
        material.cuts,
        segment=settings.segment,
        window=settings.window,
        soft=soft,
        soft_share=settings.soft_share,
        scaler=None if start is None else start.scaler,
    )

    def progress(iteration: int, iterations: int, numbers: Mapping[str, float]) -> None:
        seen = numbers.get("validation_accuracy")
        said = "" if seen is None else f", validation {seen:.4f}"
        report(
            f"training: step {iteration}/{iterations}{said}", 0.15 + 0.65 * iteration / iterations
        )

    fit = fit_lstm(data, settings, progress, None if start is None else start.weights)
    graph = lstm_graph(fit, settings.window)
    report("scoring against the baselines", 0.82)
    baselines = fit_baselines(rows, params, material.cuts)
    session = open_session(graph)
    train = {
        one.symbol: split_slices(one.table.open_time_ms, material.cuts)["train"] for one in rows
    }
    metrics, judged = training_metrics(
        rows,
        params,
        material.cuts,
        session,
        baselines,
        interval_ms=material.interval_ms,
        look=LookAhead(params, return_blocks(material.tables, train)),
    )
    accuracy, _ = random_walk_accuracy()
    for split in ("validation", "test"):
        metrics[f"baselines_{split}"]["random_walk_hmm"] = accuracy
        metrics[split]["accuracy_ci_low"] = metrics[split]["accuracy_low"]
    metrics["fit"] = {
        "iterations": float(settings.iterations),
        "batch": float(settings.batch),
        "best_iteration": float(fit.best_iteration),
        "seed": float(settings.seed),
    }
    unseen = lstm_unseen(params, session, baselines, material.held_out.values(), material.cuts)
    return Learnt(fit, graph, metrics, judged, rows, unseen)


def make_lstm(
    material: Material,
    hmm_sha256: str,
    registry: ModelRegistry,
    settings: LstmSettings,
    report: Report,
    start: Start | None = None,
) -> Candidate:
    """Train, export, score and archive the LSTM that belongs to an archived HMM.

    Raises:
        DataError: too few candles, a split without any, or others than the HMM learnt from.
    """
    _check_same(material, registry.manifest(hmm_sha256))
    learnt = learn(material, hmm_parameters(registry, hmm_sha256), settings, report, start)
    fit, metrics, rows = learnt.fit, learnt.metrics, learnt.rows
    report("judging and archiving", 0.97)
    manifest = _manifest(
        material,
        ModelKind.LSTM,
        feature_names=INPUT_NAMES,
        metrics=metrics,
        golden=(golden_of(learnt.graph, {"features": _golden_windows(rows, settings.window)}),),
        scaler=Scaler(
            mean=tuple(fit.scaler.mean.tolist()),
            scale=tuple(fit.scaler.deviation.tolist()),
            clip=CLIP,
        ),
        temperature=fit.temperature,
        window=settings.window,
        hmm_sha256=hmm_sha256,
        unseen=learnt.unseen,
        continued_from="" if start is None else start.sha256,
    )
    first = material.series[rows[0].symbol]
    images = {
        "test: accuracy": plots.accuracy_bars(_bars(metrics), LSTM_ACCURACY, "test accuracy"),
        **lstm_images(learnt.judged, fit.history, first, drift_samples(rows, material.cuts)),
    }
    return _archive(registry, learnt.graph, manifest, images)


def _check_same(material: Material, hmm: Manifest) -> None:
    """Refuse to train an LSTM on other candles than its HMM learnt from."""
    compared = (
        ("candles", material.data_sha256, hmm.data_sha256),
        ("symbols", tuple(material.series), hmm.symbols),
        ("dates of the splits", material.cuts, hmm.cuts),
    )
    other = [f"{name}: {here}, not {its}" for name, here, its in compared if here != its]
    if other:
        raise DataError(
            f"the HMM learnt from other features than are here now ({'; '.join(other)}): they "
            "were made anew in between. Materialise from 'candles' on again (max_age_hours 0), "
            "or 'interval_hmm' of the fleet and what follows it"
        )


def hmm_parameters(registry: ModelRegistry, sha256: str) -> HmmParameters:
    """Return an archived HMM's parameters.

    Raises:
        ModelError: there is no such HMM.
    """
    definition = registry.manifest(sha256).definition
    if definition is None:
        raise ModelError(f"model {sha256[:12]} is no HMM; materialise 'hmm_candidate' again")
    return definition.parameters()


def _golden_windows(rows: Sequence[SymbolRows], window: int, count: int = 4) -> np.ndarray:
    """Take real windows, evenly spread over the first symbol, float32[count, window, 28].

    Raises:
        DataError: there is no whole window.
    """
    ends = window_ends(rows[0].table.valid, window)
    if not len(ends):
        raise DataError(f"{rows[0].symbol} has no {window} contiguous valid rows")
    picked = ends[np.linspace(0, len(ends) - 1, count).astype(int)]
    windows = rows[0].inputs[picked[:, None] + np.arange(1 - window, 1)]
    return np.asarray(windows, dtype=np.float32)


def _bars(metrics: Metrics) -> dict[str, tuple[float, float, float]]:
    """Return the accuracies to draw: those that are known, models with their intervals."""
    bars = {}
    for name, section in (("LSTM", "test"), ("HMM filter", "hmm_test")):
        row = metrics[section]
        value, low, high = (row[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
        if value is not None and low is not None and high is not None:
            bars[name] = (value, low, high)
    for name, value in metrics["baselines_test"].items():
        if value is not None and name != "hmm_filter":
            bars[name.replace("_", " ")] = (value, value, value)
    return bars


def _manifest(
    material: Material,
    kind: ModelKind,
    *,
    feature_names: tuple[str, ...],
    metrics: Metrics,
    golden: tuple[GoldenVector, ...],
    **more: Any,
) -> Manifest:
    one = next(iter(material.series.values())).id
    return Manifest(
        kind=kind,
        schema_id=feature_schema_id(),
        feature_names=feature_names,
        interval=one.interval,
        origin=one.origin,
        market=one.market,
        symbols=tuple(material.series),
        cuts=material.cuts,
        data_sha256=material.data_sha256,
        metrics=metrics,
        golden=golden,
        created_ms=material.now_ms,
        expires_ms=material.now_ms + VALID_DAYS * DAY_MS,
        code_version=material.code_version,
        **more,
    )


def _archive(
    registry: ModelRegistry, graph: bytes, manifest: Manifest, images: dict[str, bytes]
) -> Candidate:
    judged = msgspec.structs.replace(manifest, gates=tuple(judge_gates(manifest)))
    sha256 = registry.add(seal(graph, judged), judged, model_card(judged, images))
    return Candidate(sha256, judged, images)
