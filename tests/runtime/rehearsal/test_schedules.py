"""Schedules: drawn from seeds, read and told, and shrunk to what is needed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.rehearsal.schedules import (
    BY_MARKET,
    drawn,
    on_both_ways,
    scenario,
    shrunk,
    told,
)
from bot4_runtime.venue.faults import (
    OF_CALLS,
    OF_SPOT,
    OF_USDM,
    OF_USDM_ALONE,
    Fault,
    FaultRule,
    FaultSchedule,
)

ALL = [FaultRule(fault=fault) for fault in Fault]


@pytest.mark.parametrize("market", [Market.SPOT, Market.USDM])
def test_the_same_seed_draws_the_same_schedule_and_seeds_differ(market: Market) -> None:
    """Each market's own faults, all of them, and no others."""
    assert drawn(7, market=market) == drawn(7, market=market)
    assert drawn(7, market=market) != drawn(8, market=market)
    found = {rule.fault for seed in range(60) for rule in drawn(seed, market=market)}
    assert found == (OF_SPOT if market is Market.SPOT else OF_USDM)


def test_every_fault_is_one_that_a_venue_can_act_out() -> None:
    assert set(Fault) == OF_SPOT | OF_USDM
    assert set(Fault) == OF_SPOT | OF_USDM_ALONE
    assert not OF_SPOT & OF_USDM_ALONE
    assert OF_USDM_ALONE <= OF_USDM


@pytest.mark.parametrize(
    ("market", "name"), [(market, name) for market, named in BY_MARKET.items() for name in named]
)
def test_a_scenario_is_told_as_it_is_read(market: Market, name: str, tmp_path: Path) -> None:
    rules = scenario(name, market)
    path = tmp_path / "rules.json"
    path.write_text(told(rules))
    assert scenario(str(path), market) == rules
    assert {rule.fault for rule in rules} <= (OF_SPOT if market is Market.SPOT else OF_USDM)


def test_a_scenario_of_the_other_market_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="is none of spot; expected one of calm, lost-answers"):
        scenario("overload")
    assert scenario("overload", Market.USDM)


@pytest.mark.parametrize("text", [None, "{", '[{"fault": "none"}]', '[{"faults": 1}]'])
def test_what_is_no_scenario_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError):
        scenario(str(path))
    with pytest.raises(ConfigError, match="calm"):
        scenario("stormy")


@given(st.sets(st.sampled_from(sorted(Fault)), min_size=1, max_size=4))
def test_shrinking_leaves_exactly_what_is_needed(needed: set[Fault]) -> None:
    """Oracle: the violation is there when all of the needed faults are."""
    left = shrunk(ALL, lambda rules: needed <= {rule.fault for rule in rules})
    assert {rule.fault for rule in left} == needed
    assert len(left) == len(needed)
    assert {rule.times for rule in left} == {1}


def test_shrinking_keeps_as_many_hits_as_are_needed() -> None:
    (left,) = shrunk(
        [FaultRule(fault=Fault.DROP_REPLY, times=16), FaultRule(fault=Fault.BANNED)],
        lambda rules: any(r.fault is Fault.DROP_REPLY and (r.times or 99) >= 4 for r in rules),
    )
    assert left.times == 4


def test_a_fault_of_calls_never_hits_an_event_nor_the_other_way_round() -> None:
    for fault in Fault:
        schedule = FaultSchedule([FaultRule(fault=fault)])
        call = schedule.next("POST", "/api/v3/order") is not None
        event = schedule.next("EVENT", "executionReport") is not None
        assert (call, event) == (fault in OF_CALLS, fault not in OF_CALLS)


def test_what_goes_wrong_with_orders_does_so_over_the_line_too() -> None:
    rules = [
        FaultRule(fault=Fault.HALTED, method="POST", seconds=9),
        FaultRule(fault=Fault.RATE_LIMITED, path="/api/v3/order"),
        FaultRule(fault=Fault.BANNED, method="DELETE"),
        FaultRule(fault=Fault.DROP_REPLY, method="GET"),
        FaultRule(fault=Fault.PAGE_AFTER, method="POST"),
        FaultRule(fault=Fault.EVENT_LOST, method="EVENT", path="executionReport"),
    ]
    twins = [(rule.fault, rule.path, rule.seconds) for rule in on_both_ways(rules)[len(rules) :]]
    assert twins == [
        (Fault.HALTED, "order.place", 9),
        (Fault.RATE_LIMITED, "order.place", 0),
        (Fault.RATE_LIMITED, "order.cancel", 0),
        (Fault.BANNED, "order.cancel", 0),
    ]


def test_what_goes_wrong_with_orders_of_contracts_does_so_over_their_line_too() -> None:
    rules = [
        FaultRule(fault=Fault.UNAVAILABLE, method="POST"),
        FaultRule(fault=Fault.ORDER_PULLED, method="POST", path="/fapi/v1/algoOrder"),
        FaultRule(fault=Fault.UNKNOWN_AFTER, method="DELETE"),
        FaultRule(fault=Fault.UNKNOWN_AFTER, method="GET"),
        FaultRule(fault=Fault.EVENT_LOST, method="EVENT", path="ALGO_UPDATE"),
    ]
    twins = on_both_ways(rules, Market.USDM)[len(rules) :]
    assert [(rule.fault, rule.path) for rule in twins] == [
        (Fault.UNAVAILABLE, "order.place"),
        (Fault.UNAVAILABLE, "algoOrder.place"),
        (Fault.ORDER_PULLED, "algoOrder.place"),
        (Fault.UNKNOWN_AFTER, "order.cancel"),
        (Fault.UNKNOWN_AFTER, "algoOrder.cancel"),
    ]


def test_a_call_that_cannot_have_a_fault_is_passed_over_and_not_counted() -> None:
    schedule = FaultSchedule([FaultRule(fault=Fault.THROTTLED, method="POST", times=1)])
    spared = frozenset({Fault.THROTTLED})
    assert schedule.next("POST", "/fapi/v1/order", spared=spared) is None
    assert schedule.next("POST", "/fapi/v1/order") is not None


def test_a_fault_happens_only_in_its_time_and_a_drawn_delay_is_within_its_own() -> None:
    rule = FaultRule(fault=Fault.DELAY_REPLY, from_ms=10, to_ms=20, seconds=3.0, jitter=True)
    schedule = FaultSchedule([rule], seed=3)
    hits = [schedule.next("GET", "/", now_ms) for now_ms in range(8, 23)]
    found = [hit for hit in hits if hit is not None]
    assert [hit is not None for hit in hits] == [10 <= now_ms < 20 for now_ms in range(8, 23)]
    assert all(0 < hit.seconds <= 3.0 for hit in found)
    assert len({hit.seconds for hit in found}) == 10
