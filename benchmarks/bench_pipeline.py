"""How the pipeline's cost grows with symbols, years and workers; ``docs/fleet.md`` follows.

``python -m benchmarks.bench_pipeline [--quick | --write | --page]``: each cell is a process for
each worker (`pipeline_cell`) on a home of its own, so that peak memory is the cell's. Two workers
share the symbols of a cell. It is not part of `make bench`: it has a page and minutes of its own.
Without ``--write`` figures go to ``$BOT4_HOME/bench/pipeline.json`` and no page is touched;
``--page`` measures nothing and writes the page of the figures that are there.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.bench_models import training_steps
from benchmarks.fleet_figures import Cell, Figures, Trained
from benchmarks.fleet_page import page, verdicts
from benchmarks.harness import ROOT, machine
from benchmarks.orchestration import imported, partition_runs, picture_cpu_ms
from benchmarks.pipeline_cell import Work

FIGURES: Final = ROOT / "docs" / "fleet.json"
PAGE: Final = ROOT / "docs" / "fleet.md"
SERVER: Final = f"{os.environ.get('PGUSER', 'root')}@127.0.0.1:5432/test"
"""Where a database is made for the time of the runs, as tests do."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        cells: symbols, years, workers, interval.
        pools: symbols, years; models of 1h.
        rounds: of imports and runs.
    """

    cells: tuple[tuple[int, int, int, str], ...]
    pools: tuple[tuple[int, int], ...]
    rounds: int


FULL: Final = Plan(
    cells=(
        *((1, 2, 1, interval) for interval in ("15m", "4h", "1d")),
        *((symbols, years, 1, "1h") for symbols in (1, 5, 20) for years in (1, 2, 7)),
        *((symbols, years, 2, "1h") for symbols in (5, 20) for years in (1, 2, 7)),
    ),
    pools=((1, 2), (5, 2), (5, 7)),
    rounds=5,
)
QUICK: Final = Plan(
    cells=(
        *((1, 2, 1, interval) for interval in ("15m", "4h", "1d")),
        *((symbols, years, 1, "1h") for symbols in (1, 2) for years in (1, 2, 7)),
        (2, 2, 2, "1h"),
    ),
    pools=((1, 2), (2, 2)),
    rounds=3,
)


class Progress:
    """Says which of how many parts is at work, and for how long all have been."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._done = 0
        self._began = time.monotonic()
        self._live = sys.stdout.isatty()

    def begin(self, name: str) -> None:
        self._done += 1
        self._name = name
        self._say("begins")

    def says(self, words: str) -> None:
        """Tell what a part does; on a terminal alone, in place."""
        if self._live:
            self._say(words)

    def end(self, words: str) -> None:
        self._say(words)
        if self._live:
            print(flush=True)

    def _say(self, words: str) -> None:
        passed = time.monotonic() - self._began
        text = f"[{self._done:2}/{self._parts}] {passed:4.0f} s  {self._name}: {words}"
        print(f"\r\x1b[K{text[:110]}" if self._live else text, end="" if self._live else "\n",
              flush=True)  # fmt: skip


def symbols(count: int) -> tuple[str, ...]:
    """Return names of simulated symbols."""
    return tuple(f"SYM{number:02}USDT" for number in range(1, count + 1))


def cell(count: int, years: int, workers: int, interval: str, progress: Progress) -> Cell:
    """Measure a cell."""
    progress.begin(f"{count} symbols, {years} years of {interval}, {workers} workers")
    with tempfile.TemporaryDirectory() as home:
        work = [
            Work(symbols(count)[place::workers], years, interval, home) for place in range(workers)
        ]
        told = side_by_side(work, progress)
    done = Cell(
        symbols=count,
        years=years,
        workers=workers,
        interval=interval,
        **{name: sum(one[name] for one in told)
           for name in ("candles", "ingest_cpu_s", "features_cpu_s")},
        **{name: max(one[name] for one in told) for name in ("wall_s", "before_mb", "peak_mb")},
        bytes=max((one["bytes"] for one in told), key=lambda one: sum(one.values())),
    )  # fmt: skip
    progress.end(
        f"{done.candles:,} candles, {done.ingest_cpu_s:.2f} + {done.features_cpu_s:.2f} CPU s, "
        f"{done.peak_mb:.0f} MB"
    )
    return done


def trained(count: int, years: int, progress: Progress) -> Trained:
    """Measure the models of a pool."""
    progress.begin(f"models of {count} symbols, {years} years of 1h")
    with tempfile.TemporaryDirectory() as home:
        (told,) = side_by_side([Work(symbols(count), years, "1h", home, learn=True)], progress)
    made = msgspec.convert(
        {"symbols": count, "years": years, "interval": "1h", "candles": told["candles"],
         "steps": told["steps"]}, Trained,
    )  # fmt: skip
    progress.end(f"{made.cpu_s:.0f} CPU s, {made.peak_mb:.0f} MB")
    return made


def side_by_side(work: Sequence[Work], progress: Progress) -> list[dict[str, Any]]:
    """Run workers at the same time, from when all have imported everything.

    Raises:
        RuntimeError: one failed; its last words are in the message.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pipeline_cell", json.dumps(asdict(one))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT, env=environment,
        )
        for one in work
    ]  # fmt: skip
    try:
        for process in running:
            process.stdout.readline()
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [_told(process, progress) for process in running]
    except BrokenPipeError:
        raise RuntimeError(f"a worker failed: {running[0].stderr.read()[-2000:]}") from None
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _told(process: "subprocess.Popen[str]", progress: Progress) -> dict[str, Any]:
    for line in process.stdout:
        said = json.loads(line)
        if "done" in said:
            done: dict[str, Any] = said["done"]
            return done
        progress.says(said["says"])
    raise RuntimeError(f"a worker failed: {process.stderr.read()[-2000:]}")


def measured(plan: Plan) -> Figures:
    """Measure all of a plan."""
    facts = machine()
    progress = Progress(len(plan.cells) + len(plan.pools) + 5)
    cells = tuple(cell(*one, progress) for one in plan.cells)
    pools = tuple(trained(*one, progress) for one in plan.pools)
    progress.begin("a training step")
    step = statistics.median(training_steps()[1])
    progress.end(f"{1000 * step:.0f} CPU ms")
    progress.begin("import of the code location")
    took = statistics.median(imported("bot4_pipelines.definitions", plan.rounds).cpu_s)
    progress.end(f"{took:.2f} CPU s")
    progress.begin("a picture of a finding")
    picture = picture_cpu_ms(plan.rounds)
    progress.end(f"{picture:.0f} CPU ms")
    run_ms, run_bytes, function_ms = {}, {}, 0.0
    for name, server in (("SQLite", ""), ("PostgreSQL", SERVER)):
        progress.begin(f"runs of a partition, {name}")
        with tempfile.TemporaryDirectory() as home:
            runs = partition_runs(Path(home), plan.rounds, server=server)
        run_ms[name] = statistics.median(runs.run_ms)
        run_bytes[name] = runs.storage_bytes
        function_ms = statistics.median(runs.function_ms)
        progress.end(f"{run_ms[name]:.0f} CPU ms, {run_bytes[name] / 1024:.0f} KB")
    return Figures(
        machine=facts,
        cells=cells,
        pools=pools,
        step_cpu_s=step,
        import_cpu_s=took,
        picture_cpu_ms=picture,
        function_cpu_ms=function_ms,
        run_cpu_ms=run_ms,
        run_bytes=run_bytes,
    )


def main() -> None:
    words = sys.argv[1:]
    if len(words) > 1 or not set(words) <= {"--quick", "--write", "--page"}:
        sys.stderr.write(
            f"got {' '.join(words)}; expected one of --quick --write --page, or none\n"
        )
        sys.exit(2)
    if words == ["--page"]:
        figures = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    else:
        figures = measured(QUICK if words == ["--quick"] else FULL)
        path = FIGURES
        if words != ["--write"]:
            path = Path(os.environ.get("BOT4_HOME", ".bot4")) / "bench" / "pipeline.json"
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
        print(f"figures in {path}")
    for name, value, most in verdicts(figures):
        print(f"{name:48}{value:8.2f}  < {most:g}  {'met' if value <= most else 'MISSED'}")
    if words in (["--page"], ["--write"]):
        PAGE.write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
