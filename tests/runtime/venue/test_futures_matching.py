"""The USD-M venue's core: fills, modes, what only reduces, conditional orders, time."""

from decimal import Decimal

import pytest
from futures_venue import NOW_NS, dec, held_in_all, request, venue

from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.futures_account import PositionSide
from bot4_runtime.venue.futures_orders import (
    AlgoKind,
    AlgoRequest,
    AlgoStatus,
    FuturesTif,
    Prevention,
)
from bot4_runtime.venue.orders import Status
from bot4_runtime.venue.refusals import Refused

NOW_MS = NOW_NS // 1_000_000


@pytest.fixture
def made():
    return venue()


@pytest.fixture
def account(made):
    return made.exchange.account("key1")


def only(account):
    (position,) = account.positions()
    return position


def algo(kind, quantity, trigger, **rest) -> AlgoRequest:
    order = rest.pop("order", {})
    return AlgoRequest(
        kind=AlgoKind(kind),
        order=request(quantity, **order),
        trigger=None if trigger is None else dec(trigger),
        **rest,
    )


def test_a_fill_costs_its_fee_and_opens_a_position(made, account):
    order = made.exchange.place(account, request("0.1"))
    assert (order.status, order.average) == (Status.FILLED, dec("40000.1"))
    assert only(account).entry == dec("40000.1")
    assert account.wallet("USDT") == 10_000 - dec("2.000005")
    assert made.exchange.margins.unrealised(only(account)) == dec("-0.01")
    assert only(account).break_even == dec("40000.1") * dec("1.0005")


def test_what_is_gained_is_booked_when_it_is_closed(made, account):
    made.exchange.place(account, request("0.2"))
    made.trade("BTCUSDT", dec(41_000), dec(0))
    made.exchange.place(account, request("-0.1"))
    (income,) = (i for i in account.incomes if i.kind == "REALIZED_PNL")
    assert income.amount == dec("99.98")  # sold at 40,999.9 what cost 40,000.1
    made.exchange.place(account, request("-0.3"))
    assert only(account).quantity == dec("-0.2")
    assert only(account).entry == dec("40999.9")
    assert held_in_all(made) == 1_020_000


def test_two_customers_trade_with_each_other(made, account):
    other = made.exchange.account("key2")
    resting = made.exchange.place(account, request("0.1", 40_000))
    taken = made.exchange.place(other, request("-0.1", 39_999))
    assert (resting.trades[0].maker, taken.trades[0].maker) == (True, False)
    assert resting.trades[0].trade_id == taken.trades[0].trade_id
    assert resting.trades[0].commission == dec("0.8")
    assert made.exchange.others.held == {}


def test_isolated_margin_is_set_aside_and_comes_back(made, account):
    made.settings.set_margin_type(account, "BTCUSDT", isolated=True)
    made.exchange.place(account, request("0.1"))
    assert only(account).isolated == dec("200.0005")
    assert account.cross["USDT"] == 10_000 - dec("200.0005") - dec("2.000005")
    made.exchange.place(account, request("-0.04"))
    assert only(account).isolated == dec("120.0003")
    made.exchange.place(account, request("-0.06"))
    assert list(account.positions()) == []
    assert account.cross["USDT"] == account.wallet("USDT")
    assert held_in_all(made) == 1_020_000


def test_hedge_mode_holds_both_sides(made, account):
    made.settings.set_hedge(account, hedge=True)
    made.exchange.place(account, request("0.1", side="LONG"))
    made.exchange.place(account, request("-0.2", side="SHORT"))
    held = {position.side: position.quantity for position in account.positions()}
    assert held == {PositionSide.LONG: dec("0.1"), PositionSide.SHORT: dec("-0.2")}
    made.exchange.place(account, request("-0.06", 41_000, side="LONG"))
    with pytest.raises(Refused, match="-2022"):
        made.exchange.place(account, request("-0.05", side="LONG"))
    made.exchange.place(account, request("-0.04", side="LONG"))


@pytest.mark.parametrize(
    ("hedge", "wanted", "code"),
    [
        (False, request("0.1", side="LONG"), -4061),
        (True, request("0.1"), -4061),
        (True, request("0.1", side="LONG", reduce_only=True), -1106),
        (False, request("-0.1", reduce_only=True), -2022),
        (False, request("0.1", reduce_only=True), -2022),
        (False, request("0.0001", 40_000), -4164),
        (False, request("0.000001", 40_000), -4004),
        (False, request("0.000015"), -1111),
        (False, request("2000000"), -4005),
        (False, request("0"), -4003),
        (False, request("0.1", "40000.05"), -1111),
        (False, request("0.1", 0), -4001),
        (False, request("0.1", 20_000_000), -4002),
        (False, request("0.1", 42_001), -4016),
        (False, request("-0.1", 37_999), -4024),
        (False, request("6", 39_000), -2019),
        (False, request("6"), -2019),
        (False, request("0.1", 40_001, tif=FuturesTif.GTX), -5022),
        (False, request("2", 39_999, tif=FuturesTif.FOK), -5021),
        (False, request("0.1", 39_999, tif=FuturesTif.GTD), -1102),
        (False, request("0.1", 39_999, tif=FuturesTif.GTD, good_till_ms=NOW_MS), -5040),
        (False, request("0.1", symbol="XRPUSDT"), -1121),
    ],
)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(made, account, hedge, wanted, code):
    if hedge:
        made.settings.set_hedge(account, hedge=True)
    with pytest.raises(Refused) as refused:
        made.exchange.place(account, wanted)
    assert refused.value.code == code
    assert made.exchange.orders(account) == []
    assert account.wallet("USDT") == 10_000


def test_a_position_may_not_outgrow_its_leverage(account, made):
    account.deposit("USDT", Decimal(10_000_000))
    made.settings.set_leverage(account, "BTCUSDT", 125)
    with pytest.raises(Refused, match="-2027"):
        made.exchange.place(account, request("2"))
    made.exchange.place(account, request("1"))
    assert made.settings.set_leverage(account, "BTCUSDT", 100) == 600_000


def test_a_known_client_id_is_refused_while_its_order_is_open(made, account):
    first = made.exchange.place(account, request("0.1", 39_000, client_id="a"))
    with pytest.raises(Refused, match="-4116"):
        made.exchange.place(account, request("0.1", 39_000, client_id="a"))
    made.exchange.cancel(first)
    made.exchange.place(account, request("0.1", 39_000, client_id="a"))
    with pytest.raises(Refused, match="-2011"):
        made.exchange.cancel(first)


def test_an_order_that_only_reduces_never_turns_a_position(made, account):
    made.exchange.place(account, request("0.1"))
    resting = made.exchange.place(account, request("-0.1", 41_000, reduce_only=True))
    order = made.exchange.place(account, request("-0.5", reduce_only=True))
    assert (order.filled, order.status) == (dec("0.1"), Status.EXPIRED)
    assert resting.status is Status.EXPIRED  # nothing was left for it
    assert list(account.positions()) == []


def test_the_tape_fills_what_rests_behind_its_queue():
    made = venue(depth=Depth(queue_ahead=dec(1)))
    account = made.exchange.account("key1")
    order = made.exchange.place(account, request("0.2", 39_000))
    made.trade("BTCUSDT", dec(39_000), dec("1.05"))
    assert order.filled == dec("0.05")
    made.trade("BTCUSDT", dec("38999.9"), dec("0.05"))
    assert order.filled == dec("0.1")


def test_immediate_or_cancel_takes_what_is_there():
    made = venue(depth=Depth(level_quantity=dec("0.01")))
    account = made.exchange.account("key1")
    order = made.exchange.place(account, request("0.1", "40000.3", tif=FuturesTif.IOC))
    assert (order.filled, order.status) == (dec("0.03"), Status.EXPIRED)
    assert made.exchange.open_orders(account, None) == []


@pytest.mark.parametrize(
    ("mode", "resting", "taking"),
    [
        ("EXPIRE_MAKER", Status.EXPIRED_IN_MATCH, Status.FILLED),
        ("EXPIRE_TAKER", Status.NEW, Status.EXPIRED_IN_MATCH),
        ("EXPIRE_BOTH", Status.EXPIRED_IN_MATCH, Status.EXPIRED_IN_MATCH),
    ],
)
def test_nobody_trades_with_himself(made, account, mode, resting, taking):
    first = made.exchange.place(account, request("-0.1", 40_000))
    second = made.exchange.place(account, request("0.1", 40_001, prevention=Prevention(mode)))
    assert (first.status, second.status) == (resting, taking)


def test_a_modified_order_goes_to_its_new_price(made, account):
    order = made.exchange.place(account, request("0.1", 39_000))
    made.exchange.modify(account, order, dec("0.2"), dec(39_500))
    made.trade("BTCUSDT", dec(39_400), dec(1))
    assert (order.status, order.average, order.quantity) == (Status.FILLED, 39_500, dec("0.2"))


@pytest.mark.parametrize(
    ("quantity", "price", "code"),
    [("0.1", 39_000, -5027), ("9", 39_000, -2019), ("0.1", "39000.01", -1111)],
)
def test_a_refused_modification_leaves_the_order(made, account, quantity, price, code):
    order = made.exchange.place(account, request("0.1", 39_000))
    with pytest.raises(Refused, match=str(code)):
        made.exchange.modify(account, order, dec(quantity), dec(price))
    assert made.exchange.open_orders(account, "BTCUSDT") == [order]
    assert (order.quantity, order.price) == (dec("0.1"), 39_000)


def test_some_modifications_cancel(made, account):
    post_only = made.exchange.place(account, request("0.1", 39_000, tif=FuturesTif.GTX))
    made.exchange.modify(account, post_only, dec("0.1"), dec(40_100))
    assert post_only.status is Status.CANCELED
    partial = made.exchange.place(account, request("0.2", 39_000))
    made.trade("BTCUSDT", dec(38_999), dec("0.1"))
    made.exchange.modify(account, partial, dec("0.1"), dec(39_000))
    assert partial.status is Status.CANCELED
    with pytest.raises(Refused, match="-2011"):
        made.exchange.modify(account, partial, dec("0.3"), dec(39_000))
    market = made.exchange.place(account, request("0.01"))
    with pytest.raises(Refused, match="-5025"):
        made.exchange.modify(account, market, dec("0.3"), dec(39_000))


# ------------------------------------------------------------------------ conditional
def test_a_stop_closes_the_position_when_its_price_trades(made, account):
    made.exchange.place(account, request("0.1"))
    stop = made.algos.place(account, algo("STOP_MARKET", "-0.1", 39_000, client_id="s"))
    made.trade("BTCUSDT", dec(39_001), dec(1))
    assert stop.status is AlgoStatus.NEW
    made.trade("BTCUSDT", dec(39_000), dec(1))
    assert stop.status is AlgoStatus.FINISHED
    assert stop.actual.client_id == "s"
    assert list(account.positions()) == []


def test_a_mark_triggers_what_waits_for_the_mark(made, account):
    made.exchange.place(account, request("0.1"))
    stop = made.algos.place(
        account,
        algo("STOP_MARKET", "-0.1", 39_000, by_mark=True, close_all=True),
    )
    made.exchange.market("BTCUSDT").scripted = dec(40_000)
    made.trade("BTCUSDT", dec(38_000), dec(1))
    assert stop.status is AlgoStatus.NEW
    made.set_mark("BTCUSDT", dec(38_990))
    assert (stop.status, stop.actual.average) == (AlgoStatus.FINISHED, dec("37999.9"))


def test_a_take_profit_becomes_a_limit_order(made, account):
    made.exchange.place(account, request("0.1"))
    taking = made.algos.place(
        account, algo("TAKE_PROFIT", "-0.1", 41_000, order={"price": 41_500})
    )
    made.trade("BTCUSDT", dec(41_000), dec(1))
    assert taking.status is AlgoStatus.TRIGGERED
    made.trade("BTCUSDT", dec(41_501), dec(1))
    assert (taking.status, taking.actual.average) == (AlgoStatus.FINISHED, 41_500)


def test_a_trailing_stop_follows_once_it_is_activated(made, account):
    made.exchange.place(account, request("0.1"))
    trailing = made.algos.place(
        account, algo("TRAILING_STOP_MARKET", "-0.1", 40_500, callback=dec("0.01"))
    )
    for price in (39_000, 40_600, 41_000, 40_591):
        made.trade("BTCUSDT", dec(price), dec(0))
    assert trailing.status is AlgoStatus.NEW
    made.trade("BTCUSDT", dec(40_590), dec(0))
    assert (trailing.status, trailing.extreme) == (AlgoStatus.FINISHED, 41_000)


def test_protected_orders_do_not_trigger_while_mark_and_price_are_apart(made, account):
    made.exchange.place(account, request("0.1"))
    stop = made.algos.place(account, algo("STOP_MARKET", "-0.1", 39_000, price_protect=True))
    made.exchange.market("BTCUSDT").scripted = dec(40_000)
    made.trade("BTCUSDT", dec(37_000), dec(0))
    assert stop.status is AlgoStatus.NEW
    made.trade("BTCUSDT", dec(38_500), dec(0))
    assert stop.status is AlgoStatus.FINISHED


def test_what_is_refused_when_it_triggers_is_rejected(made, account):
    closing = made.algos.place(account, algo("STOP_MARKET", "-0.1", 39_000, close_all=True))
    too_large = made.algos.place(account, algo("STOP_MARKET", "-9", 39_000))
    made.trade("BTCUSDT", dec(39_000), dec(0))
    assert {closing.status, too_large.status} == {AlgoStatus.REJECTED}
    assert closing.reason == "ReduceOnly Order is rejected."
    assert too_large.reason == "Margin is insufficient."


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (algo("STOP_MARKET", "-0.1", 40_001), -2021),
        (algo("TAKE_PROFIT_MARKET", "-0.1", 39_999), -2021),
        (algo("STOP_MARKET", "-0.1", "39000.01"), -1111),
        (algo("STOP", "-0.1", 39_000, order={"price": "38000.01"}), -1111),
        (algo("STOP_MARKET", "-0.0001", 39_000), -4164),
        (algo("STOP_MARKET", "-0.1", 39_000, order={"side": "LONG"}), -4061),
        (algo("STOP_MARKET", "-0.1", 39_000, client_id="known"), -4116),
    ],
)
def test_conditional_orders_keep_to_rules(made, account, wanted, code):
    made.algos.place(account, algo("STOP_MARKET", "-0.1", 38_000, client_id="known"))
    with pytest.raises(Refused) as refused:
        made.algos.place(account, wanted)
    assert refused.value.code == code
    assert len(made.algos.open(account, "BTCUSDT")) == 1


def test_there_is_a_most_of_conditional_orders(made, account):
    for _ in range(200):
        made.algos.place(account, algo("STOP_MARKET", "-0.1", 38_000))
    with pytest.raises(Refused, match="-4045"):
        made.algos.place(account, algo("STOP_MARKET", "-0.1", 38_000))
    first = made.algos.find(account, 1, "")
    made.algos.cancel(first)
    with pytest.raises(Refused, match="-2011"):
        made.algos.cancel(first)
    assert made.algos.find(account, None, "algo_1") is first
    assert made.algos.find(account, 999, "") is None


def test_there_is_a_most_of_open_orders(made, account):
    for _ in range(200):
        made.exchange.place(account, request("0.001", 39_000))
    with pytest.raises(Refused, match="-2025"):
        made.exchange.place(account, request("0.001", 39_000))


# -------------------------------------------------------------------------- settings
def test_settings_that_change_nothing_or_cannot_be_are_refused(made, account):
    desk = made.settings

    def refused(code, call, *args, **keys):
        with pytest.raises(Refused) as error:
            call(*args, **keys)
        assert error.value.code == code

    refused(-4046, desk.set_margin_type, account, "BTCUSDT", isolated=False)
    refused(-4059, desk.set_hedge, account, hedge=False)
    refused(-4028, desk.set_leverage, account, "BTCUSDT", 126)
    order = made.exchange.place(account, request("0.1", 39_000))
    refused(-4047, desk.set_margin_type, account, "BTCUSDT", isolated=True)
    refused(-4067, desk.set_hedge, account, hedge=True)
    made.exchange.cancel(order)
    made.exchange.place(account, request("2"))
    refused(-4048, desk.set_margin_type, account, "BTCUSDT", isolated=True)
    refused(-4068, desk.set_hedge, account, hedge=True)
    refused(-2028, desk.set_leverage, account, "BTCUSDT", 5)
    assert account.settings("BTCUSDT").leverage == 20
    refused(-2027, desk.set_leverage, account, "BTCUSDT", 125)
    both, long = PositionSide.BOTH, PositionSide.LONG
    refused(-4049, desk.move_margin, account, "BTCUSDT", both, dec(1))
    refused(-4061, desk.move_margin, account, "BTCUSDT", long, dec(1))
    desk.set_margin_type(account, "ETHUSDT", isolated=True)
    refused(-4054, desk.move_margin, account, "ETHUSDT", both, dec(1))
    made.exchange.place(account, request("1", symbol="ETHUSDT"))
    refused(-4055, desk.move_margin, account, "ETHUSDT", both, dec(0))
    refused(-4050, desk.move_margin, account, "ETHUSDT", both, dec(9_000))
    refused(-4051, desk.move_margin, account, "ETHUSDT", both, dec(-1))
    refused(-4161, desk.set_leverage, account, "ETHUSDT", 10)
    desk.move_margin(account, "ETHUSDT", both, dec(100))
    desk.move_margin(account, "ETHUSDT", both, dec(-99))
    assert held_in_all(made) == 1_020_000


# ------------------------------------------------------------------------------ time
def test_longs_pay_shorts_at_the_funding_time(made, account):
    other = made.exchange.account("key2")
    made.settings.set_margin_type(other, "BTCUSDT", isolated=True)
    made.exchange.place(account, request("0.1"))
    made.exchange.place(other, request("-0.2"))
    before = other.position(made.exchange.market("BTCUSDT").contract, PositionSide.BOTH).isolated
    due = made.exchange.market("BTCUSDT").next_funding_ms
    made.advance(due - 1)
    assert made.exchange.market("BTCUSDT").fundings == []
    made.advance(due + 9 * 3_600_000)
    paid = [i for i in account.incomes if i.kind == "FUNDING_FEE"]
    assert [(i.amount, i.time_ms) for i in paid] == [
        (dec("-0.4"), due),
        (dec("-0.4"), due + 8 * 3_600_000),
    ]
    assert only(other).isolated == before + dec("1.6")
    assert held_in_all(made) == 1_020_000


def test_orders_end_by_date_and_by_countdown(made, account):
    good = request("0.1", 39_000, tif=FuturesTif.GTD, good_till_ms=NOW_MS + 700_000)
    dated, plain = (
        made.exchange.place(account, wanted) for wanted in (good, request("0.1", 39_000))
    )
    stop = made.algos.place(account, algo("STOP_MARKET", "-0.1", 38_000))
    made.calendar.start_countdown(account, "BTCUSDT", 1_000_000)
    made.advance(NOW_MS + 700_000)
    assert (dated.status, plain.status) == (Status.EXPIRED, Status.NEW)
    made.calendar.start_countdown(account, "BTCUSDT", 1_000_000)
    made.advance(NOW_MS + 1_600_000)
    assert plain.status is Status.NEW
    made.advance(NOW_MS + 1_700_000)
    assert (plain.status, stop.status) == (Status.CANCELED, AlgoStatus.NEW)
    other = made.exchange.place(account, request("0.1", 39_000))
    made.calendar.start_countdown(account, "BTCUSDT", 1_000)
    made.calendar.start_countdown(account, "BTCUSDT", 0)
    made.advance(NOW_MS + 2_000_000)
    assert other.status is Status.NEW


def test_deposits_must_be_positive(account):
    from bot4_runtime.domain.errors import InvariantViolated

    with pytest.raises(InvariantViolated):
        account.deposit("USDT", Decimal(0))
