"""One budget for all processes: windows of the wall clock, lanes by rank, bans that outlive us."""

import fcntl
import multiprocessing
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.exchange.binance import limits
from bot4_runtime.exchange.binance.limits import (
    BUSY_MS,
    LONGEST_BAN_MS,
    Lane,
    Limit,
    LimitFields,
    RequestBudget,
    pause_ms,
    shared_budget,
)

MINUTE = 60_000
NOON = 30_000_000 * MINUTE


class At:
    """A clock that is set by hand."""

    def __init__(self, now_ms=NOON):
        self.now_ms = now_ms

    def __call__(self):
        return self.now_ms


@given(
    asked=st.lists(
        st.tuples(st.sampled_from(Lane), st.integers(0, 40), st.integers(0, 3)), max_size=40
    ),
    ban=st.integers(0, 2 * MINUTE),
)
def test_a_look_tells_what_a_request_would_be_told_and_uses_nothing(asked, ban):
    budget, blind = RequestBudget(None, clock_ms=At()), RequestBudget(None, clock_ms=At())
    for one in (budget, blind):
        one.weight, one.orders = Limit(MINUTE, 100), (Limit(10_000, 10),)
    for number, (lane, weight, orders) in enumerate(asked):
        for one in (budget, blind):
            one.clock_ms.now_ms += 1_500
            if number == 20:
                one.stay_away(ban)
                one.hold_orders("key", ban * 2)
        looked = budget.look(lane, weight, account="key", orders=orders)
        assert looked == budget.take(lane, weight, account="key", orders=orders)
        assert looked == blind.take(lane, weight, account="key", orders=orders)


@pytest.fixture(params=["memory", "file"])
def budget(request, tmp_path):
    path = tmp_path / "rate.json" if request.param == "file" else None
    made = RequestBudget(path, clock_ms=At())
    made.weight = Limit(MINUTE, 100)
    made.orders = (Limit(10_000, 10), Limit(86_400_000, 15))
    return made


def test_lanes_stop_one_after_the_other(budget):
    for lane, fits in ((Lane.DATA, 50), (Lane.OPEN, 30), (Lane.REDUCE, 15), (Lane.CANCEL, 5)):
        assert [budget.take(lane) for _ in range(fits)] == [0] * fits
        assert budget.take(lane) == MINUTE
    assert all(budget.take(lane) == MINUTE for lane in Lane)
    budget.clock_ms.now_ms += MINUTE - 1
    assert budget.take(Lane.CANCEL) == 1
    budget.clock_ms.now_ms += 1
    assert budget.take(Lane.DATA, 50) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Lane)), st.integers(1, 40), st.integers(0, 40_000)),
        max_size=60,
    )
)
def test_no_window_is_ever_over_its_limit(asked):
    """The oracle adds up what passed, by minute; only a first request may be larger alone."""
    clock = At()
    made = RequestBudget(None, clock_ms=clock)
    made.weight = Limit(MINUTE, 60)
    passed = {}
    for lane, weight, later_ms in asked:
        clock.now_ms += later_ms
        before = passed.get(clock.now_ms // MINUTE, 0)
        wait_ms = made.take(lane, weight)
        fits = not before or before + weight <= 60 * lane.value
        assert wait_ms == (0 if fits else MINUTE - clock.now_ms % MINUTE)
        if fits:
            passed[clock.now_ms // MINUTE] = before + weight


def test_the_venues_count_is_taken_over_and_never_lowers_weight(budget):
    budget.told({"X-MBX-USED-WEIGHT-1M": "70", "x-mbx-used-weight": "999"}, NOON)
    assert budget.take(Lane.DATA) == MINUTE
    assert budget.take(Lane.OPEN, 10) == 0
    budget.told({"x-mbx-used-weight-1m": "3"}, NOON)
    assert budget.take(Lane.OPEN) == MINUTE, "an answer may be older than what was sent since"
    budget.clock_ms.now_ms += MINUTE
    budget.told({"x-mbx-used-weight-1m": "99"}, NOON)
    assert budget.take(Lane.DATA) == 0, "told of a minute that has ended"
    for text in ("x", "-1", "", "1e3", "9" * 40):
        budget.told({"x-mbx-used-weight-1m": text}, NOON + MINUTE)
    assert budget.take(Lane.DATA, 49) == 0


def test_orders_are_counted_by_account_and_a_fill_gives_back(budget):
    def order(account="a", lane=Lane.OPEN):
        return budget.take(lane, 0, account=account, orders=1)

    assert [order() for _ in range(8)] == [0] * 8
    assert order() == 10_000
    assert order(lane=Lane.REDUCE) == 0
    assert order("b") == 0
    assert budget.take(Lane.CANCEL, 1, account="a") == 0, "a cancel is no order"
    budget.told({"X-MBX-ORDER-COUNT-10S": "2", "X-MBX-ORDER-COUNT-1D": "2"}, NOON, "a")
    assert order() == 0
    budget.told({"X-MBX-ORDER-COUNT-1D": "15"}, NOON, "a")
    budget.clock_ms.now_ms += 10_000
    assert order() > 10_000
    budget.told({"X-MBX-ORDER-COUNT-10S": "9"}, NOON + 10_000, "")
    assert order("b") == 0


def test_too_many_orders_block_new_orders_of_that_account_alone(budget):
    budget.hold_orders("a", 5_000)
    for lane in (Lane.OPEN, Lane.REDUCE):
        assert budget.take(lane, account="a", orders=1) == 5_000
    assert budget.take(Lane.OPEN, account="b", orders=1) == 0
    assert budget.take(Lane.CANCEL, account="a") == 0
    assert budget.take(Lane.DATA) == 0
    budget.clock_ms.now_ms += 5_000
    assert budget.take(Lane.OPEN, account="a", orders=1) == 0


def test_a_ban_stops_every_lane_and_is_never_shortened(budget):
    budget.stay_away(120_000)
    budget.stay_away(1_000)
    assert {budget.take(lane) for lane in Lane} == {120_000}
    budget.stay_away(float("inf"))
    assert budget.take(Lane.CANCEL) == LONGEST_BAN_MS
    budget.clock_ms.now_ms += LONGEST_BAN_MS
    assert budget.take(Lane.CANCEL) == 0


def test_limits_are_learnt_as_the_venue_tells_them(budget):
    told = msgspec.convert(
        [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 40, "count": 20},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 4, "count": 3},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 1},
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "FORTNIGHT", "intervalNum": 1, "limit": 1},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 0},
        ],
        list[LimitFields],
    )  # fmt: skip
    budget.learn(told, NOON, "a")
    assert budget.weight == Limit(MINUTE, 40)
    assert budget.orders == (Limit(10_000, 4), Limit(86_400_000, 15))
    assert budget.take(Lane.DATA) == MINUTE
    assert budget.take(Lane.OPEN, 1, account="a", orders=1) == 10_000
    assert budget.take(Lane.OPEN, 1, account="b", orders=1) == 0


def work(path: Path, lane: Lane, tries: int, passed) -> None:
    made = RequestBudget(path, clock_ms=At())
    made.weight = Limit(MINUTE, 300)
    passed.put((lane, sum(made.take(lane) == 0 for _ in range(tries))))


def test_processes_share_one_count_one_order_of_lanes_and_one_ban(tmp_path):
    path = tmp_path / "rate.json"
    fork = multiprocessing.get_context("fork")
    passed = fork.Queue()
    for lanes in ((Lane.DATA, Lane.DATA, Lane.DATA), (Lane.OPEN, Lane.REDUCE, Lane.CANCEL)):
        workers = [fork.Process(target=work, args=(path, lane, 100, passed)) for lane in lanes]
        for worker in workers:
            worker.start()
        counts = [passed.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        total = sum(count for _, count in counts)
        assert total == 150, "three of data fit into half of it, the other lanes into the rest"
    held = dict(counts)
    assert held[Lane.OPEN] <= 90
    RequestBudget(path, clock_ms=At()).stay_away(90_000)
    banned = fork.Process(target=work, args=(path, Lane.CANCEL, 5, passed))
    banned.start()
    assert passed.get(timeout=60) == (Lane.CANCEL, 0)
    banned.join(60)


def test_a_process_that_holds_the_file_stops_entries_and_never_exits(tmp_path):
    path = tmp_path / "rate.json"
    made = RequestBudget(path, clock_ms=At())
    file = os.open(path, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        assert made.take(Lane.DATA) == made.take(Lane.OPEN) == BUSY_MS
        assert made.take(Lane.REDUCE) == made.take(Lane.CANCEL) == 0
        made.stay_away(30_000)
        assert made.take(Lane.CANCEL) == 30_000, "its own ban is known without the file"
    finally:
        os.close(file)
    assert made.take(Lane.CANCEL) == 30_000
    assert RequestBudget(path, clock_ms=At()).take(Lane.CANCEL) == 30_000, "and was written since"


def test_a_lost_file_forgets_the_count_and_not_the_ban_of_who_was_told(tmp_path):
    path = tmp_path / "deep" / "rate.json"
    made = RequestBudget(path, clock_ms=At())
    made.stay_away(30_000)
    path.write_bytes(b'{"until_ms": 1')
    assert made.take(Lane.CANCEL) == 30_000
    path.unlink()
    path.parent.rmdir()
    assert made.take(Lane.CANCEL) == 30_000
    assert made.take(Lane.OPEN) == BUSY_MS
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(ConfigError, match="must be writable"):
        RequestBudget(blocked / "rate.json", clock_ms=At())


def test_a_clock_slightly_behind_sees_the_same_window_and_a_jump_starts_anew(budget):
    budget.take(Lane.CANCEL, 100)
    budget.clock_ms.now_ms -= 1
    assert budget.take(Lane.CANCEL) == 1
    budget.clock_ms.now_ms -= 10 * MINUTE
    assert budget.take(Lane.CANCEL) == 0


def test_the_file_stays_small_and_names_no_key(tmp_path):
    clock = At()
    made = RequestBudget(tmp_path / "rate.json", clock_ms=clock)
    for number in range(300):
        clock.now_ms += 30 * MINUTE
        assert made.take(Lane.OPEN, account=f"canary-{number}", orders=1) == 0
    content = made.path.read_bytes()
    assert b"canary" not in content
    assert len(msgspec.json.decode(content)["accounts"]) <= 97
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert RequestBudget(made.path, clock_ms=clock).take(Lane.OPEN, account="x", orders=1) == 0


def test_the_machines_file_is_one_a_market():
    assert shared_budget(Market.SPOT).path.name == "rate-spot.json"
    assert shared_budget(Market.USDM).weight == limits.WEIGHT[Market.USDM]


@pytest.mark.parametrize(
    ("header", "message", "expected"),
    [
        ("2", "", 2_000),
        ("0", "", 0),
        (None, "", 60_000),
        ("soon", "", 60_000),
        ("-3", "", 60_000),
        (None, "Way too much; IP banned until 1800000007000. Please use", 7_000),
        ("9", "IP banned until 1800000007000.", 9_000),
        ("2", "IP banned until 1700000000000.", 2_000),
    ],
)
def test_the_longer_of_header_and_message_counts(header, message, expected):
    assert pause_ms(header, message, 1_800_000_000_000) == expected
