"""The arithmetic of fills, against worked examples and the conservation of money."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_scenario import SYMBOLS, Scenario, candle, fill, intended, session

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import InstrumentDefined, OrderClosed
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Purpose, Side
from bot4_runtime.state.book import KEPT
from bot4_runtime.state.trading_state import TradingState

D = Decimal


def opened(*symbols: str) -> TradingState:
    state = TradingState()
    state.apply(session(1))
    for symbol in symbols or ("BTCUSDT",):
        instrument = Instrument(
            symbol=symbol,
            market=Market.SPOT,
            base=symbol.removesuffix("USDT"),
            quote="USDT",
            tick_size=D("0.01"),
            step_size=D("0.001"),
            min_quantity=D("0.001"),
            min_notional=D(5),
        )
        state.apply(InstrumentDefined(ts_event_ns=0, instrument=instrument))
    return state


def test_a_spot_buy_receives_less_base_by_its_fee_and_a_sell_less_quote():
    state = opened()
    state.apply(intended(1, quantity="2"))
    state.apply(fill(1, "a", "2", "100", fee="0.002", fee_asset="BTC", ts_ns=10))
    book = state.books[Book.VALIDATED]
    held = book.positions["BTCUSDT"]
    assert book.cash == 9_800
    assert held.quantity == D("1.998")
    assert held.cost == 200
    assert held.entry_price == 100
    assert held.stop_price == 90
    assert held.fees_quote == D("0.2")
    assert book.metrics.equity == D("9999.8")
    state.apply(intended(2, side=Side.SELL, quantity="1.998", purpose=Purpose.STOP))
    state.apply(fill(2, "b", "1.998", "110", side=Side.SELL, fee="0.21978", ts_ns=20))
    assert book.cash == 9_800 + D("1.998") * 110 - D("0.21978")
    (trade,) = book.closed_trades
    assert trade.pnl == book.cash - 10_000 == book.realised
    assert trade.exit_reason == "stop"
    assert trade.exit_price == 110
    assert trade.quantity == D("1.998")
    assert trade.return_net == pytest.approx(float(trade.pnl) / (100 * 1.998))
    assert trade.fees_quote == D("0.2") + D("0.21978")
    assert (trade.opened_ts_ns, trade.closed_ts_ns) == (10, 20)
    assert book.positions == {} == book.values
    assert book.metrics.equity == book.cash
    assert book.wins_total == book.trades_total == 1


def test_a_fee_in_a_third_asset_is_valued_at_its_mark_and_kept_apart_without_one():
    state = opened("BTCUSDT", "BNBUSDT")
    state.apply(intended(1))
    state.apply(fill(1, "a", "0.5", "100", fee="0.01", fee_asset="BNB"))
    book = state.books[Book.VALIDATED]
    assert book.unvalued_fees == {"BNB": D("0.01")}
    assert book.cash == 9_950
    state.apply(candle("BNBUSDT", 0, 600.0))
    state.apply(fill(1, "b", "0.5", "100", fee="0.01", fee_asset="BNB"))
    assert book.cash == 9_950 - 50 - 6
    assert book.fees_quote == 6
    assert book.positions["BTCUSDT"].cost == 106


def test_entry_price_averages_fills_and_a_partial_exit_takes_its_share_of_the_cost():
    state = opened()
    state.apply(intended(1, quantity="3"))
    state.apply(fill(1, "a", "1", "100"))
    state.apply(fill(1, "b", "2", "130"))
    book = state.books[Book.VALIDATED]
    assert book.positions["BTCUSDT"].entry_price == 120
    state.apply(intended(2, side=Side.SELL, quantity="3", purpose=Purpose.EXIT))
    state.apply(fill(2, "c", "1", "150", side=Side.SELL, fee="1"))
    held = book.positions["BTCUSDT"]
    assert held.quantity == 2
    assert held.cost == 240
    assert held.realised == 150 - 1 - 120
    assert held.peak_quantity == 3
    assert book.realised == 0
    state.apply(fill(2, "d", "2", "90", side=Side.SELL))
    (trade,) = book.closed_trades
    assert trade.exit_price == 110
    assert trade.pnl == 330 - 1 - 360
    assert trade.exit_reason == "signal"
    assert book.wins_total == 0


def test_what_cannot_be_sold_becomes_dust_and_a_loss_of_the_round_trip():
    state = opened()
    state.apply(intended(1))
    state.apply(fill(1, "a", "1", "100", fee="0.0005", fee_asset="BTC"))
    state.apply(intended(2, side=Side.SELL, quantity="0.999", purpose=Purpose.EXIT))
    state.apply(fill(2, "b", "0.999", "100", side=Side.SELL))
    book = state.books[Book.VALIDATED]
    assert book.positions == {}
    assert book.dust == {"BTC": D("0.0005")}
    assert book.realised == book.cash - 10_000 == D("-0.1")
    assert book.metrics.equity == book.cash


def test_a_rest_below_the_least_notional_is_dust_only_when_no_order_can_still_sell_it():
    state = opened()
    state.apply(intended(1))
    state.apply(fill(1, "a", "1", "100"))
    state.apply(intended(2, side=Side.SELL, purpose=Purpose.EXIT))
    state.apply(fill(2, "b", "0.96", "100", side=Side.SELL))
    book = state.books[Book.VALIDATED]
    assert book.positions["BTCUSDT"].quantity == D("0.04")
    state.apply(OrderClosed(ts_event_ns=5, intent_no=2, status="expired", reason="x"))
    assert book.dust == {"BTC": D("0.04")}
    assert book.trades_total == 1
    assert book.metrics.equity == book.cash == 9_996


def test_a_tiny_entry_that_never_sold_anything_leaves_a_loss_but_no_round_trip():
    state = opened()
    state.apply(intended(1))
    state.apply(fill(1, "a", "0.01", "100"))
    state.apply(OrderClosed(ts_event_ns=5, intent_no=1, status="canceled", reason="x"))
    book = state.books[Book.VALIDATED]
    assert book.positions == {}
    assert book.realised == -1
    assert book.trades_total == 0
    assert book.dust == {"BTC": D("0.01")}


def test_a_short_earns_when_the_price_falls():
    state = opened()
    state.apply(intended(1, side=Side.SELL))
    state.apply(fill(1, "a", "1", "100", side=Side.SELL, fee="0.1"))
    state.apply(candle("BTCUSDT", 0, 80.0))
    book = state.books[Book.VALIDATED]
    assert book.positions["BTCUSDT"].quantity == -1
    assert book.metrics.equity == D("10019.9")
    assert book.metrics.exposure == 80
    state.apply(intended(2, purpose=Purpose.EMERGENCY))
    state.apply(fill(2, "b", "1", "80", fee="0.1"))
    (trade,) = book.closed_trades
    assert trade.side is Side.SELL
    assert trade.pnl == D("19.8")
    assert trade.exit_reason == "emergency"


def test_a_fill_through_zero_closes_one_round_trip_and_opens_another():
    state = opened()
    state.apply(intended(1))
    state.apply(fill(1, "a", "1", "100"))
    state.apply(intended(2, side=Side.SELL, quantity="3"))
    state.apply(fill(2, "b", "3", "110", side=Side.SELL, fee="3"))
    book = state.books[Book.VALIDATED]
    (trade,) = book.closed_trades
    assert trade.pnl == 9
    held = book.positions["BTCUSDT"]
    assert held.quantity == -2
    assert held.cost == -218
    assert book.cash == 10_000 - 100 + 330 - 3


def test_leverage_without_equity_is_infinite_and_drawdown_stays_within_one():
    state = opened()
    state.apply(intended(1, quantity="300"))
    state.apply(fill(1, "a", "300", "100"))
    state.apply(candle("BTCUSDT", 0, 50.0))
    metrics = state.books[Book.VALIDATED].metrics
    assert metrics.equity == -5_000
    assert metrics.leverage == float("inf")
    assert metrics.drawdown == 1.0


def test_closed_trades_and_entries_are_bounded_but_counted():
    state = opened()
    for number in range(1, 2 * KEPT + 5, 2):
        state.apply(intended(number))
        state.apply(fill(number, "a", "1", "100"))
        state.apply(intended(number + 1, side=Side.SELL, purpose=Purpose.EXIT))
        state.apply(fill(number + 1, "a", "1", "100", side=Side.SELL))
    book = state.books[Book.VALIDATED]
    assert len(book.closed_trades) == len(book.entries) == KEPT
    assert book.trades_total == KEPT + 2
    assert len(state.orders) == KEPT


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_money_is_conserved_and_equity_is_cash_and_marked_positions(seed):
    state = Scenario(seed, 60).state
    for book in state.books.values():
        open_flows = sum((p.realised - p.cost for p in book.positions.values()), D(0))
        assert book.cash - book.initial_cash == book.realised + open_flows
        marked = sum(
            (p.quantity * D(repr(state.marks[s])) for s, p in book.positions.items()), D(0)
        )
        assert book.metrics.equity == book.cash + marked
        assert book.metrics.peak_equity >= book.metrics.equity
        assert set(book.values) == set(book.positions) == set(book.trips) <= set(SYMBOLS)


def test_a_symbol_that_cannot_be_split_is_its_own_base():
    state = TradingState()
    state.apply(session(1))
    state.apply(fill(9, "a", "2", "10", symbol="WEIRD", fee="1", fee_asset="WEIRD"))
    assert state.books[Book.VALIDATED].positions["WEIRD"].quantity == 1
    assert state.counts["FillOfUnknownOrder"] == 1


def test_fills_of_no_known_order_reduce_a_position_too():
    state = opened()
    state.apply(intended(1))
    state.apply(fill(1, "a", "1", "100", fee_asset="BNB"))
    state.apply(fill(77, "b", "1", "120", side=Side.SELL))
    book = state.books[Book.VALIDATED]
    assert book.unvalued_fees == {}
    assert book.closed_trades[0].pnl == 20
    assert book.closed_trades[0].exit_reason == "signal"
