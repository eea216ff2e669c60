"""What the hindsight label of a training candle will be, as probabilities: LSTM targets.

The estimate is the runtime's look-ahead (`bot4_runtime.regime.lookahead`), with fewer futures and
fresh ones every few hundred candles, drawn from training returns. Only training candles are used,
and only to train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.schema import TREND_WINDOW
from bot4_runtime.regime.hmm import STATES, HmmParameters
from bot4_runtime.regime.lookahead import lookahead_posterior

_CHUNK: Final = 512
"""Candles that meet the same futures."""


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
        horizon: candles a future lasts, less than 72.
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
        unit = symbol.log_return / symbol.rv
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
    result = np.full((len(symbol.rv), STATES), np.nan, dtype=np.float32)
    rows = rng.permutation(np.flatnonzero(symbol.wanted))
    half = (paths + 1) // 2
    for begin in range(0, len(rows), _CHUNK):
        at = rows[begin : begin + _CHUNK]
        drawn = blocks[rng.integers(len(blocks), size=half)]
        drawn = np.concatenate([drawn, -drawn])[:paths]
        result[at] = lookahead_posterior(
            trend_returns(symbol.log_return, at), symbol.score_gap[at], params, drawn
        )
    return result


def trend_returns(log_return: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the returns of the trend window that ends at each row.

    Args:
        log_return: float64[n], NaN at run starts.
        rows: int64[m].

    Returns:
        float64[m, 72], oldest first; NaN before the first candle.
    """
    before = np.full(TREND_WINDOW - 1, np.nan)
    windows = sliding_window_view(np.concatenate([before, log_return]), TREND_WINDOW)
    return np.asarray(windows[rows])
