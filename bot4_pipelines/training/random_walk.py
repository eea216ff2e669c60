"""The control that keeps accuracy honest: the same pipeline on prices without any regimes.

On a random walk the trend z has no memory beyond its window, and still the causal filter agrees
with the hindsight labels about as often as on a real market. So the agreement says that the
present is named well, not that anything is predicted.
"""

from functools import lru_cache
from typing import Final

import numpy as np

from bot4_pipelines.training.hmm import fit_hmm
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
def random_walk_accuracy(
    seed: int = 0, walks: int = WALKS, candles: int = CANDLES
) -> tuple[float, tuple[float, float]]:
    """Fit the HMM to random walks and score its filter on others.

    Args:
        seed: of the walks.
        walks: how many are fitted to, and how many others are scored.
        candles: length of each.

    Returns:
        Mean accuracy over the scored walks, and its 95 % interval by Student's t over walks.
    """
    from scipy.stats import t as student_t

    rng = np.random.default_rng(seed)
    params = fit_hmm(
        {f"WALK{number}": [random_walk_trend(candles, rng)] for number in range(walks)}
    ).params
    found = []
    for _ in range(walks):
        z = random_walk_trend(candles, rng)
        named = forward_filter(z, params)[0].argmax(axis=1)
        found.append(float((named == viterbi(z, params))[200:-24].mean()))
    mean = float(np.mean(found))
    spread = float(student_t.ppf(0.975, walks - 1) * np.std(found, ddof=1)) / walks**0.5
    return mean, (mean - spread, mean + spread)
