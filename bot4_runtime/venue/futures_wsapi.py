"""Binance's WebSocket API of the USD-M market (``/ws-fapi/v1``), over the same calls as REST."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue import auth, refusals
from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.door import Door, Refusal
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_accounting import Accounting
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_market_data import MarketData
from bot4_runtime.venue.futures_rest import weight_of
from bot4_runtime.venue.futures_trading import Trading
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.limits import SECOND_MS, Limited, Limiter
from bot4_runtime.venue.listen_keys import ListenKeys
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rest import Values
from bot4_runtime.venue.stream import Connection

Message = dict[str, Any]
PUBLIC: Final = {
    "ping": ("GET", "/fapi/v1/ping"),
    "time": ("GET", "/fapi/v1/time"),
    "depth": ("GET", "/fapi/v1/depth"),
    "ticker.price": ("GET", "/fapi/v1/ticker/price"),
    "ticker.book": ("GET", "/fapi/v1/ticker/bookTicker"),
}
SIGNED: Final = {
    "order.place": ("POST", "/fapi/v1/order"),
    "order.modify": ("PUT", "/fapi/v1/order"),
    "order.cancel": ("DELETE", "/fapi/v1/order"),
    "order.status": ("GET", "/fapi/v1/order"),
    "algoOrder.place": ("POST", "/fapi/v1/algoOrder"),
    "algoOrder.cancel": ("DELETE", "/fapi/v1/algoOrder"),
    "account.balance": ("GET", "/fapi/v3/balance"),
    "account.status": ("GET", "/fapi/v3/account"),
    "account.position": ("GET", "/fapi/v3/positionRisk"),
    "v2/account.balance": ("GET", "/fapi/v3/balance"),
    "v2/account.status": ("GET", "/fapi/v3/account"),
    "v2/account.position": ("GET", "/fapi/v3/positionRisk"),
}


class FuturesApi:
    """Answers messages; remembers who logged on."""

    def __init__(
        self,
        exchange: FuturesExchange,
        journal: VenueJournal,
        limiter: Limiter,
        market_data: MarketData,
        trading: Trading,
        accounting: Accounting,
        keys: ListenKeys,
        door: Door,
    ) -> None:
        self._exchange = exchange
        self._door = door
        self._journal = journal
        self._limiter = limiter
        self._market_data = market_data
        self._signed = trading.calls | accounting.calls
        self._keys = keys
        self._sessions: dict[Connection, tuple[FuturesAccount, int]] = {}
        self._session_calls: dict[str, Callable[[Connection, Values], Any]] = {
            "session.logon": self._logon,
            "session.status": self._status,
            "session.logout": self._logout,
            "userDataStream.start": self._start,
            "userDataStream.ping": self._ping,
            "userDataStream.stop": self._stop,
        }

    def leave(self, connection: Connection) -> None:
        """Forget a connection's session."""
        self._sessions.pop(connection, None)

    def caller(self, connection: Connection) -> str:
        """Return the key that a connection's session is of; empty for no session."""
        session = self._sessions.get(connection)
        return "" if session is None else session[0].api_key

    def sent_away(self, identifier: object, refusal: Refusal) -> Message:
        """Return the reply to a message that the door refuses."""
        return _error(identifier, _limited(refusal), self._exchange.now_ms())

    def answer(self, connection: Connection, text: str | bytes) -> Message:
        """Return the reply to a message."""
        request: Message = {}
        now_ms, values = self._exchange.now_ms(), {}
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
            values = auth.worded(request.get("params") or {})
            told = {name: value for name, value in values.items() if name != "signature"}
            self._note("request", {"call": str(request.get("method")), "with": told})
            result = self._dispatch(connection, str(request.get("method")), values)
            reply = {"id": request.get("id"), "status": 200, "result": result}
        except (*UNREADABLE, AttributeError):
            reply = _error(None, Refused(-1135, "Invalid JSON Request"), now_ms)
        except Refused as error:
            reply = _error(request.get("id"), error, now_ms)
        self._note("answer", {"status": reply["status"]})
        session = self._sessions.get(connection)
        key = session[0].api_key if session is not None else values.get("apiKey")
        if values.get("returnRateLimits") == "false":
            return reply
        return reply | {"rateLimits": self._limiter.counts(now_ms, key)}

    def _note(self, kind: str, body: Message) -> None:
        self._journal.add(self._exchange.now_ms(), kind, 0, body)

    def _dispatch(self, connection: Connection, method: str, values: dict[str, str]) -> Any:
        now_ms = self._exchange.now_ms()
        named = SIGNED.get(method)
        refusal = self._door.refusal(now_ms, " ".join(named) if named else method, values)
        if refusal is not None:
            raise _limited(refusal)
        api_key = self.caller(connection) or values.get("apiKey", "")
        if self._door.denies(api_key, now_ms, method):
            raise Refused(*refusals.REJECTED_KEY, status=401)
        if method in self._session_calls:
            self._limiter.spend(self._exchange.now_ms(), 1)
            return self._session_calls[method](connection, values)
        call = PUBLIC.get(method) or SIGNED.get(method)
        if call is None:
            raise Refused(-1020, "This operation is not supported.")
        self._limiter.spend(self._exchange.now_ms(), weight_of(call, values))
        if method in PUBLIC:
            return self._market_data.calls[call](values)
        return self._signed[call](self._account(connection, values), values)

    def _account(self, connection: Connection, values: dict[str, str]) -> FuturesAccount:
        """Return who asks: by signature, or by session; then the time alone is checked."""
        session = self._sessions.get(connection)
        if session is None or values.get("apiKey") or values.get("signature"):
            return auth.check_sorted(self._exchange, values)
        auth.check_time(self._exchange.now_ms(), values)
        return session[0]

    # ----------------------------------------------------------------------- sessions
    def _logon(self, connection: Connection, values: Values) -> Any:
        account = auth.check_sorted(self._exchange, values)
        if not auth.is_ed25519(account.secret):
            raise Refused(-4056, "Invalid api key type.")
        self._sessions[connection] = (account, self._exchange.now_ms())
        return self._status(connection, values)

    def _status(self, connection: Connection, values: Values) -> Any:
        account, since = self._sessions.get(connection, (None, None))
        return {
            "apiKey": None if account is None else account.api_key,
            "authorizedSince": since,
            "connectedSince": since or self._exchange.now_ms(),
            "returnRateLimits": True,
            "serverTime": self._exchange.now_ms(),
        }

    def _logout(self, connection: Connection, values: Values) -> Any:
        self._sessions.pop(connection, None)
        return self._status(connection, values)

    # ------------------------------------------------------------------- user streams
    def _start(self, connection: Connection, values: Values) -> Any:
        account = self._keyed(connection, values)
        return {"listenKey": self._keys.give(account, self._exchange.now_ms())}

    def _ping(self, connection: Connection, values: Values) -> Any:
        key = self._keys.keep(self._keyed(connection, values), self._exchange.now_ms())
        if key is None:
            raise Refused(*no.NO_LISTEN_KEY)
        return {"listenKey": key}

    def _stop(self, connection: Connection, values: Values) -> Any:
        if self._keys.drop(self._keyed(connection, values)) is None:
            raise Refused(*no.NO_LISTEN_KEY)
        return {}

    def _keyed(self, connection: Connection, values: Values) -> FuturesAccount:
        session = self._sessions.get(connection)
        if session is not None:
            return session[0]
        return auth.identify(self._exchange, values.get("apiKey"))


def _limited(refusal: Refusal) -> Limited:
    return Limited(refusal.code, refusal.text, refusal.status, refusal.retry_after_s or 0)


def _error(identifier: object, error: Refused, now_ms: int) -> Message:
    told: Message = {"code": error.code, "msg": error.message}
    if isinstance(error, Limited):
        retry_after = now_ms + error.retry_after_s * SECOND_MS
        told["data"] = {"serverTime": now_ms, "retryAfter": retry_after}
    return {"id": identifier, "status": error.status, "error": told}
