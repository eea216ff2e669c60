"""What goes wrong in a rehearsal: scenarios by name, or drawn from a seed.

And the way back from a schedule that led to a violation to the least of it that still does.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.venue.faults import (
    EVENT,
    OF_CALLS,
    OF_ORDERS,
    OF_SPOT,
    OF_THE_CORE,
    OF_USDM,
    OVERLOADED,
    SUBSCRIBE,
    WS,
    Fault,
    FaultRule,
)

_REPORTS: Final = {
    Market.SPOT: ("executionReport",),
    Market.USDM: ("ORDER_TRADE_UPDATE", "ALGO_UPDATE"),
}
"""Events by which a user stream tells what became of orders."""


def _rule(fault: Fault, method: str = "", path: str = "", **more: float) -> FaultRule:
    return msgspec.convert({"fault": fault, "method": method, "path": path, **more}, FaultRule)


def _bad_stream(*reports: str) -> tuple[FaultRule, ...]:
    shares = {
        Fault.EVENT_CUT: 0.05,
        Fault.EVENT_STALL: 0.05,
        Fault.EVENT_LOST: 0.1,
        Fault.EVENT_TWICE: 0.1,
        Fault.EVENT_LATE: 0.1,
    }
    return tuple(
        _rule(fault, EVENT, report, probability=share)
        for report in reports
        for fault, share in shares.items()
    )


SCENARIOS: Final[dict[str, tuple[FaultRule, ...]]] = {
    "calm": (),
    "lost-answers": (
        _rule(Fault.DROP_REPLY, "POST", probability=0.15),
        _rule(Fault.TIMEOUT_AFTER, "POST", probability=0.1),
        _rule(Fault.DELAY_REPLY, "POST", probability=0.05, seconds=0.4),
        _rule(Fault.TRUNCATED, "GET", probability=0.02),
    ),
    "lost-orders": (
        _rule(Fault.DROP_REQUEST, "POST", probability=0.15),
        _rule(Fault.ERROR_BEFORE, "POST", probability=0.1),
        _rule(Fault.FUNDS_TAKEN, "POST", probability=0.05),
    ),
    "bad-stream": (
        *_bad_stream(*_REPORTS[Market.SPOT]),
        _rule(Fault.SUBSCRIPTION_REFUSED, SUBSCRIBE, probability=0.2),
    ),
    "limits": (
        _rule(Fault.RATE_LIMITED, "GET", probability=0.01, seconds=60),
        _rule(Fault.BANNED, "GET", probability=0.002, seconds=120),
        _rule(Fault.ORDER_LIMIT, "POST", probability=0.03, seconds=10),
        _rule(Fault.FOREIGN_WEIGHT, "GET", probability=0.01),
    ),
}
"""Faults on spot by the name of a scenario."""
CONTRACT_SCENARIOS: Final[dict[str, tuple[FaultRule, ...]]] = {
    "calm": (),
    "lost-answers": SCENARIOS["lost-answers"],
    "lost-orders": SCENARIOS["lost-orders"],
    "bad-stream": (
        *_bad_stream(*_REPORTS[Market.USDM]),
        _rule(Fault.TERMINATED, EVENT, _REPORTS[Market.USDM][0], probability=0.05),
    ),
    "limits": SCENARIOS["limits"][:3],
    "overload": (
        _rule(Fault.UNKNOWN_BEFORE, "POST", probability=0.05),
        _rule(Fault.UNKNOWN_AFTER, "POST", probability=0.05),
        _rule(Fault.UNAVAILABLE, "POST", probability=0.05),
        _rule(Fault.INTERNAL_ERROR, "POST", probability=0.05),
        _rule(Fault.THROTTLED, "POST", probability=0.3),
        _rule(Fault.UNAVAILABLE, "GET", probability=0.01),
    ),
    "margin": (
        _rule(Fault.FUNDED, "POST", probability=0.1),
        _rule(Fault.TRIGGER_REFUSED, "POST", probability=0.3),
        _rule(Fault.COUNTDOWN, "POST", probability=0.3),
        _rule(Fault.FUNDS_TAKEN, "POST", probability=0.1),
    ),
}
"""The same on USD-M."""
BY_MARKET: Final = {Market.SPOT: SCENARIOS, Market.USDM: CONTRACT_SCENARIOS}
OF_THE_LINE: Final = frozenset(
    {
        Fault.DROP_REQUEST,
        Fault.DROP_REPLY,
        Fault.DELAY_REPLY,
        Fault.DELAY_REQUEST,
        Fault.ERROR_BEFORE,
        Fault.ERROR_AFTER,
        Fault.GATEWAY_AFTER,
        Fault.TRUNCATED,
        Fault.NOT_JSON,
        Fault.WRONG_TYPE,
        *OVERLOADED,
        *OF_THE_CORE,
    }
)
"""Faults that an order or a cancel over the WebSocket API can have as well."""
OVER_THE_LINE: Final = {
    Market.SPOT: (
        ("POST", "/api/v3/order", "order.place"),
        ("DELETE", "/api/v3/order", "order.cancel"),
    ),
    Market.USDM: (
        ("POST", "/fapi/v1/order", "order.place"),
        ("POST", "/fapi/v1/algoOrder", "algoOrder.place"),
        ("DELETE", "/fapi/v1/order", "order.cancel"),
        ("DELETE", "/fapi/v1/algoOrder", "algoOrder.cancel"),
    ),
}
"""What is asked over HTTP, and what that is called over the WebSocket API."""
LONGEST_S: Final = {
    Fault.DELAY_REPLY: 0.4,
    Fault.DELAY_REQUEST: 0.4,
    Fault.EVENT_DELAYED: 0.2,
    Fault.REFUSE_CONNECT: 0.2,
    Fault.SHUTDOWN: 0.2,
    Fault.RATE_LIMITED: 120.0,
    Fault.ORDER_LIMIT: 20.0,
    Fault.BANNED: 300.0,
    Fault.KEY_REVOKED: 1_800.0,
    Fault.HALTED: 3_600.0,
    Fault.CLOCK_STEP: 30.0,
}
"""The longest that is drawn, as `FaultRule.seconds` understands it."""
TO_BEGIN: Final = 60
"""Requests within which perpetuals have begun; a refusal for good before ends a run by right."""


def scenario(name: str, market: Market = Market.SPOT) -> tuple[FaultRule, ...]:
    """Return the faults of a scenario, or of a JSON file of rules.

    Raises:
        ConfigError: there is none of this name, or the file holds no rules.
    """
    named = BY_MARKET[market]
    if name in named:
        return named[name]
    path = Path(name)
    if path.suffix != ".json":
        raise ConfigError(
            f"--scenario {name!r} is none of {market.value}; expected one of {', '.join(named)}, "
            "or a .json file of rules"
        )
    try:
        return tuple(msgspec.json.decode(path.read_bytes(), type=list[FaultRule]))
    except OSError as error:
        raise ConfigError(f"--scenario {name}: {error.strerror}") from None
    except UNREADABLE as error:
        raise ConfigError(f"--scenario {name} holds no list of rules: {error}") from None


def on_both_ways(
    rules: Sequence[FaultRule], market: Market = Market.SPOT
) -> tuple[FaultRule, ...]:
    """Return a schedule whose faults of orders and cancels hit them over the WebSocket API too."""
    twins = [
        msgspec.structs.replace(rule, method=WS, path=asked)
        for rule in rules
        if rule.fault in OF_THE_LINE
        for method, path, asked in OVER_THE_LINE[market]
        if rule.method in {"", method} and path.startswith(rule.path)
    ]
    return (*rules, *twins)


def drawn(seed: int, rules: int = 8, market: Market = Market.SPOT) -> tuple[FaultRule, ...]:
    """Draw a schedule: distinct faults, each as often as not to lame the venue."""
    rng = random.Random(f"schedule/{seed}")  # noqa: S311 - a schedule
    chosen = rng.sample(sorted(OF_SPOT if market is Market.SPOT else OF_USDM), rules)
    return tuple(_drawn_rule(fault, rng, market) for fault in chosen)


def _drawn_rule(fault: Fault, rng: random.Random, market: Market) -> FaultRule:
    if fault is Fault.SUBSCRIPTION_REFUSED:
        method, path = SUBSCRIBE, ""
    elif fault in OF_ORDERS or fault is Fault.COUNTDOWN:
        method, path = "POST", ""
    elif fault in OF_CALLS:
        method, path = rng.choice(("POST", "POST", "GET", "DELETE", "")), ""
    else:
        reports = _REPORTS[market]
        method, path = EVENT, reports[0] if len(reports) == 1 else rng.choice(reports)
    share = 0.003 if method in {"GET", ""} else 0.15
    seconds = LONGEST_S.get(fault, 0.0) * rng.uniform(0.2, 1.0)
    if fault is Fault.CLOCK_STEP:
        seconds *= rng.choice((-1, 1))
    share = round(share * rng.uniform(0.3, 1.0), 4)
    after = rng.randrange(6)
    if market is Market.USDM and fault in {Fault.KEY_REVOKED, Fault.RESTRICTED}:
        after += TO_BEGIN
    rare = fault in {Fault.BANNED, Fault.KEY_REVOKED, Fault.CLOCK_STEP, Fault.HUGE_FRAME}
    return FaultRule(
        fault=fault,
        method=method,
        path=path,
        probability=share,
        after=after,
        times=2 if rare else None,
        seconds=round(seconds, 3),
    )


def shrunk(
    rules: Sequence[FaultRule], violates: Callable[[Sequence[FaultRule]], bool]
) -> tuple[FaultRule, ...]:
    """Return the least part of a schedule that still violates, as far as dropping tells.

    Halves are dropped first, then smaller parts, then single rules; then the number of hits is
    halved while the violation stays.

    Args:
        rules: a schedule that violates.
        violates: rehearses a schedule; True when something was violated.
    """
    kept = tuple(rules)
    size = max(1, len(kept) // 2)
    while size:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if violates(fewer):
                kept = fewer
            else:
                start += size
        size //= 2
    for index, rule in enumerate(kept):
        times = rule.times or 16
        while times > 1:
            times //= 2
            fewer = (*kept[:index], msgspec.structs.replace(rule, times=times), *kept[index + 1 :])
            if not violates(fewer):
                break
            kept = fewer
    return kept


def told(rules: Sequence[FaultRule]) -> str:
    """Return a schedule as JSON, what is default left out: `scenario` reads it."""
    rows = [
        {
            name: value
            for name, value in msgspec.structs.asdict(rule).items()
            if name == "fault" or value != getattr(FaultRule(fault=rule.fault), name)
        }
        for rule in rules
    ]
    return msgspec.json.encode(rows).decode()
