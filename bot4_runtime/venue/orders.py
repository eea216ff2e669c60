"""Orders and trades as the exchange keeps them."""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO, Account


class Kind(StrEnum):
    """Order types the venue takes."""

    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"

    @property
    def takes_profit(self) -> bool:
        """Whether its stop price lies on the side of the market that gains."""
        return self in {Kind.TAKE_PROFIT, Kind.TAKE_PROFIT_LIMIT}


class Tif(StrEnum):
    """How long a LIMIT order stays."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class Status(StrEnum):
    """Life of an order."""

    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"

    @property
    def open(self) -> bool:
        """Whether the order can still fill or be cancelled."""
        return self in {Status.NEW, Status.PARTIALLY_FILLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """What a customer asks for; read from a message and not yet judged.

    Attributes:
        quantity: in base; None for a market order by quote quantity.
        quote_quantity: quote to spend or to earn by a market order; else None.
        price: of LIMIT, LIMIT_MAKER and what ends in _LIMIT; else None.
        stop_price: of STOP_LOSS, TAKE_PROFIT and their _LIMIT; else None.
        client_id: named by the customer; empty lets the exchange name it.
    """

    symbol: str
    side: Side
    kind: Kind
    tif: Tif = Tif.GTC
    quantity: Decimal | None = None
    quote_quantity: Decimal | None = None
    price: Decimal | None = None
    stop_price: Decimal | None = None
    client_id: str = ""


@dataclass(slots=True, kw_only=True)
class VenueTrade:
    """One customer's side of a match.

    Attributes:
        trade_id: rises within a symbol.
        commission: in `commission_asset`, what the customer received less of.
    """

    trade_id: int
    order_id: int
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: str
    maker: bool
    time_ms: int


@dataclass(slots=True, kw_only=True, eq=False)
class VenueOrder:
    """An order the exchange accepted.

    Attributes:
        quantity: in base; of a market order by quote quantity, what was filled.
        spent: sum of price x quantity of its fills, in quote.
        locked: what is held back for it, in `locked_asset`.
        working: False while a stop waits for its price.
        queue_ahead: base quantity of others, at its price, that trades first.
        list_id: of the list it belongs to; -1 for none.
        sibling: the other order of an OCO list, which this one's first fill or end ends.
    """

    order_id: int
    client_id: str
    account: Account
    request: OrderRequest
    quantity: Decimal
    status: Status = Status.NEW
    filled: Decimal = ZERO
    spent: Decimal = ZERO
    locked: Decimal = ZERO
    locked_asset: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    working: bool = True
    queue_ahead: Decimal = ZERO
    list_id: int = -1
    sibling: "VenueOrder | None" = None
    trades: list[VenueTrade] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        """What it trades."""
        return self.request.symbol

    @property
    def side(self) -> Side:
        """Its direction."""
        return self.request.side

    @property
    def left(self) -> Decimal:
        """Base quantity not filled yet."""
        return self.quantity - self.filled

    @property
    def price(self) -> Decimal:
        """Its limit; zero when it has none."""
        return self.request.price or ZERO

    @property
    def waiting(self) -> bool:
        """Whether it is a stop whose price has not come yet."""
        return not self.working


class Report(NamedTuple):
    """Something that happened to an order, as its customer's stream will tell it.

    Attributes:
        execution: ``NEW``, ``TRADE``, ``CANCELED``, ``EXPIRED``, ``REPLACED`` or
            ``TRADE_PREVENTION``.
        number: of the report, counted over the exchange.
        status: of the order when it happened, with `filled` and `spent` at that moment.
        cancel_id: client id of the cancel request; empty for everything else.
    """

    number: int
    execution: str
    order: VenueOrder
    status: Status
    filled: Decimal
    spent: Decimal
    trade: VenueTrade | None
    cancel_id: str
    time_ms: int
