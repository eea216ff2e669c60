"""Runs a venue's server: in this process beside other work, or as a process of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bot4_runtime.venue.server import PING_S, Hosted, VenueServer


@contextmanager
def hosted(venue: Hosted, *, admin: bool = False, ping_s: float = PING_S) -> Iterator[VenueServer]:
    """Serve a venue on a thread of its own while the block runs.

    The venue belongs to that thread; look at it only while nobody calls it.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="venue", daemon=True)
    thread.start()
    server = VenueServer(venue, admin_port=0 if admin else None, ping_s=ping_s)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def serve(
    server: VenueServer,
    stop: asyncio.Event,
    *,
    ready: Callable[[VenueServer], None],
    tick: Callable[[], None] | None = None,
    tick_s: float = 1.0,
) -> None:
    """Serve until told to stop.

    Args:
        server: not started yet.
        stop: set by whoever wants it to end.
        ready: called once, when the ports are known.
        tick: called again and again; moves the tape of a venue on the machine's clock.
        tick_s: seconds from one tick to the next.
    """
    await server.start()
    try:
        ready(server)
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), tick_s if tick is not None else None)
            except TimeoutError:
                if tick is not None:
                    tick()
    finally:
        await server.close()
