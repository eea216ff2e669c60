"""Monte-Carlo look-ahead Viterbi: what hindsight will name a candle, as probabilities (causal).

At a candle the Viterbi scores of its run are known, and so are the returns that will leave the
72-candle trend window next. Futures are drawn once, from blocks of training returns in units of
rv_72, each beside its mirror image, and scaled by the candle's own rv_72. Viterbi is carried on
along each, and the share of futures whose best path names state k at the candle is its
probability. Every candle meets the same futures, so an answer depends on nothing but the candle's
own window and scores. The training targets of the LSTM (`training.soft_labels`) are made by the
same functions.

Here: the draw of futures, the posterior, and the pool of blocks in an HMM file's metadata. Not
here: the scores (`hmm`), and when the detector asks (`detector`).
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.features.schema import RV_FLOOR, TREND_WINDOW
from bot4_runtime.regime.hmm import STATES, Floats, HmmParameters

PATHS: Final = 64
HORIZON: Final = 24
SEED: Final = 0
MAX_POOL: Final = 4_096
"""Most numbers that the pool of an HMM file holds."""
BLOCKS_KEY: Final = "return_blocks_float32"
BLOCK_LENGTH_KEY: Final = "return_block_length"
_FIRST: Final = 3
"""Candles whose net return the draw of futures is stratified by."""
_LANES: Final = 8_192
"""Futures carried on at once: their arrays stay in the processor's cache."""
_NEVER: Final = 1e-9
"""Transitions less likely than this are not tried."""


class LookAhead:
    """The look-ahead estimate of one HMM file: its parameters and the futures of its pool."""

    def __init__(
        self,
        params: HmmParameters,
        blocks: npt.NDArray[np.floating[Any]],
        *,
        paths: int = PATHS,
        horizon: int = HORIZON,
        seed: int = SEED,
    ) -> None:
        """Draw the futures.

        Args:
            params: the fitted HMM.
            blocks: float[b, length], contiguous training returns in units of rv_72.
            paths: futures a candle.
            horizon: candles a future lasts.
            seed: of the draw.

        Raises:
            ModelError: the pool's blocks are fewer or shorter than asked for.
        """
        self.params = params
        self.futures = draw_futures(blocks, paths=paths, horizon=horizon, seed=seed)

    def posterior(self, returns: Floats, gaps: Floats) -> Floats:
        """Return `lookahead_posterior` under this HMM and these futures."""
        return lookahead_posterior(returns, gaps, self.params, self.futures)


def draw_futures(
    blocks: npt.NDArray[np.floating[Any]],
    *,
    paths: int = PATHS,
    horizon: int = HORIZON,
    seed: int = SEED,
) -> Floats:
    """Draw one future from each stratum of equally many blocks; the second half mirrors the first.

    Strata are of the size of the net return of a block's first candles, which decide most of what
    a label becomes: confidences then depend half as much on the draw as on a plain one of so few.

    Args:
        blocks: float[b, length], contiguous training returns in units of rv_72.
        paths: futures to draw, even.
        horizon: candles a future lasts, less than 72.
        seed: of the draw.

    Returns:
        float64[paths, horizon], in units of rv_72.

    Raises:
        ModelError: the blocks are not finite, or fewer or shorter than asked for.
    """
    half, odd = divmod(paths, 2)
    pool = np.asarray(blocks, dtype=np.float64)
    enough = pool.ndim == 2 and pool.shape[0] >= half and pool.shape[1] >= horizon
    if odd or half < 1 or not 1 <= horizon < TREND_WINDOW or not enough:
        raise ModelError(
            f"cannot draw {paths} futures of {horizon} candles from blocks of shape {pool.shape}; "
            f"expected an even number, fewer than {TREND_WINDOW} candles, at least {half} blocks "
            "as long as that: train and promote an HMM with a larger pool"
        )
    if not np.isfinite(pool).all():
        raise ModelError("the HMM file's blocks of returns are not finite: train it again")
    pool = pool[:, :horizon]
    order = np.argsort(np.abs(pool[:, :_FIRST].sum(axis=1)), kind="stable")
    rng = np.random.default_rng(seed)
    drawn = pool[[rng.choice(stratum) for stratum in np.array_split(order, half)]]
    return np.concatenate([drawn, -drawn])


def lookahead_posterior(
    returns: Floats, gaps: Floats, params: HmmParameters, futures: Floats
) -> Floats:
    """Return how often each state is what hindsight will name, over the futures.

    Args:
        returns: float64[m, 72], each candle's last log returns, oldest first.
        gaps: float64[m, 5], best Viterbi score minus each state's at the candle (causal).
        params: the fitted HMM.
        futures: float64[P, H], returns that follow in units of the candle's rv_72.

    Returns:
        float64[m, 5], rows sum to 1; NaN where a return or a score is not finite, as at gaps.
    """
    result = np.full((len(returns), STATES), np.nan)
    rows = np.flatnonzero(np.isfinite(returns).all(axis=1) & np.isfinite(gaps).all(axis=1))
    paths, horizon = futures.shape
    states = np.arange(STATES)
    size = max(1, _LANES // paths)
    for begin in range(0, len(rows), size):
        at = rows[begin : begin + size]
        trends = _future_trends(returns[at], futures).reshape(-1, horizon).T
        scores = np.repeat(-gaps[at].T, paths, axis=1).astype(np.float32)
        named = named_states(scores, np.ascontiguousarray(trends, dtype=np.float32), params)
        result[at] = (named.reshape(len(at), paths)[:, :, None] == states).mean(axis=1)
    return result


def _future_trends(returns: Floats, futures: Floats) -> Floats:
    """Roll the trend z along futures, the leaving returns known; float64[m, P, H]."""
    horizon = futures.shape[1]
    squares = returns * returns
    rv = np.maximum(np.sqrt(np.cumsum(squares, axis=1)[:, -1]), RV_FLOOR)
    kept, power = (
        np.cumsum(column[:, ::-1], axis=1)[:, ::-1][:, None, 1 : horizon + 1]
        for column in (returns, squares)
    )
    total = kept + rv[:, None, None] * np.cumsum(futures, axis=1)
    power = power + (rv * rv)[:, None, None] * np.cumsum(futures * futures, axis=1)
    trends: Floats = total / np.maximum(np.sqrt(power), RV_FLOOR)
    return trends


def named_states(
    scores: npt.NDArray[np.float32], futures: npt.NDArray[np.float32], params: HmmParameters
) -> npt.NDArray[np.int8]:
    """Continue Viterbi and return which state each best path names at its start.

    Args:
        scores: float32[5, P], Viterbi scores at the start; changed in place.
        futures: float32[H, P], observations that follow.
        params: the HMM.

    Returns:
        int8[P].
    """
    log_transitions = params.log_transitions.astype(np.float32)
    means = params.means.astype(np.float32)
    precisions = (-0.5 / params.variances).astype(np.float32)
    constants = (-0.5 * np.log(params.variances)).astype(np.float32)
    sources = [np.flatnonzero(params.transitions[:, j] > _NEVER).tolist() for j in range(STATES)]
    origins = np.repeat(np.arange(STATES, dtype=np.int8)[:, None], scores.shape[1], axis=1)
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


def return_blocks_of(metadata: Mapping[str, str]) -> npt.NDArray[np.float32]:
    """Read the pool of blocks from an HMM file's metadata, float32[blocks, length].

    Raises:
        ModelError: there is none, or it is damaged.
    """
    try:
        raw = base64.b64decode(metadata[BLOCKS_KEY], validate=True)
        return np.frombuffer(raw, dtype="<f4").reshape(-1, int(metadata[BLOCK_LENGTH_KEY]))
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"the HMM file carries no readable pool of return blocks ({error!r}): export it again"
        ) from error
