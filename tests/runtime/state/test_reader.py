"""Read-only access beside a running writer and after it."""

import sqlite3
import sys

import pytest
from state_scenario import Scenario, intended, session

from bot4_runtime.domain.errors import ConfigError, JournalCorrupt, JournalError
from bot4_runtime.domain.events import OrderFilled, SessionStarted
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(4, 50)


@pytest.fixture
def store(tmp_path, scenario):
    store = StateStore(
        Journal(SqliteDisk.open(tmp_path / "journal.db", "paper")), tmp_path / "snapshots"
    )
    store.recover()
    for batch in scenario.batches():
        store.wait_durable(store.append(batch))
    yield store
    store.close()


def test_a_reader_folds_the_same_state_beside_the_writer(tmp_path, store, scenario):
    events = [event for batch in scenario.batches() for event in batch]
    with JournalReader.open(tmp_path / "journal.db") as reader:
        assert reader.account() == "paper"
        assert reader.last_seq() == len(events) == reader.verify()
        assert [event for _, event in reader.events()] == events
        assert next(iter(reader.events(from_seq=10)))[0] == 10
        fills = [event for _, event in reader.events(kinds=(OrderFilled,))]
        assert fills == [event for event in events if isinstance(event, OrderFilled)]
        assert reader.state().state_hash() == scenario.hashes[-1]
        store.create_snapshot()
        store.append([session(2)])
        store.wait_durable(store.state.seq)
        assert reader.sessions() == [(1, events[0]), (len(events) + 1, session(2))]
        assert reader.state(tmp_path / "snapshots").state_hash() == scenario.hashes[-1]
        assert reader.state(tmp_path / "snapshots").seq == len(events) + 1


def test_a_reader_works_on_a_closed_journal_and_passes_over_bad_snapshots(
    tmp_path, store, scenario
):
    store.create_snapshot()
    store.close()
    (tmp_path / "snapshots" / f"{1:020d}.snapshot").write_bytes(b"damaged")
    (tmp_path / "snapshots" / f"{10**9:020d}.snapshot").write_bytes(b"damaged")
    with JournalReader.open(tmp_path / "journal.db") as reader:
        assert reader.state(tmp_path / "snapshots").state_hash() == scenario.hashes[-1]
        assert isinstance(reader.sessions()[0][1], SessionStarted)


def test_a_snapshot_ahead_of_a_copied_journal_is_passed_over(tmp_path, store, scenario):
    store.create_snapshot()
    store.close()
    with sqlite3.connect(tmp_path / "journal.db") as sql:
        (last,) = sql.execute("SELECT max(last_seq) FROM frame WHERE first_seq < 20").fetchone()
        sql.execute("DELETE FROM frame WHERE first_seq > ?", (last,))
    sql.close()
    with JournalReader.open(tmp_path / "journal.db") as reader:
        assert reader.state(tmp_path / "snapshots").seq == last


def test_a_reader_cannot_write(tmp_path, store):
    with (
        JournalReader.open(tmp_path / "journal.db") as reader,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        reader._source._sql.execute("DELETE FROM frame")


def test_what_is_missing_or_no_journal_is_refused(tmp_path, store):
    with pytest.raises(JournalError, match="there is no journal"):
        JournalReader.open(tmp_path / "nothing.db")
    (tmp_path / "text.db").write_text("hello " * 1_000)
    with pytest.raises(JournalCorrupt, match="expected a Bot4 journal"):
        JournalReader.open(tmp_path / "text.db")
    store.close()
    with sqlite3.connect(tmp_path / "journal.db") as sql:
        sql.execute("UPDATE meta SET value = 9 WHERE key = 'schema_version'")
    sql.close()
    with pytest.raises(JournalError, match="schema version 9"):
        JournalReader.open(tmp_path / "journal.db")


def test_a_frame_that_lost_its_last_number_is_no_gap_in_silence(tmp_path, store):
    store.close()
    with sqlite3.connect(tmp_path / "journal.db") as sql:
        sql.execute("UPDATE frame SET last_seq = 0 WHERE first_seq = 1")
    sql.close()
    with JournalReader.open(tmp_path / "journal.db") as reader:
        for look in (lambda: list(reader.events()), reader.state, reader.verify):
            with pytest.raises(JournalCorrupt, match="frame 1 fails its checksum"):
                look()


def test_verify_finds_what_is_missing_or_changed(tmp_path, store):
    store.close()
    with sqlite3.connect(tmp_path / "journal.db") as sql:
        firsts = [row[0] for row in sql.execute("SELECT first_seq FROM frame ORDER BY first_seq")]
        sql.execute("DELETE FROM frame WHERE first_seq = ?", (firsts[3],))
    sql.close()
    with (
        JournalReader.open(tmp_path / "journal.db") as reader,
        pytest.raises(JournalCorrupt, match=f"event {firsts[3]} is missing"),
    ):
        reader.verify()
    with sqlite3.connect(tmp_path / "journal.db") as sql:
        sql.execute("UPDATE frame SET epoch = epoch + 1 WHERE first_seq = ?", (firsts[2],))
    sql.close()
    with (
        JournalReader.open(tmp_path / "journal.db") as reader,
        pytest.raises(JournalCorrupt, match=f"frame {firsts[2]} fails its checksum"),
    ):
        reader.verify()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "UPDATE trade SET trade_id = trade_id || 'x' WHERE seq = (SELECT max(seq) FROM trade)",
            "not those",
        ),
        ("DELETE FROM intent WHERE intent_no = 2", "not those"),
        ("INSERT INTO intent VALUES (10000, 1)", "not those"),
        ("UPDATE trade SET seq = 'x' WHERE seq = (SELECT max(seq) FROM trade)", "names no event"),
        (
            "UPDATE trade SET symbol = CAST(x'ff' AS TEXT) WHERE seq = "
            "(SELECT max(seq) FROM trade)",
            "cannot be read",
        ),
        ("UPDATE frame SET kinds = x'00' WHERE first_seq = 1", "of other types"),
        ("UPDATE frame SET crc = 'x' WHERE first_seq = 1", "of other types"),
        (
            "INSERT INTO trade VALUES ('validated', 'X', '1', (SELECT max(last_seq) FROM frame))",
            "of no event",
        ),
    ],
)
def test_verify_finds_unique_keys_that_are_not_those_of_the_events(
    tmp_path, store, statement, words
):
    store.close()
    with sqlite3.connect(tmp_path / "journal.db") as sql:
        sql.execute(statement)
    sql.close()
    with (
        JournalReader.open(tmp_path / "journal.db") as reader,
        pytest.raises(JournalCorrupt, match=words),
    ):
        reader.verify()


def test_verify_beside_a_writer_looks_at_what_was_there_when_it_began(tmp_path, store):
    with JournalReader.open(tmp_path / "journal.db") as reader:
        end = reader.last_seq()
        before = reader._source.keys

        def late_keys():
            number = store.state.next_intent_no
            store.wait_durable(store.append([intended(number)]))
            return before()

        reader._source.keys = late_keys
        assert reader.verify() == end


def test_without_the_driver_a_journal_in_a_database_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bot4_runtime.state.postgres", None)
    with pytest.raises(ConfigError, match=r"needs bot4_runtime.*pip install 'bot4\[postgres\]'"):
        JournalReader.of_account(tmp_path, "paper", "postgresql://host/db")
