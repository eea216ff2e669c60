"""What the user stream is sent in place of, before and after an event, when a fault says so."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from bot4_runtime.venue.faults import Fault

HUGE_BYTES: Final = 10 << 20
_ENCODE: Final = msgspec.json.encode
_TIMES: Final = ("E", "T", "O", "W", "u")

Event = dict[str, Any]
Wrap = Callable[[Event], bytes]


def wrapped(event: Event) -> bytes:
    """Return an event as a subscription of the WebSocket API tells it."""
    return _ENCODE({"subscriptionId": 0, "event": event})


def spoken(fault: Fault | None, event: Event, wrap: Wrap = wrapped) -> list[bytes]:
    """Return the frames that a fault makes of one event, in order; S12 and S14."""
    plain = wrap(event)
    if fault is Fault.UNWRAPPED:
        return [_ENCODE(event)]
    if fault is Fault.MICROSECONDS:
        times = {name: event[name] * 1000 for name in _TIMES if name in event}
        return [wrap(event | times)]
    if fault is Fault.NEW_WORD:
        return [wrap(_renamed(event))]
    return [*_strange(fault, event, wrap), plain]


def _renamed(event: Event) -> Event:
    """Return an event with a status that nobody knows, wherever its market tells it."""
    if "X" in event:
        return event | {"X": "SOMETHING_NEW"}
    order = event.get("o")
    return event | ({"o": order | {"X": "SOMETHING_NEW"}} if order else {"new": 1})


def _strange(fault: Fault | None, event: Event, wrap: Wrap) -> list[bytes]:
    """Return what comes before the event."""
    if fault is Fault.MALFORMED:
        return [b'{"subscriptionId":0,"event":{"e":"exec', b"[]", b"17", b'{"event":{}}']
    if fault is Fault.UNKNOWN_EVENT:
        return [wrap({"e": "somethingNew", "E": event["E"], "x": [1, {"y": None}]})]
    if fault is Fault.HUGE_FRAME:
        return [wrap({"e": "somethingNew", "E": event["E"], "x": "." * HUGE_BYTES})]
    if fault is Fault.ERROR_FRAME:
        return [_ENCODE({"error": {"code": 2, "msg": "Invalid request: no such stream"}})]
    return [wrap(told) for told in _foreign(event)] if fault is Fault.FOREIGN_SYMBOL else []


def _foreign(event: Event) -> list[Event]:
    """Return what an asset named in another alphabet is told by, in the event's market."""
    name, time_ms = "币安人生", event["E"]
    if event["e"].isupper():  # of contracts
        row = {"a": name, "wb": "1.0", "cw": "1.0", "bc": "1.0"}
        moved = {"m": "DEPOSIT", "B": [row], "P": []}
        return [{"e": "ACCOUNT_UPDATE", "E": time_ms, "T": time_ms, "a": moved}]
    change = {"e": "balanceUpdate", "E": time_ms, "a": name, "d": "1.0", "T": time_ms}
    held = {"a": name, "f": "1.0", "l": "0.0"}
    return [
        change,
        {"e": "outboundAccountPosition", "E": time_ms, "u": time_ms, "B": [held]},
    ]


def shutdown(now_ms: int) -> bytes:
    """Return the notice that the server will go away."""
    return _ENCODE({"event": {"e": "serverShutdown", "E": now_ms}})


def terminated(now_ms: int) -> bytes:
    """Return the notice that the subscription has ended."""
    return wrapped({"e": "eventStreamTerminated", "E": now_ms})
