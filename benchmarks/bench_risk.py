"""Risk: the whole manager, what it consists of, and the flat check alone; metrics.

`RiskManager.validate` is what every entry goes through: it takes an intent and a view and answers
with a verdict; beside it stands NautilusTrader's pre-trade check. What a view holds entries
against is laid out with the first intent that is judged against it, and the amounts of an intent
are read once, so `validate` has three prices, and its rows say which:

- "laid out": the view and the very intent were judged before;
- "new intent": the view was, the intent was not;
- "new view and intent": neither was. This is what the engine pays for each signal today.

Those with 8 positions and 8 open orders carry the targets, all three alike. A refusal's size that
would pass is worked out when it is asked for, and is a row of its own. The flat check
(`EntryCheck.check`) is the form that the design's prototype measured: four numbers in, a code
out, against a view prepared before. No order takes that way today. Building the view is a row
too, since the engine builds one for each signal.
"""

import random
import time
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from benchmarks.harness import (
    EMPTY_CALL,
    Result,
    floors,
    measure,
    of_rounds,
    peers,
    throughput,
)
from bot4_runtime.domain.order import Book, OrderIntent, OrderType, Purpose, Side, TimeInForce
from bot4_runtime.domain.portfolio import BreakerState, RiskMetrics
from bot4_runtime.risk.correlation import CorrelationTable
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import (
    HeldPosition,
    OpenOrder,
    Revision,
    RiskApproved,
    RiskManager,
    RiskRefused,
    RiskView,
)
from bot4_runtime.risk.metrics import portfolio_risk

TITLE = "Risk: 7 limits, spot, empty book and 8 positions + 8 open orders"
NOW_NS = 1_780_000_000_000_000_000
SYMBOL = "BTCUSDT"
OTHERS = [f"ALT{number}USDT" for number in range(8)]
ROWS = 100_000
WHOLE = 10_000
NEW, ROUNDS = 100, 60
NAUTILUS = "NautilusTrader pre-trade check, limit order"
READ = "read an intent's three Decimals as floats"


def run() -> list[Result]:
    manager = RiskManager(RiskLimits())
    table = _correlations()
    intent, large = _intent("1"), _intent("5")
    results = floors()
    results.append(measure(READ, _read, intent, kind="floor"))
    for name, held in (("empty book", []), ("8 + 8", OTHERS)):
        view = _view(held, table)
        refused, approved = manager.validate(large, view), manager.validate(intent, view)
        assert isinstance(approved, RiskApproved)
        assert isinstance(refused, RiskRefused)
        assert refused.would_pass_size > 1
        claims = {"peers": (NAUTILUS,)} | ({"specified": 100, "goal": 50} if held else {})
        for words, quantity, judged in (("approves", "1", intent), ("refuses", "5", large)):
            row = f"validate, {words}, {name}"
            results += [
                measure(
                    f"{row}, laid out", manager.validate, judged, view, floor=EMPTY_CALL, **claims
                ),
                _each_new(
                    f"{row}, new intent", manager.validate,
                    lambda quantity=quantity, view=view: (_intent(quantity), view),
                    floor=READ, **claims,
                ),
                _each_new(
                    f"{row}, new view and intent", manager.validate,
                    lambda quantity=quantity, held=held: (_intent(quantity), _view(held, table)),
                    floor=READ, **claims,
                ),
            ]  # fmt: skip
        results += [
            _each_new(
                f"read the size that would pass, {name}", _offer,
                lambda view=view: (manager.validate(large, view),),
            ),
            measure(f"prepare the flat check, {name}", manager.prepare, SYMBOL, Side.BUY, view),
            measure(f"build the view, {name}", _view, held, table),
        ]  # fmt: skip
    check = manager.prepare(SYMBOL, Side.BUY, view, Revision(), 1_000_000_000)
    assert check.check(1.0, 100.0, 95.0, NOW_NS) == 0
    assert check.check(5.0, 100.0, 95.0, NOW_NS) != 0
    results += [
        measure(
            f"flat check of a prepared view, {words}", check.check, quantity, 100.0, 95.0, NOW_NS,
            specified=100, floor=EMPTY_CALL,
        )
        for words, quantity in (("passes", 1.0), ("refuses", 5.0))
    ]  # fmt: skip
    quantities = [0.5 + number / ROWS for number in range(ROWS)]
    prices, stops = [100.0] * ROWS, [95.0] * ROWS

    def batch() -> int:
        return len(check.check_many(quantities, prices, stops, NOW_NS))

    def one_by_one() -> int:
        for _ in range(WHOLE):
            manager.validate(intent, view)
        return WHOLE

    entries = [_intent("1") for _ in range(WHOLE)]
    manager.validate_many(entries, view)
    claims = {"specified": 10_000, "goal": 10_000_000}
    results += [
        throughput("validate, one by one, 8 + 8, laid out", one_by_one, **claims),
        throughput(
            "validate in batch, 8 + 8, laid out",
            lambda: len(manager.validate_many(entries, view)), **claims,
        ),
        _batch_of_new(manager, view, **claims),
        throughput("flat checks of one prepared view in batch", batch, specified=10_000),
    ]  # fmt: skip
    return results + _metrics() + peers("risk", (NAUTILUS,))


def _read(intent: OrderIntent) -> None:
    float(intent.quantity)
    float(intent.reference_price)
    float(intent.stop_loss or 0)


def _offer(refused: RiskRefused) -> Decimal:
    return refused.would_pass_size


def _each_new(
    name: str,
    call: Callable[..., object],
    make: Callable[[], tuple[object, ...]],
    **claims: object,
) -> Result:
    """Time calls in nanoseconds, each with arguments that are made anew before the clock runs."""
    rounds = []
    for _ in range(ROUNDS):
        made = [make() for _ in range(NEW)]
        start = time.perf_counter_ns()
        for arguments in made:
            call(*arguments)
        rounds.append((time.perf_counter_ns() - start) / NEW)
    return of_rounds(name, rounds, **claims)


def _batch_of_new(manager: RiskManager, view: RiskView, **claims: float) -> Result:
    rates = []
    for _ in range(5):
        entries = [_intent("1") for _ in range(WHOLE)]
        start = time.perf_counter_ns()
        manager.validate_many(entries, view)
        rates.append(WHOLE * 1e9 / (time.perf_counter_ns() - start))
    return of_rounds(
        "validate in batch, 8 + 8, new intents", rates, unit="/s", better="higher", **claims
    )


def _metrics() -> list[Result]:
    rng = np.random.default_rng(1)
    returns = 0.01 * rng.standard_normal((500, 20))
    equity = 10_000.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(500)))
    held = [HeldPosition(f"S{number}", 1.0 + number, 10.0) for number in range(20)]
    return [
        measure(
            "all metrics, 20 positions x 500 returns",
            portfolio_risk, held, equity, returns, specified=1_000_000,
        ),
    ]  # fmt: skip


def _correlations() -> CorrelationTable:
    table, draw = CorrelationTable(), random.Random(1)
    for hour in range(200):
        for symbol in (SYMBOL, *OTHERS):
            table.update(symbol, hour * 3_600_000, draw.gauss(0, 0.01))
    return table


def _view(held: list[str], table: CorrelationTable) -> RiskView:
    return RiskView(
        equity=10_000.0,
        cash_free=9_000.0,
        marks={SYMBOL: 100.0} | dict.fromkeys(held, 50.0),
        positions=[HeldPosition(symbol, 1.0, 50.0) for symbol in held],
        open_orders=[OpenOrder(symbol, 1, 0.5, 49.0) for symbol in held],
        correlations=table,
        depth_quote=1e6,
        breaker=BreakerState(),
        metrics=_METRICS,
        now_ns=NOW_NS,
    )


def _intent(quantity: str) -> OrderIntent:
    return OrderIntent(
        intent_no=1,
        book=Book.VALIDATED,
        purpose=Purpose.ENTRY,
        symbol=SYMBOL,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        quantity=Decimal(quantity),
        price=None,
        stop_price=None,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference_price=Decimal(100),
        stop_loss=Decimal(95),
        expires_after=3,
        signal_id="rule:BTCUSDT:0",
        rule_id="rule",
        ts_ns=NOW_NS,
    )


_METRICS = RiskMetrics(
    equity=Decimal(10_000),
    peak_equity=Decimal(10_000),
    drawdown=0.0,
    day=0,
    day_start_equity=Decimal(10_000),
    exposure=Decimal(0),
    leverage=0.0,
)
