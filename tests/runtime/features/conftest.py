from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market, Origin, SeriesId


def walk(n: int, seed: int, *, start: int = 0, symbol: str = "BTCUSDT") -> CandleSeries:
    """A random walk with changing volatility and volume: any candles will do here."""
    rng = np.random.default_rng(seed)
    sigma = 0.01 * np.exp(np.cumsum(rng.normal(0, 0.05, n)) * 0.2)
    close = 100.0 * np.exp(np.cumsum(rng.standard_t(4, n) * sigma))
    opened = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.3, n)) * sigma)
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.3, n)) * sigma)
    volume = rng.lognormal(5, 1, n)
    times = (np.arange(n, dtype=np.int64) + start) * 3_600_000
    identity = SeriesId(Origin.SIMULATED, Market.SPOT, symbol, "1h")
    return CandleSeries(identity, times, opened, high, low, close, volume)


def read_real(folder: Path, symbol: str) -> CandleSeries:
    frame = pl.read_parquet(folder / "spot" / "1h" / f"{symbol}.parquet")
    times = frame["timestamp"]
    millis = times.dt.epoch("ms") if times.dtype == pl.Datetime else times
    columns = [
        frame[name].to_numpy().astype(np.float64)
        for name in ("open", "high", "low", "close", "volume")
    ]
    identity = SeriesId(Origin.REAL, Market.SPOT, symbol, "1h")
    return CandleSeries(identity, millis.to_numpy().astype(np.int64), *columns)


@pytest.fixture(scope="session")
def make_walk():
    return walk


@pytest.fixture(scope="session")
def real_eth(test_data: Path) -> CandleSeries:
    return read_real(test_data, "ETHUSDT")
