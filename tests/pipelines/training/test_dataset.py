"""What the LSTM learns from: inputs without gaps, a scaler and targets without a future."""

import msgspec
import numpy as np
import pytest

from bot4_pipelines.training import dataset as d
from bot4_pipelines.training.labels import hindsight_labels
from bot4_pipelines.training.soft_labels import SoftLabelInput, soft_labels
from bot4_runtime.domain.errors import DataError
from bot4_runtime.regime.loader import LSTM_COLUMNS


def make(market, rows=None, **more):
    shape = {"segment": 150, "window": 50} | more
    return d.training_set(rows or market.rows, market.params, market.cuts, **shape)


def altered_after(rows: d.SymbolRows, row: int) -> d.SymbolRows:
    """The same candles up to a row, other numbers after it."""
    table = rows.table
    columns = {n: getattr(table, n).copy() for n in ("values", "z", "rv", "log_return")}
    for column in columns.values():
        column[row:] = 0.7 * column[row:] + 0.1
    inputs = rows.inputs.copy()
    inputs[row:] *= 1.3
    return d.SymbolRows(
        rows.symbol,
        type(table)(
            open_time_ms=table.open_time_ms, valid=table.valid, starts=table.starts, **columns
        ),
        inputs,
        rows.dead,
    )


def test_the_columns_are_those_that_the_loader_expects() -> None:
    assert d.INPUT_NAMES == LSTM_COLUMNS


def test_segments_and_windows_hold_whole_contiguous_valid_rows(small_market) -> None:
    data = make(small_market)
    valid = np.concatenate([rows.table.valid for rows in small_market.rows])
    time = np.concatenate([rows.table.open_time_ms for rows in small_market.rows])
    hour, cuts = 3_600_000, small_market.cuts
    rows = data.segments[:, None] + np.arange(150)
    assert valid[rows].all()
    assert (np.diff(time[rows], axis=1) == hour).all()
    assert (time[rows[:, -1]] < cuts.validation_start_ms).all()
    assert (data.labels[rows] >= 0).all()
    windows = data.windows[:, None] + np.arange(-49, 1)
    assert valid[windows].all()
    assert (np.diff(time[windows], axis=1) == hour).all()
    ends = time[data.windows]
    assert ends.min() == cuts.validation_start_ms + 200 * hour
    assert ends.max() == cuts.test_start_ms - 25 * hour
    assert len(data.segments) == (3_600 - 511 - 149) + (1_500 - 511 - 149) + (2_097 - 511 - 149)
    assert len(data.windows) == 2 * (1_200 - 224)


def test_dead_candles_are_not_learnt_from(small_market) -> None:
    rows = small_market.rows[0]
    dead = rows.dead.copy()
    dead[2_000] = True
    data = make(small_market, [d.SymbolRows(rows.symbol, rows.table, rows.inputs, dead)])
    assert not ((data.segments <= 2_000) & (data.segments > 2_000 - 150)).any()


def test_candles_in_doubt_are_not_learnt_from(small_market) -> None:
    masked = np.zeros(len(small_market.series[0]), dtype=bool)
    masked[2_000:2_073] = True
    rows = d.symbol_rows(small_market.series[0], small_market.params, None, masked)
    assert not rows.learnable[2_000:2_073].any()
    assert rows.learnable[1_999]
    assert rows.learnable[2_073]


def test_flat_candles_without_volume_are_dead(small_market) -> None:
    series = small_market.series[0]
    columns = {n: getattr(series, n).copy() for n in ("open", "high", "low", "close", "volume")}
    for name in ("open", "high", "low", "close"):
        columns[name][700] = series.close[699]
    columns["volume"][[700, 800]] = 0.0
    rows = d.symbol_rows(
        type(series)(series.id, series.open_time_ms, *columns.values()), small_market.params
    )
    assert np.flatnonzero(rows.dead).tolist() == [700]
    assert np.isnan(rows.inputs[:511]).all()
    assert np.isfinite(rows.inputs[511:]).all()


def test_nothing_after_training_reaches_scaler_targets_or_simulation(small_market) -> None:
    cut = 3_600
    rows = small_market.rows[0]
    other = altered_after(rows, cut)
    soft = {"paths": 8, "horizon": 12, "seed": 4}
    shares = [
        d.simulated_shares([one], small_market.params, small_market.cuts, **soft)
        for one in (rows, other)
    ]
    np.testing.assert_array_equal(shares[0][0][:cut], shares[1][0][:cut])
    sets = [
        make(small_market, [one], soft=s) for one, s in zip((rows, other), shares, strict=True)
    ]
    np.testing.assert_array_equal(sets[0].scaler.mean, sets[1].scaler.mean)
    np.testing.assert_array_equal(sets[0].scaler.deviation, sets[1].scaler.deviation)
    for name in ("inputs", "labels", "targets"):
        np.testing.assert_array_equal(
            getattr(sets[0], name)[:cut], getattr(sets[1], name)[:cut], err_msg=name
        )


def test_the_scaler_is_symmetric_and_standardises_what_it_was_fitted_on(small_market) -> None:
    inputs = np.concatenate([r.inputs[r.table.valid] for r in small_market.rows])
    scaler = d.fit_scaler(inputs)
    columns, signs = d.mirror_columns()
    mirrored = inputs[:, columns] * signs
    np.testing.assert_allclose(
        scaler.apply(mirrored), scaler.apply(inputs)[:, columns] * signs, atol=1e-5
    )
    both = np.concatenate([inputs, mirrored])
    scaled = (both - scaler.mean) / scaler.deviation
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose((scaled**2).mean(axis=0), 1.0, atol=1e-9)
    assert np.abs(scaler.apply(100.0 * inputs)).max() == 6.0
    constant = d.fit_scaler(np.ones((5, len(d.INPUT_NAMES))))
    assert np.isfinite(constant.apply(np.ones((1, len(d.INPUT_NAMES))))).all()


def test_hard_targets_are_the_labels_and_soft_ones_lie_near_them(small_market) -> None:
    hard = make(small_market)
    known = hard.labels >= 0
    np.testing.assert_array_equal(hard.targets[known].argmax(axis=1), hard.labels[known])
    soft = d.simulated_shares(
        small_market.rows, small_market.params, small_market.cuts, paths=16, horizon=24, seed=1
    )
    mixed = make(small_market, soft=soft).targets[known]
    np.testing.assert_allclose(mixed.sum(axis=1), 1.0, atol=1e-6)
    wanted = np.concatenate([np.isfinite(share[:, 0]) for share in soft])
    shares = np.concatenate(soft)[wanted]
    labels = hard.labels[wanted]
    # The causal limit is about .955: simulation is that good, and says so of itself.
    agreement = (shares.argmax(axis=1) == labels).mean()
    assert 0.93 < agreement < 0.975
    assert abs(shares.max(axis=1).mean() - agreement) < 0.02


def test_an_undoubted_state_has_all_the_share(small_market) -> None:
    rows = small_market.rows[0]
    gap = np.full((len(rows.table), 5), 1e4)
    gap[:, 3] = 0.0
    wanted = rows.learnable
    (shares,) = soft_labels(
        [SoftLabelInput(rows.table.log_return, rows.table.rv, gap, wanted)],
        small_market.params,
        paths=5,
        horizon=6,
        seed=1,
    )
    np.testing.assert_array_equal(shares[wanted], np.eye(5)[[3] * int(wanted.sum())])
    assert np.isnan(shares[~wanted]).all()


def test_too_little_to_learn_from_is_said(small_market) -> None:
    nothing = d.SymbolRows(
        "BTCUSDT",
        small_market.rows[0].table,
        small_market.rows[0].inputs,
        np.ones(6_000, dtype=bool),
    )
    with pytest.raises(DataError, match="no 24 contiguous training rows"):
        d.simulated_shares(
            [nothing], small_market.params, small_market.cuts, paths=4, horizon=24, seed=1
        )
    with pytest.raises(DataError, match="0 training segments of 4000"):
        make(small_market, segment=4_000)
    with pytest.raises(DataError, match="0 validation windows of 5600"):
        make(small_market, window=5_600)
    with pytest.raises(DataError, match="validation split has no candles"):
        d.training_set(
            small_market.rows,
            small_market.params,
            msgspec.structs.replace(
                small_market.cuts,
                validation_start_ms=6_000 * 3_600_000,
                test_start_ms=7_000 * 3_600_000,
                end_ms=8_000 * 3_600_000,
            ),
            segment=150,
            window=50,
        )


def test_windows_end_where_enough_rows_in_a_row_do() -> None:
    usable = np.array([1, 1, 1, 0, 1, 1, 1, 1], dtype=bool)
    assert d.window_ends(usable, 3).tolist() == [2, 6, 7]
    assert d.window_ends(usable, 9).tolist() == []


def test_labels_see_their_own_split_only(small_market) -> None:
    data, rows = make(small_market), small_market.rows[0]
    cut = 3_600
    alone = hindsight_labels(rows.table.z, small_market.params, [slice(0, cut)])
    np.testing.assert_array_equal(data.labels[:cut], alone[:cut])
    assert (data.labels[4_800:6_000] == -1).all()
