"""Candles of the store as one table in PostgreSQL, for dashboards; a hypertable if it can be.

A copy, written series by series: the same candles again change nothing, restated ones are
updated. Where the TimescaleDB extension is present the table becomes a hypertable; where it is
not it stays a plain table. Passwords come from ``PGPASSWORD`` or a password file, never the URL.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.domain.errors import ConfigError, DataError

if TYPE_CHECKING:
    import psycopg

SCHEMA: Final = "bot4_market"
_KEY: Final = 'origin, market, symbol, "interval"'
_VALUES: Final = ", ".join(COLUMNS)
_TABLE: Final = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.candle (
    ts timestamptz NOT NULL,
    origin text NOT NULL,
    market text NOT NULL,
    symbol text NOT NULL,
    "interval" text NOT NULL,
    {", ".join(f"{name} double precision NOT NULL" for name in COLUMNS)},
    PRIMARY KEY ({_KEY}, ts)
)
"""
_HYPERTABLE: Final = (
    "SELECT create_hypertable(%s::regclass, 'ts', chunk_time_interval => interval '30 days', "
    "if_not_exists => TRUE, migrate_data => TRUE)"
)
_NEW: Final = f"CREATE TEMP TABLE new (LIKE {SCHEMA}.candle) ON COMMIT DROP"
_COPY: Final = f"COPY new (ts, {_KEY}, {_VALUES}) FROM STDIN"
_UPSERT: Final = f"""
INSERT INTO {SCHEMA}.candle AS old (ts, {_KEY}, {_VALUES}) SELECT ts, {_KEY}, {_VALUES} FROM new
ON CONFLICT ({_KEY}, ts) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in COLUMNS)}
WHERE ({", ".join(f"old.{name}" for name in COLUMNS)})
    IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in COLUMNS)})
"""  # noqa: S608 - made of this module's own names
_LOCK: Final = 5_464_801_122
"""Advisory lock under which tables are made: several workers may be the first."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did.

    Attributes:
        candles: of the series.
        written: inserted or updated; the others were there.
        hypertable: whether TimescaleDB keeps the table.
    """

    candles: int
    written: int
    hypertable: bool


def export_url(environment: Mapping[str, str] | None = None) -> str:
    """Return the database that ``BOT4_EXPORT_URL`` names.

    Raises:
        ConfigError: it names none, is no PostgreSQL URL, or carries a password; the URL is not
            repeated.
    """
    env = os.environ if environment is None else environment
    url = env.get("BOT4_EXPORT_URL", "")
    if not url:
        raise ConfigError(
            "BOT4_EXPORT_URL names no database; expected postgresql://user@host/database"
        )
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ConfigError("BOT4_EXPORT_URL is no URL like postgresql://user@host/database")
    if parts.password is not None or "password" in parts.query:
        raise ConfigError(
            "BOT4_EXPORT_URL carries a password; give it by PGPASSWORD or a password file "
            "(PGPASSFILE) instead"
        )
    return url


def export_candles(series: CandleSeries, url: str) -> Exported:
    """Bring a series into the table.

    Raises:
        ConfigError: psycopg is not installed.
        DataError: the server cannot be reached or refuses.
    """
    try:
        import psycopg
    except ImportError:
        raise ConfigError(
            "exporting candles needs psycopg: pip install 'bot4[postgres]'"
        ) from None
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            hypertable = _prepare(connection)
            with connection.cursor() as cursor:
                cursor.execute(_NEW)
                with cursor.copy(_COPY) as copy:
                    for row in _rows(series):
                        copy.write_row(row)
                cursor.execute(_UPSERT)
                written = cursor.rowcount
    except psycopg.Error as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"candles of {series.id.key} were not exported: {said}") from error
    return Exported(len(series), written, hypertable)


def _prepare(connection: "psycopg.Connection[Any]") -> bool:
    """Make the table where it is missing; return whether it is a hypertable."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    connection.execute(_TABLE)
    found = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")
    if found.fetchone() is None:
        return False
    connection.execute(_HYPERTABLE, (f"{SCHEMA}.candle",))
    return True


def _rows(series: CandleSeries) -> Any:
    one = series.id
    names = (one.origin.value, one.market.value, one.symbol, one.interval)
    columns = [getattr(series, name).tolist() for name in COLUMNS]
    for time_ms, *values in zip(series.open_time_ms.tolist(), *columns, strict=True):
        yield (datetime.fromtimestamp(time_ms / 1000, UTC), *names, *values)
