"""Liquidation, insurance fund and ADL of the USD-M venue; no sequence creates or loses money."""

from contextlib import suppress
from decimal import Decimal

import pytest
from futures_venue import dec, held_in_all, request, venue
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.futures_account import PositionSide
from bot4_runtime.venue.futures_events import Forced, MarginCalled
from bot4_runtime.venue.futures_orders import AlgoKind, AlgoRequest, AlgoStatus
from bot4_runtime.venue.orders import Status
from bot4_runtime.venue.refusals import Refused


def listened(made):
    events, told = [], made.exchange.tell

    def tell(event):
        events.append(event)
        told(event)

    made.exchange.tell = tell
    return events


def forced(events):
    return [event.order for event in events if isinstance(event, Forced)]


@pytest.mark.parametrize(("isolated", "sign"), [(True, 1), (True, -1), (False, 1), (False, -1)])
def test_a_wallet_is_liquidated_at_its_price_and_not_before(isolated, sign):
    made = venue()
    account, exchange = made.exchange.account("key1"), made.exchange
    if isolated:
        made.settings.set_margin_type(account, "BTCUSDT", isolated=True)
    events = listened(made)
    exchange.place(account, request(sign * 4))
    waiting = exchange.place(account, request(sign * dec("0.01"), 40_000 - sign * 300))
    stop = made.algos.place(
        account,
        AlgoRequest(
            kind=AlgoKind.STOP_MARKET,
            order=request(-sign * dec("0.1")),
            trigger=dec(40_000 - sign * 9_000),
        ),
    )
    (position,) = account.positions()
    price = exchange.margins.liquidation_price(account, position)
    made.set_mark("BTCUSDT", price + sign * dec("0.01"))
    assert not forced(events)
    assert any(isinstance(event, MarginCalled) for event in events)
    made.trade("BTCUSDT", price.quantize(dec("0.1")), dec(0))
    made.set_mark("BTCUSDT", price - sign * dec("0.01"))
    (order,) = forced(events)
    assert order.client_id.startswith("autoclose-")
    assert (order.status, order.venue_kind) == (Status.FILLED, "LIQUIDATION")
    assert waiting.status is Status.CANCELED
    assert stop.status is AlgoStatus.CANCELED
    assert list(account.positions()) == []
    clearance = dec("0.0125") * order.spent
    gone = -sum(i.amount for i in account.incomes if i.kind == "INSURANCE_CLEAR")
    assert 0 < gone <= clearance
    assert exchange.insurance["USDT"] == 1_000_000 + gone
    assert account.cross["USDT"] >= 0
    assert held_in_all(made) == 1_020_000


def test_what_a_gap_takes_beyond_the_margin_the_fund_pays():
    made = venue()
    account = made.exchange.account("key1")
    made.exchange.place(account, request("4"))
    made.trade("BTCUSDT", dec(36_000), dec(0))
    assert list(account.positions()) == []
    assert account.cross["USDT"] == 0
    # Bankrupt at 37,520; sold at 35,999.9 and below.
    assert Decimal(990_000) < made.exchange.insurance["USDT"] < Decimal(994_000)
    assert held_in_all(made) == 1_020_000


@pytest.mark.parametrize("isolated", [True, False])
def test_a_fee_that_the_wallet_cannot_pay_the_fund_pays(isolated):
    made = venue()
    account = made.exchange.account("key1")
    if isolated:
        made.settings.set_margin_type(account, "BTCUSDT", isolated=True)
    made.exchange.place(account, request("4"))
    (position,) = account.positions()
    bankrupt = made.exchange.margins.bankruptcy_price(account, position)
    cross = account.cross["USDT"] if isolated else 0
    # Sold a tick above bankruptcy: what is left is less than the commission.
    made.trade("BTCUSDT", bankrupt.quantize(dec("0.1")) + dec("0.2"), dec(0))
    assert account.cross["USDT"] == cross
    commission = account.incomes[-2].amount
    assert account.incomes[-2].kind == "COMMISSION"
    assert account.incomes[-1].kind == "INSURANCE_CLEAR"
    assert -commission - 1 < account.incomes[-1].amount < -commission
    assert held_in_all(made) == 1_020_000


def test_an_isolated_loss_stays_with_its_position():
    made = venue()
    account = made.exchange.account("key1")
    made.settings.set_margin_type(account, "BTCUSDT", isolated=True)
    made.exchange.place(account, request("1"))
    cross = account.cross["USDT"]
    made.trade("BTCUSDT", dec(30_000), dec(0))
    assert list(account.positions()) == []
    assert account.cross["USDT"] == cross
    assert held_in_all(made) == 1_020_000


def test_without_a_fund_gainers_are_deleveraged_at_the_bankruptcy_price():
    made = venue(customers=3, insurance=Decimal(0))
    loser, gainer, small = made.exchange.accounts
    made.settings.set_leverage(small, "BTCUSDT", 50)
    made.exchange.place(loser, request("4"))
    made.exchange.place(gainer, request("-3"))
    made.exchange.place(small, request("-0.5"))
    resting = made.exchange.place(small, request("-0.1", 41_000))
    ranks = {
        account.uid: made.liquidator.quantile(account, next(account.positions()))
        for account in (gainer, small)
    }
    assert ranks == {2: 0, 3: 2}  # all lose the spread, the higher leverage less so
    events = listened(made)
    made.trade("BTCUSDT", dec(36_000), dec(0))
    first, second, liquidated = sorted(forced(events), key=lambda order: -order.order_id)
    assert [o.client_id for o in (second, first)] == ["adl_autoclose"] * 2
    assert (second.account, first.account) == (small, gainer)  # the highest rank goes first
    assert {first.average, second.average, liquidated.average} == {liquidated.price}
    assert resting.status is Status.CANCELED
    assert [list(account.positions()) for account in (loser, gainer, small)] == [[], [], []]
    assert made.exchange.others.held["BTCUSDT"] == 0  # the rest of the market lost 0.5 as well
    assert loser.cross["USDT"] >= 0
    assert held_in_all(made) == 30_000


def test_a_cross_wallet_gives_up_what_needs_most_first():
    made = venue()
    account = made.exchange.account("key1")
    made.settings.set_leverage(account, "ETHUSDT", 50)
    made.exchange.place(account, request("4"))
    made.exchange.place(account, request("10", symbol="ETHUSDT"))
    events = listened(made)
    (btc, _eth) = account.positions()
    price = made.exchange.margins.liquidation_price(account, btc)
    made.trade("BTCUSDT", price.quantize(dec("0.1")) - dec("0.1"), dec(0))
    assert [order.symbol for order in forced(events)] == ["BTCUSDT", "ETHUSDT"]
    assert account.cross["USDT"] >= 0
    assert held_in_all(made) == 1_020_000


# ------------------------------------------------------------------------ conservation
OPS = st.one_of(
    st.tuples(st.just("market"), st.integers(0, 2), st.integers(-300, 300).filter(bool)),
    st.tuples(
        st.just("limit"),
        st.integers(0, 2),
        st.integers(-300, 300).filter(bool),
        st.integers(-40, 40),
    ),
    st.tuples(st.just("print"), st.integers(-90, 90), st.integers(0, 300)),
    st.tuples(st.just("funding"), st.integers(-75, 75)),
    st.tuples(st.just("leverage"), st.integers(0, 2), st.sampled_from([1, 5, 20, 75, 125])),
    st.tuples(st.just("isolated"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("hedge"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("margin"), st.integers(0, 2), st.integers(-500, 500)),
)


def act(made, op):
    name, *args = op
    exchange = made.exchange
    market = exchange.market("BTCUSDT")
    if name == "print":
        last = market.book.last * (1000 + args[0]) / 1000
        made.trade("BTCUSDT", last.quantize(dec("0.1")), dec(args[1]) / 100)
        return
    if name == "funding":
        market.funding_rate = dec(args[0]) / 10_000
        made.advance(market.next_funding_ms)
        return
    account = exchange.accounts[args[0]]
    side = "BOTH"
    if account.hedge:
        side = "LONG" if args[1] % 2 else "SHORT"
    if name == "market":
        exchange.place(account, request(dec(args[1]) / 100, side=side))
    elif name == "limit":
        price = (market.mark * (1000 + args[2]) / 1000).quantize(dec("0.1"))
        exchange.place(account, request(dec(args[1]) / 100, price, side=side))
    elif name == "leverage":
        made.settings.set_leverage(account, "BTCUSDT", args[1])
    elif name == "isolated":
        made.settings.set_margin_type(account, "BTCUSDT", isolated=args[1])
    elif name == "hedge":
        made.settings.set_hedge(account, hedge=args[1])
    else:
        made.settings.move_margin(account, "BTCUSDT", PositionSide(side), dec(args[1]))


@settings(max_examples=200)
@given(
    ops=st.lists(OPS, max_size=40),
    insurance=st.sampled_from([0, 1_000, 1_000_000]),
    thin=st.booleans(),
)
def test_no_sequence_creates_or_loses_money(ops, insurance, thin):
    depth = Depth(level_quantity=dec("0.05") if thin else dec(1_000))
    made = venue(customers=3, insurance=Decimal(insurance), depth=depth)
    exchange = made.exchange
    for op in ops:
        with suppress(Refused):
            act(made, op)
        assert held_in_all(made) == 30_000 + insurance
        assert exchange.insurance["USDT"] >= 0
        total = sum(
            (p.quantity for account in exchange.accounts for p in account.positions()), Decimal(0)
        )
        assert total + exchange.others.held.get("BTCUSDT", 0) == 0
        for account in exchange.accounts:
            for position in account.positions():
                assert (position.quantity > 0) == (position.cost > 0)
                assert not position.isolated or account.settings("BTCUSDT").isolated
