"""Any order of entries, fills, lost replies, cancels and price moves keeps the limits."""

import itertools
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bot4_runtime.domain.order import Book, OrderIntent, OrderType, Purpose, Side, TimeInForce
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState, RiskMetrics
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import (
    HeldPosition,
    OpenOrder,
    RiskApproved,
    RiskManager,
    RiskRefused,
    RiskView,
)

SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
EQUITY = 10_000.0
LIMITS = RiskLimits(max_position_pct=0.1, max_leverage=0.22, max_correlation=0.6)
CORRELATIONS = {
    ("BTCUSDT", "ETHUSDT"): 0.5,
    ("BTCUSDT", "XRPUSDT"): 0.7,
    ("ETHUSDT", "XRPUSDT"): -0.7,
}
METRICS = RiskMetrics(
    equity=Decimal(10_000), peak_equity=Decimal(10_000), drawdown=0.0, day=0,
    day_start_equity=Decimal(10_000), exposure=Decimal(0), leverage=0.0,
)  # fmt: skip


class TradingMachine(RuleBasedStateMachine):
    """A book traded by somebody who tries everything.

    Prices that move can carry a position past a limit by themselves; what is promised is
    that nothing the manager approves does. So the limits in force for the checks are the
    larger of the configured ones and what the last price move left behind.
    """

    def __init__(self):
        super().__init__()
        self.manager = RiskManager(LIMITS)
        self.marks = dict.fromkeys(SYMBOLS, 100.0)
        self.held = dict.fromkeys(SYMBOLS, 0.0)
        self.orders = []  # [symbol, sign, quantity, price, reduce_only]
        self.breaker = BreakerState()
        self._prices_moved()

    def _view(self, symbol):
        return RiskView(
            equity=EQUITY,
            cash_free=1e9,
            marks=self.marks,
            positions=[HeldPosition(s, q, self.marks[s]) for s, q in self.held.items() if q],
            open_orders=[
                OpenOrder(s, sign, quantity, price, reduce_only=reduce_only)
                for s, sign, quantity, price, reduce_only in self.orders
            ],
            correlations=FixedCorrelations(CORRELATIONS),
            depth_quote=1e9,
            breaker=self.breaker,
            metrics=METRICS,
            now_ns=1,
        )

    def _ends(self, symbol):
        """Brute force: the least and the most that can be held, whatever fills in what order.

        An order that only reduces fills no further than to flat, at its moment.
        """
        orders = [o for o in self.orders if o[0] == symbol]
        least = most = self.held[symbol]
        for fills in itertools.permutations(orders):
            held = self.held[symbol]
            for _, sign, quantity, _, reduce_only in fills:
                most_it_may = max(-sign * held, 0.0) if reduce_only else quantity
                held += sign * min(quantity, most_it_may)
                least, most = min(least, held), max(most, held)
        return least, most

    def _worst(self, symbol):
        return max(map(abs, self._ends(symbol))) * self.marks[symbol]

    def _prices_moved(self):
        worst = {symbol: self._worst(symbol) for symbol in SYMBOLS}
        self.allowed = {s: max(0.1 * EQUITY, value) for s, value in worst.items()}
        self.allowed_total = max(0.22 * EQUITY, sum(worst.values()))

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(Side),
        quantity=st.decimals("0.5", "40", places=1),
        kind=st.sampled_from(["market", "limit", "stop"]),
        offset=st.sampled_from(["0.5", "0.97", "1", "1.03", "2"]),
        reduce_only=st.booleans(),
        accept_offer=st.booleans(),
    )
    def order(self, symbol, side, quantity, kind, offset, reduce_only, accept_offer):
        if len(self.orders) >= 9 or sum(o[0] == symbol for o in self.orders) >= 4:
            return
        mark = Decimal(repr(self.marks[symbol]))
        price = mark * Decimal(offset) if kind != "market" else None
        far = Decimal("0.01") if side is Side.BUY else Decimal(1_000_000)
        intent = OrderIntent(
            intent_no=1, book=Book.VALIDATED, purpose=Purpose.ENTRY, symbol=symbol, side=side,
            order_type={"market": OrderType.MARKET, "limit": OrderType.LIMIT}.get(
                kind, OrderType.STOP_MARKET
            ),
            quantity=quantity,
            price=price if kind == "limit" else None,
            stop_price=price if kind == "stop" else None,
            time_in_force=TimeInForce.GTC, reduce_only=reduce_only, reference_price=mark,
            stop_loss=far, expires_after=0, signal_id="s", rule_id="r", ts_ns=0,
        )  # fmt: skip
        view = self._view(symbol)
        answer = self.manager.validate(intent, view)
        if isinstance(answer, RiskRefused) and answer.would_pass_size > 0 and accept_offer:
            intent = OrderIntent(
                **{name: getattr(intent, name) for name in intent.__struct_fields__}
                | {"quantity": answer.would_pass_size}
            )
            answer = self.manager.validate(intent, view)
            assert isinstance(answer, RiskApproved)
        if not isinstance(answer, RiskApproved):
            return
        assert 0.0 <= answer.risk_score <= 1.0
        quantity = float(answer.size)
        if reduce_only:
            assert abs(self.held[symbol] + side.sign * quantity) < abs(self.held[symbol])
        else:
            assert self.breaker.phase is not BreakerPhase.OPEN
            assert not self.breaker.halted
        order = [symbol, side.sign, quantity, float(intent.worst_price), reduce_only]
        self.orders.append(order)
        if not reduce_only:
            share = 0.25 if self.breaker.phase is BreakerPhase.HALF_OPEN else 1.0
            assert self._worst(symbol) <= 0.1 * EQUITY * share * (1 + 1e-9)
            assert sum(map(self._worst, SYMBOLS)) <= 0.22 * EQUITY * (1 + 1e-9)
            self._assert_uncorrelated(symbol, side.sign)

    def _assert_uncorrelated(self, symbol, sign):
        for other in SYMBOLS:
            if other == symbol:
                continue
            pair = CORRELATIONS.get((symbol, other), CORRELATIONS.get((other, symbol)))
            least, most = self._ends(other)
            if most > 1e-9:
                assert sign * pair < 0.6
            if least < -1e-9:
                assert -sign * pair < 0.6

    @rule(which=st.integers(0, 6), share=st.sampled_from([0.25, 0.5, 1.0]))
    def fill(self, which, share):
        if not self.orders:
            return
        order = self.orders[which % len(self.orders)]
        quantity = order[2] * share
        if order[4]:  # the venue fills a reduce-only order no further than to flat
            quantity = min(quantity, max(-order[1] * self.held[order[0]], 0.0))
        self.held[order[0]] += order[1] * quantity
        order[2] -= quantity
        if order[2] <= 1e-9 or (order[4] and not quantity):
            self.orders.remove(order)

    @rule(which=st.integers(0, 6))
    def cancel(self, which):
        """Only what the venue confirms; an order whose reply is lost stays, and may fill late."""
        if self.orders:
            self.orders.pop(which % len(self.orders))

    @rule(symbol=st.sampled_from(SYMBOLS), factor=st.sampled_from([0.8, 0.95, 1.05, 1.3]))
    def price_moves(self, symbol, factor):
        self.marks[symbol] *= factor
        self._prices_moved()

    @rule(phase=st.sampled_from(BreakerPhase), halted=st.booleans())
    def breaker_moves(self, phase, halted):
        self.breaker = BreakerState(phase=phase, halted=halted)

    @invariant()
    def the_limits_hold_however_open_orders_fill(self):
        for symbol in SYMBOLS:
            assert self._worst(symbol) <= self.allowed[symbol] * (1 + 1e-9)
        assert sum(map(self._worst, SYMBOLS)) <= self.allowed_total * (1 + 1e-9)


TradingMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None
)
TestNoSequencePassesALimit = TradingMachine.TestCase
