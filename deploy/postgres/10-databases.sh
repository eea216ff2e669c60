#!/bin/sh
# Runs once, when the database volume is empty: TimescaleDB in Bot4's database, and a second
# database for Dagster. Both belong to POSTGRES_USER.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
  -v dagster_db="$BOT4_DAGSTER_DB" -f /bot4/databases.sql
