"""Hindsight labels never see another split, nor the other side of a gap."""

import numpy as np
import pytest

from bot4_pipelines.training.labels import (
    causal_scores,
    filtered_regimes,
    hindsight_labels,
    segments,
)
from bot4_runtime.regime.hmm import HmmParameters, forward_filter, viterbi, viterbi_scores

PARAMS = HmmParameters(
    np.array([-1.35, -0.57, 0.0, 0.57, 1.35]),
    np.full(5, 0.1),
    0.94 * np.eye(5) + 0.012 * np.ones((5, 5)),
)


@pytest.fixture
def trend():
    z = np.random.default_rng(0).normal(size=900).cumsum() / 6
    z[:72] = np.nan
    z[400:472] = np.nan
    return z


SPLITS = [slice(0, 600), slice(600, 800), slice(800, 900)]


def test_segments_break_at_unknown_trends_and_at_splits(trend):
    assert segments(trend, SPLITS) == [
        slice(72, 400),
        slice(472, 600),
        slice(600, 800),
        slice(800, 900),
    ]
    assert segments(np.full(5, np.nan), [slice(0, 5)]) == []


def test_each_segment_is_decoded_by_itself(trend):
    labels = hindsight_labels(trend, PARAMS, SPLITS)
    assert (labels[:72] == -1).all()
    assert (labels[400:472] == -1).all()
    for rows in segments(trend, SPLITS):
        assert (labels[rows] == viterbi(trend[rows], PARAMS)).all()


def test_no_label_sees_the_next_split(trend):
    altered = trend.copy()
    altered[600:] *= -1.0
    before = hindsight_labels(trend, PARAMS, SPLITS)
    after = hindsight_labels(altered, PARAMS, SPLITS)
    assert (before[:600] == after[:600]).all()
    assert (before[600:] != after[600:]).any()


def test_rows_outside_the_splits_have_no_label(trend):
    labels = hindsight_labels(trend, PARAMS, [slice(500, 600)])
    assert (labels[:500] == -1).all()
    assert (labels[600:] == -1).all()
    assert (labels[500:600] >= 0).all()


def test_the_filter_restarts_where_the_labels_do(trend):
    filtered = filtered_regimes(trend, PARAMS, SPLITS)
    for rows in segments(trend, SPLITS):
        assert (filtered[rows] == forward_filter(trend[rows], PARAMS)[0]).all()
    assert np.isnan(filtered[:72]).all()


def test_causal_scores_run_on_across_splits_but_not_across_gaps(trend):
    scores = causal_scores(trend, PARAMS)
    assert (scores[72:400] == viterbi_scores(trend[72:400], PARAMS)).all()
    assert (scores[472:] == viterbi_scores(trend[472:], PARAMS)).all()
    assert np.isnan(scores[400:472]).all()
