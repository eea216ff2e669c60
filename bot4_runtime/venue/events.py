"""What the user stream is sent in place of, before and after an event, when a fault says so."""

from typing import Any, Final

import msgspec

from bot4_runtime.venue.faults import Fault

HUGE_BYTES: Final = 10 << 20
_ENCODE: Final = msgspec.json.encode
_TIMES: Final = ("E", "T", "O", "W", "u")

Event = dict[str, Any]


def wrapped(event: Event) -> bytes:
    """Return an event as a subscription of the WebSocket API tells it."""
    return _ENCODE({"subscriptionId": 0, "event": event})


def spoken(fault: Fault | None, event: Event) -> list[bytes]:
    """Return the frames that a fault makes of one event, in order; S12 and S14."""
    plain = wrapped(event)
    if fault is Fault.UNWRAPPED:
        return [_ENCODE(event)]
    if fault is Fault.MICROSECONDS:
        times = {name: event[name] * 1000 for name in _TIMES if name in event}
        return [wrapped(event | times)]
    if fault is Fault.NEW_WORD:
        return [wrapped(event | ({"X": "SOMETHING_NEW"} if "X" in event else {"new": 1}))]
    return [*_strange(fault, event), plain]


def _strange(fault: Fault | None, event: Event) -> list[bytes]:
    """Return what comes before the event."""
    if fault is Fault.MALFORMED:
        return [b'{"subscriptionId":0,"event":{"e":"exec', b"[]", b"17", b'{"event":{}}']
    if fault is Fault.UNKNOWN_EVENT:
        return [wrapped({"e": "somethingNew", "E": event["E"], "x": [1, {"y": None}]})]
    if fault is Fault.HUGE_FRAME:
        return [wrapped({"e": "somethingNew", "E": event["E"], "x": "." * HUGE_BYTES})]
    if fault is Fault.ERROR_FRAME:
        return [_ENCODE({"error": {"code": 2, "msg": "Invalid request: no such stream"}})]
    if fault is Fault.FOREIGN_SYMBOL:
        change = {
            "e": "balanceUpdate",
            "E": event["E"],
            "a": "币安人生",
            "d": "1.0",
            "T": event["E"],
        }
        held = {"a": "币安人生", "f": "1.0", "l": "0.0"}
        told = {"e": "outboundAccountPosition", "E": event["E"], "u": event["E"], "B": [held]}
        return [wrapped(change), wrapped(told)]
    return []


def shutdown(now_ms: int) -> bytes:
    """Return the notice that the server will go away."""
    return _ENCODE({"event": {"e": "serverShutdown", "E": now_ms}})


def terminated(now_ms: int) -> bytes:
    """Return the notice that the subscription has ended."""
    return wrapped({"e": "eventStreamTerminated", "E": now_ms})
