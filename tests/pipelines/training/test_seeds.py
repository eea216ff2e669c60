"""Several seeds: different trainings, honest mean and spread, nothing archived."""

import statistics

import pytest

from bot4_pipelines.training.candidates import Material
from bot4_pipelines.training.schedule import LstmSettings
from bot4_pipelines.training.seeds import seed_spread, spread
from bot4_runtime.domain.errors import ConfigError


@pytest.fixture
def material(small_market) -> Material:
    return Material(
        series={one.id.symbol: one for one in small_market.series},
        tables={rows.symbol: rows.table for rows in small_market.rows},
        cuts=small_market.cuts, data_sha256="0" * 64, code_version="test", now_ms=1,
    )  # fmt: skip


SETTINGS = LstmSettings(
    iterations=3, batch=4, segment=60, warm=20, hidden=8, check_every=3, check_windows=60,
    soft_paths=0, seed=7,
)  # fmt: skip


def test_every_seed_is_another_training_and_the_spread_is_theirs(material, small_market) -> None:
    told = []
    found = seed_spread(
        material, small_market.params, SETTINGS, 2, lambda *news: told.append(news)
    )
    assert [run["seed"] for run in found["runs"]] == [7, 8]
    values = [run["test_accuracy"] for run in found["runs"]]
    assert values[0] != values[1]
    numbers = found["numbers"]["test_accuracy"]
    assert numbers["mean"] == pytest.approx(statistics.mean(values))
    assert (numbers["least"], numbers["largest"]) == (min(values), max(values))
    assert {"validation_ece", "train_macro_f1", "seconds", "cpu_seconds"} <= set(found["numbers"])
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[0][0].startswith("seed 1 of 2: ")


def test_one_seed_has_no_spread(material, small_market) -> None:
    with pytest.raises(ConfigError, match="at least 2 seeds; got 1"):
        seed_spread(material, small_market.params, SETTINGS, 1, lambda *_: None)


def test_the_spread_of_known_numbers_and_of_unknown_ones() -> None:
    assert spread([1.0, 2.0, 3.0]) == {
        "mean": 2.0, "deviation": 1.0, "least": 1.0, "largest": 3.0,
    }  # fmt: skip
    assert set(spread([1.0, None]).values()) == {None}
