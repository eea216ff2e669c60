"""What the engine needs of a venue. Adapters implement it; only `app` names them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.events import OrderEvent
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Liquidity, Order, OrderIntent, OrderStatus, Side


class Venue(Protocol):
    """An exchange, in-process or remote. Every answer comes back as order events."""

    name: str

    @property
    def in_process(self) -> bool:
        """Whether the venue is part of the fold, so that an unanswered intent is replayed.

        False for a real exchange, where an unanswered intent is queried and never resent.
        """
        ...

    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        """Hand over an order once; return how it was answered.

        A remote venue answers with OrderAccepted or OrderRejected, and may add the trades it
        told as OrderFilled (trade id as the venue has it). How the order ends comes with the
        user stream or by query, never from here.

        Raises:
            VenueUnreachable: it was not sent.
            VenueRefused: the venue said no.
            OutcomeUnknown: it was sent, and the result is not known.
        """
        ...

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        """Ask for the end of an order; may be repeated.

        A remote venue returns nothing: the end comes with the user stream or by query, and
        with it what was filled until then. It raises as `submit` does.
        """
        ...

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        """Match resting orders against a closed candle; remote venues return nothing."""
        ...


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as a remote venue tells it.

    Attributes:
        client_id: the id it was sent with; one that is not ours belongs to somebody else.
        filled: base quantity filled so far.
        spent: sum of price x quantity of its fills, in quote.
        updated_ms: venue time of its last change.
    """

    client_id: str
    venue_order_id: str
    symbol: str
    side: Side
    status: OrderStatus
    quantity: Decimal
    filled: Decimal
    spent: Decimal
    updated_ms: int


class VenueTrade(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of the account as a remote venue tells it.

    Attributes:
        trade_id: the venue's; rises within a symbol.
        venue_order_id: of the order it belongs to.
        time_ms: venue time.
    """

    symbol: str
    trade_id: int
    venue_order_id: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    liquidity: Liquidity
    time_ms: int


class UserUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What the user stream says: an order's state, and the execution that caused it, if any.

    Updates may come late, twice, in any order, or not at all: reconciliation makes up for it.
    """

    order: VenueOrder
    trade: VenueTrade | None


class RemoteVenue(Venue, Protocol):
    """A venue outside the process: what it holds is asked for, never assumed.

    Every call either answers, or raises VenueUnreachable (nothing was sent), VenueRefused
    (it said no) or OutcomeUnknown (sent, result not known). An answer that is incomplete
    or cannot be read is OutcomeUnknown, never an empty list.
    """

    def poll(self) -> Sequence[UserUpdate]:
        """Return what the user stream brought since the last call; never waits."""
        ...

    def stream_alive(self) -> bool:
        """Tell whether the user stream is connected and has spoken within its bound."""
        ...

    def query(self, symbol: str, client_id: str) -> VenueOrder | None:
        """Ask for one order; None when the venue says that it does not know it."""
        ...

    def open_orders(self) -> Sequence[VenueOrder]:
        """Return all open orders of the account, ours or not."""
        ...

    def trades(self, symbol: str, after_trade_id: int) -> Sequence[VenueTrade]:
        """Return all executions in a symbol after a trade id, oldest first, paged to the end."""
        ...

    def balances(self) -> Mapping[str, Decimal]:
        """Return free plus locked amounts by asset."""
        ...

    def positions(self) -> Mapping[str, Decimal] | None:
        """Return what is held of contracts, in base, shorts below zero: by symbol.

        None on a spot market, where what is held is in the balances.
        """
        ...

    def name_of(self, trade: VenueTrade) -> str:
        """Return the client id of the order that a trade is of; empty where it is not told."""
        ...

    def server_time_ms(self) -> int:
        """Return the venue's clock."""
        ...


class HearsMargin(Protocol):
    """What hears on what an account's positions rest, as a venue of contracts tells it.

    The first three are called with each whole reading of the account; the others whenever
    the user stream brings them, on its thread.
    """

    def read(
        self, positions: Sequence[Mapping[str, Any]], account: Mapping[str, Any], as_of_ns: int
    ) -> None:
        """Hear of all positions and wallets, as of no later than a venue time (UTC, ns).

        Raises:
            DataError: they cannot be.
        """
        ...

    def brackets(self, answer: Sequence[Mapping[str, Any]]) -> None:
        """Hear of the leverage brackets."""
        ...

    def marks(self, told: Mapping[str, tuple[float, int]]) -> None:
        """Hear of the marks of all symbols: in quote, and of when they are (UTC, ns)."""
        ...

    def changed(self, update: Mapping[str, Any]) -> None:
        """Hear of a change of the account."""
        ...

    def called(self, symbols: list[str]) -> None:
        """Hear that the venue calls for margin."""
        ...
