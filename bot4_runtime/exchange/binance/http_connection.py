"""One kept HTTP connection to a venue, and what each way of failing means.

Every call ends in exactly one of: an answer; `VenueUnreachable`, when surely nothing was sent;
`Refusal`, when the venue said no; `OutcomeUnknown` for all the rest. A POST is sent once. What
may be repeated (GET) is repeated once when a kept connection ended without an answer; never after
an answer that was late or unreadable, and only if the budget allows another.
"""

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from bot4_runtime.domain.errors import (
    ConfigError,
    OutcomeUnknown,
    VenueUnreachable,
)
from bot4_runtime.exchange.binance.failures import (
    Judge,
    Refusal,
    failure,
    heed_silence,
    read_error,
    silence_ms,
)
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.proxy import (
    by_socks,
    checked_proxy,
    proxy_headers,
    socks_tunnel,
)
from bot4_runtime.exchange.binance.weights import cost

__all__ = ["HttpConnection", "Refusal"]

CONNECT_S: Final = 5.0
REPLY_S: Final = 12.0
"""For a whole answer; longer than the 10 s in which Binance gives up on its own engine."""
MAX_BODY: Final = 64 << 20
"""Bytes of an answer, about four times the longest one (all symbols' rules)."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _TimedFile(io.RawIOBase):
    """Reads a socket up to a deadline, however often something arrives."""

    def __init__(self, sock: socket.socket, within_s: float) -> None:
        super().__init__()
        self._sock = sock
        self._raw: Any = sock.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + within_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if not left > 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """A response whose every byte must arrive within one span of time."""

    def __init__(self, sock: socket.socket, *args: Any, within_s: float, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedFile(sock, within_s))


class _NotAnswered(OutcomeUnknown):
    """The connection ended, and no answer had begun."""


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]


class HttpConnection:
    """Calls one venue; for one thread.

    Args:
        base_url: ``https://host[:port]``; plain http only to this machine.
        reply_s: how long an answer may take, from the request to its last byte.
        budget: what may be asked, shared with others; its own when None.
        account: the API key whose orders are counted.
        proxy: ``http://`` or ``socks5://[user:password@]host:port`` to go through; None for none.
        judge: of answers that are no success.

    Raises:
        ConfigError: the URL or the proxy is none, or would send keys over the network in the
            clear.
    """

    def __init__(
        self,
        base_url: str,
        reply_s: float = REPLY_S,
        *,
        budget: RequestBudget | None = None,
        account: str = "",
        proxy: str | None = None,
        judge: Judge = failure,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"{base_url!r} is no address of a venue; expected https://host")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ConfigError(
                f"{base_url!r} would send keys in the clear; plain http is for 127.0.0.1 only"
            )
        self._reply_s = reply_s
        self._where = f"{parts.hostname}:{parts.port or parts.scheme}"
        nearest = (parts.hostname, parts.port)
        if proxy is not None:
            through = urlsplit(checked_proxy(proxy))
            if not by_socks(proxy):
                nearest = (str(through.hostname), through.port)
            self._where += f" through {through.hostname}:{through.port}"
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                *nearest, timeout=CONNECT_S, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(*nearest, timeout=CONNECT_S)
        )
        if proxy is not None and by_socks(proxy):
            vars(self._connection)["_create_connection"] = partial(_through, proxy)
        elif proxy is not None:
            self._connection.set_tunnel(parts.hostname, parts.port, proxy_headers(proxy))
        self._connection.response_class = partial(_TimedResponse, within_s=reply_s)  # type: ignore[assignment]
        self._budget = budget or RequestBudget(None)
        self._account = account
        self._failure = judge

    def get(
        self, path: str, query: str, headers: Mapping[str, str], lane: Lane = Lane.REDUCE
    ) -> bytes:
        """Ask for something; repeated once when a kept connection was dead.

        Both times the budget is asked.

        Raises:
            VenueUnreachable: nothing was sent.
            VenueRefused: the venue said no.
            OutcomeUnknown: there is no readable answer.
        """
        kept = self._connection.sock is not None
        target = f"{path}?{query}" if query else path
        self._take("GET", path, lane)
        try:
            answer = self._exchange("GET", target, "", headers)
        except _NotAnswered:
            if not kept:
                raise
            self._take("GET", path, lane)
            answer = self._exchange("GET", target, "", headers)
        return self._judge("GET", path, answer)

    def delete(self, path: str, query: str, headers: Mapping[str, str]) -> bytes:
        """Cancel something; raises as `get` does."""
        self._take("DELETE", path, Lane.CANCEL)
        answer = self._exchange("DELETE", f"{path}?{query}", "", headers)
        return self._judge("DELETE", path, answer)

    def post(
        self, path: str, body: str, headers: Mapping[str, str], lane: Lane = Lane.OPEN
    ) -> bytes:
        """Send something, once; raises as `get` does."""
        return self.send("POST", path, body, headers, lane)

    def send(
        self, method: str, path: str, body: str, headers: Mapping[str, str], lane: Lane
    ) -> bytes:
        """Send a form, once, by POST or PUT; raises as `get` does."""
        self._take(method, path, lane)
        form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        return self._judge(method, path, self._exchange(method, path, body, form))

    def close(self) -> None:
        """Let go of the connection; the next call opens another."""
        self._connection.close()

    def _exchange(
        self, method: str, target: str, body: str, headers: Mapping[str, str]
    ) -> _Answer:
        self._open()
        sent_ms = self._budget.clock_ms()
        response = None
        try:
            self._connection.request(method, target, body or None, dict(headers))
            response = self._connection.getresponse()
            told = {name.lower(): text for name, text in response.getheaders()}
            self._budget.told(told, sent_ms, self._account)
            return _Answer(response.status, _body(response), told)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            ended = response is None and isinstance(error, ConnectionError)
            raise (_NotAnswered if ended else OutcomeUnknown)(
                f"{method} {target.partition('?')[0]} was sent and not answered "
                f"({type(error).__name__}); ask for its outcome, never send it again"
            ) from error

    def _open(self) -> None:
        """Have a living connection before anything is sent."""
        connection = self._connection
        if connection.sock is not None:
            if not select.select([connection.sock], [], [], 0)[0]:
                connection.sock.settimeout(self._reply_s)  # the last answer shortened it
                return
            self.close()  # the venue closed it, or said something nobody asked for
        try:
            connection.connect()
            connection.sock.settimeout(self._reply_s)
        except (OSError, http.client.HTTPException) as error:  # the latter of a proxy's answer
            self.close()
            raise VenueUnreachable(
                f"no connection to {self._where} ({_why(error)}); nothing was sent"
            ) from error

    def _take(self, method: str, path: str, lane: Lane) -> None:
        """Send nothing while the venue wants silence or its limit is used up."""
        asked = cost(f"{method} {path}")
        left_ms = self._budget.take(lane, asked.weight, account=self._account, orders=asked.orders)
        if left_ms > 0:
            raise VenueUnreachable(
                f"the venue's limits let no {method} pass for another {left_ms / 1000:.0f} s; "
                "nothing was sent"
            )

    def _judge(self, method: str, path: str, answer: _Answer) -> bytes:
        if answer.status == 200:
            return answer.body
        error = read_error(answer.body)
        now_ms = self._budget.clock_ms()
        asked_ms = silence_ms(answer.status, error, answer.headers.get("retry-after"), now_ms)
        if asked_ms is not None:
            heed_silence(self._budget, self._account, answer.status, error, asked_ms)
        raise self._failure(f"{method} {path}", answer.status, error, answer.body)


def _through(
    proxy: str, place: tuple[str, int], within_s: float, _source: object
) -> socket.socket:
    """Open what `http.client` would have opened itself."""
    return socks_tunnel(proxy, *place, within_s)


def _why(error: Exception) -> str:
    """Return what a proxy said when it was one, else the kind of the error; never a URL."""
    text = str(error)
    return text if text.startswith("Tunnel connection failed") else type(error).__name__


def _body(response: http.client.HTTPResponse) -> bytes:
    """Read an answer whole.

    Raises:
        http.client.HTTPException: it is too long, or was cut short.
    """
    if response.length is not None and response.length <= MAX_BODY:
        return response.read()  # tells when it is cut short, as a read of a part does not
    body = b"" if response.length is not None else response.read(MAX_BODY + 1)
    if response.length is not None or len(body) > MAX_BODY:
        raise http.client.HTTPException(f"an answer of more than {MAX_BODY} bytes")
    return body
