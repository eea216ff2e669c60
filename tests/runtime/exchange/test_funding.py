"""The funding desk at a scripted venue: when it asks, what it books, and what it tells."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_keeper import SYMBOL, Desk
from test_keeper_contracts import trade

from bot4_runtime.domain.account import DifferenceKind
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError, OutcomeUnknown, VenueUnreachable
from bot4_runtime.domain.events import FundingPaid, InstrumentDefined, OperatorCommand
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, OrderStatus, Side
from bot4_runtime.exchange.binance import income
from bot4_runtime.exchange.binance.income import KIND, SPAN_MS, FundingHistory
from bot4_runtime.exchange.funding import LATE_MS, OVERLAP_MS, FundingDesk
from bot4_runtime.exchange.keeper import INTERVAL_MS
from bot4_runtime.exchange.protocols import VenueFunding

D = Decimal
MS = 1_000_000
FEE = D("0.05")
UNSEEN = "-0.00000001"
"""So little that no comparison of wallets would ask for it."""
FAR_MS = 10**12


class Paying:
    """A list of fundings, and what else a venue says of them."""

    def __init__(self) -> None:
        self.rows: list[VenueFunding] = []
        self.coming: dict[str, int] = {SYMBOL: FAR_MS}
        self.heard = 0
        self.fails: Exception | None = None
        self.asked: list[int] = []

    def fundings(self, from_ms: int, to_ms: int) -> list[VenueFunding]:
        self.asked.append(from_ms)
        if self.fails is not None:
            raise self.fails
        return [row for row in self.rows if row.time_ms >= from_ms]

    def next_fundings(self) -> dict[str, int]:
        return self.coming

    def fundings_heard(self) -> int:
        return self.heard


class Funded(Desk):
    """A keeper that holds one long contract and books its funding."""

    def __init__(self) -> None:
        super().__init__()
        self.paying = Paying()
        self.venue.contracts = {}
        rules = Instrument.assume(SYMBOL, Market.USDM, 100.0)
        self.emit(InstrumentDefined(ts_event_ns=0, instrument=rules))
        self.begin()
        self.ready()

    def begin(self) -> None:
        """As a process that starts."""
        self.keeper._funding = FundingDesk(self.paying, self, (SYMBOL,))

    def buy(self) -> "Funded":
        name = self.intend()
        bought = trade(self.state.next_intent_no - 1, str(99 + self.state.next_intent_no))
        now_ms = self.now_ms
        self.venue.done.append(msgspec.structs.replace(bought, realised=D(0), time_ms=now_ms))
        self.venue.contracts = {SYMBOL: D(1)}
        self.venue.held["USDT"] -= FEE
        self.venue.orders[name] = self.told(name, OrderStatus.FILLED, "1")
        self.after(INTERVAL_MS)
        assert self.position.quantity == 1
        assert self.keeper.hold == ""
        return self

    def sell(self, realised: str) -> "Funded":
        name = self.intend(side=Side.SELL)
        number = self.state.next_intent_no - 1
        sold = trade(number, str(100 + number), side=Side.SELL)
        now_ms = self.now_ms
        self.venue.done.append(
            msgspec.structs.replace(
                sold, realised=D(realised), price=100 + D(realised), time_ms=now_ms
            )
        )
        self.venue.contracts = {}
        self.venue.held["USDT"] += D(realised) - FEE
        self.venue.orders[name] = self.told(name, OrderStatus.FILLED, "1", side=Side.SELL)
        return self

    def pay(self, amount: str, number: int = 1, **changed) -> VenueFunding:
        """Let the venue take or give it now; it is in the list at once."""
        row = VenueFunding(
            symbol=SYMBOL, asset="USDT", amount=D(amount), transaction_id=number,
            time_ms=self.now_ms,
        )  # fmt: skip
        row = msgspec.structs.replace(row, **changed)
        self.paying.rows.append(row)
        self.venue.held[row.asset] = self.venue.held.get(row.asset, D(0)) + row.amount
        return row

    @property
    def now_ms(self) -> int:
        return self.clock.now_ns() // MS

    @property
    def book(self):
        return self.state.books[Book.VALIDATED]

    @property
    def position(self):
        return self.book.positions[SYMBOL]

    @property
    def paid(self) -> list[tuple[int, bool]]:
        return [(e.transaction_id, e.ours) for e in self.of(FundingPaid)]


@pytest.fixture
def desk() -> Funded:
    return Funded().buy()


def test_it_is_asked_once_at_the_start_and_not_at_every_reading(desk: Funded) -> None:
    asked = len(desk.paying.asked)
    assert asked == 1
    for _ in range(20):
        desk.after(INTERVAL_MS)
    assert len(desk.paying.asked) == asked


def test_what_the_stream_told_of_is_asked_for_and_booked(desk: Funded) -> None:
    desk.pay(UNSEEN)
    desk.paying.heard += 1
    desk.after(INTERVAL_MS)
    assert desk.paid == [(1, True)]
    assert desk.book.cash == 1_000 - 100 - FEE + D(UNSEEN)
    assert desk.position.funding_quote == D(UNSEEN)
    assert desk.keeper.hold == ""
    assert len(desk.paying.asked) == 2


def test_a_time_that_passed_while_something_is_held_is_reason_to_ask(desk: Funded) -> None:
    desk.paying.coming = {SYMBOL: desk.now_ms + INTERVAL_MS + 1_000}
    desk.after(INTERVAL_MS)
    asked = len(desk.paying.asked)
    desk.after(1_000)
    desk.pay(UNSEEN)
    desk.paying.coming = {SYMBOL: FAR_MS}
    desk.after(INTERVAL_MS)
    assert desk.paid == [(1, True)]
    desk.after(INTERVAL_MS)
    assert len(desk.paying.asked) == asked + 1


def test_a_time_that_passed_long_ago_is_reason_to_ask_too(desk: Funded) -> None:
    """The process stood still for an hour: nothing is waited for any more."""
    due_ms = desk.now_ms + 2 * INTERVAL_MS
    desk.paying.coming = {SYMBOL: due_ms}
    desk.after(INTERVAL_MS)
    desk.pay(UNSEEN, time_ms=due_ms)
    desk.paying.coming = {SYMBOL: FAR_MS}
    desk.after(6 * LATE_MS)
    assert desk.paid == [(1, True)]


def test_what_nothing_told_of_is_found_by_the_wallet(desk: Funded) -> None:
    desk.pay("-0.3")
    desk.after(INTERVAL_MS)
    assert desk.paid == [(1, True)]
    assert desk.keeper.hold == ""
    assert desk.differences == []


def test_the_venue_may_list_late_what_it_took_from_the_wallet(desk: Funded) -> None:
    desk.paying.coming = {SYMBOL: desk.now_ms + INTERVAL_MS}
    desk.after(INTERVAL_MS)
    desk.paying.coming = {SYMBOL: FAR_MS}
    late = desk.pay("-0.3")
    desk.paying.rows.clear()
    for _ in range(5):
        desk.after(INTERVAL_MS)
        assert desk.keeper.hold == ""
    desk.paying.rows.append(late)
    desk.after(INTERVAL_MS)
    assert desk.paid == [(1, True)]
    assert desk.differences == []


def test_a_wallet_that_nothing_explains_stops_entries(desk: Funded) -> None:
    desk.paying.coming = {SYMBOL: desk.now_ms + INTERVAL_MS}
    desk.after(INTERVAL_MS)
    desk.paying.coming = {SYMBOL: FAR_MS}
    desk.venue.held["USDT"] -= 7
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == "", "a funding is waited for"
    desk.after(LATE_MS)
    assert "to be confirmed: balance USDT" in desk.keeper.hold
    desk.after(2_000)
    assert desk.differences == ["balance USDT"]
    desk.emit(OperatorCommand(ts_event_ns=0, verb="accept", reason="seen", command_id="1"))
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""


def test_a_wallet_may_be_off_by_what_the_venue_rounds_at_each_booking(desk: Funded) -> None:
    asked = len(desk.paying.asked)
    desk.venue.held["USDT"] += D("2e-8")  # one trade, and the least amount
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""
    assert len(desk.paying.asked) == asked
    desk.venue.held["USDT"] += D("1e-8")
    desk.after(INTERVAL_MS)
    assert "to be confirmed: balance USDT" in desk.keeper.hold
    assert len(desk.paying.asked) == asked + 1


def test_a_list_that_fails_stops_entries_and_nothing_else(desk: Funded) -> None:
    desk.pay("-0.3")
    desk.paying.heard += 1
    desk.paying.fails = VenueUnreachable("away")
    desk.after(INTERVAL_MS)
    assert desk.keeper.hold == "funding could not be read: away"
    assert len(desk.paying.asked) == 2, "once a reading"
    assert desk.venue.contracts is not None
    desk.venue.contracts["SOLUSDT"] = D(2)
    desk.after(2_000)
    desk.after(2_000)
    assert desk.differences == ["balance SOLUSDT"], "positions are compared all the same"
    desk.paying.fails = None
    desk.after(2_000)
    assert desk.paid == [(1, True)]
    assert "funding" not in desk.keeper.hold


def test_a_position_that_closed_before_its_funding_was_told_has_it_in_its_result(desk) -> None:
    desk.after(1_000)
    held = desk.pay("-0.3")
    desk.paying.rows.clear()
    desk.sell("4").after(INTERVAL_MS)
    desk.after(2_000)
    desk.paying.rows.append(held)
    desk.after(INTERVAL_MS)
    (closed,) = desk.book.closed_trades
    assert closed.pnl == 4 - 2 * FEE - D("0.3")
    assert closed.funding_quote == D("-0.3")
    assert closed.return_net == float(closed.pnl / 100)
    assert desk.book.cash == desk.book.initial_cash + closed.pnl
    assert desk.book.amended_total == 1


def test_a_funding_that_turns_a_profit_into_a_loss_is_no_win_any_more(desk: Funded) -> None:
    desk.sell("0.2").after(INTERVAL_MS)
    assert desk.book.wins_total == 1
    desk.pay("-0.3")
    desk.after(INTERVAL_MS)
    assert desk.book.wins_total == 0


# ------------------------------------------------------------------- what is not ours
def test_funding_of_what_others_hold_elsewhere_moves_the_wallet_alone(desk: Funded) -> None:
    desk.pay("-2", symbol="SOLUSDT")
    desk.after(INTERVAL_MS)
    assert desk.paid == [(1, False)]
    assert desk.book.funding_quote == 0
    assert desk.keeper.hold == ""
    assert desk.state.account.expected("USDT") == desk.venue.held["USDT"]


def test_funding_of_a_symbol_that_is_traded_and_was_not_held_is_told_once_two_readings_agree() -> None:  # fmt: skip
    desk = Funded()
    desk.after(INTERVAL_MS)
    desk.pay("-2")
    desk.after(INTERVAL_MS)
    assert desk.paid == []
    assert desk.keeper.hold == f"to be confirmed: funding {SYMBOL}:1"
    desk.after(2_000)
    assert desk.paid == [(1, False)]
    (found,) = desk.state.account.differences
    assert (found.kind, found.name, found.ours, found.venue) == (
        DifferenceKind.FUNDING, f"{SYMBOL}:1", 0, D(-2),
    )  # fmt: skip
    assert "not ours" in desk.keeper.hold
    assert desk.book.cash == desk.book.initial_cash
    desk.emit(OperatorCommand(ts_event_ns=0, verb="accept", reason="seen", command_id="1"))
    for _ in range(3):
        desk.after(INTERVAL_MS)
    assert desk.keeper.hold == ""
    assert desk.paid == [(1, False)]


def test_a_strange_funding_that_the_next_reading_has_not_is_forgotten() -> None:
    desk = Funded()
    desk.after(INTERVAL_MS)
    row = desk.pay("-2")
    desk.after(INTERVAL_MS)
    assert "to be confirmed" in desk.keeper.hold
    desk.paying.rows.remove(row)
    desk.venue.held["USDT"] += 2
    desk.after(2_000)
    assert desk.keeper.hold == ""
    assert desk.paid == []
    assert desk.differences == []


def test_funding_in_another_asset_than_the_books_is_not_ours(desk: Funded) -> None:
    desk.pay("-2", asset="BNB")
    desk.after(INTERVAL_MS)
    desk.after(2_000)
    assert desk.paid == [(1, False)]
    assert desk.differences == [f"funding {SYMBOL}:1"]
    assert desk.book.funding_quote == 0


def test_what_was_paid_before_the_account_was_first_read_is_not_asked_for() -> None:
    desk = Funded()
    assert desk.state.account.opened_ms > 0
    desk.pay("-2", time_ms=desk.state.account.opened_ms - 1)
    desk.venue.held["USDT"] += 2  # it was in the opening
    desk.paying.heard += 1
    desk.after(INTERVAL_MS)
    assert desk.paying.asked
    assert min(desk.paying.asked) >= desk.state.account.opened_ms
    assert desk.paid == []
    assert desk.keeper.hold == ""


# ---------------------------------------------------------------- lives one after the other
def test_a_new_process_asks_from_a_day_before_the_last_one_booked(desk: Funded) -> None:
    desk.after(30 * OVERLAP_MS)
    last = desk.pay("-0.3", 5)
    desk.paying.heard += 1
    desk.after(INTERVAL_MS)
    desk.after(INTERVAL_MS)
    desk.pay("-0.2", 6)
    desk.begin()
    desk.after(INTERVAL_MS)
    assert desk.paying.asked[-1] == last.time_ms - OVERLAP_MS
    assert desk.paid == [(5, True), (6, True)]


def test_a_later_row_with_a_smaller_number_and_a_row_told_again_are_each_booked_once(desk) -> None:
    for number, amount in ((9, "-0.3"), (4, "-0.2"), (7, "0.1")):
        row = desk.pay(amount, number)
        desk.paying.rows.append(row)
        desk.after(INTERVAL_MS)
        desk.begin()
        desk.after(INTERVAL_MS)
    assert desk.paid == [(9, True), (4, True), (7, True)]
    assert desk.position.funding_quote == D("-0.4")
    assert desk.keeper.hold == ""


# -------------------------------------------------------------------------- page by page
class Pages:
    """Binance's list of income as its documentation shows it."""

    def __init__(self, rows: list[tuple[int, int]], dies_at: int = -1) -> None:
        self.rows = sorted(rows)
        self.asked: list[dict[str, str | int]] = []
        self.dies_at = dies_at

    def ask(self, path: str, asked) -> bytes:
        assert path == "/fapi/v1/income"
        assert asked["incomeType"] == "FUNDING_FEE"
        if len(self.asked) == self.dies_at:
            raise VenueUnreachable("away")
        self.asked.append(dict(asked))
        end_ms = asked.get("endTime", FAR_MS)
        told = [row(number, at) for at, number in self.rows if asked["startTime"] <= at <= end_ms]
        return msgspec.json.encode(told[: asked["limit"]])


def row(number, at, **changed):
    told = {
        "symbol": SYMBOL, "incomeType": KIND, "income": "-0.37500000", "asset": "USDT",
        "info": "FUNDING_FEE", "time": at, "tranId": number, "tradeId": "",
    }  # fmt: skip
    return told | changed


@given(
    times=st.lists(st.integers(0, 5 * SPAN_MS), max_size=40),
    start=st.integers(0, SPAN_MS),
    page=st.integers(1, 9),
    crowd=st.integers(0, 3),
)
def test_pages_bring_every_row_once_like_one_long_list(times, start, page, crowd) -> None:
    now_ms = 5 * SPAN_MS
    times += [times[0]] * crowd if times else []
    rows = [(at, number) for number, at in enumerate(sorted(times))]
    pages = Pages(rows)
    history = FundingHistory(pages.ask, page)
    try:
        found = history.read(start, now_ms)
    except OutcomeUnknown:  # more rows of one millisecond than a page holds
        assert max(times.count(at) for at in times) >= page
        return
    assert [(f.time_ms, f.transaction_id) for f in found] == [r for r in rows if r[0] >= start]
    for asked in pages.asked:
        assert asked.get("endTime", now_ms) - asked["startTime"] <= SPAN_MS


def test_a_failure_between_pages_brings_nothing_and_leaves_nothing_out() -> None:
    rows = [(1_000 + n, n) for n in range(30)]
    for dies_at in range(7):
        pages = Pages(rows, dies_at)
        history = FundingHistory(pages.ask, 5)
        with pytest.raises(VenueUnreachable):
            history.read(0, 2_000)
        pages.dies_at = -1
        assert [f.transaction_id for f in history.read(0, 2_000)] == list(range(30))


def test_what_is_older_than_the_venue_keeps_is_not_asked_for() -> None:
    pages = Pages([])
    FundingHistory(pages.ask).read(0, 100 * 86_400_000)
    assert pages.asked[0]["startTime"] == 100 * 86_400_000 - income.KEPT_MS
    assert "endTime" not in pages.asked[-1]
    assert pages.asked[0]["limit"] == 1_000


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([row(1, 5, incomeType="COMMISSION")], "asked for was FUNDING_FEE"),
        ([row(1, 5, income="NaN")], "NaN"),
        ([row(1, 5, income="Infinity")], "Infinity"),
        ([row(1, 5, income="-9e999999999")], "expected a number from -1e18"),
        ([row(1, 5, income="sNaN")], "sNaN"),
        ([row(1, 5, tranId="x")], "fundings"),
        ([row(1, 5, time="5")], "fundings"),
        ([{"symbol": SYMBOL}], "fundings"),
        ({"rows": []}, "fundings"),
        ([row(1, 9), row(2, 8)], "another order"),
        ([row(1, 4)], "told others"),
        ([row(n, 5) for n in range(1_000)], "of one millisecond"),
    ],
)
def test_an_answer_that_cannot_be_is_no_list_of_fundings(told, why) -> None:
    history = FundingHistory(lambda *_: msgspec.json.encode(told))
    with pytest.raises((OutcomeUnknown, DataError), match=why):
        history.read(5, 1_000)


def test_a_number_may_be_written_as_a_text() -> None:
    history = FundingHistory(lambda *_: msgspec.json.encode([row("9689322392", 5)]))
    (found,) = history.read(0, 1_000)
    assert (found.transaction_id, found.amount) == (9_689_322_392, D("-0.375"))
