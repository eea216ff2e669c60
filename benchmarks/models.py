"""A pair of models of full size, for timings alone: what it learnt does not change what it costs.

The HMM filter and an LSTM of 2 x 128 over 50 candles, exported, sealed and promoted as the
pipeline does it, with random weights.
"""

from pathlib import Path

import msgspec
import numpy as np

from bot4_pipelines.training.dataset import Scaler
from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph, seal
from bot4_pipelines.training.lstm import LstmFit, build_network, network_weights
from bot4_pipelines.training.lstm_export import lstm_graph
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.features.schema import TREND_WINDOW, feature_schema_id
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.loader import LSTM_COLUMNS
from bot4_runtime.regime.manifest import (
    WINDOW,
    Cuts,
    GateVerdict,
    HmmDefinition,
    Manifest,
    ModelKind,
)
from bot4_runtime.regime.registry import ModelRegistry


def promote_pair(models: Path, interval: str) -> None:
    """Put an unfitted pair of full size into a registry and promote it."""
    params = HmmParameters(
        np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
        np.array([0.14, 0.04, 0.035, 0.04, 0.14]),
        0.95 * np.eye(5) + 0.01 * np.ones((5, 5)),
    )
    graph = hmm_graph(params)
    manifest = Manifest(
        kind=ModelKind.HMM,
        schema_id=feature_schema_id(),
        feature_names=("z",),
        interval=interval,
        origin=Origin.REAL,
        market=Market.SPOT,
        symbols=("BTCUSDT",),
        cuts=Cuts(train_start_ms=0, validation_start_ms=1, test_start_ms=2, end_ms=3),
        data_sha256="0" * 64,
        metrics={"test": {"accuracy": 0.9}},
        golden=hmm_golden(graph, params),
        created_ms=1_700_000_000_000,
        expires_ms=4_000_000_000_000,
        code_version="benchmark",
        gates=(GateVerdict(name="accuracy", passed=True, value=0.9, threshold=0.85),),
        definition=HmmDefinition.of(params, TREND_WINDOW),
    )
    registry = ModelRegistry(models)
    hmm = registry.add(seal(graph, manifest), manifest, "<p>benchmark</p>")
    network = build_network(LstmSettings(), len(LSTM_COLUMNS))
    scaler = Scaler(np.zeros(len(LSTM_COLUMNS)), np.ones(len(LSTM_COLUMNS)))
    lstm = lstm_graph(LstmFit(network_weights(network), scaler, temperature=1.0), WINDOW)
    windows = np.random.default_rng(0).normal(size=(3, WINDOW, len(LSTM_COLUMNS)))
    lstm_manifest = msgspec.structs.replace(
        manifest,
        kind=ModelKind.LSTM,
        feature_names=LSTM_COLUMNS,
        hmm_sha256=hmm,
        temperature=1.0,
        definition=None,
        golden=(golden_of(lstm, {"features": windows.astype(np.float32)}),),
    )
    sha256 = registry.add(seal(lstm, lstm_manifest), lstm_manifest, "<p>benchmark</p>")
    registry.activate(interval, hmm, sha256)
