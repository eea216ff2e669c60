"""Dagster objects only: thin assets, checks beside their asset, jobs, schedules, a sensor.

Imported whenever the code location loads, so nothing heavy is imported at the top of a module.
"""
