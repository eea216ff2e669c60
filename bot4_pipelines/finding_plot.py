"""A picture of a finding: the candles around its worst row, that row marked.

Drawn on matplotlib's own canvas; matplotlib is imported inside, since this module is reachable
from the code location.
"""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

UP: Final = "#2166ac"
DOWN: Final = "#b2182b"
MARK: Final = "#fdae61"


def finding_plot(excerpt: Mapping[str, Any]) -> bytes:
    """Draw candles and volumes around a finding's worst row as PNG.

    Args:
        excerpt: ``code``, ``symbol``, ``marked`` (the row's place; one behind the last where the
            candles end) and the columns of the rows around it, as `sources` keeps them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    times = excerpt["open_time_ms"]
    columns = {
        name: np.asarray(excerpt[name], dtype=float)
        for name in ("open", "high", "low", "close", "volume")
    }
    x = np.arange(len(times))
    rising = columns["close"] >= columns["open"]
    colours = np.where(rising, UP, DOWN).tolist()
    figure = Figure(figsize=(7.0, 3.2), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    prices, volumes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for axes in (prices, volumes):
        axes.axvspan(excerpt["marked"] - 0.5, excerpt["marked"] + 0.5, color=MARK, alpha=0.3)
        axes.grid(visible=True, alpha=0.25)
        axes.tick_params(labelsize=7)
    prices.vlines(x, columns["low"], columns["high"], colors=colours, linewidth=0.8)
    bottom = np.minimum(columns["open"], columns["close"])
    height = np.abs(columns["close"] - columns["open"])
    prices.bar(
        x, height, bottom=bottom, width=0.7, color=colours, edgecolor=colours, linewidth=0.8
    )
    if excerpt["marked"] < len(times):
        close = columns["close"][excerpt["marked"]]
        prices.plot([excerpt["marked"]], [close], "o", color="black", markersize=4, mfc="none")
    low = columns["low"][columns["low"] > 0.0]
    if low.size and columns["high"].max() > 3.0 * low.min():
        prices.set_yscale("log")
    volumes.bar(x, columns["volume"], width=0.7, color=colours)
    prices.set_title(f"{excerpt['symbol']}: {excerpt['code']}", fontsize=9)
    prices.set_ylabel("price", fontsize=8)
    volumes.set_ylabel("volume", fontsize=8)
    ticks = np.unique(np.linspace(0, len(times) - 1, 5).astype(int))
    volumes.set_xticks(ticks, [_said(times[tick]) for tick in ticks])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _said(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
