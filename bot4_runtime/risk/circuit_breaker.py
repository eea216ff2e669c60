"""The circuit breaker: when losses stop entries, for how long, and how trading resumes.

Pure functions from one `BreakerState` to the next; the caller journals every change and
passes the time. A function returns the same object when nothing changes. It never blocks
exits: `RiskManager` lets reduce-only orders pass whatever the phase.

CLOSED --loss streak, daily loss, drawdown--> OPEN --cool-down over--> HALF_OPEN
HALF_OPEN --one winning probe--> CLOSED
HALF_OPEN --a losing one, or another trip--> OPEN, cool-down doubled

A probe is a round trip opened since the cool-down was over. What was opened before it says
nothing about trading now: its loss or win moves the streak alone, as while the breaker is open.
"""

import math
from decimal import Decimal
from typing import Final

import msgspec

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState, RiskMetrics
from bot4_runtime.risk.limits import RiskLimits

LOSS_STREAK: Final = "LOSS_STREAK"
DAILY_LOSS: Final = "DAILY_LOSS"
DRAWDOWN: Final = "DRAWDOWN"
PROBE_LOST: Final = "PROBE_LOST"
"""Reasons of a trip."""

_NS_PER_S: Final = 1_000_000_000


class CircuitBreaker:
    """The rules by which a book's breaker moves; each book keeps its own `BreakerState`.

    Example:
        >>> breaker = CircuitBreaker(RiskLimits(max_loss_streak=1))
        >>> breaker.on_trade_closed(BreakerState(), pnl=-5.0, opened_ns=0, now_ns=1).reason
        'LOSS_STREAK'
    """

    def __init__(self, limits: RiskLimits) -> None:
        self._limits: Final = limits

    def on_trade_closed(
        self, state: BreakerState, pnl: float, *, opened_ns: int, now_ns: int
    ) -> BreakerState:
        """Count a finished round trip; its net profit `pnl` is in quote.

        A win resets the streak and, as a probe, closes a half-open breaker. A profit of exactly
        zero changes nothing. A profit that is not a number counts as a loss.
        """
        probe = state.phase is BreakerPhase.HALF_OPEN and opened_ns >= _probing_from_ns(state)
        if pnl > 0.0:
            if probe:
                return _closed(state)
            return _with_streak(state, 0)
        if pnl == 0.0:
            return state
        counted = _with_streak(state, state.loss_streak + 1)
        if probe:
            return self._trip(counted, PROBE_LOST, now_ns)
        if state.phase is BreakerPhase.CLOSED and counted.loss_streak >= (
            self._limits.max_loss_streak
        ):
            return self._trip(counted, LOSS_STREAK, now_ns)
        return counted

    def on_equity(self, state: BreakerState, metrics: RiskMetrics, now_ns: int) -> BreakerState:
        """Hold equity, unrealised profit included, against daily loss and drawdown.

        Numbers that are not numbers trip it.
        """
        if state.phase is BreakerPhase.OPEN:
            return state
        if not metrics.drawdown <= self._limits.max_drawdown:
            return self._trip(state, DRAWDOWN, now_ns)
        if not daily_loss(metrics) <= self._limits.max_daily_loss:
            return self._trip(state, DAILY_LOSS, now_ns)
        return state

    def on_time(self, state: BreakerState, now_ns: int) -> BreakerState:
        """Let an open breaker probe once its cool-down is over."""
        if state.phase is not BreakerPhase.OPEN:
            return state
        if now_ns < _probing_from_ns(state):
            return state
        return _with_phase(state, BreakerPhase.HALF_OPEN)

    def halt(self, state: BreakerState, reason: str) -> BreakerState:
        """Stop entries by the operator's order, until the operator resumes.

        Raises:
            ConfigError: there is no reason.
        """
        if not reason.strip():
            raise ConfigError("a halt needs a reason; none was given")
        if state.halted and state.halt_reason == reason:
            return state
        return msgspec.structs.replace(state, halted=True, halt_reason=reason)

    def flatten(self, state: BreakerState, reason: str) -> BreakerState:
        """Halt, and let nothing be held either, until the operator resumes.

        Raises:
            ConfigError: there is no reason.
        """
        halted = self.halt(state, reason)
        return halted if halted.flattening else msgspec.structs.replace(halted, flattening=True)

    def resume(self, state: BreakerState) -> BreakerState:
        """Lift the operator's halt. A tripped breaker stays tripped: only time opens it."""
        if not state.halted:
            return state
        return msgspec.structs.replace(state, halted=False, halt_reason="", flattening=False)

    def probing_factor(self, state: BreakerState) -> float:
        """Return the share of the approved size an entry may have: 1, a quarter, or 0."""
        if state.halted or state.phase is BreakerPhase.OPEN:
            return 0.0
        return self._limits.probing_factor if state.phase is BreakerPhase.HALF_OPEN else 1.0

    def _trip(self, state: BreakerState, reason: str, now_ns: int) -> BreakerState:
        cooldown_s = self._limits.cooldown_s
        if state.phase is BreakerPhase.HALF_OPEN:
            cooldown_s = min(max(2 * state.cooldown_s, cooldown_s), self._limits.max_cooldown_s)
        return BreakerState(
            phase=BreakerPhase.OPEN,
            reason=reason,
            halted=state.halted,
            halt_reason=state.halt_reason,
            flattening=state.flattening,
            tripped_ts_ns=now_ns,
            cooldown_s=cooldown_s,
            loss_streak=state.loss_streak,
        )


def daily_loss(metrics: RiskMetrics) -> float:
    """Return the share of the day's first equity that is lost; negative when won.

    NaN when an equity is no number or the day began with none, so that every limit refuses it.
    """
    if not (metrics.equity.is_finite() and metrics.day_start_equity.is_finite()):
        return math.nan
    if not metrics.day_start_equity > 0:
        return math.nan
    return float((metrics.day_start_equity - metrics.equity) / metrics.day_start_equity)


def reset_peak(metrics: RiskMetrics) -> RiskMetrics:
    """Start the drawdown anew from the present equity; only the operator may.

    Raises:
        ConfigError: there is no positive equity to start from.
    """
    if not (metrics.equity.is_finite() and metrics.equity > Decimal(0)):
        raise ConfigError(
            f"cannot reset the peak to an equity of {metrics.equity}; "
            "it must be positive: fund the account first"
        )
    return msgspec.structs.replace(metrics, peak_equity=metrics.equity, drawdown=0.0)


def _probing_from_ns(state: BreakerState) -> int:
    """Return when the cool-down of a tripped breaker is over, UTC."""
    return state.tripped_ts_ns + state.cooldown_s * _NS_PER_S


def _closed(state: BreakerState) -> BreakerState:
    return BreakerState(
        halted=state.halted, halt_reason=state.halt_reason, flattening=state.flattening
    )


def _with_streak(state: BreakerState, loss_streak: int) -> BreakerState:
    if state.loss_streak == loss_streak:
        return state
    return msgspec.structs.replace(state, loss_streak=loss_streak)


def _with_phase(state: BreakerState, phase: BreakerPhase) -> BreakerState:
    return msgspec.structs.replace(state, phase=phase)
