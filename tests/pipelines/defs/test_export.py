"""Candles in a real PostgreSQL: once, restated, and by the asset; refused with words."""

import os
import uuid

import dagster as dg
import pytest

from bot4_pipelines.defs import fleet_models as assets
from bot4_pipelines.export import Exported, _prepare, export_candles, export_url
from bot4_pipelines.fleet import Fleet, SeriesPart
from bot4_pipelines.records import Folders
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.errors import ConfigError, DataError

HOUR = 3_600_000
START = 1_704_067_200_000


@pytest.fixture
def url():
    """A database of its own; dropped afterwards."""
    psycopg = pytest.importorskip("psycopg")
    user, name = os.environ.get("PGUSER", "root"), f"bot4_export_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"postgresql://{user}@127.0.0.1/test", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        yield f"postgresql://{user}@127.0.0.1/{name}"
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def rows(url):
    import psycopg

    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT extract(epoch FROM ts)::bigint * 1000, symbol, open, high, low, close, volume "
            "FROM bot4_market.candle ORDER BY symbol, ts"
        ).fetchall()


@pytest.mark.postgres
def test_a_series_is_exported_once_and_restated_rows_are_updated(url):
    series = SimulatedMarket(1).series("BTCUSDT", "1h", START, START + 300 * HOUR)
    assert export_candles(series, url) == Exported(300, 300, hypertable=False)
    assert export_candles(series, url) == Exported(300, 0, hypertable=False)
    volume = series.volume.copy()
    volume[7] += 1.0
    restated = CandleSeries(
        series.id, series.open_time_ms, series.open, series.high, series.low, series.close, volume
    )
    assert export_candles(restated, url).written == 1
    other = SimulatedMarket(1).series("ETHUSDT", "1h", START, START + 5 * HOUR)
    assert export_candles(other, url).written == 5
    held = rows(url)
    assert held[:300] == [
        (c.open_time_ms, "BTCUSDT", c.open, c.high, c.low, c.close, c.volume) for c in restated
    ]
    assert len(held) == 305


@pytest.mark.postgres
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_asset_exports_the_partitions_series(url, tmp_path, monkeypatch):
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "simulated")
    monkeypatch.setenv("BOT4_EXPORT_URL", url)
    part = SeriesPart("BTCUSDT", "1d")
    Fleet(Folders.from_environment(), lambda *_: None).candles(part, 2024)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job = dg.define_asset_job("some", selection=["candle_table"])
    made = dg.Definitions(assets=assets.FLEET_ASSETS, jobs=[job]).resolve_job_def("some")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", [part.key])
        done = made.execute_in_process(instance=instance, partition_key=part.key, run_config=quiet)
        event = instance.get_latest_materialization_event(dg.AssetKey("candle_table"))
    assert done.success
    assert event.asset_materialization.metadata["written"].value == 366
    assert len(rows(url)) == 366


@pytest.mark.postgres
def test_a_server_that_does_not_answer_is_named_by_the_series(url):
    series = SimulatedMarket(1).series("BTCUSDT", "1h", START, START + HOUR)
    with pytest.raises(DataError, match=r"BTCUSDT/1h were not exported: connection"):
        export_candles(series, "postgresql://nobody@127.0.0.1:1/none")


def test_the_table_is_handed_to_timescaledb_when_it_says_it_is_there():
    class Found:
        def __init__(self, row):
            self.row = row

        def fetchone(self):
            return self.row

    class Server:
        def __init__(self):
            self.said = []

        def execute(self, text, values=None):
            self.said.append((text, values))
            return Found((1,) if "pg_extension" in text else None)

    server = Server()
    assert _prepare(server) is True
    text, values = server.said[-1]
    assert "create_hypertable" in text
    assert values == ("bot4_market.candle",)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "names no database"),
        ("mysql://a@b/c", "is no URL like postgresql"),
        ("postgresql://a@b", "is no URL like postgresql"),
        ("postgresql://a:secret@b/c", "carries a password"),
        ("postgresql://a@b/c?password=secret", "carries a password"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_repeated(value, says):
    with pytest.raises(ConfigError, match=says) as refused:
        export_url({"BOT4_EXPORT_URL": value})
    assert "secret" not in str(refused.value)
