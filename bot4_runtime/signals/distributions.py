"""Distribution functions in closed form: the normal and Student's t.

No scipy at run time; scipy is the oracle of the tests.
"""

import math
from statistics import NormalDist
from typing import Final

from bot4_runtime.domain.errors import UndefinedStatistic

_STEPS: Final = 300
_TINY: Final = 1e-300
_PRECISION: Final = 1e-15


def normal_cdf(x: float) -> float:
    """Return P(Z <= x) of the standard normal."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_quantile(p: float) -> float:
    """Return the standard normal's quantile (Wichura's AS 241, as the standard library has it).

    Raises:
        ValueError: p is not inside (0, 1).
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"quantile of probability {p}; expected a number inside (0, 1)")
    return NormalDist().inv_cdf(p)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for a, b > 0.

    Source: continued fraction 8.17.22 of the NIST Digital Library of Mathematical Functions,
    evaluated by Lentz's method, with I_x(a, b) = 1 - I_{1-x}(b, a) where it converges faster.

    Raises:
        ValueError: x is outside [0, 1], or a or b is not positive.
        UndefinedStatistic: a and b are too large for the fraction to converge.
    """
    if not (0.0 <= x <= 1.0 and a > 0.0 and b > 0.0):
        raise ValueError(f"incomplete beta of a={a} b={b} x={x}; expected a, b > 0, x in [0, 1]")
    if x in {0.0, 1.0}:
        return x
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def student_t_two_sided(t: float, df: float) -> float:
    """Return P(|T| >= |t|) of Student's t with `df` degrees of freedom.

    Raises:
        ValueError: t is NaN or df is not positive.
    """
    if not df > 0.0 or math.isnan(t):
        raise ValueError(f"Student t of t={t} df={df}; expected a number and df > 0")
    if math.isinf(t):
        return 0.0
    square = t * t
    if square < df:  # where df / (df + t^2) would round towards 1
        return 1.0 - incomplete_beta(0.5, 0.5 * df, square / (df + square))
    return incomplete_beta(0.5 * df, 0.5, df / (df + square))


def _beta_fraction(a: float, b: float, x: float) -> float:
    c = 1.0
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        value *= d * c
        if abs(d * c - 1.0) < _PRECISION:
            return value
    raise UndefinedStatistic(
        f"incomplete beta of a={a} b={b} x={x} did not converge in {_STEPS} steps"
    )


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
