"""The paper venue in the same virtual world: a killed run ends where the whole one ended.

The venue is part of the fold, so nothing is asked and nothing is unknown: an intent whose
answer was lost is handed over again at the same place of the input. Every crash point of the
disk and of the session is tried; the state's hash must be that of the uninterrupted run.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from invariants import events_of, folded, to_bytes
from simulated_exchange import SimulatedExchange
from simulation import (
    CASH,
    LIMITS,
    NS,
    START_MS,
    KnownMarket,
    Script,
    Scripted,
    VirtualLedger,
    VirtualStore,
    evidence,
    script,
    together,
)
from virtual_world import Killed, Picture, VirtualDisk, World, chance

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.order import Book
from bot4_runtime.engine import Engine, EngineParts
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.exchange.paper import PaperVenue
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.identity import Identity
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.session import Session
from bot4_runtime.signals.validator import SignalValidator, TradeCosts, ValidatorSettings
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.trading_state import TradingState

FEES = FeeCalculator(binance_schedule(Market.SPOT), 0, bnb_discount=False)


class ScriptedCandles:
    """The script's candles, as fast as they are taken."""

    origin = Origin.SIMULATED
    market = Market.SPOT
    interval = "1m"
    symbols = ("AAAUSDT", "BBBUSDT")
    label = "virtual"
    start_ms: int | None = START_MS

    def __init__(self, world: World, plan: Script, journal: Journal) -> None:
        self._world = world
        self._plan = plan
        self._journal = journal

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        return (c for c in self._plan.candles if from_ms <= c.open_time_ms < to_ms)

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle]:
        for number, candle in enumerate(self._plan.candles):
            if candle.open_time_ms < max(from_ms, cursor.get(candle.symbol, -1) + 1):
                continue
            if chance(self._world.seed, 51, number) < 0.6:
                self._journal.pump()
            self._world.boundary("candle")
            yield candle


def live(world: World) -> str:
    """One process from start to end, or to its kill; returns the state's hash."""
    plan = script(world.seed)
    journal = Journal(VirtualDisk(world), threaded=False)
    store = VirtualStore(journal, world)
    recovery = store.recover()
    venue = PaperVenue(PaperModel(seed=world.seed), FEES)
    ledger = VirtualLedger(store, EventBus())
    ledger.ends = world.batch_ends
    engine = Engine(
        EngineParts(
            strategy=Scripted(plan),
            validator=SignalValidator(ValidatorSettings()),
            risk=RiskManager(LIMITS),
            breaker=CircuitBreaker(LIMITS),
            venue=venue,
            memory=KnownMarket(with_features=False, depth_share=0.5, correlations=together()),
            detector=None,
            evidence=evidence(),
            costs=TradeCosts(fee_rate_round_trip=0.002, slippage_round_trip=0.0002),
            fees=FEES,
            half_spread=0.0001,
            market=Market.SPOT,
            epoch=store.epoch,
        ),
        ledger,
        (Book.VALIDATED, Book.SHADOW),
    )
    clock = ManualClock(START_MS * NS)
    session = Session(
        identity=Identity(
            mode="paper",
            strategy="scripted",
            config_hash="c" * 64,
            quote="USDT",
            initial_cash=CASH,
            books=(Book.VALIDATED, Book.SHADOW),
        ),
        source=ScriptedCandles(world, plan, journal),
        ledger=ledger,
        engine=engine,
        gate=Gate(venue, GateLimits(20, 10 * CASH, 0.5), store.epoch),
        clock=clock,
        timer=clock.now_ns,
    )
    result = session.run(threading.Event(), recovery)
    store.close()
    if to_bytes(folded(TradingState(), events_of(world))) != to_bytes(store.state):
        world.violations.append("I7 the journal replays to another state")
    return result.state_hash


@dataclass
class PaperOutcome:
    """What exploring one seed found; failures are (boundary, what was violated)."""

    seed: int
    runs: int = 0
    fills: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)


def explore_paper(seed: int) -> PaperOutcome:
    """Run a seed whole, and on from every boundary; all must end with the same hash."""
    outcome = PaperOutcome(seed)
    world = World(seed, _nowhere(), START_MS)
    taken: list[Picture] = []
    world.on_boundary = lambda name: taken.append(world.picture(name))
    whole = live(world)
    outcome.fills = sum(1 for _, e in events_of(world) if type(e).__name__ == "OrderFilled")
    for picture in taken:
        again = World.after_crash(seed, picture)
        if chance(seed, 52, picture.number) < 0.4:
            again.kill_at = 1 + int(chance(seed, 53, picture.number) * 30)
        found = _to_the_end(again)
        outcome.runs += 1
        if found != whole:
            outcome.failures.append((picture.number, f"I7 ends with {found}, the whole {whole}"))
        outcome.failures += [(picture.number, text) for text in again.violations]
    return outcome


def _to_the_end(world: World) -> str:
    while True:
        try:
            return live(world)
        except Killed:
            world.reboot(world.boundaries)
            world.kill_at = None


def _nowhere() -> SimulatedExchange:
    return SimulatedExchange(START_MS, {}, lambda _: 1.0, {"USDT": Decimal(0)}, now_ms=START_MS)
