"""The numbers by which the definition of the regimes is judged, not the estimate of them.

Accuracy rises by itself with longer windows and stickier states, so the definition is held to
what makes the names mean something: balanced states, even and symmetric means, a dwell of about
half a day, agreement with the shipped reference HMM, and with refits on other years and symbols.
`promotion` compares these numbers with the gates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bot4_pipelines.training.cuts import scored, split_slices
from bot4_pipelines.training.hmm import LEAST_ROWS, fit_hmm, known_runs
from bot4_pipelines.training.labels import (
    filtered_regimes,
    hindsight_labels,
    smoothed_regimes,
)
from bot4_runtime.features.schema import TREND_WINDOW
from bot4_runtime.regime.hmm import STATES, HmmParameters
from bot4_runtime.regime.manifest import Cuts, HmmDefinition, Metrics

REFIT_ROWS: Final = 17_520
"""Candles of a refit on part of the training data: two years of hours."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SymbolTrend:
    """One symbol's trend: open times int64[n], and z float64[n], NaN where unknown."""

    open_time_ms: npt.NDArray[np.int64]
    z: Floats


def reference_hmm() -> HmmParameters:
    """Return the shipped HMM that every definition must agree with."""
    text = files("bot4_runtime.regime").joinpath("reference.json").read_bytes()
    return msgspec.json.decode(text, type=HmmDefinition).parameters()


def definition_metrics(
    trends: Mapping[str, SymbolTrend], params: HmmParameters, cuts: Cuts, *, refits: bool = True
) -> Metrics:
    """Measure a fitted HMM on every split, pooled as unweighted means over symbols.

    Args:
        trends: the pool.
        params: fitted on its training split.
        cuts: the splits.
        refits: also fit on parts of the training split and compare (some seconds).

    Returns:
        Sections ``train``, ``validation`` and ``test``, each with ``accuracy`` of the causal
        filter against hindsight, and ``definition``; there ``label_probability_<split>`` is how
        probable the smoother finds the hindsight labels: how sure hindsight is of itself.

    Raises:
        DataError: a symbol has no candles in a split.
    """
    splits = {name: split_slices(trend.open_time_ms, cuts) for name, trend in trends.items()}
    labels = {
        name: hindsight_labels(trend.z, params, splits[name].values())
        for name, trend in trends.items()
    }
    metrics: Metrics = {}
    definition: dict[str, float | None] = {
        "trend_window": float(TREND_WINDOW),
        "least_mean_gap": float(np.diff(params.means).min()),
        "mirror_error": mirror_error(params),
    }
    filtered = {
        name: filtered_regimes(trend.z, params, splits[name].values()).argmax(axis=1)
        for name, trend in trends.items()
    }
    for split in ("train", "validation", "test"):
        accuracies, shares, sure = [], [], []
        for name in trends:
            rows = scored(splits[name][split])
            known = labels[name][rows] >= 0
            named = labels[name][rows][known]
            if len(named):
                accuracies.append(float((filtered[name][rows][known] == named).mean()))
                shares.append(np.bincount(named, minlength=STATES) / len(named))
                if split != "train":
                    smoothed = smoothed_regimes(trends[name].z, params, [splits[name][split]])
                    sure.append(float(smoothed[rows][known][np.arange(len(named)), named].mean()))
        metrics[split] = {"accuracy": _mean(accuracies)}
        pooled = np.mean(shares, axis=0).tolist() if shares else [None] * STATES
        definition |= {f"share_{k}_{split}": share for k, share in enumerate(pooled)}
        if split != "train":
            definition[f"label_probability_{split}"] = _mean(sure)
    dwells = [_dwells(labels[name][splits[name]["train"]]) for name in trends]
    together = np.concatenate(dwells)
    definition["median_dwell"] = float(np.median(together)) if len(together) else None
    definition["reference_agreement"] = agreement(trends, labels, reference_hmm(), cuts)
    if refits:
        found = [agreement(trends, labels, other, cuts) for other in _refits(trends, splits)]
        whole = [value for value in found if value is not None]
        definition["refits"] = float(len(found))
        definition["least_refit_agreement"] = min(whole) if whole else None
        definition["mean_refit_agreement"] = _mean(whole)
    metrics["definition"] = definition
    return metrics


def mirror_error(params: HmmParameters) -> float:
    """Return how far the parameters are from their mirror image, at most."""
    return float(
        max(
            np.abs(params.means + params.means[::-1]).max(),
            np.abs(params.variances - params.variances[::-1]).max(),
            np.abs(params.transitions - params.transitions[::-1, ::-1]).max(),
        )
    )


def agreement(
    trends: Mapping[str, SymbolTrend],
    labels: Mapping[str, npt.NDArray[np.int64]],
    other: HmmParameters,
    cuts: Cuts,
) -> float | None:
    """Return on which share of the validation split another HMM's hindsight agrees, pooled."""
    shares = []
    for name, trend in trends.items():
        rows = split_slices(trend.open_time_ms, cuts)["validation"]
        second = hindsight_labels(trend.z, other, [rows])[rows]
        known = second >= 0
        if known.any():
            shares.append(float((labels[name][rows] == second)[known].mean()))
    return _mean(shares)


def _refits(
    trends: Mapping[str, SymbolTrend], splits: Mapping[str, Mapping[str, slice]]
) -> list[HmmParameters]:
    """Fit on each symbol alone: on its first two years of training, and on its last two."""
    fitted = []
    for name, trend in sorted(trends.items()):
        rows = splits[name]["train"]
        span = min(REFIT_ROWS, (rows.stop - rows.start) // 2)
        for part in (slice(rows.start, rows.start + span), slice(rows.stop - span, rows.stop)):
            runs = known_runs(trend.z, part)
            if sum(map(len, runs)) >= LEAST_ROWS:
                fitted.append(fit_hmm({name: runs}).params)
    return fitted


def _dwells(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many candles each stay in one state lasts; unlabelled stretches left out."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(labels)]]))
    return np.asarray(lengths[labels[starts] >= 0], dtype=np.int64)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
