"""The five-state Gaussian HMM on the volatility-normalised trend z, in numpy.

Here: its parameters, the forward filter (what the regime is, from candles up to now), the
Viterbi decode and the forward-backward smoother (what it was, in hindsight), and the causal
Viterbi scores that the LSTM reads.
Not here: fitting (`bot4_pipelines.training.hmm`) and the ONNX form (`training.hmm_export`).

Source: Rabiner, A tutorial on hidden Markov models, Proc. IEEE 77 (1989), eqs. 19-20 (forward,
scaled), 24-27 (backward, smoothed), 32-35 (Viterbi). Checked in tests against hmmlearn and
against all paths enumerated.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.domain.regime import Regime

STATES: Final = len(Regime)
TRANSITION_FLOOR: Final = 1e-12
"""Least transition probability a fit leaves: no state is ever impossible, so sums of scaled
probabilities cannot underflow."""
SCORE_NAMES: Final[tuple[str, ...]] = tuple(f"viterbi_score_{state}" for state in range(STATES))
"""Names of the columns of `viterbi_scores`, appended to the candle features."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HmmParameters:
    """What a fitted HMM knows; states are ordered by mean, StrongBear first.

    Attributes:
        means: float64[5], of z; strictly increasing.
        variances: float64[5], of z; positive.
        transitions: float64[5, 5], row i: probabilities of the next state given state i.

    Raises:
        ModelError: a shape is wrong, a number is not finite, the means are not in order, or
            a row of transitions is not a distribution over all states.
    """

    means: Floats
    variances: Floats
    transitions: Floats

    def __post_init__(self) -> None:
        for name in ("means", "variances", "transitions"):
            column = np.array(getattr(self, name), dtype=np.float64)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        expected = ((STATES,), (STATES,), (STATES, STATES))
        shapes = (self.means.shape, self.variances.shape, self.transitions.shape)
        if shapes != expected:
            raise ModelError(f"HMM parameters have shapes {shapes}; expected {expected}: refit")
        sound = (
            bool(np.isfinite(self.means).all())
            and bool((np.diff(self.means) > 0.0).all())
            and bool((np.isfinite(self.variances) & (self.variances > 0.0)).all())
            and bool((self.transitions >= 0.5 * TRANSITION_FLOOR).all())
            and bool((np.abs(self.transitions.sum(axis=1) - 1.0) <= 1e-9).all())
        )
        if not sound:
            raise ModelError(
                f"impossible HMM parameters: means {self.means.tolist()}, variances "
                f"{self.variances.tolist()}, transitions {self.transitions.tolist()}; expected "
                "increasing means, positive variances, positive rows that sum to 1: refit"
            )

    def stationary(self) -> Floats:
        """Return the long-run share of each state, float64[5]; the prior of every new run."""
        system = np.vstack([self.transitions.T - np.eye(STATES), np.ones(STATES)])
        target = np.append(np.zeros(STATES), 1.0)
        shares = np.linalg.lstsq(system, target, rcond=None)[0]
        positive: Floats = np.maximum(shares, TRANSITION_FLOOR)
        positive /= positive.sum()
        return positive

    @cached_property
    def log_transitions(self) -> Floats:
        """Natural logs of `transitions`, float64[5, 5]."""
        logs: Floats = np.log(self.transitions)
        return logs

    @cached_property
    def log_stationary(self) -> Floats:
        """Natural logs of `stationary()`, float64[5]."""
        return np.log(self.stationary())

    def log_emissions(self, z: Floats) -> Floats:
        """Return ln p(z | state), float64[T, 5], for observations float64[T].

        Raises:
            DataError: an observation is not finite.
        """
        z = np.asarray(z, dtype=np.float64)
        if z.ndim != 1 or not np.isfinite(z).all():
            raise DataError(
                f"the HMM observes finite trends in one dimension; got shape {z.shape} with "
                f"{int((~np.isfinite(z)).sum())} not finite: split at gaps first"
            )
        distance = z[:, None] - self.means
        logs: Floats = -0.5 * (distance**2 / self.variances + np.log(2 * math.pi * self.variances))
        return logs


def forward_filter(
    z: Floats, params: HmmParameters, log_prior: Floats | None = None
) -> tuple[Floats, Floats, float]:
    """Estimate the state at each candle from candles up to it (filtered).

    Args:
        z: float64[T], the trend, one contiguous run.
        params: the fitted HMM.
        log_prior: float64[5], ln p(state of the first row | what came before); the stationary
            distribution when None.

    Returns:
        filtered float64[T, 5] (rows sum to 1), the log prior of the row after the last
        float64[5], and ln p(z | what came before).

    Raises:
        DataError: an observation is not finite.
    """
    logs = params.log_emissions(z)
    largest = logs.max(axis=1, keepdims=True)
    emissions = np.exp(logs - largest)
    filtered = np.empty_like(logs)
    scales = np.empty(len(logs))
    prior = np.exp(params.log_stationary if log_prior is None else log_prior)
    transitions = params.transitions
    for row, emission in enumerate(emissions):
        joint = prior * emission
        scale = joint.sum()
        state = joint / scale
        filtered[row] = state
        scales[row] = scale
        prior = state @ transitions
    loglik = float(np.log(scales).sum() + largest.sum())
    return filtered, np.log(prior), loglik


def smooth(z: Floats, params: HmmParameters) -> Floats:
    """Estimate the state at each candle from the whole run (smoothed: uses all of z).

    For hindsight alone: nothing that trades may read it.

    Args:
        z: float64[T], the trend, one contiguous run that starts from the stationary prior.
        params: the fitted HMM.

    Returns:
        float64[T, 5], rows sum to 1; the last row is the filter's.

    Raises:
        DataError: an observation is not finite.
    """
    logs = params.log_emissions(z)
    emissions = np.exp(logs - logs.max(axis=1, keepdims=True))
    smoothed = forward_filter(z, params)[0]
    later = np.ones(STATES)
    for row in range(len(logs) - 2, -1, -1):
        later = params.transitions @ (emissions[row + 1] * later)
        later /= later.sum()
        joint = smoothed[row] * later
        smoothed[row] = joint / joint.sum()
    return smoothed


def viterbi(z: Floats, params: HmmParameters) -> Integers:
    """Name the most likely path of states of a whole run (viterbi: uses all of z).

    Args:
        z: float64[T], the trend, one contiguous run that starts from the stationary prior.
        params: the fitted HMM.

    Returns:
        int64[T], states 0-4.

    Raises:
        DataError: an observation is not finite.
    """
    logs = params.log_emissions(z)
    path = np.empty(len(logs), dtype=np.int64)
    if not len(logs):
        return path
    came_from = np.zeros((len(logs), STATES), dtype=np.int64)
    into = np.ascontiguousarray(params.log_transitions.T)
    score = params.log_stationary + logs[0]
    for row in range(1, len(logs)):
        candidates = into + score
        candidates.argmax(axis=1, out=came_from[row])
        score = candidates.max(axis=1) + logs[row]
        score -= score.max()
    state = int(score.argmax())
    back = came_from.tolist()
    for row in range(len(logs) - 1, -1, -1):
        path[row] = state
        state = back[row][state]
    return path


def viterbi_scores(z: Floats, params: HmmParameters) -> Floats:
    """Return how far each state's best path lies behind the best of all (causal).

    Args:
        z: float64[T], the trend, one contiguous run.
        params: the fitted HMM.

    Returns:
        float64[T, 5]: log1p(best log score - the state's), 0 for the leading state; row t has
        seen candles up to t.

    Raises:
        DataError: an observation is not finite.
    """
    scores = ViterbiScores(params)
    rows = [scores.follow(emission) for emission in params.log_emissions(z)]
    return np.array(rows).reshape(-1, STATES)


class ViterbiScores:
    """`viterbi_scores` one candle at a time."""

    def __init__(self, params: HmmParameters) -> None:
        self._params = params
        self._into = np.ascontiguousarray(params.log_transitions.T)
        self._constants = -0.5 * np.log(2 * math.pi * params.variances)
        self._score: Floats | None = None

    def reset(self) -> None:
        """Forget the run: the next candle starts from the stationary prior."""
        self._score = None

    def update(self, z: float) -> Floats:
        """Take the trend of the next candle of the run; return its scores, float64[5].

        Raises:
            DataError: the trend is not finite.
        """
        if not math.isfinite(z):
            raise DataError(f"the HMM observes finite trends; got {z}: reset at gaps")
        distance = z - self._params.means
        return self.follow(self._constants - 0.5 * (distance**2 / self._params.variances))

    def follow(self, log_emission: Floats) -> Floats:
        """Take ln p(z | state) of the next candle, float64[5]; return its scores."""
        if self._score is None:
            score = self._params.log_stationary + log_emission
        else:
            score = (self._into + self._score).max(axis=1) + log_emission
        self._score = score - score.max()
        return np.log1p(-self._score)
