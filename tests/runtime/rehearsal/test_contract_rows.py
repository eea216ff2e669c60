"""Rows of the fault catalogue that perpetuals alone know: HTTP 503 in its variants, margin, stops.

Each is a short rehearsal of the real engine at the USD-M venue, in its time. Both sides must agree
when it is over; what a row asks for besides is in its test.
"""

from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import (
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    Reconciled,
)
from bot4_runtime.domain.order import OrderStatus, Purpose, Side
from bot4_runtime.rehearsal.stages import ContractClient, ContractLineClient
from bot4_runtime.sources import SIMULATED_START_MS
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue.faults import EVENT, WS, Fault, FaultRule
from bot4_runtime.venue.futures_orders import FuturesRequest

HOUR_MS = 3_600_000
ORDER, ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"
COUNTDOWN = "/fapi/v1/countdownCancelAll"
PLACES = {ORDER: "order.place", ALGO: "algoOrder.place"}
WAYS = {"REST": ContractClient, "line": ContractLineClient}
NEVER = OrderStatus.NEVER_PLACED.value


@pytest.fixture
def agreed(rehearse, monkeypatch):
    """Rehearse perpetuals with faults; they happened, nothing was violated; return what was told."""  # fmt: skip

    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def run(*rules, hours=22, least=1, **options):
        verdict, made = rehearse(rules, hours, market="usdm", **options)
        assert verdict.ended == ""
        assert verdict.findings.violations == []
        assert verdict.faults.total() >= least, "the fault never happened"
        assert verdict.findings.held > 1
        assert verdict.market is Market.USDM
        with JournalReader.open(made._folder / "journal.sqlite") as journal:
            return verdict, made, [event for _, event in journal.events()]

    return run


def hit(fault, path, way, **more):
    """A rule that hits new orders of a kind, whichever way they go."""
    more = {"times": 3} | more
    if way == "line":
        return FaultRule(fault=fault, method=WS, path=PLACES[path], **more)
    return FaultRule(fault=fault, method="POST", path=path, **more)


def of(events, kind):
    return [event for event in events if type(event) is kind]


def purposes(events):
    return {e.intent.intent_no: e.intent.purpose for e in of(events, OrderIntended)}


def never(events):
    return [event for event in of(events, OrderClosed) if event.status == NEVER]


def filled(events, purpose, from_ms=0):
    meant = purposes(events)
    return [
        event.fill
        for event in of(events, OrderFilled)
        if meant.get(event.fill.intent_no) is purpose
        and event.fill.ts_event_ns >= from_ms * 1_000_000
    ]


# ------------------------------------------------------------------------------------ N5
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", [ORDER, ALGO], ids=["orders", "stops"])
def test_n5_unknown_error_leaves_an_order_unknown_and_it_is_there_once(agreed, way, path):
    rule = hit(Fault.UNKNOWN_AFTER, path, way)
    verdict, _, events = agreed(rule, client=WAYS[way], least=3)
    assert len(of(events, OrderOutcomeUnknown)) == 3
    assert never(events) == [], "it was taken, and must not be given up"
    assert verdict.findings.held == verdict.findings.intended


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", [ORDER, ALGO], ids=["orders", "stops"])
def test_n5_unknown_error_without_effect_is_unknown_until_the_venue_never_knew_it(agreed, way, path):  # fmt: skip
    rule = hit(Fault.UNKNOWN_BEFORE, path, way)
    verdict, _, events = agreed(rule, client=WAYS[way], least=3)
    unknown = [event.intent_no for event in of(events, OrderOutcomeUnknown)]
    assert [event.intent_no for event in never(events)] == unknown
    assert len(unknown) == 3
    assert verdict.findings.held == verdict.findings.intended - 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", [ORDER, ALGO], ids=["orders", "stops"])
@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.INTERNAL_ERROR])
def test_n5_what_the_venue_says_it_did_not_do_was_not_sent(agreed, way, path, fault):
    verdict, _, events = agreed(hit(fault, path, way), client=WAYS[way], least=3)
    assert of(events, OrderOutcomeUnknown) == []
    assert len(never(events)) == 3
    assert of(events, OrderRejected) == [], "it is no verdict on an order"
    assert verdict.findings.held == verdict.findings.intended - 3


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        (Fault.UNKNOWN_BEFORE, "REST"),
        (Fault.UNKNOWN_AFTER, "line"),
        (Fault.UNAVAILABLE, "REST"),
        (Fault.INTERNAL_ERROR, "line"),
    ],
)
def test_n5_an_exit_is_repeated_until_it_sold_and_sells_once(agreed, way, fault):
    """It leaves at four what it entered at one, and enters again at five."""
    at_ms = SIMULATED_START_MS + 4 * HOUR_MS
    rule = hit(fault, ORDER, way, from_ms=at_ms, to_ms=at_ms + HOUR_MS // 2, times=2)
    verdict, made, events = agreed(
        rule, client=WAYS[way], hours=12, strategy="swinging_strategy:Swinging"
    )
    meant = purposes(events)
    struck = {e.intent_no for e in [*never(events), *of(events, OrderOutcomeUnknown)]}
    assert {meant[number] for number in struck} == {Purpose.EXIT}
    assert filled(events, Purpose.EXIT)
    assert list(made.made_venue.exchange.account("rehearsal").positions()) == []
    assert verdict.findings.duplicates == 0


@pytest.mark.parametrize("way", WAYS)
def test_n5_throttling_turns_entries_away_and_lets_exits_and_stops_through(agreed, way):
    from_ms = SIMULATED_START_MS + 12 * HOUR_MS
    rules = [hit(Fault.THROTTLED, path, way, from_ms=from_ms, times=None) for path in PLACES]
    _, _, events = agreed(*rules, client=WAYS[way], hours=30)
    meant = purposes(events)
    assert {meant[event.intent_no] for event in never(events)} == {Purpose.ENTRY}
    assert all("-1008" in event.reason for event in never(events))
    assert of(events, OrderOutcomeUnknown) == []
    assert filled(events, Purpose.ENTRY, from_ms + HOUR_MS) == []
    assert filled(events, Purpose.EXIT, from_ms)


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.INTERNAL_ERROR, Fault.UNKNOWN_AFTER])
def test_n5_a_cancel_that_fails_is_repeated_and_a_reading_that_fails_is_no_empty_one(agreed, fault):  # fmt: skip
    verdict, _, _ = agreed(
        FaultRule(fault=fault, method="DELETE", times=4),
        FaultRule(fault=fault, method="GET", probability=0.1, times=40),
        least=20,
    )
    assert verdict.findings.trades > 2


# ----------------------------------------------------------------- O7, M1, M2 and what lasts
def through_stop(made):
    """Let the price fall through the first stop that waits, between two candles."""
    fallen = []

    def crash(_number, _candle):
        account = made.made_venue.exchange.account("rehearsal")
        waiting = made.made_venue.algos.open(account, None)
        if waiting and not fallen:
            fallen.append(waiting[0].client_id)
            tick = made.stage.instruments[waiting[0].symbol][0].tick_size
            low = waiting[0].request.trigger - tick
            made.made_venue.trade(waiting[0].symbol, low, Decimal(1))

    made._on_progress = lambda *told: made.server.do(lambda: crash(*told))
    return fallen


def test_o7_a_stop_that_is_refused_at_its_trigger_does_not_leave_the_position_held(agreed):
    fallen = []
    rule = FaultRule(fault=Fault.TRIGGER_REFUSED, method="POST", path=ALGO, times=1)
    _, _, events = agreed(rule, hours=30, prepare=lambda made: fallen.append(through_stop(made)))
    (name,) = fallen[0]
    intent = next(e.intent for e in of(events, OrderIntended) if e.client_id == name)
    (refused,) = (e for e in of(events, OrderRejected) if e.intent_no == intent.intent_no)
    since_ms = refused.ts_event_ns // 1_000_000
    later = filled(events, Purpose.EXIT, since_ms) + filled(events, Purpose.STOP, since_ms)
    assert [fill for fill in later if fill.symbol == intent.symbol]


def test_m1_funding_moves_the_wallet_and_no_position(agreed):
    verdict, made, events = agreed(
        FaultRule(fault=Fault.FUNDED, method="POST", path=ALGO, times=4), hours=40
    )
    account = made.made_venue.exchange.account("rehearsal")
    paid = [row for row in account.incomes if row.kind == "FUNDING_FEE"]
    assert verdict.faults[Fault.FUNDED] == 4
    assert min(row.amount for row in paid) < 0
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        state = journal.state(made._folder / "snapshots")
    assert state.account.differences == ()
    assert filled(events, Purpose.EXIT)


@pytest.mark.parametrize("seed", [2, 3], ids=["stops stay", "stops go too"])
def test_m2_a_countdown_that_goes_off_ends_entries_and_leaves_what_is_held_stopped(agreed, seed):
    """Odd seeds have a venue whose countdowns end conditional orders too."""
    rule = FaultRule(fault=Fault.COUNTDOWN, method="POST", path=COUNTDOWN, probability=0.5)
    verdict, made, events = agreed(rule, hours=60, seed=seed)
    meant = purposes(events)
    canceled = {e.intent_no for e in of(events, OrderClosed) if e.status == "canceled"}
    assert verdict.faults[Fault.COUNTDOWN] > 2
    assert Purpose.ENTRY in {meant[number] for number in canceled}
    assert filled(events, Purpose.ENTRY), "it goes on"
    assert made.made_venue.calendar.next_ms() is not None


@pytest.mark.parametrize("limit", [Fault.RATE_LIMITED, Fault.BANNED])
@pytest.mark.parametrize("way", WAYS)
def test_n7_n8_silence_that_the_venue_of_contracts_wants_is_kept(agreed, limit, way):
    rules = [
        hit(limit, ORDER, way, times=2, seconds=120),
        FaultRule(fault=limit, method="GET", after=60, times=2, seconds=120),
    ]
    verdict, made, _ = agreed(*rules, client=WAYS[way], hours=40, least=3)
    assert verdict.findings.limits_exceeded == 0
    assert "trespass" not in {entry.kind for entry in made.venue_entries}


@pytest.mark.parametrize("way", WAYS)
def test_n7_a_limit_of_orders_of_contracts_stops_new_orders_alone(agreed, way):
    _, _, events = agreed(
        hit(Fault.ORDER_LIMIT, ORDER, way, times=2, seconds=20), client=WAYS[way], least=2
    )
    assert len([event for event in never(events) if "-1015" in event.reason]) == 2
    assert of(events, OrderRejected) == []


def test_a2_a_revoked_key_of_contracts_stops_trading_and_a_restored_one_goes_on(agreed):
    at_ms = SIMULATED_START_MS + 7 * HOUR_MS
    rule = FaultRule(fault=Fault.KEY_REVOKED, method="GET", from_ms=at_ms, times=1, seconds=7_200)
    _, _, events = agreed(rule, hours=50)
    assert filled(events, Purpose.ENTRY, at_ms + 3 * HOUR_MS)


@pytest.mark.parametrize(
    ("fault", "way"), [(Fault.ORDER_EXPIRED, "REST"), (Fault.ORDER_PULLED, "line")]
)
@pytest.mark.parametrize("path", [ORDER, ALGO], ids=["orders", "stops"])
def test_o2_what_the_venue_of_contracts_ends_is_ended_here_and_a_stop_is_put_back(agreed, fault, way, path):  # fmt: skip
    verdict, _, events = agreed(
        hit(fault, path, way, times=4), client=WAYS[way], hours=40, least=4
    )
    assert verdict.faults[fault] == 4
    if path == ALGO:
        stops = [no for no, purpose in purposes(events).items() if purpose is Purpose.STOP]
        ended = {e.intent_no for e in of(events, OrderClosed)} & set(stops)
        assert len(ended) >= 4
        assert all(any(number > gone for number in stops) for gone in sorted(ended)[:4])


@pytest.mark.parametrize("way", WAYS)
def test_o4_an_order_that_comes_too_late_for_the_margin_is_rejected(agreed, way):
    _, _, events = agreed(hit(Fault.FUNDS_TAKEN, ORDER, way), client=WAYS[way])
    assert {event.code for event in of(events, OrderRejected)} == {"-2019"}


@pytest.mark.parametrize(
    "fault",
    [
        Fault.EVENT_LOST,
        Fault.EVENT_TWICE,
        Fault.EVENT_LATE,
        Fault.EVENT_CUT,
        Fault.EVENT_STALL,
        Fault.TERMINATED,
        Fault.LINE_CLOSED,
        Fault.SHUTDOWN,
        Fault.LINE_DEAD,
        Fault.PING_BURST,
        Fault.REPLAYED,
        Fault.EVENT_DELAYED,
        Fault.MALFORMED,
        Fault.UNKNOWN_EVENT,
        Fault.NEW_WORD,
        Fault.FOREIGN_SYMBOL,
        Fault.ERROR_FRAME,
    ],
)
def test_s_rows_of_contracts_whatever_the_stream_does_both_sides_agree_and_stops_stand(agreed, fault):  # fmt: skip
    rule = FaultRule(fault=fault, method=EVENT, probability=0.2, times=25, seconds=0.1)
    verdict, _, events = agreed(rule, hours=26, least=5)
    assert verdict.findings.trades > 2
    assert filled(events, Purpose.EXIT)


def test_s12_ten_megabytes_on_the_stream_of_contracts_are_no_end(agreed):
    rule = FaultRule(fault=Fault.HUGE_FRAME, method=EVENT, after=3, times=2)
    verdict, _, _ = agreed(rule, least=2)
    assert verdict.findings.trades > 2


def test_n10_weight_that_others_use_at_the_venue_of_contracts_is_left_to_them(agreed):
    rule = FaultRule(fault=Fault.FOREIGN_WEIGHT, method="GET", after=60, probability=0.05, times=8)
    verdict, made, _ = agreed(rule, hours=40, least=4)
    assert verdict.findings.limits_exceeded == 0
    assert "over_weight" not in {entry.kind for entry in made.venue_entries}


# ------------------------------------------------------------------- closed by the venue
@pytest.mark.parametrize("scripted", ["liquidation", "adl"])
def test_m1_what_the_venue_closes_is_booked_counted_and_holds_entries(agreed, scripted):
    done = []

    def prepare(made):
        venue = made.made_venue
        other = venue.open_account(2, "other", "other", [("USDT", Decimal(500))])

        def close(_number, _candle):
            account = venue.exchange.account("rehearsal")
            held = list(account.positions())
            if not held or done:
                return
            symbol = held[0].symbol
            last = venue.exchange.market(symbol).book.last
            done.append(symbol)
            if scripted == "liquidation":
                venue.set_mark(symbol, last / 2)
                venue.set_mark(symbol, None)
            else:  # a short goes bankrupt, and nobody but who gained by it can take it over
                venue.exchange.insurance["USDT"] = Decimal(0)
                short_of(venue, other, symbol, held[0].quantity)
                venue.trade(symbol, last * 3, Decimal(1))
                venue.trade(symbol, last, Decimal(1))

        made._on_progress = lambda *told: made.server.do(lambda: close(*told))

    verdict, made, events = agreed(least=0, hours=40, prepare=prepare)
    assert done
    assert verdict.findings.closed_by_venue >= 1
    assert f"closed by the venue itself: {verdict.findings.closed_by_venue}" in verdict.text
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        state = journal.state(made._folder / "snapshots")
    assert [d.name for d in state.account.differences]
    assert any(event.fill.intent_no == 0 for event in of(events, OrderFilled))
    told = next(event for event in of(events, Reconciled) if event.differences)
    assert filled(events, Purpose.ENTRY, told.ts_event_ns // 1_000_000 + 1) == []


def short_of(venue, account, symbol, quantity):
    """Sell short as much as is held on the other side."""
    account.settings(symbol).leverage = 20
    asked = FuturesRequest(symbol=symbol, side=Side.SELL, quantity=quantity)
    venue.exchange.place(account, asked)
