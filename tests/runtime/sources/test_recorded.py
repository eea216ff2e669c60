"""Recorded candles: merged in time, continued at the cursor, paced, stopped."""

import threading
import time

import numpy as np
import pytest

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import DataError
from bot4_runtime.sources import LOOK_AROUND_S, Pace, RecordedSource, merged, utc, waiting, wall_ms

HOUR = 3_600_000
FROM = 1_700_000_000_000 // HOUR * HOUR


def series(symbol: str, first: int = 0, count: int = 50, interval: str = "1h") -> CandleSeries:
    start = FROM + first * HOUR
    return SimulatedMarket(1).series(symbol, interval, start, start + count * HOUR)


def without(whole: CandleSeries, gone: slice) -> CandleSeries:
    keep = np.ones(len(whole), dtype=bool)
    keep[gone] = False
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return CandleSeries(whole.id, *(getattr(whole, name)[keep] for name in names))


def keys(candles) -> list[tuple[int, str]]:
    return [(c.open_time_ms, c.symbol) for c in candles]


def stream(source: RecordedSource, from_ms: int = 0, cursor=None) -> list[Candle]:
    return list(source.stream(from_ms, cursor or {}, threading.Event()))


PARTS = [
    series("ETHUSDT", 3, 40),
    without(series("BTCUSDT"), slice(10, 20)),
    series("ADAUSDT", 45, 20),
]


def test_candles_of_all_symbols_come_by_time_then_symbol() -> None:
    got = list(merged(PARTS))
    assert keys(got) == sorted((c.open_time_ms, c.symbol) for s in PARTS for c in s)
    by_key = {(c.open_time_ms, c.symbol): c for s in PARTS for c in s}
    assert all(c == by_key[c.open_time_ms, c.symbol] for c in got)
    assert list(merged([])) == []


def test_a_stream_is_the_whole_and_counts_itself() -> None:
    source = RecordedSource(PARTS, label="recorded:x")
    assert source.symbols == ("ADAUSDT", "BTCUSDT", "ETHUSDT")
    assert (source.first_ms, source.last_ms) == (FROM, FROM + 64 * HOUR)
    got = stream(source)
    assert keys(got) == keys(merged(PARTS))
    assert source.remaining(0, {}) == len(got) == 100


@pytest.mark.parametrize("done", [0, 1, 17, 55, 99, 100])
def test_a_stream_continues_at_any_cursor(done: int) -> None:
    source = RecordedSource(PARTS, label="recorded:x")
    whole = stream(source)
    cursor = {c.symbol: c.open_time_ms for c in whole[:done]}
    assert stream(source, FROM, cursor) == whole[done:]
    assert source.remaining(FROM, cursor) == len(whole) - done


def test_history_and_stream_meet_without_overlap() -> None:
    source = RecordedSource(PARTS, label="recorded:x")
    middle = FROM + 13 * HOUR + 1
    before, after = list(source.history(0, middle)), stream(source, middle)
    assert keys(before) + keys(after) == keys(stream(source))
    assert all(c.open_time_ms < middle for c in before)


def test_from_is_remembered_and_to_is_exclusive() -> None:
    source = RecordedSource(PARTS, label="x", from_ms=FROM + 5, to_ms=FROM + 30 * HOUR)
    assert source.start_ms == FROM + 5
    assert source.last_ms == FROM + 29 * HOUR
    assert max(c.open_time_ms for c in stream(source)) == FROM + 29 * HOUR


def test_nothing_mixed_kinds_and_an_empty_range_are_refused() -> None:
    with pytest.raises(DataError, match="recorded:x holds no candles"):
        RecordedSource([], label="recorded:x")
    with pytest.raises(DataError, match="different kinds"):
        RecordedSource([series("BTCUSDT"), series("ETHUSDT", interval="2h")], label="x")
    with pytest.raises(DataError, match="no candles in the range"):
        RecordedSource(PARTS, label="x", to_ms=FROM)


def test_a_set_stop_ends_a_stream_at_once() -> None:
    stop = threading.Event()
    source = RecordedSource(PARTS, label="x")
    got = []
    for candle in source.stream(0, {}, stop):
        got.append(candle)
        if len(got) == 7:
            stop.set()
    assert len(got) == 7


def test_pace_waits_candle_time_over_speed_and_not_within_one_time() -> None:
    pace, stop = Pace(speed=HOUR / 1000 / 0.05), threading.Event()
    begun = time.monotonic()
    for close_ms in (0, HOUR, HOUR, HOUR, 2 * HOUR):
        assert list(pace.wait(close_ms, stop)) == []
    assert 0.095 <= time.monotonic() - begun < 1.0


def test_a_long_wait_lets_its_reader_look_around() -> None:
    stop = threading.Event()
    begun = time.monotonic()
    assert list(waiting(2.6 * LOOK_AROUND_S, stop)) == [None, None]
    assert time.monotonic() - begun >= 2.6 * LOOK_AROUND_S
    stop.set()
    assert list(waiting(60.0, stop)) == []
    assert list(waiting(0.0, stop)) == []


def test_a_stop_cuts_the_wait_short() -> None:
    stop = threading.Event()
    source = RecordedSource(PARTS, label="x", speed=1.0)
    got = []
    reader = threading.Thread(target=lambda: got.extend(source.stream(0, {}, stop)))
    reader.start()
    time.sleep(0.05)
    stop.set()
    reader.join(5)
    assert not reader.is_alive()
    assert keys(got) == [(FROM, "BTCUSDT")]


def test_times_are_told_in_utc() -> None:
    assert utc(1_700_000_000_000) == "2023-11-14T22:13Z"
    assert abs(wall_ms() - time.time() * 1000) < 5000
