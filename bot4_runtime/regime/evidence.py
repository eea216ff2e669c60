"""Evidence records: made from a rule's history, kept beside the models they were made with.

``models/evidence/<interval>.json`` holds the records of every pair of models that has not
expired; a reader gets those of the promoted pair alone. Finding a rule's trades is the
pipeline's work (`bot4_pipelines.training.evidence`); judging a signal is `signals`' work.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import ModelError, UndefinedStatistic
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.signals import statistics

DAY_MS: Final = 86_400_000
VALID_DAYS: Final = 90
"""Days after which a record no longer counts."""
DRAWS: Final = 4_999
LEAST_BLOCK_WEEKS: Final = 2.0
"""Weeks that are drawn together on average, at least; for long trades, twice their length."""
FORMAT: Final = 3
"""2: the records hold the moments of trades and of days. 3: p-values heed dependent weeks,
and the side is told."""

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]
_REMEDY: Final = "remove it and materialise the evidence asset again (bot4-pipelines run)"
_NO_MOMENTS: Final = (None, None, None, None)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class RuleHistory:
    """What following a rule brought, net of costs.

    Attributes:
        rule_id: the rule.
        entry_ms: int64[n], when each trade was entered, UTC.
        net: float64[n], net return of each trade on its notional, as a share.
        holding_days: float64[n], length of each trade, in days; finite.
        daily: float64[d], pooled profit of each UTC day as a share of capital, flat days too.
        from_ms: start of the period.
        to_ms: end of the period, exclusive.
        cost_round_trip: fees and slippage inside `net`, as a share of the notional.
        side: of all entries.
    """

    rule_id: str
    entry_ms: _Integers
    net: _Floats
    holding_days: _Floats
    daily: _Floats
    from_ms: int
    to_ms: int
    cost_round_trip: float
    side: Side = Side.BUY


@dataclass(frozen=True)
class Provenance:
    """Of what, when and beside which models records are made."""

    origin: Origin
    interval: str
    symbols: tuple[str, ...]
    computed_ms: int
    hmm_sha256: str
    lstm_sha256: str
    seed: int
    synthetic: bool = False
    valid_days: int = VALID_DAYS


def week_number(time_ms: _Integers) -> _Integers:
    """Return the number of each time's calendar week (Monday to Sunday, UTC)."""
    weeks: _Integers = (time_ms // DAY_MS + 3) // 7
    return weeks


def make_records(
    histories: Sequence[RuleHistory], provenance: Provenance, *, draws: int = DRAWS
) -> list[EvidenceRecord]:
    """Return one record a rule, each adjusted for all the rules given.

    A rule without a p-value (no trades, no variation) counts as tried, with p = 1.
    """
    raw = [_known(_week_p, history, provenance.seed, draws) for history in histories]
    adjusted = statistics.benjamini_hochberg([1.0 if p is None else p for p in raw])
    ratios = [_known(_daily_sharpe, history.daily) for history in histories]
    known = [ratio for ratio in ratios if ratio is not None]
    trials = _Trials(
        rules=len(histories),
        variance=float(np.var(known, ddof=1)) if len(known) > 1 else 0.0,
        draws=draws,
    )
    return [
        _record(history, provenance, trials, (p, None if p is None else p_bh))
        for history, p, p_bh in zip(histories, raw, adjusted, strict=True)
    ]


@dataclass(frozen=True)
class _Trials:
    rules: int
    variance: float
    draws: int


def _record(
    history: RuleHistory,
    provenance: Provenance,
    trials: _Trials,
    p_values: tuple[float | None, float | None],
) -> EvidenceRecord:
    net, daily, n = history.net, history.daily, len(history.net)
    wins, losses = net[net > 0.0], net[net <= 0.0]
    interval = _known(statistics.sharpe_interval, daily, _generator(provenance.seed))
    of_trades = _known(statistics.sample_moments, net) or _NO_MOMENTS
    of_days = _known(statistics.sample_moments, daily) or _NO_MOMENTS
    return EvidenceRecord(
        rule_id=history.rule_id,
        origin=provenance.origin,
        synthetic=provenance.synthetic,
        interval=provenance.interval,
        symbols=provenance.symbols,
        side=history.side,
        period_from_ms=history.from_ms,
        period_to_ms=history.to_ms,
        n_trades=n,
        n_eff_weeks=len(np.unique(week_number(history.entry_ms))),
        mean_net=_mean(net),
        std_net=of_trades[1],
        skewness_net=of_trades[2],
        kurtosis_net=of_trades[3],
        win_rate=len(wins) / n if n else None,
        avg_win=_mean(wins),
        avg_loss=_mean(-losses),
        cost_round_trip=history.cost_round_trip,
        p_value_raw=p_values[0],
        p_value_bh=p_values[1],
        p_newey_west=_known(statistics.newey_west_p, daily),
        p_spec_t=_known(_specification_p, net),
        n_days=len(daily),
        mean_daily=_mean(daily),
        std_daily=of_days[1],
        skewness_daily=of_days[2],
        kurtosis_daily=of_days[3],
        sharpe=_known(statistics.sharpe, daily),
        sharpe_low=None if interval is None else interval[0],
        sharpe_high=None if interval is None else interval[1],
        psr=_known(_deflated, daily, 1, 0.0),
        dsr=_known(_deflated, daily, trials.rules, trials.variance),
        holding_days=_mean(history.holding_days),
        rules_tried=trials.rules,
        method=(
            "one-sided bootstrap-t of the mean net trade return, calendar weeks as clusters, "
            f"Bartlett long-run variance; stationary blocks of {_least_block(history):.3g} weeks "
            f"or, by the weeks' autocorrelation, more (Andrews 1991), {trials.draws} draws; "
            f"Benjamini-Hochberg over {trials.rules} rules"
        ),
        seed=provenance.seed,
        computed_ms=provenance.computed_ms,
        expires_ms=provenance.computed_ms + provenance.valid_days * DAY_MS,
        hmm_sha256=provenance.hmm_sha256,
        lstm_sha256=provenance.lstm_sha256,
    )


def _known(statistic: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T | None:
    """Return the statistic, or None where it has no value."""
    try:
        return statistic(*arguments, **named)
    except UndefinedStatistic:
        return None


def _week_p(history: RuleHistory, seed: int, draws: int) -> float:
    weeks = week_number(history.entry_ms)
    least = _least_block(history)
    return statistics.week_cluster_p(weeks, history.net, _generator(seed), draws, least)


def _least_block(history: RuleHistory) -> float:
    """Return twice the mean length of a trade, in weeks; at least `LEAST_BLOCK_WEEKS`."""
    return max(LEAST_BLOCK_WEEKS, 2.0 * (_mean(history.holding_days) or 0.0) / 7.0)


def _daily_sharpe(daily: _Floats) -> float:
    return statistics.sharpe(daily) / math.sqrt(365.0)


def _deflated(daily: _Floats, rules: int, variance: float) -> float:
    _, _, skewness, kurtosis = statistics.sample_moments(daily)
    return statistics.deflated_sharpe(
        _daily_sharpe(daily), len(daily), skewness, kurtosis, trials=rules, variance=variance
    )


def _specification_p(net: _Floats) -> float:
    return statistics.specification_t(0.0, net)[1]


def _mean(values: _Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


# ---------------------------------------------------------------- a drawn history
def synthetic_history(
    generator: np.random.Generator,
    *,
    rule_id: str,
    to_ms: int,
    true_sharpe: float = 3.0,
    days: int = 1_096,
) -> RuleHistory:
    """Draw a history of independent trades whose true annual Sharpe ratio is given.

    Trades come as a Poisson process, L = 1.5 a day, and open and close within a day; their net
    returns are normal with standard deviation s = 2 %, and w = 20 % of the capital is in
    each. Daily profit is then compound Poisson with mean w L m and variance
    w^2 L (m^2 + s^2), from which the mean m of a trade follows.
    """
    rate, std, weight, risk_free = 1.5, 0.02, 0.2, statistics.RISK_FREE
    # 365 w L m - 0.04 = S w sqrt(365 L (m^2 + s^2)): a quadratic in m; S's sign picks the root.
    yearly = 365.0 * weight * rate
    risk = true_sharpe**2 * weight**2 * rate * 365.0
    a, b, c = yearly**2 - risk, -2.0 * yearly * risk_free, risk_free**2 - risk * std**2
    root = math.copysign(math.sqrt(b * b - 4.0 * a * c), true_sharpe)
    mean = (-b + root) / (2.0 * a)
    day = np.repeat(np.arange(days), generator.poisson(rate, days))
    net = generator.normal(mean, std, len(day))
    last_day = to_ms // DAY_MS
    return RuleHistory(
        rule_id=rule_id,
        entry_ms=(last_day - days + day) * DAY_MS,
        net=net,
        holding_days=generator.uniform(0.05, 0.5, len(day)),
        daily=np.asarray(weight * np.bincount(day, weights=net, minlength=days), np.float64),
        from_ms=(last_day - days) * DAY_MS,
        to_ms=last_day * DAY_MS,
        cost_round_trip=0.003,
    )


def synthetic_evidence(
    rule_id: str, *, now_ms: int, interval: str, seed: int = 1, valid_days: int = 3_650
) -> EvidenceRecord:
    """Return the record of a drawn three-year history of true Sharpe 3 that ends at `now_ms`.

    For exercisers such as the drill; it goes through the same `make_records` as a real one and
    says ``synthetic``. The same arguments give the same record. Give it the session's first
    candle, not the wall clock, as `now_ms`: evidence from after a signal is refused.
    """
    history = synthetic_history(_generator(seed), rule_id=rule_id, to_ms=now_ms)
    provenance = Provenance(
        origin=Origin.SIMULATED,
        interval=interval,
        symbols=(),
        computed_ms=now_ms,
        hmm_sha256="",
        lstm_sha256="",
        seed=seed,
        synthetic=True,
        valid_days=valid_days,
    )
    return make_records([history], provenance)[0]


# ------------------------------------------------------------------------ the file
class _EvidenceHead(msgspec.Struct, frozen=True):
    format: int


class _EvidenceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    sha256: str
    records: list[EvidenceRecord]


def evidence_path(models_root: Path, interval: str) -> Path:
    """Return where the records of an interval lie."""
    return models_root / "evidence" / f"{interval}.json"


def write_evidence(path: Path, records: Sequence[EvidenceRecord]) -> None:
    """Put records in the file, atomically; those of other pairs stay until they expire.

    A file of an older format is replaced whole.

    Raises:
        ModelError: the file that is there cannot be read.
    """
    if not records:
        return
    written = {(record.hmm_sha256, record.lstm_sha256) for record in records}
    now_ms = max(record.computed_ms for record in records)
    kept = [
        record
        for record in (_read(path) if _is_current(path) else [])
        if (record.hmm_sha256, record.lstm_sha256) not in written and record.expires_ms > now_ms
    ]
    every = [*kept, *records]
    content = msgspec.json.encode(_EvidenceFile(FORMAT, _seal(every), every))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(msgspec.json.format(content, indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_evidence(path: Path, hmm_sha256: str, lstm_sha256: str) -> Mapping[str, EvidenceRecord]:
    """Return the records made with this pair of models, by rule id.

    No file and no record of this pair give an empty mapping: then every signal is rejected
    for want of evidence.

    Raises:
        ModelError: the file cannot be read or does not match its seal.
    """
    if not path.exists():
        return {}
    return {
        record.rule_id: record
        for record in _read(path)
        if (record.hmm_sha256, record.lstm_sha256) == (hmm_sha256, lstm_sha256)
    }


def _is_current(path: Path) -> bool:
    """Tell whether there is a file that is not of an older format."""
    if not path.exists():
        return False
    return _head(path).format >= FORMAT


def _head(path: Path) -> _EvidenceHead:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_EvidenceHead)
    except (OSError, *UNREADABLE) as error:
        raise ModelError(f"evidence file {path} cannot be read: {error}; {_REMEDY}") from error


def _read(path: Path) -> list[EvidenceRecord]:
    found_format = _head(path).format
    if found_format != FORMAT:
        raise ModelError(
            f"evidence file {path} has format {found_format}, expected {FORMAT}; {_REMEDY}"
        )
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_EvidenceFile)
    except UNREADABLE as error:
        raise ModelError(f"evidence file {path} cannot be read: {error}; {_REMEDY}") from error
    found = _seal(content.records)
    if found != content.sha256:
        raise ModelError(
            f"evidence file {path}: its records hash to {found}, its seal says "
            f"{content.sha256}; {_REMEDY}"
        )
    return content.records


def _seal(records: Sequence[EvidenceRecord]) -> str:
    return hashlib.sha256(msgspec.json.encode(list(records))).hexdigest()
