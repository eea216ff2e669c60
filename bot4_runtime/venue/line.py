"""One WebSocket line of the shells: speaks what lies in the outbox, and pings."""

import asyncio
from typing import Final

from aiohttp import WSCloseCode, web

from bot4_runtime.venue.stream import Act, Connection, Later

PINGS: Final = 20
"""Pings of a burst."""
UNANSWERED: Final = 3
"""Pings in a row that may stay unanswered, a minute at Binance's pace."""
_HALF_FRAME: Final = b'\x81\x7e\x02\x00{"subscriptionId":0,"event":{'


class Line:
    """Sends to one connection until it ends.

    Args:
        filled: set when something lies in the outbox.
        ping_s: from one ping to the next.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        connection: Connection,
        filled: asyncio.Event,
        ping_s: float,
    ) -> None:
        self._socket = socket
        self._request = request
        self._connection = connection
        self._filled = filled
        self._ping_s = ping_s
        self._sent: list[bytes] = []
        self._number = 0
        self.dead = False
        """Whether it neither speaks nor listens, and yet stays open."""

    async def speak(self) -> None:
        """Send what lies in the outbox, in order."""
        outbox = self._connection.outbox
        while True:
            await self._filled.wait()
            self._filled.clear()
            while outbox:
                parcel = outbox.popleft()
                if isinstance(parcel, Later):
                    loop = asyncio.get_running_loop()
                    loop.call_later(parcel.seconds, self._connection.send, parcel.what)
                elif isinstance(parcel, Act):
                    if not await self._act(parcel):
                        return
                elif not await self._said(parcel):
                    return

    async def ping(self) -> None:
        """Ping at the venue's pace; end a line that answers none of the last few."""
        while not self.dead:
            await asyncio.sleep(self._ping_s)
            if len(self._sent) >= UNANSWERED:
                self._cut()
                return
            if not self.dead and not await self._ping():
                return

    def answered(self, words: bytes) -> bool:
        """Take note of a pong; False when its words are those of no ping.

        It answers all pings up to the one whose words it carries.
        """
        if words not in self._sent:
            return False
        del self._sent[: self._sent.index(words) + 1]
        return True

    async def _said(self, message: bytes) -> bool:
        try:
            await self._socket.send_str(message.decode("utf-8", "replace"))
        except ConnectionError:
            return False
        return True

    async def _ping(self) -> bool:
        self._number += 1
        words = b"ping %d" % self._number
        self._sent.append(words)
        try:
            await self._socket.ping(words)
        except ConnectionError:
            return False
        return True

    async def _act(self, act: Act) -> bool:
        """Do what an act says; tell whether the line goes on."""
        if act is Act.PINGS:
            return all([await self._ping() for _ in range(PINGS)])
        if act is Act.DEAD:
            self.dead = True
        elif act is Act.CLOSE:
            await self._socket.close()
        elif act is Act.THROW_OUT:
            await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)
        elif self._request.transport is not None:
            self._request.transport.write(_HALF_FRAME)
            self._cut()
        return False

    def _cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.close()
