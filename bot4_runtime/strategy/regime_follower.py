"""The built-in strategy: long from the candle that reaches StrongBull to the first <= Bear.

The rule and its stop are `rules.REGIME_FOLLOWER`, the same definition the pipeline gathers
evidence of. It takes no view on its own merit: the validator judges each entry.
"""

from collections.abc import Sequence

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime, RegimeEstimate
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.strategy.rules import REGIME_FOLLOWER, stop_distance


class RegimeFollower:
    """Follows the estimate's regime, long only."""

    name = "regime_follower"
    needs_models = True
    synthetic_rules: tuple[str, ...] = ()

    def warm(self, candle: Candle) -> None:
        """Keep nothing: decisions need only this estimate and the one before."""

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        """Decide on estimates, not on candles."""
        return ()

    def on_regime(
        self, estimate: RegimeEstimate, previous: Regime | None, candle: Candle
    ) -> Sequence[TradingSignal]:
        """Enter when the entry regime was just reached, leave in an exit regime."""
        if REGIME_FOLLOWER.exits(estimate.regime):
            return (self._signal(SignalAction.EXIT, estimate, candle),)
        if REGIME_FOLLOWER.enters(previous, estimate.regime):
            return (self._signal(SignalAction.ENTER, estimate, candle),)
        return ()

    @staticmethod
    def _signal(action: SignalAction, estimate: RegimeEstimate, candle: Candle) -> TradingSignal:
        enter = action is SignalAction.ENTER
        return TradingSignal(
            signal_id=f"{REGIME_FOLLOWER.rule_id}:{candle.symbol}:{candle.open_time_ms}",
            rule_id=REGIME_FOLLOWER.rule_id,
            symbol=candle.symbol,
            action=action,
            side=Side.BUY if enter else Side.SELL,
            confidence=estimate.confidence,
            price=candle.close,
            stop_distance=stop_distance(estimate.volatility),
            regime=estimate.regime,
            volatility=estimate.volatility,
            ts_ns=candle.close_time_ms * 1_000_000,
            reason=f"regime {estimate.regime.label}",
        )
