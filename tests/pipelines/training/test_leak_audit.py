"""The audit finds nothing where nothing looks ahead, and names each planted look ahead."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bot4_pipelines.training.leak_audit import AFTER, BEFORE, altered_after, audit
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.batch import compute
from bot4_runtime.features.schema import FEATURE_NAMES
from bot4_runtime.regime.manifest import MOST_WINDOW, WINDOW


class Reader:
    """A model that answers with what its window holds, so that every input shows."""

    def __init__(self, window=WINDOW):
        self.window = window

    def run(self, outputs, inputs):
        total = np.nan_to_num(inputs["features"]).sum(axis=(1, 2))
        return [np.stack([total * k for k in range(1, 6)], axis=1)]

    def get_inputs(self):
        return [SimpleNamespace(shape=["B", self.window, 28])]


@pytest.mark.parametrize("window", [20, WINDOW, MOST_WINDOW])
def test_nothing_looks_ahead(small_market, window):
    found = audit(small_market.series, small_market.params, Reader(window))
    assert found.leaks == ()
    assert found.moments == 12
    assert found.left_out == ()
    assert found.values == sum(numbers_of(one, window) for one in small_market.series)


def numbers_of(series, window):
    """Count by brute force what there is to compare: the numbers that are not missing."""
    total = 0
    for moment in np.linspace(BEFORE, len(series) - AFTER, 6).astype(int):
        table = compute(series.rows(slice(moment - BEFORE, moment)))
        rows, run, windows = np.isfinite(table.z), 0, 0
        for valid in table.valid:
            run = run + 1 if valid else 0
            windows += run >= window
        total += np.isfinite(table.values).sum() + 5 * table.valid.sum()  # features, scores
        total += np.isfinite(table.rv).sum() + np.isfinite(table.log_return).sum()
        total += rows.sum() * (1 + 5) + 2 * BEFORE + 5 * min(windows, 64)
    return total


@pytest.mark.data
def test_nothing_looks_ahead_on_real_candles(test_data, small_market):
    series = read_candle_folder(test_data / "spot" / "1h", Market.SPOT, ["ETHUSDT"])
    assert audit(series, small_market.params, Reader(), moments=3).leaks == ()


def planted(change):
    def features(series):
        table = compute(series)
        values, z = table.values.copy(), table.z.copy()
        change(values, z, series)
        return replace(table, values=values, z=z)

    return features


def centred_mean(values, z, series):
    column = values[:, FEATURE_NAMES.index("rsi")]
    column[2:-2] = np.convolve(column, np.ones(5) / 5, "valid")


def scaled_by_everything(values, z, series):
    values[:, FEATURE_NAMES.index("range")] /= np.log(series.close).std()


def trend_of_tomorrow(values, z, series):
    z[:-1] = z[1:]


def test_a_centred_mean_is_named_with_its_rows(small_market):
    found = audit(
        small_market.series[:1], small_market.params, None, moments=2,
        features=planted(centred_mean),
    )  # fmt: skip
    assert {leak.column for leak in found.leaks} == {"rsi"}
    assert [leak.rows for leak in found.leaks] == [2, 2]
    for leak in found.leaks:
        assert leak.moment_ms - leak.first_ms == 3_600_000
        assert str(leak).startswith("BTCUSDT rsi: 2 rows from 1970-")


def test_a_number_of_the_whole_series_in_a_feature_is_named(small_market):
    found = audit(
        small_market.series[:1], small_market.params, Reader(), moments=1,
        features=planted(scaled_by_everything),
    )  # fmt: skip
    columns = {leak.column for leak in found.leaks}
    assert "range" in columns
    assert "LSTM Neutral" in columns  # which reads it
    assert "HMM filter Neutral" not in columns  # which does not


def test_tomorrows_trend_shows_in_scores_filter_and_lstm(small_market):
    found = audit(
        small_market.series[:1], small_market.params, Reader(), moments=1,
        features=planted(trend_of_tomorrow),
    )  # fmt: skip
    columns = {leak.column for leak in found.leaks}
    assert columns >= {"z", "HMM filter Bull", "LSTM StrongBull"}
    assert any(column.startswith("viterbi_score_") for column in columns)


def test_a_row_that_comes_or_goes_is_a_leak(small_market):
    def features(series):
        table = compute(series)
        valid = table.valid & (series.close[-1] < series.close[BEFORE - 1] * 1.2)
        return replace(table, valid=valid)

    found = audit(small_market.series[:1], small_market.params, None, moments=1, features=features)
    named = {leak.column: leak for leak in found.leaks}
    assert "valid" in named
    assert np.isnan(named["viterbi_score_2"].difference)


def test_altered_candles_differ_everywhere_after_and_nowhere_before(small_market):
    series = small_market.series[0].rows(slice(0, BEFORE + AFTER))
    other = altered_after(series, BEFORE - 1)
    for name in ("open", "high", "low", "close", "volume"):
        same = getattr(series, name) == getattr(other, name)
        assert same[:BEFORE].all()
        assert same[BEFORE:].sum() <= 1, name
    assert (other.high >= np.maximum(other.open, other.close)).all()
    assert (other.low <= np.minimum(other.open, other.close)).all()


def test_a_series_too_short_to_be_audited_is_left_out_and_named(small_market):
    short = small_market.series[1].rows(slice(0, BEFORE + AFTER - 1))
    found = audit([short, small_market.series[0]], small_market.params, Reader(), moments=2)
    assert found.left_out == ("ETHUSDT has 999 candles",)
    assert found.moments == 2
    just = small_market.series[0].rows(slice(0, BEFORE + AFTER))
    assert audit([just], small_market.params, Reader()).left_out == ()


def test_an_audit_that_compared_nothing_fails_and_says_so(small_market):
    short = small_market.series[0].rows(slice(0, 999))
    with pytest.raises(DataError, match=r"compared no number \(BTCUSDT has 999 candles\)"):
        audit([short], small_market.params, None)
    with pytest.raises(DataError, match=r"compared no number \(there are no candles"):
        audit([], small_market.params, None)


class Mute(Reader):
    def run(self, outputs, inputs):
        return [np.full((len(inputs["features"]), 5), np.nan)]


def test_what_is_missing_both_times_was_not_compared(small_market):
    """Every feature unknown, and a model that never answers: equal, and no proof of anything."""

    def nothing(values, z, series):
        values[:] = np.nan

    series = small_market.series[:1]
    more = len(FEATURE_NAMES) - 3
    with pytest.raises(DataError, match=f"no number of {FEATURE_NAMES[0]}, .* and {more} more"):
        audit(series, small_market.params, None, moments=1, features=planted(nothing))
    with pytest.raises(DataError, match=r"no number of LSTM StrongBear, .* and 2 more \(BTCUSDT"):
        audit(series, small_market.params, Mute(), moments=1)


def test_without_a_whole_window_the_lstm_was_not_audited(small_market):
    """Every fortieth candle is gone: features are there, windows of fifty are not."""
    gappy = small_market.series[0]
    keep = np.ones(len(gappy), dtype=bool)
    keep[40::40] = False
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    gappy = CandleSeries(gappy.id, *(getattr(gappy, name)[keep] for name in names))

    def through_gaps(series):
        table = compute(CandleSeries(series.id, np.arange(len(series)) * 3_600_000,
                                     *(getattr(series, name) for name in names[1:])))  # fmt: skip
        after_a_gap = np.diff(series.open_time_ms, prepend=series.open_time_ms[0]) > 3_600_000
        return replace(table, valid=table.valid & ~after_a_gap)

    alone = {"moments": 2, "features": through_gaps}
    assert audit([gappy], small_market.params, None, **alone).left_out == ()
    with pytest.raises(DataError, match="no number of LSTM StrongBear"):
        audit([gappy], small_market.params, Reader(), **alone)
    both = [gappy, small_market.series[1]]
    (told,) = audit(both, small_market.params, Reader(), **alone).left_out
    assert told == "BTCUSDT has no number of LSTM StrongBear, LSTM Bear, LSTM Neutral and 2 more"
