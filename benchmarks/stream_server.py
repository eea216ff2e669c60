"""A WebSocket that streams what the connector's benchmark reads, as a process of its own.

``/trades/stream`` sends so many trades as fast as they are taken; ``/candles/stream`` sends a
closed candle every few milliseconds, stamped with the microsecond of a clock that all processes
of the machine share. Both begin with the first subscription.
"""

import asyncio
import sys
import time
from typing import Final

from aiohttp import web

GAP_S: Final = 0.01
TRADE: Final = (
    '{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":%d,'
    '"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)
CANDLE: Final = (
    '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":%d,"s":"BTCUSDT","k":{"t":%d,"T":%d,'
    '"s":"BTCUSDT","i":"1m","f":1,"L":9,"o":"%s","c":"%s","h":"%s","l":"%s","v":"%s","n":9,'
    '"x":true,"q":"1","V":"5","Q":"0.5","B":"0"}}}'
)
MINUTE_MS: Final = 60_000


def shared_us() -> int:
    """Return microseconds of the machine's monotonic clock."""
    return time.monotonic_ns() // 1_000


async def trades(request: web.Request) -> web.WebSocketResponse:
    socket = await _subscribed(request)
    for number in range(1, int(request.query["count"]) + 1):
        await socket.send_str(TRADE % number)
    await _until_closed(socket)
    return socket


async def candles(request: web.Request) -> web.WebSocketResponse:
    socket = await _subscribed(request)
    start_ms, count = int(request.query["start_ms"]), int(request.query["count"])
    for number in range(count):
        await asyncio.sleep(GAP_S)
        price = 30_000 + (number * 37) % 211
        open_ms = start_ms + number * MINUTE_MS
        await socket.send_str(
            CANDLE % (shared_us(), open_ms, open_ms + MINUTE_MS - 1, price, price + 1, price + 2,
                      price - 2, "12.5")
        )  # fmt: skip
    await _until_closed(socket)
    return socket


async def _subscribed(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    asked = await socket.receive_json()
    await socket.send_json({"result": None, "id": asked["id"]})
    return socket


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/trades/stream", trades)
    app.router.add_get("/candles/stream", candles)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent ends
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
