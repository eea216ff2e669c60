"""The whole engine: a year of minutes through risk, fees, paper venue and journal.

What is counted is CPU time of all threads, the journal's included, from the first warm candle
to the closed journal. `BOT4_BENCH_BARS` shortens the year. Real minutes of `BOT4_TEST_DATA`
(``spot/1m/*.parquet``) are a row of their own where they are.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, empty_call, measure, of_rounds, peers
from benchmarks.models import promote_pair
from benchmarks.replay import WARM, Replayed, columns, random_walk, replay, settings

TITLE = "Replay: EMA 10/20 cross, one-minute bars"
YEAR = 525_600
PEER_BARS = 100_000
ROUNDS = 3
MODEL_BARS = 5_000
ROOMS = "source, strategy, validator, risk, breaker, fees, paper venue, journal, bus; no models"
MODEL_ROOMS = ROOMS.replace("no models", "features, HMM and LSTM 2 x 128 on every bar")


def run() -> list[Result]:
    bars = int(os.environ.get("BOT4_BENCH_BARS", YEAR))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        walk = random_walk(bars)
        results = [_ours("random walk", walk, folder, goal=200_000)]
        real = _real_minutes()
        if real is not None:
            results.append(_ours("real BTCUSDT minutes", real, folder, goal=200_000))
        promote_pair(folder / "home" / "models", "1m")
        short = walk[: WARM + min(bars, MODEL_BARS)]
        results.append(_ours("both models on every bar", short, folder, 2_000, models=True))
        np.save(folder / "bars.npy", columns(walk)[:PEER_BARS])
        results += peers(
            "replay_backtesting", ("backtesting.py, EMA 10/20 cross",), str(folder / "bars.npy"),
            unit="bars/CPU-s",
        )  # fmt: skip
        results += peers(
            "replay_nautilus", ("NautilusTrader, EMA 10/20 cross",), str(folder / "bars.npy"),
            unit="bars/CPU-s",
        )  # fmt: skip
        results.append(measure("empty Python call", empty_call, 1, kind="floor"))
    return results


def _ours(
    name: str, frame: pl.DataFrame, folder: Path, goal: float, *, models: bool = False
) -> Result:
    candles = folder / "candles"
    shutil.rmtree(candles, ignore_errors=True)
    candles.mkdir()
    frame.write_parquet(candles / "BTCUSDT.parquet")
    strategy = "EmaCrossWithModels" if models else "EmaCross"
    with_ = settings(folder / "home", f"benchmarks.ema_cross:{strategy}")
    rounds: list[Replayed] = []
    for _ in range(ROUNDS):
        journal = folder / "journal"
        shutil.rmtree(journal, ignore_errors=True)
        rounds.append(replay(candles, journal, with_))
    last = rounds[-1]
    return of_rounds(
        f"whole engine, {name}",
        [each.bars / each.cpu_s for each in rounds],
        unit="bars/CPU-s",
        goal=goal,
        better="higher",
        note=f"{last.bars:,} bars, {last.orders:,} orders, {last.trips:,} round trips, "
        f"{last.events:,} events journaled; rooms: {MODEL_ROOMS if models else ROOMS}",
    )


def _real_minutes() -> pl.DataFrame | None:
    root = os.environ.get("BOT4_TEST_DATA")
    if not root:
        return None
    files = sorted(Path(root).glob("spot/1m/BTCUSDT-*.parquet"))
    if not files:
        return None
    frame = pl.read_parquet(files[0])
    return frame.rename({"open_time": "timestamp"}, strict=False)
