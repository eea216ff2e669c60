"""The simulated market never ends, and goes on from anywhere as if it had never stopped."""

import itertools
import threading

import pytest

from bot4_runtime.domain.candle import Candle, Origin, interval_ms
from bot4_runtime.sources import SIMULATED_BLOCK, SIMULATED_SYMBOLS, SimulatedSource

HOUR = 3_600_000
FROM = 1_735_689_600_000


def source(symbols=("ETHUSDT", "BTCUSDT"), **changed) -> SimulatedSource:
    arguments = {"seed": 7, "interval": "1h", "symbols": symbols, "speed": None} | changed
    return SimulatedSource(**arguments)


def first(count: int, from_ms: int = FROM, cursor=None, **changed) -> list[Candle]:
    stream = source(**changed).stream(from_ms, cursor or {}, threading.Event())
    return list(itertools.islice(stream, count))


def test_it_says_what_it_is() -> None:
    simulated = source(())
    assert simulated.symbols == SIMULATED_SYMBOLS
    assert simulated.origin is Origin.SIMULATED
    assert simulated.label == "simulated:7"


def test_it_goes_on_beyond_a_block_without_a_gap_or_a_repeat() -> None:
    count = 2 * (2 * SIMULATED_BLOCK + 10)
    got = first(count)
    assert [(c.open_time_ms, c.symbol) for c in got] == [
        (FROM + n * HOUR, symbol) for n in range(count // 2) for symbol in ("BTCUSDT", "ETHUSDT")
    ]


@pytest.mark.parametrize("done", [1, 2, 7, 1023, 1024, 1025, 1500])
def test_it_continues_at_any_cursor_as_if_it_had_never_stopped(done: int) -> None:
    whole = first(done + 30)
    cursor = {c.symbol: c.open_time_ms for c in whole[:done]}
    assert first(30, FROM, cursor) == whole[done:]


def test_another_seed_is_another_market_and_the_same_seed_the_same() -> None:
    assert first(20) == first(20) != first(20, seed=8)


def test_a_start_between_two_candles_begins_with_the_next() -> None:
    from_ms = FROM + HOUR // 2
    (candle,) = first(1, from_ms, symbols=("BTCUSDT",))
    assert candle.open_time_ms == FROM + HOUR
    before = list(source(("BTCUSDT",)).history(FROM, from_ms))
    assert [c.open_time_ms for c in before] == [FROM]


@pytest.mark.parametrize("interval", ["15m", "4h", "1d", "1w"])
def test_every_interval_streams_without_gaps(interval: str) -> None:
    step = interval_ms(interval)
    got = first(SIMULATED_BLOCK + 20, symbols=("BTCUSDT",), interval=interval)
    assert {b.open_time_ms - a.open_time_ms for a, b in itertools.pairwise(got)} == {step}
    assert 0 <= got[0].open_time_ms - FROM < step


@pytest.mark.parametrize("candles", [1, 5, SIMULATED_BLOCK, SIMULATED_BLOCK + 1])
def test_to_ends_it_exclusively(candles: int) -> None:
    to_ms = FROM + candles * HOUR
    assert len(first(10**6, symbols=("BTCUSDT",), to_ms=to_ms)) == candles
    assert len(first(10**6, symbols=("BTCUSDT",), to_ms=to_ms - 1)) == candles
    assert len(first(10**6, symbols=("BTCUSDT",), to_ms=to_ms + 1)) == candles + 1


def test_a_stop_ends_it() -> None:
    stop = threading.Event()
    got = []
    for candle in source().stream(FROM, {}, stop):
        got.append(candle)
        if len(got) == 3:
            stop.set()
    assert len(got) == 3
