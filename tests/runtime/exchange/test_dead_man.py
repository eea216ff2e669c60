"""The dead-man switch: set while an entry is at work, set anew in time, and told when it fired."""

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.errors import OutcomeUnknown
from bot4_runtime.exchange.dead_man import DeadMan

S = 1_000_000_000
LENGTH_MS = 120_000


class Venue:
    """Counts down by the given clock, as the venue does."""

    def __init__(self, clock):
        self.clock, self.until, self.asked, self.away = clock, {}, [], False

    def countdown(self, symbol, length_ms):
        if self.away:
            raise OutcomeUnknown("no answer")
        self.asked.append((symbol, length_ms))
        self.until[symbol] = self.clock.now_ns() + length_ms * 1_000_000
        if not length_ms:
            del self.until[symbol]

    def fired(self):
        return {symbol for symbol, at in self.until.items() if at <= self.clock.now_ns()}


def made():
    clock = ManualClock(0)
    venue = Venue(clock)
    return clock, venue, DeadMan(venue.countdown, LENGTH_MS, clock.now_ns)


def test_it_runs_while_an_entry_is_at_work_and_is_stopped_afterwards():
    clock, venue, switch = made()
    assert switch.look(set()) == []
    assert venue.asked == []
    assert switch.look({"A", "B"}) == []
    assert venue.asked == [("A", LENGTH_MS), ("B", LENGTH_MS)]
    clock.advance_to(S)
    assert switch.look({"B"}) == []
    assert venue.asked[2:] == [("A", 0)]
    assert switch.look({"B"}) == []
    assert len(venue.asked) == 3


def test_it_is_set_anew_at_a_third_of_its_length_and_never_fires_while_looked_at():
    clock, venue, switch = made()
    for second in range(0, 1_000, 5):
        clock.advance_to(second * S)
        assert not venue.fired()
        assert switch.look({"A"}) == []
    assert len(venue.asked) == 1_000 // 40


def test_one_that_ran_out_while_nobody_looked_is_told_once_and_set_at_the_next_look():
    clock, venue, switch = made()
    switch.look({"A", "B"})
    clock.advance_to(50 * S)
    venue.away = True
    assert switch.look({"A"}) == []
    venue.away = False
    clock.advance_to(130 * S)
    assert venue.fired() == {"A", "B"}
    assert switch.look({"A"}) == ["A", "B"]
    assert len(venue.asked) == 2, "what is gone is looked at first"
    assert switch.look({"A"}) == []
    assert venue.asked[2:] == [("A", LENGTH_MS)]


def test_a_venue_that_cannot_be_asked_is_asked_at_the_next_look():
    _clock, venue, switch = made()
    venue.away = True
    switch.look({"A"})
    venue.away = False
    switch.look({"A"})
    assert venue.asked == [("A", LENGTH_MS)]
    venue.away = True
    switch.look(set())
    venue.away = False
    switch.look(set())
    assert venue.asked[1:] == [("A", 0)]
