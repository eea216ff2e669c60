"""Never placed: only late, and only twice."""

import pytest

from bot4_runtime.exchange.unknown import APART_MS, MARGIN_MS, RECV_WINDOW_MS, UnknownOrders

WAIT_MS = RECV_WINDOW_MS + MARGIN_MS


def test_an_order_is_never_placed_after_the_wait_and_two_reads_apart() -> None:
    unknown = UnknownOrders()
    unknown.sent(1, 1_000)
    assert not unknown.missed(1, 1_000 + WAIT_MS - 1, 0)
    assert not unknown.missed(1, 1_000 + WAIT_MS, 0)
    assert not unknown.missed(1, 1_000 + WAIT_MS + APART_MS - 1, 0)
    assert unknown.missed(1, 1_000 + WAIT_MS + APART_MS, 0)


@pytest.mark.parametrize("error_ms", [1, 250, 10_000])
def test_what_the_clocks_may_be_apart_is_waited_for(error_ms: int) -> None:
    unknown = UnknownOrders()
    unknown.sent(1, 0)
    assert not unknown.missed(1, WAIT_MS + error_ms - 1, error_ms)
    assert not unknown.missed(1, WAIT_MS + error_ms, error_ms)
    assert unknown.missed(1, WAIT_MS + error_ms + APART_MS, error_ms)


def test_an_order_nobody_told_about_counts_from_the_first_look() -> None:
    unknown = UnknownOrders()
    assert not unknown.missed(7, 50_000, 0)
    assert not unknown.missed(7, 50_000 + WAIT_MS, 0)
    assert unknown.missed(7, 50_000 + WAIT_MS + APART_MS, 0)


def test_an_order_that_was_seen_begins_anew() -> None:
    unknown = UnknownOrders()
    unknown.sent(1, 0)
    assert not unknown.missed(1, WAIT_MS, 0)
    unknown.found(1)
    unknown.found(2)
    assert not unknown.missed(1, WAIT_MS + APART_MS, 0)


def test_two_looks_before_the_clocks_can_agree_that_it_is_late_count_for_nothing() -> None:
    unknown, error_ms = UnknownOrders(), 10_000
    unknown.sent(1, 0)
    for now_ms in range(WAIT_MS, WAIT_MS + error_ms, APART_MS):
        assert not unknown.missed(1, now_ms, error_ms), now_ms
    assert not unknown.missed(1, WAIT_MS + error_ms, error_ms), "the first look that counts"
    assert unknown.missed(1, WAIT_MS + error_ms + APART_MS, error_ms)
