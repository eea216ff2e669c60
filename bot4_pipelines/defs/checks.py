"""Asset checks: what a step's own numbers say about whether the next may run.

A blocking check stops the run it is part of. Promotion judges again by itself, because it can
also be materialised alone.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from bot4_pipelines.defs.metadata import rows_table
from bot4_pipelines.ingest.quality_codes import BLOCKING, RULES, Code
from bot4_pipelines.steps import Outcome

CHECKED = [code for code in RULES if code is not Code.RESTATED]
"""Codes with a check of their own here; what was restated, the store knows: `defs.restated`."""

CANDLE_CHECKS = [
    dg.AssetCheckSpec(
        code.value.lower(),
        asset="candles",
        blocking=code in BLOCKING,
        description=RULES[code] + ("" if code in BLOCKING else " Blocks nothing."),
    )
    for code in CHECKED
]
"""One check a code; one whose finding is an ERROR blocks what is made of the candles."""


def _of_candidate(asset: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "gates_passed",
            asset=asset,
            blocking=True,
            description="Every gate of the manifest: accuracy, baselines, definition.",
        ),
        dg.AssetCheckSpec(
            "goals_reached",
            asset=asset,
            description="What a model should reach beyond its gates: accuracy, agreement of the "
            "HMM's refits, the LSTM's train minus validation accuracy. A missed goal is told and "
            "blocks nothing.",
        ),
    ]


HMM_CHECKS = _of_candidate("hmm_candidate")
LSTM_CHECKS = _of_candidate("lstm_candidate")

EVIDENCE_CHECKS = [
    dg.AssetCheckSpec(
        "any_rule_significant",
        asset="evidence_records",
        description="Whether any rule's net return is significant after Benjamini-Hochberg. The "
        "validator asks for more, a Sharpe ratio above 2 among it.",
    )
]


def candle_results(*outcomes: Outcome) -> list[dg.AssetCheckResult]:
    """Tell what each quality rule found: symbol, rows, times, values, and a picture of the worst.

    A rule passes when it found nothing to be done about; what is only told passes.

    Args:
        outcomes: of one ingestion, or of the parts of a run.
    """
    by_code: dict[str, list[dict[str, Any]]] = {code.value: [] for code in CHECKED}
    for outcome in outcomes:
        for finding in outcome.record.numbers["findings"]:
            if finding["code"] in by_code:
                by_code[finding["code"]].append(finding)
    return [
        _candle_result(code, found, _picture(code, outcomes) if found else None)
        for code, found in by_code.items()
    ]


def _picture(code: str, outcomes: Sequence[Outcome]) -> bytes | None:
    """Return the plot of a code's largest finding; None when it was not drawn."""

    def largest(outcome: Outcome) -> int:
        findings = outcome.record.numbers["findings"]
        return max((one["count"] for one in findings if one["code"] == code), default=0)

    return max(outcomes, key=largest).plots().get(f"finding {code}")


def _candle_result(
    code: str, found: list[dict[str, Any]], picture: bytes | None
) -> dg.AssetCheckResult:
    from bot4_pipelines.training.plots import as_markdown

    severities = {finding["severity"] for finding in found}
    metadata: dict[str, Any] = {
        "findings": len(found),
        "rows": sum(finding["count"] for finding in found),
    }
    if found:
        metadata["symbols"] = sorted({finding["symbol"] for finding in found})
        metadata["found"] = rows_table(found)
    if picture is not None:
        metadata["worst"] = dg.MetadataValue.md(as_markdown(picture, f"finding {code}"))
    error = "ERROR" in severities
    return dg.AssetCheckResult(
        check_name=code.lower(),
        passed=severities <= {"INFO"},
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        description="; ".join(finding["message"] for finding in found) or "nothing found",
        metadata=metadata,
    )


def gate_results(outcome: Outcome) -> list[dg.AssetCheckResult]:
    """Tell a candidate's verdicts; one that failed fails the check."""
    gates = outcome.record.numbers["gates"]
    failed = [gate["says"] for gate in gates if not gate["passed"]]
    return [
        dg.AssetCheckResult(
            check_name="gates_passed",
            passed=bool(gates) and not failed,
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(failed) or f"all {len(gates)} gates passed",
            metadata={"gates": gates},
        )
    ]


def candidate_results(outcome: Outcome) -> list[dg.AssetCheckResult]:
    """Tell a candidate's verdicts and which goals it missed."""
    goals = outcome.record.numbers["goals"]
    missed = [goal["says"] for goal in goals if not goal["passed"]]
    return [
        *gate_results(outcome),
        dg.AssetCheckResult(
            check_name="goals_reached",
            passed=bool(goals) and not missed,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(missed) or f"all {len(goals)} goals reached",
            metadata={"goals": goals},
        ),
    ]


def evidence_results(outcome: Outcome) -> list[dg.AssetCheckResult]:
    """Say whether any rule's record is significant."""
    rules = outcome.record.numbers["rules"]
    passing = [rule["rule"] for rule in rules if rule["significant"]]
    return [
        dg.AssetCheckResult(
            check_name="any_rule_significant",
            passed=bool(passing),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rules": rules, "significant": passing},
        )
    ]
