"""Market data as Binance streams it: typed, checked, of spot and USD-M alike.

Prices and quantities are Decimal, finite and not negative; times are nanoseconds since 1970 UTC,
whether the venue said milliseconds or microseconds. Fields that are not named here are left
alone; words nobody knows (an event, a status, an order type) are counted, never guessed at and
never an error. What cannot be read raises `Unreadable`, and nothing else is ever raised.

Sources: Binance's "WebSocket Streams" (spot) and "Websocket Market Streams" (USD-M).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec

from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.candle import INTERVALS_MS, Candle
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.unreadable import UNREADABLE

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, msgspec.Meta(ge=0, le=10**17)]
"""Milliseconds or microseconds since 1970 UTC."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Level = tuple[Decimal, Decimal]
"""Price in quote and quantity in base."""
Levels = Annotated[list[Level], msgspec.Meta(max_length=20_000)]

NS_PER_US: Final = 1_000
FIRST_MICROSECOND: Final = 10**14
"""Numbers from here on are microseconds: as milliseconds they would lie beyond the year 5000."""
MOST: Final = Decimal(10**18)
LEAST: Final = Decimal(1).scaleb(-18)
NAMES_COUNTED: Final = 64
"""Different unknown words that are counted by name; further ones are counted together."""


class Unreadable(DataError):
    """A message is no JSON, is of another shape, or holds an impossible number."""


def time_ns(told: int) -> int:
    """Return a venue's time in nanoseconds since 1970 UTC; it says neither unit."""
    return told * (NS_PER_MS if told < FIRST_MICROSECOND else NS_PER_US)


def _positive(value: Decimal) -> None:
    if not (value.is_finite() and LEAST <= value <= MOST):
        raise ValueError(f"amount {str(value)[:40]}; expected a number above 0, at most 1e18")


def _is_share(text: str) -> bool:
    try:
        return abs(Decimal(text)) <= 1
    except InvalidOperation:  # no number, or one whose exponent is beyond all numbers
        return False


def _amount(value: Decimal) -> None:
    if value and not (value.is_finite() and LEAST <= value <= MOST):
        raise ValueError(f"amount {str(value)[:40]}; expected a number from 0 to 1e18")


class Trade(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="trade"):
    """One trade between two orders; their numbers are contiguous.

    Attributes:
        kind: USD-M's ``X``: ``MARKET``, or why it is none; ``MARKET`` on spot.
    """

    symbol: Name = msgspec.field(name="s")
    trade_id: Id = msgspec.field(name="t")
    price: Decimal = msgspec.field(name="p")
    quantity: Decimal = msgspec.field(name="q")
    time: Time = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")
    kind: Word = msgspec.field(name="X", default="MARKET")

    def __post_init__(self) -> None:
        check = _positive if self.kind == "MARKET" else _amount
        check(self.price)
        check(self.quantity)

    @property
    def ts_event_ns(self) -> int:
        """When it happened."""
        return time_ns(self.time)


class AggregateTrade(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="aggTrade"):
    """Trades of one taker at one price, as one."""

    symbol: Name = msgspec.field(name="s")
    aggregate_id: Id = msgspec.field(name="a")
    price: Decimal = msgspec.field(name="p")
    quantity: Decimal = msgspec.field(name="q")
    first_id: Id = msgspec.field(name="f")
    last_id: Id = msgspec.field(name="l")
    time: Time = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")

    def __post_init__(self) -> None:
        _positive(self.price)
        _positive(self.quantity)
        if self.last_id < self.first_id:
            raise ValueError(f"trades {self.first_id} to {self.last_id}; expected them to rise")

    @property
    def ts_event_ns(self) -> int:
        """When it happened."""
        return time_ns(self.time)


class KlineFields(msgspec.Struct, frozen=True, gc=False):
    """The candle in a kline event."""

    start: Time = msgspec.field(name="t")
    interval: Word = msgspec.field(name="i")
    open: Decimal = msgspec.field(name="o")
    high: Decimal = msgspec.field(name="h")
    low: Decimal = msgspec.field(name="l")
    close: Decimal = msgspec.field(name="c")
    volume: Decimal = msgspec.field(name="v")
    closed: bool = msgspec.field(name="x")

    def __post_init__(self) -> None:
        _positive(self.open)
        _positive(self.high)
        _positive(self.low)
        _positive(self.close)
        _amount(self.volume)


class Kline(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="kline"):
    """A candle as it stands, or, once, as it closed."""

    symbol: Name = msgspec.field(name="s")
    time: Time = msgspec.field(name="E")
    fields: KlineFields = msgspec.field(name="k")

    @property
    def ts_event_ns(self) -> int:
        """When the venue told it."""
        return time_ns(self.time)

    @property
    def closed(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.fields.closed

    def candle(self) -> Candle:
        """Return it as the engine knows candles; raises DataError for an impossible one."""
        told = self.fields
        made = Candle(
            symbol=self.symbol,
            interval=told.interval,
            open_time_ms=time_ns(told.start) // NS_PER_MS,
            open=float(told.open),
            high=float(told.high),
            low=float(told.low),
            close=float(told.close),
            volume=float(told.volume),
        )
        made.check()
        return made


class BookTicker(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="bookTicker"):
    """Best prices and what is offered there; spot tells neither an event name nor a time."""

    symbol: Name = msgspec.field(name="s")
    update_id: Id = msgspec.field(name="u")
    bid: Decimal = msgspec.field(name="b")
    bid_quantity: Decimal = msgspec.field(name="B")
    ask: Decimal = msgspec.field(name="a")
    ask_quantity: Decimal = msgspec.field(name="A")
    time: Time | None = msgspec.field(name="E", default=None)

    def __post_init__(self) -> None:
        _amount(self.bid)
        _amount(self.bid_quantity)
        _amount(self.ask)
        _amount(self.ask_quantity)


class DepthUpdate(msgspec.Struct, frozen=True, tag_field="e", tag="depthUpdate"):
    """Changes of a book: each level's new quantity, 0 where there is nothing any more.

    Attributes:
        first_id: of the changes in it.
        last_id: of the changes in it.
        before_id: USD-M's ``pu``, the `last_id` of the update before; None on spot.
    """

    symbol: Name = msgspec.field(name="s")
    time: Time = msgspec.field(name="E")
    first_id: Id = msgspec.field(name="U")
    last_id: Id = msgspec.field(name="u")
    bids: Levels = msgspec.field(name="b")
    asks: Levels = msgspec.field(name="a")
    before_id: Id | None = msgspec.field(name="pu", default=None)

    def __post_init__(self) -> None:
        if self.last_id < self.first_id:
            raise ValueError(f"changes {self.first_id} to {self.last_id}; expected them to rise")
        _check_levels(self.bids, self.asks)

    @property
    def ts_event_ns(self) -> int:
        """When the venue told it."""
        return time_ns(self.time)


class DepthSnapshot(msgspec.Struct, frozen=True):
    """A whole book as REST tells it, best prices first."""

    last_id: Id = msgspec.field(name="lastUpdateId")
    bids: Levels
    asks: Levels

    def __post_init__(self) -> None:
        _check_levels(self.bids, self.asks)


class MarkPrice(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="markPriceUpdate"):
    """What USD-M positions are valued at.

    Attributes:
        rate: funding of the running period as a share, of either sign; "" where there is none.
        funding_time: when it is paid; 0 where there is none.
    """

    symbol: Name = msgspec.field(name="s")
    time: Time = msgspec.field(name="E")
    price: Decimal = msgspec.field(name="p")
    index: Decimal = msgspec.field(name="i")
    rate: Word = msgspec.field(name="r", default="")
    funding_time: Time = msgspec.field(name="T", default=0)

    def __post_init__(self) -> None:
        _positive(self.price)
        _amount(self.index)
        if self.rate and not _is_share(self.rate):
            raise ValueError(f"funding rate {self.rate[:40]}; expected a share from -1 to 1")

    @property
    def ts_event_ns(self) -> int:
        """When the venue told it."""
        return time_ns(self.time)

    @property
    def funding_rate(self) -> Decimal | None:
        """The running period's funding as a share; None where there is none."""
        return Decimal(self.rate) if self.rate else None


class LiquidationFields(msgspec.Struct, frozen=True, gc=False):
    """The order in a liquidation event."""

    symbol: Name = msgspec.field(name="s")
    side: Word = msgspec.field(name="S")
    order_type: Word = msgspec.field(name="o")
    status: Word = msgspec.field(name="X")
    quantity: Decimal = msgspec.field(name="q")
    average_price: Decimal = msgspec.field(name="ap")
    filled: Decimal = msgspec.field(name="z")
    time: Time = msgspec.field(name="T")

    def __post_init__(self) -> None:
        _amount(self.quantity)
        _amount(self.average_price)
        _amount(self.filled)


class Liquidation(msgspec.Struct, frozen=True, gc=False, tag_field="e", tag="forceOrder"):
    """Somebody's position was closed by USD-M; at most one a second and symbol is told."""

    time: Time = msgspec.field(name="E")
    order: LiquidationFields = msgspec.field(name="o")

    @property
    def symbol(self) -> str:
        """Of the position."""
        return self.order.symbol

    @property
    def ts_event_ns(self) -> int:
        """When the venue told it."""
        return time_ns(self.time)


class Reply(msgspec.Struct, frozen=True, gc=False):
    """The answer to a subscription.

    Attributes:
        request_id: ours; None when the venue could not read it.
        code: of a refusal; None when it was granted.
        reason: of a refusal.
    """

    request_id: int | None = None
    code: int | None = None
    reason: str = ""


class Shutdown(msgspec.Struct, frozen=True, gc=False):
    """The venue will end this connection soon: open another one first."""


Event = Trade | AggregateTrade | Kline | BookTicker | DepthUpdate | MarkPrice | Liquidation
Message = Event | Reply | Shutdown

KINDS: Final[dict[str, type[Event]]] = {
    "trade": Trade,
    "aggTrade": AggregateTrade,
    "kline": Kline,
    "bookTicker": BookTicker,
    "depthUpdate": DepthUpdate,
    "markPriceUpdate": MarkPrice,
    "forceOrder": Liquidation,
}
TRADE_KINDS: Final = frozenset({"MARKET", "INSURANCE_FUND", "ADL", "NA"})
KLINE_INTERVALS: Final = frozenset({"1s", *INTERVALS_MS, "1M"})
SIDES: Final = frozenset({"BUY", "SELL"})
ORDER_TYPES: Final = frozenset({"LIMIT", "MARKET"})
STATUSES: Final = frozenset(
    {"NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "REJECTED"}
)
STREAMS_REMEMBERED: Final = 4_096


def _unknown_words(event: Event) -> Iterator[str]:
    """Yield the words of an event that nobody knows."""
    words: tuple[tuple[str, frozenset[str]], ...]
    if isinstance(event, Trade):
        words = ((event.kind, TRADE_KINDS),)
    elif isinstance(event, Kline):
        words = ((event.fields.interval, KLINE_INTERVALS),)
    elif isinstance(event, Liquidation):
        order = event.order
        words = (
            (order.side, SIDES),
            (order.order_type, ORDER_TYPES),
            (order.status, STATUSES),
        )
    else:
        return
    yield from (word for word, known in words if word not in known)


class _Refusal(msgspec.Struct):
    code: int
    msg: str = ""


class _Wrapped(msgspec.Struct):
    """A message of a combined stream, still unread; one of a single stream has no `stream`."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Head(msgspec.Struct):
    """What an event or an answer says of itself."""

    e: str = ""
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Refusal | None = None
    code: int | None = None
    msg: str = ""
    u: msgspec.Raw = msgspec.Raw()


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)
_HEADS: Final = msgspec.json.Decoder(_Head)
_DECODERS: Final[dict[str, msgspec.json.Decoder[Event]]] = {
    name: msgspec.json.Decoder(kind) for name, kind in KINDS.items()
}
_CHANNELS: Final = {
    "trade": _DECODERS["trade"],
    "aggTrade": _DECODERS["aggTrade"],
    "kline": _DECODERS["kline"],
    "bookTicker": _DECODERS["bookTicker"],
    "depth": _DECODERS["depthUpdate"],
    "markPrice": _DECODERS["markPriceUpdate"],
    "forceOrder": _DECODERS["forceOrder"],
}
"""What a stream's name says that it brings."""
_SNAPSHOTS: Final = msgspec.json.Decoder(DepthSnapshot)
_WORDY: Final = frozenset({Trade, Kline, Liquidation})
_SHUTDOWN: Final = Shutdown()
_FAILURES: Final = (*UNREADABLE, ValueError, ArithmeticError)


class MarketDecoder:
    """Reads what a market stream sends.

    Attributes:
        counts: what was passed over: ``event NAME`` and ``word NAME``.
        stream: the last message's, where it came with its stream's name; "" else.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.stream = ""
        self._decoders: dict[str, msgspec.json.Decoder[Event]] = {}

    def decode(self, text: str | bytes) -> Message | None:
        """Return what a message says; None for an event nobody knows, which is counted.

        Raises:
            Unreadable: see the class.
        """
        try:
            return self._read(text)
        except _FAILURES as error:
            raise Unreadable(
                f"a message of the market stream cannot be read: {str(error)[:200]}; received "
                f"{text[:80]!r}"
            ) from error

    def _read(self, text: str | bytes) -> Message | None:
        wrapped = _WRAPPED.decode(text)
        stream = self.stream = wrapped.stream
        if not stream:
            return self._look_at(text)
        body = bytes(wrapped.data)
        decoder = self._decoders.get(stream) or self._decoder_of(stream)
        if decoder is not None:
            try:
                return self._known(decoder.decode(body))
            except msgspec.ValidationError:
                pass  # it may be another event than the stream's name says
        if body[:1] == b"[":
            self._count(f"event {stream}")
            return None
        return self._look_at(body)

    def _decoder_of(self, stream: str) -> msgspec.json.Decoder[Event] | None:
        """Return what reads a stream, by its name: ``btcusdt@kline_1m``, ``!forceOrder@arr``."""
        channel = stream.lstrip("!") if stream.startswith("!") else stream.partition("@")[2]
        decoder = _CHANNELS.get(channel.partition("@")[0].partition("_")[0])
        if decoder is not None and len(self._decoders) < STREAMS_REMEMBERED:
            self._decoders[stream] = decoder
        return decoder

    def _look_at(self, text: str | bytes) -> Message | None:
        """Read what says itself what it is."""
        head = _HEADS.decode(text)
        name = head.e
        if not name:
            if not bytes(head.u):
                return _reply(head)
            name = "bookTicker"
        if name == "serverShutdown":
            return _SHUTDOWN
        decoder = _DECODERS.get(name)
        if decoder is None:
            self._count(f"event {name}")
            return None
        return self._known(decoder.decode(text))

    def _known(self, event: Event) -> Event:
        for word in _unknown_words(event) if type(event) in _WORDY else ():
            self._count(f"word {word}")
        return event

    def _count(self, name: str) -> None:
        name = name[:80]
        if name not in self.counts and len(self.counts) >= NAMES_COUNTED:
            name = "others"
        self.counts[name] += 1


def decode_snapshot(body: bytes) -> DepthSnapshot:
    """Read a book as REST tells it; raises Unreadable."""
    try:
        return _SNAPSHOTS.decode(body)
    except _FAILURES as error:
        raise Unreadable(f"a depth snapshot cannot be read: {str(error)[:200]}") from error


def _reply(head: _Head) -> Reply:
    number = head.id if isinstance(head.id, int) else None
    error = head.error
    if error is None and head.code is not None:
        error = _Refusal(head.code, head.msg)
    if error is not None:
        return Reply(number, error.code, error.msg[:200])
    if not bytes(head.result):
        raise ValueError("neither an event nor an answer")
    return Reply(number)


def _check_levels(*sides: Sequence[Level]) -> None:
    for side in sides:
        for price, quantity in side:
            _positive(price)
            _amount(quantity)
