"""Waiting for a venue that does not answer yet, or wants silence, before a run has begun.

Once a run has begun its parts wait by themselves. Only what may pass by itself is waited for.
"""

import random
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from bot4_runtime.domain.errors import VenueUnreachable

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0

Answer = TypeVar("Answer")


def patiently(
    ask: Callable[[], Answer], stop: threading.Event, on_wait: Callable[[str], None] | None
) -> Answer | None:
    """Ask until there is an answer, with pauses that grow to a minute.

    Args:
        ask: raises VenueUnreachable while there is none.
        stop: ends the waiting at once.
        on_wait: told why, and for how long, before each pause.

    Returns:
        The answer; None when `stop` was set first.
    """
    pause_s = FIRST_PAUSE_S
    while not stop.is_set():
        try:
            return ask()
        except VenueUnreachable as error:
            wait_s = pause_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
            structlog.get_logger("start").warning("waiting for the venue", why=str(error))
            if on_wait is not None:
                on_wait(f"{error}. Asked again in {wait_s:.0f} s; Ctrl-C ends it.")
            stop.wait(wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
    return None
