"""Series on the real server: written beside the order path, dropped rather than waited for."""

import os
import signal
import time
from decimal import Decimal

import pytest
from state_postgres import postgres_url
from state_scenario import Scenario, candle, session

from bot4_runtime.domain.events import CandleClosed, Heartbeat, RegimeNamed
from bot4_runtime.state.trading_state import TradingState

psycopg = pytest.importorskip("psycopg")

from bot4_runtime.state import series  # noqa: E402
from bot4_runtime.state.postgres import PostgresDisk, connect  # noqa: E402
from bot4_runtime.state.series import CAPACITY, SeriesWriter, make_hypertables  # noqa: E402

pytestmark = pytest.mark.postgres


@pytest.fixture
def sql(pg_account, tmp_path):
    PostgresDisk.open(postgres_url(), pg_account, tmp_path).close()
    with connect(postgres_url(), pg_account, writes=True) as connection:
        yield connection


def begun(*arguments, **options) -> SeriesWriter:
    writer = SeriesWriter(*arguments, **options)
    writer.start()
    return writer


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_candles_equity_and_regimes_become_rows(sql, pg_account):
    state = TradingState()
    writer = begun(postgres_url(), pg_account, lambda: state, pause_s=0.01)
    events = [event for batch in Scenario(3, 90).batches() for event in batch]
    for event in events:
        state.apply(event)
        writer.offer(event)
    writer.offer(Heartbeat(ts_event_ns=0, events_total=1))
    writer.stop()
    candles = [e.candle for e in events if isinstance(e, CandleClosed)]
    rows = sql.execute(
        "SELECT extract(epoch FROM ts)::bigint, symbol, close FROM candle"
    ).fetchall()
    assert sorted(rows) == sorted((c.open_time_ms // 1000, c.symbol, c.close) for c in candles)
    named = [e.estimate for e in events if isinstance(e, RegimeNamed)]
    rows = sql.execute("SELECT symbol, regime FROM regime").fetchall()
    assert sorted(rows) == sorted((e.symbol, e.regime.label) for e in named)
    books = sql.execute("SELECT DISTINCT book FROM equity ORDER BY 1").fetchall()
    assert books == [("shadow",), ("validated",)]
    (first,) = sql.execute(
        "SELECT equity FROM equity WHERE book = 'shadow' ORDER BY ts"
    ).fetchone()
    assert first == Decimal(10_000)
    assert writer.counters() == {
        "written": len(candles) * 3 + len(named),
        "dropped": 0,
    }


def test_the_same_candle_twice_is_one_row(sql, pg_account):
    for _ in range(2):
        writer = begun(postgres_url(), pg_account, TradingState, pause_s=0.01)
        writer.offer(candle("BTCUSDT", 0, 1.0))
        writer.stop()
    assert sql.execute("SELECT count(*) FROM candle").fetchone() == (1,)


def test_a_stopped_server_costs_rows_and_nothing_else(sql, pg_account):
    writer = begun(postgres_url(), pg_account, TradingState, pause_s=0.01)
    writer.offer(candle("BTCUSDT", 0, 1.0))
    until(lambda: writer.written == 1)
    (process,) = sql.execute(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'INSERT INTO candle%%' "
        "AND pid <> pg_backend_pid() AND application_name = %s",
        (sql.info.get_parameters()["application_name"],),
    ).fetchone()
    os.kill(process, signal.SIGSTOP)
    try:
        started = time.monotonic()
        for number in range(CAPACITY + 2_000):
            writer.offer(candle("BTCUSDT", number * 60_000, 1.0))
        assert time.monotonic() - started < 20
        assert writer.dropped >= 1_000
        writer.stop(timeout_s=0.1)
    finally:
        os.kill(process, signal.SIGCONT)
    writer._thread.join(20)
    assert writer.written + writer.dropped == CAPACITY + 2_001


def test_a_lost_connection_is_made_again_and_rows_are_kept(sql, pg_account, monkeypatch):
    writer = begun(postgres_url(), pg_account, TradingState, pause_s=0.01)
    writer.offer(candle("BTCUSDT", 0, 1.0))
    until(lambda: writer.written == 1)
    sql.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "
        "query LIKE 'INSERT INTO candle%%' AND pid <> pg_backend_pid() "
        "AND application_name = %s",
        (sql.info.get_parameters()["application_name"],),
    )
    writer.offer(candle("BTCUSDT", 60_000, 1.0))
    until(lambda: writer.written == 2)
    writer.stop()
    assert sql.execute("SELECT count(*) FROM candle").fetchone() == (2,)
    assert writer.dropped == 0


def test_a_server_that_is_not_there_is_told_once_and_drops(monkeypatch):
    writer = begun("postgresql://127.0.0.1:1/x", "paper", TradingState, pause_s=0.01)
    warnings = []
    monkeypatch.setattr(
        writer._log, "warning", lambda *_, **why: warnings.append(why), raising=False
    )
    writer.offer(session(1))
    writer.offer(candle("BTCUSDT", 0, 1.0))
    time.sleep(0.3)
    writer.stop()
    assert writer.written == 0
    assert len(warnings) <= 1


def test_hypertables_are_made_where_timescaledb_is(sql):
    if (
        sql.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone()
        is None
    ):
        pytest.skip(
            "timescaledb: the server has no TimescaleDB extension; plain tables are tested"
        )
    sql.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    assert make_hypertables(sql)
    assert make_hypertables(sql)
    found = sql.execute("SELECT hypertable_name FROM timescaledb_information.hypertables")
    assert {row[0] for row in found} >= set(series.TABLES)


def test_without_timescaledb_tables_stay_plain(sql):
    if sql.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone():
        pytest.skip("timescaledb: this server has the extension; hypertables are tested")
    assert make_hypertables(sql) is False
    kinds = sql.execute(
        "SELECT relname, relkind::text FROM pg_class WHERE oid IN ('candle'::regclass, "
        "'equity'::regclass, 'regime'::regclass) ORDER BY 1"
    ).fetchall()
    assert kinds == [(table, "r") for table in series.TABLES]


def test_each_table_is_handed_to_timescaledb_when_it_says_it_is_there():
    asked = []

    class Server:
        def execute(self, text, values=()):
            asked.append((text, values))
            return self

        def fetchone(self):
            return (1,)

    assert make_hypertables(Server())
    assert [values for _, values in asked[1:]] == [(table,) for table in series.TABLES]
