"""How long and how the LSTM learns: two named schedules over one recipe, for any window.

``BOT4_LOOKBACK`` says how many candles a model to be trained reads; what is trained already says
so itself, in its manifest.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.regime.manifest import LEAST_WINDOW, MOST_WINDOW, WINDOW


class Schedule(StrEnum):
    """How long the LSTM learns.

    FULL is for a model that is traded. QUICK, a quarter of the work, passes the gates on real
    candles but stays below the goals: for a first look.
    """

    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True)
class LstmSettings:
    """How long and how the network learns; without arguments, the quick schedule.

    Attributes:
        iterations: steps of `batch` segments.
        shards: parts of a batch whose gradients are taken apart and added; a core each where
            there are so many. They belong to the recipe: the weights do not depend on cores.
        segment: candles of a training segment; the loss counts from candle `warm` on.
        window: candles the network is shown when it is used.
        check_every: iterations between looks at the validation windows.
        check_from: share of the iterations before the first look.
        patience: looks without progress after which training stops.
        check_windows: validation windows looked at.
        soft_paths: simulated futures a training candle; 0 trains on hard labels.
        soft_horizon: candles a simulated future lasts.
        soft_share: weight of the simulated share in the target.
        averaging: decay of the weights' moving average.
        rise: share of the iterations in which the learning rate rises.
        device: ``auto`` takes CUDA or MPS where there is one, else the CPU.
    """

    iterations: int = 1_000
    batch: int = 16
    shards: int = 2
    segment: int = 80
    warm: int = 16
    window: int = WINDOW
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 4e-3
    rise: float = 0.2
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    averaging: float = 0.995
    check_every: int = 250
    check_from: float = 0.5
    patience: int = 3
    check_windows: int = 5_000
    soft_paths: int = 16
    soft_horizon: int = 24
    soft_share: float = 0.75
    seed: int = 20_180_101
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse settings that cannot train.

        Raises:
            ConfigError: a count is not positive or the loss would count no candle.
        """
        counts = (
            self.iterations, self.batch, self.shards, self.window, self.check_every,
            self.check_windows,
        )  # fmt: skip
        if min(counts) < 1 or not 0 <= self.warm < self.segment:
            raise ConfigError(
                "LSTM settings need positive iterations, batch, shards, window, check_every and "
                f"check_windows, and 0 <= warm < segment; got {self}"
            )

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        *,
        iterations: int = 0,
        continued: bool = False,
        window: int = WINDOW,
    ) -> "LstmSettings":
        """Return a named schedule.

        Args:
            schedule: which.
            iterations: other than the schedule's own; 0 keeps them.
            continued: for weights that have learnt already: a quarter of the learning rate.
            window: candles the network is shown when it is used.
        """
        settings = cls().reading(window)
        if schedule is Schedule.FULL:
            settings = replace(settings, iterations=3_000, batch=24, check_every=500)
        if continued:
            settings = replace(settings, learning_rate=0.25 * settings.learning_rate)
        return replace(settings, iterations=iterations) if iterations else settings

    def reading(self, window: int) -> "LstmSettings":
        """Return the same recipe for a network that is shown `window` candles.

        The place at which it will be asked lies inside the segments it learns from, as far before
        their end as at 50 candles, and past the candles whose loss does not count.
        """
        return replace(
            self,
            window=window,
            segment=max(self.segment, self.segment + window - self.window),
            warm=self.warm * window // self.window,
        )


def wanted_window(environment: Mapping[str, str] | None = None, *, asked: int = 0) -> int:
    """Read how many candles a model to be trained is to read.

    Args:
        environment: ``BOT4_LOOKBACK``; the process's when None.
        asked: for this training alone; 0 leaves it to the environment.

    Raises:
        ConfigError: it is no number that can be.
    """
    env = os.environ if environment is None else environment
    said = str(asked) if asked else env.get("BOT4_LOOKBACK", "").strip()
    if not said:
        return WINDOW
    window = int(said) if said.isascii() and said.isdecimal() and len(said) <= 4 else 0
    if not LEAST_WINDOW <= window <= MOST_WINDOW:
        raise ConfigError(
            f"BOT4_LOOKBACK (--lookback, lookback in Dagster) is {said!r}; expected a whole "
            f"number of candles from {LEAST_WINDOW} to {MOST_WINDOW} that the LSTM reads: choose "
            f"one of them, or leave it out for {WINDOW}"
        )
    return window
