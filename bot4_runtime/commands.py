"""The operator's orders to a running or stopped runtime: a box of rows in the account's folder.

Whoever may write there, the same user on the same machine, is the operator; the box is refused
when others may. An order counts as obeyed when the journal holds its id, and by nothing else:
so it is obeyed exactly once whatever dies when. Orders stop, reduce, tighten or resume; none of
them can raise a limit.

The runtime's half (`CommandReader`) never makes trading wait for the box, nor fail for it.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
import structlog

from bot4_runtime.clock import Clock
from bot4_runtime.domain.errors import ConfigError, DataError, JournalError
from bot4_runtime.domain.events import OperatorCommand, OverrideSet
from bot4_runtime.risk.limits import OVERRIDABLE, RiskLimits
from bot4_runtime.risk.overrides import LONGEST_NS, override_event
from bot4_runtime.state.reader import JournalReader

VERBS: Final = ("halt", "resume", "flatten", "override", "accept")
RESET_PEAK: Final = "reset_peak"
FOLDER: Final = "commands"
FILE: Final = "commands.sqlite"
ANSWERED_KEPT: Final = 1_000
"""Answered orders that stay in the box; the journal keeps all."""
POLL_NS: Final = 100_000_000
"""How often the runtime looks, at most."""
REASON_LENGTH: Final = 500
NS_PER_HOUR: Final = 3_600_000_000_000
WRITE_WAIT_S: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS command (
    id TEXT PRIMARY KEY,
    verb TEXT NOT NULL,
    reason TEXT NOT NULL,
    arguments TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    answered_ns INTEGER,
    seq INTEGER,
    refusal TEXT
) STRICT
"""


Arguments = Mapping[str, float | bool]
Command = OperatorCommand | OverrideSet
_Row = tuple[str, str, str, str]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator wants.

    Attributes:
        verb: one of `VERBS`.
        arguments: of the verb: ``reset_peak`` of a resume; of an override the tightened limits
            by name, ``halt``, and the ``hours`` it holds.
        command_id: the same id is the same order, however often it is given.
    """

    verb: str
    reason: str
    arguments: Arguments = {}
    command_id: str = msgspec.field(default_factory=lambda: uuid4().hex)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order: `seq` in the journal, or why it was refused."""

    seq: int | None
    refusal: str | None


class JournaledOrders:
    """Which orders a journal holds; every look goes on where the last one ended.

    Args:
        open_journal: opens it for reading, anew each time.
    """

    def __init__(self, open_journal: Callable[[], JournalReader]) -> None:
        self._open_journal = open_journal
        self._next_seq = 0
        self._found: dict[str, int] = {}

    def find(self) -> Mapping[str, int]:
        """Return sequence numbers of all operator's commands so far, by their ids.

        Raises:
            JournalError: the journal cannot be read.
        """
        with self._open_journal() as reader:
            last_seq = reader.last_seq()
            if last_seq >= self._next_seq:
                kinds = (OperatorCommand, OverrideSet)
                self._found |= {
                    event.command_id: seq
                    for seq, event in reader.events(self._next_seq, kinds=kinds)
                    if isinstance(event, kinds)
                }
                self._next_seq = last_seq + 1
        return self._found


class CommandBox:
    """The operator's side of an account's box.

    Args:
        account_folder: of the journal; it must exist.

    Raises:
        DataError: the account has no folder.
        ConfigError: others than this user may write into the box.
    """

    def __init__(self, account_folder: Path) -> None:
        if not account_folder.is_dir():
            raise DataError(
                f"there is no account at {account_folder}; name one that was started: --account"
            )
        self.path = _own_folder(account_folder / FOLDER) / FILE

    def put(self, order: Order) -> str:
        """Lay an order in the box, durably; return its id.

        Raises:
            ConfigError: the order is incomplete, or another order has its id.
        """
        _check(order)
        arguments = msgspec.json.encode(order.arguments, order="sorted").decode()
        row = (order.command_id, order.verb, order.reason.strip(), arguments)
        with _opened(self.path, WRITE_WAIT_S) as sql:
            sql.execute("PRAGMA synchronous = FULL")
            sql.execute(_SCHEMA)
            sql.execute(
                "INSERT OR IGNORE INTO command (id, verb, reason, arguments, created_ns) "
                "VALUES (?, ?, ?, ?, ?)",
                (*row, time.time_ns()),
            )
            held = sql.execute(
                "SELECT id, verb, reason, arguments FROM command WHERE id = ?", row[:1]
            ).fetchone()
            if held != row:
                raise ConfigError(
                    f"order {order.command_id} was given before, as {held[1]} ({held[2]}); "
                    "another order needs another id"
                )
            sql.execute(
                "DELETE FROM command WHERE answered_ns IS NOT NULL AND id NOT IN (SELECT id FROM "
                "command WHERE answered_ns IS NOT NULL ORDER BY answered_ns DESC LIMIT ?)",
                (ANSWERED_KEPT,),
            )
        return order.command_id

    def refusal(self, command_id: str) -> str | None:
        """Return why an order was refused, None when it was not."""
        with _opened(self.path, WRITE_WAIT_S) as sql:
            row = sql.execute("SELECT refusal FROM command WHERE id = ?", (command_id,)).fetchone()
        return None if row is None else row[0]

    def wait(self, command_id: str, journaled: JournaledOrders, seconds: float) -> Answer | None:
        """Return what became of an order, None when nothing did in time.

        The journal is asked, not the runtime: what it holds is durable.
        """
        end = time.monotonic() + seconds
        while True:
            seq = journaled.find().get(command_id)
            refusal = self.refusal(command_id)
            if seq is not None or refusal is not None:
                return Answer(seq=seq, refusal=refusal)
            if time.monotonic() >= end:
                return None
            time.sleep(0.05)


class CommandReader:
    """The runtime's side of an account's box.

    Args:
        account_folder: of the journal.
        clock: orders are journaled with its time.
        limits: the configured ones, which an override may only tighten.
        journaled: what was obeyed; looked at only while orders wait.
        monotonic_ns: of a clock that never jumps.

    Raises:
        ConfigError: others than this user may write into the box.
    """

    def __init__(
        self,
        account_folder: Path,
        clock: Clock,
        limits: RiskLimits,
        journaled: JournaledOrders,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._path = _own_folder(account_folder / FOLDER) / FILE
        self._clock = clock
        self._limits = limits
        self._journaled = journaled
        self._monotonic_ns = monotonic_ns
        self._next_look_ns = monotonic_ns()
        self._given: set[str] = set()
        self._trouble = ""
        self._log = structlog.get_logger("commands")

    def poll(self) -> Sequence[Command]:
        """Return the commands that wait, each once, oldest first.

        None when it was asked a moment ago, or when the box cannot be read now.
        """
        now_ns = self._monotonic_ns()
        if now_ns < self._next_look_ns:
            return ()
        self._next_look_ns = now_ns + POLL_NS
        try:
            if not self._path.exists():
                return ()
            with _opened(self._path, 0.0) as sql:
                rows = sql.execute(
                    "SELECT id, verb, reason, arguments FROM command WHERE answered_ns IS NULL "
                    "ORDER BY created_ns, id"
                ).fetchall()
            fresh, answers = self._look(rows) if rows else ([], {})
        except (sqlite3.Error, OSError, JournalError) as error:
            self._complain(f"{type(error).__name__}: {error}")
            return ()
        self._given.update(each.command_id for each in fresh)
        self._answer(answers)
        return fresh

    def _look(self, rows: Sequence[_Row]) -> tuple[list[Command], dict[str, Answer]]:
        """Return what is to be obeyed, and what is to be told of the rest."""
        done = self._journaled.find()
        fresh: list[Command] = []
        answers: dict[str, Answer] = {}
        for command_id, verb, reason, arguments in rows:
            try:
                order = Order(
                    command_id=command_id,
                    verb=verb,
                    reason=reason,
                    arguments=msgspec.json.decode(arguments, type=Arguments),
                )
                commands = commands_of(order, self._clock.now_ns(), self._limits)
            except (ConfigError, ValueError, OverflowError) as error:
                answers[command_id] = Answer(seq=None, refusal=str(error))
                continue
            waiting = [each for each in commands if each.command_id not in done]
            if not waiting:
                answers[command_id] = Answer(seq=done[command_id], refusal=None)
            fresh += [each for each in waiting if each.command_id not in self._given]
        return fresh, answers

    def _answer(self, answers: Mapping[str, Answer]) -> None:
        """Tell the operator; what cannot be told now is told at the next look.

        Apart from the reading: an order that was read is obeyed whether or not the box, which
        a waiting operator reads, can be written.
        """
        if not answers:
            return
        try:
            with _opened(self._path, 0.0) as sql:
                for command_id, answer in answers.items():
                    _write_answer(sql, command_id, answer)
        except (sqlite3.Error, OSError) as error:
            self._complain(f"{type(error).__name__}: {error}")

    def _complain(self, why: str) -> None:
        """Say what is wrong, once; a box that is being written to is no trouble."""
        if "locked" not in why and why != self._trouble:
            self._trouble = why
            self._log.error("operator's orders cannot be read", path=str(self._path), why=why)


def waiting_orders(account_folder: Path) -> list[Order]:
    """Return the orders in an account's box that nobody has answered yet, oldest first."""
    path = account_folder / FOLDER / FILE
    if not path.is_file():
        return []
    read_only = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(read_only, uri=True, timeout=WRITE_WAIT_S)) as sql:
        rows = sql.execute(
            "SELECT id, verb, reason, arguments FROM command WHERE answered_ns IS NULL "
            "ORDER BY created_ns, id"
        ).fetchall()
    return [
        Order(
            command_id=command_id,
            verb=verb,
            reason=reason,
            arguments=msgspec.json.decode(arguments, type=Arguments),
        )
        for command_id, verb, reason, arguments in rows
    ]


def commands_of(order: Order, ts_ns: int, limits: RiskLimits) -> Sequence[Command]:
    """Return what an order means to the engine; the last command has the order's id.

    Raises:
        ConfigError: the order is incomplete or impossible, or would loosen a limit.
    """
    _check(order)
    if order.verb == "override":
        given = dict(order.arguments)
        hours = given.pop("hours", 0.0)
        if not 0 < hours <= LONGEST_NS / NS_PER_HOUR:
            raise ConfigError(
                f"an override must end within {LONGEST_NS // NS_PER_HOUR} hours; received {hours}"
            )
        return [
            override_event(
                limits,
                reason=order.reason,
                command_id=order.command_id,
                now_ns=ts_ns,
                expires_ts_ns=ts_ns + round(hours * NS_PER_HOUR),
                halt=bool(given.pop("halt", False)),
                tighten=given,
            )
        ]
    verbs = [(order.verb, order.command_id)]
    if order.arguments.get(RESET_PEAK):
        verbs.insert(0, (RESET_PEAK, f"{order.command_id}/peak"))
    return [
        OperatorCommand(ts_event_ns=ts_ns, verb=verb, reason=order.reason, command_id=command_id)
        for verb, command_id in verbs
    ]


def _write_answer(sql: sqlite3.Connection, command_id: str, answer: Answer) -> None:
    sql.execute(
        "UPDATE command SET answered_ns = ?, seq = ?, refusal = ? WHERE id = ?",
        (time.time_ns(), answer.seq, answer.refusal, command_id),
    )


def _check(order: Order) -> None:
    if order.verb not in VERBS:
        raise ConfigError(f"unknown order {order.verb!r}; expected one of {', '.join(VERBS)}")
    if not 0 < len(order.reason.strip()) <= REASON_LENGTH:
        raise ConfigError(
            f"an order to {order.verb} needs a reason of 1 to {REASON_LENGTH} characters; "
            "say why: --reason TEXT"
        )
    if not 0 < len(order.command_id) <= 64:
        raise ConfigError("an order needs an id of 1 to 64 characters")
    known = {"resume": {RESET_PEAK}, "override": {*OVERRIDABLE, "hours", "halt"}}
    unknown = sorted(set(order.arguments) - known.get(order.verb, set()))
    if unknown:
        raise ConfigError(f"{order.verb} has no argument {unknown[0]!r}")


def _own_folder(folder: Path) -> Path:
    """Return the folder, made when it is not there; only this user may have rights to it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or mode & 0o077:
        raise ConfigError(
            f"{folder} must be a folder of this user alone, and belongs to user {found.st_uid} "
            f"with mode {mode:03o}: whoever writes there commands the runtime; "
            f"remove it, or chmod 700 it"
        )
    return folder


def _connect(path: Path, wait_s: float) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    return sqlite3.connect(path, timeout=wait_s)


@contextmanager
def _opened(path: Path, wait_s: float) -> Iterator[sqlite3.Connection]:
    with closing(_connect(path, wait_s)) as connection, connection:
        yield connection
