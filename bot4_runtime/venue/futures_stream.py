"""USD-M WebSocket doors: user streams, market streams and the WebSocket API.

``/private`` carries the user stream of a listen key, ``/public`` book tickers, depths and raw
trades, ``/market`` all other market streams, ``/ws-fapi/v1`` the API. Streams are split since
2026-04-23: an un-routed URL carries what ``/public`` does and stays silent for the rest.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from bot4_runtime.domain.candle import INTERVALS_MS
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue import futures_market_events as said
from bot4_runtime.venue import futures_user_events as told
from bot4_runtime.venue.door import Refusal
from bot4_runtime.venue.events import spoken
from bot4_runtime.venue.faults import EVENT, Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_events import (
    AccountChanged,
    AlgoChanged,
    Forced,
    FuturesEvent,
    MarginCalled,
    Marked,
    SettingsChanged,
    Traded,
)
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_ledger import FuturesMarket
from bot4_runtime.venue.futures_market_events import DepthTape, Message
from bot4_runtime.venue.futures_orders import FuturesReport
from bot4_runtime.venue.futures_wsapi import FuturesApi
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.listen_keys import ListenKeys
from bot4_runtime.venue.stream import REMEMBERED, Act, Connection, Later, delivered

MARK_EVERY_MS: Final = 1_000
MAX_STREAMS: Final = 1_024
INBOUND_MOST: Final = 10
INBOUND_MS: Final = 1_000
"""More messages than that within so long, at a door of streams, and the client is thrown out."""
DEPTH_STEPS: Final = ("", "@100ms", "@250ms", "@500ms")
PARTIAL_DEPTHS: Final = (5, 10, 20)
_ENCODE: Final = msgspec.json.encode


class Seat:
    """Where a connection sits: its door, and the streams it asked for.

    Attributes:
        route: ``private``, ``market``, ``public`` or ``api``.
        combined: events are wrapped with the name of their stream.
        events: of the user stream; empty for all.
        heard: when the latest messages came in, ms UTC.
    """

    def __init__(self, path: str, query: str) -> None:
        parts = [part for part in path.split("/") if part]
        asked = parse_qs(query)
        self.route = "api" if parts[0] == "ws-fapi" else parts[0]
        if self.route not in {"private", "market", "api"}:
            self.route = "public"
        self.combined = "stream" in parts
        names = asked.get("streams", [""])[0].split("/") + asked.get("listenKey", [])
        if not self.combined:
            names += parts[parts.index("ws") + 1 :] if "ws" in parts else []
        self.streams = {name for name in names if name}
        self.heard: deque[int] = deque(maxlen=INBOUND_MOST)
        self.events = {name for row in asked.get("events", []) for name in row.split("/")}

    def hear(self, now_ms: int) -> bool:
        """Count a message; tell whether it is one too many within a second."""
        full = len(self.heard) == INBOUND_MOST and now_ms - self.heard[0] < INBOUND_MS
        self.heard.append(now_ms)
        return full

    def carries(self, stream: str) -> bool:
        """Whether a stream that was asked for comes through this door."""
        if stream not in self.streams:
            return False
        public = stream.partition("@")[2].startswith(said.PUBLIC) or stream == "!bookTicker"
        return self.route == ("public" if public else "market")


class FuturesHub:
    """Tells events to the connections that want them.

    Args:
        faults: of user events; the loopback exchanges it.
        api: answers what comes in at the API's door.
    """

    def __init__(
        self,
        exchange: FuturesExchange,
        journal: VenueJournal,
        faults: FaultSchedule,
        keys: ListenKeys,
        api: FuturesApi,
    ) -> None:
        self.faults = faults
        self._exchange = exchange
        self._journal = journal
        self._keys = keys
        self._api = api
        self._seats: dict[Connection, Seat] = {}
        self._recent: dict[int, deque[bytes]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._depths: dict[str, DepthTape] = {}
        self._tickers: dict[str, Message] = {}
        self._untold_ms: dict[str, int] = {}  # by stream: first candle not told closed
        self._marked_ms: dict[str, int] = {}

    # ------------------------------------------------------------------ connections
    def join(self, connection: Connection, path: str, query: str) -> None:
        """Let a connection in that came to a door."""
        self._seats[connection] = Seat(path, query)
        self.flush()

    def leave(self, connection: Connection) -> None:
        """Forget a connection and what it subscribed to."""
        self._seats.pop(connection, None)
        self._api.leave(connection)

    def answer(self, connection: Connection, text: str | bytes) -> None:
        """Answer a message."""
        seat = self._seats.get(connection)
        if seat is None or seat.route == "api":  # a line that is gone may have been late
            connection.send(_ENCODE(self._api.answer(connection, text)))
            self.flush()
            return
        if seat.hear(self._exchange.now_ms()):
            connection.send(Act.THROW_OUT)
            return
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
        except UNREADABLE:
            error = {"code": 3, "msg": "Invalid JSON: expected value"}
            connection.send(_ENCODE({"error": error}))
            return
        connection.send(_ENCODE(self._control(seat, request) | {"id": request.get("id")}))
        self.flush()

    @staticmethod
    def _control(seat: Seat, request: Message) -> Message:
        method, names = request.get("method"), request.get("params") or []
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": sorted(seat.streams)}
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            text = "Invalid request: unknown variant, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`"
            return {"error": {"code": 2, "msg": text}}
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return {"error": {"code": 2, "msg": "Invalid request: params must be an array"}}
        if method == "SUBSCRIBE":
            if not len(seat.streams | set(names)) <= MAX_STREAMS:
                text = f"Invalid request: at most {MAX_STREAMS} streams a connection"
                return {"error": {"code": 2, "msg": text}}
            seat.streams |= set(names)
        else:
            seat.streams -= set(names)
        return {"result": None}

    # ------------------------------------------------------------------------ events
    def on_event(self, event: FuturesEvent) -> None:
        """Tell an event to whom it concerns."""
        margins = self._exchange.margins
        if isinstance(event, FuturesReport):
            account = event.order.account
            self._journal.add(event.time_ms, "report", account.uid, told.order_update(event))
            self._user(account, told.order_update(event))
            lite = told.trade_lite(event)
            if lite is not None:
                self._user(account, lite)
        elif isinstance(event, AccountChanged):
            self._user(event.account, told.account_update(margins, event))
        elif isinstance(event, AlgoChanged):
            told_of = told.algo_update(event)
            self._journal.add(event.time_ms, "report", event.algo.account.uid, told_of)
            self._user(event.algo.account, told_of)
        elif isinstance(event, SettingsChanged):
            self._user(event.account, told.config_update(event))
        elif isinstance(event, MarginCalled):
            self._user(event.account, told.margin_call(margins, event))
        elif isinstance(event, Forced):
            message = said.forced_order(event.order, event.time_ms)
            name = event.order.symbol.lower()
            self._market([f"{name}@forceOrder", "!forceOrder@arr"], message)
        elif isinstance(event, Traded):
            self._traded(event)
        elif isinstance(event, Marked):
            self._marked(self._exchange.market(event.symbol))

    def caller(self, connection: Connection) -> str:
        """Return the key that a connection's session is of; empty for no session."""
        return self._api.caller(connection)

    def send_away(self, connection: Connection, identifier: object, refusal: Refusal) -> None:
        """Answer a message with the door's refusal."""
        connection.send(_ENCODE(self._api.sent_away(identifier, refusal)))

    def terminate(self, account: FuturesAccount) -> None:
        """Take an account's listen key away, and say so."""
        key = self._keys.of(account)
        if key is not None:
            self._user(account, told.key_expired(key, self._exchange.now_ms()), key)
            self._keys.drop(account)

    def flush(self) -> None:
        """Tell what became of the books, once an action is over, and of marks that are due."""
        now_ms = self._exchange.now_ms()
        for key, account in self._keys.expired(now_ms):
            self._user(account, told.key_expired(key, now_ms), key)
        for market in self._exchange.markets:
            self._tell_depth(market, now_ms)
            self._tell_ticker(market, now_ms)
            self._tell_candles(market, now_ms, traded=False)
            self._marked(market)

    # --------------------------------------------------------------------- in detail
    def _wanted(self, streams: Iterable[str]) -> list[str]:
        seats = self._seats.values()
        return [stream for stream in streams if any(seat.carries(stream) for seat in seats)]

    def _tell_depth(self, market: FuturesMarket, now_ms: int) -> None:
        symbol, name = market.contract.symbol, market.contract.symbol.lower()
        changes = self._wanted(f"{name}@depth{step}" for step in DEPTH_STEPS)
        partial = {
            limit: self._wanted(f"{name}@depth{limit}{step}" for step in DEPTH_STEPS)
            for limit in PARTIAL_DEPTHS
        }
        if not changes and not any(partial.values()):
            self._depths.pop(symbol, None)
            return
        if symbol not in self._depths:
            self._depths[symbol] = DepthTape(market)
        change = self._depths[symbol].changes(now_ms)
        if change is None:
            return
        self._market(changes, change)
        for limit, streams in partial.items():
            if streams:
                self._market(streams, said.partial_depth(market, now_ms, limit))

    def _tell_ticker(self, market: FuturesMarket, now_ms: int) -> None:
        symbol = market.contract.symbol
        streams = self._wanted([f"{symbol.lower()}@bookTicker", "!bookTicker"])
        if not streams:
            self._tickers.pop(symbol, None)
            return
        ticker = said.book_ticker(market, now_ms)
        best = {key: ticker[key] for key in "bBaA"}
        before, self._tickers[symbol] = self._tickers.get(symbol), best
        if before is not None and best != before:
            self._market(streams, ticker)

    def _traded(self, event: Traded) -> None:
        now_ms, name = self._exchange.now_ms(), event.symbol.lower()
        self._market([f"{name}@aggTrade"], said.agg_trade(event.symbol, event.trade, now_ms))
        self._market([f"{name}@trade"], said.raw_trade(event.symbol, event.trade, now_ms))
        self._tell_candles(self._exchange.market(event.symbol), now_ms, traded=True)

    def _tell_candles(self, market: FuturesMarket, now_ms: int, *, traded: bool) -> None:
        """Tell each candle that ended, once, and after a trade the latest as it stands."""
        name = market.contract.symbol.lower()
        for interval, length_ms in INTERVALS_MS.items():
            stream = f"{name}@kline_{interval}"
            if not self._wanted([stream]):
                self._untold_ms.pop(stream, None)
                continue
            since_ms = self._untold_ms.get(stream, now_ms // length_ms * length_ms)
            for message in said.klines(market, interval, since_ms, now_ms):
                bar = message["k"]
                if bar["t"] >= since_ms and (bar["x"] or traded):
                    self._market([stream], message)
                if bar["x"]:
                    since_ms = max(since_ms, bar["t"] + length_ms)
            self._untold_ms[stream] = since_ms

    def _marked(self, market: FuturesMarket) -> None:
        now_ms, symbol = self._exchange.now_ms(), market.contract.symbol
        if now_ms - self._marked_ms.get(symbol, 0) < MARK_EVERY_MS:
            return
        self._marked_ms[symbol] = now_ms
        message, name = said.mark_price(market, now_ms), symbol.lower()
        self._market([f"{name}@markPrice", f"{name}@markPrice@1s"], message)
        self._market(["!markPrice@arr", "!markPrice@arr@1s"], [message])

    def _market(self, streams: Iterable[str], message: Message | list[Message]) -> None:
        for stream in streams:
            for connection, seat in self._seats.items():
                if seat.carries(stream):
                    wrapped = {"stream": stream, "data": message}
                    connection.send(_ENCODE(wrapped if seat.combined else message))

    def _user(self, account: FuturesAccount, message: Message, key: str | None = None) -> None:
        key = key or self._keys.of(account)
        if key is None:
            return
        for connection, seat in self._seats.items():
            wanted = not seat.events or message["e"] in seat.events
            if seat.route != "private" or key not in seat.streams or not wanted:
                continue
            rule = self.faults.next(EVENT, message["e"], self._exchange.now_ms())
            self._deliver(account, connection, seat, key, message, rule)

    def _deliver(
        self,
        account: FuturesAccount,
        connection: Connection,
        seat: Seat,
        key: str,
        message: Message,
        rule: FaultRule | None,
    ) -> None:
        """Send a user event, or act out what goes wrong with it or after it."""
        now_ms, fault = self._exchange.now_ms(), rule.fault if rule is not None else None
        if rule is not None:
            struck = {"fault": rule.fault.value, "call": f"{EVENT} {message['e']}"}
            self._journal.add(now_ms, "fault", 0, struck)
        self._journal.add(now_ms, "event", account.uid, {"e": message["e"], "fault": fault})

        def wrap(event: Message) -> bytes:
            return _ENCODE({"stream": key, "data": event} if seat.combined else event)

        recent = self._recent[account.uid]
        if rule is None or not _held_up(connection, wrap(message), rule):
            if fault is Fault.PING_BURST:
                connection.send(Act.PINGS)
            frames = spoken(fault, message, wrap)
            for frame in (*frames[:-1], *(recent if fault is Fault.REPLAYED else ())):
                connection.send(frame)
            delivered(connection, frames[-1], fault)
        recent.append(wrap(message))
        if rule is not None and fault is Fault.SHUTDOWN:
            connection.send(_ENCODE({"e": "serverShutdown", "E": now_ms}))
            connection.send(Later(Act.CLOSE, rule.seconds))
        elif fault is Fault.LINE_CLOSED:
            connection.send(Act.CLOSE)
        elif fault is Fault.TERMINATED and self._keys.drop(account) is not None:
            connection.send(_ENCODE(told.key_expired(key, now_ms)))


def _held_up(connection: Connection, message: bytes, rule: FaultRule) -> bool:
    """Let a message come late, or the line die before it; tell whether it was that."""
    if rule.fault is Fault.EVENT_DELAYED:
        connection.send(Later(message, rule.seconds))
        return True
    if rule.fault is Fault.LINE_DEAD:
        connection.send(Act.DEAD)
        connection.stalled = True
        return True
    return False
