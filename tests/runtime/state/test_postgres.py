"""PostgreSQL's own: fencing of hosts, a server that is slow or gone, secrets, refusals."""

import os
import signal
import time

import pytest
from state_postgres import postgres_url
from state_scenario import candle, intended, session

from bot4_runtime.domain.errors import (
    ConfigError,
    JournalCorrupt,
    JournalError,
    JournalLocked,
    JournalWriteFailed,
)
from bot4_runtime.state.frames import encode_frames, keys_of
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.store import StateStore

psycopg = pytest.importorskip("psycopg")

from bot4_runtime.state import postgres  # noqa: E402
from bot4_runtime.state.postgres import (  # noqa: E402
    PostgresDisk,
    PostgresSource,
    check_url,
    connect,
    schema_of,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
def disk(pg_account, tmp_path):
    disk = PostgresDisk.open(postgres_url(), pg_account, tmp_path)
    yield disk
    disk.close()


@pytest.fixture
def admin():
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        yield connection


def test_commits_are_flushed_before_they_are_told(disk):
    sql = disk._connection
    assert sql.execute("SHOW synchronous_commit").fetchone() == ("on",)
    assert sql.execute("SHOW search_path").fetchone() == (f'"{schema_of(account_of(disk))}"',)
    disk.close()
    disk.close()


def account_of(disk) -> str:
    return disk._connection.execute("SELECT value FROM meta WHERE key = 'account'").fetchone()[0]


def test_a_runtime_of_another_host_is_told_who_holds_the_account(disk, pg_account, tmp_path):
    with pytest.raises(JournalLocked, match=rf"bot4 .*:{os.getpid()}, server process \d+"):
        PostgresDisk.open(postgres_url(), pg_account, tmp_path / "other host")
    with pytest.raises(JournalLocked, match="process"):
        PostgresDisk.open(postgres_url(), pg_account, tmp_path)
    disk.close()
    PostgresDisk.open(postgres_url(), pg_account, tmp_path).close()


def test_a_runtime_that_lost_its_lock_cannot_write_and_another_takes_over(
    disk, pg_account, tmp_path, admin
):
    old = Journal(disk)
    old.wait_durable(old.append([session(1)]))
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (disk.server_process,))
    new = PostgresDisk.open(postgres_url(), pg_account, tmp_path / "other host")
    assert new.epoch == 2
    with pytest.raises(JournalWriteFailed, match="terminat"):
        old.wait_durable(old.append([intended(1)]))
    with pytest.raises(JournalWriteFailed):
        old.close()
    assert new.last_seq() == 1
    new.close()


def test_an_intent_that_a_stopped_server_does_not_take_in_time_is_never_ordered(disk, pg_account):
    store = StateStore(Journal(disk), None)
    store.recover()
    store.wait_durable(store.append([session(1)]))
    os.kill(disk.server_process, signal.SIGSTOP)
    try:
        seq = store.append([intended(1)])
        started = time.monotonic()
        with pytest.raises(JournalWriteFailed, match=r"event 2 was not durable after 0.5 s"):
            store.wait_durable(seq, timeout_s=0.5)
        assert time.monotonic() - started < 5
        with pytest.raises(JournalWriteFailed, match="not written again"):
            store.append([candle("A", 0, 1.0)])
        with pytest.raises(JournalWriteFailed):
            store.close()  # does not hang
    finally:
        os.kill(disk.server_process, signal.SIGCONT)
    with psycopg.connect(postgres_url(), autocommit=True) as again:
        again.execute("SELECT pg_terminate_backend(%s, 5000)", (disk.server_process,))


def test_a_server_that_is_only_slow_is_waited_for(disk):
    journal = Journal(disk)
    journal.wait_durable(journal.append([session(1)]))
    os.kill(disk.server_process, signal.SIGSTOP)
    seq = journal.append([candle("A", 0, 1.0)])
    time.sleep(0.05)
    assert journal.durable_seq == 1
    os.kill(disk.server_process, signal.SIGCONT)
    journal.wait_durable(seq)
    journal.close()


def test_a_password_in_the_url_is_refused_and_not_repeated():
    for url in (
        "postgresql://me:hunter2@127.0.0.1/test",
        "postgresql://me@127.0.0.1/test?password=hunter2",
    ):
        with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
            check_url(url)
        assert "hunter2" not in str(caught.value)
    for url in ("mysql://me:hunter2@host/db", "postgresql://host", "journal.db"):
        with pytest.raises(ConfigError, match="postgresql://user@host/database") as caught:
            check_url(url)
        assert "hunter2" not in str(caught.value)
    assert check_url("postgresql://me@host/db") == "postgresql://me@host/db"


def test_a_server_that_cannot_be_reached_is_an_error_without_the_password(tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with pytest.raises(JournalError, match="cannot be reached") as caught:
        PostgresDisk.open("postgresql://me@127.0.0.1:1/test", "paper", tmp_path)
    assert "hunter2" not in repr(caught.value)
    postgres.AccountLock(tmp_path / "paper.lock", "paper").close()  # it was let go of


def test_an_account_whose_schema_would_be_cut_short_is_refused():
    assert schema_of("a" * 58) == "bot4_" + "a" * 58
    with pytest.raises(ConfigError, match="58 at most"):
        schema_of("a" * 59)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE meta SET value = '9' WHERE key = 'schema_version'", "schema version 9"),
        ("UPDATE meta SET value = 'else' WHERE key = 'account'", "account 'else'"),
        (
            "UPDATE alembic_version SET version_num = '0001'",
            "bot4-runtime migrate --account test-",
        ),
        ("UPDATE alembic_version SET version_num = '9999'", "use the release that wrote it"),
        ("DROP TABLE alembic_version", "alembic_version"),
    ],
)
def test_a_journal_of_another_kind_is_refused(disk, pg_account, tmp_path, statement, words):
    disk._connection.execute(statement)
    disk.close()
    with pytest.raises(JournalError, match=words):
        PostgresDisk.open(postgres_url(), pg_account, tmp_path)


def test_an_epoch_that_may_have_been_used_is_refused(disk, pg_account, tmp_path):
    disk.write(encode_frames(1, 1, [session(1)]), keys_of(1, [session(1)]))
    disk._connection.execute("UPDATE meta SET value = '0' WHERE key = 'epoch'")
    disk.close()
    with pytest.raises(JournalCorrupt, match="must never be given twice"):
        PostgresDisk.open(postgres_url(), pg_account, tmp_path)


def test_a_server_that_does_not_flush_is_refused(disk, pg_account, tmp_path, monkeypatch):
    class Unsafe:
        def execute(self, *_):
            return self

        def fetchone(self):
            return ("off",)

    with pytest.raises(JournalError, match="fsync off"):
        postgres._start(Unsafe(), "postgresql://host/db", "paper")


def test_a_read_on_a_lost_connection_is_an_error(disk, admin):
    disk.write(encode_frames(1, 1, [session(1)]), keys_of(1, [session(1)]))
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (disk.server_process,))
    with pytest.raises(JournalCorrupt, match="cannot be read on"):
        list(disk.read(0))


def test_a_reader_finds_nothing_where_there_is_nothing_and_says_so(disk, pg_account):
    disk.close()
    with pytest.raises(JournalError, match="there is no journal of account 'nobody-here'"):
        PostgresSource.open(postgres_url(), "nobody-here")
    with connect(postgres_url(), pg_account, writes=True) as sql:
        sql.execute("DROP TABLE alembic_version")
    with pytest.raises(JournalError, match="alembic_version"):
        PostgresSource.open(postgres_url(), pg_account)


def test_a_reader_cannot_write(disk, pg_account):
    source = PostgresSource.open(postgres_url(), pg_account)
    assert pg_account in source.where
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        source._connection.execute("DELETE FROM frame")
    source.close()


def test_a_server_restored_from_an_older_copy_gives_an_epoch_nobody_had(pg_account, tmp_path):
    def epoch() -> int:
        disk = PostgresDisk.open(postgres_url(), pg_account, tmp_path)
        disk._connection.execute("UPDATE meta SET value = '0' WHERE key = 'epoch'")
        disk.close()
        return disk.epoch

    assert [epoch(), epoch(), epoch()] == [1, 2, 3]
