"""A strategy that enters all symbols at one close, at the market, and leaves them together."""

from bot4_runtime.domain.order import Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal

RULE = "together"
CYCLE, HOLD = 12, 4


class Together:
    """Enters and leaves by the hour alone, whatever the symbol."""

    name = "together"
    needs_models = False
    synthetic_rules = (RULE,)

    def warm(self, candle):
        """Keep nothing."""

    def on_candle(self, candle):
        phase = candle.open_time_ms // (candle.close_time_ms - candle.open_time_ms) % CYCLE
        if phase not in {0, HOLD}:
            return ()
        enter = phase == 0
        return (
            TradingSignal(
                signal_id=f"{RULE}:{candle.symbol}:{candle.open_time_ms}",
                rule_id=RULE,
                symbol=candle.symbol,
                action=SignalAction.ENTER if enter else SignalAction.EXIT,
                side=Side.BUY if enter else Side.SELL,
                confidence=0.9,
                price=candle.close,
                stop_distance=0.03,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000,
                limit_price=None,
                reason="together: scheduled",
            ),
        )

    def on_regime(self, estimate, previous, candle):
        return ()
