"""What is trained is what trades: batch, incremental, torch and ONNX give the same numbers."""

from dataclasses import dataclass
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
SYMBOLS = ("ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT", "LTCUSDT")
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
    """A promoted pair that reads 50 candles."""
    return promoted(tmp_path_factory.mktemp("models"), 50)


def promoted(folder: Path, window: int) -> Models:
    """Promote a pair with weights as large as trained ones."""
    registry = ModelRegistry(folder)
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
        "origin": simulated().id.origin, "symbols": SYMBOLS,
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
    graph = lstm_graph(fit, window)
    shown = rows.inputs[None, 600 : 600 + window].astype(np.float32)
    golden = golden_of(graph, {"features": shown})
    manifest = Manifest(
        kind=ModelKind.LSTM, feature_names=INPUT_NAMES, hmm_sha256=hmm, golden=(golden,),
        scaler=Scaler(mean=tuple(fit.scaler.mean.tolist()),
                      scale=tuple(fit.scaler.deviation.tolist()), clip=CLIP),
        temperature=fit.temperature, window=window, **common,
    )  # fmt: skip
    registry.activate("1h", hmm, registry.add(seal(graph, manifest), manifest, ""))
    return registry.load("1h"), fit, network


@dataclass(frozen=True)
class Agreement:
    """How far apart the forms lie: candles, candles named, largest absolute differences."""

    candles: int
    named: int
    features: float
    hmm: float
    lstm: float
    torch: float

    def __str__(self) -> str:
        return (
            f"{self.candles} candles, {self.named} named; largest difference: features "
            f"{self.features:.1e}, HMM {self.hmm:.1e}, LSTM {self.lstm:.1e}, torch {self.torch:.1e}"
        )


def by_torch(
    fit: LstmFit, network: torch.nn.Module, inputs: np.ndarray, ends: np.ndarray, window: int
):
    scaled, found = fit.scaler.apply(inputs), []
    for at in np.array_split(ends, -(-len(ends) // 1_024)):
        windows = torch.from_numpy(scaled[at[:, None] + np.arange(1 - window, 1)])
        with torch.inference_mode():
            found.append(torch.softmax(network(windows)[:, -1] / fit.temperature, dim=1).numpy())
    return np.concatenate(found)


def assert_parity(series: CandleSeries, models: Models) -> Agreement:
    """Name every candle in four ways and compare."""
    pair, fit, network = models
    assert pair.lstm is not None
    rows = symbol_rows(series, PARAMS)
    window = pair.lstm.manifest.window
    table, ends = rows.table, window_ends(rows.table.valid, window)
    by_batch = lstm_estimates(pair.lstm.session, rows.inputs, ends)
    filtered = filtered_regimes(table.z, PARAMS, [slice(0, len(series))])

    features, detector = FeatureState(series.id.symbol, series.id.interval), RegimeDetector(pair)
    values, trends = np.full_like(table.values, np.nan), np.full_like(table.z, np.nan)
    named, hmm = np.full_like(by_batch, np.nan), np.full(len(series), np.nan)
    for row, candle in enumerate(series):
        feature = features.update(candle)
        values[row], trends[row] = feature.values, feature.z
        estimate = detector.update(candle, feature)
        if estimate is not None:
            assert estimate.source is EstimateSource.LSTM
            assert estimate.regime == by_batch[row].argmax()
            named[row], hmm[row] = estimate.probabilities, estimate.hmm_confidence
    assert detector.faults == 0
    assert len(ends) > 0
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(named[:, 0])), ends)
    pairs = {
        "features": (values, table.values, 1e-9),
        "z": (trends, table.z, 1e-9),
        "hmm": (hmm[ends], filtered[ends].max(axis=1), 1e-5),
        "lstm": (named, by_batch, 1e-5),
        "torch": (by_batch[ends], by_torch(fit, network, rows.inputs, ends, window), 1e-5),
    }
    furthest = {}
    for form, (one, other, limit) in pairs.items():
        np.testing.assert_allclose(one, other, rtol=0.0, atol=limit, err_msg=form)
        furthest[form] = float(np.nanmax(np.abs(one - other)))
    furthest["features"] = max(furthest["features"], furthest.pop("z"))
    return Agreement(len(series), len(ends), **furthest)


def without(series: CandleSeries, gone: int) -> CandleSeries:
    keep = np.arange(len(series)) != gone
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return CandleSeries(series.id, *(getattr(series, name)[keep] for name in names))


def test_simulated_candles_are_named_alike_in_all_forms(models: Models) -> None:
    assert_parity(simulated(), models)


def test_a_missing_candle_is_treated_alike_in_all_forms(models: Models) -> None:
    assert_parity(without(simulated(), 600), models)


@pytest.mark.parametrize(("window", "gap"), [(10, 600), (20, 600), (80, 600), (180, 700)])
def test_any_lookback_is_named_alike_in_all_forms(tmp_path: Path, window: int, gap: int) -> None:
    models = promoted(tmp_path, window)
    assert assert_parity(simulated(), models).named == 1_200 - 511 - window + 1
    assert_parity(without(simulated(), gap), models)


@pytest.mark.data
@pytest.mark.parametrize("window", [20, 80])
def test_real_candles_are_named_alike_at_any_lookback(
    tmp_path: Path, test_data: Path, window: int
) -> None:
    (series,) = read_candle_folder(test_data / "spot" / "1h", Market.SPOT, ["ETHUSDT"])
    assert_parity(series.rows(slice(9_000, 9_900)), promoted(tmp_path, window))


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


@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize("folder", ["spot/1h", "spot/1m", "usdm/1h", "usdm/mark-1h"])
def test_every_real_candle_is_named_alike_in_all_forms(
    models: Models, test_data: Path, folder: str
) -> None:
    """`pytest -rP` tells what docs/pipeline.md has."""
    for series in read_candle_folder(test_data / folder, Market(folder.partition("/")[0])):
        print(f"{folder} {series.id.symbol}: {assert_parity(series, models)}", flush=True)
