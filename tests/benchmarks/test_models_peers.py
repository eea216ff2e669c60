"""What stands beside the models in the benchmark computes the same."""

import numpy as np
import pytest

pytest.importorskip("benchmarks.bench_models")  # mutation testing copies the tests alone
from benchmarks.bench_models import _series, hmmlearn_model, training
from benchmarks.models import promote_pair
from bot4_runtime.regime.hmm import HmmParameters, forward_filter
from bot4_runtime.regime.registry import ModelRegistry


def test_hmmlearns_posterior_of_the_last_candle_is_the_filters():
    params = HmmParameters(
        np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
        np.array([0.14, 0.04, 0.035, 0.04, 0.14]),
        0.95 * np.eye(5) + 0.01 * np.ones((5, 5)),
    )
    candles = np.random.default_rng(3).normal(size=(50, 1))
    for count in (1, 50):
        smoothed = hmmlearn_model(params).predict_proba(candles[:count])
        filtered = forward_filter(candles[:count, 0], params)[0]
        np.testing.assert_allclose(smoothed[-1], filtered[-1], atol=1e-9)


def test_a_series_is_filtered_by_onnx_runtime_as_by_numpy_and_smoothed_by_hmmlearn(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("benchmarks.bench_models.HISTORY", 40)
    promote_pair(tmp_path, "1h")
    pair = ModelRegistry(tmp_path).load("1h")
    params, answers = pair.hmm.parameters(), []

    def run(asked):
        answers.append(pair.hmm.run(asked))
        return answers[-1]

    rows = _series(run, params, np.random.default_rng(5))
    assert [row.kind for row in rows] == ["ours", "ours", "peer", "ours"]
    assert all(row.unit == "candles/CPU-s" and row.median > 0.0 for row in rows)
    z = np.random.default_rng(5).normal(size=40)
    np.testing.assert_allclose(answers[0][0][0], forward_filter(z, params)[0], atol=1e-9)
    assert answers[-1][0].shape == (512, 1, 5)


def test_training_is_told_in_seconds_of_the_whole_schedule(monkeypatch):
    monkeypatch.setattr("benchmarks.bench_models.STEPS", 2)
    row = training()
    assert row.unit == "s"
    assert row.goal == 360.0
    assert row.min > 3_000 * 1e-3
    assert "3,000 steps, told from 2" in row.note
