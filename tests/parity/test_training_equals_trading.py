"""What is trained is what trades: batch, incremental, torch and ONNX give the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bot4_pipelines.training.dataset import CLIP, INPUT_NAMES, fit_scaler, symbol_rows, window_ends
from bot4_pipelines.training.estimates import lstm_estimates
from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph, seal
from bot4_pipelines.training.labels import filtered_regimes
from bot4_pipelines.training.lstm import LstmFit, build_network, network_weights
from bot4_pipelines.training.lstm_export import lstm_graph
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.regime import EstimateSource
from bot4_runtime.features.incremental import FeatureState
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import (
    Cuts,
    GateVerdict,
    HmmDefinition,
    Manifest,
    ModelKind,
    Scaler,
)
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry

HOUR = 3_600_000
PARAMS = HmmParameters(
    np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
    np.array([0.142, 0.043, 0.0355, 0.043, 0.142]),
    0.95 * np.eye(5) + 0.01 * np.ones((5, 5)),
)
Models = tuple[ModelPair, LstmFit, torch.nn.Module]


def simulated() -> CandleSeries:
    return SimulatedMarket(3).series("BTCUSDT", "1h", 450_000 * HOUR, 451_200 * HOUR)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    """A promoted pair with weights as large as trained ones."""
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    rows = symbol_rows(simulated(), PARAMS)
    network = build_network(LstmSettings(), len(INPUT_NAMES)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    scaler = fit_scaler(rows.inputs[rows.table.valid])
    fit = LstmFit(network_weights(network), scaler, 1.1)
    common = {
        "schema_id": feature_schema_id(), "interval": "1h", "market": Market.SPOT,
        "origin": simulated().id.origin, "symbols": ("BTCUSDT", "ETHUSDT", "BNBUSDT"),
        "cuts": Cuts(train_start_ms=0, validation_start_ms=1, test_start_ms=2, end_ms=3),
        "data_sha256": "0" * 64, "metrics": {}, "created_ms": 0, "expires_ms": 2**60,
        "code_version": "test",
        "gates": (GateVerdict(name="test", passed=True, value=1.0, threshold=0.0),),
    }  # fmt: skip
    graph = hmm_graph(PARAMS)
    manifest = Manifest(
        kind=ModelKind.HMM, feature_names=("z",), golden=hmm_golden(graph, PARAMS),
        definition=HmmDefinition.of(PARAMS, 72), **common,
    )  # fmt: skip
    hmm = registry.add(seal(graph, manifest), manifest, "")
    graph = lstm_graph(fit, 50)
    golden = golden_of(graph, {"features": rows.inputs[None, 600:650].astype(np.float32)})
    manifest = Manifest(
        kind=ModelKind.LSTM, feature_names=INPUT_NAMES, hmm_sha256=hmm, golden=(golden,),
        scaler=Scaler(mean=tuple(fit.scaler.mean.tolist()),
                      scale=tuple(fit.scaler.deviation.tolist()), clip=CLIP),
        temperature=fit.temperature, **common,
    )  # fmt: skip
    registry.activate("1h", hmm, registry.add(seal(graph, manifest), manifest, ""))
    return registry.load("1h"), fit, network


def assert_parity(series: CandleSeries, models: Models) -> None:
    """Name every candle in four ways and compare."""
    pair, fit, network = models
    assert pair.lstm is not None
    rows = symbol_rows(series, PARAMS)
    ends = window_ends(rows.table.valid, 50)
    by_batch = lstm_estimates(pair.lstm.session, rows.inputs, ends)
    scaled = fit.scaler.apply(rows.inputs)[ends[:, None] + np.arange(-49, 1)]
    with torch.inference_mode():
        logits = network(torch.from_numpy(scaled))[:, -1] / fit.temperature
    np.testing.assert_allclose(by_batch[ends], torch.softmax(logits, dim=1), atol=1e-5)
    filtered = filtered_regimes(rows.table.z, PARAMS, [slice(0, len(series))])

    features, detector = FeatureState(series.id.symbol, "1h"), RegimeDetector(pair)
    named = 0
    for row, candle in enumerate(series):
        estimate = detector.update(candle, features.update(candle))
        if np.isfinite(by_batch[row, 0]):
            assert estimate is not None
            assert estimate.source is EstimateSource.LSTM
            np.testing.assert_allclose(estimate.probabilities, by_batch[row], atol=1e-5)
            assert estimate.regime == by_batch[row].argmax()
            assert estimate.hmm_confidence == pytest.approx(filtered[row].max(), abs=1e-5)
            named += 1
        else:
            assert estimate is None
    assert named == len(ends) > 0


def without(series: CandleSeries, gone: int) -> CandleSeries:
    keep = np.arange(len(series)) != gone
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return CandleSeries(series.id, *(getattr(series, name)[keep] for name in names))


def test_simulated_candles_are_named_alike_in_all_forms(models: Models) -> None:
    assert_parity(simulated(), models)


def test_a_missing_candle_is_treated_alike_in_all_forms(models: Models) -> None:
    assert_parity(without(simulated(), 600), models)


@pytest.mark.data
@pytest.mark.parametrize("symbol", ["BTCUSDT", "BNBUSDT"])
def test_real_candles_are_named_alike_in_all_forms(
    models: Models, test_data: Path, symbol: str
) -> None:
    (series,) = read_candle_folder(test_data / "spot" / "1h", Market.SPOT, [symbol])
    for start in np.random.default_rng(8).integers(0, len(series) - 900, size=2):
        assert_parity(series.rows(slice(int(start), int(start) + 900)), models)


@pytest.mark.data
def test_candles_after_t_change_nothing_at_or_before_t(models: Models, test_data: Path) -> None:
    (series,) = read_candle_folder(test_data / "spot" / "1h", Market.SPOT, ["ETHUSDT"])
    series = series.rows(slice(len(series) - 1_100, len(series)))
    t = 900
    columns = {n: getattr(series, n).copy() for n in ("open", "high", "low", "close", "volume")}
    for column in columns.values():
        column[t + 1 :] *= np.linspace(1.01, 2.0, len(series) - t - 1)[::-1]
    columns["high"] = np.max([columns[n] for n in ("open", "high", "low", "close")], axis=0)
    columns["low"] = np.min([columns[n] for n in ("open", "high", "low", "close")], axis=0)
    altered = CandleSeries(series.id, series.open_time_ms, *columns.values())
    pair, _, _ = models
    assert pair.lstm is not None
    first, second = (symbol_rows(one, PARAMS) for one in (series, altered))
    np.testing.assert_array_equal(first.inputs[: t + 1], second.inputs[: t + 1])
    assert (first.inputs[t + 1 :] != second.inputs[t + 1 :]).any()
    ends = window_ends(first.table.valid, 50)
    ends = ends[ends <= t]
    estimates = [lstm_estimates(pair.lstm.session, one.inputs, ends) for one in (first, second)]
    np.testing.assert_array_equal(*estimates)
