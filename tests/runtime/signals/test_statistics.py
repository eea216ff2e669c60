"""Oracles: scipy, statsmodels, published worked examples, brute force."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.signals import statistics as ours
from bot4_runtime.signals.distributions import (
    incomplete_beta,
    normal_cdf,
    normal_quantile,
    student_t_two_sided,
)

finite = st.floats(-1e3, 1e3, allow_nan=False)


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


# --------------------------------------------------------------- distributions
@given(st.floats(-8, 8))
def test_the_normal_cdf_is_scipys(x):
    assert normal_cdf(x) == pytest.approx(stats.norm.cdf(x), rel=1e-12, abs=1e-16)


@given(st.floats(1e-9, 1 - 1e-9))
def test_the_normal_quantile_is_scipys(p):
    assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-9, abs=1e-12)


@given(st.floats(0.1, 200), st.floats(0.1, 200), st.floats(0, 1))
def test_the_incomplete_beta_is_scipys(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


@given(st.floats(-50, 50), st.floats(1, 2000))
def test_student_t_is_scipys(t, df):
    expected = 2 * stats.t.sf(abs(t), df)
    assert student_t_two_sided(t, df) == pytest.approx(expected, rel=1e-8, abs=1e-14)


def test_an_infinite_t_leaves_no_probability():
    assert student_t_two_sided(math.inf, 5.0) == 0.0


@pytest.mark.parametrize("p", [0.0, 1.0, -1.0, math.nan])
def test_a_quantile_outside_zero_and_one_is_refused(p):
    with pytest.raises(ValueError, match="inside"):
        normal_quantile(p)


def test_the_incomplete_beta_is_a_distribution_function_from_end_to_end():
    assert incomplete_beta(2.0, 3.0, 0.0) == 0.0
    assert incomplete_beta(2.0, 3.0, 1.0) == 1.0


@pytest.mark.parametrize(
    "arguments",
    [(0.0, 1.0, 0.5), (1.0, -1.0, 0.5), (1.0, 0.0, 0.5), (1.0, 1.0, 1.5), (1.0, 1.0, math.nan)],
)
def test_an_impossible_beta_is_refused(arguments):
    with pytest.raises(ValueError, match="incomplete beta"):
        incomplete_beta(*arguments)


def test_a_beta_that_does_not_converge_is_refused():
    with pytest.raises(UndefinedStatistic) as refused:
        incomplete_beta(1e9, 1e9, 0.5)
    assert str(refused.value) == (
        "incomplete beta of a=1000000000.0 b=1000000000.0 x=0.5 did not converge in 300 steps"
    )


@pytest.mark.parametrize("arguments", [(math.nan, 5.0), (1.0, 0.0)])
def test_an_impossible_student_t_is_refused(arguments):
    with pytest.raises(ValueError, match="Student"):
        student_t_two_sided(*arguments)


# --------------------------------------------------------------------- moments
def test_moments_are_scipys():
    values = generator().gamma(2.0, 1.0, 500)
    mean, std, skewness, kurtosis = ours.sample_moments(values)
    assert mean == pytest.approx(values.mean())
    assert std == pytest.approx(values.std(ddof=1))
    assert skewness == pytest.approx(stats.skew(values))
    assert kurtosis == pytest.approx(stats.kurtosis(values, fisher=False))


@pytest.mark.parametrize(
    "values", [[], [1.0], [0.1] * 7, [0.0] * 5, [1.0, math.nan], [1.0, math.inf], [1.0, -1e200]]
)
def test_constant_too_few_or_broken_numbers_have_no_moments_sharpe_or_p(values):
    array = np.array(values)
    for statistic in (
        ours.sample_moments,
        ours.sharpe,
        ours.newey_west_t,
        lambda x: ours.sharpe_interval(x, generator()),
        lambda x: ours.specification_t(0.0, x),
        lambda x: ours.week_cluster_p(np.arange(len(x)), x, generator()),
    ):
        with pytest.raises(UndefinedStatistic):
            statistic(array)


# ---------------------------------------------------------------- significance
def test_the_specifications_t_is_scipys_one_sample_test():
    values = generator(1).normal(0.01, 0.05, 80)
    t, p = ours.specification_t(0.004, values)
    expected = stats.ttest_1samp(values, 0.004)
    assert t == pytest.approx(-expected.statistic)
    assert p == pytest.approx(expected.pvalue)


def test_the_specifications_t_answers_one_below_thirty_trades():
    assert ours.specification_t(0.0, generator().normal(1.0, 0.1, 29))[1] == 1.0


@pytest.mark.parametrize("lags", [0, 1, 6, 20])
def test_newey_west_is_statsmodels(lags):
    values = np.convolve(generator(2).normal(0.01, 1.0, 400), [1.0, 0.6, 0.3], "valid")
    fit = OLS(values, np.ones(len(values))).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    assert ours.newey_west_t(values, lags) == pytest.approx(float(fit.tvalues[0]))


def test_a_long_run_variance_that_is_no_number_is_refused():
    with pytest.raises(UndefinedStatistic) as refused:
        ours.newey_west_t(np.array([1.0, -1.0] * 20), 10**18)  # all lags cancel
    assert str(refused.value) == "the long-run variance is not positive"


def test_newey_west_picks_its_lags_and_gives_a_one_sided_p():
    values = generator(3).normal(0.1, 1.0, 365)
    lags = math.floor(4 * 3.65 ** (2 / 9))
    t = ours.newey_west_t(values)
    assert t == ours.newey_west_t(values, lags)
    assert ours.newey_west_p(values) == pytest.approx(stats.norm.sf(t))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_statsmodels(p_values):
    expected = multipletests(p_values, method="fdr_bh")[1]
    assert ours.benjamini_hochberg(p_values) == pytest.approx(list(expected))


def test_benjamini_hochberg_refuses_what_is_no_p_value_and_keeps_nothing_of_nothing():
    assert ours.benjamini_hochberg([]) == []
    for bad in (math.nan, -0.1, 1.1):
        with pytest.raises(UndefinedStatistic):
            ours.benjamini_hochberg([0.5, bad])


def test_stationary_blocks_are_circular_runs_of_the_right_mean_length():
    drawn = ours.stationary_indices(200, 400, 5.0, generator(4))
    assert drawn.min() == 0
    assert drawn.max() == 199
    continued = (drawn[:, 1:] == (drawn[:, :-1] + 1) % 200).mean()
    assert continued == pytest.approx(0.8 + 0.2 / 200, abs=0.01)
    counts = np.bincount(drawn.ravel(), minlength=200)
    assert counts.min() > 0.5 * counts.mean()


@pytest.mark.parametrize("arguments", [(0, 5, 2.0), (5, 0, 2.0), (5, 5, 0.5), (5, 5, math.nan)])
def test_an_impossible_resample_is_refused(arguments):
    with pytest.raises(UndefinedStatistic):
        ours.stationary_indices(*arguments, generator())


def by_week(weeks, returns):
    return [returns[weeks == week] for week in range(weeks.min(), weeks.max() + 1)]


def block_of(weeks, returns, least):
    """Andrews 1991 for an AR(1) of the weeks' sums, from `least` to a quarter of the weeks."""
    scores = pd.Series([(week - returns.mean()).sum() for week in by_week(weeks, returns)])
    r = (scores * scores.shift()).sum() / (scores**2).sum()
    andrews = 1.1447 * (4 * r**2 / (1 - r**2) ** 2 * len(scores)) ** (1 / 3)
    return min(max(andrews, least), len(scores) / 4)


def brute_force_p(weeks, returns, seed, draws, least):
    """Resample whole weeks of trades and take the t ratio of each sample, week by week."""

    def ratio(clusters, centre, lags):
        every = np.concatenate(clusters)
        mean = every.mean()
        scores = [(cluster - mean).sum() for cluster in clusters]
        variance = 0.0
        for i, one in enumerate(scores):
            for j, other in enumerate(scores):
                variance += max(1 - abs(i - j) / (lags + 1), 0.0) * one * other
        error = math.sqrt(max(variance, 0.0)) / len(every)
        return (mean - centre) / error if error > 1e-12 else math.inf

    clusters = by_week(weeks, returns)
    block = block_of(weeks, returns, least)
    t = ratio(clusters, 0.0, round(block))
    drawn = ours.stationary_indices(len(clusters), draws, block, generator(seed))
    samples = [[clusters[i] for i in row] for row in drawn]
    ratios = [
        ratio(s, returns.mean(), round(block)) if sum(map(len, s)) else math.inf for s in samples
    ]
    return (1 + sum(r >= t for r in ratios)) / (draws + 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_week_bootstrap_is_brute_force_over_whole_weeks(seed):
    rng = generator(seed)
    weeks = np.sort(rng.integers(100, 140, 90))
    returns = rng.normal(0.2, 1.0, 90)
    returns += np.cumsum(rng.normal(0.0, 0.2 * (seed % 2), 90))
    least = 2.0 + 3.0 * (seed // 2)
    p = ours.week_cluster_p(weeks, returns, generator(seed), 99, least)
    assert p == pytest.approx(brute_force_p(weeks, returns, seed, 99, least))


@pytest.mark.parametrize(
    ("count", "least", "block"),
    [(48, 2.0, (3.0, 6.0)), (48, 30.0, (12.0, 12.0)), (6, 2.0, (1.5, 1.5))],
)
def test_the_week_bootstrap_is_brute_force_whatever_bounds_its_blocks(count, least, block):
    """By Andrews' rule for lasting luck, and by a quarter of the weeks."""
    rng = generator(3)
    luck = rng.standard_normal(count)
    for week in range(1, count):
        luck[week] += 0.5 * luck[week - 1]
    weeks = np.repeat(np.arange(count), 3)
    returns = 0.3 + luck[weeks] + rng.standard_normal(3 * count)
    assert block[0] <= block_of(weeks, returns, least) <= block[1]
    p = ours.week_cluster_p(weeks, returns, generator(4), 99, least)
    assert p == pytest.approx(brute_force_p(weeks, returns, 4, 99, least))
    assert 0.02 < p < 0.9


def test_the_week_bootstrap_is_the_same_for_the_same_seed_and_never_zero():
    weeks = np.repeat(np.arange(60), 3)
    returns = generator(5).normal(5.0, 1.0, 180)
    p = ours.week_cluster_p(weeks, returns, generator(6), 999)
    assert p == ours.week_cluster_p(weeks, returns, generator(6), 999)
    assert p == pytest.approx(1 / 1000)
    assert ours.week_cluster_p(weeks, -returns, generator(6), 999) == 1.0


def test_weeks_that_do_not_vary_have_no_p_value():
    weeks = np.repeat(np.arange(40), 2)
    returns = np.tile([1.0, -0.5], 40)
    with pytest.raises(UndefinedStatistic, match="do not vary"):
        ours.week_cluster_p(weeks, returns, generator())
    with pytest.raises(UndefinedStatistic, match="expected both"):
        ours.week_cluster_p(weeks[:3], returns, generator())


def rejected_share(draw, copies, count=300):
    rng = generator(7)
    rejected = 0
    for _ in range(count):
        weeks, returns = draw(rng)
        p = ours.week_cluster_p(np.tile(weeks, copies), np.tile(returns, copies), rng, 199)
        rejected += p < 0.05
    return rejected / count


def correlated(rng):
    """Trades of a week share its luck, as overlapping trades of correlated coins do."""
    weeks = np.repeat(np.arange(104), rng.poisson(3.0, 104))
    return weeks, 0.8 * rng.standard_normal(104)[weeks] + 0.6 * rng.standard_normal(len(weeks))


def skewed(rng):
    weeks = np.repeat(np.arange(104), rng.poisson(3.0, 104))
    return weeks, np.where(rng.random(len(weeks)) < 0.75, 1.0, -3.0) * (
        0.5 + rng.random(len(weeks))
    )


def lasting(rng):
    """A week's luck lasts: autocorrelation 0.6."""
    luck = np.zeros(206)
    for week in range(1, 206):
        luck[week] = 0.6 * luck[week - 1] + rng.standard_normal()
    weeks = np.repeat(np.arange(156), rng.poisson(5.0, 156))
    return weeks, luck[50:][weeks] + rng.standard_normal(len(weeks))


def test_weeks_that_depend_on_one_another_are_rejected_little_more_often_than_stated():
    """With blocks of two weeks and no lags it was more than one time in ten."""
    rng = generator(21)
    rejected = sum(ours.week_cluster_p(*lasting(rng), rng, 199) < 0.05 for _ in range(400))
    assert rejected / 400 <= 0.07 + 2 * math.sqrt(0.07 * 0.93 / 400)


@pytest.mark.parametrize(("draw", "copies"), [(correlated, 1), (correlated, 5), (skewed, 1)])
def test_true_nulls_are_rejected_no_more_often_than_stated(draw, copies):
    assert rejected_share(draw, copies) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_duplicates_would_fool_a_test_that_takes_trades_as_independent():
    rng = generator(8)
    fooled = 0
    for _ in range(200):
        _, returns = correlated(rng)
        fooled += ours.specification_t(0.0, np.tile(returns, 5))[1] < 0.05
    assert fooled / 200 > 0.2


# ---------------------------------------------------------------------- Sharpe
def test_the_sharpe_ratio_is_the_specifications_formula():
    daily = generator(9).normal(0.001, 0.01, 700)
    expected = (daily.mean() * 365 - 0.04) / (daily.std(ddof=1) * math.sqrt(365))
    assert ours.sharpe(daily) == pytest.approx(expected)
    assert [ours.annualise(p) for p in ("1m", "1h", "1d")] == [525_600, 8_760, 365]
    with pytest.raises(UndefinedStatistic, match="4h"):
        ours.annualise("4h")


def test_the_sharpe_interval_covers_the_truth_about_as_often_as_stated():
    rng = generator(10)
    covered = 0
    for _ in range(100):
        daily = rng.normal(0.04 / 365 + 2.0 * 0.01 / math.sqrt(365), 0.01, 730)
        low, high = ours.sharpe_interval(daily, rng, draws=199)
        covered += low < 2.0 < high
    assert covered >= 87


def test_an_interval_of_which_every_resample_is_constant_has_no_value():
    class Stuck(np.random.Generator):
        """Draws the first row only."""

        def random(self, *args, **kwargs):
            return np.zeros(*args)

        def integers(self, low, high, size):
            return np.zeros(size, dtype=np.int64)

    frozen = Stuck(np.random.PCG64(0))
    with pytest.raises(UndefinedStatistic, match="constant"):
        ours.sharpe_interval(np.array([0.0, 1.0]), frozen, draws=9, mean_block=1.0)


def test_the_deflated_sharpe_ratio_is_the_published_example():
    """Bailey & López de Prado 2014: 100 trials, variance 1/2 a year, 5 years of 250 days."""
    variance = 0.5 / 250
    assert ours.expected_best_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    deflated = ours.deflated_sharpe(
        2.5 / math.sqrt(250), 1250, -3.0, 10.0, trials=100, variance=variance
    )
    assert deflated == pytest.approx(0.9004, abs=5e-5)


def test_one_trial_deflates_nothing():
    plain = ours.probabilistic_sharpe(0.1, 500, 0.2, 4.0)
    assert ours.deflated_sharpe(0.1, 500, 0.2, 4.0, trials=1, variance=0.3) == plain


def test_sharpe_probabilities_without_value_are_refused():
    with pytest.raises(UndefinedStatistic):
        ours.probabilistic_sharpe(0.1, 1, 0.0, 3.0)
    with pytest.raises(UndefinedStatistic):
        ours.probabilistic_sharpe(2.0, 100, 5.0, 3.0)
    with pytest.raises(UndefinedStatistic):
        ours.expected_best_sharpe(0, 0.1)
    with pytest.raises(UndefinedStatistic):
        ours.expected_best_sharpe(5, math.nan)


# --------------------------------------------------------------- value and size
def test_the_expected_value_is_the_specifications_formula():
    value = ours.expected_value(0.4, 0.05, 0.02, 0.003, 10.0)
    assert value == pytest.approx(0.4 * 0.05 - 0.6 * 0.02 - 0.003 - 0.04 * 10 / 365)
    with pytest.raises(UndefinedStatistic):
        ours.expected_value(math.nan, 0.05, 0.02, 0.0, 1.0)


@given(st.floats(0.01, 0.99), st.floats(1e-4, 1.0), st.floats(1e-4, 1.0))
def test_kelly_is_between_zero_and_a_tenth_and_positive_only_with_an_edge(rate, win, loss):
    size = ours.quarter_kelly(rate, win, loss)
    assert 0.0 <= size <= 0.10
    edge = rate * win - (1 - rate) * loss
    if abs(edge) > 1e-9:
        assert (size > 0.0) == (edge > 0.0)


def test_kelly_maximises_the_growth_of_a_bet():
    rate, win, loss = 0.55, 0.5, 0.4
    stakes = np.linspace(0.0, 2.0, 20_001)
    growth = rate * np.log1p(stakes * win) + (1 - rate) * np.log1p(-stakes * loss)
    best = stakes[growth.argmax()] * loss  # the stake at risk, as f counts it
    assert ours.quarter_kelly(rate, win, loss, 1.0, 1.0) == pytest.approx(best, abs=1e-4)


def test_refusals_say_what_came_and_what_is_expected():
    for refused, words in (
        (lambda: ours.annualise("4h"), "no annual factor for '4h'; known: 1m, 1h, 1d"),
        (
            lambda: ours.expected_value(math.nan, 1.0, 1.0, 0.0, 1.0),
            "expected value nan; expected finite inputs",
        ),
        (
            lambda: ours.quarter_kelly(1.5, 1.0, 2.0),
            "Kelly size of win rate 1.5, average win 1.0, average loss 2.0; expected a share and "
            "two positive averages",
        ),
        (
            lambda: ours.stationary_indices(0, 1, 2.0, generator()),
            "resample of 0 in 1 draws, mean block 2.0",
        ),
        (lambda: ours.benjamini_hochberg([2.0]), "p-value 2.0; expected a number inside [0, 1]"),
        (
            lambda: ours.expected_best_sharpe(0, 0.5),
            "best of 0 trials with variance 0.5",
        ),
        (
            lambda: ours.probabilistic_sharpe(0.1, 1, 0.0, 3.0),
            "the Sharpe ratio's variance has no value (n 1, 1.005)",
        ),
        (
            lambda: ours.sample_moments(np.array([1.0])),
            "moments of 1 numbers up to 1; expected at least 2, finite and smaller than 1e+70",
        ),
        (
            lambda: ours.sample_moments(np.array([])),
            "moments of 0 numbers up to 0; expected at least 2, finite and smaller than 1e+70",
        ),
        (
            lambda: ours.week_cluster_p(np.arange(40), np.tile([1.0], 40), generator()),
            "40 equal numbers have no variance",
        ),
        (
            lambda: ours.week_cluster_p(
                np.repeat(np.arange(40), 2), np.tile([1.0, -0.5], 40), generator()
            ),
            "the weeks do not vary: the mean's error is unknown",
        ),
        (lambda: ours.sample_moments(np.ones(3)), "3 equal numbers have no variance"),
    ):
        with pytest.raises(UndefinedStatistic) as error:
            refused()
        assert str(error.value) == words


def test_kelly_of_a_rule_that_always_or_never_won():
    assert ours.quarter_kelly(1.0, 0.01, 1.0, 0.25, 1.0) == 0.25
    assert ours.quarter_kelly(0.0, 1.0, 1.0) == 0.0
    with pytest.raises(UndefinedStatistic):
        ours.quarter_kelly(0.5, 1.0, math.inf)


@pytest.mark.parametrize(
    "arguments", [(math.nan, 1, 1), (1.1, 1, 1), (0.5, 0.0, 1), (0.5, 1, 0.0), (0.5, math.inf, 1)]
)
def test_kelly_without_a_payoff_is_refused(arguments):
    with pytest.raises(UndefinedStatistic, match="Kelly"):
        ours.quarter_kelly(*arguments)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_what_tells_from_chance_does_not_depend_on_the_unit(scale):
    weeks = np.repeat(np.arange(40), 3)
    returns = generator(11).normal(0.1, 1.0, 120)
    p = ours.week_cluster_p(weeks, returns, generator(), 199)
    assert ours.week_cluster_p(weeks, scale * returns, generator(), 199) == p
    assert ours.newey_west_t(scale * returns) == pytest.approx(ours.newey_west_t(returns))


def test_a_sharpe_ratio_without_any_spread_is_refused():
    with pytest.raises(UndefinedStatistic, match="no value"):
        ours.probabilistic_sharpe(1.0, 100, 1.0, 1.0)


# ------------------------------------------------------- definitions, to the last number
def test_stationary_blocks_go_on_until_a_new_one_is_drawn():
    drawn = ours.stationary_indices(7, 50, 2.5, generator(15))
    rng = generator(15)
    fresh, starts = rng.random((50, 7)) < 0.4, rng.integers(0, 7, (50, 7))
    for row, begins, places in zip(drawn, fresh, starts, strict=True):
        at = places[0]
        assert row[0] == at
        for k in range(1, 7):
            at = places[k] if begins[k] else (at + 1) % 7
            assert row[k] == at
    assert ours.stationary_indices(1, 1, 1.0, generator()).tolist() == [[0]]


def test_the_sharpe_interval_is_of_the_sharpe_ratios_of_the_resamples():
    daily = generator(13).normal(0.002, 0.01, 60)
    drawn = ours.stationary_indices(60, 99, 5.0, generator(14))
    ratios = [ours.sharpe(daily[row]) for row in drawn]
    found = ours.sharpe_interval(daily, generator(14), 0.9, 99, 5.0)
    assert found == pytest.approx((np.quantile(ratios, 0.05), np.quantile(ratios, 0.95)))
    usual = ours.sharpe_interval(daily, generator(14))
    assert usual == ours.sharpe_interval(daily, generator(14), 0.95, 999, 7.0)


def test_resamples_of_empty_weeks_count_against_the_rule():
    rng = generator(16)
    weeks = np.repeat([0, 1, 2, 30, 31], 4)
    returns = rng.normal(0.5, 1.0, 20)
    p = ours.week_cluster_p(weeks, returns, generator(17), 99, 7.0)
    assert p == pytest.approx(brute_force_p(weeks, returns, 17, 99, 7.0))
    drawn = ours.stationary_indices(32, 99, block_of(weeks, returns, 7.0), generator(17))
    empty = sum(not np.isin(row, weeks).any() for row in drawn)
    assert 0 < empty / 100 < p


def test_the_gates_p_value_is_of_4999_draws_in_blocks_of_two_weeks_at_least():
    weeks = np.repeat(np.arange(40), 2)
    returns = generator(18).normal(0.15, 1.0, 80)
    usual = ours.week_cluster_p(weeks, returns, generator())
    assert usual == ours.week_cluster_p(weeks, returns, generator(), 4_999, 2.0)
    assert usual * 5_000 == pytest.approx(round(usual * 5_000))
    assert 0.01 < usual < 0.5


@pytest.mark.parametrize(("n", "lags"), [(100, 4), (3_000, 8)])
def test_newey_wests_lags_are_those_of_their_rule(n, lags):
    values = np.convolve(generator(19).normal(0.05, 1.0, n + 1), [1.0, 0.5], "valid")
    assert ours.newey_west_t(values) == ours.newey_west_t(values, lags)


def test_thirty_trades_two_periods_and_rules_all_alike_are_just_enough():
    values = generator(20).normal(0.01, 0.05, 30)
    p = ours.specification_t(0.0, values)[1]
    assert p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    expected = stats.norm.cdf(0.1 / math.sqrt(1 + 0.1**2 / 2))
    assert ours.probabilistic_sharpe(0.1, 2, 0.0, 3.0) == pytest.approx(expected)
    assert ours.expected_best_sharpe(10, 0.0) == 0.0


def test_the_usual_size_is_a_quarter_of_kelly():
    payoff = 0.05 / 0.016
    assert ours.quarter_kelly(0.4, 0.05, 0.016) == pytest.approx(0.25 * (0.4 - 0.6 / payoff))
