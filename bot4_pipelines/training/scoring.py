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

_NAMES: Final = STATES + 1
"""What a candle may be named: nothing, or a state."""

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


@dataclass(frozen=True)
class Counts:
    """What a symbol's scores are computed from, block of time by block of time.

    Attributes:
        blocks: int64[B], increasing numbers of the blocks that hold a scored row.
        sums: float64[B, K], over each block's scored rows; columns as `_numbers` reads them.
        calibrated: whether the estimate has probabilities.
    """

    blocks: np.ndarray
    sums: np.ndarray
    calibrated: bool


def count(labels: np.ndarray, estimate: Estimate, rows: np.ndarray, blocks: np.ndarray) -> Counts:
    """Count label against estimate of one symbol.

    Args:
        labels: int64[n], hindsight labels; -1 where there are none.
        estimate: of the same candles.
        rows: bool[n], which are scored; all of them have a label.
        blocks: int64[n], bootstrap block of each candle's time.
    """
    truth, named = labels[rows], estimate.named[rows]
    numbers, place = np.unique(blocks[rows], return_inverse=True)
    right = (truth == named).astype(np.float64)
    near = _near_switch(labels)[rows].astype(np.float64)
    bins, gaps = _calibration(estimate, right, rows)
    starts, late, hit = _delays(labels, estimate.named, rows)
    onset = np.searchsorted(numbers, blocks[starts])
    size, cells = len(numbers), STATES * _NAMES
    sums = np.concatenate(
        [
            _sum(place * cells + truth * _NAMES + named + 1, None, size, cells),
            _sum(place * ECE_BINS + bins, gaps, size, ECE_BINS),
            *(_sum(place, column, size) for column in (near * right, near)),
            *(_sum(onset, column, size) for column in (late * hit, hit, np.ones(len(hit)))),
        ],
        axis=1,
    )
    return Counts(numbers, sums, estimate.probabilities is not None)


def _sum(place: np.ndarray, values: np.ndarray | None, rows: int, columns: int = 1) -> np.ndarray:
    """Sum values by place, float64[rows, columns]; count places when there are no values."""
    total = np.bincount(place, values, minlength=rows * columns)
    return np.asarray(total, dtype=np.float64).reshape(rows, columns)


def _numbers(sums: np.ndarray, *, calibrated: bool) -> dict[str, np.ndarray]:
    """Compute the scores from sums float64[..., K]: float64[...] each, NaN where undefined."""
    edge = STATES * _NAMES
    table = sums[..., :edge].reshape(*sums.shape[:-1], STATES, _NAMES)
    gaps, (near_right, near, late, hit, segments) = (
        sums[..., edge : edge + ECE_BINS],
        np.moveaxis(sums[..., edge + ECE_BINS :], -1, 0),
    )
    states = np.arange(STATES)
    hits, support = table[..., states, states + 1], table.sum(axis=-1)
    answers = table[..., 1:].sum(axis=-2)
    present = support > 0
    wanted = present | (answers > 0)
    right, rows = hits.sum(axis=-1), support.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(present, hits / support, 0.0)
        f1 = np.where(wanted, 2.0 * hits / (support + answers), 0.0)
        found = {
            "accuracy": right / rows,
            "balanced_accuracy": recall.sum(axis=-1) / present.sum(axis=-1),
            "macro_f1": f1.sum(axis=-1) / wanted.sum(axis=-1),
            "ece": np.abs(gaps).sum(axis=-1) / rows,
            "near": near_right / near,
            "far": (right - near_right) / (rows - near),
            "delay": late / hit,
            "missed": 1.0 - hit / segments,
        }
    if not calibrated:
        found["ece"] = np.full(sums.shape[:-1], np.nan)
    return found


def score(counts: Counts) -> Numbers:
    """Score an estimate of one symbol.

    Returns:
        accuracy, balanced_accuracy and macro_f1 (as scikit-learn defines them), ece (15 equal
        bins of the largest probability; None without probabilities), near and far (accuracy
        within 3 candles of a switch of the label, and elsewhere), delay (mean candles from a
        label's onset to its first naming, segments never named left out) and missed (the share
        of those).
    """
    found = _numbers(counts.sums.sum(axis=0), calibrated=counts.calibrated)
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def intervals(symbols: Sequence[Counts], seed: int = 0) -> dict[str, tuple[float, float] | None]:
    """Bootstrap the unweighted mean over symbols of each score.

    Whole blocks of `BLOCK` candles of time are drawn with replacement, the same for all symbols.
    Resampling adds noise to each bin of the calibration error, which is a sum of absolute values
    and so comes out too large; its draws are moved back by that much.

    Args:
        symbols: what was counted of each.
        seed: of the draws.

    Returns:
        The 95 % interval by name of the score; None where a draw has no such number.
    """
    used = [one for one in symbols if len(one.blocks)]
    if not used:
        return {}
    blocks = np.unique(np.concatenate([one.blocks for one in used]))
    drawn = _draws(len(blocks), seed)
    found: dict[str, list[np.ndarray]] = {}
    for one in used:
        sums = np.zeros((len(blocks), one.sums.shape[1]))
        sums[np.searchsorted(blocks, one.blocks)] = one.sums
        values = _numbers(drawn @ sums, calibrated=one.calibrated)
        if one.calibrated:
            exact = _numbers(sums.sum(axis=0), calibrated=True)["ece"]
            values["ece"] = np.maximum(values["ece"] - np.nanmean(values["ece"]) + exact, 0.0)
        for name, column in values.items():
            found.setdefault(name, []).append(column)
    return {name: _percentiles(np.array(columns).T) for name, columns in found.items()}


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
    drawn = _draws(len(blocks), seed)
    total, size = drawn @ np.array(sums).T, drawn @ np.array(counts).T
    with np.errstate(invalid="ignore"):
        return _percentiles(total / size)


def _draws(blocks: int, seed: int) -> np.ndarray:
    """Draw how often each block is taken, int64[DRAWS, blocks]."""
    shares = np.full(blocks, 1.0 / blocks)
    return np.random.default_rng(seed).multinomial(blocks, shares, size=DRAWS)


def _percentiles(values: np.ndarray) -> tuple[float, float] | None:
    """Return the interval of float64[draws, symbols], averaged over the symbols a draw knows."""
    known = np.isfinite(values)
    means = np.where(known, values, 0.0).sum(axis=1)[known.any(axis=1)]
    if not len(means):
        return None
    means /= known.sum(axis=1)[known.any(axis=1)]
    tail = 50.0 * (1.0 - LEVEL)
    low, high = np.percentile(means, [tail, 100.0 - tail])
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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find when each scored segment of the label is first named.

    Returns:
        Rows at which segments begin, candles until the first naming, and whether (1 or 0) it came.
    """
    change = np.ones(len(labels), dtype=bool)
    change[1:] = (labels[1:] != labels[:-1]) | (rows[1:] != rows[:-1])
    starts = np.flatnonzero(change)
    onset = starts > 0
    onset[1:] &= (labels[starts[1:] - 1] >= 0) & rows[starts[1:] - 1]
    keep = rows[starts] & onset
    place = np.where(labels == named, np.arange(len(labels)), len(labels))
    first = np.minimum.reduceat(place, starts)[keep]
    ends = np.append(starts[1:], len(labels))[keep]
    return starts[keep], first - starts[keep], (first < ends).astype(np.float64)


def _calibration(
    estimate: Estimate, right: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each scored row's confidence, and confidence minus being right."""
    if estimate.probabilities is None:
        return np.zeros(len(right), dtype=np.int64), np.zeros(len(right))
    confidence = np.nan_to_num(estimate.probabilities[rows].max(axis=1))
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    return bins, confidence - right
