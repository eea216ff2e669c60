"""What the promoted pair is worth: its figures on each range of candles, held against the goals.

Ranges: validation, which chose the LSTM's weights; test, later than everything learnt from; and
unseen, the test range of symbols that nothing was learnt from, where there are such. Figures and
intervals are `judged`'s. A goal that is missed blocks nothing: gates, which do, are
`promotion`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bot4_pipelines.progress import Report
from bot4_pipelines.training import goals, plots
from bot4_pipelines.training.baselines import FittedBaselines
from bot4_pipelines.training.evaluation import BASELINES_SECTION, judge_series, report
from bot4_pipelines.training.judged import HMM, LOOKAHEAD, LSTM, Judged
from bot4_pipelines.training.model_card import (
    calibration,
    calibration_plot,
    confusion,
    confusion_plot,
)
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.features.schema import LOOKBACK
from bot4_runtime.regime.manifest import Cuts
from bot4_runtime.regime.pair import ModelPair

WARM_UP: Final = 4 * LOOKBACK
"""Candles before a range that features are computed from; more change nothing that is shown."""
LSTM_WINDOWS: Final = 100_000
"""Most windows that the LSTM is asked about in one range, about: some thirty seconds. Where
windows are left out, delays cannot be told."""
NUMBERS: Final = ("accuracy", "balanced_accuracy", "macro_f1", "near", "far", "delay", "ece")
SAYS: Final = (
    "Accuracy is how often a causal estimate names what hindsight names; it predicts nothing. On "
    "random walks, which have no regimes, the same HMM filter agrees as often: see "
    "random_walk_hmm."
)


@dataclass(frozen=True)
class Goal:
    """One row of the goals, on one range.

    Attributes:
        value: what was measured; None when it is unknown, which is missed.
        rule: ``>=`` or ``<=``.
    """

    range: str
    name: str
    value: float | None
    rule: str
    needs: float

    @property
    def met(self) -> bool:
        """Whether the value keeps the rule."""
        if self.value is None:
            return False
        return self.value >= self.needs if self.rule == ">=" else self.value <= self.needs

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "range": self.range,
            "goal": self.name,
            "value": self.value,
            "rule": self.rule,
            "needs": self.needs,
            "met": self.met,
        }

    def __str__(self) -> str:
        value = "unknown" if self.value is None else f"{self.value:.4f}"
        return f"{self.range} {self.name} {value}, goal {self.rule} {self.needs:g}"


def evaluation_report(
    pair: ModelPair, series: Sequence[CandleSeries], told: Report
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Score a promoted pair on every range there is.

    Args:
        pair: both models.
        series: candles of the pair's interval, whole history, learnt from or not.
        told: of the progress.

    Returns:
        Numbers for the step's record, and plots: PNG by title.

    Raises:
        ModelError: the pair has no LSTM.
        DataError: a range has no candle that can be scored.
    """
    if pair.lstm is None:
        raise ModelError(f"no LSTM is promoted for {pair.interval}; train and promote a pair")
    manifest = pair.lstm.manifest
    fitted = FittedBaselines.from_numbers(manifest.metrics.get(BASELINES_SECTION, {}))
    look, params = pair.look_ahead(), pair.hmm.parameters()
    ranges = _ranges(manifest.cuts, series, manifest.symbols)
    documents, judged = {}, {}
    for place, (name, (chosen, since_ms, until_ms)) in enumerate(ranges.items()):
        told(f"naming the candles of {name}", 0.9 * place / len(ranges))
        wanted = sum(len(one.between(since_ms, until_ms)) for one in chosen)
        judged[name] = judge_series(
            params,
            pair.lstm.session,
            fitted,
            [one.between(since_ms - WARM_UP * one.interval_ms, until_ms) for one in chosen],
            since_ms=since_ms,
            until_ms=until_ms,
            look=look,
            stride=-(-wanted // LSTM_WINDOWS),
        )
        documents[name] = report(params, judged[name])
    told("drawing", 0.95)
    judged_goals = [goal for name, one in documents.items() for goal in range_goals(name, one)]
    judged_goals.append(_overfit(manifest.metrics))
    definition = pair.hmm.manifest.metrics.get("definition", {})
    judged_goals += [
        Goal("validation", f"HMM {name.replace('_', ' ')}", definition.get(name), ">=", least)
        for name, least in goals.REFITS.items()
    ]
    numbers: dict[str, Any] = {
        "hmm_sha256": pair.hmm_sha256,
        "lstm_sha256": pair.lstm_sha256,
        "says": SAYS,
        "ranges": [
            {
                "range": name,
                "from_ms": since_ms,
                "to_ms": until_ms,
                "symbols": ", ".join(one.id.symbol for one in chosen),
                "lstm_rows": documents[name]["rows"][LSTM]["total"],
                "lstm_every": judged[name][0].stride,
                "lookahead_rows": documents[name]["rows"][LOOKAHEAD]["total"],
            }
            for name, (chosen, since_ms, until_ms) in ranges.items()
        ],
        "figures": [row for name, one in documents.items() for row in figure_rows(name, one)],
        "goals": [goal.row() for goal in judged_goals],
        "missed": [str(goal) for goal in judged_goals if not goal.met],
        "documents": documents,
    }
    return numbers, _images(documents, judged)


_Range = tuple[Sequence[CandleSeries], int, int]


def _ranges(
    cuts: Cuts, series: Sequence[CandleSeries], learnt: Sequence[str]
) -> dict[str, _Range]:
    known = [one for one in series if one.id.symbol in learnt]
    unseen = [one for one in series if one.id.symbol not in learnt]
    found: dict[str, _Range] = {
        "validation": (known, cuts.validation_start_ms, cuts.test_start_ms),
        "test": (known, cuts.test_start_ms, cuts.end_ms),
        "unseen": (unseen, cuts.test_start_ms, cuts.end_ms),
    }
    return {name: one for name, one in found.items() if one[0]}


def range_goals(name: str, document: Mapping[str, Any]) -> list[Goal]:
    """Return the goals that figures of one range are held against."""
    lstm, same = (document[model]["pooled"] for model in (LSTM, "hmm_same_rows"))
    filtered, looked = (document[model]["pooled"]["accuracy"] for model in (HMM, LOOKAHEAD))
    cuts = document["baselines"]["static_cuts"]["pooled"]

    def ahead(other: Mapping[str, float | None]) -> float | None:
        mine, theirs = lstm["accuracy"], other["accuracy"]
        return None if mine is None or theirs is None else float(mine - theirs)

    return [
        Goal(name, "LSTM accuracy", lstm["accuracy"], ">=", goals.ACCURACY),
        Goal(name, "LSTM balanced accuracy", lstm["balanced_accuracy"], ">=", goals.BALANCED),
        Goal(name, "LSTM macro F1", lstm["macro_f1"], ">=", goals.BALANCED),
        Goal(name, "LSTM calibration error", lstm["ece"], "<=", goals.CALIBRATION),
        Goal(name, "LSTM ahead of the HMM filter", ahead(same), ">=", goals.LEAD["hmm_filter"]),
        Goal(name, "LSTM ahead of static cuts", ahead(cuts), ">=", goals.LEAD["static_cuts"]),
        Goal(name, "HMM filter accuracy", filtered, ">=", goals.FILTER),
        Goal(name, "HMM look-ahead accuracy", looked, ">=", goals.LOOK_AHEAD),
    ]


def _overfit(metrics: Mapping[str, Mapping[str, float | None]]) -> Goal:
    train, validation = (metrics.get(one, {}).get("accuracy") for one in ("train", "validation"))
    gap = None if train is None or validation is None else train - validation
    return Goal("validation", "LSTM training accuracy above validation", gap, "<=", goals.OVERFIT)


def figure_rows(name: str, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a model and symbol, and one a baseline, with the interval of each number."""
    models = {one: document[one] for one in (LSTM, HMM, LOOKAHEAD)}
    rows = [
        _figures(name, model, symbol, numbers)
        for model, section in models.items()
        for symbol, numbers in {"all": section["pooled"], **section["symbols"]}.items()
    ]
    return rows + [
        _figures(name, baseline, "all", section["pooled"])
        for baseline, section in document["baselines"].items()
    ]


def _figures(name: str, model: str, symbol: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"range": name, "model": model, "symbol": symbol}
    for number in NUMBERS:
        low, high = numbers.get(f"{number}_ci") or (None, None)
        row |= {number: numbers.get(number), f"{number}_low": low, f"{number}_high": high}
    return row


def _images(
    documents: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Sequence[Judged]]
) -> dict[str, bytes]:
    images = {}
    for name, document in documents.items():
        rows = {LSTM: document[LSTM], LOOKAHEAD: document[LOOKAHEAD], **document["baselines"]}
        bars = {one: _bar(section["pooled"]) for one, section in rows.items()}
        images[f"{name}: accuracy"] = plots.accuracy_bars(bars, None, f"{name}: accuracy")
        by_symbol = {
            f"{symbol} {model}": _bar(document[model]["symbols"][symbol])
            for symbol in document[LSTM]["symbols"]
            for model in (LSTM, LOOKAHEAD, HMM)
        }
        title = f"{name}: accuracy by symbol"
        images[title] = plots.accuracy_bars(by_symbol, None, title)
    for name, model in ((n, m) for n in judged if n != "validation" for m in (LSTM, LOOKAHEAD)):
        images[f"{name}: {model} confusion"] = confusion_plot(confusion(judged[name], model))
        images[f"{name}: {model} calibration"] = calibration_plot(calibration(judged[name], model))
    return images


def _bar(numbers: Mapping[str, Any]) -> tuple[float, float, float]:
    value = numbers["accuracy"]
    low, high = numbers["accuracy_ci"] or (value, value)
    return value, low, high
