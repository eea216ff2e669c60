"""One symbol's candles as every model names them, and how often each is right.

Labels and the HMM filter start afresh, from the stationary prior, at the range's first candle and
after every gap; the first 200 and the last 24 rows of the range are not scored. The HMM is scored
wherever there is a label, the LSTM, and everything it is compared with, wherever there is an LSTM
estimate too. Pooled numbers are unweighted means over symbols; every number has its
block-bootstrap interval beside it, as ``<name>_ci``. Which ranges are judged, and what is told of
them, is `evaluation`'s business.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bot4_pipelines.training.baselines import LAG, FittedBaselines
from bot4_pipelines.training.cuts import scored
from bot4_pipelines.training.dataset import SymbolRows, inside, window_ends
from bot4_pipelines.training.estimates import (
    Session,
    lookahead_estimates,
    lstm_estimates,
    window_of,
)
from bot4_pipelines.training.labels import filtered_regimes, hindsight_labels
from bot4_pipelines.training.scoring import (
    BLOCK,
    Counts,
    Estimate,
    block_interval,
    count,
    intervals,
    pool,
    score,
)
from bot4_runtime.regime.hmm import STATES, HmmParameters
from bot4_runtime.regime.lookahead import LookAhead

HMM: Final = "hmm"
LSTM: Final = "lstm"
LOOKAHEAD: Final = "hmm_lookahead"
LIMIT: Final = (
    "mean confidence of the look-ahead on its rows: the accuracy it expects of itself, which is "
    "what any causal estimate can reach when returns go on as in blocks of training returns with "
    "random sign; as far as it is calibrated (its ece), this is the limit for naming the present"
)


@dataclass(frozen=True)
class Judged:
    """One symbol's candles with their labels and what each model named them.

    Attributes:
        symbol: as the exchange spells it.
        labels: int64[n], hindsight labels of the range; -1 elsewhere.
        scored: bool[n], rows with a label inside the scored part of the range.
        named: bool[n], those of them with an LSTM estimate.
        blocks: int64[n], bootstrap block of each row's time.
        estimates: by model or baseline.
        stride: about every so-many-th row has an LSTM estimate.
        looked: bool[n], rows with a look-ahead estimate: of the named ones, or where no LSTM was
            asked of the valid ones; None without any.
        look_stride: about every so-many-th row has one.
    """

    symbol: str
    labels: np.ndarray
    scored: np.ndarray
    named: np.ndarray
    blocks: np.ndarray
    estimates: Mapping[str, Estimate]
    stride: int = 1
    looked: np.ndarray | None = None
    look_stride: int = 1

    def rows(self, *, same: bool, model: str = HMM) -> np.ndarray:
        """Return the scored rows, or those that have an LSTM estimate, bool[n].

        Args:
            same: those with an LSTM estimate.
            model: the look-ahead has an estimate on some of those only.
        """
        if model == LOOKAHEAD and self.looked is not None:
            return self.looked
        return self.named if same else self.scored

    def every(self, *, same: bool, model: str) -> bool:
        """Whether no row was left out that could have been asked about."""
        if model == LOOKAHEAD:
            return self.look_stride == 1
        return self.stride == 1 or not same


def judge(
    rows: SymbolRows,
    params: HmmParameters,
    part: slice,
    session: Session | None = None,
    baselines: FittedBaselines | None = None,
    *,
    interval_ms: int,
    stride: int = 1,
    look: LookAhead | None = None,
    look_stride: int = 1,
) -> Judged:
    """Label a range of one symbol's candles and let every model name them.

    Args:
        rows: the symbol's candles, warm-up included.
        params: the HMM.
        part: the range; labels and filter see nothing else.
        session: the open LSTM file; None judges the HMM alone.
        baselines: fitted baselines; None leaves them out.
        interval_ms: length of a candle.
        stride: ask the LSTM about every stride-th row only.
        look: the HMM's look-ahead; None leaves it out.
        look_stride: ask it about every so-many-th of the LSTM's rows only.
    """
    n, z = len(rows.table), rows.table.z
    labels = hindsight_labels(z, params, [part])
    judged = inside(n, scored(part)) & (labels >= 0)
    estimates = {HMM: Estimate.of(filtered_regimes(z, params, [part]))}
    named = np.zeros(n, dtype=bool)
    if session is not None:
        ends = window_ends(rows.table.valid, window_of(session))
        ends = ends[judged[ends]][::stride]
        named[ends] = True
        estimates[LSTM] = Estimate.of(lstm_estimates(session, rows.inputs, ends))
    looked = None
    if look is not None:
        looked = np.zeros(n, dtype=bool)
        possible = judged & rows.table.valid if session is None else named
        looked[np.flatnonzero(possible)[::look_stride]] = True
        estimates[LOOKAHEAD] = Estimate.of(lookahead_estimates(look, rows, looked))
    if baselines is not None:
        late = np.full(n, -1)
        late[LAG:] = labels[:-LAG]
        estimates |= {
            "majority": Estimate(np.full(n, baselines.majority)),
            f"persistence_lag{LAG}": Estimate(late),
            "static_cuts": Estimate(baselines.static_cuts(z)),
            "logistic": Estimate.of(baselines.logistic(rows.inputs)),
        }
    blocks = rows.table.open_time_ms // (BLOCK * interval_ms)
    return Judged(
        symbol=rows.symbol,
        labels=labels,
        scored=judged,
        named=named,
        blocks=blocks,
        estimates=estimates,
        stride=stride,
        looked=looked,
        look_stride=stride * look_stride,
    )


def summarise(judged: Sequence[Judged], model: str, *, same: bool) -> dict[str, Any]:
    """Score one model on all symbols.

    Args:
        judged: the symbols.
        model: name of the estimate.
        same: on the rows with an LSTM estimate instead of on all scored rows.

    Returns:
        ``{"pooled": numbers, "symbols": {symbol: numbers}}``, each number with its
        block-bootstrap interval ``[low, high]`` as ``<name>_ci``.
    """
    symbols: dict[str, dict[str, Any]] = {}
    counted: list[Counts] = []
    left_out: set[str] = set()
    for one in judged:
        rows = one.rows(same=same, model=model)
        if not rows.any():
            continue
        if not one.every(same=same, model=model):
            left_out |= {"delay", "missed"}
        counted.append(count(one.labels, one.estimates[model], rows, one.blocks))
        symbols[one.symbol] = _with_intervals(score(counted[-1]), counted[-1:], left_out)
    pooled = pool([score(one) for one in counted])
    return {"pooled": _with_intervals(pooled, counted, left_out), "symbols": symbols}


def _with_intervals(
    numbers: Mapping[str, float | None], counted: Sequence[Counts], left_out: Collection[str] = ()
) -> dict[str, Any]:
    """Put intervals beside numbers; a number that is left out or unknown has none."""
    found = intervals(counted)
    result: dict[str, Any] = {"accuracy": None, "accuracy_ci": None}
    for name, value in numbers.items():
        known = None if name in left_out else value
        interval = found.get(name) if known is not None else None
        result |= {name: known, f"{name}_ci": None if interval is None else list(interval)}
    return result


def limit(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the accuracy that the look-ahead expects of itself, on its rows.

    Returns:
        ``{"pooled": {"accuracy", "accuracy_ci"}, "symbols": …, "definition": what it is}``.
    """
    symbols, values = {}, []
    for one in judged:
        rows, shares = one.rows(same=True, model=LOOKAHEAD), one.estimates[LOOKAHEAD].probabilities
        if shares is None or not rows.any():
            continue
        values.append((one.blocks[rows], shares[rows].max(axis=1)))
        symbols[one.symbol] = _mean_with_interval(values[-1:])
    return {"pooled": _mean_with_interval(values), "symbols": symbols, "definition": LIMIT}


def _mean_with_interval(values: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    interval = block_interval(values)
    if interval is None:
        return {"accuracy": None, "accuracy_ci": None}
    mean = float(np.mean([column.mean() for _, column in values]))
    return {"accuracy": mean, "accuracy_ci": list(interval)}


def lead(judged: Sequence[Judged], model: str, other: str) -> dict[str, float | None]:
    """Return by how much a model is more often right than another on the same rows.

    Returns:
        ``difference`` of the pooled accuracies and its paired block-bootstrap interval,
        ``low`` and ``high``.
    """
    pairs = []
    for one in judged:
        rows = one.rows(same=True, model=other)
        right = [(one.labels == one.estimates[name].named)[rows] for name in (model, other)]
        pairs.append((one.blocks[rows], right[0].astype(np.float64) - right[1]))
    interval = block_interval(pairs)
    if interval is None:
        return {"difference": None, "low": None, "high": None}
    means = [float(values.mean()) for _, values in pairs if len(values)]
    return {"difference": float(np.mean(means)), "low": interval[0], "high": interval[1]}


def state_shares(judged: Sequence[Judged]) -> list[float]:
    """Return each state's share of the scored labels of all symbols together."""
    labels = np.concatenate([one.labels[one.scored] for one in judged])
    shares: list[float] = (np.bincount(labels, minlength=STATES) / max(len(labels), 1)).tolist()
    return shares


def flat(numbers: Mapping[str, Any]) -> dict[str, float | None]:
    """Spell each ``<name>_ci`` as two numbers, ``<name>_low`` and ``<name>_high``."""
    result: dict[str, float | None] = {}
    for name, value in numbers.items():
        plain = name.removesuffix("_ci")
        if plain == name:
            result[name] = value
        else:
            result[f"{plain}_low"], result[f"{plain}_high"] = value or (None, None)
    return result
