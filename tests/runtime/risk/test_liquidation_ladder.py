"""The ladder: which action, how much, one at a time; never more, never the other way."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.risk.brackets import Brackets
from bot4_runtime.risk.ladder import ActionLadder, LotRules, Plan
from bot4_runtime.risk.liquidation import LiquidationLimits
from bot4_runtime.risk.margin import Leg, Wallet

FLAT = Brackets("ANY", [0.0], [0.004])
D = Decimal
RULES = LotRules(D("0.001"), D("0.001"), D(1_000_000), D(5))
FREE = D(1_000)


def leg(symbol="BTCUSDT", side=1, size="1", entry=100.0, price=100.0) -> Leg:
    made = Leg(symbol, side, D(size), entry, FLAT)
    made.price = price
    return made


def isolated(consumed=0.91, size="1", side=1, symbol="BTCUSDT") -> Wallet:
    """4x isolated, with this share of its margin consumed."""
    margin = 25.0 * float(size)
    slack = (margin - 0.4 * float(size)) * (1 - consumed)
    price = (slack - margin + side * 100.0 * float(size)) / ((side - 0.004) * float(size))
    wallet = Wallet(
        f"{symbol} {side}", margin, [leg(symbol, side, size, price=price)], isolated=True
    )
    assert wallet.measure() == pytest.approx(consumed)
    return wallet


def cross(balance: float, *legs: Leg) -> Wallet:
    wallet = Wallet("cross", balance, list(legs), isolated=False)
    wallet.measure()
    return wallet


def ladder(rules=RULES, first_number=1, **limits) -> ActionLadder:
    symbols = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    known = dict.fromkeys(symbols, rules) if rules else {}
    return ActionLadder(LiquidationLimits(**limits), known, first_number)


def told(plans: list[Plan]) -> list[tuple[str, str, Decimal, Decimal]]:
    return [(plan.action, plan.symbol, plan.quantity, plan.amount) for plan in plans]


def settle(climbing: ActionLadder, plans: list[Plan]) -> None:
    for plan in plans:
        climbing.settle(plan.number)


def climb(climbing: ActionLadder, wallet: Wallet, times: int, free=FREE) -> list[list]:
    """Ask again and again, each action over before the next question."""
    steps = []
    for now in range(times):
        plans = climbing.plan([wallet], free, now)
        steps.append([plan.action for plan in plans])
        settle(climbing, plans)
    return steps


# ---------------------------------------------------------------------- the steps
def test_below_act_nothing_is_done():
    assert ladder().plan([isolated(0.89)], FREE, 0) == []


def test_from_act_on_it_reduces_by_a_fifth_then_adds_half_of_what_is_free():
    climbing, wallet = ladder(), isolated(0.91)
    assert told(climbing.plan([wallet], FREE, 7)) == [("reduce", "BTCUSDT", D("0.200"), D(0))]
    assert climbing.plan([wallet], FREE, 8) == []
    climbing.settle(1)
    assert told(climbing.plan([wallet], FREE, 9)) == [("add_margin", "BTCUSDT", D(0), D("500.00"))]


def test_above_act_but_below_critical_the_steps_begin_again():
    assert climb(ladder(), isolated(0.94), 4) == [
        ["reduce"],
        ["add_margin"],
        ["reduce"],
        ["add_margin"],
    ]


def test_critical_closes_only_after_the_other_steps():
    assert climb(ladder(), isolated(0.96), 4) == [
        ["reduce"],
        ["add_margin"],
        ["close"],
        ["reduce"],
    ]


def test_at_exactly_critical_it_closes():
    wallet = isolated(0.96)
    assert climb(ladder(critical=wallet.worst), wallet, 3)[2] == ["close"]
    assert climb(ladder(act=wallet.worst, critical=wallet.worst), wallet, 1) == [["reduce"]]


def test_a_wallet_that_recovers_begins_at_the_first_step():
    climbing = ladder()
    assert climb(climbing, isolated(0.91), 1) == [["reduce"]]
    assert climb(climbing, isolated(0.80), 1) == [[]]
    assert climb(climbing, isolated(0.91), 1) == [["reduce"]]


def test_an_unknown_measure_neither_acts_nor_begins_anew():
    climbing, wallet = ladder(), isolated(0.91)
    climb(climbing, wallet, 1)
    price, wallet.legs[0].price = wallet.legs[0].price, math.nan
    wallet.measure()
    assert climbing.plan([wallet], FREE, 0) == []
    wallet.legs[0].price = price
    wallet.measure()
    assert climb(climbing, wallet, 1) == [["add_margin"]]


@pytest.mark.parametrize(
    ("allowed", "steps"),
    [
        (("reduce",), [["reduce"], ["reduce"]]),
        (("add_margin",), [["add_margin"], ["add_margin"]]),
        (("close",), [["close"], ["close"]]),
        (("close", "reduce"), [["reduce"], ["close"]]),
        ((), [[], []]),
    ],
)
def test_only_allowed_steps_are_taken(allowed, steps):
    assert climb(ladder(actions=allowed), isolated(0.99), 2) == steps


def test_a_wallet_with_no_step_left_is_named_until_it_can_act_or_recovers():
    climbing, wallet = ladder(actions=("add_margin",)), isolated(0.91)
    assert climbing.plan([wallet], D("0.01"), 0) == []
    assert climbing.stuck == {"BTCUSDT 1"}
    assert told(climbing.plan([wallet], D("0.02"), 1)) == [
        ("add_margin", "BTCUSDT", D(0), D("0.01"))
    ]
    assert climbing.stuck == set()
    climbing.settle(1)
    climbing.plan([wallet], D(0), 2)
    assert climbing.stuck == {"BTCUSDT 1"}
    climbing.plan([isolated(0.5)], D(0), 3)
    assert climbing.stuck == set()


def test_a_plan_tells_why_and_by_which_numbers():
    wallet = isolated(0.91)
    [plan] = ladder(first_number=41).plan([wallet], FREE, 7)
    assert (plan.number, plan.wallet, plan.side, plan.ts_ns) == (41, "BTCUSDT 1", 1, 7)
    assert plan.reason == "margin consumed reached 90%"
    assert (plan.worst, plan.ratio, plan.consumed) == (wallet.worst, wallet.ratio, wallet.consumed)
    assert plan.price == wallet.legs[0].price
    assert plan.liquidation_price == wallet.liquidation_price(wallet.legs[0])
    [adding] = ladder(actions=("add_margin",)).plan([wallet], FREE, 8)
    assert (adding.reason, adding.ts_ns) == ("margin consumed reached 90%", 8)
    [closing] = ladder(actions=("close",)).plan([isolated(0.96)], FREE, 9)
    assert closing.ts_ns == 9
    assert closing.reason == "margin consumed reached 95% and the steps before are used"


def test_the_ratio_is_named_when_it_is_what_reached_the_threshold():
    drained = cross(0.01, leg(entry=100.0, price=100.43))
    assert drained.ratio > 0.9
    assert drained.consumed == 0.0
    [plan] = ladder().plan([drained], FREE, 0)
    assert plan.reason == "margin ratio reached 90%"


# ------------------------------------------------------------------- in flight
def test_the_specifications_sample_fires_ten_overlapping_cuts_a_second_and_this_one():
    """F18: at ten looks a second and an order that takes one, one cut of a fifth is made."""
    climbing, wallet = ladder(), isolated(0.93, size="10")
    plans = [plan for now in range(10) for plan in climbing.plan([wallet], FREE, now)]
    assert told(plans) == [("reduce", "BTCUSDT", D("2.000"), D(0))]


def test_one_action_is_in_flight_a_symbol_whatever_wallet_it_is_for():
    long, short = isolated(0.91), isolated(0.91, side=-1)
    other = isolated(0.91, symbol="ETHUSDT")
    climbing = ladder()
    plans = climbing.plan([long, short, other], FREE, 0)
    assert [(plan.wallet, plan.symbol) for plan in plans] == [
        ("BTCUSDT 1", "BTCUSDT"),
        ("ETHUSDT 1", "ETHUSDT"),
    ]
    assert climbing.in_flight("BTCUSDT")
    climbing.settle(1)
    assert not climbing.in_flight("BTCUSDT")
    assert climbing.in_flight("ETHUSDT")
    [plan] = climbing.plan([short, other], FREE, 1)
    assert (plan.number, plan.wallet, plan.side) == (3, "BTCUSDT -1", -1)


def test_a_cross_wallet_waits_for_all_its_symbols():
    climbing = ladder()
    wallet = cross(10.0, leg(price=95.2), leg("ETHUSDT", price=96.0))
    assert wallet.worst > 0.9
    plans = climbing.plan([wallet], FREE, 0)
    assert [plan.symbol for plan in plans] == ["BTCUSDT", "ETHUSDT"]
    climbing.settle(plans[0].number)
    assert climbing.plan([wallet], FREE, 1) == []
    climbing.settle(plans[1].number)
    assert climbing.plan([wallet], FREE, 2) != []


def test_settling_what_is_not_in_flight_changes_nothing():
    climbing = ladder()
    climbing.plan([isolated()], FREE, 0)
    climbing.settle(99)
    assert climbing.in_flight("BTCUSDT")


def test_what_the_journal_left_open_blocks_its_symbol_and_its_number():
    climbing = ladder()
    climbing.begin(7, "BTCUSDT")
    assert climbing.plan([isolated()], FREE, 0) == []
    assert climbing.take_number() == 8
    climbing.begin(3, "ETHUSDT")
    climbing.settle(7)
    assert climbing.plan([isolated()], FREE, 1)[0].number == 9


@pytest.mark.parametrize(
    ("left", "goes_on"),
    [
        ("reduce", "add_margin"),
        ("add_margin", "close"),
        ("close", "reduce"),
    ],
)
def test_after_a_restart_the_step_after_the_open_one_is_next(left, goes_on):
    climbing = ladder()
    climbing.resume(7, "BTCUSDT", "BTCUSDT 1", left)
    assert climbing.plan([isolated(0.96)], FREE, 0) == []
    climbing.settle(7)
    [plan] = climbing.plan([isolated(0.96)], FREE, 0)
    assert (plan.number, plan.action) == (8, goes_on)


def test_a_stop_that_was_left_open_blocks_nothing_and_its_number_is_taken():
    climbing = ladder()
    climbing.resume(7, "BTCUSDT", "BTCUSDT 1", "place_stop")
    assert not climbing.in_flight("BTCUSDT")
    [plan] = climbing.plan([isolated(0.96)], FREE, 0)
    assert (plan.number, plan.action) == (8, "reduce")


def test_free_funds_are_promised_once():
    climbing = ladder(actions=("add_margin",))
    wallets = [isolated(), isolated(symbol="ETHUSDT"), isolated(symbol="BNBUSDT")]
    plans = climbing.plan(wallets, D(1_000), 0)
    assert [plan.amount for plan in plans] == [D(500), D(250), D(125)]
    settle(climbing, plans)
    assert climbing.plan(wallets[:1], D(100), 1)[0].amount == D(50)


def test_margin_is_cut_to_cents_and_never_goes_to_a_cross_wallet():
    assert ladder(actions=("add_margin",)).plan([isolated()], D("0.0399"), 0)[0].amount == D(
        "0.01"
    )
    wallet = cross(10.0, leg(price=91.0))
    assert wallet.worst > 0.89
    assert climb(ladder(act=0.89), wallet, 2) == [["reduce"], ["reduce"]]
    assert climb(ladder(actions=("add_margin",), act=0.89), wallet, 1) == [[]]


# ------------------------------------------------------------- which and how much
def test_a_leg_whose_price_is_too_old_is_neither_sold_nor_given_margin_and_others_are():
    wallet = cross(10.0, leg(price=89.0), leg("ETHUSDT", price=99.0))
    wallet.legs[0].blind = True
    assert told(ladder().plan([wallet], FREE, 0)) == [("reduce", "ETHUSDT", D("0.200"), D(0))]
    alone = isolated(0.97)
    alone.legs[0].blind = True
    climbing = ladder()
    assert climb(climbing, alone, 2) == [[], []]
    assert climbing.stuck == {alone.name}
    alone.legs[0].blind = False
    assert climb(climbing, alone, 3) == [["reduce"], ["add_margin"], ["close"]]


def test_a_cross_wallet_reduces_what_loses():
    wallet = cross(
        10.0, leg(price=89.0), leg("ETHUSDT", -1, price=98.0), leg("BNBUSDT", price=100.0)
    )
    assert wallet.worst > 0.9
    assert told(ladder().plan([wallet], FREE, 0)) == [("reduce", "BTCUSDT", D("0.200"), D(0))]


def test_a_cross_wallet_in_which_nothing_loses_reduces_all():
    wallet = cross(0.5, leg(price=100.0), leg("ETHUSDT", -1, price=100.0))
    assert wallet.worst > 0.9
    assert [plan.symbol for plan in ladder().plan([wallet], FREE, 0)] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize(
    ("long", "short", "cuts"),
    [
        ("1", "0.4", [(1, "0.200")]),
        ("1", "0.8", [(1, "0.200")]),
        ("1", "0.9", [(1, "0.2"), (-1, "0.1")]),
        ("0.9", "1", [(1, "0.1"), (-1, "0.2")]),
        ("1", "1", [(1, "0.200"), (-1, "0.200")]),
    ],
)
def test_of_a_hedged_symbol_the_larger_side_is_cut_and_the_smaller_only_to_follow(
    long, short, cuts
):
    wallet = cross(0.5, leg(size=long, price=99.9), leg(side=-1, size=short, price=99.9))
    assert wallet.worst > 0.9
    plans = ladder().plan([wallet], FREE, 0)
    assert [(plan.side, plan.quantity) for plan in plans] == [(side, D(q)) for side, q in cuts]


def test_the_two_worst_positions_are_closed_whole():
    wallet = cross(
        30.0,
        leg("BNBUSDT", size="2", price=95.0),
        leg("BTCUSDT", size="1", price=85.0),
        leg("ETHUSDT", size="3", price=99.0),
    )
    assert wallet.worst > 0.9
    plans = ladder(actions=("close",), act=0.9, critical=0.9).plan([wallet], FREE, 0)
    assert told(plans) == [("close", "BTCUSDT", D(1), D(0)), ("close", "BNBUSDT", D(2), D(0))]


def test_positions_that_lose_the_same_are_closed_in_the_order_they_are_told():
    wallet = cross(3.0, *(leg(symbol, price=99.0) for symbol in ("ETHUSDT", "BTCUSDT", "BNBUSDT")))
    plans = ladder(actions=("close",), alert=0.1, act=0.2, critical=0.2).plan([wallet], FREE, 0)
    assert [plan.symbol for plan in plans] == ["ETHUSDT", "BTCUSDT"]


def test_the_first_plan_of_an_account_has_number_one():
    climbing = ActionLadder(LiquidationLimits(), {})
    assert [plan.number for plan in climbing.plan([isolated()], FREE, 0)] == [1]


def test_both_sides_of_a_hedged_symbol_are_closed_together():
    wallet = cross(
        1.0, leg(price=99.0), leg(side=-1, size="0.5", price=99.0), leg("ETHUSDT", price=100.0)
    )
    plans = ladder(actions=("close",), alert=0.1, act=0.2, critical=0.2).plan([wallet], FREE, 0)
    assert [(plan.symbol, plan.side) for plan in plans] == [
        ("BTCUSDT", 1),
        ("BTCUSDT", -1),
        ("ETHUSDT", 1),
    ]


def test_a_leg_can_be_closed_for_another_reason_unless_its_symbol_is_busy():
    climbing, wallet = ladder(), isolated(0.1)
    plan = climbing.close(wallet, wallet.legs[0], "stop not done", 5)
    assert plan is not None
    assert (plan.action, plan.quantity, plan.reason, plan.ts_ns) == (
        "close",
        D(1),
        "stop not done",
        5,
    )
    assert climbing.close(wallet, wallet.legs[0], "again", 6) is None


def test_a_leg_without_a_price_can_be_closed_all_the_same():
    wallet = isolated(0.1)
    wallet.legs[0].price = math.nan
    plan = ladder().close(wallet, wallet.legs[0], "stop not done", 5)
    assert plan is not None
    assert plan.quantity == D(1)


# ------------------------------------------------------------------- quantities
@pytest.mark.parametrize(
    ("rules", "wanted", "held", "quantity"),
    [
        (LotRules(D("0.001"), D("0.001"), D(100), D(5)), "0.2", "1", "0.2"),
        (LotRules(D("0.001"), D("0.001"), D(100), D(5)), "0.2019", "1", "0.201"),
        (LotRules(D("0.1"), D("0.1"), D(100), D(0)), "0.02", "0.5", "0.1"),
        (LotRules(D("0.1"), D("0.1"), D(100), D(100)), "0.02", "5", "1"),
        (LotRules(D("0.3"), D("0.3"), D(100), D(100)), "0.02", "5", "1.2"),
        (LotRules(D("0.1"), D("0.1"), D(100), D(100)), "0.02", "0.5", "0.5"),
        (LotRules(D("0.1"), D("0.1"), D("0.3"), D(5)), "0.7", "1", "0.3"),
        (LotRules(D("0.1"), D("0.1"), D("0.3"), D(5)), "1", "1", "0.3"),
        (LotRules(D("0.1"), D("0.2"), D(100), D(5)), "0.9", "1", "1"),
        (LotRules(D("0.1"), D("0.2"), D(100), D(5)), "0.8", "1", "0.8"),
        (LotRules(D("0.1"), D("0.2"), D(100), D(5)), "0.1", "0.1", "0.1"),
    ],
)
def test_quantities_fit_the_venue(rules, wanted, held, quantity):
    """Price 100: step, least quantity, largest market order, least notional, no dust left."""
    assert rules.cut(D(wanted), D(held), D(100)) == D(quantity)


def test_without_rules_only_the_whole_position_can_be_sold():
    assert ladder(rules=None).plan([isolated()], FREE, 0)[0].quantity == D(1)


lots = st.integers(1, 10**6).map(lambda n: D(n) / 1000)


@given(lots, lots, lots, lots, st.integers(1, 10**7), st.integers(0, 1000))
def test_a_cut_is_never_more_than_is_held_or_one_order_may_have(
    wanted, held, least, most, cents, least_notional
):
    rules = LotRules(D("0.001"), least, most, D(least_notional))
    quantity = rules.cut(min(wanted, held), held, D(cents) / 100)
    assert 0 < quantity <= min(held, most)
    assert quantity % D("0.001") == 0
    rest = held - quantity
    assert rest == 0 or rest >= least or quantity == most


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["BTCUSDT", "ETHUSDT", "BNBUSDT"]),
            st.sampled_from([1, -1]),
            st.one_of(lots, st.integers(900, 1_100).map(lambda n: D(n) / 1000)),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row[:2],
    ),
    st.floats(0.1, 1_000.0),
    st.lists(st.floats(50.0, 150.0), min_size=3, max_size=3),
)
def test_no_plan_ever_grows_or_turns_a_symbols_net_exposure(rows, balance, prices):
    """I6: each plan takes off at most its leg; a reduction's sum never turns a symbol."""
    marks = dict(zip(["BTCUSDT", "ETHUSDT", "BNBUSDT"], prices, strict=True))
    legs = [leg(s, side, str(size), price=marks[s]) for s, side, size in rows]
    wallet = cross(balance, *legs)
    climbing = ladder()
    for now in range(3):
        plans = climbing.plan([wallet], FREE, now)
        for symbol in {plan.symbol for plan in plans}:
            own = [one for one in legs if one.symbol == symbol]
            cut = {p.side: p.quantity for p in plans if p.symbol == symbol}
            before = sum(one.size * one.side for one in own)
            after = sum((one.size - cut.get(one.side, D(0))) * one.side for one in own)
            assert all(cut.get(one.side, D(0)) <= one.size for one in own)
            small = any(one.size < D("0.5") for one in own)  # lifted to what the venue takes
            assert abs(after) <= abs(before) or small
        settle(climbing, plans)
