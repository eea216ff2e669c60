"""From feature tables to what the LSTM learns from: inputs, targets, scaler, segments.

Everything here that is fitted (scaler, simulated label shares) sees training candles alone. A
segment never spans a missing candle, a dead candle or a cut; the first candles after a cut are
used by nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bot4_pipelines.training.cuts import scored, split_slices
from bot4_pipelines.training.labels import causal_scores, hindsight_labels
from bot4_pipelines.training.soft_labels import SoftLabelInput, soft_labels
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.batch import FeatureTable, compute
from bot4_runtime.features.schema import FEATURE_NAMES, ODD
from bot4_runtime.regime.hmm import SCORE_NAMES, STATES, HmmParameters
from bot4_runtime.regime.manifest import Cuts

CLASSES: Final = STATES
CLIP: Final = 6.0
CANDLE_FEATURES: Final = len(FEATURE_NAMES)
INPUT_NAMES: Final = (*FEATURE_NAMES, *SCORE_NAMES)
"""Columns of the LSTM's input, in order."""


@dataclass(frozen=True)
class SymbolRows:
    """A symbol's candles as the models see them; every column is causal.

    Attributes:
        symbol: as the exchange spells it.
        table: candle features.
        inputs: float64[n, 28], columns `INPUT_NAMES`, unscaled; NaN where not valid.
        dead: bool[n], flat candles without volume and those in doubt; nothing is learnt from them.
    """

    symbol: str
    table: FeatureTable
    inputs: np.ndarray
    dead: np.ndarray

    @property
    def learnable(self) -> np.ndarray:
        """Which rows may be learnt from: valid and alive, bool[n]."""
        return np.asarray(self.table.valid & ~self.dead)


def symbol_rows(
    series: CandleSeries,
    params: HmmParameters,
    table: FeatureTable | None = None,
    masked: np.ndarray | None = None,
) -> SymbolRows:
    """Compute a symbol's inputs: candle features and the causal Viterbi scores under an HMM.

    Args:
        series: the candles.
        params: the HMM whose file the LSTM will name.
        table: the series' features, when they are computed already.
        masked: bool[n], candles in doubt, which nothing is learnt from; None for none.
    """
    table = compute(series) if table is None else table
    inputs = np.concatenate([table.values, causal_scores(table.z, params)], axis=1)
    inputs[~table.valid] = np.nan
    return SymbolRows(series.id.symbol, table, inputs, dead_rows(series, masked))


def dead_rows(series: CandleSeries, masked: np.ndarray | None = None) -> np.ndarray:
    """Return the rows that nothing is learnt from: flat without volume, or in doubt; bool[n]."""
    dead: np.ndarray = (series.volume <= 0.0) & (series.high <= series.low)
    return dead if masked is None else dead | masked


def learnt_table(series: CandleSeries, table: FeatureTable, masked: np.ndarray) -> FeatureTable:
    """Return a table in which only what models learn from is valid.

    Args:
        series: the candles.
        table: their features.
        masked: bool[n], candles in doubt.
    """
    return replace(
        table,
        valid=table.valid & ~dead_rows(series, masked),
        z=np.where(masked, np.nan, table.z),
    )


def window_ends(usable: np.ndarray, length: int) -> np.ndarray:
    """Return the rows at which `length` usable rows in a row end, int64.

    Args:
        usable: bool[n]; false for the first rows after a gap, so that no window spans one.
        length: rows of a window.
    """
    if len(usable) < length:
        return np.zeros(0, dtype=np.int64)
    counts = np.convolve(usable.astype(np.int64), np.ones(length, dtype=np.int64), "valid")
    ends: np.ndarray = np.flatnonzero(counts == length) + length - 1
    return ends


def inside(n: int, rows: slice) -> np.ndarray:
    """Return bool[n], true for the rows of a slice."""
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


@dataclass(frozen=True)
class Scaler:
    """Train-only standardisation; odd columns are not centred, mirrored columns share a scale.

    Attributes:
        mean: float64[D].
        deviation: float64[D], > 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Return clip((x - mean) / deviation, ±`CLIP`) as float32, same shape."""
        scaled = (inputs - self.mean) / self.deviation
        clipped: np.ndarray = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
        return clipped


def fit_scaler(inputs: np.ndarray) -> Scaler:
    """Fit the scaler on training rows.

    Args:
        inputs: float64[N, D], columns `INPUT_NAMES`, finite.
    """
    mean = inputs.mean(axis=0)
    square = (inputs**2).mean(axis=0)
    mean[:CANDLE_FEATURES][np.array(ODD)] = 0.0
    for column in (mean, square):
        scores = column[CANDLE_FEATURES:]
        scores[:] = 0.5 * (scores + scores[::-1])
    variance = square - mean**2
    return Scaler(mean, np.sqrt(np.where(variance > 1e-12, variance, 1.0)))


def mirror_columns() -> tuple[np.ndarray, np.ndarray]:
    """Return how a row looks when every price is inverted: columns int64[D], signs float32[D]."""
    columns = np.arange(len(INPUT_NAMES))
    columns[CANDLE_FEATURES:] = columns[CANDLE_FEATURES:][::-1]
    signs = np.ones(len(INPUT_NAMES), dtype=np.float32)
    signs[:CANDLE_FEATURES][np.array(ODD)] = -1.0
    return columns, signs


@dataclass(frozen=True)
class TrainingSet:
    """Pooled rows of all symbols and where segments may start.

    Attributes:
        inputs: float32[N, D], scaled; rows of different symbols follow each other.
        labels: int8[N], hindsight labels of the row's own split; -1 where unknown.
        targets: float32[N, 5], what the training rows are fitted to.
        segments: int64[S], rows at which whole training segments start.
        windows: int64[V], rows at which validation windows end.
        scaler: fitted on the training rows.
    """

    inputs: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    segments: np.ndarray
    windows: np.ndarray
    scaler: Scaler


def training_set(
    symbols: Sequence[SymbolRows],
    params: HmmParameters,
    cuts: Cuts,
    *,
    segment: int,
    window: int,
    soft: Sequence[np.ndarray] | None = None,
    soft_share: float = 0.75,
    scaler: Scaler | None = None,
) -> TrainingSet:
    """Pool symbols into one training set.

    Args:
        symbols: all training symbols, whole history.
        params: HMM fitted on the training range.
        cuts: the splits' boundaries, the same for all symbols.
        segment: candles of a training segment.
        window: candles of a validation window.
        soft: a symbol's simulated label shares, float32[n, 5]; NaN where there are none.
        soft_share: weight of the simulated share in the target; the rest is the hard label.
        scaler: of a model gone on from; fitted on the training rows when None.

    Raises:
        DataError: a split is empty, or no whole training segment or validation window exists.
    """
    labels, targets, starts, ends, learnt = [], [], [], [], []
    offset = 0
    for number, rows in enumerate(symbols):
        n = len(rows.table)
        splits = split_slices(rows.table.open_time_ms, cuts)
        parts = (splits["train"], splits["validation"])
        known = hindsight_labels(rows.table.z, params, parts).astype(np.int8)
        target = np.eye(CLASSES, dtype=np.float32)[np.maximum(known, 0)]
        if soft is not None:
            share = np.where(np.isfinite(soft[number]), soft[number], target)
            target = (soft_share * share + (1.0 - soft_share) * target).astype(np.float32)
        train = rows.learnable & inside(n, splits["train"]) & (known >= 0)
        starts.append(window_ends(train, segment) + 1 - segment + offset)
        reached = window_ends(rows.learnable, window)
        judged = inside(n, scored(splits["validation"])) & (known >= 0)
        ends.append(reached[judged[reached]] + offset)
        learnt.append(train)
        labels.append(known)
        targets.append(target)
        offset += n
    segments, windows = np.concatenate(starts), np.concatenate(ends)
    if not len(segments) or not len(windows):
        raise DataError(
            f"nothing to learn from: {len(segments)} training segments of {segment} contiguous "
            f"candles and {len(windows)} validation windows of {window}; at least one of each is "
            "needed: give a longer or less interrupted history"
        )
    inputs = np.concatenate([rows.inputs for rows in symbols])
    if scaler is None:
        scaler = fit_scaler(inputs[np.concatenate(learnt)])
    return TrainingSet(
        inputs=np.nan_to_num(scaler.apply(inputs)),
        labels=np.concatenate(labels),
        targets=np.concatenate(targets),
        segments=segments,
        windows=windows,
        scaler=scaler,
    )


def simulated_shares(
    symbols: Sequence[SymbolRows],
    params: HmmParameters,
    cuts: Cuts,
    *,
    paths: int,
    horizon: int,
    seed: int,
) -> list[np.ndarray]:
    """Simulate what the hindsight labels of the training candles will be.

    Args:
        symbols: all training symbols, whole history.
        params: HMM fitted on the training range.
        cuts: the splits' boundaries; nothing after training is used.
        paths: futures a candle.
        horizon: candles a future lasts.
        seed: of the simulation.

    Returns:
        float32[n, 5] a symbol; NaN outside training.
    """
    parts = []
    for rows in symbols:
        train = split_slices(rows.table.open_time_ms, cuts)["train"]
        parts.append(
            SoftLabelInput(
                log_return=rows.table.log_return,
                rv=rows.table.rv,
                score_gap=np.expm1(rows.inputs[:, CANDLE_FEATURES:]),
                wanted=rows.learnable & inside(len(rows.table), train),
            )
        )
    return soft_labels(parts, params, paths=paths, horizon=horizon, seed=seed)
