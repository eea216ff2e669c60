"""The whole engine: a year of minutes through risk, fees, paper venue and journal.

What is counted is CPU time of all threads, the journal's included, from the first warm candle
to the closed journal. Every cross trades: see `any_loss_streak`. `BOT4_BENCH_BARS` shortens the
year. Real minutes of `BOT4_TEST_DATA` (``spot/1m/*.parquet``) are a row of their own where they
are. The peers run on the same bars, all of them; each says what it does not do.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, of_rounds, peers
from benchmarks.models import promote_pair
from benchmarks.replay import (
    WARM,
    Replayed,
    any_loss_streak,
    columns,
    crosses,
    random_walk,
    replay,
    settings,
)

TITLE = "Replay: EMA 10/20 cross, one-minute bars"
YEAR = 525_600
ROUNDS = 3
MODEL_BARS = 5_000
UNIT = "bars/CPU-s"
REAL = "real BTCUSDT minutes"
PEERS = {
    "backtesting": "backtesting.py",
    "nautilus": "NautilusTrader",
    "freqtrade": "freqtrade backtesting",
}
ROOMS = (
    "source, strategy, validator, risk, breaker (any loss streak), fees, paper venue, "
    "journal (not flushed, as in a replay), bus; no models"
)
MODEL_ROOMS = ROOMS.replace("no models", "features, HMM and LSTM 2 x 128 on every bar")


def run() -> list[Result]:
    bars = int(os.environ.get("BOT4_BENCH_BARS", YEAR))
    walk, real = random_walk(bars), _real_minutes()
    with tempfile.TemporaryDirectory() as name, any_loss_streak():
        folder = Path(name)
        results = _beside_peers("random walk", walk, folder)
        if real is None:
            missing = "not measured: there are no real minutes (BOT4_TEST_DATA)"
            results.append(
                of_rounds(
                    f"whole engine, {REAL}", [], unit=UNIT, goal=200_000, better="higher",
                    note=missing,
                )
            )  # fmt: skip
        else:
            results += _beside_peers(REAL, real, folder)
        promote_pair(folder / "home" / "models", "1m")
        short = walk[: WARM + min(bars, MODEL_BARS)]
        results.append(_ours("both models on every bar", short, folder, 2_000, models=True))
    return results


def _beside_peers(name: str, frame: pl.DataFrame, folder: Path) -> list[Result]:
    bars = columns(frame)
    np.save(folder / "bars.npy", bars)
    rows = []
    for script, library in PEERS.items():
        row = f"{library}, {name}, {len(bars):,} bars"
        rows += peers(f"replay_{script}", (row,), str(folder / "bars.npy"), row, unit=UNIT)
    return [_ours(name, frame, folder, 200_000, tuple(row.name for row in rows)), *rows]


def _ours(
    name: str,
    frame: pl.DataFrame,
    folder: Path,
    goal: float,
    beside: tuple[str, ...] = (),
    *,
    models: bool = False,
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
        unit=UNIT,
        goal=goal,
        better="higher",
        peers=beside,
        note=f"{last.bars:,} bars, {last.trips:,} round trips of "
        f"{crosses(frame, last.bars):,} crosses, {last.orders:,} orders, "
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
