"""What a strategy is, and how one is found by name.

A strategy is deterministic: it decides from the candles and estimates it is shown and keeps
nothing else. After a restart the engine shows it the session's candles again through `warm`,
so that it ends in the state of a run that never stopped.
"""

import importlib
from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.regime import Regime, RegimeEstimate
from bot4_runtime.domain.signal import TradingSignal


@runtime_checkable
class Strategy(Protocol):
    """Turns candles and regime estimates into signals, each of the candle it was decided on.

    A signal of another symbol, or of another time (`ts_ns`) than the candle's close, ends the
    run: limits, overrides and the gate's ceiling go by it.

    Attributes:
        name: shown in reports.
        needs_models: whether features and models must run for it.
        synthetic_rules: rules that are judged by a synthetic history of true Sharpe 3;
            empty for every honest strategy, and only paper and loopback venues accept others.
    """

    name: str
    needs_models: bool
    synthetic_rules: tuple[str, ...]

    def warm(self, candle: Candle) -> None:
        """See a candle without deciding: history before the session, or before a restart."""
        ...

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        """Decide at a candle's close."""
        ...

    def on_regime(
        self, estimate: RegimeEstimate, previous: Regime | None, candle: Candle
    ) -> Sequence[TradingSignal]:
        """Decide on a fresh estimate; `previous` is the regime one candle before, if known."""
        ...


BUILT_IN: Final = {
    "regime_follower": "bot4_runtime.strategy.regime_follower:RegimeFollower",
    "drill": "bot4_runtime.strategy.drill:Drill",
}


def synthetic_rules(name: str) -> tuple[str, ...]:
    """Return the rules of a strategy whose evidence is synthetic; none when it is not here."""
    try:
        return load_strategy(name).synthetic_rules
    except ConfigError:
        return ()


def load_strategy(name: str) -> Strategy:
    """Build a strategy from a built-in name or ``module:Class``.

    Raises:
        ConfigError: there is no such module or class, or it is not a strategy.
    """
    target = BUILT_IN.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        raise ConfigError(
            f"unknown strategy {name!r}; expected one of {', '.join(BUILT_IN)} or module:Class"
        )
    try:
        strategy = getattr(importlib.import_module(module_name), class_name)()
    except (ImportError, AttributeError, TypeError, ValueError, SyntaxError) as error:
        raise ConfigError(f"strategy {name!r} cannot be built: {error}") from error
    if not isinstance(strategy, Strategy):
        raise ConfigError(
            f"{name!r} is no strategy: it lacks a part of bot4_runtime.strategy.protocol.Strategy"
        )
    return strategy
