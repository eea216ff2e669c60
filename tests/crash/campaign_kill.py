"""M2: real SIGKILLs of the trading process at a loopback venue, at random and at the worst moments.

Each lane takes one account after the other through a stretch of candles. Every life is a fork
of a warmed process without threads; it recovers, reconciles with the venue, is held against
what the venue holds, trades, and is killed: at a random moment, or right before, amid or right
after sending an order. When the candles are through, the journal on disk and the venue's own
journal must tell the same orders and the same trades, each once.

How long a life takes from its fork until the journal is recovered and the account was read is
told too. It is no start of the program: what is forked is warm, imports and settings are there.
"""

import gc
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
from statistics import median
from typing import Any, Final

import msgspec
import structlog
from kill_alone import Progress, run_alone, speak
from kill_trader import STARTS, STEP_MS, WARM, Death, Life, Stage
from kill_venue import Door, VenueProcess, die_with_parent

from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.events import OrderClosed, OrderFilled, OrderIntended, OrderRejected
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.reader import JournalReader

TITLE: Final = "M2 kill -9 at a loopback venue"
GOALS: Final = {
    "kills": (">=", 5_000),
    "seconds": ("<=", 90),
    "lost_or_duplicate_orders": ("==", 0),
    "missing_fills": ("==", 0),
}
KILLS: Final = 5_000
SAMPLE_KILLS: Final = 120
CANDLES: Final = 100
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT")
FIRST_TYPICAL_S: Final = 0.04
"""How long a life until its first order is taken to last before any was measured."""
POINTS: Final = ("before", "amid", "after")


@dataclass
class Tally:
    """What a lane has seen."""

    kills: int = 0
    accounts: int = 0
    orders: int = 0
    trades: int = 0
    never_placed: int = 0
    refused: int = 0
    lives: Counter[str] = field(default_factory=Counter)
    starts_ms: list[float] = field(default_factory=list)

    def add(self, other: dict[str, Any]) -> None:
        self.lives.update(other.pop("lives"))
        for name, value in other.items():
            setattr(self, name, getattr(self, name) + value)


def run(full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Kill until there were enough; AssertionError when anything was lost or doubled."""
    return run_alone(Path(__file__), full, jobs, progress)


def work(full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Do what `run` does in this process, which must have no threads."""
    assert threading.active_count() == 1, "what is forked must have no threads"
    wanted = KILLS if full else SAMPLE_KILLS
    lanes = max(1, jobs if full else 1)
    started = time.perf_counter()
    pipes = {}
    for lane in range(lanes):
        share = wanted // lanes + (lane < wanted % lanes)
        pid, pipe = _forked(lambda say, lane=lane, share=share: _lane(lane, share, say))
        pipes[pipe] = pid
    total = Tally()
    buffers = dict.fromkeys(pipes, b"")
    while pipes:
        for pipe in select.select(list(pipes), [], [])[0]:
            chunk = os.read(pipe, 65_536)
            buffers[pipe] += chunk
            *rows, buffers[pipe] = buffers[pipe].split(b"\n")
            for row in rows:
                message = msgspec.json.decode(row)
                if "failed" in message:
                    for other in pipes.values():  # their children die with them
                        os.kill(other, signal.SIGKILL)
                        os.waitpid(other, 0)
                    raise AssertionError(message["failed"])
                total.add(message)
                progress(min(total.kills / wanted, 1.0), f"{total.kills} kills")
            if not chunk:
                _, status = os.waitpid(pipes.pop(pipe), 0)
                os.close(pipe)
                assert status == 0, f"a lane ended with status {status}"
    seconds = time.perf_counter() - started
    assert total.kills >= wanted
    return {
        "kills": total.kills,
        "seconds": round(seconds, 1),
        "kills_per_s": round(total.kills / seconds, 1),
        "lanes": lanes,
        "accounts": total.accounts,
        "orders_at_venue": total.orders,
        "trades": total.trades,
        "never_placed": total.never_placed,
        "refused": total.refused,
        "lost_or_duplicate_orders": 0,
        "missing_fills": 0,
        "fork_to_account_read_ms_median": round(median(total.starts_ms), 1),
        **{f"killed_{name}": count for name, count in sorted(total.lives.items())},
    }


# ---------------------------------------------------------------------------- a lane
def _lane(lane: int, wanted: int, say: Callable[[dict[str, Any]], None]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warm_up(lane)
    kills = account = 0
    while kills < wanted:
        tally = one_account(seed=1_000 * lane + account, most_kills=wanted - kills)
        kills += tally["kills"]
        account += 1
        say(tally)


def warm_up(seed: int) -> None:
    """Live one short life in this process, so that its forks find all paths trodden.

    Its threads have ended when it is over: what is forked has none.
    """
    with staged(seed, candles=24) as stage:
        Life(stage).run()
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()


@contextmanager
def staged(seed: int, candles: int) -> Iterator[Stage]:
    """Run a venue with a market, one or two symbols, in a folder that goes when all went well.

    The folder is in memory where that is possible: kill -9 takes nothing from the system's
    caches, and a power cut is another test's.
    """
    market = SimulatedMarket(seed)
    end_ms = SIMULATED_START_MS + candles * STEP_MS
    series = [
        market.series(symbol, "1h", SIMULATED_START_MS - WARM * STEP_MS, end_ms)
        for symbol in SYMBOLS[: 1 + seed % 2]
    ]
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="bot4-kill-", dir=memory if memory.is_dir() else None))
    venue = VenueProcess(series, folder / "venue.jsonl", SIMULATED_START_MS)
    try:
        yield Stage(series, SIMULATED_START_MS, folder, venue.port, venue.admin_port)
    finally:
        venue.close()
    shutil.rmtree(folder)


def one_account(seed: int, most_kills: int) -> dict[str, Any]:
    """Take one account through its candles, with kills; return what happened."""
    rng = random.Random(seed)
    lives: Counter[str] = Counter()
    typical_s = FIRST_TYPICAL_S
    with staged(seed, CANDLES) as stage:
        ended = False
        while not ended:
            point = rng.choice(("random", "random", "random", *POINTS))
            if lives.total() >= most_kills:
                point = "end"
            began = time.perf_counter()
            ended = _one_life(stage, point, rng, seed, longest_s=1.2 * typical_s)
            if not ended:
                lives[point] += 1
            if point in POINTS:  # a busy machine takes longer: moments are spread over all of it
                typical_s += 0.1 * (time.perf_counter() - began - typical_s)
        _one_life(stage, "end", rng, seed)  # reads back what the end cancelled
        found = compare(stage.folder, stage.admin_port)
        _each_sent_once(stage.folder / "venue.jsonl")
        starts_ms = [float(row) for row in (stage.folder / STARTS).read_text().split()]
    return {
        "kills": lives.total(),
        "accounts": 1,
        "lives": dict(lives),
        "starts_ms": starts_ms,
        **found,
    }


def _one_life(
    stage: Stage, point: str, rng: random.Random, seed: int, *, longest_s: float = 0.0
) -> bool:
    """Let one process live; True when it came to the end of the candles by itself.

    Args:
        longest_s: random deaths come between the fork and this.
    """
    death = Death(point, rng.choice((1, 1, 1, 2))) if point in POINTS else None
    forked_ns = time.monotonic_ns()
    child = os.fork()
    if child == 0:
        code = 1
        die_with_parent()
        gc.disable()  # a collection would touch, and so copy, every page of the parent
        try:
            Life(stage, death, forked_ns).run()
            code = 0
        except BaseException:  # noqa: BLE001 - told to the parent, which fails
            (stage.folder / "failed.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    if point == "random":
        time.sleep(rng.uniform(0.0, longest_s))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        failed = stage.folder / "failed.txt"
        why = failed.read_text() if failed.exists() else ""
        assert os.WEXITSTATUS(status) == 0, (
            f"seed {seed}: a life failed, kept {stage.folder}\n{why}"
        )
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


# --------------------------------------------------------------------------- oracles
def compare(folder: Path, admin_port: int) -> dict[str, int]:
    """Hold the journal on disk against the venue: the same orders and trades, each once."""
    door = Door(admin_port)
    ledger = door.ledger()
    door.close()
    at_venue: dict[str, dict[str, Any]] = {}
    for told in ledger["orders"]:
        name = told["clientOrderId"]
        assert name not in at_venue, f"{name} was placed twice: {folder}"
        at_venue[name] = told
    names: dict[int, str] = {}
    closed: dict[int, str] = {}
    booked: dict[tuple[str, int], tuple[Decimal, ...]] = {}
    kinds = {OrderIntended, OrderFilled, OrderClosed, OrderRejected}
    with JournalReader.open(folder / "journal.sqlite") as reader:
        for _seq, event in reader.events(kinds=kinds):
            if isinstance(event, OrderIntended):
                names[event.intent.intent_no] = event.client_id
            elif isinstance(event, OrderFilled):
                fill = event.fill
                key = (fill.symbol, int(fill.trade_id))
                assert key not in booked, f"trade {key} was booked twice: {folder}"
                booked[key] = (fill.price, fill.quantity, fill.fee)
            else:
                rejected = isinstance(event, OrderRejected)
                closed[event.intent_no] = "rejected" if rejected else event.status
        state = reader.state(folder / "snapshots")
    assert set(at_venue) <= set(names.values()), f"orders nobody intended: {folder}"
    traded = {
        (told["symbol"], trade["id"]): tuple(
            Decimal(trade[field]) for field in ("price", "qty", "commission")
        )
        for told in ledger["orders"]
        for trade in told["trades"]
    }
    assert booked == traded, f"{sorted(set(traded) ^ set(booked))} differ: {folder}"
    never = {OrderStatus.NEVER_PLACED.value, "rejected"}
    for intent_no, name in names.items():
        told = at_venue.get(name)
        if told is None:
            assert closed.get(intent_no) in never, f"{name} was lost: {folder}"
        else:
            assert closed.get(intent_no) not in never, f"{name} is at the venue: {folder}"
            open_there = told["status"] in {"NEW", "PARTIALLY_FILLED"}
            order = state.orders.get(intent_no)
            open_here = order is not None and not order.status.terminal
            assert open_here == open_there, f"{name} is {told['status']} there: {folder}"
    return {
        "orders": len(at_venue),
        "trades": len(traded),
        "never_placed": sum(s == OrderStatus.NEVER_PLACED.value for s in closed.values()),
        "refused": sum(s == "rejected" for s in closed.values()),
    }


def _each_sent_once(journal: Path) -> None:
    """No order was ever submitted twice, whatever became of it."""
    sent: Counter[str] = Counter()
    for row in journal.read_bytes().splitlines():
        entry = msgspec.json.decode(row)
        if entry["kind"] == "request" and entry["body"]["call"] == "POST /api/v3/order":
            sent[entry["body"]["with"]["newClientOrderId"]] += 1
    twice = [name for name, times in sent.items() if times > 1]
    assert not twice, f"submitted more than once: {twice}"


def _forked(work: Callable[[Callable[[dict[str, Any]], None]], None]) -> tuple[int, int]:
    """Run work in a process of its own; return it and the pipe of what it says."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1

    def say(message: dict[str, Any]) -> None:
        os.write(writing, msgspec.json.encode(message) + b"\n")

    try:
        die_with_parent()
        os.close(reading)
        work(say)
        code = 0
    except BaseException:  # noqa: BLE001 - told to the parent, which raises
        say({"failed": traceback.format_exc()})
    finally:
        os._exit(code)


if __name__ == "__main__":
    speak(work)
