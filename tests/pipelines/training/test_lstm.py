"""Training: deterministic, honest about validation, and able to learn."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from bot4_pipelines.training import lstm as m
from bot4_pipelines.training.schedule import LstmSettings, Schedule
from bot4_runtime.domain.errors import ConfigError

TINY = LstmSettings(
    iterations=8, batch=4, segment=80, hidden=8, check_every=4, check_from=0.0,
    check_windows=100, soft_paths=4, soft_horizon=6,
)  # fmt: skip


def train(market, settings=TINY, progress=None):
    return m.train_lstm(market.rows, market.params, market.cuts, settings, progress)


def training_data(market):
    return m.training_set(market.rows, market.params, market.cuts, segment=80, window=50)


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
    settings = dataclasses.replace(
        TINY, iterations=60, check_every=2, patience=2, learning_rate=1e-9, averaging=0.0
    )
    fit = train(small_market, settings)
    assert fit.best_iteration == 2
    assert [look["iteration"] for look in fit.history] == [2, 4, 6]


@pytest.mark.slow
def test_a_small_network_learns_to_name_regimes(small_market) -> None:
    settings = LstmSettings(
        iterations=120, batch=8, hidden=24, check_every=60, check_windows=600, segment=100,
        learning_rate=1e-2,
    )  # fmt: skip
    fit = train(small_market, settings)
    assert fit.history[-1]["validation_accuracy"] > 0.85


def test_a_mirrored_segment_is_the_segment_of_inverted_prices(small_market) -> None:
    data = training_data(small_market)
    with m._Training(data, TINY) as training:
        x, y = training.batch()
    assert x.shape == (4, 80, data.inputs.shape[1])
    assert y.shape == (4, 64, 5)
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
    for wrong in ({"iterations": 0}, {"warm": 150}, {"batch": -1}, {"shards": 0}, {"warm": -1}):
        with pytest.raises(ConfigError, match="positive iterations"):
            LstmSettings(**wrong)


def test_the_full_schedule_is_the_longer_one_and_iterations_overrule_both() -> None:
    quick, full = (LstmSettings.of(schedule) for schedule in (Schedule.QUICK, Schedule.FULL))
    assert quick == LstmSettings()
    assert full.iterations * full.batch > 4 * quick.iterations * quick.batch
    assert LstmSettings.of(Schedule.FULL, iterations=7) == dataclasses.replace(full, iterations=7)


def test_the_network_is_torchs_own_lstm_and_its_weights_go_out_and_in() -> None:
    network = m.build_network(LstmSettings(layers=2, hidden=4), 3)
    peer = torch.nn.LSTM(3, 4, 2, batch_first=True)
    weights = m.network_weights(network)
    peer.load_state_dict(
        {name: torch.from_numpy(weights[f"lstm.{name}"]) for name, _ in peer.named_parameters()}
    )
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1))
    expected = network.head(peer(x)[0])
    torch.testing.assert_close(network(x), expected)
    other = m.build_network(LstmSettings(layers=2, hidden=4), 3)
    m.load_weights(other, weights)
    torch.testing.assert_close(other(x), expected)


def test_dropout_happens_with_a_generator_alone_and_keeps_the_mean() -> None:
    network = m.build_network(LstmSettings(layers=1, hidden=64, dropout=0.5), 3)
    x = torch.ones(1, 2_000, 3)
    drawn = [network(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    plain = network(x)
    assert torch.equal(plain, network(x))
    torch.testing.assert_close(drawn[0].mean(dim=1), plain.mean(dim=1), atol=0.02, rtol=0.0)


def test_one_step_lowers_the_loss_on_a_fixed_batch(small_market) -> None:
    settings = dataclasses.replace(TINY, iterations=100, dropout=0.0)
    with m._Training(training_data(small_market), settings) as training:
        batch = training.batch()
        training.batch = lambda: batch
        losses = [training.step(iteration) for iteration in range(1, 4)]
    assert losses[0] > losses[1] > losses[2]


def test_shards_add_up_to_the_gradient_of_the_whole_batch(small_market) -> None:
    found = []
    for shards in (1, 2, 3):
        settings = dataclasses.replace(TINY, batch=5, shards=shards, dropout=0.0)
        with m._Training(training_data(small_market), settings) as training:
            loss = training.step(1)
            found.append((loss, [parameter.grad for parameter in training.parameters]))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_weights_are_the_same_on_one_core_and_on_two(small_market, monkeypatch) -> None:
    fits = []
    for cores in (1, 2):
        monkeypatch.setattr(m, "usable_cores", lambda cores=cores: cores)
        fits.append(train(small_market))
    for name, value in fits[0].weights.items():
        np.testing.assert_array_equal(value, fits[1].weights[name])


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch) -> None:
    monkeypatch.setattr(m.os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert m.usable_cores() == 2
    monkeypatch.delattr(m.os, "sched_getaffinity")
    monkeypatch.setattr(m.os, "cpu_count", lambda: None)
    assert m.usable_cores() == 1


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_an_accelerator_is_taken_where_there_is_one(monkeypatch, cuda, mps, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert m.choose_device() == expected
    assert m.choose_device("cpu") == "cpu"


def test_an_accelerator_takes_the_batch_whole() -> None:
    assert m.shard_count(LstmSettings(shards=2), "cpu") == 2
    assert m.shard_count(LstmSettings(shards=2, batch=1), "cpu") == 1
    assert m.shard_count(LstmSettings(shards=2), "cuda") == 1
