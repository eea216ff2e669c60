"""Liquidation prevention: a look in < 10 ms, a day of 100 ms ticks in < 60 s.

A look measures every wallet and holds it against the thresholds: what happens on each price and
each tenth of a second. The monitor is what a process runs beside it to act: watchdog, ladder
and events included, nothing due. The day is 864,000 ticks over six legs of four symbols, with
books, marks, late and lost answers, on one seed.
"""

import time
from decimal import Decimal

from benchmarks.harness import EMPTY_CALL, Result, floors, measure
from bot4_runtime.exchange.gate import NO_ENTRIES, Gate
from bot4_runtime.protection.day import TICKS_A_DAY, simulate_day
from bot4_runtime.protection.hands import GateHands
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.monitor import ProtectionMonitor
from bot4_runtime.protection.simulated import SimulatedUsdm
from bot4_runtime.protection.stress import MemoryLedger, lot_rules
from bot4_runtime.risk.brackets import Brackets, published_brackets
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.liquidation import LiquidationLimits, LiquidationMonitor
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.risk.margin import Leg, Wallet

TITLE = "Liquidation: 10 Hz over margin positions"
LOOK_NS = 10_000_000
DAY_SECONDS = 60.0
SAMPLE = 86_400
NAMES = [f"C{number}USDT" for number in range(8)]
LADDER = published_brackets("BTCUSDT")


def run() -> list[Result]:
    rows = floors()
    for count in (1, 8):
        for kind in ("isolated", "cross"):
            looking = watched(count, kind)
            rows.append(
                measure(
                    f"look, {count} {kind}",
                    looking.look,
                    1,
                    specified=LOOK_NS,
                    goal=1_000 * count,
                    floor=EMPTY_CALL,
                )
            )
    driver = protecting(8)
    rows.append(
        measure(
            "mark and all that follows, 8 isolated",
            driver.on_mark, NAMES[0], 99.0, 0, 0, specified=LOOK_NS, goal=50_000, floor=EMPTY_CALL,
        )
    )  # fmt: skip
    wallet = watched(8, "cross").wallets[0]
    rows.append(
        measure("liquidation price, 1 of 8 cross", wallet.liquidation_price, wallet.legs[0])
    )
    return [*rows, *day()]


def watched(count: int, kind: str) -> LiquidationMonitor:
    """A monitor over calm positions with a mark each."""
    monitor = LiquidationMonitor(LiquidationLimits())
    legs = [Leg(name, 1, Decimal(10), 100.0, LADDER) for name in NAMES[:count]]
    if kind == "cross":
        monitor.hold([Wallet("cross", 400.0 * count, legs, isolated=False)])
    else:
        monitor.hold([Wallet(leg.name, 400.0, [leg], isolated=True) for leg in legs])
    for leg in legs:
        monitor.on_mark(leg.symbol, 99.0, 0, 0)
    assert monitor.look(1) == []
    return monitor


def protecting(count: int) -> ProtectionMonitor:
    """The whole driver over calm isolated positions with live stops."""
    legs = tuple(
        MarginPosition(
            symbol=name,
            side="long",
            size=Decimal(10),
            entry_price=Decimal(100),
            isolated_wallet=Decimal(400),
            stop_price=Decimal(90),
            stop_live=True,
        )
        for name in NAMES[:count]
    )
    holdings = Holdings(cross_balance=Decimal(0), free=Decimal(0), positions=legs)
    brackets: dict[str, Brackets] = dict.fromkeys(NAMES, LADDER)
    venue = SimulatedUsdm(holdings, brackets)
    driver = ProtectionMonitor(
        limits=LiquidationLimits(),
        rules=lot_rules(dict.fromkeys(NAMES, 100.0)),
        brackets=brackets,
        hands=GateHands(
            risk=RiskManager(RiskLimits()),
            gate=Gate(venue, NO_ENTRIES, 1),
            margin=venue,
            epoch=1,
        ),
        ledger=MemoryLedger(),
    )
    driver.on_marks(dict.fromkeys(NAMES, 99.0), 0, 0)
    driver.hold(holdings, 0)
    assert driver.entries_allowed
    return driver


def day() -> list[Result]:
    """A tenth of a day three times, and one whole day."""
    parts = []
    for _ in range(3):
        start = time.perf_counter()
        simulate_day(7, SAMPLE)
        parts.append(SAMPLE / (time.perf_counter() - start))
    parts.sort()
    start = time.perf_counter()
    result = simulate_day(7)
    seconds = time.perf_counter() - start
    note = f"{result.plans} actions, state {result.state_hash[:12]}"
    return [
        Result(
            name="ticks, 6 legs of 4 symbols, venue included",
            kind="ours",
            min=parts[-1],
            median=parts[1],
            p99=parts[0],
            unit="/s",
            specified=TICKS_A_DAY / DAY_SECONDS,
            goal=2 * TICKS_A_DAY / DAY_SECONDS,
            better="higher",
        ),
        Result(
            name=f"a day of {TICKS_A_DAY:,} ticks",
            kind="ours",
            min=seconds,
            median=seconds,
            p99=seconds,
            unit="s",
            specified=DAY_SECONDS,
            goal=DAY_SECONDS / 2,
            note=note,
        ),
    ]
