"""A strategy that may not begin without models, and keeps what it buys."""

from collections.abc import Sequence

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal


class Modelled:
    """Buys at each close, whatever regime is named."""

    name = "modelled"
    needs_models = True
    synthetic_rules = ("drill",)

    def warm(self, candle: Candle) -> None:
        """Nothing to remember."""

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        return (
            TradingSignal(
                signal_id=f"{candle.symbol}:{candle.open_time_ms}",
                rule_id="drill",
                symbol=candle.symbol,
                action=SignalAction.ENTER,
                side=Side.BUY,
                confidence=0.9,
                price=candle.close,
                stop_distance=0.2,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000,
                limit_price=None,
                reason="buys",
            ),
        )

    def on_regime(self, estimate: object, previous: object, candle: Candle) -> Sequence[object]:
        return ()
