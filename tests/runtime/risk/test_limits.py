import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.risk.limits import (
    BOUNDS,
    OVERRIDABLE,
    RiskLimits,
    RiskOverride,
    halting,
    tightened,
)

REFUSED = (ConfigError, TypeError)
"""Compiled native attributes refuse a wrong type themselves, before the check can."""


def _within(key, value):
    bound = BOUNDS[key]
    low, high = sorted((bound.tightest, bound.loosest))
    return low <= value <= high


def _looser(key, value, than):
    bound = BOUNDS[key]
    return value > than if bound.tightest < bound.loosest else value < than


def test_the_defaults_are_those_of_the_specification():
    limits = RiskLimits()
    assert limits.max_position_pct == 0.02
    assert limits.max_correlation == 0.7
    assert limits.max_leverage == 3.0
    assert limits.max_drawdown == 0.15
    assert limits.require_stop_loss is True
    assert limits.min_liquidity_ratio == 1.5
    assert limits.min_margin_ratio == 1.1
    assert limits.max_loss_streak == 3
    assert limits.max_daily_loss == 0.05
    assert limits.cooldown_s == 24 * 3600
    assert limits.max_cooldown_s == 7 * 24 * 3600
    assert limits.probing_factor == 0.25


def test_every_limit_but_the_stop_has_a_bound_and_its_default_lies_inside():
    keys = {field.name for field in dataclasses.fields(RiskLimits)}
    assert keys == set(BOUNDS) | {"require_stop_loss"}
    for key in BOUNDS:
        assert _within(key, getattr(RiskLimits(), key))


@pytest.mark.parametrize("key", sorted(BOUNDS))
def test_the_hard_limit_itself_is_allowed_and_anything_beyond_is_not(key):
    bound = BOUNDS[key]
    pair = {"max_cooldown_s": 2_592_000} if key == "cooldown_s" else {}
    for edge in (bound.tightest, bound.loosest):
        value = int(edge) if bound.whole else edge
        assert getattr(RiskLimits(**({key: value} | pair)), key) == edge
    low, high = sorted((bound.tightest, bound.loosest))
    outside = (int(low) - 1, int(high) + 1) if bound.whole else (low - 1e-9, high + 1e-9)
    for value in outside:
        with pytest.raises(ConfigError, match=f"risk.{key}"):
            RiskLimits(**{key: value})


@pytest.mark.parametrize("key", sorted(BOUNDS))
@pytest.mark.parametrize(
    "mutate",
    [
        lambda v: v * 10,
        lambda v: v / 10,
        lambda v: v * 100,
        lambda v: v / 100,
        lambda v: -v,
        lambda v: None,
        str,
        lambda v: math.nan,
        lambda v: math.inf,
        lambda v: -math.inf,
        lambda v: 5e-324,
    ],
)
def test_a_mistyped_value_is_refused_or_stays_within_the_hard_limit(key, mutate):
    value = mutate(getattr(RiskLimits(), key))
    try:
        limits = RiskLimits(**{key: value})
    except REFUSED:
        return
    assert _within(key, getattr(limits, key))
    assert _within(key, value)


def test_an_unknown_key_is_refused():
    with pytest.raises(TypeError):
        RiskLimits(max_levarage=2.0)


@pytest.mark.parametrize("key", ["max_leverage", "max_loss_streak"])
def test_a_boolean_is_no_number(key):
    try:
        limits = RiskLimits(**{key: True})
    except REFUSED:
        return
    assert _within(key, getattr(limits, key))


def test_a_count_takes_whole_numbers_only():
    with pytest.raises(REFUSED):
        RiskLimits(max_loss_streak=2.5)


@pytest.mark.parametrize("value", [False, 0, None])
def test_the_stop_loss_cannot_be_switched_off(value):
    with pytest.raises(REFUSED):
        RiskLimits(require_stop_loss=value)


def test_the_longest_cooldown_cannot_be_shorter_than_the_first():
    with pytest.raises(ConfigError) as refused:
        RiskLimits(cooldown_s=200_000, max_cooldown_s=100_000)
    assert str(refused.value) == (
        "risk.max_cooldown_s 100000 is shorter than risk.cooldown_s 200000; "
        "make it at least as long"
    )
    assert RiskLimits(cooldown_s=100_000, max_cooldown_s=100_000).cooldown_s == 100_000


def test_limits_and_overrides_are_frozen():
    for value in (RiskLimits(), RiskOverride(reason="news", expires_ts_ns=1, halt=True)):
        with pytest.raises(AttributeError):
            value.max_leverage = 4.0


ASKED_FOR = " ".join(OVERRIDABLE)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"reason": " ", "expires_ts_ns": 9, "halt": True},
            "a risk override needs a reason; none was given",
        ),
        (
            {"reason": "news", "expires_ts_ns": 0, "halt": True},
            "a risk override needs an expiry (UTC, ns); received 0",
        ),
        (
            {"reason": "news", "expires_ts_ns": 9},
            f"a risk override must halt or tighten one of {ASKED_FOR}",
        ),
        (
            {"reason": "news", "expires_ts_ns": 9, "max_leverage": math.nan},
            "risk.max_leverage is nan; the hard limit is 5 and the strictest value 0.01, "
            "whatever is configured: choose one between",
        ),
        (
            {"reason": "news", "expires_ts_ns": 9, "max_leverage": 6.0},
            "risk.max_leverage is 6.0; the hard limit is 5 and the strictest value 0.01, "
            "whatever is configured: choose one between",
        ),
    ],
)
def test_an_override_needs_a_reason_an_expiry_and_something_to_do(fields, words):
    with pytest.raises(ConfigError) as refused:
        RiskOverride(**fields)
    assert str(refused.value) == words


OTHER_LIMITS = RiskLimits(
    max_position_pct=0.03,
    max_correlation=0.6,
    max_leverage=2.5,
    max_drawdown=0.12,
    min_liquidity_ratio=1.7,
    min_margin_ratio=1.3,
    max_loss_streak=4,
    max_daily_loss=0.04,
    cooldown_s=90_000,
    max_cooldown_s=700_000,
    probing_factor=0.2,
    correlation_half_life_hours=700.0,
    correlation_min_observations=80,
)


def test_an_override_of_one_limit_leaves_every_other_as_it_was_configured():
    for key in OVERRIDABLE:
        strict = RiskOverride(reason="news", expires_ts_ns=9, **{key: BOUNDS[key].tightest})
        changed = dataclasses.asdict(OTHER_LIMITS) | {key: BOUNDS[key].tightest}
        assert dataclasses.asdict(tightened(OTHER_LIMITS, [strict], 1)) == changed
    assert tightened(OTHER_LIMITS, [], 1) == OTHER_LIMITS


@pytest.mark.parametrize("key", OVERRIDABLE)
def test_an_override_that_loosens_is_refused_at_the_door_and_has_no_effect(key):
    loose = RiskOverride(reason="greed", expires_ts_ns=9, **{key: BOUNDS[key].loosest})
    with pytest.raises(ConfigError) as refused:
        loose.check_tightens(RiskLimits())
    assert str(refused.value) == (
        f"override {key} = {BOUNDS[key].loosest} would loosen the limit in force, "
        f"{getattr(RiskLimits(), key)}; an override can only tighten: choose a stricter value"
    )
    assert tightened(RiskLimits(), [loose], 1) == RiskLimits()


@pytest.mark.parametrize("key", OVERRIDABLE)
def test_an_override_that_tightens_holds_until_it_expires(key):
    strict = RiskOverride(reason="news", expires_ts_ns=9, **{key: BOUNDS[key].tightest})
    strict.check_tightens(RiskLimits())
    assert getattr(tightened(RiskLimits(), [strict], 8), key) == BOUNDS[key].tightest
    assert tightened(RiskLimits(), [strict], 9) == RiskLimits()


def test_a_halting_override_halts_until_it_expires():
    halt = RiskOverride(reason="news", expires_ts_ns=9, halt=True)
    tighten = RiskOverride(reason="news", expires_ts_ns=99, max_leverage=1.0)
    assert halting([tighten, halt], 8)
    assert not halting([tighten, halt], 9)
    halt.check_tightens(RiskLimits())


def _value(key):
    low, high = sorted((BOUNDS[key].tightest, BOUNDS[key].loosest))
    return st.none() | st.floats(low, high)


@given(
    st.lists(
        st.builds(
            RiskOverride,
            reason=st.just("drill"),
            expires_ts_ns=st.integers(1, 20),
            halt=st.just(True),
            **{key: _value(key) for key in OVERRIDABLE},
        ),
        max_size=4,
    ),
    st.integers(0, 25),
)
def test_no_overrides_ever_loosen_a_limit(overrides, now_ns):
    base = RiskLimits()
    result = tightened(base, overrides, now_ns)
    for key in BOUNDS:
        assert not _looser(key, getattr(result, key), getattr(base, key))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"require_stop_loss": False},
            "risk.require_stop_loss is False; a stop loss is mandatory: remove the key or set it "
            "to true",
        ),
        ({"max_leverage": 9.0}, "risk.max_leverage is 9.0; the hard limit is 5 and the strictest "
         "value 0.01, whatever is configured: choose one between"),
    ],
)  # fmt: skip
def test_a_refused_limit_says_what_it_got_and_what_it_may_be(fields, words):
    with pytest.raises(ConfigError) as refused:
        RiskLimits(**fields)
    assert str(refused.value) == words
