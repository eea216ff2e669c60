"""A beat between candles: a waiting source, read by a thread, so that its reader never waits long.

A session at a venue outside the process looks around many times a candle (user stream,
reconciliation, operator); sources that block between candles are wrapped in this.
"""

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from bot4_runtime.domain.candle import Candle, Market, Origin
from bot4_runtime.sources import CandleSource

BEAT_S: Final = 0.25
_AHEAD: Final = 1_024
"""Candles read ahead at most: those missed while the process was down."""
_ROOM_S: Final = 0.01
_Arrived = queue.Queue[Candle | Exception | None]


class Pulsed:
    """A candle source that yields None whenever nothing came for a beat.

    Args:
        source: may block between candles as long as it likes.
        beat_s: longest silence, in seconds.
    """

    def __init__(self, source: CandleSource, beat_s: float = BEAT_S) -> None:
        self._source = source
        self._beat_s = beat_s
        self.label: str = source.label
        self.origin: Origin = source.origin
        self.market: Market = source.market
        self.interval: str = source.interval
        self.symbols: tuple[str, ...] = source.symbols
        self.start_ms: int | None = source.start_ms

    def history(self, from_ms: int, to_ms: int) -> Iterator[Candle]:
        """Return the source's own history."""
        return self._source.history(from_ms, to_ms)

    def stream(
        self, from_ms: int, cursor: Mapping[str, int], stop: threading.Event
    ) -> Iterator[Candle | None]:
        """Yield the source's candles as they come, and None between them.

        What the source raises is raised here.
        """
        arrived: _Arrived = queue.Queue(_AHEAD)
        ended = threading.Event()
        reader = threading.Thread(
            target=self._read, args=(arrived, from_ms, cursor, ended), name="candles", daemon=True
        )
        reader.start()
        try:
            while not stop.is_set():
                try:
                    item = arrived.get(timeout=self._beat_s)
                except queue.Empty:
                    yield None
                    continue
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    return
                yield item
        finally:
            ended.set()
            while reader.is_alive():  # it may be waiting for room
                with suppress(queue.Empty):
                    arrived.get_nowait()
                reader.join(_ROOM_S)

    def _read(
        self,
        arrived: _Arrived,
        from_ms: int,
        cursor: Mapping[str, int],
        ended: threading.Event,
    ) -> None:
        last: Exception | None = None
        try:
            for candle in self._source.stream(from_ms, cursor, ended):
                if candle is not None:
                    arrived.put(candle)
                if ended.is_set():
                    break
        except Exception as error:  # noqa: BLE001  handed to the reader, who raises it
            last = error
        arrived.put(last)
