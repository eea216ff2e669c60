"""The asset graph: candles → features → HMM → labels → LSTM → promotion → figures and evidence.

Each asset runs one step of `bot4_pipelines.workflow` and tells its numbers. What a step makes
lies in Bot4's own stores below BOT4_HOME and in models/, so assets return no values. (Their
return annotation stays bare: Dagster does not recognise it with a type argument.)
"""

import dagster as dg

from bot4_pipelines.candle_steps import DEFAULT_MAX_AGE_HOURS
from bot4_pipelines.defs.checks import (
    CANDLE_CHECKS,
    EVIDENCE_CHECKS,
    HMM_CHECKS,
    LSTM_CHECKS,
    candidate_results,
    candle_results,
    evidence_results,
)
from bot4_pipelines.defs.evaluation import evaluation
from bot4_pipelines.defs.metadata import (
    CANDLE_SCHEMA,
    EVIDENCE_SCHEMA,
    LABEL_SCHEMA,
    LIMIT_SCHEMA,
    OWNERS,
    PAIR_SCHEMA,
    STATE_SCHEMA,
    TRIAL_SCHEMA,
    feature_schema,
    input_schema,
    metadata_of,
)
from bot4_pipelines.defs.policies import (
    CANDLES_FRESH,
    MODELS_FRESH,
    RETRY_DOWNLOAD,
    STORE_POOL,
    TRAINING_POOL,
    retrying,
)
from bot4_pipelines.defs.restated import RESTATED, restated_result
from bot4_pipelines.progress import reporter
from bot4_pipelines.records import Folders
from bot4_pipelines.training.schedule import Schedule
from bot4_pipelines.workflow import Workflow


class CandleConfig(dg.Config):
    """How old downloaded candles may be before they are asked for again."""

    max_age_hours: float = DEFAULT_MAX_AGE_HOURS


class LstmConfig(dg.Config):
    """How long the LSTM learns: the schedule, and other iterations than its own when not 0.

    `from_model` is the sha256, or its start, of an archived LSTM to go on from; `lookback` how
    many candles it reads, 0 what BOT4_LOOKBACK says.
    """

    schedule: Schedule = Schedule.FULL
    iterations: int = 0
    from_model: str = ""
    lookback: int = 0


class SearchConfig(dg.Config):
    """How much is searched: trials in all, processes, steps a trial, the seed of the sampler.

    Each trial reads `lookback` candles, 0 what BOT4_LOOKBACK says. Without trials those that are
    there are shown: "Materialize all" starts no search.
    """

    trials: int = 0
    workers: int = 2
    iterations: int = 600
    seed: int = 20_180_101
    lookback: int = 0


def _workflow(context: dg.AssetExecutionContext) -> Workflow:
    step = context.asset_key.to_user_string()
    return Workflow(Folders.from_environment(), reporter(step, context.log.info))


@dg.asset(
    group_name="candles",
    owners=OWNERS,
    kinds={"binance", "parquet"},
    check_specs=[*CANDLE_CHECKS, RESTATED],
    retry_policy=RETRY_DOWNLOAD,
    freshness_policy=CANDLES_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": CANDLE_SCHEMA},
)
def candles(context: dg.AssetExecutionContext, config: CandleConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Closed candles in the store.

    From the folder BOT4_CANDLES_DIR when it is set, else Binance's public data, else the built-in
    simulated market, labelled as such. Ingesting the same range again changes nothing; restated
    candles replace the old ones and are counted.
    """
    with retrying(context):
        outcome = _workflow(context).candles(max_age_hours=config.max_age_hours)
    return dg.MaterializeResult(
        metadata=metadata_of(outcome),
        check_results=[*candle_results(outcome), restated_result(outcome)],
    )


@dg.asset(
    group_name="features",
    owners=OWNERS,
    kinds={"numpy", "parquet"},
    deps=[candles],
    freshness_policy=CANDLES_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": feature_schema()},
)
def features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What the models read, one row a candle, made from candles up to that one.

    The same definition that the trading process computes candle by candle.
    """
    return dg.MaterializeResult(metadata=metadata_of(_workflow(context).features()))


@dg.asset(
    group_name="models",
    owners=OWNERS,
    kinds={"hmmlearn", "onnx"},
    deps=[features],
    check_specs=HMM_CHECKS,
    freshness_policy=MODELS_FRESH,
    pool=TRAINING_POOL,
    metadata={"dagster/column_schema": STATE_SCHEMA},
)
def hmm_candidate(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Five-state hidden Markov model of the 72-candle trend.

    Fitted on the training range, its causal filter exported to ONNX and judged. A candidate
    trades nothing.
    """
    outcome = _workflow(context).hmm_candidate()
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=candidate_results(outcome)
    )


@dg.asset(
    group_name="regimes",
    owners=OWNERS,
    kinds={"numpy", "parquet"},
    deps=[features, hmm_candidate],
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": LABEL_SCHEMA},
)
def hindsight_labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Which regime it was, decoded by Viterbi with hindsight, each split by itself.

    What the LSTM learns to name without hindsight, and what accuracy is measured against.
    """
    return dg.MaterializeResult(metadata=metadata_of(_workflow(context).hindsight_labels()))


@dg.asset(
    group_name="models",
    owners=OWNERS,
    kinds={"pytorch", "onnx"},
    deps=[features, hmm_candidate, hindsight_labels],
    check_specs=LSTM_CHECKS,
    freshness_policy=MODELS_FRESH,
    pool=TRAINING_POOL,
    metadata={"dagster/column_schema": input_schema()},
)
def lstm_candidate(context: dg.AssetExecutionContext, config: LstmConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Two LSTM layers of 128 over the last candles (BOT4_LOOKBACK, 50), pooled over symbols.

    Calibrated, exported to ONNX and judged against the HMM filter, static cuts and a random walk.
    A candidate trades nothing.
    """
    outcome = _workflow(context).lstm_candidate(
        config.schedule,
        iterations=config.iterations,
        from_model=config.from_model,
        lookback=config.lookback,
    )
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=candidate_results(outcome)
    )


@dg.asset(
    group_name="models",
    owners=OWNERS,
    kinds={"onnx"},
    deps=[hmm_candidate, lstm_candidate],
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": PAIR_SCHEMA},
)
def promoted_models(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The pair that trades.

    Both candidates' recorded accuracies are judged again, the leak audit is asked for, and the
    pair is compared with the one it replaces; then models/current.json is replaced by one rename.
    A running trading process tries the pair beside the old one and swaps between two candles.
    """
    return dg.MaterializeResult(metadata=metadata_of(_workflow(context).promoted_models()))


@dg.asset(
    group_name="models",
    owners=OWNERS,
    kinds={"numpy"},
    deps=[features, promoted_models],
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": LIMIT_SCHEMA},
)
def training_reference(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What the models that trade were trained on, and how far a month of it lies from the whole.

    The sensors hold recent candles against it: drift of features, likelihood under the HMM.
    """
    return dg.MaterializeResult(metadata=metadata_of(_workflow(context).training_reference()))


@dg.asset(
    group_name="evidence",
    owners=OWNERS,
    kinds={"numpy", "json"},
    deps=[candles, promoted_models],
    check_specs=EVIDENCE_CHECKS,
    freshness_policy=MODELS_FRESH,
    pool=STORE_POOL,
    metadata={"dagster/column_schema": EVIDENCE_SCHEMA},
)
def evidence_records(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What following each built-in rule brought before the test period, net of costs.

    With p-values adjusted for all rules tried: what the validator judges signals by.
    """
    outcome = _workflow(context).evidence_records()
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=evidence_results(outcome)
    )


@dg.asset(
    group_name="search",
    owners=OWNERS,
    kinds={"optuna", "pytorch"},
    deps=[features, hmm_candidate, hindsight_labels],
    pool=TRAINING_POOL,
    metadata={"dagster/column_schema": TRIAL_SCHEMA},
)
def lstm_search(context: dg.AssetExecutionContext, config: SearchConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Trials of other LSTM settings on the validation range, and what they cost.

    Trials run on a process pool, hopeless ones are stopped early, and a search that was cut
    short goes on where it stopped. The best settings are shown; training does not take them by
    itself. The test range is not looked at.
    """
    outcome = _workflow(context).lstm_search(
        trials=config.trials,
        workers=config.workers,
        iterations=config.iterations,
        seed=config.seed,
        lookback=config.lookback,
    )
    return dg.MaterializeResult(metadata=metadata_of(outcome))


PIPELINE = [
    candles,
    features,
    hmm_candidate,
    hindsight_labels,
    lstm_candidate,
    promoted_models,
    training_reference,
    evaluation,
    evidence_records,
]
"""What one training is: the job ``pipeline`` makes these."""

ASSETS = [*PIPELINE, lstm_search]
