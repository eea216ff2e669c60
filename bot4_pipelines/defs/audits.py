"""Checks that run by themselves beside an asset: the leak audit of the LSTM candidate."""

import dagster as dg

from bot4_pipelines.defs.assets import lstm_candidate
from bot4_pipelines.progress import reporter
from bot4_pipelines.records import Folders
from bot4_pipelines.workflow import Workflow


@dg.asset_check(
    asset=lstm_candidate,
    name="nothing_looks_ahead",
    blocking=True,
    description="Candles after a moment are altered: not one feature, causal score, HMM or LSTM "
    "estimate at or before it may change. Names the column and the rows; blocks promotion.",
)
def nothing_looks_ahead(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Audit the candidates for leaks."""
    flow = Workflow(Folders.from_environment(), reporter("leak_audit", context.log.info))
    numbers = flow.leak_audit().record.numbers
    leaks, left_out = numbers["leaks"], numbers["left_out"]
    counted = f"{numbers['values_compared']} numbers compared at {numbers['moments']} moments"
    counted += f"; left out: {'; '.join(left_out)}" if left_out else ""
    return dg.AssetCheckResult(
        passed=not leaks,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(leak["says"] for leak in leaks[:5]) or f"0 differ; {counted}",
        metadata={"leaks": leaks, "values_compared": numbers["values_compared"],
                  "moments": numbers["moments"], "left_out": left_out},
    )  # fmt: skip


AUDITS = [nothing_looks_ahead]
