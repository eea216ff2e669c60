"""Answers as a client gets to see them when a fault says so. Pure."""

from typing import Any, Final

import msgspec

from bot4_runtime.venue.door import Refusal
from bot4_runtime.venue.faults import Fault
from bot4_runtime.venue.rest import WireAnswer
from bot4_runtime.venue.stream import Act, Parcel

_NO_PROOF: Final = WireAnswer(
    503,
    b'{"code":-1007,"msg":"Timeout waiting for response from backend server. '
    b'Send status unknown; execution status unknown."}',
)
_PAGE: Final = b"<html><body>%s</body></html>"
_RESTRICTED: Final = WireAnswer(
    451,
    b'{"code":0,"msg":"Service unavailable from a restricted location according to '
    b"'b. Eligibility' in https://www.binance.com/en/terms.\"}",
)
_UNKNOWN_WORDS: Final = "Unknown error, please check your request or try again later."
OVERLOADS: Final = {
    Fault.UNKNOWN_BEFORE: (-1000, _UNKNOWN_WORDS),
    Fault.UNKNOWN_AFTER: (-1000, _UNKNOWN_WORDS),
    Fault.UNAVAILABLE: (-1016, "Service Unavailable."),
    Fault.INTERNAL_ERROR: (
        -1001,
        "Internal error; unable to process your request. Please try again.",
    ),
    Fault.THROTTLED: (
        -1008,
        "Request throttled by system-level protection. Reduce-only/close-position orders are "
        "exempt. Please try again.",
    ),
}
"""What HTTP 503 says on USD-M; the words tell what became of the request, not the code alone."""


def _overloaded(fault: Fault) -> WireAnswer:
    code, words = OVERLOADS[fault]
    if fault is Fault.UNAVAILABLE:  # of the gate before the venue, which knows no codes
        return WireAnswer(503, words.encode())
    return WireAnswer(503, msgspec.json.encode({"code": code, "msg": words}))


_AFTER: Final = {
    Fault.UNKNOWN_AFTER: _overloaded(Fault.UNKNOWN_AFTER),
    Fault.ERROR_AFTER: _NO_PROOF,
    Fault.PAGE_AFTER: WireAnswer(500, _PAGE % b"Internal Server Error"),
    Fault.GATEWAY_AFTER: WireAnswer(502, _PAGE % b"Bad Gateway"),
    Fault.TIMEOUT_AFTER: WireAnswer(504, _PAGE % b"Gateway Time-out"),
    Fault.NOT_JSON: WireAnswer(200, _PAGE % b"Bad Gateway"),
    Fault.WRONG_TYPE: WireAnswer(200, b'{"unexpected":[1,2,3]}'),
}


def spoiled_before(fault: Fault) -> WireAnswer | None:
    """Return what a request is answered with before it has any effect; None lets it have one."""
    if fault is Fault.ERROR_BEFORE:
        return _NO_PROOF
    if fault in OVERLOADS and fault is not Fault.UNKNOWN_AFTER:
        return _overloaded(fault)
    if fault is Fault.FORBIDDEN:
        return WireAnswer(403, _PAGE % b"Request blocked")
    if fault is Fault.RESTRICTED:
        return _RESTRICTED
    return None


def spoiled_after(answer: WireAnswer, fault: Fault) -> WireAnswer:
    """Return what the client gets to see of an answer, the effect being there."""
    if fault is Fault.TRUNCATED:
        return WireAnswer(200, answer.body[: len(answer.body) // 2])
    return _AFTER.get(fault, answer)


class Asked(msgspec.Struct):
    """A message of the WebSocket API, as far as faults look at it."""

    method: str = ""
    id: int | str | None = None
    params: Any = None


def replied_before(asked: Asked, fault: Fault) -> bytes | None:
    """Return what a message is answered with before it has any effect; None lets it have one."""
    before = {Fault.ERROR_BEFORE, *OVERLOADS} - {Fault.UNKNOWN_AFTER}
    return _failed(asked, fault) if fault in before else None


def _failed(asked: Asked, fault: Fault) -> bytes:
    """Return the reply of a failure; without words of its own it proves nothing."""
    timeout = (-1007, "Timeout waiting for response from backend server.")
    code, words = OVERLOADS.get(fault, timeout)
    told = {"id": asked.id, "status": 503, "error": {"code": code, "msg": words}}
    return msgspec.json.encode(told)


def spoiled_reply(asked: Asked, reply: Parcel, fault: Fault) -> Parcel:
    """Return what the client gets to see of a reply over its WebSocket."""
    if fault in {Fault.ERROR_AFTER, Fault.GATEWAY_AFTER, Fault.UNKNOWN_AFTER}:
        return _failed(asked, fault)
    if fault is Fault.TRUNCATED and isinstance(reply, bytes):
        return reply[: len(reply) // 2]
    if fault is Fault.NOT_JSON:
        return _PAGE % b"Bad Gateway"
    if fault is Fault.WRONG_TYPE:
        wrong = {"id": asked.id, "status": 200, "result": {"unexpected": [1, 2, 3]}}
        return msgspec.json.encode(wrong)
    return Act.CUT


def sent_away(refusal: Refusal) -> WireAnswer:
    """Return how the door's refusal is answered."""
    body = msgspec.json.encode({"code": refusal.code, "msg": refusal.text})
    wait = refusal.retry_after_s
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return WireAnswer(refusal.status, body, headers)
