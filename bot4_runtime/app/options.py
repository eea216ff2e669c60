"""What a command adds to the settings of one run."""

from dataclasses import dataclass
from typing import Final

DEFAULT_SIMULATED_SPEED: Final = 3600.0
"""One hour of simulated market a second."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a command adds to the settings.

    Attributes:
        source: ``simulated[:SEED]``, ``recorded:DIR``, ``store`` or ``binance``.
        from_ms: open time of the first candle decided on; None for the source's own start.
        to_ms: open times from here on are left out; None for all.
        speed: candle time over wall time; None for as fast as possible.
        accept: trading hash of changed settings the user agrees to, or its first 12 digits.
        held: why no entry may be sent in this run; empty when some may.
    """

    source: str
    from_ms: int | None = None
    to_ms: int | None = None
    speed: float | None = None
    accept: str = ""
    held: str = ""
