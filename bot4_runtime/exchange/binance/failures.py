"""What an answer that is no success means, over REST and over the WebSocket API alike.

Each status and code belongs to exactly one of: refused, refused for this location, or outcome
unknown. Source: binance-spot-api-docs, errors.md and rest-api.md, "HTTP return codes".
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Final

import msgspec

from bot4_runtime.domain.errors import LocationRefused, OutcomeUnknown, VenueError, VenueRefused
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.exchange.binance.limits import RequestBudget, pause_ms

NO_PROOF: Final = frozenset({-1000, -1001, -1006, -1007})
"""Codes that do not say whether the request was carried out."""
TOO_MANY_ORDERS: Final = -1015
_NOT_LOOKED_AT: Final = frozenset({-1003, TOO_MANY_ORDERS, -1021})
"""Codes of limits and clocks: they say nothing about what was asked, and pass by themselves."""
_KEY_REFUSED: Final = frozenset({"-1022", "-2014", "-2015"})
"""Of signatures and keys; the last may also pass by itself, as a ban of the key's does."""
FIREWALL: Final = (
    "its firewall refused it before it was looked at; Binance answers so to who asks too much or "
    "from where it does not serve: wait, then look at the network's location or proxy"
)
"""What HTTP 403 means."""
_AT_THE_DOOR: Final = {
    403: FIREWALL,
    418: "this address is banned for having asked too much",
    429: "this address asks too much",
}


class ErrorFields(msgspec.Struct):
    """An error as the venue tells it; `data` is of some alone."""

    code: int
    msg: str
    data: msgspec.Raw = msgspec.Raw()


class Refusal(VenueRefused):
    """The venue said no.

    Attributes:
        code: the venue's; ``HTTP 403`` and the like when its answer cannot be read.
        data: what it told beside the reason, JSON; empty for nothing.
        looked_at: whether it is a verdict on what was asked; False for limits, bans, firewalls
            and timestamps, after which the same may be asked again later.
    """

    def __init__(
        self, code: str, reason: str, data: bytes = b"", *, looked_at: bool = True
    ) -> None:
        super().__init__(f"the venue refused ({code}): {reason}")
        self.code = code
        self.reason = reason
        self.data = data
        self.looked_at = looked_at
        self.for_good = code in _KEY_REFUSED


class HalfDone(OutcomeUnknown):
    """One half of the request was carried out (HTTP 409); `data` says which, as JSON."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


def read_error(body: bytes) -> ErrorFields | None:
    """Read the body of an answer that is no success; None when it tells no code."""
    try:
        return msgspec.json.decode(body, type=ErrorFields)
    except UNREADABLE:
        return None


Judge = Callable[[str, int, ErrorFields | None, bytes], VenueError]
"""Returns what an answer means that is no success: call, status, its error and its body."""


def failure(call: str, status: int, error: ErrorFields | None, _body: bytes = b"") -> VenueError:
    """Return what an answer that is no success means; the caller raises it.

    Args:
        call: method and path, or method of the WebSocket API.
        status: of HTTP, or the WebSocket API's.
        error: as the venue tells it; None when it cannot be read.
    """
    if status == 451:
        return LocationRefused(
            "the venue refuses this location (HTTP 451) and would again; market data may still "
            "come from the public archive or from data-api.binance.vision, orders cannot"
        )
    if 400 <= status < 500 and status != 409:
        if error is not None and error.code not in NO_PROOF:
            looked_at = status not in _AT_THE_DOOR and error.code not in _NOT_LOOKED_AT
            return Refusal(str(error.code), error.msg, bytes(error.data), looked_at=looked_at)
        if error is None and status in _AT_THE_DOOR:
            return Refusal(f"HTTP {status}", _AT_THE_DOOR[status], looked_at=False)
    told = f"code {error.code}" if error is not None else "no readable reason"
    message = (
        f"{call} was answered with HTTP {status}, {told}: it may have been carried out; ask for "
        "its outcome, never send it again"
    )
    if status == 409 and error is not None and bytes(error.data):
        return HalfDone(message, bytes(error.data))
    return OutcomeUnknown(message)


def silence_ms(
    status: int, error: ErrorFields | None, retry_after: str | None, now_ms: int
) -> float | None:
    """Return for how long an answer wants silence; None when it wants none."""
    if status in {418, 429} or (status == 403 and error is None):
        return pause_ms(retry_after, error.msg if error is not None else "", now_ms)
    return None


class _RetryAfter(msgspec.Struct, rename="camel"):
    retry_after: Annotated[int, msgspec.Meta(ge=0, le=10**15)] | None = None


def told_pause_ms(error: ErrorFields | None, now_ms: int) -> float:
    """Return for how long an error of the WebSocket API wants silence.

    Its `retryAfter` is an epoch in ms; where there is none, its text may name the end of a ban.
    One that has passed says that our clock is ahead of the venue's: it counts as none.
    """
    until_ms = None
    if error is not None and bytes(error.data):
        with suppress(*UNREADABLE):
            until_ms = msgspec.json.decode(error.data, type=_RetryAfter).retry_after
    if until_ms is None or until_ms <= now_ms:
        return pause_ms(None, error.msg if error is not None else "", now_ms)
    return float(until_ms - now_ms)


def heed_silence(
    budget: RequestBudget, account: str, status: int, error: ErrorFields | None, asked_ms: float
) -> None:
    """Remember for how long the venue wants silence; -1015 is about new orders alone."""
    if status == 429 and error is not None and error.code == TOO_MANY_ORDERS:
        budget.hold_orders(account, asked_ms)
    else:
        budget.stay_away(asked_ms)
