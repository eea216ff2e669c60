"""A small market that learners are tried on: two walks, an HMM, cuts, inputs.

Makes `gate_numbers` importable for the tests of this folder.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bot4_pipelines.training.candidates import Material
from bot4_pipelines.training.dataset import SymbolRows, symbol_rows
from bot4_pipelines.training.hmm_export import hmm_golden, hmm_graph, seal
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import Cuts, HmmDefinition, Manifest, ModelKind
from bot4_runtime.regime.registry import ModelRegistry

sys.path.insert(0, str(Path(__file__).parent))

HOUR = 3_600_000


def walk(n: int, seed: int, symbol: str, *, first: int = 0) -> CandleSeries:
    """Prices with fat tails and changing volatility: no regimes, which z has anyway."""
    rng = np.random.default_rng(seed)
    sigma = 0.01 * np.exp(0.3 * np.sin(np.arange(n) / 200.0))
    close = 100.0 * np.exp(np.cumsum(rng.standard_t(5, n) * sigma))
    opened = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.3, n)) * sigma)
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.3, n)) * sigma)
    times = (np.arange(n, dtype=np.int64) + first) * HOUR
    identity = SeriesId(Origin.SIMULATED, Market.SPOT, symbol, "1h")
    return CandleSeries(identity, times, opened, high, low, close, rng.lognormal(5, 1, n))


def without(series: CandleSeries, gone: slice) -> CandleSeries:
    keep = np.ones(len(series), dtype=bool)
    keep[gone] = False
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return CandleSeries(series.id, *(getattr(series, name)[keep] for name in names))


PARAMS = HmmParameters(
    np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
    np.array([0.142, 0.043, 0.0355, 0.043, 0.142]),
    np.array(
        [
            [0.967, 0.033 - 3e-9, 1e-9, 1e-9, 1e-9],
            [0.026, 0.928, 0.046 - 2e-9, 1e-9, 1e-9],
            [1e-9, 0.042 - 1e-9, 0.916, 0.042 - 1e-9, 1e-9],
            [1e-9, 1e-9, 0.046 - 2e-9, 0.928, 0.026],
            [1e-9, 1e-9, 1e-9, 0.033 - 3e-9, 0.967],
        ]
    ),
)


@dataclass(frozen=True)
class SmallMarket:
    series: list[CandleSeries]
    params: HmmParameters
    cuts: Cuts
    rows: list[SymbolRows]


@pytest.fixture(scope="session")
def small_market() -> SmallMarket:
    series = [
        walk(6_000, 1, "BTCUSDT"),
        without(walk(6_000, 2, "ETHUSDT"), slice(1_500, 1_503)),
    ]
    cuts = Cuts(
        train_start_ms=0,
        validation_start_ms=3_600 * HOUR,
        test_start_ms=4_800 * HOUR,
        end_ms=6_000 * HOUR,
    )
    return SmallMarket(series, PARAMS, cuts, [symbol_rows(one, PARAMS) for one in series])


@pytest.fixture(scope="session")
def make_walk():
    return walk


@pytest.fixture(scope="session")
def material(small_market, make_walk) -> Material:
    return Material(
        series={one.id.symbol: one for one in small_market.series},
        tables={rows.symbol: rows.table for rows in small_market.rows},
        cuts=small_market.cuts,
        data_sha256="0" * 64,
        code_version="test",
        now_ms=1,
        held_out={"SOLUSDT": make_walk(6_000, 9, "SOLUSDT")},
    )


@pytest.fixture(scope="session")
def archive_hmm(material) -> Callable[[ModelRegistry], str]:
    """Put the HMM of the small market into a registry."""
    graph = hmm_graph(PARAMS)
    one = next(iter(material.series.values())).id
    manifest = Manifest(
        kind=ModelKind.HMM, schema_id=feature_schema_id(), feature_names=("z",), interval="1h",
        origin=one.origin, market=one.market, symbols=tuple(material.series),
        cuts=material.cuts, data_sha256="0" * 64, metrics={},
        golden=hmm_golden(graph, PARAMS), created_ms=0, expires_ms=2**60,
        code_version="test", definition=HmmDefinition.of(PARAMS, 72),
    )  # fmt: skip
    return lambda registry: registry.add(seal(graph, manifest), manifest, "")
