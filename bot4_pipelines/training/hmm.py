"""Fitting the HMM: deterministic, and mirror-symmetric by construction.

Quantile means and fixed transitions replace random initialisation, and the fit sees every run
twice, once with its sign turned; what is left of asymmetry is averaged away. So the same candles
give the same regimes, and other years or symbols nearly the same (models.md, refit stability).
The HMM sees z alone: with raw volatility beside it the states become levels of volatility and
stop naming a direction.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_pipelines.training.labels import segments
from bot4_runtime.domain.errors import DataError
from bot4_runtime.regime.hmm import STATES, TRANSITION_FLOOR, HmmParameters

ITERATIONS: Final = 40
TOLERANCE: Final = 5.0
"""Gain in total log-likelihood below which the fit stops."""
LEAST_ROWS: Final = 1_000
LEAST_RUN: Final = 2
_STAY, _STEP = 0.92, 0.04

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HmmFit:
    """A fitted HMM and how the fit went.

    Attributes:
        params: symmetric, ordered by mean.
        loglik: total log-likelihood of [z, -z] at each iteration.
        iterations: how many there were.
        converged: whether the tolerance was reached before the iterations ran out.
        rows: trends it was fitted on, not counting the mirrored ones.
    """

    params: HmmParameters
    loglik: tuple[float, ...]
    iterations: int
    converged: bool
    rows: int


def known_runs(z: Floats, rows: slice) -> list[Floats]:
    """Return one symbol's runs of known trends inside a split, for `fit_hmm`."""
    return [z[part] for part in segments(z, [rows])]


def fit_hmm(
    z_by_symbol: Mapping[str, Sequence[Floats]],
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> HmmFit:
    """Fit five states on the training trends of a pool of symbols.

    Args:
        z_by_symbol: the runs of each symbol, float64[T] each, training candles only. The order
            of the symbols does not matter.
        iterations: at most.
        tolerance: least gain in total log-likelihood.

    Raises:
        DataError: fewer than 1,000 trends, or trends that do not vary.
    """
    from hmmlearn.hmm import GaussianHMM

    runs = [run for symbol in sorted(z_by_symbol) for run in z_by_symbol[symbol]]
    runs = [run for run in runs if len(run) >= LEAST_RUN]
    rows = sum(len(run) for run in runs)
    if rows < LEAST_ROWS:
        raise DataError(
            f"the HMM needs at least {LEAST_ROWS} training trends; got {rows} from "
            f"{len(z_by_symbol)} symbols: ingest more history"
        )
    z = np.concatenate(runs)
    both = np.concatenate([z, -z])
    lengths = [len(run) for run in runs] * 2
    means = _quantile_means(both)
    if not (np.diff(means) > 0.0).all():
        raise DataError("the training trends do not vary: these candles are not a market's")
    model = GaussianHMM(
        STATES,
        "diag",
        init_params="",
        params="tmc",
        n_iter=iterations,
        tol=tolerance,
        implementation="scaling",
    )
    model.startprob_ = np.full(STATES, 1.0 / STATES)
    model.means_ = means[:, None]
    model.covars_ = np.full((STATES, 1), both.var() / STATES**2)
    model.transmat_ = _first_transitions()
    logger = logging.getLogger("hmmlearn")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        model.fit(both[:, None], lengths)
    finally:
        logger.setLevel(level)
    order = np.argsort(model.means_[:, 0])
    params = symmetrise(
        model.means_[order, 0],
        np.asarray(model.covars_)[order].reshape(STATES),
        model.transmat_[np.ix_(order, order)],
    )
    monitor = model.monitor_
    return HmmFit(
        params=params,
        loglik=tuple(float(value) for value in monitor.history),
        iterations=int(monitor.iter),
        converged=len(monitor.history) > 1
        and float(monitor.history[-1] - monitor.history[-2]) < tolerance,
        rows=rows,
    )


def symmetrise(means: Floats, variances: Floats, transitions: Floats) -> HmmParameters:
    """Average parameters with their mirror image, states in order of means.

    Raises:
        ModelError: what comes out is no HMM of five distinct states.
    """
    moved = (transitions + transitions[::-1, ::-1]) / 2.0
    moved = np.maximum(moved, TRANSITION_FLOOR)
    return HmmParameters(
        (means - means[::-1]) / 2.0,
        (variances + variances[::-1]) / 2.0,
        moved / moved.sum(axis=1, keepdims=True),
    )


def _quantile_means(z: Floats) -> Floats:
    """Return the mean of each fifth of the sorted trends, float64[5]."""
    return np.array([part.mean() for part in np.array_split(np.sort(z), STATES)])


def _first_transitions() -> Floats:
    """Return transitions that stay, or go to a neighbour; what is 0 here stays 0 in the fit."""
    moves = _STAY * np.eye(STATES) + _STEP * (np.eye(STATES, k=1) + np.eye(STATES, k=-1))
    return np.asarray(moves / moves.sum(axis=1, keepdims=True), dtype=np.float64)
