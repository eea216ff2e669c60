"""The ONNX filter against numpy and hmmlearn, and the seal on a model file."""

import numpy as np
import onnxruntime
import pytest

from bot4_pipelines.training.definition_gate import reference_hmm
from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.hmm import forward_filter
from bot4_runtime.regime.lookahead import return_blocks_of


@pytest.fixture(scope="module")
def params():
    return reference_hmm()


@pytest.fixture(scope="module")
def session(params):
    return onnxruntime.InferenceSession(hmm_graph(params), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def trends():
    return np.random.default_rng(0).normal(size=(3, 400)).cumsum(axis=1) / 8


def test_a_batch_of_windows_is_what_numpy_computes(session, params, trends):
    prior = np.repeat(params.log_stationary[None], 3, axis=0)
    filtered, following, loglik = session.run(
        None, {"obs": trends[:, :, None], "log_prior": prior}
    )
    for row, z in enumerate(trends):
        wanted = forward_filter(z, params)
        assert filtered[row] == pytest.approx(wanted[0], abs=1e-12)
        assert following[row] == pytest.approx(wanted[1], abs=1e-9)
        assert loglik[row] == pytest.approx(wanted[2], abs=1e-8)


def test_streaming_is_the_window_fed_back(session, params, trends):
    prior = params.log_stationary[None]
    total = 0.0
    for z, wanted in zip(trends[0], forward_filter(trends[0], params)[0], strict=True):
        row, prior, part = session.run(None, {"obs": np.full((1, 1, 1), z), "log_prior": prior})
        assert row[0, 0] == pytest.approx(wanted, abs=1e-12)
        total += part[0]
    assert total == pytest.approx(forward_filter(trends[0], params)[2], abs=1e-8)


def test_hmmlearn_agrees_where_it_filters(session, params, trends):
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(5, "diag")
    model.startprob_, model.transmat_ = params.stationary(), params.transitions
    model.means_, model.covars_ = params.means[:, None], params.variances[:, None]
    z = trends[1][:, None]
    filtered, _, loglik = session.run(
        None, {"obs": z[None], "log_prior": params.log_stationary[None]}
    )
    assert loglik[0] == pytest.approx(model.score(z), abs=1e-8)
    for end in (1, 10, 400):
        assert filtered[0, end - 1] == pytest.approx(model.predict_proba(z[:end])[-1], abs=1e-9)


def test_the_extremes_of_the_trend_stay_finite(session, params):
    z = np.array([8.48, -8.48] * 5)[None, :, None]
    for answer in session.run(None, {"obs": z, "log_prior": params.log_stationary[None]}):
        assert np.isfinite(answer).all()


def test_golden_windows_visit_all_states_and_repeat(params):
    graph = hmm_graph(params)
    (golden,) = hmm_golden(graph, params)
    named = golden.outputs["filtered"].array().argmax(axis=2)
    assert set(named.ravel().tolist()) == set(range(5))
    again = golden_of(graph, {name: t.array() for name, t in golden.inputs.items()})
    assert again == golden


def test_the_pool_of_return_blocks_travels_with_the_file(params):
    import onnx

    blocks = np.random.default_rng(1).normal(size=(170, 24)).astype(np.float32)
    model = onnx.load_model_from_string(hmm_graph(params, blocks))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (return_blocks_of(metadata) == blocks).all()
    with pytest.raises(ModelError, match="no readable pool"):
        return_blocks_of({})
    for bad in (np.zeros((171, 24)), np.full((2, 2), np.nan), np.zeros(4)):
        with pytest.raises(ModelError, match="at most 4096 numbers"):
            hmm_graph(params, bad)
