"""What the venue holds to be true, held against what Bot4's journal says. Pure.

The venue's journal and accounts are the judge: every order intended is there once or was
surely never placed, every trade is booked once and as it was, money is neither made nor lost,
and nothing was asked while the venue wanted silence. Stops are judged in `exposure`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.events import (
    JournaledEvent,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderRejected,
)
from bot4_runtime.domain.instrument import split_symbol
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.exchange.reconcile import QUANTUM
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.journal import Entry
from bot4_runtime.venue.orders import VenueOrder

ZERO: Final = Decimal(0)
OVER: Final = {
    "trespass": "a request while the venue wanted silence",
    "over_weight": "more weight than the venue grants a minute",
    "over_orders": "more new orders than the venue grants",
    "over_inbound": "more messages on a stream than the venue takes",
    "wrong_pong": "a pong without its ping's words",
}
"""Entries of the venue's journal that say that a limit was exceeded."""


@dataclass
class Findings:
    """What was counted, and what must not be.

    Attributes:
        violations: what the venue's truth contradicts, in words.
    """

    intended: int = 0
    held: int = 0
    duplicates: int = 0
    lost: int = 0
    trades: int = 0
    fills_missing: int = 0
    fills_invented: int = 0
    limits_exceeded: int = 0
    violations: list[str] = field(default_factory=list)

    def violated(self, text: str) -> None:
        """Note what must not be."""
        self.violations.append(text)


def judge(
    entries: Sequence[Entry],
    account: Account,
    orders: Sequence[VenueOrder],
    events: Iterable[JournaledEvent],
    state: TradingState,
    deposits: Mapping[str, Decimal],
) -> Findings:
    """Hold Bot4's journal against the venue.

    Args:
        entries: the venue's journal.
        account: at the venue.
        orders: all that the account ever placed.
        events: Bot4's journal.
        state: what its fold says.
        deposits: what the account began with.
    """
    found = Findings()
    _sent_once(entries, found)
    _within_limits(entries, found)
    _conserved(account, orders, deposits, found)
    names, ends, booked = _told(events, found)
    _orders_agree(orders, names, ends, state, found)
    _trades_agree(orders, booked, found)
    _account_agrees(account, state, found)
    return found


def _sent_once(entries: Sequence[Entry], found: Findings) -> None:
    """By what came to the door: a first copy that a fault kept from the core was sent as well."""
    sent = Counter(entry.body["id"] for entry in entries if entry.kind == "sent")
    for name, times in sent.items():
        if times > 1:
            found.duplicates += 1
            found.violated(f"order {name} was sent {times} times")


def _within_limits(entries: Sequence[Entry], found: Findings) -> None:
    for entry in entries:
        if entry.kind in OVER:
            found.limits_exceeded += 1
            call = entry.body.get("call", "a stream")
            found.violated(f"{OVER[entry.kind]}: {call} at {entry.time_ms}")


def _conserved(
    account: Account,
    orders: Sequence[VenueOrder],
    deposits: Mapping[str, Decimal],
    found: Findings,
) -> None:
    """The venue's own books: what came in, less what trades moved, is what is there."""
    expected: dict[str, Decimal] = dict(deposits)
    for order in orders:
        for trade in order.trades:
            base, quote = split_symbol(order.symbol)
            moved = {base: trade.quantity, quote: -trade.price * trade.quantity}
            for asset, amount in moved.items():
                expected[asset] = expected.get(asset, ZERO) + amount * trade.side.sign
            fee_asset = trade.commission_asset
            expected[fee_asset] = expected.get(fee_asset, ZERO) - trade.commission
    for asset in sorted({*expected, *(name for name, _ in account.held())}):
        there = account.balance(asset).total
        if abs(there - expected.get(asset, ZERO)) > QUANTUM:
            found.violated(
                f"the venue holds {there} {asset}, its trades make {expected.get(asset, ZERO)}"
            )


Booked = dict[tuple[str, int], tuple[Decimal, ...]]


def _told(
    events: Iterable[JournaledEvent], found: Findings
) -> tuple[dict[int, str], dict[int, str], Booked]:
    names: dict[int, str] = {}
    ends: dict[int, str] = {}
    booked: Booked = {}
    for event in events:
        if isinstance(event, OrderIntended):
            names[event.intent.intent_no] = event.client_id
        elif isinstance(event, OrderRejected):
            ends[event.intent_no] = OrderStatus.REJECTED.value
        elif isinstance(event, OrderClosed):
            ends[event.intent_no] = event.status
        elif isinstance(event, OrderFilled):
            fill = event.fill
            key = (fill.symbol, int(fill.trade_id))
            if key in booked:
                found.fills_invented += 1
                found.violated(f"trade {key[1]} of {key[0]} was booked twice")
            booked[key] = (fill.price, fill.quantity, fill.fee)
    found.intended = len(names)
    return names, ends, booked


def _orders_agree(
    orders: Sequence[VenueOrder],
    names: Mapping[int, str],
    ends: Mapping[int, str],
    state: TradingState,
    found: Findings,
) -> None:
    at_venue: dict[str, VenueOrder] = {}
    for order in orders:
        if order.client_id in at_venue:
            found.duplicates += 1
            found.violated(f"order {order.client_id} was placed twice")
        at_venue[order.client_id] = order
    found.held = len(at_venue)
    for name in sorted(set(at_venue) - set(names.values())):
        found.violated(f"order {name} is at the venue, and nobody intended it")
    never = {OrderStatus.NEVER_PLACED.value, OrderStatus.REJECTED.value}
    for intent_no, name in names.items():
        told, end = at_venue.get(name), ends.get(intent_no)
        ours = state.orders.get(intent_no)
        if told is None:
            if end not in never:
                found.lost += 1
                found.violated(f"order {name} is not at the venue, and here it is {end or 'live'}")
        elif end in never:
            found.lost += 1
            found.violated(f"order {name} is at the venue, and here it is {end}")
        elif (ours is not None and not ours.status.terminal) != told.status.open:
            here = ours.status.value if ours is not None else end
            found.violated(f"order {name} is {told.status} at the venue, and here it is {here}")


def _trades_agree(orders: Sequence[VenueOrder], booked: Booked, found: Findings) -> None:
    traded: Booked = {
        (order.symbol, trade.trade_id): (trade.price, trade.quantity, trade.commission)
        for order in orders
        for trade in order.trades
    }
    found.trades = len(traded)
    for key in sorted(traded.keys() | booked.keys()):
        if key not in booked:
            found.fills_missing += 1
            found.violated(f"trade {key[1]} of {key[0]} is not booked")
        elif key not in traded:
            found.fills_invented += 1
            found.violated(f"trade {key[1]} of {key[0]} is booked, and the venue knows none")
        elif booked[key] != traded[key]:
            found.violated(f"trade {key[1]} of {key[0]} is {traded[key]}, booked as {booked[key]}")


def _account_agrees(account: Account, state: TradingState, found: Findings) -> None:
    kept = state.account
    for asset in sorted(kept.assets() | {name for name, _ in account.held()}):
        there, here = account.balance(asset).total, kept.expected(asset)
        if kept.opening is not None and abs(there - here) > QUANTUM:
            found.violated(f"the venue holds {there} {asset}, the journal expects {here}")
    for difference in kept.differences:
        found.violated(f"a difference that nobody made is journaled: {difference.text}")
    for order in state.all_live_orders():
        if order.status in {OrderStatus.UNKNOWN, OrderStatus.INTENDED}:
            found.violated(f"order {order.client_id} is still {order.status.value}")
