"""A desk to judge: builders of signals, trades, entries, positions and evidence."""

from decimal import Decimal
from types import SimpleNamespace

import pytest

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.order import Book, Side
from bot4_runtime.domain.position import ClosedTrade, Position
from bot4_runtime.domain.regime import Regime
from bot4_runtime.domain.signal import SignalAction, TradingSignal
from bot4_runtime.signals.context import MarketContext, TradeCosts
from bot4_runtime.signals.history import DAY_NS, HOUR_NS, SignalHistory

NOW_NS = 20_000 * DAY_NS
NOW_MS = NOW_NS // 1_000_000
DAY_MS = 86_400_000


class Desk:
    now_ns = NOW_NS
    now_ms = NOW_MS
    day_ms = DAY_MS

    def signal(self, **changes):
        fields = {
            "signal_id": "rule:BTCUSDT:1",
            "rule_id": "rule",
            "symbol": "BTCUSDT",
            "action": SignalAction.ENTER,
            "side": Side.BUY,
            "confidence": 0.9,
            "price": 100.0,
            "stop_distance": 0.05,
            "regime": Regime.STRONG_BULL,
            "volatility": 0.005,
            "ts_ns": NOW_NS,
        }
        return TradingSignal(**(fields | changes))

    def trade(self, pnl=1.0, hours_ago=48.0, **changes):
        closed = NOW_NS - int(hours_ago * HOUR_NS)
        fields = {
            "book": Book.VALIDATED,
            "symbol": "BTCUSDT",
            "side": Side.BUY,
            "rule_id": "rule",
            "signal_id": "s",
            "opened_ts_ns": closed - HOUR_NS,
            "closed_ts_ns": closed,
            "quantity": Decimal(1),
            "entry_price": Decimal(90),
            "exit_price": Decimal(91),
            "pnl": Decimal(repr(pnl)),
            "fees_quote": Decimal(0),
            "return_net": pnl / 100.0,
            "exit_reason": "signal",
        }
        return ClosedTrade(**(fields | changes))

    def entry(self, hours_ago, notional=100.0, symbol="BTCUSDT"):
        ts_ns = NOW_NS - int(hours_ago * HOUR_NS)
        return SimpleNamespace(ts_ns=ts_ns, symbol=symbol, notional=notional)

    def position(self, **changes):
        fields = {
            "book": Book.VALIDATED,
            "symbol": "ETHUSDT",
            "quantity": Decimal(1),
            "cost": Decimal(100),
            "entry_price": Decimal(100),
            "stop_price": Decimal(95),
            "realised": Decimal(0),
            "peak_quantity": Decimal(1),
            "fees_quote": Decimal(0),
            "opened_ts_ns": NOW_NS - DAY_NS,
            "rule_id": "rule",
            "signal_id": "s",
        }
        return Position(**(fields | changes))

    def history(self, trades=(), entries=(), positions=(), marks=None):
        return SignalHistory(list(trades), list(entries), list(positions), marks or {})

    def context(self, **changes):
        fields = {
            "regime": Regime.STRONG_BULL,
            "volatility": 0.005,
            "recent_return": 0.01,
            "now_ns": NOW_NS,
            "origin": Origin.REAL,
        }
        return MarketContext(**(fields | changes))

    def costs(self, **changes):
        fields = {"fee_rate_round_trip": 0.002, "slippage_round_trip": 0.0004}
        return TradeCosts(**(fields | changes))

    def evidence(self, **changes):
        fields = {
            "rule_id": "rule",
            "origin": Origin.REAL,
            "synthetic": False,
            "interval": "1h",
            "symbols": ("BTCUSDT",),
            "period_from_ms": NOW_MS - 1000 * DAY_MS,
            "period_to_ms": NOW_MS - 10 * DAY_MS,
            "n_trades": 400,
            "n_eff_weeks": 140,
            "mean_net": 0.0104,
            "std_net": 0.03,
            "skewness_net": 0.5,
            "kurtosis_net": 4.0,
            "win_rate": 0.4,
            "avg_win": 0.05,
            "avg_loss": 0.016,
            "cost_round_trip": 0.0024,
            "p_value_raw": 0.001,
            "p_value_bh": 0.004,
            "p_newey_west": 0.001,
            "p_spec_t": 0.001,
            "n_days": 990,
            "mean_daily": 0.0004,
            "std_daily": 0.0021,
            "skewness_daily": 0.3,
            "kurtosis_daily": 5.0,
            "sharpe": 2.6,
            "sharpe_low": 1.4,
            "sharpe_high": 3.8,
            "psr": 0.999,
            "dsr": 0.98,
            "holding_days": 3.0,
            "rules_tried": 7,
            "method": "",
            "seed": 1,
            "computed_ms": NOW_MS - 9 * DAY_MS,
            "expires_ms": NOW_MS + 80 * DAY_MS,
            "hmm_sha256": "",
            "lstm_sha256": "",
        }
        return EvidenceRecord(**(fields | changes))


@pytest.fixture(scope="session")
def desk():
    return Desk()
