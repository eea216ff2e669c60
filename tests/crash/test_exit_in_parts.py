"""Exits and stops larger than the venue takes in one order, in the virtual world."""

import dataclasses
from decimal import Decimal

import msgspec
import pytest
from simulation import END_MS, MINUTE_MS, NS, REAL, START_MS, explore, live
from test_remote_session import CALM, CalmWire, of, world

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import OutcomeUnknown, VenueRefused, VenueUnreachable
from bot4_runtime.domain.events import OrderIntended
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import OrderType, Purpose, Side
from bot4_runtime.engine import Engine

__all__ = ["world"]
MOST = Decimal(3)
FIRST_STOP = 2


class Holding(Engine):
    """Bought what it holds when the venue still took more in one order."""

    def _open(self, book, signal, fraction, instrument):
        wide = msgspec.structs.replace(instrument, max_quantity=None, max_market_quantity=None)
        super()._open(book, signal, fraction, wide)


def capped(most: Decimal | None = None, market: Decimal | None = MOST):
    """An engine whose venue takes no more than so much in one order, but for entries."""

    def told(symbol: str) -> Instrument:
        assumed = Instrument.assume(symbol, Market.SPOT, 20.0)
        return msgspec.structs.replace(assumed, max_quantity=most, max_market_quantity=market)

    return lambda parts, ledger, books: Holding(
        dataclasses.replace(parts, told=told), ledger, books
    )


class Counting(CalmWire):
    """Fails the n-th exit once, as a test says; no exit is above what the venue takes."""

    fails = 0
    error: Exception = VenueUnreachable("no route")
    exits: list[Decimal]

    def submit(self, intent, client_id, cash_free):
        if intent.purpose is Purpose.EXIT:
            assert intent.quantity <= MOST
            self.exits.append(intent.quantity)
            if len(self.exits) == type(self).fails:
                raise type(self).error
        return super().submit(intent, client_id, cash_free)


SIGNALS = {(0, "AAAUSDT"): "enter", (2, "AAAUSDT"): "exit"}


def sold(running, wire=Counting, **said):
    made = type("Counted", (wire,), {"exits": [], **said})
    told = live(running, dataclasses.replace(CALM, wire=made, engine=capped()))
    assert told
    assert running.violations == []
    return made.exits


def left(running) -> Decimal:
    return running.exchange.balances.get("AAA", Decimal(0))


def test_an_exit_is_cut_into_parts_that_sell_everything(world) -> None:
    running = world(SIGNALS)
    exits = sold(running)
    assert len(exits) == 4
    assert max(exits) - min(exits) <= Decimal("0.01")
    assert 0 <= left(running) < Decimal("0.01")
    assert not running.exchange.open
    times = [
        e.intent.ts_ns for e in of(running, OrderIntended) if e.intent.purpose is Purpose.EXIT
    ]
    assert times == [START_MS * NS + 3 * MINUTE_MS * NS] * 4


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "error",
    [VenueUnreachable("no route"), VenueRefused("-1013 MARKET_LOT_SIZE"), OutcomeUnknown("lost")],
)
def test_a_part_that_fails_is_repeated_and_never_sold_twice(world, number, error) -> None:
    running = world(SIGNALS)
    exits = sold(running, fails=number, error=error)
    assert len(exits) > 4
    assert 0 <= left(running) < Decimal("0.01")
    assert not running.exchange.open


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_part_whose_answer_is_lost_is_not_sold_again(world, number) -> None:
    class Lost(Counting):
        def submit(self, intent, client_id, cash_free):
            answer = super().submit(intent, client_id, cash_free)
            if intent.purpose is Purpose.EXIT and len(self.exits) == number:
                raise OutcomeUnknown("reset after it arrived")
            return answer

    running = world(SIGNALS)
    sold(running, Lost)
    assert 0 <= left(running) < Decimal("0.01")


@pytest.mark.parametrize("filled", ["2", "7", "9.5"])
def test_parts_sell_no_more_than_the_stop_left(world, filled) -> None:
    """The stop trades while its cancel is on the way."""

    class Triggered(Counting):
        def cancel(self, order, now_ns):
            stop = self._exchange.orders[order.client_id].told
            if order.intent.intent_no == FIRST_STOP and not stop.filled:
                self._exchange._fill(order.client_id, Decimal(filled))
            return super().cancel(order, now_ns)

    running = world(SIGNALS)
    sold(running, Triggered)
    assert 0 <= left(running) < Decimal("0.3"), "less than the least notional"
    assert "refused" not in {what for _, what, _ in running.exchange.journal}


def test_stops_above_the_largest_order_rest_in_parts(world) -> None:
    running = world({(0, "AAAUSDT"): "enter"})
    live(running, dataclasses.replace(CALM, engine=capped(most=MOST, market=None)))
    stops = [running.exchange.orders[name].told for name in running.exchange.open]
    assert [told.side for told in stops] == [Side.SELL] * 4
    assert all(told.quantity <= MOST for told in stops)
    assert 0 <= left(running) - sum(told.quantity for told in stops) < Decimal("0.01")
    assert {running.exchange.orders[n].order_type for n in running.exchange.open} == {
        OrderType.STOP_MARKET
    }


def test_a_part_of_a_stop_that_is_refused_is_sold_instead(world) -> None:
    class Refusing(CalmWire):
        refused = 0

        def submit(self, intent, client_id, cash_free):
            if intent.purpose is Purpose.STOP and intent.intent_no == FIRST_STOP + 1:
                raise VenueRefused("-2010 Stop price would trigger immediately.")
            return super().submit(intent, client_id, cash_free)

    running = world({(0, "AAAUSDT"): "enter"})
    parts = dataclasses.replace(CALM, engine=capped(most=MOST), wire=Refusing)
    live(running, parts)
    stops = sum(running.exchange.orders[name].told.quantity for name in running.exchange.open)
    assert 0 <= left(running) - stops < Decimal("0.01")
    exits = [e.intent for e in of(running, OrderIntended) if e.intent.purpose is Purpose.EXIT]
    assert len(exits) == 1
    assert running.now_ms > END_MS


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_no_invariant_breaks_at_any_crash_point_with_exits_in_parts(seed) -> None:
    market = Decimal("0.9") if seed == 6 else MOST
    outcome = explore(seed, dataclasses.replace(REAL, engine=capped(MOST, market)))
    assert outcome.failures == []
    assert outcome.runs > 40
