"""The shell: the venue on 127.0.0.1 over HTTP and WebSocket, faults acted out.

The exchange's doors and the operator's (`/_admin`) are different ports. Nothing listens on any
other address.
"""

import asyncio
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, Protocol

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.market_shell import MarketShell
from bot4_runtime.venue.rest import WireAnswer, WireRequest
from bot4_runtime.venue.stream import BYE, CUT, Connection

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


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True):
    """What the operator's door takes to schedule faults."""

    rules: list[FaultRule]
    seed: int = 0


class Answers(Protocol):
    """The REST side of a venue."""

    def answer(self, request: WireRequest) -> WireAnswer:
        """Do what a request asks and say how it went."""
        ...


class Timed(Protocol):
    """The core of a venue, as far as a server must know it."""

    def now_ms(self) -> int:
        """Return the exchange's time."""
        ...


class Talks(Protocol):
    """The WebSocket side of a venue."""

    def join(self, connection: Connection, path: str, query: str) -> None:
        """Let a connection in that came to a door."""
        ...

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        ...

    def answer(self, connection: Connection, text: str | bytes) -> None:
        """Answer a message."""
        ...


class Hosted(Protocol):
    """A venue that can be served, of whatever market."""

    sockets: ClassVar[tuple[str, ...]]
    faults: FaultSchedule
    journal: VenueJournal

    @property
    def rest(self) -> Answers:
        """Its REST side."""
        ...

    @property
    def hub(self) -> Talks:
        """Its WebSocket side."""
        ...

    @property
    def exchange(self) -> Timed:
        """Its core."""
        ...

    def advance(self, to_ms: int) -> int:
        """Let everybody else trade up to a time of the tape."""
        ...

    def schedule(self, faults: FaultSchedule) -> None:
        """Let other things go wrong from now on."""
        ...

    def open_account(
        self, uid: int, api_key: str, secret: str, deposits: Iterable[tuple[str, Decimal]]
    ) -> object:
        """Open an account with money in it."""
        ...

    def script(self, told: Mapping[str, str]) -> None:
        """Let something happen in a market."""
        ...

    def ledger(self, api_key: str, after_order_id: int) -> dict[str, Any] | None:
        """Tell an account with its orders and trades."""
        ...


class VenueServer:
    """Serves one venue; `start` binds, `close` lets go.

    Args:
        port: of the exchange; 0 lets the system choose.
        admin_port: of the operator's door; None for no such door.
        ping_s: how often a stream is pinged; one that does not answer ends.
    """

    def __init__(
        self,
        venue: Hosted,
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
        for path in self._venue.sockets:
            app.router.add_get(path, self._socket)
        if isinstance(self._venue, Loopback):
            MarketShell(self._venue, self._ping_s).add_to(app)
        app.router.add_route("*", "/{path:.*}", self._call)
        self.port = await self._bind(app, port)
        if admin_port is not None:
            admin = web.Application()
            admin.router.add_post("/_admin/advance", self._advance)
            admin.router.add_post("/_admin/account", self._open_account)
            admin.router.add_post("/_admin/faults", self._schedule)
            admin.router.add_post("/_admin/script", self._script)
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
        self._venue.hub.join(connection, request.path, request.rel_url.raw_query_string)
        sender = asyncio.create_task(_send(socket, request, connection, filled))
        try:
            async for message in socket:
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    self._venue.hub.answer(connection, message.data)
        finally:
            self._venue.hub.leave(connection)
            sender.cancel()
        return socket

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

    async def _script(self, request: web.Request) -> web.Response:
        self._venue.script(_DECODE(await request.read(), type=dict[str, str]))
        return web.json_response({})

    async def _ledger(self, request: web.Request) -> web.Response:
        """Tell all orders and trades of an account: what the venue holds to be true."""
        after = int(request.query.get("after_order_id", 0))
        told = self._venue.ledger(request.query["api_key"], after)
        if told is None:
            raise web.HTTPNotFound
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
            if message is BYE:
                await socket.close(code=WSCloseCode.POLICY_VIOLATION)
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


def _response(answer: WireAnswer) -> web.Response:
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers=answer.headers,
        content_type="application/json",
    )


def _reset(request: web.Request) -> web.Response:
    """Cut the connection without a word; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
