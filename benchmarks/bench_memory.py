"""Memory is bounded: what a replay holds does not grow with the events it has seen.

Resident memory is sampled while a simulated market is replayed. The first half, in which the
state fills up to what it keeps, is left out. `BOT4_BENCH_EVENTS` says how many events there
are; the claim is made per 10 million.
"""

import gc
import os
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.harness import Result, of_rounds, resident_bytes
from benchmarks.replay import MINUTE_MS, START_MS, settings
from bot4_runtime import app

TITLE = "Memory: growth of a replay"
EVENTS = 10_000_000
LEAST_SAMPLES = 40
ALLOWED_MB = 16.0
"""Growth that is noise of the allocator and of the queue to the journal."""


def run() -> list[Result]:
    wanted = int(os.environ.get("BOT4_BENCH_EVENTS", EVENTS))
    seen, resident = sampled(wanted)
    late = seen > seen[-1] / 2
    slope, _ = np.polyfit(seen[late], resident[late], 1)
    return [
        of_rounds(
            "growth per 10 M events, EMA 10/20 cross",
            [float(slope) * EVENTS / 2**20],
            unit="MB",
            goal=ALLOWED_MB,
            note=f"{seen[-1]:,.0f} events; resident {resident[late][0] / 2**20:.0f} MB half way, "
            f"{resident[-1] / 2**20:.0f} MB at the end",
        )
    ]


def sampled(events: int) -> tuple[np.ndarray, np.ndarray]:
    """Replay about so many events; return int64[n] events and float64[n] resident bytes."""
    every = max(events // LEAST_SAMPLES // 2, 1)
    samples: list[tuple[int, int]] = []

    def look(done: int, _: object) -> None:
        if done % every == 0:
            gc.collect()
            samples.append((built.store.state.seq, resident_bytes()))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = app.RunOptions(
            source="simulated", from_ms=START_MS, to_ms=START_MS + events * MINUTE_MS
        )
        with_ = settings(
            folder / "home", "benchmarks.ema_cross:EmaCross", BOT4_RUNTIME__SYMBOLS='["BTCUSDT"]'
        )
        built = app.build(with_, options, mode="replay", folder=folder / "j", on_progress=look)
        built.execute(threading.Event())
    found = np.array(samples)
    return found[:, 0], found[:, 1].astype(np.float64)
