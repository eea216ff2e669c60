"""Replays through the whole engine, as `bot4-runtime replay` builds it, for benchmarks."""

import itertools
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bot4_runtime import app
from bot4_runtime.settings import Settings, load_settings

MINUTE_MS = 60_000
START_MS = 1_704_067_200_000  # 2024-01-01
WARM = 700


class Replayed(NamedTuple):
    """One replay: bars decided on, CPU seconds of all threads, round trips of all books."""

    bars: int
    cpu_s: float
    wall_s: float
    trips: int
    orders: int
    events: int


def random_walk(bars: int, seed: int = 7) -> pl.DataFrame:
    """Return one-minute bars of a random walk with some momentum, and the candles to warm it.

    Steps of 0.6 %, a fifth of each carried on, so that crosses win often enough for the circuit
    breaker to let most trade; a pull of 0.02 % a bar keeps a year within a range of prices.
    """
    generator = np.random.default_rng(seed)
    rows = bars + WARM
    steps = generator.normal(0.0, 0.006, rows).tolist()
    steps = itertools.accumulate(steps, lambda before, step: 0.2 * before + step)
    log_close = list(itertools.accumulate(steps, lambda at, step: 0.9998 * at + step))
    close = 30_000.0 * np.exp(np.array(log_close))
    open_ = np.concatenate([[30_000.0], close[:-1]])
    wick = np.abs(generator.normal(0.0, 0.002, (2, rows)))
    return pl.DataFrame(
        {
            "timestamp": START_MS + MINUTE_MS * np.arange(-WARM, bars),
            "open": open_.round(2),
            "high": (np.maximum(open_, close) * (1 + wick[0])).round(2) + 0.01,
            "low": (np.minimum(open_, close) * (1 - wick[1])).round(2),
            "close": close.round(2),
            "volume": generator.lognormal(5.0, 0.5, rows).round(3),
        }
    )


def columns(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Return float64[n, 6] of the bars after the warm ones, for the peers."""
    names = ["timestamp", "open", "high", "low", "close", "volume"]
    return frame[WARM:].select(pl.col(names).cast(pl.Float64)).to_numpy()


def settings(home: Path, strategy: str, **environment: str) -> Settings:
    """Return settings in which a losing strategy may trade on: at the hard limits."""
    return load_settings(
        environment={
            "BOT4_HOME": str(home),
            "BOT4_MODELS": str(home / "models"),
            "BOT4_RUNTIME__STRATEGY": strategy,
            "BOT4_RUNTIME__INTERVAL": "1m",
            "BOT4_RISK__MAX_POSITION_PCT": "0.002",
            "BOT4_RISK__MAX_CORRELATION": "1.0",
            "BOT4_RISK__MAX_DRAWDOWN": "0.30",
            "BOT4_RISK__MAX_DAILY_LOSS": "0.10",
            "BOT4_RISK__MAX_LOSS_STREAK": "10",
            "BOT4_RISK__COOLDOWN_S": "3600",
            "BOT4_RISK__MAX_COOLDOWN_S": "86400",
            **environment,
        }
    )


def replay(candles: Path, folder: Path, with_: Settings) -> Replayed:
    """Replay a folder of candles with a fresh journal; only the run is timed."""
    options = app.RunOptions(source=f"recorded:{candles}")
    built = app.build(with_, options, mode="replay", folder=folder)
    wall, cpu = time.perf_counter(), time.process_time()
    result = built.execute(threading.Event())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    books = built.store.state.books.values()
    return Replayed(
        bars=result.candles,
        cpu_s=cpu,
        wall_s=wall,
        trips=sum(book.trades_total for book in books),
        orders=sum(book.orders_total for book in books),
        events=built.store.state.seq,
    )
