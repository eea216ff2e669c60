"""M9: two runtimes on one account: exactly one trades, and one that was passed over sends nothing.

Races: two processes with data folders of their own and one lock folder start together; both
would place an order, and the venue must hold one a race. Takeovers: a leader that trades is
stopped (SIGSTOP); a successor of another host (another lock folder, the same journal) takes
the account, waits out the lease, trades; the old leader wakes up (SIGCONT) wherever it was.
No order of the old epoch may reach the venue after the successor's wait, no event of it may
enter the journal, and the old leader must end by itself.
"""

import logging
import os
import random
import select
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from kill_alone import Progress, run_alone, speak
from kill_venue import CASH, KEY, SECRET, Door, VenueProcess, die_with_parent

from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.client_id import client_id, parse_client_id
from bot4_runtime.domain.errors import JournalLocked, JournalWriteFailed
from bot4_runtime.domain.events import SCHEMA_VERSION, OrderClosed, OrderIntended, SessionStarted
from bot4_runtime.domain.order import (
    Book,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.exchange.lease import TTL_MS, Lease
from bot4_runtime.exchange.unknown import RECV_WINDOW_MS
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

TITLE: Final = "M9 two runtimes on one account"
GOALS: Final = {
    "races": (">=", 1_000),
    "takeovers": (">=", 200),
    "two_traders": ("==", 0),
    "stale_orders": ("==", 0),
}
RACES, TAKEOVERS = 1_000, 200
SAMPLE_RACES, SAMPLE_TAKEOVERS = 20, 5
SHORT: Final = (40, 60)
"""Lease and receive window of the takeovers, ms: short, so that many fit into a minute."""
FENCED: Final = 3
"""Exit code of a leader whose commit was refused."""
SYMBOL: Final = "BTCUSDT"


def run(full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Race and take over; AssertionError when two traded or a stale order arrived."""
    return run_alone(Path(__file__), full, jobs, progress)


def work(full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Do what `run` does in this process, which must have no threads."""
    races, takeovers = (RACES, TAKEOVERS) if full else (SAMPLE_RACES, SAMPLE_TAKEOVERS)
    assert threading.active_count() == 1, "what is forked must have no threads"
    began = time.perf_counter()
    with arena() as ground:
        for number in range(races):
            race(ground, number)
            progress((number + 1) / races * 0.5, f"{number + 1} races")
        raced_s = time.perf_counter() - began
        rng, stops_ms, unsent = random.Random(9), [], 0
        for number in range(takeovers):
            taken = takeover(ground, number, rng)
            stops_ms.append(taken.stopped_ms)
            unsent += taken.unsent
            progress(0.5 + (number + 1) / takeovers * 0.5, f"{number + 1} takeovers")
        late = refused_as_late(ground.folder / "venue.jsonl")
    return {
        "races": races,
        "races_s": round(raced_s, 1),
        "takeovers": takeovers,
        "takeovers_s": round(time.perf_counter() - began - raced_s, 1),
        "two_traders": 0,
        "stale_orders": 0,
        "stopped_ms_median": round(sorted(stops_ms)[len(stops_ms) // 2]),
        "stopped_before_sending": unsent,
        "refused_as_too_old": late,
    }


@dataclass
class Ground:
    """Where it takes place: a venue on the machine's clock, and a folder."""

    folder: Path
    port: int
    door: Door
    last_order_id: int = 0
    children: list["Child"] = field(default_factory=list)

    def fork(self, work: Callable[[Callable[[bytes], object]], None]) -> "Child":
        child = Child(work)
        self.children.append(child)
        return child


@contextmanager
def arena() -> Iterator[Ground]:
    end_ms = SIMULATED_START_MS + 3_600_000
    series = [SimulatedMarket(1).series(SYMBOL, "1h", SIMULATED_START_MS, end_ms)]
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="bot4-race-", dir=memory if memory.is_dir() else None))
    venue = VenueProcess(series, folder / "venue.jsonl", SIMULATED_START_MS, live=True)
    door = Door(venue.admin_port)
    ground = Ground(folder, venue.port, door)
    try:
        yield ground
    finally:
        for child in ground.children:
            child.end()
        door.close()
        venue.close()
    shutil.rmtree(folder)


# -------------------------------------------------------------------------- a trader
class Trader:
    """The least that trades: store, gate, lease and client, one order at a time.

    Args:
        lock_dir: that of its host.
        lease_ms: how long a commit speaks for the account, and the receive window.
    """

    def __init__(
        self,
        ground: Ground,
        journal: Path,
        lock_dir: Path,
        lease_ms: tuple[int, int] = (TTL_MS, RECV_WINDOW_MS),
    ) -> None:
        ttl_ms, window_ms = lease_ms
        self._lease = Lease(ttl_ms=ttl_ms, window_ms=window_ms)
        self._store = StateStore(Journal(SqliteDisk.open(journal, "race", lock_dir)), None)
        self._store.recover()
        self._venue = BinanceSpot(
            f"http://127.0.0.1:{ground.port}",
            None,
            Signer(Secret(KEY), Secret(SECRET)),
            LiveClock(),
            window_ms=window_ms,
            may_send=self._lease.holds,
        )
        self._gate = Gate(
            self._venue, GateLimits(1_000_000, Decimal(10**9), 1.0), self._store.epoch
        )

    def begin(self) -> None:
        self._gate.remember(self._store.state.orders.values())
        self._venue.start()
        self._store.append([started(self._store.epoch)])

    def trade(self) -> bool:
        """Intend, make durable, send, book what came of it; whether it was sent."""
        store, lease = self._store, self._lease
        intent = bought(store.state.next_intent_no)
        intended = OrderIntended(
            ts_event_ns=intent.ts_ns,
            intent=intent,
            client_id=client_id(store.epoch, intent.intent_no),
            payload_hash=payload_hash(intent),
        )
        asked_ns = lease.now_ns()
        store.wait_durable(store.append([intended]))
        lease.renewed(asked_ns)
        # What `Gate.send` does once it has held the approval against the intent.
        events = self._gate._submit(intended, durable=True, cash_free=0.0)
        sent = not any(isinstance(event, OrderClosed) for event in events)
        store.append(events)
        return sent


def started(epoch: int) -> SessionStarted:
    return SessionStarted(
        ts_event_ns=time.time_ns(),
        epoch=epoch,
        mode="testnet",
        source="race",
        origin=Origin.SIMULATED,
        strategy="race",
        config_hash="race",
        schema_version=SCHEMA_VERSION,
        warm_from_ms=0,
        start_ms=0,
        quote="USDT",
        initial_cash=CASH,
        books=(Book.VALIDATED,),
    )


def bought(number: int) -> OrderIntent:
    """An order that the venue takes and ends at once: its price is far below the market."""
    return OrderIntent(
        intent_no=number,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol=SYMBOL,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        quantity=Decimal("0.00100"),
        price=Decimal(10_000),
        stop_price=None,
        time_in_force=TimeInForce.IOC,
        reduce_only=False,
        reference_price=Decimal(10_000),
        stop_loss=None,
        expires_after=0,
        signal_id="race",
        rule_id="race",
        ts_ns=time.time_ns(),
    )


class Child:
    """A forked process that says single letters."""

    def __init__(self, work: Callable[[Callable[[bytes], object]], None]) -> None:
        self._pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        code = 1
        try:
            die_with_parent()
            logging.disable(logging.CRITICAL)
            os.close(self._pipe)
            work(lambda word: os.write(writing, word))
            code = 0
        except JournalWriteFailed:
            code = FENCED
        except BaseException:  # noqa: BLE001 - told, and seen by the exit code
            traceback.print_exc()
        finally:
            os._exit(code)

    def hear(self, seconds: float = 20.0) -> bytes:
        """Return the next letters; empty when it ended or said nothing in time."""
        ready, _, _ = select.select([self._pipe], [], [], seconds)
        return os.read(self._pipe, 4_096) if ready else b""

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pipe)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Kill it, unless it has ended."""
        if self.pid:
            self.signal(signal.SIGKILL)
            self.ended()


# ------------------------------------------------------------------------------ races
def race(ground: Ground, number: int) -> None:
    """Let two start together; one must trade and the other be refused."""
    before = ground.last_order_id
    go, gun = os.pipe()

    def run_with(name: str) -> Callable[[Callable[[bytes], object]], None]:
        def work(say: Callable[[bytes], object]) -> None:
            os.read(go, 1)
            try:
                trader = Trader(ground, ground.folder / name / "journal", ground.folder / "locks")
            except JournalLocked:
                say(b"L")
                return
            trader.begin()
            assert trader.trade()
            say(b"T")
            signal.pause()  # hold the account until the other one has tried

        return work

    racers = [ground.fork(run_with(name)) for name in ("one", "two")]
    os.write(gun, b"go")
    said = sorted(racer.hear() for racer in racers)
    assert said == [b"L", b"T"], f"race {number}: {said}"
    for racer in racers:
        racer.end()
    ground.children.clear()
    os.close(go)
    os.close(gun)
    found = ground.door.ledger(before)["orders"]
    assert len(found) == 1, f"race {number}: {len(found)} orders"
    ground.last_order_id = found[-1]["orderId"]


# -------------------------------------------------------------------------- takeovers
class Taken(NamedTuple):
    """How a takeover went."""

    stopped_ms: float
    unsent: int


def takeover(ground: Ground, number: int, rng: random.Random) -> Taken:
    """Stop a leader, let another host take over, wake it up; it must do nothing any more."""
    journal = ground.folder / f"takeover-{number}" / "journal"
    last_before = ground.last_order_id

    def lead(say: Callable[[bytes], object]) -> None:
        trader = Trader(ground, journal, ground.folder / f"host-a-{number}", SHORT)
        trader.begin()
        while True:
            say(b"T" if trader.trade() else b"U")

    def succeed(say: Callable[[bytes], object]) -> None:
        trader = Trader(ground, journal, ground.folder / f"host-b-{number}", SHORT)
        time.sleep(sum(SHORT) / 1_000)
        trader.begin()
        say(b"%d " % (time.time_ns() // 1_000_000))
        while not trader.trade():
            pass  # a busy machine may take longer than the short lease
        say(b"T")
        signal.pause()

    old = ground.fork(lead)
    assert old.hear() != b"", "the leader did not begin"
    time.sleep(rng.uniform(0.0, 0.02))
    old.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    new = ground.fork(succeed)
    took = new.hear(0.5)
    if not took:  # stopped inside a commit: nobody takes over until it is through
        old.signal(signal.SIGCONT)
        took = new.hear()
    else:
        time.sleep(rng.uniform(0.0, 0.02))
        old.signal(signal.SIGCONT)
    stopped_ms = (time.monotonic() - stopped) * 1_000
    rest = b""
    while b"T" not in took:
        took += new.hear()
    while told := old.hear():
        rest += told
    code = old.ended()
    assert code == FENCED, f"takeover {number}: the old leader ended with {code}"
    new.end()
    judge(ground, journal, last_before, int(took.split(b" ")[0]), number)
    return Taken(stopped_ms, rest.count(b"U"))


def judge(ground: Ground, journal: Path, last_before: int, began_ms: int, number: int) -> None:
    """No order of the old epoch after the successor began, and every order intended."""
    epochs: dict[str, int] = {}
    newest = 0
    with JournalReader.open(journal) as reader:
        for _seq, event in reader.events(kinds={SessionStarted, OrderIntended}):
            if isinstance(event, SessionStarted):
                newest = event.epoch
            else:
                name = parse_client_id(event.client_id)
                assert name is not None
                assert name[0] == newest, (
                    f"takeover {number}: epoch {name[0]} wrote after {newest}"
                )
                epochs[event.client_id] = name[0]
    orders = ground.door.ledger(last_before)["orders"]
    ground.last_order_id = max((told["orderId"] for told in orders), default=last_before)
    names = Counter(told["clientOrderId"] for told in orders)
    assert max(names.values()) == 1, f"takeover {number}: an order was placed twice"
    assert set(names) <= set(epochs), f"takeover {number}: an order nobody intended"
    assert newest == 2
    for told in orders:
        stale = epochs[told["clientOrderId"]] < newest and told["time"] >= began_ms
        assert not stale, f"takeover {number}: {told} arrived after the successor began"


def refused_as_late(journal: Path) -> int:
    """Count the orders whose signature was too old when they arrived."""
    rows = (msgspec.json.decode(row) for row in journal.read_bytes().splitlines())
    return sum(row["kind"] == "answer" and row["body"]["code"] == -1021 for row in rows)


if __name__ == "__main__":
    speak(work)
