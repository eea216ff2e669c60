"""A stream's candles reach the session each once, in order and whole, whatever the stream does."""

import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.clock import NS_PER_MS, ManualClock
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import LocationRefused, VenueUnreachable
from bot4_runtime.exchange.binance.streamed import COUNTED, LOOK_AROUND_S, StreamedSource

HOUR = 3_600_000
FROM = 1_704_067_200_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MARKET = SimulatedMarket(3)
TRUE = {symbol: list(MARKET.series(symbol, "1h", FROM, FROM + 40 * HOUR)) for symbol in SYMBOLS}


class Rest:
    """REST's candles: those that closed `lag_ms` ago; `faults` are raised first, one a call."""

    label, origin, market, interval = "binance", Origin.REAL, Market.SPOT, "1h"

    def __init__(self, clock, symbols):
        self.symbols = symbols
        self.rows = {symbol: TRUE[symbol] for symbol in symbols}
        self.faults = []
        self.asked = 0
        self.lag_ms = 1_000
        self._clock = clock

    def history(self, from_ms, to_ms):
        return iter([c for c in self.rows[self.symbols[0]] if from_ms <= c.open_time_ms < to_ms])

    def closed(self, symbol, from_ms):
        self.asked += 1
        if self.faults:
            fault = self.faults.pop(0)
            if fault is not None:
                raise fault
        now_ms = self._clock.now_ns() // NS_PER_MS - self.lag_ms
        return [c for c in self.rows[symbol] if c.open_time_ms >= from_ms and c.close_time_ms <= now_ms]  # fmt: skip


class Feed:
    """Plays steps: a candle, or seconds that pass without one."""

    def __init__(self, clock, stop):
        self.steps = []
        self.running = 0
        self._clock, self._stop = clock, stop
        self.time_s = 0.0
        self._begun_ns = clock.now_ns()

    stride_s = 0.0

    def start(self):
        self.running += 1

    def close(self):
        self.running -= 1

    def counters(self):
        return {"lines": 1}

    def take(self, within_s):
        if not self.steps:
            self._stop.set()
            return None
        step = self.steps.pop(0)
        if not isinstance(step, int | float):
            return step
        if within_s >= LOOK_AROUND_S:
            within_s = max(within_s, self.stride_s)  # a reader may be kept waiting
        if step > within_s:
            self.steps.insert(0, step - within_s)
            step = within_s
        self.time_s += step
        self._clock.advance_to(self._begun_ns + round(self.time_s * 1_000) * NS_PER_MS)
        return None


class Played:
    def __init__(self, symbols=SYMBOLS, now_ms=FROM):
        self.stop = threading.Event()
        self.clock = ManualClock(now_ms * NS_PER_MS)
        self.rest = Rest(self.clock, symbols)
        self.feed = Feed(self.clock, self.stop)
        self.source = StreamedSource(self.rest, self.feed, self.clock, lambda: self.feed.time_s)
        self.at = {}

    def run(self, *steps, cursor=None):
        self.feed.steps = list(steps)
        got = []
        for candle in self.source.stream(FROM, cursor or {}, self.stop):
            if candle is not None:
                got.append(candle)
                self.at[candle.symbol, candle.open_time_ms] = self.clock.now_ns() // NS_PER_MS
        assert self.feed.running == 0, "the feed is closed"
        return got


def closes(*numbers, symbols=SYMBOLS, gap_s=3_600):
    """Hours that pass, each with its candles at its end."""
    steps = []
    for number in numbers:
        steps += [gap_s, *(TRUE[symbol][number] for symbol in symbols)]
    return steps


def merged(*numbers, symbols=SYMBOLS):
    return [TRUE[symbol][number] for number in numbers for symbol in symbols]


def test_candles_come_the_moment_they_close_and_rest_confirms_them():
    played = Played()
    assert played.run(*closes(0, 1, 2), 30) == merged(0, 1, 2)
    assert {at - open_ms for (_, open_ms), at in played.at.items()} == {HOUR}
    assert played.source.counts == {"streamed": 6, "confirmed": 6}
    assert played.source.counters() == dict.fromkeys(COUNTED, 0) | {"streamed": 6, "confirmed": 6, "lines": 1}  # fmt: skip
    assert played.rest.asked == 6


def test_it_is_a_source_like_any_other():
    played = Played()
    source = played.source
    assert (source.label, source.origin, source.market, source.interval, source.symbols, source.start_ms) == ("binance", Origin.REAL, Market.SPOT, "1h", SYMBOLS, None)  # fmt: skip
    assert list(source.history(FROM, FROM + 2 * HOUR)) == TRUE["BTCUSDT"][:2]


def test_candles_of_one_close_are_released_together_and_in_order():
    late = Played()
    steps = [3_600, TRUE["ETHUSDT"][0], 0.5, TRUE["BTCUSDT"][0]]
    assert late.run(*steps) == merged(0)
    assert late.at["ETHUSDT", FROM] - FROM == HOUR + 500
    alone = Played()
    assert alone.run(3_600, TRUE["ETHUSDT"][0], 10) == [TRUE["ETHUSDT"][0], TRUE["BTCUSDT"][0]]
    assert alone.at["ETHUSDT", FROM] - FROM - HOUR < 1_300, "others are not waited for long"


def test_repeated_late_and_foreign_candles_change_nothing():
    played = Played(symbols=("BTCUSDT",))
    first, second = TRUE["BTCUSDT"][:2]
    other = msgspec.structs.replace(first, interval="1m")
    steps = [3_600, first, first, TRUE["ETHUSDT"][0], other, 3_600, second, first, second]
    assert played.run(*steps) == [first, second]
    assert played.source.counts["repeated"] == 3


def test_what_is_missing_before_a_candle_is_asked_for_first():
    played = Played(symbols=("BTCUSDT",))
    steps = [*closes(0, symbols=("BTCUSDT",)), 1, 3 * 3_600 - 1]
    played.rest.faults = [None, VenueUnreachable("down")] + [VenueUnreachable("down")] * 5_000
    assert played.run(*steps) == merged(0, symbols=("BTCUSDT",))
    again = Played(symbols=("BTCUSDT",), now_ms=FROM + 4 * HOUR + 10)
    again.rest.lag_ms = 1_000
    cursor = {"BTCUSDT": FROM}
    got = again.run(TRUE["BTCUSDT"][3], cursor=cursor)
    assert got == TRUE["BTCUSDT"][1:4], "the newest from the stream, which REST does not show yet"
    assert again.source.counts == {"asked": 2, "streamed": 1}


def test_a_silent_stream_costs_seconds_and_no_candle():
    played = Played()
    assert played.run(5 * 3_600 + 60) == merged(0, 1, 2, 3, 4)
    late_ms = [at - open_ms - HOUR for (_, open_ms), at in played.at.items()]
    assert max(late_ms) <= 3_000 + 2_000 + 1_500
    assert played.source.counts == {"asked": 10}


def test_a_candle_that_its_stream_tells_amid_a_round_of_questions_is_not_asked_for():
    played = Played()
    assert played.run(3_603, TRUE["ETHUSDT"][0], 1) == merged(0)
    assert played.rest.asked == 1
    assert played.source.counts == {"asked": 1, "streamed": 1}


def test_a_start_in_the_past_catches_up_at_once():
    played = Played(now_ms=FROM + 10 * HOUR + 5_000)
    assert played.run(1, cursor=dict.fromkeys(SYMBOLS, FROM)) == merged(*range(1, 10))
    assert played.rest.asked == 2


def test_a_dead_rest_is_asked_with_growing_pauses_while_the_stream_goes_on():
    played = Played(symbols=("BTCUSDT",))
    played.rest.faults = [VenueUnreachable("down")] * 10_000
    got = played.run(*closes(0, 1, symbols=("BTCUSDT",)), 3 * 3_600)
    assert got == merged(0, 1, symbols=("BTCUSDT",))
    assert played.rest.asked < 320, "once a minute in the end"
    assert played.source.counts == {"streamed": 2}


def test_a_gap_is_not_jumped_while_rest_is_silent():
    played = Played(symbols=("BTCUSDT",))
    played.rest.faults = [VenueUnreachable("down")] * 3
    steps = [*closes(0, symbols=("BTCUSDT",)), 2 * 3_600, TRUE["BTCUSDT"][2], 600]
    assert played.run(*steps) == merged(0, 1, 2, symbols=("BTCUSDT",))


def test_streamed_candles_behind_a_gap_ask_a_silent_rest_no_oftener():
    """Each question may take eight seconds: candles that stream on must not add to them."""
    asked = []
    for streamed in ([], [TRUE["BTCUSDT"][3]]):
        played = Played(symbols=("BTCUSDT",))
        played.rest.faults = [VenueUnreachable("down")] * 10_000
        steps = [*closes(0, symbols=("BTCUSDT",)), 3 * 3_600, *[*streamed, 0.01] * 50]
        assert played.run(*steps) == merged(0, symbols=("BTCUSDT",))
        asked.append(played.rest.asked)
    assert asked[1] <= asked[0] + 1


@pytest.mark.parametrize("failing", [False, True])
def test_rest_is_asked_once_at_most_between_two_looks_of_the_reader(failing):
    played = Played(symbols=tuple(TRUE), now_ms=FROM + 6 * HOUR + 5_000)
    played.rest.faults = [None, VenueUnreachable("down"), None] * 100 * failing
    played.feed.steps = [1, 30, *closes(6), 2, 7_200, *closes(9), *closes(7, 8, gap_s=0), 7_200]
    asked = most = 0
    got = []
    for candle in played.source.stream(FROM, {}, played.stop):
        most, asked = max(most, played.rest.asked - asked), played.rest.asked
        got += [] if candle is None else [candle]
    assert most == 1
    for symbol in SYMBOLS:
        own = [candle for candle in got if candle.symbol == symbol]
        assert own == TRUE[symbol][: len(own)]
        assert len(own) >= 9


def test_a_stream_that_rest_contradicts_is_not_believed_until_rest_confirms_it():
    played = Played(symbols=("BTCUSDT",))
    wrong = msgspec.structs.replace(TRUE["BTCUSDT"][1], volume=1.0)
    steps = [
        *closes(0, symbols=("BTCUSDT",)), 3_600, wrong, 60,
        3_540, msgspec.structs.replace(TRUE["BTCUSDT"][2], volume=2.0), 60,
        3_540, TRUE["BTCUSDT"][3], 60,
        3_540, TRUE["BTCUSDT"][4], 60,
    ]  # fmt: skip
    got = played.run(*steps)
    assert got == [TRUE["BTCUSDT"][0], wrong, *TRUE["BTCUSDT"][2:5]]
    assert played.source.counts == {"streamed": 3, "confirmed": 2, "contradicted": 1, "asked": 2}
    assert played.at["BTCUSDT", FROM + 4 * HOUR] - FROM == 5 * HOUR, "at once again"


@pytest.mark.parametrize("shift_ms", [1, 40 * HOUR])
def test_times_that_cannot_be_are_refused(shift_ms):
    played = Played(symbols=("BTCUSDT",))
    odd = msgspec.structs.replace(TRUE["BTCUSDT"][0], open_time_ms=FROM + shift_ms)
    assert played.run(3_600, odd, TRUE["BTCUSDT"][0]) == merged(0, symbols=("BTCUSDT",))
    assert played.source.counts["impossible_time"] == 1


def test_a_refused_location_ends_it():
    played = Played()
    played.rest.faults = [LocationRefused("451")]
    with pytest.raises(LocationRefused):
        played.run(3_700)
    assert played.feed.running == 0


STEPS = st.lists(
    st.one_of(
        st.sampled_from([0.1, 5, 600, 3_600, 7_300]),
        st.tuples(st.sampled_from(SYMBOLS), st.integers(0, 20)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.lists(st.booleans(), max_size=20))
def test_whatever_a_stream_does_the_candles_are_those_of_the_market(steps, faults):
    """Lost, repeated, late and reordered candles, and a REST that fails now and then."""
    played = Played()
    played.rest.faults = [VenueUnreachable("down") if failing else None for failing in faults]
    played.feed.stride_s = 5.0
    script = [TRUE[s[0]][s[1]] if isinstance(s, tuple) else s for s in steps]
    now = sum(s for s in script if isinstance(s, int | float))
    got = played.run(*script, 7_200)  # the last hours are quiet
    for symbol in SYMBOLS:
        own = [candle for candle in got if candle.symbol == symbol]
        assert own == TRUE[symbol][: len(own)]
        assert len(own) >= int((now + 7_200 - 600) // 3_600)
