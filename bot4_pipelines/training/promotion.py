"""Judges whether models may trade, and promotes them: the only place that does either.

The numbers of a manifest are compared with the gates here and now; what a manifest says of its
own verdicts counts for nothing. A missing number fails. Nothing that a pair sees may look ahead:
the leak audit is made here, whatever was audited before. Whoever replaces a pair that still holds
must not be worse than it: the comparison is made here as well. What cannot be made fails.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bot4_pipelines.training.champion import Standing, card_section, compare, standing
from bot4_pipelines.training.leak_audit import Compute, audit
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.batch import compute
from bot4_runtime.regime.comparison import Comparison
from bot4_runtime.regime.hmm import STATES
from bot4_runtime.regime.manifest import GateVerdict, Manifest, Metrics, ModelKind
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import CurrentPair, ModelRegistry
from bot4_runtime.regime.signature import ModelKeys

HMM_ACCURACY: Final = 0.85
REFERENCE_AGREEMENT: Final = 0.85
REFIT_AGREEMENT: Final = 0.85
TREND_WINDOWS: Final = (72.0, 72.0)
TRAIN_SHARES: Final = (0.12, 0.30)
LATER_SHARES: Final = (0.05, 0.40)
MEAN_GAP: Final = 0.4
MIRROR_ERROR: Final = 1e-9
DWELL: Final = (8.0, 16.0)
LSTM_ACCURACY: Final = 0.90
BALANCED: Final = 0.88
CALIBRATION: Final = 0.03

_RULES: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": lambda value, threshold: value >= threshold,
    ">": lambda value, threshold: value > threshold,
    "<=": lambda value, threshold: value <= threshold,
}


def judge(manifest: Manifest) -> list[GateVerdict]:
    """Judge a manifest's recorded numbers; its own verdicts are not looked at.

    Accuracy is agreement with the hindsight labels: it says how well the present is named.
    """
    if manifest.kind is ModelKind.HMM:
        return _judge_hmm(manifest)
    return _judge_lstm(manifest.metrics)


def _judge_hmm(manifest: Manifest) -> list[GateVerdict]:
    metrics = manifest.metrics
    verdicts = [
        _gate(metrics, split, "accuracy", ">=", HMM_ACCURACY) for split in ("validation", "test")
    ]
    for split, (low, high) in (
        ("train", TRAIN_SHARES),
        ("validation", LATER_SHARES),
        ("test", LATER_SHARES),
    ):
        shares = [f"share_{state}_{split}" for state in range(STATES)]
        verdicts += _within(metrics, f"least share in {split}", shares, low, high)
    verdicts += [
        *_within(metrics, "trend window", ["trend_window"], *TREND_WINDOWS),
        _gate(metrics, "definition", "least_mean_gap", ">=", MEAN_GAP),
        _gate(metrics, "definition", "mirror_error", "<=", MIRROR_ERROR),
        *_within(metrics, "median dwell", ["median_dwell"], *DWELL),
        _gate(metrics, "definition", "reference_agreement", ">=", REFERENCE_AGREEMENT),
        _gate(metrics, "definition", "least_refit_agreement", ">=", REFIT_AGREEMENT),
    ]
    return verdicts


def _judge_lstm(metrics: Metrics) -> list[GateVerdict]:
    verdicts = []
    for split in ("validation", "test"):
        verdicts.append(_gate(metrics, split, "accuracy", ">=", LSTM_ACCURACY))
        for baseline in ("hmm_filter", "static_cuts"):
            floor = _number(metrics, f"baselines_{split}", baseline)
            low = _number(metrics, split, "accuracy_ci_low")
            verdicts.append(_verdict(f"{split} accuracy_ci_low over {baseline}", low, ">", floor))
        verdicts += [
            _gate(metrics, split, "balanced_accuracy", ">=", BALANCED),
            _gate(metrics, split, "macro_f1", ">=", BALANCED),
            _gate(metrics, split, "ece", "<=", CALIBRATION),
        ]
    return verdicts


def _within(
    metrics: Metrics, name: str, keys: list[str], low: float, high: float
) -> list[GateVerdict]:
    """Judge the least and the largest of some numbers of the definition; one missing fails."""
    values = [_number(metrics, "definition", key) for key in keys]
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return [
        _verdict(name, min(known) if whole else None, ">=", low),
        _verdict(name.replace("least", "largest"), max(known) if whole else None, "<=", high),
    ]


def _gate(metrics: Metrics, section: str, key: str, rule: str, threshold: float) -> GateVerdict:
    return _verdict(f"{section} {key}", _number(metrics, section, key), rule, threshold)


def _verdict(name: str, value: float | None, rule: str, threshold: float | None) -> GateVerdict:
    passed = value is not None and threshold is not None and _RULES[rule](value, threshold)
    return GateVerdict(name=name, passed=passed, value=value, threshold=threshold, rule=rule)


def _number(metrics: Metrics, section: str, key: str) -> float | None:
    """Return a recorded number; None when it is missing or not finite."""
    value = metrics.get(section, {}).get(key)
    return value if value is not None and math.isfinite(value) else None


def judge_against(comparison: Comparison) -> GateVerdict:
    """Judge a challenger: refused when it is worse than the champion beyond chance.

    The upper bound of the 95 % interval of challenger - champion must not lie below 0.
    """
    high = comparison.high if math.isfinite(comparison.high) else None
    return _verdict("upper bound of challenger - champion", high, ">=", 0.0)


def promote(
    registry: ModelRegistry,
    interval: str,
    hmm_sha256: str,
    lstm_sha256: str = "",
    now_ms: int | None = None,
    *,
    candles: Callable[[Manifest], Sequence[CandleSeries]],
    despite: str = "",
    features: Compute = compute,
) -> CurrentPair:
    """Judge both models anew and, when every gate passes, point the interval at them.

    Args:
        registry: where both are archived.
        interval: of their candles.
        hmm_sha256: the HMM.
        lstm_sha256: the LSTM trained with it; empty promotes the HMM alone.
        now_ms: UTC; the present when None.
        candles: returns the series a challenger was made from, to audit it and to compare it with
            the champion.
        despite: the reason to promote it though it is worse than the champion or cannot be
            compared; recorded. No other gate is set aside.
        features: computes the features that are audited.

    Raises:
        ModelError: a gate failed, something looks ahead or cannot be audited, a file does not
            hold, or another pair was promoted meanwhile. What is promoted stays as it was.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    for sha256 in filter(None, (hmm_sha256, lstm_sha256)):
        failed = [gate for gate in judge(registry.manifest(sha256)) if not gate.passed]
        if failed:
            raise ModelError(
                f"model {sha256[:12]} is not promoted: "
                + "; ".join(str(gate) for gate in failed)
                + ". What was promoted before stays; train longer or on more history"
            )
    unsigned = ModelRegistry(registry.root, ModelKeys())
    challenger = unsigned.open(interval, hmm_sha256, lstm_sha256, now_ms)
    held = standing(registry, challenger.deciding, (hmm_sha256, lstm_sha256), now_ms)
    series = candles(challenger.deciding)
    _refuse_leaks(challenger, series, features)
    comparison, note = _against_champion(registry, challenger, held, series, despite)
    return registry.activate(
        interval,
        hmm_sha256,
        lstm_sha256,
        now_ms,
        instead_of=held.replaced,
        champion=comparison,
        note=note,
    )


def _refuse_leaks(
    challenger: ModelPair, series: Sequence[CandleSeries], features: Compute
) -> None:
    refused = f"model {(challenger.lstm_sha256 or challenger.hmm_sha256)[:12]} is not promoted"
    params = challenger.hmm.parameters()
    session = None if challenger.lstm is None else challenger.lstm.session
    try:
        leaks = audit(series, params, session, features=features).leaks
    except DataError as error:
        raise ModelError(f"{refused}: {error}") from error
    if leaks:
        raise ModelError(
            f"{refused}: {len(leaks)} columns look ahead, {leaks[0]} among them; see the check "
            "'nothing_looks_ahead'"
        )


def _against_champion(
    registry: ModelRegistry,
    challenger: ModelPair,
    held: Standing,
    series: Sequence[CandleSeries],
    despite: str,
) -> tuple[Comparison | None, str]:
    """Return the comparison, None without a champion, and what there is to note.

    Raises:
        ModelError: the challenger is worse, or cannot be compared, and no reason was given.
    """
    told = challenger.lstm_sha256 or challenger.hmm_sha256
    if held.champion is None:
        registry.tell(told, card_section(None, f"There was no champion: {held.why}."))
        return None, held.why
    try:
        comparison = compare(challenger, held.champion, series)
    except (ModelError, DataError) as error:
        if despite:
            return None, f"not compared ({error}), promoted despite it: {despite}"
        raise ModelError(f"model {told[:12]} is not promoted: {error}") from error
    verdict = judge_against(comparison)
    outcome = "not worse" if verdict.passed else "worse"
    registry.tell(told, card_section(comparison, f"The challenger is {outcome}: {comparison}."))
    if verdict.passed:
        return comparison, ""
    if despite:
        return comparison, f"worse than the champion, promoted despite it: {despite}"
    champion = held.champion.lstm_sha256 or held.champion.hmm_sha256
    raise ModelError(
        f"model {told[:12]} is not promoted: it is worse than the champion {champion[:12]} "
        f"({comparison}); {verdict}. What was promoted before stays; train longer or on more "
        "history"
    )


def rollback(registry: ModelRegistry, interval: str, now_ms: int | None = None) -> CurrentPair:
    """Activate the pair that was promoted before the present one.

    Repeated, it goes back further; a pair that was rolled back is not returned to.

    Raises:
        ModelError: there is no earlier pair, it no longer holds, or another was activated
            meanwhile.
    """
    current = registry.current(interval)
    if current is None:
        raise ModelError(f"nothing is promoted for {interval}: there is nothing to roll back")
    stack: list[CurrentPair] = []
    for entry in registry.activations(interval):
        if entry.action == "rollback":
            stack = _back_to(stack, entry.pair)
        else:
            stack.append(entry.pair)
    # A crash may have written a line whose activation never happened.
    earlier = [pair for pair in _back_to(stack, current) if pair.shas != current.shas]
    if not earlier:
        raise ModelError(
            f"no pair was promoted for {interval} before {current.hmm_sha256[:12]}: "
            "promote another with `bot4-pipelines promote`"
        )
    previous = earlier[-1]
    return registry.activate(
        interval, *previous.shas, now_ms, action="rollback", instead_of=current.shas
    )


def taken_back(registry: ModelRegistry, interval: str, shas: tuple[str, str]) -> str:
    """Say that a rollback stands that a pair was left by; empty when none does.

    Raises:
        ModelError: the interval is unknown, or the pointer is damaged.
    """
    current = registry.current(interval)
    history = registry.activations(interval)
    # Lines after the present pair's tell of activations that a crash cut short.
    places = [place for place, entry in enumerate(history) if entry.pair == current]
    if current is None or not places or history[places[-1]].action != "rollback":
        return ""
    if current.shas == shas or all(entry.pair.shas != shas for entry in history[: places[-1]]):
        return ""
    return (
        f"an operator went back from {(shas[1] or shas[0])[:12]} to "
        f"{(current.lstm_sha256 or current.hmm_sha256)[:12]}, which stays promoted; "
        "`bot4-pipelines promote` brings the newer pair back"
    )


def _back_to(stack: list[CurrentPair], pair: CurrentPair) -> list[CurrentPair]:
    """Return the stack up to the last activation of a pair, or all of it when there is none."""
    for depth in range(len(stack), 0, -1):
        if stack[depth - 1].shas == pair.shas:
            return stack[:depth]
    return stack
