"""How far a step is, told to whoever listens: a progress bar, Dagster's log, or nobody.

A step calls ``report(message, share)``; the share runs from 0 to 1. The command line listens
through `listening`, because Dagster's in-process runs share its thread.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[str, float], None]
"""Called as ``report(message, share)``; must not raise."""

Listener = Callable[[str, str, float], None]
"""Called as ``listener(step, message, share)``."""

_LISTENER: ContextVar[Listener | None] = ContextVar("bot4_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the progress of steps in this thread to a listener."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def reporter(step: str, log: Callable[[str], None]) -> Report:
    """Return where a step reports to: the listener if there is one, else ten lines of a log."""
    listener = _LISTENER.get()
    if listener is not None:
        return lambda message, share: listener(step, message, share)
    told: list[tuple[str, int]] = []

    def report(message: str, share: float) -> None:
        line = (message.partition(":")[0], int(share * 10))
        if line not in told:
            told.append(line)
            log(f"{share:4.0%} {message}")

    return report
