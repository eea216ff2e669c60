"""Every revision can be brought up to the newest, with its data, on both stores."""

import sqlite3

import pytest
from state_postgres import postgres_url
from state_scenario import Scenario, session

from bot4_runtime.domain.errors import ConfigError, JournalError, JournalLocked
from bot4_runtime.domain.events import SCHEMA_VERSION
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.frames import encode_frames, keys_of
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.migrate import migrate
from bot4_runtime.state.migrations import HEAD, REVISIONS
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

IDS = [revision.revision for revision in REVISIONS]
INSERTS = (
    "INSERT INTO frame VALUES ({0}, {0}, {0}, {0}, {0}, {0})",
    "INSERT INTO intent VALUES ({0}, {0})",
    "INSERT INTO trade VALUES ({0}, {0}, {0}, {0})",
    "INSERT INTO meta VALUES ({0}, {0})",
)


def written(sql, mark: str, account: str, version: object, epoch: object) -> str:
    """A session's rows, as every revision takes them; its hash."""
    scenario = Scenario(5, 60)
    events = [event for batch in scenario.batches() for event in batch]
    keys = keys_of(1, events)
    meta = [("schema_version", version), ("account", account), ("epoch", epoch)]
    for text, rows in zip(
        INSERTS, (encode_frames(1, 1, events), keys.intents, keys.trades, meta), strict=True
    ):
        for row in rows:
            sql.execute(text.format(mark), row)
    return scenario.hashes[-1]


@pytest.mark.parametrize("begin", IDS)
def test_a_sqlite_journal_of_each_revision_comes_up_with_its_data(tmp_path, begin):
    path = tmp_path / "journal.db"
    path.touch()
    assert migrate(path, "paper", tmp_path, begin) == "empty"
    with sqlite3.connect(path) as sql:
        expected = written(sql, "?", "paper", SCHEMA_VERSION, 1)
    sql.close()
    if begin != HEAD:
        with pytest.raises(JournalError, match="`bot4-runtime migrate --account paper`"):
            SqliteDisk.open(path, "paper")
        with pytest.raises(JournalError, match="bot4-runtime migrate"):
            JournalReader.open(path)
    assert migrate(path, "paper", tmp_path) == begin
    store = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
    store.recover()
    assert store.state.state_hash() == expected
    assert store.epoch == 2
    store.append([session(2)])
    store.close()


def test_a_new_sqlite_journal_is_laid_out_as_a_migrated_one(tmp_path):
    (tmp_path / "migrated.db").touch()
    migrate(tmp_path / "migrated.db", "paper", tmp_path)
    SqliteDisk.open(tmp_path / "new.db", "paper").close()

    def layout(name: str):
        with sqlite3.connect(tmp_path / name) as sql:
            rows = sql.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        sql.close()
        return sorted((kind, what, " ".join((text or "").split())) for kind, what, text in rows)

    strip = [(kind, what) for kind, what, _ in layout("migrated.db")]
    assert strip == [(kind, what) for kind, what, _ in layout("new.db")]
    ours = [row for row in layout("new.db") if row[1] != "alembic_version"]
    assert ours == [row for row in layout("migrated.db") if row[1] != "alembic_version"]


@pytest.mark.postgres
@pytest.mark.parametrize("begin", IDS)
def test_a_postgres_journal_of_each_revision_comes_up_with_its_data(pg_account, tmp_path, begin):
    from bot4_runtime.state.postgres import PostgresDisk, connect

    assert migrate(postgres_url(), pg_account, tmp_path, begin) == "empty"
    with connect(postgres_url(), pg_account, writes=True) as sql:
        expected = written(sql, "%s", pg_account, str(SCHEMA_VERSION), "1")
    if begin != HEAD:
        with pytest.raises(JournalError, match=f"migrate --account {pg_account}"):
            PostgresDisk.open(postgres_url(), pg_account, tmp_path)
    assert migrate(postgres_url(), pg_account, tmp_path) == begin
    store = StateStore(Journal(PostgresDisk.open(postgres_url(), pg_account, tmp_path)), None)
    store.recover()
    assert store.state.state_hash() == expected
    store.close()


@pytest.mark.postgres
def test_a_new_postgres_journal_is_laid_out_as_a_migrated_one(pg_account, tmp_path):
    from bot4_runtime.state.postgres import PostgresDisk, connect, schema_of

    def layout():
        with connect(postgres_url(), pg_account, writes=True) as sql:
            found = sql.execute(
                "SELECT table_name, column_name, data_type, is_nullable, ordinal_position FROM "
                "information_schema.columns WHERE table_schema = %s ORDER BY 1, 5",
                (schema_of(pg_account),),
            ).fetchall()
            indexes = sql.execute(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1",
                (schema_of(pg_account),),
            ).fetchall()
            sql.execute(f'DROP SCHEMA "{schema_of(pg_account)}" CASCADE')
        return found, indexes

    PostgresDisk.open(postgres_url(), pg_account, tmp_path).close()
    new = layout()
    migrate(postgres_url(), pg_account, tmp_path)
    assert layout() == new
    assert new[0]


def test_a_journal_that_is_held_or_not_there_is_not_touched(tmp_path):
    with pytest.raises(JournalError, match="there is no journal"):
        migrate(tmp_path / "nothing.db", "paper", tmp_path)
    lock = AccountLock(tmp_path / "paper.lock", "paper")
    with pytest.raises(JournalLocked):
        migrate(tmp_path / "nothing.db", "paper", tmp_path)
    lock.close()
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(JournalError, match=r"could not be upgraded: file is not a database"):
        migrate(tmp_path / "text.db", "paper", tmp_path)


def test_without_its_packages_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "alembic", None)
    with pytest.raises(ConfigError, match=r"need alembic; .*pip install 'bot4\[postgres\]'"):
        migrate(tmp_path / "journal.db", "paper", tmp_path)
