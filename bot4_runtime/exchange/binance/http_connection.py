"""One kept HTTP connection to a venue, and what each way of failing means.

Every call ends in exactly one of: an answer; `VenueUnreachable`, when surely nothing was sent;
`Refusal`, when the venue said no; `OutcomeUnknown` for all the rest. A POST is sent once. What
may be repeated (GET) is repeated once when a kept connection turned out to be dead.
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

import msgspec

from bot4_runtime.domain.errors import (
    ConfigError,
    LocationRefused,
    OutcomeUnknown,
    VenueRefused,
    VenueUnreachable,
)

CONNECT_S: Final = 5.0
REPLY_S: Final = 12.0
"""For a whole answer; longer than the 10 s in which Binance gives up on its own engine."""
MAX_BODY: Final = 64 << 20
"""Bytes of an answer, about four times the longest one (all symbols' rules)."""
LONGEST_PAUSE_S: Final = 3_600.0
"""However long a venue wants silence, it is asked again after this: exits wait for it."""
NO_PROOF: Final = frozenset({-1000, -1001, -1006, -1007})
"""Codes that do not say whether the request was carried out."""
TOO_MANY_ORDERS: Final = -1015
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_REFUSED_AT_THE_DOOR: Final = frozenset({403, 418, 429})
_DEFAULT_PAUSE_S: Final = 60.0


class Refusal(VenueRefused):
    """The venue said no.

    Attributes:
        code: the venue's; ``HTTP 403`` and the like when its answer cannot be read.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"the venue refused ({code}): {reason}")
        self.code = code
        self.reason = reason


class _Error(msgspec.Struct):
    code: int
    msg: str


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


class _Answer(NamedTuple):
    status: int
    body: bytes
    retry_after: str | None


class HttpConnection:
    """Calls one venue; for one thread.

    Args:
        base_url: ``https://host[:port]``; plain http only to this machine.
        reply_s: how long an answer may take, from the request to its last byte.

    Raises:
        ConfigError: the URL is none, or would send keys over the network in the clear.
    """

    def __init__(self, base_url: str, reply_s: float = REPLY_S) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"{base_url!r} is no address of a venue; expected https://host")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ConfigError(
                f"{base_url!r} would send keys in the clear; plain http is for 127.0.0.1 only"
            )
        self._reply_s = reply_s
        self._connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection(
                parts.hostname,
                parts.port,
                timeout=CONNECT_S,
                context=ssl.create_default_context(),
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=CONNECT_S)
        )
        self._connection.response_class = partial(_TimedResponse, within_s=reply_s)  # type: ignore[assignment]
        self._stopped_until: dict[str, float] = {}

    def get(self, path: str, query: str, headers: Mapping[str, str]) -> bytes:
        """Ask for something; repeated once when a kept connection was dead.

        Raises:
            VenueUnreachable: nothing was sent.
            VenueRefused: the venue said no.
            OutcomeUnknown: there is no readable answer.
        """
        kept = self._connection.sock is not None
        target = f"{path}?{query}" if query else path
        try:
            answer = self._exchange("GET", target, "", headers)
        except OutcomeUnknown:
            if not kept:
                raise
            answer = self._exchange("GET", target, "", headers)
        return self._judge("GET", path, answer)

    def delete(self, path: str, query: str, headers: Mapping[str, str]) -> bytes:
        """Cancel something; raises as `get` does."""
        answer = self._exchange("DELETE", f"{path}?{query}", "", headers)
        return self._judge("DELETE", path, answer)

    def post(self, path: str, body: str, headers: Mapping[str, str]) -> bytes:
        """Send something, once; raises as `get` does."""
        form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        return self._judge("POST", path, self._exchange("POST", path, body, form))

    def close(self) -> None:
        """Let go of the connection; the next call opens another."""
        self._connection.close()

    def _exchange(
        self, method: str, target: str, body: str, headers: Mapping[str, str]
    ) -> _Answer:
        self._wait_out(method)
        self._open()
        try:
            self._connection.request(method, target, body or None, dict(headers))
            response = self._connection.getresponse()
            return _Answer(response.status, _body(response), response.getheader("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OutcomeUnknown(
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
        except OSError as error:
            self.close()
            raise VenueUnreachable(
                f"no connection to {self._connection.host}:{self._connection.port} "
                f"({type(error).__name__}); nothing was sent"
            ) from error

    def _wait_out(self, method: str) -> None:
        """Send nothing while the venue wants silence."""
        until = max(self._stopped_until.get("", 0.0), self._stopped_until.get(method, 0.0))
        left = until - time.monotonic()
        if left > 0:
            raise VenueUnreachable(
                f"the venue wants no {method} for another {left:.0f} s; nothing was sent"
            )

    def _judge(self, method: str, path: str, answer: _Answer) -> bytes:
        status = answer.status
        if status == 200:
            return answer.body
        if status == 451:
            raise LocationRefused("the venue refuses this location (HTTP 451)")
        error = _read_error(answer.body)
        if status in {418, 429}:
            self._stop(method, status, error, answer.retry_after)
        known = error is not None and error.code not in NO_PROOF
        if 400 <= status < 500 and status != 409:
            if known and error is not None:
                raise Refusal(str(error.code), error.msg)
            if error is None and status in _REFUSED_AT_THE_DOOR:
                raise Refusal(f"HTTP {status}", "refused before it was looked at")
        told = f"code {error.code}" if error is not None else "no readable reason"
        raise OutcomeUnknown(
            f"{method} {path} was answered with HTTP {status}, {told}: it may have been carried "
            "out; ask for its outcome, never send it again"
        )

    def _stop(
        self, method: str, status: int, error: _Error | None, retry_after: str | None
    ) -> None:
        """Remember for how long the venue wants silence; -1015 is about new orders alone."""
        try:
            pause_s = float(retry_after or _DEFAULT_PAUSE_S)
        except ValueError:
            pause_s = _DEFAULT_PAUSE_S
        pause_s = min(pause_s, LONGEST_PAUSE_S) if pause_s >= 0 else _DEFAULT_PAUSE_S
        orders_only = status == 429 and error is not None and error.code == TOO_MANY_ORDERS
        self._stopped_until[method if orders_only else ""] = time.monotonic() + pause_s


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


def _read_error(body: bytes) -> _Error | None:
    try:
        return msgspec.json.decode(body, type=_Error)
    except msgspec.MsgspecError:
        return None
