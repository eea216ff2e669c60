"""A door that is shut is not knocked at: bans, refused handshakes, and too many connections."""

import asyncio
import socket
import threading
import time

import pytest
from aiohttp import ClientConnectionError, RequestInfo, WSServerHandshakeError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bot4_runtime.clock import LiveClock
from bot4_runtime.exchange.binance.doorway import Doorway
from bot4_runtime.exchange.binance.limits import DEFAULT_PAUSE_MS, Lane, Limit, RequestBudget
from bot4_runtime.exchange.binance.line_watch import ConnectPace
from bot4_runtime.exchange.binance.order_line import OrderLine
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock
from bot4_runtime.exchange.binance.user_stream import UserStream

NOW_MS = 1_800_000_000_000


def refused(status, **headers):
    none = CIMultiDictProxy(CIMultiDict())
    url = URL("wss://venue.invalid")
    asked = RequestInfo(url, "GET", none, url)
    return WSServerHandshakeError(asked, (), status=status, headers=CIMultiDictProxy(CIMultiDict(headers)))  # fmt: skip


@pytest.mark.parametrize(
    ("error", "silent_ms"),
    [
        (refused(429, **{"Retry-After": "7"}), 7_000),
        (refused(418, **{"retry-after": "120"}), 120_000),
        (refused(429), DEFAULT_PAUSE_MS),
        (refused(403), DEFAULT_PAUSE_MS),
        (refused(502), 0),
        (ClientConnectionError("gone"), 0),
    ],
)
def test_a_refused_handshake_wants_silence_as_an_answer_does(error, silent_ms):
    budget = RequestBudget(None, clock_ms=lambda: NOW_MS)
    Doorway(budget, 2).heed(error)
    assert budget.take(Lane.CANCEL, 0) == silent_ms


def test_each_connection_is_counted_and_too_many_wait():
    budget = RequestBudget(None, clock_ms=lambda: NOW_MS)
    budget.weight = Limit(60_000, 6)
    door = Doorway(budget, 2, ConnectPace(2, 3_600.0))

    async def opened():
        await asyncio.wait_for(door.permitted(), 0.1)

    for _ in range(2):
        asyncio.run(opened())
    with pytest.raises(TimeoutError):
        asyncio.run(opened())
    assert budget.take(Lane.CANCEL, 2) == 0, "the third was not counted"
    assert budget.take(Lane.CANCEL, 2) > 0


@pytest.mark.parametrize("kind", ["order line", "user stream"])
def test_a_line_whose_handshake_was_refused_is_not_tried_again_before_the_silence_ends(kind):
    knocks = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    line.recv(65_536)
                    knocks.append(1)
                    line.sendall(b"HTTP/1.1 418 x\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        budget = RequestBudget(None)
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/ws-api/v3"
        signer, clock = Signer(Secret("k"), Secret("s")), VenueClock(LiveClock())
        line = (
            OrderLine(url, signer, clock, window_ms=1, budget=budget)
            if kind == "order line"
            else UserStream(url, signer, clock, budget=budget)
        )
        line.start()
        end = time.monotonic() + 5
        while not line.counts["reconnects"] and time.monotonic() < end:
            time.sleep(0.01)
        assert budget.take(Lane.CANCEL, 0) > 50_000
        time.sleep(0.4)  # longer than the first pauses
        line.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(knocks) == 1
