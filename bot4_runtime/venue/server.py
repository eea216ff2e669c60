"""The shell: the venue on 127.0.0.1 over HTTP and WebSocket, faults acted out.

The exchange's doors and the operator's (`/_admin`) are different ports. Nothing listens on any
other address.
"""

import asyncio
from decimal import Decimal
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from bot4_runtime.venue import messages
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rest import WireAnswer, WireRequest
from bot4_runtime.venue.stream import CUT, Connection

HOST: Final = "127.0.0.1"
PING_S: Final = 20.0
_HALF_FRAME: Final = b'\x81\x7e\x02\x00{"subscriptionId":0,"event":{'
_DECODE: Final = msgspec.json.decode
_NO_PROOF: Final = WireAnswer(
    503,
    b'{"code":-1007,"msg":"Timeout waiting for response from backend server. '
    b'Send status unknown; execution status unknown."}',
)
_PAGE: Final = b"<html><body>Bad Gateway</body></html>"


class _Asked(msgspec.Struct):
    """A message of the WebSocket API, as far as faults look at it."""

    method: str = ""
    id: int | str | None = None


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True):
    """What the operator's door takes to schedule faults."""

    rules: list[FaultRule]
    seed: int = 0


class VenueServer:
    """Serves one venue; `start` binds, `close` lets go.

    Args:
        port: of the exchange; 0 lets the system choose.
        admin_port: of the operator's door; None for no such door.
        ping_s: how often a stream is pinged; one that does not answer ends.
    """

    def __init__(
        self,
        venue: Loopback,
        port: int = 0,
        admin_port: int | None = None,
        *,
        ping_s: float = PING_S,
    ) -> None:
        self._venue = venue
        self._ping_s = ping_s
        self._wanted = (port, admin_port)
        self._runners: list[web.AppRunner] = []
        self.port = 0
        self.admin_port: int | None = None

    async def start(self) -> None:
        """Listen on 127.0.0.1."""
        port, admin_port = self._wanted
        app = web.Application()
        app.router.add_get("/ws-api/v3", self._socket)
        app.router.add_route("*", "/{path:.*}", self._call)
        self.port = await self._bind(app, port)
        if admin_port is not None:
            admin = web.Application()
            admin.router.add_post("/_admin/advance", self._advance)
            admin.router.add_post("/_admin/account", self._open_account)
            admin.router.add_post("/_admin/faults", self._schedule)
            admin.router.add_get("/_admin/ledger", self._ledger)
            self.admin_port = await self._bind(admin, admin_port)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for runner in self._runners:
            await runner.cleanup()

    async def _bind(self, app: web.Application, port: int) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, HOST, port).start()
        return int(runner.addresses[0][1])

    # ------------------------------------------------------------------------- REST
    async def _call(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
        except ConnectionError:  # the client died while it spoke
            return _reset(request)
        call = WireRequest(
            request.method,
            request.path,
            request.rel_url.raw_query_string,
            body.decode("utf-8", "replace"),
            request.headers.get("X-MBX-APIKEY"),
        )
        rule = self._venue.faults.next(call.method, call.path)
        if rule is None:
            return _response(self._venue.rest.answer(call))
        told = {"fault": rule.fault.value, "call": f"{call.method} {call.path}"}
        self._venue.journal.add(self._venue.exchange.now_ms(), "fault", 0, told)
        return await self._faulty(request, call, rule)

    async def _faulty(
        self, request: web.Request, call: WireRequest, rule: FaultRule
    ) -> web.StreamResponse:
        fault = rule.fault
        if fault is Fault.DROP_REQUEST:
            return _reset(request)
        if fault is Fault.ERROR_BEFORE:
            return _response(_NO_PROOF)
        if fault is Fault.DELAY_REQUEST:
            await asyncio.sleep(rule.seconds)
        answer = self._venue.rest.answer(call)
        if fault is Fault.DROP_REPLY:
            return _reset(request)
        if fault is Fault.DELAY_REPLY:
            await asyncio.sleep(rule.seconds)
        return _response(_spoiled(answer, fault))

    # ------------------------------------------------------------------ user stream
    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=self._ping_s)
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client died before it was let in
            return _reset(request)
        filled = asyncio.Event()
        connection = Connection(filled.set)
        self._venue.hub.join(connection)
        sender = asyncio.create_task(_send(socket, request, connection, filled))
        try:
            async for message in socket:
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    self._asked(connection, message.data)
        finally:
            self._venue.hub.leave(connection)
            sender.cancel()
        return socket

    def _asked(self, connection: Connection, message: str | bytes) -> None:
        """Answer a message, or act out what goes wrong with it; its method is ``WS``."""
        try:
            asked = _DECODE(message, type=_Asked)
        except msgspec.MsgspecError:
            asked = _Asked()
        rule = self._venue.faults.next("WS", asked.method)
        if rule is None:
            self._venue.hub.answer(connection, message)
            return
        fault = rule.fault
        told = {"fault": fault.value, "call": asked.method}
        self._venue.journal.add(self._venue.exchange.now_ms(), "fault", 0, told)
        if fault is Fault.DROP_REQUEST:
            connection.send(CUT)
        elif fault is Fault.ERROR_BEFORE:
            connection.send(_no_proof(asked))
        elif fault is Fault.DELAY_REPLY:
            late = Connection(_nothing)
            late.session, late.account = connection.session, connection.account
            self._venue.hub.answer(late, message)
            loop = asyncio.get_running_loop()
            loop.call_later(rule.seconds, connection.send, late.outbox.popleft())
        elif fault is Fault.DELAY_REQUEST:
            loop = asyncio.get_running_loop()
            loop.call_later(rule.seconds, self._venue.hub.answer, connection, message)
        else:
            before = len(connection.outbox)
            self._venue.hub.answer(connection, message)
            if len(connection.outbox) > before:  # a stalled connection has no answer
                reply = connection.outbox.pop()
                connection.outbox.extend(_spoiled_reply(asked, reply, fault))

    # --------------------------------------------------------------- operator's door
    async def _advance(self, request: web.Request) -> web.Response:
        number = self._venue.advance(int(request.query["to_ms"]))
        return web.json_response({"prints": number, "now_ms": self._venue.exchange.now_ms()})

    async def _open_account(self, request: web.Request) -> web.Response:
        told: dict[str, Any] = _DECODE(await request.read())
        deposits = [(asset, Decimal(amount)) for asset, amount in told["deposits"].items()]
        self._venue.open_account(told["uid"], told["api_key"], told["secret"], deposits)
        return web.json_response({})

    async def _schedule(self, request: web.Request) -> web.Response:
        order = _DECODE(await request.read(), type=FaultOrder)
        self._venue.schedule(FaultSchedule(order.rules, order.seed))
        return web.json_response({})

    async def _ledger(self, request: web.Request) -> web.Response:
        """Tell all orders and trades of an account: what the venue holds to be true."""
        account = self._venue.exchange.account(request.query["api_key"])
        if account is None:
            raise web.HTTPNotFound
        after = int(request.query.get("after_order_id", 0))
        orders = [
            messages.order_told(order)
            | {"trades": [messages.trade_told(trade) for trade in order.trades]}
            for order in self._venue.exchange.orders(account)
            if order.order_id > after
        ]
        told = {
            "orders": orders,
            "account": messages.account_told(account, self._venue.exchange.now_ms()),
        }
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")


async def _send(
    socket: web.WebSocketResponse,
    request: web.Request,
    connection: Connection,
    filled: asyncio.Event,
) -> None:
    """Send what lies in the outbox, in order, until the connection ends."""
    while True:
        await filled.wait()
        filled.clear()
        while connection.outbox:
            message = connection.outbox.popleft()
            if message is CUT:
                if request.transport is not None:
                    request.transport.write(_HALF_FRAME)
                    request.transport.close()
                return
            try:
                await socket.send_str(message.decode())
            except ConnectionError:
                return


def _spoiled(answer: WireAnswer, fault: Fault) -> WireAnswer:
    """Return what the client gets to see of an answer."""
    if fault is Fault.ERROR_AFTER:
        return _NO_PROOF
    if fault is Fault.GATEWAY_AFTER:
        return WireAnswer(502, _PAGE)
    if fault is Fault.TRUNCATED:
        return WireAnswer(200, answer.body[: len(answer.body) // 2])
    if fault is Fault.NOT_JSON:
        return WireAnswer(200, _PAGE)
    if fault is Fault.WRONG_TYPE:
        return WireAnswer(200, b'{"unexpected":[1,2,3]}')
    return answer


def _no_proof(asked: _Asked) -> bytes:
    error = {"code": -1007, "msg": "Timeout waiting for response from backend server."}
    return msgspec.json.encode({"id": asked.id, "status": 503, "error": error})


def _spoiled_reply(asked: _Asked, reply: bytes, fault: Fault) -> list[bytes]:
    """Return what the client gets to see of a reply over its WebSocket."""
    if fault in {Fault.ERROR_AFTER, Fault.GATEWAY_AFTER}:
        return [_no_proof(asked)]
    if fault is Fault.TRUNCATED:
        return [reply[: len(reply) // 2]]
    if fault is Fault.NOT_JSON:
        return [_PAGE]
    if fault is Fault.WRONG_TYPE:
        wrong = {"id": asked.id, "status": 200, "result": {"unexpected": [1, 2, 3]}}
        return [msgspec.json.encode(wrong)]
    return [CUT]


def _nothing() -> None:
    """Wake nobody."""


def _response(answer: WireAnswer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type="application/json")


def _reset(request: web.Request) -> web.Response:
    """Cut the connection without a word; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
