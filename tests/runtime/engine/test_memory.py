"""A run holds what it keeps and no more, however long it is."""

import gc
import threading
import tracemalloc
from pathlib import Path

import pytest

from bot4_runtime import app, engine
from bot4_runtime.settings import Settings
from bot4_runtime.state import book, trading_state, venue_account

CANDLES = 4_500
LEAK = 40
"""Bytes an event that is kept by mistake would cost at the very least."""


def test_memory_does_not_grow_once_the_state_holds_what_it_keeps(
    market: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (book, trading_state, engine):
        monkeypatch.setattr(module, "KEPT", 20)
    monkeypatch.setattr(venue_account, "_NAMES_KEPT", 20)
    held: list[tuple[int, int]] = []

    def look(done: int, _: object) -> None:
        if done % 400 == 0:
            store = built.store
            store._journal.wait_durable(store.state.seq)  # nothing waits for the disk any more
            gc.collect()
            held.append((store.state.seq, tracemalloc.get_traced_memory()[0]))

    options = app.RunOptions(source=f"recorded:{market}")
    built = app.build(
        settings, options, mode="replay", folder=tmp_path / "journal", on_progress=look
    )
    tracemalloc.start()
    try:
        built.execute(threading.Event())
    finally:
        tracemalloc.stop()
    late = held[len(held) // 2 :]
    events = late[-1][0] - late[0][0]
    assert events > 1_000
    assert late[-1][1] - late[0][1] < LEAK * events
