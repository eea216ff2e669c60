"""Faults by schedule: what goes wrong, for which calls, how often, when, from a seed.

The core never sees a fault; the shells ask for the next one and act it out. Whether the n-th
matching call is hit follows from seed, rule and n alone. The catalogue's rows (N network and
HTTP, A identity and time, S streams, O orders, M margin) stand beside the faults that act them
out. Which venue can act out which is said here; neither is given a fault it would pass over.
"""

import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

import msgspec

from bot4_runtime.domain.errors import ConfigError

EVENT: Final = "EVENT"
"""Method of what the user stream is to be sent; its path is the event's type."""
WS: Final = "WS"
"""Method of a request over the WebSocket API; its path is the request's method."""
SUBSCRIBE: Final = "SUBSCRIBE"
"""Method of a subscription to the user stream; its path is empty."""
MARKET: Final = "MARKET"
"""Method of what a market stream is to be sent; its path is the stream."""


class Fault(StrEnum):
    """What can go wrong; the letters are those of the fault catalogue."""

    DROP_REQUEST = "drop_request"  # N1: reset before the effect
    REFUSE_CONNECT = "refuse_connect"  # N1: nobody listens for a while
    DROP_REPLY = "drop_reply"  # N2: reset after the effect
    DELAY_REPLY = "delay_reply"  # N3: the reply comes late
    ERROR_BEFORE = "error_before"  # N4: 503 with -1007, nothing done
    ERROR_AFTER = "error_after"  # N4: 503 with -1007, yet done
    PAGE_AFTER = "page_after"  # N4: 500 with a page, yet done
    GATEWAY_AFTER = "gateway_after"  # N4: 502 with a page, yet done
    TIMEOUT_AFTER = "timeout_after"  # N4: 504 with a page, yet done
    UNKNOWN_BEFORE = "unknown_before"  # N5: 503 "Unknown error...", nothing done
    UNKNOWN_AFTER = "unknown_after"  # N5: 503 "Unknown error...", yet done
    UNAVAILABLE = "unavailable"  # N5: 503 "Service Unavailable.", nothing done
    INTERNAL_ERROR = "internal_error"  # N5: 503 "Internal error...", nothing done
    THROTTLED = "throttled"  # N5: 503 with -1008, nothing done; what only reduces is let through
    TRUNCATED = "truncated"  # N6: 200 with half the body
    NOT_JSON = "not_json"  # N6: 200 with a page
    WRONG_TYPE = "wrong_type"  # N6: 200 with JSON of another shape
    RATE_LIMITED = "rate_limited"  # N7: 429, no request for a while
    ORDER_LIMIT = "order_limit"  # N7: 429 with -1015, no new order for a while
    BANNED = "banned"  # N8: 418, no request for a while
    FORBIDDEN = "forbidden"  # N9: 403 with a page of the firewall
    FOREIGN_WEIGHT = "foreign_weight"  # N10: another process used the address's weight
    DELAY_REQUEST = "delay_request"  # N11: the effect comes late
    RESTRICTED = "restricted"  # N12: 451, this location is refused
    CLOCK_STEP = "clock_step"  # A1: the venue's clock jumps
    KEY_REVOKED = "key_revoked"  # A2: the key opens nothing any more
    EVENT_CUT = "event_cut"  # S1: the stream ends inside a frame
    EVENT_STALL = "event_stall"  # S2: the stream stays open and says nothing more
    LINE_DEAD = "line_dead"  # S3: not even pings or pongs
    PING_BURST = "ping_burst"  # S4: many pings at once, each with words of its own
    SHUTDOWN = "shutdown"  # S5: serverShutdown, then the end
    LINE_CLOSED = "line_closed"  # S5: the end without a word, as after 24 h
    EVENT_TWICE = "event_twice"  # S6: an event comes twice
    REPLAYED = "replayed"  # S6: the last events come again
    EVENT_LATE = "event_late"  # S7: an event comes after the next one
    EVENT_LOST = "event_lost"  # S8: an event never comes
    EVENT_DELAYED = "event_delayed"  # S9: an event comes late, its answer long before it
    TERMINATED = "terminated"  # S11: eventStreamTerminated, and nothing after it
    SUBSCRIPTION_REFUSED = "subscription_refused"  # S11
    MALFORMED = "malformed"  # S12: frames that are no JSON, or none of an event, come first
    UNKNOWN_EVENT = "unknown_event"  # S12: an event of a new type comes first
    NEW_WORD = "new_word"  # S12: the event carries a status nobody knows
    FOREIGN_SYMBOL = "foreign_symbol"  # S12: a report in another alphabet comes first
    HUGE_FRAME = "huge_frame"  # S12: 10 MB come first
    MICROSECONDS = "microseconds"  # S12: the event's times are microseconds
    UNWRAPPED = "unwrapped"  # S14: the event comes without its wrapper
    ERROR_FRAME = "error_frame"  # S14: an error nobody asked for comes first
    ORDER_EXPIRED = "order_expired"  # O2: the venue lets an order expire after taking it
    ORDER_PULLED = "order_pulled"  # O2: the venue cancels an order after taking it
    HALTED = "halted"  # O3: the symbol of the order is halted for a while
    FUNDS_TAKEN = "funds_taken"  # O4: another order was quicker; this one finds no money
    TRIGGER_REFUSED = "trigger_refused"  # O7: a conditional order is refused when it triggers
    FUNDED = "funded"  # M1: what is held of an order's symbol pays the highest funding at once
    COUNTDOWN = "countdown"  # M2: a countdown goes off, however late it was to


OF_CALLS: Final = frozenset(Fault) - {
    fault for fault in Fault if fault.name.startswith("EVENT_")
} - {
    Fault.LINE_DEAD, Fault.PING_BURST, Fault.SHUTDOWN, Fault.LINE_CLOSED, Fault.REPLAYED,
    Fault.TERMINATED, Fault.SUBSCRIPTION_REFUSED, Fault.MALFORMED, Fault.UNKNOWN_EVENT,
    Fault.NEW_WORD, Fault.FOREIGN_SYMBOL, Fault.HUGE_FRAME, Fault.MICROSECONDS,
    Fault.UNWRAPPED, Fault.ERROR_FRAME,
}  # fmt: skip
"""Faults of calls over HTTP; all others are of the user stream."""
OF_ORDERS: Final = frozenset(
    {
        Fault.ORDER_LIMIT, Fault.ORDER_EXPIRED, Fault.ORDER_PULLED, Fault.HALTED,
        Fault.FUNDS_TAKEN, Fault.TRIGGER_REFUSED, Fault.FUNDED, Fault.THROTTLED,
    }
)  # fmt: skip
"""Faults that only a new order can have."""
OVERLOADED: Final = frozenset(
    {
        Fault.UNKNOWN_BEFORE, Fault.UNKNOWN_AFTER, Fault.UNAVAILABLE, Fault.INTERNAL_ERROR,
        Fault.THROTTLED,
    }
)  # fmt: skip
"""What HTTP 503 says on USD-M."""
OF_EVERY_VENUE: Final = frozenset(
    {
        Fault.DROP_REQUEST, Fault.REFUSE_CONNECT, Fault.DROP_REPLY, Fault.DELAY_REPLY,
        Fault.ERROR_BEFORE, Fault.ERROR_AFTER, Fault.PAGE_AFTER, Fault.GATEWAY_AFTER,
        Fault.TIMEOUT_AFTER, Fault.TRUNCATED, Fault.NOT_JSON, Fault.WRONG_TYPE, Fault.FORBIDDEN,
        Fault.DELAY_REQUEST, Fault.RESTRICTED, Fault.EVENT_CUT, Fault.EVENT_STALL,
        Fault.EVENT_TWICE, Fault.EVENT_LATE, Fault.EVENT_LOST,
    }
)  # fmt: skip
"""Faults that need nothing of the venue's core."""
OF_USDM_ALONE: Final = OVERLOADED | {Fault.TRIGGER_REFUSED, Fault.FUNDED, Fault.COUNTDOWN}
"""Faults that spot does not know."""
OF_SPOT: Final = frozenset(Fault) - OF_USDM_ALONE
"""What the spot venue can act out."""
OF_USDM: Final = (
    OF_EVERY_VENUE
    | OF_USDM_ALONE
    | {
        Fault.RATE_LIMITED, Fault.BANNED, Fault.ORDER_LIMIT, Fault.KEY_REVOKED,
        Fault.FOREIGN_WEIGHT, Fault.ORDER_EXPIRED, Fault.ORDER_PULLED, Fault.FUNDS_TAKEN,
        Fault.LINE_DEAD, Fault.PING_BURST, Fault.SHUTDOWN, Fault.LINE_CLOSED, Fault.REPLAYED,
        Fault.EVENT_DELAYED, Fault.TERMINATED, Fault.MALFORMED, Fault.UNKNOWN_EVENT,
        Fault.NEW_WORD, Fault.FOREIGN_SYMBOL, Fault.HUGE_FRAME, Fault.ERROR_FRAME,
    }
)  # fmt: skip
"""What the USD-M venue can act out."""
OF_THE_CORE: Final = OF_CALLS - OF_EVERY_VENUE - OVERLOADED
"""Faults of calls that the venue acts out itself, whichever way the call came."""


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a fault happens.

    Attributes:
        method: of the calls it hits; empty for all over HTTP. Events have method ``EVENT``,
            subscriptions ``SUBSCRIBE``, requests over the WebSocket API ``WS``, what market
            streams tell ``MARKET``.
        path: beginning of their path; an event's path is its type.
        probability: of a matching call being hit.
        after: matching calls that go well first.
        times: hits at most; None for no end.
        seconds: of a delay (the machine's time), of a ban, halt or revoked key, or of a jump of
            the clock, which may go back (the venue's time).
        jitter: whether a delay is drawn from (0, `seconds`].
        from_ms: the venue's time before which it does not happen.
        to_ms: the venue's time from which on it does not happen; None for no end.
    """

    fault: Fault
    method: str = ""
    path: str = ""
    probability: float = 1.0
    after: int = 0
    times: int | None = None
    seconds: float = 0.0
    jitter: bool = False
    from_ms: int = 0
    to_ms: int | None = None


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

    @property
    def faults(self) -> frozenset[Fault]:
        """What may go wrong."""
        return frozenset(rule.fault for rule in self._rules)

    def require(self, able: AbstractSet[Fault], venue: str) -> "FaultSchedule":
        """Return it, if a venue can act all of it out.

        Raises:
            ConfigError: something of it would silently not happen there.
        """
        foreign = sorted(self.faults - able)
        if foreign:
            raise ConfigError(
                f"the {venue} venue cannot act out {', '.join(foreign)}; expected one of "
                f"{', '.join(sorted(able))}"
            )
        return self

    def next(
        self,
        method: str,
        path: str,
        now_ms: int = 0,
        spared: AbstractSet[Fault] = frozenset(),
    ) -> FaultRule | None:
        """Return what goes wrong with this call, if anything.

        Args:
            method: of HTTP, or ``EVENT`` or ``SUBSCRIBE``.
            path: of the call, or the type of the event.
            now_ms: the venue's time.
            spared: faults that this call cannot have.
        """
        chosen = None
        for index, rule in enumerate(self._rules):
            if rule.fault in spared or not _matches(rule, method, path):
                continue
            if now_ms < rule.from_ms or (rule.to_ms is not None and now_ms >= rule.to_ms):
                continue
            self._seen[index] += 1
            if chosen is None and self._hit(index, rule):
                self._hits[index] += 1
                chosen = rule
        if chosen is not None and chosen.jitter:
            share = 1.0 - self._draw("jitter", sum(self._hits))
            return msgspec.structs.replace(chosen, seconds=chosen.seconds * share)
        return chosen

    def _hit(self, index: int, rule: FaultRule) -> bool:
        number = self._seen[index]
        if number <= rule.after or (rule.times is not None and self._hits[index] >= rule.times):
            return False
        return self._draw(index, number) < rule.probability

    def _draw(self, what: int | str, number: int) -> float:
        return random.Random(f"{self._seed}/{what}/{number}").random()  # noqa: S311 - a schedule


def _matches(rule: FaultRule, method: str, path: str) -> bool:
    if rule.method == "":
        over_http = method not in {EVENT, SUBSCRIBE, WS, MARKET}
        fits = method not in {WS, MARKET} and over_http == (rule.fault in OF_CALLS)
        return fits and path.startswith(rule.path)
    return rule.method == method and path.startswith(rule.path)
