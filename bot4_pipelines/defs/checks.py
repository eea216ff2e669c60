"""Asset checks: what a step's own numbers say about whether the next may run.

A blocking check stops the run it is part of. Promotion judges again by itself, because it can
also be materialised alone.
"""

from typing import Any

import dagster as dg

from bot4_pipelines.steps import Outcome

CANDLE_CHECKS = [
    dg.AssetCheckSpec(
        "no_error_codes",
        asset="candles",
        blocking=True,
        description="No DUPLICATE, TIME_ORDER, OHLC, FORMING_PERSISTED or NOT_THIS_MARKET.",
    ),
    dg.AssetCheckSpec(
        "no_warning_codes",
        asset="candles",
        description="GAP, FLAT_ZERO_VOLUME and UNCONFIRMED_LAST are listed and masked from "
        "training; they block nothing.",
    ),
]


def _gates(asset: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "gates_passed",
            asset=asset,
            blocking=True,
            description="Every gate of the manifest: accuracy, baselines, definition.",
        )
    ]


HMM_CHECKS = _gates("hmm_candidate")
LSTM_CHECKS = [
    *_gates("lstm_candidate"),
    dg.AssetCheckSpec(
        "goals_reached",
        asset="lstm_candidate",
        description="What a model should reach beyond its gates, train minus validation accuracy "
        "among it. A missed goal is told and blocks nothing.",
    ),
]

EVIDENCE_CHECKS = [
    dg.AssetCheckSpec(
        "any_rule_significant",
        asset="evidence_records",
        description="Whether any rule's net return is significant after Benjamini-Hochberg. The "
        "validator asks for more, a Sharpe ratio above 2 among it.",
    )
]


def candle_results(outcome: Outcome) -> list[dg.AssetCheckResult]:
    """Judge what the quality rules found, errors and warnings apart."""
    found: dict[str, list[dict[str, Any]]] = {"ERROR": [], "WARN": []}
    for finding in outcome.record.numbers["findings"]:
        found[finding["severity"]].append(finding)
    return [
        dg.AssetCheckResult(
            check_name="no_error_codes",
            passed=not found["ERROR"],
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(map(_told, found["ERROR"])) or "no candle is wrong",
            metadata={"findings": found["ERROR"]},
        ),
        dg.AssetCheckResult(
            check_name="no_warning_codes",
            passed=not found["WARN"],
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(found['WARN'])} findings, masked from training",
            metadata={"findings": found["WARN"]},
        ),
    ]


def _told(finding: dict[str, Any]) -> str:
    """Say a finding in words; its message names series, rows and remedy."""
    return f"{finding['code']}: {finding['message']}"


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


def lstm_results(outcome: Outcome) -> list[dg.AssetCheckResult]:
    """Tell the LSTM's verdicts and which goals it missed."""
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
