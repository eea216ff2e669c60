"""The control that keeps accuracy honest: the same pipeline on prices without any regimes.

On a random walk the trend z has no memory beyond its window, and still the causal filter agrees
with the hindsight labels about as often as on a real market. So the agreement says that the
present is named well, not that anything is predicted.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np

from bot4_pipelines.training.cuts import scored
from bot4_pipelines.training.dataset import inside
from bot4_pipelines.training.hmm import fit_hmm
from bot4_pipelines.training.scoring import BLOCK, Counts, Estimate, count, pool, score
from bot4_runtime.features.schema import TREND_WINDOW
from bot4_runtime.regime.hmm import forward_filter, viterbi

WALKS: Final = 4
CANDLES: Final = 8_000


def random_walk_trend(candles: int, rng: np.random.Generator) -> np.ndarray:
    """Return the trend z of a Gaussian random walk, float64[candles]."""
    returns = rng.normal(size=candles + TREND_WINDOW - 1)
    kernel = np.ones(TREND_WINDOW)
    total = np.convolve(returns, kernel, "valid")
    return np.asarray(total / np.sqrt(np.convolve(returns**2, kernel, "valid")))


@lru_cache(maxsize=4)
def _walks(seed: int, walks: int, candles: int) -> tuple[Counts, ...]:
    """Fit the HMM to random walks and count how its filter names others."""
    rng = np.random.default_rng(seed)
    params = fit_hmm(
        {f"WALK{number}": [random_walk_trend(candles, rng)] for number in range(walks)}
    ).params
    found = []
    for _ in range(walks):
        z = random_walk_trend(candles, rng)
        rows = inside(candles, scored(slice(0, candles)))
        estimate = Estimate.of(forward_filter(z, params)[0])
        found.append(count(viterbi(z, params), estimate, rows, np.arange(candles) // BLOCK))
    return tuple(found)


def random_walk_numbers(
    seed: int = 0, walks: int = WALKS, candles: int = CANDLES
) -> dict[str, Any]:
    """Score the HMM filter on walks without regimes, fitted to others.

    Args:
        seed: of the walks.
        walks: how many are fitted to, and how many others are scored.
        candles: length of each.

    Returns:
        Means over the scored walks of the numbers of `scoring.score`, and as ``<name>_ci`` their
        95 % intervals by Student's t over walks.
    """
    from scipy.stats import t as student_t

    width = float(student_t.ppf(0.975, walks - 1)) / walks**0.5
    scores = [score(one) for one in _walks(seed, walks, candles)]
    numbers: dict[str, Any] = {}
    for name, mean in pool(scores).items():
        numbers[name] = mean
        if mean is not None:
            spread = width * float(np.std([one[name] or 0.0 for one in scores], ddof=1))
            numbers[f"{name}_ci"] = [mean - spread, mean + spread]
    return numbers


def random_walk_accuracy(
    seed: int = 0, walks: int = WALKS, candles: int = CANDLES
) -> tuple[float, tuple[float, float]]:
    """Return accuracy and interval of `random_walk_numbers`."""
    numbers = random_walk_numbers(seed, walks, candles)
    low, high = numbers["accuracy_ci"]
    return numbers["accuracy"], (low, high)
