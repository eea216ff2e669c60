"""A sample of the races and takeovers; the whole of it runs in `make crash`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import campaign_race

from bot4_runtime.exchange.lease import Lease

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]


def work():
    return campaign_race.work(full=False, jobs=1, progress=lambda done, text: None)


def test_one_of_two_trades_and_one_that_was_passed_over_sends_nothing():
    told = []
    numbers = campaign_race.run(full=False, jobs=1, progress=lambda done, text: told.append(done))
    assert numbers["races"] == campaign_race.SAMPLE_RACES
    assert numbers["takeovers"] == campaign_race.SAMPLE_TAKEOVERS
    assert numbers["stopped_ms_median"] > sum(campaign_race.SHORT)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_without_the_lease_a_stale_order_is_seen(monkeypatch):
    monkeypatch.setattr(Lease, "holds", lambda self: True)
    monkeypatch.setattr(campaign_race, "SAMPLE_RACES", 1)
    monkeypatch.setattr(campaign_race, "SAMPLE_TAKEOVERS", 60)
    with pytest.raises(AssertionError, match="arrived after the successor began"):
        work()


def test_without_the_lock_two_traders_are_seen(monkeypatch):
    monkeypatch.setattr("bot4_runtime.state.account_lock.fcntl.flock", lambda *_: None)
    monkeypatch.setattr(campaign_race, "SAMPLE_TAKEOVERS", 0)
    with pytest.raises(AssertionError, match="race 0"):
        work()
