"""The key of a USD-M user stream: given for an hour, kept alive, given anew when it ran out.

Who knows it can read the account's events, so it appears in no log and no message. Source:
Binance's USD-M documentation, "Start", "Keepalive User Data Stream", as of 2026-05-28.
"""

from typing import Final

import aiohttp
import msgspec

from bot4_runtime.domain.errors import OutcomeUnknown, VenueError, VenueUnreachable
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.exchange.binance.failures import heed_silence, read_error, silence_ms
from bot4_runtime.exchange.binance.futures_failures import futures_failure
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.messages import Name

PATH: Final = "/fapi/v1/listenKey"
REPLY_S: Final = 12.0
NO_SUCH_KEY: Final = "-1125"
NAMELESS: Final = ""


class _Key(msgspec.Struct, rename="camel"):
    listen_key: Name


class ListenKey:
    """Asks for one account's key.

    Args:
        rest_url: ``https://fapi.binance.com``.
        api_key: names the account; these calls are not signed.
        budget: what may be asked of the venue.
    """

    def __init__(self, rest_url: str, api_key: str, budget: RequestBudget) -> None:
        self._url = rest_url.rstrip("/") + PATH
        self._headers = {"X-MBX-APIKEY": api_key}
        self._budget = budget

    async def give(self, session: aiohttp.ClientSession) -> str:
        """Return a key that is good for an hour, a new one where there is none.

        Raises:
            VenueError: the venue does not give one now.
            aiohttp.ClientError, TimeoutError: it was not reached, or did not answer.
        """
        body = await self._call(session, "POST")
        try:
            return msgspec.json.decode(body, type=_Key).listen_key
        except UNREADABLE:  # the cause would quote what may be the key
            raise OutcomeUnknown("the answer holds no key of a user stream") from None

    async def keep(self, session: aiohttp.ClientSession) -> None:
        """Let the key live for another hour; raises as `give` does."""
        await self._call(session, "PUT")

    async def _call(self, session: aiohttp.ClientSession, method: str) -> bytes:
        sent_ms = self._budget.clock_ms()
        wait_ms = self._budget.take(Lane.CANCEL)
        if wait_ms > 0:
            raise VenueUnreachable(
                f"the venue's limits let no {method} {PATH} pass for another "
                f"{wait_ms / 1000:.0f} s; nothing was sent"
            )
        async with session.request(
            method,
            self._url,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=REPLY_S),
        ) as answer:
            body = await answer.read()
        told = {name.lower(): text for name, text in answer.headers.items()}
        self._budget.told(told, sent_ms)
        if answer.status == 200:
            return body
        raise self._judged(method, answer.status, body, told.get("retry-after"))

    def _judged(
        self, method: str, status: int, body: bytes, retry_after: str | None
    ) -> VenueError:
        error = read_error(body)
        asked_ms = silence_ms(status, error, retry_after, self._budget.clock_ms())
        if asked_ms is not None:
            heed_silence(self._budget, NAMELESS, status, error, asked_ms)
        return futures_failure(f"{method} {PATH}", status, error, body)
