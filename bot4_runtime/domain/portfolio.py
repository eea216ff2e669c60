"""What a book is worth, how its risk stands, and the circuit breaker's memory."""

from decimal import Decimal
from enum import StrEnum

import msgspec

from bot4_runtime.domain.position import Position


class BreakerPhase(StrEnum):
    """CLOSED trades, OPEN does not, HALF_OPEN trades at a probing size."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """The circuit breaker's whole memory; journaled, so a restart does not reset it.

    Attributes:
        reason: why it tripped, empty when closed.
        halted: the operator's halt, which only the operator's resume lifts.
        flattening: by the operator's order whatever is held is sold, until resumed.
        tripped_ts_ns: when it tripped; 0 when closed.
        cooldown_s: length of the present cool-down; doubles with each failed probe.
        loss_streak: consecutive losing round trips.
        trades_seen: round trips of the book counted when the breaker last changed.
    """

    phase: BreakerPhase = BreakerPhase.CLOSED
    reason: str = ""
    halted: bool = False
    halt_reason: str = ""
    flattening: bool = False
    tripped_ts_ns: int = 0
    cooldown_s: int = 0
    loss_streak: int = 0
    trades_seen: int = 0


class RiskMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How a book's equity stands. Quote values are marked at the last candle closes.

    Attributes:
        drawdown: 1 - equity / peak_equity, in [0, 1].
        day: UTC day number (days since 1970-01-01) of `day_start_equity`.
        exposure: sum of |quantity| x mark over positions, in quote.
        leverage: exposure / equity.
    """

    equity: Decimal
    peak_equity: Decimal
    drawdown: float
    day: int
    day_start_equity: Decimal
    exposure: Decimal
    leverage: float


class Portfolio(msgspec.Struct, frozen=True, kw_only=True):
    """A whole, consistent view of one book.

    Attributes:
        cash: free and reserved quote together.
        dust: base quantities too small to sell, by asset; not part of equity.
        realised: net profit of closed round trips, in quote.
        fees_quote: all fees so far, valued in quote at their fill prices.
    """

    quote: str
    initial_cash: Decimal
    cash: Decimal
    positions: dict[str, Position]
    dust: dict[str, Decimal]
    realised: Decimal
    fees_quote: Decimal
    metrics: RiskMetrics
