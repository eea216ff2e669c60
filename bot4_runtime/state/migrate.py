"""Brings a journal of an older layout up to this program's, by Alembic.

The runtime itself never imports this: its journals use raw drivers (reliability.md, section 2).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bot4_runtime.domain.errors import ConfigError, JournalError, JournalMissing
from bot4_runtime.state.account_lock import AccountLock
from bot4_runtime.state.migrations import HEAD


def migrate(where: Path | str, account: str, lock_dir: Path, revision: str = HEAD) -> str:
    """Upgrade a journal while nobody trades its account; return the revision it had.

    Args:
        where: its file, or the URL of a PostgreSQL database.
        account: whose journal it is.
        lock_dir: where the account's lock file lies.
        revision: where to stop; tests begin from older ones.

    Raises:
        ConfigError: the packages for it are not installed.
        JournalLocked: a runtime holds the account.
        JournalError: there is no journal, or a step failed; it is then as it was before the step.
    """
    try:
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise ConfigError(
            f"migrations need {error.name}; install Bot4 with its extra: pip install "
            "'bot4[postgres]'"
        ) from None
    lock = AccountLock(lock_dir / f"{account}.lock", account)
    try:
        with _connected(where, account) as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            config = Config()
            config.set_main_option("script_location", "bot4_runtime.state:migrations")
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", error)).split())
        raise JournalError(f"{where} could not be upgraded: {said}") from error
    finally:
        lock.close()
    return found or "empty"


@contextmanager
def _connected(where: Path | str, account: str) -> Iterator[Any]:
    """Connect SQLAlchemy through our own connections, schema and transactions included."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    if isinstance(where, Path):
        if not where.is_file():
            raise JournalMissing(
                f"there is no journal at {where}; `bot4-runtime start` begins one"
            )
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(where, isolation_level=None),
            poolclass=StaticPool,
        )

        @event.listens_for(engine, "begin")
        def _(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver's own begins too late

    else:
        from bot4_runtime.state.postgres import connect, schema_of

        def create() -> Any:
            connection = connect(where, account, writes=True)
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema_of(account)}"')
            connection.autocommit = False
            return connection

        engine = create_engine("postgresql+psycopg://", creator=create, poolclass=StaticPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
