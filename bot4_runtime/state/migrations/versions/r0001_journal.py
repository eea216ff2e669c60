"""Frames of events, and the keys that must be unique for ever: intents and trades."""

from typing import Final

revision: Final = "0001"
down_revision: Final = None

_TABLES: Final = (
    """
    CREATE TABLE frame (
        first_seq {integer} PRIMARY KEY,
        last_seq {integer} NOT NULL,
        epoch {integer} NOT NULL,
        kinds TEXT NOT NULL,
        body {bytes} NOT NULL,
        crc {integer} NOT NULL
    )
    """,
    "CREATE TABLE intent (intent_no {integer} PRIMARY KEY, seq {integer} NOT NULL)",
    """
    CREATE TABLE trade (
        book TEXT NOT NULL,
        symbol TEXT NOT NULL,
        trade_id TEXT NOT NULL,
        seq {integer} NOT NULL,
        PRIMARY KEY (book, symbol, trade_id)
    ){without_rowid}
    """,
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value {any} NOT NULL){without_rowid}",
)
_FENCE: Final = """
    CREATE FUNCTION fence(mine bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM 1 FROM meta WHERE key = 'epoch' AND value = mine::text FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a newer runtime (epoch %) took this journal over from epoch %; '
                'this one must stop', (SELECT value FROM meta WHERE key = 'epoch'), mine;
        END IF;
    END $$
"""

STATEMENTS: Final = {
    "sqlite": [
        text.format(integer="INTEGER", bytes="BLOB", any="", without_rowid=" WITHOUT ROWID")
        for text in _TABLES
    ],
    "postgresql": [
        *(
            text.format(integer="bigint", bytes="bytea", any="text", without_rowid="")
            for text in _TABLES
        ),
        _FENCE,
    ],
}


def upgrade() -> None:
    """Run the statements of the connected dialect."""
    from alembic import op

    for text in STATEMENTS[op.get_bind().dialect.name]:
        op.execute(text)
