"""Candles on which nothing moves are passed over, and that changes nothing."""

from pathlib import Path

import pytest

from bot4_runtime.app import wiring
from bot4_runtime.domain.events import CandleClosed
from bot4_runtime.engine import Engine


class Watched(Engine):
    """Counts how often what is held is looked at."""

    looked = 0

    def _protect(self, *arguments):
        type(self).looked += 1
        super()._protect(*arguments)


class Anxious(Watched):
    """Looks at what is held on every candle."""

    def process(self, candle):
        self._settled.clear()
        return super().process(candle)


def test_what_is_held_is_looked_at_again_only_when_something_moved(
    tmp_path: Path, run_it, journal_of, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = {}
    for kind in (Watched, Anxious):
        kind.looked = 0
        monkeypatch.setattr(wiring, "Engine", kind)
        home = settings.model_copy(update={"home": tmp_path / "home" / kind.__name__})
        run_it(tmp_path / kind.__name__, with_=home)
        events[kind] = journal_of(tmp_path / kind.__name__)[1:-1]  # the session's own differ
    assert events[Watched] == events[Anxious]
    assert sum(isinstance(event, CandleClosed) for event in events[Watched]) > 1_000
    assert 0 < Watched.looked < 0.7 * Anxious.looked
