"""Replays through the whole engine, as `bot4-runtime replay` builds it, for benchmarks."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bot4_runtime import app
from bot4_runtime.risk.limits import BOUNDS, Bound
from bot4_runtime.settings import Settings, load_settings

MINUTE_MS = 60_000
START_MS = 1_704_067_200_000  # 2024-01-01
WARM = 700
ANY = 10**9


class Replayed(NamedTuple):
    """One replay: bars decided on, CPU seconds of all threads, round trips of all books."""

    bars: int
    cpu_s: float
    wall_s: float
    trips: int
    orders: int
    events: int


def random_walk(bars: int, seed: int = 7) -> pl.DataFrame:
    """Return one-minute bars of a random walk, and the candles to warm it.

    Log closes take independent normal steps of 0.1 % and no drift: no momentum, no pull back.
    """
    generator = np.random.default_rng(seed)
    rows = bars + WARM
    close = 30_000.0 * np.exp(np.cumsum(generator.normal(0.0, 0.001, rows)))
    open_ = np.concatenate([[30_000.0], close[:-1]])
    wick = np.abs(generator.normal(0.0, 0.0005, (2, rows)))
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


def crosses(frame: pl.DataFrame, bars: int) -> int:
    """Return how often the EMA 10 rises over the EMA 20 in the last so many bars."""
    close = frame["close"].cast(pl.Float64)
    above = close.ewm_mean(span=10, adjust=False) > close.ewm_mean(span=20, adjust=False)
    return int((above & ~above.shift(1, fill_value=True))[-bars:].sum())


@contextmanager
def any_loss_streak() -> Iterator[None]:
    """Lift the hard limit of losses in a row, for this process and until it is left.

    The peers have no circuit breaker. Seven in ten crosses lose on a random walk, so that ten
    losses in a row, the most that a configuration may allow, come every hundred trades or so,
    and the breaker would rightly withhold most of the trades whose cost is to be measured. It
    still looks at every trade and every equity; daily loss and drawdown keep their limits.
    """
    bound = BOUNDS["max_loss_streak"]
    BOUNDS["max_loss_streak"] = Bound(bound.tightest, ANY, whole=True)
    try:
        yield
    finally:
        BOUNDS["max_loss_streak"] = bound


def columns(frame: pl.DataFrame) -> NDArray[np.float64]:
    """Return float64[n, 6] of the bars after the warm ones, for the peers."""
    names = ["timestamp", "open", "high", "low", "close", "volume"]
    return frame[WARM:].select(pl.col(names).cast(pl.Float64)).to_numpy()


def settings(home: Path, strategy: str, **environment: str) -> Settings:
    """Return settings in which a losing strategy trades on as long as it may.

    Small positions, so that neither a day's loss nor the drawdown of a year stops it.
    """
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
            "BOT4_RISK__MAX_LOSS_STREAK": f"{BOUNDS['max_loss_streak'].loosest:.0f}",
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
