"""Dagster's entry point: the code location ``bot4_pipelines``."""

import dagster as dg

from bot4_pipelines.defs.assets import ASSETS
from bot4_pipelines.defs.audits import AUDITS
from bot4_pipelines.defs.automation import JOBS, SCHEDULES
from bot4_pipelines.defs.fleet import FLEET_SENSORS
from bot4_pipelines.defs.fleet_models import FLEET_ASSETS, FLEET_JOBS, FLEET_SCHEDULES
from bot4_pipelines.defs.sensors import SENSORS

defs = dg.Definitions(
    assets=[*ASSETS, *FLEET_ASSETS],
    asset_checks=AUDITS,
    jobs=[*JOBS, *FLEET_JOBS],
    schedules=[*SCHEDULES, *FLEET_SCHEDULES],
    sensors=[*SENSORS, *FLEET_SENSORS],
    executor=dg.in_process_executor,
)
