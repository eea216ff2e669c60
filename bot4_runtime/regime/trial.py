"""Two pairs of models side by side: a new one before it is adopted, the former one after.

The detector that trades is asked as always; a second one sees the same candles, and what both
answer is counted: answers that are none, the regimes they agree on, the time they take. Counts
are of candles, latency of the wall clock. They live in memory: a restart begins to count anew,
and a replay keeps the pair it began with and counts nothing. What follows from the counts is
`bot4_runtime.app.promoted`'s, which journals it.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.regime import HmmMode, RegimeEstimate
from bot4_runtime.features.incremental import FeatureRow
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.pair import ModelPair

LATENCIES: Final = 9
"""Answers whose median is a pair's latency: one slow answer of a busy machine is none."""
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class TrialBounds:
    """What a pair must keep to.

    Attributes:
        candles: closing times that a new pair is tried on before it trades, and that the former
            one is kept beside it afterwards, counted where both answered; 0 adopts it at once.
        least_agreement: share of the answers that must name the same regime.
        latency_ms: most milliseconds an answer may take, in the median of `LATENCIES`.
    """

    candles: int = 24
    least_agreement: float = 0.6
    latency_ms: float = 100.0


class _Clocked:
    """One detector's answers: how many were none, and how long they took."""

    def __init__(self) -> None:
        self.faults = 0
        self.why = ""
        self._took_ns: deque[int] = deque(maxlen=LATENCIES)

    def took(self, nanoseconds: int) -> None:
        self._took_ns.append(nanoseconds)

    def failed(self, why: str) -> None:
        self.faults += 1
        self.why = why

    @property
    def latency_ms(self) -> float | None:
        """Median of the last answers; None before there are enough."""
        if len(self._took_ns) < LATENCIES:
            return None
        return statistics.median(self._took_ns) / _NS_PER_MS

    def complaint(self, bounds: TrialBounds) -> str:
        """Say what is wrong with a pair by itself; empty when nothing is."""
        if self.faults:
            return f"{self.faults} of its answers are no distribution ({self.why})"
        latency = self.latency_ms
        if latency is not None and not latency <= bounds.latency_ms:
            return (
                f"its answers take {latency:.3g} ms in the median; expected at most "
                f"{bounds.latency_ms:g}"
            )
        return ""


class WatchedDetector(RegimeDetector):
    """A detector that can run a second pair beside the one it answers by.

    Args:
        pair: what is asked.
        bounds: see there.
        timer: nanoseconds of a clock that never jumps.
        mode: how the HMM names regimes.
    """

    def __init__(
        self,
        pair: ModelPair,
        bounds: TrialBounds | None = None,
        timer: Callable[[], int] = time.perf_counter_ns,
        *,
        mode: HmmMode = HmmMode.FILTER,
    ) -> None:
        super().__init__(pair, mode)
        self.bounds: Final = bounds or TrialBounds()
        self._timer = timer
        self._own = _Clocked()
        self._guarded = False
        self.silent = False
        """Whether no regime is named, whatever the pair answers."""
        self.run_beside(None)

    def run_beside(self, beside: RegimeDetector | None) -> None:
        """Show another detector, a fork of this one, the same candles from now on; None: none."""
        self._beside = beside
        self._second = _Clocked()
        self._times: deque[list[int]] = deque(maxlen=max(1, self.bounds.candles))
        self._last_ms = -1
        self.candles = 0
        """Closing times that both pairs have answered on."""

    # ---------------------------------------------------------------- two pairs
    def swap(self, pair: ModelPair) -> None:
        """Ask another pair from the next candle on; windows are kept, its answers counted anew."""
        super().swap(pair)
        self._own = _Clocked()
        self.silent = False
        self.run_beside(None)

    def silence(self) -> None:
        """Name no regime until another pair is swapped in; windows are carried on."""
        self.silent = True
        self.guard(on=True)
        self.run_beside(None)

    def guard(self, *, on: bool) -> None:
        """Count an error inside the models as an answer that is none: there is a way back."""
        self._guarded = on

    @property
    def beside(self) -> ModelPair | None:
        """The pair that runs beside; None when none does."""
        return self._beside.pair if self._beside is not None else None

    @property
    def agreement(self) -> float | None:
        """Share of alike answers in the last closing times; None before any was compared."""
        compared = sum(both for _, both in self._times)
        return sum(alike for alike, _ in self._times) / compared if compared else None

    @property
    def latency_ms(self) -> float | None:
        """Of the second pair, or of the only one."""
        return (self._second if self._beside is not None else self._own).latency_ms

    def complaint(self) -> str:
        """Say what is wrong with the pair that trades, by itself."""
        return self._own.complaint(self.bounds)

    def complaint_beside(self) -> str:
        """Say what is wrong with the second pair, by itself."""
        return self._second.complaint(self.bounds)

    def disagreement(self) -> str:
        """Say that the two pairs name too little alike, once enough was compared."""
        found = self.agreement
        if found is None or len(self._times) < self.bounds.candles:
            return ""
        if found >= self.bounds.least_agreement:
            return ""
        return (
            f"in the last {len(self._times)} closing times it named {found:.0%} of the regimes "
            f"as the other pair did; expected at least {self.bounds.least_agreement:.0%}"
        )

    # ------------------------------------------------------------------ candles
    def warm(self, candle: Candle, row: FeatureRow) -> None:
        """Take a candle of the past into memory without naming it."""
        super().warm(candle, row)
        if self._beside is not None:
            self._beside.warm(candle, row)

    def update(self, candle: Candle, row: FeatureRow) -> RegimeEstimate | None:
        """Name the regime of a candle; the second pair names it too, and is compared."""
        faults, began = self.faults, self._timer()
        try:
            estimate = super().update(candle, row)
        except Exception as error:
            if not self._guarded:
                raise
            self._own.failed(f"{type(error).__name__}: {error}")
            estimate = None
        else:
            if estimate is not None:
                self._own.took(self._timer() - began)
            elif self.faults > faults:
                self._own.failed(f"{candle.symbol} at {candle.open_time_ms}")
        if self._beside is not None:
            self._compare(self._beside, candle, row, estimate)
        return None if self.silent else estimate

    def _compare(
        self,
        beside: RegimeDetector,
        candle: Candle,
        row: FeatureRow,
        estimate: RegimeEstimate | None,
    ) -> None:
        faults, began = beside.faults, self._timer()
        try:
            other = beside.update(candle, row)
        except Exception as error:  # noqa: BLE001 - what only looks on must not stop what trades
            self._second.failed(f"{type(error).__name__}: {error}")
            return
        if other is None:
            if beside.faults > faults:
                self._second.failed(f"{candle.symbol} at {candle.open_time_ms}")
            return
        self._second.took(self._timer() - began)
        if estimate is None:
            return  # there is nothing to compare with
        if candle.open_time_ms > self._last_ms:
            self._last_ms = candle.open_time_ms
            self._times.append([0, 0])
            self.candles += 1
        self._times[-1][0] += estimate.regime is other.regime
        self._times[-1][1] += 1
