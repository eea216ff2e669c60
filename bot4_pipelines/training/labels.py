"""What the regime was: hindsight labels by Viterbi, split by split and run by run.

A label may see the future of its own split, never that of another: the decode starts afresh at
each split's first candle and ends at its last. The causal filter over the same segments, whose
agreement with the labels is the HMM's accuracy, is here too, and the smoother, which says how sure
hindsight is of them.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bot4_runtime.regime.hmm import (
    STATES,
    HmmParameters,
    forward_filter,
    smooth,
    viterbi,
    viterbi_scores,
)

NO_LABEL = -1
"""Where there is no trend, and outside the splits."""


def segments(z: npt.NDArray[np.float64], splits: Iterable[slice]) -> list[slice]:
    """Return the stretches inside the splits over which the trend is known without a break.

    A gap in the candles breaks the trend for 72 rows, so a stretch never spans one.

    Args:
        z: float64[n], NaN where unknown.
        splits: ranges of rows; a stretch never spans two.
    """
    known = np.isfinite(z)
    result = []
    for rows in splits:
        inside = np.concatenate([[False], known[rows], [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + rows.start
        result += [slice(*pair) for pair in edges.reshape(-1, 2).tolist()]
    return result


def hindsight_labels(
    z: npt.NDArray[np.float64], params: HmmParameters, splits: Iterable[slice]
) -> npt.NDArray[np.int64]:
    """Decode each stretch from the stationary prior (viterbi: sees its whole stretch).

    Args:
        z: float64[n], one symbol's trend, NaN where unknown.
        params: the HMM, fitted on training candles.
        splits: ranges of rows that must not see each other.

    Returns:
        int64[n], 0-4, `NO_LABEL` where there is none.
    """
    labels = np.full(len(z), NO_LABEL, dtype=np.int64)
    for rows in segments(z, splits):
        labels[rows] = viterbi(z[rows], params)
    return labels


def filtered_regimes(
    z: npt.NDArray[np.float64], params: HmmParameters, splits: Iterable[slice]
) -> npt.NDArray[np.float64]:
    """Filter each stretch from the stationary prior (filtered: row t has seen rows up to t).

    Returns:
        float64[n, 5], rows sum to 1; NaN where there is no estimate.
    """
    result = np.full((len(z), STATES), np.nan)
    for rows in segments(z, splits):
        result[rows] = forward_filter(z[rows], params)[0]
    return result


def smoothed_regimes(
    z: npt.NDArray[np.float64], params: HmmParameters, splits: Iterable[slice]
) -> npt.NDArray[np.float64]:
    """Smooth each stretch from the stationary prior (smoothed: sees its whole stretch).

    Returns:
        float64[n, 5], rows sum to 1; NaN where there is no estimate.
    """
    result = np.full((len(z), STATES), np.nan)
    for rows in segments(z, splits):
        result[rows] = smooth(z[rows], params)
    return result


def causal_scores(z: npt.NDArray[np.float64], params: HmmParameters) -> npt.NDArray[np.float64]:
    """Return the Viterbi scores that the LSTM reads (causal), restarted at each run.

    Returns:
        float64[n, 5], columns `SCORE_NAMES`; NaN where the trend is unknown.
    """
    result = np.full((len(z), STATES), np.nan)
    for rows in segments(z, [slice(0, len(z))]):
        result[rows] = viterbi_scores(z[rows], params)
    return result
