"""Faults by schedule: what goes wrong, for which calls, how often, from a seed.

The core never sees a fault; the shell asks for the next one and acts it out. Whether the n-th
matching call is hit follows from seed, rule and n alone.
"""

import random
from collections.abc import Sequence
from enum import StrEnum

import msgspec


class Fault(StrEnum):
    """What can go wrong; the letters are those of the fault catalogue."""

    DROP_REQUEST = "drop_request"  # N1: reset before the effect
    DROP_REPLY = "drop_reply"  # N2: reset after the effect
    DELAY_REPLY = "delay_reply"  # N3: the reply comes late
    DELAY_REQUEST = "delay_request"  # N11: the effect comes late
    ERROR_BEFORE = "error_before"  # N4: 503 with -1007, nothing done
    ERROR_AFTER = "error_after"  # N4: 503 with -1007, yet done
    GATEWAY_AFTER = "gateway_after"  # N4: 502 with a page, yet done
    TRUNCATED = "truncated"  # N6: 200 with half the body
    NOT_JSON = "not_json"  # N6: 200 with a page
    WRONG_TYPE = "wrong_type"  # N6: 200 with JSON of another shape
    EVENT_CUT = "event_cut"  # S1: the stream ends inside a frame
    EVENT_STALL = "event_stall"  # S2: the stream stays open and says nothing more
    EVENT_TWICE = "event_twice"  # S6: an event comes twice
    EVENT_LATE = "event_late"  # S7: an event comes after the next one
    EVENT_LOST = "event_lost"  # S8: an event never comes


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a fault happens.

    Attributes:
        method: of the calls it hits; empty for all. Events have method ``EVENT``.
        path: beginning of their path; an event's path is its type.
        probability: of a matching call being hit.
        after: matching calls that go well first.
        times: hits at most; None for no end.
        seconds: of a delay.
    """

    fault: Fault
    method: str = ""
    path: str = ""
    probability: float = 1.0
    after: int = 0
    times: int | None = None
    seconds: float = 0.0


class FaultSchedule:
    """Tells call by call what goes wrong.

    Args:
        rules: the first that hits a call wins.
        seed: of all draws.
    """

    def __init__(self, rules: Sequence[FaultRule] = (), seed: int = 0) -> None:
        self._rules = tuple(rules)
        self._seed = seed
        self._seen = [0] * len(self._rules)
        self._hits = [0] * len(self._rules)

    def next(self, method: str, path: str) -> FaultRule | None:
        """Return what goes wrong with this call, if anything."""
        chosen = None
        for index, rule in enumerate(self._rules):
            if rule.method not in {"", method} or not path.startswith(rule.path):
                continue
            self._seen[index] += 1
            if chosen is None and self._hit(index, rule):
                self._hits[index] += 1
                chosen = rule
        return chosen

    def _hit(self, index: int, rule: FaultRule) -> bool:
        number = self._seen[index]
        if number <= rule.after or (rule.times is not None and self._hits[index] >= rule.times):
            return False
        draw = random.Random(f"{self._seed}/{index}/{number}").random()  # noqa: S311 - a schedule
        return draw < rule.probability
