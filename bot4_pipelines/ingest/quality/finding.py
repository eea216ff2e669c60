"""Findings: what can be wrong with candles, how bad it is, and which rows may be learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality_codes import WRONG_PRICES, Code
from bot4_runtime.candles.files import RawCandles

SHOWN: Final = 30
"""Rows shown on either side of the worst."""


class Severity(StrEnum):
    """ERROR blocks; WARN is listed and its rows are masked; INFO is only told."""

    ERROR = "ERROR"
    WARN = "WARN"
    INFO = "INFO"


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing that is wrong with a series.

    Attributes:
        count: rows concerned; missing candles for GAP.
        first_ms: open time of the first of them, as `last_ms` of the last.
        rows: int64[k], their places among the rows judged; empty for GAP and OUTDATED.
        shown: the rows around the worst, to be looked at.
        worst: its place among the rows judged.
    """

    code: Code
    severity: Severity
    message: str
    count: int
    first_ms: int
    last_ms: int
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    shown: RawCandles | None = None
    worst: int = 0


def around(raw: RawCandles, worst: int) -> RawCandles:
    """Return the rows around one."""
    return raw.take(slice(max(0, worst - SHOWN), worst + SHOWN + 1))


def found(
    raw: RawCandles,
    code: Code,
    severity: Severity,
    message: str,
    rows: NDArray[np.intp],
    worst: int | None = None,
) -> Finding:
    """Make a finding of rows, at least one; the first of them is the worst unless told."""
    times = raw.open_time_ms[rows]
    worst = int(rows[0]) if worst is None else worst
    return Finding(
        code=code,
        severity=severity,
        message=f"{raw.symbol} ({raw.source}): {rows.size} {message}",
        count=int(rows.size),
        first_ms=int(times.min()),
        last_ms=int(times.max()),
        rows=rows.astype(np.int64),
        shown=around(raw, worst),
        worst=worst,
    )


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that block."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def training_mask(findings: Sequence[Finding], rows: int, *, memory: int = 0) -> NDArray[np.bool_]:
    """Return bool[rows]: True where a row may be learnt from; INFO masks nothing.

    Args:
        findings: of these rows.
        rows: how many there are.
        memory: rows after one of doubtful prices that are masked with it, since they are computed
            from it.
    """
    mask = np.ones(rows, dtype=bool)
    for finding in findings:
        if finding.severity is Severity.INFO:
            continue
        mask[finding.rows] = False
        if finding.code in WRONG_PRICES:
            for later in range(1, memory + 1):
                mask[np.minimum(finding.rows + later, rows - 1)] = False
    return mask
