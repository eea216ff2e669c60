"""What everybody else trades: candles become prints that stay inside them, in order of time."""

from decimal import Decimal

import pytest

from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Side
from bot4_runtime.sources import merged
from bot4_runtime.venue.orders import Kind, OrderRequest, Status
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.tape import Print, Tape, candle_prints

START_MS = 1_735_689_600_000
NOW_MS = 1_800_000_000_000


def rules(symbol, price):
    return SymbolRules.of(Instrument.assume(symbol, Market.SPOT, price))


@pytest.mark.parametrize(
    ("close", "path"), [(103.0, [100, 98, 105, 103]), (99.0, [100, 105, 98, 99])]
)
def test_a_candle_goes_to_the_nearer_extreme_first(close, path):
    candle = Candle(symbol="BTCUSDT", interval="1m", open_time_ms=0, open=100.0, high=105.0, low=98.0, close=close, volume=8.0)  # fmt: skip
    prints = list(candle_prints([candle], {"BTCUSDT": rules("BTCUSDT", 100.0)}))
    assert [made.price for made in prints] == path
    assert [made.time_ms for made in prints] == [0, 20_000, 40_000, 59_999]
    assert sum(made.quantity for made in prints) == 8


def test_prints_of_many_symbols_come_in_order_of_time_on_their_ticks():
    market = SimulatedMarket(3)
    series = [
        market.series(symbol, "1h", START_MS, START_MS + 50 * 3_600_000)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    book = {s.id.symbol: rules(s.id.symbol, float(s.close[0])) for s in series}
    prints = list(candle_prints(merged(series), book))
    assert len(prints) == 2 * 50 * 4
    assert [p.time_ms for p in prints] == sorted(p.time_ms for p in prints)
    assert all(p.price % book[p.symbol].tick_size == 0 for p in prints)
    assert all(p.quantity % book[p.symbol].step_size == 0 for p in prints)


def test_the_tape_only_moves_forward():
    tape = Tape(Print(at, "BTCUSDT", Decimal(1), Decimal(1)) for at in (1, 5, 9))
    assert [made.time_ms for made in tape.until(5)] == [1]
    assert list(tape.until(3)) == []
    assert [made.time_ms for made in tape.until(100)] == [5, 9]


def test_advancing_the_venue_moves_its_clock_fills_what_rests_and_can_be_repeated(make):
    prints = [Print(NOW_MS + at, "BTCUSDT", Decimal(price), Decimal(5)) for at, price in ((10, 39_500), (20, 38_900), (30, 39_100))]  # fmt: skip
    venue = make(prints=prints)
    account = venue.exchange.account("key1")
    order = venue.exchange.place(
        account,
        OrderRequest(symbol="BTCUSDT", side=Side.BUY, kind=Kind.LIMIT, quantity=Decimal(1), price=Decimal(39_000)),
    )  # fmt: skip
    assert venue.advance(NOW_MS + 15) == 1
    assert order.status is Status.NEW
    assert venue.advance(NOW_MS + 25) == 1
    assert order.status is Status.FILLED
    assert order.trades[0].time_ms == NOW_MS + 20
    assert venue.exchange.now_ms() == NOW_MS + 25
    assert venue.advance(NOW_MS + 25) == 0
    assert len(order.trades) == 1
