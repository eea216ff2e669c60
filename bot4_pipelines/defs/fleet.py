"""The same pipeline in partitions, for many series, many intervals and many machines.

`series_candles` is partitioned by series (``SYMBOL_INTERVAL``) and year, `series_features` by
series, the models by interval. Beside the graph of `defs.assets`, which makes the models of one
interval on one machine at one click; both read one candle store. Mark prices, funding and the
table of candles are here alone. Series and intervals are dynamic partitions:
``BOT4_SYMBOLS`` and ``BOT4_INTERVALS`` add them, through the sensor `fleet_partitions`.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta

import dagster as dg

from bot4_pipelines.defs.assets import LstmConfig
from bot4_pipelines.defs.checks import (
    CANDLE_CHECKS,
    EVIDENCE_CHECKS,
    HMM_CHECKS,
    LSTM_CHECKS,
    candle_results,
    evidence_results,
    gate_results,
    lstm_results,
)
from bot4_pipelines.defs.metadata import (
    CANDLE_SCHEMA,
    LABEL_SCHEMA,
    OWNERS,
    feature_schema,
    metadata_of,
)
from bot4_pipelines.defs.policies import AT_MOST_2_H
from bot4_pipelines.defs.restated import RESTATED, restated_result
from bot4_pipelines.export import export_candles, export_url
from bot4_pipelines.fleet import Fleet, SeriesPart
from bot4_pipelines.ingest.wanted import interval_name, symbol_name, wanted
from bot4_pipelines.progress import reporter
from bot4_pipelines.records import Folders
from bot4_pipelines.steps import Outcome
from bot4_pipelines.workflow import Workflow
from bot4_runtime.domain.candle import INTERVALS_MS, Market
from bot4_runtime.domain.errors import Bot4Error, StoreBusy, VenueUnreachable

# Backfill policies are beta in Dagster; its warning would greet every command.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*backfill_policy.*")

FIRST_YEAR = "2017"
"""Binance's first."""
OF_LAST_YEAR = timedelta(milliseconds=max(INTERVALS_MS.values())) + timedelta(hours=6)
"""How long into a year candles of the year before still come: the longest of them has to close,
and a venue or a machine may be away over New Year's night."""

series = dg.DynamicPartitionsDefinition(name="series")
perpetuals = dg.DynamicPartitionsDefinition(name="perpetual")
intervals = dg.DynamicPartitionsDefinition(name="interval")
years = dg.TimeWindowPartitionsDefinition(
    start=FIRST_YEAR, fmt="%Y", cron_schedule="0 0 1 1 *", end_offset=1
)
series_years = dg.MultiPartitionsDefinition({"series": series, "year": years})

FUNDING_SCHEMA = dg.TableSchema(
    columns=[
        dg.TableColumn("time_ms", "int64", "when it was due, UTC, milliseconds, whole minutes"),
        dg.TableColumn(
            "rate", "float64", "share of the position's value; longs pay a positive one"
        ),
    ]
)

NETWORK_RETRIES = dg.RetryPolicy(
    max_retries=4, delay=5.0, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""5, 10, 20, 40 s: for what a venue or a network does, and for a store that another process
writes to; wrong data and settings fail at once."""
DISK_RETRIES = dg.RetryPolicy(max_retries=2, delay=2.0, backoff=dg.Backoff.EXPONENTIAL)
_CHEAP = dg.BackfillPolicy.single_run()


def _fleet(context: dg.AssetExecutionContext) -> Fleet:
    step = context.asset_key.to_user_string()
    return Fleet(Folders.from_environment(), reporter(step, context.log.info))


def _checks_of(asset: str, specs: Sequence[dg.AssetCheckSpec]) -> list[dg.AssetCheckSpec]:
    """Return the checks that an asset of `defs.assets` has too, for a partitioned one."""
    return [
        dg.AssetCheckSpec(
            spec.name, asset=asset, blocking=spec.blocking, description=spec.description
        )
        for spec in specs
    ]


@contextmanager
def _told() -> Iterator[None]:
    """Let only what may pass by itself be tried again."""
    try:
        yield
    except (VenueUnreachable, StoreBusy):
        raise
    except Bot4Error as error:
        words = f"{type(error).__name__}: {error}"
        raise dg.Failure(description=words, allow_retries=False) from error


@dg.asset(
    group_name="fleet",
    owners=OWNERS,
    kinds={"binance", "parquet"},
    partitions_def=series_years,
    backfill_policy=_CHEAP,
    retry_policy=NETWORK_RETRIES,
    check_specs=_checks_of("series_candles", [*CANDLE_CHECKS, RESTATED]),
    metadata={"dagster/column_schema": CANDLE_SCHEMA},
)
def series_candles(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A year of closed candles of one series, in the store that all machines share.

    From the same source as `candles`; a series of a longer interval is made of a shorter one
    where only that is there. A backfill over many partitions is one run.
    """
    return _years_of(context, _fleet(context).candles)


@dg.asset(
    group_name="perpetuals",
    owners=OWNERS,
    kinds={"binance", "parquet"},
    partitions_def=series_years,
    backfill_policy=_CHEAP,
    retry_policy=NETWORK_RETRIES,
    check_specs=_checks_of("series_mark", [*CANDLE_CHECKS, RESTATED]),
    metadata={"dagster/column_schema": CANDLE_SCHEMA},
)
def series_mark(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A year of mark prices of one USD-M perpetual, by candle; volumes are 0.

    From the folder BOT4_MARK_DIR when it is set, else Binance's public data.
    """
    return _years_of(context, _fleet(context).mark)


@dg.asset(
    group_name="perpetuals",
    owners=OWNERS,
    kinds={"binance", "parquet"},
    partitions_def=perpetuals,
    backfill_policy=_CHEAP,
    retry_policy=NETWORK_RETRIES,
    metadata={"dagster/column_schema": FUNDING_SCHEMA},
)
def funding_rates(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Funding rates of one USD-M perpetual, each when it was due.

    From the folder BOT4_FUNDING_DIR when it is set, else Binance's public data.
    """
    fleet = _fleet(context)
    with _told():
        for key in sorted(map(str, context.partition_keys)):
            done = fleet.funding(symbol_name(key, "the partition"))
            told = asdict(done) | {"notes": list(done.notes)}
            context.add_asset_metadata(told, partition_key=key)
    return dg.MaterializeResult()


@dg.asset(
    group_name="fleet",
    owners=OWNERS,
    kinds={"numpy", "parquet"},
    deps=[series_candles],
    partitions_def=series,
    backfill_policy=_CHEAP,
    retry_policy=DISK_RETRIES,
    metadata={"dagster/column_schema": feature_schema()},
)
def series_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The feature table of one series, from all its years: what `features` does, one by one."""
    fleet = _fleet(context)
    with _told():
        for key in sorted(map(str, context.partition_keys)):
            outcome = fleet.features(SeriesPart.of(key))
            context.add_asset_metadata(metadata_of(outcome), partition_key=key)
    return dg.MaterializeResult()


@dg.asset(
    group_name="fleet",
    owners=OWNERS,
    kinds={"postgres"},
    deps=[series_candles],
    partitions_def=series,
    backfill_policy=_CHEAP,
    retry_policy=DISK_RETRIES,
    metadata={"dagster/column_schema": CANDLE_SCHEMA},
)
def candle_table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A series as rows of the table bot4_market.candle, for dashboards; no other step reads it.

    Optional: it needs a PostgreSQL database, named by BOT4_EXPORT_URL. With TimescaleDB the table
    is a hypertable.
    """
    fleet = _fleet(context)
    with _told():
        url = export_url()
        for key in sorted(map(str, context.partition_keys)):
            done = export_candles(fleet.series(SeriesPart.of(key)), url)
            context.add_asset_metadata(asdict(done), partition_key=key)
    return dg.MaterializeResult()


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"hmmlearn", "onnx"},
    deps=[dg.AssetDep(series_features, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    check_specs=[
        *_checks_of("interval_hmm", HMM_CHECKS),
        dg.AssetCheckSpec(
            "pool_complete",
            asset="interval_hmm",
            description="Every known series of the interval has candles; those that have none are "
            "named and left out.",
        ),
    ],
)
def interval_hmm(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The HMM candidate of one interval, fitted on all its series that have candles."""
    interval = _interval(context)
    with _told():
        known = [SeriesPart.of(key) for key in context.instance.get_dynamic_partitions("series")]
        pool = _fleet(context).pool(interval, known)
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
        metadata=metadata, check_results=[*gate_results(outcome), complete]
    )


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"numpy", "parquet"},
    deps=[interval_hmm],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
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
    check_specs=_checks_of("interval_lstm", LSTM_CHECKS),
)
def interval_lstm(context: dg.AssetExecutionContext, config: LstmConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The LSTM candidate of one interval, pooled over its series and judged."""
    outcome = _step(
        context,
        lambda flow: flow.lstm_candidate(
            config.schedule,
            iterations=config.iterations,
            from_model=config.from_model,
            lookback=config.lookback,
        ),
    )
    return dg.MaterializeResult(metadata=metadata_of(outcome), check_results=lstm_results(outcome))


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"onnx"},
    deps=[interval_hmm, interval_lstm],
    partitions_def=intervals,
)
def interval_models(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The pair that trades an interval: both candidates judged again, then promoted."""
    return dg.MaterializeResult(metadata=metadata_of(_step(context, Workflow.promoted_models)))


@dg.asset(
    group_name="fleet_models",
    owners=OWNERS,
    kinds={"numpy", "json"},
    deps=[interval_models],
    partitions_def=intervals,
    retry_policy=DISK_RETRIES,
    check_specs=_checks_of("interval_evidence", EVIDENCE_CHECKS),
)
def interval_evidence(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """What following each built-in rule brought on an interval's series, net of costs."""
    outcome = _step(context, Workflow.evidence_records)
    return dg.MaterializeResult(
        metadata=metadata_of(outcome), check_results=evidence_results(outcome)
    )


def _interval(context: dg.AssetExecutionContext) -> str:
    with _told():
        return interval_name(context.partition_key, "the partition")


def _step(context: dg.AssetExecutionContext, step: Callable[[Workflow], Outcome]) -> Outcome:
    """Run a step of an interval's models."""
    with _told():
        return step(_fleet(context).models(_interval(context)))


def _years_of(
    context: dg.AssetExecutionContext, ingest: Callable[[SeriesPart, int], Outcome]
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Ingest a run's partitions one by one; its checks speak of all of them."""
    outcomes = []
    with _told():
        for key in sorted(map(str, context.partition_keys)):
            name, _, year = key.partition("|")
            outcome = ingest(SeriesPart.of(name), int(year))
            outcomes.append(outcome)
            context.add_asset_metadata(metadata_of(outcome), partition_key=key)
    return dg.MaterializeResult(
        check_results=[*candle_results(*outcomes), restated_result(*outcomes)]
    )


FLEET_ASSETS = [
    series_candles,
    series_features,
    candle_table,
    series_mark,
    funding_rates,
    interval_hmm,
    interval_labels,
    interval_lstm,
    interval_models,
    interval_evidence,
]

fleet_candles = dg.define_asset_job(
    "fleet_candles",
    selection=dg.AssetSelection.assets(series_candles),
    description="One year of one series.",
)

fleet_models = dg.define_asset_job(
    "fleet_models",
    selection=dg.AssetSelection.groups("fleet_models"),
    description="HMM, labels, LSTM, promotion and evidence of one interval.",
    tags=AT_MOST_2_H,
)


@dg.schedule(
    job=fleet_candles,
    cron_schedule="4 * * * *",
    execution_timezone="UTC",
    description="Asks for the present year of every series, a run each, four minutes past; in its "
    "first days for the year before too, whose last candles close then.",
)
def fleet_candles_hourly(
    context: dg.ScheduleEvaluationContext,
) -> list[dg.RunRequest] | dg.SkipReason:
    """Request a run for every known series, and year that may have new candles."""
    names = context.instance.get_dynamic_partitions("series")
    if not names:
        return dg.SkipReason("no series yet: add partitions, or start the sensor fleet_partitions")
    moment = context.scheduled_execution_time
    asked = sorted({f"{moment - OF_LAST_YEAR:%Y}", f"{moment:%Y}"})
    keys = [
        dg.MultiPartitionKey({"series": name, "year": year})
        for name in sorted(names)
        for year in asked
    ]
    return [
        dg.RunRequest(run_key=f"{key} {moment:%Y-%m-%dT%H}", partition_key=key, tags=AT_MOST_2_H)
        for key in keys
    ]


@dg.sensor(
    minimum_interval_seconds=60,
    description="Adds the partitions that BOT4_SYMBOLS and BOT4_INTERVALS name and that are not "
    "there yet; it takes none away.",
)
def fleet_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Compare the partitions with what is wanted."""
    from bot4_pipelines.ingest.source import chosen_market

    try:
        want, market = wanted(), chosen_market(os.environ)
    except Bot4Error as error:
        return dg.SkipReason(str(error))
    if not want.symbols:
        return dg.SkipReason("BOT4_SYMBOLS names no symbol")
    parts = [SeriesPart(symbol, one).key for symbol in want.symbols for one in want.intervals]
    held = set(context.instance.get_dynamic_partitions("series"))
    known = set(context.instance.get_dynamic_partitions("interval"))
    funded = set(context.instance.get_dynamic_partitions("perpetual"))
    new = [part for part in parts if part not in held]
    fresh = [one for one in want.intervals if one not in known]
    unfunded = [one for one in want.symbols if market is Market.USDM and one not in funded]
    if not (new or fresh or unfunded):
        return dg.SkipReason(
            f"all {len(parts)} series and {len(want.intervals)} intervals are there"
        )
    requests = []
    if new:
        requests.append(series.build_add_request(new))
    if fresh:
        requests.append(intervals.build_add_request(fresh))
    if unfunded:
        requests.append(perpetuals.build_add_request(unfunded))
    context.log.info("new partitions: %s", " ".join([*new, *fresh, *unfunded]))
    return dg.SensorResult(dynamic_partitions_requests=requests)


FLEET_JOBS = [fleet_candles, fleet_models]
FLEET_SCHEDULES = [fleet_candles_hourly]
FLEET_SENSORS = [fleet_partitions]
