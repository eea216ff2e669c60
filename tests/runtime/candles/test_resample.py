"""Longer candles equal polars' own grouping, and Binance's own 1h candles, bar by bar."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.candles.files import read_candle_file, to_series
from bot4_runtime.candles.resample import finer, resample
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import INTERVALS_MS, Market, Origin
from bot4_runtime.domain.errors import DataError

HOUR = 3_600_000
MONDAY = 1_704_067_200_000  # 2024-01-01


def frame_of(series: CandleSeries) -> pl.DataFrame:
    columns = {name: getattr(series, name) for name in COLUMNS}
    times = pl.Series("time", series.open_time_ms).cast(pl.Datetime("ms"))
    return pl.DataFrame({"time": times, **columns})


def grouped(series: CandleSeries, interval: str) -> pl.DataFrame:
    """What polars makes of the same rows: whole bars only."""
    length = INTERVALS_MS[interval]
    # polars begins weeks on Mondays and longer steps at 1970, as Binance does
    bars = (
        frame_of(series)
        .group_by_dynamic("time", every="1w" if interval == "1w" else f"{length}ms")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
            pl.len().alias("n"),
        )
    )
    return bars.filter(pl.col("n") == length // series.interval_ms)


def assert_equal(made: CandleSeries, oracle: pl.DataFrame) -> None:
    assert made.open_time_ms.tolist() == oracle["time"].dt.epoch("ms").to_list()
    for name in ("open", "high", "low", "close"):
        assert getattr(made, name).tolist() == oracle[name].to_list()
    np.testing.assert_allclose(made.volume, oracle["volume"].to_numpy(), rtol=1e-12, atol=6e-9)


@given(
    interval=st.sampled_from(["2h", "4h", "6h", "12h", "1d", "3d", "1w"]),
    offset=st.integers(0, 400),
    rows=st.integers(1, 500),
    holes=st.lists(st.tuples(st.integers(0, 499), st.integers(1, 30)), max_size=4),
)
def test_bars_equal_polars_whatever_is_missing(interval, offset, rows, holes):
    start = MONDAY + offset * HOUR
    series = SimulatedMarket(3).series("BTCUSDT", "1h", start, start + rows * HOUR)
    keep = np.ones(len(series), dtype=bool)
    for first, length in holes:
        keep[first : first + length] = False
    keep[0] = True
    held = CandleSeries(
        series.id, series.open_time_ms[keep], *(getattr(series, n)[keep] for n in COLUMNS)
    )
    made = resample(held, interval)
    assert made.id.interval == interval
    assert_equal(made, grouped(held, interval))


@pytest.mark.data
@pytest.mark.parametrize("name", ["BTCUSDT-20250520-20250630", "ETHUSDT-20230316-20230501"])
def test_real_minutes_make_binances_own_hours(test_data: Path, name):
    raw = read_candle_file(test_data / "spot" / "1m" / f"{name}.parquet")
    minutes = to_series(raw, Market.SPOT, "1m", Origin.REAL)
    hours = to_series(
        read_candle_file(test_data / "spot" / "1h" / f"{raw.symbol}.parquet"),
        Market.SPOT,
        "1h",
        Origin.REAL,
    )
    made = resample(minutes, "1h")
    assert_equal(made, grouped(minutes, "1h"))
    at = np.searchsorted(hours.open_time_ms, made.open_time_ms)
    assert len(made) > 1_000
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(hours, column)[at], getattr(made, column), column)


def test_what_cannot_be_made_is_refused_with_what_could():
    series = SimulatedMarket(3).series("BTCUSDT", "4h", MONDAY, MONDAY + 40 * HOUR)
    with pytest.raises(DataError, match="6h candles cannot be made of 4h ones"):
        resample(series, "6h")
    with pytest.raises(DataError, match="unknown interval"):
        resample(series, "5h")
    assert resample(series, "4h") is series
    assert len(resample(series.rows(slice(0, 0)), "1d")) == 0
    assert finer("1h") == ["30m", "15m", "5m", "3m", "1m"]
    assert "3d" not in finer("1w")
