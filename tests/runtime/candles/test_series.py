"""A series holds only closed, ordered, possible candles."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.candles.gaps import find_gaps
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.domain.errors import DataError

HOUR = 3_600_000
ID = SeriesId(Origin.REAL, Market.SPOT, "BTCUSDT", "1h")


def series_at(hours: list[int]) -> CandleSeries:
    n = len(hours)
    close = 100.0 + np.arange(n)
    return CandleSeries(
        ID, np.array(hours, np.int64) * HOUR, close - 0.5, close + 1, close - 1, close, np.ones(n)
    )


@given(st.sets(st.integers(0, 60), max_size=40))
def test_runs_and_gaps_agree_with_counting_by_hand(hours: set[int]) -> None:
    times = sorted(hours)
    series = series_at(times)
    by_hand: list[list[int]] = []
    for hour in times:
        if by_hand and hour == by_hand[-1][-1] + 1:
            by_hand[-1].append(hour)
        else:
            by_hand.append([hour])
    assert [(series.open_time_ms[run] // HOUR).tolist() for run in series.runs()] == by_hand
    gaps = find_gaps(series.open_time_ms, HOUR)
    expected = [
        ((a[-1] + 1) * HOUR, b[0] * HOUR, b[0] - a[-1] - 1) for a, b in itertools.pairwise(by_hand)
    ]
    assert [(gap.from_ms, gap.to_ms, gap.missing) for gap in gaps] == expected


@given(st.integers(-1, 12), st.integers(-1, 12))
def test_between_is_a_filter_on_open_times(start: int, stop: int) -> None:
    series = series_at([0, 1, 2, 5, 6, 9])
    got = series.between(start * HOUR, stop * HOUR)
    kept = [t for t in [0, 1, 2, 5, 6, 9] if start <= t < stop]
    assert (got.open_time_ms // HOUR).tolist() == kept
    assert len(series.between(None, None)) == 6


def test_iteration_gives_the_rows_as_candles() -> None:
    series = series_at([3, 4])
    first, second = series
    assert first == series.candle(0)
    assert second.open_time_ms == 4 * HOUR
    assert second.close_time_ms == 5 * HOUR


def test_the_hash_covers_identity_and_every_column() -> None:
    series = series_at([0, 1])
    seen = {series.content_sha256(), series_at([0, 2]).content_sha256()}
    for name in COLUMNS:
        columns = {n: getattr(series, n) for n in COLUMNS}
        columns[name] = columns[name] + (0.25 if name != "low" else -0.25)
        seen.add(CandleSeries(ID, series.open_time_ms, **columns).content_sha256())
    other = SeriesId(Origin.SIMULATED, Market.SPOT, "BTCUSDT", "1h")
    columns = {n: getattr(series, n) for n in COLUMNS}
    seen.add(CandleSeries(other, series.open_time_ms, **columns).content_sha256())
    assert len(seen) == 8
    assert series_at([0, 1]).content_sha256() in seen


def test_columns_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        series_at([0, 1]).close[0] = 1.0


@pytest.mark.parametrize(("hours", "words"), [([1, 1], "not in order"), ([2, 1], "not in order")])
def test_times_that_do_not_ascend_are_refused(hours: list[int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        series_at(hours)


def test_times_off_the_grid_are_refused() -> None:
    one = np.ones(1)
    with pytest.raises(DataError, match="off the interval's grid"):
        CandleSeries(ID, np.array([5], np.int64), one, one, one, one, one)


def test_weeks_begin_on_mondays() -> None:
    week = SeriesId(Origin.REAL, Market.SPOT, "BTCUSDT", "1w")
    monday = 1_735_516_800_000  # 2024-12-30
    one = np.ones(1)
    assert len(CandleSeries(week, np.array([monday], np.int64), one, one, one, one, one)) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [("open", np.nan), ("high", np.inf), ("low", 0.0), ("close", 1e9), ("volume", -1.0)],
)
def test_impossible_rows_are_refused(column: str, value: float) -> None:
    columns = {name: np.full(2, 5.0) for name in COLUMNS}
    columns[column][1] = value
    with pytest.raises(DataError, match="1 of 2 candles"):
        CandleSeries(ID, np.array([0, HOUR], np.int64), **columns)


def test_columns_of_other_lengths_or_types_are_refused() -> None:
    one = np.ones(1)
    times = np.array([0], np.int64)
    with pytest.raises(DataError, match="differ in length"):
        CandleSeries(ID, times, one, one, one, one, np.ones(2))
    with pytest.raises(DataError, match="must be int64"):
        CandleSeries(ID, times.astype(float), one, one, one, one, one)
