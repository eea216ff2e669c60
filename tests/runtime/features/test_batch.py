"""Batch features against a second, naive implementation on pandas and plain loops."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.features import schema as s
from bot4_runtime.features.batch import compute, compute_run


def naive_row(series: CandleSeries, t: int) -> dict[str, float]:
    """The row of candle t from the last LOOKBACK candles alone, recursions restarted there."""
    part = slice(t - s.LOOKBACK + 1, t + 1)
    x = pd.Series(np.log(series.close[part]))
    volume = pd.Series(series.volume[part])
    r = x.diff().dropna()
    power = math.sqrt(sum(v * v for v in r.iloc[-72:]))
    unit = power / math.sqrt(72)
    row = {"return": r.iloc[-1] / unit}
    # trend_k keeps the newest 72 - k returns
    for lag in s.TREND_LAGS:
        row[f"trend_{lag}"] = math.fsum(r.iloc[-(72 - lag) :]) / power
    up = r.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean().iloc[-1]
    down = (-r).clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean().iloc[-1]
    row["rsi"] = (100 - 100 / (1 + up / down)) / 100 - 0.5
    macd = x.ewm(span=12, adjust=False).mean() - x.ewm(span=26, adjust=False).mean()
    row["macd"] = macd.iloc[-1] / unit
    row["macd_signal"] = macd.ewm(span=9, adjust=False).mean().iloc[-1] / unit
    middle, width = x.iloc[-20:].mean(), 2 * x.iloc[-20:].std(ddof=0)
    row["bollinger"] = (x.iloc[-1] - (middle - width)) / (2 * width) - 0.5
    high, low = math.log(series.high[t]), math.log(series.low[t])
    row["wick"] = (high + low - 2 * x.iloc[-1]) / unit
    row["volume_ratio"] = math.log(volume.iloc[-1] / volume.iloc[-10:].mean())
    row["range"] = math.log((high - low) / unit)
    row["volatility_24"] = math.log(math.sqrt((r.iloc[-24:] ** 2).sum()) / power)
    log_rv = np.log(np.sqrt((r**2).rolling(72).sum()))
    row["volatility_level"] = log_rv.iloc[-1] - log_rv.iloc[-250:].median()
    return row


def with_columns(series: CandleSeries, **columns: np.ndarray) -> CandleSeries:
    names = ("open", "high", "low", "close", "volume")
    return CandleSeries(
        series.id, series.open_time_ms, *(columns.get(n, getattr(series, n)) for n in names)
    )


def joined(*parts: CandleSeries) -> CandleSeries:
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return CandleSeries(
        parts[0].id, *(np.concatenate([getattr(p, n) for p in parts]) for n in names)
    )


@given(st.integers(0, 2**32 - 1), st.integers(511, 1_299))
@settings(max_examples=12, deadline=None)
def test_a_row_is_what_its_last_512_candles_say(make_walk, seed: int, t: int) -> None:
    series = make_walk(1_300, seed)
    found = dict(zip(s.FEATURE_NAMES, compute(series).values[t], strict=True))
    assert found == pytest.approx(naive_row(series, t), abs=1e-9)


@pytest.mark.data
def test_rows_of_real_candles_are_what_the_naive_form_says(real_eth) -> None:
    table = compute(real_eth)
    rng = np.random.default_rng(3)
    for t in rng.choice(np.flatnonzero(table.valid), size=40, replace=False):
        if real_eth.volume[t] > 0:
            found = dict(zip(s.FEATURE_NAMES, table.values[t], strict=True))
            assert found == pytest.approx(naive_row(real_eth, int(t)), abs=1e-9)


def test_a_candle_that_has_not_closed_yet_changes_nothing_before_it(make_walk) -> None:
    series, other = make_walk(1_400, 1), make_walk(1_400, 2)
    for t in (600, 1_000, 1_399):
        altered = joined(series.rows(slice(0, t + 1)), other.rows(slice(t + 1, 1_400)))
        before, after = compute(series), compute(altered)
        for name in ("values", "z", "rv", "log_return", "valid"):
            np.testing.assert_array_equal(
                getattr(before, name)[: t + 1], getattr(after, name)[: t + 1]
            )


def test_the_columns_appear_as_soon_as_their_candles_do(make_walk) -> None:
    table = compute(make_walk(600, 5))
    assert np.flatnonzero(np.isfinite(table.log_return))[0] == 1
    assert np.flatnonzero(np.isfinite(table.z))[0] == 72
    assert np.flatnonzero(np.isfinite(table.rv))[0] == 72
    assert np.flatnonzero(table.valid)[0] == 511
    np.testing.assert_array_equal(np.isfinite(table.values).all(axis=1), table.valid)
    np.testing.assert_allclose(table.z[table.valid], table.values[table.valid, 1], atol=0)


def test_a_missing_candle_starts_everything_afresh(make_walk) -> None:
    first, second = make_walk(700, 6), make_walk(700, 7, start=701)
    both = compute(joined(first, second))
    np.testing.assert_array_equal(both.starts, [0, 700])
    assert both.runs() == [slice(0, 700), slice(700, 1_400)]
    np.testing.assert_array_equal(both.values[700:], compute(second).values)
    np.testing.assert_array_equal(both.values[:700], compute(first).values)
    assert not both.valid[700 : 700 + 511].any()


def test_inverting_every_price_flips_the_odd_columns_and_keeps_the_even(make_walk) -> None:
    series = make_walk(900, 8)
    mirrored = with_columns(
        series,
        open=1e4 / series.open,
        high=1e4 / series.low,
        low=1e4 / series.high,
        close=1e4 / series.close,
    )
    table, other = compute(series), compute(mirrored)
    signs = np.where(s.ODD, -1.0, 1.0)
    np.testing.assert_allclose(
        other.values[table.valid], signs * table.values[table.valid], atol=1e-9
    )


def test_the_unit_of_price_and_of_volume_does_not_matter(make_walk) -> None:
    series = make_walk(900, 9)
    scaled = with_columns(
        series,
        **{n: 1_000.0 * getattr(series, n) for n in ("open", "high", "low", "close", "volume")},
    )
    np.testing.assert_allclose(compute(series).values, compute(scaled).values, atol=1e-9)


def test_a_dead_market_has_no_trend_and_finite_features() -> None:
    flat = np.full(800, 42.0)
    run = compute_run(flat, flat, flat, np.zeros(800))
    rows = run.values[s.LOOKBACK - 1 :]
    assert np.isfinite(rows).all()
    assert (run.z[72:] == 0).all()
    assert (run.rv[72:] == s.RV_FLOOR).all()
    named = dict(zip(s.FEATURE_NAMES, rows[-1], strict=True))
    assert named["volume_ratio"] == named["rsi"] == named["bollinger"] == 0.0
    assert named["range"] == named["volatility_24"] == pytest.approx(math.log(1e-3))


def test_short_and_empty_series_have_no_valid_rows(make_walk) -> None:
    for n in (1, 2, 73, 511):
        table = compute(make_walk(n, 4))
        assert len(table) == n
        assert not table.valid.any()
    empty = compute(make_walk(5, 4).rows(slice(0, 0)))
    assert len(empty) == 0
    assert empty.runs() == []
