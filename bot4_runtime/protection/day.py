"""Simulated time with a look every 100 ms: books, marks, late and lost answers, from one seed.

Four symbols walk at random with jumps. Marks come every second, the middle of one symbol's book
every tick, the clock is looked at every tick, the feed falls silent now and then. The result
is hashed, so that two processes can be compared.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Final

import msgspec

from bot4_runtime.exchange.gate import NO_ENTRIES, Gate
from bot4_runtime.protection.hands import GateHands
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.monitor import ProtectionMonitor
from bot4_runtime.protection.simulated import Faults, Liquidated, SimulatedUsdm
from bot4_runtime.protection.stress import MemoryLedger, lot_rules
from bot4_runtime.risk.brackets import published_brackets
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.liquidation import LiquidationLimits
from bot4_runtime.risk.manager import RiskManager

TICKS_A_DAY: Final = 864_000
TICK_NS: Final = 100_000_000
_PER_MARK: Final = 10
_VOLATILITY: Final = 0.0003
_JUMPS: Final = 2e-5
_SILENCES: Final = 1e-4
_SILENT_TICKS: Final = 50
_PRICES: Final = {"BTCUSDT": 40_000.0, "ETHUSDT": 2_500.0, "SOLUSDT": 100.0, "BNBUSDT": 400.0}


@dataclass(frozen=True, slots=True)
class DayResult:
    """What came out of a simulated day.

    Attributes:
        events: alarms, plans and their ends.
        state_hash: sha256 (hex) of all events, what is held and what it is worth.
    """

    ticks: int
    events: int
    plans: int
    liquidated: list[Liquidated]
    equity: float
    state_hash: str


def simulate_day(seed: int, ticks: int = TICKS_A_DAY) -> DayResult:
    """Run the monitor, its venue and its feed; the same seed gives the same result."""
    rng = Random(seed)  # noqa: S311 - simulation
    marks = dict(_PRICES)
    mids = dict(_PRICES)
    rules = lot_rules(_PRICES)
    brackets = {symbol: published_brackets(symbol) for symbol in _PRICES}
    holdings = _account()
    faults = Faults(latency_ms=(0, 5_000), ack_loss=0.1, partial=0.2)
    venue = SimulatedUsdm(holdings, brackets, rules=rules, faults=faults, seed=seed)
    ledger = MemoryLedger()
    driver = ProtectionMonitor(
        limits=LiquidationLimits(),
        rules=rules,
        brackets=brackets,
        hands=GateHands(
            risk=RiskManager(RiskLimits()),
            gate=Gate(venue, NO_ENTRIES, 1),
            margin=venue,
            epoch=1,
        ),
        ledger=ledger,
    )
    venue.set_marks(marks, 0)
    driver.on_marks(marks, 0, 0)
    driver.hold(holdings, 0)
    symbols = list(_PRICES)
    liquidated: list[Liquidated] = []
    silent_until = 0
    for tick in range(1, ticks + 1):
        now_ns = tick * TICK_NS
        _walk(rng, mids)
        changed: list[Liquidated] = []
        if rng.random() < _SILENCES:
            silent_until = tick + rng.randrange(_SILENT_TICKS)
        if tick % _PER_MARK == 0:
            marks.update(mids)
            changed = venue.set_marks(marks, now_ns)
            liquidated += changed
        answers = venue.poll(now_ns)
        for event in answers:
            driver.on_order(event)
        if answers or changed or (driver.busy and tick % _PER_MARK == 0):
            driver.hold(venue.holdings(now_ns), now_ns)
        if tick >= silent_until:
            if tick % _PER_MARK == 0:
                driver.on_marks(marks, now_ns, now_ns)
            symbol = symbols[tick % len(symbols)]
            driver.on_mid(symbol, mids[symbol], now_ns, now_ns)
        driver.on_time(now_ns)
    digest = hashlib.sha256()
    for told in ledger.events:
        digest.update(msgspec.json.encode(told))
    digest.update(msgspec.json.encode((venue.holdings(0), venue.equity, len(liquidated))))
    plans = sum(type(told).__name__ == "ProtectionPlanned" for told in ledger.events)
    return DayResult(
        ticks, len(ledger.events), plans, liquidated, venue.equity, digest.hexdigest()
    )


def _walk(rng: Random, prices: dict[str, float]) -> None:
    """Move every price: together, a little alone, and at times by a jump."""
    together = rng.gauss(0.0, _VOLATILITY)
    if rng.random() < _JUMPS:
        together += rng.uniform(-0.05, 0.05)
    for symbol, price in prices.items():
        prices[symbol] = price * (1.0 + together + rng.gauss(0.0, 0.3 * _VOLATILITY))


def _account() -> Holdings:
    """Return six legs: isolated both ways, and cross long and short."""
    legs = (
        _leg("BTCUSDT", "long", "0.5", isolated="4000"),
        _leg("BTCUSDT", "short", "0.3", isolated="2400"),
        _leg("ETHUSDT", "long", "6", isolated="3000"),
        _leg("SOLUSDT", "short", "150", isolated="3000"),
        _leg("ETHUSDT", "short", "4"),
        _leg("BNBUSDT", "long", "60"),
    )
    return Holdings(cross_balance=Decimal(9_000), free=Decimal(2_000), positions=legs)


def _leg(symbol: str, side: str, size: str, isolated: str | None = None) -> MarginPosition:
    told: Mapping[str, object] = {
        "symbol": symbol,
        "side": side,
        "size": size,
        "entry_price": repr(_PRICES[symbol]),
        "isolated_wallet": isolated,
    }
    return msgspec.convert(told, MarginPosition)
