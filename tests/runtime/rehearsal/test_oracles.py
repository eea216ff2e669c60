"""Each oracle sees what it is there for: a calm rehearsal, of which one thing is falsified."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.events import OrderClosed, OrderFilled, OrderIntended, OrderRejected
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.rehearsal.exposure import Span, overdue, unprotected
from bot4_runtime.rehearsal.oracles import Findings, judge
from bot4_runtime.rehearsal.performance import Rehearsal
from bot4_runtime.rehearsal.stages import KEY, SpotClient
from bot4_runtime.rehearsal.verdict import Outcome, Verdict
from bot4_runtime.settings import load_settings
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.venue.account import Account
from bot4_runtime.venue.journal import Entry
from bot4_runtime.venue.orders import VenueOrder

replace = msgspec.structs.replace


@dataclass
class Evidence:
    """What a rehearsal is judged by."""

    entries: list[Entry]
    account: Account
    orders: list[VenueOrder]
    events: list
    state: TradingState
    deposits: dict[str, Decimal]
    least: dict[str, Decimal] = field(default_factory=lambda: {"BTCUSDT": Decimal("0.0002")})

    def judged(self) -> Findings:
        return judge(
            self.entries, self.account, self.orders, self.events, self.state, self.deposits
        )

    def one(self, kind: type):
        return next(event for event in self.events if type(event) is kind)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Evidence]:
    """Return a maker of equal evidence, so that each test may falsify its own."""
    folder = tmp_path_factory.mktemp("calm")
    settings = load_settings(
        environment={
            "BOT4_MODELS": str(folder / "models"),
            "BOT4_RUNTIME__STRATEGY": "drill",
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT"]',
            "BOT4_RISK__MAX_CORRELATION": "1.0",
        }
    )
    made = Rehearsal(settings, folder, rules=(), seed=1, hours=30, client=SpotClient)
    venue = made.made_venue
    made.perform()
    account = venue.exchange.account(KEY)

    def evidence() -> Evidence:
        with JournalReader.open(folder / "state/rehearsal/journal.sqlite") as journal:
            events = [event for _, event in journal.events()]
            state = journal.state()
        return Evidence(
            list(made.venue_entries),
            account,
            list(venue.exchange.orders(account)),
            events,
            state,
            {"USDT": settings.initial_cash},
        )

    return evidence


def test_the_evidence_itself_is_sound(calm) -> None:
    found = calm().judged()
    assert found.violations == []
    assert found.trades > 1
    assert found.held == found.intended > 2


def forget(kind):
    def change(it: Evidence) -> None:
        it.events.remove(it.one(kind))

    return change


def book_twice(it: Evidence) -> None:
    it.events.append(it.one(OrderFilled))


def book_another(it: Evidence) -> None:
    event = it.one(OrderFilled)
    it.events.append(replace(event, fill=replace(event.fill, trade_id="999999")))


def book_at_another_price(it: Evidence) -> None:
    event = it.one(OrderFilled)
    wrong = replace(event, fill=replace(event.fill, price=event.fill.price + 1))
    it.events[it.events.index(event)] = wrong


def give_up(it: Evidence) -> None:
    no = it.one(OrderIntended).intent.intent_no
    never = OrderStatus.NEVER_PLACED.value
    it.events.append(OrderClosed(ts_event_ns=1, intent_no=no, status=never, reason="believed"))


def reject(it: Evidence) -> None:
    no = it.one(OrderIntended).intent.intent_no
    it.events.append(OrderRejected(ts_event_ns=1, intent_no=no, code="X", reason="believed"))


def lose_at_venue(it: Evidence) -> None:
    it.orders.pop(0)


def place_twice(it: Evidence) -> None:
    it.orders.append(it.orders[0])


def send_twice(it: Evidence) -> None:
    it.entries.append(next(e for e in it.entries if e.kind == "sent"))


def noted(kind: str):
    def change(it: Evidence) -> None:
        it.entries.append(Entry(seq=1, time_ms=1, kind=kind, uid=0, body={"call": "GET /"}))

    return change


def deposit_more(it: Evidence) -> None:
    it.deposits["USDT"] += 1


def expect_more(it: Evidence) -> None:
    it.state.account.flows["USDT"] += 1


def differ(it: Evidence) -> None:
    it.state.account.differences = (
        Difference(
            kind=DifferenceKind.ORDER, name="x", ours=Decimal(0), venue=Decimal(1), reason="theirs"
        ),
    )


def told_open(it: Evidence) -> None:
    order = next(o for o in it.orders if not o.status.open)
    it.orders[it.orders.index(order)] = _reopened(order)


def _reopened(order: VenueOrder) -> VenueOrder:
    import copy

    from bot4_runtime.venue.orders import Status

    again = copy.copy(order)
    again.status = Status.NEW
    return again


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (forget(OrderFilled), "is not booked"),
        (forget(OrderIntended), "nobody intended it"),
        (book_twice, "was booked twice"),
        (book_another, "the venue knows none"),
        (book_at_another_price, "booked as"),
        (give_up, "here it is never_placed"),
        (reject, "here it is rejected"),
        (lose_at_venue, "is not at the venue"),
        (place_twice, "was placed twice"),
        (send_twice, "was sent 2 times"),
        (told_open, "is NEW at the venue"),
        (deposit_more, "its trades make"),
        (expect_more, "the journal expects"),
        (differ, "a difference that nobody made"),
        (noted("trespass"), "wanted silence"),
        (noted("over_weight"), "more weight"),
        (noted("over_inbound"), "more messages"),
        (noted("wrong_pong"), "a pong without"),
    ],
)
def test_what_was_falsified_is_a_violation(calm, change, word: str) -> None:
    it = calm()
    change(it)
    assert any(word in violation for violation in it.judged().violations)


def test_an_order_without_a_known_outcome_is_a_violation(calm) -> None:
    it = calm()
    order = next(iter(it.state.orders.values()))
    unknown = msgspec.structs.replace(order, status=OrderStatus.UNKNOWN)
    it.state.all_live_orders = lambda: [unknown]  # type: ignore[method-assign]
    assert any("is still unknown" in violation for violation in it.judged().violations)


def report(side: str, kind: str, status: str, filled: str, time_ms: int, number: int = 1) -> Entry:
    traded = kind == "TRADE"
    body = {"e": "executionReport", "s": "BTCUSDT", "S": side, "x": kind, "X": status, "i": number, "q": "1", "z": filled, "l": "1" if traded else "0", "n": "0", "N": "USDT" if traded else None}  # fmt: skip
    return Entry(seq=1, time_ms=time_ms, kind="report", uid=1, body=body)


def test_time_without_a_stop_is_from_the_fill_to_the_stop_and_from_its_end_on() -> None:
    rows = [
        report("BUY", "NEW", "NEW", "0", 0),
        report("BUY", "TRADE", "FILLED", "1", 1_000),
        report("SELL", "NEW", "NEW", "0", 1_500, 2),
        report("SELL", "CANCELED", "CANCELED", "0", 9_000, 2),
        report("SELL", "NEW", "NEW", "0", 9_100, 3),
        report("SELL", "TRADE", "FILLED", "1", 9_200, 3),
    ]
    least = {"BTCUSDT": Decimal("0.0002")}
    assert unprotected(rows, least) == (
        [Span("BTCUSDT", 1_000, 1_500), Span("BTCUSDT", 9_000, 9_100)],
        set(),
    )
    assert unprotected(rows[:2], least) == ([], {"BTCUSDT"})


def fault(time_ms: int, name: str, seconds: float = 0.0) -> Entry:
    body = {"fault": name, "call": "POST", "seconds": seconds}
    return Entry(seq=1, time_ms=time_ms, kind="fault", uid=0, body=body)


LISTENS = Entry(seq=1, time_ms=101_000, kind="listens", uid=0, body={})


@pytest.mark.parametrize(
    ("to_ms", "entries", "late"),
    [
        (61_000, [], False),
        (61_001, [], True),
        (71_000, [fault(11_000, "drop_reply")], False),
        (71_001, [fault(11_000, "drop_reply"), fault(80_000, "drop_reply")], True),
        (151_000, [fault(0, "banned", 91)], False),
        (151_001, [fault(0, "banned", 91)], True),
        (131_000, [fault(11_000, "forbidden")], False),
        (131_001, [fault(11_000, "forbidden")], True),
        (10**9, [fault(0, "key_revoked")], False),
        (10**9, [fault(0, "refuse_connect")], False),
        (161_000, [fault(0, "refuse_connect"), LISTENS], False),
        (161_001, [fault(0, "refuse_connect"), LISTENS], True),
    ],
)
def test_more_than_a_minute_without_a_stop_is_too_long_once_all_goes_well(
    to_ms: int, entries: list[Entry], *, late: bool
) -> None:
    span = Span("BTCUSDT", 1_000, to_ms)
    assert list(overdue([span], entries)) == ([span] if late else [])


def test_an_engine_that_had_no_turn_is_not_blamed() -> None:
    span = Span("BTCUSDT", 0, 900_000)
    assert list(overdue([span], [], range(0, 900_000, 200_000))) == []
    assert list(overdue([span], [], range(0, 900_000, 150_000))) == [span]


@pytest.mark.parametrize(
    ("looks", "late"),
    [
        ([], False),
        ([61_000, 62_000, 63_000, 64_000], False),
        ([64_000, 61_000, 63_000, 62_000, 65_000], True),
        ([1_000, 2_000, 60_999, 61_000, 62_000, 63_000, 64_000, 100_000], False),
    ],
)
def test_who_had_no_turns_is_not_late(looks: list[int], *, late: bool) -> None:
    """Five of them, from a minute on, in whatever order the venue's clock told them."""
    span = Span("BTCUSDT", 1_000, 100_000)
    assert list(overdue([span], [], looks)) == ([span] if late else [])


def test_dust_that_many_sales_leave_behind_wants_no_stop() -> None:
    rows = []
    for number in range(0, 400, 2):
        rows += [
            report("BUY", "TRADE", "FILLED", "1", number, number),
            report("SELL", "NEW", "NEW", "0", number, number + 1),
            report("SELL", "TRADE", "FILLED", "1", number + 1, number + 1),
        ]
        rows[-1].body["l"] = "0.99999"
    assert unprotected(rows, {"BTCUSDT": Decimal("0.0002")})[1] == set()


def verdict(**changed: object) -> Verdict:
    given = {"findings": Findings(intended=500, held=250, trades=1), "faults": Counter(drop_reply=20), "scheduled": frozenset({"drop_reply"}), "unprotected_s": [1.0], "unknown_s": [], "hours": 1.0, "seed": 1, "strategy": "drill", "simulated": "simulated:4"}  # fmt: skip
    return Verdict(**(given | changed))  # type: ignore[arg-type]


def test_only_many_orders_and_many_faults_without_a_violation_pass(tmp_path: Path) -> None:
    assert verdict().outcome is Outcome.PASSED
    for findings, word in (
        (Findings(intended=499, held=250, trades=1), "499 orders of 500 wanted"),
        (Findings(intended=500, held=249, trades=1), "249 orders held by the venue of 250 wanted"),
        (Findings(intended=500, held=250, trades=0), "0 trades of 1 wanted"),
    ):
        few = verdict(findings=findings)
        assert few.outcome is Outcome.INCONCLUSIVE
        assert word in few.text
    assert verdict(faults=Counter(drop_reply=19)).outcome is Outcome.INCONCLUSIVE
    bad = Findings(intended=1, violations=["it is not"])
    assert verdict(findings=bad, faults=Counter()).outcome is Outcome.VIOLATED
    broken = verdict(ended="RuntimeError: planted")
    assert broken.outcome is Outcome.VIOLATED
    assert "planted" in broken.text
    assert verdict().document()["recovery_s"] == {"count": 0, "sum": 0.0, "median": 0.0, "longest": 0.0}  # fmt: skip
    assert "Verdict: passed." in verdict().text


def test_a_fault_that_was_scheduled_and_never_happened_is_named() -> None:
    some = verdict(scheduled=frozenset({"drop_reply", "halted", "banned"}))
    assert some.document()["faults_that_never_happened"] == ["banned", "halted"]
    assert "Scheduled, and never happened: banned, halted." in some.text
    assert "never happened" not in verdict().text
