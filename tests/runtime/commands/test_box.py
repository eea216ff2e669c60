"""The operator's box: who may write, what is taken, and that nothing is obeyed twice."""

import sqlite3
import stat
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from bot4_runtime import commands
from bot4_runtime.clock import ManualClock
from bot4_runtime.commands import (
    ANSWERED_KEPT,
    CommandBox,
    CommandReader,
    JournaledOrders,
    Order,
    commands_of,
)
from bot4_runtime.domain.errors import ConfigError, DataError, JournalCorrupt
from bot4_runtime.domain.events import OperatorCommand, OverrideSet
from bot4_runtime.risk.limits import RiskLimits

LIMITS = RiskLimits()


class Journal:
    """What a runtime has journaled, read as a `JournalReader` is read."""

    def __init__(self):
        self.events_by_seq = {}
        self.read_from = []
        self.broken = False

    def obey(self, command):
        seq = len(self.events_by_seq) + 1
        self.events_by_seq[seq] = command

    def __enter__(self):
        if self.broken:
            raise JournalCorrupt("torn")
        return self

    def __exit__(self, *_):
        pass

    def last_seq(self):
        return max(self.events_by_seq, default=0)

    def events(self, from_seq=0, kinds=None):
        assert kinds == (OperatorCommand, OverrideSet)
        self.read_from.append(from_seq)
        return ((s, e) for s, e in sorted(self.events_by_seq.items()) if s >= from_seq)


class Desk:
    def __init__(self, folder):
        self.folder = folder
        self.journal = Journal()
        self.time_ns = 0
        self.restart()

    def restart(self):
        self.reader = CommandReader(
            self.folder,
            ManualClock(77),
            LIMITS,
            JournaledOrders(lambda: self.journal),
            self.timer,
        )

    def timer(self):
        return self.time_ns

    def poll(self):
        self.time_ns += commands.POLL_NS
        return list(self.reader.poll())

    def box(self):
        return CommandBox(self.folder)

    def rows(self):
        with sqlite3.connect(self.box().path) as sql:
            return sql.execute("SELECT id, seq, refusal FROM command ORDER BY id").fetchall()


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def order(verb="halt", command_id="one", **arguments):
    return Order(verb=verb, reason="because", command_id=command_id, arguments=arguments)


def test_an_order_is_given_once_and_answered_once_the_journal_holds_it(desk):
    assert desk.poll() == []
    assert desk.box().put(order()) == "one"
    given = desk.poll()
    assert given == [
        OperatorCommand(ts_event_ns=77, verb="halt", reason="because", command_id="one")
    ]
    assert desk.poll() == []
    assert desk.rows() == [("one", None, None)]
    desk.journal.obey(given[0])
    assert desk.poll() == []
    assert desk.rows() == [("one", 1, None)]
    desk.restart()
    assert desk.poll() == []


def test_after_a_kill_before_the_journal_had_it_the_order_is_given_again(desk):
    desk.box().put(order())
    assert len(desk.poll()) == 1
    desk.restart()
    assert [c.command_id for c in desk.poll()] == ["one"]


def test_after_a_kill_once_the_journal_had_it_the_order_is_only_answered(desk):
    desk.box().put(order())
    desk.journal.obey(desk.poll()[0])
    desk.restart()
    assert desk.poll() == []
    assert desk.rows() == [("one", 1, None)]


def test_a_kill_between_its_two_parts_leaves_the_second_to_be_done(desk):
    desk.box().put(order("resume", reset_peak=True))
    peak, resume = desk.poll()
    assert (peak.verb, peak.command_id) == ("reset_peak", "one/peak")
    assert (resume.verb, resume.command_id) == ("resume", "one")
    desk.journal.obey(peak)
    desk.restart()
    assert desk.poll() == [resume]
    assert desk.rows() == [("one", None, None)]
    desk.journal.obey(resume)
    assert desk.poll() == []
    assert desk.rows() == [("one", 2, None)]


def test_an_override_becomes_its_event_and_one_that_would_loosen_is_refused(desk):
    desk.box().put(order("override", hours=24, max_position_pct=0.01))
    desk.box().put(order("override", "loose", hours=24, max_position_pct=0.05))
    desk.box().put(order("override", "nothing", hours=24))
    desk.box().put(order("override", "stop", hours=0.5, halt=True))
    day_ns = 86_400_000_000_000
    tight, stop = desk.poll()
    assert tight == OverrideSet(
        ts_event_ns=77, reason="because", command_id="one", expires_ts_ns=77 + day_ns,
        halt=False, limits={"max_position_pct": 0.01},
    )  # fmt: skip
    assert (stop.halt, stop.limits, stop.expires_ts_ns) == (True, {}, 77 + day_ns // 48)
    assert "would loosen" in desk.box().refusal("loose")
    assert "must halt or tighten" in desk.box().refusal("nothing")
    desk.journal.obey(tight)
    desk.journal.obey(stop)
    assert desk.poll() == []
    assert [row[1] for row in desk.rows()] == [None, None, 1, 2]


def test_orders_come_in_the_order_they_were_given(desk):
    for name in "cab":
        desk.box().put(order(command_id=name))
    assert [c.command_id for c in desk.poll()] == ["c", "a", "b"]


def test_the_same_order_twice_is_one_and_another_of_its_id_is_refused(desk):
    desk.box().put(order())
    desk.box().put(order())
    assert len(desk.poll()) == 1
    with pytest.raises(ConfigError) as refused:
        desk.box().put(order("flatten"))
    assert str(refused.value) == (
        "order one was given before, as halt (because); another order needs another id"
    )
    assert Order(verb="halt", reason="x").command_id != Order(verb="halt", reason="x").command_id


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (Order(verb="buy", reason="x"), "unknown order 'buy'"),
        (Order(verb="halt", reason="  "), "needs a reason"),
        (Order(verb="halt", reason="x" * 501), "1 to 500 characters"),
        (Order(verb="halt", reason="x", command_id=""), "id of 1 to 64"),
        (Order(verb="halt", reason="x", command_id="i" * 65), "id of 1 to 64"),
        (Order(verb="halt", reason="x", arguments={"reset_peak": True}), "halt has no argument"),
        (Order(verb="resume", reason="x", arguments={"max": 1.0}), "resume has no argument 'max'"),
    ],
)
def test_what_is_no_order_is_not_taken(desk, wrong, word):
    with pytest.raises(ConfigError, match=word):
        desk.box().put(wrong)
    with pytest.raises(ConfigError):
        commands_of(wrong, 1, LIMITS)
    assert desk.poll() == []


def test_a_row_somebody_forged_is_refused_and_the_next_one_obeyed(desk):
    desk.box().put(order())
    desk.box().put(order(command_id="two"))
    desk.box().put(order(command_id="three"))
    with sqlite3.connect(desk.box().path) as sql:
        sql.execute("UPDATE command SET verb = 'buy' WHERE id = 'one'")
        sql.execute("UPDATE command SET arguments = '[' WHERE id = 'two'")
    assert [c.command_id for c in desk.poll()] == ["three"]
    (_, _, why_one), _, (_, _, why_two) = desk.rows()
    assert "unknown order 'buy'" in why_one
    assert why_two
    assert "buy" in desk.box().refusal("one")
    assert desk.box().refusal("three") is None
    assert desk.box().refusal("nobody") is None


def test_it_looks_a_few_times_a_second_at_most(desk):
    desk.box().put(order())
    assert len(desk.reader.poll()) == 1
    desk.box().put(order(command_id="two"))
    desk.time_ns += commands.POLL_NS - 1
    assert desk.reader.poll() == ()
    desk.time_ns += 1
    assert len(desk.reader.poll()) == 1


def test_the_journal_is_read_on_from_where_it_was_read_and_only_while_orders_wait(desk):
    desk.poll()
    assert desk.journal.read_from == []
    desk.box().put(order())
    desk.poll()
    desk.journal.obey(commands_of(order(), 1, LIMITS)[0])
    desk.poll()
    desk.poll()
    assert desk.journal.read_from == [0, 1]


def test_a_box_that_is_locked_torn_or_ahead_of_its_journal_does_not_stop_trading(desk):
    desk.box().put(order())
    with sqlite3.connect(desk.box().path, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with capture_logs() as logs:
            assert desk.poll() == []
        writer.execute("ROLLBACK")
    assert logs == []
    desk.journal.broken = True
    with capture_logs() as logs:
        assert desk.poll() == desk.poll() == []
    assert [log["why"] for log in logs] == ["JournalCorrupt: torn"]
    desk.journal.broken = False
    path = desk.box().path
    good = path.read_bytes()
    path.write_bytes(b"no database" * 100)
    with capture_logs() as logs:
        assert desk.poll() == []
    assert "not a database" in logs[0]["why"]
    path.write_bytes(good)
    assert len(desk.poll()) == 1


def test_the_box_belongs_to_its_user_alone(desk):
    box = desk.box()
    box.put(order())
    assert stat.S_IMODE(box.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(box.path.stat().st_mode) == 0o600
    for mode in (0o701, 0o770, 0o702):
        box.path.parent.chmod(mode)
        for opening in (desk.box, desk.restart):
            with pytest.raises(ConfigError, match=f"mode {mode:03o}.*chmod 700"):
                opening()
    box.path.parent.chmod(0o700)
    desk.box()


def test_a_box_of_another_user_or_behind_a_link_is_refused(desk, monkeypatch, tmp_path):
    desk.box()
    monkeypatch.setattr(commands.os, "getuid", lambda: 4242)
    with pytest.raises(ConfigError, match="belongs to user"):
        desk.box()
    monkeypatch.undo()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    account = tmp_path / "account"
    account.mkdir()
    (account / commands.FOLDER).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="folder of this user alone"):
        CommandBox(account)
    (tmp_path / "target").touch()
    desk.box().path.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        desk.box().put(order())
    with capture_logs() as logs:
        assert desk.poll() == []
    assert "OSError" in logs[0]["why"]


def test_an_account_that_is_not_there_has_no_box(tmp_path):
    with pytest.raises(DataError, match="there is no account"):
        CommandBox(tmp_path / "nobody")


def test_waiting_ends_with_the_journals_word_a_refusal_or_the_time(desk):
    box = desk.box()
    journaled = JournaledOrders(lambda: desk.journal)
    box.put(order())
    assert box.wait("one", journaled, 0.06) is None
    desk.journal.obey(desk.poll()[0])
    answer = box.wait("one", journaled, 5.0)
    assert (answer.seq, answer.refusal) == (1, None)
    box.put(order(command_id="two"))
    with sqlite3.connect(box.path) as sql:
        sql.execute("UPDATE command SET refusal = 'no' WHERE id = 'two'")
    assert box.wait("two", journaled, 5.0).refusal == "no"


def test_answered_orders_are_cleared_away_and_waiting_ones_never(desk):
    box = desk.box()
    box.put(order(command_id="waits"))
    with sqlite3.connect(box.path) as sql:
        sql.executemany(
            "INSERT INTO command VALUES (?, 'halt', 'x', '{}', 1, ?, 1, NULL)",
            [(f"old{k:05}", k) for k in range(ANSWERED_KEPT + 50)],
        )
    box.put(order(command_id="new"))
    names = [row[0] for row in desk.rows()]
    assert len(names) == ANSWERED_KEPT + 2
    assert {"waits", "new", "old01049"} <= set(names)
    assert "old00049" not in names
    assert box.path.stat().st_size < 1_000_000


def test_an_order_is_given_though_a_waiting_operator_keeps_the_answers_from_being_written(desk):
    desk.box().put(order(command_id="first"))
    desk.journal.obey(desk.poll()[0])
    desk.box().put(order(command_id="second"))
    with closing(sqlite3.connect(desk.box().path, isolation_level=None)) as waiting:
        reading = waiting.execute("SELECT refusal FROM command")
        reading.fetchone()  # an open statement holds the lock that a commit waits for
        assert [c.command_id for c in desk.poll()] == ["second"]
        assert desk.rows() == [("first", None, None), ("second", None, None)]
        reading.close()
    assert desk.poll() == []
    assert desk.rows() == [("first", 1, None), ("second", None, None)]


@pytest.mark.parametrize("hours", [1e300, 1e-300, -1.0, 721.0, 0.0])
def test_an_override_of_an_impossible_length_is_refused_and_hurts_nobody(desk, hours):
    desk.box().put(order("override", max_leverage=2.0, hours=hours))
    desk.box().put(order(command_id="two"))
    assert [c.command_id for c in desk.poll()] == ["two"]
    (_, seq, refusal), _ = desk.rows()
    assert seq is None
    assert "must end" in refusal


def test_a_row_that_nobody_can_read_is_refused_and_hurts_nobody(desk):
    desk.box().put(order("override", max_leverage=2.0, hours=1.0))
    with closing(sqlite3.connect(desk.box().path)) as sql, sql:
        sql.execute("UPDATE command SET arguments = '{\"hours\": 1e999'")
    desk.box().put(order(command_id="two"))
    assert [c.command_id for c in desk.poll()] == ["two"]
    assert desk.rows()[0][2]
