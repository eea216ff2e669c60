"""A strategy that enters by limits the market takes at once, and leaves three candles later."""

from collections.abc import Sequence

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal


class Swinging:
    """Enters at every fourth candle, leaves at the one before the next."""

    name = "swinging"
    needs_models = False
    synthetic_rules = ("drill",)

    def warm(self, candle: Candle) -> None:
        """Nothing to remember."""

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        number = candle.open_time_ms // 3_600_000 % 4
        if number not in {0, 3}:
            return ()
        enters = number == 0
        return (
            TradingSignal(
                signal_id=f"{candle.symbol}:{candle.open_time_ms}",
                rule_id="drill",
                symbol=candle.symbol,
                action=SignalAction.ENTER if enters else SignalAction.EXIT,
                side=Side.BUY if enters else Side.SELL,
                confidence=0.9,
                price=candle.close,
                stop_distance=0.05,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000,
                limit_price=candle.close * 1.002 if enters else None,
                reason="swings",
            ),
        )

    def on_regime(self, estimate: object, previous: object, candle: Candle) -> Sequence[object]:
        return ()
