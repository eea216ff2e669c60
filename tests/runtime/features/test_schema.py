"""The schema id changes with what it pins and with nothing else."""

import numpy as np
import pytest

from bot4_runtime.features import schema as s


@pytest.fixture
def fresh_id():
    s.feature_schema_id.cache_clear()
    yield s.feature_schema_id
    s.feature_schema_id.cache_clear()


def test_the_id_is_the_one_that_released_models_carry(fresh_id) -> None:
    assert fresh_id() == "157457fccaec23a8e965a44b61219d051548913d4d7862c51a4f1ce93808a0f5"


def test_another_version_order_or_number_is_another_id(fresh_id, monkeypatch) -> None:
    known = fresh_id()
    for name, value in (
        ("_VERSIONS", s._VERSIONS | {"rsi": 2}),
        ("_VERSIONS", dict(reversed(s._VERSIONS.items()))),
        ("RATIO_FLOOR", 1e-4),
        ("_PROBE_STEP", 8),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(s, name, value)
            fresh_id.cache_clear()
            assert fresh_id() != known
    fresh_id.cache_clear()
    assert fresh_id() == known


def test_the_built_in_candles_are_possible_and_lively() -> None:
    probe = s.probe_candles()
    assert all(len(column) == 640 for column in probe.values())
    assert (probe["low"] <= np.minimum(probe["open"], probe["close"])).all()
    assert (np.maximum(probe["open"], probe["close"]) <= probe["high"]).all()
    assert (probe["low"] > 0).all()
    assert (probe["volume"] > 0).all()
    assert np.std(np.diff(np.log(probe["close"]))) > 0.005


def test_every_column_is_named_once_and_is_odd_or_even() -> None:
    assert len(set(s.FEATURE_NAMES)) == len(s.FEATURE_NAMES) == len(s.ODD) == 23
    assert s.FEATURE_NAMES[1] == "trend_0"
    assert sum(s.ODD) == 19
