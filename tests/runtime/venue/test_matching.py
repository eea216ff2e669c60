"""The core matches by price and time, and money neither appears nor vanishes."""

from collections import defaultdict
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.orders import Kind, OrderRequest, Status, Tif
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rules import SymbolRules

SYMBOL = "BTCUSDT"
RULES = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 100.0))  # tick 0.001, step 0.001
DEPOSITS = {"USDT": Decimal(10_000), "BTC": Decimal(50)}


class World:
    """An exchange with two customers, and everything it reported."""

    def __init__(self, depth=None):
        self.reports = []
        self.exchange = Exchange(
            ManualClock(10**18), lambda account, report: self.reports.append((account.uid, report))
        )
        self.exchange.list_symbol(RULES, Decimal(100), depth)
        self.accounts = {}
        for uid in (1, 2):
            account = Account(uid, f"key{uid}", "secret")
            for asset, amount in DEPOSITS.items():
                account.deposit(asset, amount)
            self.exchange.open_account(account)
            self.accounts[uid] = account

    def place(self, side, kind=Kind.LIMIT, quantity="1", price=None, *, uid=1, **more):
        request = OrderRequest(
            symbol=SYMBOL,
            side=side,
            kind=kind,
            quantity=None if quantity is None else Decimal(quantity),
            price=None if price is None else Decimal(price),
            **more,
        )
        return self.exchange.place(self.accounts[uid], request)

    def print(self, price, quantity="1000"):
        self.exchange.print(SYMBOL, Decimal(price), Decimal(quantity))

    def total(self, uid, asset):
        return self.accounts[uid].balance(asset).total


def code_of(refused) -> tuple[int, str]:
    return refused.value.code, refused.value.message


def test_a_buy_below_the_market_rests_and_holds_its_quote_back():
    world = World()
    order = world.place(Side.BUY, price="99")
    assert order.status is Status.NEW
    assert world.accounts[1].balance("USDT").locked == 99
    world.print("99.5")
    assert order.filled == 0
    world.print("98.9")
    assert order.status is Status.FILLED
    assert order.trades[0].price == 99
    assert order.trades[0].maker
    assert order.trades[0].commission == Decimal("0.001")
    assert world.total(1, "BTC") == Decimal("50.999")
    assert world.total(1, "USDT") == 9_901
    assert world.accounts[1].balance("USDT").locked == 0


def test_a_market_buy_walks_the_depth_level_by_level():
    world = World(Depth(half_spread_ticks=2, level_quantity=Decimal(1)))
    order = world.place(Side.BUY, Kind.MARKET, "2.5")
    assert [(t.price, t.quantity) for t in order.trades] == [
        (Decimal("100.002"), Decimal(1)),
        (Decimal("100.003"), Decimal(1)),
        (Decimal("100.004"), Decimal("0.5")),
    ]
    again = world.place(Side.BUY, Kind.MARKET, "0.5")
    assert again.trades[0].price == Decimal("100.004"), "what was taken is gone until a print"
    world.print("100")
    assert world.place(Side.BUY, Kind.MARKET, "0.5").trades[0].price == Decimal("100.002")


def test_what_the_depth_cannot_give_expires():
    world = World(Depth(level_quantity=Decimal("0.1")))
    order = world.place(Side.SELL, Kind.MARKET, "20")
    assert order.status is Status.EXPIRED
    assert order.filled == 5  # 50 levels of 0.1
    assert world.accounts[1].balance("BTC").locked == 0


def test_better_prices_fill_first_then_older_orders():
    world = World()
    late_better = world.place(Side.BUY, price="99.5")
    old = world.place(Side.BUY, price="99")
    young = world.place(Side.BUY, price="99", uid=2)
    world.print("98", "2")
    assert (late_better.status, old.status) == (Status.FILLED, Status.FILLED)
    assert young.filled == 0
    world.print("98", "0.4")
    assert young.status is Status.PARTIALLY_FILLED
    assert young.filled == Decimal("0.4")


def test_an_order_at_the_price_waits_for_the_queue_ahead_of_it():
    world = World(Depth(queue_ahead=Decimal(5)))
    order = world.place(Side.SELL, price="101")
    world.print("101", "4")
    assert order.filled == 0
    world.print("101", "1.5")
    assert order.filled == Decimal("0.5")


def test_customers_trade_with_each_other_at_the_resting_price_and_one_number():
    world = World(Depth(half_spread_ticks=100))
    resting = world.place(Side.SELL, price="100.05", uid=2)
    taker = world.place(Side.BUY, price="100.09")
    assert taker.trades[0].price == resting.trades[0].price == Decimal("100.05")
    assert taker.trades[0].trade_id == resting.trades[0].trade_id
    assert (taker.trades[0].maker, resting.trades[0].maker) == (False, True)
    assert world.total(1, "USDT") + world.total(2, "USDT") == 20_000 - Decimal("0.10005")


def test_nobody_trades_with_himself():
    world = World(Depth(half_spread_ticks=100))
    resting = world.place(Side.SELL, price="100.05")
    taker = world.place(Side.BUY, price="100.09")
    assert resting.status is Status.EXPIRED_IN_MATCH
    assert (taker.status, taker.trades) == (Status.NEW, [])


def test_a_stop_waits_and_then_leaves_at_the_market():
    world = World()
    order = world.place(Side.SELL, Kind.STOP_LOSS, "1", stop_price=Decimal(95))
    assert not order.working
    world.print("95.001")
    assert order.status is Status.NEW
    world.print("94")
    assert order.status is Status.FILLED
    assert order.trades[0].price == Decimal("93.999")
    assert not order.trades[0].maker


def test_a_buy_stop_pays_with_what_is_free_and_the_rest_expires():
    world = World()
    world.place(Side.BUY, price="90", quantity="50")  # holds back 4,500
    order = world.place(Side.BUY, Kind.STOP_LOSS, "50", stop_price=Decimal(105))
    world.print("120")
    assert order.status is Status.EXPIRED
    assert order.spent <= 5_500
    assert order.left > 0
    assert world.accounts[1].balance("USDT").free >= 0


@pytest.mark.parametrize(
    ("tif", "status", "filled"),
    [
        (Tif.IOC, Status.EXPIRED, "5"),
        (Tif.FOK, Status.EXPIRED, "0"),
        (Tif.GTC, Status.PARTIALLY_FILLED, "5"),
    ],
)
def test_how_long_what_is_left_stays(tif, status, filled):
    world = World(Depth(level_quantity=Decimal("0.1")))
    order = world.place(Side.BUY, quantity="6", price="120", tif=tif)
    assert (order.status, order.filled) == (status, Decimal(filled))


def test_a_fill_or_kill_that_fits_fills():
    assert World().place(Side.BUY, quantity="6", price="120", tif=Tif.FOK).status is Status.FILLED


def test_a_market_order_by_quote_spends_at_most_that():
    order = World().place(Side.BUY, Kind.MARKET, None, quote_quantity=Decimal(250))
    assert order.status is Status.FILLED
    assert Decimal("249.8") < order.spent <= 250


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ({"side": Side.BUY, "price": "99.0005"}, -1013, "PRICE_FILTER"),
        ({"side": Side.BUY, "price": "99.000000001"}, -1111, "precision"),
        ({"side": Side.BUY, "price": "99", "quantity": "1.0005"}, -1013, "LOT_SIZE"),
        ({"side": Side.BUY, "price": "99", "quantity": "0.000000001"}, -1111, "precision"),
        ({"side": Side.BUY, "price": "99", "quantity": "0.05"}, -1013, "NOTIONAL"),
        ({"side": Side.BUY, "price": "501"}, -1013, "PERCENT_PRICE_BY_SIDE"),
        ({"side": Side.SELL, "price": "19"}, -1013, "PERCENT_PRICE_BY_SIDE"),
        ({"side": Side.BUY, "price": "99", "quantity": "102"}, -2010, "insufficient balance"),
        ({"side": Side.SELL, "price": "101", "quantity": "51"}, -2010, "insufficient balance"),
        ({"side": Side.BUY, "kind": Kind.MARKET, "quantity": "200"}, -2010, "insufficient"),
        ({"side": Side.BUY, "kind": Kind.LIMIT_MAKER, "price": "101"}, -2010, "immediately match"),
        ({"side": Side.SELL, "kind": Kind.STOP_LOSS, "stop_price": Decimal(100)}, -2010, "trigger"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_by_its_code_and_changes_nothing(asked, code, message):
    world = World()
    with pytest.raises(Refused) as refused:
        world.place(**asked)
    assert code_of(refused)[0] == code
    assert message in code_of(refused)[1]
    assert world.reports == []
    assert [world.accounts[1].balance(a).free for a in DEPOSITS] == list(DEPOSITS.values())


def test_open_orders_and_stops_are_counted():
    world = World()
    for _ in range(RULES.max_stops):
        world.place(Side.SELL, Kind.STOP_LOSS, "0.1", stop_price=Decimal(90))
    with pytest.raises(Refused, match="MAX_NUM_ALGO_ORDERS"):
        world.place(Side.SELL, Kind.STOP_LOSS, "0.1", stop_price=Decimal(90))
    for _ in range(RULES.max_orders - RULES.max_stops):
        world.place(Side.SELL, quantity="0.1", price="110")
    with pytest.raises(Refused, match="MAX_NUM_ORDERS"):
        world.place(Side.SELL, quantity="0.1", price="110")


def test_a_client_id_is_refused_while_open_and_taken_again_after():
    world = World()
    first = world.place(Side.BUY, price="99", client_id="mine")
    with pytest.raises(Refused, match="Duplicate order sent"):
        world.place(Side.BUY, price="99", client_id="mine")
    world.print("98")
    assert first.status is Status.FILLED
    second = world.place(Side.BUY, price="97", client_id="mine")
    assert world.exchange.order(world.accounts[1], SYMBOL, None, "mine") is second


def test_cancelling_gives_back_what_was_held_and_works_once():
    world = World()
    order = world.place(Side.BUY, price="99", client_id="mine")
    account = world.accounts[1]
    assert world.exchange.cancel(account, SYMBOL, None, "mine", "") is order
    assert account.balance("USDT").free == 10_000
    with pytest.raises(Refused, match="-2011 Unknown order sent"):
        world.exchange.cancel(account, SYMBOL, None, "mine", "")
    with pytest.raises(Refused, match="-2011"):
        world.exchange.cancel(world.accounts[2], SYMBOL, order.order_id, "", "")


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("place"),
            st.sampled_from([1, 2]),
            st.sampled_from(list(Side)),
            st.sampled_from([Kind.LIMIT, Kind.LIMIT_MAKER, Kind.MARKET, Kind.STOP_LOSS]),
            st.sampled_from(list(Tif)),
            st.integers(100, 6_000),  # thousandths of a coin
            st.integers(95_000, 105_000),  # ticks
        ),
        st.tuples(st.just("print"), st.integers(94_000, 106_000), st.integers(0, 8_000)),
        st.tuples(st.just("cancel"), st.sampled_from([1, 2]), st.integers(0, 30)),
    ),
    max_size=40,
)


def perform(world, action) -> None:
    exchange = world.exchange
    if action[0] == "print":
        world.print(action[1] * RULES.tick_size, action[2] * RULES.step_size)
        return
    account = world.accounts[action[1]]
    try:
        if action[0] == "cancel":
            exchange.cancel(account, SYMBOL, action[2], "", "")
            return
        _, uid, side, kind, tif, steps, ticks = action
        limit = kind in {Kind.LIMIT, Kind.LIMIT_MAKER}
        world.place(
            side,
            kind,
            steps * RULES.step_size,
            ticks * RULES.tick_size if limit else None,
            uid=uid,
            tif=tif if kind is Kind.LIMIT else Tif.GTC,
            stop_price=ticks * RULES.tick_size if kind is Kind.STOP_LOSS else None,
        )
    except Refused:
        pass


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.sampled_from(["0.05", "1", "1000"]), st.sampled_from(["0", "3"]))
def test_balances_are_the_deposits_and_the_trades_and_locks_are_what_open_orders_need(
    actions, level, queue
):
    world = World(Depth(level_quantity=Decimal(level), queue_ahead=Decimal(queue)))
    for action in actions:
        perform(world, action)
        for uid, account in world.accounts.items():
            expected = defaultdict(Decimal, DEPOSITS)
            for trade in world.exchange.trades(account, SYMBOL):
                sign = trade.side.sign
                expected["BTC"] += sign * trade.quantity
                expected["USDT"] -= sign * trade.quantity * trade.price
                expected[trade.commission_asset] -= trade.commission
            needed = defaultdict(Decimal)
            for order in world.exchange.open_orders(account, None):
                price = order.request.price or order.request.stop_price or Decimal(0)
                asset = "BTC" if order.side is Side.SELL else "USDT"
                needed[asset] += order.left * (1 if asset == "BTC" else price)
            for asset in DEPOSITS:
                balance = account.balance(asset)
                assert balance.total == expected[asset], (uid, asset)
                assert balance.free >= 0
                assert balance.locked == needed[asset], (uid, asset)


@settings(max_examples=100, deadline=None)
@given(ACTIONS)
def test_no_resting_order_is_passed_over_for_a_worse_or_younger_one(actions):
    world = World()
    for action in actions:
        resting = {
            side: [
                order
                for account in world.accounts.values()
                for order in world.exchange.open_orders(account, None)
                if order.side is side and order.working
            ]
            for side in Side
        }
        before = {order.order_id: order.filled for orders in resting.values() for order in orders}
        perform(world, action)
        if action[0] == "cancel":
            continue
        for side, orders in resting.items():
            ranked = sorted(orders, key=lambda o: (-o.side.sign * o.price, o.order_id))
            got = [order.filled > before[order.order_id] for order in ranked]
            left = [order.status.open for order in ranked]
            for place, order in enumerate(ranked):
                if got[place]:
                    assert not any(left[:place]), (side, order)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_the_same_requests_and_prints_give_the_same_reports(actions):
    told = []
    for _ in range(2):
        world = World()
        for action in actions:
            perform(world, action)
        told.append(
            [
                (uid, r.number, r.execution, r.order.order_id, r.status, r.filled, r.spent)
                for uid, r in world.reports
            ]
        )
    assert told[0] == told[1]


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_reports_tell_every_order_from_new_to_its_end_in_order(actions):
    world = World()
    for action in actions:
        perform(world, action)
    lives = defaultdict(list)
    for _uid, report in world.reports:
        lives[report.order.order_id].append(report)
    for life in lives.values():
        assert life[0].execution == "NEW"
        assert all(report.status.open for report in life[:-1])
        filled = [report.filled for report in life]
        assert filled == sorted(filled)
        assert filled[-1] == life[-1].order.filled
        assert life[-1].status is life[-1].order.status
