"""The user stream of USD-M: a line of the private route that a listen key opens.

Orders and what became of them are brought; what moved an account otherwise (funding, margin, a
margin call) is counted by its reason and logged. A fill is told twice, by `TRADE_LITE` too, which
tells no fee: it is passed over. A key that ran out or that the venue forgot ends the line, and the
next one begins with a new key. Source: Binance's USD-M documentation, "User Data Streams", as of
2026-05-28.
"""

import asyncio
from typing import Any, Final

import aiohttp
import msgspec

from bot4_runtime.domain.errors import VenueError
from bot4_runtime.exchange.binance.failures import Refusal
from bot4_runtime.exchange.binance.followed_stream import (
    MAX_FRAME,
    WILL_END,
    FollowedStream,
    StreamEnded,
)
from bot4_runtime.exchange.binance.futures_messages import (
    AccountUpdate,
    AlgoUpdate,
    MarginCall,
    OrderTradeUpdate,
)
from bot4_runtime.exchange.binance.listen_key import NO_SUCH_KEY, ListenKey
from bot4_runtime.exchange.binance.signing import Signer, VenueClock
from bot4_runtime.exchange.protocols import HearsMargin

PING_S: Final = 20.0
"""The venue pings every three minutes: a line that is silent for longer is asked itself."""
KEEP_S: Final = 25 * 60.0
"""From one word to keep the key to the next; it lives for an hour."""
AGAIN_S: Final = 60.0
"""The same after one that failed."""
KEY_EXPIRED: Final = "listenKeyExpired"
TRADED: Final = "ORDER"
"""Why an account changed when it traded."""


class _Head(msgspec.Struct):
    e: str = ""


class _Wrapped(msgspec.Struct):
    """A frame of a combined stream."""

    data: msgspec.Raw = msgspec.Raw()


_HEADS: Final = msgspec.json.Decoder(_Head)
_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)
_ORDERS: Final = msgspec.json.Decoder(OrderTradeUpdate)
_ALGOS: Final = msgspec.json.Decoder(AlgoUpdate)
_ACCOUNTS: Final = msgspec.json.Decoder(AccountUpdate)
_CALLS: Final = msgspec.json.Decoder(MarginCall)
_WHOLE: Final = msgspec.json.Decoder(dict[str, Any])


class FuturesStream(FollowedStream):
    """Follows one account.

    Args:
        url: of the private route, ``wss://fstream.binance.com/private``.
        rest_url: where keys are given, ``https://fapi.binance.com``.
        keep_s: from one word to keep the key to the next.
        ping_s: of the line's silence after which a pong is asked for.
        margin: hears what an account changed to, and of margin calls; None for nobody.
        options: those of `FollowedStream`.
    """

    def __init__(
        self,
        url: str,
        rest_url: str,
        signer: Signer,
        clock: VenueClock,
        *,
        keep_s: float = KEEP_S,
        ping_s: float = PING_S,
        margin: HearsMargin | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url.rstrip("/"), signer, clock, **options)
        self._keep_s = keep_s
        self._ping_s = ping_s
        self._margin = margin
        self._key = ListenKey(rest_url, signer.api_key, self._budget)

    async def _listen(self, session: aiohttp.ClientSession, stands: asyncio.Event) -> None:
        await self._door.permitted()
        try:
            key = await self._key.give(session)
        except VenueError as error:
            self.counts["no key"] += 1
            self._log.error("the venue gives no key of a user stream", why=str(error))
            raise StreamEnded(type(error).__name__) from error
        async with session.ws_connect(
            f"{self._url}/ws?listenKey={key}",
            autoping=False,
            max_msg_size=MAX_FRAME,
            heartbeat=self._ping_s,
        ) as line:
            self._line = line
            await line.ping(b"bot4")  # no subscription is answered here: the pong says it stands
            keeping = asyncio.create_task(self._keep(session, line))
            try:
                await self._read(line, stands)
            finally:
                keeping.cancel()

    def _ponged(self, stands: asyncio.Event) -> None:
        self._connected = True
        stands.set()

    async def _keep(
        self, session: aiohttp.ClientSession, line: aiohttp.ClientWebSocketResponse
    ) -> None:
        """Keep the key alive; hang up when the venue does not know it any more."""
        pause_s = self._keep_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._key.keep(session)
                pause_s = self._keep_s
            except (VenueError, aiohttp.ClientError, TimeoutError) as error:
                self.counts["key not kept"] += 1
                pause_s = min(self._keep_s, AGAIN_S)
                if isinstance(error, Refusal) and error.code == NO_SUCH_KEY:
                    await line.close()
                    return

    def _understand(self, text: str) -> bool:
        kind = _HEADS.decode(text).e
        frame: str | msgspec.Raw = text
        if not kind:
            frame = _WRAPPED.decode(text).data
            kind = _HEADS.decode(frame).e if bytes(frame) else ""
        self._take_event(kind, frame)
        return False

    def _take_event(self, kind: str, event: str | msgspec.Raw) -> None:
        if kind == "ORDER_TRADE_UPDATE":
            self._bring(_ORDERS.decode(event).meaning())
        elif kind == "ALGO_UPDATE":
            self._bring(_ALGOS.decode(event).meaning())
        elif kind == WILL_END:
            self._will_end()
        elif kind == KEY_EXPIRED:
            raise StreamEnded(kind)
        elif kind == "ACCOUNT_UPDATE":
            self._account_changed(_ACCOUNTS.decode(event))
            if self._margin is not None:
                self._margin.changed(_WHOLE.decode(event))
        elif kind == "MARGIN_CALL":
            self.counts[kind] += 1
            symbols = _CALLS.decode(event).symbols
            self._log.error("the venue calls for margin", symbols=symbols)
            if self._margin is not None:
                self._margin.called(symbols)
        else:
            self.counts[kind or "nameless"] += 1

    def _account_changed(self, told: AccountUpdate) -> None:
        self.counts[f"ACCOUNT_UPDATE:{told.reason}"] += 1
        if told.reason != TRADED:
            moved = {asset: str(amount) for asset, amount in told.moved().items()}
            self._log.info("account changed", why=told.reason, moved=moved)
