"""Where an account is kept: its journal, opened for writing, and the series beside it."""

from pathlib import Path
from typing import Final

from bot4_runtime.app.run import Service
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import AnyEvent
from bot4_runtime.event_bus import EventBus
from bot4_runtime.settings import Settings
from bot4_runtime.state.disk import Disk
from bot4_runtime.state.journal import DISPOSABLE_LINGER_S, LINGER_S, Journal
from bot4_runtime.state.place import JOURNAL, Elsewhere, read_note, write_note
from bot4_runtime.state.sqlite import LOG_BYTES, SqliteDisk
from bot4_runtime.state.store import StateStore
from bot4_runtime.telemetry import Metrics

SERVER_PATIENCE_S: Final = 0.5
"""How long an order may wait for a journal on a server; then it is never sent."""


def open_store(settings: Settings, mode: str, folder: Path) -> StateStore:
    """Open the journal of an account, or of a replay, for writing.

    A replay's journal is thrown away with its run, so the system may write it when it likes.

    Raises:
        ConfigError: the account was begun in another store, or a package is missing.
        JournalError: it is held by another runtime, damaged, or cannot be reached.
    """
    account, chosen = settings.runtime.account, settings.state
    begun = read_note(folder)
    if mode == "replay" or chosen.journal == "sqlite":
        if begun is not None:
            raise ConfigError(
                f"the journal of account {account!r} is at {begun.url}; set state.journal to "
                "that, or name another account with --account"
            )
        durable = mode != "replay"
        disk: Disk = SqliteDisk.open(
            folder / JOURNAL,
            account,
            settings.home / "locks" if durable else folder,
            durable=durable,
            archives=durable and chosen.history == "archive",
            reserve_bytes=chosen.reserve_mb << 20 if durable else 0,
            log_bytes=LOG_BYTES if durable else 0,
        )
        journal = Journal(disk, linger_s=LINGER_S if durable else DISPOSABLE_LINGER_S)
        return StateStore(journal, folder / "snapshots", disposable=not durable)
    if (folder / JOURNAL).exists():
        raise ConfigError(
            f"the journal of account {account!r} is the file {folder / JOURNAL}; set "
            "state.journal to 'sqlite', or name another account with --account"
        )
    try:
        from bot4_runtime.state.postgres import PostgresDisk
    except ImportError as error:
        raise ConfigError(
            f"a journal in PostgreSQL needs {error.name}; install Bot4 with its extra: pip "
            "install 'bot4[postgres]'"
        ) from None
    disk = PostgresDisk.open(chosen.journal, account, settings.home / "locks")
    write_note(folder, Elsewhere(url=chosen.journal, account=account))
    return StateStore(Journal(disk), folder / "snapshots", patience_s=SERVER_PATIENCE_S)


def open_series(
    settings: Settings, store: StateStore, bus: EventBus, metrics: Metrics
) -> Service | None:
    """Return what writes series to the journal's database; None when that is off.

    Raises:
        ConfigError: it is on, and the journal is no database.
    """
    if not settings.state.series:
        return None
    if settings.state.journal == "sqlite":
        raise ConfigError(
            "state.series writes tables into the database of the journal; set state.journal to a "
            "PostgreSQL URL, or state.series to false"
        )
    from bot4_runtime.state.series import SeriesWriter

    series = SeriesWriter(settings.state.journal, settings.runtime.account, lambda: store.state)
    bus.subscribe(AnyEvent, series.offer)
    metrics.watch("series", series.counters)
    return series
