"""One life of a trading process at a loopback venue: the real session over the real client.

All clocks are the venue's, which moves with the candles, so that the waits of the UNKNOWN
protocol (12 s and two readings) take as many candles as they would take seconds. A request of
a killed process that arrives late is refused by its timestamp, as Binance would.
"""

import http.client
import os
import signal
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from kill_venue import CASH, KEY, SECRET, Door

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.candle import Candle, Market, Origin, interval_ms
from bot4_runtime.domain.client_id import parse_client_id
from bot4_runtime.domain.events import AnyEvent, OrderEvent
from bot4_runtime.domain.order import Book, Liquidity, OrderIntent, OrderStatus, Side
from bot4_runtime.domain.regime import Regime, RegimeEstimate
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.engine import Engine, EngineParts
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.gate import Gate, GateLimits
from bot4_runtime.exchange.keeper import AccountKeeper
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.identity import Identity
from bot4_runtime.market import MarketMemory
from bot4_runtime.regime.evidence import synthetic_evidence
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.correlation import CorrelationTable
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.session import Ledger, Session
from bot4_runtime.signals.validator import SignalValidator, TradeCosts, ValidatorSettings
from bot4_runtime.sources import merged
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import StateStore

INTERVAL: Final = "1h"
STEP_MS: Final = interval_ms(INTERVAL)
WARM: Final = 80
"""Candles shown before the first decision: enough for depth and correlations."""
QUIET_TURNS: Final = 8
"""Turns after the last candle, in which what is unclear clears up."""
TIME_LAPSE: Final = 300
"""How much slower the timer of the UNKNOWN protocol runs than the candles: 12 s a candle."""
LIMITS: Final = RiskLimits(
    max_correlation=1.0,
    correlation_min_observations=24,
    max_loss_streak=10,
    cooldown_s=3_600,
    max_cooldown_s=86_400,
    min_liquidity_ratio=1.0,
)
RULE: Final = "busy"
STARTS: Final = "starts.txt"
"""File of the stage with one number a life: ms from its fork to the account read."""


class Busy:
    """Enters every third candle, by turns at the market and resting, and leaves after two."""

    name = "busy"
    needs_models = False
    synthetic_rules = (RULE,)

    def warm(self, candle: Candle) -> None:
        """Keep nothing."""

    def on_candle(self, candle: Candle) -> Sequence[TradingSignal]:
        number = candle.open_time_ms // STEP_MS + zlib.crc32(candle.symbol.encode())
        if number % 3 == 1:
            return ()
        enter = number % 3 == 0
        return (
            TradingSignal(
                signal_id=f"{RULE}:{candle.symbol}:{candle.open_time_ms}",
                rule_id=RULE,
                symbol=candle.symbol,
                action=SignalAction.ENTER if enter else SignalAction.EXIT,
                side=Side.BUY if enter else Side.SELL,
                confidence=0.9,
                price=candle.close,
                stop_distance=0.01,
                regime=None,
                volatility=None,
                ts_ns=candle.close_time_ms * 1_000_000,
                limit_price=candle.close * 0.999 if enter and number % 2 else None,
                reason="busy: scheduled",
            ),
        )

    def on_regime(
        self, estimate: RegimeEstimate, previous: Regime | None, candle: Candle
    ) -> Sequence[TradingSignal]:
        return ()


@dataclass(frozen=True)
class Stage:
    """Where a life takes place.

    Attributes:
        series: one a symbol, some of it before `start_ms`.
    """

    series: Sequence[CandleSeries]
    start_ms: int
    folder: Path
    port: int
    admin_port: int
    lock_dir: Path | None = None


@dataclass(frozen=True)
class Death:
    """Where a life ends by its own hand: at the n-th order, before, amid or after sending it."""

    point: str
    order: int


class MortalConnection(http.client.HTTPConnection):
    """Dies between sending an order and its answer."""

    orders_left = 0
    _method = ""

    def putrequest(self, method: str, url: str, *args: Any, **named: Any) -> None:
        self._method = method
        super().putrequest(method, url, *args, **named)

    def getresponse(self) -> http.client.HTTPResponse:
        if self._method == "POST":
            self.orders_left -= 1
            if self.orders_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().getresponse()


class MortalVenue(BinanceSpot):
    """The client, with a death foreseen."""

    def __init__(self, port: int, clock: ManualClock, death: Death | None) -> None:
        super().__init__(
            f"http://127.0.0.1:{port}",
            f"ws://127.0.0.1:{port}/ws-api/v3",
            Signer(Secret(KEY), Secret(SECRET)),
            clock,
        )
        self._death = death
        self._orders = 0
        if death is not None and death.point == "amid":
            connection = MortalConnection("127.0.0.1", port, timeout=5)
            connection.orders_left = death.order
            self._http._connection = connection

    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        self._orders += 1
        self._die("before")
        events = super().submit(intent, client_id, cash_free)
        self._die("after")
        return events

    def _die(self, point: str) -> None:
        if self._death == Death(point, self._orders):
            os.kill(os.getpid(), signal.SIGKILL)


class CampaignSource:
    """Candles that the venue's tape has reached, and some quiet turns at the end."""

    label = "campaign"
    origin = Origin.SIMULATED
    market = Market.SPOT
    interval = INTERVAL

    def __init__(self, stage: Stage, door: Door, clock: ManualClock, life: "Life") -> None:
        self.start_ms: int | None = stage.start_ms
        self.symbols = tuple(sorted(s.id.symbol for s in stage.series))
        self._series = stage.series
        self._door = door
        self._clock = clock
        self._life = life

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        recent_ms = max(from_ms, to_ms - WARM * STEP_MS)
        return merged([s.between(recent_ms, to_ms) for s in self._series])

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        self._life.wait_for_stream()
        yield None
        yield None
        self._life.note_start()
        self._life.check()
        rest = [
            s.between(max(from_ms, cursor.get(s.id.symbol, -1) + 1), None) for s in self._series
        ]
        for candle in merged(rest):
            self._door.advance(candle.close_time_ms)
            yield candle
        for _turn in range(QUIET_TURNS):
            now_ms = self._clock.now_ns() // 1_000_000 + STEP_MS
            self._door.advance(now_ms)
            self._clock.advance_to(now_ms * 1_000_000)
            yield None


class Life:
    """From start to death, or to the end of the candles.

    Args:
        death: foreseen; None leaves it to others.
        forked_ns: when it was forked, by the machine's monotonic clock.
    """

    def __init__(self, stage: Stage, death: Death | None = None, forked_ns: int = 0) -> None:
        self._stage = stage
        self._forked_ns = forked_ns
        self._door = Door(stage.admin_port)
        self._clock = ManualClock()
        self._venue = MortalVenue(stage.port, self._clock, death)
        self._store = StateStore(
            Journal(
                SqliteDisk.open(
                    stage.folder / "journal.sqlite", "campaign", stage.lock_dir, log_bytes=1 << 16
                )
            ),
            stage.folder / "snapshots",
        )

    def run(self) -> None:
        store, clock = self._store, self._clock
        recovery = store.recover()
        clock.advance_to(self._venue.server_time_ms() * 1_000_000)
        self._venue.start()
        bus = EventBus()
        bus.subscribe(AnyEvent, lambda _event: None)
        ledger = Ledger(store, bus)
        source = CampaignSource(self._stage, self._door, clock, self)
        gate = Gate(self._venue, GateLimits(10_000, Decimal(10**9), 1.0), store.epoch)

        def timer() -> int:
            return clock.now_ns() // TIME_LAPSE

        session = Session(
            identity=Identity(
                mode="testnet",
                strategy=RULE,
                config_hash="campaign",
                quote="USDT",
                initial_cash=CASH,
                books=(Book.VALIDATED,),
            ),
            source=source,
            ledger=ledger,
            engine=self._engine(ledger),
            gate=gate,
            clock=clock,
            keeper=AccountKeeper(
                self._venue,
                ledger,
                epoch=store.epoch,
                symbols=source.symbols,
                cancel=gate.cancel,
                clock=clock,
                timer=timer,
            ),
            timer=timer,
            wait=self._wait,
        )
        session.run(threading.Event(), recovery)
        store.close()
        self._venue.close()

    def _wait(self, seconds: float) -> None:
        """Let the venue's time pass, and the machine's for what it tells."""
        now_ns = self._clock.now_ns() + round(seconds * 1e9) * TIME_LAPSE
        self._door.advance(now_ns // 1_000_000)
        self._clock.advance_to(now_ns)
        time.sleep(0.001)

    def wait_for_stream(self) -> None:
        stream, until = self._venue._stream, time.monotonic() + 5.0
        while not stream._connected and time.monotonic() < until:
            time.sleep(0.0002)

    def note_start(self) -> None:
        """Append how long it took to recover and to read the account at the venue."""
        if self._forked_ns:
            took_ms = (time.monotonic_ns() - self._forked_ns) / 1e6
            with (self._stage.folder / STARTS).open("a") as file:
                file.write(f"{took_ms:.1f}\n")

    def check(self) -> None:
        """Hold the recovered and reconciled state against what the venue holds.

        Whatever the venue holds is known here or UNKNOWN, and every trade of a known order is
        booked; nothing is open twice.
        """
        state = self._store.state
        orders = {order.client_id: order for order in state.orders.values()}
        oldest = min(state.orders, default=0)
        newest = max((int(key.partition("|")[2]) for key in state.account.intents), default=0)
        ledger = self._door.ledger(max(newest - 30, 0))
        seen: set[str] = set()
        for told in ledger["orders"]:
            name = told["clientOrderId"]
            assert name not in seen, f"{name} was placed twice"
            seen.add(name)
            ours = orders.get(name)
            if ours is None and intent_of(name) < oldest:
                continue  # it ended so long ago that the state let go of it
            assert ours is not None, f"{name} is at the venue and not in the journal"
            filled = sum((Decimal(trade["qty"]) for trade in told["trades"]), Decimal(0))
            known = ours.status is not OrderStatus.UNKNOWN
            assert ours.filled == filled or not known, (
                f"{name}: {ours.filled} booked, {filled} traded"
            )
        if not any(o.status is OrderStatus.UNKNOWN for o in state.all_live_orders()):
            expected = {
                row["asset"]: Decimal(row["free"]) + Decimal(row["locked"])
                for row in ledger["account"]["balances"]
            }
            ours_held = {asset: state.account.expected(asset) for asset in state.account.assets()}
            assert {a: v for a, v in ours_held.items() if v} == {
                a: v for a, v in expected.items() if v
            }

    def _engine(self, ledger: Ledger) -> Engine:
        fees = FeeCalculator(binance_schedule(Market.SPOT), 0, False)
        taker = fees.rate(fees.venue, "", Liquidity.TAKER)
        return Engine(
            EngineParts(
                strategy=Busy(),
                validator=SignalValidator(ValidatorSettings()),
                risk=RiskManager(LIMITS),
                breaker=CircuitBreaker(LIMITS),
                venue=self._venue,
                memory=MarketMemory(
                    with_features=False,
                    depth_share=0.01,
                    correlations=CorrelationTable(
                        LIMITS.correlation_half_life_hours, LIMITS.correlation_min_observations
                    ),
                ),
                detector=None,
                evidence=EVIDENCE,
                costs=TradeCosts(fee_rate_round_trip=2 * taker, slippage_round_trip=0.0002),
                fees=fees,
                half_spread=0.0001,
                market=Market.SPOT,
                epoch=self._store.epoch,
            ),
            ledger,
            (Book.VALIDATED,),
        )


def intent_of(name: str) -> int:
    """Return the intent number in one of our names; AssertionError for another's."""
    parsed = parse_client_id(name)
    assert parsed is not None, f"{name} is not ours"
    return parsed[1]


EVIDENCE: Final = {RULE: synthetic_evidence(RULE, now_ms=1_735_689_600_000, interval=INTERVAL)}
