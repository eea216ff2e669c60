"""The door: silence is kept, trespass escalates, weight is counted by the minute."""

import pytest

from bot4_runtime.venue.door import FIRST_BAN_S, FOREIGN_USE, LONGEST_BAN_S, WEIGHT_LIMIT, Door
from bot4_runtime.venue.journal import MemorySink, VenueJournal

NOW = 1_800_000_000_000 // 60_000 * 60_000
ASK = "GET /api/v3/account"
ORDER = "POST /api/v3/order"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def door(sink: MemorySink) -> Door:
    return Door(VenueJournal(sink))


def test_silence_ends_when_it_was_said_to_and_a_trespass_leads_to_a_ban_that_doubles(
    door: Door, sink: MemorySink
) -> None:
    door.limit(NOW, 10)
    refusal = door.silence(NOW)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, -1003, 10)
    assert door.refusal(NOW + 10_000, ASK, {}) is None
    door.limit(NOW, 20)
    banned = door.refusal(NOW + 15_000, ASK, {})
    assert (banned.status, banned.retry_after_s) == (418, FIRST_BAN_S)
    assert f"banned until {NOW + 15_000 + 120_000}" in banned.text
    assert door.refusal(NOW + 16_000, ASK, {}).retry_after_s == 2 * FIRST_BAN_S
    for _ in range(20):
        longest = door.refusal(NOW + 17_000, ASK, {})
    assert longest.retry_after_s == LONGEST_BAN_S
    assert [entry.kind for entry in sink.entries] == ["trespass"] * 22


def test_a_limit_of_orders_refuses_new_orders_alone(door: Door, sink: MemorySink) -> None:
    door.limit_orders(NOW, 5)
    refusal = door.refusal(NOW + 1_000, ORDER, {})
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, -1015, 4)
    assert door.refusal(NOW + 1_000, ASK, {}) is None
    assert door.refusal(NOW + 5_000, ORDER, {}) is None
    assert len(sink.entries) == 1


def test_weight_is_told_and_counted_by_the_minute_and_what_is_over_is_refused(
    door: Door, sink: MemorySink
) -> None:
    calls = [
        (ASK, {}, 20),
        ("GET /api/v3/openOrders", {}, 80),
        ("GET /api/v3/openOrders", {"symbol": "BTCUSDT"}, 6),
        ("GET /api/v3/myTrades", {"symbol": "BTCUSDT"}, 20),
        ("GET /api/v3/myTrades", {"orderId": "1"}, 5),
        (ORDER, {}, 1),
    ]
    used = 0
    for call, values, weight in calls:
        assert door.refusal(NOW, call, values) is None
        used += weight
        assert door.headers(NOW) == {"X-MBX-USED-WEIGHT-1M": str(used)}
    door.given_back(ORDER)
    door.given_back(ASK)
    assert door.headers(NOW) == {"X-MBX-USED-WEIGHT-1M": str(used - 1)}
    door.use(NOW)
    assert door.headers(NOW) == {"X-MBX-USED-WEIGHT-1M": str(FOREIGN_USE)}
    for _ in range((WEIGHT_LIMIT - FOREIGN_USE) // 20):
        assert door.refusal(NOW, ASK, {}) is None
    over = door.refusal(NOW + 30_000, ASK, {})
    assert (over.status, over.retry_after_s) == (429, 30)
    assert [entry.kind for entry in sink.entries] == ["over_weight"]
    assert door.refusal(NOW + 60_000, ASK, {}) is None
    assert door.headers(NOW + 60_000) == {"X-MBX-USED-WEIGHT-1M": "20"}


def test_a_key_is_revoked_for_a_while_or_for_ever(door: Door, sink: MemorySink) -> None:
    door.revoke("key", NOW, 10)
    assert [door.denies("key", NOW + ms, ASK) for ms in (0, 9_999, 10_000)] == [True, True, False]
    door.revoke("key", NOW, 0)
    assert door.denies("key", NOW + 10**12, ASK)
    assert not door.denies("other", NOW, ASK)
    assert [entry.kind for entry in sink.entries] == ["revoked"] * 3
