"""Series for dashboards: candles, equity, regimes. PostgreSQL only; `state.series` fills them."""

from typing import Final

revision: Final = "0002"
down_revision: Final = "0001"

STATEMENTS: Final[dict[str, list[str]]] = {
    "sqlite": [],
    "postgresql": [
        """
        CREATE TABLE candle (
            ts timestamptz NOT NULL,
            symbol text NOT NULL,
            "interval" text NOT NULL,
            open double precision NOT NULL,
            high double precision NOT NULL,
            low double precision NOT NULL,
            close double precision NOT NULL,
            volume double precision NOT NULL,
            PRIMARY KEY (symbol, "interval", ts)
        )
        """,
        """
        CREATE TABLE equity (
            ts timestamptz NOT NULL,
            book text NOT NULL,
            equity numeric NOT NULL,
            cash numeric NOT NULL,
            exposure numeric NOT NULL,
            drawdown double precision NOT NULL,
            PRIMARY KEY (book, ts)
        )
        """,
        """
        CREATE TABLE regime (
            ts timestamptz NOT NULL,
            symbol text NOT NULL,
            "interval" text NOT NULL,
            regime text NOT NULL,
            confidence double precision NOT NULL,
            PRIMARY KEY (symbol, "interval", ts)
        )
        """,
    ],
}


def upgrade() -> None:
    """Run the statements of the connected dialect."""
    from alembic import op

    for text in STATEMENTS[op.get_bind().dialect.name]:
        op.execute(text)
