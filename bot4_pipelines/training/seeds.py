"""How much a training's numbers depend on chance: the same recipe from several seeds.

Nothing is archived: which model trades is never chosen among seeds, since the best of several
would flatter the recipe.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any, Final

from bot4_pipelines.progress import Report
from bot4_pipelines.training.candidates import Material, learn
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.regime.hmm import HmmParameters

NUMBERS: Final = ("accuracy", "balanced_accuracy", "macro_f1", "ece")
SPLITS: Final = ("train", "validation", "test")


def seed_spread(
    material: Material,
    params: HmmParameters,
    settings: LstmSettings,
    count: int,
    report: Report,
) -> dict[str, Any]:
    """Train once a seed, from that of the settings upwards, and say how the numbers spread.

    Args:
        material: the candles.
        params: the HMM.
        settings: the schedule.
        count: seeds, at least 2.
        report: told of the progress.

    Returns:
        ``runs``: a seed's ``seed``, ``seconds`` (wall), ``cpu_seconds`` (of all threads) and a
        number for each of ``<split>_<number>``; ``numbers``: for each of these ``mean``,
        ``deviation`` (of a sample), ``least`` and ``largest``.

    Raises:
        ConfigError: fewer than 2 seeds.
        DataError: too few candles, or a split without any.
    """
    if count < 2:
        raise ConfigError(f"a spread needs at least 2 seeds; got {count}")
    runs = []
    for number in range(count):
        seeded = replace(settings, seed=settings.seed + number)

        def tell(message: str, share: float, number: int = number) -> None:
            report(f"seed {number + 1} of {count}: {message}", (number + share) / count)

        began, worked = time.monotonic(), time.process_time()
        metrics = learn(material, params, seeded, tell).metrics
        runs.append(
            {
                "seed": seeded.seed,
                "seconds": round(time.monotonic() - began, 1),
                "cpu_seconds": round(time.process_time() - worked, 1),
                **{
                    f"{split}_{name}": metrics[split][name] for split in SPLITS for name in NUMBERS
                },
            }
        )
    report("done", 1.0)
    names = [name for name in runs[0] if name != "seed"]
    return {
        "runs": runs,
        "numbers": {name: spread([run[name] for run in runs]) for name in names},
    }


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return mean, sample deviation, least and largest; None when a value is not known."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return dict.fromkeys(("mean", "deviation", "least", "largest"))
    return {
        "mean": fmean(known), "deviation": stdev(known), "least": min(known),
        "largest": max(known),
    }  # fmt: skip
