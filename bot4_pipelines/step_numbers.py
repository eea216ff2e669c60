"""What steps tell of candles, models and evidence: the numbers of their records."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.evidence import EvidenceRecord

if TYPE_CHECKING:
    from bot4_pipelines.training.candidates import Candidate
    from bot4_pipelines.training.drift import Reference
    from bot4_pipelines.training.leak_audit import Audit
    from bot4_pipelines.training.search import SearchResult
    from bot4_runtime.regime.registry import Activation, CurrentPair

SIGNIFICANCE: Final = 0.05


def candle_numbers(series: Sequence[CandleSeries]) -> dict[str, Any]:
    """Return how many candles there are of what, from when to when."""
    rows: list[dict[str, Any]] = [
        {
            "symbol": one.id.symbol,
            "candles": len(one),
            "from_ms": int(one.open_time_ms[0]),
            "to_ms": int(one.open_time_ms[-1]) + one.interval_ms,
            "gaps": len(one.runs()) - 1,
        }
        for one in series
    ]
    return {
        "candles": sum(row["candles"] for row in rows),
        "symbols": [row["symbol"] for row in rows],
        "from_ms": min((row["from_ms"] for row in rows), default=None),
        "to_ms": max((row["to_ms"] for row in rows), default=None),
        "gaps": sum(row["gaps"] for row in rows),
        "by_symbol": rows,
    }


def model_numbers(made: "Candidate") -> dict[str, Any]:
    """Return what there is to say of a candidate: numbers by split, verdicts, dates."""
    from bot4_pipelines.training.card import card_markdown
    from bot4_pipelines.training.goals import judge_goals

    manifest = made.manifest
    goals = judge_goals(manifest.kind, manifest.metrics)
    page = f"The page with every plot: `models/archive/{made.sha256}/card.html`"
    kept = {
        name: section
        for name, section in manifest.metrics.items()
        if not name.startswith("fitted")
    }
    tests = manifest.metrics.get("test", {})
    return {
        "sha256": made.sha256,
        "card": f"{card_markdown(manifest)}\n\n{page}",
        "kind": manifest.kind.value,
        "lookback": manifest.window if manifest.hmm_sha256 else None,
        "validation_accuracy": manifest.metrics.get("validation", {}).get("accuracy"),
        "test_accuracy": tests.get("accuracy"),
        "gates": [_gate_row(gate) for gate in manifest.gates],
        "goals": [_gate_row(goal) for goal in goals],
        "unseen": None if manifest.unseen is None else msgspec.structs.asdict(manifest.unseen),
        "continued_from": manifest.continued_from or None,
        "cuts": {
            name: getattr(manifest.cuts, name)
            for name in ("train_start_ms", "validation_start_ms", "test_start_ms", "end_ms")
        },
        "metrics": kept,
    }


def _gate_row(gate: Any) -> dict[str, Any]:
    return {
        "name": gate.name,
        "passed": gate.passed,
        "value": gate.value,
        "rule": gate.rule,
        "threshold": gate.threshold,
        "says": str(gate),
    }


def pair_numbers(
    interval: str, pair: "CurrentPair", told: "Activation | None" = None
) -> dict[str, Any]:
    """Return which pair of models trades an interval, since when, and how it beat the last."""
    compared = told.champion if told is not None else None
    return {
        "champion": None if compared is None else msgspec.to_builtins(compared),
        "note": "" if told is None else told.note,
        "interval": interval,
        "hmm_sha256": pair.hmm_sha256,
        "lstm_sha256": pair.lstm_sha256,
        "schema_id": pair.schema_id,
        "activated_ms": pair.activated_ms,
    }


def evidence_rows(records: Iterable[EvidenceRecord]) -> list[dict[str, Any]]:
    """Return what each rule's record says, and whether it is significant."""
    return [
        {
            "rule": record.rule_id,
            "trades": record.n_trades,
            "weeks": record.n_eff_weeks,
            "mean_net": record.mean_net,
            "win_rate": record.win_rate,
            "p_value": record.p_value_raw,
            "p_value_bh": record.p_value_bh,
            "sharpe": record.sharpe,
            "sharpe_low": record.sharpe_low,
            "sharpe_high": record.sharpe_high,
            "significant": record.p_value_bh is not None
            and record.p_value_bh < SIGNIFICANCE
            and (record.mean_net or 0.0) > 0.0,
        }
        for record in records
    ]


def leak_numbers(found: "Audit", lstm_sha256: str) -> dict[str, Any]:
    """Return what an audit compared, and every column that looked ahead."""
    return {
        "lstm_sha256": lstm_sha256,
        "moments": found.moments,
        "values_compared": found.values,
        "left_out": list(found.left_out),
        "leaks": [
            {
                "symbol": leak.symbol,
                "column": leak.column,
                "moment_ms": leak.moment_ms,
                "first_row_ms": leak.first_ms,
                "rows": leak.rows,
                "says": str(leak),
            }
            for leak in found.leaks
        ],
    }


def reference_numbers(reference: "Reference") -> dict[str, Any]:
    """Return the limits that recent candles are held against."""
    return {
        "window": reference.window,
        "months_of_training": reference.blocks,
        "loglik_limit": reference.loglik_limit,
        "loglik_median": reference.loglik_median,
        "limits": [
            {"feature": name, "psi_limit": float(psi), "ks_limit": float(ks)}
            for name, psi, ks in zip(
                reference.names, reference.psi_limit, reference.ks_limit, strict=True
            )
        ],
    }


def search_numbers(found: "SearchResult", study: str) -> dict[str, Any]:
    """Return a search's trials, its best settings and what it cost."""
    best = found.best
    return {
        "study": study,
        "trials": [
            {
                "trial": one.number,
                "state": one.state,
                "validation_accuracy": one.accuracy,
                "iterations": one.iterations,
                "cpu_seconds": round(one.cpu_s, 2),
                **{name: float(f"{value:.6g}") for name, value in one.params.items()},
            }
            for one in found.trials
        ],
        "trials_made_now": found.made,
        "complete": sum(one.state == "COMPLETE" for one in found.trials),
        "pruned": sum(one.state == "PRUNED" for one in found.trials),
        "failed": sum(one.state == "FAIL" for one in found.trials),
        "cpu_seconds": round(found.cpu_s, 2),
        "best_trial": None if best is None else best.number,
        "best_validation_accuracy": None if best is None else best.accuracy,
        "best_settings": {} if best is None else best.params,
    }
