"""``docs/fleet.md``: what a fleet needs, and the figures that it follows from."""

from collections.abc import Sequence

from benchmarks.fleet_figures import BOUNDED, LINEAR, Cell, Figures, growth, kept
from benchmarks.fleet_needs import (
    WORKERS,
    Fleet,
    Need,
    affordable,
    disk,
    filling,
    retraining,
    tick,
    tick_time,
    waits,
    worker_memory,
)
from benchmarks.harness import amount
from benchmarks.table import markdown

POOLS = (20, 100, 500)
"""Symbols of the pools that the page tells the training of."""
MEMORIES_GB = (16, 64, 256)


def page(figures: Figures, fleet: Fleet | None = None) -> str:
    """Return the page."""
    fleet = fleet or Fleet()
    facts = figures.machine
    needs = [
        *disk(figures, fleet),
        *filling(figures, fleet),
        worker_memory(figures, fleet),
        *tick(figures, fleet),
    ]
    lines = [
        "# What a fleet needs",
        "",
        f"Written by `make fleet` from what it measured ([fleet.json](fleet.json)) on "
        f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']} before it began, CPython "
        f"{facts['python']}, {facts['date']}; {facts['bot4']}. Candles are the simulated "
        "market's, so nothing here waits for a network. Costs are CPU seconds of one core; "
        "memory is that of a process. How the parts work: "
        "[pipeline.md](pipeline.md#sources-and-fleet).",
        "",
        f"## {fleet.symbols} symbols x {len(fleet.intervals)} intervals, {fleet.years} years",
        "",
        f"Intervals {', '.join(fleet.intervals)}: {fleet.series:,} series, {fleet.candles:,} "
        f"candles. {_short(figures, fleet)}",
        "",
        *_needs(needs),
        "",
        "- **Request weight**: the list of markets, 20, is kept for an hour below BOT4_HOME and "
        "asked for once; each run asks whether Binance answers, for its time and for candles. "
        "What the daemon itself does to write so many runs into its queue is not in these "
        "figures.",
        "- **Downloads** are not in the first filling: the archive has no request weight, and "
        "the line decides. No zip is asked for twice.",
        "- **Redis** holds no more than the runs that wait for a worker: the daemon keeps its "
        "queue in PostgreSQL and hands out as many runs as may be at work at a time.",
        "- **PostgreSQL** grows until old runs are deleted: Dagster keeps every event of every "
        "run, the results of checks among them (`dagster run delete`, or Dagster's pages). Where "
        "an interval need not be asked for every hour, launch a backfill of its series instead, "
        "which is one run.",
        "",
        "## The weekly retrain",
        "",
        "A pool's models learn from all its series at once, in one process: memory and time grow "
        "with the candles of the pool. Fitted over the pools below: fixed cost and cost a candle. "
        "The comparison with the models that trade, at promotion, is not in it.",
    ]
    for symbols in POOLS:
        lines += ["", f"**{symbols} symbols**", "", *_needs(retraining(figures, fleet, symbols))]
    rows = [
        (
            f"{memory} GB",
            *(str(affordable(figures, fleet, one, memory)) for one in fleet.intervals),
        )
        for memory in MEMORIES_GB
    ]
    lines += [
        "",
        "Symbols that a pool may have, by the memory of the machine that trains it:",
        "",
        *markdown(("memory", *fleet.intervals), rows),
        "",
        "Models need not be trained on every symbol that they name. `bot4-pipelines run` with "
        "`BOT4_SYMBOLS` and `BOT4_INTERVAL` trains a pool that fits, on the store that the fleet "
        "fills; with `BOT4_HOLDOUT` and a verdict that passed, the other symbols may be traded "
        "too ([pipeline.md](pipeline.md#symbols-not-trained-on)).",
        "",
        "## What was measured",
        "",
        "Ingestion year by year and features, series by series, as the partitions do it:",
        "",
        *markdown(_CELL_HEADS, [_cell(one) for one in figures.cells]),
        "",
        *_markdown_growth(figures),
        "",
        "Making the models of a pool, the LSTM with one step of training (a step takes "
        f"{amount(1000 * figures.step_cpu_s)} CPU ms, whatever the pool):",
        "",
        *markdown(
            ("symbols", "years", "candles", *(f"{name}, CPU s" for name in _steps(figures)),
             "peak MB"),
            [
                (str(one.symbols), str(one.years), f"{one.candles:,}",
                 *(amount(one.steps[name].cpu_s) for name in _steps(figures)),
                 f"{one.peak_mb:,.0f}")
                for one in figures.pools
            ],
        ),
        "",
        "Around a step: the code location's import takes "
        f"{amount(figures.import_cpu_s)} CPU s; a stored year that is asked for again "
        f"{amount(figures.function_cpu_ms)} CPU ms by the plain function, "
        + ", ".join(
            f"{amount(cost)} in a Dagster run kept in {name} "
            f"({figures.run_bytes[name] / 1024:.0f} KB a run)"
            for name, cost in figures.run_cpu_ms.items()
        )
        + ".",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _short(figures: Figures, fleet: Fleet) -> str:
    """Say the needs in one breath: all numbers are of the tables."""
    shortest = max(waits(fleet))
    workers = next(
        (one for one in WORKERS if tick_time(figures, fleet, one).value <= shortest), WORKERS[-1]
    )
    stored = sum(need.value for need in disk(figures, fleet))
    filled = sum(need.value for need in filling(figures, fleet) if need.unit == "CPU h")
    pool = retraining(figures, fleet, POOLS[0])
    hours = sum(need.value for need in pool if need.unit == "CPU h")
    held = max(need.value for need in pool if need.unit == "GB")
    month = next(need for need in tick(figures, fleet) if need.unit == "GB a month")
    held_mb, minutes = worker_memory(figures, fleet), tick_time(figures, fleet, workers)
    return (
        f"In short: {amount(stored)} GB of disk; {amount(filled)} CPU hours to fill it; "
        f"{workers} workers of {amount(held_mb.value)} MB, an hourly tick in "
        f"{amount(minutes.value)} minutes; {amount(month.value)} GB a month in PostgreSQL; "
        f"{amount(hours)} CPU hours and {amount(held)} GB of memory a week to train all intervals "
        f"on {POOLS[0]} symbols."
    )


def verdicts(figures: Figures) -> list[tuple[str, float, float]]:
    """Return what is asked of the growth: name, measured, most it may be."""
    alone = [one for one in figures.cells if one.workers == 1 and one.interval == "1h"]
    symbols, years = sorted({one.symbols for one in alone}), sorted({one.years for one in alone})
    by_symbols = [one for one in alone if one.years == years[-1]]
    by_years = [one for one in alone if one.symbols == symbols[-1]]
    few, many = (figures.cell(count, years[-1]) for count in symbols[-2:])
    found = [
        (f"{name} by {what}", growth(cells, cost), LINEAR)
        for name, cost in (
            ("ingestion", lambda cell: cell.ingest_cpu_s),
            ("features", lambda cell: cell.features_cpu_s),
        )
        for what, cells in (("symbols", by_symbols), ("years", by_years))
    ]
    return [*found, ("memory a further series adds, over its candles'", kept(few, many), BOUNDED)]


def _markdown_growth(figures: Figures) -> list[str]:
    rows = [
        (name, f"{value:.2f}", f"< {most:g}", "met" if value <= most else "MISSED")
        for name, value, most in verdicts(figures)
    ]
    pairs = [
        (one, figures.cell(one.symbols, one.years))
        for one in figures.cells
        if one.workers > 1 and one.interval == "1h"
    ]
    told = "; ".join(
        f"{many.symbols} symbols, {many.years} years: {one.wall_s / many.wall_s:.2f} times as "
        f"fast, {many.cpu_s / one.cpu_s:.2f} times the CPU"
        for many, one in pairs
    )
    return [
        "Growth is the slope of ln cost over ln candles: 1 is linear, 2 quadratic.",
        "",
        *markdown(("growth", "measured", "wanted", "verdict"), rows),
        *(["", f"Two workers side by side: {told}."] if told else []),
    ]


_CELL_HEADS = (
    "symbols", "interval", "years", "workers", "candles", "ingest, CPU s", "features, CPU s",
    "wall s", "peak MB", "of it the work's",
)  # fmt: skip


def _cell(one: Cell) -> tuple[str, ...]:
    return (
        str(one.symbols), one.interval, str(one.years), str(one.workers), f"{one.candles:,}",
        amount(one.ingest_cpu_s), amount(one.features_cpu_s), amount(one.wall_s),
        f"{one.peak_mb:.0f}", f"{one.own_mb:.0f}",
    )  # fmt: skip


def _needs(needs: Sequence[Need]) -> list[str]:
    rows = [(need.name, need.arithmetic, f"{amount(need.value)} {need.unit}") for need in needs]
    return markdown(("what", "arithmetic", "needs"), rows)


def _steps(figures: Figures) -> list[str]:
    return list(figures.pools[0].steps)
