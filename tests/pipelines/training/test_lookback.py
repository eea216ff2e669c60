"""An LSTM of any lookback: asked for, trained, exported, judged, audited, gone on from."""

import dataclasses

import numpy as np
import pytest

from bot4_pipelines.step_numbers import model_numbers
from bot4_pipelines.training.baselines import fit_baselines
from bot4_pipelines.training.candidates import Candidate, make_lstm
from bot4_pipelines.training.card import card_markdown
from bot4_pipelines.training.continued import start_from
from bot4_pipelines.training.dataset import INPUT_NAMES, symbol_rows
from bot4_pipelines.training.estimates import window_of
from bot4_pipelines.training.evaluation import evaluate_models
from bot4_pipelines.training.judged import LSTM, judge
from bot4_pipelines.training.leak_audit import audit
from bot4_pipelines.training.schedule import LstmSettings, Schedule, wanted_window
from bot4_runtime.domain.errors import ConfigError, ModelError
from bot4_runtime.features.incremental import FeatureState
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry

WINDOWS = (20, 80)


def settings(window: int) -> LstmSettings:
    return LstmSettings(
        iterations=3, batch=4, segment=60, warm=20, hidden=8, check_every=3, check_windows=60,
        soft_paths=0,
    ).reading(window)  # fmt: skip


def silent(message, share):
    assert 0.0 <= share <= 1.0, message


# ------------------------------------------------------------------------ asked for
@pytest.mark.parametrize("said", ["10", "20", " 80 ", "180"])
def test_the_environment_says_how_many_candles(said, monkeypatch) -> None:
    assert wanted_window({"BOT4_LOOKBACK": said}) == int(said)
    monkeypatch.setenv("BOT4_LOOKBACK", said)
    assert wanted_window() == int(said)


def test_fifty_candles_are_read_when_nobody_says_anything() -> None:
    assert wanted_window({}) == wanted_window({"BOT4_LOOKBACK": " "}) == 50


def test_one_training_may_ask_for_another(monkeypatch) -> None:
    monkeypatch.setenv("BOT4_LOOKBACK", "20")
    assert (wanted_window(asked=80), wanted_window(asked=0)) == (80, 20)
    for cannot in (-20, 9, 181):
        with pytest.raises(ConfigError, match=f"is '{cannot}'; expected .* from 10 to 180"):
            wanted_window(asked=cannot)


@pytest.mark.parametrize(
    "said", ["9", "181", "0", "-20", "20.0", "2e1", "many", "٢٠", "9" * 5_000]
)
def test_a_lookback_that_cannot_be_is_refused_with_what_can(said: str) -> None:
    with pytest.raises(
        ConfigError, match=r"BOT4_LOOKBACK .* from 10 to 180 .*leave it out for 50"
    ):
        wanted_window({"BOT4_LOOKBACK": said})


@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("window", [10, 20, 50, 80, 180])
def test_the_place_that_is_asked_is_one_that_was_learnt(schedule, window: int) -> None:
    plain, other = LstmSettings.of(schedule), LstmSettings.of(schedule, window=window)
    assert other.window == window
    assert other.warm < window < other.segment
    assert window > 50 or other.segment == plain.segment == 80
    changed = {"window", "warm", "segment"}
    for name in other.__dataclass_fields__.keys() - changed:
        assert getattr(other, name) == getattr(plain, name)
    assert LstmSettings.of(schedule, window=50) == plain


# ------------------------------------------------------------------------ trained
Made = tuple[ModelRegistry, str, dict[int, Candidate]]


@pytest.fixture(scope="module")
def made(material, archive_hmm, tmp_path_factory) -> Made:
    """A registry with an HMM and an LSTM of each lookback, trained under it."""
    registry = ModelRegistry(tmp_path_factory.mktemp("models"))
    hmm = archive_hmm(registry)
    lstms = {n: make_lstm(material, hmm, registry, settings(n), silent) for n in WINDOWS}
    return registry, hmm, lstms


@pytest.mark.parametrize("window", WINDOWS)
def test_an_archived_model_says_its_lookback_and_holds(made: Made, window: int) -> None:
    registry, _, lstms = made
    candidate = lstms[window]
    model = registry.verify(candidate.sha256)
    assert model.manifest.window == window_of(model.session) == window
    assert model.session.get_inputs()[0].shape == ["B", window, len(INPUT_NAMES)]
    (golden,) = model.manifest.golden
    assert golden.inputs["features"].shape == (4, window, len(INPUT_NAMES))
    assert model_numbers(candidate)["lookback"] == window
    assert f"| reads | the last {window} candles |" in card_markdown(model.manifest)
    assert f"the last {window} candles" in (registry.root / "archive" / candidate.sha256
                                            / "card.html").read_text()  # fmt: skip


@pytest.mark.parametrize("window", WINDOWS)
def test_rows_are_judged_where_the_window_is_whole(made: Made, small_market, window: int) -> None:
    """By brute force, over the gap of the second symbol."""
    registry, _, lstms = made
    session = registry.verify(lstms[window].sha256).session
    rows, part = small_market.rows[1], slice(1_200, 3_600)
    judged = judge(rows, small_market.params, part, session, interval_ms=3_600_000)
    run, whole = 0, []
    for at, valid in enumerate(rows.table.valid):
        run = run + 1 if valid else 0
        if run >= window and judged.scored[at]:
            whole.append(at)
    np.testing.assert_array_equal(np.flatnonzero(judged.named), whole)
    for at in (whole[0], whole[len(whole) // 2], whole[-1]):
        inputs = rows.inputs[None, at + 1 - window : at + 1].astype(np.float32)
        (answer,) = session.run(None, {"features": inputs})
        np.testing.assert_allclose(judged.estimates[LSTM].probabilities[at], answer[0], atol=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
def test_nothing_looks_ahead_at_its_own_lookback(made: Made, small_market, window: int) -> None:
    registry, _, lstms = made
    session = registry.verify(lstms[window].sha256).session
    found = audit(small_market.series, small_market.params, session, moments=2)
    assert found.leaks == found.left_out == ()


def test_evaluation_takes_models_of_any_lookback(made: Made, small_market, make_walk) -> None:
    registry, _, lstms = made
    baselines = fit_baselines(small_market.rows, small_market.params, small_market.cuts)
    series = make_walk(2_000, 9, "SOLUSDT")
    counts = {}
    for window, candidate in lstms.items():
        session = registry.verify(candidate.sha256).session
        told = evaluate_models(small_market.params, session, baselines, [series])
        counts[window] = told["rows"]["lstm"]["total"]
    assert counts[20] - counts[80] == 60


# ------------------------------------------------------------------------ traded
@pytest.mark.parametrize("windows", [(20, 80), (80, 20)])
def test_a_running_detector_is_swapped_to_the_other_lookback(
    made: Made, small_market, windows
) -> None:
    """Each candle is named as the batch names it, before the swap, after it and rolled back."""
    registry, hmm, lstms = made
    pairs = [
        ModelPair("1h", registry.verify(hmm), registry.verify(lstms[window].sha256))
        for window in windows
    ]
    series = small_market.series[0].rows(slice(0, 1_000))
    inputs = symbol_rows(series, pairs[0].hmm.parameters()).inputs
    detector = RegimeDetector(pairs[0])
    features = FeatureState(series.id.symbol, series.id.interval)
    asked = 0
    for at, candle in enumerate(series):
        if at in {700, 850}:
            detector.swap(pairs[at == 700])
        estimate = detector.update(candle, features.update(candle))
        if estimate is None:
            assert at < 511 + windows[0] - 1
            continue
        asked += 1
        lstm = detector.pair.lstm
        window = lstm.manifest.window
        rows = inputs[None, at + 1 - window : at + 1].astype(np.float32)
        wanted = lstm.run({"features": rows})[0][0]
        assert estimate.probabilities == pytest.approx(wanted, abs=1e-5)
        assert estimate.model_sha256 == lstm.sha256
    assert asked == 1_000 - 511 - windows[0] + 1
    assert detector.faults == 0


# ------------------------------------------------------------------------ gone on from
def test_training_goes_on_at_the_same_lookback_alone(made: Made, material) -> None:
    registry, hmm, lstms = made
    first = lstms[20]
    common = {"interval": "1h", "cuts": material.cuts}
    start = start_from(registry, first.sha256, window=20, **common)
    still = dataclasses.replace(settings(20), iterations=1, learning_rate=1e-12, averaging=0.0)
    second = make_lstm(material, hmm, registry, still, silent, start)
    assert (second.manifest.window, second.manifest.continued_from) == (20, first.sha256)
    for more, found in (({"window": 80}, 80), ({}, 50)):
        with pytest.raises(ModelError, match=rf"reads 20 candles, not {found} \(BOT4_LOOKBACK\)"):
            start_from(registry, first.sha256, **common | more)
