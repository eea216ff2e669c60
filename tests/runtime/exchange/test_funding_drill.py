"""Funding at the loopback venue, over sockets: whatever is lost, the book is the venue's wallet."""

from decimal import Decimal

import msgspec
import pytest
from test_futures_drill import Drill

from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.account import DifferenceKind
from bot4_runtime.domain.events import FundingPaid, Reconciled
from bot4_runtime.domain.order import Book
from bot4_runtime.exchange.binance.futures import Holding
from bot4_runtime.exchange.binance.income import PATH
from bot4_runtime.venue.faults import Fault, FaultRule

D = Decimal
RATE = D("0.0007")
ZERO = D(0)


def performed(folder, rate=RATE, hours=60, before=lambda _drill: None, **options):
    """A drill at a venue that funds every hour, so that what is held is funded often."""
    drill = Drill(folder, hours=hours, **options)
    now_ms = drill.clock.now_ns() // NS_PER_MS
    for market in drill.venue.exchange.markets:
        market.funding_rate = rate
        market.contract = msgspec.structs.replace(market.contract, funding_hours=1)
        market.next_funding_ms = market.contract.next_funding_ms(now_ms)
    before(drill)
    return drill.perform().judge()


def incomes(drill, kind="FUNDING_FEE"):
    return [i for i in drill.account.incomes if i.kind == kind]


def booked(drill):
    return [e for e in drill.events if isinstance(e, FundingPaid)]


def agrees(drill):
    """Each funding is booked once, and the book is worth what the venue says."""
    paid = {(i.symbol, i.number): (i.amount, i.time_ms) for i in incomes(drill)}
    taken = {(e.symbol, e.transaction_id): (e.amount, e.ts_event_ns // NS_PER_MS) for e in booked(drill)}  # fmt: skip
    assert len(taken) == len(booked(drill)), "each is booked once"
    assert taken == paid
    book = drill.state.books[Book.VALIDATED]
    assert book.funding_quote == sum((amount for amount, _ in paid.values()), ZERO)
    marks = {m.contract.symbol: m.mark for m in drill.venue.exchange.markets}
    there = drill.account.wallet("USDT")
    there += sum((p.unrealised(marks[p.symbol]) for p in drill.account.positions()), ZERO)
    here = book.cash + sum((p.quantity * marks[s] for s, p in book.positions.items()), ZERO)
    assert here == there
    assert drill.state.account.expected("USDT") == drill.account.wallet("USDT")
    result = book.realised + sum((p.realised - p.cost for p in book.positions.values()), ZERO)
    assert book.initial_cash + result == book.cash, "results hold what cash holds"
    return drill


@pytest.mark.parametrize("rate", [RATE, -RATE], ids=["longs pay", "longs are paid"])
@pytest.mark.parametrize("holding", [Holding(), Holding(isolated=False), Holding(hedge=True)], ids=["isolated", "cross", "hedge"])  # fmt: skip
def test_what_longs_pay_and_are_paid_is_in_equity_and_in_results(tmp_path, rate, holding):
    drill = agrees(performed(tmp_path, rate, holding=holding))
    assert len(booked(drill)) > 5
    assert all((e.amount < 0) is (rate > 0) and e.ours for e in booked(drill))
    trades = drill.state.books[Book.VALIDATED].closed_trades
    held = drill.state.books[Book.VALIDATED].positions.values()
    of_results = sum((t.funding_quote for t in [*trades, *held]), ZERO)
    assert of_results == sum((e.amount for e in booked(drill)), ZERO)
    assert sum(1 for t in trades if t.funding_quote) > 1
    assert not drill.state.account.differences


def test_a_process_that_was_dead_at_funding_times_books_them_when_it_lives_again(tmp_path):
    """It dies with something held, and the market goes on for hours before the next life."""
    deaths = []

    def dies(moment, action):
        if (moment, action) == ("after", "submit stop") and len(deaths) < 3:
            deaths.append(action)
            return True
        return False

    def late(drill):
        live = drill.live

        def after_hours(port):
            if drill.lives > 1 and len(incomes(drill)) < 30:
                now_ms = drill.clock.now_ns() // NS_PER_MS
                drill.server.do(lambda: drill.venue.advance(now_ms + 5 * 3_600_000 + 60_000))
                slept.append(len(incomes(drill)))
            live(port)

        drill.live = after_hours

    slept = []
    drill = agrees(performed(tmp_path, dies=dies, before=late))
    assert len(deaths) == 3
    assert max(slept) > 3
    assert not drill.state.account.differences


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_reading_of_fundings_books_each_once(tmp_path, when):
    readings = []

    def dies(moment, action):
        readings.append(moment) if action == "fundings" else None
        return (moment, action) == (when, "fundings") and readings.count(when) in {3, 7, 8}

    drill = agrees(performed(tmp_path, dies=dies))
    assert drill.lives == 5
    assert booked(drill)
    assert not drill.state.account.differences


def test_a_lost_word_of_the_user_stream_leaves_no_funding_out(tmp_path):
    rule = FaultRule(
        fault=Fault.EVENT_LOST, method="EVENT", path="ACCOUNT_UPDATE", probability=1.0
    )
    drill = agrees(performed(tmp_path, rules=[rule]))
    assert booked(drill)
    assert not drill.counts["ACCOUNT_UPDATE:FUNDING_FEE"]
    assert not drill.state.account.differences


@pytest.mark.parametrize("fault", [Fault.ERROR_BEFORE, Fault.DROP_REPLY, Fault.TRUNCATED, Fault.WRONG_TYPE])  # fmt: skip
def test_a_list_of_fundings_that_cannot_be_read_is_asked_for_again(tmp_path, fault):
    rule = FaultRule(fault=fault, method="GET", path=PATH, probability=0.6)
    drill = agrees(performed(tmp_path, rules=[rule]))
    assert booked(drill)
    assert not drill.state.account.differences


def test_it_is_asked_for_when_it_is_due_and_not_all_the_time(tmp_path):
    drill = agrees(performed(tmp_path, before=_every_eight_hours))
    asked = [e for e in drill.sink.entries if e.kind == "request" and e.body["call"] == f"GET {PATH}"]  # fmt: skip
    read = [e for e in drill.sink.entries if e.kind == "request" and e.body["call"] == "GET /fapi/v3/balance"]  # fmt: skip
    times = len({i.time_ms for i in incomes(drill)})
    assert times > 1
    assert times <= len(asked) <= 3 * times + 2 * drill.lives
    assert len(asked) < len(read) / 2


def _every_eight_hours(drill):
    now_ms = drill.clock.now_ns() // NS_PER_MS
    for market in drill.venue.exchange.markets:
        market.contract = msgspec.structs.replace(market.contract, funding_hours=8)
        market.next_funding_ms = market.contract.next_funding_ms(now_ms)


def test_money_that_moves_beside_trades_and_funding_stops_entries(tmp_path):
    def transfer(drill, number):
        if number == 30:
            now_ms = drill.clock.now_ns() // NS_PER_MS
            drill.server.do(lambda: drill.account.deposit("USDT", D(25), now_ms))

    drill = performed(tmp_path, script=transfer)
    (found,) = drill.state.account.differences
    assert (found.kind, found.name) == (DifferenceKind.BALANCE, "USDT")
    assert found.venue - found.ours == 25
    assert "transfer" in found.reason
    assert {e.amount for e in booked(drill)} == {i.amount for i in incomes(drill)}
    assert [e for e in drill.events if isinstance(e, Reconciled) and e.differences]
