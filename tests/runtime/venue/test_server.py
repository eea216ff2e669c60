"""The shell: loopback only, faults acted out over real sockets, the user stream, the operator's door."""

import asyncio
import hashlib
import hmac
import http.client
import json
import socket
import struct
from contextlib import closing
from decimal import Decimal
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest

from bot4_runtime.domain.order import Side
from bot4_runtime.venue import auth
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted, serve
from bot4_runtime.venue.journal import FileSink, VenueJournal
from bot4_runtime.venue.loopback import SkewedClock
from bot4_runtime.venue.orders import Kind, OrderRequest
from bot4_runtime.venue.server import VenueServer
from bot4_runtime.venue.stream import Connection

ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "39000"}  # fmt: skip


def mac(text, secret="secret1"):
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def post_order(server, venue, **more):
    query = urlencode(ORDER | {"timestamp": venue.exchange.now_ms()} | more)
    path = f"/api/v3/order?{query}&signature={mac(query)}"
    return call(server.port, "POST", path)


def call(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with closing(connection):
        connection.request(method, path, body, headers={"X-MBX-APIKEY": "key1"})
        with connection.getresponse() as response:
            return response.status, response.read()


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        (Fault.DROP_REQUEST, False),
        (Fault.DROP_REPLY, True),
        (Fault.ERROR_BEFORE, False),
        (Fault.ERROR_AFTER, True),
        (Fault.GATEWAY_AFTER, True),
        (Fault.TRUNCATED, True),
        (Fault.NOT_JSON, True),
        (Fault.WRONG_TYPE, True),
        (Fault.DELAY_REPLY, True),
        (Fault.DELAY_REQUEST, True),
    ],
)
def test_a_fault_shows_as_itself_and_the_effect_is_there_or_not(make, sink, fault, done):
    venue = make()
    venue.schedule(FaultSchedule([FaultRule(fault=fault, method="POST", seconds=0.05, times=1)]))
    with hosted(venue) as server:
        if fault in {Fault.DROP_REQUEST, Fault.DROP_REPLY}:
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                post_order(server, venue)
        else:
            status, body = post_order(server, venue)
            unreadable = {Fault.TRUNCATED, Fault.NOT_JSON}
            errors = {Fault.ERROR_BEFORE: 503, Fault.ERROR_AFTER: 503, Fault.GATEWAY_AFTER: 502}
            assert status == errors.get(fault, 200)
            if fault in unreadable:
                with pytest.raises(json.JSONDecodeError):
                    json.loads(body)
            elif status == 503:
                assert json.loads(body)["code"] == -1007
        assert len(venue.exchange.orders(venue.exchange.account("key1"))) == done
        assert [entry.body["fault"] for entry in sink.entries if entry.kind == "fault"] == [fault]
        assert post_order(server, venue)[0] == 200, "the fault was to happen once"


def test_a_schedule_follows_from_its_seed_and_counts_only_its_own_calls():
    rules = [
        FaultRule(fault=Fault.DROP_REPLY, method="POST", path="/api", probability=0.5, after=2),
        FaultRule(fault=Fault.EVENT_LOST, method="EVENT", times=1),
    ]

    def hits(seed):
        schedule = FaultSchedule(rules, seed)
        found = []
        for number in range(40):
            assert schedule.next("GET", "/api/v3/order") is None
            found.append(schedule.next("POST", "/api/v3/order") is not None)
            assert (schedule.next("EVENT", "executionReport") is not None) == (number == 0)
        return found

    assert hits(1) == hits(1)
    assert hits(1) != hits(2)
    assert hits(1)[:2] == [False, False]
    assert 8 < sum(hits(1)) < 32


def subscription(venue, secret="secret1", **changed):
    params = {"apiKey": "key1", "timestamp": venue.exchange.now_ms()} | changed
    text = "&".join(f"{name}={params[name]}" for name in sorted(params))
    return {
        "id": 7,
        "method": "userDataStream.subscribe.signature",
        "params": params | {"signature": mac(text, secret)},
    }


async def followed(server, venue, actions, seconds=0.3):
    """Subscribe, let things happen, return every frame as JSON, or how the line ended."""
    frames = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{server.port}/ws-api/v3") as line,
    ):
        await line.send_json(subscription(venue))
        assert (await line.receive_json())["result"] == {"subscriptionId": 0}
        await asyncio.to_thread(actions)
        while True:
            try:
                message = await line.receive(seconds)
            except TimeoutError:
                return frames
            if message.type is not aiohttp.WSMsgType.TEXT:
                return [*frames, message.type.name]
            frames.append(json.loads(message.data))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (None, ["NEW", "pos", "TRADE", "pos"]),
        (Fault.EVENT_LOST, ["pos", "TRADE", "pos"]),
        (Fault.EVENT_TWICE, ["NEW", "NEW", "pos", "TRADE", "pos"]),
        (Fault.EVENT_LATE, ["pos", "NEW", "TRADE", "pos"]),
        (Fault.EVENT_STALL, []),
    ],
)
def test_the_user_stream_tells_reports_and_balances_or_fails_as_scheduled(make, fault, expected):
    venue = make()
    if fault is not None:
        venue.schedule(FaultSchedule([FaultRule(fault=fault, method="EVENT", times=1)]))
    with hosted(venue) as server:
        frames = asyncio.run(
            followed(server, venue, lambda: post_order(server, venue, price="40500"))
        )
    assert all(frame["subscriptionId"] == 0 for frame in frames)
    events = [frame["event"] for frame in frames]
    assert [event.get("x", "pos") for event in events] == expected
    for event in events:
        if event.get("x") == "TRADE":
            assert (event["l"], event["L"], event["z"], event["X"], event["m"]) == ("0.01000000", "40000.10000000", "0.01000000", "FILLED", False)  # fmt: skip
            assert (event["n"], event["N"], event["t"]) == ("0.00001000", "BTC", 1)


def test_a_stream_can_end_inside_a_frame(make):
    venue = make()
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.EVENT_CUT, method="EVENT", times=1)]))
    with hosted(venue) as server:
        frames = asyncio.run(followed(server, venue, lambda: post_order(server, venue)))
    assert frames[-1] in {"CLOSED", "ERROR", "CLOSE"}


def test_the_id_of_a_cancelled_order_stands_in_another_place(make):
    venue = make()

    def cancel():
        account = venue.exchange.account("key1")
        order = venue.exchange.place(account, OrderRequest(symbol="BTCUSDT", side=Side.BUY, kind=Kind.LIMIT, quantity=Decimal(1), price=Decimal(39_000), client_id="mine"))  # fmt: skip
        venue.exchange.cancel(account, "BTCUSDT", order.order_id, "", "stop-it")

    with hosted(venue) as server:
        frames = asyncio.run(
            followed(server, venue, lambda: post_order(server, venue, price="39000"))
        )
        assert frames[0]["event"]["C"] == ""
    reports = []
    venue.hub._tell = lambda _connection, _account, event: reports.append(event)
    connection = Connection(lambda: None)
    connection.account = venue.exchange.account("key1")
    venue.hub.join(connection)
    cancel()
    told = [event for event in reports if event["e"] == "executionReport"]
    assert [(e["x"], e["c"], e["C"]) for e in told] == [("NEW", "mine", ""), ("CANCELED", "stop-it", "mine")]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", -1135),
        ('{"id":1,"method":"order.dream"}', -1020),
        ('{"id":1,"method":"order.place"}', -2014),
        ('{"id":1,"method":"userDataStream.unsubscribe"}', -2036),
        ('{"id":1,"method":"userDataStream.subscribe.signature"}', -2014),
    ],
)
def test_wrong_messages_are_answered_with_their_code(make, message, code):
    connection = Connection(lambda: None)
    make().hub.answer(connection, message)
    assert msgspec.json.decode(connection.outbox[0])["error"]["code"] == code


def test_subscribing_is_signed_timed_and_done_once(make):
    venue = make()

    def answer(connection, message):
        venue.hub.answer(connection, json.dumps(message))
        return msgspec.json.decode(connection.outbox.pop())

    connection = Connection(lambda: None)
    assert answer(connection, subscription(venue, "wrong"))["error"]["code"] == -1022
    assert answer(connection, subscription(venue, timestamp=1))["error"]["code"] == -1021
    unsigned = subscription(venue)
    del unsigned["params"]["signature"]
    assert answer(connection, unsigned)["error"]["code"] == -1102
    assert answer(connection, subscription(venue))["status"] == 200
    assert answer(connection, subscription(venue))["error"]["code"] == -2035
    assert answer(connection, {"id": 1, "method": "userDataStream.unsubscribe"})["status"] == 200
    assert answer(connection, {"id": 1, "method": "ping"})["result"] == {}
    assert answer(connection, {"id": 1, "method": "time"})["result"] == {"serverTime": venue.exchange.now_ms()}  # fmt: skip


def test_the_operators_door_is_another_port_and_tells_what_the_venue_holds(make):
    venue = make()

    def ask(port, method, path, body=None):
        status, told = call(port, method, path, json.dumps(body) if body is not None else None)
        return status, json.loads(told)

    with hosted(venue, admin=True) as server:
        assert call(server.port, "POST", "/_admin/advance?to_ms=5")[0] == 404
        money = {"uid": 9, "api_key": "key9", "secret": "s", "deposits": {"USDT": "5"}}
        assert ask(server.admin_port, "POST", "/_admin/account", money)[0] == 200
        assert ask(server.admin_port, "POST", "/_admin/account", money)[0] == 200
        assert venue.exchange.account("key9").balance("USDT").free == 5
        to_ms = venue.exchange.now_ms() + 5
        assert ask(server.admin_port, "POST", f"/_admin/advance?to_ms={to_ms}")[1] == {"prints": 0, "now_ms": to_ms}  # fmt: skip
        post_order(server, venue, price="40500")
        ledger = ask(server.admin_port, "GET", "/_admin/ledger?api_key=key1")[1]
        assert [len(order["trades"]) for order in ledger["orders"]] == [1]
        rules = {"rules": [{"fault": "error_before", "method": "POST"}]}
        assert ask(server.admin_port, "POST", "/_admin/faults", rules)[0] == 200
        assert post_order(server, venue)[0] == 503
        assert ask(server.admin_port, "GET", "/_admin/ledger?api_key=key1&after_order_id=1")[1]["orders"] == []  # fmt: skip


def test_the_journal_outlives_what_wrote_to_it(tmp_path):
    sink = FileSink(tmp_path / "venue.jsonl")
    journal = VenueJournal(sink)
    journal.add(5, "print", 0, {"p": "1"})
    rows = (tmp_path / "venue.jsonl").read_bytes().splitlines()  # before it is closed
    sink.close()
    assert [json.loads(row) for row in rows] == [{"seq": 1, "time_ms": 5, "kind": "print", "uid": 0, "body": {"p": "1"}}]  # fmt: skip


def test_a_venue_on_the_machines_clock_ticks_until_it_is_told_to_stop(make):
    ticks = []

    async def run():
        stop = asyncio.Event()

        def tick():
            ticks.append(len(ticks))
            if len(ticks) == 3:
                stop.set()

        ports = []
        server = VenueServer(make(live=True))
        await serve(server, stop, ready=lambda s: ports.append(s.port), tick=tick, tick_s=0.01)
        return ports

    assert asyncio.run(run())[0] > 0
    assert len(ticks) == 3


def test_a_skewed_clock_is_off_by_its_skew(make):
    venue = make()
    assert SkewedClock(venue.clock, -30_000).now_ns() == venue.clock.now_ns() - 30_000_000_000


def test_parameters_of_a_query_are_decoded_once():
    assert auth.parameters("a=%26&b=2", "b=3&c=4") == {"a": "&", "b": "2", "c": "4"}


def test_a_client_that_dies_while_it_speaks_is_no_error_and_has_no_effect(make, sink):
    venue = make()
    with hosted(venue) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as line:
                line.sendall(
                    b"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\na="
                )
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert post_order(server, venue)[0] == 200
    assert [entry.kind for entry in sink.entries if entry.kind == "request"] == ["request"]
