"""Exponentially weighted correlation of candle returns, pair by pair, aligned on open time.

A weight halves every `half_life_hours` of candle time, so a gap ages what came before it.
Only returns both symbols have at the same open time count, by their weight: a correlation is
known once the weights are worth enough equal ones (Kish 1965, Survey Sampling: effective
sample size = sum(w)^2 / sum(w^2)). What is not known is None, never zero. Plain Python rather
than numpy: at 50 symbols a compiled loop over the pairs of one candle is faster than the numpy
calls it would take.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import ConfigError, DataError

_LEAST: Final = 1e-200
"""Variance below which products of returns would underflow."""


def most_observations(half_life_hours: float, spacing_ms: float) -> float:
    """Return how many equally weighted returns an endless run of weighted ones is worth.

    (1 + q) / (1 - q) for returns `spacing_ms` apart whose weights fall by the factor q.
    """
    fall = -math.expm1(-math.log(2.0) * spacing_ms / (half_life_hours * 3_600_000.0))
    return (2.0 - fall) / fall


class Correlations:
    """What a risk manager asks: how do two symbols' returns move together?

    Attributes:
        learnt: changes after every change of what is known, and with nothing else.
    """

    def __init__(self) -> None:
        self.learnt = 0

    def correlation(self, symbol: str, other: str) -> float | None:
        """Return the correlation of two symbols' returns in [-1, 1]; None when unknown."""
        raise NotImplementedError

    def update(self, symbol: str, open_time_ms: int, log_return: float) -> None:
        """Take in a return; correlations that are given learn nothing from it."""


class FixedCorrelations(Correlations):
    """Correlations that are given: for rehearsals, what-if questions and tests.

    Args:
        pairs: by (symbol, other) in either order; pairs that are missing are unknown.
    """

    def __init__(self, pairs: dict[tuple[str, str], float]) -> None:
        super().__init__()
        self._pairs: Final = pairs.copy()

    def correlation(self, symbol: str, other: str) -> float | None:
        """Return the given correlation, in either order of the pair; None when not given."""
        found = self._pairs.get((symbol, other))
        return found if found is not None else self._pairs.get((other, symbol))


class _Pair:
    """Weighted moments of the joint returns of two symbols.

    They are scaled by 2**-block, where block counts half-lives since 1970: a power of two,
    so the scaling is exact and the same returns give the same bits wherever a run began.
    """

    def __init__(self) -> None:
        self.block = 0
        self.weight = 0.0
        self.square = 0.0
        self.x = 0.0
        self.y = 0.0
        self.xx = 0.0
        self.yy = 0.0
        self.xy = 0.0

    def add(self, block: int, weight: float, x: float, y: float) -> None:
        if block != self.block:
            scale = math.ldexp(1.0, max(self.block - block, -1100))
            self.block = block
            self.weight *= scale
            self.square *= scale * scale
            self.x *= scale
            self.y *= scale
            self.xx *= scale
            self.yy *= scale
            self.xy *= scale
        self.weight += weight
        self.square += weight * weight
        self.x += weight * x
        self.y += weight * y
        self.xx += weight * x * x
        self.yy += weight * y * y
        self.xy += weight * x * y

    def observations(self) -> float:
        return self.weight * self.weight / self.square if self.square > 0.0 else 0.0

    def correlation(self) -> float | None:
        mean_x = self.x / self.weight
        mean_y = self.y / self.weight
        square_x = self.xx / self.weight
        square_y = self.yy / self.weight
        variance_x = square_x - mean_x * mean_x
        variance_y = square_y - mean_y * mean_y
        # A variance lost in the rounding of its own terms, or overflown, is no variance.
        if not (variance_x > 1e-12 * square_x + _LEAST and variance_y > 1e-12 * square_y + _LEAST):
            return None
        covariance = self.xy / self.weight - mean_x * mean_y
        value = covariance / (math.sqrt(variance_x) * math.sqrt(variance_y))
        return min(1.0, max(-1.0, value))


class _Track:
    """One symbol's latest return and its pairs with the symbols seen before it."""

    def __init__(self, pairs: list[_Pair]) -> None:
        self.open_time_ms = -1
        self.log_return = 0.0
        self.pairs: Final = pairs


class CorrelationTable(Correlations):
    """Correlations of all pairs of symbols, updated candle by candle.

    Args:
        half_life_hours: candle time in which a weight halves.
        min_observations: effective joint returns, rounded, below which a correlation is unknown;
            see `most_observations` for what a half-life lets them reach.

    Raises:
        ConfigError: the half-life is not positive and finite, or fewer than 3 observations.

    Example:
        >>> table = CorrelationTable(min_observations=3)
        >>> for hour, (a, b) in enumerate([(0.01, 0.02), (-0.01, -0.02), (0.02, 0.04)]):
        ...     table.update("BTCUSDT", hour * 3_600_000, a)
        ...     table.update("ETHUSDT", hour * 3_600_000, b)
        >>> table.correlation("ETHUSDT", "BTCUSDT")
        1.0
    """

    def __init__(self, half_life_hours: float = 720.0, min_observations: int = 72) -> None:
        if not 0.0 < half_life_hours < math.inf:
            raise ConfigError(
                f"correlation half-life is {half_life_hours} h; expected a positive number"
            )
        if min_observations < 3:
            raise ConfigError(
                f"correlation needs at least 3 observations; received {min_observations}"
            )
        super().__init__()
        self._half_life_ms: Final = half_life_hours * 3_600_000.0
        self._min_observations: Final = min_observations
        self._index: Final[dict[str, int]] = {}
        self._tracks: Final[list[_Track]] = []

    def update(self, symbol: str, open_time_ms: int, log_return: float) -> None:
        """Take one candle's log return.

        A return that is not finite (the first candle after a gap has none) is no observation.

        Raises:
            DataError: the time is not after the symbol's last one.
        """
        at = self._index.get(symbol, -1)
        if at < 0:
            at = len(self._tracks)
            self._index[symbol] = at
            self._tracks.append(_Track([_Pair() for _ in range(at)]))
        track = self._tracks[at]
        if open_time_ms <= track.open_time_ms:
            raise DataError(
                f"return of {symbol} at {open_time_ms} is not after the last one at "
                f"{track.open_time_ms}; feed candles in the order of their time"
            )
        if not math.isfinite(log_return):
            return
        track.open_time_ms = open_time_ms
        track.log_return = log_return
        age = open_time_ms / self._half_life_ms
        block = int(age)
        weight = 2.0 ** (age - block)
        for other in range(len(self._tracks)):
            mate = self._tracks[other]
            if other == at or mate.open_time_ms != open_time_ms:
                continue
            if other < at:
                track.pairs[other].add(block, weight, log_return, mate.log_return)
            else:
                mate.pairs[at].add(block, weight, mate.log_return, log_return)
        self.learnt += 1

    def correlation(self, symbol: str, other: str) -> float | None:
        """Return the weighted Pearson correlation of two symbols' joint returns so far.

        It has seen every return given to `update` up to now. None when either symbol is
        unseen, effective joint observations are too few, or a return never varied.
        """
        pair = self._pair(symbol, other)
        # Half a return below: 72 hours in a row are worth 71.97 equal ones.
        if pair is None or not pair.observations() >= self._min_observations - 0.5:
            return None
        return pair.correlation()

    def observations(self, symbol: str, other: str) -> float:
        """Return how many equally weighted joint returns the pair's returns are worth."""
        pair = self._pair(symbol, other)
        return 0.0 if pair is None else pair.observations()

    def matrix(self, symbols: list[str]) -> npt.NDArray[np.float64]:
        """Return the correlations of these symbols: float64[n, n], NaN where unknown."""
        size = len(symbols)
        values = np.full((size, size), np.nan)
        for row in range(size):
            values[row, row] = 1.0
            for column in range(row):
                found = self.correlation(symbols[row], symbols[column])
                if found is not None:
                    values[row, column] = found
                    values[column, row] = found
        return values

    def _pair(self, symbol: str, other: str) -> _Pair | None:
        one = self._index.get(symbol, -1)
        two = self._index.get(other, -1)
        if one < 0 or two < 0 or one == two:
            return None
        return self._tracks[max(one, two)].pairs[min(one, two)]
