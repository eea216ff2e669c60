"""Scores regime models against hindsight labels: for manifests and for any candles.

Candles before the scored range are warm-up. Labels and the HMM filter start afresh, from the
stationary prior, at the range's first candle and after every gap; the first 200 and the last 24
rows of the range are not scored. The HMM is scored wherever there is a label, the LSTM, and
everything it is compared with, wherever there is an LSTM estimate too; the look-ahead on so many
of those rows, evenly spread, as `LOOKAHEAD_ROWS` allows. Pooled numbers are unweighted means over
symbols; every number has its block-bootstrap interval beside it, as ``<name>_ci``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from bot4_pipelines.training.baselines import LAG, FittedBaselines
from bot4_pipelines.training.cuts import SPLITS, scored, split_slices
from bot4_pipelines.training.dataset import (
    CANDLE_FEATURES,
    SymbolRows,
    inside,
    symbol_rows,
    window_ends,
)
from bot4_pipelines.training.labels import filtered_regimes, hindsight_labels
from bot4_pipelines.training.random_walk import random_walk_numbers
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
from bot4_pipelines.training.soft_labels import trend_returns
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.schema import TREND_WINDOW
from bot4_runtime.regime.hmm import STATES, HmmParameters
from bot4_runtime.regime.lookahead import LookAhead
from bot4_runtime.regime.manifest import WINDOW, Cuts, Metrics
from bot4_runtime.regime.registry import ModelRegistry

HMM: Final = "hmm"
LSTM: Final = "lstm"
LOOKAHEAD: Final = "hmm_lookahead"
LIMIT: Final = (
    "mean confidence of the look-ahead on its rows: the accuracy it expects of itself, which is "
    "what any causal estimate can reach when returns go on as in blocks of training returns with "
    "random sign; as far as it is calibrated (its ece), this is the limit for naming the present"
)
LOOKAHEAD_ROWS: Final = 40_000
"""Most rows, all symbols together, that the look-ahead is asked about in one evaluation."""
BASELINES_SECTION: Final = "fitted_baselines"
"""Section of the LSTM manifest's metrics that holds `FittedBaselines.numbers()`."""
_BATCH: Final = 512
_LOOK_STRIDE: Final = 3
"""Rows apart of those with an LSTM estimate at which a manifest's look-ahead is asked."""


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


def lookahead_estimates(look: LookAhead, rows: SymbolRows, wanted: np.ndarray) -> np.ndarray:
    """Look ahead from some rows of a symbol.

    Args:
        look: the look-ahead of the HMM that made the rows' Viterbi scores.
        rows: the symbol's candles.
        wanted: bool[n].

    Returns:
        float64[n, 5], NaN where nothing was asked.
    """
    found = np.full((len(rows.table), STATES), np.nan)
    at = np.flatnonzero(wanted)
    gaps = np.expm1(rows.inputs[at, CANDLE_FEATURES:])
    found[at] = look.posterior(trend_returns(rows.table.log_return, at), gaps)
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
        ends = window_ends(rows.table.valid, WINDOW)
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


def training_metrics(
    symbols: Sequence[SymbolRows],
    params: HmmParameters,
    cuts: Cuts,
    session: Session,
    baselines: FittedBaselines,
    *,
    interval_ms: int,
    strides: Mapping[str, int] | None = None,
    look: LookAhead | None = None,
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
        look: the HMM's look-ahead, asked about some of validation and test; None leaves it out.

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
                look=None if split == "train" else look,
                look_stride=_LOOK_STRIDE,
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
        if LOOKAHEAD in one[0].estimates:
            accuracies["limit"] = limit(one)["pooled"]["accuracy"]
        metrics[f"baselines_{split}"] = accuracies
        metrics[f"lead_{split}"] = leads
    return metrics, judged


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


def evaluate_models(
    params: HmmParameters,
    session: Session,
    baselines: FittedBaselines,
    series: Sequence[CandleSeries],
    *,
    since_ms: int | None = None,
    symbols: Collection[str] | None = None,
    look: LookAhead | None = None,
) -> dict[str, Any]:
    """Score an HMM and its LSTM on any candles.

    Args:
        params: the HMM.
        session: the open LSTM file.
        baselines: from the LSTM's manifest.
        series: candles; one series a symbol, one interval.
        since_ms: open time from which rows are labelled and scored; earlier ones warm up.
        symbols: which of the series; None takes all.
        look: the HMM's look-ahead; None leaves it and the limit out.

    Returns:
        ``hmm``, ``lstm``, ``hmm_same_rows``, ``hmm_lookahead``, ``limit``, ``baselines`` (each
        ``{"pooled", "symbols"}``), ``definition`` and ``rows``, as JSON has it.

    Raises:
        DataError: a wanted symbol is not there, or no row can be scored.
    """
    chosen = _choose(series, symbols)
    judged = judge_series(params, session, baselines, chosen, since_ms=since_ms, look=look)
    return report(params, judged)


def judge_series(
    params: HmmParameters,
    session: Session,
    baselines: FittedBaselines,
    series: Sequence[CandleSeries],
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    look: LookAhead | None = None,
    stride: int = 1,
) -> list[Judged]:
    """Let every model name a range of each series.

    Args:
        params: the HMM.
        session: the open LSTM file.
        baselines: from the LSTM's manifest.
        series: candles, warm-up included; later ones than the range are not looked at.
        since_ms: open time at which the range begins; None is the first candle.
        until_ms: open time at which it ends; None is after the last candle.
        look: the HMM's look-ahead; None leaves it out.
        stride: ask the LSTM about every stride-th row only.

    Raises:
        DataError: no row can be scored.
    """
    wanted = sum(len(one.between(since_ms, until_ms)) for one in series)
    judged = []
    for one in series:
        rows = symbol_rows(one.between(None, until_ms), params)
        times = rows.table.open_time_ms
        start = 0 if since_ms is None else int(np.searchsorted(times, since_ms))
        part = slice(start, len(times))
        judged.append(
            judge(
                rows,
                params,
                part,
                session,
                baselines,
                interval_ms=one.interval_ms,
                stride=stride,
                look=look,
                look_stride=max(1, -(-wanted // (stride * LOOKAHEAD_ROWS))),
            )
        )
    if not any(one.scored.any() for one in judged):
        raise DataError(
            f"no candle of {', '.join(one.symbol for one in judged)} can be scored: the scored "
            "range needs more than 296 contiguous candles (72 for the trend, 200 at its start "
            "and 24 at its end are left out); give more candles or an earlier --since"
        )
    return judged


def report(params: HmmParameters, judged: Sequence[Judged]) -> dict[str, Any]:
    """Put all numbers about judged symbols into one document, as `evaluate_models` describes.

    Args:
        params: the HMM.
        judged: the symbols.
    """
    names = [name for name in judged[0].estimates if name not in {HMM, LSTM, LOOKAHEAD}]
    table = {name: summarise(judged, name, same=True) for name in names}
    same = summarise(judged, HMM, same=True)
    document: dict[str, Any] = {
        "hmm": summarise(judged, HMM, same=False),
        "lstm": summarise(judged, LSTM, same=True),
        "hmm_same_rows": same,
        "baselines": table
        | {
            "hmm_filter": same,
            "random_walk_hmm": {"pooled": random_walk_numbers(), "symbols": {}},
        },
        "definition": {
            "W": TREND_WINDOW,
            "means": params.means.tolist(),
            "variances": params.variances.tolist(),
            "transitions": params.transitions.tolist(),
            "stationary": params.stationary().tolist(),
            "state_shares": state_shares(judged),
        },
        "rows": {
            LSTM: _counted({one.symbol: one.named for one in judged}),
            HMM: _counted({one.symbol: one.scored for one in judged}),
        },
    }
    looked = {one.symbol: one.looked for one in judged if one.looked is not None}
    if looked:
        document[LOOKAHEAD] = summarise(judged, LOOKAHEAD, same=True)
        document["limit"] = document["baselines"]["limit"] = limit(judged)
        document["rows"][LOOKAHEAD] = _counted(looked) | {"stride": judged[0].look_stride}
    return document


def _counted(rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
    by_symbol = {symbol: int(mask.sum()) for symbol, mask in rows.items()}
    return {"total": sum(by_symbol.values()), "symbols": by_symbol}


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
        look=pair.look_ahead(),
    ) | {"models": {"hmm_sha256": pair.hmm_sha256, "lstm_sha256": pair.lstm_sha256}}
