"""What starts runs by itself. Everything is off until an operator switches it on."""

import dagster as dg

from bot4_pipelines.defs.assets import ASSETS, candles
from bot4_pipelines.records import Folders, Records

WRITES = {"bot4/writes": "store"}
"""The queue runs one job with this tag at a time (dagster.yaml)."""

NEW_SHARE = 0.01
"""Candles that came since the last training, as a share of those trained on, that call for
another; about three days on a year of hourly candles."""

pipeline_job = dg.define_asset_job(
    "pipeline",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="Everything: candles, features, models, promotion, evidence.",
    tags=WRITES,
)

candles_job = dg.define_asset_job(
    "refresh_candles",
    selection=dg.AssetSelection.assets(candles),
    description="Candles that closed since the last time.",
    tags=WRITES,
)

retrain_weekly = dg.ScheduleDefinition(
    name="retrain_weekly",
    job=pipeline_job,
    cron_schedule="20 3 * * 1",
    execution_timezone="UTC",
    description="Trains and, when the gates pass, promotes every Monday.",
)

candles_hourly = dg.ScheduleDefinition(
    name="candles_hourly",
    job=candles_job,
    cron_schedule="2 * * * *",
    execution_timezone="UTC",
    run_config={"ops": {"candles": {"config": {"max_age_hours": 0.0}}}},
    description="Asks for new candles two minutes after every full hour.",
)


@dg.sensor(
    job=pipeline_job,
    minimum_interval_seconds=60,
    description="Retrains when enough candles came since the last training; every tick says why "
    "or why not.",
)
def retrain_on_new_candles(
    context: dg.SensorEvaluationContext,
) -> dg.SkipReason | dg.RunRequest:
    """Compare the candles in the store with those that the promoted models were trained on."""
    records = Records(Folders.from_environment().work)
    now, trained = records.find("candles"), records.find("features")
    if now is None:
        return dg.SkipReason("no candles yet: materialise the asset 'candles' first")
    have = int(now.numbers["candles"])
    used = 0 if trained is None else int(trained.numbers["rows"])
    needed = max(1, round(NEW_SHARE * used))
    if have - used < needed:
        return dg.SkipReason(
            f"{have - used} new candles since the last training on {used}; {needed} are needed"
        )
    context.log.info("%d new candles since the last training on %d", have - used, used)
    return dg.RunRequest(run_key=now.content, tags=WRITES)


JOBS = [pipeline_job, candles_job]
SCHEDULES = [retrain_weekly, candles_hourly]
SENSORS = [retrain_on_new_candles]
