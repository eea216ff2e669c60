"""The models of many intervals: a partition each, of all series that `defs.fleet` brought in.

What `defs.assets` makes of one interval at one click, gate by gate; the same steps, the same
folder of models.
"""

from collections.abc import Callable

import dagster as dg

from bot4_pipelines.defs.assets import LstmConfig
from bot4_pipelines.defs.audits import NAME, SAYS, leak_result
from bot4_pipelines.defs.checks import (
    EVIDENCE_CHECKS,
    HMM_CHECKS,
    LSTM_CHECKS,
    candidate_results,
    evidence_results,
)
from bot4_pipelines.defs.evaluation import EVALUATION_CHECKS, evaluation_results
from bot4_pipelines.defs.fleet import (
    DISK_RETRIES,
    SERIES_ASSETS,
    SERIES_JOBS,
    SERIES_SCHEDULES,
    checks_of,
    fleet_of,
    intervals,
    series_features,
    told,
)
from bot4_pipelines.defs.metadata import (
    EVIDENCE_SCHEMA,
    FIGURE_SCHEMA,
    LABEL_SCHEMA,
    OWNERS,
    PAIR_SCHEMA,
    STATE_SCHEMA,
    input_schema,
    metadata_of,
)
from bot4_pipelines.defs.policies import AT_MOST_2_H, MODELS_FRESH, STORE_POOL, TRAINING_POOL
from bot4_pipelines.fleet import SeriesPart
from bot4_pipelines.ingest.wanted import interval_name
from bot4_pipelines.steps import Outcome
from bot4_pipelines.workflow import Workflow


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"hmmlearn", "onnx"},
    deps=[dg.AssetDep(series_features, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    freshness_policy=MODELS_FRESH,
    pool=TRAINING_POOL,
    check_specs=[
        *checks_of("interval_hmm", HMM_CHECKS),
        dg.AssetCheckSpec(
            "pool_complete",
            asset="interval_hmm",
            description="Every known series of the interval has candles; those that have none are "
            "named and left out.",
        ),
    ],
    metadata={"dagster/column_schema": STATE_SCHEMA},
)
def interval_hmm(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The HMM candidate of one interval, fitted on all its series that have candles."""
    interval = _interval(context)
    with told():
        known = [SeriesPart.of(key) for key in context.instance.get_dynamic_partitions("series")]
        pool = fleet_of(context).pool(interval, known)
        outcome = pool.flow.hmm_candidate()
    complete = dg.AssetCheckResult(
        check_name="pool_complete",
        passed=not pool.waiting,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(pool.waiting.values()) or "all series take part",
        metadata={"left_out": sorted(pool.waiting)},
    )
    pooled = pool.flow.records.need("candles", "series_candles").numbers
    metadata = metadata_of(outcome) | {"pool": dg.MetadataValue.json(pooled["by_symbol"])}
    return dg.MaterializeResult(
        metadata=metadata, check_results=[*candidate_results(outcome), complete]
    )


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"numpy", "parquet"},
    deps=[interval_hmm],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": LABEL_SCHEMA},
)
def interval_labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Hindsight labels of an interval's series under its candidate HMM."""
    return dg.MaterializeResult(metadata=metadata_of(_step(context, Workflow.hindsight_labels)))


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"pytorch", "onnx"},
    deps=[interval_hmm, interval_labels],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    freshness_policy=MODELS_FRESH,
    pool=TRAINING_POOL,
    check_specs=[
        *checks_of("interval_lstm", LSTM_CHECKS),
        dg.AssetCheckSpec(NAME, asset="interval_lstm", blocking=True, description=SAYS),
    ],
    metadata={"dagster/column_schema": input_schema()},
)
def interval_lstm(context: dg.AssetExecutionContext, config: LstmConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The LSTM candidate of one interval, pooled over its series, judged and audited for leaks."""
    outcome = _step(
        context,
        lambda flow: flow.lstm_candidate(
            config.schedule,
            iterations=config.iterations,
            from_model=config.from_model,
            lookback=config.lookback,
        ),
    )
    audited = leak_result(_step(context, Workflow.leak_audit))
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=[*candidate_results(outcome), audited]
    )


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"onnx"},
    deps=[interval_hmm, interval_lstm],
    partitions_def=intervals,
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": PAIR_SCHEMA},
)
def interval_models(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The pair that trades an interval: both candidates judged again, then promoted."""
    return dg.MaterializeResult(metadata=metadata_of(_step(context, Workflow.promoted_models)))


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"numpy", "onnx"},
    deps=[interval_models],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    freshness_policy=MODELS_FRESH,
    pool=TRAINING_POOL,
    check_specs=checks_of("interval_evaluation", EVALUATION_CHECKS),
    metadata={"dagster/column_schema": FIGURE_SCHEMA},
)
def interval_evaluation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """How well the pair that trades an interval names the present regime: as `evaluation` does."""
    outcome = _step(context, Workflow.evaluation)
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=evaluation_results(outcome)
    )


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"numpy", "json"},
    deps=[interval_models],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    check_specs=checks_of("interval_evidence", EVIDENCE_CHECKS),
    metadata={"dagster/column_schema": EVIDENCE_SCHEMA},
)
def interval_evidence(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What following each built-in rule brought on an interval's series, net of costs."""
    outcome = _step(context, Workflow.evidence_records)
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=evidence_results(outcome)
    )


def _interval(context: dg.AssetExecutionContext) -> str:
    with told():
        return interval_name(context.partition_key, "the partition")


def _step(context: dg.AssetExecutionContext, step: Callable[[Workflow], Outcome]) -> Outcome:
    """Run a step of an interval's models."""
    with told():
        return step(fleet_of(context).models(_interval(context)))


INTERVAL_ASSETS = [
    interval_hmm,
    interval_labels,
    interval_lstm,
    interval_models,
    interval_evaluation,
    interval_evidence,
]

fleet_models = dg.define_asset_job(
    "fleet_models",
    selection=dg.AssetSelection.assets(*INTERVAL_ASSETS),
    description="HMM, labels, LSTM, promotion, figures and evidence of one interval.",
    tags=AT_MOST_2_H,
)


@dg.schedule(
    job=fleet_models,
    cron_schedule="20 4 * * 1",
    execution_timezone="UTC",
    description="Trains the models of every interval every Monday, a run each, and promotes those "
    "whose gates pass.",
)
def fleet_models_weekly(
    context: dg.ScheduleEvaluationContext,
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a run for every known interval."""
    known = sorted(context.instance.get_dynamic_partitions("interval"))
    if not known:
        return dg.SkipReason(
            "no interval yet: add partitions, or start the sensor fleet_partitions"
        )
    moment = context.scheduled_execution_time
    return [
        dg.RunRequest(
            run_key=f"{interval} {moment:%Y-%m-%d}", partition_key=interval, tags=AT_MOST_2_H
        )
        for interval in known
    ]


FLEET_ASSETS = [*SERIES_ASSETS, *INTERVAL_ASSETS]
FLEET_JOBS = [*SERIES_JOBS, fleet_models]
FLEET_SCHEDULES = [*SERIES_SCHEDULES, fleet_models_weekly]
