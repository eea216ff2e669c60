"""The user stream brings every report, or says that it missed some."""

import time
from contextlib import contextmanager
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Liquidity, OrderStatus
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.messages import ExecutionReport
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock
from bot4_runtime.exchange.binance.spot import BinanceSpot
from bot4_runtime.exchange.binance.user_stream import UserStream
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.rules import SymbolRules

SYMBOL = "BTCUSDT"


def until(wanted, seconds=5.0):
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


@pytest.fixture
def venue():
    rules = SymbolRules.of(Instrument.assume(SYMBOL, Market.SPOT, 40_000.0))
    made = Loopback(LiveClock(), [(rules, Decimal(40_000))])
    made.open_account(1, "key", "secret", [("USDT", Decimal(100_000)), ("BTC", Decimal(1))])
    return made


@contextmanager
def following(server, secret="secret", **options):
    stream = UserStream(
        f"ws://127.0.0.1:{server.port}/ws-api/v3",
        Signer(Secret("key"), Secret(secret)),
        VenueClock(LiveClock()),
        **options,
    )
    stream.start()
    try:
        yield stream
    finally:
        stream.close()
        stream.close()


class Wire:
    """Places orders over REST, so that the venue's own thread does the work."""

    def __init__(self, server):
        self.client = BinanceSpot(f"http://127.0.0.1:{server.port}", None, Signer(Secret("key"), Secret("secret")), LiveClock())  # fmt: skip

    def buy(self, name, **more):
        fields = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01", "newClientOrderId": name} | more  # fmt: skip
        self.client._http.post("/api/v3/order", self.client._signed(fields), self.client._headers)

    def cancel(self, name):
        fields = {"symbol": SYMBOL, "origClientOrderId": name}
        self.client._http.delete(
            "/api/v3/order", self.client._signed(fields), self.client._headers
        )

    def close(self):
        self.client.close()


@contextmanager
def wired(venue, **options):
    with hosted(venue) as server, following(server, **options) as stream:
        wire = Wire(server)
        until(lambda: stream._connected)
        try:
            yield stream, wire
        finally:
            wire.close()


def collected(stream, number):
    found = []

    def enough():
        found.extend(stream.poll())
        return len(found) >= number

    until(enough)
    return found


def test_reports_come_with_the_trades_that_caused_them(venue):
    with wired(venue) as (stream, wire):
        assert (stream.alive(), stream.alive()) == (False, True), "the start is a gap, told once"
        wire.buy("mine")
        new, filled = collected(stream, 2)
        assert (new.order.status, new.trade) == (OrderStatus.ACCEPTED, None)
        assert (filled.order.status, filled.order.filled) == (OrderStatus.FILLED, Decimal("0.01"))
        trade = filled.trade
        assert (trade.trade_id, trade.price, trade.liquidity) == (1, Decimal("40000.1"), Liquidity.TAKER)  # fmt: skip
        assert (trade.fee, trade.fee_asset) == (Decimal("0.00001"), "BTC")
        assert stream.poll() == []
        until(lambda: stream.counts["outboundAccountPosition"] == 2)


def test_a_cancelled_order_keeps_its_own_name(venue):
    with wired(venue) as (stream, wire):
        wire.buy("mine", type="LIMIT", timeInForce="GTC", price="39000")
        wire.cancel("mine")
        _new, gone = collected(stream, 2)
        assert (gone.order.client_id, gone.order.status) == ("mine", OrderStatus.CANCELED)


def test_o2_every_end_that_the_venue_tells_is_an_end_here(venue):
    limit = {"type": "LIMIT", "price": "40000.0", "timeInForce": "GTC"}
    with wired(venue) as (stream, wire):
        wire.buy("at-once", **limit | {"timeInForce": "IOC", "price": "39000"})
        wire.buy("whole", **limit | {"timeInForce": "FOK", "price": "39000"})
        wire.buy("own", side="SELL", **limit)
        wire.buy("met-own", **limit)
        wire.cancel("met-own")
        last = {told.order.client_id: told.order.status for told in collected(stream, 8)}
        assert last == {
            "at-once": OrderStatus.EXPIRED,
            "whole": OrderStatus.EXPIRED,
            "own": OrderStatus.EXPIRED,
            "met-own": OrderStatus.CANCELED,
        }
        assert wire.client.query(SYMBOL, "own").status is OrderStatus.EXPIRED
        assert "EXPIRED_IN_MATCH" in {
            order.status.value for order in venue.exchange.orders(venue.exchange.account("key"))
        }


def test_a_lost_line_is_told_and_found_again(venue):
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.EVENT_CUT, method="EVENT", times=1)]))
    with wired(venue) as (stream, wire):
        stream.alive()
        assert stream.alive()
        wire.buy("mine")
        until(lambda: not stream.alive())
        until(lambda: stream._connected)
        until(stream.alive)
        assert stream.counts["reconnects"] == 1
        wire.buy("other")
        assert collected(stream, 2)[0].order.client_id == "other"


def test_a_gap_between_two_looks_is_told_once(venue):
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.EVENT_CUT, method="EVENT", times=1)]))
    with wired(venue) as (stream, wire):
        stream.alive()
        assert stream.alive()
        before = stream._gaps
        wire.buy("mine")
        until(lambda: stream._gaps > before and stream._connected)
        assert (stream.alive(), stream.alive()) == (False, True)


def test_a_full_queue_ends_the_stream_instead_of_losing_an_update(venue):
    with wired(venue, queue=3) as (stream, wire):
        for number in range(4):
            wire.buy(f"b{number}")
        until(lambda: stream.counts["overflow"] > 0)
        assert not stream.alive()
        assert [update.order.client_id for update in stream.poll()] == ["b0", "b0", "b1"]


def test_a_silent_line_is_dead(venue):
    with wired(venue, silence_s=0.2) as (stream, _wire):
        until(lambda: stream.counts["reconnects"] > 0)
        assert not stream.alive()


def test_pings_are_answered_and_keep_a_quiet_line_alive(venue):
    with hosted(venue, ping_s=0.25) as server, following(server, silence_s=0.6) as stream:
        until(lambda: stream._connected)
        time.sleep(1.2)  # the venue ends a line whose pings are not answered
        assert stream.counts["reconnects"] == 0
        assert (stream.alive(), stream.alive()) == (False, True)


def test_the_client_follows_the_stream_from_start_to_close(venue):
    with hosted(venue) as server:
        url = f"127.0.0.1:{server.port}"
        client = BinanceSpot(f"http://{url}", f"ws://{url}/ws-api/v3", Signer(Secret("key"), Secret("secret")), LiveClock())  # fmt: skip
        assert not client.stream_alive()
        client.start()
        until(client.stream_alive)
        assert client.poll() == []
        client.close()
        assert not client.stream_alive()


def test_a_refused_subscription_is_tried_again_and_a_wrong_time_doubted(venue):
    with hosted(venue) as server, following(server, secret="wrong") as stream:
        until(lambda: stream.counts["reconnects"] > 0)
        assert not stream.alive()
    with hosted(venue) as server:
        stream = UserStream(f"ws://127.0.0.1:{server.port}/ws-api/v3", Signer(Secret("key"), Secret("secret")), VenueClock(LiveClock()))  # fmt: skip
        stream._clock._offset_ms = -60_000.0
        stream._clock.synchronised = True
        stream.start()
        until(lambda: not stream._clock.synchronised)
        stream.close()


def test_nobody_listening_is_no_end(venue):
    with hosted(venue) as server:
        port = server.port
    stream = UserStream(f"ws://127.0.0.1:{port}/ws-api/v3", Signer(Secret("k"), Secret("s")), VenueClock(LiveClock()))  # fmt: skip
    stream.start()
    until(lambda: stream.counts["reconnects"] > 1)
    assert not stream.alive()
    stream.close()


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        '{"event":5}',
        '{"event":{"x":1}}',
        '{"event":{"e":"executionReport"}}',
        '{"status":"200"}',
    ],
)
def test_an_unreadable_frame_is_counted_and_passed_over_and_is_a_gap(venue, frame):
    with wired(venue) as (stream, wire):
        stream.alive()
        assert stream.alive()
        stream._take(frame)
        assert stream.counts["unreadable"] == 1
        assert (stream.alive(), stream.alive()) == (False, True)
        wire.buy("mine")
        assert len(collected(stream, 2)) == 2


def test_the_venue_may_end_the_stream(venue, monkeypatch):
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.TERMINATED, method="EVENT", times=1)]))
    with wired(venue) as (stream, wire):
        wire.buy("mine")
        until(lambda: stream.counts["reconnects"] == 1)
        until(lambda: stream._connected)


def test_a_line_that_will_end_is_left_when_the_next_one_stands_and_nothing_is_missed(venue):
    rule = FaultRule(fault=Fault.SHUTDOWN, method="EVENT", times=1, seconds=0.4)
    venue.schedule(FaultSchedule([rule]))
    with wired(venue) as (stream, wire):
        until(stream.alive)
        wire.buy("first")
        until(lambda: stream.counts["handovers"] == 1)
        time.sleep(0.5)  # the first line has ended
        assert stream.alive(), "no gap is told"
        wire.buy("second")
        found = collected(stream, 4)
        assert {update.order.client_id for update in found} == {"first", "second"}
        assert stream.counts["reconnects"] == 0


def test_a_line_that_ends_before_the_next_one_stands_leaves_a_gap(venue):
    now = [1_000_000]
    budget = RequestBudget(None, clock_ms=lambda: now[0])
    rule = FaultRule(fault=Fault.SHUTDOWN, method="EVENT", times=1, seconds=0.1)
    venue.schedule(FaultSchedule([rule]))
    with wired(venue, budget=budget) as (stream, wire):
        until(stream.alive)
        budget.stay_away(30_000)  # no other line may be opened
        wire.buy("first")
        until(lambda: not stream.connected)
        now[0] += 30_000
        until(lambda: stream.counts["handovers"] == 1)
        assert (stream.alive(), stream.alive()) == (False, True), "told once"
        assert stream.counts["reconnects"] == 0


def test_a_line_that_will_end_is_opened_anew_when_no_other_stands(venue):
    venue.schedule(
        FaultSchedule(
            [
                FaultRule(fault=Fault.SHUTDOWN, method="EVENT", times=1, seconds=0.1),
                FaultRule(fault=Fault.SUBSCRIPTION_REFUSED, method="SUBSCRIBE", after=1, times=1),
            ]
        )
    )
    with hosted(venue) as server, following(server) as stream:
        until(lambda: stream.connected)
        wire = Wire(server)
        assert stream.counts["reconnects"] == 0
        wire.buy("first")
        until(lambda: stream.counts["reconnects"] >= 1)
        until(lambda: stream.connected)
        wire.close()


def test_unknown_frames_and_pings_of_the_api_are_left_alone(venue):
    with wired(venue) as (stream, _wire):
        stream._take('{"id":null,"rateLimits":[]}')
        stream._take('{"event":{"e":"balanceUpdate"}}')
        assert stream.counts["balanceUpdate"] == 1
        assert stream._connected


REPORT = {"e": "executionReport", "s": SYMBOL, "c": "mine", "C": "", "S": "BUY", "x": "TRADE", "X": "FILLED", "i": 5, "q": "1", "z": "1", "Z": "2", "l": "1", "L": "2", "n": "0", "N": "BTC", "T": 1, "t": 3, "m": False}  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"S": "HOLD"},
        {"X": "DREAMING"},
        {"q": "NaN"},
        {"z": "-1"},
        {"Z": "Infinity"},
        {"l": "0"},
        {"L": "-2"},
        {"n": "NaN"},
        {"N": None},
        {"t": -1},
    ],
)
def test_a_report_that_cannot_be_true_is_not_believed(changed):
    message = msgspec.json.decode(msgspec.json.encode(REPORT | changed), type=ExecutionReport)
    with pytest.raises(DataError):
        message.meaning()


def test_a_report_of_a_maker_says_so():
    message = msgspec.json.decode(msgspec.json.encode(REPORT | {"m": True}), type=ExecutionReport)
    assert message.meaning().trade.liquidity is Liquidity.MAKER


def test_a_burst_of_pings_is_answered_once_with_the_newest_words(venue):
    """RFC 6455, 5.5.3; the venue ends a line that sends more than five things a second."""
    sink = MemorySink()
    venue.journal._sink = sink
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.PING_BURST, method="EVENT", times=1)]))
    with wired(venue) as (stream, wire):
        assert stream.alive() in {True, False}
        wire.buy("mine")
        collected(stream, 2)
        time.sleep(0.5)
        assert stream.alive()
        assert stream.counts["reconnects"] == 0
    assert {entry.kind for entry in sink.entries} & {"over_inbound", "wrong_pong"} == set()


def test_a_line_that_brings_no_report_of_an_answered_order_is_opened_anew(venue):
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.EVENT_STALL, method="EVENT", times=1)]))
    with wired(venue, report_s=0.05) as (stream, wire):
        wire.buy("lost")
        stream.expect("lost")
        until(lambda: not stream.alive() and stream.counts["deaf"] == 1)
        until(stream.alive)
        wire.buy("told")
        stream.expect("told")
        collected(stream, 2)
        stream.expect("told")  # its report came before its answer
        stream.expect("in the gap")
        stream._gaps += 1
        time.sleep(0.1)
        until(stream.alive)
        assert stream.counts["deaf"] == 1


def test_an_event_without_its_wrapper_is_an_event(venue):
    venue.schedule(FaultSchedule([FaultRule(fault=Fault.UNWRAPPED, method="EVENT")]))
    with wired(venue) as (stream, wire):
        wire.buy("mine")
        assert [u.order.client_id for u in collected(stream, 2)] == ["mine", "mine"]
        assert stream.counts["unreadable"] == 0


def test_nothing_is_subscribed_while_the_venue_wants_silence(venue):
    sink = MemorySink()
    venue.journal._sink = sink
    now = [1_000_000]
    budget = RequestBudget(None, clock_ms=lambda: now[0])
    budget.stay_away(30_000)
    with hosted(venue) as server, following(server, budget=budget) as stream:
        time.sleep(0.2)
        assert not stream.connected
        now[0] += 30_000
        until(lambda: stream.connected)
    assert "trespass" not in {entry.kind for entry in sink.entries}


def test_a_subscription_refused_for_a_while_is_not_tried_before_its_end(venue):
    budget = RequestBudget(None)
    with hosted(venue) as server:
        server.do(lambda: venue.door.ban(venue.exchange.now_ms(), 30))
        with following(server, budget=budget) as stream:
            until(lambda: stream.counts["reconnects"] == 1)
            until(lambda: budget.take(Lane.CANCEL, 0) > 20_000)
            time.sleep(0.3)
            assert stream.counts["reconnects"] == 1
