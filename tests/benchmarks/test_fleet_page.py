"""What a fleet needs follows from the committed figures, by arithmetic that is worked by hand here."""

import math

import msgspec
import pytest

pytest.importorskip("benchmarks.fleet_page")  # mutation testing copies the tests alone
from benchmarks import bench_pipeline, pipeline_cell
from benchmarks.bench_pipeline import FIGURES, FULL, PAGE, Plan, Progress, cell, side_by_side
from benchmarks.fleet_figures import Cell, Figures, Step, Trained, growth, kept, line
from benchmarks.fleet_needs import (
    Fleet,
    affordable,
    disk,
    filling,
    retraining,
    tick,
    worker_memory,
)
from benchmarks.fleet_page import page, verdicts
from benchmarks.pipeline_cell import Work
from bot4_pipelines.ingest.rate import WEIGHTS
from bot4_pipelines.ingest.rest import WEIGHT
from bot4_runtime.domain.candle import Market

FLEET = Fleet(symbols=10, intervals=("1h", "1d"), years=4)


def made(symbols, years, workers=1, interval="1h", **changed):
    """A cell of 1,000 candles a series-year: 1 CPU ms of ingestion a candle, 2 of features."""
    candles = 1_000 * symbols * years
    numbers = {
        "candles": candles,
        "ingest_cpu_s": 0.001 * candles,
        "features_cpu_s": 0.002 * candles,
        "wall_s": 0.003 * candles / workers,
        "before_mb": 100.0,
        "peak_mb": 100.0 + 0.01 * 1_000 * years,
        "bytes": {"candles": 25 * candles, "features": 200 * candles},
    }
    return Cell(symbols=symbols, years=years, workers=workers, interval=interval,
                **numbers | changed)  # fmt: skip


def trained(symbols, candles):
    """Models that take 10 s and 2 ms a candle, 300 MB and 0.005 MB a candle."""
    steps = {"hmm": Step(4 + 0.001 * candles, 200.0),
             "lstm": Step(6 + 0.001 * candles, 300 + 0.005 * candles)}  # fmt: skip
    return Trained(symbols=symbols, years=2, interval="1h", candles=candles, steps=steps)


def figures(**changed):
    numbers = {
        "machine": {"date": "2026-01-01", "cpu": "some", "cores": 2, "load": 0.1,
                    "python": "3.11", "system": "Linux", "bot4": "compiled"},
        "cells": (made(1, 2, interval="1d"),
                  *(made(symbols, years) for symbols in (1, 5) for years in (1, 2, 7)),
                  made(5, 7, 2)),
        "pools": (trained(1, 1_000), trained(2, 2_000), trained(3, 3_000)),
        "step_cpu_s": 0.12,
        "import_cpu_s": 1.5,
        "picture_cpu_ms": 180.0,
        "function_cpu_ms": 40.0,
        "run_cpu_ms": {"SQLite": 200.0, "PostgreSQL": 240.0},
        "run_bytes": {"SQLite": 50_000.0, "PostgreSQL": 60_000.0},
    }  # fmt: skip
    return Figures(**numbers | changed)


def values(needs):
    return {need.name: need.value for need in needs}


def test_a_fleet_counts_its_series_and_candles():
    assert FLEET.series == 20
    assert FLEET.rows("1h") == round(4 * 365.25 * 24)
    assert FLEET.candles == 10 * (35_064 + 1_461)


def test_disk_is_bytes_a_candle_of_the_largest_cell():
    needs = values(disk(figures(), FLEET))
    assert needs["disk, candles"] == pytest.approx(365_250 * 25 / 1e9)
    assert needs["disk, features"] == pytest.approx(365_250 * 200 / 1e9)


def test_the_first_filling_is_series_years_and_runs():
    needs = values(filling(figures(), FLEET))
    assert needs["first filling, 1h"] == pytest.approx(10 * 4 * 3.0 / 3600)  # 3 CPU s a year
    assert needs["first filling, Dagster's part"] == pytest.approx(40 * 0.2 / 3600)
    assert needs["first filling, pictures where every year has one finding"] == pytest.approx(
        80 * 0.18 / 3600
    )
    assert needs["first filling, files of Binance's archive"] == 20 * 4 * 12


def test_an_hourly_tick_is_a_run_a_series():
    needs = values(tick(figures(), FLEET))
    assert needs["hourly tick, CPU of the workers"] == pytest.approx(20 * 0.24 / 60)
    apart = needs["the same where each run is a process of its own"]
    assert apart == pytest.approx(20 * 1.74 / 60)
    assert WEIGHT[Market.SPOT] == {"ping": 1, "markets": 20, "time": 1, "candles": 2}
    weight = (20 + 20 * (1 + 1 + 2)) / WEIGHTS[Market.SPOT]  # the list of markets once
    assert needs["hourly tick, request weight of Binance"] == math.ceil(weight) == 1
    large = values(tick(figures(), Fleet(symbols=5_000, intervals=("1h",))))
    assert large["hourly tick, request weight of Binance"] == math.ceil(20_020 / 3_000) == 7
    assert needs["hourly tick, the daemon's queue"] == pytest.approx(2 * 5 / 60)
    assert needs["hourly tick, 1 workers, a core each"] == 1  # the weight
    slow = values(tick(figures(run_cpu_ms={"PostgreSQL": 60_000.0}), FLEET))
    assert slow["hourly tick, 2 workers, a core each"] == pytest.approx(10.0)  # the CPU
    month = needs["PostgreSQL, growth by hourly ticks"]
    assert month == pytest.approx(20 * 24 * 30 * 60_000 / 1e9)


def test_a_worker_holds_one_series_whatever_the_symbols():
    held = worker_memory(figures(), FLEET)
    assert held.value == pytest.approx(100 + 35_064 * 0.01)
    assert worker_memory(figures(), Fleet(symbols=9_999, intervals=("1h",), years=4)) == held


def test_training_is_steps_and_a_line_over_the_candles_of_the_pool():
    assert line(figures(), lambda one: one.cpu_s) == pytest.approx((10.0, 0.002))
    needs = values(retraining(figures(), FLEET, 10))
    assert needs["1h, CPU"] == pytest.approx((3_000 * 0.12 + 10 + 0.002 * 350_640) / 3600)
    assert needs["1h, memory"] == pytest.approx((300 + 0.005 * 350_640) / 1000)
    most = affordable(figures(), FLEET, "1h", 16)
    assert most == math.floor((16_000 - 300) / (0.005 * 35_064))
    held = values(retraining(figures(), FLEET, most))["1h, memory"]
    assert held <= 16 < values(retraining(figures(), FLEET, most + 1))["1h, memory"]
    assert affordable(figures(), FLEET, "1h", 0.1) == 0


def test_growth_is_the_power_of_the_size():
    cells = [made(1, years, ingest_cpu_s=0.1 * years**2) for years in (1, 2, 4, 7)]
    assert growth(cells, lambda one: one.ingest_cpu_s) == pytest.approx(2.0)
    assert growth(cells, lambda one: one.features_cpu_s) == pytest.approx(1.0)


def test_quadratic_ingestion_and_memory_of_many_series_miss_and_linear_ones_do_not():
    found = {name: (value, most) for name, value, most in verdicts(figures())}
    assert len(found) == 5
    assert all(value <= most for value, most in found.values())
    slow = [made(symbols, years, ingest_cpu_s=symbols * years**2, peak_mb=100.0 + 0.336 * symbols)
            for symbols in (1, 5) for years in (1, 2, 7)]  # fmt: skip
    missed = {name for name, value, most in verdicts(figures(cells=tuple(slow))) if value > most}
    assert missed == {"ingestion by years", "memory a further series adds, over its candles'"}


def test_memory_that_keeps_every_series_is_once_its_candles():
    few, many = (made(symbols, 7, peak_mb=100.0 + 0.336 * symbols) for symbols in (5, 20))
    assert kept(few, many) == pytest.approx(1.0)  # 7,000 candles of 48 bytes
    assert kept(few, made(20, 7, peak_mb=few.peak_mb)) == 0.0


def test_a_cell_that_was_not_measured_is_named():
    with pytest.raises(LookupError, match="3 symbols, 2 years of 1h, 1 workers"):
        figures().cell(3, 2)


def test_the_page_tells_every_need_with_its_arithmetic():
    text = page(figures(), FLEET)
    for need in (*disk(figures(), FLEET), *filling(figures(), FLEET), *tick(figures(), FLEET)):
        assert f"| {need.name} | {need.arithmetic} |" in text
    assert "5 symbols, 7 years: 2.00 times as fast, 1.00 times the CPU" in text
    assert text.count("| met |") == 5


def test_the_committed_page_is_that_of_the_committed_figures():
    held = msgspec.json.decode(FIGURES.read_bytes(), type=Figures)
    told = "python -m benchmarks.bench_pipeline --page writes it anew"
    assert PAGE.read_text(encoding="utf-8") == page(held), told
    measured = {(one.symbols, one.years, one.workers, one.interval) for one in held.cells}
    assert measured == set(FULL.cells)
    assert {(one.symbols, one.years) for one in held.pools} == set(FULL.pools)


def test_every_cell_that_a_page_reads_is_in_both_plans():
    for plan in (FULL, bench_pipeline.QUICK):
        alone = {(count, years, kind) for count, years, workers, kind in plan.cells
                 if workers == 1}  # fmt: skip
        assert {(1, 2, kind) for kind in Fleet().intervals} <= alone
        assert {(1, 1, "1h"), (1, 7, "1h")} <= alone
        assert len(plan.pools) >= 2


def test_a_cell_is_measured_by_a_process_for_each_worker(capsys):
    done = cell(2, 1, 2, "4h", Progress(1))
    assert done.candles == 2 * 2_196  # 2024
    assert min(done.ingest_cpu_s, done.features_cpu_s, done.wall_s) > 0.0
    assert done.peak_mb >= done.before_mb > 0.0
    assert done.bytes["features"] > done.bytes["candles"] > 0
    assert "2 symbols, 1 years of 4h, 2 workers" in capsys.readouterr().out


def test_a_worker_that_fails_says_why(capsys):
    with pytest.raises(RuntimeError, match="is no interval"):
        side_by_side([Work(("SYM01USDT",), 1, "7m", "unused")], Progress(1))


@pytest.mark.slow
def test_models_of_a_pool_are_made_step_by_step(tmp_path, monkeypatch):
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "simulated")
    monkeypatch.setenv("BOT4_YEARS", "3")
    work = Work(("SYM01USDT",), 2, "4h", str(tmp_path), learn=True)
    told = pipeline_cell.worked(work, lambda _: None)
    assert list(told["steps"]) == ["hmm", "labels", "lstm", "leak audit", "evidence"]
    assert all(step["cpu_s"] > 0.0 < step["peak_mb"] for step in told["steps"].values())


def test_a_plan_is_measured_whole(monkeypatch, capsys):
    monkeypatch.setattr(bench_pipeline, "training_steps", lambda: ([0.1], [0.2]))
    monkeypatch.setattr(bench_pipeline, "SERVER", "")
    found = bench_pipeline.measured(Plan(cells=((1, 1, 1, "1d"),), pools=(), rounds=1))
    assert (found.step_cpu_s, len(found.cells)) == (0.2, 1)
    assert set(found.run_cpu_ms) == set(found.run_bytes) == {"SQLite", "PostgreSQL"}
    assert found.picture_cpu_ms > 0.0
    assert min(found.run_cpu_ms.values()) > found.function_cpu_ms > 0.0
    assert "[ 6/6]" in capsys.readouterr().out
