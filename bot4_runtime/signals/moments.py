"""Mean, variance, skewness and kurtosis of numbers seen one by one.

Welford's recurrence (1962; West 1979) for the variance, Terriberry's (2007) and Pébay's
(2008, SAND2008-6212) for the third and fourth powers, so that nothing is ever summed and
subtracted again. What has no value is NaN: comparisons with it fail.
"""

import math
from typing import Final

NAN: Final = math.nan
LEAST_VARIANCE: Final = 1e-100
"""Below it higher powers of the spread are no numbers any more."""
EQUAL: Final = 1e-14
"""Numbers that differ by less than this share of their mean are equal but for rounding."""


class RunningMoments:
    """Central moments of what was added; two of them merge into those of both together.

    Attributes:
        n: how many numbers.
        mean: their mean, 0 when there are none.
        m2: sum of squared distances from the mean.
        m3: sum of their cubes.
        m4: sum of their fourth powers.

    Example:
        >>> moments = RunningMoments()
        >>> for x in (1.0, 2.0, 3.0):
        ...     moments.add(x)
        >>> moments.mean, moments.std()
        (2.0, 1.0)
    """

    def __init__(self) -> None:
        self.n: int = 0
        self.mean: float = 0.0
        self.m2: float = 0.0
        self.m3: float = 0.0
        self.m4: float = 0.0

    def add(self, x: float) -> None:
        """Take in one number. One that is not finite makes every moment NaN."""
        n = float(self.n + 1)
        delta = x - self.mean
        step = delta / n
        squared = step * step
        term = delta * step * (n - 1.0)
        self.n += 1
        self.mean += step
        self.m4 += term * squared * (n * n - 3.0 * n + 3.0)
        self.m4 += 6.0 * squared * self.m2 - 4.0 * step * self.m3
        self.m3 += term * step * (n - 2.0) - 3.0 * step * self.m2
        self.m2 += term

    def merge(self, other: "RunningMoments") -> None:
        """Take in all that another has seen."""
        if other.n == 0:
            return
        if self.n == 0:
            self.n, self.mean = other.n, other.mean
            self.m2, self.m3, self.m4 = other.m2, other.m3, other.m4
            return
        a, b = float(self.n), float(other.n)
        n = a + b
        delta = other.mean - self.mean
        step = delta / n
        squared = step * step
        self.m4 += (
            other.m4
            + delta * step * squared * a * b * (a * a - a * b + b * b)
            + 6.0 * squared * (a * a * other.m2 + b * b * self.m2)
            + 4.0 * step * (a * other.m3 - b * self.m3)
        )
        self.m3 += (
            other.m3
            + delta * squared * a * b * (a - b)
            + 3.0 * step * (a * other.m2 - b * self.m2)
        )
        self.m2 += other.m2 + delta * step * a * b
        self.mean += step * b
        self.n += other.n

    def copy(self) -> "RunningMoments":
        """Return moments that go on from here by themselves."""
        twin = RunningMoments()
        twin.n, twin.mean = self.n, self.mean
        twin.m2, twin.m3, twin.m4 = self.m2, self.m3, self.m4
        return twin

    def variance(self) -> float:
        """Return m2 / n; NaN for equal or too few numbers, whatever rounding left of them."""
        if self.n < 2:
            return NAN
        value = self.m2 / self.n
        least = EQUAL * self.mean
        return value if value > max(least * least, LEAST_VARIANCE) else NAN

    def std(self) -> float:
        """Return the sample's standard deviation (n - 1); NaN without variance."""
        return math.sqrt(self.variance() * self.n / (self.n - 1)) if self.n > 1 else NAN

    def skewness(self) -> float:
        """Return m3 / n over the 1.5th power of the variance; NaN without variance."""
        variance = self.variance()
        return self.m3 / self.n / (variance * math.sqrt(variance)) if self.n > 1 else NAN

    def kurtosis(self) -> float:
        """Return m4 / n over the square of the variance (normal: 3); NaN without variance."""
        variance = self.variance()
        return self.m4 / self.n / (variance * variance) if self.n > 1 else NAN


def moments_of(
    n: int, mean: float, std: float, skewness: float, kurtosis: float
) -> RunningMoments:
    """Return the moments that were told, to go on from: the inverse of reading them off.

    Args:
        n: how many numbers.
        mean: of them.
        std: sample standard deviation (n - 1).
        skewness: as `RunningMoments.skewness` gives it.
        kurtosis: as `RunningMoments.kurtosis` gives it, normal = 3.
    """
    told = RunningMoments()
    told.n, told.mean = n, mean
    told.m2 = std * std * (n - 1)
    variance = told.m2 / n if n > 0 else NAN
    told.m3 = skewness * n * variance * math.sqrt(variance)
    told.m4 = kurtosis * n * variance * variance
    return told


def repeated(value: float, n: int) -> RunningMoments:
    """Return the moments of one value seen `n` times."""
    same = RunningMoments()
    if n > 0:
        same.n, same.mean = n, value
    return same
