"""The shell of market streams: ``/ws`` and ``/stream``; USD-M's lie behind a route.

A client that says more than its market allows in a second is thrown out, as Binance does it.
"""

import asyncio
from collections import deque
from typing import Final

from aiohttp import WSMsgType, web

from bot4_runtime.venue.line import Line
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.market_data import Follower

INBOUND_MOST: Final = {"spot": 5}
INBOUND_MOST_USDM: Final = 10


CCXT_SPOT: Final = "/stream.spot/ws"
"""ccxt takes an address for one of spot when "/stream" is in it, and numbers its connections."""


class MarketShell:
    """Serves the market streams of a venue.

    Args:
        ping_s: how often a client is pinged.
    """

    def __init__(self, venue: Loopback, ping_s: float) -> None:
        self._venue = venue
        self._ping_s = ping_s

    def add_to(self, app: web.Application) -> None:
        """Open its doors."""
        for path in ("/ws", "/ws/{streams}", "/stream"):
            app.router.add_get(path, self._serve)
            app.router.add_get("/{route:public|market}" + path, self._serve)
        app.router.add_get(f"{CCXT_SPOT}/{{streams}}", self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False, max_msg_size=1 << 20)
        await socket.prepare(request)
        filled = asyncio.Event()
        follower = Follower(
            filled.set,
            request.match_info.get("route", "spot"),
            wrapped=request.path.endswith("/stream"),
        )
        named = request.match_info.get("streams") or request.query.get("streams", "")
        self._venue.market.follow(follower, [name for name in named.split("/") if name])
        tasks = [
            asyncio.create_task(Line(socket, request, follower, filled, self._ping_s).speak()),
            asyncio.create_task(self._ping(socket, follower)),
        ]
        try:
            await self._listen(socket, follower)
        finally:
            self._venue.market.followers.discard(follower)
            for task in tasks:
                task.cancel()
        return socket

    async def _listen(self, socket: web.WebSocketResponse, follower: Follower) -> None:
        most = INBOUND_MOST.get(follower.route, INBOUND_MOST_USDM)
        heard: deque[float] = deque(maxlen=most)
        clock = asyncio.get_running_loop().time
        async for message in socket:
            if len(heard) == most and clock() - heard[0] < 1.0:
                self._venue.journal.add(
                    self._venue.exchange.now_ms(), "over-limit", 0, {"route": follower.route}
                )
                await socket.close(code=1008, message=b"Too many requests")
                return
            heard.append(clock())
            if follower.frozen:
                continue
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                self._venue.market.answer(follower, message.data)

    async def _ping(self, socket: web.WebSocketResponse, follower: Follower) -> None:
        while True:
            await asyncio.sleep(self._ping_s)
            if not follower.frozen:
                try:
                    await socket.ping(b"venue")
                except ConnectionError:
                    return
