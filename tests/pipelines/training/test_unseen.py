"""Held-out symbols: who they are, when they are scored, what the verdict asks for."""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from bot4_pipelines.training import unseen as u
from bot4_pipelines.training.baselines import fit_baselines
from bot4_pipelines.training.dataset import symbol_rows
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.regime.manifest import WINDOW

KNOWN = ("BTCUSDT", "ETHUSDT", "ADAUSDT")
HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" , ", ()),
        ("ethusdt", ("ETHUSDT",)),
        ("ADAUSDT, BTCUSDT", ("BTCUSDT", "ADAUSDT")),
    ],
)
def test_held_out_symbols_are_named_by_the_environment(text, expected, monkeypatch) -> None:
    assert u.holdout_symbols(KNOWN, {u.HOLDOUT: text}) == expected
    monkeypatch.setenv(u.HOLDOUT, text)
    assert u.holdout_symbols(KNOWN) == expected
    monkeypatch.delenv(u.HOLDOUT)
    assert u.holdout_symbols(KNOWN) == ()


def test_symbols_without_candles_and_all_symbols_are_refused() -> None:
    with pytest.raises(ConfigError, match="BOT4_HOLDOUT names SOLUSDT; there are candles of BTC"):
        u.holdout_symbols(KNOWN, {u.HOLDOUT: "SOLUSDT"})
    with pytest.raises(ConfigError, match="every symbol"):
        u.holdout_symbols(KNOWN, {u.HOLDOUT: ",".join(KNOWN)})


def numbers(**changes):
    return {
        "accuracy": 0.9, "accuracy_ci": [0.89, 0.91], "balanced_accuracy": 0.88,
        "macro_f1": 0.88, "ece": 0.03,
    } | changes  # fmt: skip


def test_numbers_on_their_bounds_hold() -> None:
    assert u.lstm_holds(numbers(), [0.889, 0.88])


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": 0.8999},
        {"accuracy_ci": None},
        {"accuracy_ci": [0.889, 0.91]},
        {"balanced_accuracy": 0.8799},
        {"macro_f1": 0.8799},
        {"ece": 0.0301},
        {"accuracy": float("nan")},
        {"ece": float("nan")},
    ],
)
def test_one_number_beyond_its_gate_fails(changes) -> None:
    assert not u.lstm_holds(numbers(**changes), [0.889, 0.88])


class Oracle:
    """Names what it is told, with little doubt, or always the same."""

    def __init__(self, answer=None):
        self.answer, self.asked = answer, 0

    def run(self, outputs, inputs):
        count = len(inputs["features"])
        part = self.answer[self.asked : self.asked + count]
        self.asked += count
        return [part]

    def get_inputs(self):
        return [SimpleNamespace(shape=["B", WINDOW, 28])]


def test_a_model_that_names_the_present_holds_and_one_that_does_not_fails(
    small_market, make_walk
) -> None:
    baselines = fit_baselines(small_market.rows, small_market.params, small_market.cuts)
    other = make_walk(6_000, 9, "SOLUSDT")
    rows = symbol_rows(other, small_market.params)
    part = u.later(rows.table, small_market.cuts)
    assert (part.start, part.stop) == (4_800, 6_000)
    from bot4_pipelines.training.judged import judge

    judged = judge(rows, small_market.params, part, interval_ms=HOUR)
    labels = judged.labels[judged.scored & rows.table.valid]
    right = np.full((len(labels), 5), 0.001)
    right[np.arange(len(labels)), labels] = 0.996
    verdicts = [
        u.lstm_unseen(small_market.params, Oracle(answer), baselines, [other], small_market.cuts)
        for answer in (right, np.full((len(labels), 5), 0.2))
    ]
    assert [verdict.passed for verdict in verdicts] == [True, False]
    assert verdicts[0].accuracy == 1.0
    assert verdicts[1].accuracy == pytest.approx((labels == 0).mean())
    assert {verdict.symbols for verdict in verdicts} == {("SOLUSDT",)}


def test_the_filters_verdict_is_its_gate_on_later_candles(small_market, make_walk) -> None:
    rows = [symbol_rows(make_walk(6_000, 9, "SOLUSDT"), small_market.params)]
    verdict = u.hmm_unseen(small_market.params, rows, small_market.cuts, interval_ms=HOUR)
    assert verdict.symbols == ("SOLUSDT",)
    assert verdict.passed is (verdict.accuracy >= 0.85)
    assert 0.8 < verdict.accuracy < 0.97
    late = msgspec.structs.replace(small_market.cuts, test_start_ms=5_900 * HOUR)
    nothing = u.hmm_unseen(small_market.params, rows, late, interval_ms=HOUR)
    assert (nothing.accuracy, nothing.passed) == (0.0, False)


def test_without_held_out_symbols_there_is_no_verdict(small_market) -> None:
    assert u.lstm_unseen(small_market.params, None, None, [], small_market.cuts) is None
    assert u.hmm_unseen(small_market.params, [], small_market.cuts, interval_ms=HOUR) is None
