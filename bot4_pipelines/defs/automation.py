"""Jobs, and the schedules that start them. Schedules are off until an operator starts them."""

import dagster as dg

from bot4_pipelines.defs.assets import PIPELINE, candles, lstm_search
from bot4_pipelines.defs.policies import AT_MOST_2_H

SEARCH_TRIALS = 20

WRITES = {"bot4/writes": "store"}
"""The queue runs one job with this tag at a time (dagster.yaml)."""

pipeline_job = dg.define_asset_job(
    "pipeline",
    selection=dg.AssetSelection.assets(*PIPELINE),
    description="Everything: candles, features, models, promotion, evidence.",
    tags=WRITES | AT_MOST_2_H,
)

candles_job = dg.define_asset_job(
    "refresh_candles",
    selection=dg.AssetSelection.assets(candles),
    description="Candles that closed since the last time.",
    tags=WRITES | AT_MOST_2_H,
)

search_job = dg.define_asset_job(
    "search",
    selection=dg.AssetSelection.assets(lstm_search),
    description="Twenty trials of other LSTM settings: half an hour of processor time and more, "
    "so nothing starts it by itself.",
    config={"ops": {"lstm_search": {"config": {"trials": SEARCH_TRIALS}}}},
    tags=AT_MOST_2_H,
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


JOBS = [pipeline_job, candles_job, search_job]
SCHEDULES = [retrain_weekly, candles_hourly]
