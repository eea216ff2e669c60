"""Plots of a search: how it went, and what each setting brought."""

import io
from typing import TYPE_CHECKING

import numpy as np

from bot4_pipelines.training.search import SPACE, SearchResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"COMPLETE": "#1f3a5f", "PRUNED": "#bdbdbd", "FAIL": "#b2182b"}


def search_plots(found: SearchResult) -> dict[str, bytes]:
    """Return PNG bytes by title; nothing when no trial has a number yet."""
    known = [one for one in found.trials if one.accuracy is not None]
    if not known:
        return {}
    return {"trials": _png(_course(found)), "settings": _png(_settings(found))}


def _course(found: SearchResult) -> "Figure":
    """Draw each trial's accuracy and the best so far."""
    figure = _figure(8.0, 3.2)
    axes = figure.add_subplot()
    for state, colour in _COLOURS.items():
        rows = [(t.number, t.accuracy) for t in found.trials if t.state == state and t.accuracy]
        if rows:
            numbers, accuracies = zip(*rows, strict=True)
            axes.scatter(numbers, accuracies, s=18, color=colour, label=state.lower())
    whole = [(t.number, t.accuracy or 0.0) for t in found.trials if t.state == "COMPLETE"]
    if whole:
        best = np.maximum.accumulate([accuracy for _, accuracy in whole])
        axes.step([number for number, _ in whole], best, where="post", color="#ef8a62")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy")
    axes.legend(fontsize=7, frameon=False)
    axes.grid(visible=True, alpha=0.25)
    return figure


def _settings(found: SearchResult) -> "Figure":
    """Draw accuracy over each setting."""
    figure = _figure(8.0, 4.4)
    for place, (name, (_, _, log)) in enumerate(SPACE.items()):
        axes = figure.add_subplot(2, -(-len(SPACE) // 2), place + 1)
        for state in ("PRUNED", "COMPLETE"):
            rows = [
                (trial.params[name], trial.accuracy)
                for trial in found.trials
                if trial.state == state and trial.accuracy and name in trial.params
            ]
            if rows:
                values, accuracies = zip(*rows, strict=True)
                axes.scatter(values, accuracies, s=14, color=_COLOURS[state])
        if log:
            axes.set_xscale("log")
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=6)
        axes.grid(visible=True, alpha=0.25)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
