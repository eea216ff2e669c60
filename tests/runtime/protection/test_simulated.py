"""The simulated account by hand: what its orders, transfers and marks do to its margin."""

from decimal import Decimal

import pytest

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.errors import InvariantViolated, OutcomeUnknown
from bot4_runtime.domain.events import OrderAccepted, OrderClosed, OrderFilled
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
)
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.simulated import Costs, Faults, Liquidated, SimulatedUsdm
from bot4_runtime.protection.stress import lot_rules
from bot4_runtime.risk.brackets import Brackets

D = Decimal
MS = 1_000_000
FLAT = {"BTCUSDT": Brackets("BTCUSDT", [0.0], [0.004])}
FREE = Costs(taker=0.0, slippage=0.0, clearance=0.0)
NOW = Faults(latency_ms=(0, 0))


def account(*, isolated="250", side="long", size="10", **told) -> SimulatedUsdm:
    """One leg entered at 100 with this margin of its own, 1000 beside it; marks at 100."""
    leg = MarginPosition(
        symbol="BTCUSDT",
        side=side,
        size=D(size),
        entry_price=D(100),
        isolated_wallet=None if isolated is None else D(isolated),
    )
    holdings = Holdings(cross_balance=D(1000), free=D(0), positions=(leg,))
    venue = SimulatedUsdm(holdings, FLAT, **({"costs": FREE, "faults": NOW} | told))
    assert venue.set_marks({"BTCUSDT": 100.0}, 0) == []
    return venue


def order(quantity="10", number=1, *, stop=None, reduce_only=True, ts_ns=0) -> OrderIntent:
    return OrderIntent(
        intent_no=number, book=Book.VALIDATED, purpose=Purpose.EMERGENCY, symbol="BTCUSDT",
        side=Side.SELL, order_type=OrderType.MARKET if stop is None else OrderType.STOP_MARKET,
        quantity=D(quantity), price=None, stop_price=stop, time_in_force=TimeInForce.IOC,
        reduce_only=reduce_only, reference_price=D(100), stop_loss=None, expires_after=0,
        signal_id="s", rule_id="protection", ts_ns=ts_ns,
    )  # fmt: skip


def send(venue: SimulatedUsdm, intent: OrderIntent) -> list:
    return venue.submit(intent, f"b4-1-{intent.intent_no}", 0.0)


# ------------------------------------------------------------------------ orders
def test_an_order_that_would_open_is_a_fault_of_its_sender():
    with pytest.raises(InvariantViolated, match="intent 1 would open"):
        send(account(), order(reduce_only=False))


def test_an_order_fills_once_its_latency_is_over_at_the_mark_less_slippage():
    venue = account(costs=Costs(taker=0.001, slippage=0.01), faults=Faults(latency_ms=(300, 300)))
    [accepted] = send(venue, order("4", ts_ns=MS))
    assert isinstance(accepted, OrderAccepted)
    venue.set_marks({"BTCUSDT": 90.0}, 100 * MS)
    assert venue.poll(301 * MS - 1) == []
    [filled] = venue.poll(301 * MS)
    assert (filled.fill.price, filled.fill.quantity) == (D("89.1"), D(4))
    assert filled.fill.fee == D(repr(4 * 89.1 * 0.001))
    assert venue.positions == {"BTCUSDT long": D(6)}
    assert venue.poll(400 * MS) == []


def test_a_market_order_is_never_cancelled_in_time():
    venue = account()
    send(venue, order())
    asked = Order(
        intent=order(), client_id="b4-1-1", status=OrderStatus.ACCEPTED, filled=D(0), spent=D(0),
        cancel_requested=True, age=0, reason="",
    )  # fmt: skip
    assert venue.cancel(asked, 0) == []
    [filled] = venue.poll(0)
    assert isinstance(filled, OrderFilled)


def test_a_candle_neither_fills_nor_moves_anything():
    venue = account()
    send(venue, order("1", stop=D(95)))
    before = venue.holdings(0)
    candle = Candle(
        symbol="BTCUSDT", interval="1h", open_time_ms=0, open=100.0, high=101.0, low=1.0,
        close=90.0, volume=1.0,
    )  # fmt: skip
    assert venue.on_candle(candle, [], Instrument.assume("BTCUSDT", Market.USDM, 100.0)) == []
    assert venue.holdings(0) == before


def test_an_order_for_more_than_is_held_closes_what_is_held_and_a_later_one_nothing():
    venue = account(size="3")
    send(venue, order("10"))
    filled, ended = venue.poll(0)
    assert filled.fill.quantity == D(3)
    assert (ended.status, ended.reason) == ("expired", "the rest found no counterparty")
    assert venue.positions == {}
    send(venue, order("1", number=2))
    [closed] = venue.poll(1)
    assert (closed.intent_no, closed.status) == (2, "expired")
    assert closed.reason == "no position is left to reduce"


@pytest.mark.parametrize("rules", [lot_rules({"BTCUSDT": 100.0}), None])
def test_a_partial_fill_is_whole_lots_and_whole_where_no_lots_are_known(rules):
    venue = account(rules=rules, faults=Faults(latency_ms=(0, 0), partial=1.0))
    send(venue, order("10"))
    [filled, *ended] = venue.poll(0)
    quantity = filled.fill.quantity
    if rules is None:
        assert (quantity, ended) == (D(10), [])
    else:
        assert 0 < quantity < 10
        assert quantity % rules["BTCUSDT"].step == 0
        assert [event.status for event in ended] == ["expired"]


def test_half_of_the_orders_whose_answer_is_lost_never_arrived():
    venue = account(faults=Faults(latency_ms=(0, 0), ack_loss=1.0, found_after_ms=3_000))
    for number in range(1, 41):
        with pytest.raises(OutcomeUnknown, match=f"b4-1-{number} was lost"):
            send(venue, order("0.1", number))
    assert venue.poll(3_000 * MS - 1) == []
    events = venue.poll(3_000 * MS)
    absent = [e for e in events if isinstance(e, OrderClosed)]
    arrived = [e for e in events if isinstance(e, OrderFilled)]
    assert {(e.status, e.reason) for e in absent} == {("never_placed", "it never arrived")}
    assert len(absent) + len(arrived) == 40
    assert 10 < len(arrived) < 30
    assert venue.positions["BTCUSDT long"] == D(10) - D("0.1") * len(arrived)


def test_a_stop_rests_from_the_moment_it_is_taken_if_there_is_something_to_stop():
    venue = account(size="3")
    [accepted] = send(venue, order("3", stop=D(95)))
    assert isinstance(accepted, OrderAccepted)
    assert venue.poll(MS) == []
    [leg] = venue.holdings(0).positions
    assert (leg.stop_price, leg.stop_live) == (D(95), True)
    send(venue, order("3", number=2))
    venue.poll(MS)
    send(venue, order("3", number=3, stop=D(95)))
    assert venue.holdings(0).positions == ()


# ------------------------------------------------------------------------ margin
@pytest.mark.parametrize(
    ("slippage", "cross", "own"),
    [(0.0, "1020", "180"), (0.1, "1000", "170")],
    ids=["filled at 75, 100 lost", "filled at 67.5, 130 lost"],
)
def test_a_cut_releases_its_share_of_the_margin_and_the_rest_pays_for_a_larger_loss(
    slippage, cross, own
):
    """Four tenths of 300 are 120."""
    venue = account(isolated="300", costs=Costs(taker=0.0, slippage=slippage, clearance=0.0))
    venue.set_marks({"BTCUSDT": 75.0}, 0)
    send(venue, order("4"))
    venue.poll(0)
    told = venue.holdings(0)
    assert (told.cross_balance, told.positions[0].isolated_wallet) == (D(cross), D(own))


def test_a_position_that_is_closed_gives_its_margin_back_less_what_it_lost():
    venue = account()
    venue.set_marks({"BTCUSDT": 90.0}, 0)
    send(venue, order("10"))
    venue.poll(0)
    told = venue.holdings(0)
    assert (told.cross_balance, told.free, told.positions) == (D(1150), D(1150), ())
    assert venue.equity == 1150.0


def test_cross_positions_settle_in_the_shared_balance():
    venue = account(isolated=None)
    venue.set_marks({"BTCUSDT": 110.0}, 0)
    send(venue, order("4"))
    venue.poll(0)
    told = venue.holdings(0)
    assert (told.cross_balance, told.free) == (D(1040), D(0))
    assert venue.equity == 1100.0
    send(venue, order("6", number=2))
    venue.poll(0)
    told = venue.holdings(0)
    assert (told.cross_balance, told.free, told.positions) == (D(1100), D(1100), ())


def test_added_margin_counts_after_its_latency_and_never_exceeds_what_there_is():
    venue = account(faults=Faults(latency_ms=(300, 300)))
    assert venue.add_margin(1, "BTCUSDT", 1, D(400), 0) == 300 * MS
    venue.add_margin(2, "BTCUSDT", 1, D(5_000), 0)
    assert venue.poll(300 * MS - 1) == []
    assert venue.holdings(0).positions[0].isolated_wallet == D(250)
    assert venue.poll(300 * MS) == []
    told = venue.holdings(0)
    assert (told.cross_balance, told.positions[0].isolated_wallet) == (D(0), D(1250))


@pytest.mark.parametrize(
    ("isolated", "side"), [("250", -1), (None, 1)], ids=["no leg", "cross leg"]
)
def test_margin_for_no_isolated_position_stays_where_it_is(isolated, side):
    venue = account(isolated=isolated)
    before = venue.holdings(0)
    venue.add_margin(1, "BTCUSDT", side, D(400), 0)
    venue.poll(0)
    assert venue.holdings(0) == before


# ------------------------------------------------------------------- liquidation
def test_a_wallet_is_liquidated_where_its_maintenance_margin_is_all_it_has():
    """250 + 10 (p - 100) = 0.04 p at 75.30; the venue's costs come out of what is left."""
    venue = account(costs=Costs(taker=0.0005, slippage=0.001, clearance=0.0))
    assert venue.set_marks({"BTCUSDT": 75.31}, 0) == []
    [gone] = venue.set_marks({"BTCUSDT": 75.30}, 7)
    balance = 250 - 10 * 24.7
    left = balance - 753 * 0.0015
    assert gone == Liquidated("BTCUSDT long", 7, pytest.approx(balance), pytest.approx(left))
    assert venue.positions == {}
    assert venue.equity == pytest.approx(1000 + left)


def test_a_liquidation_takes_all_of_a_wallet_and_never_more():
    isolated, cross = account(), account(isolated=None, size="20")
    for venue, rest in ((isolated, 1000.0), (cross, 0.0)):
        [gone] = venue.set_marks({"BTCUSDT": 0.01}, 0)
        assert (gone.left, venue.equity) == (0.0, rest)
