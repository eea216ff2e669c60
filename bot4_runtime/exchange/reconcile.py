"""Two tellings of one account, held against each other.

Pure: state and what a venue said go in, events and differences come out. The rules:

- A fill is what a trade of the venue says, never what a quantity suggests.
- An order ends only once all its trades are booked, so that nothing is released too early.
- What is not ours is a difference and is never taken for ours.
- Positions follow from trades alone; balances, or the venue's positions, only confirm them.
- A wallet of contracts follows from what the venue says that trades realised, fees and funding.
- What the venue closes itself (liquidation, auto-deleveraging) is booked, and told as that.

`keeper` does the asking.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.client_id import parse_client_id, tag_of
from bot4_runtime.domain.events import OrderClosed, OrderEvent, OrderFilled, OrderRejected
from bot4_runtime.domain.order import Book, Fill, Order, OrderStatus
from bot4_runtime.exchange.protocols import VenueFunding, VenueOrder, VenueTrade
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.state.venue_account import VenueAccount

QUANTUM: Final = Decimal("1e-8")
"""The venue's least amount; balances that differ by less agree."""
FORCED: Final = {
    "autoclose-": "the venue liquidated what was held",
    "adl_autoclose": "the venue closed it against a bankrupt position (auto-deleveraging)",
    "settlement_autoclose-": "the venue settled what was held, since the contract ends",
}
"""How Binance names the orders by which it closes positions itself, and what they mean."""
BY_THE_VENUE: Final = 0
"""Intent number of what the venue did itself: no intent has it."""
NS_PER_MS: Final = 1_000_000


class Claim(NamedTuple):
    """Whose an order at the venue is.

    Attributes:
        order: ours; None when it is foreign, or ended so long ago that it was forgotten.
        foreign: why it is not ours; empty when it is.
    """

    order: Order | None
    foreign: str


def claim(state: TradingState, epoch: int, told: VenueOrder) -> Claim:
    """Tell whose an order is by its name, and hold it against its intent.

    Args:
        state: with all intents.
        epoch: of this process; an order of a later one means that another runtime trades.
        told: the order as the venue tells it.
    """
    name = parse_client_id(told.client_id)
    if name is None:
        return Claim(None, "it was not sent by Bot4")
    sender, intent_no = name
    tag = tag_of(told.client_id)
    if tag and tag != state.tag:
        return Claim(None, f"another journal ({tag}) trades this account, and this is {state.tag}")
    if sender > epoch:
        return Claim(None, f"runtime {sender} trades this account, and this is runtime {epoch}")
    if intent_no >= state.next_intent_no:
        return Claim(None, "the journal holds no such intent")
    order = state.orders.get(intent_no)
    foreign = "" if order is None else _unlike(order, told)
    return Claim(None if foreign else order, foreign)


def _unlike(order: Order, told: VenueOrder) -> str:
    """Say how an order at the venue differs from the intent it is named after."""
    intent = order.intent
    if order.client_id != told.client_id:
        return f"intent {intent.intent_no} was sent as {order.client_id}"
    if (intent.symbol, intent.side, intent.quantity) != (told.symbol, told.side, told.quantity):
        return f"it was intended as {intent.side} {intent.quantity} of {intent.symbol}"
    return ""


def fill_event(order: Order, trade: VenueTrade) -> OrderFilled:
    """Return what a trade of the venue means for an order of ours."""
    ts_ns = trade.time_ms * NS_PER_MS
    intent = order.intent
    return OrderFilled(ts_event_ns=ts_ns, fill=_fill(trade, intent.intent_no, intent.book, ts_ns))


def _fill(trade: VenueTrade, intent_no: int, book: Book, ts_ns: int) -> Fill:
    return Fill(
        trade_id=str(trade.trade_id),
        intent_no=intent_no,
        book=book,
        symbol=trade.symbol,
        side=trade.side,
        price=trade.price,
        quantity=trade.quantity,
        fee=trade.fee,
        fee_asset=trade.fee_asset,
        liquidity=trade.liquidity,
        ts_event_ns=ts_ns,
        realised=trade.realised,
    )


def forced(client_id: str) -> str:
    """Say why the venue placed an order itself; empty for one that it did not."""
    return next((why for name, why in FORCED.items() if client_id.startswith(name)), "")


def forced_fill(trade: VenueTrade) -> OrderFilled:
    """Return what a trade means by which the venue closed a position: nobody intended it."""
    ts_ns = trade.time_ms * NS_PER_MS
    return OrderFilled(
        ts_event_ns=ts_ns,
        fill=_fill(trade, BY_THE_VENUE, Book.VALIDATED, ts_ns),
    )


def owes_trades(order: Order, told: VenueOrder) -> bool:
    """Whether the venue filled more of an order than the trades booked so far."""
    return told.filled > order.filled


def ending(order: Order, told: VenueOrder) -> OrderEvent | None:
    """Return how an order ended; None while it lives, or while trades of it are not booked."""
    if order.status.terminal or not told.status.terminal or told.filled != order.filled:
        return None
    ts_ns = told.updated_ms * NS_PER_MS
    intent_no = order.intent.intent_no
    if told.status is OrderStatus.REJECTED:
        return OrderRejected(
            ts_event_ns=ts_ns, intent_no=intent_no, code="VENUE", reason="rejected by the venue"
        )
    return OrderClosed(
        ts_event_ns=ts_ns,
        intent_no=intent_no,
        status=told.status.value,
        reason=f"{told.status} at the venue",
    )


# ----------------------------------------------------------------- differences
def foreign_order(told: VenueOrder, why: str) -> Difference:
    """An order at the venue that is not ours."""
    return Difference(
        kind=DifferenceKind.ORDER,
        name=told.client_id,
        ours=Decimal(0),
        venue=told.quantity,
        reason=f"{told.side} {told.symbol}: {why}",
    )


def foreign_trade(trade: VenueTrade) -> Difference:
    """A trade of an order that is not ours."""
    return Difference(
        kind=DifferenceKind.TRADE,
        name=f"{trade.symbol}:{trade.trade_id}",
        ours=Decimal(0),
        venue=trade.quantity,
        reason=f"{trade.side} by order {trade.venue_order_id}, which is not ours",
    )


def lost_order(order: Order) -> Difference:
    """An order the venue accepted and knows no more."""
    return Difference(
        kind=DifferenceKind.ORDER,
        name=order.client_id,
        ours=order.open_quantity,
        venue=Decimal(0),
        reason="accepted by the venue, which knows it no more",
    )


def undead_order(order: Order, told: VenueOrder) -> Difference:
    """An order that ended here and is open at the venue."""
    return Difference(
        kind=DifferenceKind.ORDER,
        name=order.client_id,
        ours=Decimal(0),
        venue=told.quantity - told.filled,
        reason=f"{order.status} here and open at the venue",
    )


def forced_order(told: VenueTrade, name: str, why: str) -> Difference:
    """An order of the venue's own, which closed what was held."""
    return Difference(
        kind=DifferenceKind.ORDER,
        name=name,
        ours=Decimal(0),
        venue=told.quantity,
        reason=f"{told.side} {told.symbol}: {why}",
    )


def compare_positions(
    account: VenueAccount, positions: Mapping[str, Decimal], symbols: Iterable[str]
) -> list[Difference]:
    """Hold what is held of each symbol against what is expected."""
    return _compare(account, positions, {*symbols, *positions}, "a position that others moved")


def compare_wallets(
    account: VenueAccount, wallets: Mapping[str, Decimal], symbols: Iterable[str], bookings: int
) -> list[Difference]:
    """Hold what is in the wallets of contracts against what is expected, all funding booked.

    Args:
        account: what is expected, of assets and of contracts alike.
        wallets: by margin asset; profit that is not realised is in none.
        symbols: contracts, which are no assets.
        bookings: trades and fundings so far, each of which the venue may have rounded.
    """
    why = "moved by more than trades, fees and funding: a transfer, a clearance fee, or others"
    names = {*wallets, *account.assets()} - {*symbols}
    return _compare(account, wallets, names, why, QUANTUM * (1 + bookings))


def foreign_funding(told: VenueFunding) -> Difference:
    """A funding of a symbol that is traded here, while nothing of it was held here."""
    return Difference(
        kind=DifferenceKind.FUNDING,
        name=told.key,
        ours=Decimal(0),
        venue=told.amount,
        reason=f"{told.asset} for a position that is not ours",
    )


def compare_balances(account: VenueAccount, balances: Mapping[str, Decimal]) -> list[Difference]:
    """Hold every asset's amount against what is expected."""
    why = "a deposit, a withdrawal, or trades that are not ours"
    return _compare(account, balances, account.assets() | set(balances), why)


def _compare(
    account: VenueAccount,
    held: Mapping[str, Decimal],
    names: Iterable[str],
    why: str,
    within: Decimal = QUANTUM,
) -> list[Difference]:
    """Hold amounts against what is expected.

    What differed before is told again when they agree, since what an operator accepts
    is the present difference and no older one.
    """
    told_before = {d.name for d in account.differences if d.kind is DifferenceKind.BALANCE}
    found = []
    for asset in sorted(names):
        ours = account.expected(asset)
        venue = held.get(asset, Decimal(0))
        if abs(venue - ours) > within or asset in told_before:
            found.append(
                Difference(
                    kind=DifferenceKind.BALANCE,
                    name=asset,
                    ours=ours,
                    venue=venue,
                    reason=why,
                )
            )
    return found
