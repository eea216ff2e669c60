"""Requests over Binance's WebSocket API: one kept line, answers matched by their ids.

The line lives on a thread of its own; `call` waits for its answer. It ends in exactly one of:
an answer; `VenueUnreachable`, when surely nothing was sent, so that another way may be tried;
`Refusal`; `OutcomeUnknown` for all the rest. Nothing is sent twice, an answer that comes after
its deadline is passed over, and a line that breaks leaves what waits for it unknown.

With an Ed25519 key the line logs on, and requests need no signature of their own; with other
keys each is signed. Source: binance-spot-api-docs, web-socket-api.md, at a5e0bc3 (2026-07-17).
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from itertools import count
from typing import Final, NamedTuple

import aiohttp
import msgspec
import structlog

from bot4_runtime.domain.errors import OutcomeUnknown, VenueUnreachable
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.exchange.binance.doorway import Doorway
from bot4_runtime.exchange.binance.failures import (
    ErrorFields,
    Judge,
    failure,
    heed_silence,
    told_pause_ms,
)
from bot4_runtime.exchange.binance.limits import Lane, LimitFields, RequestBudget
from bot4_runtime.exchange.binance.loop_thread import LoopThread
from bot4_runtime.exchange.binance.proxy import session_through
from bot4_runtime.exchange.binance.signing import Scheme, Signer, VenueClock
from bot4_runtime.exchange.binance.weights import cost

REPLY_S: Final = 12.0
"""For an answer; longer than the 10 s in which Binance gives up on its own engine."""
SILENCE_S: Final = 60.0
"""Binance pings every 20 s; a line that is silent for longer than this is dead."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
_MAX_FRAME: Final = 16 << 20
_INVALID_TIMESTAMP: Final = -1021
_LOG_ON: Final = "log-on"


class _Event(msgspec.Struct):
    e: str = ""


class _Reply(msgspec.Struct, rename="camel"):
    """What arrives: an answer, or an event."""

    id: str | int | None = None
    status: int = 0
    result: msgspec.Raw = msgspec.Raw()
    error: ErrorFields | None = None
    rate_limits: list[LimitFields] = []
    event: _Event | None = None


class _Waiting(NamedTuple):
    call: str
    sent_ms: int
    answer: "Future[bytes]"


class _LineEnded(Exception):
    """The line must be opened anew."""


_REPLIES: Final = msgspec.json.Decoder(_Reply)


class OrderLine:
    """One account's line.

    Args:
        url: ``wss://ws-api.binance.com/ws-api/v3``.
        clock: the venue's time; must be synchronised before the first call.
        reply_s: how long an answer may take before the outcome counts as unknown.
        window_ms: how long after its timestamp a request may be taken.
        budget: what may be asked, shared with the other ways to the venue.
        silence_s: how long a living line may say nothing, pings included.
        proxy: ``http://`` or ``socks5://host:port`` to go through; None for none.
        judge: of answers that are no success.
        ping_s: of silence after which a pong is asked for; None where the venue pings often.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        clock: VenueClock,
        *,
        window_ms: int,
        budget: RequestBudget,
        reply_s: float = REPLY_S,
        silence_s: float = SILENCE_S,
        proxy: str | None = None,
        judge: Judge = failure,
        ping_s: float | None = None,
    ) -> None:
        self._url = url
        self._signer = signer
        self._clock = clock
        self._window_ms = window_ms
        self._budget = budget
        self._reply_s = reply_s
        self._silence_s = silence_s
        self._proxy = proxy
        self._failure = judge
        self._ping_s = ping_s
        self._logs_on = signer.scheme is Scheme.ED25519
        self._door = Doorway(budget, cost("session.logon").weight if self._logs_on else 0)
        self._numbers = count(1)
        self._waiting: dict[str, _Waiting] = {}
        self._line: aiohttp.ClientWebSocketResponse | None = None
        self._ready = threading.Event()
        self._leaving = False
        self._thread = LoopThread("order-line", self._follow)
        self._log = structlog.get_logger("order_line")
        self.counts: Counter[str] = Counter()
        """What was passed over or went wrong, by name."""

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """End the line; may be repeated."""
        self._thread.close()

    def ready(self, within_s: float = 0.0) -> bool:
        """Tell whether requests can be sent, waiting for it for a while."""
        return self._ready.wait(within_s)

    def call(
        self,
        method: str,
        parameters: Mapping[str, str | int],
        lane: Lane,
        may_send: Callable[[], bool] | None = None,
    ) -> bytes:
        """Send a request, once, and wait for its answer.

        Args:
            method: of the WebSocket API.
            parameters: without time, key and signature.
            lane: what for.
            may_send: asked when all else is done; False leaves it unsent.

        Returns:
            The result, JSON.

        Raises:
            VenueUnreachable: it surely was not sent.
            VenueRefused: the venue said no.
            OutcomeUnknown: it was sent and there is no readable answer.
        """
        if not self._ready.is_set():
            raise VenueUnreachable("the line of the WebSocket API is not open; nothing was sent")
        asked = cost(method)
        account = self._signer.api_key
        left_ms = self._budget.take(lane, asked.weight, account=account, orders=asked.orders)
        if left_ms > 0:
            raise VenueUnreachable(
                f"the venue's limits let no {method} pass for another {left_ms / 1000:.0f} s; "
                "nothing was sent"
            )
        number = str(next(self._numbers))
        named = {**parameters, "recvWindow": self._window_ms, "timestamp": self._clock.now_ms()}
        request = {
            "id": number,
            "method": method,
            "params": named if self._logs_on else self._signer.message(named),
        }
        text = msgspec.json.encode(request).decode()
        if may_send is not None and not may_send():
            raise VenueUnreachable(f"the lease ran out before {method} could be sent")
        waiting = _Waiting(method, self._budget.clock_ms(), Future())
        self._thread.soon(self._send, number, text, waiting)
        return self._await(number, waiting)

    def _await(self, number: str, waiting: _Waiting) -> bytes:
        try:
            return waiting.answer.result(self._reply_s)
        except TimeoutError as error:
            self._thread.soon(self._waiting.pop, number, None)
            if waiting.answer.cancel():
                raise VenueUnreachable(
                    f"the line did not come to send {waiting.call}; nothing was sent"
                ) from error
            if waiting.answer.done():  # it came at the last moment
                return waiting.answer.result()
            raise OutcomeUnknown(
                f"{waiting.call} was sent and not answered within {self._reply_s:g} s; ask for "
                "its outcome, never send it again"
            ) from error

    # ---------------------------------------------------------------- the line's thread
    def _send(self, number: str, text: str, waiting: _Waiting) -> None:
        """Send a request unless its caller gave up; from here on it may have been sent."""
        if not waiting.answer.set_running_or_notify_cancel():
            return
        line = self._line
        if line is None or line.closed or not self._ready.is_set():
            waiting.answer.set_exception(
                VenueUnreachable("the line broke before the request; nothing was sent")
            )
            return
        self._waiting[number] = waiting
        sending = asyncio.get_running_loop().create_task(line.send_str(text))
        sending.add_done_callback(_seen)

    async def _follow(self) -> None:
        pause_s = FIRST_PAUSE_S
        async with session_through(self._proxy) as session:
            while not self._thread.closing:
                was_ready = False
                try:
                    await self._listen(session)
                except (aiohttp.ClientError, OSError, TimeoutError, _LineEnded) as error:
                    was_ready = self._ready.is_set()
                    self._door.heed(error)
                    self.counts["reconnects"] += 1
                    self._log.warning("order line lost", why=f"{type(error).__name__}: {error}")
                finally:
                    self._drop()
                pause_s = FIRST_PAUSE_S if was_ready else min(pause_s * 2, LONGEST_PAUSE_S)
                jitter = random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not secrecy
                await asyncio.sleep(pause_s * jitter)

    def _drop(self) -> None:
        """Leave everything that waits unknown."""
        self._ready.clear()
        self._line, self._leaving = None, False
        for waiting in self._waiting.values():
            waiting.answer.set_exception(
                OutcomeUnknown(
                    f"{waiting.call} was sent and the line broke before its answer; ask for its "
                    "outcome, never send it again"
                )
            )
        self._waiting.clear()

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        """Connect, log on and read until the line ends, which always raises."""
        await self._door.permitted()
        async with session.ws_connect(
            self._url,
            autoping=False,
            max_msg_size=_MAX_FRAME,
            heartbeat=self._ping_s,
        ) as line:
            self._line = line
            if self._logs_on:
                stamp: dict[str, str | int] = {"timestamp": self._clock.now_ms()}
                params = self._signer.message(stamp)
                request = {"id": _LOG_ON, "method": "session.logon", "params": params}
                await line.send_str(msgspec.json.encode(request).decode())
            else:
                self._ready.set()
            while not (self._leaving and not self._waiting):
                message = await line.receive(timeout=self._silence_s)
                if message.type is aiohttp.WSMsgType.PING:
                    await line.pong(message.data)
                elif message.type is aiohttp.WSMsgType.TEXT:
                    self._take(message.data)
                elif message.type is not aiohttp.WSMsgType.PONG:
                    raise _LineEnded(message.type.name)
            raise _LineEnded("the venue closes it")

    def _take(self, text: str) -> None:
        """Read one frame; what cannot be read is counted and passed over."""
        try:
            reply = _REPLIES.decode(text)
        except UNREADABLE as error:
            self.counts["unreadable"] += 1
            self._log.error("unreadable message of the order line", why=str(error))
            return
        if reply.event is not None:
            self.counts[reply.event.e] += 1
            if reply.event.e == "serverShutdown":
                self._ready.clear()
                self._leaving = True
            return
        if reply.id is None or reply.id == _LOG_ON:
            self._answered_session(reply)
            return
        waiting = self._waiting.pop(str(reply.id), None)
        sent_ms = waiting.sent_ms if waiting is not None else 0
        self._budget.learn(reply.rate_limits, sent_ms, self._signer.api_key)
        if reply.status != 200:
            self._heed(reply)
        if waiting is None:
            self.counts["nobody's"] += 1
        elif reply.status == 200:
            waiting.answer.set_result(bytes(reply.result))
        else:
            waiting.answer.set_exception(
                self._failure(waiting.call, reply.status, reply.error, b"")
            )

    def _answered_session(self, reply: _Reply) -> None:
        """Take the answer to the log-on; an answer to nobody speaks of the whole session."""
        if reply.id == _LOG_ON and reply.status == 200:
            self._ready.set()
            return
        self._heed(reply)
        error = reply.error
        if error is not None and error.code == _INVALID_TIMESTAMP:
            self._clock.doubt()
        self.counts["session refused"] += 1
        told = f"{error.code} {error.msg}" if error is not None else str(reply.status)
        self._log.error("the venue refuses the session of the order line", why=told)
        raise _LineEnded(told)

    def _heed(self, reply: _Reply) -> None:
        """Keep silent for as long as an error wants it: `retryAfter` is an epoch in ms."""
        error = reply.error
        if reply.status not in {418, 429}:
            return
        asked_ms = told_pause_ms(error, self._budget.clock_ms())
        heed_silence(self._budget, self._signer.api_key, reply.status, error, asked_ms)


def _seen(sending: "asyncio.Task[None]") -> None:
    """Take note of a failed send; the line ends by it, which leaves the request unknown."""
    with suppress(CancelledError, asyncio.CancelledError):
        sending.exception()
