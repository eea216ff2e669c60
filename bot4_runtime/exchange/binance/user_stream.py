"""The user stream of spot, over the WebSocket API."""

import asyncio
from typing import Any, Final

import aiohttp
import msgspec

from bot4_runtime.exchange.binance.failures import ErrorFields, told_pause_ms
from bot4_runtime.exchange.binance.followed_stream import (
    MAX_FRAME,
    WILL_END,
    FollowedStream,
    StreamEnded,
)
from bot4_runtime.exchange.binance.messages import ExecutionReport
from bot4_runtime.exchange.binance.signing import Signer, VenueClock
from bot4_runtime.exchange.binance.weights import cost

_INVALID_TIMESTAMP: Final = -1021
_ENDED: Final = "eventStreamTerminated"
_SUBSCRIBE: Final = "userDataStream.subscribe.signature"


class _Head(msgspec.Struct):
    e: str


class _Frame(msgspec.Struct):
    """What arrives: the answer to our request, or an event, still unread."""

    status: int | None = None
    error: ErrorFields | None = None
    event: msgspec.Raw = msgspec.Raw()
    e: str | None = None


_FRAMES: Final = msgspec.json.Decoder(_Frame)
_HEADS: Final = msgspec.json.Decoder(_Head)
_REPORTS: Final = msgspec.json.Decoder(ExecutionReport)


class UserStream(FollowedStream):
    """Follows one account.

    Args:
        url: ``wss://host/ws-api/v3``.
        options: those of `FollowedStream`.
    """

    def __init__(self, url: str, signer: Signer, clock: VenueClock, **options: Any) -> None:
        super().__init__(url, signer, clock, weight=cost(_SUBSCRIBE).weight, **options)

    async def _listen(self, session: aiohttp.ClientSession, stands: asyncio.Event) -> None:
        await self._door.permitted()
        async with session.ws_connect(self._url, autoping=False, max_msg_size=MAX_FRAME) as line:
            request = {
                "id": "subscribe",
                "method": _SUBSCRIBE,
                "params": self._signer.message({"timestamp": self._clock.now_ms()}),
            }
            self._line = line
            await line.send_str(msgspec.json.encode(request).decode())
            await self._read(line, stands)

    def _understand(self, text: str) -> bool:
        frame = _FRAMES.decode(text)
        if frame.e is not None:  # an event without its wrapper
            self._take_event(msgspec.Raw(text.encode()))
            return False
        if bytes(frame.event):
            self._take_event(frame.event)
            return False
        if frame.status == 200:
            self._connected = True
        elif frame.status is not None:
            if frame.error is not None and frame.error.code == _INVALID_TIMESTAMP:
                self._clock.doubt()
            if frame.status in {418, 429}:
                pause_ms = told_pause_ms(frame.error, self._budget.clock_ms())
                self._budget.stay_away(pause_ms)
            raise StreamEnded(str(frame.error))
        return frame.status == 200

    def _take_event(self, event: msgspec.Raw) -> None:
        kind = _HEADS.decode(event).e
        if kind == WILL_END:
            self._will_end()
        elif kind == _ENDED:
            raise StreamEnded(kind)
        elif kind != "executionReport":
            self.counts[kind] += 1
        else:
            self._bring(_REPORTS.decode(event).meaning())
