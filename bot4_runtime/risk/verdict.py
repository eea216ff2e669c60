"""What the risk manager answers. The exchange gate takes `RiskApproved` and nothing else.

Only `RiskManager` makes an approval: its constructor asks for a witness that no other module
holds. Refusals carry the limit, the value that broke it and the size that would pass. Where
there is nothing to measure both numbers are counts: HALTED is 1 halt where 0 are allowed,
STOP_LOSS_MISSING is 0 stops where 1 is needed. They are always finite.
"""

import math
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.domain.order import OrderIntent, payload_hash
from bot4_runtime.risk.entry import Entry

STALE: Final = "STALE"
NOT_FINITE: Final = "NOT_FINITE"
REDUCE_ONLY: Final = "REDUCE_ONLY"
HALTED: Final = "HALTED"
BREAKER_OPEN: Final = "BREAKER_OPEN"
POSITION_SIZE: Final = "POSITION_SIZE"
CORRELATION: Final = "CORRELATION"
CORRELATION_UNKNOWN: Final = "CORRELATION_UNKNOWN"
STOP_LOSS_MISSING: Final = "STOP_LOSS_MISSING"
STOP_LOSS_SIDE: Final = "STOP_LOSS_SIDE"
LEVERAGE: Final = "LEVERAGE"
DRAWDOWN: Final = "DRAWDOWN"
LIQUIDITY: Final = "LIQUIDITY"
MARGIN: Final = "MARGIN"

CODES: Final[tuple[str, ...]] = (
    STALE,
    NOT_FINITE,
    REDUCE_ONLY,
    HALTED,
    BREAKER_OPEN,
    POSITION_SIZE,
    CORRELATION,
    CORRELATION_UNKNOWN,
    STOP_LOSS_MISSING,
    STOP_LOSS_SIDE,
    LEVERAGE,
    DRAWDOWN,
    LIQUIDITY,
    MARGIN,
)
"""Every refusal's code, in the order the checks run. STALE is of `EntryCheck` alone."""

WITNESS: Final = object()
"""Held by `RiskManager` alone; a test forbids any other module to name it."""

_LARGEST: Final = 1.7976931348623157e308
"""The largest float64."""

_REASONS: Final[dict[str, str]] = {
    REDUCE_ONLY: "reduces {value:g} but may reduce {limit:g} of the position at most",
    HALTED: "the operator halted entries; resume lifts it",
    BREAKER_OPEN: "the circuit breaker is open; it probes again after its cool-down",
    POSITION_SIZE: "position would be {value:.4%} of equity, at most {limit:.4%} is allowed",
    CORRELATION: "correlation {value:.3f} with an open position, less than {limit:.3f} is needed",
    CORRELATION_UNKNOWN: "correlation with {value:g} open positions is not known yet",
    STOP_LOSS_MISSING: "an entry needs a stop loss and has none",
    STOP_LOSS_SIDE: "stop loss {value:g} is not on the losing side of {limit:g}",
    LEVERAGE: "leverage would be {value:.3f}, at most {limit:.3f} is allowed",
    DRAWDOWN: "drawdown is {value:.2%}, at most {limit:.2%} is allowed",
    LIQUIDITY: "exit-side depth is {value:.3f} times the order, {limit:.3f} is needed",
    MARGIN: "free cash is {value:.3f} times the margin, {limit:.3f} is needed",
}


class RiskApproved:
    """An intent that may leave the house, exactly as it is.

    Attributes:
        risk_score: largest share of a limit used, in [0, 1]; 0 for exits.
    """

    def __init__(self, intent: OrderIntent, risk_score: float, witness: object) -> None:
        if witness is not WITNESS:
            raise InvariantViolated(
                "an approval was made outside the risk manager; only RiskManager.validate "
                "approves intents"
            )
        self._intent: Final = intent
        self._risk_score: Final = risk_score

    @property
    def intent(self) -> OrderIntent:
        """The intent as it was judged."""
        return self._intent

    @property
    def risk_score(self) -> float:
        """Largest share of a limit used, in [0, 1]; 0 for exits."""
        return self._risk_score

    @property
    def size(self) -> Decimal:
        """The intent's own base quantity: risk never changes an intent."""
        return self._intent.quantity

    @property
    def stop_loss(self) -> Decimal | None:
        """The protective stop the position must carry, in quote; None for exits."""
        return self._intent.stop_loss

    @property
    def payload_hash(self) -> str:
        """sha256 (hex) of the judged intent; the gate compares it with what it is to send."""
        return payload_hash(self._intent)


class RiskRefused:
    """An intent that stays.

    Args:
        would_pass_size: largest base quantity the same intent passes with, 0 when none does;
            or the entry that works it out when it is asked for.
        detail: what exactly was wrong with the input, when that is the reason.
    """

    def __init__(
        self,
        code: str,
        limit: float,
        value: float,
        would_pass_size: Decimal | Entry,
        detail: str = "",
    ) -> None:
        self._code: Final = code
        self._limit: Final = _finite(limit)
        self._value: Final = _finite(value)
        self._would_pass_size = would_pass_size
        self._detail: Final = detail

    @property
    def code(self) -> str:
        """One of `CODES`."""
        return self._code

    @property
    def limit(self) -> float:
        """What was allowed."""
        return self._limit

    @property
    def value(self) -> float:
        """What it would have been; the largest float where it overflows."""
        return self._value

    @property
    def would_pass_size(self) -> Decimal:
        """Largest base quantity the same intent passes with; 0 when none does."""
        size = self._would_pass_size
        if isinstance(size, Entry):
            size = size.passing()
            self._would_pass_size = size
        return size

    @property
    def text(self) -> str:
        """The refusal in words, with its numbers and what would pass."""
        if self._code == NOT_FINITE:
            return f"cannot be judged: {self._detail}"
        reason = _REASONS[self._code].format(limit=self._limit, value=self._value)
        if self.would_pass_size > 0:
            return f"{reason}; {self.would_pass_size} would pass"
        return reason


RiskVerdict = RiskApproved | RiskRefused


def _finite(number: float) -> float:
    if -_LARGEST <= number <= _LARGEST:
        return number
    return math.copysign(_LARGEST, number)
