"""From feature rows to estimates: causal, restarted at gaps, swapped between candles."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from feature_steps import load, run, steps

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.regime import EstimateSource, HmmMode
from bot4_runtime.features.incremental import FeatureRow
from bot4_runtime.features.schema import LOOKBACK, TREND_WINDOW
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.hmm import forward_filter, viterbi_scores
from bot4_runtime.regime.pair import ModelPair

FIRST_LSTM = LOOKBACK + 49


@pytest.fixture
def hmm(make):
    return load(make.hmm(), make)


@pytest.fixture
def pair(hmm, make):
    return ModelPair("1h", hmm, load(make.lstm(hmm.sha256), make))


def test_the_lstm_reads_the_last_fifty_valid_rows_and_their_scores(pair):
    rows = list(steps(2_000))
    found = run(RegimeDetector(pair), rows)
    assert all(estimate is None for estimate in found[: FIRST_LSTM - 1])
    assert all(estimate is not None for estimate in found[FIRST_LSTM - 1 :])
    z = np.array([row.z for _, row in rows[TREND_WINDOW:]])
    params = pair.hmm.parameters()
    scores = viterbi_scores(z, params)
    filtered, _, _ = forward_filter(z, params)
    for at in (FIRST_LSTM - 1, 1_023, 1_024, 1_600, 1_999):
        inputs = np.concatenate(
            [
                np.array([row.values for _, row in rows[at - 49 : at + 1]]),
                scores[at - 49 - TREND_WINDOW : at + 1 - TREND_WINDOW],
            ],
            axis=1,
        ).astype(np.float32)
        wanted = pair.lstm.run({"features": inputs[None]})[0][0]
        estimate = found[at]
        assert estimate.probabilities == pytest.approx(wanted, abs=1e-6)
        assert estimate.regime == int(wanted.argmax())
        assert estimate.confidence == max(estimate.probabilities)
        assert estimate.hmm_regime == int(filtered[at - TREND_WINDOW].argmax())
        assert estimate.hmm_confidence == pytest.approx(filtered[at - TREND_WINDOW].max())
        assert estimate.source is EstimateSource.LSTM
        assert estimate.model_sha256 == pair.lstm_sha256
        assert estimate.volatility == pytest.approx(0.06 / math.sqrt(72))
        assert estimate.open_time_ms == rows[at][0].open_time_ms


def test_without_an_lstm_the_filter_names_valid_rows(hmm):
    rows = list(steps(700))
    found = run(RegimeDetector(ModelPair("1h", hmm, None)), rows)
    assert [estimate is None for estimate in found] == [not row.valid for _, row in rows]
    z = np.array([row.z for _, row in rows[TREND_WINDOW:]])
    filtered, _, _ = forward_filter(z, hmm.parameters())
    assert found[-1].probabilities == pytest.approx(filtered[-1], abs=1e-9)
    assert found[-1].source is EstimateSource.HMM_FILTER
    assert found[-1].model_sha256 == hmm.sha256


def test_a_gap_starts_a_symbol_anew(pair):
    rows = list(steps(1_300, gap_at=700))
    found = run(RegimeDetector(pair), rows)
    assert found[699] is not None
    assert all(estimate is None for estimate in found[700 : 700 + FIRST_LSTM - 1])
    alone = run(RegimeDetector(pair), rows[700:])
    assert found[700:] == alone


def test_symbols_do_not_mix(pair):
    one, other = list(steps(600)), list(steps(600, seed=1, symbol="ETHUSDT"))
    together = RegimeDetector(pair)
    mixed = [together.update(*step) for both in zip(one, other, strict=True) for step in both]
    assert mixed[::2] == run(RegimeDetector(pair), one)
    assert mixed[1::2] == run(RegimeDetector(pair), other)


def test_warming_is_updating_without_naming(pair):
    rows = list(steps(700))
    warmed = RegimeDetector(pair)
    for step in rows[:650]:
        assert warmed.warm(*step) is None
    assert run(warmed, rows[650:]) == run(RegimeDetector(pair), rows)[650:]


@pytest.mark.parametrize("at", [0, 40, 300, 620])
def test_a_swapped_detector_answers_as_if_it_had_never_known_the_old_pair(pair, make, at):
    new_hmm = load(make.hmm(scale=1.3), make)
    new = ModelPair("1h", new_hmm, load(make.lstm(new_hmm.sha256), make))
    rows = list(steps(900, seed=3))
    detector = RegimeDetector(pair)
    run(detector, rows[:at])
    detector.swap(new)
    assert detector.pair is new
    swapped = run(detector, rows[at:])
    fresh = run(RegimeDetector(new), rows)[at:]
    assert [e is None for e in swapped] == [e is None for e in fresh]
    for found, wanted in zip(swapped, fresh, strict=True):
        if wanted is not None:
            assert found.model_sha256 == wanted.model_sha256
            assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-6)
            assert found.hmm_confidence == pytest.approx(wanted.hmm_confidence, abs=1e-9)


def test_symbols_the_pair_does_not_admit_are_not_named(pair, make):
    rows = list(steps(600, symbol="SOLUSDT"))
    assert not any(run(RegimeDetector(pair), rows))
    from bot4_runtime.regime.manifest import UnseenVerdict

    verdict = UnseenVerdict(symbols=("DOTUSDT",), accuracy=0.95, passed=True)
    open_hmm = load(make.hmm(unseen=verdict), make)
    named = run(RegimeDetector(ModelPair("1h", open_hmm, None)), rows)
    assert named[-1].unseen_symbol


@pytest.mark.parametrize(
    "answer",
    [
        [math.nan, 0.2, 0.3, 0.25, 0.25],
        [0.2, 0.2, 0.2, 0.2, 0.1],
        [1.2, -0.2, 0.0, 0.0, 0.0],
        [math.inf, 0.0, 0.0, 0.0, 0.0],
    ],
)
def test_an_answer_that_is_no_distribution_names_nothing(pair, hmm, answer):
    liar = SimpleNamespace(
        sha256="b" * 64,
        manifest=pair.lstm_manifest,
        run=lambda _: [np.array([answer], dtype=np.float32)],
    )
    rows = list(steps(570))
    assert not any(run(RegimeDetector(ModelPair("1h", hmm, liar)), rows))
    lying_hmm = SimpleNamespace(
        sha256="c" * 64,
        manifest=hmm.manifest,
        parameters=hmm.parameters,
        run=lambda inputs: [np.array([[answer]]), inputs["log_prior"], np.zeros(1)],
    )
    assert not any(run(RegimeDetector(ModelPair("1h", lying_hmm, None)), rows))


def test_a_row_that_is_not_finite_keeps_the_lstm_silent(pair):
    rows = list(steps(640))
    values = rows[600][1].values.copy()
    values[3] = math.nan
    changed = {f: getattr(rows[600][1], f) for f in FeatureRow.__dataclass_fields__}
    rows[600] = (rows[600][0], FeatureRow(**{**changed, "values": values}))
    found = run(RegimeDetector(pair), rows)
    assert found[599] is not None
    # The stand-in multiplies every column, so NaN reaches its answer.
    assert found[600] is None


# ------------------------------------------------------------------------ looking ahead
def looked(rows, pair):
    """The look-ahead of the last row, from all rows at once."""
    returns = np.array([[row.log_return for _, row in rows[-TREND_WINDOW:]]])
    z = np.array([row.z for _, row in rows if math.isfinite(row.z)])
    gaps = np.expm1(viterbi_scores(z, pair.hmm.parameters()))
    return pair.look_ahead().posterior(returns, gaps[[-1]])[0]


def test_the_hmm_can_look_ahead_instead_of_filtering(hmm):
    rows = list(steps(700))
    pair = ModelPair("1h", hmm, None)
    found = run(RegimeDetector(pair, HmmMode.LOOKAHEAD), rows)
    assert [estimate is None for estimate in found] == [not row.valid for _, row in rows]
    for at in (LOOKBACK - 1, 600, 699):
        wanted = looked(rows[: at + 1], pair)
        assert found[at].probabilities == tuple(wanted)
        assert found[at].regime == found[at].hmm_regime == wanted.argmax()
        assert found[at].confidence == found[at].hmm_confidence == wanted.max()
        assert found[at].source is EstimateSource.HMM_LOOKAHEAD
    assert len({estimate.confidence for estimate in found if estimate}) > 5


def test_beside_an_lstm_the_look_ahead_is_shown_and_the_lstm_decides(pair):
    rows = list(steps(700))
    filtered, ahead = run(RegimeDetector(pair), rows), RegimeDetector(pair, HmmMode.LOOKAHEAD)
    found = run(ahead, rows)[-1]
    assert found.source is EstimateSource.LSTM
    assert found.probabilities == filtered[-1].probabilities
    assert found.hmm_confidence == looked(rows, pair).max()


def test_a_look_ahead_starts_anew_after_a_gap(hmm):
    rows = list(steps(1_300, gap_at=700))
    pair = ModelPair("1h", hmm, None)
    found = run(RegimeDetector(pair, HmmMode.LOOKAHEAD), rows)
    assert not any(found[700 : 700 + LOOKBACK - 1])
    assert found[700:] == run(RegimeDetector(pair, HmmMode.LOOKAHEAD), rows[700:])


def test_a_look_ahead_that_saw_too_few_returns_names_nothing(hmm):
    rows = list(steps(700))
    detector = RegimeDetector(ModelPair("1h", hmm, None), HmmMode.LOOKAHEAD)
    late = run(detector, rows[600:])
    assert not any(late[: TREND_WINDOW - 1])
    assert late[TREND_WINDOW] is not None


def test_a_return_that_is_not_finite_keeps_the_look_ahead_silent(hmm):
    rows = list(steps(640))
    changed = {f: getattr(rows[600][1], f) for f in FeatureRow.__dataclass_fields__}
    rows[600] = (rows[600][0], FeatureRow(**{**changed, "log_return": math.nan}))
    found = run(RegimeDetector(ModelPair("1h", hmm, None), HmmMode.LOOKAHEAD), rows)
    assert found[599] is not None
    assert not any(found[600:])


@pytest.mark.parametrize("at", [0, 300, 620])
def test_a_look_ahead_swapped_in_answers_as_if_there_had_been_no_other(pair, make, at):
    new = ModelPair("1h", load(make.hmm(scale=1.3), make), None)
    rows = list(steps(700, seed=3))
    detector = RegimeDetector(pair, HmmMode.LOOKAHEAD)
    run(detector, rows[:at])
    detector.swap(new)
    assert run(detector, rows[at:]) == run(RegimeDetector(new, HmmMode.LOOKAHEAD), rows)[at:]


def test_an_hmm_that_cannot_look_ahead_is_refused_and_the_old_one_asked_on(pair, make):
    bare = ModelPair("1h", load(make.hmm(blocks=None), make), None)
    with pytest.raises(ModelError, match="no readable pool"):
        RegimeDetector(bare, HmmMode.LOOKAHEAD)
    detector = RegimeDetector(pair, HmmMode.LOOKAHEAD)
    with pytest.raises(ModelError, match="no readable pool"):
        detector.swap(bare)
    assert detector.pair is pair
    assert run(detector, steps(600)) == run(RegimeDetector(pair, HmmMode.LOOKAHEAD), steps(600))
    RegimeDetector(bare).swap(pair)
