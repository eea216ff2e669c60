"""The layout of journals by revision, and the way from an older one to the newest.

A new journal is made by the raw driver from the statements of all revisions; an older one is
brought up by Alembic, which only ``bot4-runtime migrate`` imports. What an event looks like
inside a frame is another matter: `domain.events.SCHEMA_VERSION`.
"""

from typing import Final, Literal

from bot4_runtime.domain.errors import JournalError
from bot4_runtime.state.migrations.versions import r0001_journal, r0002_series

Dialect = Literal["sqlite", "postgresql"]

REVISIONS: Final = (r0001_journal, r0002_series)
HEAD: Final = REVISIONS[-1].revision
"""The revision this program reads and writes."""


def statements(dialect: Dialect) -> list[str]:
    """Return what makes an empty database a journal of the newest layout, stamp included."""
    made = [text for revision in REVISIONS for text in revision.STATEMENTS[dialect]]
    return [
        *made,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
        f"INSERT INTO alembic_version VALUES ('{HEAD}')",  # noqa: S608  our own constant
    ]


def check_revision(found: str | None, where: str, account: str) -> None:
    """Raise JournalError, with the remedy, when a journal's layout is not the newest."""
    if found == HEAD:
        return
    if found in {revision.revision for revision in REVISIONS}:
        raise JournalError(
            f"{where} has layout {found}, this program reads {HEAD}; copy it, then run "
            f"`bot4-runtime migrate --account {account}`"
        )
    raise JournalError(
        f"{where} has layout {found}, which this program does not know (it reads {HEAD}); use "
        "the release that wrote it"
    )
