"""What a signal is judged in: the book's recent doings, the market, the costs."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bot4_runtime.domain.position import ClosedTrade, Position
from bot4_runtime.domain.regime import Regime


class Entry(Protocol):
    """An entry that was made: its time (ns, UTC), symbol and notional in quote."""

    @property
    def ts_ns(self) -> int:
        """When."""
        ...

    @property
    def symbol(self) -> str:
        """Of what."""
        ...

    @property
    def notional(self) -> float:
        """How much, in quote."""
        ...


class SignalHistory:
    """What the book did lately.

    Args:
        trades: closed round trips, newest last.
        entries: what was entered, newest last.
        positions: what is held.
        marks: last price by symbol.
    """

    def __init__(
        self,
        trades: Sequence[ClosedTrade],
        entries: Sequence[Entry],
        positions: Sequence[Position],
        marks: Mapping[str, float],
    ) -> None:
        self.trades = trades
        self.entries = entries
        self.positions = positions
        self.marks = marks


class MarketContext:
    """The market a signal was made in.

    Args:
        regime: as named; None when no models run.
        volatility: standard deviation of one candle's log return.
        recent_return: of the symbol over the last 24 candles, as a share.
        now_ns: the time of the decision.
    """

    def __init__(
        self,
        regime: Regime | None,
        volatility: float | None,
        recent_return: float | None,
        now_ns: int,
    ) -> None:
        self.regime = regime
        self.volatility = volatility
        self.recent_return = recent_return
        self.now_ns = now_ns


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
