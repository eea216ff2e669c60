"""What protection tells people: a code, how bad it is, whom it is about, and the numbers.

Plain values; who delivers them is not known here.
"""

from typing import Final

INFO: Final = "info"
WARNING: Final = "warning"
CRITICAL: Final = "critical"
"""Severities, in rising order."""

MARGIN_ALERT: Final = "MARGIN_ALERT"
MARGIN_ACT: Final = "MARGIN_ACT"
MARGIN_CRITICAL: Final = "MARGIN_CRITICAL"
MARGIN_UNKNOWN: Final = "MARGIN_UNKNOWN"
MARGIN_CLEARED: Final = "MARGIN_CLEARED"
MEASURED: Final = (MARGIN_ALERT, MARGIN_ACT, MARGIN_CRITICAL, MARGIN_UNKNOWN, MARGIN_CLEARED)
"""Of one wallet each takes the place of the one before it."""
MARK_STALE: Final = "MARK_STALE"
BRACKETS_UNKNOWN: Final = "BRACKETS_UNKNOWN"
VENUE_DIFFERS: Final = "VENUE_DIFFERS"
STOP_MISSING: Final = "STOP_MISSING"
STOP_NOT_DONE: Final = "STOP_NOT_DONE"
ACTION_IMPOSSIBLE: Final = "ACTION_IMPOSSIBLE"
ACTION_REFUSED: Final = "ACTION_REFUSED"
ACTION_UNKNOWN: Final = "ACTION_UNKNOWN"
MARGIN_CALL: Final = "MARGIN_CALL"
LIQUIDATED: Final = "LIQUIDATED"
DELEVERAGED: Final = "DELEVERAGED"


class Alarm:
    """One thing that people must know.

    Attributes:
        severity: ``info``, ``warning`` or ``critical``.
        code: what happened, one of the codes of this module.
        subject: the wallet, symbol or leg it is about.
        text: in words.
        numbers: what was compared, by name; NaN where a number is not known.
    """

    def __init__(
        self, severity: str, code: str, subject: str, text: str, numbers: dict[str, float]
    ) -> None:
        self.severity: Final = severity
        self.code: Final = code
        self.subject: Final = subject
        self.text: Final = text
        self.numbers: Final = numbers
