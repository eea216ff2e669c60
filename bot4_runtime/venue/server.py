"""The shell: the venue on 127.0.0.1 over HTTP and WebSocket, faults acted out.

The exchange's doors and the operator's (`/_admin`) are different ports. Nothing listens on any
other address.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, ClassVar, Final, Protocol, TypeVar

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue import auth
from bot4_runtime.venue.faults import OF_THE_CORE, WS, Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.journal import VenueJournal
from bot4_runtime.venue.line import Line
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.market_shell import MarketShell
from bot4_runtime.venue.rest import WireAnswer, WireRequest
from bot4_runtime.venue.spoiled import (
    Asked,
    replied_before,
    spoiled_after,
    spoiled_before,
    spoiled_reply,
)
from bot4_runtime.venue.stream import Act, Connection

HOST: Final = "127.0.0.1"
PING_S: Final = 20.0
MAX_INBOUND: Final = 1 << 20
NEW_ORDERS: Final = ("/order", "/algoOrder")
"""What paths of new orders end with."""
PLACES: Final = ("order.place", "algoOrder.place")
"""What places them over the WebSocket API."""
_DECODE: Final = msgspec.json.decode

Result = TypeVar("Result")


class FaultOrder(msgspec.Struct, forbid_unknown_fields=True):
    """What the operator's door takes to schedule faults."""

    rules: list[FaultRule]
    seed: int = 0


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
    def hub(self) -> Talks:
        """Its WebSocket side."""
        ...

    @property
    def exchange(self) -> Timed:
        """Its core."""
        ...

    def answer(self, call: WireRequest) -> WireAnswer:
        """Do what a request over HTTP asks and say how it went."""
        ...

    def spared(self, call: str, values: Mapping[str, object]) -> AbstractSet[Fault]:
        """Return the faults that a call cannot have: ``POST /path``, or an API's method."""
        ...

    def act_out(self, call: WireRequest, rule: FaultRule) -> WireAnswer:
        """Answer a request that a fault of the venue's own hits; others are the shell's."""
        ...

    def act_out_message(self, connection: Connection, asked: Asked, rule: FaultRule) -> None:
        """Answer a message that a fault of the venue's own hits."""
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
        self._site: web.TCPSite | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self.port = 0
        self.admin_port: int | None = None

    async def start(self) -> None:
        """Listen on 127.0.0.1."""
        port, admin_port = self._wanted
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        for path in self._venue.sockets:
            app.router.add_get(path, self._socket)
        if isinstance(self._venue, Loopback):
            MarketShell(self._venue, self._ping_s).add_to(app)
        app.router.add_route("*", "/{path:.*}", self._call)
        self.port, self._site = await self._bind(app, port)
        if admin_port is not None:
            admin = web.Application()
            admin.router.add_post("/_admin/advance", self._advance)
            admin.router.add_post("/_admin/account", self._open_account)
            admin.router.add_post("/_admin/faults", self._schedule)
            admin.router.add_post("/_admin/script", self._script)
            admin.router.add_get("/_admin/ledger", self._ledger)
            self.admin_port, _ = await self._bind(admin, admin_port)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for task in list(self._tasks):
            task.cancel()
        for runner in self._runners:
            await runner.cleanup()

    async def _bind(self, app: web.Application, port: int) -> tuple[int, web.TCPSite]:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, HOST, port)
        await site.start()
        return int(runner.addresses[0][1]), site

    def do(self, action: Callable[[], Result]) -> Result:
        """Do something with the venue on its own thread, from another one; return what it gave."""
        loop = self._loop
        if loop is None:
            raise RuntimeError("the venue is not served yet")

        async def act() -> Result:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), loop).result()

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
        venue = self._venue
        now_ms = venue.exchange.now_ms()
        values = auth.parameters(call.query, call.body)
        if call.method == "POST" and call.path.endswith(NEW_ORDERS):
            self._sent(now_ms, values)
        spared = venue.spared(f"{call.method} {call.path}", values)
        rule = venue.faults.next(call.method, call.path, now_ms, spared)
        if rule is not None:
            self._note_fault(now_ms, rule, f"{call.method} {call.path}")
            return await self._faulty(request, call, rule)
        return _response(venue.answer(call))

    def _sent(self, now_ms: int, values: Mapping[str, object]) -> None:
        """Write down that a new order came this far, whatever becomes of it."""
        name = values.get("newClientOrderId", values.get("clientAlgoId", ""))
        self._venue.journal.add(now_ms, "sent", 0, {"id": str(name)})

    def _note_fault(self, now_ms: int, rule: FaultRule, call: str) -> None:
        told = {"fault": rule.fault.value, "call": call, "seconds": rule.seconds}
        self._venue.journal.add(now_ms, "fault", 0, told)

    async def _faulty(
        self, request: web.Request, call: WireRequest, rule: FaultRule
    ) -> web.StreamResponse:
        fault = rule.fault
        if fault is Fault.REFUSE_CONNECT:
            await self._listen_no_more(rule.seconds)
        if fault in {Fault.DROP_REQUEST, Fault.REFUSE_CONNECT}:
            return _reset(request)
        before = spoiled_before(fault)
        if before is not None:
            return _response(before)
        if fault is Fault.DELAY_REQUEST:
            await asyncio.sleep(rule.seconds)
        answer = self._venue.act_out(call, rule)
        if fault is Fault.DROP_REPLY:
            return _reset(request)
        if fault is Fault.DELAY_REPLY:
            await asyncio.sleep(rule.seconds)
        return _response(spoiled_after(answer, fault))

    async def _listen_no_more(self, seconds: float) -> None:
        """Close the exchange's port for a while; connections that are there stay."""
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()
            self._later(seconds, self._listen_again)

    async def _listen_again(self) -> None:
        self._site = web.TCPSite(self._runners[0], HOST, self.port)
        await self._site.start()
        self._venue.journal.add(self._venue.exchange.now_ms(), "listens", 0, {})

    def _later(self, seconds: float, what: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await what()

        task = asyncio.ensure_future(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ user stream
    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False, max_msg_size=MAX_INBOUND)
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client died before it was let in
            return _reset(request)
        venue = self._venue
        filled = asyncio.Event()
        connection = Connection(filled.set)
        line = Line(socket, request, connection, filled, self._ping_s)
        venue.hub.join(connection, request.path, request.rel_url.raw_query_string)
        speaking = asyncio.create_task(line.speak())
        pinging = asyncio.create_task(line.ping())
        try:
            async for message in socket:
                if line.dead:
                    continue
                counted = message.type in {WSMsgType.PING, WSMsgType.PONG}
                if counted and not connection.heard(asyncio.get_running_loop().time()):
                    venue.journal.add(venue.exchange.now_ms(), "over_inbound", 0, {})
                    await socket.close(code=WSCloseCode.POLICY_VIOLATION)
                elif message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    self._asked(connection, message.data)
                elif message.type is WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type is WSMsgType.PONG and not line.answered(message.data):
                    venue.journal.add(venue.exchange.now_ms(), "wrong_pong", 0, {})
        finally:
            venue.hub.leave(connection)
            speaking.cancel()
            pinging.cancel()
        return socket

    def _asked(self, connection: Connection, message: str | bytes) -> None:
        """Answer a message, or act out what goes wrong with it; its method is ``WS``."""
        try:
            asked = _DECODE(message, type=Asked)
        except UNREADABLE:
            asked = Asked()
        now_ms = self._venue.exchange.now_ms()
        params = asked.params if isinstance(asked.params, dict) else {}
        if asked.method in PLACES and params:
            self._sent(now_ms, params)
        spared = self._venue.spared(asked.method, params)
        rule = self._venue.faults.next(WS, asked.method, now_ms, spared)
        if rule is None:
            self._venue.hub.answer(connection, message)
            return
        fault = rule.fault
        self._note_fault(now_ms, rule, asked.method)
        before = replied_before(asked, fault)
        if fault is Fault.DROP_REQUEST:
            connection.send(Act.CUT)
        elif before is not None:
            connection.send(before)
        elif fault is Fault.DELAY_REQUEST:
            loop = asyncio.get_running_loop()
            loop.call_later(rule.seconds, self._venue.hub.answer, connection, message)
        elif fault in OF_THE_CORE:
            self._venue.act_out_message(connection, asked, rule)
        else:
            waiting = len(connection.outbox)
            self._venue.hub.answer(connection, message)
            if len(connection.outbox) > waiting:  # a stalled connection has no answer
                reply = connection.outbox.pop()
                if fault is Fault.DELAY_REPLY:
                    loop = asyncio.get_running_loop()
                    loop.call_later(rule.seconds, connection.send, reply)
                else:
                    connection.outbox.append(spoiled_reply(asked, reply, fault))

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
