"""Plots of what the pipeline made, as PNG bytes for metadata and model cards.

Drawn on matplotlib's own canvas, without pyplot and its global state; matplotlib is imported
inside functions, since this module is reachable from the code location. Nothing is computed
here that a number elsewhere does not say.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bot4_runtime.domain.regime import REGIME_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bot4_runtime.candles.series import CandleSeries

REGIME_COLOURS: Final = ("#b2182b", "#ef8a62", "#bdbdbd", "#67a9cf", "#2166ac")
"""StrongBear to StrongBull; a diverging scale that colour-blind eyes can read."""
_INK: Final = "#1f3a5f"
_SHOWN: Final = 1_000
"""Candles that a plot of regimes shows."""
_LINE_POINTS: Final = 2_000
_DPI: Final = 90


def as_markdown(png: bytes, title: str) -> str:
    """Return an image as markdown that needs no file and no network."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def price_history(
    closes: Mapping[str, tuple[np.ndarray, np.ndarray]], cuts_ms: Mapping[str, int] | None = None
) -> bytes:
    """Draw each symbol's close, relative to its first, on a log scale, and the cuts.

    Args:
        closes: symbol to (open time ms int64[n], close float64[n]).
        cuts_ms: name of a cut to its time.
    """
    figure, axes = _figure(8.0, 3.4)
    for symbol, (time_ms, close) in closes.items():
        pick = _thin(len(close))
        axes.plot(_dates(time_ms[pick]), close[pick] / close[0], linewidth=0.8, label=symbol)
    axes.set_yscale("log")
    _date_axis(axes)
    axes.set_ylabel("close / first close")
    for name, time in (cuts_ms or {}).items():
        day = time / 86_400_000.0
        axes.axvline(day, color="black", linewidth=0.8, linestyle="--")
        axes.annotate(
            name,
            (day, 1.0),
            xycoords=("data", "axes fraction"),
            fontsize=7,
            rotation=90,
            va="top",
            ha="right",
        )
    axes.legend(fontsize=7, ncols=5, loc="upper left")
    return _png(figure)


def regime_bands(time_ms: np.ndarray, close: np.ndarray, labels: np.ndarray, title: str) -> bytes:
    """Draw a close over the regimes it was in.

    Args:
        time_ms: int64[n], open times.
        close: float64[n].
        labels: int[n], 0 = StrongBear … 4 = StrongBull; -1 where unknown.
        title: above the plot.
    """
    from matplotlib.patches import Patch

    figure, axes = _figure(8.0, 3.2)
    dates = _dates(time_ms)
    axes.plot(dates, close, color=_INK, linewidth=0.9)
    edges = np.flatnonzero(np.diff(labels)) + 1
    for start, stop in zip([0, *edges], [*edges, len(labels)], strict=True):
        if labels[start] >= 0:
            last = dates[min(stop, len(dates) - 1)]
            colour = REGIME_COLOURS[int(labels[start])]
            axes.axvspan(dates[start], last, color=colour, alpha=0.45, linewidth=0)
    axes.set_title(title, fontsize=9)
    _date_axis(axes)
    axes.set_ylabel("close")
    axes.legend(
        handles=[
            Patch(color=colour, alpha=0.6, label=label)
            for label, colour in zip(REGIME_LABELS, REGIME_COLOURS, strict=True)
        ],
        fontsize=7,
        ncols=5,
        loc="upper left",
    )
    return _png(figure)


def hmm_states(
    means: np.ndarray, variances: np.ndarray, transitions: np.ndarray, z: np.ndarray
) -> bytes:
    """Draw the states' densities over what was observed, and the transition matrix.

    Args:
        means: float64[5].
        variances: float64[5].
        transitions: float64[5, 5], rows sum to 1.
        z: float64[n], observations; NaN is left out.
    """
    figure, (left, right) = _figures(8.0, 3.2, 2)
    seen = z[np.isfinite(z)]
    left.hist(seen, bins=80, range=(-3, 3), density=True, color="#dddddd", label="observed")
    grid = np.linspace(-3, 3, 400)
    weights = np.linalg.matrix_power(transitions, 4_096)[0]
    for k, label in enumerate(REGIME_LABELS):
        density = np.exp(-0.5 * (grid - means[k]) ** 2 / variances[k])
        density *= weights[k] / np.sqrt(2 * np.pi * variances[k])
        left.plot(grid, density, color=REGIME_COLOURS[k], label=f"{label} {means[k]:+.2f}")
    left.set_xlabel("z: 72-candle trend in units of its volatility")
    left.legend(fontsize=6)
    right.imshow(transitions, cmap="Blues", vmin=0.0, vmax=1.0)
    for i in range(len(means)):
        for j in range(len(means)):
            shade = "white" if transitions[i, j] > 0.5 else "black"
            text = f"{transitions[i, j]:.3f}"
            right.text(j, i, text, ha="center", va="center", fontsize=7, color=shade)
    right.set_xticks(range(len(means)), REGIME_LABELS, fontsize=6, rotation=30)
    right.set_yticks(range(len(means)), REGIME_LABELS, fontsize=6)
    right.set_title("transition in one candle", fontsize=8)
    right.grid(visible=False)
    return _png(figure)


def split_regimes(series: "CandleSeries", labels: np.ndarray, symbol: str) -> dict[str, bytes]:
    """Draw the last thousand labelled candles of a split over their regimes; PNG by title."""
    known = np.flatnonzero(labels >= 0)[-_SHOWN:]
    shown = slice(int(known[0]), int(known[-1]) + 1)
    title = f"{symbol}: regimes named in hindsight"
    picture = regime_bands(series.open_time_ms[shown], series.close[shown], labels[shown], title)
    return {"test: regimes on price": picture}


def likelihood(loglik: Sequence[float]) -> bytes:
    """Draw the total log-likelihood of each iteration of a fit."""
    figure, axes = _figure(8.0, 2.4)
    axes.plot(np.arange(1, len(loglik) + 1), loglik, marker="o", color=_INK)
    axes.set_xlabel("iteration")
    axes.set_ylabel("log-likelihood")
    return _png(figure)


def distributions(
    learnt: Mapping[str, np.ndarray], recent: Mapping[str, np.ndarray], names: tuple[str, str]
) -> bytes:
    """Draw how inputs were distributed when learnt from and how they are now.

    Args:
        learnt: float64[n] by input, finite.
        recent: float64[m] of the same inputs.
        names: what the two are called.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(4, len(learnt))
    lines = -(-len(learnt) // columns)
    height = 0.6 + 1.15 * lines
    figure = Figure(figsize=(8.0, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    edge = 0.4 / height
    figure.subplots_adjust(0.03, edge, 0.97, 1 - 0.5 * edge, wspace=0.12, hspace=0.55)
    for place, (name, values) in enumerate(learnt.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        low, high = np.percentile(values, [0.5, 99.5])
        edges = np.linspace(low, high if high > low else low + 1.0, 31).tolist()
        axes.hist(values, edges, density=True, color="#cccccc", label=names[0])
        axes.hist(recent[name], edges, density=True, histtype="step", color=_INK, label=names[1])
        axes.set_title(name, fontsize=7, pad=2)
        axes.set_yticks([])
        axes.tick_params(labelsize=5)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=7, ncols=2, loc="lower center")
    return _png(figure)


def training_history(history: Sequence[Mapping[str, float]]) -> bytes:
    """Draw the loss and the validation accuracy of each look during training.

    Args:
        history: rows with ``iteration``, ``train_loss``, ``validation_loss`` and
            ``validation_accuracy``.
    """
    figure, (left, right) = _figures(8.0, 2.8, 2)
    steps = [row["iteration"] for row in history]
    left.plot(steps, [row["train_loss"] for row in history], marker="o", label="training")
    left.plot(steps, [row["validation_loss"] for row in history], marker="o", label="validation")
    left.set_xlabel("iteration")
    left.set_ylabel("cross entropy")
    left.legend(fontsize=7)
    accuracy = [row["validation_accuracy"] for row in history]
    right.plot(steps, accuracy, marker="o", color=_INK)
    right.set_xlabel("iteration")
    right.set_ylabel("validation accuracy")
    return _png(figure)


def accuracy_bars(
    rows: Mapping[str, tuple[float, float, float]], floor: float | None, title: str
) -> bytes:
    """Draw accuracies with their confidence intervals beside the gate's floor.

    Args:
        rows: name to (accuracy, lower bound, upper bound); bounds may equal the accuracy.
        floor: what the gate asks for; None draws no line.
        title: above the plot.
    """
    figure, axes = _figure(8.0, 0.6 + 0.32 * max(len(rows), 3))
    names = list(rows)[::-1]
    values = np.array([rows[name] for name in names]).reshape(-1, 3)
    error = np.abs(values[:, 1:] - values[:, :1]).T
    axes.barh(names, values[:, 0], xerr=error, color="#67a9cf", ecolor=_INK, capsize=2)
    for position, accuracy in enumerate(values[:, 0]):
        axes.text(0.01, position, f"{accuracy:.4f}", va="center", fontsize=7)
    if floor is not None:
        axes.axvline(floor, color="#b2182b", linestyle="--", linewidth=1.0)
    axes.set_xlim(0.0, 1.0)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    return _png(figure)


def rule_evidence(rows: Mapping[str, tuple[float, float | None]]) -> bytes:
    """Draw each rule's mean net return a trade, in basis points, with its adjusted p-value.

    Args:
        rows: rule to (mean net return as a share, p after Benjamini-Hochberg or None).
    """
    figure, axes = _figure(8.0, 0.6 + 0.32 * max(len(rows), 3))
    names = list(rows)[::-1]
    means = np.array([rows[name][0] * 1e4 for name in names])
    axes.barh(names, means, color=["#67a9cf" if mean > 0 else "#ef8a62" for mean in means])
    axes.axvline(0.0, color="black", linewidth=0.8)
    for position, name in enumerate(names):
        p_value = rows[name][1]
        text = "p unknown" if p_value is None else f"p = {p_value:.3f}"
        axes.text(0.0, position, f" {text}", va="center", fontsize=7)
    axes.set_xlabel("mean net return a trade, bp")
    axes.tick_params(labelsize=7)
    return _png(figure)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    figure, axes = _figures(width, height, 1)
    return figure, axes[0]


def _figures(width: float, height: float, count: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for one in axes:
        one.grid(visible=True, alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _date_axis(axes: "Axes") -> None:
    from matplotlib.dates import ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(8)
    formatter: Any = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.tick_params(labelsize=7)


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _dates(time_ms: np.ndarray) -> np.ndarray:
    """Return matplotlib's dates: days since 1970, float64[n]."""
    return np.asarray(time_ms / 86_400_000.0)


def _thin(rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return at most `_LINE_POINTS` row numbers, first and last among them."""
    return np.unique(np.linspace(0, rows - 1, min(rows, _LINE_POINTS)).astype(np.int64))
