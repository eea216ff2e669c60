"""The running history against a search through lists, which is what it stands for."""

import math
import random
import statistics
import threading
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Side
from bot4_runtime.signals.desk import Desk as Followed
from bot4_runtime.signals.history import DAY_NS, HOUR_NS, KEPT, SignalHistory
from bot4_runtime.signals.validator import LiveEvidence, SignalValidator, ValidatorSettings


class Searched:
    """The same figures, found by looking through everything each time."""

    def __init__(self, trades, entries):
        self.trades, self.entries = trades, entries

    def streak(self, wins):
        length = 0
        for trade in reversed(self.trades):
            if (trade.pnl > 0) is not wins:
                break
            length += 1
        return length

    def count(self, after_ns, until_ns, symbol=None):
        return sum(
            after_ns < e.ts_ns <= until_ns and symbol in {None, e.symbol} for e in self.entries
        )

    def rate_ratio(self, now_ns):
        today = self.count(now_ns - DAY_NS, now_ns)
        week = [e.ts_ns for e in self.entries if now_ns - 8 * DAY_NS < e.ts_ns <= now_ns - DAY_NS]
        if today < 4 or not week:
            return 1.0
        return today / (len(week) / max((now_ns - DAY_NS - min(week)) / DAY_NS, 1.0))

    def size_ratio(self):
        streak = max(self.streak(wins=True), self.streak(wins=False))
        if not streak:
            return 1.0
        since_ns = self.trades[-streak].closed_ts_ns
        before = [e.notional for e in self.entries if e.ts_ns < since_ns]
        after = [e.notional for e in self.entries if e.ts_ns >= since_ns]
        if len(before) < 3 or len(after) < 3 or not statistics.median(before[-20:]) > 0:
            return 1.0
        return statistics.median(after) / statistics.median(before[-20:])

    def mean_before(self, rule, recent):
        returns = [t.return_net for t in self.trades if t.rule_id == rule]
        older = returns[: max(len(returns) - recent, 0)]
        return math.fsum(older) / len(older) if older else math.nan


happenings = st.lists(
    st.tuples(
        st.sampled_from("te"),
        st.floats(0.0, 30.0),
        st.sampled_from(["AUSDT", "BUSDT"]),
        st.sampled_from(["r", "s"]),
        st.sampled_from([-3.0, -1.0, 0.0, 1.0, 2.0]),
        st.sampled_from([Side.BUY, Side.SELL]),
    ),
    max_size=80,
)


@given(happenings, st.integers(3, 30))
def test_the_running_figures_are_those_of_a_search(desk, happened, kept):
    compare_with_a_search(desk, happened, kept)


@pytest.mark.parametrize(("kept", "count"), [(1, 20), (3, 60), (12, 120)])
def test_they_are_those_of_a_search_when_most_is_forgotten(desk, kept, count):
    rng = random.Random(kept)
    happened = [
        (
            rng.choice("te"), rng.uniform(0.0, 8.0), rng.choice(["AUSDT", "BUSDT"]),
            rng.choice("rs"), rng.choice([-3.0, -1.0, 0.0, 1.0, 2.0]),
            rng.choice([Side.BUY, Side.SELL]),
        )
        for _ in range(count)
    ]  # fmt: skip
    compare_with_a_search(desk, happened, kept)


def compare_with_a_search(desk, happened, kept):
    running = SignalHistory(kept=kept)
    trades, entries = [], []
    hours_ago = sum(hours for _, hours, *_ in happened)
    for kind, hours, symbol, rule, size, side in happened:
        hours_ago -= hours
        if kind == "t":
            trade = desk.trade(size, hours_ago, symbol=symbol, rule_id=rule, side=side)
            trades.append(trade)
            forgotten = running.close(trade)
            assert forgotten is (trades[-kept - 1] if len(trades) > kept else None)
        else:
            entry = desk.entry(hours_ago, abs(size), symbol)
            entries.append(entry)
            running.enter(entry)
        searched = Searched(trades[-kept:], entries[-kept:])
        assert list(running.trades) == searched.trades
        assert running.entries_total() == len(searched.entries)
        assert running.losses() == searched.streak(wins=False)
        assert running.wins() == searched.streak(wins=True)
        assert running.size_ratio() == searched.size_ratio()
        for now_ns in (desk.now_ns, desk.now_ns - 50 * HOUR_NS):
            assert running.rate_ratio(now_ns) == searched.rate_ratio(now_ns)
            span = (now_ns - DAY_NS, now_ns)
            assert running.entries_between(*span) == searched.count(*span)
            for name in ("AUSDT", "CUSDT"):
                assert running.symbol_entries_between(name, *span) == searched.count(*span, name)
        for name in ("r", "s"):
            past = running.rule(name)
            expected = searched.mean_before(name, 2)
            found = math.nan if past is None else past.mean_before(2)
            assert found == pytest.approx(expected, abs=1e-11, nan_ok=True)
        for name, way in (("AUSDT", Side.BUY), ("BUSDT", Side.SELL), ("CUSDT", Side.BUY)):
            of = [t for t in searched.trades if (t.symbol, t.side) == (name, way)]
            found = [(p.closed_ns, p.entry_price, p.lost) for p in running.of(name, way)]
            assert found == [
                (t.closed_ts_ns, float(t.entry_price), t.pnl < 0) for t in of
            ]  # fmt: skip
        anew = SignalHistory(searched.trades, searched.entries, kept=kept)
        assert anew.size_ratio() == running.size_ratio()
        assert anew.rate_ratio(desk.now_ns) == running.rate_ratio(desk.now_ns)
        for name in ("r", "s"):
            old, new = running.rule(name), anew.rule(name)
            if new is not None:
                assert (new.returns, new.sum_scaled) == (old.returns, old.sum_scaled)


def test_a_thousand_trades_and_entries_are_looked_back_on(desk):
    assert KEPT == 1000
    history = SignalHistory()
    assert history.last_closed_ns() == 0
    for _ in range(1001):
        history.close(desk.trade(1.0))
        history.enter(desk.entry(1))
    assert (len(history.trades), history.entries_total(), history.wins()) == (1000, 1000, 1000)
    assert history.last_closed_ns() == history.trades[-1].closed_ts_ns


def test_an_entry_told_late_counts_from_its_telling(desk):
    history = SignalHistory(entries=[desk.entry(1), desk.entry(30)])
    assert history.entries_between(desk.now_ns - DAY_NS, desk.now_ns) == 2


def test_what_is_no_number_is_refused(desk):
    with pytest.raises(DataError) as refused:
        SignalHistory().close(desk.trade(signal_id="x", return_net=math.nan))
    assert str(refused.value) == (
        "trade x of BTCUSDT has a return of nan; expected a finite share"
    )
    for bad in (math.nan, math.inf, -1.0):
        with pytest.raises(DataError) as refused:
            SignalHistory().enter(desk.entry(1, bad))
        assert str(refused.value) == (
            f"entry of BTCUSDT has a notional of {bad}; expected a finite one, not below 0"
        )
    for bad in (math.inf, -math.inf):
        with pytest.raises(DataError):
            SignalHistory().close(desk.trade(return_net=bad))
    SignalHistory().enter(desk.entry(1, 0.0))


def test_a_position_is_read_again_when_it_changed_and_not_before(desk):
    history = SignalHistory()
    one, two = desk.position(), desk.position(symbol="BUSDT", quantity=Decimal(-2))
    history.hold([one, two])
    first = list(history.held)
    assert [(h.symbol, h.sign, h.entry, h.stop) for h in first] == [
        ("ETHUSDT", 1.0, 100.0, 95.0),
        ("BUSDT", -1.0, 100.0, 95.0),
    ]
    history.hold([one, two])
    assert all(a is b for a, b in zip(history.held, first, strict=True))
    moved = desk.position(stop_price=Decimal(97))
    history.hold([moved, two])
    assert history.held[0].stop == 97.0
    assert history.held[1] is first[1]
    history.hold([two])
    assert [h.symbol for h in history.held] == ["BUSDT"]
    history.hold([])
    assert history.held == []


# ------------------------------------------------------------------- following a book
def shown(followed, trades, entries, *, kept=1000, total=None):
    followed.follow(
        trades[-kept:], len(trades) if total is None else total, entries[-kept:], [], {}, -1
    )


def test_a_desk_that_looks_often_knows_what_one_knows_that_looks_once(desk):
    record = desk.evidence(period_to_ms=desk.now_ms - 40 * desk.day_ms)
    rng = random.Random(4)
    trades = [
        desk.trade(rng.uniform(-2, 2), 900 - k, rule_id=rng.choice(["rule", "other"]))
        for k in range(800)
    ]
    entries = [desk.entry(900.0 - k, 100 + k % 7) for k in range(800)]
    kept = 300
    often = Followed({"rule": record}, kept)
    for k in range(0, 801, 7):
        shown(often, trades[:k], entries[:k], kept=kept)
    shown(often, trades, entries, kept=kept)
    shown(often, trades, entries, kept=kept)
    once = Followed({"rule": record}, kept)
    shown(once, trades, entries, kept=kept)
    late = Followed({}, kept)
    shown(late, trades, entries, kept=kept)
    late.believe({"rule": record})
    verdicts = [
        SignalValidator(ValidatorSettings()).validate(
            desk.signal(), one.evidence("rule"), one.history, desk.context(), desk.costs()
        )
        for one in (often, once, late)
    ]
    assert len(often.history.trades) == kept
    assert often.history.entries_total() == kept
    assert verdicts[0].numbers["live_trades"] == sum(t.rule_id == "rule" for t in trades[-kept:])
    assert {(v.code, v.text) for v in verdicts} == {(verdicts[0].code, verdicts[0].text)}
    assert verdicts[0].numbers == verdicts[1].numbers == verdicts[2].numbers
    assert often.evidence("other") is None


def test_a_desk_takes_in_every_trade_and_entry_once(desk):
    trades = [desk.trade(1.0, 20 - k) for k in range(10)]
    entries = [desk.entry(20 - k, 100.0 + k) for k in range(10)]
    span = (desk.now_ns - DAY_NS, desk.now_ns)
    for looks in ((1, 2, 2, 5, 6, 6, 10), (0, 3, 4, 8, 9, 10), (2,), (4,)):
        followed = Followed({})
        for seen in looks:
            shown(followed, trades[:seen], entries[:seen], kept=4)
            assert followed.history.trades == trades[:seen]
            assert followed.history.entries_total() == seen
            assert followed.history.entries_between(*span) == seen


def test_a_desk_sees_positions_and_marks_as_they_stand(desk):
    followed = Followed({})
    marks = {"ETHUSDT": 96.0}
    followed.follow([], 0, [], [desk.position()], marks, -1)
    assert [h.symbol for h in followed.history.held] == ["ETHUSDT"]
    marks["ETHUSDT"] = 94.0
    verdict = SignalValidator(ValidatorSettings()).validate(
        desk.signal(), LiveEvidence(desk.evidence()), followed.history, desk.context(),
        desk.costs(),
    )  # fmt: skip
    assert verdict.code == "BIAS_LOSS_AVERSION"


def test_eight_threads_judge_as_one_does(desk):
    rng = random.Random(1)
    trades = [desk.trade(rng.choice([-1.0, -0.4, 2.0]), 800 - k) for k in range(300)]
    entries = [desk.entry(801 - k, 90 + k % 21) for k in range(300)]
    history = desk.history(trades, entries, [desk.position()], {"ETHUSDT": 99.0})
    evidence = LiveEvidence(desk.evidence(period_to_ms=desk.now_ms - 20 * desk.day_ms), trades)
    validator = SignalValidator(ValidatorSettings())
    asked = [
        (
            desk.signal(confidence=rng.uniform(0.5, 1.0), symbol=rng.choice(["BTCUSDT", "X"])),
            rng.choice([evidence, LiveEvidence(desk.evidence()), None]),
            desk.context(recent_return=rng.uniform(-0.1, 0.2), now_ns=desk.now_ns + k),
        )
        for k in range(400)
    ]

    def judge(one):
        signal, record, context = one
        history._ratio_known = False  # every thread finds the cached median anew
        verdict = validator.validate(signal, record, history, context, desk.costs())
        return verdict.code, verdict.text, verdict.numbers

    serial = [judge(one) for one in asked]
    found = [[] for _ in range(8)]
    gate = threading.Barrier(8)

    def run(mine):
        gate.wait()
        mine.extend(judge(one) for one in asked)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == serial for mine in found)
    assert len({code for code, _, _ in serial}) >= 3


def test_the_frequency_of_a_day_against_the_week_before_it_to_the_hour(desk):
    def ratio(*hours_ago):
        return SignalHistory(entries=[desk.entry(h) for h in hours_ago]).rate_ratio(desk.now_ns)

    today = (3.0, 2.0, 1.0, 0.0)
    assert ratio(192.5, *today) == 1.0  # before the week
    assert ratio(191.5, *today) == pytest.approx(4 / (1 / (167.5 / 24)))
    assert ratio(200.0, 191.5, 100.0, *today) == pytest.approx(4 / (2 / (167.5 / 24)))
    assert ratio(60.0, 50.0, *today) == pytest.approx(4 / (2 / 1.5))
    assert ratio(30.0, *today) == 4.0  # a week begun hours ago counts as a day
    assert ratio(60.0, *today[1:]) == 1.0
    assert ratio(*today) == 1.0


def test_the_last_trade_is_the_last_told(desk):
    history = desk.history([desk.trade(1.0, h) for h in (9, 5, 3)])
    assert history.last_closed_ns() == desk.now_ns - 3 * HOUR_NS


def test_an_entry_that_is_forgotten_is_forgotten_under_its_own_symbol(desk):
    history = SignalHistory(kept=2)
    for hours, symbol in ((5, "A"), (4, "B"), (3, "C"), (2, "B")):
        history.enter(desk.entry(hours, symbol=symbol))
    span = (desk.now_ns - DAY_NS, desk.now_ns)
    counts = [history.symbol_entries_between(name, *span) for name in "ABC"]
    assert counts == [0, 1, 1]


def test_a_history_of_nothing_compares_nothing(desk):
    history = SignalHistory()
    assert (history.size_ratio(), history.rate_ratio(desk.now_ns)) == (1.0, 1.0)
    assert (history.wins(), history.losses(), history.rule("rule")) == (0, 0, None)
    assert SignalHistory(positions=[desk.position()]).marks == {}


def test_the_mean_of_returns_of_nothing_is_exactly_nothing(desk):
    history = SignalHistory([desk.trade(0.0), desk.trade(0.0), desk.trade(1.0)])
    assert history.rule("rule").mean_before(1) == 0.0


def test_an_entry_belongs_to_the_streak_from_the_very_nanosecond_it_began(desk):
    trade = desk.trade(1.0, 5.0)
    began = trade.closed_ts_ns
    entries = [
        SimpleNamespace(ts_ns=ts_ns, symbol="BTCUSDT", notional=notional)
        for ts_ns, notional in ((began - 1, 100.0), (began, 200.0))
        for _ in range(3)
    ]
    assert SignalHistory([trade], entries).size_ratio() == 2.0


def test_a_streak_longer_than_the_memory_began_with_the_oldest_that_is_remembered(desk):
    history = SignalHistory(kept=6)
    for hours in (20, 18, 16, 14, 12, 10, 8):
        history.close(desk.trade(1.0, hours))
    for hours, notional in ((19, 100.0), (17, 300.0)):
        for _ in range(3):
            history.enter(desk.entry(hours, notional))
    assert (history.wins(), history.size_ratio()) == (6, 3.0)
