"""Binance's WebSocket API: sessions, orders, the user stream, and its faults.

`Connection` is one client's end without a socket: what it is told it answers, and what it is
to be sent lies in its outbox until the shell sends it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from bot4_runtime.venue import auth, messages, refusals
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.faults import Fault, FaultSchedule
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.orders import Report
from bot4_runtime.venue.refusals import Refused, mandatory
from bot4_runtime.venue.rest import Rest

CALLS: Final = {
    "order.place": ("POST", "/api/v3/order"),
    "order.status": ("GET", "/api/v3/order"),
    "order.cancel": ("DELETE", "/api/v3/order"),
    "order.cancelReplace": ("POST", "/api/v3/order/cancelReplace"),
    "order.amend.keepPriority": ("PUT", "/api/v3/order/amend/keepPriority"),
    "orderList.place.oco": ("POST", "/api/v3/orderList/oco"),
    "openOrders.status": ("GET", "/api/v3/openOrders"),
    "account.status": ("GET", "/api/v3/account"),
    "myTrades": ("GET", "/api/v3/myTrades"),
}
"""Methods that are REST's by another name."""
_ENCODE: Final = msgspec.json.encode
CUT: Final = b""
"""In an outbox: end the connection inside a frame."""


class Connection:
    """One WebSocket connection.

    Args:
        wake: called when something lies in the outbox.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.outbox: deque[bytes] = deque()
        self.account: Account | None = None
        self.session: Account | None = None
        self.stalled = False
        self.late: bytes | None = None
        self._wake = wake

    def send(self, message: bytes) -> None:
        """Lay a message into the outbox; a stalled connection forgets it."""
        if not self.stalled:
            self.outbox.append(message)
            self._wake()


class Hub:
    """Tells reports to the connections that subscribed to their account.

    Args:
        faults: of events; the shell may exchange it.
        rest: does what requests ask.
    """

    def __init__(
        self, exchange: Exchange, journal: VenueJournal, faults: FaultSchedule, rest: Rest
    ) -> None:
        self._rest = rest
        self.faults = faults
        self._exchange = exchange
        self._journal = journal
        self._connections: set[Connection] = set()
        self._methods: dict[str, Callable[[Connection, Mapping[str, object]], object]] = {
            "ping": lambda _connection, _params: {},
            "time": lambda _connection, _params: {"serverTime": exchange.now_ms()},
            "session.logon": self._log_in,
            "session.status": self._session,
            "session.logout": self._log_out,
            "userDataStream.subscribe.signature": self._subscribe,
            "userDataStream.unsubscribe": self._unsubscribe,
        }

    def join(self, connection: Connection) -> None:
        """Let a connection in."""
        self._connections.add(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection and its subscription."""
        self._connections.discard(connection)

    def report(self, account: Account, report: Report) -> None:
        """Tell a report, and the balances it may have changed."""
        order = report.order
        rules = next(rules for rules in self._exchange.symbols if rules.symbol == order.symbol)
        told = messages.execution_report(report)
        self._journal.add(report.time_ms, "report", account.uid, told)
        position = messages.account_position(account, {rules.base, rules.quote}, report.time_ms)
        for connection in self._connections:
            if connection.account is account:
                for event in (told, position):
                    self._tell(connection, account, event)

    def answer(self, connection: Connection, text: str | bytes) -> None:
        """Answer a message of the WebSocket API."""
        request: dict[str, Any] = {}
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
            result = self._dispatch(connection, request)
            reply = {"id": request.get("id"), "status": 200, "result": result}
        except msgspec.MsgspecError:
            reply = _error(None, Refused(-1135, "Invalid JSON Request"))
        except Refused as error:
            reply = _error(request.get("id"), error)
        connection.send(_ENCODE(reply | {"rateLimits": []}))

    def _dispatch(self, connection: Connection, request: Mapping[str, Any]) -> object:
        method, params = request.get("method"), request.get("params") or {}
        if method in CALLS:
            account = self._caller(connection, params)
            values = {name: str(value) for name, value in params.items()}
            return self._rest.perform(*CALLS[method], account, values)
        done = self._methods.get(str(method))
        if done is None:
            raise Refused(-1020, "This operation is not supported.")
        return done(connection, params)

    def _log_in(self, connection: Connection, params: Mapping[str, object]) -> dict[str, Any]:
        connection.session = self._log_on(params)
        return self._session(connection, params)

    def _log_out(self, connection: Connection, params: Mapping[str, object]) -> dict[str, Any]:
        connection.session = None
        return self._session(connection, params)

    def _subscribe(self, connection: Connection, params: Mapping[str, object]) -> dict[str, Any]:
        if connection.account is not None:
            raise Refused(*refusals.SUBSCRIPTION_ACTIVE)
        connection.account = self._identify(params)
        return {"subscriptionId": 0}

    def _unsubscribe(self, connection: Connection, _params: Mapping[str, object]) -> object:
        if connection.account is None:
            raise Refused(*refusals.SUBSCRIPTION_INACTIVE)
        connection.account = None
        return {}

    def _log_on(self, params: Mapping[str, object]) -> Account:
        """Check whose session it is to be; only Ed25519 keys have one."""
        account = self._identify(params)
        if not auth.is_ed25519(account):
            raise Refused(-4056, "HMAC_SHA256 API key is not supported.")
        return account

    def _session(self, connection: Connection, _params: Mapping[str, object]) -> dict[str, Any]:
        session = connection.session
        return {
            "apiKey": session.api_key if session is not None else None,
            "authorizedSince": self._exchange.now_ms() if session is not None else None,
            "connectedSince": self._exchange.now_ms(),
            "returnRateLimits": True,
            "serverTime": self._exchange.now_ms(),
            "userDataStream": connection.account is not None,
        }

    def _caller(self, connection: Connection, params: Mapping[str, object]) -> Account:
        """Return who asks: the session's account, or that of a signed message."""
        if connection.session is None or "apiKey" in params:
            return self._identify(params)
        auth.check_time(
            self._exchange.now_ms(), {name: str(value) for name, value in params.items()}
        )
        return connection.session

    def _identify(self, params: Mapping[str, object]) -> Account:
        """Check a signed message: the signature covers its other parameters, sorted by name."""
        values = {name: str(value) for name, value in params.items()}
        account = auth.identify(self._exchange, values.get("apiKey"))
        auth.check_time(self._exchange.now_ms(), values)
        signature = values.pop("signature", "")
        if not signature:
            raise mandatory("signature")
        payload = "&".join(f"{name}={values[name]}" for name in sorted(values))
        auth.check_signature(account, payload, signature)
        return account

    def _tell(self, connection: Connection, account: Account, event: messages.Message) -> None:
        rule = self.faults.next("EVENT", event["e"])
        fault = rule.fault if rule is not None else None
        note = {"e": event["e"], "I": event.get("I"), "fault": fault}
        self._journal.add(self._exchange.now_ms(), "event", account.uid, note)
        message = _ENCODE({"subscriptionId": 0, "event": event})
        if fault is Fault.EVENT_LOST:
            return
        if fault is Fault.EVENT_STALL:
            connection.stalled = True
        elif fault is Fault.EVENT_CUT:
            connection.send(CUT)
            connection.stalled = True
        elif fault is Fault.EVENT_LATE and connection.late is None:
            connection.late = message
        else:
            connection.send(message)
            if fault is Fault.EVENT_TWICE:
                connection.send(message)
            if connection.late is not None:
                connection.send(connection.late)
                connection.late = None


def _error(identifier: object, error: Refused) -> dict[str, Any]:
    return {
        "id": identifier,
        "status": error.status,
        "error": {"code": error.code, "msg": error.message} | error.more,
    }
