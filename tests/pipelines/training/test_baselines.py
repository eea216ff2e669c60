"""Baselines against brute force and scikit-learn; plots of the card; the control."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bot4_pipelines.training import baselines as b
from bot4_pipelines.training.labels import hindsight_labels
from bot4_pipelines.training.random_walk import random_walk_accuracy, random_walk_trend
from bot4_runtime.domain.errors import ModelError


@pytest.fixture(scope="module")
def fitted(small_market) -> b.FittedBaselines:
    return b.fit_baselines(small_market.rows, small_market.params, small_market.cuts)


def training_rows(market):
    inputs, labels = [], []
    for rows in market.rows:
        n = int(np.searchsorted(rows.table.open_time_ms, market.cuts.validation_start_ms))
        known = hindsight_labels(rows.table.z, market.params, [slice(0, n)])
        use = rows.table.valid & (known >= 0)
        inputs.append(rows.inputs[use])
        labels.append(known[use])
    return np.concatenate(inputs), np.concatenate(labels)


def test_the_cuts_are_the_best_symmetric_ones() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=3_000)
    labels = np.clip(np.round(2 + 1.6 * z + 0.4 * rng.normal(size=3_000)), 0, 4).astype(int)
    both, names = np.concatenate([z, -z]), np.concatenate([labels, 4 - labels])
    grid = np.arange(0.0, 2.0, 0.02)
    best = max(
        (np.searchsorted([-hi, -lo, lo, hi], both) == names).mean()
        for lo in grid
        for hi in grid[grid > lo]
    )
    cuts = b.fit_cuts(z, labels)
    np.testing.assert_allclose(cuts, -cuts[::-1])
    found = (np.searchsorted(cuts, both) == names).mean()
    assert found >= best - 0.001


def test_the_linear_model_is_scikit_learns(small_market, fitted) -> None:
    x, y = training_rows(small_market)
    oracle = LogisticRegression(max_iter=1_000, tol=1e-3).fit(fitted.scaler.apply(x), y)
    np.testing.assert_allclose(
        fitted.logistic(x), oracle.predict_proba(fitted.scaler.apply(x)), atol=1e-5
    )


def test_majority_is_the_commonest_training_label(small_market, fitted) -> None:
    _, y = training_rows(small_market)
    assert fitted.majority == np.bincount(y).argmax()


def test_baselines_survive_the_manifest(small_market, fitted) -> None:
    again = b.FittedBaselines.from_numbers(json.loads(json.dumps(fitted.numbers())))
    x, _ = training_rows(small_market)
    np.testing.assert_array_equal(again.logistic(x), fitted.logistic(x))
    np.testing.assert_array_equal(again.static_cuts(x[:, 1]), fitted.static_cuts(x[:, 1]))
    assert again.majority == fitted.majority
    with pytest.raises(ModelError, match="no baseline number 'majority'"):
        b.FittedBaselines.from_numbers({})


def test_an_unknown_input_gets_no_probabilities(fitted) -> None:
    assert np.isnan(fitted.logistic(np.full((1, 28), np.nan))).all()


def test_a_random_walk_is_named_as_well_as_a_market() -> None:
    accuracy, (low, high) = random_walk_accuracy(seed=1)
    assert low < accuracy < high
    assert accuracy == pytest.approx(0.907, abs=0.01)


def test_the_walks_trend_is_the_markets_definition() -> None:
    rng = np.random.default_rng(9)
    z = random_walk_trend(50, rng)
    r = np.random.default_rng(9).normal(size=121)
    expected = [r[i : i + 72].sum() / np.sqrt((r[i : i + 72] ** 2).sum()) for i in range(50)]
    np.testing.assert_allclose(z, expected, atol=1e-12)
