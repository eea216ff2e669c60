"""Evidence of the built-in rules: what following them brought before the test period.

Regimes are the HMM filter's, walked forward: before each stretch the HMM is fitted to what
came before it. Decided at a close, filled at the next open, stopped at the stop, net of fees
and slippage. All symbols are pooled with equal capital; every rule that was tried counts in
every record. The statistics are `bot4_runtime.regime.evidence`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.regime import Regime
from bot4_runtime.features.batch import FeatureTable
from bot4_runtime.regime.evidence import DAY_MS, Provenance, RuleHistory, make_records
from bot4_runtime.strategy.rules import (
    RULES_TRIED,
    VOLATILITY_CANDLES,
    RegimeRule,
    stop_distance,
)

FOLDS: Final = 4
"""Stretches of the training period that are walked through; validation is one more."""
FIRST_FIT_DAYS: Final = 365
WARM_ROWS: Final = 500
"""Rows before a stretch on which the filter forgets its prior."""
UNKNOWN: Final = -1

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_Parameters = TypeVar("_Parameters")


class Cuts(Protocol):
    """The dates, UTC ms, that part training, validation and test."""

    @property
    def train_start_ms(self) -> int:
        """First candle of training."""
        ...

    @property
    def validation_start_ms(self) -> int:
        """First candle of validation."""
        ...

    @property
    def test_start_ms(self) -> int:
        """First candle of test: evidence ends before it."""
        ...


@dataclass(frozen=True)
class RegimePath:
    """Causal regimes of a symbol (filtered: each from candles up to its own).

    Attributes:
        open_time_ms: int64[n].
        regime: int64[n], values of `Regime`, `UNKNOWN` where there is none.
        volatility: float64[n], of one candle's log return over 72, NaN where unknown.
    """

    open_time_ms: Integers
    regime: Integers
    volatility: Floats


@dataclass(frozen=True)
class FillCosts:
    """What a fill costs, as shares of price: Binance's spot taker fee, and slippage.

    The slippage is `PaperModel.slippage`, by which entries are judged too: a test holds the two
    together. Funding is not in it: the validator takes it off.
    """

    fee_rate: float = 0.001
    slippage: float = 0.0002

    @property
    def round_trip(self) -> float:
        """Both fills' fees and slippage."""
        return 2.0 * (self.fee_rate + self.slippage)


def walk_forward(
    tables: Mapping[str, FeatureTable],
    cuts: Cuts,
    fit: Callable[[Mapping[str, list[Floats]]], _Parameters],
    forward_filter: Callable[[Floats, _Parameters], Floats],
    *,
    folds: int = FOLDS,
) -> dict[str, RegimePath]:
    """Name regimes through training and validation by models that had not seen them.

    The first model is fitted to a year, or to half of a shorter training period; the last, for
    validation, to the whole training period.

    Args:
        tables: features of each symbol.
        cuts: the dates.
        fit: from the z of each symbol's contiguous runs, float64[run], to parameters.
        forward_filter: from z float64[run] and parameters to filtered probabilities
            float64[run, 5], the stationary prior at its start.
        folds: stretches of the training period.

    Raises:
        DataError: a stretch has nothing before it to fit to.
    """
    length = cuts.validation_start_ms - cuts.train_start_ms
    first = cuts.train_start_ms + min(FIRST_FIT_DAYS * DAY_MS, length // 2)
    edges = [int(edge) for edge in np.linspace(first, cuts.validation_start_ms, folds + 1)]
    edges.append(cuts.test_start_ms)
    regimes = {
        symbol: np.full(len(table), UNKNOWN, dtype=np.int64) for symbol, table in tables.items()
    }
    for start_ms, end_ms in pairwise(edges):
        seen = {
            symbol: _runs_of_z(table, cuts.train_start_ms, start_ms)
            for symbol, table in tables.items()
        }
        if not any(seen.values()):
            raise DataError(
                f"no candles with a trend lie between {cuts.train_start_ms} and {start_ms}; "
                "evidence needs candles from the training period"
            )
        parameters = fit({symbol: runs for symbol, runs in seen.items() if runs})
        for symbol, table in tables.items():
            for rows in _filter_rows(table, start_ms, end_ms):
                named = forward_filter(table.z[rows], parameters).argmax(axis=1)
                fresh = table.open_time_ms[rows] >= start_ms
                regimes[symbol][rows][fresh] = named[fresh]
    return {
        symbol: RegimePath(
            open_time_ms=table.open_time_ms,
            regime=regimes[symbol],
            volatility=table.rv / np.sqrt(VOLATILITY_CANDLES),
        )
        for symbol, table in tables.items()
    }


def build_evidence(
    regimes: Mapping[str, RegimePath],
    series: Mapping[str, CandleSeries],
    rules: Sequence[RegimeRule] = RULES_TRIED,
    *,
    costs: FillCosts,
    cuts: Cuts,
    seed: int,
    now_ms: int,
    hmm_sha256: str,
    lstm_sha256: str,
) -> list[EvidenceRecord]:
    """Return one record for each rule tried, from candles before the test period alone.

    Args:
        regimes: causal regimes by symbol, see `walk_forward`.
        series: candles by symbol.
        rules: all rules tried.
        costs: of a fill.
        cuts: only candles before ``test_start_ms`` are looked at.
        seed: of the bootstrap.
        now_ms: when this is computed, UTC.
        hmm_sha256: of the HMM the records will lie beside.
        lstm_sha256: of the LSTM.

    Raises:
        DataError: no symbol has a regime before the test period, or their kinds differ.
    """
    histories = rule_histories(regimes, series, rules, costs, cuts.test_start_ms)
    kinds = {(one.id.origin, one.id.interval) for one in series.values()}
    if len(kinds) != 1:
        raise DataError(f"evidence pools one kind of series; received {sorted(kinds)}")
    origin, interval = kinds.pop()
    provenance = Provenance(
        origin=origin,
        interval=interval,
        symbols=tuple(sorted(regimes)),
        computed_ms=now_ms,
        hmm_sha256=hmm_sha256,
        lstm_sha256=lstm_sha256,
        seed=seed,
    )
    return make_records(histories, provenance)


def rule_histories(
    regimes: Mapping[str, RegimePath],
    series: Mapping[str, CandleSeries],
    rules: Sequence[RegimeRule],
    costs: FillCosts,
    end_ms: int,
) -> list[RuleHistory]:
    """Follow every rule on every symbol, on candles before `end_ms`, and pool by rule.

    Raises:
        DataError: no symbol has a regime before `end_ms`.
    """
    tapes = {symbol: _Tape(series[symbol], path, end_ms) for symbol, path in regimes.items()}
    starts = [tape.first_ms for tape in tapes.values() if tape.first_ms is not None]
    if not starts:
        raise DataError(f"no candle before {end_ms} has a regime: there is nothing to follow")
    from_ms = min(starts)
    days = (end_ms - 1) // DAY_MS - from_ms // DAY_MS + 1
    histories = []
    for rule in rules:
        daily = np.zeros(days)
        trades: list[tuple[int, float, float]] = []
        for tape in tapes.values():
            trades += tape.follow(rule, costs, daily, from_ms // DAY_MS)
        trades.sort()
        entry_ms, net, holding = zip(*trades, strict=True) if trades else ((), (), ())
        histories.append(
            RuleHistory(
                rule_id=rule.rule_id,
                entry_ms=np.array(entry_ms, dtype=np.int64),
                net=np.array(net, dtype=np.float64),
                holding_days=np.array(holding, dtype=np.float64),
                daily=daily / len(tapes),
                from_ms=from_ms,
                to_ms=end_ms,
                cost_round_trip=costs.round_trip,
            )
        )
    return histories


class _Tape:
    """A symbol's candles before `end_ms`, with the regime and volatility known at each close."""

    def __init__(self, series: CandleSeries, path: RegimePath, end_ms: int) -> None:
        candles = series.between(None, end_ms)
        self.time_ms = candles.open_time_ms
        self.open, self.low, self.close = candles.open, candles.low, candles.close
        n = len(self.time_ms)
        self.regime = np.full(n, UNKNOWN, dtype=np.int64)
        self.volatility = np.full(n, np.nan)
        _, here, there = np.intersect1d(
            self.time_ms, path.open_time_ms, assume_unique=True, return_indices=True
        )
        self.regime[here] = path.regime[there]
        self.volatility[here] = path.volatility[there]
        self.previous = np.full(n, UNKNOWN, dtype=np.int64)
        contiguous = np.diff(self.time_ms) == interval_ms(series.id.interval)
        self.previous[1:] = np.where(contiguous, self.regime[:-1], UNKNOWN)
        known = np.flatnonzero(self.regime != UNKNOWN)
        self.first_ms = int(self.time_ms[known[0]]) if len(known) else None

    def follow(
        self, rule: RegimeRule, costs: FillCosts, daily: Floats, first_day: int
    ) -> list[tuple[int, float, float]]:
        """Follow a rule; add its marked profit to `daily`, in shares of the notional.

        Returns:
            (entry time, net return, days held) of each trade, in time order.
        """
        enters, exits = _decisions(rule)
        signals = np.flatnonzero(
            enters[self.previous, self.regime] & (self.volatility > 0.0)
        ).tolist()
        leaving = np.flatnonzero(exits[self.regime])
        last, free_from = len(self.time_ms) - 1, 0
        trades = []
        for signal in signals:
            entry = signal + 1
            if signal < free_from or entry > last:
                continue
            after = np.searchsorted(leaving, entry)
            decided = int(leaving[after]) if after < len(leaving) else last
            if rule.hold_candles:
                decided = min(decided, signal + rule.hold_candles)
            decided = min(decided, last)
            stop = self.close[signal] * (1.0 - stop_distance(float(self.volatility[signal])))
            pierced = np.flatnonzero(self.low[entry : decided + 1] <= stop)
            if len(pierced):
                out = entry + int(pierced[0])
                price = min(float(stop), float(self.open[out]))
                free_from = out
            elif decided < last:
                out = decided + 1
                price = float(self.open[out])
                free_from = out
            else:
                out = last
                price = float(self.close[last])
                free_from = last + 1
            paid = float(self.open[entry]) * (1.0 + costs.slippage) / (1.0 - costs.fee_rate)
            net = price * (1.0 - costs.slippage) * (1.0 - costs.fee_rate) / paid - 1.0
            worth = self.close[entry : out + 1] / paid - 1.0
            worth[-1] = net
            days = self.time_ms[entry : out + 1] // DAY_MS - first_day
            np.add.at(daily, days, np.diff(worth, prepend=0.0))
            held_ms = int(self.time_ms[out] - self.time_ms[entry])
            trades.append((int(self.time_ms[entry]), net, held_ms / DAY_MS))
        return trades


def _decisions(rule: RegimeRule) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tabulate a rule: bool[previous, current] and bool[current]; the last row is unknown."""
    enters = np.zeros((6, 6), dtype=bool)
    exits = np.zeros(6, dtype=bool)
    for current in Regime:
        exits[current] = rule.exits(current)
        for previous in Regime:
            enters[previous, current] = rule.enters(previous, current)
    return enters, exits


def _runs_of_z(table: FeatureTable, from_ms: int, to_ms: int) -> list[Floats]:
    """Return z of each contiguous run inside [from, to)."""
    inside = (table.open_time_ms >= from_ms) & (table.open_time_ms < to_ms)
    runs = []
    for run in table.runs():
        z = table.z[run][inside[run]]
        z = z[np.isfinite(z)]
        if len(z):
            runs.append(z)
    return runs


def _filter_rows(table: FeatureTable, start_ms: int, end_ms: int) -> list[slice]:
    """Return the rows of each run that the filter must see to name [start, end)."""
    start, end = (int(row) for row in np.searchsorted(table.open_time_ms, [start_ms, end_ms]))
    slices = []
    for run in table.runs():
        low, high = max(run.start, start - WARM_ROWS), min(run.stop, end)
        if high <= start or low >= high:
            continue
        known = np.flatnonzero(np.isfinite(table.z[low:high]))
        if len(known):
            slices.append(slice(low + int(known[0]), high))
    return slices
