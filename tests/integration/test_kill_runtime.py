"""kill -9 the running program again and again: the same command always ends in the same state."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.state.reader import JournalReader

HOUR_MS = 3_600_000
KILLS = 20
KILLS_WITH_MODELS = int(os.environ.get("BOT4_KILLS", "6"))
CANDLES = 12_000
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


@dataclass(frozen=True)
class Subject:
    """A command to be killed: its words and its environment."""

    words: tuple[str, ...]
    environment: dict[str, str]

    def command(self, account: str) -> list[str]:
        return [
            str(PROGRAM),
            "start",
            *self.words,
            "--speed",
            "max",
            "--account",
            account,
            "--json",
        ]

    def journal(self, account: str) -> Path:
        return Path(self.environment["BOT4_HOME"]) / "state" / account / "journal.sqlite"


def finish(subject: Subject, account: str) -> dict[str, Any]:
    done = subprocess.run(
        subject.command(account),
        env=subject.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def last_seq(journal: Path) -> int:
    with contextlib.suppress(JournalError), JournalReader.open(journal) as reader:
        return reader.last_seq()
    return 0


def start_and_kill(subject: Subject, account: str, wait_s: float) -> bool:
    """Kill the program some time after it began to trade; False when it ended before."""
    journal = subject.journal(account)
    before = last_seq(journal)
    process = subprocess.Popen(
        subject.command(account),
        env=subject.environment,
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


def kill_again_and_again(subject: Subject, kills_wanted: int, longest_s: float) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    whole = finish(subject, "whole")
    kills = accounts = 0
    while kills < kills_wanted:
        accounts += 1
        assert accounts <= kills_wanted, f"seed {seed}: only {kills} kills found open positions"
        name = f"killed{accounts}"
        done = 0
        while kills < kills_wanted and done < whole["candles"]:
            if not start_and_kill(subject, name, generator.uniform(0.0, longest_s)):
                break
            exposed, done = left_behind(subject.journal(name))
            kills += exposed
        told = finish(subject, name)
        assert told["state_hash"] == whole["state_hash"], f"seed {seed}, account {name}"


def test_a_drill_killed_at_random_moments_ends_in_the_same_state(
    market: Path, tmp_path: Path
) -> None:
    variables = os.environ | {
        "BOT4_HOME": str(tmp_path),
        "BOT4_RISK__MAX_CORRELATION": "1.0",
        "OMP_NUM_THREADS": "1",
    }
    words = ("--strategy", "drill", "--source", f"recorded:{market}")
    kill_again_and_again(Subject(words, variables), KILLS, 0.4)


def test_the_regime_follower_killed_at_random_moments_ends_in_the_same_state(demo) -> None:
    """No evidence passes here, so it is the shadow book that holds positions and orders."""
    last_two_months = demo.document["replay"]["to_ms"] - 60 * 24 * HOUR_MS
    since = datetime.fromtimestamp(last_two_months / 1000, UTC).isoformat()
    variables = demo.environment | {"BOT4_RISK__MAX_CORRELATION": "1.0"}
    subject = Subject(("--source", "store", "--from", since), variables)
    kill_again_and_again(subject, KILLS_WITH_MODELS, 1.0)
