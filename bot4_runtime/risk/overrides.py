"""The operator's emergency overrides: from a command to the journaled event, and back.

An override tightens limits or halts entries until it expires; nothing lifts it before, and
none can loosen: `override_event` refuses one that would, and `limits.tightened` takes the
strictest of all, whatever the journal holds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import OverrideSet
from bot4_runtime.risk.limits import OVERRIDABLE, RiskLimits, RiskOverride

LONGEST_NS: Final = 30 * 86_400_000_000_000
"""An override that holds for longer is a setting, and belongs there."""


def override_event(
    limits: RiskLimits,
    *,
    reason: str,
    command_id: str,
    now_ns: int,
    expires_ts_ns: int,
    halt: bool = False,
    tighten: Mapping[str, float] | None = None,
) -> OverrideSet:
    """Return the event that an operator's command to tighten or halt becomes.

    Args:
        limits: the configured ones.
        reason: why; journaled.
        command_id: the operator's.
        now_ns: UTC, when it is obeyed.
        expires_ts_ns: UTC, when it ends.
        halt: no entries at all.
        tighten: the tightened limits, by name.

    Raises:
        ConfigError: there is no reason, nothing to do, an unknown limit, one that would be
            loosened, or an end that is past or more than 30 days away.
    """
    wanted = dict(tighten or {})
    unknown = sorted(set(wanted) - set(OVERRIDABLE))
    if unknown:
        raise ConfigError(
            f"an override cannot set {unknown[0]!r}; expected one of {', '.join(OVERRIDABLE)}"
        )
    if not now_ns < expires_ts_ns <= now_ns + LONGEST_NS:
        raise ConfigError(
            f"an override must end between now ({now_ns}) and 30 days later (UTC, ns); "
            f"received {expires_ts_ns}"
        )
    override = _override(reason, expires_ts_ns, halt=halt, wanted=wanted)
    override.check_tightens(limits)
    return OverrideSet(
        ts_event_ns=now_ns,
        reason=reason,
        command_id=command_id,
        expires_ts_ns=expires_ts_ns,
        halt=halt,
        limits=wanted,
    )


def overrides_of(events: Sequence[OverrideSet]) -> list[RiskOverride]:
    """Return what was journaled as the risk manager takes it, expired ones included.

    Raises:
        ConfigError: the journal holds a limit that no override can have.
    """
    return [
        _override(event.reason, event.expires_ts_ns, halt=event.halt, wanted=event.limits)
        for event in events
    ]


def _override(
    reason: str, expires_ts_ns: int, *, halt: bool, wanted: Mapping[str, float]
) -> RiskOverride:
    return RiskOverride(
        reason=reason,
        expires_ts_ns=expires_ts_ns,
        halt=halt,
        max_position_pct=wanted.get("max_position_pct"),
        max_correlation=wanted.get("max_correlation"),
        max_leverage=wanted.get("max_leverage"),
        max_drawdown=wanted.get("max_drawdown"),
        min_liquidity_ratio=wanted.get("min_liquidity_ratio"),
        min_margin_ratio=wanted.get("min_margin_ratio"),
    )
