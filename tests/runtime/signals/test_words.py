"""Every verdict in its own words and numbers, word for word: they are what people act on."""

import math
from decimal import Decimal

import pytest

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime
from bot4_runtime.signals import bias
from bot4_runtime.signals.bias import BiasThresholds
from bot4_runtime.signals.validator import LiveEvidence, SignalValidator, ValidatorSettings
from bot4_runtime.signals.verdict import Figures

LIMITS = BiasThresholds()
VALIDATOR = SignalValidator(ValidatorSettings())


def told(found):
    return found.code, found.text, found.suggestion, found.value, found.threshold


def at_stake(desk, **kinds):
    return desk.history(**kinds)


def test_revenge_in_words(desk):
    lost = [desk.trade(-1.0, 3), desk.trade(-1.0, 2)]
    by_hand = desk.signal(override_reason="again")
    history = desk.history([*lost, desk.trade(-1.0, 0.5)])
    assert told(bias.revenge(by_hand, history, desk.context(), LIMITS)) == (
        "BIAS_REVENGE", "ordered by hand back into the symbol of a loss",
        "let the cool-down pass", 0.5, 1.0,
    )  # fmt: skip
    entries = [desk.entry(60 + k) for k in range(3)][::-1]
    sized = desk.history(lost, entries + [desk.entry(1, 250.0)] * 3)
    assert told(bias.revenge(desk.signal(), sized, desk.context(), LIMITS)) == (
        "BIAS_REVENGE", "sizes rose after 2 losses in a row",
        "trade the size planned before the losses", 2.5, 2.0,
    )  # fmt: skip
    usual = [desk.entry(24.5 + 24 * k) for k in range(7)][::-1]
    often = desk.history(lost, usual + [desk.entry(3.5)] * 4)
    found = told(bias.revenge(desk.signal(), often, desk.context(), LIMITS))
    assert found[:3] == (
        "BIAS_REVENGE", "entries became more frequent after 2 losses in a row",
        "return to the usual frequency",
    )  # fmt: skip
    assert found[3] == pytest.approx(4 / (7 / ((24.5 + 24 * 6 - 24) / 24)))
    assert found[4] == 3.0


def test_the_cool_down_counts_hours_from_every_loss_of_the_streak(desk):
    by_hand = desk.signal(override_reason="again")

    def seen(*trades, limits=LIMITS):
        return bias.revenge(by_hand, desk.history(trades), desk.context(), limits)

    assert seen(desk.trade(-1.0, 1.0)) is None
    assert seen(desk.trade(-1.0, 0.999)) is not None
    other = desk.trade(-1.0, 0.1, symbol="ETHUSDT")
    assert seen(desk.trade(-1.0, 0.5), other).value == 0.5
    assert seen(desk.trade(-1.0, 0.5), desk.trade(1.0, 0.4, symbol="ETHUSDT")) is None
    long = BiasThresholds(cooldown_hours=2.0)
    assert told(seen(desk.trade(-1.0, 1.5), limits=long))[3:] == (1.5, 2.0)


def test_revenge_needs_its_streak_and_a_loss_of_today(desk):
    entries = [desk.entry(60 + k) for k in range(3)][::-1] + [desk.entry(0.5, 250.0)] * 3
    three = BiasThresholds(losing_streak=3)
    lost = [desk.trade(-1.0, 3), desk.trade(-1.0, 2)]
    assert bias.revenge(desk.signal(), desk.history(lost, entries), desk.context(), three) is None
    for hours, seen in ((24.0, True), (24.01, False)):
        old = [desk.trade(-1.0, 25), desk.trade(-1.0, hours)]
        history = desk.history(old, entries)
        found = bias.revenge(desk.signal(), history, desk.context(), LIMITS)
        assert (found is not None) is seen


def test_chasing_in_words(desk):
    found = bias.fomo(desk.signal(), desk.history(), desk.context(recent_return=0.1), LIMITS)
    sigmas = math.log1p(0.1) / (0.005 * math.sqrt(24))
    assert told(found) == (
        "BIAS_FOMO", "the entry chases a move that has happened",
        "wait for the next planned entry", pytest.approx(sigmas), 3.0,
    )  # fmt: skip
    against = desk.context(recent_return=0.06, regime=Regime.BEAR)
    assert bias.fomo(desk.signal(), desk.history(), against, LIMITS).threshold == 2.0
    short = desk.signal(side=Side.SELL)
    falling = desk.context(recent_return=-0.06, regime=Regime.BEAR)
    assert bias.fomo(short, desk.history(), falling, LIMITS) is None
    rising = desk.context(recent_return=-0.06, regime=Regime.BULL)
    assert bias.fomo(short, desk.history(), rising, LIMITS).threshold == 2.0
    odd = BiasThresholds(chase_sigmas=1.0, chase_sigmas_against=2.0)
    mild = desk.context(recent_return=0.03)  # 1.2 volatilities
    assert bias.fomo(desk.signal(), desk.history(), mild, odd).threshold == 1.0


@pytest.mark.parametrize(("sigmas", "regime"), [(3.0, Regime.BULL), (2.0, Regime.NEUTRAL)])
def test_a_move_of_just_the_bound_is_not_chased(desk, sigmas, regime):
    bound = BiasThresholds(chase_sigmas=sigmas, chase_sigmas_against=min(sigmas, 2.0))
    recent = 0.5
    volatility = math.log1p(recent) / (sigmas * math.sqrt(24))
    while math.log1p(recent) / (volatility * math.sqrt(24)) > sigmas:
        volatility = math.nextafter(volatility, 1.0)
    here = desk.context(recent_return=recent, volatility=volatility, regime=regime)
    assert bias.fomo(desk.signal(), desk.history(), here, bound) is None
    there = desk.context(recent_return=recent, volatility=volatility * 0.999, regime=regime)
    assert bias.fomo(desk.signal(), desk.history(), there, bound) is not None


def test_overtrading_in_words(desk):
    one = desk.history((), [desk.entry(1)] * 25)
    assert told(bias.overtrading(desk.signal(), one, desk.context(), LIMITS)) == (
        "BIAS_OVERTRADING", "25 entries of BTCUSDT within a day",
        "wait until fewer entries lie within the last 24 hours", 25.0, 24.0,
    )  # fmt: skip
    every = desk.history((), [desk.entry(1, symbol=f"{k}USDT") for k in range(240)])
    assert told(bias.overtrading(desk.signal(), every, desk.context(), LIMITS)) == (
        "BIAS_OVERTRADING", "240 entries of all symbols within a day",
        "wait until fewer entries lie within the last 24 hours", 240.0, 240.0,
    )  # fmt: skip


def test_a_day_ends_after_24_hours_and_now_belongs_to_it(desk):
    few = BiasThresholds(symbol_entries_per_day=1)

    def seen(hours_ago):
        history = desk.history((), [desk.entry(hours_ago)])
        return bias.overtrading(desk.signal(), history, desk.context(), few) is not None

    assert [seen(h) for h in (0.0, 23.999, 24.0, -0.001)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("position", "mark", "expected"),
    [
        ({}, 94.0, ("ETHUSDT is held beyond its stop", "close the loser first", -0.01, 0.0)),
        (
            {"stop_price": Decimal(75)}, 100.0,
            ("the stop of ETHUSDT was widened", "put the stop back where it was planned", 0.25, 0.2),
        ),
        (
            {"symbol": "BTCUSDT"}, 98.0,
            ("the entry adds to the losing position in BTCUSDT", "never average down", 0.02, 0.0),
        ),
    ],
)  # fmt: skip
def test_loss_aversion_in_words(desk, position, mark, expected):
    held = desk.position(**position)
    history = desk.history((), (), [held], {held.symbol: mark})
    found = bias.loss_aversion(desk.signal(), history, desk.context(), LIMITS)
    assert told(found)[:3] == ("BIAS_LOSS_AVERSION", *expected[:2])
    assert told(found)[3:] == pytest.approx(expected[2:])


@pytest.mark.parametrize(
    ("position", "mark", "seen"),
    [
        ({"stop_price": Decimal(80)}, 100.0, False),  # just the widest
        ({"symbol": "BTCUSDT"}, 100.0, False),  # neither won nor lost
        ({"symbol": "BTCUSDT", "quantity": Decimal(-1), "stop_price": Decimal(105)}, 101.0, False),
        ({}, math.nan, True),
        ({}, math.inf, True),
        ({"entry_price": Decimal(-1)}, 100.0, True),
        ({"stop_price": Decimal("NaN")}, 100.0, True),
        ({"stop_price": Decimal("-Infinity")}, 100.0, True),
    ],
)
def test_a_position_at_a_bound_or_without_numbers(desk, position, mark, seen):
    held = desk.position(**position)
    history = desk.history((), (), [held], {held.symbol: mark})
    found = bias.loss_aversion(desk.signal(), history, desk.context(), LIMITS)
    assert (found is not None) is seen


def test_every_position_is_looked_at(desk):
    fine, beyond = desk.position(), desk.position(symbol="BUSDT", stop_price=Decimal(99))
    marks = {"ETHUSDT": 99.0, "BUSDT": 98.0}
    history = desk.history((), (), [fine, beyond], marks)
    found = bias.loss_aversion(desk.signal(), history, desk.context(), LIMITS)
    assert found.text == "BUSDT is held beyond its stop"
    short = desk.signal(side=Side.SELL)
    losing = desk.position(symbol="BTCUSDT", quantity=Decimal(-1), stop_price=Decimal(105))
    history = desk.history((), (), [losing], {"BTCUSDT": 103.0})
    found = bias.loss_aversion(short, history, desk.context(), LIMITS)
    assert found.text == "the entry adds to the losing position in BTCUSDT"


def test_anchoring_in_words(desk):
    found = bias.anchoring(desk.signal(limit_price=90.0), desk.history(), desk.context(), LIMITS)
    assert told(found) == (
        "BIAS_ANCHORING", "the limit price belongs to a market that is gone",
        "set the limit from the present price",
        pytest.approx(abs(math.log(0.9)) / (0.005 * math.sqrt(24))), 4.0,
    )  # fmt: skip
    lost = [desk.trade(-1.0, entry_price=Decimal("100.1"))] * 3
    found = bias.anchoring(desk.signal(), desk.history(lost), desk.context(), LIMITS)
    assert told(found) == (
        "BIAS_ANCHORING", "the last 3 trades of BTCUSDT lost from this same price",
        "wait until the price has moved away", 3.0, 3.0,
    )  # fmt: skip
    even = [desk.trade(0.0, entry_price=Decimal("100.1"))] * 3
    assert bias.anchoring(desk.signal(), desk.history(even), desk.context(), LIMITS) is None
    below = [desk.trade(-1.0, entry_price=Decimal("99.8"))] * 3
    assert bias.anchoring(desk.signal(), desk.history(below), desk.context(), LIMITS) is not None
    far = [desk.trade(-1.0, entry_price=Decimal("99.7"))] * 3
    assert bias.anchoring(desk.signal(), desk.history(far), desk.context(), LIMITS) is None
    mixed = [desk.trade(1.0, entry_price=Decimal("100.1")), *lost[:2]]
    assert bias.anchoring(desk.signal(), desk.history(mixed), desk.context(), LIMITS) is None
    limit = desk.signal(limit_price=100.0 * math.exp(-4.0 * 0.005 * math.sqrt(24) * 0.9999))
    assert bias.anchoring(limit, desk.history(), desk.context(), LIMITS) is None
    above = desk.signal(limit_price=112.0)
    assert bias.anchoring(above, desk.history(), desk.context(), LIMITS).value > 4.0


def test_recency_in_words(desk):
    lost, won = [desk.trade(-2.0)] * 21, [desk.trade(1.0)] * 6
    found = bias.recency(desk.signal(), desk.history(lost + won), desk.context(), LIMITS)
    assert told(found) == (
        "BIAS_RECENCY", "5 wins in a row stand against 22 trades that lost on average",
        "judge the rule by its whole record", pytest.approx((21 * -0.02 + 0.01) / 22), 0.0,
    )  # fmt: skip
    even = [desk.trade(-1.0), desk.trade(1.0)] * 10
    history = desk.history(even + won[:5])
    assert bias.recency(desk.signal(), history, desk.context(), LIMITS) is None
    nothing = [desk.trade(0.0), *won[:4]]
    history = desk.history(lost + nothing)
    assert bias.recency(desk.signal(), history, desk.context(), LIMITS) is None


def test_overconfidence_in_words(desk):
    entries = [desk.entry(60 + k) for k in range(3)][::-1] + [desk.entry(1, 200.0)] * 3
    won = [desk.trade(1.0, h) for h in (5, 4, 3)]
    found = bias.overconfidence(desk.signal(), desk.history(won, entries), desk.context(), LIMITS)
    assert told(found) == (
        "BIAS_OVERCONFIDENCE", "sizes rose after 3 wins in a row",
        "trade the size planned before the wins", 2.0, 2.0,
    )  # fmt: skip


def test_every_detector_is_asked(desk):
    """Each bias alone is found by `detect`."""
    lost, won = [desk.trade(-1.0, h) for h in (3, 2)], [desk.trade(1.0, h) for h in (5, 4, 3)]
    grown = [desk.entry(60 + k) for k in range(3)][::-1] + [desk.entry(1, 300.0)] * 3
    held = desk.position(stop_price=Decimal(75))
    losing = [desk.trade(-2.0, 99)] * 20 + [desk.trade(1.0, 50, return_net=0.01)] * 5
    here = Decimal("100.1")
    for code, history, context in (
        ("BIAS_REVENGE", desk.history(lost, grown), {}),
        ("BIAS_FOMO", desk.history(), {"recent_return": 0.1}),
        ("BIAS_OVERTRADING", desk.history((), [desk.entry(1)] * 24), {}),
        ("BIAS_LOSS_AVERSION", desk.history((), (), [held], {"ETHUSDT": 100.0}), {}),
        ("BIAS_ANCHORING", desk.history([desk.trade(-1.0, 50, entry_price=here)] * 3), {}),
        ("BIAS_RECENCY", desk.history(losing), {}),
        ("BIAS_OVERCONFIDENCE", desk.history(won, grown), {}),
    ):
        found = bias.detect(desk.signal(), history, desk.context(**context), LIMITS)
        assert found is not None, code
        assert found.code == code
        verdict = VALIDATOR.validate(
            desk.signal(), LiveEvidence(desk.evidence()), history, desk.context(**context),
            desk.costs(),
        )  # fmt: skip
        assert (verdict.code, verdict.text, verdict.suggestion) == told(found)[:3]
        assert verdict.numbers["bias_value"] == found.value
        assert verdict.numbers["bias_threshold"] == found.threshold


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_threshold_nothing_could_reach_is_refused(value):
    with pytest.raises(ConfigError) as refused:
        BiasThresholds(rate_ratio=value)
    assert str(refused.value) == (
        f"bias threshold rate_ratio is {value}; expected a positive, finite number"
    )


def test_the_thresholds_are_these():
    assert vars(LIMITS) if hasattr(LIMITS, "__dict__") else True
    assert (
        LIMITS.size_ratio, LIMITS.rate_ratio, LIMITS.losing_streak, LIMITS.winning_streak,
        LIMITS.cooldown_hours, LIMITS.chase_sigmas, LIMITS.chase_sigmas_against,
        LIMITS.symbol_entries_per_day, LIMITS.entries_per_day, LIMITS.stop_share,
        LIMITS.anchor_sigmas, LIMITS.anchor_losses, LIMITS.limit_sigmas, LIMITS.recent_trades,
        LIMITS.record_trades,
    ) == (2.0, 3.0, 2, 3, 1.0, 3.0, 2.0, 24, 240, 0.20, 0.5, 3, 4.0, 5, 20)  # fmt: skip


# ------------------------------------------------------------------------ verdicts
RUN = "let the pipeline write its evidence: bot4-pipelines run"
FOREIGN = "trade what the evidence is of, or let the pipeline gather it: bot4-pipelines run"
EXPIRED = {"expires_ms": 20_000 * 86_400_000 - 5 * 43_200_000}


@pytest.mark.parametrize(
    ("changes", "code", "text", "suggestion"),
    [
        (None, "NO_EVIDENCE", "there is no evidence record of rule rule", RUN),
        ({"rule_id": "x"}, "NO_EVIDENCE", "there is no evidence record of rule rule", RUN),
        (
            EXPIRED, "NO_EVIDENCE", "the evidence of rule expired 2.5 days ago",
            "let the pipeline renew it: bot4-pipelines run",
        ),
        (
            {"period_to_ms": 1 << 62}, "NO_EVIDENCE",
            "the evidence of rule holds candles from after the signal",
            "replay candles that come after the evidence's period",
        ),
        (
            {"origin": Origin.SIMULATED}, "NO_EVIDENCE",
            "the evidence of rule is of a simulated market, and the one traded is real", FOREIGN,
        ),
        (
            {"side": Side.SELL}, "NO_EVIDENCE",
            "the evidence of rule is of sell entries, not buy", FOREIGN,
        ),
        (
            {"symbols": ("AUSDT", "BUSDT")}, "NO_EVIDENCE",
            "the evidence of rule is of AUSDT, BUSDT, not BTCUSDT, and the models are not proven "
            "on unseen symbols", FOREIGN,
        ),
        (
            {"symbols": ()}, "NO_EVIDENCE",
            "the evidence of rule is of no symbol, not BTCUSDT, and the models are not proven on "
            "unseen symbols", FOREIGN,
        ),
        (
            {"n_trades": 29, "n_eff_weeks": 31}, "TOO_FEW",
            "29 trades in 31 weeks; 30 trades in 30 weeks are needed",
            "gather a longer history or more symbols",
        ),
        (
            {"p_value_bh": 0.0512}, "NOT_SIGNIFICANT",
            "p 0.0512 over 7 rules tried; below 0.05 is needed",
            "the past does not tell this rule from chance: do not trade it",
        ),
        (
            {"avg_win": 0.02}, "EXPECTED_VALUE",
            "expected value -19.3 bps after all costs; above 0 is needed",
            "trade less often or cheaper",
        ),
        (
            {"sharpe": 1.5}, "SHARPE", "Sharpe 1.50 a year; above 2 is needed",
            "the reward is too small for the risk: do not trade it",
        ),
        (
            {"p_value_bh": None}, "NOT_FINITE",
            "the p-value of the evidence is missing, not finite or out of range",
            "gather a longer history",
        ),
        (
            {"holding_days": None}, "NOT_FINITE",
            "the holding time of the evidence is missing, not finite or out of range",
            "gather a longer history",
        ),
        (
            {"avg_loss": None}, "NOT_FINITE",
            "the payoff of the evidence is missing, not finite or out of range",
            "gather a longer history",
        ),
        (
            {"sharpe": None}, "NOT_FINITE",
            "the Sharpe ratio of the evidence is missing, not finite or out of range",
            "gather a longer history",
        ),
    ],
)  # fmt: skip
def test_rejections_of_the_evidence_in_words(desk, changes, code, text, suggestion):
    evidence = None if changes is None else LiveEvidence(desk.evidence(**changes))
    verdict = VALIDATOR.validate(
        desk.signal(), evidence, desk.history(), desk.context(), desk.costs()
    )
    assert (verdict.code, verdict.text, verdict.suggestion) == (code, text, suggestion)


@pytest.mark.parametrize(
    ("signal", "context", "costs", "what"),
    [
        ({"confidence": math.nan}, {}, {}, "the confidence"),
        ({"confidence": -0.01}, {}, {}, "the confidence"),
        ({"price": -1.0}, {}, {}, "the price"),
        ({"stop_distance": 1.0}, {}, {}, "the stop distance"),
        ({"limit_price": 0.0}, {}, {}, "the limit price"),
        ({"limit_price": math.inf}, {}, {}, "the limit price"),
        ({}, {"volatility": None}, {}, "the volatility"),
        ({}, {"volatility": -1.0}, {}, "the volatility"),
        ({}, {"recent_return": None}, {}, "the recent return"),
        ({}, {}, {"funding_per_day": math.inf}, "a cost"),
        ({}, {}, {"slippage_round_trip": -math.inf}, "a cost"),
    ],
)
def test_what_cannot_be_judged_is_named(desk, signal, context, costs, what):
    verdict = VALIDATOR.validate(
        desk.signal(**signal), LiveEvidence(desk.evidence()), desk.history(),
        desk.context(**context), desk.costs(**costs),
    )  # fmt: skip
    assert (verdict.code, verdict.text) == (
        "NOT_FINITE", f"{what} is missing, not finite or out of range",
    )  # fmt: skip
    assert verdict.suggestion == "wait until enough candles have been seen"
    assert verdict.numbers["sharpe"] == 2.6  # told all the same


def test_a_bound_itself_is_not_enough_and_just_beyond_is(desk):
    def code(confidence=0.9, **changes):
        verdict = VALIDATOR.validate(
            desk.signal(confidence=confidence), LiveEvidence(desk.evidence(**changes)),
            desk.history(), desk.context(), desk.costs(),
        )  # fmt: skip
        return verdict.code

    up = math.nextafter
    assert code(n_trades=30, n_eff_weeks=30) == "APPROVED"
    assert code(p_value_bh=up(0.05, 0.0)) == "APPROVED"
    assert code(p_value_bh=0.0) == "APPROVED"
    assert code(p_value_bh=1.0) == "NOT_SIGNIFICANT"
    assert code(sharpe=up(2.0, 3.0)) == "APPROVED"
    assert code(confidence=1.0) == "APPROVED"
    assert code(confidence=up(0.75, 1.0)) == "APPROVED"
    assert code(holding_days=0.0) == "APPROVED"
    assert code(holding_days=-0.1) == "NOT_FINITE"
    assert code(win_rate=0.0) == "NOT_FINITE"


def test_confidence_in_words(desk):
    verdict = VALIDATOR.validate(
        desk.signal(confidence=0.7), LiveEvidence(desk.evidence()), desk.history(),
        desk.context(), desk.costs(),
    )  # fmt: skip
    assert verdict.text == "confidence 0.700; above 0.75 is needed"
    assert verdict.suggestion == "wait until the regime is clearer"


def test_an_approval_tells_every_number(desk):
    trades = [desk.trade(1.0, 30), desk.trade(-0.4, 29, rule_id="other")]
    record = desk.evidence(period_to_ms=desk.now_ms - 5 * desk.day_ms, sharpe=2.9)
    evidence = LiveEvidence(record, trades)
    verdict = VALIDATOR.validate(
        desk.signal(), evidence, desk.history(trades, [desk.entry(40)]), desk.context(),
        desk.costs(),
    )  # fmt: skip
    assert verdict.code == "APPROVED"
    annual, above_zero = evidence.sharpes(desk.now_ns)
    numbers = verdict.numbers
    days = 0.04 * 3 / 365
    expected = {
        "confidence": 0.9, "confidence_above": 0.75, "volatility": 0.005, "recent_return": 0.01,
        "regime": float(Regime.STRONG_BULL), "history_trades": 2.0, "history_entries": 1.0,
        "bias_value": None, "bias_threshold": None, "n_trades": 400.0, "n_trades_least": 30.0,
        "n_eff_weeks": 140.0, "n_eff_weeks_least": 30.0, "rules_tried": 7.0,
        "evidence_days_left": 80.0, "p_value": 0.004, "p_value_below": 0.05,
        "p_value_raw": 0.001, "p_newey_west": 0.001, "p_specification_t": 0.001,
        "live_trades": 1.0, "live_days": 3.0, "mean_net": evidence.trades.mean,
        "std_net": evidence.trades.std(), "skewness_net": evidence.trades.skewness(),
        "kurtosis_net": evidence.trades.kurtosis(), "win_rate": 161 / 401,
        "average_win": (160 * 0.05 + 0.01) / 161, "average_loss": 0.016, "holding_days": 3.0,
        "extra_costs": 0.0, "opportunity_cost": days, "sharpe": annual, "sharpe_above": 2.0,
        "sharpe_low": 1.4, "sharpe_high": 3.8, "probabilistic_sharpe": above_zero,
        "deflated_sharpe": 0.98, "expected_value": verdict.expected_value,
        "size_fraction": verdict.size_fraction,
    }  # fmt: skip
    assert numbers == pytest.approx(expected)
    assert list(numbers) == list(VALIDATOR.validate(
        desk.signal(), None, desk.history(), desk.context(), desk.costs()
    ).numbers)  # fmt: skip
    assert verdict.text == (
        f"no bias; p 0.0040; expected value {verdict.expected_value * 1e4:+.1f} bps; "
        f"Sharpe {annual:.2f}; size {verdict.size_fraction:.2%} of capital"
    )
    assert verdict.suggestion == ""


def test_without_evidence_only_now_is_known(desk):
    verdict = VALIDATOR.validate(
        desk.signal(regime=None), None, desk.history(),
        desk.context(regime=None, recent_return=-0.5), desk.costs(),
    )  # fmt: skip
    known = {k for k, v in verdict.numbers.items() if v is not None}
    assert known == {
        "confidence", "confidence_above", "volatility", "recent_return", "history_trades",
        "history_entries", "n_trades_least", "n_eff_weeks_least", "rules_tried", "p_value_below",
        "sharpe_above",
    }  # fmt: skip


def test_figures_of_nothing_are_counts_of_zero_and_no_values():
    told_of_nothing = Figures().told()
    counted = {k: v for k, v in told_of_nothing.items() if v is not None}
    assert counted == dict.fromkeys(
        (
            "history_trades",
            "history_entries",
            "n_trades_least",
            "n_eff_weeks_least",
            "rules_tried",
        ),
        0.0,
    )
    assert len(told_of_nothing) == 40


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_told_as_none(value):
    figures = Figures()
    figures.sharpe, figures.mean_net = value, -1.5
    told_of_it = figures.told()
    assert (told_of_it["sharpe"], told_of_it["mean_net"]) == (None, -1.5)


def test_a_bound_that_may_not_be_is_named_with_what_is_allowed():
    with pytest.raises(ConfigError) as refused:
        ValidatorSettings(min_sharpe=1.5)
    assert str(refused.value) == (
        "validator setting min_sharpe is 1.5; expected 2 to 1e+09: bounds can be tightened, "
        "not loosened"
    )
    for name, least, most in (
        ("max_p_value", 0.0, 0.05), ("min_trades", 30, 10**9), ("min_weeks", 30, 10**9),
        ("min_sharpe", 2.0, 1e9), ("min_confidence", 0.75, 1.0), ("max_size", 0.0, 0.10),
    ):  # fmt: skip
        for allowed in (least, most):
            ValidatorSettings(**{name: allowed})
        for wrong in (least - 1, most + 1, type(most)(most * 1.01)):
            with pytest.raises(ConfigError, match=f"validator setting {name} is"):
                ValidatorSettings(**{name: wrong})


def test_the_size_is_a_quarter_of_kelly_within_the_cap(desk):
    def size(settings=None, **changes):
        validator = VALIDATOR if settings is None else SignalValidator(settings)
        return validator.validate(
            desk.signal(), LiveEvidence(desk.evidence(**changes)), desk.history(), desk.context(),
            desk.costs(),
        ).size_fraction  # fmt: skip

    bound = 0.04 * 3 / 365
    payoff = (0.05 - bound) / (0.016 + bound)
    assert size() == pytest.approx(0.25 * (0.4 * payoff - 0.6) / payoff)
    assert size(win_rate=0.9) == 0.10
    assert size(ValidatorSettings(max_size=0.02)) == 0.02
