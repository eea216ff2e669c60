"""The drill: an exerciser of the order path, never a strategy for money.

It enters and leaves often and deterministically and rests limit orders. It is judged by a
synthetic history of true Sharpe 3, so that the validator lets it through. Only paper and loopback
venues accept it.
"""

import zlib
from collections.abc import Sequence
from typing import Final

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime, RegimeEstimate
from bot4_runtime.domain.signal import SignalAction, TradingSignal

RULE_ID: Final = "drill"
CYCLE: Final = 12
"""Candles from one entry of a symbol to the next."""
HOLD: Final = 8
"""Candles from an entry to its exit."""


class Drill:
    """Enters every symbol every `CYCLE` candles, out of step with the others."""

    name = "drill"
    needs_models = False
    synthetic_rules = (RULE_ID,)

    def warm(self, candle: Candle) -> None:
        """Keep nothing: the phase follows from the candle's time alone."""

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        """Enter at phase 0, leave at phase `HOLD`."""
        number = candle.open_time_ms // (candle.close_time_ms - candle.open_time_ms)
        phase = (number + zlib.crc32(candle.symbol.encode())) % CYCLE
        if phase == 0:
            return (self._signal(candle, SignalAction.ENTER),)
        if phase == HOLD:
            return (self._signal(candle, SignalAction.EXIT),)
        return ()

    def on_regime(
        self, estimate: RegimeEstimate, previous: Regime | None, candle: Candle
    ) -> Sequence[TradingSignal]:
        """Take no notice of regimes."""
        return ()

    @staticmethod
    def _signal(candle: Candle, action: SignalAction) -> TradingSignal:
        enter = action is SignalAction.ENTER
        return TradingSignal(
            signal_id=f"{RULE_ID}:{candle.symbol}:{candle.open_time_ms}",
            rule_id=RULE_ID,
            symbol=candle.symbol,
            action=action,
            side=Side.BUY if enter else Side.SELL,
            confidence=0.9,
            price=candle.close,
            stop_distance=0.03,
            regime=None,
            volatility=None,
            ts_ns=candle.close_time_ms * 1_000_000,
            limit_price=candle.close * 0.999 if enter else None,
            reason="drill: scheduled",
        )
