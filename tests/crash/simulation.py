"""The real order path in a virtual world: one seed, one market, one life after another.

Session, engine, risk manager, validator, gate, keeper, store and journal are the real ones;
`Parts` names them, so that `planted_bugs` can put a broken one in its place. A life ends when
the source ends, the process is killed, or its disk fails; the next one goes on from what the
world kept. `explore` runs a seed once, takes a picture at every boundary, and runs on from
every picture that differs from the one before.
"""

import gc
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

import structlog
from invariants import OPENING, Referee, from_bytes, judged_at_the_end, to_bytes
from simulated_exchange import TICK_MS, SimulatedExchange
from simulated_wire import SimulatedWire
from virtual_world import Killed, Picture, VirtualDisk, World, chance

from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.errors import Bot4Error, JournalError
from bot4_runtime.domain.events import OperatorCommand
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.order import Book, Side
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.engine import Engine, EngineParts
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.exchange.keeper import AccountKeeper
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.identity import Identity
from bot4_runtime.market import MarketMemory
from bot4_runtime.regime.evidence import synthetic_evidence
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.session import Ledger, Session
from bot4_runtime.signals.validator import SignalValidator, TradeCosts, ValidatorSettings
from bot4_runtime.state import snapshot
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.store import RecoveryReport, StateStore
from bot4_runtime.state.trading_state import TradingState

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
WARM = 2
CANDLES = 5
END_MS = START_MS + CANDLES * MINUTE_MS
CALM_MS = 60_000
"""How long a run goes on after the last fault."""
SYMBOLS = ("AAAUSDT", "BBBUSDT")
CASH = Decimal(10_000)
LIMITS = RiskLimits(max_correlation=1.0, max_loss_streak=2)
GATE_LIMITS = GateLimits(orders_per_minute=6, notional_per_minute=CASH, reject_ratio=0.5)
MAX_LIVES = 12
NS = 1_000_000


# ------------------------------------------------------------------- the script
@dataclass(frozen=True)
class Script:
    """What a seed's market and wire do.

    Attributes:
        signals: (candle number, symbol) to ``enter``, ``rest`` (enter by a limit) or ``exit``.
        skews: (from ms, to ms, ms) by which the process's clock is off.
        meddling: (ms, kind) of what somebody else does to the account.
        accepts: whether the operator accepts what differs.
    """

    candles: Sequence[Candle]
    signals: Mapping[tuple[int, str], str]
    outages: Sequence[tuple[int, int]]
    silences: Sequence[tuple[int, int]]
    skews: Sequence[tuple[int, int, int]]
    meddling: Sequence[tuple[int, str]]
    accepts: bool
    disk_fails_at: int | None
    prices: Mapping[str, list[Decimal]]


@lru_cache(maxsize=4)
def script(seed: int) -> Script:
    """Draw a market and its faults."""

    def draw(*keys: int) -> float:
        return chance(seed, 2, *keys)

    prices: dict[str, list[Decimal]] = {}
    ticks = (WARM + CANDLES) * 4 + 1
    for place, _symbol in enumerate(SYMBOLS):
        price = 20.0 * (1 + 4 * place)
        path = []
        wild = 0.012 if draw(1, place) < 0.4 else 0.003
        for tick in range(ticks):
            price *= 1 + (draw(2, place, tick) - 0.5) * wild
            path.append(Decimal(f"{price:.2f}"))
        prices[SYMBOLS[place]] = path
    candles = []
    for number in range(WARM + CANDLES):
        for symbol in SYMBOLS:
            part = [float(p) for p in prices[symbol][number * 4 : number * 4 + 5]]
            candles.append(
                Candle(
                    symbol=symbol,
                    interval="1m",
                    open_time_ms=START_MS + (number - WARM) * MINUTE_MS,
                    open=part[0],
                    high=max(part),
                    low=min(part),
                    close=part[-1],
                    volume=50_000.0,
                )
            )
    signals = {}
    for place, symbol in enumerate(SYMBOLS):
        for number in range(CANDLES):
            luck = draw(3, place, number)
            if luck < 0.55:
                signals[number, symbol] = "enter" if luck < 0.3 else "rest"
            elif luck < 0.8:
                signals[number, symbol] = "exit"
    length_ms = CANDLES * MINUTE_MS

    def windows(kind: int, odds: float, longest_ms: int) -> list[tuple[int, int]]:
        found = []
        for number in range(2):
            if draw(4, kind, number) < odds:
                begin = START_MS + int(draw(5, kind, number) * length_ms)
                found.append((begin, begin + 1_000 + int(draw(6, kind, number) * longest_ms)))
        return [(begin, min(end, END_MS)) for begin, end in found if begin < END_MS]

    skewed = windows(3, 0.2, 200_000)
    meddled = draw(7)
    kinds = ("order", "epoch", "deposit")
    return Script(
        candles=candles,
        signals=signals,
        outages=windows(1, 0.25, 25_000),
        silences=windows(2, 0.25, 45_000),
        skews=[(*window, 120_000 if draw(8) < 0.3 else -1_500) for window in skewed],
        meddling=[(START_MS + int(draw(9) * length_ms * 0.7), kinds[int(draw(10) * 3)])]
        if meddled < 0.12
        else [],
        accepts=draw(11) < 0.5,
        disk_fails_at=1 + int(draw(12) * 25) if draw(13) < 0.15 else None,
        prices=prices,
    )


# -------------------------------------------------------------- one process' parts
class VirtualClock:
    """The process's clock: true time, off by what the script says."""

    def __init__(self, world: World, plan: Script) -> None:
        self._world = world
        self._skews = plan.skews

    def now_ns(self) -> int:
        now_ms = self._world.now_ms
        for begin, end, by_ms in self._skews:
            if begin <= now_ms < end:
                now_ms += by_ms
        return now_ms * NS


class VirtualSource:
    """Candles when they close, and None every few seconds between them.

    Attributes:
        looked_ms: when the session last went to look at the venue.
    """

    origin = Origin.SIMULATED
    market = Market.SPOT
    interval = "1m"
    symbols = SYMBOLS
    label = "virtual"
    start_ms: int | None = START_MS

    def __init__(self, world: World, plan: Script, journal: Journal) -> None:
        self._world = world
        self._plan = plan
        self._journal = journal
        self.looked_ms = 0

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        return (c for c in self._plan.candles if from_ms <= c.open_time_ms < to_ms)

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        world = self._world
        for candle in self._plan.candles:
            if candle.open_time_ms < from_ms or candle.open_time_ms <= cursor.get(
                candle.symbol, -1
            ):
                continue
            while world.now_ms < candle.close_time_ms:
                self._pass_time(candle.close_time_ms)
                yield None
            world.boundary(f"candle {candle.symbol} {(candle.open_time_ms - START_MS) // 60_000}")
            self.looked_ms = world.now_ms
            yield candle
        calm_from_ms = max(world.now_ms, END_MS)
        while world.now_ms < calm_from_ms + CALM_MS:
            self._pass_time(calm_from_ms + CALM_MS)
            self.looked_ms = world.now_ms
            yield None

    def _pass_time(self, limit_ms: int) -> None:
        world = self._world
        if chance(world.seed, 31, world.now_ms) < 0.7:
            self._journal.pump()
        world.boundary("between candles")
        step_ms = 3_000 + int(chance(world.seed, 32, world.now_ms) * 6_000)
        before_ms, after_ms = world.now_ms, min(world.now_ms + step_ms, limit_ms)
        for when_ms, kind in self._plan.meddling:
            if before_ms <= when_ms < after_ms:
                _meddle(world, kind)
        world.advance(after_ms)


def _meddle(world: World, kind: str) -> None:
    if kind == "deposit":
        world.exchange.deposit("USDT", Decimal(250))
        return
    name = "web_7Kx" if kind == "order" else "b4-40-1"
    if name not in world.exchange.orders:
        world.exchange.meddle(name, SYMBOLS[0], Decimal(1))


class Scripted:
    """A strategy that does what the script says."""

    name = "scripted"
    needs_models = False
    synthetic_rules = ("drill",)

    def __init__(self, plan: Script) -> None:
        self._signals = plan.signals

    def warm(self, candle: Candle) -> None:
        """Nothing to remember."""

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        number = (candle.open_time_ms - START_MS) // MINUTE_MS
        kind = self._signals.get((number, candle.symbol))
        if kind is None:
            return ()
        enter = kind != "exit"
        return (
            TradingSignal(
                signal_id=f"{candle.symbol}:{number}",
                rule_id="drill",
                symbol=candle.symbol,
                action=SignalAction.ENTER if enter else SignalAction.EXIT,
                side=Side.BUY if enter else Side.SELL,
                confidence=0.9,
                price=candle.close,
                stop_distance=0.006,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * NS,
                limit_price=candle.close * 0.999 if kind == "rest" else None,
                reason="scripted",
            ),
        )

    def on_regime(self, estimate: object, previous: object, candle: Candle) -> Sequence[object]:
        return ()


def together() -> FixedCorrelations:
    """Everything moves together, which the limits of these runs allow."""
    return FixedCorrelations({(SYMBOLS[0], SYMBOLS[1]): 1.0})


class KnownMarket(MarketMemory):
    """Says at once what the real memory says after three days of candles."""

    def depth_quote(self, symbol: str) -> float:
        return 100_000.0

    def recent_return(self, symbol: str) -> float | None:
        return 0.0

    def volatility(self, symbol: str) -> float | None:
        return 0.002


class VirtualLedger(Ledger):
    """The real ledger; it notes where batches end."""

    ends: set[int]

    def commit(self) -> int:
        # noted before, since the process may die inside
        self.ends.add(self.store.state.seq + len(self.store._staged))
        return super().commit()


class VirtualStore(StateStore):
    """The real store with its snapshots in the world instead of a folder."""

    def __init__(self, journal: Journal, world: World) -> None:
        super().__init__(journal, None)
        self._world = world
        self._taken_ns: int | None = None

    def tick(self, now_ns: int) -> bool:
        if self._taken_ns is None:
            self._taken_ns = now_ns
        if now_ns - self._taken_ns < 60_000 * NS or self._snapshot_seq == self._state.seq:
            return False
        self._taken_ns = now_ns
        self._keep()
        return True

    def create_snapshot(self, timeout_s: float = 30.0) -> int | None:
        self._journal.wait_for(self._keep(), timeout_s)
        return self._snapshot_seq

    def _keep(self) -> threading.Event:
        seq, payload = self._state.seq, to_bytes(self._state)
        self._snapshot_seq = seq
        world = self._world

        def write() -> None:
            world.boundary("snapshot: write")
            world.snapshots = [*world.snapshots, (seq, payload)][-snapshot.KEEP :]
            world.boundary("snapshot: written")

        return self._journal.after_durable(write)

    def _from_snapshot(self, version: int | None) -> tuple[TradingState, int | None, list[str]]:
        if not self._world.snapshots:
            return TradingState(), None, []
        seq, payload = self._world.snapshots[-1]
        return from_bytes(payload), seq, []


class Operator:
    """Accepts what differs, half a minute after it was told, if the script says so."""

    def __init__(self, world: World, plan: Script, store: StateStore) -> None:
        self._world = world
        self._plan = plan
        self._store = store
        self._since_ms = world.now_ms

    def poll(self) -> Sequence[OperatorCommand]:
        now_ms = self._world.now_ms
        if not self._plan.accepts or not self._store.state.account.differences:
            self._since_ms = now_ms
            return ()
        if now_ms < self._since_ms + 30_000:
            return ()
        self._since_ms = now_ms
        return (
            OperatorCommand(
                ts_event_ns=now_ms * NS, verb="accept", reason="known", command_id=str(now_ms)
            ),
        )


@dataclass(frozen=True)
class Parts:
    """What a process is made of; a planted bug replaces one."""

    disk: Callable[[World], VirtualDisk] = VirtualDisk
    journal: Callable[..., Journal] = Journal
    store: Callable[[Journal, World], StateStore] = VirtualStore
    ledger: Callable[[StateStore, EventBus], VirtualLedger] = VirtualLedger
    engine: Callable[..., Engine] = Engine
    risk: Callable[[RiskLimits], RiskManager] = RiskManager
    gate: Callable[..., Gate] = Gate
    keeper: Callable[..., AccountKeeper] = AccountKeeper
    session: Callable[..., Session] = Session
    wire: Callable[..., SimulatedWire] = SimulatedWire


REAL = Parts()
_FEES = FeeCalculator(binance_schedule(Market.SPOT), 0, bnb_discount=False)
_COSTS = TradeCosts(fee_rate_round_trip=0.002, slippage_round_trip=0.0002)


@lru_cache(maxsize=1)
def evidence() -> dict[str, EvidenceRecord]:
    return {"drill": synthetic_evidence("drill", now_ms=START_MS, interval="1m")}


def live(world: World, parts: Parts) -> bool:
    """One process from its start to its end, its kill, or its error.

    Returns:
        Whether all is told. What the venue trades while the process ends is for the next one to
        book, so that only a life is judged that had nothing trade after its last look.
    """
    plan = script(world.seed)
    world.lives += 1
    journal = parts.journal(parts.disk(world), threaded=False)
    store = parts.store(journal, world)
    recovery: RecoveryReport = store.recover()
    if store.state.seq not in world.batch_ends:
        world.violations.append(f"I7 recovered to {store.state.seq}, inside a batch")
    clock = VirtualClock(world, plan)
    referee = Referee(world, plan, store, clock)
    wire = parts.wire(world, END_MS, plan.outages, plan.silences, referee)
    ledger = parts.ledger(store, EventBus())
    ledger.ends = world.batch_ends
    engine = parts.engine(
        EngineParts(
            strategy=Scripted(plan),
            validator=SignalValidator(ValidatorSettings()),
            risk=parts.risk(LIMITS),
            breaker=CircuitBreaker(LIMITS),
            venue=wire,
            memory=KnownMarket(with_features=False, depth_share=0.5, correlations=together()),
            detector=None,
            evidence=evidence(),
            costs=_COSTS,
            fees=_FEES,
            half_spread=0.0001,
            market=Market.SPOT,
            epoch=store.epoch,
        ),
        ledger,
        (Book.VALIDATED,),
    )
    gate = parts.gate(wire, GATE_LIMITS, store.epoch)
    timer = _timer(world)
    source = VirtualSource(world, plan, journal)
    session = parts.session(
        identity=Identity(
            mode="testnet",
            strategy="scripted",
            config_hash="c" * 64,
            quote="USDT",
            initial_cash=CASH,
            books=(Book.VALIDATED,),
        ),
        source=source,
        ledger=ledger,
        engine=engine,
        gate=gate,
        clock=clock,
        keeper=parts.keeper(
            wire,
            ledger,
            epoch=store.epoch,
            symbols=SYMBOLS,
            cancel=gate.cancel,
            clock=clock,
            timer=timer,
        ),
        commands=Operator(world, plan, store),
        timer=timer,
        wait=lambda seconds: world.advance(world.now_ms + round(seconds * 1000)),
        on_progress=referee.after_candle,
    )
    session.run(threading.Event(), recovery)
    store.close()
    if world.exchange.traded_after(source.looked_ms):
        return False
    world.violations += judged_at_the_end(world, plan, store, parts.store)
    return True


def _timer(world: World) -> Callable[[], int]:
    return lambda: world.now_ms * NS


# ------------------------------------------------------------------------- runs
def begin(seed: int) -> World:
    """The world before the first process."""
    plan = script(seed)
    exchange = SimulatedExchange(
        START_MS - WARM * MINUTE_MS,
        {symbol: list(path) for symbol, path in plan.prices.items()},
        lambda number: chance(seed, 3, number),
        dict(OPENING),
        now_ms=START_MS - 5_000,
    )
    world = World(seed, exchange, START_MS - 5_000)
    world.disk_fails_at = plan.disk_fails_at
    return world


def run_to_the_end(world: World, parts: Parts = REAL) -> None:
    """Live after life until one ends in order."""
    for _ in range(MAX_LIVES):
        try:
            if live(world, parts):
                return
            world.exchange.disconnect()
        except Killed:
            world.reboot(world.boundaries)
        except JournalError as error:
            if world.writes != world.disk_fails_at:
                world.violations.append(f"I11 the journal failed on a sound disk: {error}")
                return
            world.disk_fails_at = None
            world.reboot(world.boundaries)
        except Bot4Error as error:
            world.violations.append(f"{type(error).__name__}: {error}")
            return
        if world.violations:
            return
        world.kill_at = None
    world.violations.append(f"I16 no life of {MAX_LIVES} came to its end")


@dataclass
class Outcome:
    """What exploring one seed found.

    Attributes:
        boundaries: places where the process could have died.
        runs: simulated runs: one whole, and one from each picture that differed.
        failures: (boundary, its name, what was violated); boundary 0 is the whole run.
    """

    seed: int
    boundaries: int = 0
    runs: int = 0
    orders: int = 0
    fills: int = 0
    digest: str = ""
    failures: list[tuple[int, str, list[str]]] = field(default_factory=list)


def pictures(seed: int, parts: Parts = REAL) -> tuple[World, list[Picture]]:
    """Run a seed whole; return its end and a picture of each boundary that differs."""
    world = begin(seed)
    taken: list[Picture] = []

    def look(name: str) -> None:
        version = (
            len(world.medium.records),
            world.medium.synced,
            len(world.medium.epochs),
            len(world.snapshots),
            world.exchange.version,
        )
        if not taken or taken[-1].version != version or name.startswith("candle"):
            taken.append(world.picture(name))

    world.on_boundary = look
    run_to_the_end(world, parts)
    return world, taken


def from_picture(seed: int, picture: Picture, parts: Parts = REAL) -> World:
    """Cut the run at a picture and go on; sometimes the recovery is cut too."""
    world = World.after_crash(seed, picture)
    if chance(seed, 41, picture.number) < 0.35:
        world.kill_at = 1 + int(chance(seed, 42, picture.number) * 40)
    run_to_the_end(world, parts)
    return world


def explore(seed: int, parts: Parts = REAL, *, stop_at_first: bool = False) -> Outcome:
    """Run a seed, and on from every place where it could have died."""
    outcome = Outcome(seed)
    whole, taken = pictures(seed, parts)
    digest = hashlib.sha256()
    outcome.boundaries = whole.boundaries
    outcome.orders = len(whole.exchange.sends)
    outcome.fills = sum(len(trades) for trades in whole.exchange.trades.values())
    for number, name, world in _worlds(seed, parts, whole, taken):
        outcome.runs += 1
        digest.update(number.to_bytes(4, "little") + b"".join(world.medium.records))
        digest.update(repr(world.exchange.journal[-4:]).encode())
        if world.violations:
            outcome.failures.append((number, name, world.violations))
            if stop_at_first:
                break
    outcome.digest = digest.hexdigest()
    return outcome


def _worlds(
    seed: int, parts: Parts, whole: World, taken: Sequence[Picture]
) -> Iterator[tuple[int, str, World]]:
    yield 0, "whole run", whole
    for picture in taken:
        yield picture.number, picture.name, from_picture(seed, picture, parts)


def quiet() -> None:
    """No log lines and no garbage collector while thousands of runs go by."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.disable()


assert TICK_MS * 4 == MINUTE_MS
