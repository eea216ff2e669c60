"""Dagster's entry point: the code location ``bot4_pipelines``."""

import dagster as dg

from bot4_pipelines.defs.assets import ASSETS
from bot4_pipelines.defs.automation import JOBS, SCHEDULES, SENSORS

defs = dg.Definitions(
    assets=ASSETS,
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    executor=dg.in_process_executor,
)
