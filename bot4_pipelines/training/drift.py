"""Whether recent candles still look like those the models that trade were trained on.

Two measures a feature, a month of one symbol against the pooled training range: the population
stability index over tenths (Siddiqi, Credit Risk Scorecards, 2006: above 0.25 is a shift) and the
two-sample Kolmogorov-Smirnov distance. Both rules of thumb are for independent rows. Candles are
not: most single months of the training range itself have an index above 0.25. So each limit is
also `MARGIN` times the largest value that any month of training had, and a feature has shifted
where both measures pass theirs. For the HMM it is the mean log-likelihood of a month's trends,
held against the least of training's own months. No Dagster, no clock.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_pipelines.training.labels import segments
from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.batch import FeatureTable
from bot4_runtime.features.schema import FEATURE_NAMES
from bot4_runtime.regime.hmm import HmmParameters, forward_filter

WINDOW_DAYS: Final = 30
"""Days of candles that are judged, and length of training's own months."""
PSI_SHIFT: Final = 0.25
"""Population stability index from which a shift is spoken of at all."""
MARGIN: Final = 1.2
"""How far beyond training's own worst month a measure must be."""
LEAST_SHARE: Final = 0.5
"""Share of a window's candles that must be valid for a verdict."""
LEAST_BLOCKS: Final = 6
"""Months of training that limits are taken from, at least."""
_TENTHS: Final = 10
_EMPTY: Final = 1e-4
"""Share that an empty tenth counts as: the index has a logarithm."""
_QUANTILES: Final = 2_001

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """What the training range looked like, all symbols pooled.

    Attributes:
        window: candles of a judged window.
        names: of the features, F of them.
        edges: float64[F, 9], between the tenths of training.
        shares: float64[F, 10], of training in each tenth.
        quantiles: float64[F, 2001], evenly spaced in probability.
        psi_limit: float64[F], index above which a feature has shifted.
        ks_limit: float64[F], distance above which it has.
        loglik_limit: mean log-likelihood a candle below which the HMM no longer fits.
        loglik_median: of training's own months, to compare with.
        blocks: months of training the limits are taken from, all symbols together.
    """

    window: int
    names: tuple[str, ...]
    edges: Floats
    shares: Floats
    quantiles: Floats
    psi_limit: Floats
    ks_limit: Floats
    loglik_limit: float
    loglik_median: float
    blocks: int


@dataclass(frozen=True)
class Shift:
    """How far a window's feature lies from training.

    Attributes:
        psi: population stability index; `psi_limit` its limit.
        ks: Kolmogorov-Smirnov distance; `ks_limit` its limit.
    """

    feature: str
    psi: float
    psi_limit: float
    ks: float
    ks_limit: float

    @property
    def shifted(self) -> bool:
        """Whether both measures pass their limits."""
        return self.psi > self.psi_limit and self.ks > self.ks_limit

    def __str__(self) -> str:
        return (
            f"{self.feature}: PSI {self.psi:.2f} (limit {self.psi_limit:.2f}), KS {self.ks:.2f} "
            f"(limit {self.ks_limit:.2f})"
        )


# -------------------------------------------------------------------- two measures
def stability_index(expected: Floats, actual: Floats) -> float:
    """Return the population stability index, the sum of (a - e) ln(a / e).

    Args:
        expected: float64[bins], shares that sum to 1.
        actual: float64[bins], as `expected`; an empty bin counts as 0.0001.
    """
    e, a = np.maximum(expected, _EMPTY), np.maximum(actual, _EMPTY)
    return float(((a - e) * np.log(a / e)).sum())


def ks_distance(one: Floats, other: Floats) -> float:
    """Return the largest distance between two empirical distribution functions, 0 to 1.

    Args:
        one: float64[n], sorted.
        other: float64[m], sorted.
    """
    steps = np.concatenate([one, other])
    first = np.searchsorted(one, steps, side="right") / len(one)
    second = np.searchsorted(other, steps, side="right") / len(other)
    return float(np.abs(first - second).max())


def row_loglik(z: Floats, params: HmmParameters) -> Floats:
    """Return ln p(z of a candle | those before it in its run), float64[n] (filtered).

    Each run starts from the stationary prior; NaN where the trend is unknown.

    Args:
        z: float64[n], one symbol's trend, NaN where unknown.
        params: the HMM.
    """
    result = np.full(len(z), np.nan)
    for rows in segments(z, [slice(0, len(z))]):
        filtered = forward_filter(z[rows], params)[0]
        prior = np.vstack([params.stationary(), filtered[:-1] @ params.transitions])
        joint = np.log(prior) + params.log_emissions(z[rows])
        top = joint.max(axis=1, keepdims=True)
        result[rows] = (top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True)))[:, 0]
    return result


# --------------------------------------------------------------------- reference
def make_reference(
    tables: Mapping[str, FeatureTable],
    train: Mapping[str, slice],
    params: HmmParameters,
    window: int,
) -> Reference:
    """Describe the training range, and take the limits from its own months.

    Args:
        tables: features by symbol, whole history; what was not learnt from is not valid, and its
            trend is NaN (`dataset.learnt_table`).
        train: rows of the training range by symbol.
        params: the HMM that was fitted on it.
        window: candles of a month.

    Raises:
        DataError: training has fewer than six months with enough valid candles.
    """
    parts = {symbol: _valid_rows(table, train[symbol]) for symbol, table in tables.items()}
    pooled = np.concatenate([tables[symbol].values[rows] for symbol, rows in parts.items()])
    months = [
        tables[symbol].values[block]
        for symbol in parts
        for block in _blocks(parts[symbol], window)
    ]
    if len(months) < LEAST_BLOCKS:
        raise DataError(
            f"the training range has {len(months)} months of {window} valid candles, "
            f"{LEAST_BLOCKS} are needed to say what is usual: ingest more history"
        )
    edges = np.quantile(pooled, np.linspace(0.0, 1.0, _TENTHS + 1)[1:-1], axis=0).T
    quantiles = np.quantile(pooled, np.linspace(0.0, 1.0, _QUANTILES), axis=0).T
    shares = np.array([_shares(pooled[:, f], row) for f, row in enumerate(edges)])
    psi = np.array([[stability_index(shares[f], _shares(month[:, f], edges[f]))
                     for f in range(len(edges))] for month in months])  # fmt: skip
    ks = np.array([[ks_distance(quantiles[f], np.sort(month[:, f]))
                    for f in range(len(edges))] for month in months])  # fmt: skip
    logliks = []
    for symbol, table in tables.items():
        found = row_loglik(table.z[train[symbol]], params)
        known = found[np.isfinite(found)]
        logliks += [float(known[block].mean()) for block in _blocks(np.arange(len(known)), window)]
    median, least = float(np.median(logliks)), float(np.min(logliks))
    return Reference(
        window=window,
        names=FEATURE_NAMES,
        edges=edges,
        shares=shares,
        quantiles=quantiles,
        psi_limit=np.maximum(PSI_SHIFT, MARGIN * psi.max(axis=0)),
        ks_limit=MARGIN * ks.max(axis=0),
        loglik_limit=median - MARGIN * (median - least),
        loglik_median=median,
        blocks=len(months),
    )


def _valid_rows(table: FeatureTable, rows: slice) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = np.flatnonzero(table.valid[rows]) + rows.start
    return found


def _blocks(rows: npt.NDArray[np.int64], window: int) -> list[npt.NDArray[np.int64]]:
    """Cut rows into whole windows, the last one ending at the last row."""
    first = len(rows) % window
    return [rows[at : at + window] for at in range(first, len(rows), window)]


def _shares(values: Floats, edges: Floats) -> Floats:
    counts = np.bincount(np.searchsorted(edges, values), minlength=_TENTHS)
    return np.asarray(counts / len(values), dtype=np.float64)


# ----------------------------------------------------------------------- verdicts
def feature_shifts(reference: Reference, values: Floats) -> list[Shift] | None:
    """Compare a window of one symbol with training, feature by feature, the furthest first.

    Args:
        reference: of the training range.
        values: float64[n, F], rows of the window, NaN where not valid.

    Returns:
        None when too few rows are valid to say anything.
    """
    known = values[np.isfinite(values).all(axis=1)]
    if len(known) < LEAST_SHARE * reference.window:
        return None
    shifts = [
        Shift(
            name,
            stability_index(reference.shares[f], _shares(known[:, f], reference.edges[f])),
            float(reference.psi_limit[f]),
            ks_distance(reference.quantiles[f], np.sort(known[:, f])),
            float(reference.ks_limit[f]),
        )
        for f, name in enumerate(reference.names)
    ]
    return sorted(
        shifts,
        key=lambda one: min(one.psi / one.psi_limit, one.ks / one.ks_limit),
        reverse=True,
    )


def mean_loglik(reference: Reference, z: Floats, params: HmmParameters) -> float | None:
    """Return the mean log-likelihood a candle of the last window of one symbol's trends.

    Args:
        reference: says how many candles a window has.
        z: float64[n], the trend, NaN where unknown; candles before the window warm the filter.
        params: the HMM that trades.

    Returns:
        None when too few trends are known.
    """
    recent = row_loglik(z, params)[-reference.window :]
    known = recent[np.isfinite(recent)]
    if len(known) < LEAST_SHARE * reference.window:
        return None
    return float(known.mean())


# -------------------------------------------------------------------------- on disk
def write_reference(path: Path, reference: Reference) -> None:
    """Write a reference as one NumPy archive, without pickles, in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with draft.open("wb") as file:
        np.savez_compressed(
            file,
            edges=reference.edges,
            shares=reference.shares,
            quantiles=reference.quantiles,
            psi_limit=reference.psi_limit,
            ks_limit=reference.ks_limit,
            loglik=np.array([reference.loglik_limit, reference.loglik_median]),
            counts=np.array([reference.window, reference.blocks]),
            names=np.array(reference.names),
        )
    draft.replace(path)


def read_reference(path: Path) -> Reference:
    """Read a reference back.

    Raises:
        DataError: it is missing, unreadable, or of other features.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            reference = Reference(
                window=int(held["counts"][0]),
                names=tuple(held["names"].tolist()),
                edges=held["edges"],
                shares=held["shares"],
                quantiles=held["quantiles"],
                psi_limit=held["psi_limit"],
                ks_limit=held["ks_limit"],
                loglik_limit=float(held["loglik"][0]),
                loglik_median=float(held["loglik"][1]),
                blocks=int(held["counts"][1]),
            )
    except FileNotFoundError:
        raise DataError(f"{path} is missing; materialise the asset 'training_reference'") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); materialise the asset 'training_reference' again"
        ) from error
    if reference.names != FEATURE_NAMES:
        raise DataError(
            f"{path} describes other features than this version computes; materialise the asset "
            "'training_reference' again"
        )
    return reference
