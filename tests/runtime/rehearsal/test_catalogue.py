"""Every row of the fault catalogue on a spot venue, one test each: what Bot4 must do about it.

Each is a short rehearsal of the real engine in the venue's time. Whatever the fault, both sides
must agree when it is over (`oracles`); what a row asks for besides is in its test.
"""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.domain.events import (
    OrderClosed,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
)
from bot4_runtime.domain.order import Book, OrderStatus, Purpose
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.rehearsal.stages import SpotClient, SpotLineClient
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.faults import EVENT, SUBSCRIBE, WS, Fault, FaultRule

HOUR_MS = 3_600_000
AT_7 = SIMULATED_START_MS + 7 * HOUR_MS
"""In the midst of trading."""
BEFORE_10 = SIMULATED_START_MS + round(9.9 * HOUR_MS)
"""An entry is wanted at ten."""
ORDER = "/api/v3/order"


def rule(fault: Fault, method: str = "", path: str = "", **more: object) -> FaultRule:
    return FaultRule(fault=fault, method=method, path=path, **({"times": 3} | more))


@pytest.fixture
def agreed(rehearse):
    """Rehearse with faults; they happened, nothing was violated; return what was told."""

    def run(*rules: FaultRule, hours: float = 22, least: int = 1, **options: object):
        verdict, made = rehearse(rules, hours, **options)
        assert verdict.ended == ""
        assert verdict.findings.violations == []
        assert verdict.faults.total() >= least, "the fault never happened"
        assert verdict.findings.held > 1
        with JournalReader.open(made._folder / "journal.sqlite") as journal:
            return verdict, made, [event for _, event in journal.events()]

    return run


def of(events, kind):
    return [event for event in events if type(event) is kind]


def at_10(events, kind):
    """Return the event of an order that was wanted at ten."""
    at_ns = (SIMULATED_START_MS + 10 * HOUR_MS) * 1_000_000
    (found,) = (event for event in of(events, kind) if event.ts_event_ns == at_ns)
    return found


def sent(made, from_ms=0, to_ms=1 << 62):
    return [e for e in made.venue_entries if e.kind == "sent" and from_ms <= e.time_ms < to_ms]


def calls(made, kind="request"):
    return Counter(entry.body["call"] for entry in made.venue_entries if entry.kind == kind)


# --------------------------------------------------------------------- N network and HTTP
def test_n1_a_request_reset_before_its_effect_is_unknown_then_never_placed(agreed) -> None:
    _, _, events = agreed(rule(Fault.DROP_REQUEST, "POST"))
    never = [e for e in of(events, OrderClosed) if e.status == OrderStatus.NEVER_PLACED.value]
    assert len(of(events, OrderOutcomeUnknown)) == 3
    assert len(never) == 3


def test_n1_an_order_nobody_listens_for_was_not_sent(agreed) -> None:
    _, _, events = agreed(
        rule(Fault.REFUSE_CONNECT, "GET", "/api/v3/account", from_ms=AT_7, times=4, seconds=0.2)
    )
    assert of(events, OrderOutcomeUnknown) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault.DROP_REPLY,  # N2
        Fault.DELAY_REPLY,  # N3
        Fault.ERROR_AFTER,
        Fault.PAGE_AFTER,
        Fault.GATEWAY_AFTER,
        Fault.TIMEOUT_AFTER,  # N4
        Fault.TRUNCATED,
        Fault.NOT_JSON,
        Fault.WRONG_TYPE,  # N6
    ],
)
def test_n2_n3_n4_n6_an_order_without_its_answer_is_unknown_and_there_once(agreed, fault) -> None:
    _, _, events = agreed(rule(fault, "POST", seconds=0.4))
    assert len(of(events, OrderOutcomeUnknown)) == 3
    closed = [e for e in of(events, OrderClosed) if e.status == OrderStatus.NEVER_PLACED.value]
    assert closed == [], "it was taken, and must not be given up"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.DROP_REPLY,
        Fault.DELAY_REPLY,
        Fault.ERROR_AFTER,
        Fault.TRUNCATED,
        Fault.NOT_JSON,
        Fault.WRONG_TYPE,
    ],
)
def test_n2_n3_n4_n6_an_order_over_the_line_without_its_reply_is_there_once(agreed, fault) -> None:
    verdict, _, events = agreed(
        rule(fault, WS, "order.place", seconds=0.4), client=SpotLineClient, least=3
    )
    assert len(of(events, OrderOutcomeUnknown)) == 3
    assert verdict.findings.duplicates == 0


@pytest.mark.parametrize("fault", [Fault.DROP_REQUEST, Fault.DELAY_REQUEST, Fault.ERROR_BEFORE])
def test_n1_n4_n11_an_order_over_the_line_that_never_got_there_is_not_sent_again(
    agreed, fault
) -> None:
    verdict, _, events = agreed(
        rule(fault, WS, "order.place", seconds=0.4), client=SpotLineClient, least=3
    )
    assert len(of(events, OrderOutcomeUnknown)) == 3
    assert verdict.findings.duplicates == 0


def test_n4_an_error_before_the_effect_is_unknown_until_the_venue_never_knew_it(agreed) -> None:
    _, _, events = agreed(rule(Fault.ERROR_BEFORE, "POST"))
    assert len(of(events, OrderOutcomeUnknown)) == 3
    closed = [e for e in of(events, OrderClosed) if e.status == OrderStatus.NEVER_PLACED.value]
    assert len(closed) == 3


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.NOT_JSON, Fault.WRONG_TYPE])
def test_n6_half_an_account_is_never_an_empty_one(agreed, fault) -> None:
    verdict, _, _ = agreed(rule(fault, "GET", probability=0.3, times=40))
    assert verdict.faults[fault] > 20


@pytest.mark.parametrize(
    ("fault", "method"),
    [(Fault.RATE_LIMITED, "GET"), (Fault.RATE_LIMITED, "POST"), (Fault.BANNED, "GET")],
)
def test_n7_n8_a_venue_that_wants_silence_has_it_whole(agreed, fault, method) -> None:
    _, made, _ = agreed(
        rule(fault, method, from_ms=AT_7, times=2, seconds=120),
        rule(Fault.EVENT_CUT, EVENT, from_ms=AT_7, probability=0.3),
        hours=40,
    )
    assert "trespass" not in {entry.kind for entry in made.venue_entries}


def test_n7_a_limit_of_orders_stops_new_orders_alone(agreed) -> None:
    _, made, events = agreed(rule(Fault.ORDER_LIMIT, "POST", times=2, seconds=120))
    unsent = [e for e in of(events, OrderClosed) if "-1015" in e.reason]
    assert len(unsent) == 2
    assert {e.status for e in unsent} == {OrderStatus.NEVER_PLACED.value}
    assert of(events, OrderRejected) == [], "a limit is no verdict on an order"
    limited = [entry.time_ms for entry in made.venue_entries if entry.kind == "fault"]
    asked = {
        entry.body["call"]
        for entry in made.venue_entries
        if entry.kind == "request" and any(0 < entry.time_ms - at <= 120_000 for at in limited)
    }
    assert "GET /api/v3/account" in asked
    assert f"POST {ORDER}" not in asked


def test_n7_a_limit_of_orders_over_the_line_stops_new_orders_alone(agreed) -> None:
    limit = rule(Fault.ORDER_LIMIT, WS, "order.place", times=2, seconds=20)
    _, _, events = agreed(limit, client=SpotLineClient)
    unsent = [e for e in of(events, OrderClosed) if "-1015" in e.reason]
    assert {e.status for e in unsent} == {OrderStatus.NEVER_PLACED.value}
    assert len(unsent) == 2
    assert of(events, OrderRejected) == []


@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.BANNED])
@pytest.mark.parametrize("asked", ["order.place", "order.cancel"])
def test_n7_n8_a_venue_that_wants_silence_says_so_over_the_line_and_has_it(
    agreed, fault, asked
) -> None:
    silence = rule(fault, WS, asked, times=2, seconds=120)
    _, made, _ = agreed(silence, client=SpotLineClient, hours=40)
    assert calls(made, "fault")[asked] == 2


def test_n9_an_order_that_a_firewall_turns_away_was_not_sent(agreed) -> None:
    _, made, events = agreed(rule(Fault.FORBIDDEN, "POST", from_ms=BEFORE_10, times=1))
    assert of(events, OrderOutcomeUnknown) == []
    unsent = at_10(events, OrderClosed)
    assert unsent.status == OrderStatus.NEVER_PLACED.value
    assert "403" in unsent.reason
    assert sent(made, BEFORE_10 + HOUR_MS), "the next one goes"


FOREIGN = rule(Fault.FOREIGN_WEIGHT, "GET", times=40, probability=0.1)


def test_n10_weight_that_others_use_is_left_to_them(agreed) -> None:
    agreed(FOREIGN, hours=40)


class CountsNothing(SpotClient):
    """Asks on, whatever others used."""

    def __init__(self, server, clock, lease, symbols):
        super().__init__(server, clock, lease, symbols)
        self._http._budget = Uncounted(None, clock_ms=self._http._budget.clock_ms)


class Uncounted(RequestBudget):
    def take(self, lane, weight=1, *, account="", orders=0):
        return 0


def test_n10_a_client_that_counts_nothing_is_caught(rehearse) -> None:
    verdict, _ = rehearse([FOREIGN], 40, client=CountsNothing)
    assert any("more weight" in violation for violation in verdict.findings.violations)


def test_n11_slow_answers_are_waited_for_and_slow_effects_are_unknown(agreed) -> None:
    agreed(
        rule(Fault.DELAY_REPLY, seconds=0.2, jitter=True, probability=0.05, times=20),
        rule(Fault.DELAY_REQUEST, "POST", seconds=0.4, times=3, after=2),
    )


def test_n12_a_refused_location_holds_entries_and_says_so(agreed) -> None:
    _, made, events = agreed(rule(Fault.RESTRICTED, "GET", from_ms=BEFORE_10, times=10))
    assert "451" in at_10(events, OrderRejected).reason
    assert sent(made, BEFORE_10, BEFORE_10 + HOUR_MS) == []
    assert sent(made, BEFORE_10 + HOUR_MS), "served again, it trades again"


# -------------------------------------------------------------------- A identity and time
@pytest.mark.parametrize("seconds", [2, -2, 30, -30])
def test_a1_a_clock_that_jumps_is_asked_again_and_nothing_is_sent_twice(agreed, seconds) -> None:
    agreed(
        rule(Fault.CLOCK_STEP, "GET", ORDER, from_ms=AT_7, times=1, seconds=seconds),
        rule(Fault.CLOCK_STEP, "GET", from_ms=AT_7 + 8 * HOUR_MS, times=1, seconds=-seconds),
    )


def test_a1_a_clock_that_drifts_is_followed(agreed) -> None:
    agreed(rule(Fault.CLOCK_STEP, "GET", "/api/v3/account", times=40, seconds=0.15), least=20)


def test_a2_a_revoked_key_stops_trading_and_a_restored_one_goes_on(agreed) -> None:
    lost = {"from_ms": BEFORE_10, "times": 1, "seconds": 2 * 3600}
    _, made, events = agreed(rule(Fault.KEY_REVOKED, "GET", "/api/v3/account", **lost))
    assert calls(made, "revoked")["SUBSCRIBE"] > 0
    assert calls(made, "revoked")[f"POST {ORDER}"] == 0
    assert "-2015" in at_10(events, OrderRejected).reason
    assert sent(made, BEFORE_10, BEFORE_10 + 2 * HOUR_MS) == []
    assert sent(made, BEFORE_10 + 2 * HOUR_MS), "restored, it trades again"


# ---------------------------------------------------------------------------- S streams
def test_s2_a_stream_that_brings_no_report_of_an_answered_order_is_opened_anew(agreed) -> None:
    _, made, _ = agreed(rule(Fault.EVENT_STALL, EVENT, "executionReport", times=2))
    assert calls(made, "fault")["EVENT executionReport"] == 2
    assert made.venue_entries[-1].seq > 0
    assert made.stream_counts["deaf"] >= 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault.EVENT_CUT,  # S1
        Fault.EVENT_STALL,  # S2
        Fault.LINE_CLOSED,
        Fault.EVENT_TWICE,
        Fault.REPLAYED,  # S6
        Fault.EVENT_LATE,  # S7
        Fault.EVENT_LOST,  # S8
        Fault.TERMINATED,  # S11
        Fault.MALFORMED,
        Fault.UNKNOWN_EVENT,
        Fault.NEW_WORD,
        Fault.FOREIGN_SYMBOL,
        Fault.MICROSECONDS,  # S12
        Fault.UNWRAPPED,
        Fault.ERROR_FRAME,  # S14
    ],
)
def test_s_rows_whatever_the_stream_does_both_sides_agree_and_stops_stand(agreed, fault) -> None:
    verdict, _, _ = agreed(rule(fault, EVENT, "executionReport", probability=0.4, times=6))
    assert verdict.faults[fault] >= 3
    assert max(verdict.unprotected_s, default=0) <= 60, "no stop within a minute"


def test_s3_a_line_without_any_frame_is_dead_and_replaced(agreed) -> None:
    agreed(rule(Fault.LINE_DEAD, EVENT, "executionReport", times=1, after=4))


def test_s4_a_burst_of_pings_is_answered_within_the_limit(agreed) -> None:
    agreed(rule(Fault.PING_BURST, EVENT, "executionReport", times=2, after=2))


def test_s5_a_server_that_goes_away_is_left_when_another_line_stands(agreed) -> None:
    _, made, _ = agreed(rule(Fault.SHUTDOWN, EVENT, "executionReport", times=3, seconds=0.3))
    assert made.stream_counts["handovers"] >= 1


def test_s6_events_that_come_again_after_a_reconnect_change_nothing(agreed) -> None:
    agreed(
        rule(Fault.LINE_CLOSED, EVENT, "executionReport", times=4, probability=0.5),
        rule(Fault.REPLAYED, SUBSCRIBE, times=None),
        least=4,
    )


def test_s9_an_event_may_come_before_with_or_long_after_its_answer(agreed) -> None:
    agreed(
        rule(Fault.DELAY_REPLY, "POST", seconds=0.1, times=4, probability=0.5),
        rule(Fault.EVENT_DELAYED, EVENT, seconds=0.1, times=8, probability=0.5),
        least=4,
    )


def test_s11_a_refused_subscription_is_tried_again_until_it_stands(agreed) -> None:
    agreed(rule(Fault.SUBSCRIPTION_REFUSED, SUBSCRIBE, times=2), least=2)


def test_s12_ten_megabytes_are_no_end(agreed) -> None:
    agreed(rule(Fault.HUGE_FRAME, EVENT, "executionReport", times=2, after=2))


# ----------------------------------------------------------------------------- O orders
def test_o1_partial_fills_with_fees_in_bnb_until_it_runs_out_are_booked_exactly(agreed) -> None:
    thin = Depth(level_quantity=Decimal("0.004"))
    _, _, events = agreed(
        rule(Fault.EVENT_LOST, EVENT, "executionReport", times=5, probability=0.3),
        depth=thin,
        bnb=Decimal("0.003"),
    )
    fees = {fill.fee_asset for fill in (e.fill for e in of(events, OrderFilled))}
    assert "BNB" in fees
    assert len(fees) > 1, "it did not run out"
    by_order = Counter(e.fill.intent_no for e in of(events, OrderFilled))
    assert max(by_order.values()) > 1, "nothing filled in parts"


class StopsBnbLate(SpotClient):
    """Every other stop of BNB is turned away, so that others' commissions come before it."""

    late = 0

    def submit(self, intent, client_id, cash_free):
        if intent.symbol == "BNBUSDT" and intent.purpose is Purpose.STOP:
            self.late += 1
            if self.late % 2:
                raise VenueUnreachable("turned away")
        return super().submit(intent, client_id, cash_free)


@pytest.mark.parametrize(
    ("bnb", "fees"),
    [
        ("0", {"BNB", "BTC", "ETH", "USDT"}),
        ("0.03", {"BNB", "USDT"}),
        ("9", {"BNB"}),
    ],
    ids=["in what is received", "in BNB until it runs out", "in BNB"],
)
@pytest.mark.parametrize("client", [SpotLineClient, StopsBnbLate])
def test_o1_no_order_asks_for_more_than_is_there_while_bnb_pays_and_is_traded(
    agreed, monkeypatch, bnb, fees, client
) -> None:
    """All enter at one close: the commissions of the others come out of the BNB just bought.

    They are so high here that they come to more than a step of it.
    """
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def dear(made):
        account = made.made_venue.exchange.account("rehearsal")
        account.maker = account.taker = Decimal("0.004")

    verdict, made, events = agreed(
        strategy="together_strategy:Together",
        symbols=("BNBUSDT", "BTCUSDT", "ETHUSDT"),
        bnb=Decimal(bnb),
        prepare=dear,
        client=client,
        hours=60,
        least=0,
    )
    assert [event.reason for event in of(events, OrderRejected)] == []
    found = {event.fill.fee_asset for event in of(events, OrderFilled)}
    assert found >= fees
    assert (found == {"BNB"}) == (fees == {"BNB"})
    assert max(verdict.unprotected_s) <= 60, "no stop within a minute"
    account = made.made_venue.exchange.account("rehearsal")
    stops = Counter()
    for order in made.made_venue.exchange.orders(account):
        if order.status.open:
            stops[order.symbol] += order.left
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        state = journal.state(made._folder / "snapshots")
    for symbol, position in state.books[Book.VALIDATED].positions.items():
        step = made.stage.instruments[symbol][0].step_size
        there = min(position.quantity, account.balance(symbol.removesuffix("USDT")).total)
        assert stops[symbol] == there // step * step, "a stop covers what is there, to the step"


OVER = {"http": ("POST", "", SpotClient), "line": (WS, "order.place", SpotLineClient)}
BOTH = pytest.mark.parametrize(("method", "path", "client"), OVER.values(), ids=OVER)
"""Orders over HTTP, and over the WebSocket API."""


@BOTH
@pytest.mark.parametrize("fault", [Fault.ORDER_EXPIRED, Fault.ORDER_PULLED])
def test_o2_an_order_that_the_venue_ends_is_ended_here_and_a_stop_is_put_back(
    agreed, fault, method, path, client
) -> None:
    verdict, _, events = agreed(rule(fault, method, path, times=5, probability=0.5), client=client)
    assert max(verdict.unprotected_s, default=0) <= 60, "a stop that was ended is put back"
    statuses = {e.status for e in of(events, OrderClosed)}
    assert ("expired" if fault is Fault.ORDER_EXPIRED else "canceled") in statuses


@BOTH
def test_o3_a_halted_symbol_rejects_and_is_traded_again_later(
    agreed, method, path, client
) -> None:
    _, _, events = agreed(rule(Fault.HALTED, method, path, times=2, seconds=1800), client=client)
    assert [e.reason for e in of(events, OrderRejected)][:1] == ["Market is closed."]


@BOTH
def test_o4_an_order_that_comes_too_late_for_the_money_is_rejected(
    agreed, method, path, client
) -> None:
    _, _, events = agreed(rule(Fault.FUNDS_TAKEN, method, path, times=2), client=client)
    assert {e.code for e in of(events, OrderRejected)} == {"-2010"}


def test_o6_no_client_id_is_ever_sent_twice_whatever_happens_to_answers(agreed) -> None:
    verdict, made, _ = agreed(
        rule(Fault.DROP_REPLY, "POST", probability=0.3, times=6),
        rule(Fault.DROP_REQUEST, "POST", probability=0.3, times=6),
    )
    assert verdict.findings.duplicates == 0
    assert calls(made)[f"POST {ORDER}"] <= verdict.findings.intended
