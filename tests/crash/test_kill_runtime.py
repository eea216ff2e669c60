"""kill -9 the running program again and again: the same command always ends in the same state."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.state.reader import JournalReader

HOUR_MS = 3_600_000
KILLS = 20
CANDLES = 12_000
TO_TRADE = 3 * (CANDLES - 700)
PROGRAM = Path(sys.executable).with_name("bot4-runtime")

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    generator = np.random.default_rng(11)
    candles = CANDLES
    for place, symbol in enumerate(("AAAUSDT", "BBBUSDT", "CCCUSDT")):
        close = 10.0 * 9.0**place * np.exp(np.cumsum(generator.standard_t(4, candles) * 0.005))
        open_ = np.concatenate([[close[0]], close[:-1]])
        pl.DataFrame(
            {
                "timestamp": 1_600_000_000_000 // HOUR_MS * HOUR_MS + HOUR_MS * np.arange(candles),
                "open": open_,
                "high": np.maximum(open_, close) * 1.002,
                "low": np.minimum(open_, close) * 0.998,
                "close": close,
                "volume": generator.lognormal(9, 0.5, candles),
            }
        ).write_parquet(folder / f"{symbol}.parquet")
    return folder


def command(market: Path, account: str) -> list[str]:
    return [
        str(PROGRAM), "start", "--strategy", "drill", "--source", f"recorded:{market}",
        "--speed", "max", "--account", account, "--json",
    ]  # fmt: skip


def environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "BOT4_HOME": str(home),
        "BOT4_RISK__MAX_CORRELATION": "1.0",
        "OMP_NUM_THREADS": "1",
    }


def finish(market: Path, home: Path, account: str) -> str:
    done = subprocess.run(
        command(market, account),
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["state_hash"]


def last_seq(journal: Path) -> int:
    with contextlib.suppress(JournalError), JournalReader.open(journal) as reader:
        return reader.last_seq()
    return 0


def start_and_kill(market: Path, home: Path, account: str, wait_s: float) -> bool:
    """Kill the program some time after it began to trade; False when it ended before."""
    journal = home / "state" / account / "journal.sqlite"
    before = last_seq(journal)
    process = subprocess.Popen(
        command(market, account),
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while last_seq(journal) <= before + 1 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(wait_s)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, errors.decode()
    return process.returncode != 0


def left_behind(journal: Path) -> tuple[bool, int]:
    """Whether an open position and a resting order were left, and how many candles were done."""
    with JournalReader.open(journal) as reader:
        state = reader.state(journal.parent / "snapshots")
    held = any(book.positions for book in state.books.values())
    resting = any(order.status is OrderStatus.ACCEPTED for order in state.all_live_orders())
    return held and resting, state.inputs


def test_kill_9_at_random_moments_and_the_same_command_ends_in_the_same_state(
    market: Path, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    expected = finish(market, tmp_path, "whole")
    kills = accounts = 0
    while kills < KILLS:
        accounts += 1
        assert accounts < KILLS, f"seed {seed}: only {kills} kills found open positions"
        name = f"killed{accounts}"
        journal = tmp_path / "state" / name / "journal.sqlite"
        done = 0
        while kills < KILLS and done < TO_TRADE:
            if not start_and_kill(market, tmp_path, name, generator.uniform(0.0, 0.4)):
                break
            exposed, done = left_behind(journal)
            kills += exposed
        assert finish(market, tmp_path, name) == expected, f"seed {seed}, account {name}"
