"""A past crash replayed against protected positions and their unprotected twins.

Prices step from one point of a candle to the next, never in between: open, then the extreme that
helps and the one that hurts the position (so that its worst step is the largest the candle
allows), then close, a quarter of the candle apart. Between points the clock runs on by 100 ms
while an action is in flight; else nothing can change and it is not looked at again. The venue
judges a step before the monitor sees it, as it does in life.

A liquidation counts as avoidable unless the step that caused it began below `act`: then nothing
was due yet, and the step alone was larger than the whole remaining distance.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import msgspec

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market, interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.events import (
    JournaledEvent,
    ProtectionAlarm,
    ProtectionPlanned,
    ProtectionSettled,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.exchange.gate import NO_ENTRIES, Gate
from bot4_runtime.protection.hands import GateHands
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.monitor import ProtectionMonitor
from bot4_runtime.protection.simulated import NS_PER_MS, Costs, Faults, SimulatedUsdm
from bot4_runtime.risk.brackets import Brackets
from bot4_runtime.risk.ladder import LotRules
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.liquidation import ADD_MARGIN, LiquidationLimits
from bot4_runtime.risk.manager import RiskManager

CAPITAL: Final = Decimal(10_000)
ISOLATED_SHARE: Final = Decimal("0.75")
"""Share of the capital an isolated position gets as margin; the rest stays free."""

LONGEST_GAP_MS: Final = 86_400_000
_LAST_NS: Final = 60_000 * NS_PER_MS
_DRAWN: Final = 800

Point = tuple[int, dict[str, float]]
"""UTC time (ns) and the marks that change then, in quote."""


@dataclass(frozen=True, kw_only=True)
class StressSettings:
    """What a stress replay assumes."""

    limits: LiquidationLimits = field(default_factory=LiquidationLimits)
    costs: Costs = field(default_factory=Costs)
    faults: Faults = field(default_factory=Faults)
    interval_ms: int = 100
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """One action, as it was decided and as it ended; money and prices in quote."""

    number: int
    ts_ms: int
    action: str
    wallet: str
    symbol: str
    price: float | None
    liquidation_price: float | None
    ratio: float | None
    consumed: float | None
    quantity: str
    amount: str
    reason: str
    status: str
    filled: str
    fill_price: float | None
    settled_ms: int | None


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A wallet the venue closed, and the step that did it.

    Attributes:
        worst_before: larger measure before the step; 1 - it is the whole remaining distance.
        marks_before, marks_after: of its symbols, in quote.
        avoidable: action was due before the step.
    """

    ts_ms: int
    wallet: str
    worst_before: float
    marks_before: dict[str, float]
    marks_after: dict[str, float]
    left: float
    avoidable: bool


@dataclass(frozen=True, slots=True)
class StressResult:
    """One account, protected and not.

    Attributes:
        capital: margin balances at the beginning, in quote.
        protected, unprotected: the same at the end.
        without_margin: the same, protected by all allowed steps but that of adding margin.
        times_ms: of the drawn series below.
        prices, liquidation_prices: by leg; None where there is none.
        worst: the largest measure of all wallets.
    """

    name: str
    holdings: dict[str, Any]
    capital: float
    protected: float
    unprotected: float
    without_margin: float
    fees: float
    actions: list[Action]
    alarms: dict[str, int]
    liquidations: list[Liquidation]
    unprotected_liquidations: list[Liquidation]
    times_ms: list[int]
    prices: dict[str, list[float | None]]
    liquidation_prices: dict[str, list[float | None]]
    worst: list[float | None]

    @property
    def avoidable(self) -> list[Liquidation]:
        """Liquidations that protection should have prevented."""
        return [one for one in self.liquidations if one.avoidable]

    def told(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def result_hash(results: Sequence[StressResult]) -> str:
    """Return the sha256 (hex) of everything that came out."""
    told = json.dumps([result.told() for result in results], sort_keys=True, allow_nan=False)
    return hashlib.sha256(told.encode()).hexdigest()


class MemoryLedger:
    """Keeps events in memory; what is emitted is as durable as it gets."""

    def __init__(self) -> None:
        self.events: list[JournaledEvent] = []

    def emit(self, event: JournaledEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def make_durable(self) -> None:
        """Nothing outlives a rehearsal."""


# ------------------------------------------------------------------------- accounts
def default_holdings(prices: Mapping[str, float], leverage: Decimal) -> dict[str, Holdings]:
    """Return accounts opened at these prices: each symbol isolated and all cross, both ways.

    Each has `CAPITAL`. Isolated positions get three quarters of it as margin, cross ones all.
    """
    rules = lot_rules(prices)
    found: dict[str, Holdings] = {}
    for side in ("long", "short"):
        legs = []
        for symbol, price in prices.items():
            entry = Decimal(repr(price))
            margin = CAPITAL * ISOLATED_SHARE
            size = margin * leverage / entry // rules[symbol].step * rules[symbol].step
            alone = MarginPosition(
                symbol=symbol, side=side, size=size, entry_price=entry, isolated_wallet=margin
            )
            found[f"{symbol} isolated {side}"] = Holdings(
                cross_balance=CAPITAL - margin, free=CAPITAL - margin, positions=(alone,)
            )
            part = CAPITAL * leverage / len(prices) / entry
            legs.append(
                MarginPosition(
                    symbol=symbol,
                    side=side,
                    size=part // rules[symbol].step * rules[symbol].step,
                    entry_price=entry,
                )
            )
        name = f"{' and '.join(prices)} cross {side}"
        found[name] = Holdings(cross_balance=CAPITAL, free=Decimal(0), positions=tuple(legs))
    return found


def lot_rules(prices: Mapping[str, float]) -> dict[str, LotRules]:
    """Return lot rules derived from prices; a venue's own replace them where there is one."""
    rules = {}
    for symbol, price in prices.items():
        assumed = Instrument.assume(symbol, Market.USDM, price)
        rules[symbol] = LotRules(
            assumed.step_size,
            assumed.min_quantity,
            assumed.step_size * 1_000_000,
            assumed.min_notional,
        )
    return rules


# --------------------------------------------------------------------------- prices
def first_prices(series: Sequence[CandleSeries]) -> dict[str, float]:
    """Return the first open of every symbol, in quote."""
    return {one.id.symbol: float(one.open[0]) for one in series}


def points(series: Sequence[CandleSeries], holdings: Holdings) -> Iterator[Point]:
    """Yield the points of all candles in order of time, four a candle.

    Raises:
        DataError: a gap of more than a day, which no replay can bridge.
    """
    falls_last = {one.id.symbol: _net(one.id.symbol, holdings) >= 0 for one in series}
    opens = [
        (int(at), one.id.symbol, index, one)
        for one in series
        for index, at in enumerate(one.open_time_ms)
    ]
    opens.sort(key=lambda row: row[:2])
    length_ms = interval_ms(series[0].id.interval)
    before_ms = opens[0][0]
    start = 0
    while start < len(opens):
        at_ms = opens[start][0]
        end = start
        while end < len(opens) and opens[end][0] == at_ms:
            end += 1
        if at_ms - before_ms > LONGEST_GAP_MS:
            raise DataError(
                f"no candles between {before_ms} and {at_ms} ms; name one stretch with --from and "
                "--to, since positions cannot be held over such a gap"
            )
        paths = {}
        for _, symbol, index, one in opens[start:end]:
            high, low = float(one.high[index]), float(one.low[index])
            extremes = (high, low) if falls_last[symbol] else (low, high)
            paths[symbol] = (float(one.open[index]), *extremes, float(one.close[index]))
        for quarter in range(4):
            ts_ns = (at_ms + quarter * length_ms // 4) * NS_PER_MS
            yield ts_ns, {symbol: path[quarter] for symbol, path in paths.items()}
        before_ms, start = at_ms, end


def _net(symbol: str, holdings: Holdings) -> Decimal:
    return sum(
        (
            p.size if p.side == "long" else -p.size
            for p in holdings.positions
            if p.symbol == symbol
        ),
        Decimal(0),
    )


# --------------------------------------------------------------------------- replay
def stress(
    name: str,
    holdings: Holdings,
    path: Sequence[Point],
    settings: StressSettings,
    brackets: Mapping[str, Brackets],
) -> StressResult:
    """Replay prices against one account, with protection and without.

    Args:
        name: of the account.
        holdings: what it holds before the first point.
        path: points in order of time; the first has the marks of all its symbols.
        settings: what is assumed.
        brackets: by symbol.

    Raises:
        DataError: the account is impossible.
    """
    first = path[0][1]
    symbols = {position.symbol for position in holdings.positions}
    rules = lot_rules({symbol: first[symbol] for symbol in sorted(symbols)})
    steps = [later[0] - point[0] for point, later in pairwise(path)]
    longest_ns = max(_LAST_NS, min(steps, default=0))
    run = _Protected(holdings, brackets, rules, settings, longest_ns)
    capital = run.account.equity_at(first)
    every = max(len(path) // _DRAWN, 1)
    drawing = _Drawing([position.name for position in holdings.positions])
    for index, (ts_ns, until_ns, marks) in enumerate(_steps(path, symbols)):
        acted = run.step(ts_ns, until_ns, marks)
        if acted or index % every == 0 or index + 1 == len(path):
            drawing.add(ts_ns, run.account)
    fewer = [action for action in settings.limits.actions if action != ADD_MARGIN]
    limits = dataclasses.replace(settings.limits, actions=tuple(fewer))
    fewer_steps = dataclasses.replace(settings, limits=limits)
    spared = _Protected(holdings, brackets, rules, fewer_steps, longest_ns)
    for ts_ns, until_ns, marks in _steps(path, symbols):
        spared.step(ts_ns, until_ns, marks)
    twin = SimulatedUsdm(holdings, brackets, costs=settings.costs)
    unprotected: list[Liquidation] = []
    for ts_ns, marks in path:
        unprotected += _stepped(twin, marks, ts_ns, settings.limits.act)
    return StressResult(
        name=name,
        holdings=msgspec.to_builtins(holdings),
        capital=capital,
        protected=run.account.equity,
        unprotected=twin.equity,
        without_margin=spared.account.equity,
        fees=run.account.fees,
        actions=_actions(run.ledger.events),
        alarms=_alarms(run.ledger.events),
        liquidations=run.liquidations,
        unprotected_liquidations=unprotected,
        times_ms=drawing.times_ms,
        prices=drawing.prices,
        liquidation_prices=drawing.liquidation_prices,
        worst=drawing.worst,
    )


def _steps(
    path: Sequence[Point], symbols: Collection[str]
) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Yield each point's time, the next one's (ns), and the marks of some symbols."""
    for index, (ts_ns, marks) in enumerate(path):
        until_ns = path[index + 1][0] if index + 1 < len(path) else ts_ns + _LAST_NS
        yield ts_ns, until_ns, {s: price for s, price in marks.items() if s in symbols}


class _Protected:
    """An account with its monitor, driven point by point."""

    def __init__(
        self,
        holdings: Holdings,
        brackets: Mapping[str, Brackets],
        rules: Mapping[str, LotRules],
        settings: StressSettings,
        longest_ns: int,
    ) -> None:
        self.ledger = MemoryLedger()
        self.liquidations: list[Liquidation] = []
        self.account = SimulatedUsdm(
            holdings,
            brackets,
            rules=rules,
            costs=settings.costs,
            faults=settings.faults,
            seed=settings.seed,
        )
        self.monitor = ProtectionMonitor(
            limits=settings.limits,
            rules=rules,
            brackets=brackets,
            hands=GateHands(
                risk=RiskManager(RiskLimits()),
                gate=Gate(self.account, NO_ENTRIES, 1),
                margin=self.account,
                epoch=1,
            ),
            ledger=self.ledger,
        )
        self._tick_ns = settings.interval_ms * NS_PER_MS
        self._stale_ns = settings.limits.mark_stale_ms * NS_PER_MS
        self._longest_ns = longest_ns
        self._act = settings.limits.act
        self._marks: dict[str, float] = {}
        self._begun = False

    def step(self, ts_ns: int, until_ns: int, marks: Mapping[str, float]) -> bool:
        """Move the marks and let protection work until it rests; whether it acted."""
        self._marks.update(marks)
        seen = len(self.ledger.events)
        liquidated = _stepped(self.account, marks, ts_ns, self._act)
        self.liquidations += liquidated
        if liquidated:
            self.monitor.hold(self.account.holdings(ts_ns), ts_ns)
        self.monitor.on_marks(self._marks, ts_ns, ts_ns)
        if not self._begun:
            self._begun = True
            self.monitor.hold(self.account.holdings(ts_ns), ts_ns)
        now_ns = ts_ns
        while self.monitor.busy and now_ns + self._tick_ns < until_ns:
            now_ns += self._tick_ns
            for event in self.account.poll(now_ns):
                self.monitor.on_order(event)
            self.liquidations += _stepped(self.account, {}, now_ns, self._act)
            self.monitor.hold(self.account.holdings(now_ns), now_ns)
            self.monitor.on_marks(self._marks, now_ns, now_ns)
        if until_ns - now_ns > self._longest_ns:  # candles are missing: the marks grow old
            self.monitor.on_time(now_ns + self._stale_ns + self._tick_ns)
        return len(self.ledger.events) > seen


class _Drawing:
    """What the report draws, thinned."""

    def __init__(self, legs: Sequence[str]) -> None:
        self.times_ms: list[int] = []
        self.worst: list[float | None] = []
        self.prices: dict[str, list[float | None]] = {leg: [] for leg in legs}
        self.liquidation_prices: dict[str, list[float | None]] = {leg: [] for leg in legs}

    def add(self, ts_ns: int, account: SimulatedUsdm) -> None:
        self.times_ms.append(ts_ns // NS_PER_MS)
        held = {leg.name: (wallet, leg) for wallet in account.wallets() for leg in wallet.legs}
        self.worst.append(max((wallet.worst for wallet, _ in held.values()), default=None))
        for name in self.prices:
            wallet, leg = held.get(name, (None, None))
            found = None if wallet is None or leg is None else wallet.liquidation_price(leg)
            self.prices[name].append(account.mark(name.split(" ", maxsplit=1)[0]))
            self.liquidation_prices[name].append(found)


def _stepped(
    account: SimulatedUsdm, marks: Mapping[str, float], ts_ns: int, act: float
) -> list[Liquidation]:
    """Move an account's marks; tell each liquidation with the state just before the step."""
    before = {
        wallet.name: (wallet.worst, {leg.symbol: leg.price for leg in wallet.legs})
        for wallet in account.wallets()
    }
    return [
        Liquidation(
            ts_ms=ts_ns // NS_PER_MS,
            wallet=gone.wallet,
            worst_before=before[gone.wallet][0],
            marks_before=before[gone.wallet][1],
            marks_after={s: marks.get(s, price) for s, price in before[gone.wallet][1].items()},
            left=gone.left,
            avoidable=not before[gone.wallet][0] < act,
        )
        for gone in account.set_marks(marks, ts_ns)
    ]


def _actions(events: Sequence[JournaledEvent]) -> list[Action]:
    settled = {e.number: e for e in events if isinstance(e, ProtectionSettled)}
    found = []
    for plan in events:
        if not isinstance(plan, ProtectionPlanned):
            continue
        end = settled.get(plan.number)
        found.append(
            Action(
                number=plan.number,
                ts_ms=plan.ts_event_ns // NS_PER_MS,
                action=plan.action,
                wallet=plan.wallet,
                symbol=plan.symbol,
                price=plan.numbers.get("price"),
                liquidation_price=plan.numbers.get("liquidation_price"),
                ratio=plan.numbers.get("ratio"),
                consumed=plan.numbers.get("consumed"),
                quantity=str(plan.intent.quantity) if plan.intent is not None else "0",
                amount=str(plan.amount),
                reason=plan.reason,
                status="in flight" if end is None else end.status,
                filled="0" if end is None else str(end.filled),
                fill_price=float(end.spent / end.filled) if end and end.filled else None,
                settled_ms=None if end is None else end.ts_event_ns // NS_PER_MS,
            )
        )
    return found


def _alarms(events: Sequence[JournaledEvent]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in events:
        if isinstance(event, ProtectionAlarm):
            counts[event.code] = counts.get(event.code, 0) + 1
    return dict(sorted(counts.items()))
