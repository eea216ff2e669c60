"""How risky a book is now, from its state and the journal's last candles: for `status`.

Measures and sources are `risk.metrics`'. A number that is not known is None, never 0: there is
too little history, or nothing is held.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from bot4_runtime.domain.candle import Candle, interval_ms
from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.domain.events import CandleClosed
from bot4_runtime.domain.order import Book
from bot4_runtime.risk.exposure import HeldPosition
from bot4_runtime.risk.metrics import Floats, exposure_by_symbol, leverage, portfolio_risk, sharpe
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState

LEVEL: Final = 0.95
LEAST_RETURNS: Final = 100
"""Candles that all held symbols must have in common before a tail is told."""
LEAST_DAYS: Final = 30
"""Days before a Sharpe ratio is told."""
MOST_RETURNS: Final = 500
RECENT_EVENTS: Final = 20_000
"""How far back in the journal candles are looked for."""
DAY_MS: Final = 86_400_000
NS_PER_MS: Final = 1_000_000

Candles = Mapping[str, Mapping[int, Candle]]


def recent_candles(journal: JournalReader, last_seq: int) -> Candles:
    """Return the journal's last candles, by symbol and open time (ms)."""
    found: dict[str, dict[int, Candle]] = {}
    from_seq = max(last_seq - RECENT_EVENTS, 1)
    for _, event in journal.events(from_seq, kinds=(CandleClosed,)):
        if isinstance(event, CandleClosed):
            candle = event.candle
            found.setdefault(candle.symbol, {})[candle.open_time_ms] = candle
    return found


def book_risk(state: TradingState, book: Book, candles: Candles) -> dict[str, Any]:
    """Return exposure, leverage, tails and Sharpe ratio of a book, as plain data.

    Value at risk and expected shortfall are shares of equity that one candle may cost what is
    held. The Sharpe ratio is of each day's realised profit over the initial cash, less 4 % a
    year, with its 95 % interval.
    """
    kept = state.books[book]
    held = [
        HeldPosition(one.symbol, float(one.quantity), state.marks[one.symbol])
        for one in kept.positions.values()
    ]
    told: dict[str, Any] = {
        "exposure_quote": exposure_by_symbol(held),
        "leverage": None,
        "drawdown": kept.metrics.drawdown,
        "value_at_risk_95": None,
        "expected_shortfall_95": None,
        "returns": 0,
        "sharpe_realised": _sharpe(state, book),
    }
    equity = np.array([float(kept.metrics.peak_equity), float(kept.metrics.equity)])
    returns = _common_returns([one.symbol for one in held], candles) if held else np.empty((0, 0))
    told["returns"] = len(returns)
    with contextlib.suppress(UndefinedStatistic):  # no equity is left: nothing is a share of it
        told["leverage"] = leverage(held, float(equity[-1]))
        if len(returns) >= LEAST_RETURNS:
            look = portfolio_risk(held, equity, returns, LEVEL)
            told["value_at_risk_95"] = look.value_at_risk
            told["expected_shortfall_95"] = look.expected_shortfall
    return told


def _common_returns(symbols: list[str], candles: Candles) -> Floats:
    """Return the last simple returns all symbols have: float64[n, k] (period, symbol)."""
    rows = []
    of = [candles.get(symbol, {}) for symbol in symbols]
    for time_ms in sorted(of[0]):
        before_ms = time_ms - interval_ms(of[0][time_ms].interval)
        if all(time_ms in one and before_ms in one for one in of):
            rows.append([one[time_ms].close / one[before_ms].close - 1.0 for one in of])
    return np.array(rows[-MOST_RETURNS:], dtype=np.float64).reshape(-1, len(symbols))


def _sharpe(state: TradingState, book: Book) -> dict[str, float] | None:
    kept, session = state.books[book], state.session
    if session is None or not state.cursor:
        return None
    first = session.start_ms // DAY_MS
    trades = kept.closed_trades
    if kept.trades_total > len(trades):  # older ones are forgotten: whole days since
        first = trades[0].closed_ts_ns // NS_PER_MS // DAY_MS + 1
    days = max(state.cursor.values()) // DAY_MS - first + 1
    if days < LEAST_DAYS:
        return None
    daily = np.zeros(days)
    for trade in trades:
        day = (trade.closed_ts_ns // NS_PER_MS - 1) // DAY_MS - first
        if 0 <= day < days:
            daily[day] += float(trade.pnl / kept.initial_cash)
    try:
        found = sharpe(daily, "1d")
    except UndefinedStatistic:
        return None
    return {"value": found.value, "low": found.low, "high": found.high, "days": days}
