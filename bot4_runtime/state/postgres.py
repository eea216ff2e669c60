"""The journal on PostgreSQL: one schema an account, commits flushed before they are told.

Fencing has two parts, as on SQLite. A session advisory lock keyed by account keeps runtimes of
other hosts out; it belongs to the connection that writes, so that a runtime that lost it cannot
write either. An epoch, raised by one at each opening, is locked and compared in each transaction.
A runtime whose host is gone is let go of by the server after about 15 s without answers;
a stopped process keeps the account until its backend is ended (``pg_terminate_backend``).

The highest epoch is kept on this host too, beside its lock, so that a server restored from an
older copy, or a standby that lags, does not make client ids come again. Another host does not
know it: before a failover to both another server that may lag and another host, copy the
account's ``.epoch`` file over, or let the standby be synchronous.

Passwords come from ``PGPASSWORD``, ``PGPASSFILE`` or a service file, never from the URL.
"""

import hashlib
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import psycopg
from psycopg import pq, sql

from bot4_runtime.domain.errors import (
    ConfigError,
    JournalCorrupt,
    JournalError,
    JournalLocked,
    JournalMissing,
    JournalWriteFailed,
)
from bot4_runtime.domain.events import SCHEMA_VERSION
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.frames import Frame, Keys
from bot4_runtime.state.migrations import check_revision, statements

LONGEST_ACCOUNT: Final = 58
"""Letters of an account name; PostgreSQL cuts names after 63, and two cut ones may be one."""

_PAGE: Final = 64
_FACT: Final = "fact:"
_SESSION: Final = (
    "-c synchronous_commit=on -c lock_timeout=5s -c client_min_messages=warning "
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=5"
)
_FEW: Final = 16
"""Rows that are written by a single statement; more go by a pipeline of them."""

_BIGINT: Final = struct.Struct("!q")
_NEW_FRAME: Final = "INSERT INTO frame VALUES (%b, %b, %b, %t, %b, %b)"
_NEW_INTENT: Final = "INSERT INTO intent VALUES (%b, %b)"
_NEW_TRADE: Final = "INSERT INTO trade VALUES (%t, %t, %t, %b)"


def check_url(url: str) -> str:
    """Return a journal URL that may be kept and shown.

    Raises:
        ConfigError: it is no PostgreSQL URL, or carries a password. The URL is not repeated.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise ConfigError(
            "state.journal must be 'sqlite' or a URL like postgresql://user@host/database"
        )
    if parts.password is not None or "password" in parts.query:
        raise ConfigError(
            "state.journal carries a password; settings are shown and hashed, so give it by "
            "PGPASSWORD or a password file (PGPASSFILE) instead"
        )
    return url


def schema_of(account: str) -> str:
    """Return the schema that holds an account's journal.

    Raises:
        ConfigError: the account's name is too long for one.
    """
    if len(account) > LONGEST_ACCOUNT:
        raise ConfigError(
            f"account {account!r} has {len(account)} letters; a journal in PostgreSQL takes "
            f"{LONGEST_ACCOUNT} at most"
        )
    return f"bot4_{account}"


def connect(url: str, account: str, *, writes: bool) -> psycopg.Connection[Any]:
    """Connect to an account's schema, whether it exists or not.

    Raises:
        JournalError: the server does not answer or refuses.
    """
    options = f'{_SESSION} -c search_path="{schema_of(account)}"'
    if not writes:
        options += " -c default_transaction_read_only=on"
    try:
        return psycopg.connect(
            check_url(url),
            autocommit=True,
            connect_timeout=5,
            client_encoding="utf8",
            options=options,
            application_name=f"bot4 {platform.node()}:{os.getpid()}"[:63],
        )
    except psycopg.Error as error:
        raise JournalError(
            f"PostgreSQL at {url} cannot be reached ({_said(error)}); expected a server that "
            "lets this user in. Passwords come from PGPASSWORD or a password file"
        ) from error


class PostgresDisk:
    """A `Disk` in one schema of a PostgreSQL database; made by `open`."""

    distress = ""

    def __init__(
        self,
        where: str,
        connection: psycopg.Connection[Any],
        lock: AccountLock,
        epoch: int,
    ) -> None:
        self._where = where
        self._connection = connection
        self._lock = lock
        self._epoch = epoch
        self._prepared: dict[tuple[int, int, int], bytes] = {}

    @classmethod
    def open(cls, url: str, account: str, lock_dir: Path) -> Self:
        """Take the account on this host and on the server, check it, take the next epoch.

        Args:
            url: ``postgresql://user@host/database``.
            account: whose journal it is; its schema is made when it is not there.
            lock_dir: where the account's lock file of this host lies.

        Raises:
            JournalLocked: another runtime holds the account.
            JournalError: the server cannot be reached or would lose commits, or the journal is
                of another layout or schema version.
        """
        lock = AccountLock(lock_dir / f"{account}.lock", account)
        connection: psycopg.Connection[Any] | None = None
        try:
            connection = connect(url, account, writes=True)
            epoch = _start(connection, url, account, lock.highest_epoch())
            lock.keep_epoch(epoch)
        except BaseException as error:
            if connection is not None:
                connection.close()
            lock.close()
            if isinstance(error, psycopg.Error):
                raise JournalError(f"{url}: {_said(error)}") from error
            raise
        return cls(f"{url} ({schema_of(account)})", connection, lock, epoch)

    @property
    def epoch(self) -> int:
        """The epoch this writer took when it opened."""
        return self._epoch

    @property
    def server_process(self) -> int:
        """Process id of the backend that serves this writer."""
        return self._connection.info.backend_pid

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return last_seq(self._connection)

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`; the one before may lead."""
        return read_frames(self._connection, after_seq)

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Commit frames in one transaction and one round trip, if this epoch still stands.

        Raises:
            JournalWriteFailed: it could not be committed, or a newer runtime took over.
        """
        try:
            if len(frames) + len(keys.intents) + len(keys.trades) <= _FEW:
                self._write_few(frames, keys)
            else:
                self._write_many(frames, keys)
        except psycopg.Error as error:
            raise JournalWriteFailed(f"{self._where}: {_said(error)}") from error

    def _write_few(self, frames: Sequence[Frame], keys: Keys) -> None:
        """Write by one prepared statement, which is a transaction of its own.

        By libpq itself, since an order waits for it: psycopg's adapting of values and waiting
        in turns cost half as much again as the server's work without its flush.
        """
        server = self._connection.pgconn
        shape = len(frames), len(keys.intents), len(keys.trades)
        name = self._prepared.get(shape)
        if name is None:
            name = b"write %d %d %d" % shape
            _checked(server.prepare(name, _statement(*shape)))
            self._prepared[shape] = name
        rows = chain(frames, keys.intents, keys.trades, ((self._epoch,),))
        values = [_binary(value) for row in rows for value in row]
        _checked(server.exec_prepared(name, values, [pq.Format.BINARY] * len(values)))

    def _write_many(self, frames: Sequence[Frame], keys: Keys) -> None:
        connection = self._connection
        with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
            cursor.execute("SELECT fence(%b)", (self._epoch,))
            cursor.executemany(_NEW_FRAME, frames)
            cursor.executemany(_NEW_INTENT, keys.intents)
            cursor.executemany(_NEW_TRADE, keys.trades)

    def fact(self, key: str) -> str | None:
        """Return a fact that is kept beside the events; None when there is none."""
        row = self._connection.execute(
            "SELECT value FROM meta WHERE key = %s", (_FACT + key,)
        ).fetchone()
        return None if row is None else str(row[0])

    def keep_fact(self, key: str, value: str) -> None:
        """Commit a fact in the place of the former one, if this epoch still stands.

        Raises:
            JournalWriteFailed: it could not be committed, or a newer runtime took over.
        """
        connection = self._connection
        try:
            with connection.transaction():
                connection.execute("SELECT fence(%s)", (self._epoch,))
                connection.execute(
                    "INSERT INTO meta VALUES (%s, %s) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (_FACT + key, value),
                )
        except psycopg.Error as error:
            raise JournalWriteFailed(f"{self._where}: {_said(error)}") from error

    def release(self, seq: int) -> None:
        """Do nothing: a server's journal is kept whole, since snapshots lie on this host."""

    def tidy(self) -> None:
        """Do nothing: the server keeps its own house."""

    def close(self) -> None:
        """Close the connection, and with it the lock; may be repeated."""
        if not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.close()
            self._lock.close()


class PostgresSource:
    """A `FrameSource` over an account's schema; made by `open`."""

    def __init__(self, url: str, account: str, connection: psycopg.Connection[Any]) -> None:
        self._url = url
        self._account = account
        self._connection = connection

    @classmethod
    def open(cls, url: str, account: str) -> Self:
        """Connect for reading.

        Raises:
            JournalError: the server cannot be reached, there is no journal, or it is of another
                layout or schema version.
        """
        connection = connect(url, account, writes=False)
        try:
            _check_there(connection, url, account)
            check_version(connection, url, account)
        except psycopg.Error as error:
            connection.close()
            raise JournalError(f"{url}: {_said(error)}") from error
        except JournalError:
            connection.close()
            raise
        return cls(url, account, connection)

    @property
    def where(self) -> str:
        """URL and schema."""
        return f"{self._url} ({schema_of(self._account)})"

    def account(self) -> str:
        """Return whose journal it is."""
        return self._account

    def last_seq(self) -> int:
        """Return the sequence number of the last durable event, 0 when there is none."""
        return last_seq(self._connection)

    def read(self, after_seq: int) -> Iterator[Frame]:
        """Yield the frames that hold events after `after_seq`; the one before may lead."""
        return read_frames(self._connection, after_seq)

    def keys(self) -> Keys:
        """Return all keys that are held unique, in order."""
        sql = self._connection
        return Keys(
            sql.execute("SELECT intent_no, seq FROM intent ORDER BY seq").fetchall(),
            sql.execute("SELECT book, symbol, trade_id, seq FROM trade ORDER BY seq").fetchall(),
        )

    def check(self) -> None:
        """Do nothing: the server checks its pages itself where checksums are on."""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _start(connection: psycopg.Connection[Any], url: str, account: str, used: int = 0) -> int:
    """Take the lock, make or check the schema, then the epoch after its last and after `used`."""
    for name in ("fsync", "full_page_writes"):
        if connection.execute(f"SHOW {name}").fetchone() != ("on",):
            raise JournalError(
                f"{url} runs with {name} off, so that a crash would lose or tear events that "
                "were acknowledged; turn it on"
            )
    _take_lock(connection, url, account)
    schema = schema_of(account)
    with connection.transaction():
        known = connection.execute("SELECT to_regclass('meta')").fetchone()
        if known == (None,):
            connection.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
            )
            for text in statements("postgresql"):
                connection.execute(text)
            connection.execute(
                "INSERT INTO meta VALUES ('schema_version', %s), ('account', %s), ('epoch', '0')",
                (str(SCHEMA_VERSION), account),
            )
    check_version(connection, url, account)
    row = connection.execute(
        "UPDATE meta SET value = (greatest(value::bigint, %s) + 1)::text WHERE key = 'epoch' AND "
        "value::bigint >= (SELECT coalesce(max(epoch), 0) FROM frame WHERE first_seq = (SELECT "
        "max(first_seq) FROM frame)) RETURNING value",
        (used,),
    ).fetchone()
    if row is None:
        raise JournalCorrupt(
            f"{url} ({schema}) says that its last epoch is before that of its last frame; a "
            "client id must never be given twice. Restore it from a copy"
        )
    return int(row[0])


def _take_lock(connection: psycopg.Connection[Any], url: str, account: str) -> None:
    key = lock_key(account)
    if connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() == (True,):
        return
    row = connection.execute(
        "SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE "
        "locktype = 'advisory' AND granted AND (classid::bigint << 32) | objid::bigint = %s",
        (key,),
    ).fetchone()
    holder = "unknown" if row is None else f"{row[0]}, server process {row[1]}"
    raise JournalLocked(
        f"account {account!r} at {url} is held by another runtime ({holder}); stop it first, or "
        "use another account"
    )


def lock_key(account: str) -> int:
    """Return the key of an account's advisory lock, one for all hosts."""
    digest = hashlib.sha256(f"bot4 account {account}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _check_there(connection: psycopg.Connection[Any], url: str, account: str) -> None:
    if connection.execute("SELECT to_regclass('meta')").fetchone() == (None,):
        raise JournalMissing(
            f"there is no journal of account {account!r} at {url}; start the runtime first, or "
            "name its account"
        )


def check_version(connection: psycopg.Connection[Any], where: str, account: str) -> None:
    """Raise JournalError when a journal is of another layout, schema version or account."""
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    check_revision(None if row is None else str(row[0]), where, account)
    facts = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if facts["schema_version"] != str(SCHEMA_VERSION):
        raise JournalError(
            f"{where} is of schema version {facts['schema_version']}; this program reads version "
            f"{SCHEMA_VERSION}. Use the release that wrote it, or another account"
        )
    if facts["account"] != account:
        raise JournalError(
            f"{where} holds the journal of account {facts['account']!r}, expected {account!r}"
        )


def last_seq(connection: psycopg.Connection[Any]) -> int:
    """Return the sequence number of the last event, 0 when there is none."""
    row = connection.execute(
        "SELECT last_seq FROM frame ORDER BY first_seq DESC LIMIT 1"
    ).fetchone()
    return 0 if row is None else int(row[0])


def read_frames(connection: psycopg.Connection[Any], after_seq: int) -> Iterator[Frame]:
    """Yield frames in order, from the one that holds or precedes `after_seq` + 1, by pages."""
    try:
        row = connection.execute(
            "SELECT max(first_seq) FROM frame WHERE first_seq <= %s", (after_seq + 1,)
        ).fetchone()
        at = (row[0] if row is not None and row[0] is not None else 0) - 1
        while True:
            page = connection.execute(
                "SELECT first_seq, last_seq, epoch, kinds, body, crc FROM frame WHERE "
                "first_seq > %s ORDER BY first_seq LIMIT %s",
                (at, _PAGE),
                binary=True,
            ).fetchall()
            yield from map(Frame._make, page)
            if len(page) < _PAGE:
                return
            at = page[-1][0]
    except psycopg.Error as error:
        raise JournalCorrupt(
            f"the journal cannot be read on after {after_seq}: {_said(error)}"
        ) from error


def _statement(frames: int, intents: int, trades: int) -> bytes:
    """Return one statement that writes so many rows, if the epoch that comes last still stands."""
    numbers = count(1)
    tables = (
        ("frame", ("bigint", "bigint", "bigint", "text", "bytea", "bigint"), frames),
        ("intent", ("bigint", "bigint"), intents),
        ("trade", ("text", "text", "text", "bigint"), trades),
    )
    inserts = []
    for table, types, rows in tables:
        if rows:
            values = ", ".join(
                f"({', '.join(f'${next(numbers)}::{kind}' for kind in types)})"
                for _ in range(rows)
            )
            inserts.append(f"new_{table} AS (INSERT INTO {table} VALUES {values})")  # noqa: S608  our own names
    return f"WITH {', '.join(inserts)} SELECT fence(${next(numbers)})".encode()


def _binary(value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _BIGINT.pack(value)
    return value.encode() if isinstance(value, str) else value


def _checked(result: pq.abc.PGresult) -> None:
    """Raise psycopg.Error when the server refused a statement."""
    if result.status not in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK}:
        raise psycopg.errors.error_from_result(result)


def _said(error: psycopg.Error) -> str:
    """Return the server's or driver's words, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
