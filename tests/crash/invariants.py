"""The invariants of `reliability`, as functions over what a run leaves behind.

Some are judged while the run goes on, by the `Referee` who sees every order leave the gate and
arrive at the exchange; the rest at its end, from the bytes of the journal, the exchange's own
journal and the last process's state. Each violation begins with the invariant's number.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import msgspec
from simulated_exchange import QUOTE, HeldOrder
from simulated_wire import KEY, SECRET, Judge
from virtual_world import World, opened

from bot4_runtime.clock import Clock
from bot4_runtime.domain.client_id import parse_client_id
from bot4_runtime.domain.events import (
    BreakerChanged,
    JournaledEvent,
    OperatorCommand,
    OrderFilled,
    OrderIntended,
    RegimeNamed,
    SessionStarted,
)
from bot4_runtime.domain.order import Book, OrderIntent, OrderStatus, Purpose, Side, payload_hash
from bot4_runtime.domain.portfolio import BreakerPhase
from bot4_runtime.exchange.keeper import INTERVAL_MS
from bot4_runtime.session import MAX_LAG_MS
from bot4_runtime.state.store import StateStore
from bot4_runtime.state.trading_state import StateImage, TradingState

POSITION_SHARE = Decimal("0.02")
SLACK = Decimal("1.1")
"""Prices move between decision and arrival."""
NOTICE_MS = INTERVAL_MS + 12_000
"""How long meddling and a wrong clock may go unnoticed: a reading, repeated."""
MOST_CALLS = 3_000
MOST_ORDERS_A_MINUTE = 6
MEDDLING = frozenset({"foreign", "deposit"})
OPENING = {"USDT": Decimal(15_000), "BNB": Decimal(3)}
ZERO = Decimal(0)
_IMAGE = msgspec.msgpack.Decoder(StateImage)
_ENCODE = msgspec.msgpack.Encoder().encode


class Referee(Judge):
    """Judges orders while they happen.

    Args:
        world: where violations are written down.
        plan: the script.
        store: of the living process.
    """

    def __init__(self, world: World, plan: Any, store: StateStore, clock: Clock) -> None:
        self._world = world
        self._plan = plan
        self._store = store
        self._clock = clock

    def _violated(self, number: str, text: str) -> None:
        self._world.violations.append(f"{number} {text}")

    def submitted(self, intent: OrderIntent, client_id: str) -> None:
        """An order leaves the gate."""
        world = self._world
        medium, exchange = world.medium, world.exchange
        if medium.intents.get(client_id) != payload_hash(intent):
            self._violated("I1", f"{client_id} left without a durable intent of its payload")
        exchange.sends[client_id] = exchange.sends.get(client_id, 0) + 1
        exchange.journal.append((world.now_ms, "sent", client_id))
        if exchange.sends[client_id] > 1:
            self._violated("I2", f"{client_id} was sent {exchange.sends[client_id]} times")
        name = parse_client_id(client_id)
        if name is None or name[0] != medium.epochs[-1]:
            self._violated("I9", f"{client_id} was sent in epoch {medium.epochs[-1]}")
        numbers = [parse_client_id(sent) for sent in exchange.sends]
        if len({found[1] for found in numbers if found}) < len(numbers):
            self._violated("I2", f"intent {intent.intent_no} was sent under two names")
        if intent.reduce_only:
            self._reducing(intent)
        else:
            self._entering(intent, client_id)

    def _reducing(self, intent: OrderIntent) -> None:
        position = self._store.state.books[intent.book].positions.get(intent.symbol)
        held = ZERO if position is None else position.quantity
        leaving = sum(
            (
                order.open_quantity
                for order in self._store.state.live_orders(intent.symbol, intent.book)
                if order.intent.reduce_only and not order.cancel_requested
            ),
            ZERO,
        )
        if intent.side is not Side.SELL or leaving > held:
            self._violated("I6", f"{intent.side} orders of {leaving} on a position of {held}")

    def _entering(self, intent: OrderIntent, client_id: str) -> None:
        world, state = self._world, self._store.state
        age_ms = world.now_ms - intent.ts_ns // 1_000_000
        if age_ms > MAX_LAG_MS + 5_000:
            self._violated("I10", f"{client_id} enters on a candle {age_ms} ms old")
        for begin, end, by_ms in self._plan.skews:
            if begin + NOTICE_MS < world.now_ms < end:
                self._violated("I10", f"{client_id} enters with a clock off by {by_ms} ms")
        if state.account.differences:
            self._violated("I11", f"{client_id} enters while the venue disagrees")
        if state.account.opening is None:
            self._violated("I11", f"{client_id} enters before the account was read")
        minute = [
            when
            for when, what, _ in world.exchange.journal
            if what == "sent" and when > world.now_ms - 60_000
        ]
        if len(minute) > MOST_ORDERS_A_MINUTE + 8:
            self._violated("I5", f"{len(minute)} orders within a minute")

    def placed(self, held: HeldOrder) -> None:
        """The exchange holds a new order."""
        exchange, symbol = self._world.exchange, held.told.symbol
        if held.told.side is not Side.BUY:
            return
        meddled_ms = meddled_after_opening(self._world, self._store.state)
        if meddled_ms is not None and self._world.now_ms > meddled_ms + NOTICE_MS:
            self._violated("I11", f"{held.told.client_id} enters though somebody meddled")
        if any(what in MEDDLING for _, what, _ in exchange.journal):
            return
        base = exchange.balances.get(symbol.removesuffix(QUOTE), ZERO)
        buys = sum(
            (
                other.told.quantity - other.told.filled
                for other in map(exchange.orders.__getitem__, exchange.open)
                if other.told.symbol == symbol and other.told.side is Side.BUY
            ),
            ZERO,
        )
        worst = (base + buys) * exchange.price(symbol)
        equity = self._store.state.books[Book.VALIDATED].metrics.equity
        if worst > POSITION_SHARE * equity * SLACK:
            self._violated("I5", f"{symbol} may come to {worst:.2f} of an equity of {equity:.2f}")

    def after_candle(self, done: int, candle: object) -> None:
        """A candle was processed, and what it decided was done."""
        state = self._store.state
        for book in state.books.values():
            for symbol, position in book.positions.items():
                if position.quantity < 0:
                    self._violated("I6", f"the position in {symbol} is {position.quantity}")
        for client_id in self._world.exchange.open:
            name = parse_client_id(client_id)
            order = state.orders.get(name[1]) if name else None
            if order is not None and order.status.terminal:
                self._violated("I5", f"{client_id} lives at the venue and is reserved nowhere")
        self._world.boundary("candle done")


@dataclass
class Case:
    """What a finished run left."""

    world: World
    plan: Any
    store: StateStore
    events: Sequence[tuple[int, JournaledEvent]]

    @cached_property
    def fills(self) -> list[OrderFilled]:
        return [event for _, event in self.events if type(event) is OrderFilled]

    @cached_property
    def intents(self) -> dict[str, OrderIntended]:
        return {e.client_id: e for _, e in self.events if type(e) is OrderIntended}


def i1_intent_before_send(case: Case) -> str:
    known = case.intents
    strange = [who for _, what, who in case.world.exchange.journal if what == "placed"]
    strange = [who for who in strange if who not in known]
    return f"orders without an intent: {strange}" if strange else ""


def i2_at_most_once(case: Case) -> str:
    placed = Counter(who for _, what, who in case.world.exchange.journal if what == "placed")
    twice = [who for who, times in placed.items() if times > 1]
    numbers = Counter(e.intent.intent_no for _, e in case.events if type(e) is OrderIntended)
    again = [number for number, times in numbers.items() if times > 1]
    return f"placed twice: {twice}, numbers used twice: {again}" if twice or again else ""


def i3_every_fill_once(case: Case) -> str:
    exchange = case.world.exchange
    ours = {
        (held.told.symbol, held.told.venue_order_id)
        for held in exchange.orders.values()
        if held.told.client_id in case.intents
    }
    venue = Counter(
        (trade.symbol, str(trade.trade_id), trade.price, trade.quantity, trade.fee)
        for trades in exchange.trades.values()
        for trade in trades
        if (trade.symbol, trade.venue_order_id) in ours
    )
    booked = Counter(
        (e.fill.symbol, e.fill.trade_id, e.fill.price, e.fill.quantity, e.fill.fee)
        for e in case.fills
    )
    if venue == booked:
        return ""
    return f"not booked: {list(venue - booked)}, not traded: {list(booked - venue)}"


def i4_position_is_its_fills(case: Case) -> str:
    sums: dict[str, Decimal] = {}
    for event in case.fills:
        fill = event.fill
        base = fill.symbol.removesuffix(QUOTE)
        moved = fill.quantity * fill.side.sign - (fill.fee if fill.fee_asset == base else 0)
        sums[base] = sums.get(base, ZERO) + moved
    book = case.store.state.books[Book.VALIDATED]
    held = dict(book.dust)
    for symbol, position in book.positions.items():
        base = symbol.removesuffix(QUOTE)
        held[base] = held.get(base, ZERO) + position.quantity
    wrong = {b for b in sums | held if sums.get(b, ZERO) != held.get(b, ZERO)}
    return f"held {held}, fills come to {sums}" if wrong else ""


def i5_never_over_limit(case: Case) -> str:
    """The rest is judged as it happens: here, that an open breaker let no entry be intended."""
    open_ = False
    for _, event in case.events:
        if type(event) is BreakerChanged:
            open_ = event.state.phase is BreakerPhase.OPEN or event.state.halted
        elif type(event) is OrderIntended and event.intent.purpose is Purpose.ENTRY and open_:
            return f"intent {event.intent.intent_no} enters while the breaker is open"
    return ""


def i6_protected(case: Case) -> str:
    """What is held when all is calm has a stop, or an exit, at the exchange."""
    state, exchange = case.store.state, case.world.exchange
    for symbol, position in state.books[Book.VALIDATED].positions.items():
        selling = sum(
            (
                held.told.quantity - held.told.filled
                for held in map(exchange.orders.__getitem__, exchange.open)
                if held.told.symbol == symbol and held.told.side is Side.SELL
            ),
            ZERO,
        )
        bare = state.instruments[symbol].floor_quantity(position.quantity - selling)
        if state.instruments[symbol].tradable(bare, position.stop_price):
            return f"{bare} {symbol} have no stop"
    return ""


def i7_replay(case: Case) -> str:
    live = to_bytes(case.store.state)
    if to_bytes(folded(TradingState(), case.events)) != live:
        return "the journal replays to another state"
    if case.world.snapshots:
        seq, payload = case.world.snapshots[0]
        state = from_bytes(payload)
        tail = [(number, event) for number, event in case.events if number > seq]
        if to_bytes(folded(state, tail)) != live:
            return f"the snapshot at {seq} and its tail lead to another state"
    return ""


def i8_money(case: Case) -> str:
    state = case.store.state
    cash = state.first_session.initial_cash if state.first_session else ZERO
    for event in case.fills:
        fill = event.fill
        cash -= fill.side.sign * fill.price * fill.quantity
        cash -= fill.fee if fill.fee_asset == QUOTE else 0
    if state.books[Book.VALIDATED].cash != cash:
        return f"cash is {state.books[Book.VALIDATED].cash}, its flows come to {cash}"
    if state.account.differences:
        if any(what in MEDDLING for _, what, _ in case.world.exchange.journal):
            return ""
        return f"differences without a cause: {state.account.differences}"
    if meddled_after_opening(case.world, state) is not None:
        return "meddling was not noticed"
    for asset, amount in case.world.exchange.balances.items():
        if state.account.expected(asset) != amount:
            return f"{asset}: expected {state.account.expected(asset)}, the venue holds {amount}"
    return ""


def i9_one_trader(case: Case) -> str:
    last = 0
    for _, event in case.events:
        if type(event) is SessionStarted:
            if event.epoch <= last:
                return f"epoch {event.epoch} began after epoch {last}"
            last = event.epoch
        elif type(event) is OrderIntended:
            name = parse_client_id(event.client_id)
            if name != (last, event.intent.intent_no):
                return f"{event.client_id} was intended in epoch {last}"
    return ""


def i12_bounded(case: Case) -> str:
    calls = case.world.calls
    return f"{calls} draws of a small run: somebody asks without end" if calls > MOST_CALLS else ""


def i13_provenance(case: Case) -> str:
    """These runs have no models; whose models may speak is tested in `tests/runtime/regime`."""
    named = [e for _, e in case.events if type(e) is RegimeNamed]
    return "a regime was named without models" if named else ""


def i14_authority(case: Case) -> str:
    verbs = {e.verb for _, e in case.events if type(e) is OperatorCommand}
    allowed = {"accept"} if case.plan.accepts else set()
    return f"nobody ordered {verbs - allowed}" if verbs - allowed else ""


def i15_no_secret(case: Case) -> str:
    kept = [*case.world.medium.records, *(payload for _, payload in case.world.snapshots)]
    shown = any(canary.encode() in data for data in kept for canary in (KEY, SECRET))
    return "the journal or a snapshot shows the credentials of the wire" if shown else ""


def i16_settled(case: Case) -> str:
    state, exchange = case.store.state, case.world.exchange
    unsettled = [
        order.client_id
        for order in state.all_live_orders()
        if order.status in {OrderStatus.UNKNOWN, OrderStatus.INTENDED}
    ]
    if unsettled:
        return f"unknown to the end: {unsettled}"
    kept = [
        order.client_id
        for order in state.all_live_orders()
        if order.cancel_requested and order.client_id in exchange.open
    ]
    if kept:
        return f"to be canceled, and open to the end: {kept}"
    live = {o.client_id for o in state.all_live_orders() if o.intent.purpose is not Purpose.ENTRY}
    there = {
        held.told.client_id
        for held in map(exchange.orders.__getitem__, exchange.open)
        if held.told.side is Side.SELL
    }
    return f"live here {live - there}, live there {there - live}" if live != there else ""


AT_THE_END: dict[str, Callable[[Case], str]] = {
    "I1": i1_intent_before_send,
    "I2": i2_at_most_once,
    "I3": i3_every_fill_once,
    "I4": i4_position_is_its_fills,
    "I5": i5_never_over_limit,
    "I6": i6_protected,
    "I7": i7_replay,
    "I8": i8_money,
    "I9": i9_one_trader,
    "I12": i12_bounded,
    "I13": i13_provenance,
    "I14": i14_authority,
    "I15": i15_no_secret,
    "I16": i16_settled,
}
"""By number; I10 and I11 are judged by the `Referee` as orders happen."""


def meddled_after_opening(world: World, state: TradingState) -> int | None:
    """When somebody meddled with an account that was read before; None after an accept."""
    if state.account.opening != OPENING or state.counts.get("OperatorCommand:accept"):
        return None
    return next((ms for ms, what, _ in world.exchange.journal if what in MEDDLING), None)


def to_bytes(state: TradingState) -> bytes:
    """The whole state, not only what its hash covers."""
    return _ENCODE(state.to_snapshot())


def from_bytes(payload: bytes) -> TradingState:
    return TradingState.from_snapshot(_IMAGE.decode(payload))


def folded(state: TradingState, events: Sequence[tuple[int, JournaledEvent]]) -> TradingState:
    for state.seq, event in events:
        state.apply(event)
    return state


def events_of(world: World) -> list[tuple[int, JournaledEvent]]:
    """Every event on the disk with its number."""
    found = []
    for record in world.medium.records:
        for frame, events in opened(record) or ():
            found += list(enumerate(events, frame.first_seq))
    return found


def judged_at_the_end(world: World, plan: Any, store: StateStore, _: object) -> list[str]:
    case = Case(world, plan, store, events_of(world))
    return [f"{n} {found}" for n, judge in AT_THE_END.items() if (found := judge(case))]
