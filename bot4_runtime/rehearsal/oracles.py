"""What the venue holds to be true, held against what Bot4's journal says. Pure.

The venue's journal and accounts are the judge: every order intended is there once or was
surely never placed, every trade is booked once and as it was, money is neither made nor lost,
and nothing was asked while the venue wanted silence. Stops are judged in `exposure`.

On spot what is held is in the balances; of perpetuals it is the positions, and the wallet holds
what trades realised, less fees, and what funding and liquidations moved. What the venue closes
itself is nobody's intent; it is counted, and has to be booked like all that trades.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from bot4_runtime.domain.events import (
    JournaledEvent,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderRejected,
)
from bot4_runtime.domain.instrument import split_symbol
from bot4_runtime.domain.order import Book, OrderStatus
from bot4_runtime.exchange.reconcile import QUANTUM
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.faults import Fault
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_orders import AlgoOrder, AlgoStatus, FuturesOrder
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
SILENCES: Final = frozenset({Fault.RATE_LIMITED, Fault.BANNED})
"""Faults that want silence of everybody at the address."""
OF_THE_STREAM: Final = frozenset({"POST /fapi/v1/listenKey", "PUT /fapi/v1/listenKey"})
CLEARANCE: Final = "INSURANCE_CLEAR"
"""What a liquidation costs beside its trade: no booking of ours, and told as a difference."""
BESIDE_TRADES: Final = frozenset({"FUNDING_FEE", CLEARANCE})
"""What moves a wallet of contracts beside trades and their commissions."""
NOTHING: Final[Mapping[str, Decimal]] = {}


@dataclass
class Findings:
    """What was counted, and what must not be.

    Attributes:
        closed_by_venue: orders by which it closed positions itself (liquidation, ADL).
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
    closed_by_venue: int = 0
    violations: list[str] = field(default_factory=list)

    def violated(self, text: str) -> None:
        """Note what must not be."""
        self.violations.append(text)


class Held(NamedTuple):
    """An order as a venue holds it, whatever the market.

    Attributes:
        trades: by number what it traded: price, quantity and commission.
        forced: whether it is the venue's own.
    """

    name: str
    symbol: str
    status: str
    open: bool
    trades: Mapping[int, "Traded"]
    forced: bool = False


Traded = tuple[Decimal, ...]
Booked = dict[tuple[str, int], Traded]


def judge(
    entries: Sequence[Entry],
    account: Account,
    orders: Sequence[VenueOrder],
    events: Iterable[JournaledEvent],
    state: TradingState,
    deposits: Mapping[str, Decimal],
) -> Findings:
    """Hold Bot4's journal against the spot venue.

    Args:
        entries: the venue's journal.
        account: at the venue.
        orders: all that the account ever placed.
        events: Bot4's journal.
        state: what its fold says.
        deposits: what the account began with.
    """
    held = [
        Held(o.client_id, o.symbol, o.status.value, o.status.open, _trades(o.trades))
        for o in orders
    ]
    found = _judged(entries, held, events, state)
    _conserved(account, orders, deposits, found)
    balances = {name: account.balance(name).total for name, _ in account.held()}
    _amounts_agree(state, balances, state.account.assets() | set(balances), found)
    return found


def judge_contracts(
    entries: Sequence[Entry],
    account: FuturesAccount,
    orders: Sequence[FuturesOrder],
    algos: Sequence[AlgoOrder],
    events: Iterable[JournaledEvent],
    state: TradingState,
    deposits: Mapping[str, Decimal],
) -> Findings:
    """Hold Bot4's journal against the USD-M venue.

    Args:
        entries: the venue's journal.
        account: at the venue.
        orders: all plain ones that the account ever had, those that conditional ones became and
            the venue's own among them.
        algos: all conditional ones that it ever placed.
        events: Bot4's journal.
        state: what its fold says.
        deposits: what the account began with.
    """
    held = [_held(order) for order in orders if order.algo is None]
    held += [_held_conditional(algo) for algo in algos]
    cleared = dict.fromkeys(account.cross, ZERO)
    for income in account.incomes:
        if income.kind == CLEARANCE:
            cleared[income.asset] += income.amount
    found = _judged(entries, held, events, state, cleared)
    _wallets_conserved(account, orders, deposits, found)
    positions: dict[str, Decimal] = {}
    for leg in account.positions():
        positions[leg.symbol] = positions.get(leg.symbol, ZERO) + leg.quantity
    wallets = {name: account.wallet(name) - cleared[name] for name in account.cross}
    _amounts_agree(state, positions | wallets, {*positions, *state.instruments, *wallets}, found)
    book = state.books.get(Book.VALIDATED)  # none, where no session began
    ours = {} if book is None else {s: p.quantity for s, p in book.positions.items()}
    for symbol in sorted({*ours, *positions}):
        there, here = positions.get(symbol, ZERO), ours.get(symbol, ZERO)
        if there != here:
            found.violated(f"the venue holds {there} {symbol}, the book {here}")
    return found


def _held(order: FuturesOrder) -> Held:
    trades, forced = _trades(order.trades), bool(order.venue_kind)
    status = order.status
    return Held(order.client_id, order.symbol, status.value, status.open, trades, forced)


def _held_conditional(algo: AlgoOrder) -> Held:
    """Return a conditional order with what it became as the one order that was intended."""
    if algo.actual is not None:
        return _held(algo.actual)._replace(name=algo.client_id)
    waits = algo.status is AlgoStatus.NEW
    return Held(algo.client_id, algo.symbol, algo.status.value, waits, {})


class _Trade(Protocol):
    trade_id: int
    price: Decimal
    quantity: Decimal
    commission: Decimal


def _trades(trades: Iterable[_Trade]) -> dict[int, Traded]:
    return {trade.trade_id: (trade.price, trade.quantity, trade.commission) for trade in trades}


def _judged(
    entries: Sequence[Entry],
    held: Sequence[Held],
    events: Iterable[JournaledEvent],
    state: TradingState,
    cleared: Mapping[str, Decimal] = NOTHING,
) -> Findings:
    """Judge what is alike in all markets."""
    found = Findings()
    _sent_once(entries, found)
    _within_limits(entries, found)
    names, ends, booked = _told(events, found)
    _orders_agree(held, names, ends, state, found)
    _trades_agree(held, booked, found)
    _clear(held, state, cleared, found)
    return found


def _sent_once(entries: Sequence[Entry], found: Findings) -> None:
    """By what came to the door: a first copy that a fault kept from the core was sent as well."""
    sent = Counter(entry.body["id"] for entry in entries if entry.kind == "sent")
    for name, times in sent.items():
        if times > 1:
            found.duplicates += 1
            found.violated(f"order {name} was sent {times} times")


def _within_limits(entries: Sequence[Entry], found: Findings) -> None:
    silenced: Entry | None = None
    for entry in entries:
        if entry.kind == "fault" and entry.body["fault"] in SILENCES:
            silenced = entry
        if entry.kind not in OVER:
            continue
        if entry.kind == "trespass" and silenced is not None and _crossed(silenced, entry):
            silenced = None
            continue
        found.limits_exceeded += 1
        call = entry.body.get("call", "a stream")
        found.violated(f"{OVER[entry.kind]}: {call} at {entry.time_ms}")


def _crossed(silenced: Entry, trespass: Entry) -> bool:
    """Whether a request was under way when the answer came that wants silence: one may be.

    The user stream of contracts asks for its key on a connection of its own, beside all others.
    """
    beside = [entry.body["call"] in OF_THE_STREAM for entry in (silenced, trespass)]
    return silenced.time_ms == trespass.time_ms and any(beside) and not all(beside)


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


def _wallets_conserved(
    account: FuturesAccount,
    orders: Sequence[FuturesOrder],
    deposits: Mapping[str, Decimal],
    found: Findings,
) -> None:
    """The venue's own books: what came in, and what trades paid and cost, is what is there.

    The entry value of what is still held was paid for, and is not lost.
    """
    expected: dict[str, Decimal] = dict(deposits)
    for order in orders:
        for trade in order.trades:
            paid = trade.price * trade.quantity * trade.side.sign + trade.commission
            expected[trade.asset] = expected.get(trade.asset, ZERO) - paid
    for leg in account.positions():
        expected[leg.asset] = expected.get(leg.asset, ZERO) + leg.cost
    for income in account.incomes:
        if income.kind in BESIDE_TRADES:
            expected[income.asset] = expected.get(income.asset, ZERO) + income.amount
    for asset in sorted({*expected, *account.cross}):
        there = account.wallet(asset)
        if abs(there - expected.get(asset, ZERO)) > QUANTUM:
            found.violated(
                f"the wallet holds {there} {asset}, its trades make {expected.get(asset, ZERO)}"
            )


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
    held: Sequence[Held],
    names: Mapping[int, str],
    ends: Mapping[int, str],
    state: TradingState,
    found: Findings,
) -> None:
    at_venue: dict[str, Held] = {}
    for order in held:
        if order.forced:
            found.closed_by_venue += 1
            continue
        if order.name in at_venue:
            found.duplicates += 1
            found.violated(f"order {order.name} was placed twice")
        at_venue[order.name] = order
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
        elif end in never and (told.status, end) != (AlgoStatus.REJECTED, OrderStatus.REJECTED):
            found.lost += 1
            found.violated(f"order {name} is at the venue, and here it is {end}")
        elif (ours is not None and not ours.status.terminal) != told.open:
            here = ours.status.value if ours is not None else end
            found.violated(f"order {name} is {told.status} at the venue, and here it is {here}")


def _trades_agree(held: Sequence[Held], booked: Booked, found: Findings) -> None:
    traded: Booked = {
        (order.symbol, number): trade for order in held for number, trade in order.trades.items()
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


def _amounts_agree(
    state: TradingState, there: Mapping[str, Decimal], names: Iterable[str], found: Findings
) -> None:
    """Amounts of assets, or of contracts, against what the journal leads to expect."""
    kept = state.account
    for name in sorted(names):
        amount, here = there.get(name, ZERO), kept.expected(name)
        if kept.opening is not None and abs(amount - here) > QUANTUM:
            found.violated(f"the venue holds {amount} {name}, the journal expects {here}")


def _clear(
    held: Sequence[Held], state: TradingState, cleared: Mapping[str, Decimal], found: Findings
) -> None:
    """Nothing is in doubt, and nobody but the venue did what is not ours."""
    forced = {order.name for order in held if order.forced}
    for difference in state.account.differences:
        moved = difference.venue - difference.ours
        fee = moved and moved == cleared.get(difference.name)
        if difference.name not in forced and not fee:
            found.violated(f"a difference that nobody made is journaled: {difference.text}")
    for order in state.all_live_orders():
        if order.status in {OrderStatus.UNKNOWN, OrderStatus.INTENDED}:
            found.violated(f"order {order.client_id} is still {order.status.value}")
