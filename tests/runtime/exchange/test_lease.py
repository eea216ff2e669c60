"""A process may send only for a while after a commit proved that the account is its own."""

import time

from bot4_runtime.exchange.lease import CLOCK_ERROR_MS, Lease, boot_ns
from bot4_runtime.exchange.unknown import RECV_WINDOW_MS

MS = 1_000_000


def test_without_a_commit_nothing_may_be_sent():
    assert not Lease().holds()


def test_a_lease_runs_from_before_its_commit_was_asked_for():
    now = [0]
    lease = Lease(lambda: now[0], ttl_ms=100)
    asked_ns = lease.now_ns()
    now[0] = 70 * MS  # the commit took its time
    lease.renewed(asked_ns)
    now[0] = 100 * MS - 1
    assert lease.holds()
    now[0] = 100 * MS
    assert not lease.holds()
    lease.renewed(now[0])
    assert lease.holds()


def test_a_successor_waits_for_lease_window_and_clocks():
    assert Lease(ttl_ms=100).takeover_ms == 100 + RECV_WINDOW_MS + CLOCK_ERROR_MS


def test_the_timer_runs_on():
    first = boot_ns()
    time.sleep(0.001)
    assert boot_ns() > first
