"""What an answer of Binance's USD-M market means that is no success.

HTTP 503 comes in four kinds, which its words tell apart: unknown; not done, twice; and turned
away by the protection of an overloaded system, which what only reduces passes. Words that nobody
knows leave the outcome unknown. Source: Binance's USD-M documentation, "General Info" and "Error
Codes", as of 2026-05-28.
"""

from typing import Final

from bot4_runtime.domain.errors import VenueError
from bot4_runtime.exchange.binance.failures import ErrorFields, Refusal, failure

THROTTLED: Final = -1008
NOT_DONE: Final = (
    "Service Unavailable.",
    "Internal error; unable to process your request. Please try again.",
)
"""Words of HTTP 503 that say that nothing was done."""
_SHOWN: Final = 200


def futures_failure(
    call: str, status: int, error: ErrorFields | None, body: bytes = b""
) -> VenueError:
    """Return what an answer that is no success means; the caller raises it.

    Args:
        call: method and path, or method of the WebSocket API.
        status: of HTTP, or the WebSocket API's.
        error: as the venue tells it; None when it cannot be read.
        body: as it came; of HTTP 503 it may be words without a code.
    """
    if error is not None and error.code == THROTTLED:
        return Refusal(str(THROTTLED), error.msg, looked_at=False)
    text = body[:_SHOWN].decode("utf-8", "replace") if error is None else error.msg
    if status == 503 and text.strip() in NOT_DONE:
        return Refusal("HTTP 503", text.strip(), looked_at=False)
    return failure(call, status, error, body)
