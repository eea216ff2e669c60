"""One real WebSocket: whatever fails on it is a lost line."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from bot4_runtime.exchange.binance import market_line
from bot4_runtime.exchange.binance.market_line import AiohttpDialler, Kind, LineLost


def talking(client, server):
    """Run both ends of a line on one loop."""

    async def run():
        async def accept(request):
            socket = web.WebSocketResponse(autoping=False)
            await socket.prepare(request)
            await server(socket, request)
            return socket

        app = web.Application()
        app.router.add_get("/stream", accept)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/stream"
        try:
            async with asyncio.timeout(20), aiohttp.ClientSession() as session:
                await client(AiohttpDialler(session), url)
        finally:
            await runner.cleanup()

    asyncio.run(run())


async def end(socket, _request):
    await socket.close()


def test_frames_of_each_kind_arrive_and_binary_ones_are_passed_over():
    async def server(socket, _request):
        await socket.send_bytes(b"binary")
        await socket.send_str("text")
        await socket.ping(b"payload")
        seen = [await socket.receive() for _ in range(3)]
        await socket.pong(b"bot4")
        await socket.send_str(" ".join(f"{m.type.name}:{bytes(m.data)!r}" for m in seen[:2]))
        await socket.receive()

    async def client(dialler, url):
        line = await dialler.dial(url)
        told = [await line.receive() for _ in range(2)]
        assert told == [(Kind.TEXT, "text"), (Kind.PING, b"payload")]  # fmt: skip
        assert type(told[1].body) is bytes, "the stream answers with what it brought"
        await line.pong(b"payload")
        await line.ping()
        await line.send("hello")
        assert await line.receive() == (Kind.PONG, b"bot4")
        assert (await line.receive()).body == "PONG:b'payload' PING:b'bot4'"
        await line.close()
        await line.close()

    talking(client, server)


def test_what_is_said_on_an_ended_line_is_a_lost_line():
    async def client(dialler, url):
        line = await dialler.dial(url)
        with pytest.raises(LineLost, match="ended the connection"):
            await line.receive()
        for say in (lambda: line.send("x"), line.ping, lambda: line.pong(b"x"), line.receive):
            with pytest.raises(LineLost):
                await say()
        await line.close()

    talking(client, end)


def test_a_frame_longer_than_may_be_ends_the_line(monkeypatch):
    monkeypatch.setattr(market_line, "FRAME_MOST", 1_000)

    async def server(socket, _request):
        await socket.send_str("x" * 2_000)
        await socket.receive()

    async def client(dialler, url):
        line = await dialler.dial(url)
        with pytest.raises(LineLost):
            await line.receive()
        await line.close()

    talking(client, server)


def test_a_venue_that_never_says_goodbye_is_left_in_bounded_time(monkeypatch):
    monkeypatch.setattr(market_line, "CLOSE_S", 0.05)

    async def server(socket, request):
        request.transport.pause_reading()
        await asyncio.sleep(0.5)

    async def client(dialler, url):
        line = await dialler.dial(url)
        await line.close()

    talking(client, server)


@pytest.mark.parametrize("path", ["/nowhere", ""])
def test_a_line_that_cannot_be_made_is_lost(path):
    async def client(dialler, url):
        with pytest.raises(LineLost, match="no connection to"):
            await dialler.dial(url.replace("/stream", path))
        with pytest.raises(LineLost):
            await dialler.dial("http://127.0.0.1:9/stream")

    talking(client, end)
