"""Goals are judged from a model's recorded numbers; what is not known is missed."""

import pytest

from bot4_pipelines.training.goals import judge_goals
from bot4_runtime.regime.manifest import ModelKind


def lstm():
    split = {"accuracy": 0.945, "balanced_accuracy": 0.94, "macro_f1": 0.94, "ece": 0.01}
    lead = {"hmm_filter": 0.03, "static_cuts": 0.025}
    return {
        "train": {"accuracy": 0.9599},
        **{name: dict(split) for name in ("validation", "test")},
        **{f"lead_{name}": dict(lead) for name in ("validation", "test")},
    }


def hmm():
    return {
        **{name: {"accuracy": 0.90} for name in ("validation", "test")},
        **{f"hmm_lookahead_{name}": {"accuracy": 0.95} for name in ("validation", "test")},
        "definition": {"least_refit_agreement": 0.90, "mean_refit_agreement": 0.95},
    }


NUMBERS = {ModelKind.LSTM: lstm, ModelKind.HMM: hmm}


@pytest.mark.parametrize(("kind", "count"), [(ModelKind.LSTM, 13), (ModelKind.HMM, 6)])
def test_numbers_on_their_bounds_reach_every_goal(kind, count) -> None:
    verdicts = judge_goals(kind, NUMBERS[kind]())
    assert len(verdicts) == count
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(
    ("kind", "section", "name", "value", "says"),
    [
        (ModelKind.LSTM, "test", "accuracy", 0.9449, "test"),
        (ModelKind.LSTM, "lead_test", "hmm_filter", 0.0299, "test"),
        (ModelKind.LSTM, "lead_validation", "static_cuts", 0.0249, "validation"),
        (ModelKind.LSTM, "validation", "balanced_accuracy", 0.9399, "validation"),
        (ModelKind.LSTM, "test", "macro_f1", 0.9399, "test"),
        (ModelKind.LSTM, "test", "ece", 0.0101, "test"),
        (ModelKind.LSTM, "train", "accuracy", 0.9601, "train"),
        (ModelKind.HMM, "test", "accuracy", 0.8999, "test accuracy"),
        (ModelKind.HMM, "hmm_lookahead_validation", "accuracy", 0.9499, "validation look-ahead"),
        (ModelKind.HMM, "definition", "least_refit_agreement", 0.8999, "least refit"),
        (ModelKind.HMM, "definition", "mean_refit_agreement", 0.9499, "mean refit"),
    ],
)
def test_a_number_beyond_its_bound_or_missing_misses_its_goal_alone(
    kind, section, name, value, says
) -> None:
    for changed in (value, None):
        numbers = NUMBERS[kind]()
        numbers[section][name] = changed
        (missed,) = [verdict for verdict in judge_goals(kind, numbers) if not verdict.passed]
        assert says in missed.name
    del numbers[section]
    assert not all(verdict.passed for verdict in judge_goals(kind, numbers))
