"""Drift: both measures against oracles, good months against shifted ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bot4_pipelines.training import drift
from bot4_pipelines.training.cuts import split_slices
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.batch import compute
from bot4_runtime.features.schema import FEATURE_NAMES
from bot4_runtime.regime.hmm import forward_filter

MONTH = 720


def test_the_index_is_that_of_a_worked_example():
    # Four score bands of a quarter each, then 10, 20, 30 and 40 %, term by term:
    # -.15 ln .4 - .05 ln .8 + .05 ln 1.2 + .15 ln 1.6 = .13744 + .01116 + .00912 + .07050
    found = drift.stability_index(np.full(4, 0.25), np.array([0.1, 0.2, 0.3, 0.4]))
    assert found == pytest.approx(0.22822, abs=1e-5)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=12))
def test_the_index_is_the_divergence_taken_both_ways(pairs):
    expected, actual = (np.array(column) / sum(column) for column in zip(*pairs, strict=True))
    both = stats.entropy(expected, actual) + stats.entropy(actual, expected)
    assert drift.stability_index(expected, actual) == pytest.approx(both, abs=1e-9)


def test_equal_shares_have_no_index_and_an_empty_bin_a_finite_one():
    even = np.full(10, 0.1)
    assert drift.stability_index(even, even) == 0.0
    assert 0.25 < drift.stability_index(even, np.eye(10)[3]) < 20.0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of scipy's p-value, which is not asked for
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.floats(-2, 2))
def test_the_distance_is_scipys(seed, n, m, shift):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=n).round(1), rng.normal(shift, size=m).round(1)
    found = drift.ks_distance(np.sort(one), np.sort(other))
    assert found == pytest.approx(stats.ks_2samp(one, other).statistic, abs=1e-12)


def test_rows_of_the_log_likelihood_sum_to_the_filters(small_market):
    z = small_market.rows[0].table.z[:3_000]
    rows = drift.row_loglik(z, small_market.params)
    known = np.isfinite(z)
    np.testing.assert_array_equal(np.isfinite(rows), known)
    assert rows[known].sum() == pytest.approx(forward_filter(z[known], small_market.params)[2])


def test_a_gap_starts_the_log_likelihood_afresh(small_market):
    table = small_market.rows[1].table
    start = table.starts[1] + 72
    alone = drift.row_loglik(table.z[start:], small_market.params)
    whole = drift.row_loglik(table.z, small_market.params)
    np.testing.assert_array_equal(whole[start:], alone)


@pytest.fixture(scope="module")
def reference(small_market):
    tables = {one.symbol: one.table for one in small_market.rows}
    train = {
        symbol: split_slices(table.open_time_ms, small_market.cuts)["train"]
        for symbol, table in tables.items()
    }
    return drift.make_reference(tables, train, small_market.params, 240)


def test_limits_are_beyond_the_published_rule_and_beyond_trainings_own_months(
    reference, small_market
):
    assert (reference.psi_limit >= 0.25).all()
    assert reference.blocks > 20
    for one in small_market.rows:
        rows = np.flatnonzero(one.table.valid)
        rows = rows[one.table.open_time_ms[rows] < small_market.cuts.validation_start_ms]
        for end in range(240, len(rows), 240):
            shifts = drift.feature_shifts(reference, one.table.values[rows[end - 240 : end]])
            assert not any(shift.shifted for shift in shifts)


def test_too_few_candles_give_no_verdict(reference, small_market):
    values = small_market.rows[0].table.values[-240:].copy()
    assert drift.feature_shifts(reference, values) is not None
    values[119:] = np.nan
    assert drift.feature_shifts(reference, values) is None
    z = np.full(300, np.nan)
    z[-119:] = 0.1
    assert drift.mean_loglik(reference, z, small_market.params) is None


def test_a_short_training_range_has_no_reference(small_market):
    one = small_market.rows[0]
    with pytest.raises(DataError, match="ingest more history"):
        drift.make_reference(
            {"BTCUSDT": one.table}, {"BTCUSDT": slice(0, 1_500)}, small_market.params, 240
        )


def test_a_reference_comes_back_from_disk_and_a_wrong_file_is_named(reference, tmp_path):
    path = tmp_path / "reference.npz"
    with pytest.raises(DataError, match="missing; materialise"):
        drift.read_reference(path)
    drift.write_reference(path, reference)
    back = drift.read_reference(path)
    for name in vars(reference):
        np.testing.assert_array_equal(getattr(back, name), getattr(reference, name))
    drift.write_reference(path, replace(reference, names=("other",)))
    with pytest.raises(DataError, match="other features"):
        drift.read_reference(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        drift.read_reference(path)


# ------------------------------------------------------------------ real candles
@pytest.fixture(scope="module")
def market(test_data, small_market):
    """Three real series, the limits of training before 2023, and an HMM near the fitted one."""
    params = small_market.params
    series = read_candle_folder(
        test_data / "spot" / "1h", Market.SPOT, ["BTCUSDT", "ETHUSDT", "LTCUSDT"]
    )
    cut = 1_672_531_200_000
    past = [one.between(None, cut) for one in series]
    tables = {one.id.symbol: compute(one) for one in past}
    train = {symbol: slice(0, len(table)) for symbol, table in tables.items()}
    made = drift.make_reference(tables, train, params, MONTH)
    return made, [one.between(cut, None) for one in series], params


@pytest.mark.data
def test_few_real_months_after_training_are_called_shifted_or_unlikely(market):
    reference, recent, params = market
    shifted, unlikely, months = 0, 0, 0
    for series in recent:
        table = compute(series)
        for end in range(MONTH + 600, len(table), MONTH):
            shifts = drift.feature_shifts(reference, table.values[end - MONTH : end])
            if shifts is None:  # a missing candle leaves three weeks without features
                continue
            likely = drift.mean_loglik(reference, table.z[end - MONTH - 300 : end], params)
            shifted += any(shift.shifted for shift in shifts)
            unlikely += likely < reference.loglik_limit
            months += 1
    print(f"{months} months, {shifted} shifted, {unlikely} unlikely")
    assert months > 75
    assert shifted <= 4  # three: summer 2023, calmer than any month before it
    assert unlikely == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("what", "features"),
    [
        ("wide", {"range"}),
        ("hollow", {"volume_ratio"}),
        ("one way", {"trend_0", "trend_24", "rsi"}),
        ("jumpy", {"volatility_24", "range", "return"}),
    ],
)
def test_a_month_of_another_market_is_called_shifted(market, what, features):
    reference, recent, _ = market
    found = set()
    for series in recent[:1]:
        month = perturbed(series.rows(slice(len(series) - 2_000, len(series))), what)
        shifts = drift.feature_shifts(reference, compute(month).values[-MONTH:])
        found |= {shift.feature for shift in shifts if shift.shifted}
    assert found & features, found


@pytest.mark.data
def test_a_trend_the_hmm_never_saw_is_unlikely(market):
    reference, recent, params = market
    one_way = compute(perturbed(recent[0].rows(slice(0, 2_000)), "one way"))
    assert drift.mean_loglik(reference, one_way.z, params) < reference.loglik_limit


def perturbed(series: CandleSeries, what: str) -> CandleSeries:
    """The last month as another market would make it."""
    rng = np.random.default_rng(4)
    n, old = len(series), len(series) - MONTH
    x = np.diff(np.log(series.close), prepend=np.log(series.open[0]))
    high = np.log(series.high) - np.log(np.maximum(series.open, series.close))
    low = np.log(np.minimum(series.open, series.close)) - np.log(series.low)
    volume = series.volume.copy()
    sigma = x.std()
    if what == "wide":
        high[old:], low[old:] = high[old:] * 8 + 2 * sigma, low[old:] * 8 + 2 * sigma
    elif what == "hollow":
        volume[old:] *= np.exp(4.0 * rng.normal(size=MONTH))
    elif what == "one way":
        x[old:] = sigma * (0.8 + 0.5 * rng.normal(size=MONTH))
    else:
        x[old:] = np.where(rng.random(MONTH) < 0.02, 20.0, 0.05) * sigma * rng.normal(size=MONTH)
    close = np.exp(np.cumsum(x) + np.log(series.open[0]))
    opened = np.concatenate([series.open[:1], close[:-1]])
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    columns = (opened, top * np.exp(high), bottom * np.exp(-low), close, volume)
    return CandleSeries(series.id, series.open_time_ms, *(column[:n] for column in columns))


def test_shift_says_which_feature_and_how_far():
    said = str(drift.Shift("range", 1.234, 0.5, 0.61, 0.3))
    assert said == "range: PSI 1.23 (limit 0.50), KS 0.61 (limit 0.30)"
    assert set(FEATURE_NAMES) >= {"range", "trend_0"}
