"""Small real models: an HMM exported by the pipeline, and a linear stand-in for the LSTM.

Makes `feature_steps` importable for the tests of this folder.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph, seal
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.features.schema import FEATURE_NAMES, TREND_WINDOW, feature_schema_id
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.loader import LSTM_COLUMNS
from bot4_runtime.regime.manifest import (
    OPSET,
    WINDOW,
    Cuts,
    GateVerdict,
    HmmDefinition,
    Manifest,
    ModelKind,
)
from bot4_runtime.regime.registry import ModelRegistry

sys.path.insert(0, str(Path(__file__).parent))

POOL = np.random.default_rng(5).standard_t(5, size=(64, 24)) / 11.0
CREATED, EXPIRES = 1_700_000_000_000, 1_900_000_000_000


def parameters(scale: float = 1.0) -> HmmParameters:
    return HmmParameters(
        np.array([-1.35, -0.57, 0.0, 0.57, 1.35]) * scale,
        np.array([0.14, 0.04, 0.035, 0.04, 0.14]),
        0.95 * np.eye(5) + 0.01 * np.ones((5, 5)),
    )


def plain_manifest(**changes) -> Manifest:
    passed = GateVerdict(name="accuracy", passed=True, value=0.9, threshold=0.85)
    manifest = Manifest(
        kind=ModelKind.HMM,
        schema_id=feature_schema_id(),
        feature_names=("z",),
        interval="1h",
        origin=Origin.SIMULATED,
        market=Market.SPOT,
        symbols=("BTCUSDT", "ETHUSDT"),
        cuts=Cuts(train_start_ms=0, validation_start_ms=1, test_start_ms=2, end_ms=3),
        data_sha256="0" * 64,
        metrics={"test": {"accuracy": 0.9}},
        golden=(),
        created_ms=CREATED,
        expires_ms=EXPIRES,
        code_version="0.1.0",
        gates=(passed,),
    )
    return msgspec.structs.replace(manifest, **changes)


def hmm_file(scale: float = 1.0, **changes) -> tuple[bytes, Manifest]:
    params = parameters(scale)
    graph = hmm_graph(params, changes.pop("blocks", POOL))
    fields = {
        "definition": HmmDefinition.of(params, TREND_WINDOW),
        "golden": hmm_golden(graph, params),
        **changes,
    }
    manifest = plain_manifest(**fields)
    return seal(graph, manifest), manifest


def linear_graph(
    *,
    opset: int = OPSET,
    name: str = "features",
    window: int = WINDOW,
    gain: float = 4.0,
    row: int = -1,
) -> bytes:
    """Name the state whose Viterbi score is least in one row of the window, the last."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((len(LSTM_COLUMNS), 5), dtype=np.float32)
    weights[len(FEATURE_NAMES) :] = -gain * np.eye(5)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", [name, "last"], ["row"], axis=1),
            helper.make_node("MatMul", ["row", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", window, len(LSTM_COLUMNS)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", 5])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(row % window, dtype=np.int64), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model.SerializeToString()


def lstm_file(hmm_sha256: str, graph: bytes | None = None, **changes) -> tuple[bytes, Manifest]:
    window = changes.get("window", WINDOW)
    graph = linear_graph(window=window) if graph is None else graph
    windows = np.random.default_rng(0).normal(size=(3, window, len(LSTM_COLUMNS)))
    fields = {
        "kind": ModelKind.LSTM,
        "feature_names": LSTM_COLUMNS,
        "hmm_sha256": hmm_sha256,
        "temperature": 1.0,
        **changes,
    }
    if "golden" not in fields:
        fields["golden"] = (golden_of(graph, {"features": windows.astype(np.float32)}),)
    manifest = plain_manifest(**fields)
    return seal(graph, manifest), manifest


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def make() -> SimpleNamespace:
    return SimpleNamespace(
        parameters=parameters,
        manifest=plain_manifest,
        hmm=hmm_file,
        lstm=lstm_file,
        linear_graph=linear_graph,
        sha256=sha256,
    )


@pytest.fixture
def registry(tmp_path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def add_pair(registry) -> Callable[..., tuple[str, str]]:
    def add(scale: float = 1.0, **changes) -> tuple[str, str]:
        hmm = registry.add(*hmm_file(scale, **changes), "<p>hmm</p>")
        return hmm, registry.add(*lstm_file(hmm, **changes), "<p>lstm</p>")

    return add
