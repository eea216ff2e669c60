"""What the trading process named each candle, read from its journals (read-only).

A journal of an account lies in ``$BOT4_HOME/state/<account>``; journals of replays lie elsewhere
and are not looked at. A runtime may write beside us. Not here: judging (`triggers`).
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.errors import JournalError
from bot4_runtime.domain.events import RegimeNamed
from bot4_runtime.state.reader import JournalReader

JOURNALS: Final = ("journal.sqlite", "journal.json")
"""A journal in SQLite, or a note that says where else it lies."""

Named = dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""By symbol: open times (ms, sorted) and regimes 0-4."""


def live_regimes(home: Path, interval: str, model_sha256: str, from_ms: int = 0) -> Named:
    """Return what a model named live, over all accounts; a candle named twice counts once.

    Args:
        home: BOT4_HOME.
        interval: of the candles.
        model_sha256: of the model; what others named is left out.
        from_ms: least open time.

    Raises:
        JournalError: no journal that is there can be read; one of several is passed over.
    """
    found: dict[str, dict[int, int]] = {}
    read, refused = 0, None
    for folder in sorted(path for path in (home / "state").glob("*") if _has_journal(path)):
        try:
            with JournalReader.open(folder / JOURNALS[0]) as journal:
                for _, event in journal.events(kinds=(RegimeNamed,)):
                    if not isinstance(event, RegimeNamed):
                        continue
                    one = event.estimate
                    if one.interval == interval and one.model_sha256 == model_sha256:
                        found.setdefault(one.symbol, {})[one.open_time_ms] = int(one.regime)
            read += 1
        except JournalError as error:
            refused = error
    if refused is not None and not read:
        raise refused
    return {symbol: _columns(named, from_ms) for symbol, named in sorted(found.items())}


def _has_journal(folder: Path) -> bool:
    return any((folder / name).is_file() for name in JOURNALS)


def _columns(
    named: dict[int, int], from_ms: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    times = sorted(time for time in named if time >= from_ms)
    return np.array(times, dtype=np.int64), np.array([named[t] for t in times], dtype=np.int64)
