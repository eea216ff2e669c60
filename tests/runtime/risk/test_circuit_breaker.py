import math
from decimal import Decimal

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState, RiskMetrics
from bot4_runtime.risk.circuit_breaker import CircuitBreaker, daily_loss, reset_peak
from bot4_runtime.risk.limits import RiskLimits

S = 1_000_000_000
DAY = 86_400
BREAKER = CircuitBreaker(RiskLimits())


def _closed(state, pnl, now_ns, opened_ns=None):
    """Close a round trip, opened since the cool-down was over unless told otherwise."""
    probing_ns = state.tripped_ts_ns + state.cooldown_s * S
    return BREAKER.on_trade_closed(
        state, pnl, opened_ns=probing_ns if opened_ns is None else opened_ns, now_ns=now_ns
    )


def _lose(state, times, now_ns=0):
    for _ in range(times):
        state = _closed(state, -1.0, now_ns)
    return state


def _half_open(now_s=0):
    tripped = _lose(BreakerState(), 3, now_s * S)
    return BREAKER.on_time(tripped, (now_s + DAY) * S)


def test_two_losses_do_not_trip_it_and_the_third_does():
    two = _lose(BreakerState(), 2)
    assert two.phase is BreakerPhase.CLOSED
    three = _closed(two, -1.0, 7 * S)
    assert three.phase is BreakerPhase.OPEN
    assert three.reason == "LOSS_STREAK"
    assert three.tripped_ts_ns == 7 * S
    assert three.cooldown_s == DAY


def test_a_win_resets_the_streak_and_a_break_even_changes_nothing():
    two = _lose(BreakerState(), 2)
    assert _closed(two, 0.0, 1) is two
    assert _closed(two, 1.0, 1).loss_streak == 0
    calm = BreakerState()
    assert _closed(calm, 1.0, 1) is calm


@pytest.mark.parametrize("pnl", [math.nan, -math.inf, -5e-324])
def test_a_profit_that_is_no_number_counts_as_a_loss(pnl):
    assert _closed(BreakerState(), pnl, 1).loss_streak == 1


def test_it_stays_open_until_the_cooldown_is_over_and_then_probes():
    tripped = _lose(BreakerState(), 3, 5 * S)
    last = BREAKER.on_time(tripped, (5 + DAY) * S - 1)
    assert last is tripped
    assert BREAKER.on_time(tripped, (5 + DAY) * S).phase is BreakerPhase.HALF_OPEN


def test_time_alone_does_nothing_to_a_closed_breaker():
    calm = BreakerState()
    assert BREAKER.on_time(calm, 10**19) is calm


def test_one_win_closes_a_probing_breaker_and_forgets_everything():
    assert _closed(_half_open(), 0.01, 1) == BreakerState()


@pytest.mark.parametrize("opened_s", [0, 6, 5 + DAY - 1])
def test_a_win_of_what_was_opened_before_the_cooldown_was_over_is_no_probe(opened_s):
    probing = _half_open(5)
    late = (5 + 2 * DAY) * S
    won = _closed(probing, 9.0, late, opened_s * S)
    assert won.phase is BreakerPhase.HALF_OPEN
    assert won.loss_streak == 0
    assert BREAKER.probing_factor(won) == 0.25
    assert _closed(won, 9.0, late, (5 + DAY) * S) == BreakerState()


def test_a_loss_of_what_was_opened_before_the_cooldown_was_over_only_counts():
    probing = _half_open(5)
    lost = _closed(probing, -1.0, (5 + 2 * DAY) * S, (5 + DAY) * S - 1)
    assert lost == msgspec.structs.replace(probing, loss_streak=4)
    failed = _closed(lost, -1.0, (5 + 2 * DAY) * S, (5 + DAY) * S)
    assert (failed.reason, failed.cooldown_s) == ("PROBE_LOST", 2 * DAY)


def test_a_break_even_leaves_a_probing_breaker_probing():
    probing = _half_open()
    assert _closed(probing, 0.0, 1) is probing


def test_each_failed_probe_doubles_the_cooldown_up_to_seven_days():
    state, now_s, lengths = _half_open(), DAY, []
    for _ in range(6):
        state = _closed(state, -1.0, now_s * S)
        assert state.phase is BreakerPhase.OPEN
        assert state.reason == "PROBE_LOST"
        assert state.tripped_ts_ns == now_s * S
        lengths.append(state.cooldown_s // DAY)
        now_s += state.cooldown_s
        state = BREAKER.on_time(state, now_s * S)
        assert state.phase is BreakerPhase.HALF_OPEN
    assert lengths == [2, 4, 7, 7, 7, 7]


def test_after_a_close_the_next_trip_starts_from_the_first_cooldown():
    closed = _closed(_half_open(), 1.0, 1)
    assert _lose(closed, 3).cooldown_s == DAY


def test_exits_that_close_while_it_is_open_count_but_do_not_prolong_it():
    tripped = _lose(BreakerState(), 3, 5 * S)
    worse = _closed(tripped, -1.0, 99 * S)
    assert (worse.tripped_ts_ns, worse.cooldown_s) == (tripped.tripped_ts_ns, DAY)
    assert worse.loss_streak == 4
    assert _closed(worse, 1.0, 99 * S).phase is BreakerPhase.OPEN


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"equity": "9500"}, ""),
        ({"equity": "9499.99"}, "DAILY_LOSS"),
        ({"equity": "8500", "drawdown": 0.15, "day_start": "8500"}, ""),
        ({"equity": "8499", "drawdown": 0.1501, "day_start": "8500"}, "DRAWDOWN"),
        ({"drawdown": math.nan}, "DRAWDOWN"),
        ({"drawdown": math.inf}, "DRAWDOWN"),
        ({"equity": "NaN"}, "DAILY_LOSS"),
        ({"day_start": "NaN"}, "DAILY_LOSS"),
        ({"day_start": "0"}, "DAILY_LOSS"),
        ({"equity": "-1"}, "DAILY_LOSS"),
    ],
)
def test_equity_trips_it_beyond_the_limits_and_not_at_them(metrics, change, reason):
    state = BREAKER.on_equity(BreakerState(), metrics(**change), 3 * S)
    assert state.reason == reason
    assert state.tripped_ts_ns == (3 * S if reason else 0)
    assert state.phase is (BreakerPhase.OPEN if reason else BreakerPhase.CLOSED)


def test_equity_does_not_trip_what_is_already_open(metrics):
    tripped = _lose(BreakerState(), 3, 5 * S)
    assert BREAKER.on_equity(tripped, metrics(equity="1"), 9 * S) is tripped


def test_a_loss_of_equity_while_probing_doubles_the_cooldown(metrics):
    state = BREAKER.on_equity(_half_open(), metrics(equity="9000"), 9 * S)
    assert (state.reason, state.cooldown_s) == ("DAILY_LOSS", 2 * DAY)


def test_only_resume_lifts_the_operators_halt_and_it_lifts_nothing_else():
    halted = BREAKER.halt(_lose(BreakerState(), 3), "news")
    assert halted.halted
    assert halted.halt_reason == "news"
    assert BREAKER.halt(halted, "news") is halted
    later = BREAKER.on_time(halted, 2 * DAY * S)
    assert later.halted
    assert later.phase is BreakerPhase.HALF_OPEN
    won = _closed(later, 1.0, 1)
    assert won.halted
    assert won.phase is BreakerPhase.CLOSED
    resumed = BREAKER.resume(halted)
    assert not resumed.halted
    assert resumed.phase is BreakerPhase.OPEN
    assert BREAKER.resume(resumed) is resumed


def test_a_halt_needs_a_reason():
    for order in (BREAKER.halt, BREAKER.flatten):
        with pytest.raises(ConfigError, match=r"^a halt needs a reason; none was given$"):
            order(BreakerState(), " ")


def test_a_second_halt_has_the_last_word_on_the_reason():
    halted = BREAKER.halt(BREAKER.halt(BreakerState(), "news"), "war")
    assert halted.halt_reason == "war"
    assert BREAKER.halt(BreakerState(halt_reason="news"), "news").halted


def test_a_flattening_stays_until_it_is_resumed_whatever_trips_and_closes():
    state = BREAKER.flatten(BreakerState(), "fire")
    assert (state.halted, state.flattening, state.halt_reason) == (True, True, "fire")
    assert BREAKER.flatten(state, "fire") is state
    tripped = _lose(state, 3)
    probing = BREAKER.on_time(tripped, 2 * DAY * S)
    closed = _closed(probing, 1.0, 2 * DAY * S)
    for later in (tripped, probing, closed, BREAKER.halt(closed, "more")):
        assert later.flattening
        assert later.halted
        assert later.halt_reason == ("more" if later.halt_reason == "more" else "fire")
    assert BREAKER.resume(closed) == BreakerState()


def test_the_probing_factor_is_one_a_quarter_or_nothing():
    assert BREAKER.probing_factor(BreakerState()) == 1.0
    assert BREAKER.probing_factor(_half_open()) == 0.25
    assert BREAKER.probing_factor(_lose(BreakerState(), 3)) == 0.0
    assert BREAKER.probing_factor(BREAKER.halt(_half_open(), "news")) == 0.0


def test_resetting_the_peak_starts_the_drawdown_anew(metrics):
    reset = reset_peak(metrics(equity="8000", drawdown=0.2))
    assert reset.peak_equity == Decimal(8000)
    assert reset.drawdown == 0.0


def test_the_peak_of_a_small_account_can_be_reset_too(metrics):
    assert reset_peak(metrics(equity="0.5")).peak_equity == Decimal("0.5")


@pytest.mark.parametrize("equity", ["0", "-5", "NaN", "Infinity"])
def test_the_peak_cannot_be_reset_to_nothing(metrics, equity):
    words = f"^cannot reset the peak to an equity of {equity}; it must be positive: fund the "
    with pytest.raises(ConfigError, match=words + "account first$"):
        reset_peak(metrics(equity=equity))


def test_the_daily_loss_of_a_small_account_is_a_share_too(metrics):
    assert daily_loss(metrics(equity="0.4", day_start="0.5")) == pytest.approx(0.2)


def test_daily_loss_is_negative_on_a_winning_day(metrics):
    assert daily_loss(metrics(equity="10100")) == pytest.approx(-0.01)


class Model:
    """The breaker told once more, as a diary: what happened, and when, and nothing derived."""

    def __init__(self):
        self.trips = []  # (reason, time, cool-down in s) since it was last closed
        self.probing = False
        self.losses = 0
        self.order = None  # the operator's: (reason, flatten)

    def trip(self, reason, now):
        days = 1 if not self.trips else min(2 * self.trips[-1][2] // DAY, 7)
        self.trips.append((reason, now, days * DAY))
        self.probing = False

    def trade(self, pnl, opened, now):
        probe = self.probing and opened >= self.trips[-1][1] + self.trips[-1][2] * S
        if pnl > 0:
            self.losses = 0
            if probe:
                self.trips, self.probing = [], False
        elif pnl != 0:
            self.losses += 1
            if probe:
                self.trip("PROBE_LOST", now)
            elif not self.trips and self.losses >= 3:
                self.trip("LOSS_STREAK", now)

    def equity(self, drawdown, daily, now):
        if self.trips and not self.probing:
            return
        if drawdown > 0.15:
            self.trip("DRAWDOWN", now)
        elif daily > 0.05:
            self.trip("DAILY_LOSS", now)

    def time(self, now):
        if self.trips and now >= self.trips[-1][1] + self.trips[-1][2] * S:
            self.probing = True

    def state(self):
        reason, when, cooldown_s = self.trips[-1] if self.trips else ("", 0, 0)
        phase = BreakerPhase.OPEN if self.trips else BreakerPhase.CLOSED
        return BreakerState(
            phase=BreakerPhase.HALF_OPEN if self.probing else phase,
            reason=reason,
            tripped_ts_ns=when,
            cooldown_s=cooldown_s,
            loss_streak=self.losses,
            halted=self.order is not None,
            halt_reason=self.order[0] if self.order else "",
            flattening=self.order[1] if self.order else False,
        )

    def share(self):
        if self.order or (self.trips and not self.probing):
            return 0.0
        return 0.25 if self.probing else 1.0


class BreakerMachine(RuleBasedStateMachine):
    """Any order of trades, prices, days, operator's orders and restarts: it is the model."""

    def __init__(self):
        super().__init__()
        self.breaker = CircuitBreaker(RiskLimits())
        self.state = BreakerState()
        self.model = Model()
        self.now = 0
        self.equity = self.peak = self.day_start = Decimal(10_000)

    def _metrics(self):
        return RiskMetrics(
            equity=self.equity,
            peak_equity=self.peak,
            drawdown=float(1 - self.equity / self.peak),
            day=self.now // (DAY * S),
            day_start_equity=self.day_start,
            exposure=Decimal(0),
            leverage=0.0,
        )

    @rule(
        pnl=st.sampled_from([-1.0, 1.0]) | st.floats(-100, 100) | st.just(math.nan),
        hours=st.sampled_from([0, 1, 30, 300]),
    )
    def close_a_trade(self, pnl, hours):
        opened = self.now - hours * 3600 * S
        self.state = self.breaker.on_trade_closed(
            self.state, pnl, opened_ns=opened, now_ns=self.now
        )
        self.model.trade(pnl, opened, self.now)

    @rule(factor=st.sampled_from(["0.90", "0.951", "0.97", "0.99", "1", "1.02", "1.2"]))
    def equity_moves(self, factor):
        self.equity *= Decimal(factor)
        self.peak = max(self.peak, self.equity)
        metrics = self._metrics()
        self.state = self.breaker.on_equity(self.state, metrics, self.now)
        daily = float((self.day_start - self.equity) / self.day_start)
        self.model.equity(metrics.drawdown, daily, self.now)

    @rule(hours=st.sampled_from([1, 23, 24, 48, 100, 200]))
    def time_passes(self, hours):
        day = self.now // (DAY * S)
        self.now += hours * 3600 * S
        if self.now // (DAY * S) != day:
            self.day_start = self.equity
        self.state = self.breaker.on_time(self.state, self.now)
        self.model.time(self.now)

    @rule(reason=st.sampled_from(["news", "drill"]))
    def operator_halts(self, reason):
        self.state = self.breaker.halt(self.state, reason)
        flatten = self.model.order is not None and self.model.order[1]
        self.model.order = (reason, flatten)

    @rule(reason=st.sampled_from(["fire", "drill"]))
    def operator_flattens(self, reason):
        self.state = self.breaker.flatten(self.state, reason)
        self.model.order = (reason, True)

    @rule()
    def operator_resumes(self):
        self.state = self.breaker.resume(self.state)
        self.model.order = None

    @rule()
    def operator_resets_the_peak(self):
        self.peak = reset_peak(self._metrics()).peak_equity

    @rule()
    def the_process_restarts(self):
        """Only the journaled state survives, and it is the whole memory."""
        journaled = msgspec.msgpack.encode(self.state)
        self.state = msgspec.msgpack.decode(journaled, type=BreakerState)
        self.breaker = CircuitBreaker(RiskLimits())

    @rule()
    def nothing_new(self):
        """Saying it again changes nothing."""
        assert self.breaker.on_time(self.state, self.now) is self.state
        assert _closed(self.state, 0.0, self.now) is self.state

    @invariant()
    def it_is_the_model(self):
        assert self.state == self.model.state()
        assert self.breaker.probing_factor(self.state) == self.model.share()


BreakerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
TestTheBreakerIsItsModel = BreakerMachine.TestCase


def test_a_lost_probe_never_cools_down_for_less_than_a_first_trip_would():
    """The operator raised the cool-down while the breaker was open from a shorter one."""
    probing = BreakerState(phase=BreakerPhase.HALF_OPEN, reason="LOSS_STREAK", cooldown_s=3_600)
    opened_ns = probing.tripped_ts_ns + 3_600 * 10**9
    lost = BREAKER.on_trade_closed(probing, -1.0, opened_ns=opened_ns, now_ns=opened_ns)
    assert lost.phase is BreakerPhase.OPEN
    assert lost.cooldown_s == DAY
