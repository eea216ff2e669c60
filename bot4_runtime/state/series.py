"""Candles, equity and regimes as tables in PostgreSQL, for dashboards; hypertables if they can be.

A projection off the order path: what the server does not take in time is dropped, oldest first,
and counted. Everything here can be rebuilt from the journal. Where the TimescaleDB extension is
present the tables become hypertables; where it is not they stay plain tables, and nothing else
changes.
"""

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import structlog

from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.events import CandleClosed, RegimeNamed
from bot4_runtime.state.postgres import connect
from bot4_runtime.state.trading_state import TradingState

CAPACITY: Final = 10_000
"""Rows that may wait for the server."""

TABLES: Final = ("candle", "equity", "regime")
HYPERTABLE: Final = (
    "SELECT create_hypertable(%s::regclass, 'ts', chunk_time_interval => interval '30 days', "
    "if_not_exists => TRUE, migrate_data => TRUE)"
)
_INSERT: Final = {
    "candle": "INSERT INTO candle VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
    "equity": "INSERT INTO equity VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
    "regime": "INSERT INTO regime VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
}
_PAUSE_S: Final = 1.0
_AT_ONCE: Final = 500


class SeriesWriter:
    """Writes the series of an account on a thread of its own, from `start` to `stop`.

    Args:
        url: of the database that holds the account's journal.
        account: whose schema is written.
        state: what equity is read from, on the thread that publishes events.
        pause_s: how long rows gather before they are written.
    """

    def __init__(
        self,
        url: str,
        account: str,
        state: Callable[[], TradingState],
        *,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._url = url
        self._account = account
        self._state = state
        self._pause_s = pause_s
        self._rows: deque[tuple[str, tuple[object, ...]]] = deque(maxlen=CAPACITY)
        self._closing = threading.Event()
        self._log = structlog.get_logger("series")
        self.dropped = 0
        self.written = 0
        self._thread = threading.Thread(target=self._run, name="series", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def offer(self, event: object) -> None:
        """Take note of an event; never waits, never raises for the server."""
        if isinstance(event, CandleClosed):
            candle = event.candle
            self._put(
                "candle",
                (
                    _time(candle.open_time_ms * 1_000_000), candle.symbol, candle.interval,
                    candle.open, candle.high, candle.low, candle.close, candle.volume,
                ),
            )  # fmt: skip
            for name, book in self._state().books.items():
                metrics = book.metrics
                self._put(
                    "equity",
                    (
                        _time(event.ts_event_ns), name.value, metrics.equity, book.cash,
                        metrics.exposure, metrics.drawdown,
                    ),
                )  # fmt: skip
        elif isinstance(event, RegimeNamed):
            seen = event.estimate
            self._put(
                "regime",
                (
                    _time(seen.open_time_ms * 1_000_000), seen.symbol, seen.interval,
                    seen.regime.label, seen.confidence,
                ),
            )  # fmt: skip

    def counters(self) -> dict[str, int]:
        """Return rows written, and rows dropped since the server did not take them in time."""
        return {"written": self.written, "dropped": self.dropped}

    def stop(self, timeout_s: float = 5.0) -> None:
        """Write what waits, for at most `timeout_s`; the rest is dropped."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _put(self, table: str, row: tuple[object, ...]) -> None:
        if len(self._rows) == CAPACITY:
            self.dropped += 1
        self._rows.append((table, row))

    # -------------------------------------------------------------- series thread
    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        told = False
        while True:
            ending = self._closing.wait(self._pause_s)
            try:
                if connection is None:
                    connection = connect(self._url, self._account, writes=True)
                    connection.execute("SET synchronous_commit = off")
                    make_hypertables(connection)
                self._write(connection)
                told = False
            except (psycopg.Error, JournalError) as error:
                if not told:
                    self._log.warning("series are not written", why=str(error))
                told = True
                if connection is not None:
                    connection.close()
                connection = None
            if ending:
                break
        if connection is not None:
            connection.close()

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        """Write what waits; what fails half way is offered again, and conflicts do nothing."""
        while self._rows:
            some = [self._rows.popleft() for _ in range(min(len(self._rows), _AT_ONCE))]
            try:
                with connection.pipeline(), connection.cursor() as cursor:
                    for table in TABLES:
                        rows = [row for name, row in some if name == table]
                        if rows:
                            cursor.executemany(_INSERT[table], rows)
            except psycopg.Error:
                room = CAPACITY - len(self._rows)
                self.dropped += max(len(some) - room, 0)
                self._rows.extendleft(reversed(some[-room:] if room else []))
                raise
            self.written += len(some)


def make_hypertables(connection: psycopg.Connection[Any]) -> bool:
    """Turn the tables into hypertables where TimescaleDB is; return whether it is."""
    found = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'")
    if found.fetchone() is None:
        return False
    for table in TABLES:
        connection.execute(HYPERTABLE, (table,))
    return True


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC)
