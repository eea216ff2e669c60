"""The feature table as a user of pandas or polars would write it, to be timed beside ours.

Formulas of `bot4_runtime.features.schema`, of one contiguous run; a test holds both beside ours.
"""

import numpy as np
import pandas as pd
import polars as pl

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.features import schema as s

FAST, SLOW, SMOOTH = s.MACD_SPANS


def pandas_features(series: CandleSeries) -> np.ndarray:
    """Return float64[n, F], columns `schema.FEATURE_NAMES`; rows before LOOKBACK are not valid."""
    x = pd.Series(np.log(series.close))
    high, low = np.log(series.high), np.log(series.low)
    volume = pd.Series(series.volume)
    r = x.diff()
    square = r * r
    rv = np.sqrt(square.rolling(s.TREND_WINDOW).sum()).clip(lower=s.RV_FLOOR)
    unit = rv / s.ROOT_W
    gain = r.clip(lower=0.0).ewm(alpha=1.0 / s.RSI_WINDOW, adjust=False).mean()
    loss = (-r).clip(lower=0.0).ewm(alpha=1.0 / s.RSI_WINDOW, adjust=False).mean()
    macd = x.ewm(span=FAST, adjust=False).mean() - x.ewm(span=SLOW, adjust=False).mean()
    band = x.rolling(s.BOLLINGER_WINDOW)
    mean = volume.rolling(s.VOLUME_WINDOW).mean()
    log_rv = np.log(rv)
    short = np.sqrt(square.rolling(s.SHORT_WINDOW).sum())
    columns = [
        r / unit,
        *(r.rolling(s.TREND_WINDOW - lag).sum() / rv for lag in s.TREND_LAGS),
        0.5 * (gain - loss) / (gain + loss).clip(lower=s.RSI_FLOOR),
        macd / unit,
        macd.ewm(span=SMOOTH, adjust=False).mean() / unit,
        (x - band.mean()) / (4.0 * band.std(ddof=0).clip(lower=s.RV_FLOOR)),
        (high + low - 2.0 * x) / unit,
        np.log((volume / mean).where(mean > 0.0, 1.0).clip(lower=s.RATIO_FLOOR)),
        np.log(((high - low) / unit).clip(lower=s.RATIO_FLOOR)),
        np.log((short / rv).clip(lower=s.RATIO_FLOOR)),
        log_rv - log_rv.rolling(s.LEVEL_WINDOW).median(),
    ]
    return np.stack([column.to_numpy() for column in columns], axis=1)


def polars_features(series: CandleSeries) -> np.ndarray:
    """Return the same, by one lazy query."""
    frame = pl.LazyFrame(
        {
            "x": np.log(series.close),
            "high": np.log(series.high),
            "low": np.log(series.low),
            "volume": series.volume,
        }
    ).with_columns(r=pl.col("x").diff())
    x, r, volume = pl.col("x"), pl.col("r"), pl.col("volume")
    span = pl.col("high") - pl.col("low")
    rv, unit = pl.col("rv"), pl.col("rv") / s.ROOT_W
    wilder = {"alpha": 1.0 / s.RSI_WINDOW, "adjust": False, "ignore_nulls": True}
    frame = frame.with_columns(
        rv=(r * r).rolling_sum(s.TREND_WINDOW).sqrt().clip(s.RV_FLOOR),
        gain=r.clip(0.0).ewm_mean(**wilder),
        loss=(-r).clip(0.0).ewm_mean(**wilder),
        macd=x.ewm_mean(span=FAST, adjust=False) - x.ewm_mean(span=SLOW, adjust=False),
        mean=volume.rolling_mean(s.VOLUME_WINDOW),
        deviation=x.rolling_std(s.BOLLINGER_WINDOW, ddof=0).clip(s.RV_FLOOR),
        short=(r * r).rolling_sum(s.SHORT_WINDOW).sqrt(),
    )
    gain, loss, macd, mean = (pl.col(name) for name in ("gain", "loss", "macd", "mean"))
    ratio = pl.when(mean > 0.0).then(volume / mean).otherwise(1.0)
    columns = [
        r / unit,
        *(r.rolling_sum(s.TREND_WINDOW - lag) / rv for lag in s.TREND_LAGS),
        0.5 * (gain - loss) / (gain + loss).clip(s.RSI_FLOOR),
        macd / unit,
        macd.ewm_mean(span=SMOOTH, adjust=False) / unit,
        (x - x.rolling_mean(s.BOLLINGER_WINDOW)) / (4.0 * pl.col("deviation")),
        (pl.col("high") + pl.col("low") - 2.0 * x) / unit,
        ratio.clip(s.RATIO_FLOOR).log(),
        (span / unit).clip(s.RATIO_FLOOR).log(),
        (pl.col("short") / rv).clip(s.RATIO_FLOOR).log(),
        rv.log() - rv.log().rolling_median(s.LEVEL_WINDOW),
    ]
    named = [column.alias(name) for column, name in zip(columns, s.FEATURE_NAMES, strict=True)]
    return frame.select(named).collect().to_numpy()
