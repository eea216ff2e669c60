"""What `benchmarks.bench_pipeline` measures and keeps in ``docs/fleet.json``.

Costs are CPU seconds of one core; memory is MB of a process.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

LINEAR = 1.1
"""Growth up to which a cost is called linear: its logarithm's slope over that of the size."""
BOUNDED = 0.5
"""Memory that each further series adds, over its candles' own: below 1 where none is kept."""
CANDLE_BYTES = 48
"""Of a candle in memory: a time and five numbers."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Ingestion and features of some series, by some workers.

    Attributes:
        wall_s: of the slowest worker.
        before_mb: held by a worker before it began, the largest.
        peak_mb: most a worker held meanwhile.
        bytes: on disk, by what they are.
    """

    symbols: int
    years: int
    workers: int
    interval: str
    candles: int
    ingest_cpu_s: float
    features_cpu_s: float
    wall_s: float
    before_mb: float
    peak_mb: float
    bytes: dict[str, int]

    @property
    def cpu_s(self) -> float:
        """CPU of all workers."""
        return self.ingest_cpu_s + self.features_cpu_s

    @property
    def own_mb(self) -> float:
        """Memory that the work itself took."""
        return self.peak_mb - self.before_mb


class Step(msgspec.Struct, frozen=True):
    """One step of making models."""

    cpu_s: float
    peak_mb: float


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """Models of a pool, by step; the LSTM's with a single step of training."""

    symbols: int
    years: int
    interval: str
    candles: int
    steps: dict[str, Step]

    @property
    def cpu_s(self) -> float:
        """CPU of all steps."""
        return sum(step.cpu_s for step in self.steps.values())

    @property
    def peak_mb(self) -> float:
        """Most memory any step held."""
        return max(step.peak_mb for step in self.steps.values())


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured.

    Attributes:
        step_cpu_s: of one training step of the full schedule.
        import_cpu_s: of the code location.
        picture_cpu_ms: of a finding; the simulated market has none.
        function_cpu_ms: a stored year ingested again, the plain function.
        run_cpu_ms: the same in a Dagster run, by storage: ``SQLite``, ``PostgreSQL``.
        run_bytes: by which the run lets the storage grow.
    """

    machine: dict[str, str | int | float]
    cells: tuple[Cell, ...]
    pools: tuple[Trained, ...]
    step_cpu_s: float
    import_cpu_s: float
    picture_cpu_ms: float
    function_cpu_ms: float
    run_cpu_ms: dict[str, float]
    run_bytes: dict[str, float]

    def cell(self, symbols: int, years: int, workers: int = 1, interval: str = "1h") -> Cell:
        """Return a cell.

        Raises:
            LookupError: it was not measured.
        """
        for one in self.cells:
            if (one.symbols, one.years, one.workers, one.interval) == (
                symbols,
                years,
                workers,
                interval,
            ):
                return one
        raise LookupError(
            f"no cell of {symbols} symbols, {years} years of {interval}, {workers} workers was "
            "measured; run `make fleet`"
        )


def growth(cells: Sequence[Cell], cost: Callable[[Cell], float]) -> float:
    """Return the slope of ln cost over ln candles: 1 is linear, 2 quadratic."""
    sizes = np.log([one.candles for one in cells])
    return float(np.polyfit(sizes, np.log([cost(one) for one in cells]), 1)[0])


def kept(few: Cell, many: Cell) -> float:
    """Return what each further series adds to the peak, over the size of its candles.

    From cells of several series, so that what the allocator holds after the first is in both.
    """
    added_mb = (many.peak_mb - few.peak_mb) / (many.symbols - few.symbols)
    return added_mb / (CANDLE_BYTES * many.candles / many.symbols / 1e6)


def line(figures: Figures, cost: Callable[[Trained], float]) -> tuple[float, float]:
    """Fit cost = fixed + slope x candles over the pools; least squares."""
    slope, fixed = np.polyfit(
        [one.candles for one in figures.pools], [cost(one) for one in figures.pools], 1
    )
    return float(fixed), float(slope)
