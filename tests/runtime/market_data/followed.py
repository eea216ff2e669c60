"""A route followed on a thread of its own, and waiting for what comes of it."""

import asyncio
import threading
import time
from contextlib import contextmanager

import aiohttp

from bot4_runtime.exchange.binance.line_watch import ConnectPace, Timing
from bot4_runtime.exchange.binance.market_line import AiohttpDialler
from bot4_runtime.exchange.binance.market_stream import MarketStream

QUICK = Timing(check=0.02, ping=0.5, silence=30.0, stream_first=60.0, first_pause=0.01, longest_pause=0.1, overlap=0.05)  # fmt: skip


def until(wanted, seconds=10.0):
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


class Heard:
    def __init__(self):
        self.events, self.told, self.stream = [], [], None

    def event(self, event):
        self.events.append(event)

    def lost(self, reason):
        self.told.append(reason)

    def restored(self):
        self.told.append("restored")


@contextmanager
def followed(route, *, ready=True):
    """Follow a route on a thread; yield what is heard."""
    heard = Heard()
    loop = asyncio.new_event_loop()

    async def follow():
        async with aiohttp.ClientSession() as session:
            stream = MarketStream(route, AiohttpDialler(session), heard, ConnectPace(), timing=QUICK)  # fmt: skip
            heard.stream = stream
            await stream.follow()

    task = loop.create_task(follow())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.gather(task, return_exceptions=True)))  # fmt: skip
    thread.start()
    try:
        until(lambda: not ready or "restored" in heard.told)
        yield heard
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
