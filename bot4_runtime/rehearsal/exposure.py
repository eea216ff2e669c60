"""When what is held had no order that sells it, and when that was longer than anything excuses.

Read from the venue's journal alone. Pure.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from bot4_runtime.domain.instrument import split_symbol
from bot4_runtime.venue.faults import Fault
from bot4_runtime.venue.journal import Entry

ZERO: Final = Decimal(0)
LONGEST_MS: Final = 60_000
"""Without a stop, once nothing goes wrong any more."""
LEAST_LOOKS: Final = 5
"""Turns that an engine must have had since: to ask what became of a stop, and to put it back."""
LASTING: Final = frozenset(
    {Fault.RATE_LIMITED, Fault.BANNED, Fault.ORDER_LIMIT, Fault.KEY_REVOKED, Fault.HALTED}
)
"""Faults that go on for their seconds of the venue's time."""

FIREWALL_MS: Final = 60_000
"""How long a client keeps silent after a firewall's 403 (N9), which names no end itself."""


class Span(NamedTuple):
    """A time in which what was held of a symbol had no stop, by the venue's clock."""

    symbol: str
    from_ms: int
    to_ms: int

    @property
    def length_s(self) -> float:
        """How long it was."""
        return (self.to_ms - self.from_ms) / 1000


class _Change(NamedTuple):
    """What a report of the venue changed.

    Attributes:
        moved: of what is held, in base, less a fee in it.
        order: that sells; empty for one that buys.
        selling: what is left of it, in base; None when it sells nothing any more.
    """

    symbol: str
    moved: Decimal
    order: str
    selling: Decimal | None


def unprotected(
    entries: Sequence[Entry], least: Mapping[str, Any], uid: int = 1
) -> tuple[list[Span], set[str]]:
    """Return when what was held had no order that sells it, and what has none now.

    A conditional order of contracts protects while it waits, and what it became while it rests.

    Args:
        entries: the venue's journal.
        least: by symbol, the quantity below which nothing can be sold.
        uid: of the account that is judged; others may trade there too.
    """
    held: dict[str, Decimal] = {}
    selling: dict[str, dict[str, Decimal]] = {}
    since: dict[str, int] = {}
    spans: list[Span] = []
    for entry in entries:
        if entry.kind != "report" or entry.uid != uid:
            continue
        change = _READ[entry.body["e"]](entry.body)
        symbol = change.symbol
        held[symbol] = held.get(symbol, ZERO) + change.moved
        if change.order:
            orders = selling.setdefault(symbol, {})
            orders.pop(change.order, None)
            if change.selling is not None:
                orders[change.order] = change.selling
        if change.moved < 0 and held[symbol] < least[symbol]:  # dust, which nobody can sell
            held[symbol] = ZERO
        bare = held[symbol] - sum(selling.get(symbol, {}).values(), ZERO) >= least[symbol]
        if bare:
            since.setdefault(symbol, entry.time_ms)
        elif symbol in since:
            spans.append(Span(symbol, since.pop(symbol), entry.time_ms))
    return spans, set(since)


def _order_of_spot(told: Mapping[str, Any]) -> _Change:
    traded = Decimal(told["l"]) if told["x"] == "TRADE" else ZERO
    fee = Decimal(told["n"]) if told["N"] == split_symbol(told["s"])[0] else ZERO
    return _order(told, str(told["i"]), traded, fee)


def _order_of_contracts(event: Mapping[str, Any]) -> _Change:
    """Read ORDER_TRADE_UPDATE; an order that triggered goes by its conditional one's name."""
    told = event["o"]
    return _order(told, told["c"], Decimal(told["l"]), ZERO)


def _order(told: Mapping[str, Any], name: str, traded: Decimal, fee: Decimal) -> _Change:
    if told["S"] == "BUY":
        return _Change(told["s"], traded - fee, "", None)
    rests = told["X"] in {"NEW", "PARTIALLY_FILLED"}
    left = Decimal(told["q"]) - Decimal(told["z"]) if rests else None
    return _Change(told["s"], -traded, name, left)


def _conditional(event: Mapping[str, Any]) -> _Change:
    """Read ALGO_UPDATE."""
    told = event["o"]
    waits = told["X"] in {"NEW", "TRIGGERED"}
    name = told["caid"] if told["S"] == "SELL" else ""
    return _Change(told["s"], ZERO, name, Decimal(told["q"]) if waits else None)


_READ: Final = {
    "executionReport": _order_of_spot,
    "ORDER_TRADE_UPDATE": _order_of_contracts,
    "ALGO_UPDATE": _conditional,
}


def overdue(
    spans: Sequence[Span], entries: Sequence[Entry], looks: Sequence[int] | None = None
) -> Iterator[Span]:
    """Return the spans in which a minute went by without a fault and without a stop.

    Args:
        spans: as `unprotected` tells them.
        entries: the venue's journal.
        looks: times (ms) at which the engine had a turn; None when it has one all the time.
    """
    troubles = _troubles(entries)
    turns = None if looks is None else sorted(looks)  # the venue's clock may have jumped
    for span in spans:
        calm_ms: float = span.from_ms
        within = [trouble for trouble in troubles if trouble[0] <= span.to_ms]
        for at_ms, over_ms in [*within, (span.to_ms, math.inf)]:
            if _too_long(calm_ms + LONGEST_MS, at_ms, turns):
                yield span
                break
            calm_ms = max(calm_ms, over_ms)


def _too_long(due_ms: float, end_ms: int, turns: Sequence[int] | None) -> bool:
    if turns is None:
        return due_ms < end_ms
    return bisect_left(turns, end_ms) - bisect_left(turns, due_ms) >= LEAST_LOOKS


def _troubles(entries: Sequence[Entry]) -> list[tuple[int, float]]:
    """Return when each fault began, and when it was over."""
    found: list[tuple[int, float]] = []
    shut_ms: int | None = None
    for entry in entries:
        if entry.kind == "fault":
            found.append((entry.time_ms, _over_ms(entry)))
            if entry.body["fault"] == Fault.REFUSE_CONNECT and shut_ms is None:
                shut_ms = entry.time_ms
        elif entry.kind == "listens" and shut_ms is not None:
            found.append((shut_ms, entry.time_ms))
            shut_ms = None
    if shut_ms is not None:
        found.append((shut_ms, math.inf))
    return sorted(found)


def _over_ms(fault: Entry) -> float:
    name = fault.body["fault"]
    if name == Fault.FORBIDDEN:
        return fault.time_ms + FIREWALL_MS
    if name not in LASTING:
        return fault.time_ms
    seconds = fault.body["seconds"]
    if name == Fault.KEY_REVOKED and not seconds:
        return math.inf
    return fault.time_ms + float(seconds * 1000)
