"""Candles with their feature rows, and what a detector makes of them."""

import math

import numpy as np

from bot4_runtime.domain.candle import Candle
from bot4_runtime.features.incremental import FeatureRow
from bot4_runtime.features.schema import FEATURE_NAMES, LOOKBACK, TREND_WINDOW
from bot4_runtime.regime.loader import load_model

HOUR = 3_600_000


def load(data_and_manifest, make):
    data, manifest = data_and_manifest
    return load_model(data, manifest.encode(), make.sha256(data))


def steps(count, seed=0, gap_at=None, symbol="BTCUSDT"):
    """Yield candles with rows as features would make them, of a walk's trend."""
    rng = np.random.default_rng(seed)
    returns = np.random.default_rng(seed + 100).normal(0, 0.01, size=count + TREND_WINDOW)
    windows = np.lib.stride_tricks.sliding_window_view(returns, TREND_WINDOW)[1:]
    trend = windows.sum(axis=1) / np.sqrt((windows**2).sum(axis=1))
    returns = returns[TREND_WINDOW:]
    contiguous = 0
    for number in range(count):
        missing = gap_at is not None and number >= gap_at
        contiguous = 1 if number == gap_at else contiguous + 1
        known, valid = contiguous > TREND_WINDOW, contiguous >= LOOKBACK
        open_time = (number + missing) * HOUR
        values = (
            rng.normal(size=len(FEATURE_NAMES)) if valid else np.full(len(FEATURE_NAMES), math.nan)
        )
        yield (
            Candle(symbol=symbol, interval="1h", open_time_ms=open_time, open=1.0, high=1.0,
                   low=1.0, close=1.0, volume=1.0),
            FeatureRow(open_time, values, valid, float(trend[number]) if known else math.nan,
                       0.06 if known else math.nan,
                       float(returns[number]) if contiguous > 1 else math.nan, contiguous),
        )  # fmt: skip


def run(detector, rows):
    return [detector.update(candle, row) for candle, row in rows]
