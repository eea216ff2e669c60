"""Trading signals: what a strategy proposes before anyone has judged it."""

from enum import StrEnum

import msgspec

from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime


class SignalAction(StrEnum):
    """Open a position, or close the one that is there."""

    ENTER = "enter"
    EXIT = "exit"


class TradingSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal. Entries are judged by the validator; exits always pass.

    Attributes:
        signal_id: ``<rule_id>:<symbol>:<open_time_ms>``, unique and deterministic.
        rule_id: whose evidence record it is judged by.
        confidence: calibrated regime posterior in [0, 1]; not a win probability.
        price: close at which it was decided, in quote.
        stop_distance: distance of the protective stop as a share of price, > 0 for entries.
        regime: None when the strategy uses no models.
        volatility: standard deviation of one candle's log return; None when unknown.
        override_reason: non-empty when a human ordered it; it is validated all the same.
        limit_price: price the strategy wants to rest at, in quote; None lets fees decide.
        ts_ns: when decided (close of the candle), UTC.
    """

    signal_id: str
    rule_id: str
    symbol: str
    action: SignalAction
    side: Side
    confidence: float
    price: float
    stop_distance: float
    regime: Regime | None
    volatility: float | None
    ts_ns: int
    override_reason: str = ""
    limit_price: float | None = None
    reason: str = ""
