"""What the order line makes of each answer; the server here is a script."""

import asyncio
import threading
import time
from contextlib import contextmanager

import msgspec
import pytest
from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ed25519

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.errors import LocationRefused, OutcomeUnknown, VenueUnreachable
from bot4_runtime.exchange.binance.failures import HalfDone, Refusal
from bot4_runtime.exchange.binance.limits import (
    DEFAULT_PAUSE_MS,
    LONGEST_BAN_MS,
    Lane,
    RequestBudget,
)
from bot4_runtime.exchange.binance.order_line import OrderLine
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock

NOW_MS = 1_800_000_000_000
PRIVATE = (
    ed25519.Ed25519PrivateKey.generate()
    .private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    .decode()
)
CLOSE = object()
PING = object()


class ScriptedSocket:
    """Answers the n-th message of all connections with the n-th entry: frames, CLOSE, PING."""

    def __init__(self, script):
        self.script, self.asked, self.connections, self.pongs = list(script), [], 0, []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self):
        app = web.Application()
        app.router.add_get("/ws-api/v3", self._socket)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"ws://127.0.0.1:{self._runner.addresses[0][1]}/ws-api/v3"

    async def _socket(self, request):
        self.connections += 1
        line = web.WebSocketResponse(autoping=False)
        await line.prepare(request)
        async for message in line:
            if message.type is WSMsgType.PONG:
                self.pongs.append(message.data)
                continue
            asked = msgspec.json.decode(message.data)
            self.asked.append(asked)
            for frame in self.script.pop(0) if self.script else []:
                if frame is CLOSE:
                    await line.close()
                elif frame is PING:
                    await line.ping(b"payload")
                elif isinstance(frame, str):
                    await line.send_str(frame)
                else:
                    await line.send_str(msgspec.json.encode({"id": asked["id"]} | frame).decode())
        return line

    def close(self):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def line_to(script, secret="secret", reply_s=2.0, silence_s=5.0, now_ms=NOW_MS):
    server = ScriptedSocket(script)
    budget = RequestBudget(None, clock_ms=lambda: now_ms)
    clock = VenueClock(LiveClock())
    clock.synchronised = True
    line = OrderLine(server.url, Signer(Secret("k"), Secret(secret)), clock, window_ms=2_000, budget=budget, reply_s=reply_s, silence_s=silence_s)  # fmt: skip
    line.start()
    try:
        yield line, server, budget
    finally:
        line.close()
        line.close()
        server.close()


def place(line):
    return line.call("order.place", {"symbol": "BTCUSDT"}, Lane.OPEN)


def until(wanted):
    end = time.monotonic() + 5
    while not wanted():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def failed(status, code=None, data=None, msg="no"):
    error = None if code is None else {"code": code, "msg": msg} | ({} if data is None else {"data": data})  # fmt: skip
    return {"status": status} | ({} if error is None else {"error": error})


@pytest.mark.parametrize(
    ("answer", "outcome", "silent_ms", "orders_ms"),
    [
        (failed(400, -1013), Refusal, 0, 0),
        (failed(400, -2010), Refusal, 0, 0),
        (failed(401, -2015), Refusal, 0, 0),
        (failed(400, -1007), OutcomeUnknown, 0, 0),
        (failed(503, -1008), OutcomeUnknown, 0, 0),
        (failed(500), OutcomeUnknown, 0, 0),
        (failed(504, -1006), OutcomeUnknown, 0, 0),
        (failed(409, -2021, {"cancelResult": "SUCCESS"}), HalfDone, 0, 0),
        (failed(409, -2021), OutcomeUnknown, 0, 0),
        (failed(451), LocationRefused, 0, 0),
        (failed(403), Refusal, 0, 0),
        (failed(429, -1003, {"serverTime": 1, "retryAfter": NOW_MS + 7_000}), Refusal, 7_000, 7_000),
        (failed(418, -1003, {"retryAfter": NOW_MS + 120_000}), Refusal, 120_000, 120_000),
        (failed(418, -1003, {"retryAfter": 1}), Refusal, DEFAULT_PAUSE_MS, DEFAULT_PAUSE_MS),
        (failed(429, -1003, {"retryAfter": NOW_MS}), Refusal, DEFAULT_PAUSE_MS, DEFAULT_PAUSE_MS),
        (failed(418, -1003, {"retryAfter": 10**15}), Refusal, LONGEST_BAN_MS, LONGEST_BAN_MS),
        (failed(418, -1003, msg=f"IP banned until {NOW_MS + 9_000}."), Refusal, 9_000, 9_000),
        (failed(418, -1003, {"retryAfter": "soon"}), Refusal, 60_000, 60_000),
        (failed(429), Refusal, 60_000, 60_000),
        (failed(429, -1015, {"retryAfter": NOW_MS + 5_000}), Refusal, 0, 5_000),
        ({"status": 200}, None, 0, 0),
    ],
)  # fmt: skip
def test_every_answer_is_one_outcome_and_keeps_silence_as_told(
    answer, outcome, silent_ms, orders_ms
):
    with line_to([[answer]]) as (line, server, budget):
        assert line.ready(5)
        if outcome is None:
            assert place(line) == b""
        else:
            with pytest.raises(outcome) as told:
                place(line)
            assert type(told.value) is outcome
            if outcome is Refusal:
                assert told.value.looked_at == (answer["status"] not in {403, 418, 429})
        assert budget.take(Lane.CANCEL, 1) == silent_ms
        assert budget.take(Lane.OPEN, 1, account="k", orders=1) == orders_ms
        if orders_ms:
            with pytest.raises(VenueUnreachable, match="nothing was sent"):
                place(line)
        assert len(server.asked) == 1


def test_the_venues_counts_and_limits_are_taken_over():
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 100, "count": 96},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 10, "count": 1},
    ]  # fmt: skip
    with line_to([[{"status": 200, "result": {"a": 1}, "rateLimits": limits}]]) as (line, _s, budget):  # fmt: skip
        assert line.ready(5)
        assert place(line) == b'{"a":1}'
        assert budget.weight.most == 100
        assert budget.take(Lane.REDUCE) > 0
        assert budget.take(Lane.CANCEL) == 0


def test_what_cannot_be_read_or_is_nobodys_is_passed_over_and_pings_are_answered():
    frames = ["{", '["a"]', {"id": "999", "status": 200, "result": {}}, {"id": None, "event": {"e": "balanceUpdate"}}, PING, {"status": 200, "result": {"ok": 1}}]  # fmt: skip
    with line_to([frames]) as (line, server, _budget):
        assert line.ready(5)
        assert place(line) == b'{"ok":1}'
        assert dict(line.counts) == {"unreadable": 2, "nobody's": 1, "balanceUpdate": 1}
        until(lambda: server.pongs == [b"payload"])


def test_an_answer_to_nobody_in_particular_ends_the_session_and_leaves_orders_unknown():
    revoked = {"id": None} | failed(401, -2015)
    with line_to([[revoked], [{"status": 200, "result": {}}]]) as (line, server, _budget):
        assert line.ready(5)
        with pytest.raises(OutcomeUnknown, match="line broke"):
            place(line)
        assert line.counts["session refused"] == 1
        assert line.ready(5)
        place(line)
        assert server.connections == 2


def test_a_line_that_is_to_close_takes_no_more_orders_and_waits_for_what_it_sent():
    going = {"id": None, "event": {"e": "serverShutdown"}}
    with line_to([[going, {"status": 200, "result": {"n": 1}}]]) as (line, server, _budget):
        assert line.ready(5)
        assert place(line) == b'{"n":1}'
        until(lambda: server.connections == 2)
        assert line.counts["serverShutdown"] == 1


def test_a_silent_line_is_opened_anew_and_a_closed_one_too():
    with line_to([[CLOSE]], silence_s=0.3) as (line, server, _budget):
        assert line.ready(5)
        until(lambda: server.connections >= 2)
        assert line.ready(5)
        with pytest.raises(OutcomeUnknown):
            place(line)


def test_a_log_on_is_signed_and_a_wrong_time_is_learnt_again():
    done = {"status": 200, "result": {}}
    script = [[failed(400, -1021)], [done], [done]]
    with line_to(script, secret=PRIVATE) as (line, server, _budget):
        until(lambda: line.counts["session refused"] == 1)
        assert not line._clock.synchronised
        assert line.ready(5)
        place(line)
        first, second, order = server.asked
        assert (first["method"], second["method"]) == ("session.logon", "session.logon")
        assert "signature" in first["params"]
        assert set(order["params"]) == {"symbol", "recvWindow", "timestamp"}


def test_no_line_is_opened_while_the_venue_wants_silence():
    now_ms = [NOW_MS]
    server = ScriptedSocket([])
    budget = RequestBudget(None, clock_ms=lambda: now_ms[0])
    budget.stay_away(30_000)
    line = OrderLine(server.url, Signer(Secret("k"), Secret("s")), VenueClock(LiveClock()), window_ms=1, budget=budget)  # fmt: skip
    line.start()
    try:
        assert not line.ready(0.2)
        assert server.connections == 0
        now_ms[0] += 30_000
        assert line.ready(5)
    finally:
        line.close()
        server.close()


def test_before_it_is_open_and_after_it_was_closed_nothing_is_sent():
    with line_to([]) as (line, server, _budget):
        assert line.ready(5)
        line.close()
        with pytest.raises(VenueUnreachable, match="nothing was sent"):
            place(line)
        assert server.asked == []
    idle = OrderLine("ws://127.0.0.1:9", Signer(Secret("k"), Secret("s")), VenueClock(LiveClock()), window_ms=1, budget=RequestBudget(None))  # fmt: skip
    with pytest.raises(VenueUnreachable, match="not open"):
        place(idle)
    idle.close()
