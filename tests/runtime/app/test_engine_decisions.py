"""The engine candle by candle: what it orders, cancels, and leaves alone."""

import dataclasses
import itertools
from decimal import Decimal

import msgspec
import pytest
from engine_bench import BEGIN, ENTER, EXIT, HOUR, Bench, entered

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.errors import (
    InvariantViolated,
    UndefinedStatistic,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.domain.events import (
    BreakerChanged,
    FundingPaid,
    OrderFilled,
    OrderIntended,
    RiskDecided,
    SignalDecided,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, OrderType, Purpose, Side
from bot4_runtime.market import DEPTH_CANDLES, RECENT_CANDLES, VOLATILITY_CANDLES
from bot4_runtime.state import snapshot
from bot4_runtime.state.trading_state import StateImage, TradingState


def test_an_entry_is_filled_and_protected_and_an_exit_closes_it() -> None:
    bench = entered()
    bench.say(EXIT)
    bench.calm(3)
    book = bench.state.books[Book.VALIDATED]
    assert book.positions == {}
    assert bench.state.all_live_orders() == []
    assert [t.exit_reason for t in book.closed_trades] == ["signal"]
    assert bench.reasons() == {"exit signal": 1}


def test_the_validator_reads_results_as_funding_told_late_left_them() -> None:
    """What a restart would read, a session that goes on reads too."""
    bench = entered()
    bench.say(EXIT)
    bench.calm(3)
    bench.say(ENTER)
    bench.calm(1)
    book = bench.state.books[Book.VALIDATED]
    (closed,) = bench.engine._desk.history.trades
    bench.emit(
        FundingPaid(
            ts_event_ns=closed.opened_ts_ns, symbol=closed.symbol, asset=book.quote,
            amount=Decimal(-5), transaction_id=1, ours=True,
        )
    )  # fmt: skip
    bench.say(EXIT)
    bench.calm(3)
    bench.say(ENTER)
    bench.calm(1)
    assert len(book.closed_trades) == 2
    assert bench.engine._desk.history.trades == book.closed_trades
    assert book.closed_trades[0].pnl == closed.pnl - 5


def test_a_second_entry_while_one_is_engaged_is_not_even_judged() -> None:
    bench = entered()
    before = len(bench.of(SignalDecided))
    bench.say(ENTER)
    bench.calm(2)
    assert len(bench.of(SignalDecided)) == before == 1


def test_an_exit_signal_cancels_an_entry_that_waits() -> None:
    bench = Bench()
    bench.calm(80)
    bench.say(ENTER, limit=98.5)
    bench.calm(1)
    bench.say(EXIT)
    bench.calm(1)
    assert bench.reasons() == {"exit signal": 1}
    assert bench.of(OrderFilled) == []


def test_an_entry_that_waited_too_long_is_cancelled() -> None:
    bench = Bench()
    bench.calm(80)
    bench.say(ENTER, limit=98.5)
    bench.calm(6)
    assert bench.reasons() == {"entry waited too long": 1}
    assert bench.state.all_live_orders() == []


def test_a_second_exit_signal_does_not_sell_twice() -> None:
    bench = entered()
    bench.say(EXIT)
    bench.candle("AAAUSDT")
    for _ in range(2):
        bench.say(EXIT)
        bench.candle("AAAUSDT", volume=0.0)
    exits = [e for e in bench.of(OrderIntended) if e.intent.purpose is Purpose.EXIT]
    assert len(exits) == 1
    bench.calm(2)
    assert bench.state.books[Book.VALIDATED].positions == {}


def test_an_unanswered_cancel_is_asked_for_once_and_nothing_is_oversold() -> None:
    bench = entered()
    bench.venue.lag = True
    bench.say(EXIT)
    bench.calm(4)
    book = bench.state.books[Book.VALIDATED]
    assert book.positions == {}
    (left,) = bench.state.all_live_orders()
    assert left.cancel_requested
    bench.say(EXIT)
    bench.calm(1)
    assert bench.reasons() == {"exit signal": 1}
    bench.venue.lag = False
    for answer in bench.gate.cancel(left, 0):
        bench.emit(answer)
    assert bench.state.all_live_orders() == []


def test_a_breaker_that_opens_cancels_entries_of_every_symbol() -> None:
    bench = Bench(max_daily_loss=0.02)
    bench.calm(80, "AAAUSDT", "BBBUSDT")
    bench.say(ENTER, "AAAUSDT")
    bench.calm(4, "AAAUSDT", "BBBUSDT")
    assert "AAAUSDT" in bench.state.books[Book.VALIDATED].positions
    bench.say(ENTER, "BBBUSDT", limit=98.5)
    bench.candle("BBBUSDT")
    bench.candle("AAAUSDT", 20.0, open_=100.0, volume=0.0)
    opened = [e for e in bench.of(BreakerChanged) if e.book is Book.VALIDATED]
    assert opened
    assert bench.reasons()["circuit breaker"] == 1
    before = len(bench.of(OrderIntended))
    bench.say(ENTER, "BBBUSDT")
    bench.candle("BBBUSDT")
    later = bench.of(OrderIntended)[before:]
    assert not [e for e in later if e.intent.book is Book.VALIDATED]


def test_what_the_validator_rejects_only_the_shadow_book_trades() -> None:
    bench = Bench()
    bench.calm(80)
    for _ in range(2):
        bench.say(ENTER, rule="unproven")
        bench.calm(1)
    bench.calm(4)
    assert [e.code for e in bench.of(SignalDecided)] == ["NO_EVIDENCE", "NO_EVIDENCE"]
    assert {e.intent.book for e in bench.of(OrderIntended)} == {Book.SHADOW}
    assert sum(e.intent.purpose is Purpose.ENTRY for e in bench.of(OrderIntended)) == 1


def test_an_entry_into_unknown_depth_is_refused() -> None:
    bench = Bench()
    bench.calm(5)
    bench.say(ENTER)
    bench.calm(1)
    (verdict,) = bench.of(RiskDecided)
    assert (verdict.approved, verdict.code) == (False, "NOT_FINITE")
    assert bench.of(OrderIntended) == []


def capped(
    most: str | None = None, market: str | None = None, notional: str | None = None
) -> Bench:
    """A bench whose venue takes no more than so much in one order."""

    def told(symbol: str) -> Instrument:
        return msgspec.structs.replace(
            Instrument.assume(symbol, Market.SPOT, 100.0),
            max_quantity=None if most is None else Decimal(most),
            max_market_quantity=None if market is None else Decimal(market),
            max_market_notional=None if notional is None else Decimal(notional),
        )

    bench = Bench()
    bench.parts = dataclasses.replace(bench.parts, told=told)
    bench.restart()
    bench.calm(80)
    return bench


@pytest.mark.parametrize(
    ("caps", "limit", "bought"),
    [
        ({"most": "5", "market": "3.25"}, 99.0, "5"),
        ({"most": "5", "market": "3.25"}, None, "3.25"),
        ({"most": "2", "market": "3.25"}, None, "2"),
        ({"most": "5", "notional": "200"}, 99.0, "5"),
        ({"most": "5", "notional": "200"}, None, "1.8"),
        ({"market": "3.25"}, 99.0, None),
        ({"market": "1000000"}, None, None),
        ({"market": "0"}, None, None),
        ({}, None, None),
    ],
)
def test_an_entry_is_cut_to_what_the_venue_takes_in_one_order_and_judged_so(
    caps, limit, bought
) -> None:
    uncut = capped()
    uncut.say(ENTER, limit=limit)
    uncut.calm(1)
    (whole,) = uncut.of(OrderIntended)
    bench = capped(**caps)
    bench.say(ENTER, limit=limit)
    bench.calm(1)
    (entry,), (judged,) = bench.of(OrderIntended), bench.of(RiskDecided)
    assert whole.intent.quantity > 10
    assert entry.intent.quantity == (whole.intent.quantity if bought is None else Decimal(bought))
    assert (judged.approved, judged.quantity) == (True, entry.intent.quantity)
    assert entry.intent.order_type is (OrderType.MARKET if limit is None else OrderType.LIMIT)
    bench.calm(2)
    assert limit is not None or bench.state.books[Book.VALIDATED].positions["AAAUSDT"].quantity > 0


def test_an_entry_that_the_venues_largest_order_leaves_too_small_is_not_made() -> None:
    bench = capped(market="0.04")  # 4 of at least 5 quote
    bench.say(ENTER)
    bench.calm(1)
    assert [e.code for e in bench.of(RiskDecided)] == ["BELOW_MINIMUM"]
    assert bench.of(OrderIntended) == []


def test_a_thin_market_takes_a_smaller_size_or_none() -> None:
    bench = Bench()
    for number in range(80):
        bench.candle("AAAUSDT", 100.0 + 0.2 * (number % 3), volume=300.0)
    bench.say(ENTER)
    bench.candle("AAAUSDT", volume=300.0)
    codes = [e.code for e in bench.of(RiskDecided)]
    assert codes == ["LIQUIDITY", "APPROVED"]
    (entry,) = bench.of(OrderIntended)
    first = bench.of(RiskDecided)[0]
    assert entry.intent.quantity <= first.would_pass_size < first.quantity
    tiny = Bench()
    for number in range(80):
        tiny.candle("AAAUSDT", 100.0 + 0.2 * (number % 3), volume=1.0)
    tiny.say(ENTER)
    tiny.candle("AAAUSDT", volume=1.0)
    assert [e.code for e in tiny.of(RiskDecided)] == ["LIQUIDITY", "BELOW_MINIMUM"]
    assert tiny.of(OrderIntended) == []


def test_free_cash_leaves_out_what_orders_reserve_but_not_the_order_asked_about() -> None:
    bench = Bench()
    bench.calm(80)
    bench.say(ENTER, limit=98.5)
    bench.calm(1)
    (order,) = bench.state.all_live_orders()
    cost = float(order.open_quantity * order.intent.worst_price)
    assert bench.engine.cash_free(Book.VALIDATED) == pytest.approx(100_000 - cost)
    number = order.intent.intent_no
    assert bench.engine.cash_free(Book.VALIDATED, without=number) == pytest.approx(100_000)


def test_the_memory_says_unknown_until_its_windows_are_full() -> None:
    bench = Bench()
    bench.calm(1)
    known = Candle(
        symbol="AAAUSDT", interval="1h", open_time_ms=BEGIN + 5 * HOUR, open=1.0, high=1.0,
        low=1.0, close=1.0, volume=1.0,
    )  # fmt: skip
    assert bench.memory.gap_before(known) == BEGIN + HOUR
    for count in range(2, VOLATILITY_CANDLES + 3):
        bench.calm(1)
        depth = bench.memory.depth_quote("AAAUSDT")
        assert (depth == depth) is (count >= DEPTH_CANDLES)
        assert (bench.memory.recent_return("AAAUSDT") is None) is (count <= RECENT_CANDLES)
        assert (bench.memory.volatility("AAAUSDT") is None) is (count <= VOLATILITY_CANDLES)
    assert UndefinedStatistic.exit_code == 1


@pytest.mark.parametrize("rule", ["scripted", "unproven"])
def test_no_book_sells_short(rule: str) -> None:
    bench = Bench()
    bench.calm(80)
    plain = bench.strategy.on_candle
    bench.strategy.on_candle = lambda candle: [  # type: ignore[method-assign]
        msgspec.structs.replace(signal, side=Side.SELL) for signal in plain(candle)
    ]
    bench.say(ENTER, rule=rule)
    bench.calm(3)
    assert [e.code for e in bench.of(RiskDecided)] == ["LONG_ONLY"]
    assert bench.of(OrderIntended) == []


def test_a_signal_on_another_symbols_candle_is_a_fault_of_the_strategy() -> None:
    bench = Bench()
    bench.calm(80)
    plain = bench.strategy.on_candle
    bench.strategy.on_candle = lambda candle: [  # type: ignore[method-assign]
        msgspec.structs.replace(signal, symbol="OTHERUSDT") for signal in plain(candle)
    ]
    bench.say(ENTER)
    with pytest.raises(InvariantViolated, match="OTHERUSDT"):
        bench.calm(3)


UNREACHABLE = VenueUnreachable("a second without network")
FORBIDDEN = VenueRefused("HTTP 403")


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    "refuses", [[UNREACHABLE], [UNREACHABLE] * 2, [FORBIDDEN], [FORBIDDEN, UNREACHABLE] * 2]
)
def test_an_exit_that_failed_is_repeated_until_nothing_is_held_and_a_stop_stands_in_between(
    refuses, restarts
) -> None:
    bench = entered()
    bench.venue.refuses = refuses
    bench.say(EXIT)
    held = [bench.state.books[Book.VALIDATED].positions["AAAUSDT"].quantity]
    protected = []
    while held[-1]:
        bench.calm(1)
        if restarts:
            image = snapshot.encode(snapshot.picture(bench.state))
            decoded = msgspec.msgpack.decode(b"".join(image), type=StateImage)
            bench.state = TradingState.from_snapshot(decoded)
            bench.restart()
        position = bench.state.books[Book.VALIDATED].positions.get("AAAUSDT")
        held.append(position.quantity if position else 0)
        leaving = sum(o.open_quantity for o in bench.state.all_live_orders(Book.VALIDATED))
        step = bench.state.instruments["AAAUSDT"].step_size
        protected.append(held[-1] - leaving < step)
        assert len(held) < 20
    assert not any(not a and not b for a, b in itertools.pairwise(protected))
    exits = [
        event.intent
        for event in bench.of(OrderIntended)
        if event.intent.purpose is Purpose.EXIT and event.intent.book is Book.VALIDATED
    ]
    assert len(exits) == len(refuses) + 1
    assert len({intent.signal_id for intent in exits}) == 1
    bench.say(ENTER)
    bench.calm(4)
    assert "AAAUSDT" in bench.state.books[Book.VALIDATED].positions
    assert (
        exits[-1]
        == [e.intent for e in bench.of(OrderIntended) if e.intent.purpose is Purpose.EXIT][-1]
    )


@pytest.mark.parametrize(
    ("error", "purposes"),
    [
        (UNREACHABLE, ["exit", "stop", "exit"]),
        (FORBIDDEN, ["exit", "stop"]),  # the stop stands for the rest of the candle
    ],
)
def test_between_candles_an_exit_that_was_not_sent_is_repeated_and_a_refused_one_is_not(
    error, purposes
) -> None:
    bench = entered()
    bench.venue.refuses = [error]
    before = bench.state.next_intent_no
    bench.say(EXIT)
    bench.calm(1)
    for _ in range(4):
        bench.perform(bench.engine.protect("AAAUSDT"))
    intents = [o.intent for o in bench.state.orders.values() if o.intent.intent_no >= before]
    assert [i.purpose for i in intents if i.book is Book.VALIDATED] == purposes
    bench.calm(3)
    assert not bench.state.books[Book.VALIDATED].positions


def test_an_exit_of_an_earlier_position_is_not_owed_by_the_next() -> None:
    bench = entered()
    bench.venue.refuses = [UNREACHABLE]
    bench.say(EXIT)
    bench.calm(2)
    bench.candle("AAAUSDT", 90.0, open_=100.0)  # the stop that was put back takes it out
    assert not bench.state.books[Book.VALIDATED].positions
    bench.say(ENTER)
    bench.calm(10)
    assert "AAAUSDT" in bench.state.books[Book.VALIDATED].positions


def test_a_signal_of_another_time_than_its_candles_close_is_a_fault_of_the_strategy() -> None:
    bench = Bench()
    bench.calm(80)
    bench.strategy.late_ns = 1
    bench.say(ENTER)
    with pytest.raises(InvariantViolated, match="a signal's time is the close of its candle"):
        bench.candle("AAAUSDT")
