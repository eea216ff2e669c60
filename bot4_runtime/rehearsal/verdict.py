"""The verdict of a rehearsal: passed, violated, or inconclusive for want of orders or faults."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any, Final

from bot4_runtime.domain.candle import Market
from bot4_runtime.rehearsal.oracles import Findings

LEAST_INTENTS: Final = 500
LEAST_HELD: Final = LEAST_INTENTS // 2
"""Orders that the venue must have come to hold: refused ones show little."""
LEAST_FAULTS: Final = 20


class Outcome(StrEnum):
    """What a rehearsal shows."""

    PASSED = "passed"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"


EXIT_CODES: Final = {Outcome.PASSED: 0, Outcome.VIOLATED: 1, Outcome.INCONCLUSIVE: 3}


@dataclass(frozen=True)
class Verdict:
    """What became of a rehearsal.

    Attributes:
        faults: how often each happened.
        scheduled: those that might have happened.
        unprotected_s: spans in which what was held had no order that sells it, venue time.
        unknown_s: spans from an order without answer to its outcome, venue time.
        hours: of the market.
        market: what was traded at its prices.
        ended: why the engine ended before its time; empty when it did not.
    """

    findings: Findings
    faults: Counter[str]
    scheduled: frozenset[str]
    unprotected_s: list[float]
    unknown_s: list[float]
    hours: float
    seed: int
    strategy: str
    simulated: str
    market: Market = Market.SPOT
    ended: str = ""

    @property
    def outcome(self) -> Outcome:
        """A violation counts however few orders there were; silence never passes."""
        if self.findings.violations or self.ended:
            return Outcome.VIOLATED
        return Outcome.INCONCLUSIVE if self.wanting else Outcome.PASSED

    @property
    def wanting(self) -> list[str]:
        """What happened too seldom to show anything, in words."""
        found = self.findings
        least = {
            "orders": (found.intended, LEAST_INTENTS),
            "orders held by the venue": (found.held, LEAST_HELD),
            "trades": (found.trades, 1),
            "faults": (self.faults.total(), LEAST_FAULTS),
        }
        return [f"{n} {what} of {wanted}" for what, (n, wanted) in least.items() if n < wanted]

    @property
    def never(self) -> list[str]:
        """Faults that were scheduled, and never happened."""
        return sorted(set(self.scheduled) - set(self.faults))

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = self.findings
        return {
            "outcome": self.outcome.value,
            "source": self.simulated,
            "simulated": True,
            "market": self.market.value,
            "strategy": self.strategy,
            "seed": self.seed,
            "hours": self.hours,
            "orders_intended": found.intended,
            "orders_held_by_venue": found.held,
            "duplicates": found.duplicates,
            "lost": found.lost,
            "trades": found.trades,
            "fills_missing": found.fills_missing,
            "fills_invented": found.fills_invented,
            "limits_exceeded": found.limits_exceeded,
            "closed_by_venue": found.closed_by_venue,
            "unprotected_s": _spread(self.unprotected_s),
            "recovery_s": _spread(self.unknown_s),
            "faults": dict(sorted(self.faults.items())),
            "faults_that_never_happened": self.never,
            "violations": found.violations,
            "ended": self.ended,
        }

    @property
    def text(self) -> str:
        """The verdict in words."""
        told = self.document()
        lines = [
            f"{told['orders_intended']} orders intended, {told['orders_held_by_venue']} held by "
            f"the venue; {told['duplicates']} duplicates, {told['lost']} lost.",
            f"{told['trades']} trades; {told['fills_missing']} fills missing, "
            f"{told['fills_invented']} invented; limits exceeded {told['limits_exceeded']} times.",
            f"Held without a stop: {_words(self.unprotected_s)}.",
            f"Orders of unknown outcome, until it was known: {_words(self.unknown_s)}.",
            f"{self.faults.total()} faults: "
            + (", ".join(f"{name} {count}" for name, count in told["faults"].items()) or "none")
            + ".",
            *([f"Scheduled, and never happened: {', '.join(self.never)}."] if self.never else ()),
            *(
                [f"Positions closed by the venue itself: {found.closed_by_venue}."]
                if (found := self.findings).closed_by_venue
                else ()
            ),
            *(f"VIOLATED: {violation}." for violation in self.findings.violations[:20]),
        ]
        if self.ended:
            lines.append(f"VIOLATED: the engine ended before its time: {self.ended}")
        if self.outcome is Outcome.INCONCLUSIVE:
            lines.append(
                f"Inconclusive: {', '.join(self.wanting)} wanted; let it run for more --hours, or "
                "with --strategy drill."
            )
        lines.append(f"Verdict: {self.outcome.value}.")
        return "\n".join(lines)


def _spread(spans_s: list[float]) -> dict[str, float | int]:
    if not spans_s:
        return {"count": 0, "sum": 0.0, "median": 0.0, "longest": 0.0}
    return {
        "count": len(spans_s),
        "sum": round(sum(spans_s), 3),
        "median": round(median(spans_s), 3),
        "longest": round(max(spans_s), 3),
    }


def _words(spans_s: list[float]) -> str:
    if not spans_s:
        return "never"
    return (
        f"{len(spans_s)} times, {sum(spans_s):,.1f} s in all, median {median(spans_s):.1f} s, "
        f"longest {max(spans_s):.1f} s"
    )
