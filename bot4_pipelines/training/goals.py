"""What models should reach beyond their gates; missing a goal is told and blocks nothing."""

from collections.abc import Mapping
from typing import Final

from bot4_runtime.regime.manifest import GateVerdict, Metrics, ModelKind

ACCURACY: Final = 0.945
LEAD: Final = {"hmm_filter": 0.03, "static_cuts": 0.025}
"""By how much accuracy should be above a baseline's."""
BALANCED: Final = 0.94
CALIBRATION: Final = 0.01
OVERFIT: Final = 0.015
"""By how much training accuracy may be above that of validation."""
FILTER: Final = 0.90
LOOK_AHEAD: Final = 0.95
REFITS: Final[Mapping[str, float]] = {"least_refit_agreement": 0.90, "mean_refit_agreement": 0.95}
"""How alike an HMM fitted on other years and symbols should name validation in hindsight."""


def judge_goals(kind: ModelKind, metrics: Metrics) -> list[GateVerdict]:
    """Hold a model's recorded numbers against the goals; a missing number misses."""

    def known(section: str, name: str) -> float | None:
        return metrics.get(section, {}).get(name)

    verdicts = []
    if kind is ModelKind.HMM:
        for split in ("validation", "test"):
            looked = known(f"hmm_lookahead_{split}", "accuracy")
            verdicts += [
                _least(f"{split} accuracy", known(split, "accuracy"), FILTER),
                _least(f"{split} look-ahead accuracy", looked, LOOK_AHEAD),
            ]
        return verdicts + [
            _least(name.replace("_", " "), known("definition", name), least)
            for name, least in REFITS.items()
        ]
    for split in ("validation", "test"):
        verdicts += [
            _least(f"{split} accuracy", known(split, "accuracy"), ACCURACY),
            *(
                _least(f"{split} lead over {name}", known(f"lead_{split}", name), least)
                for name, least in LEAD.items()
            ),
            _least(f"{split} balanced_accuracy", known(split, "balanced_accuracy"), BALANCED),
            _least(f"{split} macro_f1", known(split, "macro_f1"), BALANCED),
            _most(f"{split} ece", known(split, "ece"), CALIBRATION),
        ]
    train, validation = (known(split, "accuracy") for split in ("train", "validation"))
    gap = None if train is None or validation is None else train - validation
    return [*verdicts, _most("train minus validation accuracy", gap, OVERFIT)]


def _least(name: str, value: float | None, bound: float) -> GateVerdict:
    passed = value is not None and value >= bound
    return GateVerdict(name=name, passed=passed, value=value, threshold=bound, rule=">=")


def _most(name: str, value: float | None, bound: float) -> GateVerdict:
    passed = value is not None and value <= bound
    return GateVerdict(name=name, passed=passed, value=value, threshold=bound, rule="<=")
