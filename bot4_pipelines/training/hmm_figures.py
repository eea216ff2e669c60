"""How an HMM candidate names validation and test by both its modes: numbers and plots of its card.

The filter's numbers over every scored row are the gates' and `candidates`'s; here filter and
look-ahead are put side by side on the same rows, evenly spread, with the limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from bot4_pipelines.training import plots
from bot4_pipelines.training.cuts import split_slices
from bot4_pipelines.training.dataset import CANDLE_FEATURES, INPUT_NAMES, SymbolRows
from bot4_pipelines.training.judged import HMM, LOOKAHEAD, Judged, flat, judge, limit, summarise
from bot4_pipelines.training.labels import causal_scores
from bot4_pipelines.training.model_card import (
    calibration,
    calibration_plot,
    confusion,
    confusion_plot,
)
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.features.batch import FeatureTable
from bot4_runtime.features.schema import LOOKBACK
from bot4_runtime.regime.lookahead import LookAhead
from bot4_runtime.regime.manifest import Cuts, Metrics

ROWS: Final = 22_000
"""Most rows of a split, all symbols together, that both modes are compared on."""
_SPLITS: Final = ("validation", "test")
_WARM_UP: Final = 4 * LOOKBACK


def judge_hmm(
    tables: Mapping[str, FeatureTable], look: LookAhead, cuts: Cuts, interval_ms: int
) -> dict[str, list[Judged]]:
    """Let both modes name the later splits.

    Args:
        tables: features by symbol, whole history.
        look: of the HMM.
        cuts: the splits' boundaries.
        interval_ms: length of a candle.

    Returns:
        The judged symbols by split.
    """
    judged = {}
    for split in _SPLITS:
        parts = {
            symbol: split_slices(table.open_time_ms, cuts)[split]
            for symbol, table in tables.items()
        }
        stride = -(-sum(part.stop - part.start for part in parts.values()) // ROWS)
        judged[split] = [
            _both_modes(symbol, table, parts[symbol], look, interval_ms, max(1, stride))
            for symbol, table in tables.items()
        ]
    return judged


def _both_modes(
    symbol: str, table: FeatureTable, part: slice, look: LookAhead, interval_ms: int, stride: int
) -> Judged:
    """Judge one symbol; what counts as named are the rows that were looked ahead from."""
    inputs = np.full((len(table), len(INPUT_NAMES)), np.nan)
    seen = slice(max(0, part.start - _WARM_UP), part.stop)
    inputs[seen, CANDLE_FEATURES:] = causal_scores(table.z[seen], look.params)
    rows = SymbolRows(symbol, table, inputs, np.zeros(len(table), dtype=bool))
    one = judge(rows, look.params, part, interval_ms=interval_ms, look=look, look_stride=stride)
    return replace(one, named=one.rows(same=True, model=LOOKAHEAD))


def hmm_metrics(judged: Mapping[str, Sequence[Judged]]) -> Metrics:
    """Return sections ``hmm_lookahead_<split>``, with rows, and ``baselines_<split>``."""
    metrics: Metrics = {}
    for split, symbols in judged.items():
        numbers = flat(summarise(symbols, LOOKAHEAD, same=True)["pooled"])
        rows = [one.rows(same=True, model=LOOKAHEAD) for one in symbols]
        metrics[f"hmm_lookahead_{split}"] = numbers | {"rows": float(sum(map(np.sum, rows)))}
        metrics[f"baselines_{split}"] = {
            "hmm_lookahead": numbers["accuracy"],
            "limit": limit(symbols)["pooled"]["accuracy"],
        }
    return metrics


def hmm_images(
    judged: Mapping[str, Sequence[Judged]],
    loglik: Sequence[float],
    series: CandleSeries,
    tables: Mapping[str, FeatureTable],
    cuts: Cuts,
) -> dict[str, bytes]:
    """Draw how an HMM was fitted and judged.

    Args:
        judged: by split.
        loglik: total log-likelihood at each iteration of the fit.
        series: candles of the first judged symbol.
        tables: features by symbol, whole history.
        cuts: the splits' boundaries.

    Returns:
        PNG by title.
    """
    test = judged["test"]
    learnt, recent = (
        np.concatenate(
            [one.z[split_slices(one.open_time_ms, cuts)[split]] for one in tables.values()]
        )
        for split in ("train", "test")
    )
    images = {
        "fit: log-likelihood by iteration": plots.likelihood(loglik),
        "trend: training against test": plots.distributions(
            {"z": learnt[np.isfinite(learnt)]},
            {"z": recent[np.isfinite(recent)]},
            ("training", "test"),
        ),
    }
    for model, title in ((HMM, "filter"), (LOOKAHEAD, "look-ahead")):
        table, bins = confusion(test, model), calibration(test, model)
        images[f"test: hindsight label against {title}"] = confusion_plot(table)
        images[f"test: confidence of the {title} against accuracy"] = calibration_plot(bins)
    return images | plots.split_regimes(series, test[0].labels, test[0].symbol)
