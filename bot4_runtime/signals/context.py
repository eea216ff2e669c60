"""The market a signal is judged in, and what a round trip costs there."""

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.regime import Regime


class MarketContext:
    """The market a signal was made in.

    Args:
        regime: as named; None when no models run.
        volatility: standard deviation of one candle's log return.
        recent_return: of the symbol over the last 24 candles, as a share.
        now_ns: the time of the decision.
        origin: of its candles; None when unknown, which no evidence is of.
        admitted: whether the models may be used on the symbol: trained on it, or proven on
            symbols they had not seen. False when no models run.
    """

    def __init__(
        self,
        regime: Regime | None,
        volatility: float | None,
        recent_return: float | None,
        now_ns: int,
        origin: Origin | None = None,
        admitted: bool = False,  # noqa: FBT001, FBT002 - told by name
    ) -> None:
        self.regime = regime
        self.volatility = volatility
        self.recent_return = recent_return
        self.now_ns = now_ns
        self.origin = origin
        self.admitted = admitted


class TradeCosts:
    """What a round trip costs now, as shares of the notional.

    Args:
        fee_rate_round_trip: both fees.
        slippage_round_trip: both slippages.
        funding_per_day: of a day's holding; 0 on spot.
        holding_days: expected; None takes the evidence's mean.
    """

    def __init__(
        self,
        fee_rate_round_trip: float,
        slippage_round_trip: float,
        funding_per_day: float = 0.0,
        holding_days: float | None = None,
    ) -> None:
        self.fee_rate_round_trip = fee_rate_round_trip
        self.slippage_round_trip = slippage_round_trip
        self.funding_per_day = funding_per_day
        self.holding_days = holding_days
