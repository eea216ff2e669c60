"""The asset that scores the promoted pair, and the check that holds it against the goals."""

import dagster as dg

from bot4_pipelines.defs.metadata import FIGURE_SCHEMA, OWNERS, metadata_of
from bot4_pipelines.defs.policies import MODELS_FRESH, TRAINING_POOL
from bot4_pipelines.progress import reporter
from bot4_pipelines.records import Folders
from bot4_pipelines.steps import Outcome
from bot4_pipelines.workflow import Workflow

EVALUATION_CHECKS = [
    dg.AssetCheckSpec(
        "goals_met",
        asset="evaluation",
        description="Every goal of accuracy and calibration, on validation, later candles and "
        "unseen symbols. Gates stand at the candidates; a missed goal blocks nothing.",
    )
]


@dg.asset(
    group_name="evidence",
    owners=OWNERS,
    kinds={"numpy", "onnx"},
    deps=["candles", "promoted_models"],
    check_specs=EVALUATION_CHECKS,
    freshness_policy=MODELS_FRESH,
    pool=TRAINING_POOL,
    metadata={"dagster/column_schema": FIGURE_SCHEMA},
)
def evaluation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """How well the pair that trades names the present regime, against hindsight.

    LSTM, HMM filter and look-ahead beside every baseline, pooled and by symbol, each number with
    its block-bootstrap interval: on validation, on later candles, and on symbols never learnt
    from where there are any. Names the present and predicts nothing: the random walk beside it
    is named as well.
    """
    report = reporter(context.asset_key.to_user_string(), context.log.info)
    outcome = Workflow(Folders.from_environment(), report).evaluation()
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=evaluation_results(outcome)
    )


def evaluation_results(outcome: Outcome) -> list[dg.AssetCheckResult]:
    """Say which goals were missed."""
    numbers = outcome.record.numbers
    missed, goals = numbers["missed"], numbers["goals"]
    return [
        dg.AssetCheckResult(
            check_name="goals_met",
            passed=not missed,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(missed) or f"all {len(goals)} goals met",
            metadata={"goals": goals},
        )
    ]
