"""Python's cyclic garbage collector while a session runs: seldom, and over the session's own.

A candle leaves hardly a cycle behind, but every batch that waits for the journal is counted, so
that by default the collector goes through the whole process again and again.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG: Final = 50_000
"""Containers made and kept before the young are looked through; Python's own number is 700."""


@contextmanager
def seldom() -> Iterator[None]:
    """Leave alone what is there already, and look through the rest seldom, within the block."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
