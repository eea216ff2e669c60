"""State: updates, durable intents, the journal's CPU, snapshots, recovery, starts.

What the disk and the bare databases need for one flushed commit stands beside them as floors,
with a log as long and a statement as prepared as the journal's own; the same machine a minute
later may need half or twice that. A durable intent is the way of an order: fold, hand to the
journal's thread, commit, wake up. How long that takes without a disk is a floor too. A start is
that of a real process, `bot4-runtime start`, from its spawning to the first candle that lies on
the disk: imports, settings, recovery, reconciliation with the paper venue, the source and the
first decision.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import msgspec

from benchmarks.harness import ROOT, Result, of_rounds
from bot4_runtime.domain.candle import Candle, Origin
from bot4_runtime.domain.events import (
    SCHEMA_VERSION,
    CandleClosed,
    JournaledEvent,
    OrderAccepted,
    OrderFilled,
    OrderIntended,
    SessionStarted,
)
from bot4_runtime.domain.order import (
    Book,
    Fill,
    Liquidity,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.state.disk import Disk, MemoryDisk
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.sqlite import LOG_BYTES, SqliteDisk
from bot4_runtime.state.store import StateStore
from bot4_runtime.state.wal import fill_log

FLUSH = "fdatasync of 4 KiB, preallocated"
BARE_SQLITE = "SQLite, bare flushed commit"
BARE_POSTGRESQL = "PostgreSQL, bare flushed commit"
TITLE = "State: journal, snapshots, recovery"
MANY = 10_000
TAIL = 20_000
COMMITS = 400
INTENT = {"goal": 300_000, "specified": 1_000_000}
STARTS = 5
LIFE_S = 2.0
"""How long the life before the first kill trades."""
PATIENCE_S = 60.0
CANDLES = 100_000
RATE = 5_000
SERVER = f"postgresql://{os.environ.get('PGUSER', 'root')}@127.0.0.1/test"


def run() -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="bot4-bench-") as name:
        folder = Path(name)
        server = list(_server(folder))
        return [
            _fdatasync(folder),
            _bare_sqlite(folder),
            *(row for row in server if row.kind == "floor"),
            _no_disk(),
            _durable_intent("SQLite", _sqlite(folder / "intent"), BARE_SQLITE),
            *(row for row in server if row.kind == "ours"),
            *_updates(folder),
            *_journal_cpu(folder),
            *_snapshots(folder),
            *_starts(folder / "home"),
        ]


# ------------------------------------------------------------------------- floors
def _fdatasync(folder: Path) -> Result:
    file = os.open(folder / "bare", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(file, 0, COMMITS * 4_096)
    os.fsync(file)

    def commit(number: int) -> None:
        os.pwrite(file, bytes(4_096), number * 4_096)
        os.fdatasync(file)

    row = of_rounds(FLUSH, _timed(commit), kind="floor")
    os.close(file)
    return row


def _bare_sqlite(folder: Path) -> Result:
    path = folder / "bare.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        fill_log(path, LOG_BYTES)
        body = bytes(400)
        rounds = _timed(lambda _: sql.execute("INSERT INTO t (b) VALUES (?)", (body,)))
    return of_rounds(BARE_SQLITE, rounds, kind="floor")


def _no_disk() -> Result:
    """Fold, encode, hand to the journal's thread and back: an intent's way but for the disk."""
    with _started(MemoryDisk()) as store:
        return of_rounds("intent, no disk", _timed(_order(store)), kind="floor")


def _server(folder: Path) -> Iterator[Result]:
    """Rows of the PostgreSQL server on this machine, not measured where there is none."""
    try:
        import psycopg

        from bot4_runtime.state.postgres import PostgresDisk

        admin = psycopg.connect(SERVER, autocommit=True, connect_timeout=2)
    except Exception as error:  # noqa: BLE001  whatever is missing, the other rows are told
        why = f"not measured: {error}".splitlines()[0]
        yield of_rounds(BARE_POSTGRESQL, [], kind="floor", note=why)
        yield of_rounds(
            "durable intent, PostgreSQL", [], floor=BARE_POSTGRESQL, note=why, **INTENT
        )
        return
    account = f"bench-{os.getpid()}"
    with admin:
        admin.execute(f'CREATE SCHEMA "bot4_{account}"')
        try:
            admin.execute(f'CREATE TABLE "bot4_{account}".bare (a bigserial, b bytea)')
            text = f'INSERT INTO "bot4_{account}".bare (b) VALUES ($1)'
            server, body = admin.pgconn, [bytes(400)]
            server.prepare(b"bare", text.encode())
            rounds = _timed(lambda _: server.exec_prepared(b"bare", body, [1]))
            yield of_rounds(BARE_POSTGRESQL, rounds, kind="floor")
            disk = PostgresDisk.open(SERVER, account, folder / "locks")
            yield _durable_intent("PostgreSQL", disk, BARE_POSTGRESQL)
        finally:
            with suppress(psycopg.Error):
                admin.execute(f'DROP SCHEMA "bot4_{account}" CASCADE')


# --------------------------------------------------------------------------- rows
def _durable_intent(name: str, disk: Disk, floor: str) -> Result:
    with _started(disk) as store:
        return of_rounds(f"durable intent, {name}", _timed(_order(store)), floor=floor, **INTENT)


def _order(store: StateStore) -> Callable[[int], None]:
    def order(number: int) -> None:
        store.wait_durable(store.append([_intended(number + 1, "BTCUSDT")]))

    return order


def _updates(folder: Path) -> list[Result]:
    """Fold and hand over single candles at 5,000 a second, durability running."""
    took: list[int] = []
    with _started(_sqlite(folder / "updates")) as store:
        clock = time.perf_counter_ns
        begin = clock()
        for number in range(4 * RATE):
            due = begin + number * 1_000_000_000 // RATE
            while clock() < due:
                time.sleep(0)
            event = _candle("BTCUSDT", number)
            before = clock()
            store.append([event])
            took.append(clock() - before)
    slices = [sorted(took[at : at + RATE]) for at in range(0, len(took), RATE)]
    return [
        of_rounds("update at 5,000/s, journal on", took, goal=5_000, specified=1_000_000),
        of_rounds(
            "update at 5,000/s, 99th percentile",
            [part[int(0.99 * len(part))] for part in slices],
            goal=100_000,
            note="of each second",
        ),
    ]


def _journal_cpu(folder: Path) -> list[Result]:
    """CPU of both threads for each candle handed over alone and committed in groups."""
    events = [[_candle("BTCUSDT", number)] for number in range(CANDLES)]
    rows = []
    for name, durable in (("flushed", True), ("replay", False)):
        rounds = []
        for again in range(5):
            disk = _sqlite(folder / f"cpu-{name}-{again}", durable=durable)
            journal = Journal(disk)
            before = time.process_time_ns()
            for batch in events:
                journal.append(batch)
            journal.wait_durable(journal.last_seq)
            rounds.append((time.process_time_ns() - before) / CANDLES)
            journal.close()
        rows.append(
            of_rounds(f"journal, CPU a candle, {name}", rounds, goal=1_500, note="both threads")
        )
    return rows


def _snapshots(folder: Path) -> list[Result]:
    """A snapshot of 10,000 positions and 10,000 orders; recovery with 20,000 events after it."""
    path, snapshots = folder / "many", folder / "snapshots"
    pauses, begun, whole = [], [], []
    with _started(_sqlite(path), snapshots) as store:
        _fill(store)
        store.create_snapshot()
        for number in range(7):
            store.wait_durable(store.append([_candle("ZZZUSDT", number)]))
            seen = _Stalls()
            before = time.perf_counter_ns()
            with seen:
                store._begin_snapshot(snapshots)  # noqa: SLF001  what `tick` does when it is due
                begun.append((time.perf_counter_ns() - before) / 1e6)
                seen.watch(store)
            whole.append((time.perf_counter_ns() - before) / 1e6)
            pauses.append(max(begun[-1], seen.longest_ms))
        events = [_candle("ZZZUSDT", 100 + number) for number in range(TAIL)]
        for at in range(0, TAIL, 10):
            store.append(events[at : at + 10])
        expected = store.state.state_hash()
    recovered = []
    for _ in range(5):
        with _started(_sqlite(path), snapshots, recover=False) as store:
            report = store.recover()
            recovered.append(report.seconds * 1e3)
            assert report.events_replayed == TAIL, report
            assert store.state.state_hash() == expected
    size = "10,000 positions + 10,000 orders"
    return [
        of_rounds(f"snapshot durable, {size}", whole, unit="ms", specified=100, goal=50),
        of_rounds("  longest pause of the loop meanwhile", pauses, unit="ms", goal=5),
        of_rounds("  of it, taking the picture", begun, unit="ms"),
        of_rounds(
            "recovery: that snapshot + 20,000 events", recovered, unit="ms",
            specified=5_000, goal=500, note="candles of a symbol not held",
        ),
    ]  # fmt: skip


class _Stalls:
    """How long a loop that wants to do a little every 0.2 ms is kept from it."""

    longest_ms = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def watch(self, store: StateStore) -> None:
        done = store._snapshot or threading.Event()  # noqa: SLF001  set when it lies on disk
        last = time.perf_counter_ns()
        while not done.is_set():
            time.sleep(0.0002)
            now = time.perf_counter_ns()
            self.longest_ms = max(self.longest_ms, (now - last) / 1e6 - 0.2)
            last = now


def _starts(home: Path) -> list[Result]:
    """Start on a new account, kill it with all it holds, and start it again and again."""
    fresh = [_start(home / str(number), 0.0) for number in range(STARTS)]
    again = [_start(home / "0", LIFE_S if number == 0 else 0.0) for number in range(STARTS + 1)]
    goal = {"unit": "ms", "goal": 2_000, "note": "spawn to the first candle on disk; the drill"}
    return [
        of_rounds("process start to trading, new account", fresh, **goal),
        of_rounds("process start to trading, after kill -9", again[1:], **goal),
    ]


def _start(home: Path, life_s: float) -> float:
    """Return the milliseconds from the spawning of a runtime to its first candle on disk.

    It lives on for `life_s` and is killed.
    """
    program = "from bot4_runtime.cli import main; main()"
    words = ["start", "--source", "simulated", "--strategy", "drill", "--speed", "max", "--json"]
    with _Watch(home / "state" / "paper" / "journal.sqlite") as watch:
        before = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, cwd=ROOT, env=os.environ | {"BOT4_HOME": str(home)},
        ) as process:  # fmt: skip
            try:
                while not watch.candle():
                    if process.poll() is not None or time.perf_counter() - before > PATIENCE_S:
                        process.kill()
                        said = process.communicate()[1].decode()
                        raise RuntimeError(f"no candle was journaled: {said}")
                    time.sleep(0.01)
                took = time.perf_counter() - before
                time.sleep(life_s)
            finally:
                process.kill()
    return took * 1e3


class _Watch:
    """Whether a journal has a candle that was not there when the watch began."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._sql: sqlite3.Connection | None = None
        self._seen = 0

    def __enter__(self) -> Self:
        if self._journal.exists():
            self._seen = self._ask("SELECT max(last_seq) FROM frame") or 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._sql is not None:
            self._sql.close()

    def candle(self) -> bool:
        text = f"FROM frame WHERE first_seq > {self._seen} AND kinds LIKE '%CandleClosed%' LIMIT 1"
        try:
            return self._ask(f"SELECT 1 {text}") is not None
        except sqlite3.OperationalError:  # not there yet, or just being made
            return False

    def _ask(self, text: str) -> int | None:
        if self._sql is None:
            self._sql = sqlite3.connect(f"file:{self._journal}?mode=ro", uri=True)
        found = self._sql.execute(text).fetchone()
        return found[0] if found else None


# -------------------------------------------------------------------------- parts
def _timed(call: Any) -> list[float]:
    rounds = []
    for number in range(COMMITS):
        before = time.perf_counter_ns()
        call(number)
        rounds.append(float(time.perf_counter_ns() - before))
    return rounds


def _sqlite(folder: Path, *, durable: bool = True) -> SqliteDisk:
    """Open a journal as the runtime does."""
    log = LOG_BYTES if durable else 0
    return SqliteDisk.open(folder / "journal.sqlite", "bench", durable=durable, log_bytes=log)


@contextmanager
def _started(
    disk: Disk, snapshots: Path | None = None, *, recover: bool = True
) -> Iterator[StateStore]:
    store = StateStore(Journal(disk), snapshots)
    try:
        if recover and not store.recover().last_seq:
            store.append([_session()])
        yield store
    finally:
        store.close()


def _fill(store: StateStore) -> None:
    """Hold 10,000 positions and as many live orders.

    The positions are put into the book directly: booking a fill marks the whole book, and
    10,000 fills of 10,000 symbols would take as many seconds as the benchmark.
    """
    store.append([_intended(1, "S0USDT"), _filled(1, "S0USDT")])
    store.append([_intended(number, f"S{number}USDT") for number in range(2, MANY + 2)])
    store.append(
        [
            OrderAccepted(ts_event_ns=0, intent_no=number, venue_order_id=str(number))
            for number in range(2, MANY + 2)
        ]
    )
    book = store.state.books[Book.VALIDATED]
    for number in range(1, MANY):
        symbol = f"S{number}USDT"
        book.positions[symbol] = msgspec.structs.replace(book.positions["S0USDT"], symbol=symbol)
        book.trips[symbol] = msgspec.structs.replace(book.trips["S0USDT"])
        book.values[symbol] = book.values["S0USDT"]
        store.state.marks[symbol] = 100.25
    store.wait_durable(store.state.seq)


def _session() -> JournaledEvent:
    return SessionStarted(
        ts_event_ns=0, epoch=1, mode="replay", source="bench", origin=Origin.SIMULATED,
        strategy="bench", config_hash="0" * 64, schema_version=SCHEMA_VERSION, warm_from_ms=0,
        start_ms=0, quote="USDT", initial_cash=Decimal(1_000_000), books=(Book.VALIDATED,),
    )  # fmt: skip


def _candle(symbol: str, number: int) -> CandleClosed:
    close = 50_000.0 + number * 0.37
    return CandleClosed(
        ts_event_ns=(number + 1) * 60_000_000_000,
        candle=Candle(
            symbol=symbol, interval="1m", open_time_ms=number * 60_000, open=close - 1.5,
            high=close + 2.25, low=close - 3.1, close=close, volume=12.3456,
        ),
    )  # fmt: skip


def _intended(number: int, symbol: str) -> OrderIntended:
    return OrderIntended(
        ts_event_ns=0,
        client_id=f"b4-1-{number}",
        payload_hash="0" * 64,
        intent=OrderIntent(
            intent_no=number, book=Book.VALIDATED, purpose=Purpose.ENTRY, symbol=symbol,
            side=Side.BUY, order_type=OrderType.LIMIT, quantity=Decimal("1.500"),
            price=Decimal("100.25"), stop_price=None, time_in_force=TimeInForce.GTC,
            reduce_only=False, reference_price=Decimal("100.25"), stop_loss=Decimal("95.5"),
            expires_after=3, signal_id=f"bench:{symbol}:{number}", rule_id="bench", ts_ns=0,
        ),
    )  # fmt: skip


def _filled(number: int, symbol: str) -> OrderFilled:
    return OrderFilled(
        ts_event_ns=0,
        fill=Fill(
            trade_id=f"t{number}", intent_no=number, book=Book.VALIDATED, symbol=symbol,
            side=Side.BUY, price=Decimal("100.25"), quantity=Decimal("1.5"), fee=Decimal("0.15"),
            fee_asset="USDT", liquidity=Liquidity.TAKER, ts_event_ns=0,
        ),
    )  # fmt: skip
