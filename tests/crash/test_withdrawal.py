"""The end of a session: its entries end first, in words of the venue, whatever their cancels do.

A calm virtual world whose cancels, and whatever else a test names, fail at the end.
"""

import dataclasses
import functools
from decimal import Decimal

import pytest
import simulation
from simulated_exchange import Request
from simulation import END_MS, live
from test_remote_session import CALM, CalmWire, of, world
from virtual_world import VirtualDisk, World

from bot4_runtime.domain.errors import (
    Bot4Error,
    ConfigError,
    InvariantViolated,
    JournalWriteFailed,
    OrdersMayRest,
    OutcomeUnknown,
    VenueRefused,
    VenueUnreachable,
    WrongAccount,
)
from bot4_runtime.domain.events import CancelRequested, OrderClosed, SessionEnded
from bot4_runtime.domain.order import OrderStatus, Purpose, Side
from bot4_runtime.withdrawal import WITHIN_MS

__all__ = ["world"]
LOST_MS = END_MS + simulation.CALM_MS


@pytest.fixture
def resting(world) -> World:
    """An entry of the last candle, in BBBUSDT, that rests a little below the price."""
    running = world({(4, "BBBUSDT"): "rest"})
    path = running.exchange.prices["BBBUSDT"]
    path[:] = [path[-1] * Decimal("1.05")] * len(path)
    return running


class EndingWire(CalmWire):
    """Fails cancels once the session ends, as often as a test says; notes when they came."""

    error: Exception = VenueUnreachable("no route")
    fails = 0
    tried: list[int]

    def _fault(self) -> float:
        return 1.0

    def cancel(self, order, now_ns):
        self.tried.append(self._world.now_ms)
        if len(self.tried) <= type(self).fails:
            raise type(self).error
        return super().cancel(order, now_ns)


def ending(world: World, wire: type = EndingWire, **said: object) -> object:
    """Live to the end over a wire; return its class, which knows what was tried."""
    made = type("Ending", (wire,), {"tried": [], **said})
    live(world, dataclasses.replace(CALM, wire=made))
    return made


@pytest.mark.parametrize(
    "error",
    [
        VenueUnreachable("no route"),
        VenueRefused("-1003 too many requests"),
        OutcomeUnknown("timeout"),
    ],
)
def test_a_cancel_that_fails_is_repeated_until_the_venue_says_that_it_worked(resting, error):
    wire = ending(resting, error=error, fails=3)
    assert len(wire.tried) == 4
    assert not resting.exchange.open
    assert resting.violations == []
    assert [e.status for e in of(resting, OrderClosed)] == ["canceled"]
    assert of(resting, SessionEnded)[-1].reason == "source ended"


def test_an_end_without_entries_waits_for_nothing(world):
    running = world({})
    ending(running)
    assert running.now_ms - LOST_MS < 1_000


def test_what_cannot_be_confirmed_is_named_and_called_back_by_the_next_start(resting):
    wire = type("Ending", (EndingWire,), {"tried": [], "fails": 10_000})
    with pytest.raises(OrdersMayRest, match="within 60 s: BBBUSDT b4-1-1") as refused:
        live(resting, dataclasses.replace(CALM, wire=wire))
    assert 30 <= len(wire.tried) <= 62, "the keeper's own cancels beside those of the end"
    assert refused.value.exit_code == 1
    assert resting.now_ms - LOST_MS < WITHIN_MS + 5_000
    assert [name[:7] for name in resting.exchange.open] == ["b4-1-1-"]
    assert "b4-1-1" in of(resting, SessionEnded)[-1].reason
    resting.exchange.disconnect()
    ending(resting)
    assert not resting.exchange.open
    assert resting.violations == []


def test_how_long_is_waited_is_a_setting(resting):
    class Hasty(simulation.Session):
        def __init__(self, **parts):
            super().__init__(**parts, withdraw_ms=4_000)

    wire = type("Ending", (EndingWire,), {"tried": [], "fails": 10_000})
    with pytest.raises(OrdersMayRest, match="within 4 s: BBBUSDT"):
        live(resting, dataclasses.replace(CALM, wire=wire, session=Hasty))
    assert resting.now_ms - LOST_MS < 6_000


@pytest.mark.parametrize("seen", [True, False])
def test_what_fills_while_its_cancel_is_on_the_way_gets_its_stop_before_the_end(resting, seen):
    class Crossing(EndingWire):
        """The cancel arrives after the fill; the user stream may not tell."""

        def cancel(self, order, now_ns):
            if not self.tried and not self._exchange.orders[order.client_id].told.filled:
                self._exchange._fill(order.client_id, Decimal("0.3"))
            return super().cancel(order, now_ns)

        def poll(self):
            told = super().poll()
            return told if seen or self._world.now_ms < LOST_MS else ()

    ending(resting, Crossing)
    (stop,) = resting.exchange.open
    told = resting.exchange.orders[stop].told
    assert (told.side, told.symbol) == (Side.SELL, "BBBUSDT")
    assert Decimal("0.2") <= told.quantity <= Decimal("0.3")
    assert resting.violations == []


def test_an_entry_that_never_arrived_is_resolved_before_the_end(resting, monkeypatch):
    class Lost(EndingWire):
        def submit(self, intent, client_id, cash_free):
            raise OutcomeUnknown("timeout")

    monkeypatch.setattr(simulation, "CALM_MS", 0)
    ending(resting, Lost)
    assert [e.status for e in of(resting, OrderClosed)] == [OrderStatus.NEVER_PLACED.value]
    assert of(resting, SessionEnded)[-1].reason == "source ended"


def test_an_entry_that_arrives_late_is_called_back_before_the_end(resting, monkeypatch):
    class Late(EndingWire):
        def submit(self, intent, client_id, cash_free):
            self._exchange.on_the_way.append(
                Request(self._world.now_ms + 1_900, client_id, intent)
            )
            raise OutcomeUnknown("timeout")

    monkeypatch.setattr(simulation, "CALM_MS", 0)
    ending(resting, Late)
    assert [what for _, what, _ in resting.exchange.journal] == ["placed", "canceled"]
    assert [e.status for e in of(resting, OrderClosed)] == ["canceled"]


def test_a_stop_that_is_not_taken_is_tried_until_the_end_and_its_lack_is_told(resting):
    class NoStops(EndingWire):
        def cancel(self, order, now_ns):
            if not self._exchange.orders[order.client_id].told.filled:
                self._exchange._fill(order.client_id, Decimal("0.3"))
            return super().cancel(order, now_ns)

        def submit(self, intent, client_id, cash_free):
            if intent.purpose is Purpose.STOP:
                raise VenueUnreachable("no route")
            return super().submit(intent, client_id, cash_free)

    with pytest.raises(OrdersMayRest, match="BBBUSDT may be held without a stop"):
        ending(resting, NoStops)


def test_a_position_that_nothing_can_stop_is_told_at_once(world, monkeypatch):
    """It is held from before, and this session saw no candle of it."""
    running = world({(0, "AAAUSDT"): "enter"})
    ending(running)
    for name in list(running.exchange.open):
        running.exchange.cancel(name)
    running.exchange.disconnect()
    monkeypatch.setattr(simulation.VirtualSource, "history", lambda self, from_ms, to_ms: iter(()))
    monkeypatch.setattr(
        simulation.VirtualSource, "stream", lambda self, from_ms, cursor, stop: iter((None,))
    )
    before_ms = running.now_ms
    with pytest.raises(OrdersMayRest, match="AAAUSDT is held without a stop"):
        ending(running)
    assert running.now_ms - before_ms < WITHIN_MS


# -------------------------------------------------------------------- after an error
class FailingSource(simulation.VirtualSource):
    """Ends with an error instead."""

    error: Bot4Error

    def stream(self, from_ms, cursor, stop):
        yield from super().stream(from_ms, cursor, stop)
        raise type(self).error


def failing(monkeypatch: pytest.MonkeyPatch, error: Bot4Error) -> None:
    monkeypatch.setattr(simulation, "VirtualSource", type("S", (FailingSource,), {"error": error}))


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def test_an_error_with_a_sound_journal_ends_as_a_stop_does(resting, monkeypatch):
    failing(monkeypatch, VenueRefused("451"))
    with pytest.raises(VenueRefused) as raised:
        ending(resting, fails=2)
    assert not resting.exchange.open
    assert notes(raised.value) == []
    assert [e.reason for e in of(resting, CancelRequested)] == ["the session fails: VenueRefused"]
    assert [e.status for e in of(resting, OrderClosed)] == ["canceled"]


def test_an_error_names_what_may_rest(resting, monkeypatch):
    failing(monkeypatch, ConfigError("impossible"))
    with pytest.raises(ConfigError) as raised:
        ending(resting, fails=10_000)
    (note,) = notes(raised.value)
    assert "within 60 s: BBBUSDT b4-1-1" in note


@pytest.mark.parametrize("fails", [0, 3, 10_000])
def test_without_a_sound_state_entries_are_cancelled_and_asked_for_alone(
    resting, monkeypatch, fails
):
    failing(monkeypatch, InvariantViolated("two and two are five"))
    with pytest.raises(InvariantViolated) as raised:
        ending(resting, fails=fails)
    assert of(resting, CancelRequested) == []
    assert bool(resting.exchange.open) == (fails > 100)
    assert len(notes(raised.value)) == (fails > 100)


def test_a_venue_that_is_away_for_a_while_is_asked_again(resting, monkeypatch):
    class Away(EndingWire):
        def query(self, symbol, client_id):
            if LOST_MS < self._world.now_ms < LOST_MS + 9_000:
                raise VenueUnreachable("no route")
            return super().query(symbol, client_id)

    failing(monkeypatch, InvariantViolated("two and two are five"))
    with pytest.raises(InvariantViolated) as raised:
        ending(resting, Away)
    assert notes(raised.value) == []
    assert resting.now_ms >= LOST_MS + 9_000


def test_what_a_lost_session_bought_is_named(resting, monkeypatch):
    class Crossing(EndingWire):
        def cancel(self, order, now_ns):
            self._exchange._fill(order.client_id, Decimal("0.3"))
            return super().cancel(order, now_ns)

    failing(monkeypatch, InvariantViolated("two and two are five"))
    with pytest.raises(InvariantViolated) as raised:
        ending(resting, Crossing)
    (note,) = notes(raised.value)
    assert "BBBUSDT may be held without a stop" in note


def test_without_a_sound_state_an_order_nobody_knows_is_given_up_late(resting, monkeypatch):
    class Lost(EndingWire):
        def submit(self, intent, client_id, cash_free):
            raise OutcomeUnknown("timeout")

    monkeypatch.setattr(simulation, "CALM_MS", 0)
    failing(monkeypatch, InvariantViolated("two and two are five"))
    with pytest.raises(InvariantViolated) as raised:
        ending(resting, Lost)
    assert notes(raised.value) == []
    assert 12_000 < resting.now_ms - END_MS < 20_000


def test_at_another_account_nothing_is_asked_for_nor_cancelled(resting):
    def confirm() -> None:
        if resting.now_ms > END_MS + 30_000:
            raise WrongAccount("it was begun at account 77")

    asked_ms = []

    class Watched(EndingWire):
        def open_orders(self):
            asked_ms.append(self._world.now_ms)
            return super().open_orders()

    made = type("Ending", (Watched,), {"tried": []})
    keeper = functools.partial(simulation.AccountKeeper, confirm=confirm)
    with pytest.raises(WrongAccount) as raised:
        live(resting, dataclasses.replace(CALM, wire=made, keeper=keeper))
    assert made.tried == []
    assert notes(raised.value) == []
    assert asked_ms
    assert max(asked_ms) <= END_MS + 30_000


def test_a_journal_that_fails_at_the_very_end_still_ends_entries(resting):
    class FailsLate(VirtualDisk):
        def write(self, frames, keys):
            if self._world.now_ms > LOST_MS - 1:
                raise OSError(5, "Input/output error")
            super().write(frames, keys)

    made = type("Ending", (EndingWire,), {"tried": [], "fails": 2})
    with pytest.raises(JournalWriteFailed) as raised:
        live(resting, dataclasses.replace(CALM, wire=made, disk=FailsLate))
    assert not resting.exchange.open
    assert notes(raised.value) == []


def test_a_mistake_in_a_strategy_leaves_no_entry_behind_either(resting, monkeypatch):
    """What is raised by others' code is no error of ours, and entries rest all the same."""
    failing(monkeypatch, ZeroDivisionError("of a strategy"))
    with pytest.raises(ZeroDivisionError) as raised:
        ending(resting, fails=3)
    assert not resting.exchange.open
    assert notes(raised.value) == []
