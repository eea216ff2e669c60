"""Where candles come from while the runtime runs: recorded, simulated, or Binance.

Every source can also show its history, so that windows are warm before the first decision
and are rebuilt after a restart. Candles are merged over symbols by close time, then symbol.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import numpy as np

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Candle, Market, Origin, interval_ms
from bot4_runtime.domain.errors import DataError

SIMULATED_SYMBOLS: Final = ("ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT", "LTCUSDT")
SIMULATED_START_MS: Final = 1_735_689_600_000  # 2025-01-01, where the simulated session begins
SIMULATED_BLOCK: Final = 512
LOOK_AROUND_S: Final = 0.5
"""How long a source waits at most before its reader may look around."""


class CandleSource(Protocol):
    """A stream of closed candles of one interval.

    Attributes:
        label: shown in every output, ``recorded:DIR`` and the like.
        start_ms: open time of the first candle that may be decided on, unless told otherwise;
            None when the source begins now.
    """

    label: str
    origin: Origin
    market: Market
    interval: str
    symbols: tuple[str, ...]
    start_ms: int | None

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Candles with open times in [from_ms, to_ms), merged over symbols."""
        ...

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """Closed candles from `from_ms` on, past each symbol's cursor (open time, ms).

        A source that waits may yield None meanwhile, so that its reader can look around.
        Ends when the source is exhausted or `stop` is set.
        """
        ...


class Pace:
    """Waits between candle times.

    Args:
        speed: candle time over wall time; None for as fast as possible.
    """

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._last_ms: int | None = None

    def wait(self, close_time_ms: int, stop: threading.Event) -> Iterator[None]:
        """Wait until the next candle is due, see `waiting`."""
        if self._speed is not None and self._last_ms is not None:
            yield from waiting((close_time_ms - self._last_ms) / 1000 / self._speed, stop)
        self._last_ms = close_time_ms


def waiting(seconds: float, stop: threading.Event) -> Iterator[None]:
    """Wait; yield now and then, so that a reader can look around; `stop` cuts it short."""
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return
        if stop.wait(min(left, LOOK_AROUND_S)):
            return
        if left > LOOK_AROUND_S:
            yield None


class RecordedSource:
    """Candles that are already there.

    Args:
        series: one a symbol, all of one interval, market and origin.
        label: shown in every output.
        to_ms: open times from here on are left out; None for all.

    Raises:
        DataError: no series, or series of different kinds.
    """

    def __init__(
        self,
        series: Sequence[CandleSeries],
        *,
        label: str,
        speed: float | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
    ) -> None:
        if not series:
            raise DataError(f"{label} holds no candles")
        kinds = {(s.id.origin, s.id.market, s.id.interval) for s in series}
        if len(kinds) != 1:
            raise DataError(f"{label} mixes series of different kinds: {sorted(kinds)}")
        self.origin, self.market, self.interval = kinds.pop()
        self.label = label
        self.start_ms = from_ms
        self._speed = speed
        self._series = {s.id.symbol: s.between(None, to_ms) for s in series}
        self.symbols = tuple(sorted(self._series))
        firsts = [int(s.open_time_ms[0]) for s in self._series.values() if len(s)]
        lasts = [int(s.open_time_ms[-1]) for s in self._series.values() if len(s)]
        if not firsts:
            raise DataError(f"{label} holds no candles in the range asked for")
        self.first_ms, self.last_ms = min(firsts), max(lasts)

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Candles with open times in [from_ms, to_ms), merged over symbols."""
        return merged([s.between(from_ms, to_ms) for s in self._series.values()])

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """The recorded candles past the cursor, at the chosen speed."""
        pace = Pace(self._speed)
        for candle in merged(self._rest(from_ms, cursor)):
            if self._speed is not None:
                yield from pace.wait(candle.close_time_ms, stop)
            if stop.is_set():
                return
            yield candle

    def remaining(self, from_ms: int, cursor: Mapping[str, int]) -> int:
        """Count the candles `stream` will yield."""
        return sum(len(rest) for rest in self._rest(from_ms, cursor))

    def _rest(self, from_ms: int, cursor: Mapping[str, int]) -> list[CandleSeries]:
        return [
            s.between(max(from_ms, cursor.get(symbol, -1) + 1), None)
            for symbol, s in self._series.items()
        ]


class SimulatedSource:
    """The built-in market, without an end of its own. It is no market: every output says so.

    Args:
        symbols: all of `SIMULATED_SYMBOLS` when empty.
        speed: candle time over wall time; None for as fast as possible.
        to_ms: open times from here on are left out; None for ever.
    """

    origin = Origin.SIMULATED
    market = Market.SPOT
    start_ms: int | None = SIMULATED_START_MS

    def __init__(
        self,
        *,
        seed: int,
        interval: str,
        symbols: Sequence[str],
        speed: float | None,
        to_ms: int | None = None,
    ) -> None:
        self.label = f"simulated:{seed}"
        self.interval = interval
        self.symbols = tuple(sorted(symbols or SIMULATED_SYMBOLS))
        self._market = SimulatedMarket(seed)
        self._speed = speed
        self._to_ms = to_ms
        self._step_ms = interval_ms(interval)

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Candles with open times in [from_ms, to_ms), merged over symbols."""
        return merged(
            [self._market.series(symbol, self.interval, from_ms, to_ms) for symbol in self.symbols]
        )

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """Candles for ever, or up to `to_ms`, at the chosen speed."""
        pace = Pace(self._speed)
        start = from_ms
        if cursor:
            start = max(start, min(cursor.get(symbol, start) for symbol in self.symbols))
        while True:
            end = start + SIMULATED_BLOCK * self._step_ms
            for candle in self.history(start, end):
                if candle.open_time_ms <= cursor.get(candle.symbol, -1):
                    continue
                if self._to_ms is not None and candle.open_time_ms >= self._to_ms:
                    return
                yield from pace.wait(candle.close_time_ms, stop)
                if stop.is_set():
                    return
                yield candle
            start = end


def merged(series: Sequence[CandleSeries]) -> Iterator[Candle]:
    """Candles of several series by time, then symbol."""
    held = sorted((s for s in series if len(s)), key=lambda s: s.id.symbol)
    if not held:
        return
    if len(held) == 1:
        yield from held[0]
        return
    times = np.concatenate([s.open_time_ms for s in held])
    owner = np.concatenate([np.full(len(s), i, np.int16) for i, s in enumerate(held)])
    rows = [iter(s) for s in held]
    for turn in owner[np.lexsort((owner, times))]:
        yield next(rows[turn])


def wall_ms() -> int:
    """Return the machine's time in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def utc(time_ms: int) -> str:
    """Return a time as ISO text, UTC, to the minute."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
