"""Whether anything a model sees at a candle depends on candles after it.

Candles after a moment t are altered; everything is computed again: features, trend, causal
Viterbi scores, the HMM filter's estimates, the LSTM's. At and before t not one number may differ,
not even by rounding: the same code runs on the same numbers there. Every moment is audited on a
stretch of its own around it, so the moments together cover the history. What was compared is
counted: a value that is missing both times says nothing, and an audit that has not seen a number
of every column is none.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from bot4_pipelines.progress import Report
from bot4_pipelines.training.dataset import symbol_rows, window_ends
from bot4_pipelines.training.estimates import Session, lstm_estimates, window_of
from bot4_pipelines.training.labels import filtered_regimes
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.regime import REGIME_LABELS
from bot4_runtime.features.batch import FeatureTable, compute
from bot4_runtime.features.schema import FEATURE_NAMES, LOOKBACK
from bot4_runtime.regime.hmm import SCORE_NAMES, HmmParameters

MOMENTS: Final = 6
"""Moments audited a symbol."""
BEFORE: Final = LOOKBACK + 288
"""Candles of a stretch up to its moment: 289 rows with features where none is missing."""
AFTER: Final = 200
"""Altered candles of a stretch."""
ASKED: Final = 64
"""Windows before the moment that the LSTM is asked about."""

Compute = Callable[[CandleSeries], FeatureTable]


@dataclass(frozen=True)
class Leak:
    """A column that knew of candles after a moment.

    Attributes:
        column: feature, score, or estimate and regime.
        moment_ms: open time of the last unaltered candle.
        first_ms: open time of the first row that differs.
        rows: how many differ.
        difference: the largest; NaN where a value came or went.
    """

    symbol: str
    column: str
    moment_ms: int
    first_ms: int
    rows: int
    difference: float

    def __str__(self) -> str:
        return (
            f"{self.symbol} {self.column}: {self.rows} rows from {_utc(self.first_ms)} on change "
            f"by up to {self.difference:.3g} with candles after {_utc(self.moment_ms)}"
        )


@dataclass(frozen=True)
class Audit:
    """What was compared and what leaked.

    Attributes:
        values: numbers compared; where both were missing nothing was.
        moments: how many moments, all symbols together.
        leaks: empty when nothing looks ahead.
        left_out: a sentence for each series that was not audited, or not in every column.
    """

    values: int
    moments: int
    leaks: tuple[Leak, ...]
    left_out: tuple[str, ...] = ()


def audit(
    series: Sequence[CandleSeries],
    params: HmmParameters,
    session: Session | None,
    *,
    moments: int = MOMENTS,
    features: Compute = compute,
    report: Report = lambda *_: None,
) -> Audit:
    """Alter the future at some moments of every symbol and compare the past.

    Args:
        series: whole history; one of fewer than `BEFORE` + `AFTER` candles is left out.
        params: the HMM.
        session: the open LSTM file; None audits features, scores and filter alone.
        moments: a symbol, evenly spread over its history.
        features: computes the features that are audited.
        report: told of the progress.

    Raises:
        DataError: of some column not one number was compared.
    """
    found: list[Leak] = []
    left_out: list[str] = []
    everywhere: Counter[str] = Counter()
    count = 0
    for place, one in enumerate(series):
        if len(one) < BEFORE + AFTER:
            left_out.append(f"{one.id.symbol} has {len(one)} candles")
            continue
        report(f"altering the future of {one.id.symbol}", place / len(series))
        compared: Counter[str] = Counter()
        for moment in np.linspace(BEFORE, len(one) - AFTER, moments).astype(int).tolist():
            stretch = one.rows(slice(max(0, moment - BEFORE), moment + AFTER))
            last = min(moment, BEFORE) - 1
            before, after = (
                _seen(each, params, session, features, last)
                for each in (stretch, altered_after(stretch, last))
            )
            for column, column_before in before.items():
                missing = np.isnan(column_before) & np.isnan(after[column])
                compared[column] += int(np.count_nonzero(~missing))
                leak = _compare(stretch, column, column_before, after[column], last)
                found += [] if leak is None else [leak]
            count += 1
        blind = [column for column, numbers in compared.items() if not numbers]
        left_out += [f"{one.id.symbol} has no number of {_listed(blind)}"] if blind else []
        everywhere.update(compared)
    unseen = [column for column, numbers in everywhere.items() if not numbers]
    if unseen or not count:
        raise DataError(
            f"the leak audit compared no number{' of ' if unseen else ''}{_listed(unseen)} "
            f"({'; '.join(left_out) or 'there are no candles'}); expected some of every column: "
            f"ingest {BEFORE + AFTER} candles without gaps of one series at least"
        )
    return Audit(everywhere.total(), count, tuple(found), tuple(left_out))


def _listed(columns: Sequence[str]) -> str:
    """Return the first of some columns, and how many there are."""
    return ", ".join(columns[:3]) + (f" and {len(columns) - 3} more" if len(columns) > 3 else "")


def altered_after(series: CandleSeries, last: int) -> CandleSeries:
    """Return other prices and volumes after row `last`, every candle whole in itself.

    Prices part by 1 % at once and by up to a factor of two, so that nothing that reads them can
    give the same number; what is not above zero stays so.
    """
    columns = {name: getattr(series, name).copy() for name in COLUMNS}
    rest = len(series) - last - 1
    factor = np.linspace(2.0, 1.01, rest) * (1.0 + 0.2 * np.sin(np.arange(rest)))
    for column in columns.values():
        column[last + 1 :] *= factor
    prices = [columns[name] for name in ("open", "high", "low", "close")]
    columns["high"], columns["low"] = np.max(prices, axis=0), np.min(prices, axis=0)
    return CandleSeries(series.id, series.open_time_ms, *columns.values())


def _seen(
    series: CandleSeries,
    params: HmmParameters,
    session: Session | None,
    features: Compute,
    last: int,
) -> Mapping[str, npt.NDArray[np.float64]]:
    """Compute all that is seen up to row `last`, by column."""
    rows = symbol_rows(series, params, features(series))
    table = rows.table
    columns = {name: table.values[:, place] for place, name in enumerate(FEATURE_NAMES)}
    scores = rows.inputs[:, len(FEATURE_NAMES) :]
    columns |= {name: scores[:, place] for place, name in enumerate(SCORE_NAMES)}
    columns |= {
        "z": table.z,
        "rv": table.rv,
        "log_return": table.log_return,
        "valid": table.valid.astype(np.float64),
        "dead": rows.dead.astype(np.float64),
    }
    filtered = filtered_regimes(table.z, params, [slice(0, len(table))])
    columns |= _by_regime("HMM filter", filtered)
    if session is not None:
        ends = window_ends(table.valid, window_of(session))
        ends = ends[ends <= last][-ASKED:]
        columns |= _by_regime("LSTM", lstm_estimates(session, rows.inputs, ends))
    return {name: column[: last + 1] for name, column in columns.items()}


def _by_regime(
    model: str, estimates: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    return {f"{model} {label}": estimates[:, k] for k, label in enumerate(REGIME_LABELS)}


def _compare(
    series: CandleSeries,
    column: str,
    before: npt.NDArray[np.float64],
    after: npt.NDArray[np.float64],
    last: int,
) -> Leak | None:
    differs = (before != after) & ~(np.isnan(before) & np.isnan(after))
    if not differs.any():
        return None
    first = int(differs.argmax())
    gaps = np.abs(before[differs] - after[differs])
    known = gaps[np.isfinite(gaps)]
    return Leak(
        symbol=series.id.symbol,
        column=column,
        moment_ms=int(series.open_time_ms[last]),
        first_ms=int(series.open_time_ms[first]),
        rows=int(differs.sum()),
        difference=float(known.max()) if len(known) else float("nan"),
    )


def _utc(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
