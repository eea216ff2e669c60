"""Python's cyclic garbage collector while a session runs: seldom, and over the session's own.

A candle leaves hardly a cycle behind, but every batch that waits for the journal is counted, so
that by default the collector goes through the whole process again and again. The collector is
one for the process: of sessions that overlap, the first sets it and the last sets it back.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG: Final = 50_000
"""Containers made and kept before the young are looked through; Python's own number is 700."""


class _Collector:
    """How many blocks are open, and what the thresholds were before the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before = gc.get_threshold()

    def enter(self) -> None:
        with self._lock:
            if not self._blocks:
                self._before = gc.get_threshold()
                gc.freeze()
                gc.set_threshold(YOUNG, *self._before[1:])
            self._blocks += 1

    def leave(self) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks:
                gc.set_threshold(*self._before)
                gc.unfreeze()


_COLLECTOR: Final = _Collector()


@contextmanager
def seldom() -> Iterator[None]:
    """Leave alone what is there already, and look through the rest seldom, within the block.

    Blocks may be nested, and overlap in threads.
    """
    _COLLECTOR.enter()
    try:
        yield
    finally:
        _COLLECTOR.leave()
