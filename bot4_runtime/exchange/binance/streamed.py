"""Closed candles as Binance streams them, with its REST beside: for gaps, doubts and silence.

A candle is taken when its stream says that it closed. What is missing before it, and a candle that
does not come although it is due, is asked for over REST, so that a dead stream costs seconds and
no candle. REST may answer late or never: it is asked at most once between two looks of the reader,
and after a failure by nobody before its pause is over. Each streamed candle is compared with
REST's afterwards; a stream that told another one is not believed again until REST has confirmed
it.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

import structlog

from bot4_runtime.clock import NS_PER_MS, Clock
from bot4_runtime.domain.candle import Candle, Market, Origin, interval_ms
from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.exchange.binance.candle_feed import ClosedCandles

LOOK_AROUND_S: Final = 0.25
"""How long to wait at most before the reader may look around."""
GRACE_MS: Final = 3_000
"""How long after a close a candle is waited for before REST is asked."""
VERIFY_MS: Final = 5_000
"""How long after a close REST is asked to confirm a candle."""
FUTURE_MS: Final = 60_000
"""How far ahead of our clock a close may lie."""
PATIENCE_S: Final = 1.0
"""How long the first symbols of a close wait for the others."""
ASK_AGAIN_S: Final = 2.0
LONGEST_PAUSE_S: Final = 60.0
UNCONFIRMED_MOST: Final = 1_000
"""Candles that may wait for REST to confirm them; the oldest go unconfirmed."""


COUNTED: Final = (
    "streamed",
    "asked",
    "repeated",
    "impossible_time",
    "confirmed",
    "contradicted",
)


class RestCandles(Protocol):
    """Closed candles over REST."""

    label: str
    origin: Origin
    market: Market
    interval: str
    symbols: tuple[str, ...]

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Closed candles with open times in [from_ms, to_ms), merged over symbols."""
        ...

    def closed(self, symbol: str, from_ms: int) -> list[Candle]:
        """Closed candles of a symbol from an open time on; raises VenueUnreachable."""
        ...


class StreamedSource:
    """Closed candles of kline streams.

    Args:
        rest: the same candles over REST.
        feed: the streams; started and closed by `stream`.
        clock: wall clock; tests pass their own.
        timer: seconds of a clock that never jumps.

    Attributes:
        counts: candles by where they came from (``streamed``, ``asked``), ``repeated``,
            ``impossible_time``, ``confirmed``, ``contradicted``.
    """

    start_ms: int | None = None

    def __init__(
        self,
        rest: RestCandles,
        feed: ClosedCandles,
        clock: Clock,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label = rest.label
        self.origin = rest.origin
        self.market = rest.market
        self.interval = rest.interval
        self.symbols = rest.symbols
        self.counts: Counter[str] = Counter()
        self._rest = rest
        self._feed = feed
        self._clock = clock
        self._timer = timer
        self._step_ms = interval_ms(rest.interval)
        self._next_ms: dict[str, int] = {}
        self._ready: dict[tuple[int, str], Candle] = {}
        self._ready_since_s = 0.0
        self._unconfirmed: deque[Candle] = deque(maxlen=UNCONFIRMED_MOST)
        self._doubted: dict[str, Candle | None] = {}
        self._late: deque[str] = deque()
        """Symbols of the present round that are still to be asked for."""
        self._asks = 0
        self._ask_at_s = 0.0
        self._silent_until_s = 0.0
        self._pause_s = ASK_AGAIN_S
        self._log = structlog.get_logger("streamed")

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Return REST's history."""
        return self._rest.history(from_ms, to_ms)

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """Candles as they close, each once and without gaps, until `stop` is set."""
        for symbol in self.symbols:
            start = max(from_ms, cursor.get(symbol, from_ms - 1) + 1)
            self._next_ms[symbol] = -(-start // self._step_ms) * self._step_ms
        self._feed.start()
        try:
            while not stop.is_set():
                busy = self._ready or self._late
                candle = self._feed.take(0.01 if busy else LOOK_AROUND_S)
                asks = self._asks
                if candle is not None:
                    self._take(candle)
                if self._asks == asks:
                    self._ask_for_what_is_late()
                if self._complete():
                    yield from self._release()
                    continue
                if candle is None and self._asks == asks:
                    self._confirm()
                yield None
        finally:
            self._feed.close()

    def counters(self) -> dict[str, int]:
        """Return what happened to candles and lines so far, for metrics."""
        return {name: self.counts[name] for name in COUNTED} | dict(self._feed.counters())

    # ------------------------------------------------------------------------ arriving
    def _take(self, candle: Candle) -> None:
        """Keep a streamed candle that is the next one, filling what is missing before it."""
        symbol, open_ms = candle.symbol, candle.open_time_ms
        if symbol not in self._next_ms or candle.interval != self.interval:
            return
        if open_ms % self._step_ms or candle.close_time_ms > self._now_ms() + FUTURE_MS:
            self.counts["impossible_time"] += 1
            self._log.error("candle refused", why=f"{symbol} at {open_ms} cannot have closed")
        elif open_ms < self._next_ms[symbol]:
            self.counts["repeated"] += 1
        elif symbol in self._doubted:
            self._doubted[symbol] = candle
        elif open_ms == self._next_ms[symbol] or self._fill(symbol, open_ms):
            self.counts["streamed"] += 1
            self._keep(candle)
            self._unconfirmed.append(candle)

    def _fill(self, symbol: str, before_ms: int) -> bool:
        """Ask for what is missing before a candle; False when there is no answer."""
        if self._timer() < self._silent_until_s:
            return False  # it is asked for again when it is late
        missing = self._ask(symbol, self._next_ms[symbol])
        if missing is None:
            return False
        for candle in missing:
            if candle.open_time_ms < before_ms:
                self.counts["asked"] += 1
                self._keep(candle)
        return True

    def _keep(self, candle: Candle) -> None:
        if not self._ready:
            self._ready_since_s = self._timer()
        self._ready[candle.open_time_ms, candle.symbol] = candle
        self._next_ms[candle.symbol] = candle.open_time_ms + self._step_ms

    def _ask_for_what_is_late(self) -> None:
        """Ask for one symbol whose candle is late; a round asks each once."""
        if not self._late and self._timer() >= self._ask_at_s:
            self._late.extend(symbol for symbol in self._next_ms if self._is_late(symbol))
        while self._late:
            symbol = self._late.popleft()
            if self._is_late(symbol):  # its stream may have told it meanwhile
                self._ask_for_late(symbol)
                return

    def _is_late(self, symbol: str) -> bool:
        grace_ms = 0 if symbol in self._doubted else GRACE_MS
        return self._next_ms[symbol] + self._step_ms + grace_ms <= self._now_ms()

    def _ask_for_late(self, symbol: str) -> None:
        for candle in self._ask(symbol, self._next_ms[symbol]) or ():
            self.counts["asked"] += 1
            self._keep(candle)
            if self._doubted.get(symbol) == candle:
                del self._doubted[symbol]
                self._log.info("stream believed again", symbol=symbol)

    def _ask(self, symbol: str, from_ms: int) -> list[Candle] | None:
        """Ask REST; None when there is no answer, and the longer the pauses the more often."""
        self._asks += 1
        try:
            answer = self._rest.closed(symbol, from_ms)
        except VenueUnreachable:
            self._late.clear()
            self._ask_at_s = self._silent_until_s = self._timer() + self._pause_s
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
            return None
        self._pause_s = ASK_AGAIN_S
        self._ask_at_s = self._timer() + ASK_AGAIN_S
        return answer

    # ------------------------------------------------------------------------- leaving
    def _complete(self) -> bool:
        """Tell whether what is ready can be released: all symbols are there, or waited for.

        A round of questions is waited for, so that what it brings comes in order.
        """
        if not self._ready or self._late:
            return False
        newest = max(open_ms for open_ms, _ in self._ready)
        return (
            all(next_ms > newest for next_ms in self._next_ms.values())
            or self._timer() - self._ready_since_s >= PATIENCE_S
        )

    def _release(self) -> Iterator[Candle]:
        ready, self._ready = self._ready, {}
        for key in sorted(ready):
            yield ready[key]

    # ----------------------------------------------------------------------- confirming
    def _confirm(self) -> None:
        """Compare one streamed candle with REST's, once REST surely has it."""
        if not self._unconfirmed or self._timer() < self._ask_at_s:
            return
        told = self._unconfirmed[0]
        if told.close_time_ms + VERIFY_MS > self._now_ms():
            return
        answer = self._ask(told.symbol, told.open_time_ms)
        if answer is None:
            return
        shown = {candle.open_time_ms: candle for candle in answer}
        if not shown:
            return  # REST does not show it yet
        self._unconfirmed.popleft()
        if shown.get(told.open_time_ms) == told:
            self.counts["confirmed"] += 1
            return
        self.counts["contradicted"] += 1
        self._doubted[told.symbol] = None
        self._log.error(
            "REST contradicts the stream: its candles are taken from now on",
            symbol=told.symbol,
            streamed=str(told),
            asked=str(shown.get(told.open_time_ms)),
        )

    def _now_ms(self) -> int:
        return self._clock.now_ns() // NS_PER_MS
