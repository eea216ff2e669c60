"""Funding in the fold: once each, whenever it is told, in the result of what was held then."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_scenario import candle, fill, intended, session

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.domain.events import FundingPaid, InstrumentDefined, JournaledEvent, Reconciled
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Fill, Purpose, Side
from bot4_runtime.state.book import SETTLING_NS
from bot4_runtime.state.trading_state import StateImage, TradingState
from bot4_runtime.state.venue_account import _FUNDINGS_KEPT

D = Decimal
HOUR_NS = 3_600_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def paid(number: int, amount: str, ts_ns: int, **changed: object) -> FundingPaid:
    told = {
        "ts_event_ns": ts_ns, "symbol": "BTCUSDT", "asset": "USDT", "amount": D(amount),
        "transaction_id": number, "ours": True,
    }  # fmt: skip
    return FundingPaid(**told | changed)  # type: ignore[arg-type]


def opened() -> TradingState:
    state = TradingState()
    state.apply(session(1))
    for symbol in SYMBOLS:
        rules = Instrument.assume(symbol, Market.USDM, 100.0)
        state.apply(InstrumentDefined(ts_event_ns=0, instrument=rules))
    return state


def trade(state: TradingState, symbol: str, side: Side, price: int, ts_ns: int) -> list[JournaledEvent]:  # fmt: skip
    """An order that is intended and filled at once, folded."""
    number = state.next_intent_no
    purpose = Purpose.ENTRY if side is Side.BUY else Purpose.EXIT
    events: list[JournaledEvent] = [
        intended(number, symbol=symbol, side=side, purpose=purpose, price=D(price), ts_ns=ts_ns),
        fill(number, f"t{number}", "1", str(price), symbol=symbol, side=side, fee="0.1", ts_ns=ts_ns),
    ]  # fmt: skip
    for event in events:
        state.apply(event)
    return events


class Trip(msgspec.Struct):
    """A round trip of one contract: hours of its ends, prices, and hours it was funded at."""

    symbol: str
    start: int
    end: int | None
    bought: int
    sold: int
    funded: dict[int, Decimal]


@st.composite
def trips(draw: st.DrawFn) -> list[Trip]:
    """Round trips, of a symbol one after the other; the last may be open."""
    made = []
    for symbol in SYMBOLS:
        hour = 1
        for last in [False] * draw(st.integers(0, 3)) + [True]:
            start = hour + draw(st.integers(0, 3)) * 2
            end = start + draw(st.integers(1, 5)) * 2
            hours = st.integers(start, end).filter(lambda h: h % 2 == 0)
            amounts = st.decimals(-9, 9, places=8)
            made.append(
                Trip(
                    symbol,
                    start,
                    None if last and draw(st.booleans()) else end,
                    draw(st.integers(90, 110)),
                    draw(st.integers(90, 110)),
                    draw(st.dictionaries(hours, amounts, max_size=3)),
                )
            )
            hour = end + 2
    return made


@given(made=trips(), chance=st.randoms(use_true_random=False))
def test_however_late_twice_or_mixed_up_it_is_told_results_are_those_of_brute_force(made, chance):
    """Trades happen at odd hours, fundings at even ones; kills between any two change nothing."""
    number, told = 0, []
    for trip in made:
        for hour, amount in trip.funded.items():
            number += 1
            event = paid(number, str(amount), hour * HOUR_NS, symbol=trip.symbol)
            told += [(hour + chance.randint(0, 12), event) for _ in range(chance.randint(1, 3))]
    ends = [(t.start, t.symbol, Side.BUY, t.bought) for t in made]
    ends += [(t.end, t.symbol, Side.SELL, t.sold) for t in made if t.end is not None]
    state, fresh = opened(), 0
    hours = {hour for hour, *_ in (*ends, *told)}
    for hour in sorted(hours):
        for _, symbol, side, price in sorted(e for e in ends if e[0] == hour):
            trade(state, symbol, side, price, hour * HOUR_NS)
        due = [event for at, event in told if at == hour]
        chance.shuffle(due)
        for event in due:
            fresh += state.apply(event)
            if chance.random() < 0.5:
                image = msgspec.msgpack.encode(state.to_snapshot())
                state = TradingState.from_snapshot(msgspec.msgpack.decode(image, type=StateImage))
    book = state.books[Book.VALIDATED]
    assert fresh == number
    funding = sum((sum(t.funded.values()) for t in made), D(0))
    fees = D("0.1") * len(ends)
    traded = sum((D(t.sold - t.bought) if t.end is not None else D(-t.bought) for t in made), D(0))
    assert book.funding_quote == funding
    assert book.cash == book.initial_cash + traded - fees + funding
    results = {
        (t.symbol, t.start): t.sold - t.bought - D("0.2") + sum(t.funded.values())
        for t in made
        if t.end is not None
    }
    closed = {(t.symbol, t.opened_ts_ns // HOUR_NS): t for t in book.closed_trades}
    assert {key: t.pnl for key, t in closed.items()} == results
    assert book.realised == sum(results.values())
    assert book.wins_total == sum(1 for pnl in results.values() if pnl > 0)
    for trip in made:
        if trip.end is not None:
            there = closed[trip.symbol, trip.start]
            assert there.return_net == float(there.pnl / trip.bought)
        else:
            there = book.positions[trip.symbol]
            assert there.realised == sum(trip.funded.values())
        assert there.funding_quote == sum(trip.funded.values())
    moved = state.account.flows
    assert moved.get("USDT", D(0)) == book.cash - book.initial_cash


def test_equity_and_drawdown_know_what_was_paid() -> None:
    state = opened()
    trade(state, "BTCUSDT", Side.BUY, 100, HOUR_NS)
    before = state.books[Book.VALIDATED].metrics
    assert state.apply(paid(1, "-1000", 2 * HOUR_NS))
    after = state.books[Book.VALIDATED].metrics
    assert after.equity == before.equity - 1_000
    assert after.drawdown > 0.09
    unchanged = state.state_hash()
    assert not state.apply(paid(1, "-1000", 2 * HOUR_NS))
    assert state.state_hash() == unchanged
    assert state.counts["FundingPaid"] == 1


def test_the_numbers_of_two_symbols_may_be_the_same() -> None:
    state = opened()
    assert state.apply(paid(1, "-1", HOUR_NS))
    assert state.apply(paid(1, "-2", HOUR_NS, symbol="ETHUSDT"))
    assert state.books[Book.VALIDATED].funding_quote == -3


def test_what_is_not_ours_moves_what_the_venue_should_hold_and_no_book() -> None:
    state = opened()
    state.apply(paid(1, "-1", HOUR_NS, symbol="SOLUSDT", ours=False))
    state.apply(paid(2, "-1", HOUR_NS, asset="BNB", ours=False))
    book = state.books[Book.VALIDATED]
    assert book.cash == book.initial_cash
    assert book.funding_quote == 0
    assert (state.account.expected("USDT"), state.account.expected("BNB")) == (-1, -1)


def test_ours_can_only_be_in_the_books_own_asset() -> None:
    with pytest.raises(InvariantViolated, match="no book of ours is kept in it"):
        opened().apply(paid(1, "-1", HOUR_NS, asset="BNB"))
    with pytest.raises(InvariantViolated, match="no book of ours is kept in it"):
        TradingState().apply(paid(1, "-1", HOUR_NS))


def test_what_was_held_is_found_by_time() -> None:
    state = opened()
    trade(state, "BTCUSDT", Side.BUY, 100, 10 * HOUR_NS)
    trade(state, "BTCUSDT", Side.SELL, 101, 20 * HOUR_NS)
    trade(state, "BTCUSDT", Side.BUY, 102, 20 * HOUR_NS + SETTLING_NS)
    book = state.books[Book.VALIDATED]
    (closed,), held = book.closed_trades, book.positions["BTCUSDT"]
    for ts_ns, found in [
        (10 * HOUR_NS - SETTLING_NS - 1, None),
        (10 * HOUR_NS - SETTLING_NS, closed),
        (10 * HOUR_NS, closed),
        (20 * HOUR_NS, closed),
        (20 * HOUR_NS + 1, closed),
        (20 * HOUR_NS + SETTLING_NS - 1, closed),
        (20 * HOUR_NS + SETTLING_NS, held),
        (99 * HOUR_NS, held),
    ]:
        assert book.held_at("BTCUSDT", ts_ns) is found
    assert book.held_at("ETHUSDT", 15 * HOUR_NS) is None


def test_what_nothing_was_held_for_is_a_result_of_the_book_all_the_same() -> None:
    state = opened()
    state.apply(paid(1, "-1", HOUR_NS))
    book = state.books[Book.VALIDATED]
    assert (book.realised, book.cash) == (-1, book.initial_cash - 1)
    assert book.amended_total == 0


def test_the_last_fundings_are_remembered_by_their_numbers() -> None:
    account = opened().account
    for number in range(_FUNDINGS_KEPT + 5):
        assert account.fund(paid(number, "1", number * 1_000_000))
    assert len(account.funded) == _FUNDINGS_KEPT
    assert max(account.funded.values()) == _FUNDINGS_KEPT + 4
    assert not account.fund(paid(5, "1", 0))


def test_a_contract_moves_its_wallet_by_what_the_venue_says_was_realised() -> None:
    state = opened()
    number = state.next_intent_no
    state.apply(intended(number))
    event = fill(number, "1", "1", "100", fee="0.1")
    told = msgspec.structs.replace(event.fill, realised=D(0))
    state.apply(msgspec.structs.replace(event, fill=told))
    assert state.account.expected("USDT") == D("-0.1")
    assert state.account.expected("BTCUSDT") == 1
    assert state.books[Book.VALIDATED].cash == 10_000 - 100 - D("0.1")
    assert state.apply(candle("BTCUSDT", 0, 110.0))
    assert state.books[Book.VALIDATED].metrics.equity == 10_010 - D("0.1")


def test_fills_that_tell_nothing_realised_are_written_as_before() -> None:
    event = fill(1, "1", "1", "100").fill
    assert b"realised" not in msgspec.json.encode(event)
    told = msgspec.structs.replace(event, realised=D(3))
    assert msgspec.json.decode(msgspec.json.encode(told), type=Fill) == told
    assert msgspec.json.decode(msgspec.json.encode(event), type=Fill).realised is None


def test_the_first_opening_keeps_its_time() -> None:
    state = opened()
    for ts_ns in (5 * HOUR_NS, 6 * HOUR_NS):
        opening = {"USDT": D(1)}
        state.apply(Reconciled(ts_event_ns=ts_ns, trades_through={}, opening=opening, differences=()))  # fmt: skip
    assert state.account.opened_ms == 5 * 3_600_000
