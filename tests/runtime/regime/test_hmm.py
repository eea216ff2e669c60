"""The HMM in numpy against all paths enumerated, and against hmmlearn's public API."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.regime.hmm import (
    SCORE_NAMES,
    HmmParameters,
    ViterbiScores,
    forward_filter,
    smooth,
    viterbi,
    viterbi_scores,
)

TRENDS = st.lists(st.floats(-4, 4), min_size=1, max_size=6)


def parameters(seed: int = 0) -> HmmParameters:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(5, 0.5), size=5) + 2.0 * np.eye(5) + 1e-3
    return HmmParameters(
        np.sort(rng.normal(size=5)) + np.arange(5) * 0.1,
        rng.uniform(0.05, 0.5, size=5),
        rows / rows.sum(axis=1, keepdims=True),
    )


def log_probability(path: tuple[int, ...], z: np.ndarray, params: HmmParameters) -> float:
    density = -0.5 * (
        (z - params.means[list(path)]) ** 2 / params.variances[list(path)]
        + np.log(2 * np.pi * params.variances[list(path)])
    )
    moves = [np.log(params.transitions[i, j]) for i, j in itertools.pairwise(path)]
    return float(np.log(params.stationary()[path[0]]) + density.sum() + sum(moves))


def hmmlearn_model(params: HmmParameters):
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(5, "diag")
    model.startprob_ = params.stationary()
    model.transmat_ = params.transitions
    model.means_ = params.means[:, None]
    model.covars_ = params.variances[:, None]
    return model


@settings(max_examples=25, deadline=None)
@given(TRENDS, st.integers(0, 1000))
def test_the_filter_is_the_posterior_over_all_paths(trends, seed):
    params, z = parameters(seed), np.array(trends)
    filtered, next_prior, loglik = forward_filter(z, params)
    for t in range(len(z)):
        mass = np.zeros(5)
        for path in itertools.product(range(5), repeat=t + 1) if t < 4 else []:
            mass[path[-1]] += np.exp(log_probability(path, z[: t + 1], params))
        if t < 4:
            assert filtered[t] == pytest.approx(mass / mass.sum(), abs=1e-10)
            if t == len(z) - 1:
                assert loglik == pytest.approx(np.log(mass.sum()), abs=1e-9)
                assert np.exp(next_prior) == pytest.approx(
                    mass @ params.transitions / mass.sum(), abs=1e-10
                )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_the_smoother_is_the_posterior_over_all_paths(trends, seed):
    params, z = parameters(seed), np.array(trends)
    mass = np.zeros((len(z), 5))
    for path in itertools.product(range(5), repeat=len(z)):
        weight = np.exp(log_probability(path, z, params))
        for t, state in enumerate(path):
            mass[t, state] += weight
    smoothed = smooth(z, params)
    assert smoothed == pytest.approx(mass / mass.sum(axis=1, keepdims=True), abs=1e-10)
    assert smoothed[-1] == pytest.approx(forward_filter(z, params)[0][-1], abs=1e-15)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_viterbi_and_its_scores_are_the_best_of_all_paths(trends, seed):
    params, z = parameters(seed), np.array(trends)
    scores = {
        path: log_probability(path, z, params)
        for path in itertools.product(range(5), repeat=len(z))
    }
    best = max(scores.values())
    assert scores[tuple(viterbi(z, params).tolist())] == pytest.approx(best, abs=1e-9)
    ends = [max(s for path, s in scores.items() if path[-1] == k) for k in range(5)]
    assert viterbi_scores(z, params)[-1] == pytest.approx(
        np.log1p(best - np.array(ends)), abs=1e-9
    )


def test_hmmlearn_agrees_on_long_runs():
    params = parameters(3)
    z = np.random.default_rng(1).normal(size=500).cumsum() / 8
    model = hmmlearn_model(params)
    filtered, _, loglik = forward_filter(z, params)
    assert loglik == pytest.approx(model.score(z[:, None]), abs=1e-8)
    assert (viterbi(z, params) == model.predict(z[:, None])).all()
    assert smooth(z, params) == pytest.approx(model.predict_proba(z[:, None]), abs=1e-10)
    for end in (1, 2, 50, 499):  # only the last row of predict_proba is filtered
        last = model.predict_proba(z[: end + 1, None])[-1]
        assert filtered[end] == pytest.approx(last, abs=1e-10)


def test_a_step_at_a_time_is_the_window_at_once():
    params, z = parameters(4), np.random.default_rng(2).normal(size=300)
    filtered, _, loglik = forward_filter(z, params)
    prior, total, rows = None, 0.0, []
    for value in z:
        row, prior, part = forward_filter(np.array([value]), params, prior)
        rows.append(row[0])
        total += part
    assert np.array(rows) == pytest.approx(filtered, abs=1e-12)
    assert total == pytest.approx(loglik, abs=1e-9)
    stepwise = ViterbiScores(params)
    batch = viterbi_scores(z, params)
    assert np.array([stepwise.update(value) for value in z]) == pytest.approx(batch, abs=1e-12)
    stepwise.reset()
    assert stepwise.update(z[0]) == pytest.approx(batch[0], abs=1e-12)


def test_scores_forget_where_they_started():
    params, z = parameters(5), np.random.default_rng(3).normal(size=1_000)
    late = viterbi_scores(z[489:], params)[-1]
    assert late == pytest.approx(viterbi_scores(z, params)[-1], abs=1e-9)


def test_candles_to_come_change_no_estimate():
    params, z = parameters(6), np.random.default_rng(4).normal(size=200)
    altered = z.copy()
    altered[150:] = 3.0
    for estimate in (lambda x: forward_filter(x, params)[0], lambda x: viterbi_scores(x, params)):
        assert (estimate(z)[:150] == estimate(altered)[:150]).all()


def test_extreme_trends_and_near_zero_transitions_stay_finite():
    rows = np.full((5, 5), 1e-12) + np.eye(5)
    params = HmmParameters(
        np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
        np.full(5, 0.02),
        rows / rows.sum(axis=1, keepdims=True),
    )
    z = np.array([-8.4, 8.4, -8.4, 0.0, 8.4])
    filtered, next_prior, loglik = forward_filter(z, params)
    assert np.isfinite(filtered).all()
    assert np.isfinite(next_prior).all()
    assert np.isfinite(loglik)
    assert filtered.argmax(axis=1).tolist() == [0, 4, 0, 2, 4]
    assert smooth(z, params) == pytest.approx(hmmlearn_model(params).predict_proba(z[:, None]))


def test_the_stationary_distribution_stays_where_it_is():
    params = parameters(7)
    shares = params.stationary()
    assert shares @ params.transitions == pytest.approx(shares, abs=1e-12)
    assert shares.sum() == pytest.approx(1.0)


def test_an_empty_run_is_no_error():
    params = parameters()
    filtered, prior, loglik = forward_filter(np.array([]), params)
    assert filtered.shape == (0, 5)
    assert np.exp(prior) == pytest.approx(params.stationary())
    assert loglik == 0.0
    assert smooth(np.array([]), params).shape == (0, 5)
    assert viterbi(np.array([]), params).shape == (0,)
    assert viterbi_scores(np.array([]), params).shape == (0, len(SCORE_NAMES))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_trend_that_is_not_finite_is_refused(bad):
    params = parameters()
    for use in (forward_filter, smooth, viterbi, viterbi_scores):
        with pytest.raises(DataError, match="split at gaps"):
            use(np.array([0.0, bad]), params)
    with pytest.raises(DataError, match="reset at gaps"):
        ViterbiScores(params).update(bad)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means", [0.0, 0.0, 1.0, 2.0, 3.0]),
        ("means", [0.0, 1.0, np.nan, 2.0, 3.0]),
        ("means", [0.0, 1.0, 2.0, 3.0]),
        ("variances", [1.0, 1.0, 0.0, 1.0, 1.0]),
        ("variances", [1.0, 1.0, np.nan, 1.0, 1.0]),
        ("transitions", np.eye(5)),
        ("transitions", np.full((5, 5), 0.3)),
    ],
)
def test_impossible_parameters_are_refused(name, value):
    good = parameters()
    fields = {"means": good.means, "variances": good.variances, "transitions": good.transitions}
    with pytest.raises(ModelError, match="refit"):
        HmmParameters(**{**fields, name: np.array(value)})
