"""Between candles there is a beat, and what the source says or raises arrives."""

import threading
from collections.abc import Iterator, Mapping

import pytest

from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.domain.errors import DataError
from bot4_runtime.pulse import _AHEAD, Pulsed


def candle(number: int) -> Candle:
    return Candle(
        symbol="BTCUSDT",
        interval="1m",
        open_time_ms=number * 60_000,
        open=1.0,
        high=1.0,
        low=1.0,
        close=1.0,
        volume=1.0,
    )


class Slow:
    """Waits to be told before each candle, or fails, or never stops."""

    label, origin, market, interval = "slow", Origin.REAL, Market.SPOT, "1m"
    symbols, start_ms = ("BTCUSDT",), None

    def __init__(self, candles: int, error: Exception | None = None) -> None:
        self.next = threading.Semaphore(0)
        self._candles = candles
        self._error = error
        self.ended = threading.Event()

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        return iter([candle(0)])

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        yield None
        for number in range(self._candles):
            while not self.next.acquire(timeout=0.01):
                if stop.is_set():
                    self.ended.set()
                    return
            yield candle(number)
        if self._error is not None:
            raise self._error


def test_a_silent_source_beats_and_its_candles_come_in_order() -> None:
    source = Slow(3)
    pulsed = Pulsed(source, 0.01)
    assert (pulsed.label, pulsed.symbols, list(pulsed.history(0, 1))) == (
        "slow",
        ("BTCUSDT",),
        [candle(0)],
    )
    seen, beats = [], 0
    for item in pulsed.stream(0, {}, threading.Event()):
        if item is None:
            beats += 1
            source.next.release()
        else:
            seen.append(item)
    assert seen == [candle(0), candle(1), candle(2)]
    assert beats >= 3


def test_what_the_source_raises_is_raised_after_its_candles() -> None:
    source = Slow(1, DataError("a torn file"))
    source.next.release()
    items = []
    with pytest.raises(DataError, match="a torn file"):
        for item in Pulsed(source, 0.01).stream(0, {}, threading.Event()):
            items.append(item)
    assert candle(0) in items


def test_stop_ends_the_source_too() -> None:
    source, stop = Slow(5), threading.Event()
    for item in Pulsed(source, 0.01).stream(0, {}, stop):
        assert item is None
        stop.set()
    assert source.ended.is_set()


def test_a_reader_that_leaves_frees_a_source_that_waits_for_room() -> None:
    source = Slow(_AHEAD + 10)
    for _ in range(_AHEAD + 10):
        source.next.release()
    stream = Pulsed(source, 0.01).stream(0, {}, threading.Event())
    assert next(stream) is not None
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 50
