import dataclasses
import math

import msgspec
import numpy as np
import pytest

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.evidence import (
    DAY_MS,
    Provenance,
    RuleHistory,
    evidence_path,
    make_records,
    read_evidence,
    synthetic_evidence,
    synthetic_history,
    week_number,
    write_evidence,
)
from bot4_runtime.signals import statistics

NOW_MS = 20_000 * DAY_MS


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def provenance(pair=("h", "l"), now_ms=NOW_MS, **changes):
    fields = {"origin": Origin.REAL, "interval": "1h", "symbols": ("BTCUSDT",), "seed": 5}
    fields |= {"computed_ms": now_ms, "hmm_sha256": pair[0], "lstm_sha256": pair[1]} | changes
    return Provenance(**fields)


def history(rule_id="rule", seed=0, **changes):
    return synthetic_history(generator(seed), rule_id=rule_id, to_ms=NOW_MS, **changes)


def empty(rule_id="empty"):
    none = np.array([])
    return RuleHistory(rule_id, none.astype(np.int64), none, none, np.zeros(900), 0, NOW_MS, 0.002)


def test_a_record_holds_what_its_history_holds():
    one = history()
    record = make_records([one], provenance(), draws=199)[0]
    net = one.net
    assert record.n_trades == len(net)
    assert record.n_eff_weeks == len(set(week_number(one.entry_ms).tolist()))
    assert record.mean_net == pytest.approx(net.mean())
    assert record.std_net == pytest.approx(net.std(ddof=1))
    assert record.win_rate == pytest.approx((net > 0).mean())
    p, win, loss = record.win_rate, record.avg_win, record.avg_loss
    assert p * win - (1 - p) * loss == pytest.approx(record.mean_net)
    assert record.sharpe == statistics.sharpe(one.daily)
    assert record.sharpe_low < record.sharpe < record.sharpe_high
    assert record.p_value_bh == record.p_value_raw
    assert record.psr == record.dsr
    assert record.expires_ms - record.computed_ms == 90 * DAY_MS
    assert record == make_records([one], provenance(), draws=199)[0]


def test_records_are_adjusted_for_every_rule_tried_also_for_those_without_trades():
    rules = [
        history("good"),
        *(history(f"r{s}", s, true_sharpe=0.0) for s in range(1, 6)),
        empty(),
    ]
    records = make_records(rules, provenance(), draws=199)
    raw = [1.0 if r.p_value_raw is None else r.p_value_raw for r in records]
    adjusted = statistics.benjamini_hochberg(raw)
    assert [r.p_value_bh for r in records[:-1]] == adjusted[:-1]
    assert all(r.rules_tried == 7 for r in records)
    assert records[0].dsr < records[0].psr
    assert "7 rules" in records[0].method


@pytest.mark.parametrize(("days", "weeks"), [(0.5, 2.0), (7.0, 2.0), (21.0, 6.0)])
def test_weeks_are_drawn_together_for_at_least_twice_the_length_of_a_trade(days, weeks):
    one = history(true_sharpe=0.0)
    one = dataclasses.replace(one, holding_days=np.full(len(one.net), days))
    record = make_records([one], provenance(), draws=499)[0]
    of = (week_number(one.entry_ms), one.net)
    assert record.p_value_raw == statistics.week_cluster_p(*of, generator(5), 499, weeks)
    assert record.p_value_raw != statistics.week_cluster_p(*of, generator(5), 499, weeks + 2.0)
    assert f"blocks of {weeks:g} weeks" in record.method


def test_what_has_no_value_is_none_and_never_zero():
    record = make_records([empty()], provenance())[0]
    assert (record.n_trades, record.n_eff_weeks) == (0, 0)
    for name in (
        "mean_net", "std_net", "skewness_net", "kurtosis_net", "win_rate", "avg_win", "avg_loss", "p_value_raw", "p_value_bh",
        "p_newey_west", "p_spec_t", "sharpe", "sharpe_low", "sharpe_high", "psr", "dsr",
        "holding_days",
    ):  # fmt: skip
        assert getattr(record, name) is None, name


def test_weeks_begin_on_monday():
    monday = 4 * DAY_MS  # 1970-01-05
    times = np.array([monday - 1, monday, monday + 7 * DAY_MS - 1, monday + 7 * DAY_MS])
    assert week_number(times).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("true_sharpe", [3.0, 0.0, -1.0])
def test_a_drawn_history_has_the_sharpe_ratio_it_is_given(true_sharpe):
    drawn = history(days=200_000, true_sharpe=true_sharpe)
    assert statistics.sharpe(drawn.daily) == pytest.approx(true_sharpe, abs=0.15)
    assert drawn.daily.sum() == pytest.approx(0.2 * drawn.net.sum())


def test_the_synthetic_record_ends_before_the_session_and_says_what_it_is():
    record = synthetic_evidence("drill", now_ms=NOW_MS + 5, interval="1m")
    assert record.synthetic
    assert record.origin is Origin.SIMULATED
    assert record.period_to_ms <= NOW_MS + 5 < record.expires_ms
    assert record.sharpe == pytest.approx(3.0, abs=0.3)


# ------------------------------------------------------------------------ the file
def records(pair, rules=("a", "b"), now_ms=NOW_MS):
    return make_records([history(rule, 1) for rule in rules], provenance(pair, now_ms), draws=19)


def test_records_come_back_for_the_pair_they_were_made_with(tmp_path):
    path = evidence_path(tmp_path, "1h")
    first, second = records(("h1", "l1")), records(("h2", "l2"), now_ms=NOW_MS + DAY_MS)
    write_evidence(path, first)
    write_evidence(path, second)
    assert path == tmp_path / "evidence" / "1h.json"
    assert read_evidence(path, "h1", "l1") == {r.rule_id: r for r in first}
    assert read_evidence(path, "h2", "l2") == {r.rule_id: r for r in second}
    assert read_evidence(path, "h1", "l2") == {}
    assert [p.name for p in path.parent.iterdir()] == ["1h.json"]


def test_writing_again_replaces_the_pairs_records_and_drops_expired_ones(tmp_path):
    path = evidence_path(tmp_path, "1h")
    write_evidence(path, records(("h1", "l1")))
    write_evidence(path, [])
    write_evidence(path, records(("h1", "l1"), rules=("c",)))
    assert list(read_evidence(path, "h1", "l1")) == ["c"]
    write_evidence(path, records(("h2", "l2"), now_ms=NOW_MS + 91 * DAY_MS))
    assert read_evidence(path, "h1", "l1") == {}


def test_an_interval_without_a_file_has_no_evidence(tmp_path):
    assert read_evidence(evidence_path(tmp_path, "4h"), "h", "l") == {}


def test_a_missing_number_survives_the_file(tmp_path):
    path = evidence_path(tmp_path, "1h")
    written = make_records([empty()], provenance())
    write_evidence(path, written)
    assert list(read_evidence(path, "h", "l").values()) == written


def test_a_damaged_file_is_refused_with_a_remedy(tmp_path):
    path = evidence_path(tmp_path, "1h")
    write_evidence(path, records(("h", "l")))
    good = path.read_bytes()
    flipped = msgspec.json.decode(good)
    flipped["records"][0]["p_value_bh"] = 0.0001
    older = msgspec.json.decode(good) | {"format": 99}
    for bad, word in (
        (good[: len(good) // 2], "cannot be read"),
        (b"", "cannot be read"),
        (good.replace(b'"seed"', b'"sead"', 1), "cannot be read"),
        (msgspec.json.encode(flipped), "seal"),
        (msgspec.json.encode(older), "format 99"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ModelError, match=word) as refused:
            read_evidence(path, "h", "l")
        assert "materialise" in str(refused.value)
        with pytest.raises(ModelError):
            write_evidence(path, records(("h", "l")))
        assert path.read_bytes() == bad


def test_the_records_numbers_are_finite_or_none():
    for record in make_records([history(), empty()], provenance(), draws=19):
        for value in msgspec.structs.asdict(record).values():
            assert not isinstance(value, float) or math.isfinite(value)
