"""The built-in rules: when to enter, when to leave, where the stop lies.

One definition for the strategy that trades them and the pipeline that gathers their
evidence. All are long only. What was tried stands here too, because the evidence of one
rule is adjusted for all that were looked at.
"""

import math
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.domain.regime import Regime

STOP_VOLATILITIES: Final = 4.0
STOP_CANDLES: Final = 24
STOP_LEAST: Final = 0.02
STOP_MOST: Final = 0.15
VOLATILITY_CANDLES: Final = 72
"""Candles over which the volatility of the stop is measured."""


def stop_distance(volatility: float) -> float:
    """Return the stop's distance below the entry, as a share of price.

    clip(4 volatility sqrt(24), 0.02, 0.15), with `volatility` the standard deviation of one
    candle's log return over the last 72.

    Raises:
        UndefinedStatistic: the volatility is not a positive finite number.
    """
    if not 0.0 < volatility < math.inf:
        raise UndefinedStatistic(f"stop from volatility {volatility}; expected a positive number")
    raw = STOP_VOLATILITIES * volatility * math.sqrt(STOP_CANDLES)
    return min(max(raw, STOP_LEAST), STOP_MOST)


@dataclass(frozen=True, slots=True)
class RegimeRule:
    """Long from the candle that reaches an entry regime to the first that shows an exit regime.

    Attributes:
        rule_id: names the rule in signals and evidence.
        entry: regimes that, newly reached, open a position.
        leave: regimes that close it.
        hold_candles: candles after which it is closed anyway; 0 = never.
    """

    rule_id: str
    entry: tuple[Regime, ...]
    leave: tuple[Regime, ...]
    hold_candles: int = 0

    def enters(self, previous: Regime | None, current: Regime) -> bool:
        """Whether an entry regime was reached; unknown what came before is no entry."""
        return previous is not None and previous not in self.entry and current in self.entry

    def exits(self, current: Regime, candles_held: int = 0) -> bool:
        """Whether a position must be closed, `candles_held` candles after its entry signal."""
        return current in self.leave or 0 < self.hold_candles <= candles_held


REGIME_FOLLOWER: Final = RegimeRule(
    "regime_follower", (Regime.STRONG_BULL,), (Regime.STRONG_BEAR, Regime.BEAR)
)
"""The rule that the built-in strategy trades."""

RULES_TRIED: Final[tuple[RegimeRule, ...]] = (
    REGIME_FOLLOWER,
    RegimeRule(
        "strong_bull_to_neutral",
        (Regime.STRONG_BULL,),
        (Regime.STRONG_BEAR, Regime.BEAR, Regime.NEUTRAL),
    ),
    RegimeRule(
        "while_strong_bull",
        (Regime.STRONG_BULL,),
        (Regime.STRONG_BEAR, Regime.BEAR, Regime.NEUTRAL, Regime.BULL),
    ),
    RegimeRule(
        "while_bull_or_better",
        (Regime.BULL, Regime.STRONG_BULL),
        (Regime.STRONG_BEAR, Regime.BEAR, Regime.NEUTRAL),
    ),
    RegimeRule("bull_entry_72", (Regime.BULL, Regime.STRONG_BULL), (), hold_candles=72),
    RegimeRule(
        "contrarian_strong_bear",
        (Regime.STRONG_BEAR,),
        (Regime.BEAR, Regime.NEUTRAL, Regime.BULL, Regime.STRONG_BULL),
    ),
    RegimeRule("contrarian_entry_72", (Regime.STRONG_BEAR,), (), hold_candles=72),
)
"""Every long-only rule that was looked at; evidence is adjusted for all of them."""
