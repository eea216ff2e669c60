"""Scores regime models against hindsight labels: for manifests and for any candles.

Candles before the scored range are warm-up. What is scored, and how, says `judged`; the look-ahead
is asked about so many of those rows, evenly spread, as `LOOKAHEAD_ROWS` allows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from bot4_pipelines.training.baselines import FittedBaselines
from bot4_pipelines.training.cuts import SPLITS, split_slices
from bot4_pipelines.training.dataset import SymbolRows, symbol_rows
from bot4_pipelines.training.estimates import Session
from bot4_pipelines.training.judged import (
    HMM,
    LOOKAHEAD,
    LSTM,
    Judged,
    flat,
    judge,
    lead,
    limit,
    state_shares,
    summarise,
)
from bot4_pipelines.training.random_walk import random_walk_numbers
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import DataError, ModelError
from bot4_runtime.features.schema import TREND_WINDOW
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.lookahead import LookAhead
from bot4_runtime.regime.manifest import Cuts, Metrics
from bot4_runtime.regime.registry import ModelRegistry

LOOKAHEAD_ROWS: Final = 250_000
"""Most rows, all symbols together, that the look-ahead is asked about in one evaluation: some
twenty seconds. Where rows are left out, delays cannot be told."""
BASELINES_SECTION: Final = "fitted_baselines"
"""Section of the LSTM manifest's metrics that holds `FittedBaselines.numbers()`."""
_LOOK_STRIDE: Final = 3
"""Rows apart of those with an LSTM estimate at which a manifest's look-ahead is asked."""


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
