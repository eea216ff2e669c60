"""Going on from an archived LSTM: from what may be gone on, and that it starts there."""

import dataclasses

import msgspec
import numpy as np
import pytest

from bot4_pipelines.training import lstm as m
from bot4_pipelines.training.candidates import learn, make_lstm
from bot4_pipelines.training.continued import start_from
from bot4_pipelines.training.dataset import Scaler
from bot4_pipelines.training.schedule import LstmSettings, Schedule
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.registry import ModelRegistry

SETTINGS = LstmSettings(
    iterations=3, batch=4, segment=60, warm=20, hidden=8, check_every=3, check_windows=60,
    soft_paths=0,
)  # fmt: skip


def silent(message, share):
    assert 0.0 <= share <= 1.0, message


@pytest.fixture(scope="module")
def archived(material, archive_hmm, tmp_path_factory):
    """A registry with an HMM, and the LSTM trained under it."""
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    hmm = archive_hmm(registry)
    return registry, hmm, make_lstm(material, hmm, registry, SETTINGS, silent)


def test_a_candidate_carries_the_verdict_on_held_out_symbols_and_how_it_was_fitted(
    archived, material
) -> None:
    manifest = archived[2].manifest
    assert manifest.unseen.symbols == ("SOLUSDT",)
    assert not manifest.unseen.passed
    assert manifest.symbols == ("BTCUSDT", "ETHUSDT")
    assert manifest.metrics["fit"]["iterations"] == 3.0
    assert manifest.continued_from == ""


def test_training_goes_on_where_the_archived_model_stopped(archived, material) -> None:
    registry, hmm, first = archived
    start = start_from(
        registry, first.sha256[:10], interval="1h", cuts=material.cuts, held_out=("SOLUSDT",)
    )
    assert start.sha256 == first.sha256
    still = dataclasses.replace(SETTINGS, iterations=1, learning_rate=1e-12, averaging=0.0)
    second = make_lstm(material, hmm, registry, still, silent, start)
    assert second.manifest.continued_from == first.sha256
    assert second.manifest.scaler == first.manifest.scaler
    assert second.sha256 != first.sha256
    for split in ("validation", "test"):
        for name in ("accuracy", "balanced_accuracy"):
            assert second.manifest.metrics[split][name] == pytest.approx(
                first.manifest.metrics[split][name], abs=1e-3
            )
    assert {gate.name for gate in second.manifest.gates} == {
        gate.name for gate in first.manifest.gates
    }


def test_a_quarter_of_the_learning_rate_is_taken_to_go_on() -> None:
    plain, on = (LstmSettings.of(Schedule.FULL, continued=flag) for flag in (False, True))
    assert on == dataclasses.replace(plain, learning_rate=0.25 * plain.learning_rate)


def test_what_may_not_be_gone_on_from_is_refused_with_its_reason(archived, material) -> None:
    registry, hmm, first = archived
    cuts = material.cuts
    earlier = msgspec.structs.replace(cuts, validation_start_ms=cuts.validation_start_ms - 1)
    for sha256, more, why in (
        ("f" * 64, {}, "0 archived models begin with"),
        ("", {}, "0 archived models"),
        (hmm, {}, "it is no LSTM"),
        (first.sha256, {"interval": "4h"}, "candles of 1h, not 4h"),
        (first.sha256, {"window": 20}, r"reads 50 candles, not 20 \(BOT4_LOOKBACK\); train anew"),
        (first.sha256, {"cuts": earlier}, "candles that the next model is to be judged on"),
        (first.sha256, {"held_out": ("ETHUSDT",)}, "trained on ETHUSDT, which is held out"),
    ):
        with pytest.raises(ModelError, match=why):
            start_from(registry, sha256, **{"interval": "1h", "cuts": cuts} | more)


def test_weights_of_another_shape_are_refused(archived, material, small_market) -> None:
    registry, _, first = archived
    start = start_from(registry, first.sha256, interval="1h", cuts=material.cuts)
    with pytest.raises(ModelError, match=r"8 x 2.*128 x 2"):
        learn(material, small_market.params, LstmSettings(soft_paths=0), silent, start)


def test_a_given_scaler_is_kept(small_market) -> None:
    width = small_market.rows[0].inputs.shape[1]
    scaler = Scaler(np.zeros(width), np.full(width, 2.0))
    data = m.training_set(
        small_market.rows, small_market.params, small_market.cuts, segment=80, window=50,
        scaler=scaler,
    )  # fmt: skip
    assert data.scaler is scaler
