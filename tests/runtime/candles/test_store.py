"""The store is idempotent, takes restatements, and never shows half a write."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.errors import DataError, StoreBusy

HOUR = 3_600_000
NEW_YEAR = 1_704_067_200_000  # 2024-01-01


@pytest.fixture
def series() -> CandleSeries:
    return SimulatedMarket(1).series("BTCUSDT", "1h", NEW_YEAR - 100 * HOUR, NEW_YEAR + 100 * HOUR)


def restated(series: CandleSeries, row: int) -> CandleSeries:
    volume = series.volume.copy()
    volume[row] += 1.0
    columns = (series.open, series.high, series.low, series.close)
    return CandleSeries(series.id, series.open_time_ms, *columns, volume)


def test_what_is_written_is_read_and_twice_changes_nothing(
    tmp_path: Path, series: CandleSeries
) -> None:
    store = CandleStore(tmp_path)
    assert store.list_series() == []
    first = store.write(series)
    assert (first.inserted, first.unchanged, first.restated) == (200, 0, 0)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert [path.name for path in sorted(stamps)] == ["2023.parquet", "2024.parquet"]
    again = store.write(series)
    assert (again.inserted, again.unchanged, again.restated) == (0, 200, 0)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert store.read(series.id).content_sha256() == series.content_sha256()
    assert store.list_series() == [series.id]
    assert store.range(series.id) == (NEW_YEAR - 100 * HOUR, NEW_YEAR + 99 * HOUR)


def test_pieces_in_any_order_make_the_whole(tmp_path: Path, series: CandleSeries) -> None:
    store = CandleStore(tmp_path)
    for start in (120, 0, 60):
        store.write(series.rows(slice(start, start + 80)))
    assert store.read(series.id).content_sha256() == series.content_sha256()


def test_a_restated_candle_replaces_the_old_one_and_is_remembered(
    tmp_path: Path, series: CandleSeries
) -> None:
    store = CandleStore(tmp_path)
    store.write(series)
    changed = restated(series, 150)
    report = store.write(changed, source="2024-01.zip", now_ms=77)
    assert (report.inserted, report.unchanged, report.restated) == (0, 199, 1)
    time, old = int(series.open_time_ms[150]), float(series.volume[150])
    assert report.restatements == ((time, "volume", old, old + 1.0),)
    (told,) = store.restatements(series.id)
    assert (told.open_time_ms, told.column, told.old, told.new) == report.restatements[0]
    assert (told.at_ms, told.source) == (77, "2024-01.zip")
    assert store.read(series.id).content_sha256() == changed.content_sha256()


def test_a_history_without_times_and_one_cut_short_are_read(
    tmp_path: Path, series: CandleSeries
) -> None:
    store = CandleStore(tmp_path)
    assert store.restatements(series.id) == []
    store.write(series)
    path = tmp_path / series.id.key / "restatements.jsonl"
    old = json.dumps({"open_time_ms": 5, "column": "close", "old": 1.0, "new": 2.0})
    path.write_text(old + "\n")
    store.write(restated(series, 3), source="REST")
    with path.open("a") as file:
        file.write(old[:20])
    first, second = store.restatements(series.id)
    assert (first.at_ms, first.source) == (None, None)
    assert second.source == "REST"
    assert second.at_ms is not None
    path.write_text("{}\n" + old + "\n")
    with pytest.raises(DataError, match="line 1 of the history"):
        store.restatements(series.id)


def test_a_history_cut_short_anywhere_goes_on_with_whole_lines(
    tmp_path: Path, series: CandleSeries
) -> None:
    """The next write after a kill at any byte: what was whole stays, what is new is whole."""
    store = CandleStore(tmp_path)
    store.write(series)
    path = tmp_path / series.id.key / "restatements.jsonl"
    store.write(restated(series, 3), source="first", now_ms=1)
    before = path.stat().st_size
    # The candles of the second write come last, after its history; the same rows are stored again.
    year = tmp_path / series.id.key / "2023.parquet"
    candles = year.read_bytes()
    second = restated(restated(series, 3), 5)
    store.write(second, source="second", now_ms=2)
    history = path.read_bytes()
    for cut in range(before, len(history) + 1):
        year.write_bytes(candles)
        path.write_bytes(history[:cut])
        known = [(line.open_time_ms, line.at_ms) for line in store.restatements(series.id)]
        whole = cut >= len(history) - 1  # but for its newline
        assert len(known) == (2 if whole else 1)
        store.write(second, source="third", now_ms=3)
        told = [(line.open_time_ms, line.at_ms) for line in store.restatements(series.id)]
        assert told == [*known, (int(series.open_time_ms[5]), 3)]
        assert path.read_bytes().endswith(b"\n")


def test_ranges_are_half_open_and_an_empty_one_is_an_error(
    tmp_path: Path, series: CandleSeries
) -> None:
    store = CandleStore(tmp_path)
    with pytest.raises(DataError, match="no candles of simulated/spot/BTCUSDT/1h"):
        store.read(series.id)
    assert store.range(series.id) is None
    store.write(series)
    part = store.read(series.id, NEW_YEAR, NEW_YEAR + 2 * HOUR)
    assert part.open_time_ms.tolist() == [NEW_YEAR, NEW_YEAR + HOUR]
    with pytest.raises(DataError, match="stored are"):
        store.read(series.id, 0, HOUR)


def test_only_the_years_asked_for_are_opened(tmp_path: Path, series: CandleSeries) -> None:
    store = CandleStore(tmp_path)
    store.write(series)
    (tmp_path / series.id.key / "2023.parquet").write_bytes(b"damaged")
    assert len(store.read(series.id, NEW_YEAR)) == 100
    assert len(store.read(series.id, NEW_YEAR, NEW_YEAR + HOUR)) == 1
    assert store.find(series.id, NEW_YEAR + 100 * HOUR) is None
    assert store.find(series.id, NEW_YEAR + 9_000 * HOUR) is None
    for range_ms in ((None, NEW_YEAR), (NEW_YEAR - 1, None), (NEW_YEAR - HOUR, NEW_YEAR)):
        with pytest.raises(DataError, match=r"2023\.parquet"):
            store.find(series.id, *range_ms)


def test_the_series_of_one_symbol_are_those_of_the_whole_list(tmp_path: Path) -> None:
    store = CandleStore(tmp_path)
    for symbol, interval in (("BTCUSDT", "1h"), ("BTCUSDT", "4h"), ("ETHUSDT", "1h")):
        store.write(SimulatedMarket(1).series(symbol, interval, NEW_YEAR, NEW_YEAR + 12 * HOUR))
    whole = store.list_series()
    assert len(whole) == 3
    for symbol in ("BTCUSDT", "ETHUSDT", "LTCUSDT"):
        assert store.list_series(symbol) == [one for one in whole if one.symbol == symbol]


def test_an_empty_series_writes_nothing(tmp_path: Path, series: CandleSeries) -> None:
    assert CandleStore(tmp_path).write(series.rows(slice(0, 0))).inserted == 0


def test_damaged_or_foreign_files_are_named(tmp_path: Path, series: CandleSeries) -> None:
    store = CandleStore(tmp_path)
    store.write(series)
    path = tmp_path / series.id.key / "2024.parquet"
    pl.DataFrame({"a": np.arange(3)}).write_parquet(path)
    with pytest.raises(DataError, match=r"2024\.parquet has columns"):
        store.read(series.id)
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"cannot read stored candles from .*2024\.parquet"):
        store.read(series.id)


def hold_lock(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """Let another process hold a series' lock; returns when it does."""
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(float(sys.argv[2]))"
    )
    command = [sys.executable, "-S", "-c", code, str(folder / ".lock"), str(seconds)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_writer_of_a_series_waits_and_then_writes(
    tmp_path: Path, series: CandleSeries
) -> None:
    store = CandleStore(tmp_path)
    store.write(series.rows(slice(0, 100)))
    with hold_lock(tmp_path / series.id.key, 0.3):
        began = time.monotonic()
        assert store.write(series).inserted == 100
        assert time.monotonic() - began > 0.1


def test_a_writer_waits_for_its_own_series_only_and_not_for_ever(
    tmp_path: Path, series: CandleSeries
) -> None:
    store = CandleStore(tmp_path, lock_wait_s=0.1)
    store.write(series)
    other = SimulatedMarket(1).series("ETHUSDT", "1h", NEW_YEAR, NEW_YEAR + 5 * HOUR)
    with hold_lock(tmp_path / series.id.key, 30) as holder:
        with pytest.raises(StoreBusy, match=r"has been writing candles to .*BTCUSDT.* for 0\.1 s"):
            store.write(series)
        assert store.write(other).inserted == 5
        holder.kill()
