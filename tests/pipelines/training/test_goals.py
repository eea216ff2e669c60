"""Goals are judged from an LSTM's recorded numbers; what is not known is missed."""

import pytest

from bot4_pipelines.training.goals import judge_goals


def metrics():
    split = {"accuracy": 0.945, "balanced_accuracy": 0.94, "macro_f1": 0.94, "ece": 0.01}
    lead = {"hmm_filter": 0.03, "static_cuts": 0.025}
    return {
        "train": {"accuracy": 0.9599},
        **{name: dict(split) for name in ("validation", "test")},
        **{f"lead_{name}": dict(lead) for name in ("validation", "test")},
    }


def test_numbers_on_their_bounds_reach_every_goal() -> None:
    verdicts = judge_goals(metrics())
    assert len(verdicts) == 13
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("test", "accuracy", 0.9449),
        ("lead_test", "hmm_filter", 0.0299),
        ("lead_validation", "static_cuts", 0.0249),
        ("validation", "balanced_accuracy", 0.9399),
        ("test", "macro_f1", 0.9399),
        ("test", "ece", 0.0101),
        ("train", "accuracy", 0.9601),
    ],
)
def test_a_number_beyond_its_bound_or_missing_misses_its_goal_alone(section, name, value) -> None:
    for changed in (value, None):
        numbers = metrics()
        numbers[section][name] = changed
        (missed,) = [verdict for verdict in judge_goals(numbers) if not verdict.passed]
        assert section.removeprefix("lead_") in missed.name
    del numbers[section]
    assert not all(verdict.passed for verdict in judge_goals(numbers))
