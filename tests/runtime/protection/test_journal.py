"""Protection beside a session: journaled in its batches, taken over after a kill."""

from decimal import Decimal

from bot4_runtime.domain.events import ProtectionPlanned
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.protection.hands import GateHands
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.journal import JournalLedger
from bot4_runtime.protection.monitor import ProtectionMonitor
from bot4_runtime.protection.simulated import SimulatedUsdm
from bot4_runtime.protection.stress import lot_rules
from bot4_runtime.risk.brackets import published_brackets
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.liquidation import LiquidationLimits
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.session import Ledger
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

D = Decimal
MS = 1_000_000


def opened(tmp_path) -> StateStore:
    store = StateStore(Journal(SqliteDisk.open(tmp_path / "j.sqlite", "a", tmp_path)), None)
    store.recover()
    return store


def protecting(store: StateStore, venue: SimulatedUsdm, heard: list) -> ProtectionMonitor:
    bus = EventBus()
    bus.subscribe(object, heard.append)
    driver = ProtectionMonitor(
        limits=LiquidationLimits(),
        rules=lot_rules({"BTCUSDT": 100.0}),
        brackets={"BTCUSDT": published_brackets("BTCUSDT")},
        hands=GateHands(
            risk=RiskManager(RiskLimits()),
            gate=Gate(venue, GateLimits(120, Decimal(1_000_000), 0.5), store.epoch),
            margin=venue,
            epoch=store.epoch,
        ),
        ledger=JournalLedger(Ledger(store, bus)),
        first_number=store.state.next_protection_no,
    )
    driver.resume(store.state.protection.values())
    return driver


def test_a_plan_outlives_its_process_and_keeps_its_symbol_waiting(tmp_path):
    leg = MarginPosition(
        symbol="BTCUSDT", side="long", size=D(10), entry_price=D(100), isolated_wallet=D(250)
    )
    holdings = Holdings(cross_balance=D(100), free=D(100), positions=(leg,))
    venue = SimulatedUsdm(holdings, {"BTCUSDT": published_brackets("BTCUSDT")})
    store, heard = opened(tmp_path), []
    first = protecting(store, venue, heard)
    venue.set_marks({"BTCUSDT": 77.3}, 0)
    first.on_mark("BTCUSDT", 77.3, 0, 0)
    first.hold(holdings, 0)
    assert store.state.protection[1].action == "reduce"
    assert [type(event) for event in heard].count(ProtectionPlanned) == 1
    store.close()

    after = opened(tmp_path)
    assert list(after.state.protection) == [1]
    assert after.state.next_protection_no == 2
    second = protecting(after, venue, [])
    second.on_mark("BTCUSDT", 77.3, 100 * MS, 100 * MS)
    second.hold(venue.holdings(100 * MS), 100 * MS)
    assert list(after.state.protection) == [1], "nothing new while it is in flight"
    for event in venue.poll(300 * MS):
        second.on_order(event)
    second.hold(venue.holdings(300 * MS), 300 * MS)
    assert 1 not in after.state.protection
    assert after.state.protection[2].action == "add_margin"
    assert venue.positions == {"BTCUSDT long": D(8)}
    after.close()
