"""The look-ahead estimate against trying every path of every future, and its symmetries."""

import base64
import math
from itertools import pairwise, product

import numpy as np
import pytest

from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.lookahead import (
    BLOCK_LENGTH_KEY,
    BLOCKS_KEY,
    LookAhead,
    draw_futures,
    lookahead_posterior,
    named_states,
    return_blocks_of,
)


@pytest.fixture
def params(make):
    return make.parameters()


@pytest.fixture
def blocks():
    rng = np.random.default_rng(5)
    return (rng.standard_t(5, size=(170, 24)) / 11.0).astype(np.float32)


def candles(count, seed):
    """Windows of returns and score gaps as they come on the way, none of them tied."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(rng.normal(0, 0.1, (count, 1)), 1.0, size=(count, 72)) * 0.01
    gaps = rng.exponential(2.0, size=(count, 5))
    gaps[np.arange(count), rng.integers(0, 5, count)] = 0.0
    return returns, gaps


def plain_name(window, gap, future, params):
    """Roll z by its definition, try every path of states, return where the best one starts."""
    z, known = [], list(window)
    rv = math.sqrt(sum(r * r for r in window))
    for step in future:
        known.append(step * rv)
        last = known[-72:]
        z.append(sum(last) / math.sqrt(sum(r * r for r in last)))
    emissions = params.log_emissions(np.array(z))
    return max(
        product(range(5), repeat=len(future) + 1),
        key=lambda path: (
            -gap[path[0]]
            + sum(params.log_transitions[a, b] for a, b in pairwise(path))
            + sum(emissions[t, b] for t, b in enumerate(path[1:]))
        ),
    )[0]


def test_the_shares_are_those_of_trying_every_path(params):
    rng = np.random.default_rng(1)
    returns, gaps = candles(12, 2)
    futures = rng.normal(0, 0.3, size=(6, 4))
    found = lookahead_posterior(returns, gaps, params, futures)
    for row in range(len(returns)):
        named = [plain_name(returns[row], gaps[row], future, params) for future in futures]
        assert found[row].tolist() == (np.bincount(named, minlength=5) / 6).tolist()
    assert len({tuple(row) for row in found.tolist()}) > 3


def test_a_continued_viterbi_does_not_try_impossible_transitions(params, make):
    stuck = 1e-10 * np.ones((5, 5)) + (1 - 5e-10) * np.eye(5)
    apart = type(params)(params.means, params.variances, stuck)
    futures = np.full((3, 5), 1.35, dtype=np.float32)
    scores = np.where(np.eye(5), 0.0, -np.inf).astype(np.float32)
    assert named_states(scores, futures, apart).tolist() == [0, 1, 2, 3, 4]


def test_a_mirrored_market_gets_the_mirrored_answer(params, blocks):
    look = LookAhead(params, blocks)
    returns, gaps = candles(300, 3)
    found = look.posterior(returns, gaps)
    np.testing.assert_array_equal(look.posterior(-returns, gaps[:, ::-1]), found[:, ::-1])
    assert (found.max(axis=1) < 1.0).any()


def test_futures_come_with_their_mirror_images_and_from_blocks_of_every_size(blocks):
    futures = draw_futures(blocks, paths=64, horizon=24, seed=0)
    np.testing.assert_array_equal(futures[:32], -futures[32:])
    size = np.sort(np.abs(blocks[:, :3].astype(np.float64).sum(axis=1)))
    drawn = np.sort(np.abs(futures[:32, :3].sum(axis=1)))
    for stratum, one in zip(np.array_split(size, 32), drawn, strict=True):
        assert stratum[0] <= one <= stratum[-1]
    short = draw_futures(blocks, paths=8, horizon=5, seed=0)
    assert short.shape == (8, 5)
    whole = {tuple(block[:5].tolist()) for block in blocks.astype(np.float64)}
    assert {tuple(future) for future in short[:4].tolist()} <= whole


def test_the_same_seed_answers_the_same_alone_and_in_any_batch(params, blocks):
    returns, gaps = candles(400, 4)
    look = LookAhead(params, blocks, seed=7)
    whole = look.posterior(returns, gaps)
    alone = [look.posterior(returns[[row]], gaps[[row]])[0] for row in range(400)]
    np.testing.assert_array_equal(whole, alone)
    np.testing.assert_array_equal(whole[::-1], look.posterior(returns[::-1], gaps[::-1]))
    again = LookAhead(params, blocks, seed=7)
    np.testing.assert_array_equal(again.futures, look.futures)
    assert not np.array_equal(LookAhead(params, blocks, seed=8).futures, look.futures)


def test_a_candle_that_is_not_known_gets_no_answer_and_spoils_no_other(params, blocks):
    look = LookAhead(params, blocks)
    returns, gaps = candles(6, 5)
    whole = look.posterior(returns, gaps)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-12)
    returns[1, 0], returns[2, 71], gaps[3, 4] = math.nan, math.inf, math.nan
    found = look.posterior(returns, gaps)
    assert np.isnan(found[[1, 2, 3]]).all()
    np.testing.assert_array_equal(found[[0, 4, 5]], whole[[0, 4, 5]])
    assert look.posterior(returns[:0], gaps[:0]).shape == (0, 5)


def test_a_flat_market_is_answered(params, blocks):
    returns, gaps = candles(1, 6)
    (found,) = LookAhead(params, blocks).posterior(0.0 * returns, gaps)
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pool", "asked"),
    [
        (np.zeros((31, 24)), {}),
        (np.zeros((32, 23)), {}),
        (np.zeros(768), {}),
        (np.zeros((99, 99)), {"horizon": 72}),
        (np.zeros((99, 99)), {"horizon": 0}),
        (np.zeros((99, 99)), {"paths": 63}),
        (np.zeros((99, 99)), {"paths": 0}),
    ],
)
def test_a_pool_that_is_too_small_is_refused(params, pool, asked):
    with pytest.raises(ModelError, match="cannot draw"):
        LookAhead(params, pool, **asked)


def test_a_pool_that_is_not_finite_is_refused(params, blocks):
    blocks[3, 4] = math.nan
    with pytest.raises(ModelError, match="not finite"):
        LookAhead(params, blocks)


def test_blocks_are_read_from_metadata_or_refused(blocks):
    text = base64.b64encode(blocks.astype("<f4").tobytes()).decode()
    good = {BLOCKS_KEY: text, BLOCK_LENGTH_KEY: "24"}
    np.testing.assert_array_equal(return_blocks_of(good), blocks)
    for bad in ({}, good | {BLOCK_LENGTH_KEY: "7"}, good | {BLOCKS_KEY: "?"}):
        with pytest.raises(ModelError, match="no readable pool"):
            return_blocks_of(bad)
