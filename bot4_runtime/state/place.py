"""Where an account's journal lies: a file in its folder, or the database a note there names.

The note makes every reader find the journal, and keeps an account from being continued in
another store than it began in.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.unreadable import UNREADABLE

JOURNAL: Final = "journal.sqlite"
NOTE: Final = "journal.json"


class Elsewhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A journal in PostgreSQL; the URL carries no password."""

    url: str
    account: str


def read_note(folder: Path) -> Elsewhere | None:
    """Return what the folder's note says; None when there is none.

    Raises:
        JournalError: it cannot be read.
    """
    note = folder / NOTE
    try:
        return msgspec.json.decode(note.read_bytes(), type=Elsewhere)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise JournalError(f"{note} does not say where the journal lies: {error}") from error


def write_note(folder: Path, elsewhere: Elsewhere) -> None:
    """Leave a note, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tmp = folder / f"{NOTE}.tmp"
    with tmp.open("wb") as file:
        file.write(msgspec.json.encode(elsewhere) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(folder / NOTE)
    sync_folder(folder)


def has_journal(folder: Path) -> bool:
    """Tell whether an account's folder has a journal, here or elsewhere."""
    return (folder / JOURNAL).is_file() or (folder / NOTE).is_file()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
