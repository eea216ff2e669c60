"""EMA 10/20 cross, long only: the strategy all backtesters are compared by."""

from collections.abc import Sequence
from typing import Final

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime, RegimeEstimate
from bot4_runtime.domain.signal import SignalAction, TradingSignal

FAST: Final = 2 / (10 + 1)
SLOW: Final = 2 / (20 + 1)
STOP_DISTANCE: Final = 0.10
"""So far away that crosses, not stops, end the trades, as in the peers."""


class EmaCross:
    """Long while the fast average is above the slow one. One symbol."""

    name = "ema_cross"
    needs_models = False
    synthetic_rules = ("ema_cross",)

    def __init__(self) -> None:
        self._fast = self._slow = 0.0
        self._above: bool | None = None

    def warm(self, candle: Candle) -> None:
        """Move the averages."""
        close = candle.close
        if self._above is None:
            self._fast = self._slow = close
        self._fast += FAST * (close - self._fast)
        self._slow += SLOW * (close - self._slow)
        self._above = self._fast > self._slow

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        """Enter on the cross upwards, leave on the cross downwards."""
        before = self._above
        self.warm(candle)
        if before is None or before is self._above:
            return ()
        enter = bool(self._above)
        return (
            TradingSignal(
                signal_id=f"{self.name}:{candle.symbol}:{candle.open_time_ms}",
                rule_id=self.name,
                symbol=candle.symbol,
                action=SignalAction.ENTER if enter else SignalAction.EXIT,
                side=Side.BUY if enter else Side.SELL,
                confidence=0.9,
                price=candle.close,
                stop_distance=STOP_DISTANCE,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000,
            ),
        )

    def on_regime(
        self, estimate: RegimeEstimate, previous: Regime | None, candle: Candle
    ) -> Sequence[TradingSignal]:
        """Take no notice of regimes."""
        return ()


class EmaCrossWithModels(EmaCross):
    """The same with features and both models on every candle."""

    needs_models = True
