"""Tests and measures of a rule's past, each by its name and source.

Closed forms and one resampling scheme. A number that has no value raises
`UndefinedStatistic`; none is ever replaced by 0 or infinity. The gate's p-value is
`week_cluster_p`; the others are shown beside it.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.signals.distributions import normal_cdf, normal_quantile, student_t_two_sided

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

RISK_FREE: Final = 0.04
"""Opportunity cost of capital, a year (specification 3.5.2.1)."""
LEAST_SAMPLE: Final = 30
"""Trades below which the specification's test answers p = 1."""
PERIODS: Final[dict[str, int]] = {"1m": 525_600, "1h": 8_760, "1d": 365}
"""Periods a year of the specification's annualisation."""
LARGEST: Final = 1e70
"""Fourth powers of larger numbers are not finite any more."""
_EULER: Final = 0.5772156649015329


# ----------------------------------------------------------------------- moments
def sample_moments(values: Floats) -> tuple[float, float, float, float]:
    """Return mean, standard deviation (n - 1), skewness and kurtosis (normal = 3) of float[n].

    Raises:
        UndefinedStatistic: fewer than two numbers, one is not finite, or all are equal.
    """
    n = len(values)
    scale = float(np.abs(values).max()) if n else 0.0
    if n < 2 or not scale < LARGEST:
        raise UndefinedStatistic(
            f"moments of {n} numbers up to {scale:g}; expected at least 2, finite and smaller "
            f"than {LARGEST:g}"
        )
    mean = float(values.mean())
    centred = values - mean
    variance = float(np.dot(centred, centred)) / n
    if not variance > (1e-14 * scale) ** 2:
        raise UndefinedStatistic(f"{n} equal numbers have no variance")
    skewness = float((centred**3).mean()) / variance**1.5
    kurtosis = float((centred**4).mean()) / variance**2
    return mean, math.sqrt(variance * n / (n - 1)), skewness, kurtosis


# ------------------------------------------------------------------ significance
def specification_t(signal_return: float, returns: Floats) -> tuple[float, float]:
    """Return the specification's t and two-sided p of a claimed return against history.

    t = (signal_return - mean) / (s / sqrt(n)), df = n - 1; p = 1 when n < 30. It takes trades
    as independent, so that overlapping trades of correlated coins reject a true null about
    one time in five: shown beside the gate's p-value, never decided by.

    Raises:
        UndefinedStatistic: the returns have no moments.
    """
    mean, std, _, _ = sample_moments(returns)
    n = len(returns)
    t = (signal_return - mean) / (std / math.sqrt(n))
    return t, student_t_two_sided(t, n - 1.0) if n >= LEAST_SAMPLE else 1.0


def newey_west_t(values: Floats, lags: int = -1) -> float:
    """Return mean / HAC standard error of a series float[n] (Newey & West 1987, Bartlett).

    Args:
        values: in time order, e.g. daily profit.
        lags: -1 takes floor(4 (n / 100)^(2/9)) (Newey & West 1994).

    Raises:
        UndefinedStatistic: the series has no moments or no positive long-run variance.
    """
    mean, _, _, _ = sample_moments(values)
    n = len(values)
    if lags < 0:
        lags = math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0))
    variance = float(_long_run(values - mean, lags))
    if not variance > 0.0:
        raise UndefinedStatistic("the long-run variance is not positive")
    return mean / (math.sqrt(variance) / n)


def _long_run(centred: Floats, lags: int) -> Floats:
    """Return n times the Bartlett long-run variance, of series float[..., n] along time."""
    variance: Floats = (centred * centred).sum(axis=-1)
    for lag in range(1, min(lags, centred.shape[-1] - 1) + 1):
        weight = 1.0 - lag / (lags + 1.0)
        variance = variance + 2.0 * weight * (centred[..., lag:] * centred[..., :-lag]).sum(
            axis=-1
        )
    return variance


def newey_west_p(values: Floats) -> float:
    """Return the one-sided p-value of `newey_west_t` (normal), H0: mean <= 0."""
    return normal_cdf(-newey_west_t(values))


def stationary_indices(
    n: int, draws: int, mean_block: float, generator: np.random.Generator
) -> Integers:
    """Return int64[draws, n]: resamples of 0..n-1 in circular blocks of geometric length.

    Source: Politis & Romano 1994, the stationary bootstrap.

    Raises:
        UndefinedStatistic: there is nothing to draw from, or blocks shorter than one.
    """
    if not (n >= 1 and draws >= 1 and mean_block >= 1.0):
        raise UndefinedStatistic(f"resample of {n} in {draws} draws, mean block {mean_block}")
    fresh = generator.random((draws, n)) < 1.0 / mean_block
    fresh[:, 0] = True
    starts = generator.integers(0, n, size=(draws, n))
    place = np.arange(n)
    last = np.maximum.accumulate(np.where(fresh, place, 0), axis=1)
    indices: Integers = (np.take_along_axis(starts, last, axis=1) + place - last) % n
    return indices


def week_cluster_p(
    weeks: Integers,
    returns: Floats,
    generator: np.random.Generator,
    draws: int = 4_999,
    least_block: float = 2.0,
) -> float:
    """Return the p-value of H0: mean net trade return <= 0, trades clustered by week.

    All trades of a calendar week, whatever their symbol, are one cluster (Cameron, Gelbach &
    Miller 2008). Weeks depend on their neighbours, since luck lasts and trades overlap: they are
    drawn in stationary blocks, and the ratio of the mean to its error, by the Bartlett long-run
    variance of the weeks' sums, is recentred on the sample's own mean (bootstrap-t: Hall 1992;
    with the same error inside and outside of the resamples: Goncalves & Vogelsang 2011). Mean
    block and lags are one number, see `_block_weeks`. Weeks without trades between the first
    and the last count. p = (1 + #{t* >= t}) / (draws + 1).

    True nulls that fall below 5 %, 1,500 histories each, with blocks of two weeks and no lags
    before and with this now: independent weeks 4.4 % and 4.4 %; weeks of autocorrelation 0.4,
    0.6 and 0.8, 9.1 and 6.6 %, 11.5 and 6.8 %, 18.6 and 7.7 %; trades held for two, four and
    six weeks, 8.6 and 6.1 %, 12.4 and 6.9 %, 14.6 and 6.9 % (156 weeks each); 40 trades of rare
    large losses in 60 weeks, 7.9 and 8.0 %.

    Args:
        weeks: int64[n], the week number of each trade's entry.
        returns: float64[n], net returns.
        generator: source of the draws; a fixed seed gives the same p-value.
        draws: resamples.
        least_block: weeks that a block has on average, at least: twice what a trade takes.

    Raises:
        UndefinedStatistic: no trades, a return that is not finite, or no variation.
    """
    if len(returns) == 0 or len(weeks) != len(returns):
        raise UndefinedStatistic(f"{len(returns)} returns in {len(weeks)} weeks; expected both")
    sample_moments(returns)
    offset = weeks - weeks.min()
    size = np.bincount(offset).astype(np.float64)
    total = np.bincount(offset, weights=returns)
    n = float(len(returns))
    mean = float(total.sum()) / n
    scores = total - mean * size
    if not math.sqrt(float(np.dot(scores, scores))) / n > 1e-12 * float(np.abs(returns).max()):
        raise UndefinedStatistic("the weeks do not vary: the mean's error is unknown")
    block = _block_weeks(scores, least_block)
    lags = round(block)
    error = math.sqrt(float(_long_run(scores, lags))) / n
    t = mean / error
    drawn = stationary_indices(len(size), draws, block, generator)
    sizes, totals = size[drawn], total[drawn]
    n_drawn = sizes.sum(axis=1)
    filled = n_drawn > 0.0
    safe = np.where(filled, n_drawn, 1.0)
    means = totals.sum(axis=1) / safe
    variances = _long_run(totals - means[:, np.newaxis] * sizes, lags)
    errors = np.sqrt(np.maximum(variances, 0.0)) / safe
    usable = filled & (errors > 1e-9 * error)
    ratios = np.where(usable, (means - mean) / np.where(usable, errors, 1.0), np.inf)
    return (1.0 + float(np.count_nonzero(ratios >= t))) / (draws + 1.0)


def _block_weeks(scores: Floats, least: float) -> float:
    """Return mean block and lags, in weeks, for weekly sums of float[n] about their mean.

    Andrews 1991, equations 6.2 and 6.4: 1.1447 (a n)^(1/3) with a = 4 r^2 / (1 - r^2)^2 of an
    AR(1) whose autocorrelation r is the sample's; from `least` up to a quarter of the weeks.
    """
    n = len(scores)
    r = float(np.dot(scores[1:], scores[:-1])) / float(np.dot(scores, scores))
    a = 4.0 * r * r / (1.0 - r * r) ** 2
    longest = max(0.25 * n, 1.0)
    return max(min(max(least, 1.1447 * float(np.cbrt(a * n))), longest), 1.0)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values (Benjamini & Hochberg 1995), in the order given.

    Raises:
        UndefinedStatistic: one is not inside [0, 1].
    """
    for p in p_values:
        if not 0.0 <= p <= 1.0:
            raise UndefinedStatistic(f"p-value {p}; expected a number inside [0, 1]")
    m = len(p_values)
    order = sorted(range(m), key=p_values.__getitem__)
    adjusted = [1.0] * m
    least = 1.0
    for rank in range(m, 0, -1):
        index = order[rank - 1]
        least = min(least, p_values[index] * m / rank)
        adjusted[index] = least
    return adjusted


# ------------------------------------------------------------------------ Sharpe
def annualise(period: str) -> int:
    """Return periods a year of ``1m``, ``1h`` or ``1d`` series (specification 3.5.2.1).

    They are for returns of every period of that length, never for returns of trades.

    Raises:
        UndefinedStatistic: another period.
    """
    if period not in PERIODS:
        raise UndefinedStatistic(f"no annual factor for {period!r}; known: {', '.join(PERIODS)}")
    return PERIODS[period]


def sharpe(returns: Floats, periods_per_year: int = 365, risk_free: float = RISK_FREE) -> float:
    """Return (mean N - risk_free) / (s sqrt(N)), the annual Sharpe ratio of periodic returns.

    Raises:
        UndefinedStatistic: zero variance or fewer than two numbers.
    """
    mean, std, _, _ = sample_moments(returns)
    return (mean * periods_per_year - risk_free) / (std * math.sqrt(periods_per_year))


def sharpe_interval(
    daily: Floats,
    generator: np.random.Generator,
    level: float = 0.95,
    draws: int = 999,
    mean_block: float = 7.0,
) -> tuple[float, float]:
    """Return the stationary-bootstrap interval of the annual Sharpe ratio of daily returns.

    Raises:
        UndefinedStatistic: zero variance or fewer than two days.
    """
    sample_moments(daily)
    resampled = daily[stationary_indices(len(daily), draws, mean_block, generator)]
    std = resampled.std(axis=1, ddof=1)
    alive = std > 0.0
    ratios = (resampled.mean(axis=1)[alive] * 365.0 - RISK_FREE) / (std[alive] * math.sqrt(365.0))
    if len(ratios) == 0:
        raise UndefinedStatistic("every resample is constant: the interval is unknown")
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return float(low), float(high)


def probabilistic_sharpe(
    ratio: float, n: int, skewness: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Return P(true Sharpe > benchmark) (Bailey & López de Prado 2012).

    Args:
        ratio: Sharpe per period, not annual; so is `benchmark`.
        n: periods.
        skewness: of the returns.
        kurtosis: of the returns, normal = 3.
        benchmark: the Sharpe to beat.

    Raises:
        UndefinedStatistic: fewer than two periods or no positive variance of the ratio.
    """
    spread = 1.0 - skewness * ratio + 0.25 * (kurtosis - 1.0) * ratio * ratio
    if not (n >= 2 and spread > 0.0):
        raise UndefinedStatistic(f"the Sharpe ratio's variance has no value (n {n}, {spread})")
    return normal_cdf((ratio - benchmark) * math.sqrt(n - 1.0) / math.sqrt(spread))


def expected_best_sharpe(trials: int, variance: float) -> float:
    """Return the best Sharpe expected of `trials` rules without skill (False Strategy Theorem).

    Raises:
        UndefinedStatistic: no trials, or a negative or unknown variance of their ratios.
    """
    if not (trials >= 1 and variance >= 0.0):
        raise UndefinedStatistic(f"best of {trials} trials with variance {variance}")
    if trials == 1:
        return 0.0
    return math.sqrt(variance) * (
        (1.0 - _EULER) * normal_quantile(1.0 - 1.0 / trials)
        + _EULER * normal_quantile(1.0 - 1.0 / (trials * math.e))
    )


def deflated_sharpe(
    ratio: float, n: int, skewness: float, kurtosis: float, *, trials: int, variance: float
) -> float:
    """Return the deflated Sharpe ratio (Bailey & López de Prado 2014).

    Args:
        ratio: Sharpe per period of the rule that was picked.
        n: periods.
        skewness: of its returns.
        kurtosis: of its returns, normal = 3.
        trials: rules tried.
        variance: of the per-period Sharpe ratios of the rules tried.

    Raises:
        UndefinedStatistic: as `probabilistic_sharpe` and `expected_best_sharpe`.
    """
    best = expected_best_sharpe(trials, variance)
    return probabilistic_sharpe(ratio, n, skewness, kurtosis, best)


# ------------------------------------------------------------------ value and size
def expected_value(
    win_rate: float, avg_win: float, avg_loss: float, costs: float, holding_days: float
) -> float:
    """Return p avg_win - (1 - p) avg_loss - costs - 0.04 days / 365 (specification 3.5.2.1).

    Args:
        win_rate: share of winning trades.
        avg_win: mean return of winners, as a share.
        avg_loss: mean size of losses, as a share.
        costs: fees, slippage and funding of the round trip that the averages do not hold yet.
        holding_days: days the capital is bound.

    Raises:
        UndefinedStatistic: a number is not finite.
    """
    value = (
        win_rate * avg_win - (1.0 - win_rate) * avg_loss - costs - RISK_FREE * holding_days / 365.0
    )
    if not math.isfinite(value):
        raise UndefinedStatistic(f"expected value {value}; expected finite inputs")
    return value


def quarter_kelly(
    win_rate: float, avg_win: float, avg_loss: float, fraction: float = 0.25, cap: float = 0.10
) -> float:
    """Return a quarter of Kelly's f = (p b - q) / b, b = avg_win / avg_loss, within [0, cap].

    Source: Kelly 1956; the quarter and the cap are the specification's.

    Raises:
        UndefinedStatistic: the payoff ratio or the win rate has no value.
    """
    known = 0.0 <= win_rate <= 1.0 and 0.0 < avg_win < math.inf and 0.0 < avg_loss < math.inf
    if not known:
        raise UndefinedStatistic(
            f"Kelly size of win rate {win_rate}, average win {avg_win}, average loss {avg_loss}; "
            "expected a share and two positive averages"
        )
    payoff = avg_win / avg_loss
    kelly = (win_rate * payoff - (1.0 - win_rate)) / payoff
    return min(max(fraction * kelly, 0.0), cap)
