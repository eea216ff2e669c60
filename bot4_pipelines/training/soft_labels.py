"""What the hindsight label of a training candle will be, as probabilities: LSTM targets.

At each candle the Viterbi scores are known. Futures are simulated from blocks of training
returns in units of their volatility, with random sign; the window's leaving returns are known.
Viterbi continues on each future, and the share of futures whose best path names state k at the
candle is the target. Only training candles are used, and only to train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.schema import ROOT_W, RV_FLOOR, TREND_WINDOW
from bot4_runtime.regime.hmm import HmmParameters

_CHUNK: Final = 512
_NEVER: Final = 1e-9
"""Transitions less likely than this are not tried."""


@dataclass(frozen=True)
class SoftLabelInput:
    """One symbol's training candles.

    Attributes:
        log_return: float64[n], NaN at run starts.
        rv: float64[n], sqrt of the sum of the last 72 squared returns; NaN where unknown.
        score_gap: float64[n, 5], best Viterbi score minus each state's, at each candle (causal).
        wanted: bool[n], which rows get a target; 72 returns must end at each.
    """

    log_return: np.ndarray
    rv: np.ndarray
    score_gap: np.ndarray
    wanted: np.ndarray


def soft_labels(
    symbols: Sequence[SoftLabelInput],
    params: HmmParameters,
    *,
    paths: int = 16,
    horizon: int = 24,
    seed: int = 0,
) -> list[np.ndarray]:
    """Simulate the share of futures in which each state will have been named.

    Args:
        symbols: training candles.
        params: the fitted HMM.
        paths: futures a candle; half of them are the others' mirror images.
        horizon: candles a future lasts, at most 72.
        seed: of the simulation.

    Returns:
        float32[n, 5] a symbol: rows sum to 1 where wanted, else NaN.

    Raises:
        DataError: no stretch of wanted rows is as long as the horizon.
    """
    rng = np.random.default_rng(seed)
    blocks = _return_blocks(symbols, horizon, rng)
    return [_one_symbol(symbol, params, blocks, paths, rng) for symbol in symbols]


def _return_blocks(
    symbols: Sequence[SoftLabelInput], horizon: int, rng: np.random.Generator, count: int = 4_096
) -> np.ndarray:
    """Draw blocks of contiguous returns in units of volatility, float64[count, horizon]."""
    starts, pool, offset = [], [], 0
    for symbol in symbols:
        unit = symbol.log_return * ROOT_W / symbol.rv
        known = np.isfinite(unit) & symbol.wanted
        whole = np.convolve(known, np.ones(horizon), "valid") > horizon - 0.5
        starts.append(np.flatnonzero(whole) + offset)
        pool.append(unit)
        offset += len(unit)
    possible = np.concatenate(starts)
    if not len(possible):
        raise DataError(
            f"no {horizon} contiguous training rows to draw futures from; "
            "give a longer or less interrupted history"
        )
    chosen = rng.choice(possible, size=count)
    return np.concatenate(pool)[chosen[:, None] + np.arange(horizon)]


def _one_symbol(
    symbol: SoftLabelInput,
    params: HmmParameters,
    blocks: np.ndarray,
    paths: int,
    rng: np.random.Generator,
) -> np.ndarray:
    horizon = blocks.shape[1]
    result = np.full((len(symbol.rv), 5), np.nan, dtype=np.float32)
    rows = rng.permutation(np.flatnonzero(symbol.wanted))
    known = np.nan_to_num(symbol.log_return)
    total = np.concatenate([[0.0], np.cumsum(known)])
    squares = np.concatenate([[0.0], np.cumsum(known * known)])
    step = np.arange(1, horizon + 1)
    half = (paths + 1) // 2
    for begin in range(0, len(rows), _CHUNK):
        at = rows[begin : begin + _CHUNK]
        oldest = at[:, None] + 1 - TREND_WINDOW + step
        drawn = blocks[rng.integers(len(blocks), size=half)]
        drawn = np.concatenate([drawn, -drawn])[:paths]
        unit = (symbol.rv[at] / ROOT_W)[:, None, None]
        trend = (total[at + 1, None] - total[oldest])[:, None, :] + unit * np.cumsum(drawn, 1)
        power = (squares[at + 1, None] - squares[oldest])[:, None, :] + unit**2 * np.cumsum(
            drawn * drawn, 1
        )
        z = trend / np.maximum(np.sqrt(np.maximum(power, 0.0)), RV_FLOOR)
        futures = np.ascontiguousarray(z.reshape(-1, horizon).T, dtype=np.float32)
        scores = np.repeat(-symbol.score_gap[at].T, paths, axis=1).astype(np.float32)
        named = named_states(scores, futures, params).reshape(len(at), paths)
        result[at] = (named[:, :, None] == np.arange(5)).mean(axis=1)
    return result


def named_states(scores: np.ndarray, futures: np.ndarray, params: HmmParameters) -> np.ndarray:
    """Continue Viterbi and return which state each best path names at its start.

    Args:
        scores: float32[5, P], Viterbi scores at the start; changed in place.
        futures: float32[H, P], observations that follow.
        params: the HMM.

    Returns:
        int8[P].
    """
    with np.errstate(divide="ignore"):
        log_transitions = np.log(params.transitions).astype(np.float32)
    means = params.means.astype(np.float32)
    precisions = (-0.5 / params.variances).astype(np.float32)
    constants = (-0.5 * np.log(params.variances)).astype(np.float32)
    sources = [np.flatnonzero(params.transitions[:, j] > _NEVER).tolist() for j in range(5)]
    origins = np.repeat(np.arange(5, dtype=np.int8)[:, None], scores.shape[1], axis=1)
    next_scores, next_origins = np.empty_like(scores), np.empty_like(origins)
    candidate = np.empty_like(scores[0])
    better = np.empty(scores.shape[1], dtype=bool)
    for z in futures:
        for j, (first, *others) in enumerate(sources):
            best, origin = next_scores[j], next_origins[j]
            np.add(scores[first], log_transitions[first, j], out=best)
            origin[:] = origins[first]
            for i in others:
                np.add(scores[i], log_transitions[i, j], out=candidate)
                np.greater(candidate, best, out=better)
                np.maximum(candidate, best, out=best)
                np.copyto(origin, origins[i], where=better)
            np.subtract(z, means[j], out=candidate)
            candidate *= candidate
            candidate *= precisions[j]
            candidate += constants[j]
            best += candidate
        scores, next_scores = next_scores, scores
        origins, next_origins = next_origins, origins
    return np.asarray(origins[scores.argmax(axis=0), np.arange(scores.shape[1])])
