"""The contrarian false positive on real candles: shorting strength, in a year when all fell.

The year is April 2022 to March 2023, in which short for 72 h on every entry into StrongBull earned
on average, and the trade-by-trade test calls that luck improbable. Its trades lie in a few weeks
that all coins shared, 32 rules were tried, and over all the years the rule loses.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from bot4_pipelines.training.definition_gate import reference_hmm
from bot4_pipelines.training.labels import filtered_regimes
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime
from bot4_runtime.features.batch import compute
from bot4_runtime.regime.evidence import DAY_MS, Provenance, RuleHistory, make_records
from bot4_runtime.signals.validator import LiveEvidence, SignalValidator, ValidatorSettings

HOUR = 3_600_000
COST = 0.001
"""Of a round trip: 10 bps."""
RULE = (Side.SELL, 4, 72)
RULES = [RULE] + [
    (side, state, hours)
    for side in (Side.BUY, Side.SELL)
    for state in range(5)
    for hours in (12, 24, 72)
    if (side, state, hours) != RULE
] + [(Side.BUY, 4, 168), (Side.SELL, 4, 168)]  # fmt: skip


def moment(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)


FROM, TO = moment(2022, 4), moment(2023, 4)


def entries(series: CandleSeries, named: np.ndarray, state: int, hours: int) -> np.ndarray:
    """Rows at whose close the state is entered, and whose trade no gap interrupts."""
    rows = np.flatnonzero((named[1:] == state) & (named[:-1] != state) & (named[:-1] >= 0)) + 1
    rows = rows[rows + 1 + hours < len(series)]
    times = series.open_time_ms
    return rows[times[rows + 1 + hours] - times[rows] == (hours + 1) * HOUR]


def history(market, rule, from_ms: int, to_ms: int) -> RuleHistory:
    """Follow one rule: in at the next open, out `hours` later, net of costs, equal capital."""
    side, state, hours = rule
    sign = 1.0 if side is Side.BUY else -1.0
    times, nets = [], []
    for series, named in market:
        rows = entries(series, named, state, hours)
        opened = series.open_time_ms[rows + 1]
        inside = (opened >= from_ms) & (opened + hours * HOUR < to_ms)
        rows = rows[inside]
        nets.append(sign * (series.open[rows + 1 + hours] / series.open[rows + 1] - 1.0) - COST)
        times.append(opened[inside])
    entry, net = np.concatenate(times), np.concatenate(nets)
    order = np.argsort(entry, kind="stable")
    entry, net = entry[order], net[order]
    days = (to_ms - from_ms) // DAY_MS
    day = (entry + hours * HOUR - from_ms) // DAY_MS
    return RuleHistory(
        "rule" if rule == RULE else str(rule), entry, net, np.full(len(net), hours / 24.0),
        np.bincount(day, weights=net, minlength=days) / len(market), from_ms, to_ms, COST, side,
    )  # fmt: skip


@pytest.fixture(scope="module")
def market(test_data: Path):
    """Each symbol with what the causal filter of the reference HMM named its candles."""
    found = []
    for series in read_candle_folder(test_data / "spot" / "1h", Market.SPOT, None):
        shares = filtered_regimes(compute(series).z, reference_hmm(), [slice(0, len(series))])
        known = np.isfinite(shares[:, 0])
        found.append((series, np.where(known, np.nan_to_num(shares).argmax(axis=1), -1)))
    return found


@pytest.mark.data
def test_shorting_strength_looked_good_in_a_falling_year_and_is_refused(market, desk) -> None:
    assert len(RULES) == len(set(RULES)) == 32
    histories = [history(market, rule, FROM, TO) for rule in RULES]
    provenance = Provenance(Origin.REAL, "1h", ("BTCUSDT",), TO, "", "", 1)
    record = make_records(histories, provenance, draws=999)[0]
    assert record.rules_tried == 32
    assert record.n_trades > 250
    assert record.mean_net > 0.004
    naive_t = record.mean_net / record.std_net * record.n_trades**0.5
    assert naive_t > 1.645  # one-sided 5 %: trade by trade it looks like more than luck
    assert record.p_value_raw > 0.1
    assert record.p_value_bh > record.p_value_raw
    now_ns = (TO + HOUR) * 1_000_000
    verdict = SignalValidator(ValidatorSettings()).validate(
        desk.signal(side=Side.SELL, regime=Regime.STRONG_BULL, ts_ns=now_ns),
        LiveEvidence(record, ()),
        desk.history(),
        desk.context(now_ns=now_ns),
        desk.costs(),
    )
    assert verdict.code == "NOT_SIGNIFICANT"


@pytest.mark.data
def test_over_all_the_years_the_same_rule_loses(market) -> None:
    whole = history(market, RULE, moment(2018, 1), moment(2025, 7))
    assert len(whole.net) > 2_000
    assert whole.net.mean() < -0.005
    assert whole.net.mean() / whole.net.std(ddof=1) * len(whole.net) ** 0.5 < -3.0
