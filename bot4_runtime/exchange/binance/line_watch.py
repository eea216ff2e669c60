"""When a line counts as dead, and how often one may be opened. Times are a monotonic clock's.

Two watchdogs: of the line, which says nothing at all, not even pongs; and of each stream, which
says nothing although the line lives. A stream's patience follows from what it was like so far.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, of a monotonic clock.

    Attributes:
        check: between two looks of the watchdogs.
        ping: of silence after which a pong is asked for.
        silence: of silence after which the line is dead.
        stream_first: a stream may take to begin.
        stream_least: a stream may be silent in any case.
        stream_most: no stream may be silent for longer.
        reply: the answer to a subscription may take.
        lifetime: after which another line takes over; Binance ends them after 24 h.
        overlap: both lines are read for.
        first_pause: before connecting again, doubled each time up to `longest_pause`.
        steady: a line must have lived for, so that pauses are short again.
    """

    check: float = 1.0
    ping: float = 15.0
    silence: float = 45.0
    stream_first: float = 60.0
    stream_least: float = 10.0
    stream_most: float = 300.0
    reply: float = 10.0
    lifetime: float = 23 * 3600.0
    overlap: float = 1.0
    first_pause: float = 0.2
    longest_pause: float = 30.0
    steady: float = 60.0


KNOWN_AFTER: Final = 8
"""Events after which it is known what a stream is like."""
STEADY_GAPS: Final = 5.0
"""A stream may be silent for so many times its longest gap of late."""
FORGETTING: Final = 0.9995
"""How much of that gap is remembered from one look to the next."""


class StreamWatch:
    """Tells which of a line's streams fell silent.

    Args:
        now: when the line was opened.
        patience: seconds a stream may take to begin, by name; doubled by each line on which it
            fell silent, so that a market in which little happens costs few lines. Shared by the
            lines of a route.
    """

    def __init__(
        self, streams: Sequence[str], timing: Timing, now: float, patience: dict[str, float]
    ) -> None:
        self._timing = timing
        self._patience = patience
        self._heard = dict.fromkeys(streams, now)
        self._longest = dict.fromkeys(streams, 0.0)
        self._times = dict.fromkeys(streams, 0)

    def heard(self, stream: str, now: float) -> None:
        """Note that a stream brought something; one that is not ours is left alone."""
        before = self._heard.get(stream)
        if before is None:
            return
        self._longest[stream] = max(self._longest[stream], now - before)
        self._heard[stream] = now
        self._times[stream] += 1

    def silent(self, now: float) -> str:
        """Return a stream that should have said something; "" when there is none."""
        timing = self._timing
        for stream, heard in self._heard.items():
            longest = self._longest[stream] = self._longest[stream] * FORGETTING
            patience = self._patience.get(stream, timing.stream_first)
            if self._times[stream] >= KNOWN_AFTER:
                patience = max(STEADY_GAPS * longest, timing.stream_least)
            if now - heard > min(patience, timing.stream_most):
                longer = max(2 * patience, timing.stream_first)
                self._patience[stream] = min(longer, timing.stream_most)
                return stream
        return ""


class ConnectPace:
    """Keeps within the connections an address may open.

    Args:
        most: connections in a window; Binance lets an IP have 300 in five minutes.
        window_s: its length in seconds.
    """

    def __init__(self, most: int = 150, window_s: float = 300.0) -> None:
        self._opened: deque[float] = deque(maxlen=most)
        self._window_s = window_s

    def wait_s(self, now: float) -> float:
        """Return how long to wait before the next connection; 0 counts as opening one."""
        opened = self._opened
        if len(opened) == opened.maxlen and now - opened[0] < self._window_s:
            return self._window_s - (now - opened[0])
        opened.append(now)
        return 0.0


class Pauses:
    """Growing pauses between attempts, with jitter, without an end."""

    def __init__(self, timing: Timing, rng: random.Random) -> None:
        self._timing = timing
        self._rng = rng
        self._next_s = timing.first_pause

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        pause_s = self._next_s * self._rng.uniform(0.5, 1.5)
        self._next_s = min(self._next_s * 2, self._timing.longest_pause)
        return pause_s

    def short_again(self) -> None:
        """Begin with short ones: a line held."""
        self._next_s = self._timing.first_pause
