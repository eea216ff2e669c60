"""Scores regime models against hindsight labels: for manifests and for any candles.

Candles before the scored range are warm-up. Labels and the HMM filter start afresh, from the
stationary prior, at the range's first candle and after every gap; the first 200 and the last 24
rows of the range are not scored. The HMM is scored wherever there is a label, the LSTM, and
everything it is compared with, wherever there is an LSTM estimate too. Pooled numbers are
unweighted means over symbols.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from bot4_pipelines.training.baselines import LAG, FittedBaselines
from bot4_pipelines.training.cuts import SPLITS, scored, split_slices
from bot4_pipelines.training.dataset import SymbolRows, inside, symbol_rows, window_ends
from bot4_pipelines.training.labels import filtered_regimes, hindsight_labels
from bot4_pipelines.training.random_walk import random_walk_accuracy
from bot4_pipelines.training.scoring import (
    BLOCK,
    Estimate,
    Numbers,
    block_interval,
    pool,
    score,
)
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.schema import TREND_WINDOW
from bot4_runtime.regime.hmm import STATES, HmmParameters
from bot4_runtime.regime.manifest import WINDOW, Cuts, Metrics
from bot4_runtime.regime.registry import ModelRegistry

HMM: Final = "hmm"
LSTM: Final = "lstm"
BASELINES_SECTION: Final = "fitted_baselines"
"""Section of the LSTM manifest's metrics that holds `FittedBaselines.numbers()`."""
_BATCH: Final = 512


class Session(Protocol):
    """An open ONNX file, as ONNX Runtime gives it."""

    def run(self, outputs: Any, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """Run the graph."""


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
        whole: whether every LSTM estimate was made, not every k-th.
    """

    symbol: str
    labels: np.ndarray
    scored: np.ndarray
    named: np.ndarray
    blocks: np.ndarray
    estimates: Mapping[str, Estimate]
    whole: bool = True

    def rows(self, *, same: bool) -> np.ndarray:
        """Return the scored rows, or those that have an LSTM estimate, bool[n]."""
        return self.named if same else self.scored


def lstm_estimates(session: Session, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Ask the LSTM about windows of exactly `WINDOW` rows.

    Args:
        session: the open file.
        inputs: float64[n, 28], unscaled.
        ends: int64[m], the rows at which the windows end.

    Returns:
        float64[n, 5], NaN where nothing was asked.
    """
    found = np.full((len(inputs), STATES), np.nan)
    rows = inputs.astype(np.float32)
    back = np.arange(1 - WINDOW, 1)
    for begin in range(0, len(ends), _BATCH):
        at = ends[begin : begin + _BATCH]
        found[at] = session.run(None, {"features": rows[at[:, None] + back]})[0]
    return found


def judge(
    rows: SymbolRows,
    params: HmmParameters,
    part: slice,
    session: Session | None = None,
    baselines: FittedBaselines | None = None,
    *,
    interval_ms: int,
    stride: int = 1,
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
    """
    n, z = len(rows.table), rows.table.z
    labels = hindsight_labels(z, params, [part])
    judged = inside(n, scored(part)) & (labels >= 0)
    estimates = {HMM: Estimate.of(filtered_regimes(z, params, [part]))}
    named = np.zeros(n, dtype=bool)
    if session is not None:
        ends = window_ends(rows.table.valid, WINDOW)
        ends = ends[judged[ends]][::stride]
        named[ends] = True
        estimates[LSTM] = Estimate.of(lstm_estimates(session, rows.inputs, ends))
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
    return Judged(rows.symbol, labels, judged, named, blocks, estimates, stride == 1)


def summarise(judged: Sequence[Judged], model: str, *, same: bool) -> dict[str, Any]:
    """Score one model on all symbols.

    Args:
        judged: the symbols.
        model: name of the estimate.
        same: on the rows with an LSTM estimate instead of on all scored rows.

    Returns:
        ``{"pooled": numbers, "symbols": {symbol: numbers}}``, each with ``accuracy_ci``, the
        block-bootstrap interval ``[low, high]``.
    """
    symbols: dict[str, dict[str, Any]] = {}
    flags = []
    for one in judged:
        rows = one.rows(same=same)
        if not rows.any():
            continue
        numbers = score(one.labels, one.estimates[model], rows)
        if same and not one.whole:
            numbers |= {"delay": None, "missed": None}
        right = (one.labels == one.estimates[model].named)[rows].astype(np.float64)
        flags.append((one.blocks[rows], right))
        symbols[one.symbol] = _with_interval(numbers, flags[-1:])
    plain = [{k: v for k, v in n.items() if k != "accuracy_ci"} for n in symbols.values()]
    return {"pooled": _with_interval(pool(plain), flags), "symbols": symbols}


def _with_interval(
    numbers: Numbers, flags: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    interval = block_interval(flags)
    result: dict[str, Any] = {"accuracy": numbers.get("accuracy")}
    result["accuracy_ci"] = None if interval is None else list(interval)
    return result | numbers


def lead(judged: Sequence[Judged], model: str, other: str) -> dict[str, float | None]:
    """Return by how much a model is more often right than another on the same rows.

    Returns:
        ``difference`` of the pooled accuracies and its paired block-bootstrap interval,
        ``low`` and ``high``.
    """
    pairs = []
    for one in judged:
        rows = one.rows(same=True)
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


def training_metrics(
    symbols: Sequence[SymbolRows],
    params: HmmParameters,
    cuts: Cuts,
    session: Session,
    baselines: FittedBaselines,
    *,
    interval_ms: int,
    strides: Mapping[str, int] | None = None,
) -> tuple[Metrics, dict[str, list[Judged]]]:
    """Score a new pair of models on its own splits, for the LSTM's manifest.

    Args:
        symbols: the training symbols, whole history.
        params: the HMM.
        cuts: the splits' boundaries.
        session: the open LSTM file.
        baselines: fitted on the training range.
        interval_ms: length of a candle.
        strides: the LSTM is asked about every k-th row of a split; by default about every
            20th training row, every second validation row and every test row.

    Returns:
        Sections ``train validation test`` (the LSTM: accuracy, accuracy_low, accuracy_high,
        balanced_accuracy, …, rows), for each split ``hmm_<split>`` (the filter, on the same
        rows), ``baselines_<split>`` (accuracies by name), ``lead_<split>`` (paired differences
        ``<name>``, ``<name>_low``), ``fitted_baselines``; and the judged symbols by split.
    """
    strides = {"train": 20, "validation": 2, **(strides or {})}
    metrics: Metrics = {BASELINES_SECTION: baselines.numbers()}
    judged: dict[str, list[Judged]] = {}
    for split in SPLITS:
        judged[split] = [
            judge(
                rows,
                params,
                split_slices(rows.table.open_time_ms, cuts)[split],
                session,
                baselines,
                interval_ms=interval_ms,
                stride=strides.get(split, 1),
            )
            for rows in symbols
        ]
        one = judged[split]
        count = float(sum(int(symbol.named.sum()) for symbol in one))
        metrics[split] = flat(summarise(one, LSTM, same=True)["pooled"]) | {"rows": count}
        metrics[f"hmm_{split}"] = flat(summarise(one, HMM, same=True)["pooled"])
        accuracies: dict[str, float | None] = {}
        leads: dict[str, float | None] = {}
        for name in one[0].estimates:
            if name == LSTM:
                continue
            public = "hmm_filter" if name == HMM else name
            accuracies[public] = summarise(one, name, same=True)["pooled"]["accuracy"]
            ahead = lead(one, LSTM, name)
            leads |= {public: ahead["difference"], f"{public}_low": ahead["low"]}
        metrics[f"baselines_{split}"] = accuracies
        metrics[f"lead_{split}"] = leads
    return metrics, judged


def flat(numbers: Mapping[str, Any]) -> dict[str, float | None]:
    """Spell ``accuracy_ci`` as two numbers, ``accuracy_low`` and ``accuracy_high``."""
    low, high = numbers["accuracy_ci"] or (None, None)
    rest = {name: value for name, value in numbers.items() if name != "accuracy_ci"}
    return rest | {"accuracy_low": low, "accuracy_high": high}


def evaluate_models(
    params: HmmParameters,
    session: Session,
    baselines: FittedBaselines,
    series: Sequence[CandleSeries],
    *,
    since_ms: int | None = None,
    symbols: Collection[str] | None = None,
) -> dict[str, Any]:
    """Score an HMM and its LSTM on any candles.

    Args:
        params: the HMM.
        session: the open LSTM file.
        baselines: from the LSTM's manifest.
        series: candles; one series a symbol, one interval.
        since_ms: open time from which rows are labelled and scored; earlier ones warm up.
        symbols: which of the series; None takes all.

    Returns:
        ``hmm``, ``lstm``, ``hmm_same_rows``, ``baselines`` (each ``{"pooled", "symbols"}``),
        ``definition`` and ``rows``, as JSON has it.

    Raises:
        DataError: a wanted symbol is not there, or no row can be scored.
    """
    chosen = _choose(series, symbols)
    judged = []
    for one in chosen:
        rows = symbol_rows(one, params)
        start = 0 if since_ms is None else int(np.searchsorted(one.open_time_ms, since_ms))
        part = slice(start, len(one))
        judged.append(judge(rows, params, part, session, baselines, interval_ms=one.interval_ms))
    if not any(one.scored.any() for one in judged):
        raise DataError(
            f"no candle of {', '.join(one.symbol for one in judged)} can be scored: the scored "
            "range needs more than 296 contiguous candles (72 for the trend, 200 at its start "
            "and 24 at its end are left out); give more candles or an earlier --since"
        )
    names = [name for name in judged[0].estimates if name not in {HMM, LSTM}]
    table = {name: summarise(judged, name, same=True) for name in names}
    same = summarise(judged, HMM, same=True)
    accuracy, interval = random_walk_accuracy()
    walk = {"pooled": {"accuracy": accuracy, "accuracy_ci": list(interval)}, "symbols": {}}
    counts = {
        LSTM: {one.symbol: int(one.named.sum()) for one in judged},
        HMM: {one.symbol: int(one.scored.sum()) for one in judged},
    }
    return {
        "hmm": summarise(judged, HMM, same=False),
        "lstm": summarise(judged, LSTM, same=True),
        "hmm_same_rows": same,
        "baselines": table | {"hmm_filter": same, "random_walk_hmm": walk},
        "definition": {
            "W": TREND_WINDOW,
            "means": params.means.tolist(),
            "variances": params.variances.tolist(),
            "transitions": params.transitions.tolist(),
            "stationary": params.stationary().tolist(),
            "state_shares": state_shares(judged),
        },
        "rows": {
            name: {"total": sum(by_symbol.values()), "symbols": by_symbol}
            for name, by_symbol in counts.items()
        },
    }


def _choose(series: Sequence[CandleSeries], symbols: Collection[str] | None) -> list[CandleSeries]:
    there = {one.id.symbol: one for one in series}
    wanted = list(there) if symbols is None else list(dict.fromkeys(symbols))
    unknown = [symbol for symbol in wanted if symbol not in there]
    if unknown or not wanted:
        raise DataError(
            f"no candles of {', '.join(unknown) or 'any symbol'}; "
            f"there are candles of {', '.join(there) or 'none'}"
        )
    intervals = {one.id.interval for one in series}
    if len(intervals) > 1 or len(there) < len(series):
        raise DataError(
            "expected one series a symbol and one interval; got "
            + ", ".join(one.id.key for one in series)
        )
    return [there[symbol] for symbol in wanted]


def evaluate_candles(
    registry: ModelRegistry,
    series: Sequence[CandleSeries],
    since_ms: int | None = None,
    symbols: Collection[str] | None = None,
) -> dict[str, Any]:
    """Score the promoted models of the candles' interval on these candles.

    Models that have expired can still be scored.

    Args:
        registry: the model store.
        series: candles; one series a symbol, one interval.
        since_ms: open time from which rows are labelled and scored.
        symbols: which of the series; None takes all.

    Returns:
        What `evaluate_models` returns, and ``models``: the sha256 of both files.

    Raises:
        DataError: a wanted symbol is not there, or no row can be scored.
        ModelError: there is no promoted pair that can be trusted.
    """
    if not series:
        raise DataError("no candles to evaluate on; expected at least one series")
    pair = registry.load(series[0].id.interval)
    if pair.lstm is None:
        raise ModelError(
            f"no LSTM is promoted for {pair.interval}, only the HMM {pair.hmm.sha256[:12]}; "
            "expected a pair: train and promote with `bot4-pipelines run`"
        )
    fitted = pair.lstm.manifest.metrics.get(BASELINES_SECTION, {})
    return evaluate_models(
        pair.hmm.parameters(),
        pair.lstm.session,
        FittedBaselines.from_numbers(fitted),
        series,
        since_ms=since_ms,
        symbols=symbols,
    ) | {"models": {"hmm_sha256": pair.hmm_sha256, "lstm_sha256": pair.lstm_sha256}}
