"""What stands beside the features in the benchmark computes the same; each new row is made."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("benchmarks.bench_features")  # mutation testing copies the tests alone
from benchmarks import bench_features
from benchmarks.orchestration import imported, partition_runs
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.features.batch import compute
from bot4_runtime.features.schema import FEATURE_NAMES, LOOKBACK

HOUR = 3_600_000
START = 1_577_836_800_000  # 2020-01-01
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "ResourceWarning", "FutureWarning")
]


@pytest.mark.parametrize("peer", sorted(bench_features.PEERS))
def test_every_column_of_a_peer_is_ours(peer):
    series = SimulatedMarket(2).series("BTCUSDT", "1h", START, START + 1_500 * HOUR)
    volume = series.volume.copy()
    volume[900:930] = 0.0  # a market nobody trades
    series = dataclasses.replace(series, volume=volume)
    ours = compute(series).values
    theirs = bench_features.PEERS[peer](series)
    assert theirs.shape == ours.shape
    rows = slice(LOOKBACK - 1, None)
    for place, name in enumerate(FEATURE_NAMES):
        np.testing.assert_allclose(
            theirs[rows, place], ours[rows, place], rtol=1e-6, atol=1e-9, err_msg=name
        )


def test_an_update_is_timed_for_candles_whose_rows_are_valid(monkeypatch):
    monkeypatch.setattr(bench_features, "UPDATES", 300)
    series = SimulatedMarket(2).series("BTCUSDT", "1h", START, START + 900 * HOUR)
    row = bench_features.updates(series)
    assert row.goal == 50e3
    assert 0.0 < row.min <= row.median


def test_an_import_says_what_heavy_library_came_with_it():
    assert imported("json", 1).heavy == ()
    found = imported("pandas", 1)
    assert found.heavy == ("pandas",)
    assert len(found.wall_s) == len(found.cpu_s) == 1


def test_a_run_of_a_partition_does_more_than_the_plain_function(tmp_path):
    found = partition_runs(tmp_path, 1)
    assert len(found.run_ms) == len(found.function_ms) == 1
    assert min(found.run_ms) > min(found.function_ms) > 0.0
    assert found.storage_bytes > 0.0
