"""Features and what stands around a step of the pipeline: import, a Dagster run of a partition.

The whole table of five symbols and seven years is CPU time, of all threads. One candle's row is
that of the trading process; pandas and polars have no way to add a candle, so that whoever uses
them computes the 512 candles anew that a row needs. Their columns are held beside ours in a test.
"""

import math
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from benchmarks.frames import pandas_features, polars_features
from benchmarks.harness import EMPTY_CALL, Result, floors, measure, of_rounds
from benchmarks.orchestration import imported, partition_runs
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.features.batch import compute
from bot4_runtime.features.incremental import FeatureState
from bot4_runtime.features.schema import LOOKBACK

TITLE = "Features: 23 columns, and what stands around a step"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT", "LTCUSDT")
FROM_MS, TO_MS = 1_514_764_800_000, 1_735_689_600_000
"""2018 to 2024: seven years of 1h."""
ROUNDS = 5
UPDATES = 20_000
PEERS = {"pandas": pandas_features, "polars": polars_features}
WHOLE = "{}, 7 years of 1h, 5 symbols"
ONE = "{}, 512 candles anew for one row"
FUNCTION, DAGSTER = "a stored year again, plain function", "import dagster"


def run() -> list[Result]:
    market = SimulatedMarket(4)
    pool = [market.series(symbol, "1h", FROM_MS, TO_MS) for symbol in SYMBOLS]
    return [
        *floors(),
        whole(WHOLE.format("batch"), pool, compute, peers=tuple(map(WHOLE.format, PEERS))),
        *(whole(WHOLE.format(name), pool, call, kind="peer") for name, call in PEERS.items()),
        updates(pool[0]),
        *(
            measure(ONE.format(name), call, pool[0].rows(slice(0, LOOKBACK)), kind="peer")
            for name, call in PEERS.items()
        ),
        *imports(),
        *partitions(),
    ]


def whole(
    name: str,
    pool: list[CandleSeries],
    call: Callable[[CandleSeries], object],
    *,
    kind: str = "ours",
    peers: tuple[str, ...] = (),
) -> Result:
    """Time the tables of all series, CPU milliseconds."""
    rounds = []
    for _ in range(ROUNDS):
        busy = time.process_time()
        for series in pool:
            call(series)
        rounds.append(1_000 * (time.process_time() - busy))
    rows = sum(map(len, pool))
    return of_rounds(name, rounds, unit="CPU-ms", kind=kind, peers=peers, note=f"{rows:,} rows")


def updates(series: CandleSeries) -> Result:
    """Time the incremental form, a hundred candles a round; the first rows are not valid yet."""
    state, candles = FeatureState(series.id.symbol, series.id.interval), iter(series)
    for candle in islice(candles, LOOKBACK):
        state.update(candle)
    rounds = []
    for _ in range(UPDATES // 100):
        hundred = list(islice(candles, 100))
        began = time.perf_counter_ns()
        for candle in hundred:
            state.update(candle)
        rounds.append((time.perf_counter_ns() - began) / len(hundred))
    return of_rounds(
        "incremental, one candle", rounds, goal=50e3, floor=EMPTY_CALL,
        peers=tuple(map(ONE.format, PEERS)),
    )  # fmt: skip


def imports() -> list[Result]:
    """Time the import of the code location beside Dagster's own."""
    ours = imported("bot4_pipelines.definitions", ROUNDS)
    return [
        of_rounds(DAGSTER, imported("dagster", ROUNDS).wall_s, unit="s", kind="floor"),
        of_rounds(
            "import of the code location", ours.wall_s if not ours.heavy else [math.nan],
            unit="s", goal=2.0, floor=DAGSTER,
            note=f"it imports {' '.join(ours.heavy)}" if ours.heavy else "no torch, no pandas",
        ),
    ]  # fmt: skip


def partitions() -> list[Result]:
    """Time a partition as a plain function and as a Dagster run around it."""
    with tempfile.TemporaryDirectory() as name:
        found = partition_runs(Path(name), 4 * ROUNDS)
    cost = [run - function for run, function in zip(found.run_ms, found.function_ms, strict=True)]
    return [
        of_rounds(FUNCTION, found.function_ms, unit="CPU-ms", kind="floor"),
        of_rounds("a stored year again, a Dagster run", found.run_ms, unit="CPU-ms"),
        of_rounds(
            "what the run costs over the function", cost, unit="CPU-ms",
            note=f"{found.storage_bytes / 1024:.0f} KB of storage (SQLite) a run",
        ),
    ]  # fmt: skip
