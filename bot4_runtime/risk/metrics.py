"""How risky a book has been and is: drawdown, exposure, value at risk, Sharpe.

For reports, dashboards and the risk journal, not for the order path. Returns are simple
returns per period, equity is in quote, losses are positive. A number without a value
(zero variance, too few samples) raises or is NaN in a matrix; it is never 0.

Sources: Acerbi & Tasche, On the coherence of expected shortfall (2002), for expected
shortfall; Mertens, Comments on variance of the IID estimator in Lo (2002), for the standard
error of a Sharpe ratio whose returns are skewed and fat-tailed.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import DataError, UndefinedStatistic
from bot4_runtime.risk.exposure import HeldPosition

_YEAR_MS: Final = 365 * 86_400_000

Floats = npt.NDArray[np.float64]


def drawdowns(equity: Floats) -> Floats:
    """Return 1 - equity / running peak: float64[n] from equity float64[n], in time order.

    Raises:
        DataError: equity is empty, not finite, or starts at or below zero.
    """
    if equity.ndim != 1 or len(equity) == 0 or not bool(np.isfinite(equity).all()):
        raise DataError(f"equity must be a finite, non-empty row; received shape {equity.shape}")
    if not equity[0] > 0.0:
        raise DataError(f"equity must start above zero; received {equity[0]}")
    curve: Floats = 1.0 - equity / np.maximum.accumulate(equity)
    return curve


def max_drawdown(equity: Floats) -> float:
    """Return the largest peak-to-trough loss of an equity curve, as a share of its peak."""
    return float(drawdowns(equity).max())


def value_at_risk(returns: Floats, level: float = 0.95) -> float:
    """Return the historical value at risk: the loss that 1 - `level` of the periods reach.

    It is the empirical quantile (inverted distribution, no interpolation), positive for a loss.

    Args:
        returns: float64[n], per period.
        level: in (0, 1).

    Raises:
        UndefinedStatistic: fewer than 1 / (1 - level) returns, or one that is not finite.
    """
    ordered, share = _tail(returns, level)
    return -float(ordered[math.ceil(share) - 1])


def expected_shortfall(returns: Floats, level: float = 0.95) -> float:
    """Return the mean loss of the worst 1 - `level` of the periods, positive for a loss.

    The period at the edge counts in part, as in Acerbi & Tasche (2002).

    Raises:
        UndefinedStatistic: as `value_at_risk`.
    """
    ordered, share = _tail(returns, level)
    whole = int(share)
    total = float(ordered[:whole].sum())
    if share > whole:
        total += (share - whole) * float(ordered[whole])
    return -total / share


def _tail(returns: Floats, level: float) -> tuple[Floats, float]:
    if not 0.0 < level < 1.0:
        raise UndefinedStatistic(f"a tail needs a level between 0 and 1; received {level}")
    # 100 x (1 - 0.95) is 5.000000000000004: the rounding keeps it from counting a sixth.
    share = round(len(returns) * (1.0 - level), 9)
    if not share >= 1.0:
        raise UndefinedStatistic(
            f"{len(returns)} returns say nothing about the worst {1.0 - level:.3%}; "
            f"at least {math.ceil(1.0 / (1.0 - level) - 1e-9)} are needed"
        )
    if not bool(np.isfinite(returns).all()):
        raise UndefinedStatistic("a return is not finite; leave out periods without a return")
    ordered: Floats = np.sort(returns)
    return ordered, share


def correlation_matrix(returns: Floats) -> Floats:
    """Return Pearson correlations: float64[k, k] from returns float64[n, k] (period, asset).

    NaN stands where an asset never moved; its own entry on the diagonal included.

    Raises:
        DataError: fewer than two periods, or a return that is not finite.
    """
    if returns.ndim != 2 or returns.shape[0] < 2 or not bool(np.isfinite(returns).all()):
        raise DataError(
            f"returns must be finite, at least two periods by asset; received {returns.shape}"
        )
    centred = returns - returns.mean(axis=0)
    moving = (centred**2).sum(axis=0) > 1e-24 * (returns**2).sum(axis=0)
    norms = np.where(moving, np.sqrt((centred**2).sum(axis=0)), np.nan)
    scaled = centred / norms
    matrix: Floats = np.clip(scaled.T @ scaled, -1.0, 1.0)
    return matrix


def exposure_by_symbol(positions: Sequence[HeldPosition]) -> dict[str, float]:
    """Return each symbol's signed value at its mark, in quote.

    Raises:
        DataError: a quantity, a mark or their product is not finite.
    """
    values: dict[str, float] = {}
    for position in positions:
        value = position.quantity * position.mark
        if not -math.inf < value < math.inf:
            raise DataError(
                f"the value of a position must be finite; received {position.symbol}: "
                f"{position.quantity} at a mark of {position.mark}"
            )
        values[position.symbol] = values.get(position.symbol, 0.0) + value
    return values


def leverage(positions: Sequence[HeldPosition], equity: float) -> float:
    """Return the sum of absolute exposures over equity.

    Raises:
        DataError: as `exposure_by_symbol`.
        UndefinedStatistic: equity is not positive and finite.
    """
    if not 0.0 < equity < math.inf:
        raise UndefinedStatistic(f"leverage has no value at an equity of {equity}")
    return math.fsum(abs(value) for value in exposure_by_symbol(positions).values()) / equity


class Sharpe:
    """An annualised Sharpe ratio, the interval of its returns, and its confidence interval.

    Attributes:
        interval: of the returns, such as ``1d``: Sharpe ratios of different ones differ.
        value: (mean - risk-free) / standard deviation x sqrt(periods a year).
        low: lower end of the two-sided confidence interval.
        high: upper end.
        level: its confidence.
    """

    def __init__(self, interval: str, value: float, low: float, high: float, level: float) -> None:
        self.interval: Final = interval
        self.value: Final = value
        self.low: Final = low
        self.high: Final = high
        self.level: Final = level


def sharpe(returns: Floats, interval: str, risk_free: float = 0.04, level: float = 0.95) -> Sharpe:
    """Return the annualised Sharpe ratio of returns float64[n], flat periods included.

    A year has 365 days. The standard deviation has n - 1 degrees of freedom. The interval is
    normal with the standard error of Mertens (2002), which assumes independent periods.

    Args:
        returns: float64[n], per period.
        interval: one of Binance's interval names; names the period.
        risk_free: a year's return without risk.
        level: of the confidence interval, in (0, 1).

    Raises:
        UndefinedStatistic: fewer than two returns, one not finite, no variance, or the level.
        DataError: the interval is unknown.
    """
    count = len(returns)
    if count < 2 or not bool(np.isfinite(returns).all()):
        raise UndefinedStatistic(f"a Sharpe ratio needs two finite returns; received {count}")
    if not 0.0 < level < 1.0:
        raise UndefinedStatistic(f"an interval needs a level between 0 and 1; received {level}")
    periods = _YEAR_MS / interval_ms(interval)
    centred = returns - returns.mean()
    variance = float((centred**2).sum()) / (count - 1)
    if not variance > 1e-24 * float((returns**2).mean()):
        raise UndefinedStatistic("a Sharpe ratio of returns without variance has no value")
    ratio = (float(returns.mean()) - risk_free / periods) / math.sqrt(variance)
    spread = float((centred**2).mean())
    skew = float((centred**3).mean()) / spread**1.5
    kurtosis = float((centred**4).mean()) / spread**2
    error = math.sqrt(
        max((1.0 + ratio**2 / 2.0 - skew * ratio + (kurtosis - 3.0) / 4.0 * ratio**2) / count, 0.0)
    )
    half = NormalDist().inv_cdf(0.5 + level / 2.0) * error
    scale = math.sqrt(periods)
    return Sharpe(interval, ratio * scale, (ratio - half) * scale, (ratio + half) * scale, level)


class PortfolioRisk:
    """A book's risk in one look.

    Attributes:
        exposure: signed value by symbol, in quote.
        leverage: sum of absolute exposures / equity.
        drawdown: present loss from the peak, as a share of it.
        max_drawdown: the largest so far.
        correlation: float64[k, k] of the symbols' returns, in the order of the positions.
        value_at_risk: historical, of the present positions, as a share of equity.
        expected_shortfall: likewise.
        level: of both.
    """

    def __init__(
        self,
        *,
        exposure: dict[str, float],
        leverage: float,
        drawdown: float,
        max_drawdown: float,
        correlation: Floats,
        value_at_risk: float,
        expected_shortfall: float,
        level: float,
    ) -> None:
        self.exposure: Final = exposure
        self.leverage: Final = leverage
        self.drawdown: Final = drawdown
        self.max_drawdown: Final = max_drawdown
        self.correlation: Final = correlation
        self.value_at_risk: Final = value_at_risk
        self.expected_shortfall: Final = expected_shortfall
        self.level: Final = level


def portfolio_risk(
    positions: Sequence[HeldPosition], equity: Floats, returns: Floats, level: float = 0.95
) -> PortfolioRisk:
    """Return the risk of the present positions over past returns (historical simulation).

    Args:
        positions: k positions, one a symbol.
        equity: float64[m], the book's equity so far, in quote; the last entry is now.
        returns: float64[n, k], the positions' symbols' returns (period, position).
        level: of value at risk and expected shortfall, in (0, 1).

    Raises:
        DataError: shapes do not match, or a number is not finite.
        UndefinedStatistic: too few returns for the level, or no equity is left.
    """
    if returns.ndim != 2 or returns.shape[1] != len(positions):
        raise DataError(
            f"returns are {returns.shape}; expected (periods, {len(positions)}), one column "
            "a position"
        )
    curve = drawdowns(equity)
    now = float(equity[-1])
    geared = leverage(positions, now)
    weights = np.array([position.quantity * position.mark / now for position in positions])
    profits = returns @ weights
    return PortfolioRisk(
        exposure=exposure_by_symbol(positions),
        leverage=geared,
        drawdown=float(curve[-1]),
        max_drawdown=float(curve.max()),
        correlation=correlation_matrix(returns),
        value_at_risk=value_at_risk(profits, level),
        expected_shortfall=expected_shortfall(profits, level),
        level=level,
    )
