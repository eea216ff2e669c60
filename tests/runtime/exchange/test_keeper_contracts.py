"""The keeper at a market of contracts: positions instead of balances, and what the venue closes."""

from decimal import Decimal
from types import SimpleNamespace

import pytest
from test_keeper import SYMBOL, Desk

from bot4_runtime.domain.account import DifferenceKind
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import InstrumentDefined, OperatorCommand, OrderFilled, Reconciled
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Liquidity, OrderStatus, Side
from bot4_runtime.exchange.dead_man import DeadMan
from bot4_runtime.exchange.keeper import INTERVAL_MS
from bot4_runtime.exchange.protocols import UserUpdate, VenueTrade
from bot4_runtime.withdrawal import Withdrawal

D = Decimal


def contracts(**held: str) -> Desk:
    desk = Desk()
    desk.venue.contracts = {symbol: D(amount) for symbol, amount in held.items()}
    desk.emit(
        InstrumentDefined(ts_event_ns=0, instrument=Instrument.assume(SYMBOL, Market.USDM, 100.0))
    )
    return desk


def trade(number: int, order: str, quantity: str = "1", side: Side = Side.BUY) -> VenueTrade:
    return VenueTrade(
        symbol=SYMBOL,
        trade_id=number,
        venue_order_id=order,
        side=side,
        price=D(100),
        quantity=D(quantity),
        fee=D("0.05"),
        fee_asset="USDT",
        liquidity=Liquidity.TAKER,
        time_ms=1_000_001,
    )


def held(desk: Desk) -> Desk:
    """One long contract, bought by us and told by a trade."""
    desk.ready()
    name = desk.intend()
    desk.venue.done.append(trade(1, "101"))
    assert desk.venue.contracts is not None
    desk.venue.contracts[SYMBOL] = D(1)
    desk.venue.orders[name] = desk.told(name, OrderStatus.FILLED, "1")
    desk.after(INTERVAL_MS)
    assert desk.state.books[Book.VALIDATED].positions[SYMBOL].quantity == 1
    return desk


def test_positions_are_compared_and_wallets_are_not():
    desk = held(contracts())
    desk.venue.held["USDT"] = D(9_000)  # funding, or the profit of a position
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""


@pytest.mark.parametrize(("symbol", "amount"), [(SYMBOL, "0.5"), (SYMBOL, "0"), (SYMBOL, "-1"), ("SOLUSDT", "2")])  # fmt: skip
def test_a_position_that_differs_stops_entries_once_two_readings_agree(symbol, amount):
    desk = held(contracts())
    assert desk.venue.contracts is not None
    desk.venue.contracts[symbol] = D(amount)
    desk.after(INTERVAL_MS)
    assert "to be confirmed" in desk.keeper.hold
    assert not desk.state.account.differences
    desk.after(2_000)
    (found,) = desk.state.account.differences
    assert (found.kind, found.name, found.venue) == (DifferenceKind.BALANCE, symbol, D(amount))
    assert found.reason == "a position that others moved"
    desk.emit(OperatorCommand(ts_event_ns=0, verb="accept", reason="seen", command_id="1"))
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""


def test_positions_missing_from_one_answer_are_not_believed_gone():
    desk = held(contracts())
    whole, desk.venue.contracts = desk.venue.contracts, {}
    desk.after(INTERVAL_MS)
    desk.venue.contracts = whole
    desk.after(2_000)
    assert desk.keeper.hold == ""
    assert not desk.state.account.differences


def test_what_is_held_elsewhere_when_the_account_is_first_read_is_left_alone():
    desk = contracts(SOLUSDT="-3")
    desk.ready()
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""


def test_a_position_in_what_is_to_be_traded_is_refused_at_the_start():
    desk = contracts(**{SYMBOL: "0.1"})
    desk.after(0)
    with pytest.raises(ConfigError, match="nothing here opened"):
        desk.after(2_000)


# ------------------------------------------------------------------ what the venue closes
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("autoclose-1700000000", "liquidated"),
        ("adl_autoclose", "auto-deleveraging"),
        ("settlement_autoclose-1", "settled"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "read"])
def test_what_the_venue_closed_is_booked_once_and_told(name, why, streamed):
    desk = held(contracts())
    sold = trade(2, "900", side=Side.SELL)
    desk.venue.done.append(sold)
    desk.venue.contracts = {}
    desk.venue.names["900"] = name
    if streamed:
        told = desk.told(name, OrderStatus.FILLED, "1", side=Side.SELL, venue_order_id="900")
        desk.venue.updates.append(UserUpdate(order=told, trade=None))
        desk.venue.updates.append(UserUpdate(order=told, trade=sold))
        assert SYMBOL in desk.after(1)
    desk.after(INTERVAL_MS)
    book = desk.state.books[Book.VALIDATED]
    assert SYMBOL not in book.positions
    assert book.closed_trades[-1].exit_reason == "liquidation"
    fills = [e.fill for e in desk.events if isinstance(e, OrderFilled)]
    assert [(f.intent_no, f.trade_id) for f in fills] == [(1, "1"), (0, "2")]
    (found,) = desk.state.account.differences
    assert (found.kind, found.name) == (DifferenceKind.ORDER, name)
    assert why in found.reason
    assert why in desk.keeper.hold
    desk.emit(OperatorCommand(ts_event_ns=0, verb="accept", reason="seen", command_id="1"))
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""


def test_one_liquidation_in_parts_is_told_once():
    desk = held(contracts())
    desk.venue.contracts = {}
    desk.venue.names["900"] = "autoclose-1"
    for number in (2, 3):
        desk.venue.done.append(trade(number, "900", "0.5", Side.SELL))
    desk.after(INTERVAL_MS)
    assert [d.name for d in desk.state.account.differences] == ["autoclose-1"]
    assert SYMBOL not in desk.state.books[Book.VALIDATED].positions


def test_an_open_order_of_the_venues_own_is_no_foreign_order():
    desk = contracts()
    desk.ready()
    desk.venue.open.append(desk.told("autoclose-1", side=Side.SELL))
    desk.after(INTERVAL_MS)
    assert not desk.state.account.differences
    assert not [e for e in desk.events if isinstance(e, Reconciled) and e.differences]


def test_a_rest_below_the_least_notional_stays_a_position_and_is_no_dust():
    """What only reduces needs no least notional, so that it can be stopped and sold."""
    rules = Instrument.assume(SYMBOL, Market.USDM, 100.0)
    spot = Instrument.assume(SYMBOL, Market.SPOT, 100.0)
    small = rules.min_quantity
    assert small * 100 < rules.min_notional
    assert rules.sellable(small, D(100))
    assert not rules.sellable(small / 2, D(100))
    assert not spot.sellable(small, D(100))
    assert spot.sellable(D(1), D(100))


@pytest.mark.parametrize(("left", "told"), [("0.04", ["BTCUSDT is held without a stop"]), ("0.0004", [])])  # fmt: skip
def test_contracts_below_the_least_notional_without_a_stop_are_told_at_the_end(left, told):
    desk = held(contracts())
    assert desk.venue.contracts is not None
    desk.venue.contracts[SYMBOL] = D(left)
    desk.venue.done.append(trade(2, "900", str(1 - D(left)), Side.SELL))
    desk.venue.names["900"] = "autoclose-1"
    desk.after(INTERVAL_MS)
    ledger = SimpleNamespace(store=SimpleNamespace(state=desk.state), emit=desk.emit)
    ending = Withdrawal(
        ledger,
        None,
        desk.keeper,
        protect=lambda _symbols: False,
        clock=desk.clock,
        timer=desk.clock.now_ns,
        wait=lambda _: desk.after(2_000),
    )
    assert ending.in_order("the end") == told


def test_the_switch_of_an_entry_whose_end_was_read_is_stopped_in_the_same_turn():
    """The next one may never come: the session ends, and others' orders would end with it."""
    desk, asked = contracts(), []
    desk.keeper._dead_man = DeadMan(lambda *said: asked.append(said), 120_000, desk.clock.now_ns)
    desk.ready()
    name = desk.intend()
    desk.venue.orders[name] = desk.told(name)
    desk.after(1)
    assert asked == [(SYMBOL, 120_000)]
    desk.venue.orders[name] = desk.told(name, OrderStatus.CANCELED)
    desk.after(INTERVAL_MS)
    assert desk.order(1).status is OrderStatus.CANCELED
    assert asked[1:] == [(SYMBOL, 0)]


def test_a_switch_that_went_off_holds_entries_until_the_account_was_read():
    desk = contracts()
    desk.keeper._dead_man = DeadMan(lambda *_: None, 10_000, desk.clock.now_ns)
    desk.ready()
    name = desk.intend()
    desk.venue.orders[name] = desk.told(name)
    desk.after(1)
    desk.venue.orders[name] = desk.told(name, OrderStatus.CANCELED)
    desk.after(10_000)
    assert desk.order(1).status is OrderStatus.CANCELED or "went off" in desk.keeper.hold
    desk.after(1)
    assert desk.order(1).status is OrderStatus.CANCELED
    assert desk.keeper.hold == ""
