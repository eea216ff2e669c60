"""What a fleet needs, computed from `fleet_figures`: the arithmetic of ``docs/fleet.md``.

Every need is a `Need` that says its own arithmetic, so that a page can show it and a test can hold
it beside the numbers.
"""

import math
from dataclasses import dataclass

from benchmarks.fleet_figures import Figures, line
from benchmarks.harness import amount
from bot4_pipelines.ingest.rate import WEIGHTS
from bot4_pipelines.ingest.rest import WEIGHT
from bot4_pipelines.training.schedule import LstmSettings, Schedule
from bot4_runtime.domain.candle import Market, interval_ms

YEAR_MS = 365.25 * 86_400_000
DEQUEUE_S = 5
"""Dagster's daemon takes runs from the queue that often."""
CONCURRENT = 16
"""``max_concurrent_runs`` of deploy/dagster.celery.yaml."""
WORKERS = (1, 2, 4, 8)
"""By how many the page tells how long an hourly tick takes."""


@dataclass(frozen=True)
class Fleet:
    """What is wanted."""

    symbols: int = 500
    intervals: tuple[str, ...] = ("15m", "1h", "4h", "1d")
    years: int = 7

    @property
    def series(self) -> int:
        """How many series it has."""
        return self.symbols * len(self.intervals)

    def rows(self, interval: str) -> int:
        """Return the candles of one series."""
        return round(self.years * YEAR_MS / interval_ms(interval))

    @property
    def candles(self) -> int:
        """Candles of all series."""
        return self.symbols * sum(map(self.rows, self.intervals))


@dataclass(frozen=True)
class Need:
    """One number of the page.

    Attributes:
        arithmetic: how it comes about, in numbers.
    """

    name: str
    arithmetic: str
    value: float
    unit: str


def disk(figures: Figures, fleet: Fleet) -> list[Need]:
    """Return what lies below BOT4_HOME."""
    alone = (one for one in figures.cells if one.workers == 1)
    widest = max(alone, key=lambda one: one.candles)
    needs = []
    for name in ("candles", "features"):
        each = widest.bytes[name] / widest.candles
        needs.append(
            Need(
                f"disk, {name}",
                f"{fleet.candles:,} candles x {amount(each)} bytes",
                fleet.candles * each / 1e9,
                "GB",
            )
        )
    return needs


def filling(figures: Figures, fleet: Fleet) -> list[Need]:
    """Return what the first filling takes: every series and year, then features."""
    needs, total = [], 0.0
    for interval in fleet.intervals:
        one = figures.cell(1, 2, interval=interval)
        each = one.cpu_s / one.years
        took = fleet.symbols * fleet.years * each / 3600
        total += took
        needs.append(
            Need(
                f"first filling, {interval}",
                f"{fleet.symbols} x {fleet.years} series-years x {amount(each)} CPU s / 3600",
                took,
                "CPU h",
            )
        )
    per = figures.run_cpu_ms["PostgreSQL"] - figures.function_cpu_ms
    runs = 2 * fleet.series
    needs.append(
        Need(
            "first filling, Dagster's part",
            f"{runs:,} runs (candles, features; a series each) x {amount(per)} CPU ms / 3600",
            runs * per / 3.6e6,
            "CPU h",
        )
    )
    drawn = fleet.series * fleet.years
    needs.append(
        Need(
            "first filling, pictures where every year has one finding",
            f"{drawn:,} series-years x {amount(figures.picture_cpu_ms)} CPU ms / 3600",
            drawn * figures.picture_cpu_ms / 3.6e6,
            "CPU h",
        )
    )
    archives = fleet.series * fleet.years * 12
    needs.append(
        Need(
            "first filling, files of Binance's archive",
            f"{fleet.series:,} series x {fleet.years} x 12 months",
            archives,
            "zips",
        )
    )
    return needs


def weights() -> tuple[int, tuple[int, ...]]:
    """Return what Binance counts for the list of markets, and for each thing a run asks beside."""
    each = dict(WEIGHT[Market.SPOT])
    return each.pop("markets"), tuple(each.values())


def waits(fleet: Fleet) -> tuple[float, float]:
    """Return the minutes a tick waits for Binance's request weight, and in the daemon's queue."""
    once, each = weights()
    weight = (once + fleet.series * sum(each)) / WEIGHTS[Market.SPOT]
    return math.ceil(weight), math.ceil(fleet.series / CONCURRENT) * DEQUEUE_S / 60


def tick_time(figures: Figures, fleet: Fleet, workers: int) -> Need:
    """Return how long an hourly tick takes so many workers: what takes longest decides."""
    cpu = fleet.series * figures.run_cpu_ms["PostgreSQL"] / 60_000 / workers
    every = (cpu, *waits(fleet))
    return Need(
        f"hourly tick, {workers} workers, a core each",
        f"the longest of {' and '.join(map(amount, every))}: CPU, weight, queue",
        max(every),
        "min",
    )


def tick(figures: Figures, fleet: Fleet) -> list[Need]:
    """Return what an hourly tick takes: a run for every series, which asks for its year."""
    run_ms = figures.run_cpu_ms["PostgreSQL"]
    cpu_h = fleet.series * run_ms / 3.6e6
    once, each = weights()
    most = WEIGHTS[Market.SPOT]
    weighed, queued = waits(fleet)
    return [
        Need(
            "hourly tick, CPU of the workers",
            f"{fleet.series:,} runs x {amount(run_ms)} CPU ms / 60,000",
            60 * cpu_h,
            "CPU min",
        ),
        Need(
            "the same where each run is a process of its own",
            f"{fleet.series:,} x ({amount(run_ms / 1000)} + {amount(figures.import_cpu_s)} s of "
            "import) / 60",
            fleet.series * (run_ms / 1000 + figures.import_cpu_s) / 60,
            "CPU min",
        ),
        Need(
            "hourly tick, request weight of Binance",
            f"({once} + {fleet.series:,} x ({' + '.join(map(str, each))})) / {most:,} a minute "
            "and address",
            weighed,
            "min",
        ),
        Need(
            "hourly tick, the daemon's queue",
            f"{fleet.series:,} / {CONCURRENT} runs at a time x {DEQUEUE_S} s / 60",
            queued,
            "min",
        ),
        *(tick_time(figures, fleet, workers) for workers in WORKERS),
        Need(
            "PostgreSQL, growth by hourly ticks",
            f"{fleet.series:,} runs x 24 x 30 x {figures.run_bytes['PostgreSQL'] / 1024:.0f} KB",
            fleet.series * 24 * 30 * figures.run_bytes["PostgreSQL"] / 1e9,
            "GB a month",
        ),
    ]


def worker_memory(figures: Figures, fleet: Fleet) -> Need:
    """Return what a worker holds: the interpreter and one series of the shortest interval."""
    short, long = (figures.cell(1, years) for years in (1, 7))
    each = (long.own_mb - short.own_mb) * 1e6 / (long.candles - short.candles)
    rows = max(map(fleet.rows, fleet.intervals))
    return Need(
        "memory of a worker, candles and features",
        f"{long.before_mb:.0f} MB + {rows:,} candles x {each:.0f} bytes",
        long.before_mb + rows * each / 1e6,
        "MB",
    )


def retraining(figures: Figures, fleet: Fleet, symbols: int) -> list[Need]:
    """Return CPU hours and memory of training every interval on a pool of so many symbols."""
    fixed, slope = line(figures, lambda one: one.cpu_s)
    base_mb, slope_mb = line(figures, lambda one: one.peak_mb)
    steps = LstmSettings.of(Schedule.FULL).iterations
    needs = []
    for interval in fleet.intervals:
        rows = symbols * fleet.rows(interval)
        hours = (steps * figures.step_cpu_s + fixed + slope * rows) / 3600
        held = (base_mb + slope_mb * rows) / 1000
        needs += [
            Need(
                f"{interval}, CPU",
                f"({steps:,} steps x {amount(1000 * figures.step_cpu_s)} ms + {amount(fixed)} s + "
                f"{rows:,} candles x {amount(1e6 * slope)} µs) / 3600",
                hours,
                "CPU h",
            ),
            Need(
                f"{interval}, memory",
                f"{base_mb:.0f} MB + {rows:,} x {amount(1e6 * slope_mb)} bytes",
                held,
                "GB",
            ),
        ]
    return needs


def affordable(figures: Figures, fleet: Fleet, interval: str, memory_gb: float) -> int:
    """Return how many symbols of an interval a pool may have within so much memory."""
    base_mb, slope_mb = line(figures, lambda one: one.peak_mb)
    return max(0, math.floor((1000 * memory_gb - base_mb) / (slope_mb * fleet.rows(interval))))
