"""Builders of intents and views, shared by the tests of the risk room."""

from collections.abc import Callable
from decimal import Decimal

import pytest

from bot4_runtime.domain.order import Book, OrderIntent, OrderType, Purpose, Side, TimeInForce
from bot4_runtime.domain.portfolio import BreakerState, RiskMetrics
from bot4_runtime.risk.correlation import FixedCorrelations
from bot4_runtime.risk.exposure import RiskView


def _metrics(
    equity="10000", peak="10000", drawdown=0.0, day_start="10000", day=0, leverage=0.0
) -> RiskMetrics:
    return RiskMetrics(
        equity=Decimal(equity),
        peak_equity=Decimal(peak),
        drawdown=drawdown,
        day=day,
        day_start_equity=Decimal(day_start),
        exposure=Decimal(0),
        leverage=leverage,
    )


def _intent(**changes) -> OrderIntent:
    """Buy 1 BTC at the market, 100 USDT, stop at 95: 1 % of the view's equity."""
    fields = {
        "intent_no": 1,
        "book": Book.VALIDATED,
        "purpose": Purpose.ENTRY,
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "order_type": OrderType.MARKET,
        "quantity": Decimal(1),
        "price": None,
        "stop_price": None,
        "time_in_force": TimeInForce.GTC,
        "reduce_only": False,
        "reference_price": Decimal(100),
        "stop_loss": Decimal(95),
        "expires_after": 0,
        "signal_id": "rule:BTCUSDT:0",
        "rule_id": "rule",
        "ts_ns": 0,
    }
    return OrderIntent(**(fields | changes))


def _view(**changes) -> RiskView:
    """A calm book of 10,000 USDT that holds nothing; `mark` is the mark of BTCUSDT."""
    fields = {
        "equity": 10_000.0,
        "cash_free": 10_000.0,
        "marks": {"BTCUSDT": 100.0, "ETHUSDT": 50.0},
        "positions": [],
        "open_orders": [],
        "correlations": FixedCorrelations({}),
        "depth_quote": 1e6,
        "breaker": BreakerState(),
        "metrics": _metrics(),
        "now_ns": 1_000,
    }
    if "mark" in changes:
        changes["marks"] = {"BTCUSDT": changes.pop("mark"), "ETHUSDT": 50.0}
    return RiskView(**(fields | changes))


@pytest.fixture(scope="session")
def metrics() -> Callable[..., RiskMetrics]:
    return _metrics


@pytest.fixture(scope="session")
def intent() -> Callable[..., OrderIntent]:
    return _intent


@pytest.fixture(scope="session")
def view() -> Callable[..., RiskView]:
    return _view
