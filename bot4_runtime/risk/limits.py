"""Risk limits: what is configured, the hard limits no configuration passes, overrides.

The one table of hard limits is `BOUNDS`. Limits are shares of equity unless their name
says otherwise. Overrides live here too, since all they can do is tighten a limit or halt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.errors import ConfigError


class Bound:
    """How far one key may go: from `tightest` to `loosest`, both allowed.

    Attributes:
        tightest: the strictest value; beyond it is a typing error (0.0002 for 0.02).
        loosest: the hard limit that no configuration can pass.
        whole: the key counts something and takes integers only.
    """

    def __init__(self, tightest: float, loosest: float, *, whole: bool = False) -> None:
        self.tightest: Final = tightest
        self.loosest: Final = loosest
        self.whole: Final = whole


BOUNDS: Final[dict[str, Bound]] = {
    # key                                 tightest    hard limit    default and meaning
    "max_position_pct": Bound(1e-4, 0.10),  # 0.02  worst case of one symbol / equity
    "max_correlation": Bound(0.0, 1.0),  # 0.7   of position returns; 1 lets any known one pass
    "max_leverage": Bound(0.01, 5.0),  # 3     worst case of all symbols / equity
    "max_drawdown": Bound(0.01, 0.30),  # 0.15  1 - equity / peak equity
    "min_liquidity_ratio": Bound(1000.0, 1.0),  # 1.5   exit-side depth / order value
    "min_margin_ratio": Bound(100.0, 1.0),  # 1.1   free cash / margin the order needs
    "max_loss_streak": Bound(1, 10, whole=True),  # 3     losing round trips in a row
    "max_daily_loss": Bound(0.001, 0.10),  # 0.05  1 - equity / equity at 00:00 UTC
    "cooldown_s": Bound(604_800, 3_600, whole=True),  # 24 h  first cool-down
    "max_cooldown_s": Bound(2_592_000, 86_400, whole=True),  # 7 d   where doubling ends
    "probing_factor": Bound(0.01, 0.5),  # 0.25  share of the size while half-open
    "correlation_half_life_hours": Bound(8_760.0, 24.0),  # 720   weight halves in this time
    "correlation_min_observations": Bound(10_000, 24, whole=True),  # 72    fewer are unknown
}
"""Every key's strictest value and its hard limit. `require_stop_loss` can only be true."""


OVERRIDABLE: Final = (
    "max_position_pct",
    "max_correlation",
    "max_leverage",
    "max_drawdown",
    "min_liquidity_ratio",
    "min_margin_ratio",
)
"""Limits an override can tighten."""


@dataclass(frozen=True, kw_only=True)
class RiskLimits:
    """The limits a risk manager and a circuit breaker hold orders and equity against.

    Attributes: see `BOUNDS`, which names each key's unit, default and hard limit.

    Raises:
        ConfigError: a value is not a number, or lies outside its `Bound`.

    Example:
        >>> RiskLimits(max_leverage=2.0).max_position_pct
        0.02
    """

    max_position_pct: float = 0.02
    max_correlation: float = 0.7
    max_leverage: float = 3.0
    max_drawdown: float = 0.15
    require_stop_loss: bool = True
    min_liquidity_ratio: float = 1.5
    min_margin_ratio: float = 1.1
    max_loss_streak: int = 3
    max_daily_loss: float = 0.05
    cooldown_s: int = 86_400
    max_cooldown_s: int = 604_800
    probing_factor: float = 0.25
    correlation_half_life_hours: float = 720.0
    correlation_min_observations: int = 72

    def __post_init__(self) -> None:
        for key in BOUNDS:
            _check(key, getattr(self, key))
        if self.require_stop_loss is not True:
            raise ConfigError(
                f"risk.require_stop_loss is {self.require_stop_loss!r}; "
                "a stop loss is mandatory: remove the key or set it to true"
            )
        if self.max_cooldown_s < self.cooldown_s:
            raise ConfigError(
                f"risk.max_cooldown_s {self.max_cooldown_s} is shorter than "
                f"risk.cooldown_s {self.cooldown_s}; make it at least as long"
            )


@dataclass(frozen=True, kw_only=True)
class RiskOverride:
    """An operator's emergency order: tighten some limits, or halt entries, until it expires.

    It is journaled with its reason. None leaves a limit as it is.

    Raises:
        ConfigError: there is no reason, no expiry, nothing to do, or a value is out of bounds.
    """

    reason: str
    expires_ts_ns: int
    halt: bool = False
    max_position_pct: float | None = None
    max_correlation: float | None = None
    max_leverage: float | None = None
    max_drawdown: float | None = None
    min_liquidity_ratio: float | None = None
    min_margin_ratio: float | None = None

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ConfigError("a risk override needs a reason; none was given")
        if not self.expires_ts_ns > 0:
            raise ConfigError(
                f"a risk override needs an expiry (UTC, ns); received {self.expires_ts_ns}"
            )
        named = [key for key in OVERRIDABLE if getattr(self, key) is not None]
        if not named and not self.halt:
            raise ConfigError(
                f"a risk override must halt or tighten one of {' '.join(OVERRIDABLE)}"
            )
        for key in named:
            _check(key, getattr(self, key))

    def check_tightens(self, limits: RiskLimits) -> None:
        """Refuse an override that would loosen a limit.

        Raises:
            ConfigError: a value is looser than the limit in force.
        """
        for key in OVERRIDABLE:
            wanted = getattr(self, key)
            if wanted is None:
                continue
            bound = BOUNDS[key]
            present = getattr(limits, key)
            if _stricter(bound, wanted, present) != wanted:
                raise ConfigError(
                    f"override {key} = {wanted} would loosen the limit in force, {present}; "
                    "an override can only tighten: choose a stricter value"
                )


def tightened(limits: RiskLimits, overrides: Sequence[RiskOverride], now_ns: int) -> RiskLimits:
    """Return the strictest of the limits and of every override that has not expired.

    No override can loosen the result, whatever it holds.
    """
    strictest: dict[str, float] = {key: getattr(limits, key) for key in OVERRIDABLE}
    for override in overrides:
        if now_ns >= override.expires_ts_ns:
            continue
        for key in OVERRIDABLE:
            wanted = getattr(override, key)
            if wanted is not None:
                strictest[key] = _stricter(BOUNDS[key], wanted, strictest[key])
    return RiskLimits(
        max_position_pct=strictest["max_position_pct"],
        max_correlation=strictest["max_correlation"],
        max_leverage=strictest["max_leverage"],
        max_drawdown=strictest["max_drawdown"],
        min_liquidity_ratio=strictest["min_liquidity_ratio"],
        min_margin_ratio=strictest["min_margin_ratio"],
        max_loss_streak=limits.max_loss_streak,
        max_daily_loss=limits.max_daily_loss,
        cooldown_s=limits.cooldown_s,
        max_cooldown_s=limits.max_cooldown_s,
        probing_factor=limits.probing_factor,
        correlation_half_life_hours=limits.correlation_half_life_hours,
        correlation_min_observations=limits.correlation_min_observations,
    )


def halting(overrides: Sequence[RiskOverride], now_ns: int) -> bool:
    """Whether an override that has not expired halts entries."""
    return any(override.halt and now_ns < override.expires_ts_ns for override in overrides)


def _stricter(bound: Bound, one: float, other: float) -> float:
    return min(one, other) if bound.tightest < bound.loosest else max(one, other)


def _check(key: str, value: object) -> None:
    """Refuse a value that is no number or lies outside its bound; NaN fails."""
    bound = BOUNDS[key]
    low, high = min(bound.tightest, bound.loosest), max(bound.tightest, bound.loosest)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"risk.{key} is {value!r}; expected a number in [{low:g}, {high:g}]")
    if bound.whole and not isinstance(value, int):
        raise ConfigError(f"risk.{key} is {value!r}; expected a whole number")
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(
            f"risk.{key} is {value!r}; the hard limit is {bound.loosest:g} and the "
            f"strictest value {bound.tightest:g}, whatever is configured: choose one between"
        )
