"""One WebSocket to a venue, without what is said on it; what fails becomes `LineLost`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol

import aiohttp

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.exchange.stream_hosts import StreamHosts

FRAME_MOST: Final = 16 << 20
"""Bytes of a frame; a longer one ends the line."""
CONNECT_S: Final = 10.0
CLOSE_S: Final = 0.5
"""How long a goodbye may take."""
STREAMS_MOST: Final = 1_024
"""Streams a connection may carry."""
PUBLIC: Final = frozenset({"bookTicker", "depth"})
"""What USD-M sends on ``/public``; all else comes on ``/market``, and is silent elsewhere."""


class LineLost(VenueUnreachable):
    """The connection could not be made, or has ended."""


class Kind(Enum):
    """What a frame is."""

    TEXT = "text"
    PING = "ping"
    PONG = "pong"


class Frame(NamedTuple):
    """Something that came; pings and pongs bring bytes."""

    kind: Kind
    body: str | bytes


class Line(Protocol):
    """An open connection; every call may raise LineLost."""

    async def receive(self) -> Frame:
        """Wait for the next frame."""
        ...

    async def send(self, text: str) -> None:
        """Say something."""
        ...

    async def ping(self) -> None:
        """Ask for a pong."""
        ...

    async def pong(self, payload: bytes) -> None:
        """Answer a ping with what it brought."""
        ...

    async def close(self) -> None:
        """Hang up, in bounded time; never raises."""
        ...


class Dialler(Protocol):
    """Makes connections."""

    async def dial(self, url: str) -> Line:
        """Connect; raises LineLost."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """What one connection brings.

    Attributes:
        streams: by their names, ``btcusdt@kline_1h``.
        inbound_per_s: messages a second that the venue takes, pongs included.
    """

    url: str
    streams: tuple[str, ...]
    inbound_per_s: int


def routes(market: Market, hosts: StreamHosts, streams: Sequence[str]) -> list[Route]:
    """Divide streams over as few connections as carry them."""
    if market is Market.SPOT:
        groups = [(hosts.spot, list(streams), 5)]
    else:
        public = [name for name in streams if _channel(name) in PUBLIC]
        others = [name for name in streams if _channel(name) not in PUBLIC]
        groups = [(hosts.usdm_public, public, 10), (hosts.usdm_market, others, 10)]
    return [
        Route(f"{host.rstrip('/')}/stream", tuple(names[at : at + STREAMS_MOST]), inbound)
        for host, names, inbound in groups
        for at in range(0, len(names), STREAMS_MOST)
    ]


def _channel(stream: str) -> str:
    return stream.lstrip("!").rpartition("@")[2] if stream[:1] == "!" else _after_symbol(stream)


def _after_symbol(stream: str) -> str:
    return stream.partition("@")[2].partition("@")[0]


class AiohttpDialler:
    """Connects over aiohttp.

    Args:
        session: whose proxy and certificates are used; closed by its owner.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def dial(self, url: str) -> Line:
        """Connect; raises LineLost."""
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await self._session.ws_connect(
                    url,
                    autoping=False,
                    max_msg_size=FRAME_MOST,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise LineLost(f"no connection to {url} ({type(error).__name__})") from error
        return _AiohttpLine(socket)


class _AiohttpLine:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> Frame:
        while True:
            message = await self._socket.receive()
            kind = message.type
            if kind is aiohttp.WSMsgType.TEXT:
                return Frame(Kind.TEXT, message.data)
            if kind is aiohttp.WSMsgType.PING:
                return Frame(Kind.PING, bytes(message.data))
            if kind is aiohttp.WSMsgType.PONG:
                return Frame(Kind.PONG, bytes(message.data))
            if kind is not aiohttp.WSMsgType.BINARY:
                raise LineLost(f"the venue ended the connection ({kind.name})")

    async def send(self, text: str) -> None:
        try:
            await self._socket.send_str(text)
        except (aiohttp.ClientError, OSError) as error:
            raise LineLost(f"nothing can be sent ({type(error).__name__})") from error

    async def ping(self) -> None:
        try:
            await self._socket.ping(b"bot4")
        except (aiohttp.ClientError, OSError) as error:
            raise LineLost(f"nothing can be sent ({type(error).__name__})") from error

    async def pong(self, payload: bytes) -> None:
        try:
            await self._socket.pong(payload)
        except (aiohttp.ClientError, OSError) as error:
            raise LineLost(f"nothing can be sent ({type(error).__name__})") from error

    async def close(self) -> None:
        try:
            await self._socket.close()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return  # it is gone, one way or the other
