"""Orders, algo orders and trades as the USD-M exchange keeps them."""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_account import FuturesAccount, PositionSide
from bot4_runtime.venue.orders import Status


class FuturesTif(StrEnum):
    """How long a LIMIT order stays; GTX only ever rests, GTD ends at a date."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTX = "GTX"
    GTD = "GTD"

    @property
    def rests(self) -> bool:
        """Whether what is not filled at once stays."""
        return self not in {FuturesTif.IOC, FuturesTif.FOK}


class Prevention(StrEnum):
    """Which side of a match with oneself ends."""

    NONE = "NONE"
    EXPIRE_TAKER = "EXPIRE_TAKER"
    EXPIRE_MAKER = "EXPIRE_MAKER"
    EXPIRE_BOTH = "EXPIRE_BOTH"


class AlgoKind(StrEnum):
    """Conditional orders: what they become when they trigger follows from the name."""

    STOP = "STOP"
    STOP_MARKET = "STOP_MARKET"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_MARKET = "TAKE_PROFIT_MARKET"
    TRAILING_STOP_MARKET = "TRAILING_STOP_MARKET"

    @property
    def takes_profit(self) -> bool:
        """Whether it triggers on a move in its favour."""
        return self in {AlgoKind.TAKE_PROFIT, AlgoKind.TAKE_PROFIT_MARKET}

    @property
    def limited(self) -> bool:
        """Whether it becomes a LIMIT order."""
        return self in {AlgoKind.STOP, AlgoKind.TAKE_PROFIT}


class AlgoStatus(StrEnum):
    """Life of a conditional order."""

    NEW = "NEW"
    TRIGGERED = "TRIGGERED"
    FINISHED = "FINISHED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FuturesRequest:
    """What a customer asks for; read from a message and not yet judged.

    Attributes:
        price: limit in quote; None for a market order.
        good_till_ms: when a GTD order ends; 0 for others.
        client_id: named by the customer; empty lets the exchange name it.
    """

    symbol: str
    side: Side
    position_side: PositionSide = PositionSide.BOTH
    price: Decimal | None = None
    quantity: Decimal = ZERO
    tif: FuturesTif = FuturesTif.GTC
    reduce_only: bool = False
    good_till_ms: int = 0
    prevention: Prevention = Prevention.EXPIRE_MAKER
    client_id: str = ""

    @property
    def kind(self) -> str:
        """``LIMIT`` or ``MARKET``."""
        return "MARKET" if self.price is None else "LIMIT"


@dataclass(slots=True, kw_only=True)
class FuturesTrade:
    """One customer's side of a match.

    Attributes:
        realised: profit of what it closed, in quote.
        commission: in the margin asset.
    """

    trade_id: int
    order_id: int
    symbol: str
    side: Side
    position_side: PositionSide
    price: Decimal
    quantity: Decimal
    realised: Decimal
    commission: Decimal
    asset: str
    maker: bool
    time_ms: int


@dataclass(slots=True, kw_only=True, eq=False)
class FuturesOrder:
    """An order the exchange accepted.

    Attributes:
        quantity: in base; price: in quote, zero for a market order. Both may be amended.
        spent: sum of price x quantity of its fills, in quote.
        closes_only: it can make a position smaller and nothing else.
        venue_kind: ``LIQUIDATION`` or ``ADL`` for an order of the venue's own, else empty.
        algo: the conditional order that it came from.
        queue_ahead: base quantity of others, at its price, that trades first.
    """

    order_id: int
    client_id: str
    account: FuturesAccount
    request: FuturesRequest
    quantity: Decimal
    price: Decimal
    closes_only: bool
    status: Status = Status.NEW
    filled: Decimal = ZERO
    spent: Decimal = ZERO
    created_ms: int = 0
    updated_ms: int = 0
    venue_kind: str = ""
    algo: "AlgoOrder | None" = None
    queue_ahead: Decimal = ZERO
    trades: list[FuturesTrade] = field(default_factory=list)

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
    def waiting(self) -> bool:
        """Conditional orders wait elsewhere."""
        return False

    @property
    def may_open(self) -> bool:
        """Whether it could make a position larger."""
        return not self.closes_only

    @property
    def average(self) -> Decimal:
        """Average price of its fills, zero without one."""
        return self.spent / self.filled if self.filled else ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgoRequest:
    """A conditional order as asked for.

    Attributes:
        order: what is placed when it triggers; its quantity is 0 with `close_all`.
        trigger: price in quote; of a trailing stop the one from which it follows, if any.
        callback: of a trailing stop, as a share.
        by_mark: the mark triggers it, not the last trade.
        close_all: it closes whatever the position then is.
    """

    kind: AlgoKind
    order: FuturesRequest
    trigger: Decimal | None = None
    callback: Decimal | None = None
    by_mark: bool = False
    close_all: bool = False
    price_protect: bool = False
    client_id: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class AlgoOrder:
    """A conditional order the exchange accepted.

    Attributes:
        extreme: best price a trailing stop has seen since it follows; None before.
        actual: the order it became.
        reason: why it was rejected.
        doomed: it will be refused when it triggers, since a fault says so.
    """

    algo_id: int
    client_id: str
    account: FuturesAccount
    request: AlgoRequest
    status: AlgoStatus = AlgoStatus.NEW
    created_ms: int = 0
    updated_ms: int = 0
    triggered_ms: int = 0
    extreme: Decimal | None = None
    actual: FuturesOrder | None = None
    reason: str = ""
    doomed: bool = False

    @property
    def symbol(self) -> str:
        """What it trades."""
        return self.request.order.symbol

    @property
    def side(self) -> Side:
        """Its direction."""
        return self.request.order.side

    def hit(self, price: Decimal) -> bool:
        """Tell whether a price triggers it; a trailing stop remembers the best one."""
        request, sign = self.request, self.side.sign
        if request.callback is None:
            distance = (price - (request.trigger or ZERO)) * sign
            return distance <= 0 if request.kind.takes_profit else distance >= 0
        if self.extreme is None:
            if request.trigger is not None and (price - request.trigger) * sign > 0:
                return False
            self.extreme = price
        self.extreme = min(self.extreme, price) if sign > 0 else max(self.extreme, price)
        return (price - self.extreme * (1 + sign * request.callback)) * sign >= 0


class FuturesReport(NamedTuple):
    """Something that happened to an order, as its customer's stream will tell it.

    Attributes:
        execution: ``NEW``, ``TRADE``, ``CANCELED``, ``EXPIRED``, ``AMENDMENT``, ``CALCULATED``
            (a liquidation's or ADL's fill).
        status: of the order when it happened, with `filled` and `average` at that moment.
    """

    execution: str
    order: FuturesOrder
    status: Status
    filled: Decimal
    average: Decimal
    trade: FuturesTrade | None
    time_ms: int
