"""The look-ahead that is scored is the one that trades: batch and candle by candle agree."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bot4_pipelines.training.dataset import symbol_rows
from bot4_pipelines.training.definition_gate import reference_hmm
from bot4_pipelines.training.estimates import lookahead_estimates
from bot4_pipelines.training.hmm_export import hmm_graph
from bot4_pipelines.training.lstm_export import open_session
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.regime import EstimateSource, HmmMode
from bot4_runtime.features.incremental import FeatureState
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.loader import LoadedModel
from bot4_runtime.regime.pair import ModelPair

HOUR = 3_600_000


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    params = reference_hmm()
    blocks = np.random.default_rng(2).standard_t(5, size=(170, 24)) / 11.0
    manifest = SimpleNamespace(
        schema_id="", symbols=(), admits=lambda _: True, definition=SimpleNamespace(
            parameters=lambda: params
        )
    )  # fmt: skip
    hmm = LoadedModel("0" * 64, manifest, open_session(hmm_graph(params, blocks)))
    return ModelPair("1h", hmm, None)


def assert_parity(series: CandleSeries, pair: ModelPair) -> None:
    rows = symbol_rows(series, pair.hmm.parameters())
    by_batch = lookahead_estimates(pair.look_ahead(), rows, rows.table.valid)
    features = FeatureState(series.id.symbol, "1h")
    detector = RegimeDetector(pair, HmmMode.LOOKAHEAD)
    found = np.full_like(by_batch, np.nan)
    for row, candle in enumerate(series):
        estimate = detector.update(candle, features.update(candle))
        if estimate is not None:
            assert estimate.source is EstimateSource.HMM_LOOKAHEAD
            found[row] = estimate.probabilities
    valid = rows.table.valid
    assert valid.any()
    np.testing.assert_array_equal(np.isfinite(found[:, 0]), valid)
    # The two forms differ in the last digit of a logarithm: one future of 64 may tip over.
    difference = np.abs(found - by_batch)[valid].max(axis=1)
    assert difference.max() <= 1 / 64
    assert (difference > 0).mean() < 0.01


def test_simulated_candles_are_looked_ahead_from_alike(pair: ModelPair) -> None:
    assert_parity(SimulatedMarket(3).series("BTCUSDT", "1h", 450_000 * HOUR, 451_000 * HOUR), pair)


@pytest.mark.data
@pytest.mark.parametrize("symbol", ["BTCUSDT", "BNBUSDT"])
def test_real_candles_are_looked_ahead_from_alike(
    pair: ModelPair, test_data: Path, symbol: str
) -> None:
    (series,) = read_candle_folder(test_data / "spot" / "1h", Market.SPOT, [symbol])
    for start in np.random.default_rng(8).integers(0, len(series) - 1_000, size=2):
        assert_parity(series.rows(slice(int(start), int(start) + 1_000)), pair)
