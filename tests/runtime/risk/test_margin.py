"""Margin and liquidation prices, against Binance's published examples and a walk of the price."""

import math
import re
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.risk.brackets import (
    Brackets,
    assumed_brackets,
    published_brackets,
    published_symbols,
    venue_brackets,
)
from bot4_runtime.risk.margin import Leg, Wallet, liquidation_range

# Ladders of early 2021, by which Binance's example was made: cum 16,300 and 135,365 follow.
BTC_2021 = Brackets(
    "BTCUSDT",
    [0.0, 50e3, 250e3, 1e6, 10e6, 20e6, 50e6, 100e6, 200e6, 300e6],
    [0.004, 0.005, 0.01, 0.025, 0.05, 0.1, 0.125, 0.15, 0.25, 0.5],
)
ETH_2021 = Brackets(
    "ETHUSDT",
    [0.0, 10e3, 100e3, 500e3, 1e6, 2e6, 5e6, 10e6, 20e6],
    [0.005, 0.0065, 0.01, 0.02, 0.05, 0.1, 0.125, 0.15, 0.25],
)


def leg(symbol="BTCUSDT", side=1, size="1", entry=50_000.0, price=math.nan, brackets=None) -> Leg:
    made = Leg(symbol, side, Decimal(size), entry, brackets or published_brackets("BTCUSDT"))
    made.price = price
    return made


# -------------------------------------------------------- Binance's published example
def test_the_published_cross_example_comes_out_to_the_cent():
    """FAQ "How to Calculate Liquidation Price of USD-M Futures Contracts", two symbols."""
    btc = leg(size="109.488", entry=32_481.98, price=31_967.27, brackets=BTC_2021)
    eth = leg("ETHUSDT", 1, "3683.979", 1_456.84, 1_335.18, ETH_2021)
    wallet = Wallet("cross", 1_535_443.01, [btc, eth], isolated=False)

    assert btc.maintenance == pytest.approx(71_200.81144, abs=1e-5)
    assert eth.maintenance == pytest.approx(356_512.508, abs=1e-3)
    assert btc.unrealised == pytest.approx(-56_354.57, abs=0.005)
    assert eth.unrealised == pytest.approx(-448_192.89, abs=0.005)
    assert round(wallet.liquidation_price(btc), 2) == 26_316.89
    assert round(wallet.liquidation_price(eth), 2) == 1_153.26


def test_the_published_isolated_examples_come_out_to_the_cent():
    btc = leg(size="109.488", entry=32_481.98, price=31_967.27, brackets=BTC_2021)
    eth = leg("ETHUSDT", 1, "3683.979", 1_456.84, 1_335.18, ETH_2021)
    prices = [
        Wallet(one.symbol, 1_535_443.01, [one], isolated=True).liquidation_price(one)
        for one in (btc, eth)
    ]
    assert [round(price, 2) for price in prices] == [18_778.73, 1_114.78]


def test_the_published_maintenance_amount_comes_out():
    """FAQ: notional 500,000 needs 1,300 less than 1 %, notional 264,000 has rate 1 %."""
    assert BTC_2021.rates[BTC_2021.index(264_000.0)] == 0.01
    assert 500_000 * 0.01 - BTC_2021.maintenance(500_000.0) == pytest.approx(1_300.0)


@pytest.mark.parametrize(
    ("symbol", "last_cum"),
    [
        ("BTCUSDT", 421_481_450.0),
        ("ETHUSDT", 280_506_450.0),
        ("SOLUSDT", 66_728_380.0),
        ("LTCUSDT", 10_529_550.0),
        ("BNBUSDT", 25_022_210.0),
    ],
)
def test_the_last_amount_of_every_published_table_is_binances(symbol, last_cum):
    ladder = published_brackets(symbol)
    assert ladder.symbol == symbol
    assert ladder.cums[-1] == pytest.approx(last_cum, abs=0.01)
    assert symbol in published_symbols()


# ------------------------------------------------------------------- brute force
def slack(legs: list[Leg], budget: float, price: float) -> float:
    """Margin balance - maintenance margin at a price, by the definition and nothing else."""
    total = budget
    for one in legs:
        notional = one.quantity * price
        need = 0.0
        floors = [*one.brackets.floors, math.inf]
        for at, rate in enumerate(one.brackets.rates):  # margin step by step, without any cum
            need += max(0.0, min(notional, floors[at + 1]) - floors[at]) * rate
        total += one.side * one.quantity * (price - one.entry_price) - need
    return total


def walk(legs: list[Leg], budget: float, price: float, up: bool) -> float:
    """Walk the price until nothing is left, then halve the last step; inf or 0 if it lives."""
    factor = 1.01 if up else 1 / 1.01
    alive = price
    while 1e-6 < alive < 1e12:
        dead = alive * factor
        if slack(legs, budget, dead) <= 0:
            for _ in range(200):
                middle = (alive + dead) / 2
                alive, dead = (
                    (middle, dead) if slack(legs, budget, middle) > 0 else (alive, middle)
                )
            return dead
        alive = dead
    return math.inf if up else 0.0


sizes = st.integers(1, 10**9).map(lambda n: Decimal(n) / 1000)
entries = st.floats(0.5, 200_000.0)


@st.composite
def one_symbol(draw):
    ladder = published_brackets(draw(st.sampled_from(["BTCUSDT", "SOLUSDT", "LTCUSDT"])))
    hedged = draw(st.booleans())
    sides = [1, -1] if hedged else [draw(st.sampled_from([1, -1]))]
    entry = draw(entries)
    legs = [
        Leg("S", side, draw(sizes), entry * draw(st.floats(0.7, 1.4)), ladder) for side in sides
    ]
    budget = draw(st.floats(0.005, 1.5)) * sum(one.quantity * one.entry_price for one in legs)
    return legs, budget, entry


@given(one_symbol())
def test_liquidation_prices_are_where_a_walked_price_leaves_no_slack(case):
    legs, budget, price = case
    assume(slack(legs, budget, price) > 0)
    low, high = liquidation_range(legs, budget)
    assert low < price < high
    for found, up in ((low, False), (high, True)):
        walked = walk(legs, budget, price, up)
        if walked in {0.0, math.inf} or found in {0.0, math.inf}:
            assert found <= 1e-5 if not up else found >= 1e11
        else:
            assert found == pytest.approx(walked, rel=1e-9)


@given(one_symbol())
def test_a_wallet_that_lives_at_no_price_has_no_range(case):
    legs, _, price = case
    worth = sum(one.quantity * one.entry_price for one in legs)
    low, high = liquidation_range(legs, -5.0 * worth)
    prices = [price * 1.05**step for step in range(-200, 200)]
    if low > high:
        assert all(slack(legs, -5.0 * worth, at) < 1e-6 * worth for at in prices)
    else:
        assert slack(legs, -5.0 * worth, (low + min(high, 2 * low)) / 2) > 0


@given(one_symbol())
def test_the_ratio_is_one_and_all_is_consumed_at_the_liquidation_price(case):
    legs, budget, price = case
    assume(slack(legs, budget, price) > 0)
    assume(slack(legs[:1], budget, legs[0].entry_price) > 0)
    own = legs[:1]
    own[0].price = price
    wallet = Wallet("one", budget, own, isolated=True)
    at = wallet.liquidation_price(own[0])
    assume(at is not None and at > 0 and slack(own, budget, price) > 0)
    own[0].price = at
    wallet.measure()
    # Far from it, what is left is the difference of numbers this large.
    scale = (
        own[0].quantity
        * max(at, own[0].entry_price)
        / min(wallet.maintenance, slack(own, budget, own[0].entry_price))
    )
    assume(scale < 1e10)  # else rounding alone decides on which side of nothing it is
    assert wallet.ratio == pytest.approx(1.0, abs=1e-12 * scale)
    assert wallet.consumed == pytest.approx(1.0, abs=1e-12 * scale)


@given(
    st.sampled_from([1, -1]),
    st.floats(1_000.0, 60_000.0),
    st.floats(1.5, 30.0),
    st.floats(0.0, 1.2),
)
def test_margin_consumed_is_the_share_of_the_distance_to_liquidation(side, entry, leverage, share):
    """Within one bracket: 1 - distance now / distance at entry, as specified, in prices."""
    flat = Brackets("BTCUSDT", [0.0], [0.004])
    held = leg(side=side, size="0.5", entry=entry, brackets=flat)
    wallet = Wallet("BTCUSDT", 0.5 * entry / leverage, [held], isolated=True)
    held.price = entry
    liquidation = wallet.liquidation_price(held)
    assume(liquidation is not None)
    held.price = entry + share * (liquidation - entry)
    wallet.measure()
    distance_now = side * (held.price - liquidation)
    assert wallet.consumed == pytest.approx(
        1 - distance_now / (side * (entry - liquidation)), abs=1e-9
    )
    assert wallet.consumed == pytest.approx(share, abs=1e-9)


def test_the_thresholds_on_the_ratio_alone_would_come_too_late():
    """Isolated 3x: at a ratio of 0.8 a tenth of a percent of price is left."""
    held = leg(size="0.1", entry=50_000.0)
    wallet = Wallet("one", 0.1 * 50_000 / 3, [held], isolated=True)
    held.price = 50_000.0
    liquidation = wallet.liquidation_price(held)
    held.price = liquidation * 1.0010
    wallet.measure()
    assert 0.79 < wallet.ratio < 0.81
    assert wallet.consumed > 0.995
    held.price = 50_000.0 + 0.9 * (liquidation - 50_000.0)
    wallet.measure()
    assert wallet.ratio < 0.2
    assert wallet.worst == wallet.consumed == pytest.approx(0.9)


def test_a_cross_wallets_positions_share_one_measure():
    """Each symbol's distance in price, now and at entry, gives the account's measure."""
    flat = {name: Brackets(name, [0.0], [0.004]) for name in ("BTCUSDT", "ETHUSDT")}
    btc = leg(size="0.2", entry=50_000.0, price=47_000.0, brackets=flat["BTCUSDT"])
    eth = leg("ETHUSDT", -1, "3", 2_000.0, 2_300.0, flat["ETHUSDT"])
    wallet = Wallet("cross", 6_000.0, [btc, eth], isolated=False)
    wallet.measure()
    now = {one.symbol: wallet.liquidation_price(one) for one in (btc, eth)}
    prices = {one.symbol: one.price for one in (btc, eth)}
    for one in (btc, eth):
        one.price = one.entry_price
    for one in (btc, eth):
        at_entry = abs(one.entry_price - wallet.liquidation_price(one))
        distance = abs(prices[one.symbol] - now[one.symbol])
        assert wallet.consumed == pytest.approx(1 - distance / at_entry, rel=1e-9)


# -------------------------------------------------------------------- edges
def test_a_long_that_is_paid_in_full_has_no_liquidation_price():
    held = leg(size="1", entry=100.0, price=100.0)
    assert Wallet("one", 100.0, [held], isolated=True).liquidation_price(held) is None


def test_a_balanced_hedge_dies_of_a_rise_only():
    """What both sides gain and lose cancels; the maintenance margin grows with the price."""
    ladder = Brackets("BTCUSDT", [0.0], [0.01])
    legs = [
        leg(side=side, size="1", entry=100.0, price=100.0, brackets=ladder) for side in (1, -1)
    ]
    wallet = Wallet("cross", 4.0, legs, isolated=False)
    assert wallet.liquidation_range("BTCUSDT") == (0.0, pytest.approx(200.0))
    assert wallet.liquidation_price(legs[0]) == wallet.liquidation_price(legs[1])


def test_a_hedge_with_two_liquidation_prices_names_the_nearer():
    ladder = Brackets("BTCUSDT", [0.0], [0.25])
    legs = [
        leg(side=1, size="1", entry=100.0, price=90.0, brackets=ladder),
        leg(side=-1, size="0.9", entry=100.0, price=90.0, brackets=ladder),
    ]
    wallet = Wallet("cross", 50.0, legs, isolated=False)
    low, high = wallet.liquidation_range("BTCUSDT")
    assert (low, high) == (0.0, pytest.approx(40.0 / 0.375))
    steep = Brackets("BTCUSDT", [0.0, 150.0], [0.01, 0.9])
    wide = [
        leg(side=1, size="1", entry=100.0, price=90.0, brackets=steep),
        leg(side=-1, size="0.5", entry=100.0, price=90.0, brackets=steep),
    ]
    both = Wallet("cross", 20.0, wide, isolated=False)
    low, high = both.liquidation_range("BTCUSDT")
    assert 0 < low < 90 < high < math.inf
    assert both.liquidation_price(wide[0]) == low
    wide[0].price = wide[1].price = high - 1.0
    assert both.liquidation_price(wide[0]) == high


def test_a_wallet_beyond_rescue_liquidates_where_it_stands():
    held = leg(side=-1, size="1", entry=100.0, price=120.0)
    wallet = Wallet("one", -200.0, [held], isolated=True)
    assert wallet.liquidation_range("BTCUSDT") == (math.inf, 0.0)
    assert wallet.liquidation_price(held) == 120.0
    wallet.measure()
    assert wallet.ratio == wallet.worst == math.inf


def test_a_short_that_only_a_price_of_zero_would_save_lives_at_no_price():
    assert liquidation_range([leg(side=-1, size="1", entry=100.0)], -100.0) == (math.inf, 0.0)


def test_without_slack_at_entry_the_ratio_alone_speaks():
    held = leg(side=1, size="1", entry=100.0, price=200.0)
    wallet = Wallet("cross", 0.1, [held], isolated=False)
    wallet.measure()
    assert wallet.consumed == 0.0
    assert wallet.worst == wallet.ratio == pytest.approx(200 * 0.004 / 100.1)
    held.price = 100.0
    wallet.measure()
    assert wallet.consumed == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_an_unknown_price_makes_every_measure_unknown(bad):
    sound, broken = leg(price=50_000.0), leg("ETHUSDT", price=bad)
    wallet = Wallet("cross", 90_000.0, [sound, broken], isolated=False)
    assert math.isnan(wallet.measure())
    for measure in (wallet.ratio, wallet.consumed, wallet.maintenance, wallet.margin_balance):
        assert math.isnan(measure)
    assert broken.known_price == broken.entry_price
    assert sound.known_price == 50_000.0


@pytest.mark.parametrize("size", ["NaN", "0", "-1", "Infinity"])
def test_an_unknown_size_makes_every_measure_unknown(size):
    held = leg(size=size, price=50_000.0)
    wallet = Wallet("one", 90_000.0, [held], isolated=True)
    assert math.isnan(wallet.measure())
    assert math.isnan(wallet.liquidation_price(held))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_unknown_balance_or_entry_makes_every_measure_unknown(bad):
    assert math.isnan(Wallet("one", bad, [leg(price=50_000.0)], isolated=True).measure())
    assert math.isnan(Wallet("one", 1e5, [leg(entry=bad, price=1.0)], isolated=True).measure())
    assert math.isnan(liquidation_range([leg()], bad)[0])
    assert math.isnan(liquidation_range([leg(entry=bad)], 1.0)[0])


def test_a_position_entered_at_nothing_has_no_known_range():
    assert math.isnan(liquidation_range([leg(entry=0.0)], 1.0)[0])


def test_before_anything_is_measured_nothing_is_known():
    held = leg()
    wallet = Wallet("one", 1.0, [held], isolated=True)
    assert math.isnan(held.price)
    for measure in (wallet.maintenance, wallet.margin_balance, wallet.ratio, wallet.consumed):
        assert math.isnan(measure)
    assert math.isnan(wallet.worst)


def test_a_measured_wallet_tells_its_margin_and_its_legs_their_names():
    held = leg(side=-1, size="2", entry=100.0, price=90.0)
    wallet = Wallet("one", 50.0, [held], isolated=True)
    assert wallet.measure() == wallet.worst
    assert wallet.maintenance == pytest.approx(180 * 0.004)
    assert wallet.margin_balance == pytest.approx(70.0)
    assert held.name == "BTCUSDT short"
    assert leg().name == "BTCUSDT long"


def test_without_any_slack_all_is_consumed():
    held = leg(size="1", entry=100.0, price=100.0)
    wallet = Wallet("one", 0.4, [held], isolated=True)
    wallet.measure()
    assert wallet.ratio == 1.0
    assert wallet.consumed == math.inf


def test_liquidation_prices_below_one_are_prices():
    held = leg(size="1", entry=0.9, price=0.9)
    assert Wallet("one", 0.3, [held], isolated=True).liquidation_price(held) == pytest.approx(
        0.6 / 0.996
    )


def test_a_price_that_rounds_to_nothing_is_found_below_every_bracket_but_the_first():
    """At a price of 1 the position lies brackets higher; the range begins at a price of 0."""
    low, high = liquidation_range([leg(size="1000000", entry=0.5)], 499_980.0)
    assert low == pytest.approx(20 / 0.996e6)
    assert high == math.inf


@pytest.mark.parametrize("size", ["0.001", "0.1", "1", "1000"])
def test_a_hedge_dies_of_a_rise_into_a_steeper_bracket_whatever_its_size(size):
    """The long side is larger, so only the brackets above make a rise dangerous."""
    scale = float(size)
    steep = Brackets("BTCUSDT", [0.0, 150.0 * scale], [0.01, 0.9])
    half = str(Decimal(size) / 2)
    legs = [
        leg(size=size, entry=100.0, price=90.0, brackets=steep),
        leg(side=-1, size=half, entry=100.0, price=90.0, brackets=steep),
    ]
    wallet = Wallet("cross", 20.0 * scale, legs, isolated=False)
    low, high = wallet.liquidation_range("BTCUSDT")
    assert low == pytest.approx(30.0 / 0.485)
    assert slack(legs, wallet.balance, high) == pytest.approx(0.0, abs=1e-9 * scale)
    assert (
        slack(legs, wallet.balance, high * 0.999) > 0 > slack(legs, wallet.balance, high * 1.001)
    )
    for price, nearest in ((0.52 * low + 0.48 * high, low), (0.48 * low + 0.52 * high, high)):
        legs[0].price = legs[1].price = price
        assert wallet.liquidation_price(legs[0]) == nearest


def test_a_wallet_without_positions_and_a_side_that_is_none_are_refused():
    with pytest.raises(DataError, match="no positions"):
        Wallet("empty", 1.0, [], isolated=True)
    with pytest.raises(DataError, match="side 0"):
        leg(side=0)


# ------------------------------------------------------------------ brackets
@pytest.mark.parametrize(
    ("floors", "rates"),
    [
        ([], []),
        ([0.0], []),
        ([1.0], [0.01]),
        ([0.0, 0.0], [0.01, 0.02]),
        ([0.0, math.inf], [0.01, 0.02]),
        ([0.0, math.nan], [0.01, 0.02]),
        ([0.0], [0.0]),
        ([0.0], [1.0]),
        ([0.0], [math.nan]),
        ([0.0, 1.0], [0.02, 0.01]),
    ],
)
def test_ladders_that_are_none_are_refused(floors, rates):
    with pytest.raises(DataError, match="BTCUSDT"):
        Brackets("BTCUSDT", floors, rates)


def test_equal_rates_in_two_steps_are_a_ladder():
    assert Brackets("X", [0.0, 10.0], [0.01, 0.01]).maintenance(20.0) == pytest.approx(0.2)


def test_an_unknown_symbol_has_no_published_brackets():
    with pytest.raises(ConfigError, match=r"WHATUSDT.*BTCUSDT"):
        published_brackets("WHATUSDT")


@given(st.floats(0.0, 3e9), st.sampled_from([0.0, 0.004, 0.025, 0.3, 0.9]))
def test_assumed_brackets_ask_for_the_highest_rate_at_every_notional(notional, least):
    ladder = assumed_brackets("WHATUSDT", least)
    tables = [published_brackets(symbol) for symbol in published_symbols()]
    at_or_below = [max(rate for floor, rate in zip(table.floors, table.rates, strict=True)
                       if floor <= notional) for table in tables]  # fmt: skip
    here = [r for floor, r in zip(ladder.floors, ladder.rates, strict=True) if floor <= notional]
    assert ladder.symbol == "WHATUSDT"
    assert here[-1] == max(least, *at_or_below)
    assert ladder.maintenance(notional) >= notional * least - 1e-6
    assert ladder.maintenance(notional) >= max(t.maintenance(notional) for t in tables) - 1e-6


def venue_answer(**changes):
    rows = [
        {"bracket": 2, "initialLeverage": 20, "notionalCap": 250_000, "notionalFloor": 50_000,
         "maintMarginRatio": "0.005", "cum": 50.0},
        {"bracket": 1, "initialLeverage": 50, "notionalCap": 50_000, "notionalFloor": 0,
         "maintMarginRatio": 0.004, "cum": 0},
    ]  # fmt: skip
    return {"symbol": "BTCUSDT", "brackets": rows} | changes


def test_the_venues_answer_is_read_one_symbol_or_a_list():
    for answer in (venue_answer(), [venue_answer()]):
        ladder = venue_brackets(answer)["BTCUSDT"]
        assert ladder.symbol == "BTCUSDT"
        assert (ladder.floors, ladder.rates) == ([0.0, 50_000.0], [0.004, 0.005])
        assert ladder.cums == [0.0, pytest.approx(50.0)]


@pytest.mark.parametrize(("coefficient", "floor"), [(0.5, 25_000.0), (1.5, 50_000.0)])
def test_a_coefficient_only_ever_asks_for_more_margin(coefficient, floor):
    ladder = venue_brackets(venue_answer(notionalCoef=coefficient))["BTCUSDT"]
    assert ladder.floors[1] == floor


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "{}",
        {},
        {"symbol": "BTCUSDT"},
        {"symbol": "BTCUSDT", "brackets": [{}]},
        {"symbol": "BTCUSDT", "brackets": [{"notionalFloor": None}]},
        venue_answer(notionalCoef=0),
        venue_answer(notionalCoef="nan"),
        venue_answer(notionalCoef=True),
        venue_answer(brackets=[]),
    ],
)
def test_answers_that_cannot_be_read_are_refused(answer):
    with pytest.raises(DataError):
        venue_brackets(answer)


@pytest.mark.parametrize("cum", [49.0, "nan"])
def test_an_answer_that_contradicts_itself_is_refused(cum):
    answer = venue_answer()
    answer["brackets"][0]["cum"] = cum
    message = (
        f"bracket 2 of BTCUSDT says cum {float(cum)}, and its floors and rates give "
        f"{venue_brackets(venue_answer())['BTCUSDT'].cums[1]}; the answer contradicts itself, ask again"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        venue_brackets(answer)


def test_an_answer_without_a_coefficient_is_taken_as_it_is():
    assert venue_brackets(venue_answer())["BTCUSDT"].floors == [0.0, 50_000.0]


def test_messages_say_what_was_read_and_what_was_expected():
    with pytest.raises(DataError) as refused:
        venue_brackets({"symbol": "BTCUSDT", "brackets": [{"notionalFloor": None}]})
    assert str(refused.value) == (
        "cannot read leverage brackets \"{'symbol': 'BTCUSDT', 'brackets': "
        "[{'notionalFloor': None}]}\": TypeError None is no number; expected symbol and brackets "
        "of notionalFloor, maintMarginRatio, cum"
    )
    with pytest.raises(DataError) as refused:
        venue_brackets(venue_answer(notionalCoef=0))
    assert str(refused.value) == "notionalCoef of BTCUSDT is 0.0; expected a positive number"
    with pytest.raises(DataError) as refused:
        Brackets("BTCUSDT", [0.0, 5.0], [0.01, 2.0])
    assert str(refused.value) == (
        "bracket 2 of BTCUSDT has floor 5.0 and rate 2.0; expected rising floors and a rate "
        "between 0 and 1"
    )
    with pytest.raises(DataError) as refused:
        Brackets("BTCUSDT", [0.0, 5.0], [0.02, 0.01])
    assert str(refused.value) == (
        "bracket 2 of BTCUSDT has rate 0.01, less than the 0.02 before it; a larger position "
        "never needs a smaller rate"
    )
    with pytest.raises(DataError) as refused:
        Brackets("BTCUSDT", [1.0], [0.01])
    assert str(refused.value) == (
        "leverage brackets of BTCUSDT have floors [1.0] and rates [0.01]; expected as many of one "
        "as of the other, and the first floor to be 0"
    )
    with pytest.raises(ConfigError) as unknown:
        published_brackets("WHATUSDT")
    assert str(unknown.value) == (
        "no leverage brackets of WHATUSDT are known; expected one of BNBUSDT, BTCUSDT, ETHUSDT, "
        "LTCUSDT, SOLUSDT, or the venue's answer to leverageBracket"
    )
