"""Binance's WebSocket API: sessions, orders, the user stream, and its faults.

`Connection` is one client's end without a socket: what it is told it answers, and what it is
to be sent lies in its outbox until the shell sends it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue import auth, events, messages, refusals
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.door import Door, Refusal
from bot4_runtime.venue.exchange import Exchange
from bot4_runtime.venue.faults import EVENT, SUBSCRIBE, Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.limits import Limited
from bot4_runtime.venue.orders import Report
from bot4_runtime.venue.refusals import Refused
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
INBOUND: Final = 5
"""Messages that a connection may send within a second, pings and pongs among them."""
REMEMBERED: Final = 10
"""Messages of an account that a fault may send again."""


class Act(Enum):
    """In an outbox: what the shell does to the connection instead of sending a message."""

    CUT = "end inside a frame"
    CLOSE = "end"
    THROW_OUT = "end, as of a client that says too much"
    DEAD = "neither speak nor listen, and stay open"
    PINGS = "ping many times at once"


class Later(NamedTuple):
    """In an outbox: a message, or an act, that is due some seconds later."""

    what: "bytes | Act"
    seconds: float


Parcel = bytes | Act | Later


class Connection:
    """One WebSocket connection.

    Args:
        wake: called when something lies in the outbox.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.outbox: deque[Parcel] = deque()
        self.account: Account | None = None
        self.session: Account | None = None
        self.stalled = False
        self.late: bytes | None = None
        self._wake = wake
        self._heard: deque[float] = deque()

    def send(self, message: Parcel) -> None:
        """Lay a message into the outbox; a stalled connection forgets it."""
        if not self.stalled:
            self.outbox.append(message)
            self._wake()

    def heard(self, now_s: float) -> bool:
        """Count something that came in; False when it is more than a connection may send."""
        self._heard.append(now_s)
        while self._heard[0] <= now_s - 1.0:
            self._heard.popleft()
        return len(self._heard) <= INBOUND


class Message(msgspec.Struct):
    """A message of the WebSocket API."""

    method: str = ""
    id: int | str | None = None
    params: dict[str, Any] | None = None


class Hub:
    """Tells reports to the connections that subscribed to their account.

    Args:
        door: says when the venue wants silence, and which keys open nothing.
        faults: of events; the shell may exchange it.
        rest: does what requests ask.
    """

    def __init__(
        self,
        exchange: Exchange,
        journal: VenueJournal,
        door: Door,
        faults: FaultSchedule,
        rest: Rest,
    ) -> None:
        self._rest = rest
        self.faults = faults
        self._door = door
        self._recent: dict[int, deque[bytes]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._exchange = exchange
        self._journal = journal
        self._connections: set[Connection] = set()
        self._resend = False
        self._methods: dict[str, Callable[[Connection, Mapping[str, object]], object]] = {
            "ping": lambda _connection, _params: {},
            "time": lambda _connection, _params: {"serverTime": exchange.now_ms()},
            "session.logon": self._log_in,
            "session.status": self._session,
            "session.logout": self._log_out,
            "userDataStream.subscribe.signature": self._subscribe,
            "userDataStream.unsubscribe": self._unsubscribe,
        }

    def join(self, connection: Connection, path: str = "", query: str = "") -> None:
        """Let a connection in; there is one door alone."""
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
        request = Message()
        limits: list[dict[str, Any]] = []
        try:
            request = msgspec.json.decode(text, type=Message)
            result = self._dispatch(connection, request)
            reply = {"id": request.id, "status": 200, "result": result}
            limits = self._counts(connection, request)
        except UNREADABLE:
            reply = _error(None, Refused(-1135, "Invalid JSON Request"))
        except Refused as error:
            reply = _error(request.id, error)
        connection.send(_ENCODE(reply | {"rateLimits": limits}))
        if connection.account is not None and request.method.endswith("signature"):
            self._replay(connection, connection.account)

    def _counts(self, connection: Connection, request: Message) -> list[dict[str, Any]]:
        """Return what a reply tells of an account's new orders."""
        if CALLS.get(request.method, ("",))[0] != "POST":
            return []
        key = str((request.params or {}).get("apiKey", ""))
        account = self._exchange.account(key) or connection.session
        uid = account.uid if account is not None else 0
        return self._rest.counts.told(self._exchange.now_ms(), uid)

    def send_away(self, connection: Connection, identifier: object, refusal: Refusal) -> None:
        """Answer a message with the door's refusal."""
        error = _error(identifier, self._refused(refusal))
        connection.send(_ENCODE(error | {"rateLimits": []}))

    def terminate(self, account: Account) -> None:
        """End all subscriptions of an account, and say so."""
        for connection in self._connections:
            if connection.account is account:
                connection.send(events.terminated(self._exchange.now_ms()))
                connection.account = None

    def _dispatch(self, connection: Connection, request: Message) -> object:
        method, params = request.method, request.params or {}
        if method in CALLS:
            return self._call(connection, *CALLS[method], params)
        done = self._methods.get(method)
        if done is None:
            raise Refused(-1020, "This operation is not supported.")
        return done(connection, params)

    def _call(
        self, connection: Connection, method: str, path: str, params: Mapping[str, object]
    ) -> object:
        """Let a request in at the door and do what it asks."""
        call = f"{method} {path}"
        values = auth.worded(params)
        self._let_in(call, values)
        try:
            told = self._rest.perform(method, path, self._caller(connection, params, call), values)
        except Limited as error:
            raise self._refused(
                Refusal(error.status, error.code, error.message, error.retry_after_s)
            ) from error
        self._door.given_back(call)
        return told

    def _let_in(self, call: str, values: Mapping[str, str]) -> None:
        now_ms = self._exchange.now_ms()
        sent_away = self._door.refusal(now_ms, call, values)
        if sent_away is not None:
            raise self._refused(sent_away)

    def _refused(self, refusal: Refusal) -> Refused:
        now_ms = self._exchange.now_ms()
        until_ms = now_ms + 1000 * (refusal.retry_after_s or 0)
        more = {"data": {"serverTime": now_ms, "retryAfter": until_ms}}
        return Refused(refusal.code, refusal.text, refusal.status, more)

    def _log_in(self, connection: Connection, params: Mapping[str, object]) -> dict[str, Any]:
        connection.session = self._log_on(params)
        return self._session(connection, params)

    def _log_out(self, connection: Connection, params: Mapping[str, object]) -> dict[str, Any]:
        connection.session = None
        return self._session(connection, params)

    def _subscribe(self, connection: Connection, params: Mapping[str, object]) -> dict[str, Any]:
        if connection.account is not None:
            raise Refused(*refusals.SUBSCRIPTION_ACTIVE)
        self._admit()
        connection.account = self._identify(params, SUBSCRIBE)
        return {"subscriptionId": 0}

    def _unsubscribe(self, connection: Connection, _params: Mapping[str, object]) -> object:
        if connection.account is None:
            raise Refused(*refusals.SUBSCRIPTION_INACTIVE)
        connection.account = None
        return {}

    def _log_on(self, params: Mapping[str, object]) -> Account:
        """Check whose session it is to be; only Ed25519 keys have one."""
        account = self._identify(params, "session.logon")
        if not auth.is_ed25519(account.secret):
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

    def _caller(self, connection: Connection, params: Mapping[str, object], call: str) -> Account:
        """Return who asks: the session's account, or that of a signed message."""
        if connection.session is None or "apiKey" in params:
            return self._identify(params, call)
        auth.check_time(self._exchange.now_ms(), auth.worded(params))
        return connection.session

    def _admit(self) -> None:
        """Refuse a subscription while the venue wants silence, or because a fault says so."""
        now_ms = self._exchange.now_ms()
        self._let_in(SUBSCRIBE, {})
        rule = self.faults.next(SUBSCRIBE, "", now_ms)
        if rule is not None and rule.fault is Fault.SUBSCRIPTION_REFUSED:
            self._note_fault(rule, SUBSCRIBE)
            raise Refused(*refusals.TOO_MANY_SUBSCRIPTIONS)
        self._resend = rule is not None and rule.fault is Fault.REPLAYED
        if rule is not None and self._resend:
            self._note_fault(rule, SUBSCRIBE)

    def _replay(self, connection: Connection, account: Account) -> None:
        if self._resend:
            self._resend = False
            for message in self._recent[account.uid]:
                connection.send(message)

    def _note_fault(self, rule: FaultRule, call: str) -> None:
        told = {"fault": rule.fault.value, "call": call}
        self._journal.add(self._exchange.now_ms(), "fault", 0, told)

    def _identify(self, params: Mapping[str, object], call: str) -> Account:
        values = auth.worded(params)
        if self._door.denies(values.get("apiKey", ""), self._exchange.now_ms(), call):
            raise Refused(*refusals.REJECTED_KEY, status=401)
        return auth.check_sorted(self._exchange, values)

    def _tell(self, connection: Connection, account: Account, event: messages.Message) -> None:
        now_ms = self._exchange.now_ms()
        rule = self.faults.next(EVENT, event["e"], now_ms)
        fault = rule.fault if rule is not None else None
        if rule is not None:
            self._note_fault(rule, f"{EVENT} {event['e']}")
        note = {"e": event["e"], "I": event.get("I"), "fault": fault}
        self._journal.add(now_ms, "event", account.uid, note)
        if rule is not None and self._ended(connection, rule):
            return
        message = events.wrapped(event)
        if fault is Fault.EVENT_LATE and connection.late is None:
            connection.late = message
        elif rule is not None and fault is Fault.EVENT_DELAYED:
            connection.send(Later(message, rule.seconds))
        else:
            self._speak(connection, account, fault, event)
        self._recent[account.uid].append(message)
        if rule is not None:
            self._end(connection, account, rule)

    def _speak(
        self,
        connection: Connection,
        account: Account,
        fault: Fault | None,
        event: messages.Message,
    ) -> None:
        """Send an event in the frames a fault makes of it, then what was held back."""
        if fault is Fault.PING_BURST:
            connection.send(Act.PINGS)
        frames = events.spoken(fault, event)
        for frame in (*frames, *self._again(fault, account, frames[-1])):
            connection.send(frame)
        if connection.late is not None:
            connection.send(connection.late)
            connection.late = None

    def _end(self, connection: Connection, account: Account, rule: FaultRule) -> None:
        """End the subscription or the line after an event, where a fault says so."""
        if rule.fault is Fault.SHUTDOWN:
            connection.send(events.shutdown(self._exchange.now_ms()))
            connection.send(Later(Act.CLOSE, rule.seconds))
        elif rule.fault is Fault.TERMINATED:
            self.terminate(account)
        elif rule.fault is Fault.LINE_CLOSED:
            connection.send(Act.CLOSE)

    def _again(self, fault: Fault | None, account: Account, message: bytes) -> list[bytes]:
        if fault is Fault.EVENT_TWICE:
            return [message]
        return list(self._recent[account.uid]) if fault is Fault.REPLAYED else []

    @staticmethod
    def _ended(connection: Connection, rule: FaultRule) -> bool:
        """Act out a fault by which the event never comes; tell whether it was one."""
        if rule.fault is Fault.EVENT_CUT:
            connection.send(Act.CUT)
        elif rule.fault is Fault.LINE_DEAD:
            connection.send(Act.DEAD)
        elif rule.fault not in {Fault.EVENT_LOST, Fault.EVENT_STALL}:
            return False
        if rule.fault is not Fault.EVENT_LOST:
            connection.stalled = True
        return True


def delivered(connection: Connection, message: bytes, fault: Fault | None) -> None:
    """Send a message of a stream, or act out what goes wrong with it."""
    if fault is Fault.EVENT_LOST:
        return
    if fault is Fault.EVENT_STALL:
        connection.stalled = True
    elif fault is Fault.EVENT_CUT:
        connection.send(Act.CUT)
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
