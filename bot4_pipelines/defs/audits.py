"""The leak audit of an LSTM candidate as a blocking check; `leak_result` tells it of any."""

from typing import Final

import dagster as dg

from bot4_pipelines.defs.assets import lstm_candidate
from bot4_pipelines.progress import reporter
from bot4_pipelines.records import Folders
from bot4_pipelines.steps import Outcome
from bot4_pipelines.workflow import Workflow

NAME: Final = "nothing_looks_ahead"
SAYS: Final = (
    "Candles after a moment are altered: not one feature, causal score, HMM or LSTM estimate at "
    "or before it may change. Names the column and the rows; blocks promotion."
)


@dg.asset_check(asset=lstm_candidate, name=NAME, blocking=True, description=SAYS)
def nothing_looks_ahead(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Audit the candidates for leaks."""
    flow = Workflow(Folders.from_environment(), reporter("leak_audit", context.log.info))
    return leak_result(flow.leak_audit())


def leak_result(outcome: Outcome) -> dg.AssetCheckResult:
    """Say what looks ahead, and how much was compared."""
    numbers = outcome.record.numbers
    leaks, left_out = numbers["leaks"], numbers["left_out"]
    counted = f"{numbers['values_compared']} numbers compared at {numbers['moments']} moments"
    counted += f"; left out: {'; '.join(left_out)}" if left_out else ""
    return dg.AssetCheckResult(
        check_name=NAME,
        passed=not leaks,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(leak["says"] for leak in leaks[:5]) or f"0 differ; {counted}",
        metadata={"leaks": leaks, "values_compared": numbers["values_compared"],
                  "moments": numbers["moments"], "left_out": left_out},
    )  # fmt: skip


AUDITS = [nothing_looks_ahead]
