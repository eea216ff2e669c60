"""The user stream over Binance's WebSocket API: subscriptions, events, and their faults.

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
    """

    def __init__(self, exchange: Exchange, journal: VenueJournal, faults: FaultSchedule) -> None:
        self.faults = faults
        self._exchange = exchange
        self._journal = journal
        self._connections: set[Connection] = set()

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
        method = request.get("method")
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": self._exchange.now_ms()}
        if method == "userDataStream.subscribe.signature":
            if connection.account is not None:
                raise Refused(*refusals.SUBSCRIPTION_ACTIVE)
            connection.account = self._identify(request.get("params") or {})
            return {"subscriptionId": 0}
        if method == "userDataStream.unsubscribe":
            if connection.account is None:
                raise Refused(*refusals.SUBSCRIPTION_INACTIVE)
            connection.account = None
            return {}
        raise Refused(-1020, "This operation is not supported.")

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
        "error": {"code": error.code, "msg": error.message},
    }
