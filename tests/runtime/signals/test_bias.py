import math
from decimal import Decimal

import pytest

from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime
from bot4_runtime.signals import bias
from bot4_runtime.signals.bias import BiasThresholds

LIMITS = BiasThresholds()


def losses(desk, count, hours_ago=1.0):
    return [desk.trade(-1.0, hours_ago + count - i) for i in range(count)]


def wins(desk, count, hours_ago=1.0):
    return [desk.trade(1.0, hours_ago + count - i) for i in range(count)]


def test_a_calm_desk_shows_no_bias(desk):
    assert bias.detect(desk.signal(), desk.history(), desk.context(), LIMITS) is None
    calm = desk.history(
        [desk.trade(-1.0, 50), desk.trade(1.0, 30), *losses(desk, 2)],
        [desk.entry(24 * k + 1) for k in range(7, -1, -1)],
        [desk.position()],
        {"ETHUSDT": 101.0},
    )
    assert bias.detect(desk.signal(), calm, desk.context(), LIMITS) is None


@pytest.mark.parametrize(("now", "seen"), [(100.0, False), (199.0, False), (200.0, True)])
def test_sizes_doubled_after_losses_are_revenge(desk, now, seen):
    entries = [desk.entry(60 + k) for k in range(5, 0, -1)]
    entries += [desk.entry(2 - 0.1 * k, now) for k in range(3)]
    found = bias.revenge(
        desk.signal(), desk.history(losses(desk, 2), entries), desk.context(), LIMITS
    )
    assert (found is not None) is seen
    if found is not None:
        assert (found.code, found.value) == ("BIAS_REVENGE", 2.0)


def test_sizes_doubled_after_one_loss_or_long_after_losses_are_not_revenge(desk):
    entries = [desk.entry(60 + k) for k in range(5, 0, -1)] + [
        desk.entry(1 - 0.1 * k, 500.0) for k in range(3)
    ]
    for trades in (losses(desk, 1), losses(desk, 2, hours_ago=30)):
        assert (
            bias.revenge(desk.signal(), desk.history(trades, entries), desk.context(), LIMITS)
            is None
        )


@pytest.mark.parametrize(("today", "seen"), [(3, False), (6, False), (7, True)])
def test_entries_three_times_as_frequent_after_losses_are_revenge(desk, today, seen):
    entries = [desk.entry(26 + 12 * k) for k in range(13, -1, -1)]
    entries += [desk.entry(3 - 0.2 * k) for k in range(today)]
    found = bias.revenge(
        desk.signal(), desk.history(losses(desk, 2), entries), desk.context(), LIMITS
    )
    assert (found is not None) is seen
    if found is not None:
        assert "frequent" in found.text


def test_entries_just_as_frequent_as_the_bound_are_revenge(desk):
    entries = [desk.entry(h) for h in (72, 48, 4, 3, 2, 1)]  # four today, one a day before
    history = desk.history(losses(desk, 2), entries)
    found = bias.revenge(desk.signal(), history, desk.context(), BiasThresholds(rate_ratio=4.0))
    assert (found.code, found.value, found.threshold) == ("BIAS_REVENGE", 4.0, 4.0)


def test_frequency_without_a_week_before_it_is_not_judged(desk):
    history = desk.history(losses(desk, 2), [desk.entry(3 - 0.1 * k) for k in range(20)])
    assert bias.revenge(desk.signal(), history, desk.context(), LIMITS) is None


def test_a_human_may_not_return_to_the_symbol_of_a_fresh_loss(desk):
    by_hand = desk.signal(override_reason="I know it will turn")
    for trade, seen in (
        (desk.trade(-1.0, 0.5), True),
        (desk.trade(-1.0, 1.5), False),
        (desk.trade(-1.0, 0.5, symbol="ETHUSDT"), False),
        (desk.trade(1.0, 0.5), False),
    ):
        found = bias.revenge(by_hand, desk.history([trade]), desk.context(), LIMITS)
        assert (found is not None) is seen
    history = desk.history([desk.trade(-1.0, 0.5)])
    assert bias.revenge(desk.signal(), history, desk.context(), LIMITS) is None


@pytest.mark.parametrize(
    ("changes", "signal", "seen"),
    [
        ({"recent_return": 0.06}, {}, False),  # 2.4 sigmas
        ({"recent_return": 0.09}, {}, True),  # 3.5
        ({"recent_return": -0.09}, {}, False),
        ({"recent_return": -0.09}, {"side": Side.SELL}, True),
        ({"recent_return": 0.06, "regime": Regime.NEUTRAL}, {}, True),
        ({"recent_return": 0.06, "regime": None}, {}, False),
        ({"recent_return": 0.06}, {"override_reason": "now or never"}, True),
        ({"recent_return": 0.06, "volatility": 0.003}, {}, True),
        ({"recent_return": None}, {}, False),
    ],
)
def test_an_entry_after_an_outsized_move_is_fomo(desk, changes, signal, seen):
    found = bias.fomo(desk.signal(**signal), desk.history(), desk.context(**changes), LIMITS)
    assert (found is not None) is seen


def test_too_many_entries_of_a_symbol_or_in_all_are_overtrading(desk):
    def seen(entries):
        return bias.overtrading(desk.signal(), desk.history((), entries), desk.context(), LIMITS)

    assert seen([desk.entry(k + 0.5) for k in range(23)]) is None
    assert seen([desk.entry(k / 2) for k in range(24)]).value == 24
    assert seen([desk.entry(k + 24) for k in range(100)]) is None
    assert seen([desk.entry(k / 20, symbol="ETHUSDT") for k in range(239)]) is None
    assert "all symbols" in seen([desk.entry(k / 20, symbol="ETHUSDT") for k in range(240)]).text


@pytest.mark.parametrize(
    ("position", "mark", "word"),
    [
        ({}, 96.0, None),
        ({}, 95.0, "beyond its stop"),
        ({}, None, "beyond its stop"),
        ({"entry_price": Decimal(0)}, 96.0, "beyond its stop"),
        ({"stop_price": Decimal(79)}, 100.0, "widened"),
        ({"symbol": "BTCUSDT"}, 99.0, "adds to the losing"),
        ({"symbol": "BTCUSDT"}, 101.0, None),
        ({"entry_price": Decimal("0.10"), "stop_price": Decimal("0.09")}, 0.099, None),
        (
            {"entry_price": Decimal("0.10"), "stop_price": Decimal("0.09")},
            0.089,
            "beyond its stop",
        ),
        ({"quantity": Decimal(-1), "stop_price": Decimal(105)}, 104.0, None),
        ({"quantity": Decimal(-1), "stop_price": Decimal(105)}, 105.0, "beyond its stop"),
        ({"quantity": Decimal(-1), "stop_price": Decimal(125)}, 100.0, "widened"),
    ],
)
def test_losers_held_widened_or_added_to_are_loss_aversion(desk, position, mark, word):
    held = desk.position(**position)
    history = desk.history((), (), [held], {} if mark is None else {held.symbol: mark})
    found = bias.loss_aversion(desk.signal(), history, desk.context(), LIMITS)
    assert (word is None) is (found is None)
    if found is not None:
        assert word in found.text


def test_a_limit_far_from_the_market_is_an_anchor(desk):
    def seen(limit):
        return bias.anchoring(
            desk.signal(limit_price=limit), desk.history(), desk.context(), LIMITS
        )

    assert seen(None) is None
    assert seen(99.9) is None
    assert seen(91.0) is None  # 3.9 daily volatilities
    assert seen(90.0).code == "BIAS_ANCHORING"
    context = desk.context(volatility=None)
    assert bias.anchoring(desk.signal(), desk.history(), context, LIMITS) is None


def test_a_price_that_lost_three_times_is_an_anchor(desk):
    here, away = Decimal("100.1"), Decimal(102)

    def seen(*trades):
        return bias.anchoring(desk.signal(), desk.history(trades), desk.context(), LIMITS)

    lost = desk.trade(-1.0, entry_price=here)
    assert seen(lost, lost, lost).value == 3
    assert seen(lost, lost) is None
    assert seen(lost, lost, desk.trade(1.0, entry_price=here)) is None
    assert seen(lost, lost, desk.trade(-1.0, entry_price=away)) is None
    other = desk.trade(1.0, symbol="ETHUSDT")
    short = desk.trade(1.0, side=Side.SELL)
    assert seen(lost, other, lost, short, lost) is not None
    assert seen(desk.trade(1.0, entry_price=away), lost, lost, lost) is not None


def test_a_price_at_the_very_edge_is_the_same_price_and_a_limit_there_is_not_yet_far(desk):
    width = math.log(1.1)
    context = desk.context(volatility=width)
    edge = BiasThresholds(anchor_sigmas=1.0, limit_sigmas=width / (width * bias.DAY_ROOT))
    lost = desk.history([desk.trade(-1.0, entry_price=Decimal(110))] * 3)
    assert bias.anchoring(desk.signal(), lost, context, edge).value == 3
    limit = desk.signal(limit_price=110.0)
    assert bias.anchoring(limit, desk.history(), context, edge) is None
    within = BiasThresholds(limit_sigmas=edge.limit_sigmas * 0.999)
    assert bias.anchoring(limit, desk.history(), context, within) is not None


def test_a_run_of_wins_does_not_outweigh_a_losing_record(desk):
    def seen(*trades):
        return bias.recency(desk.signal(), desk.history(trades), desk.context(), LIMITS)

    losing, run = [desk.trade(-1.0)] * 20, [desk.trade(1.0)] * 5
    assert seen(*losing, *run).code == "BIAS_RECENCY"
    assert seen(*losing[1:], *run) is None
    assert seen(*losing, *run[1:]) is None
    assert seen(*losing, *run, desk.trade(-1.0)) is None
    assert seen(*[desk.trade(1.0)] * 20, *run) is None
    assert seen(*[desk.trade(-1.0, rule_id="other")] * 20, *run) is None


def test_sizes_doubled_after_wins_are_overconfidence(desk):
    def seen(trades, *notionals):
        entries = [desk.entry(60 + k) for k in range(4, 0, -1)]
        entries += [desk.entry(2 - 0.1 * k, n) for k, n in enumerate(notionals)]
        history = desk.history(trades, entries)
        return bias.overconfidence(desk.signal(), history, desk.context(), LIMITS)

    assert seen(wins(desk, 3), 200.0, 200.0, 300.0, 300.0).value == 2.5
    assert seen(wins(desk, 3), 190.0, 100.0, 300.0) is None
    assert seen(wins(desk, 2), 300.0, 300.0, 300.0) is None
    assert seen(wins(desk, 3), 300.0, 300.0) is None


def test_sizes_are_not_compared_with_nothing(desk):
    entries = [desk.entry(60 + k, 0.0) for k in range(3, 0, -1)]
    entries += [desk.entry(1, 9.0)] * 3
    history = desk.history(wins(desk, 3), entries)
    assert bias.overconfidence(desk.signal(), history, desk.context(), LIMITS) is None


def test_detection_names_the_first_bias_in_the_stated_order(desk):
    history = desk.history(losses(desk, 2), [desk.entry(30)] * 3 + [desk.entry(1, 900.0)] * 30)
    context = desk.context(recent_return=0.2)
    assert bias.detect(desk.signal(), history, context, LIMITS).code == "BIAS_REVENGE"
    calm = desk.history((), [desk.entry(1)] * 30)
    assert bias.detect(desk.signal(), calm, context, LIMITS).code == "BIAS_FOMO"
    losing = desk.history((), (), [desk.position(symbol="BTCUSDT")], {"BTCUSDT": 98.0})
    found = bias.detect(desk.signal(), losing, desk.context(), LIMITS)
    assert found.text == "the entry adds to the losing position in BTCUSDT"
