"""Numbers about estimates and labels: agreement, calibration, delay, and their uncertainty.

Accuracy is agreement of a causal estimate with the hindsight label of the same candle. Candles
near each other err together, and so do symbols at the same time; intervals therefore come from
resampling whole blocks of time, the same blocks for all symbols.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot4_runtime.regime.hmm import STATES

NEAR: Final = 3
"""Candles on each side of a switch that count as near it."""
ECE_BINS: Final = 15
BLOCK: Final = 168
"""Candles of a bootstrap block: a week of hours."""
DRAWS: Final = 1_000
LEVEL: Final = 0.95

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Estimate:
    """What a model named a symbol's candles.

    Attributes:
        named: int64[n], 0-4; -1 where it named nothing, which counts as wrong where scored.
        probabilities: float64[n, 5] of all states, or None when the model gives none.
    """

    named: np.ndarray
    probabilities: np.ndarray | None = None

    @classmethod
    def of(cls, probabilities: np.ndarray) -> "Estimate":
        """Name the likeliest state of float64[n, 5]; NaN rows name nothing."""
        known = np.isfinite(probabilities).all(axis=1)
        named = np.where(known, np.nan_to_num(probabilities).argmax(axis=1), -1)
        return cls(named, probabilities)


def score(labels: np.ndarray, estimate: Estimate, rows: np.ndarray) -> Numbers:
    """Score an estimate of one symbol.

    Args:
        labels: int64[n], hindsight labels; -1 where there are none.
        estimate: of the same candles.
        rows: bool[n], which are scored; all of them have a label.

    Returns:
        accuracy, balanced_accuracy and macro_f1 (as scikit-learn defines them), ece (15 equal
        bins of the largest probability; None without probabilities), near and far (accuracy
        within 3 candles of a switch of the label, and elsewhere), delay (mean candles from a
        label's onset to its first naming, segments never named left out) and missed (the share
        of those).
    """
    truth, named = labels[rows], estimate.named[rows]
    right = truth == named
    near = _near_switch(labels)[rows]
    table = np.array([np.bincount(named[truth == k] + 1, minlength=STATES + 1)[1:]
                      for k in range(STATES)], dtype=np.float64)  # fmt: skip
    hits = np.diag(table)
    support = np.bincount(truth, minlength=STATES)
    present = support > 0
    wanted = present | (table.sum(axis=0) > 0)
    f1 = 2.0 * hits / np.maximum(support + table.sum(axis=0), 1.0)
    delay, missed = _delays(labels, estimate.named, rows)
    return {
        "accuracy": _mean(right),
        "balanced_accuracy": _mean((hits / np.maximum(support, 1))[present]),
        "macro_f1": _mean(f1[wanted]),
        "ece": _calibration_error(estimate, right, rows),
        "near": _mean(right[near]),
        "far": _mean(right[~near]),
        "delay": delay,
        "missed": missed,
    }


def pool(scores: Sequence[Mapping[str, float | None]]) -> Numbers:
    """Return the unweighted mean over symbols of each number; None where any is missing."""
    names = scores[0] if scores else {}
    pooled: Numbers = {}
    for name in names:
        values = [one[name] for one in scores]
        known = [value for value in values if value is not None]
        pooled[name] = _mean(np.array(known)) if len(known) == len(values) else None
    return pooled


def block_interval(
    symbols: Sequence[tuple[np.ndarray, np.ndarray]], seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap the unweighted mean over symbols of a mean over candles.

    Whole blocks of `BLOCK` candles of time are drawn with replacement, the same for all symbols.

    Args:
        symbols: per symbol, block numbers int64[n] and values float64[n] of its scored candles.
        seed: of the draws.

    Returns:
        The 95 % interval; None when nothing is scored.
    """
    used = [pair for pair in symbols if len(pair[0])]
    if not used:
        return None
    blocks, places = np.unique(np.concatenate([b for b, _ in used]), return_inverse=True)
    sums, counts, offset = [], [], 0
    for numbers, values in used:
        place = places[offset : offset + len(numbers)]
        offset += len(numbers)
        sums.append(np.bincount(place, values, minlength=len(blocks)))
        counts.append(np.bincount(place, minlength=len(blocks)))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1.0 / len(blocks)), size=DRAWS)
    total, size = drawn @ np.array(sums).T, drawn @ np.array(counts).T
    with np.errstate(invalid="ignore"):
        means = np.nanmean(np.where(size > 0, total / size, np.nan), axis=1)
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.nanpercentile(means, [tail, 100.0 - tail])
    return float(low), float(high)


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _near_switch(labels: np.ndarray) -> np.ndarray:
    """Return which candles lie within `NEAR` of a switch between two labels, bool[n]."""
    near = np.zeros(len(labels), dtype=bool)
    switches = np.flatnonzero((labels[1:] != labels[:-1]) & (labels[1:] >= 0) & (labels[:-1] >= 0))
    for step in range(1 - NEAR, NEAR + 1):
        places = switches + step
        near[places[(places >= 0) & (places < len(labels))]] = True
    return near


def _delays(
    labels: np.ndarray, named: np.ndarray, rows: np.ndarray
) -> tuple[float | None, float | None]:
    """Return the mean delay of naming a label's segment, and the share never named."""
    change = np.ones(len(labels), dtype=bool)
    change[1:] = (labels[1:] != labels[:-1]) | (rows[1:] != rows[:-1])
    starts = np.flatnonzero(change)
    onset = starts > 0
    onset[1:] &= (labels[starts[1:] - 1] >= 0) & rows[starts[1:] - 1]
    keep = rows[starts] & onset
    if not keep.any():
        return None, None
    place = np.where(labels == named, np.arange(len(labels)), len(labels))
    first = np.minimum.reduceat(place, starts)[keep]
    ends = np.append(starts[1:], len(labels))[keep]
    hit = first < ends
    delay = (first - starts[keep])[hit]
    return _mean(delay), 1.0 - float(hit.mean())


def _calibration_error(estimate: Estimate, right: np.ndarray, rows: np.ndarray) -> float | None:
    if estimate.probabilities is None or not len(right):
        return None
    confidence = estimate.probabilities[rows].max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, confidence - right, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(right))
