"""A session at a venue outside the process, in a calm virtual world: one thing happens at a time."""

import dataclasses
import functools
from collections.abc import Sequence
from decimal import Decimal

import pytest
import simulation
from invariants import events_of
from simulated_wire import SimulatedWire
from simulation import END_MS, MINUTE_MS, REAL, START_MS, Parts, begin, live, script
from virtual_world import VirtualDisk, World

from bot4_runtime.domain.errors import JournalWriteFailed, VenueUnreachable
from bot4_runtime.domain.events import (
    CancelRequested,
    OperatorCommand,
    OrderClosed,
    OrderIntended,
    OrderRejected,
)
from bot4_runtime.domain.order import Purpose, Side
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.session import Session

NS = 1_000_000


class CalmWire(SimulatedWire):
    def _fault(self) -> float:
        return 1.0


CALM = dataclasses.replace(REAL, wire=CalmWire)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch):
    """Return a calm world in which the strategy signals only what a test says."""

    def build(signals: dict[tuple[int, str], str]) -> World:
        plan = dataclasses.replace(
            script(1),
            signals=signals,
            outages=(),
            silences=(),
            skews=(),
            meddling=(),
            disk_fails_at=None,
            accepts=False,
        )
        monkeypatch.setattr(simulation, "script", lambda seed: plan)
        built = begin(1)
        built.exchange.slices = lambda number: 1.0
        return built

    return build


def ordered(monkeypatch: pytest.MonkeyPatch, *orders: tuple[int, str]) -> None:
    """Let an operator order things at milliseconds after the start."""

    class Ordering:
        def __init__(self, world: World, plan: object, store: object) -> None:
            self._world = world
            self._left = list(orders)

        def poll(self) -> Sequence[OperatorCommand]:
            due = [o for o in self._left if START_MS + o[0] <= self._world.now_ms]
            self._left = [o for o in self._left if o not in due]
            return [
                OperatorCommand(
                    ts_event_ns=self._world.now_ms * NS, verb=verb, reason="told", command_id="1"
                )
                for _, verb in due
            ]

    monkeypatch.setattr(simulation, "Operator", Ordering)


def of(world: World, kind: type) -> list:
    return [event for _, event in events_of(world) if type(event) is kind]


def placed(world: World, side: Side) -> list[str]:
    return [name for name, held in world.exchange.orders.items() if held.told.side is side]


def test_an_entry_fills_between_candles_and_has_its_stop_before_the_next(world) -> None:
    running = world({(0, "AAAUSDT"): "enter"})
    assert live(running, CALM)
    assert running.violations == []
    sent = [(when, who) for when, what, who in running.exchange.journal if what == "sent"]
    assert len(sent) == 2
    assert sent[1][0] - sent[0][0] < MINUTE_MS
    assert [e.intent.purpose for e in of(running, OrderIntended)] == [Purpose.ENTRY, Purpose.STOP]


def test_a_session_that_ends_leaves_no_entry_and_keeps_its_stops(world) -> None:
    running = world({(0, "AAAUSDT"): "enter", (4, "BBBUSDT"): "rest"})
    running.exchange.prices["BBBUSDT"] = [
        price + Decimal(5) if number > 26 else price
        for number, price in enumerate(running.exchange.prices["BBBUSDT"])
    ]
    live(running, CALM)
    (asked,) = of(running, CancelRequested)
    assert asked.reason == "the session ends"
    assert [what for _, what, _ in running.exchange.journal][-1] == "canceled"
    (left,) = running.exchange.open
    assert running.exchange.orders[left].told.side is Side.SELL


def test_a_journal_that_fails_takes_resting_entries_back(world) -> None:
    class FailsLate(VirtualDisk):
        def write(self, frames, keys):
            if self._world.now_ms > END_MS - MINUTE_MS:
                raise OSError(5, "Input/output error")
            super().write(frames, keys)

    running = world({(2, "BBBUSDT"): "rest"})
    running.exchange.prices["BBBUSDT"] = [Decimal(150)] * len(running.exchange.prices["BBBUSDT"])
    with pytest.raises(JournalWriteFailed):
        live(running, dataclasses.replace(CALM, disk=FailsLate))
    assert [what for _, what, _ in running.exchange.journal] == ["sent", "placed", "canceled"]
    assert not running.exchange.open


def test_a_disk_in_distress_lets_exits_pass_and_no_entry(world) -> None:
    class Full(VirtualDisk):
        @property
        def distress(self):
            return "the disk is full" if self._world.now_ms > START_MS + 2 * MINUTE_MS else ""

    running = world({(0, "AAAUSDT"): "enter", (2, "BBBUSDT"): "enter", (3, "AAAUSDT"): "exit"})
    live(running, dataclasses.replace(CALM, disk=Full))
    (refused,) = of(running, OrderRejected)
    assert (refused.code, refused.reason) == ("ENTRIES_WAIT", "the disk is full")
    assert "AAA" not in {a for a, held in running.exchange.balances.items() if held > 1}


def test_a_slow_journal_sends_no_entry(world) -> None:
    class Slow(VirtualDisk):
        def write(self, frames, keys):
            self._world.advance(self._world.now_ms + 600)
            super().write(frames, keys)

    running = world({(0, "AAAUSDT"): "enter"})
    live(running, dataclasses.replace(CALM, disk=Slow))
    (refused,) = of(running, OrderRejected)
    assert "the journal took" in refused.reason
    assert placed(running, Side.BUY) == []


def test_an_operator_halts_resumes_and_flattens(world, monkeypatch: pytest.MonkeyPatch) -> None:
    running = world({(0, "AAAUSDT"): "enter", (1, "BBBUSDT"): "enter", (3, "BBBUSDT"): "enter"})
    ordered(monkeypatch, (90_000, "halt"), (150_000, "resume"), (270_000, "flatten"))
    live(running, CALM)
    symbols = [running.exchange.orders[name].told.symbol for name in placed(running, Side.BUY)]
    assert symbols == ["AAAUSDT", "BBBUSDT"]
    entered = [e for e in of(running, OrderIntended) if e.intent.purpose is Purpose.ENTRY]
    assert [e.intent.ts_ns // NS - START_MS for e in entered] == [60_000, 240_000]
    held = {asset: amount for asset, amount in running.exchange.balances.items() if amount > 1}
    assert set(held) <= {"USDT", "BNB"}


def test_a_stop_that_was_not_sent_is_sent_by_the_next_whole_reading(world) -> None:
    class StopsFail(CalmWire):
        def submit(self, intent, client_id, cash_free):
            if intent.purpose is Purpose.STOP and self._world.now_ms < START_MS + 75_000:
                raise VenueUnreachable("no route")
            return super().submit(intent, client_id, cash_free)

    running = world({(0, "AAAUSDT"): "enter"})
    assert live(running, dataclasses.replace(CALM, wire=StopsFail))
    assert running.violations == []
    assert [e.status for e in of(running, OrderClosed)].count("never_placed") >= 1
    assert len(placed(running, Side.SELL)) == 1
    assert isinstance(CALM, Parts)


class Leased(CalmWire):
    """Notes whether the lease holds when an order would be sent."""

    lease: Lease
    held: list[tuple[Purpose, bool]]

    def submit(self, intent, client_id, cash_free):
        self.held.append((intent.purpose, self.lease.holds()))
        return super().submit(intent, client_id, cash_free)


@pytest.mark.parametrize(("ttl_ms", "holds"), [(400, True), (299, False)])
def test_a_lease_is_counted_from_before_the_commit_that_its_order_waited_for(
    world, ttl_ms: int, holds: bool
) -> None:
    class Slow(VirtualDisk):
        def write(self, frames, keys):
            self._world.advance(self._world.now_ms + 300)
            super().write(frames, keys)

    running = world({(0, "AAAUSDT"): "enter"})
    Leased.lease = Lease(lambda: running.now_ms * NS, ttl_ms)
    Leased.held = []
    session = functools.partial(Session, lease=Leased.lease)
    live(running, dataclasses.replace(CALM, disk=Slow, wire=Leased, session=session))
    assert Leased.held == [(Purpose.ENTRY, holds), (Purpose.STOP, holds)]
