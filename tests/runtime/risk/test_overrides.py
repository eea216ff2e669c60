"""Overrides tighten until they end, whatever restarts in between."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.events import JournaledEvent, OverrideSet
from bot4_runtime.risk.limits import BOUNDS, OVERRIDABLE, RiskLimits, halting, tightened
from bot4_runtime.risk.overrides import LONGEST_NS, override_event, overrides_of
from bot4_runtime.state.trading_state import StateImage, TradingState

LIMITS = RiskLimits()
NOW = 1_700_000_000_000_000_000
HOUR = 3_600_000_000_000


def _event(**changes) -> OverrideSet:
    order = {
        "reason": "news",
        "command_id": "c1",
        "now_ns": NOW,
        "expires_ts_ns": NOW + HOUR,
        "tighten": {"max_leverage": 1.0},
    }
    return override_event(LIMITS, **order | changes)


def test_a_command_becomes_the_event_with_all_it_said():
    assert _event() == OverrideSet(
        ts_event_ns=NOW,
        reason="news",
        command_id="c1",
        expires_ts_ns=NOW + HOUR,
        halt=False,
        limits={"max_leverage": 1.0},
    )
    halt = _event(halt=True, tighten=None)
    assert (halt.halt, halt.limits) == (True, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": " "}, "a risk override needs a reason; none was given"),
        ({"tighten": {}}, "a risk override must halt or tighten one of max_position_pct"),
        ({"tighten": None}, "a risk override must halt or tighten one of max_position_pct"),
        (
            {"tighten": {"max_levarage": 1.0}},
            "an override cannot set 'max_levarage'; expected one of max_position_pct, ",
        ),
        (
            {"tighten": {"max_leverage": 4.0}},
            "override max_leverage = 4.0 would loosen the limit in force, 3.0",
        ),
        ({"tighten": {"max_leverage": float("nan")}}, "risk.max_leverage is nan"),
        (
            {"expires_ts_ns": NOW},
            f"an override must end between now ({NOW}) and 30 days later (UTC, ns); "
            f"received {NOW}",
        ),
        ({"expires_ts_ns": NOW + LONGEST_NS + 1}, "30 days later"),
        ({"expires_ts_ns": NOW // 10**9}, "30 days later"),  # seconds for nanoseconds
    ],
)
def test_what_is_no_override_is_refused_in_words(changes, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        _event(**changes)


def test_it_may_last_thirty_days_to_the_nanosecond():
    assert LONGEST_NS == 30 * 24 * HOUR
    assert _event(expires_ts_ns=NOW + LONGEST_NS).expires_ts_ns == NOW + LONGEST_NS
    assert _event(expires_ts_ns=NOW + 1).expires_ts_ns == NOW + 1


@pytest.mark.parametrize("key", OVERRIDABLE)
def test_every_limit_that_can_be_tightened_comes_back_as_it_was_said(key):
    event = _event(tighten={key: BOUNDS[key].tightest})
    (override,) = overrides_of([event])
    assert override.reason == "news"
    assert override.expires_ts_ns == NOW + HOUR
    assert not override.halt
    for each in OVERRIDABLE:
        assert getattr(override, each) == (BOUNDS[key].tightest if each == key else None)


def test_a_halt_comes_back_as_one():
    (override,) = overrides_of([_event(halt=True, tighten={})])
    assert override.halt
    assert halting([override], NOW + HOUR - 1)
    assert not halting([override], NOW + HOUR)


# ------------------------------------------------------------------------ the state
ORDERS = st.lists(
    st.tuples(
        st.integers(0, 20),  # hours after the first
        st.integers(1, 30),  # hours it holds
        st.booleans(),
        st.dictionaries(st.sampled_from(OVERRIDABLE), st.floats(0, 1), max_size=3),
    ),
    min_size=1,
    max_size=6,
)


def _between(key, share):
    """A value between the default and the strictest."""
    default = getattr(LIMITS, key)
    value = default + share * (BOUNDS[key].tightest - default)
    low, high = sorted((BOUNDS[key].tightest, default))
    return min(max(value, low), high)


@given(ORDERS, st.integers(0, 60))
def test_whatever_the_journal_holds_a_restart_anywhere_changes_no_limit(orders, hours):
    events = []
    for number, (start, length, halt, shares) in enumerate(sorted(orders, key=lambda o: o[0])):
        events.append(
            _event(
                command_id=str(number),
                now_ns=NOW + start * HOUR,
                expires_ts_ns=NOW + (start + length) * HOUR,
                halt=halt or not shares,
                tighten={key: _between(key, share) for key, share in shares.items()},
            )
        )
    now_ns = max(events[-1].ts_event_ns, NOW + hours * HOUR)
    expected = tightened(LIMITS, overrides_of(events), now_ns)
    for restart in range(len(events) + 1):
        state = TradingState()
        for at, event in enumerate(events):
            if at == restart:
                state = _restarted(state)
            state.apply(_journaled(event))
        if restart == len(events):
            state = _restarted(state)
        kept = overrides_of(state.overrides)
        assert tightened(LIMITS, kept, now_ns) == expected
        assert halting(kept, now_ns) == halting(overrides_of(events), now_ns)
        last_ns = events[-1].ts_event_ns
        assert all(last_ns < each.expires_ts_ns for each in kept), "the past is forgotten"


def _journaled(event):
    return msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=JournaledEvent)


def _restarted(state):
    image = msgspec.msgpack.encode(state.to_snapshot())
    return TradingState.from_snapshot(msgspec.msgpack.decode(image, type=StateImage))
