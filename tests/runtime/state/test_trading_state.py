"""The fold: order life, position in the input, idempotence, what the hash covers."""

from decimal import Decimal
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_scenario import HOUR_MS, Scenario, candle, fill, intended, session

from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.domain.events import (
    BreakerChanged,
    CancelRequested,
    JournaledEvent,
    ModelTrial,
    OperatorCommand,
    OrderAccepted,
    OrderClosed,
    OrderOutcomeUnknown,
    OrderRejected,
    ProtectionPlanned,
)
from bot4_runtime.domain.order import Book, OrderStatus, OrderType, Purpose, Side
from bot4_runtime.domain.portfolio import BreakerPhase, BreakerState
from bot4_runtime.state import snapshot
from bot4_runtime.state.book import KEPT
from bot4_runtime.state.trading_state import STRAYS_KEPT, StateImage, TradingState

D = Decimal
DAY_MS = 24 * HOUR_MS


def fold(*events: JournaledEvent) -> TradingState:
    state = TradingState()
    state.apply(session(1))
    for event in events:
        state.apply(event)
    return state


def accepted(number: int = 1) -> OrderAccepted:
    return OrderAccepted(ts_event_ns=0, intent_no=number, venue_order_id="v")


def closed(status: str, number: int = 1) -> OrderClosed:
    return OrderClosed(ts_event_ns=0, intent_no=number, status=status, reason="why")


def unknown(number: int = 1) -> OrderOutcomeUnknown:
    return OrderOutcomeUnknown(ts_event_ns=0, intent_no=number, reason="timeout")


def rejected(number: int = 1) -> OrderRejected:
    return OrderRejected(ts_event_ns=0, intent_no=number, code="-2010", reason="funds")


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ((), OrderStatus.INTENDED),
        ((unknown(),), OrderStatus.UNKNOWN),
        ((unknown(), accepted()), OrderStatus.ACCEPTED),
        ((accepted(), fill(1, "a", "0.4", "100")), OrderStatus.PARTIALLY_FILLED),
        (
            (
                accepted(),
                fill(1, "a", "0.4", "100"),
                fill(1, "b", "0.6", "90"),
                closed("canceled"),
            ),
            OrderStatus.FILLED,
        ),
        ((accepted(), fill(1, "a", "0.4", "100"), closed("expired")), OrderStatus.EXPIRED),
        ((rejected(),), OrderStatus.REJECTED),
        ((unknown(), closed("never_placed")), OrderStatus.NEVER_PLACED),
        ((unknown(), closed("never_placed"), accepted()), OrderStatus.ACCEPTED),
    ],
)
def test_order_status_does_not_depend_on_the_order_of_answers_and_fills(told, status):
    states = set()
    for order_of_arrival in permutations(told):
        state = fold(intended(1), *order_of_arrival)
        order = state.orders[1]
        assert order.status is status
        live = [o.intent.intent_no for o in state.live_orders("BTCUSDT")]
        assert live == ([] if status.terminal else [1])
        states.add((order.filled, order.spent, str(state.books[Book.VALIDATED].cash)))
    assert len(states) == 1


def test_a_late_fill_of_a_canceled_order_is_booked_and_completes_it():
    state = fold(intended(1), accepted(), closed("canceled"), fill(1, "a", "1", "100"))
    assert state.orders[1].status is OrderStatus.FILLED
    assert state.books[Book.VALIDATED].positions["BTCUSDT"].quantity == 1


def test_a_repeated_fill_changes_nothing_and_says_so():
    state = fold(intended(1), fill(1, "a", "0.5", "100"))
    before = state.state_hash()
    assert state.apply(fill(1, "a", "0.5", "100")) is False
    assert state.state_hash() == before
    assert state.apply(fill(99, "x", "0.5", "100")) is True
    assert state.apply(fill(99, "x", "0.5", "100")) is False
    assert state.books[Book.VALIDATED].fills_total == 2


def test_fills_of_unknown_orders_are_remembered_within_bounds():
    state = fold(*(fill(99, str(n), "0.001", "100") for n in range(STRAYS_KEPT + 5)))
    assert state.counts["FillOfUnknownOrder"] == STRAYS_KEPT + 5
    assert len(state.to_snapshot().strays) == STRAYS_KEPT


def test_a_fill_told_again_after_its_order_was_forgotten_is_not_booked_twice():
    state = fold(intended(1), fill(1, "t", "1", "100"))
    for number in range(2, KEPT + 3):
        state.apply(intended(number))
        state.apply(rejected(number))
    assert 1 not in state.orders
    assert state.apply(fill(1, "t", "1", "100")) is False
    assert state.books[Book.VALIDATED].positions["BTCUSDT"].quantity == 1


def test_an_answer_to_an_unknown_order_is_counted_and_harmless():
    state = fold(
        accepted(7),
        rejected(7),
        closed("canceled", 7),
        CancelRequested(ts_event_ns=0, intent_no=7, reason=""),
    )
    assert state.counts["AnswerToUnknownOrder"] == 3


def test_candles_count_the_position_in_the_input_age_orders_and_mark():
    state = fold(
        intended(1, order_type=OrderType.LIMIT),
        intended(2, symbol="ETHUSDT"),
        candle("BTCUSDT", 0, 101.0),
        candle("BTCUSDT", HOUR_MS, 102.0),
        candle("ETHUSDT", HOUR_MS, 10.0),
    )
    assert state.inputs == 3
    assert state.cursor == {"BTCUSDT": HOUR_MS, "ETHUSDT": HOUR_MS}
    assert state.marks == {"BTCUSDT": 102.0, "ETHUSDT": 10.0}
    assert state.orders[1].age == 2
    assert state.orders[2].age == 1
    assert [o.age for o in state.live_orders("BTCUSDT")] == [2]


def test_a_candle_that_goes_back_in_time_is_refused_and_changes_nothing():
    state = fold(candle("BTCUSDT", HOUR_MS, 100.0))
    before = state.state_hash()
    with pytest.raises(InvariantViolated, match="must move forward"):
        state.apply(candle("BTCUSDT", HOUR_MS, 100.0))
    assert state.state_hash() == before


def test_the_day_starts_with_the_equity_of_the_last_marks_before_midnight():
    state = fold(
        intended(1, quantity="10"),
        fill(1, "a", "10", "100"),
        candle("BTCUSDT", 23 * HOUR_MS, 110.0),
        candle("BTCUSDT", DAY_MS, 90.0),
        candle("ETHUSDT", DAY_MS, 90.0),
    )
    metrics = state.books[Book.VALIDATED].metrics
    assert metrics.day == 1
    assert metrics.day_start_equity == 10_100
    assert metrics.equity == 9_900
    assert metrics.peak_equity == 10_100
    assert metrics.drawdown == pytest.approx(200 / 10_100)
    assert metrics.exposure == 900
    assert metrics.leverage == pytest.approx(900 / 9_900)
    state.apply(OperatorCommand(ts_event_ns=0, verb="reset_peak", reason="r", command_id="1"))
    assert state.books[Book.VALIDATED].metrics.peak_equity == 9_900


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (intended(2), "expected number 1"),
        (closed("filled?"), "filled?"),
        (closed("accepted"), "cannot close"),
        (fill(1, "a", "1", "1", book=Book.SHADOW), "unknown book"),
        (intended(1, book=Book.SHADOW), "unknown book"),
    ],
)
def test_an_event_that_cannot_follow_is_refused(event, words):
    state = TradingState()
    state.apply(msgspec.structs.replace(session(1), books=(Book.VALIDATED,)))
    with pytest.raises((InvariantViolated, ValueError), match=words):
        state.apply(event)


def planned(number: int) -> ProtectionPlanned:
    return ProtectionPlanned(
        ts_event_ns=0, number=number, action="add_margin", wallet="BTCUSDT long",
        symbol="BTCUSDT", intent=None, client_id="", payload_hash="", amount=D(1), reason="",
        numbers={},
    )  # fmt: skip


def test_the_number_of_a_protection_plan_is_never_used_twice():
    state = fold(planned(1), planned(5))
    before = state.state_hash()
    for number in (1, 4, 5):
        with pytest.raises(InvariantViolated, match=f"plan {number} was made before.*number 6"):
            state.apply(planned(number))
    assert state.state_hash() == before
    assert list(state.protection) == [1, 5]
    assert state.next_protection_no == 6
    assert state.apply(planned(6))


def test_live_buys_reserve_cash_at_their_worst_price():
    state = fold(
        intended(1, quantity="2", order_type=OrderType.LIMIT, price=D(100)),
        fill(1, "a", "0.5", "100"),
        intended(2, side=Side.SELL, quantity="0.5", purpose=Purpose.STOP),
        intended(3, book=Book.SHADOW, symbol="ETHUSDT"),
    )
    assert state.reserved(Book.VALIDATED) == 150
    assert state.cash_free(Book.VALIDATED) == 10_000 - 50 - 150
    assert state.reserved(Book.SHADOW) == 100
    numbers = [o.intent.intent_no for o in state.live_orders("BTCUSDT", Book.VALIDATED)]
    assert numbers == [1, 2]
    assert state.live_orders("BTCUSDT", Book.SHADOW) == []
    assert [o.intent.intent_no for o in state.all_live_orders()] == [1, 2, 3]
    assert [o.intent.intent_no for o in state.all_live_orders(Book.SHADOW)] == [3]
    assert [o.intent.intent_no for o in state.unanswered()] == [2, 3]


def test_an_adopted_order_takes_its_place_among_the_live_ones():
    state = fold(intended(1), intended(2), unknown(1), closed("never_placed", 1), accepted(1))
    assert [o.intent.intent_no for o in state.live_orders("BTCUSDT")] == [1, 2]


def test_a_cancel_is_remembered_once():
    cancel = CancelRequested(ts_event_ns=0, intent_no=1, reason="old")
    state = fold(intended(1), cancel, cancel)
    assert state.orders[1].cancel_requested


def test_only_the_first_session_brings_cash():
    state = fold(intended(1), fill(1, "a", "1", "100"))
    before = state.state_hash()
    state.apply(msgspec.structs.replace(session(2), initial_cash=D(99)))
    assert state.epoch == 2
    assert state.first_session == session(1)
    assert state.portfolio(Book.VALIDATED).cash == 9_900
    assert state.state_hash() == before


def test_the_hash_leaves_out_client_ids_and_times_of_decision():
    order = intended(1)
    other = msgspec.structs.replace(
        order, client_id="b4-other", intent=msgspec.structs.replace(order.intent, ts_ns=99)
    )
    assert fold(order).state_hash() == fold(other).state_hash()
    assert fold(order, closed("canceled")).state_hash() == (
        fold(order, msgspec.structs.replace(closed("canceled"), reason="other")).state_hash()
    )


@pytest.mark.parametrize(
    "event",
    [
        candle("BTCUSDT", 0, 100.0),
        accepted(1),
        CancelRequested(ts_event_ns=0, intent_no=1, reason=""),
        fill(1, "a", "0.1", "100"),
        intended(2, book=Book.SHADOW),
        BreakerChanged(
            ts_event_ns=0, book=Book.SHADOW, state=BreakerState(phase=BreakerPhase.OPEN)
        ),
    ],
)
def test_the_hash_covers_everything_economic(event):
    state = fold(intended(1))
    before = state.state_hash()
    state.apply(event)
    assert state.state_hash() != before


def test_the_hash_knows_a_number_by_its_value():
    assert (
        fold(intended(1, quantity="1.00")).state_hash()
        == fold(intended(1, quantity="1")).state_hash()
    )


def encoded(state: TradingState) -> bytes:
    return b"".join(snapshot.encode(snapshot.picture(state)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 60))
def test_a_state_rebuilt_from_a_snapshot_goes_on_like_the_original(seed, cut):
    scenario = Scenario(seed, 60)
    state = TradingState()
    for number, batch in enumerate(scenario.batches()):
        if number == cut:
            payload = encoded(state)
            before = state.state_hash()
            state = TradingState.from_snapshot(msgspec.msgpack.decode(payload, type=StateImage))
            assert state.state_hash() == before
        for event in batch:
            state.apply(event)
    assert state.state_hash() == scenario.hashes[-1]
    assert encoded(state) == encoded(scenario.state)
    assert state.regimes == scenario.state.regimes


def test_a_portfolio_is_a_copy():
    state = fold(intended(1), fill(1, "a", "1", "100"))
    before = state.portfolio(Book.VALIDATED)
    state.apply(fill(1, "b", "1", "100"))
    assert before.positions["BTCUSDT"].quantity == 1
    assert before.cash == 9_900


def trial(outcome: str, files: str, activated_ms: int = 1, interval: str = "1h") -> ModelTrial:
    return ModelTrial(
        ts_event_ns=0, interval=interval, hmm_sha256=files, lstm_sha256=files, outcome=outcome,
        activated_ms=activated_ms,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "last"),
    [
        (["begun b", "refused b"], "refused b"),
        (["begun b", "adopted b", "kept b", "rolled back b"], "rolled back b"),
        (["adopted b", "begun c", "refused c", "rolled back b"], "refused c"),
        (["adopted b", "begun c", "kept b"], "begun c"),
        (["begun b", "refused b", "refused c"], "refused c"),
        (["adopted b", "begun c", "adopted c", "left c"], "left c"),
        (["refused b", "refused "], "refused b"),
        (["rolled back b"], None),
    ],
)
def test_the_last_word_is_kept_on_the_pair_that_was_taken_up_last(told, last):
    """Not on the one before it, and not on a pointer nobody can read."""
    state = TradingState()
    for each in told:
        outcome, _, files = each.rpartition(" ")
        state.apply(trial(outcome, files))
        state.apply(trial("begun", "x", interval="4h"))
    kept = state.trials.get("1h")
    assert (kept and f"{kept.outcome} {kept.hmm_sha256}") == last
    assert TradingState.from_snapshot(state.to_snapshot()).trials == state.trials
    assert state.trials["4h"].hmm_sha256 == "x"
