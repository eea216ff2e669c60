"""Why a signal was acted on or not, told from the journal alone.

The validator's five questions with the numbers that were compared, what risk said, the orders,
their fills, and how the round trip ended. It reads what was journaled when it was decided;
nothing is judged anew.
"""

import difflib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.events import (
    CancelRequested,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    RiskDecided,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.order import Purpose
from bot4_runtime.domain.position import ClosedTrade
from bot4_runtime.report.record import gather
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.strategy.protocol import synthetic_rules

LAST: Final = "last"
RECENT: Final = 20
NEAREST: Final = 3
PASSED: Final = "passed"
FAILED: Final = "FAILED"
NOT_KNOWN: Final = "not known"
_COLOUR: Final = {PASSED: "green", FAILED: "red", NOT_KNOWN: "yellow"}
Story = dict[str, Any]


# ----------------------------------------------------------------------- finding
def recent(journal: JournalReader, count: int = RECENT) -> list[Story]:
    """Return the last decisions, newest first."""
    return [
        {
            "signal_id": decided.signal.signal_id,
            "time": _utc(decided.ts_event_ns),
            "approved": decided.approved,
            "code": decided.code,
            "text": decided.text,
        }
        for _, decided in reversed(_decisions(journal)[-count:])
    ]


def find(journal: JournalReader, name: str) -> tuple[int, SignalDecided]:
    """Return a decision and its sequence number.

    Args:
        journal: opened for reading.
        name: a signal's id, the beginning of one, or ``last``.

    Raises:
        DataError: the journal holds no decisions.
        ConfigError: no signal, or more than one, is meant; the nearest are named.
    """
    decisions = _decisions(journal)
    if not decisions:
        raise DataError(
            "the journal holds no decision on a signal yet; the strategy has proposed no entry"
        )
    if name == LAST:
        return decisions[-1]
    exact = [found for found in decisions if found[1].signal.signal_id == name]
    if exact:
        return exact[-1]
    begun = [found for found in decisions if found[1].signal.signal_id.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    ids = [decided.signal.signal_id for _, decided in begun or decisions]
    near = ids[-NEAREST:] if begun else difflib.get_close_matches(name, ids, NEAREST, cutoff=0.0)
    what = f"{len(begun)} signals begin with {name!r}" if begun else f"there is no signal {name!r}"
    raise ConfigError(f"{what}; {'some' if begun else 'nearest'}: {', '.join(near)}")


def _decisions(journal: JournalReader) -> list[tuple[int, SignalDecided]]:
    return [
        (seq, event)
        for seq, event in journal.events(kinds=(SignalDecided,))
        if isinstance(event, SignalDecided)
    ]


# ----------------------------------------------------------------------- telling
def tell(journal: JournalReader, snapshots: Path | None, name: str) -> Story:
    """Return all the journal says of a signal, as plain data.

    Raises:
        Bot4Error: see `find`; or the journal is damaged.
    """
    seq, decided = find(journal, name)
    signal = decided.signal
    followed = _follow(journal, seq, signal.signal_id)
    return {
        "signal_id": signal.signal_id,
        "seq": seq,
        "rule": signal.rule_id,
        "symbol": signal.symbol,
        "action": signal.action.value,
        "side": signal.side.value,
        "price": signal.price,
        "limit_price": signal.limit_price,
        "stop_distance": signal.stop_distance,
        "regime": None if signal.regime is None else signal.regime.label,
        "reason": signal.reason,
        "override_reason": signal.override_reason,
        "synthetic_evidence": signal.rule_id in _synthetic(journal),
        "time": _utc(signal.ts_ns),
        "approved": decided.approved,
        "code": decided.code,
        "text": decided.text,
        "suggestion": decided.suggestion,
        "steps": steps(decided),
        "numbers": decided.numbers,
        **followed,
        "outcome": _outcome(journal, snapshots, signal.signal_id, followed["orders"]),
    }


def _synthetic(journal: JournalReader) -> tuple[str, ...]:
    """Return the rules whose evidence was drawn, not found in a market."""
    for _, event in journal.events(kinds=(SessionStarted,)):
        if isinstance(event, SessionStarted):
            return synthetic_rules(event.strategy)
    return ()


def steps(decided: SignalDecided) -> list[Story]:
    """Return the five questions, each with its number, its bound and what came of it."""
    told = [
        _bias(decided),
        _significance(decided),
        _above(decided, "expected value", "expected_value", 0.0, _bps),
        _above(decided, "Sharpe ratio", "sharpe", "sharpe_above", _plain),
        _above(decided, "confidence", "confidence", "confidence_above", _percent),
    ]
    deciding = next((step for step in told if step["verdict"] != PASSED), None)
    for step in told:
        step["decided"] = step is deciding
    return told


def _step(name: str, number: str, bound: str, verdict: str, detail: str = "") -> Story:
    return {"step": name, "number": number, "bound": bound, "verdict": verdict, "detail": detail}


def _bias(decided: SignalDecided) -> Story:
    numbers = decided.numbers
    if decided.code.startswith("BIAS_"):
        value, bound = numbers.get("bias_value"), numbers.get("bias_threshold")
        return _step("bias", _plain(value), _plain(bound), FAILED, decided.text)
    if decided.code == "NOT_FINITE" and "of the evidence" not in decided.text:
        return _step("bias", "", "", NOT_KNOWN, decided.text)
    seen = f"{_whole(numbers.get('history_trades'))} trades and "
    seen += f"{_whole(numbers.get('history_entries'))} entries looked back on"
    return _step("bias", "none of 7", "none", PASSED, seen)


def _significance(decided: SignalDecided) -> Story:
    numbers = decided.numbers
    trades, weeks = numbers.get("n_trades"), numbers.get("n_eff_weeks")
    p_value, bound = numbers.get("p_value"), numbers.get("p_value_below")
    name, asked = "significance", f"p below {_plain(bound)}"
    if decided.code == "NO_EVIDENCE":
        return _step(name, _p(p_value), asked, FAILED, decided.text)
    if trades is None or weeks is None:
        return _step(name, "", asked, FAILED, "there is no evidence record")
    sample = f"{trades:.0f} trades in {weeks:.0f} weeks"
    sample += f", {_whole(numbers.get('rules_tried'))} rules tried"
    least_trades, least_weeks = numbers.get("n_trades_least"), numbers.get("n_eff_weeks_least")
    if least_trades is None or least_weeks is None or bound is None or p_value is None:
        return _step(name, _p(p_value), asked, NOT_KNOWN, sample)
    if trades < least_trades or weeks < least_weeks:
        sample += f"; {least_trades:.0f} in {least_weeks:.0f} are needed"
        return _step(name, _p(p_value), asked, FAILED, sample)
    return _step(name, _p(p_value), asked, PASSED if p_value < bound else FAILED, sample)


def _above(decided: SignalDecided, name: str, key: str, bound: float | str, shown: Any) -> Story:
    value = decided.numbers.get(key)
    least = decided.numbers.get(bound) if isinstance(bound, str) else bound
    asked = f"above {shown(least)}"
    detail = _DETAILS[name](decided.numbers)
    if value is None or least is None:
        return _step(name, shown(value), asked, NOT_KNOWN, detail)
    return _step(name, shown(value), asked, PASSED if value > least else FAILED, detail)


def _of_value(numbers: dict[str, float | None]) -> str:
    return (
        f"wins {_percent(numbers.get('win_rate'))}, average win "
        f"{_bps(numbers.get('average_win'))}, average loss {_bps(numbers.get('average_loss'))}, "
        f"costs beyond the record's {_bps(numbers.get('extra_costs'))}"
    )


def _of_sharpe(numbers: dict[str, float | None]) -> str:
    return (
        f"95 % interval {_plain(numbers.get('sharpe_low'))} to "
        f"{_plain(numbers.get('sharpe_high'))}, deflated "
        f"{_plain(numbers.get('deflated_sharpe'))}, "
        f"{_whole(numbers.get('live_trades'))} live trades"
    )


def _of_confidence(numbers: dict[str, float | None]) -> str:
    return f"volatility of a candle {_percent(numbers.get('volatility'))}"


_DETAILS: Final = {
    "expected value": _of_value,
    "Sharpe ratio": _of_sharpe,
    "confidence": _of_confidence,
}


def _follow(journal: JournalReader, from_seq: int, signal_id: str) -> Story:
    """Gather what risk said of the signal and what became of its orders."""
    risk: list[Story] = []
    orders: dict[int, Story] = {}
    kinds = (
        RiskDecided, OrderIntended, OrderAccepted, OrderRejected, OrderFilled, OrderClosed,
        OrderOutcomeUnknown, CancelRequested,
    )  # fmt: skip
    for _, event in journal.events(from_seq, kinds=kinds):
        match event:
            case RiskDecided() if event.signal_id == signal_id:
                risk.append(_risk(event))
            case OrderIntended() if event.intent.signal_id == signal_id:
                orders[event.intent.intent_no] = _order(event)
            case OrderFilled(fill=fill) if fill.intent_no in orders:
                orders[fill.intent_no]["fills"].append(
                    {
                        "time": _utc(fill.ts_event_ns),
                        "price": str(fill.price),
                        "quantity": str(fill.quantity),
                        "fee": f"{fill.fee} {fill.fee_asset}",
                        "liquidity": fill.liquidity.value,
                    }
                )
                orders[fill.intent_no]["status"] = "filled"
            case OrderAccepted() | OrderRejected() | OrderClosed() | OrderOutcomeUnknown():
                if event.intent_no in orders:
                    _note(orders[event.intent_no], event)
            case _:
                pass
    return {"risk": risk, "orders": list(orders.values())}


def _note(
    order: Story, event: OrderAccepted | OrderRejected | OrderClosed | OrderOutcomeUnknown
) -> None:
    if isinstance(event, OrderAccepted):
        order["status"] = "accepted"
        return
    order["why"] = event.reason
    if isinstance(event, OrderRejected):
        order["status"] = f"rejected ({event.code})"
    elif isinstance(event, OrderClosed):
        order["status"] = event.status
    else:
        order["status"] = "unknown"


def _risk(event: RiskDecided) -> Story:
    return {
        "book": event.book.value,
        "quantity": str(event.quantity),
        "approved": event.approved,
        "code": event.code,
        "limit": event.limit,
        "value": event.value,
        "would_pass_size": str(event.would_pass_size),
        "risk_score": event.risk_score,
    }


def _order(event: OrderIntended) -> Story:
    intent = event.intent
    price = intent.price or intent.stop_price
    return {
        "intent_no": intent.intent_no,
        "client_id": event.client_id,
        "book": intent.book.value,
        "purpose": intent.purpose.value,
        "side": intent.side.value,
        "type": intent.order_type.value,
        "quantity": str(intent.quantity),
        "price": None if price is None else str(price),
        "status": "intended",
        "why": "",
        "fills": [],
    }


def _outcome(
    journal: JournalReader, snapshots: Path | None, signal_id: str, orders: Sequence[Story]
) -> list[Story]:
    """Tell each book's round trip; the journal is folded whole only for one long ago."""
    entered = {
        order["book"]
        for order in orders
        if order["purpose"] == Purpose.ENTRY.value and order["fills"]
    }
    if not entered:
        return []
    state = journal.state(snapshots)
    held = [
        {
            "book": book.value,
            "state": "open",
            "quantity": str(position.quantity),
            "funding": str(position.funding_quote),
        }
        for book, held in state.books.items()
        for position in held.positions.values()
        if position.signal_id == signal_id
    ]
    closed = _closed(signal_id, (t for b in state.books.values() for t in b.closed_trades))
    if entered - {told["book"] for told in (*held, *closed)}:
        record = gather(event for _, event in journal.events())
        closed = _closed(signal_id, (t for b in record.books.values() for t in b.trades))
    return [*held, *closed]


def _closed(signal_id: str, trades: Iterable[ClosedTrade]) -> list[Story]:
    return [
        {
            "book": trade.book.value,
            "state": "closed",
            "time": _utc(trade.closed_ts_ns),
            "entry_price": str(trade.entry_price),
            "exit_price": str(trade.exit_price),
            "exit_reason": trade.exit_reason,
            "pnl": str(trade.pnl),
            "fees": str(trade.fees_quote),
            "funding": str(trade.funding_quote),
            "return_net": trade.return_net,
        }
        for trade in trades
        if trade.signal_id == signal_id
    ]


# ---------------------------------------------------------------------- printing
def print_recent(found: Sequence[Story], console: Console) -> None:
    """Show the last decisions."""
    if not found:
        console.print("No signal was decided on yet.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Time, UTC", no_wrap=True)
    table.add_column("Signal", overflow="fold")
    table.add_column("Verdict", overflow="fold")
    for each in found:
        colour = "green" if each["approved"] else "red"
        table.add_row(each["time"], escape(each["signal_id"]), f"[{colour}]{each['code']}[/]")
    console.print(table)
    console.print("bot4-runtime why SIGNAL tells one; `last` is the newest.", highlight=False)


def print_story(story: Story, console: Console) -> None:
    """Show a signal's story in 80 columns."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style or None, highlight=False, markup=False)

    verdict = "APPROVED" if story["approved"] else f"REJECTED, {story['code']}"
    say(f"Signal {story['signal_id']}", "bold")
    say(
        f"{story['time']} UTC: {story['action']} {story['symbol']}, {story['side']} at "
        f"{story['price']:,.8g}, stop {story['stop_distance']:.2%} away"
        + (f", regime {story['regime']}" if story["regime"] else "")
    )
    for name, words in (("reason", "Reason"), ("override_reason", "Ordered by hand")):
        if story[name]:
            say(f"{words}: {story[name]}")
    if story["synthetic_evidence"]:
        say("The evidence of this rule is SYNTHETIC, drawn to pass: an exercise, no strategy.")
    say(f"{verdict}: {story['text']}", "green" if story["approved"] else "red")
    if story["suggestion"]:
        say(f"What would help: {story['suggestion']}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("Question", "Number", "Asked", "Verdict"):
        table.add_column(column, no_wrap=True)
    table.add_column("", overflow="fold", style="dim")
    for step in story["steps"]:
        colour = _COLOUR[step["verdict"]]
        here = " <" if step["decided"] else ""
        table.add_row(
            step["step"],
            step["number"],
            step["bound"],
            f"[{colour}]{step['verdict']}[/]{here}",
            escape(step["detail"]),
        )
    console.print(table)
    for line in _lines(story):
        say(line)


def _lines(story: Story) -> list[str]:
    """Tell risk, orders, fills and outcome, a line each."""
    lines = []
    for told in story["risk"]:
        line = f"Risk, {told['book']} book: {told['quantity']} "
        if told["approved"]:
            line += f"approved; the largest share of a limit used is {told['risk_score']:.0%}"
        else:
            line += f"refused, {told['code']}: {told['value']:.6g} against {told['limit']:.6g}"
            if float(told["would_pass_size"]) > 0:
                line += f"; {told['would_pass_size']} would pass"
        lines.append(line)
    if not story["risk"]:
        lines.append("Risk was not asked.")
    for order in story["orders"]:
        price = f" at {order['price']}" if order["price"] else ""
        line = f"Order {order['intent_no']}, {order['book']} book: {order['purpose']}, "
        line += f"{order['side']} {order['quantity']} {order['type']}{price}: {order['status']}"
        lines.append(line + (f" ({order['why']})" if order["why"] else ""))
        lines += [
            f"  {fill['time']} filled {fill['quantity']} at {fill['price']}, fee {fill['fee']}, "
            f"{fill['liquidity']}"
            for fill in order["fills"]
        ]
    for end in story["outcome"]:
        if end["state"] == "open":
            lines.append(
                f"Outcome, {end['book']} book: {end['quantity']} is still held{_funding(end)}"
            )
        else:
            lines.append(
                f"Outcome, {end['book']} book: closed {end['time']} by {end['exit_reason']}, "
                f"{float(end['entry_price']):.8g} to {float(end['exit_price']):.8g}, "
                f"{end['return_net']:+.2%}, P&L {float(end['pnl']):+,.2f} after fees "
                f"{float(end['fees']):,.2f}{_funding(end)}"
            )
    if story["orders"] and not story["outcome"]:
        lines.append("Outcome: nothing was bought.")
    return lines


def _funding(end: Story) -> str:
    amount = Decimal(end["funding"])
    return f", funding {amount:+,.2f}" if amount else ""


def _utc(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns // 1_000_000 / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _p(value: float | None) -> str:
    return "?" if value is None else f"p {value:.4f}"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.4g} %"


def _bps(value: float | None) -> str:
    return "?" if value is None else f"{1e4 * value:.4g} bps"


def _whole(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"
