"""The fit: deterministic, mirror-symmetric, and right where the truth is known."""

import itertools
import logging

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from bot4_pipelines.training.cuts import choose_cuts, scored, split_slices
from bot4_pipelines.training.definition_gate import (
    SymbolTrend,
    definition_metrics,
    mirror_error,
    reference_hmm,
)
from bot4_pipelines.training.hmm import fit_hmm, known_runs, symmetrise
from bot4_pipelines.training.labels import filtered_regimes, hindsight_labels
from bot4_pipelines.training.promotion import judge
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.regime.hmm import viterbi
from bot4_runtime.regime.manifest import Manifest, ModelKind

HOUR = 3_600_000


def sample(params, length, seed):
    """Draw a run from an HMM; returns states and observations."""
    rng = np.random.default_rng(seed)
    states = [int(rng.choice(5, p=params.stationary()))]
    for _ in range(length - 1):
        states.append(int(rng.choice(5, p=params.transitions[states[-1]])))
    path = np.array(states)
    return path, rng.normal(params.means[path], np.sqrt(params.variances[path]))


def window_trend(returns, window=72):
    """Local oracle of z: sum of a window over the root of its sum of squares."""
    windows = np.lib.stride_tricks.sliding_window_view(returns, window)
    z = np.full(len(returns) + 1, np.nan)
    z[window:] = windows.sum(axis=1) / np.maximum(np.sqrt((windows**2).sum(axis=1)), 1e-6)
    return z


def random_walk(seed, length=20_000):
    z = window_trend(np.random.default_rng(seed).standard_t(4, size=length - 1) * 0.01)
    return SymbolTrend(np.arange(length, dtype=np.int64) * HOUR, z)


@pytest.fixture(scope="module")
def walks():
    return {name: random_walk(seed) for seed, name in enumerate(("AUSDT", "BUSDT"))}


@pytest.fixture(scope="module")
def cuts(walks):
    span = (0, 19_999 * HOUR)
    return choose_cuts(dict.fromkeys(walks, span), "1h")


@pytest.fixture(scope="module")
def fit(walks, cuts):
    return fit_hmm(
        {
            name: known_runs(walk.z, split_slices(walk.open_time_ms, cuts)["train"])
            for name, walk in walks.items()
        }
    )


def test_the_truth_is_found_again():
    truth = reference_hmm()
    path, z = sample(truth, 30_000, seed=5)
    found = fit_hmm({"A": [z]}).params
    assert found.means == pytest.approx(truth.means, abs=0.05)
    assert found.variances == pytest.approx(truth.variances, abs=0.02)
    assert found.transitions == pytest.approx(truth.transitions, abs=0.02)
    assert (viterbi(z, found) == path).mean() > 0.95


def test_the_same_trends_give_the_same_bits_in_any_order_of_symbols(walks, fit, cuts):
    runs = {
        name: known_runs(walk.z, split_slices(walk.open_time_ms, cuts)["train"])
        for name, walk in reversed(walks.items())
    }
    np.random.seed(123)
    again = fit_hmm(runs)
    assert again.loglik == fit.loglik
    for name in ("means", "variances", "transitions"):
        assert (getattr(again.params, name) == getattr(fit.params, name)).all()


def test_a_fit_is_its_own_mirror_image_and_in_order(fit):
    assert mirror_error(fit.params) <= 1e-15
    assert fit.params.means[2] == 0.0
    assert (np.diff(fit.params.means) > 0.4).all()
    assert fit.converged
    assert fit.iterations == len(fit.loglik) <= 40
    assert (np.diff(fit.loglik) > -1e-6).all()


def test_turning_every_sign_changes_no_parameter(walks, fit, cuts):
    turned = fit_hmm(
        {
            name: [-run for run in known_runs(w.z, split_slices(w.open_time_ms, cuts)["train"])]
            for name, w in walks.items()
        }
    )
    assert turned.params.means == pytest.approx(fit.params.means, abs=1e-6)


def test_hmmlearn_keeps_its_log_level_and_short_runs_do_no_harm():
    logger = logging.getLogger("hmmlearn")
    logger.setLevel(logging.INFO)
    _, z = sample(reference_hmm(), 1_500, seed=1)
    found = fit_hmm({"A": [z, z[:1], z[:0]]}, iterations=2)
    assert logger.level == logging.INFO
    assert not found.converged
    assert found.rows == 1_500


def test_too_few_or_constant_trends_are_refused():
    with pytest.raises(DataError, match="needs at least 1000 training trends; got 10"):
        fit_hmm({"A": [np.zeros(10)]})
    with pytest.raises(DataError, match="do not vary"):
        fit_hmm({"A": [np.zeros(2_000)]})


def test_states_that_coincide_are_no_hmm():
    with pytest.raises(ModelError, match="increasing means"):
        symmetrise(np.zeros(5), np.ones(5), np.full((5, 5), 0.2))


def test_a_random_walk_without_regimes_passes_the_definition_and_the_accuracy(walks, fit, cuts):
    """The control of models.md: accuracy names the present, it is no skill at the future."""
    metrics = definition_metrics(walks, fit.params, cuts)
    assert metrics["test"]["accuracy"] == pytest.approx(0.907, abs=0.02)
    assert metrics["definition"]["reference_agreement"] > 0.85
    assert metrics["definition"]["refits"] == 4.0
    gates = judge(hmm_manifest(metrics))
    assert not [str(gate) for gate in gates if not gate.passed]


def test_the_definitions_numbers_are_what_their_names_say(walks, fit, cuts):
    metrics = definition_metrics(walks, fit.params, cuts, refits=False)
    assert "least_refit_agreement" not in metrics["definition"]
    accuracies, shares, dwells = [], [], []
    for walk in walks.values():
        splits = split_slices(walk.open_time_ms, cuts)
        rows = scored(splits["test"])
        labels = hindsight_labels(walk.z, fit.params, splits.values())
        filtered = filtered_regimes(walk.z, fit.params, splits.values()).argmax(axis=1)
        accuracies.append(
            np.mean([a == b for a, b in zip(labels[rows], filtered[rows], strict=True)])
        )
        shares.append([(labels[rows] == k).mean() for k in range(5)])
        stay = 0
        train = labels[splits["train"]].tolist()
        for here, after in zip(train, [*train[1:], None], strict=True):
            stay += 1
            if here != after:
                dwells += [stay] if here >= 0 else []
                stay = 0
    assert metrics["test"]["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert [metrics["definition"][f"share_{k}_test"] for k in range(5)] == pytest.approx(
        np.mean(shares, axis=0).tolist()
    )
    assert metrics["definition"]["median_dwell"] == np.median(dwells)


def test_hindsight_says_how_sure_it_is_of_its_labels(walks, fit, cuts):
    """hmmlearn's posterior, which sees the whole run, gives the labels the same probability."""
    model = GaussianHMM(5, "diag")
    model.startprob_, model.transmat_ = fit.params.stationary(), fit.params.transitions
    model.means_, model.covars_ = fit.params.means[:, None], fit.params.variances[:, None]
    found = definition_metrics(walks, fit.params, cuts, refits=False)["definition"]
    for split in ("validation", "test"):
        expected = []
        for walk in walks.values():
            part = split_slices(walk.open_time_ms, cuts)[split]
            known = np.flatnonzero(np.isfinite(walk.z[part])) + part.start
            assert (np.diff(known) == 1).all()
            labels = model.predict(walk.z[known, None])
            posterior = model.predict_proba(walk.z[known, None])
            inside = np.isin(known, np.arange(len(walk.z))[scored(part)])
            expected.append(posterior[np.arange(len(known)), labels][inside].mean())
        assert found[f"label_probability_{split}"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert "label_probability_train" not in found


def test_a_symbol_without_known_trends_gives_no_number_and_no_pass(cuts):
    empty = SymbolTrend(np.arange(20_000, dtype=np.int64) * HOUR, np.full(20_000, np.nan))
    metrics = definition_metrics({"A": empty}, reference_hmm(), cuts)
    assert metrics["test"]["accuracy"] is None
    assert metrics["definition"]["median_dwell"] is None
    assert metrics["definition"]["least_refit_agreement"] is None
    failed = {gate.name for gate in judge(hmm_manifest(metrics)) if not gate.passed}
    assert {"test accuracy", "median dwell", "least share in train"} <= failed


def hmm_manifest(metrics) -> Manifest:
    return Manifest(
        kind=ModelKind.HMM, schema_id="", feature_names=("z",), interval="1h",
        origin=Origin.SIMULATED, market=Market.SPOT, symbols=("AUSDT",),
        cuts=choose_cuts({"A": (0, 19_999 * HOUR)}, "1h"), data_sha256="", metrics=metrics,
        golden=(), created_ms=0, expires_ms=1, code_version="",
    )  # fmt: skip


@pytest.mark.data
def test_real_candles_give_the_published_definition(test_data):
    """models.md, section 1: means near ±1.35 ±.57 0, the causal filter near .905."""
    import polars as pl

    trends = {}
    for symbol in ("BTCUSDT", "LTCUSDT"):
        frame = pl.read_parquet(test_data / "spot" / "1h" / f"{symbol}.parquet").tail(30_000)
        time = frame["timestamp"].dt.epoch("ms").to_numpy()
        close = frame["close"].to_numpy()
        breaks = [0, *(np.flatnonzero(np.diff(time) != HOUR) + 1).tolist(), len(time)]
        z = np.full(len(time), np.nan)
        for start, stop in itertools.pairwise(breaks):
            if stop - start > 72:
                z[start:stop] = window_trend(np.diff(np.log(close[start:stop])))
        trends[symbol] = SymbolTrend(time, z)
    spans = {s: (int(t.open_time_ms[0]), int(t.open_time_ms[-1])) for s, t in trends.items()}
    dates = choose_cuts(spans, "1h")
    runs = {
        s: known_runs(t.z, split_slices(t.open_time_ms, dates)["train"]) for s, t in trends.items()
    }
    params = fit_hmm(runs).params
    assert params.means == pytest.approx([-1.35, -0.57, 0.0, 0.57, 1.35], abs=0.05)
    metrics = definition_metrics(trends, params, dates, refits=False)
    for split in ("train", "validation", "test"):
        assert metrics[split]["accuracy"] == pytest.approx(0.905, abs=0.015)
    assert metrics["definition"]["reference_agreement"] > 0.95
