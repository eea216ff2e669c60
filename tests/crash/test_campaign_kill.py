"""A sample of the kill campaign; the whole of it runs in `make crash`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import campaign_kill


@pytest.mark.crash
@pytest.mark.timeout(300)
def test_kills_at_random_and_around_the_send_lose_and_double_nothing():
    told = []
    numbers = campaign_kill.run(full=False, jobs=1, progress=lambda done, text: told.append(done))
    assert numbers["kills"] >= campaign_kill.SAMPLE_KILLS
    assert numbers["orders_at_venue"] > 20
    assert numbers["trades"] > 10
    assert {f"killed_{point}" for point in ("random", *campaign_kill.POINTS)} <= set(numbers)
    assert told == sorted(told)
    assert told[-1] == 1.0
