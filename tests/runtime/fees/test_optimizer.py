import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import OrderType
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.ccxt_tables import ccxt_schedule
from bot4_runtime.fees.optimizer import (
    OrderToRoute,
    VenueQuote,
    optimize_order_routing,
    suggest_order_type,
)
from bot4_runtime.fees.schedules import binance_schedule

USDM = FeeCalculator(binance_schedule(Market.USDM))  # maker 2 bps, taker 5 bps
OTHER = FeeCalculator(
    ccxt_schedule("other", "usdm", {"maker": 0.0001, "taker": 0.0002, "percentage": True})
)
ORDER = OrderToRoute("BTCUSDT", 10_000.0)


def quote(fees=USDM, half_spread=0.0001, depth=100_000.0, fills=0.5, drift=0.0):
    return VenueQuote(fees, half_spread, depth, fills, drift)


def test_a_limit_order_is_suggested_when_its_fee_and_slippage_are_below_the_market_fee():
    # half the time 1 bp of half spread and 0.5 bp of impact is lost: 2 + 0.75 < 5
    assert suggest_order_type(ORDER, quote()) is OrderType.LIMIT
    # with a drift of 5 bps: 2 + 0.5 x 6.5 = 5.25 > 5
    assert suggest_order_type(ORDER, quote(drift=0.0005)) is OrderType.MARKET


def test_the_cost_of_a_market_order_is_fee_half_spread_and_impact():
    route = optimize_order_routing(ORDER, [quote(fills=0.0, drift=0.01)])
    assert route.order_type is OrderType.MARKET
    assert route.fee == pytest.approx(0.0005)
    assert route.cost == pytest.approx(0.0005 + 0.0001 + 0.001 * 0.1 / 2)
    assert route.cost_quote == pytest.approx(route.cost * 10_000)


def test_the_cost_of_a_limit_order_holds_the_risk_of_not_filling():
    route = optimize_order_routing(ORDER, [quote(fills=0.8, drift=0.0002)])
    assert route.order_type is OrderType.LIMIT
    later = 0.0005 + 0.0001 + 0.00005 + 0.0002
    assert route.cost == pytest.approx(0.8 * 0.0002 + 0.2 * later)
    assert "binance market 6.50 bps; binance limit" in route.reason


@given(
    st.lists(
        st.tuples(
            st.sampled_from([USDM, OTHER]),
            st.floats(0, 0.01),
            st.floats(1, 1e7),
            st.floats(0, 1),
            st.floats(0, 0.01),
        ),
        min_size=1,
        max_size=5,
    ),
    st.floats(1, 1e6),
)
def test_no_other_venue_or_type_is_cheaper(venues, notional):
    order = OrderToRoute("BTCUSDT", notional)
    quotes = [VenueQuote(*venue) for venue in venues]
    best = optimize_order_routing(order, quotes)
    for fees, half_spread, depth, fills, drift in venues:
        maker, taker = (0.0002, 0.0005) if fees is USDM else (0.0001, 0.0002)
        taking = taker + half_spread + 0.001 * notional / depth / 2
        resting = fills * maker + (1 - fills) * (taking + drift)
        assert best.cost <= min(taking, resting) * (1 + 1e-9)


@pytest.mark.parametrize(
    "wrong",
    [{"half_spread": math.nan}, {"half_spread": -0.1}, {"depth": 0.0}, {"depth": math.nan},
     {"depth": math.inf}, {"fills": 1.1}, {"fills": math.nan}, {"drift": -1.0}],
)  # fmt: skip
def test_impossible_market_conditions_are_refused(wrong):
    with pytest.raises(DataError, match="expected"):
        quote(**wrong)


@pytest.mark.parametrize("notional", [0.0, -1.0, math.nan, math.inf])
def test_an_order_without_a_notional_is_not_routed(notional):
    order = OrderToRoute("BTCUSDT", notional)
    with pytest.raises(DataError, match="cannot be routed"):
        optimize_order_routing(order, [quote()])
    with pytest.raises(DataError, match="cannot be routed"):
        suggest_order_type(order, quote())


def test_an_order_without_a_venue_is_not_routed():
    with pytest.raises(DataError, match="at least one"):
        optimize_order_routing(ORDER, [])
