"""A sample of the kill campaign; the whole of it runs in `make crash`."""

import contextlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import campaign_kill
import kill_trader

from bot4_runtime.domain.errors import OutcomeUnknown
from bot4_runtime.exchange.keeper import AccountKeeper


@pytest.mark.crash
@pytest.mark.timeout(300)
def test_kills_at_random_and_around_the_send_lose_and_double_nothing():
    told = []
    numbers = campaign_kill.run(full=False, jobs=1, progress=lambda done, text: told.append(done))
    assert numbers["kills"] >= campaign_kill.SAMPLE_KILLS
    assert numbers["orders_at_venue"] > 20
    assert numbers["trades"] > 10
    assert numbers["fork_to_account_read_ms_median"] > 0
    assert {f"killed_{point}" for point in ("random", *campaign_kill.POINTS)} <= set(numbers)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.crash
@pytest.mark.timeout(300)
def test_an_order_that_is_sent_again_is_seen(monkeypatch):
    sent_once = kill_trader.MortalVenue.submit

    def resent(self, intent, client_id, cash_free):
        with contextlib.suppress(OutcomeUnknown):
            sent_once(self, intent, client_id, cash_free)
        return sent_once(self, intent, client_id, cash_free)

    monkeypatch.setattr(kill_trader.MortalVenue, "submit", resent)
    monkeypatch.setattr(campaign_kill, "SAMPLE_KILLS", 10)
    with pytest.raises(AssertionError, match=r"twice|more than once|booked"):
        campaign_kill.work(full=False, jobs=1, progress=lambda done, text: None)


@pytest.mark.crash
@pytest.mark.timeout(300)
def test_a_fill_that_is_not_booked_is_seen(monkeypatch):
    monkeypatch.setattr(AccountKeeper, "_book", lambda self, order, trade: None)
    monkeypatch.setattr(campaign_kill, "SAMPLE_KILLS", 40)
    with pytest.raises(AssertionError):
        campaign_kill.work(full=False, jobs=1, progress=lambda done, text: None)
