"""The validator: validations a second of each verdict, what it costs to keep it informed.

The desk looks back on 300 trades and 300 entries, holds 8 positions, and half its entries come
after two losses, so that no detector has an easy day. "As journaled" also makes the words and
the mapping of all numbers. Statistics are what the pipeline pays, once a rule. Power is the
first scenario of `benchmarks.power`: good rules go the whole way, and most must get through.
"""

import time
from collections.abc import Callable
from decimal import Decimal
from threading import Barrier, Thread

import numpy as np

from benchmarks import power
from benchmarks.harness import EMPTY_CALL, Result, floors, measure, of_rounds, throughput
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.order import Book, Side
from bot4_runtime.domain.position import ClosedTrade, Position
from bot4_runtime.domain.regime import Regime
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.regime.evidence import (
    DAY_MS,
    Provenance,
    make_records,
    synthetic_history,
    week_number,
)
from bot4_runtime.signals import statistics
from bot4_runtime.signals.history import DAY_NS, HOUR_NS
from bot4_runtime.signals.moments import RunningMoments
from bot4_runtime.signals.validator import (
    LiveEvidence,
    MarketContext,
    SignalHistory,
    SignalValidator,
    TradeCosts,
    ValidatorSettings,
)
from bot4_runtime.state.book import Entry

TITLE = "Validator: 300 trades, 300 entries, 8 positions"
NOW_NS = 20_000 * DAY_NS
NOW_MS = NOW_NS // 1_000_000
COUNT = 20_000
THREADS = 8
SYMBOLS = ("BTCUSDT", *(f"C{k}USDT" for k in range(19)))
GOOD_RULES = 200
SPECIFIED_NS = 100e6
GOAL_NS = 10_000
"""100,000 validations a second."""


def run() -> list[Result]:
    validator = SignalValidator(ValidatorSettings())
    history = _history()
    good = LiveEvidence(_record())
    costs, context = TradeCosts(0.002, 0.0004), _context()

    def verdict(
        expected: str,
        evidence: LiveEvidence | None = good,
        past: SignalHistory = history,
        now: MarketContext = context,
        **changes: object,
    ) -> Result:
        arguments = (_signal(**changes), evidence, past, now, costs)
        found = validator.validate(*arguments)
        assert found.code == expected, (found.code, found.text)
        return measure(
            f"validate: {expected}", validator.validate, *arguments,
            specified=SPECIFIED_NS, goal=GOAL_NS, seconds=0.3, floor=EMPTY_CALL,
        )  # fmt: skip

    signal = _signal()

    def approve() -> int:
        for _ in range(COUNT):
            validator.validate(signal, good, history, context, costs)
        return COUNT

    def journal() -> int:
        for _ in range(COUNT // 4):
            found = validator.validate(signal, good, history, context, costs)
            if not (found.text and found.numbers):
                raise AssertionError
        return COUNT // 4

    def threads() -> int:
        gate = Barrier(THREADS)

        def work() -> None:
            gate.wait()
            approve()

        workers = [Thread(target=work) for _ in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return THREADS * COUNT

    def a_second(name: str, work: Callable[[], int], rounds: int = 7) -> Result:
        return throughput(
            name, work, unit="/CPU-s", specified=1_000, goal=100_000, rounds=rounds,
            clock=time.process_time_ns,
        )  # fmt: skip

    rows = floors()
    rows += [
        a_second("validations, approved", approve),
        a_second("validations, as journaled", journal),
        a_second(f"validations, {THREADS} threads", threads, 3),
        verdict("APPROVED"),
        verdict("BIAS_FOMO", now=_context(recent_return=0.3)),
        verdict("BIAS_OVERTRADING", past=_history(entries_apart=0.5)),
        verdict("BIAS_LOSS_AVERSION", past=_history(mark=90.0)),
        verdict("BIAS_ANCHORING", limit_price=80.0),
        verdict("BIAS_REVENGE", past=_history(grown=True)),
        verdict("NO_EVIDENCE", evidence=None),
        verdict("TOO_FEW", evidence=LiveEvidence(_record(days=100))),
        verdict("NOT_SIGNIFICANT", evidence=LiveEvidence(_record(true_sharpe=0.0))),
        verdict("CONFIDENCE", confidence=0.5),
        verdict("NOT_FINITE", confidence=float("nan")),
    ]
    trades = _trades()
    live = LiveEvidence(_record(ended_days_ago=30), trades)
    rows.append(
        measure(
            "validate, 240 live trades in the moments", validator.validate,
            signal, live, history, context, costs, specified=SPECIFIED_NS, goal=GOAL_NS,
            floor=EMPTY_CALL,
        )
    )  # fmt: skip
    moments, other = RunningMoments(), RunningMoments()
    for k in range(100):
        other.add(0.01 * (-1) ** k)
    entry = Entry(ts_ns=NOW_NS, symbol="BTCUSDT", notional=100.0)
    rows += [
        measure("history takes in a closed trade", _history().close, trades[-1]),
        measure("history takes in an entry", _history().enter, entry),
        measure("evidence takes in a closed trade", live.observe, trades[-1]),
        measure("running moments add", moments.add, 0.01),
        measure("running moments merge", moments.merge, other),
    ]
    return [*rows, *_statistics(), _power()]


def _statistics() -> list[Result]:
    history = synthetic_history(_generator(), rule_id="r", to_ms=NOW_MS)
    weeks = week_number(history.entry_ms)
    provenance = Provenance(Origin.REAL, "1h", ("A",), NOW_MS, "", "", 1)
    return [
        _milliseconds(
            "week-cluster bootstrap, 4,999 draws",
            lambda: statistics.week_cluster_p(weeks, history.net, _generator()),
        ),
        _milliseconds(
            "bootstrap interval of the Sharpe ratio, 999 draws",
            lambda: statistics.sharpe_interval(history.daily, _generator()),
        ),
        _milliseconds("Newey-West p", lambda: statistics.newey_west_p(history.daily)),
        _milliseconds(
            "evidence records of 7 rules, 3 years",
            lambda: make_records([history] * 7, provenance),
        ),
    ]


def _power() -> Result:
    found = power.power(GOOD_RULES)
    return of_rounds(
        f"good rules approved, {found.name}", [100 * found.share], unit="%",
        goal=100 * found.least, better="higher",
        note=f"{found.counted} of {found.judged}; chance: `python -m benchmarks.power`",
    )  # fmt: skip


def _milliseconds(name: str, call: Callable[[], object], rounds: int = 5) -> Result:
    spent = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        spent.append((time.perf_counter_ns() - start) / 1e6)
    return of_rounds(name, spent, unit="ms")


def _generator() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(1))


def _record(true_sharpe: float = 3.5, days: int = 1_096, ended_days_ago: int = 0):
    end_ms = NOW_MS - ended_days_ago * DAY_MS
    history = synthetic_history(
        _generator(), rule_id="rule", to_ms=end_ms, true_sharpe=true_sharpe, days=days
    )
    provenance = Provenance(Origin.REAL, "1h", SYMBOLS, end_ms, "", "", 1)
    return make_records([history], provenance, draws=499)[0]


def _signal(**changes: object) -> TradingSignal:
    fields: dict[str, object] = {
        "signal_id": "rule:BTCUSDT:1", "rule_id": "rule", "symbol": "BTCUSDT",
        "action": SignalAction.ENTER, "side": Side.BUY, "confidence": 0.9, "price": 100.0,
        "stop_distance": 0.05, "regime": Regime.STRONG_BULL, "volatility": 0.005, "ts_ns": NOW_NS,
    }  # fmt: skip
    return TradingSignal(**(fields | changes))


def _context(recent_return: float = 0.01) -> MarketContext:
    return MarketContext(Regime.STRONG_BULL, 0.005, recent_return, NOW_NS, Origin.REAL)


def _trades() -> list[ClosedTrade]:
    """Two wins in five; the last two lost."""
    trades = []
    for k in range(300):
        closed = NOW_NS - (2 * (299 - k) + 2) * HOUR_NS
        gain = 2 if k % 5 < 2 else -1
        trades.append(
            ClosedTrade(
                book=Book.VALIDATED, symbol=f"C{k % 9}USDT" if k % 3 else "BTCUSDT",
                side=Side.BUY, rule_id="rule", signal_id="s", opened_ts_ns=closed - HOUR_NS,
                closed_ts_ns=closed, quantity=Decimal(1), entry_price=Decimal(90 + k % 20),
                exit_price=Decimal(91), pnl=Decimal(gain), fees_quote=Decimal(0),
                return_net=gain / 100, exit_reason="signal",
            )
        )  # fmt: skip
    return trades


def _history(
    entries_apart: float = 2.0, mark: float = 101.0, *, grown: bool = False
) -> SignalHistory:
    entries = [
        Entry(
            ts_ns=NOW_NS - int((entries_apart * (299 - k) + 1) * HOUR_NS),
            symbol="BTCUSDT" if k % 3 or entries_apart < 1 else "ETHUSDT",
            notional=500.0 if grown and k >= 296 else 100.0 + k % 7,
        )
        for k in range(300)
    ]
    names = [f"HELD{k}USDT" for k in range(8)]
    positions = [
        Position(
            book=Book.VALIDATED, symbol=name, quantity=Decimal(1), cost=Decimal(100),
            entry_price=Decimal(100), stop_price=Decimal(95), realised=Decimal(0),
            peak_quantity=Decimal(1), fees_quote=Decimal(0), opened_ts_ns=NOW_NS - DAY_NS,
            rule_id="rule", signal_id="s",
        )
        for name in names
    ]  # fmt: skip
    return SignalHistory(_trades(), entries, positions, dict.fromkeys(names, mark))
