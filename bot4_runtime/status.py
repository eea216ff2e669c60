"""What an account's journal says, read beside a running process or after it."""

import fcntl
import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bot4_runtime.book_risk import Candles, book_risk, recent_candles
from bot4_runtime.commands import waiting_orders
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.events import (
    ModelTrial,
    OperatorCommand,
    OrderRejected,
    OverrideSet,
    ProtectionAlarm,
    SessionStarted,
)
from bot4_runtime.domain.order import ENTRIES_WAIT, Book
from bot4_runtime.domain.portfolio import BreakerState
from bot4_runtime.risk.alarm import INFO, MEASURED
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState


def account_status(home: Path, account: str, configured: str = "sqlite") -> dict[str, Any]:
    """Return an account's state as plain data.

    Args:
        home: the runtime's folder.
        account: its name.
        configured: ``state.journal``, asked where the folder has neither journal nor note.

    Raises:
        JournalMissing: the account has no journal.
        JournalError: it is another account's, or cannot be read.
    """
    folder = home / "state" / account
    path = folder / JOURNAL
    with JournalReader.of_account(folder, account, configured) as journal:
        state = journal.state(folder / "snapshots")
        candles = recent_candles(journal, state.seq)
        where = journal.where
        told = _told_since(journal)
        now_ns = max((e.ts_event_ns for _, e in journal.events(state.seq)), default=0)
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
        "model_trials": told.trials,
        "books": {name.value: _book(state, name, candles) for name in state.books},
        "overrides": [_override(each) for each in state.overrides if now_ns < each.expires_ts_ns],
        "queued_orders": [
            {"command_id": order.command_id, "verb": order.verb, "reason": order.reason}
            for order in waiting_orders(folder)
            if order.command_id not in told.obeyed
        ],
        "rejected": dict(sorted(told.rejected.items())),
        "entries_wait": told.entries_wait,
        "protection": {
            "alarms": list(told.alarms.values()),
            "in_flight": [
                {"number": p.number, "action": p.action, "symbol": p.symbol, "reason": p.reason}
                for p in state.protection.values()
            ],
        },
        "journal": str(path.resolve()) if path.exists() else where,
    }


@dataclass(slots=True)
class _Told:
    """What the fold does not keep: orders obeyed, rejections by code, why entries waited last.

    And, by interval, what became of the pair of models that was promoted last; by what they are
    about, the alarms of liquidation prevention that were not taken back.
    """

    obeyed: set[str] = field(default_factory=set)
    rejected: Counter[str] = field(default_factory=Counter)
    entries_wait: str = ""
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    alarms: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


def _told_since(journal: JournalReader) -> _Told:
    told = _Told()
    kinds = (
        SessionStarted,
        OrderRejected,
        OperatorCommand,
        OverrideSet,
        ModelTrial,
        ProtectionAlarm,
    )
    for _, event in journal.events(kinds=kinds):
        match event:
            case SessionStarted():
                told.entries_wait = ""
                told.alarms.clear()
            case OrderRejected():
                told.rejected[event.code] += 1
                if event.code == ENTRIES_WAIT:
                    told.entries_wait = event.reason
            case OperatorCommand() | OverrideSet():
                told.obeyed.add(event.command_id)
            case ModelTrial():
                told.trials[event.interval] = _trial(event)
            case ProtectionAlarm():
                _alarmed(told.alarms, event)
            case _:
                pass
    return told


def _alarmed(alarms: dict[tuple[str, str], dict[str, Any]], event: ProtectionAlarm) -> None:
    """Keep an alarm in place of the one before it, or take that one back; the newest come last."""
    kind = "MARGIN" if event.code in MEASURED else event.code
    alarms.pop((kind, event.subject), None)
    if event.severity != INFO:
        alarms[kind, event.subject] = {
            "time": datetime.fromtimestamp(event.ts_event_ns / 1e9, UTC).isoformat(),
            "severity": event.severity,
            "code": event.code,
            "subject": event.subject,
            "text": event.text,
        }


def _trial(event: ModelTrial) -> dict[str, Any]:
    return {
        "time": datetime.fromtimestamp(event.ts_event_ns / 1e9, UTC).isoformat(),
        "outcome": event.outcome,
        "hmm_sha256": event.hmm_sha256,
        "lstm_sha256": event.lstm_sha256,
        "candles": event.candles,
        "agreement": event.agreement,
        "latency_ms": event.latency_ms,
        "reason": event.reason,
    }


def _override(event: OverrideSet) -> dict[str, Any]:
    return {
        "halt": event.halt,
        "limits": event.limits,
        "reason": event.reason,
        "until": datetime.fromtimestamp(event.expires_ts_ns / 1e9, UTC).isoformat(),
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
    for name, book in found["books"].items():
        console.print(_told(name, book["risk"]), highlight=False)
    for line in _warnings(found):
        console.print(line, style="yellow", highlight=False, markup=False)
    console.print(f"State hash {found['state_hash']}", highlight=False)


def _warnings(found: dict[str, Any]) -> list[str]:
    """Say what keeps entries back, what waits, and what is missing from the numbers."""
    lines = []
    for each in found["overrides"]:
        limits = [f"{name} {value:g}" for name, value in sorted(each["limits"].items())]
        what = ", ".join([*(["no entries"] if each["halt"] else []), *limits])
        lines.append(f"Override: {what} until {each['until']}, market time: {each['reason']}")
    if found["queued_orders"]:
        verbs = ", ".join(order["verb"] for order in found["queued_orders"])
        lines.append(f"Queued orders: {len(found['queued_orders'])} ({verbs})")
    if found["rejected"]:
        counts = ", ".join(f"{code} {count}" for code, count in found["rejected"].items())
        lines.append(f"Rejected by the gate or the venue: {counts}")
    for interval, trial in found["model_trials"].items():
        pair = (trial["lstm_sha256"] or trial["hmm_sha256"])[:12] or "unknown"
        reason = f": {trial['reason']}" if trial["reason"] else ""
        lines.append(f"Promoted {interval} models {pair}: {trial['outcome']}{reason}")
    lines += [
        f"No {interval} models trade, and nothing is entered until a pair is promoted"
        for interval, pair in found["models"].items()
        if not pair["hmm_sha256"]
    ]
    protection = found["protection"]
    lines += [
        f"{a['severity'].capitalize()} at {a['time']}: {a['text']}" for a in protection["alarms"]
    ]
    lines += [
        f"Liquidation prevention: {p['action']} {p['symbol']} is in flight ({p['reason']})"
        for p in protection["in_flight"]
    ]
    if found["entries_wait"]:
        lines.append(f"Entries waited last because {found['entries_wait']}")
    for name, book in found["books"].items():
        lines += [
            f"{name}: {fee} {asset} of fees had no price and are NOT counted"
            for asset, fee in book["unvalued_fees"].items()
        ]
    return lines


def _told(name: str, risk: dict[str, Any]) -> str:
    exposure = ", ".join(f"{s} {value:+,.2f}" for s, value in risk["exposure_quote"].items())
    ratio = risk["sharpe_realised"]
    told = "not known"
    if ratio is not None:
        told = f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return (
        f"{name} risk: exposure {exposure or 'none'}, leverage {_known(risk['leverage'], '.2f')}, "
        f"drawdown {risk['drawdown']:.2%}; one candle's value at risk (95 %) "
        f"{_known(risk['value_at_risk_95'], '.2%')}, expected shortfall "
        f"{_known(risk['expected_shortfall_95'], '.2%')}; Sharpe of realised days {told}."
    )


def _known(value: float | None, shown: str) -> str:
    return "not known" if value is None else format(value, shown)


def _book(state: TradingState, name: Book, candles: Candles) -> dict[str, Any]:
    book = state.books[name]
    return {
        "equity_quote": str(book.metrics.equity),
        "pnl_quote": str(book.metrics.equity - book.initial_cash),
        "cash_quote": str(book.cash),
        "fees_quote": str(book.fees_quote),
        "unvalued_fees": {asset: str(fee) for asset, fee in sorted(book.unvalued_fees.items())},
        "drawdown": book.metrics.drawdown,
        "leverage": book.metrics.leverage,
        "risk": book_risk(state, name, candles),
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
