"""A record and the trades since: against the same statistics over all of it at once."""

import math

import msgspec
import numpy as np
import pytest

from bot4_runtime.domain.candle import Origin
from bot4_runtime.regime.evidence import (
    DAY_MS,
    Provenance,
    make_records,
    synthetic_history,
)
from bot4_runtime.signals import statistics
from bot4_runtime.signals.desk import Desk
from bot4_runtime.signals.evidence import LiveEvidence
from bot4_runtime.signals.history import DAY_NS, HOUR_NS


def record_of(desk, symbols=("A", "B"), seed=3, days=1_096):
    to_ms = desk.now_ms - 40 * DAY_MS
    history = synthetic_history(
        np.random.Generator(np.random.PCG64(seed)), rule_id="rule", to_ms=to_ms, days=days
    )
    provenance = Provenance(Origin.REAL, "1h", symbols, to_ms, "", "", 1)
    return make_records([history], provenance, draws=19)[0], history


def live_trades(desk, hours, returns):
    return [desk.trade(100.0 * r, h) for h, r in zip(hours, returns, strict=True)]


def test_without_live_trades_it_says_what_the_record_says(desk):
    record, _ = record_of(desk)
    evidence = LiveEvidence(record)
    assert evidence.sharpes(desk.now_ns) == (record.sharpe, record.psr)
    assert evidence.win_rate() == pytest.approx(record.win_rate, rel=1e-12)
    assert evidence.average_win() == pytest.approx(record.avg_win, rel=1e-12)
    assert evidence.average_loss() == pytest.approx(record.avg_loss, rel=1e-12)
    assert (evidence.live_trades, evidence.live_days(desk.now_ns)) == (0, 0)
    days = evidence.days(desk.now_ns)
    assert (days.n, days.mean) == (record.n_days, record.mean_daily)
    assert evidence.trades.std() == pytest.approx(record.std_net)
    assert evidence.trades.skewness() == pytest.approx(record.skewness_net)
    assert evidence.trades.kurtosis() == pytest.approx(record.kurtosis_net)


def test_live_days_make_the_sharpe_ratio_of_all_days_together(desk):
    record, history = record_of(desk)
    rng = np.random.default_rng(2)
    hours = sorted(rng.uniform(0.5, 30 * 24, 60).tolist(), reverse=True)
    returns = rng.normal(-0.01, 0.03, 60).tolist()
    trades = live_trades(desk, hours, returns)
    evidence = LiveEvidence(record, trades)
    first = trades[0].opened_ts_ns // DAY_NS
    today = desk.now_ns // DAY_NS
    live = np.zeros(today - first + 1)
    for trade in trades:
        live[trade.closed_ts_ns // DAY_NS - first] += trade.return_net / 2
    every = np.concatenate([history.daily, live])
    annual, above_zero = evidence.sharpes(desk.now_ns)
    assert evidence.live_days(desk.now_ns) == len(live)
    assert annual == pytest.approx(statistics.sharpe(every), rel=1e-9)
    assert annual < record.sharpe
    _, _, skewness, kurtosis = statistics.sample_moments(every)
    assert above_zero == pytest.approx(
        statistics.probabilistic_sharpe(annual / math.sqrt(365), len(every), skewness, kurtosis),
        rel=1e-9,
    )
    net = np.concatenate([history.net, [t.return_net for t in trades]])
    assert evidence.trades.mean == pytest.approx(net.mean())
    assert evidence.trades.std() == pytest.approx(net.std(ddof=1))
    assert evidence.win_rate() == pytest.approx((net > 0).mean())
    assert evidence.average_win() == pytest.approx(net[net > 0].mean())
    assert evidence.average_loss() == pytest.approx(-net[net <= 0].mean())
    later = evidence.sharpes(desk.now_ns + 10 * DAY_NS)
    flat = np.concatenate([every, np.zeros(10)])
    assert later[0] == pytest.approx(statistics.sharpe(flat), rel=1e-9)
    assert evidence.live_days(desk.now_ns + 10 * DAY_NS) == len(live) + 10


def test_days_count_from_the_first_that_was_followed_though_none_traded(desk):
    record, history = record_of(desk, symbols=("A",))
    evidence = LiveEvidence(record)
    evidence.begin(desk.now_ns - 20 * DAY_NS)
    assert evidence.live_days(desk.now_ns) == 21
    flat = np.concatenate([history.daily, np.zeros(21)])
    assert evidence.sharpes(desk.now_ns)[0] == pytest.approx(statistics.sharpe(flat), rel=1e-9)
    evidence.observe(desk.trade(1.0, 25.0))
    live = np.zeros(21)
    live[(desk.now_ns - 25 * HOUR_NS) // DAY_NS - (desk.now_ns // DAY_NS - 20)] = 0.01
    every = np.concatenate([history.daily, live])
    assert evidence.live_days(desk.now_ns) == 21
    assert evidence.sharpes(desk.now_ns)[0] == pytest.approx(statistics.sharpe(every), rel=1e-9)


@pytest.mark.parametrize("days_before_the_period", [-5, 0, 400])
def test_days_inside_the_period_are_the_records_own(desk, days_before_the_period):
    """The record ends 40 days ago; a session that began before it counts from there."""
    record, _ = record_of(desk)
    end_ns = record.period_to_ms * 1_000_000
    evidence = LiveEvidence(record)
    evidence.begin(end_ns - days_before_the_period * DAY_NS)
    first = end_ns // DAY_NS - min(days_before_the_period, 0)
    assert evidence.live_days(desk.now_ns) == desk.now_ns // DAY_NS - first + 1
    assert evidence.live_days(end_ns - DAY_NS) == 0
    partial = msgspec.structs.replace(record, period_to_ms=record.period_to_ms + 3_600_000)
    begun = LiveEvidence(partial)
    begun.begin(0)
    assert begun.live_days(desk.now_ns) == desk.now_ns // DAY_NS - end_ns // DAY_NS


def test_the_first_day_is_that_of_the_first_to_open_not_the_first_to_close(desk):
    record, history = record_of(desk, symbols=("A",))
    long_held = desk.trade(-2.0, 24.0, opened_ts_ns=desk.now_ns - 30 * DAY_NS)
    evidence = LiveEvidence(record, [desk.trade(1.0, 48.0), long_held])
    assert evidence.live_days(desk.now_ns) == 31
    live = np.zeros(31)
    live[-3], live[-2] = 0.01, -0.02
    every = np.concatenate([history.daily, live])
    assert evidence.sharpes(desk.now_ns)[0] == pytest.approx(statistics.sharpe(every), rel=1e-9)


def test_a_desk_counts_the_days_since_its_book_is_traded(desk):
    record, _ = record_of(desk)
    told = Desk({"rule": record, "drawn": desk.evidence(rule_id="drawn", synthetic=True)})
    since_ns = desk.now_ns - 10 * DAY_NS
    for trades in ([], [desk.trade(1.0, 26.0)]):
        told.follow(trades, len(trades), [], [], {}, since_ns)
        assert told.evidence("rule").live_days(desk.now_ns) == 11
        assert told.evidence("rule").live_trades == len(trades)
        assert told.evidence("drawn").live_days(desk.now_ns) == 0
    told.believe({"rule": record})
    assert told.evidence("rule").live_days(desk.now_ns) == 11


def test_a_desk_counts_no_day_before_it_is_told_since_when_and_then_from_the_epoch_on(desk):
    told = Desk({"rule": desk.evidence()})  # its period ends ten days ago
    assert told.evidence("rule").live_days(desk.now_ns) == 0
    told.follow([], 0, [], [], {}, -1)
    assert told.evidence("rule").live_days(desk.now_ns) == 0
    told.follow([], 0, [], [], {}, 0)
    assert told.evidence("rule").live_days(desk.now_ns) == 11
    at_noon = LiveEvidence(desk.evidence(period_to_ms=0))
    at_noon.begin(desk.now_ns - 5 * DAY_NS + 12 * HOUR_NS)
    assert at_noon.live_days(desk.now_ns) == 6
    at_the_epoch = LiveEvidence(desk.evidence(period_to_ms=0))
    at_the_epoch.begin(0)
    assert [at_the_epoch.live_days(day * DAY_NS) for day in range(3)] == [1, 2, 3]


def test_only_the_rules_own_trades_from_after_the_period_count(desk):
    record, _ = record_of(desk)
    end_ns = record.period_to_ms * 1_000_000
    evidence = LiveEvidence(record)
    for changes, counted in (
        ({}, True),
        ({"rule_id": "other"}, False),
        ({"opened_ts_ns": end_ns - 1}, False),
        ({"opened_ts_ns": end_ns}, True),
    ):
        trade = desk.trade(1.0, **changes)
        assert evidence.counts(trade) is counted
        before = evidence.live_trades
        evidence.observe(trade)
        assert evidence.live_trades - before == counted
    drawn = desk.evidence(synthetic=True)
    assert not LiveEvidence(drawn).counts(desk.trade(1.0))


def test_a_trade_told_late_falls_on_the_latest_day(desk):
    record, history = record_of(desk, symbols=())
    evidence = LiveEvidence(record, live_trades(desk, [30, 3, 28], [0.01, 0.02, 0.03]))
    live = [0.01, 0.05]
    assert evidence.live_days(desk.now_ns - 3 * HOUR_NS) == len(live)
    expected = statistics.sharpe(np.concatenate([history.daily, live]))
    assert evidence.sharpes(desk.now_ns - 3 * HOUR_NS)[0] == pytest.approx(expected, rel=1e-9)
    before_the_last_closed = desk.now_ns - 60 * HOUR_NS
    assert evidence.live_days(before_the_last_closed) == len(live)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("win_rate", "win_rate"),
        ("avg_win", "average_win"),
        ("avg_loss", "average_loss"),
    ],
)
def test_a_payoff_the_record_does_not_know_stays_unknown(desk, name, shown):
    trades = live_trades(desk, [30, 29], [0.01, -0.01])
    evidence = LiveEvidence(desk.evidence(**{name: None}, period_to_ms=0), trades)
    assert math.isnan(getattr(evidence, shown)())


def test_a_sharpe_ratio_the_record_does_not_know_stays_unknown(desk):
    trades = live_trades(desk, [30, 29], [0.01, -0.01])
    evidence = LiveEvidence(desk.evidence(sharpe=None, period_to_ms=0), trades)
    assert all(map(math.isnan, LiveEvidence(desk.evidence(sharpe=None, psr=None)).sharpes(1)))
    assert math.isnan(evidence.sharpes(desk.now_ns)[0])
    for name in ("mean_daily", "std_daily"):
        unknown = LiveEvidence(desk.evidence(**{name: None}, period_to_ms=0), trades)
        assert all(map(math.isnan, unknown.sharpes(desk.now_ns)))
    steep = desk.evidence(
        period_to_ms=0, skewness_daily=60.0, kurtosis_daily=5.0, mean_daily=0.1, std_daily=0.1
    )
    annual, above_zero = LiveEvidence(steep, trades).sharpes(desk.now_ns)
    assert annual > 0
    assert math.isnan(above_zero)


def test_a_rule_that_only_won_or_only_lost_has_no_other_average(desk):
    fresh = {"n_trades": 0, "win_rate": 0.0, "avg_win": 0.0, "avg_loss": 0.0, "period_to_ms": 0}
    nothing = LiveEvidence(desk.evidence(**fresh))
    won = LiveEvidence(desk.evidence(**fresh), live_trades(desk, [5, 4], [0.01, 0.03]))
    lost = LiveEvidence(desk.evidence(**fresh), live_trades(desk, [5, 4], [-0.01, -0.03]))
    even = LiveEvidence(desk.evidence(**fresh), live_trades(desk, [5], [0.0]))
    for unknown in (nothing.win_rate, nothing.average_win, nothing.average_loss,
                    won.average_loss, lost.average_win):  # fmt: skip
        assert math.isnan(unknown())
    once = LiveEvidence(desk.evidence(**fresh), live_trades(desk, [5], [0.01]))
    assert (once.win_rate(), once.average_win()) == (1.0, 0.01)
    assert (won.win_rate(), won.average_win()) == (1.0, 0.02)
    assert (lost.win_rate(), lost.average_loss()) == (0.0, 0.02)
    assert (even.win_rate(), even.average_loss()) == (0.0, 0.0)
