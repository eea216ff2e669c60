"""The hand-built graph against torch, with weights as large as trained ones."""

import numpy as np
import onnx
import pytest
import torch

from bot4_pipelines.training.dataset import CLIP, INPUT_NAMES, Scaler
from bot4_pipelines.training.lstm import LstmFit, build_network, network_weights
from bot4_pipelines.training.lstm_export import graph_weights, lstm_graph, open_session
from bot4_pipelines.training.schedule import LstmSettings


def fitted(layers: int, hidden: int, seed: int) -> tuple[LstmFit, torch.nn.Module]:
    generator = torch.Generator().manual_seed(seed)
    network = build_network(LstmSettings(layers=layers, hidden=hidden), len(INPUT_NAMES)).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    rng = np.random.default_rng(seed)
    scaler = Scaler(rng.normal(size=len(INPUT_NAMES)), np.exp(rng.normal(size=len(INPUT_NAMES))))
    return LstmFit(network_weights(network), scaler, 1.3), network


@pytest.mark.parametrize(("layers", "hidden"), [(2, 128), (1, 16), (3, 8)])
def test_the_graph_names_what_torch_names(layers: int, hidden: int) -> None:
    fit, network = fitted(layers, hidden, 3)
    windows = np.random.default_rng(4).normal(0, 5, (33, 50, len(INPUT_NAMES))).astype(np.float32)
    (found,) = open_session(lstm_graph(fit, 50)).run(None, {"features": windows})
    scaled = torch.from_numpy(fit.scaler.apply(windows))
    assert scaled.abs().max() == CLIP
    with torch.inference_mode():
        expected = torch.softmax(network(scaled)[:, -1] / 1.3, dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_weights_come_back_from_the_graph_to_the_last_bit(layers: int) -> None:
    fit = fitted(layers, 8, 5)[0]
    found = graph_weights(lstm_graph(fit, 50))
    assert found.keys() == fit.weights.keys()
    for name, value in fit.weights.items():
        np.testing.assert_array_equal(found[name], value)


def test_the_interface_is_what_the_runtime_expects() -> None:
    model = onnx.load_from_string(lstm_graph(fitted(2, 8, 1)[0], 50))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    session = open_session(model.SerializeToString())
    (put,), (got,) = session.get_inputs(), session.get_outputs()
    assert (put.name, put.type, put.shape) == ("features", "tensor(float)", ["B", 50, 28])
    assert (got.name, got.type, got.shape) == ("probabilities", "tensor(float)", ["B", 5])


def test_an_unknown_number_gives_no_estimate() -> None:
    session = open_session(lstm_graph(fitted(2, 8, 1)[0], 50))
    for value in (np.nan, np.inf, -np.inf):
        windows = np.zeros((2, 50, 28), dtype=np.float32)
        windows[0, 7, 3] = value
        (found,) = session.run(None, {"features": windows})
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()
