"""What an account's journal says, read beside a running process or after it."""

import fcntl
import os
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.portfolio import BreakerState
from bot4_runtime.state.place import JOURNAL, has_journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState


def account_status(home: Path, account: str) -> dict[str, Any]:
    """Return an account's state as plain data.

    Raises:
        DataError: the account has no journal.
    """
    folder = home / "state" / account
    path = folder / JOURNAL
    if not has_journal(folder):
        raise DataError(
            f"account {account!r} has no journal at {path}; `bot4-runtime start` begins one"
        )
    with JournalReader.open(path) as journal:
        state = journal.state(folder / "snapshots")
        where = journal.where
    session = state.session
    return {
        "account": account,
        "running_pid": holder_of(home / "locks" / f"{account}.lock"),
        "mode": session.mode if session else None,
        "origin": session.origin.value if session else None,
        "source": session.source if session else None,
        "strategy": session.strategy if session else None,
        "epoch": state.epoch,
        "events": state.seq,
        "candles": state.inputs,
        "last_candle_open_ms": max(state.cursor.values(), default=None),
        "state_hash": state.state_hash(),
        "regimes": {symbol: e.regime.label for symbol, e in sorted(state.regimes.items())},
        "models": {
            interval: {"hmm_sha256": m.hmm_sha256, "lstm_sha256": m.lstm_sha256}
            for interval, m in sorted(state.models.items())
        },
        "books": {name.value: _book(state, name) for name in state.books},
        "journal": str(path.resolve()) if path.exists() else where,
    }


def holder_of(lock: Path) -> int | None:
    """Return the process that holds an account's lock file; None when nobody does."""
    try:
        file = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(file, 32).strip() or -1)  # -1: it has not said who it is yet
    finally:
        os.close(file)
    return None


def print_status(found: dict[str, Any], console: Console) -> None:
    """Show a status as tables."""
    running = f"running, process {found['running_pid']}" if found["running_pid"] else "not running"
    console.print(
        f"Account {found['account']}: {running}; {found['strategy']} on {found['source']}, "
        f"{found['candles']:,} candles, {found['events']:,} events.",
        highlight=False,
    )
    if found["origin"] == Origin.SIMULATED.value:
        console.print("[yellow]The market is SIMULATED: not real prices.[/]")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Book", no_wrap=True)
    for column in ("Equity", "P&L", "Fees"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("Positions")
    table.add_column("Live", justify="right")
    table.add_column("Breaker")
    for name, book in found["books"].items():
        table.add_row(
            name,
            f"{float(book['equity_quote']):,.2f}",
            f"{float(book['pnl_quote']):+,.2f}",
            f"{float(book['fees_quote']):,.2f}",
            "\n".join(f"{p['symbol']} {p['quantity']}" for p in book["positions"]) or "none",
            str(len(book["live_orders"])),
            book["breaker"],
        )
    console.print(table)
    console.print(f"State hash {found['state_hash']}", highlight=False)


def _book(state: TradingState, name: Any) -> dict[str, Any]:
    book = state.books[name]
    return {
        "equity_quote": str(book.metrics.equity),
        "pnl_quote": str(book.metrics.equity - book.initial_cash),
        "cash_quote": str(book.cash),
        "fees_quote": str(book.fees_quote),
        "drawdown": book.metrics.drawdown,
        "leverage": book.metrics.leverage,
        "trades": book.trades_total,
        "orders": book.orders_total,
        "breaker": _breaker(book.breaker),
        "positions": [
            {
                "symbol": held.symbol,
                "quantity": str(held.quantity),
                "entry_price": str(held.entry_price),
                "stop_price": str(held.stop_price),
                "mark": state.marks[held.symbol],
            }
            for held in book.positions.values()
        ],
        "live_orders": [
            {
                "intent_no": order.intent.intent_no,
                "symbol": order.intent.symbol,
                "purpose": order.intent.purpose.value,
                "type": order.intent.order_type.value,
                "status": order.status.value,
                "quantity": str(order.intent.quantity),
                "filled": str(order.filled),
                "price": str(order.intent.worst_price),
            }
            for order in state.all_live_orders(name)
        ],
    }


def _breaker(breaker: BreakerState) -> str:
    text = breaker.phase.value + (f" ({breaker.reason})" if breaker.reason else "")
    if not breaker.halted:
        return text
    return f"{'flattened' if breaker.flattening else 'halted'}: {breaker.halt_reason}; {text}"
