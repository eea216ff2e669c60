"""Small real models, promoted: an HMM exported by the pipeline, and a linear one beside it.

Makes `engine_bench` importable for the tests of this folder too.
"""

import sys
from collections.abc import Callable
from pathlib import Path

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
from bot4_runtime.settings import Settings, load_settings

sys.path.insert(0, str(Path(__file__).parent))

HOUR = 3_600_000
TEST_START = 1_735_689_600_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def manifest(**changes: object) -> Manifest:
    fields = {
        "kind": ModelKind.HMM,
        "schema_id": feature_schema_id(),
        "feature_names": ("z",),
        "interval": "1h",
        "origin": Origin.SIMULATED,
        "market": Market.SPOT,
        "symbols": SYMBOLS,
        "cuts": Cuts(
            train_start_ms=0, validation_start_ms=1, test_start_ms=TEST_START, end_ms=2**50
        ),
        "data_sha256": "0" * 64,
        "metrics": {"validation": {"accuracy": 0.8}, "test": {"accuracy": 0.9}, "train": {}},
        "created_ms": 1_700_000_000_000,
        "expires_ms": 2**50,
        "code_version": "test",
        "gates": (GateVerdict(name="accuracy", passed=True, value=0.9, threshold=0.85),),
    } | changes
    return Manifest(**fields)  # type: ignore[arg-type]


def hmm_file(scale: float, **changes: object) -> tuple[bytes, Manifest]:
    parameters = HmmParameters(
        np.array([-1.35, -0.57, 0.0, 0.57, 1.35]) * scale,
        np.array([0.14, 0.04, 0.035, 0.04, 0.14]),
        0.95 * np.eye(5) + 0.01 * np.ones((5, 5)),
    )
    blocks = changes.pop("blocks", np.random.default_rng(5).normal(size=(64, 24)) / 8.5)
    graph = hmm_graph(parameters, blocks)  # type: ignore[arg-type]
    told = manifest(
        definition=HmmDefinition.of(parameters, TREND_WINDOW),
        golden=hmm_golden(graph, parameters),
        **changes,
    )
    return seal(graph, told), told


def lstm_file(
    hmm_sha256: str, gain: float = 4.0, window: int = WINDOW, **changes: object
) -> tuple[bytes, Manifest]:
    """Name the state whose Viterbi score is least; with a negative gain, the one least likely."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((len(LSTM_COLUMNS), 5), dtype=np.float32)
    weights[len(FEATURE_NAMES) :] = -gain * np.eye(5)
    width = len(LSTM_COLUMNS)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["features", "last"], ["row"], axis=1),
                helper.make_node("MatMul", ["row", "weights"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            ],
            "linear",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", window, width])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["B", 5])],
            [
                numpy_helper.from_array(weights, "weights"),
                numpy_helper.from_array(np.array(window - 1, dtype=np.int64), "last"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = 8
    graph = model.SerializeToString()
    windows = np.random.default_rng(0).normal(size=(2, window, width)).astype(np.float32)
    told = manifest(
        kind=ModelKind.LSTM,
        feature_names=LSTM_COLUMNS,
        hmm_sha256=hmm_sha256,
        temperature=1.0,
        window=window,
        golden=(golden_of(graph, {"features": windows}),),
        **changes,
    )
    return seal(graph, told), told


Promote = Callable[..., tuple[str, str]]


@pytest.fixture
def promote(tmp_path: Path) -> Promote:
    """Archive and activate a pair; `alone` leaves the LSTM out."""
    registry = ModelRegistry(tmp_path / "models")

    def add(
        scale: float = 1.0,
        *,
        alone: bool = False,
        gain: float = 4.0,
        window: int = WINDOW,
        **changes: object,
    ) -> tuple[str, str]:
        hmm = registry.add(*hmm_file(scale, **changes), "<p>hmm</p>")
        changes.pop("blocks", None)
        made = () if alone else lstm_file(hmm, gain, window, **changes)
        lstm = registry.add(*made, "<p>lstm</p>") if made else ""
        registry.activate("1h", hmm, lstm)
        return hmm, lstm

    return add


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**environment: str) -> Settings:
        return load_settings(
            environment={
                "BOT4_HOME": str(tmp_path / "home"),
                "BOT4_MODELS": str(tmp_path / "models"),
                "BOT4_RISK__MAX_CORRELATION": "1.0",
            }
            | environment
        )

    return make
