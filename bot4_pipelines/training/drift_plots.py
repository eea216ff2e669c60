"""Plots of drift: what is usual, and where limits lie. matplotlib is imported when drawing."""

import io

import numpy as np

from bot4_pipelines.training.drift import PSI_SHIFT, Reference


def drift_limits(reference: Reference) -> bytes:
    """Draw each feature's limits of both measures, as PNG bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = np.arange(len(reference.names))
    for place, (limits, title) in enumerate(
        (
            (reference.psi_limit, "population stability index"),
            (reference.ks_limit, "Kolmogorov-Smirnov distance"),
        )
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.barh(rows, limits, color="#1f3a5f")
        axes.set_yticks(rows, reference.names if place == 0 else [""] * len(rows), fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel(f"limit of the {title}", fontsize=8)
        if place == 0:
            axes.axvline(PSI_SHIFT, color="black", linewidth=0.8, linestyle="--")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()
