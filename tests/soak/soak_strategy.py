"""A strategy that enters every third minute, so that an hour holds many orders. No strategy."""

import zlib

from bot4_runtime.domain.order import Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal

RULE = "soak"
CYCLE = 3
"""Candles from one entry of a symbol to the next; it is left after one. More entries of a symbol
would be overtrading within the hour."""


class Busy:
    """Enters by turns at the market and resting, and leaves."""

    name = "busy"
    needs_models = False
    synthetic_rules = (RULE,)

    def warm(self, candle):
        """Keep nothing."""

    def on_candle(self, candle):
        length_ms = candle.close_time_ms - candle.open_time_ms
        number = candle.open_time_ms // length_ms + zlib.crc32(candle.symbol.encode())
        phase = number % CYCLE
        if phase not in {0, 1}:
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
                stop_distance=0.01,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000,
                limit_price=candle.close * 0.9999 if enter and number % (2 * CYCLE) else None,
                reason="soak: scheduled",
            ),
        )

    def on_regime(self, estimate, previous, candle):
        return ()
