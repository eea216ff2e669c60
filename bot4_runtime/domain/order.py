"""Orders: what was intended, what became of it, and the fills it got.

Money is Decimal. An intent never changes; what happens to it are events.
"""

import hashlib
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, Final

import msgspec

CEILING_REACHED: Final = "GATE_CEILING"
NOTIONAL_REACHED: Final = "GATE_NOTIONAL"
REJECTIONS_REACHED: Final = "GATE_REJECTIONS"
ENTRIES_WAIT: Final = "ENTRIES_WAIT"
OWN_CODES: Final = (CEILING_REACHED, NOTIONAL_REACHED, REJECTIONS_REACHED, ENTRIES_WAIT)
"""Codes of the gate's own rejections: such an order was never sent."""


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> "Side":
        """The other direction."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    """How an order executes. STOP_MARKET rests at the venue until its stop price trades."""

    MARKET = "market"
    LIMIT = "limit"
    STOP_MARKET = "stop_market"


class TimeInForce(StrEnum):
    """How long an order rests; GTX is post-only."""

    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    GTX = "gtx"


class Liquidity(StrEnum):
    """Decided by how a fill happened, never by the order's type."""

    MAKER = "maker"
    TAKER = "taker"


class Book(StrEnum):
    """Whose money: the validated book, or the shadow book of refused signals."""

    VALIDATED = "validated"
    SHADOW = "shadow"


class Purpose(StrEnum):
    """Why an order exists."""

    ENTRY = "entry"
    EXIT = "exit"
    STOP = "stop"
    EMERGENCY = "emergency"


class OrderStatus(StrEnum):
    """Life of an order; UNKNOWN keeps its whole quantity reserved until it is resolved."""

    INTENDED = "intended"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    UNKNOWN = "unknown"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    NEVER_PLACED = "never_placed"

    @property
    def terminal(self) -> bool:
        """Whether the order can have no further fills."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        OrderStatus.FILLED,
        OrderStatus.CANCELED,
        OrderStatus.EXPIRED,
        OrderStatus.REJECTED,
        OrderStatus.NEVER_PLACED,
    }
)


class OrderIntent(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What we want from the venue; durable before it is sent, sent at most once ever.

    `judged` is risk's own: there it keeps what it read of an intent (`risk.entry.OrderTerms`),
    beside the fields. It is no part of the intent's value, bytes, hash or copies.

    Attributes:
        intent_no: counts up from 1 over the account's life and all books; names the order.
        quantity: in base.
        price: limit price, in quote; None for market and stop-market orders.
        stop_price: trigger of a stop-market order, in quote; else None.
        reference_price: price when decided, in quote; what slippage is measured against.
        stop_loss: the protective stop an entry will carry, in quote; None for the rest.
        expires_after: candles of its symbol after which a resting entry is cancelled; 0 = never.
        signal_id: the signal that caused it.
        rule_id: the rule of that signal, whose evidence its closed trades feed.
        ts_ns: when decided, UTC.
    """

    intent_no: int
    book: Book
    purpose: Purpose
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None
    stop_price: Decimal | None
    time_in_force: TimeInForce
    reduce_only: bool
    reference_price: Decimal
    stop_loss: Decimal | None
    expires_after: int
    signal_id: str
    rule_id: str
    ts_ns: int

    judged: ClassVar[object] = None

    @property
    def worst_price(self) -> Decimal:
        """The price at which exposure is counted before the fill is known."""
        return self.price or self.stop_price or self.reference_price

    @property
    def decision(self) -> tuple[object, ...]:
        """What was decided; parts of an order too large for the venue have it in common."""
        return (self.book, self.symbol, self.purpose, self.signal_id, self.ts_ns)


def payload_hash(intent: OrderIntent) -> str:
    """Return the sha256 (hex) of the intent's canonical JSON; what the gate compares."""
    return hashlib.sha256(msgspec.json.encode(intent, order="sorted")).hexdigest()


class Fill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One execution. `trade_id` is the venue's and is unique per (book, symbol).

    Attributes:
        intent_no: what it executes; 0 when the venue closed a position itself.
        price: in quote.
        quantity: in base, positive.
        fee: in `fee_asset`, positive when paid, negative when rebated.
        realised: what the venue of a contract credited for it, in quote and fees left out; None
            where it does not tell.
    """

    trade_id: str
    intent_no: int
    book: Book
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    liquidity: Liquidity
    ts_event_ns: int
    realised: Decimal | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An intent and what became of it.

    Attributes:
        client_id: the id the venue knows it by.
        filled: base quantity filled so far; monotone.
        spent: sum of price x quantity of its fills, in quote.
        age: candles of its symbol seen since it was intended.
        reason: why it ended, when it did not end filled.
    """

    intent: OrderIntent
    client_id: str
    status: OrderStatus
    filled: Decimal
    spent: Decimal
    cancel_requested: bool
    age: int
    reason: str

    @property
    def open_quantity(self) -> Decimal:
        """Base quantity that may still fill."""
        return Decimal(0) if self.status.terminal else self.intent.quantity - self.filled

    @property
    def withheld(self) -> bool:
        """Whether the gate itself rejected it, so that no venue ever saw it."""
        return self.status is OrderStatus.REJECTED and self.reason.startswith(OWN_CODES)
