"""Plots of how a model was judged, for its card: confusion, calibration, regimes, drift.

The page itself is `card`'s, the plots that need no judged rows are `plots`'s.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from bot4_pipelines.training import plots
from bot4_pipelines.training.cuts import split_slices
from bot4_pipelines.training.dataset import INPUT_NAMES, SymbolRows, inside
from bot4_pipelines.training.judged import HMM, LSTM, Judged
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.regime import REGIME_LABELS
from bot4_runtime.regime.hmm import STATES
from bot4_runtime.regime.manifest import Cuts

_BINS: Final = 10


def lstm_images(
    judged: Mapping[str, Sequence[Judged]],
    history: Sequence[Mapping[str, float]],
    series: CandleSeries | None = None,
    drift: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> dict[str, bytes]:
    """Draw how an LSTM was judged.

    Args:
        judged: by split, the symbols it was scored on, as `training_metrics` returns them.
        history: the looks of its training.
        series: candles of the first judged symbol, to draw its test regimes on; may be None.
        drift: inputs of training and test, as `drift_samples` has them; None draws none.

    Returns:
        PNG by title.
    """
    test = judged["test"]
    images = {
        "training": plots.training_history(history),
        "test: hindsight label against estimate": confusion_plot(confusion(test, LSTM)),
        "test: confidence against accuracy": calibration_plot(calibration(test, LSTM)),
    }
    if series is not None:
        images |= plots.split_regimes(series, test[0].labels, test[0].symbol)
    if drift is not None:
        learnt, recent = ({name: pair[k] for name, pair in drift.items()} for k in (0, 1))
        images["inputs: training against test"] = plots.distributions(
            learnt, recent, ("training", "test")
        )
    return images


def drift_samples(
    symbols: Sequence[SymbolRows], cuts: Cuts, most: int = 20_000
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Take every input of training and of test, all symbols pooled, evenly thinned.

    Args:
        symbols: whole history.
        cuts: the splits' boundaries.
        most: rows of each.

    Returns:
        By input: its values in training and in test.
    """
    parts = []
    for split in ("train", "test"):
        rows = np.concatenate(
            [
                one.inputs[one.learnable & inside(len(one.table), part)]
                for one in symbols
                for part in [split_slices(one.table.open_time_ms, cuts)[split]]
            ]
        )
        parts.append(rows[:: max(1, -(-len(rows) // most))])
    return {
        name: (parts[0][:, column], parts[1][:, column]) for column, name in enumerate(INPUT_NAMES)
    }


def confusion(judged: Sequence[Judged], model: str = HMM) -> np.ndarray:
    """Count label against estimate over the rows with an LSTM estimate, int64[5, 5]."""
    table = np.zeros((STATES, STATES), dtype=np.int64)
    for one in judged:
        rows = one.rows(same=True, model=model) & (one.estimates[model].named >= 0)
        np.add.at(table, (one.labels[rows], one.estimates[model].named[rows]), 1)
    return table


def calibration(judged: Sequence[Judged], model: str = LSTM) -> np.ndarray:
    """Return mean confidence, accuracy and share of rows in ten equal bins, float64[10, 3]."""
    confidence, right = [], []
    for one in judged:
        rows, estimate = one.rows(same=True, model=model), one.estimates[model]
        if estimate.probabilities is not None:
            confidence.append(estimate.probabilities[rows].max(axis=1))
            right.append(estimate.named[rows] == one.labels[rows])
    sure, hit = np.concatenate(confidence), np.concatenate(right)
    place = np.clip((sure * _BINS).astype(np.int64), 0, _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, v, minlength=_BINS) / counts for v in (sure, hit)]
    return np.stack([*means, counts / max(len(sure), 1)], axis=1)


def confusion_plot(table: np.ndarray) -> bytes:
    """Draw a confusion matrix int64[5, 5], each row as shares of its label; PNG."""
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(STATES), REGIME_LABELS, rotation=30, fontsize=8)
    axes.set_yticks(range(STATES), REGIME_LABELS, fontsize=8)
    axes.set_xlabel("estimate")
    axes.set_ylabel("hindsight label")
    for i, j in np.ndindex(STATES, STATES):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{shares[i, j]:.3f}", ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


def calibration_plot(bins: np.ndarray) -> bytes:
    """Draw accuracy against confidence, points as large as their share; PNG.

    Args:
        bins: float64[10, 3], from `calibration`.
    """
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    known = bins[np.isfinite(bins[:, 0])]
    axes.scatter(known[:, 0], known[:, 1], s=20 + 400 * known[:, 2], color="#1f3a5f", alpha=0.7)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0.15, 1.02)
    axes.set_ylim(0.0, 1.02)
    return _png(figure)


def _figure() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
