"""The course of a rehearsal: candles of an invented market whose venue moves with them.

Between two candles the reader looks around at moments that are close together after a close,
when orders are answered or not, and far apart later. The venue's clock is everybody's.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bot4_runtime.domain.candle import Candle, Market, Origin, interval_ms
from bot4_runtime.sources import SIMULATED_START_MS, SimulatedSource

LOOKS_S: Final = (1, 3, 6, 10, 14, 18, 22, 30, 45, 75, 300)
"""Seconds after a close at which is looked around, as far as they come before the next one; a
third and two thirds of the way, where the market trades, it is looked around too."""
QUIET_S: Final = (1, 3, 6, 10, 14, 18, 22, 30, 45, 62, 92, 125, 160, 200, 240)
"""The same after the last candle, with nothing more going wrong: until everything is settled."""
AGAIN: Final = 5
"""Looks in a row at most while orders move."""
SETTLE_S: Final = 2.0
"""How long, by the machine's clock, a lost user stream is waited for before a candle."""
DELIVERY_S: Final = 0.002
"""How long, by the machine's clock, events may take from the venue to the client."""


class Course:
    """Candles, and what happens between them.

    Args:
        source: the market.
        hours: of it, from its session's begin.
        market: what is traded at its prices.
        advance: lets the venue's market and clock move up to a time (ms).
        stirred: tells whether anything happened to an order since it was asked last; then it is
            looked around again a second later, a few times.
        connected: tells whether the client follows its user stream.
        calm: called once when nothing more is to go wrong.
        noted: called after each look, with the time (ms).
    """

    origin = Origin.SIMULATED

    def __init__(
        self,
        source: SimulatedSource,
        hours: float,
        *,
        market: Market = Market.SPOT,
        advance: Callable[[int], bool],
        stirred: Callable[[], bool],
        connected: Callable[[], bool],
        calm: Callable[[], None],
        noted: Callable[[int], None],
    ) -> None:
        self.market = market
        self.label = source.label
        self.interval = source.interval
        self.symbols = source.symbols
        self.start_ms: int | None = SIMULATED_START_MS
        self._source = source
        self._step_ms = interval_ms(source.interval)
        steps = max(1, round(hours * 3_600_000 / self._step_ms))
        self.end_ms = SIMULATED_START_MS + steps * self._step_ms
        self.total = steps * len(source.symbols)
        self._advance = advance
        self._stirred = stirred
        self._connected = connected
        self._calm = calm
        self._noted = noted
        self._moved_ms = 0

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Candles with open times in [from_ms, to_ms), merged over symbols."""
        return self._source.history(from_ms, to_ms)

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """Candles past the cursor as the venue's market makes them, then a quiet time."""
        third_s = self._step_ms // 3_000
        looks_s = tuple(sorted({*LOOKS_S, third_s + 1, 2 * third_s + 1}))
        at_ms = max([from_ms, *(time_ms + self._step_ms for time_ms in cursor.values())])
        yield from self._looks(at_ms, LOOKS_S[:4], self.end_ms + 1, stop)
        while at_ms < self.end_ms and not stop.is_set():
            close_ms = at_ms + self._step_ms
            self._move(close_ms)
            self._wait_for_stream()
            for candle in self._source.history(at_ms, close_ms):
                if candle.open_time_ms > cursor.get(candle.symbol, -1):
                    yield candle
            yield from self._looks(close_ms, looks_s, close_ms + self._step_ms, stop)
            at_ms = close_ms
        self._calm()
        yield from self._looks(max(at_ms, self._moved_ms), QUIET_S, 1 << 62, stop)

    def pass_time(self, seconds: float) -> None:
        """Let the market go on for a while, as a session does that waits for its end."""
        self._move(self._moved_ms + round(seconds * 1000))

    def _looks(
        self, from_ms: int, after_s: tuple[int, ...], before_ms: int, stop: threading.Event
    ) -> Iterator[None]:
        for seconds in after_s:
            time_ms = from_ms + seconds * 1000
            if time_ms >= before_ms or stop.is_set():
                return
            self._move(time_ms)
            if before_ms > self.end_ms:
                self._wait_for_stream()
            self._stirred()
            yield None
            self._noted(time_ms)
            yield from self._after(time_ms, before_ms)

    def _after(self, time_ms: int, before_ms: int) -> Iterator[None]:
        """Look again while orders move."""
        for seconds in range(1, AGAIN + 1):
            if not self._stirred() or time_ms + seconds * 1000 >= before_ms:
                return
            time.sleep(DELIVERY_S)
            self._move(time_ms + seconds * 1000)
            yield None
            self._noted(time_ms + seconds * 1000)

    def _move(self, time_ms: int) -> None:
        self._moved_ms = max(self._moved_ms, time_ms)
        if self._advance(time_ms):
            time.sleep(DELIVERY_S)

    def _wait_for_stream(self) -> None:
        end = time.monotonic() + SETTLE_S
        while not self._connected() and time.monotonic() < end:
            time.sleep(DELIVERY_S)
