"""Each oracle of perpetuals sees what it is there for: a calm rehearsal, falsified in one thing."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.events import (
    FundingPaid,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderRejected,
)
from bot4_runtime.domain.order import Book, OrderStatus, OrderType
from bot4_runtime.rehearsal.exposure import Span, unprotected
from bot4_runtime.rehearsal.oracles import Findings, judge_contracts
from bot4_runtime.rehearsal.performance import Rehearsal
from bot4_runtime.rehearsal.stages import KEY, ContractClient
from bot4_runtime.settings import load_settings
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_orders import AlgoOrder, AlgoStatus, FuturesOrder
from bot4_runtime.venue.journal import Entry
from bot4_runtime.venue.orders import Status

replace = msgspec.structs.replace


@dataclass
class Evidence:
    """What a rehearsal of perpetuals is judged by."""

    entries: list[Entry]
    account: FuturesAccount
    orders: list[FuturesOrder]
    algos: list[AlgoOrder]
    events: list
    state: TradingState
    deposits: dict[str, Decimal]

    def judged(self) -> Findings:
        return judge_contracts(
            self.entries,
            self.account,
            self.orders,
            self.algos,
            self.events,
            self.state,
            self.deposits,
        )

    def one(self, kind: type):
        return next(event for event in self.events if type(event) is kind)

    @property
    def held(self):
        return next(self.account.positions())


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Callable[[], Evidence]:
    """Return a maker of equal evidence, so that each test may falsify its own.

    At its end a position is held and stopped, and funding was paid.
    """
    folder = tmp_path_factory.mktemp("calm")
    settings = load_settings(
        environment={
            "BOT4_MODELS": str(folder / "models"),
            "BOT4_RUNTIME__STRATEGY": "drill",
            "BOT4_RUNTIME__MARKET": "usdm",
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT"]',
        }
    )
    made = Rehearsal(settings, folder, rules=(), seed=1, hours=36, client=ContractClient)
    made.perform()
    venue = made.made_venue

    def evidence() -> Evidence:
        with JournalReader.open(folder / "state/rehearsal/journal.sqlite") as journal:
            events = [event for _, event in journal.events()]
            state = journal.state()
        account = venue.exchange.account(KEY)
        orders, algos = venue.exchange.orders(account), venue.algos.all(account)
        account, orders, algos = copy.deepcopy((account, orders, algos))
        return Evidence(
            list(made.venue_entries),
            account,
            orders,
            algos,
            events,
            state,
            {"USDT": settings.initial_cash},
        )

    return evidence


def test_the_evidence_itself_is_sound(calm) -> None:
    it = calm()
    found = it.judged()
    assert found.violations == []
    assert found.trades > 1
    assert found.held == found.intended > 2
    assert it.held.quantity > 0
    assert [algo for algo in it.algos if algo.status is AlgoStatus.NEW]
    assert [row for row in it.account.incomes if row.kind == "FUNDING_FEE"]


def forget(kind):
    def change(it: Evidence) -> None:
        it.events.remove(it.one(kind))

    return change


def book_another(it: Evidence) -> None:
    event = it.one(OrderFilled)
    it.events.append(replace(event, fill=replace(event.fill, trade_id="999999")))


def book_another_fee(it: Evidence) -> None:
    event = it.one(OrderFilled)
    it.events[it.events.index(event)] = replace(event, fill=replace(event.fill, fee=Decimal(1)))


def give_up(order_type: OrderType):
    def change(it: Evidence) -> None:
        intended = next(
            event
            for event in it.events
            if type(event) is OrderIntended and event.intent.order_type is order_type
        )
        never = OrderStatus.NEVER_PLACED.value
        no = intended.intent.intent_no
        it.events.append(OrderClosed(ts_event_ns=1, intent_no=no, status=never, reason="believed"))

    return change


def reject_a_stop(it: Evidence) -> None:
    intended = next(
        event
        for event in it.events
        if type(event) is OrderIntended and event.intent.order_type is OrderType.STOP_MARKET
    )
    no = intended.intent.intent_no
    it.events.append(OrderRejected(ts_event_ns=1, intent_no=no, code="X", reason="believed"))


def lose_a_stop(it: Evidence) -> None:
    it.algos.pop(0)


def place_a_stop_twice(it: Evidence) -> None:
    it.algos.append(it.algos[0])


def send_twice(it: Evidence) -> None:
    it.entries.append(next(e for e in it.entries if e.kind == "sent"))


def send_a_stop_twice(it: Evidence) -> None:
    name = it.algos[0].client_id
    it.entries.append(next(e for e in it.entries if e.kind == "sent" and e.body["id"] == name))


def end_a_stop(it: Evidence) -> None:
    waiting = next(algo for algo in it.algos if algo.status is AlgoStatus.NEW)
    waiting.status = AlgoStatus.CANCELED


def open_an_order(it: Evidence) -> None:
    ended = next(order for order in it.orders if order.algo is None and not order.status.open)
    ended.status = Status.NEW


def deposit_more(it: Evidence) -> None:
    it.deposits["USDT"] += 1


def pay_no_funding(it: Evidence) -> None:
    it.account.incomes = [row for row in it.account.incomes if row.kind != "FUNDING_FEE"]


def hold_more(it: Evidence) -> None:
    it.held.quantity += 1


def book_less(it: Evidence) -> None:
    positions = it.state.books[Book.VALIDATED].positions
    (symbol,) = positions
    positions[symbol] = replace(positions[symbol], quantity=Decimal(1))


def differ(it: Evidence) -> None:
    it.state.account.differences = (
        Difference(
            kind=DifferenceKind.ORDER, name="x", ours=Decimal(0), venue=Decimal(1), reason="theirs"
        ),
    )


def leave_out_a_funding(it: Evidence) -> None:
    it.state.account.flows["USDT"] -= it.one(FundingPaid).amount


def cost_a_clearance(it: Evidence, told: Decimal = Decimal(-2)) -> None:
    """Let a liquidation have cost 2, and a difference of so much have been told."""
    it.account.cross["USDT"] -= 2
    funding = next(row for row in it.account.incomes if row.kind == "FUNDING_FEE")
    it.account.incomes.append(funding._replace(kind="INSURANCE_CLEAR", amount=Decimal(-2)))
    difference = Difference(
        kind=DifferenceKind.BALANCE, name="USDT", ours=Decimal(9), venue=9 + told, reason="less"
    )
    it.state.account.differences = (difference,)


def tell_more_than_a_clearance(it: Evidence) -> None:
    cost_a_clearance(it, Decimal(-3))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (leave_out_a_funding, "USDT, the journal expects"),
        (tell_more_than_a_clearance, "a difference that nobody made"),
        (forget(OrderFilled), "is not booked"),
        (forget(OrderIntended), "nobody intended it"),
        (book_another, "the venue knows none"),
        (book_another_fee, "booked as"),
        (give_up(OrderType.LIMIT), "here it is never_placed"),
        (give_up(OrderType.STOP_MARKET), "here it is never_placed"),
        (reject_a_stop, "here it is rejected"),
        (lose_a_stop, "is not at the venue"),
        (place_a_stop_twice, "was placed twice"),
        (send_twice, "was sent 2 times"),
        (send_a_stop_twice, "was sent 2 times"),
        (end_a_stop, "is CANCELED at the venue"),
        (open_an_order, "is NEW at the venue"),
        (deposit_more, "its trades make"),
        (pay_no_funding, "its trades make"),
        (hold_more, "the journal expects"),
        (book_less, ", the book 1"),
        (differ, "a difference that nobody made"),
    ],
)
def test_what_was_falsified_is_a_violation(calm, change, word: str) -> None:
    it = calm()
    change(it)
    assert any(word in violation for violation in it.judged().violations)


def test_what_a_liquidation_cost_is_told_as_a_difference_and_is_no_violation(calm) -> None:
    it = calm()
    cost_a_clearance(it)
    assert it.judged().violations == []


def test_a_stop_that_both_say_was_refused_at_its_trigger_is_no_violation(calm) -> None:
    it = calm()
    algo = next(algo for algo in it.algos if algo.actual is None and algo.status is not AlgoStatus.NEW)  # fmt: skip
    algo.status = AlgoStatus.REJECTED
    no = next(e.intent.intent_no for e in it.events if type(e) is OrderIntended and e.client_id == algo.client_id)  # fmt: skip
    it.events.append(OrderRejected(ts_event_ns=1, intent_no=no, code="VENUE", reason="refused"))
    assert it.judged().violations == []


# ---------------------------------------------------------------------------- silence
KEY_CALL, READING = "POST /fapi/v1/listenKey", "GET /fapi/v1/openOrders"


def banned(call: str, time_ms: int = 5) -> Entry:
    body = {"fault": "banned", "call": call, "seconds": 60}
    return Entry(seq=1, time_ms=time_ms, kind="fault", uid=0, body=body)


def trespass(call: str, time_ms: int = 5) -> Entry:
    return Entry(seq=1, time_ms=time_ms, kind="trespass", uid=0, body={"call": call})


@pytest.mark.parametrize(
    ("entries", "exceeded"),
    [
        ([banned(KEY_CALL), trespass(READING)], 0),
        ([banned(READING), trespass(KEY_CALL)], 0),
        ([banned(KEY_CALL), trespass(READING), trespass(READING)], 1),
        ([banned(KEY_CALL), trespass(READING, 6)], 1),
        ([banned(READING), trespass(READING)], 1),
        ([banned(READING), trespass("GET /fapi/v1/order")], 1),
        ([banned(KEY_CALL), trespass(KEY_CALL)], 1),
        ([trespass(READING)], 1),
    ],
)
def test_one_request_may_cross_with_the_answer_that_wants_silence_of_the_stream(
    calm, entries: list[Entry], exceeded: int
) -> None:
    it = calm()
    it.entries += entries
    assert it.judged().limits_exceeded == exceeded


# --------------------------------------------------------------------------- protection
def row(told: dict, time_ms: int, uid: int = 1) -> Entry:
    return Entry(seq=1, time_ms=time_ms, kind="report", uid=uid, body=told)


def plain(side: str, status: str, traded: str, filled: str, time_ms: int, name: str = "x", **more) -> Entry:  # fmt: skip
    order = {"s": "BTCUSDT", "S": side, "x": "TRADE", "X": status, "c": name, "q": "1", "l": traded, "z": filled}  # fmt: skip
    return row({"e": "ORDER_TRADE_UPDATE", "o": order}, time_ms, **more)


def conditional(status: str, time_ms: int, name: str = "stop", side: str = "SELL") -> Entry:
    algo = {"s": "BTCUSDT", "S": side, "X": status, "caid": name, "q": "1"}
    return row({"e": "ALGO_UPDATE", "o": algo}, time_ms)


LEAST = {"BTCUSDT": Decimal("0.001")}
BOUGHT = plain("BUY", "FILLED", "1", "1", 1_000)


@pytest.mark.parametrize(
    ("rows", "spans", "bare"),
    [
        ([BOUGHT], [], True),
        ([BOUGHT, conditional("NEW", 1_500)], [Span("BTCUSDT", 1_000, 1_500)], False),
        ([BOUGHT, conditional("NEW", 1_500, side="BUY")], [], True),
        ([conditional("NEW", 500), BOUGHT, conditional("CANCELED", 2_000)], [], True),
        ([conditional("NEW", 500), BOUGHT, conditional("REJECTED", 2_000)], [], True),
        ([conditional("NEW", 500), BOUGHT, conditional("EXPIRED", 2_000)], [], True),
        (
            [
                conditional("NEW", 500),
                BOUGHT,
                conditional("TRIGGERED", 2_000),
                plain("SELL", "NEW", "0", "0", 2_001, "stop"),
                plain("SELL", "PARTIALLY_FILLED", "0.4", "0.4", 2_002, "stop"),
                plain("SELL", "FILLED", "0.6", "1", 2_003, "stop"),
                conditional("FINISHED", 2_003),
            ],
            [],
            False,
        ),
        (
            [
                conditional("NEW", 500),
                BOUGHT,
                conditional("TRIGGERED", 2_000),
                conditional("REJECTED", 2_000),
                conditional("NEW", 2_600, "next"),
            ],
            [Span("BTCUSDT", 2_000, 2_600)],
            False,
        ),
        ([plain("BUY", "FILLED", "1", "1", 1_000, uid=2)], [], False),
    ],
)
def test_a_conditional_order_protects_while_it_waits_and_what_it_became_while_it_rests(
    rows: list[Entry], spans: list[Span], *, bare: bool
) -> None:
    assert unprotected(rows, LEAST) == (spans, {"BTCUSDT"} if bare else set())
