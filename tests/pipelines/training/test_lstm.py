"""Training: deterministic, honest about validation, and able to learn."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from bot4_pipelines.training import lstm as m
from bot4_runtime.domain.errors import ConfigError

TINY = m.LstmSettings(
    iterations=8, batch=4, segment=80, hidden=8, check_every=4, check_from=0.0,
    check_windows=100, soft_paths=4, soft_horizon=6,
)  # fmt: skip


def train(market, settings=TINY, progress=None):
    return m.train_lstm(market.rows, market.params, market.cuts, settings, progress)


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_alone(small_market) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = train(small_market), train(small_market)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.weights.keys() == second.weights.keys()
    for name, value in first.weights.items():
        np.testing.assert_array_equal(value, second.weights[name])
        assert value.dtype == np.float32
    assert first.temperature == second.temperature


def test_every_iteration_is_told_and_every_look_recorded(small_market) -> None:
    told = []
    fit = train(small_market, progress=lambda *news: told.append(news))
    assert [news[:2] for news in told] == [(i, 8) for i in range(1, 9)]
    assert [look["iteration"] for look in fit.history] == [4, 8]
    assert "validation_accuracy" in told[3][2]
    assert all(math.isfinite(news[2]["train_loss"]) for news in told)
    best = max(fit.history, key=lambda look: look["validation_accuracy"])
    assert fit.best_iteration == best["iteration"]


def test_training_stops_when_validation_stops_improving(small_market) -> None:
    import dataclasses

    settings = dataclasses.replace(
        TINY, iterations=60, check_every=2, patience=2, learning_rate=1e-9, averaging=0.0
    )
    fit = train(small_market, settings)
    assert fit.best_iteration == 2
    assert [look["iteration"] for look in fit.history] == [2, 4, 6]


@pytest.mark.slow
def test_a_small_network_learns_to_name_regimes(small_market) -> None:
    settings = m.LstmSettings(
        iterations=120, batch=8, hidden=24, check_every=60, check_windows=600, segment=100,
        learning_rate=1e-2,
    )  # fmt: skip
    fit = train(small_market, settings)
    assert fit.history[-1]["validation_accuracy"] > 0.85


def test_a_mirrored_segment_is_the_segment_of_inverted_prices(small_market) -> None:
    data = m.training_set(
        small_market.rows, small_market.params, small_market.cuts, segment=80, window=50
    )
    training = m._Training(data, TINY)
    x, y = training.batch()
    assert x.shape == (4, 80, data.inputs.shape[1])
    assert y.shape == (4, 30, 5)
    segments = {data.inputs[s : s + 80].tobytes() for s in data.segments}
    columns, signs = m.mirror_columns()
    seen = set()
    for one in x.numpy():
        plain = one.tobytes() in segments
        flipped = np.ascontiguousarray(one[:, columns] * signs).tobytes() in segments
        assert plain != flipped
        seen.add(plain)
    assert (y.sum(dim=2) - 1).abs().max() < 1e-6


def test_the_fitted_temperature_is_the_best_one() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (4_000, 5))
    shares = np.exp(logits / 1.7)
    shares /= shares.sum(axis=1, keepdims=True)
    labels = (rng.random((4_000, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, 4)

    def loss(t: float) -> float:
        scaled = torch.from_numpy(logits / t)
        return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)))

    oracle = minimize_scalar(loss, bounds=(0.25, 4), method="bounded").x
    found = m.fit_temperature(logits, labels)
    assert found == pytest.approx(oracle, abs=1e-3)
    assert found == pytest.approx(1.7, abs=0.1)


def test_settings_that_cannot_train_are_refused() -> None:
    for wrong in ({"iterations": 0}, {"warm": 150}, {"batch": -1}, {"warm": -1}):
        with pytest.raises(ConfigError, match="positive iterations"):
            m.LstmSettings(**wrong)
    assert m.LstmSettings.full().iterations == 2_200


def test_one_layer_has_no_dropout_between_layers() -> None:
    network = m.build_network(m.LstmSettings(layers=1, hidden=4), 3)
    assert network.lstm.dropout == 0.0
    assert network(torch.zeros(2, 7, 3)).shape == (2, 7, 5)
