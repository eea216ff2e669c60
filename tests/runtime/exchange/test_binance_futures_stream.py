"""The USD-M user stream brings what becomes of orders, or says that it missed something."""

import time
from contextlib import contextmanager
from decimal import Decimal

import msgspec
import pytest
import structlog

from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Liquidity, OrderStatus, Side
from bot4_runtime.exchange.binance.futures_messages import AlgoUpdate, OrderTradeUpdate
from bot4_runtime.exchange.binance.futures_stream import FuturesStream
from bot4_runtime.exchange.binance.limits import Lane, RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer, VenueClock
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.futures_orders import AlgoKind, AlgoRequest, FuturesRequest
from bot4_runtime.venue.hosting import hosted

SYMBOL = "BTCUSDT"
HOUR_NS = 3_600 * 10**9
D = Decimal


def until(wanted, seconds=5.0):
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


class Desk:
    """A venue, its server, and what others do there."""

    def __init__(self, venue, server):
        self.venue, self.server = venue, server

    @property
    def account(self):
        return self.venue.exchange.account("key")

    def do(self, action):
        return self.server.do(action)

    def buy(self, name, quantity="0.01", price=None, **more):
        asked = FuturesRequest(symbol=SYMBOL, side=Side.BUY, quantity=D(quantity), price=None if price is None else D(price), client_id=name, **more)  # fmt: skip
        return self.do(lambda: self.venue.exchange.place(self.account, asked))

    def stop(self, name, trigger, quantity="0.01"):
        order = FuturesRequest(symbol=SYMBOL, side=Side.SELL, quantity=D(quantity), reduce_only=True)  # fmt: skip
        asked = AlgoRequest(kind=AlgoKind.STOP_MARKET, order=order, trigger=D(trigger), client_id=name)  # fmt: skip
        return self.do(lambda: self.venue.algos.place(self.account, asked))

    def schedule(self, *rules):
        self.do(lambda: self.venue.schedule(FaultSchedule(rules)))

    def say(self, message):
        """Let the venue say something to whoever follows the account."""
        hub = self.venue.hub
        self.do(lambda: [c.send(msgspec.json.encode(message)) for c, seat in list(hub._seats.items()) if seat.route == "private"])  # fmt: skip

    def lines(self):
        return self.do(lambda: len(self.venue.hub._seats))


@contextmanager
def wired(clock=None, *, key="key", **options):
    contract = Contract.of(Instrument.assume(SYMBOL, Market.USDM, 40_000.0))
    venue = FuturesLoopback(clock or LiveClock(), [(contract, D(40_000))])
    venue.open_account(1, "key", "secret", [("USDT", D(10_000))])
    with hosted(venue) as server:
        stream = FuturesStream(
            f"ws://127.0.0.1:{server.port}/private",
            f"http://127.0.0.1:{server.port}",
            Signer(Secret(key), Secret("secret")),
            VenueClock(LiveClock()),
            **options,
        )
        stream.start()
        try:
            if key == "key":
                until(lambda: stream.connected and venue.hub._seats)
            yield stream, Desk(venue, server)
        finally:
            stream.close()
            stream.close()


def collected(stream, number):
    found = []

    def enough():
        found.extend(stream.poll())
        return len(found) >= number

    until(enough)
    return found


def test_reports_come_with_the_trades_that_caused_them():
    with wired() as (stream, desk):
        assert (stream.alive(), stream.alive()) == (False, True), "the start is a gap, told once"
        desk.buy("mine")
        new, filled = collected(stream, 2)
        assert (new.order.status, new.trade) == (OrderStatus.ACCEPTED, None)
        assert (filled.order.status, filled.order.filled) == (OrderStatus.FILLED, D("0.01"))
        assert filled.order.spent == D("400.001")
        trade = filled.trade
        assert (trade.price, trade.quantity, trade.side) == (D("40000.1"), D("0.01"), Side.BUY)
        assert (trade.fee_asset, trade.liquidity) == ("USDT", Liquidity.TAKER)
        assert trade.venue_order_id == filled.order.venue_order_id
        until(lambda: stream.counts["TRADE_LITE"] == 1)
        until(lambda: stream.counts["ACCOUNT_UPDATE:ORDER"] == 1)
        assert stream.poll() == []


def test_a_stop_is_one_order_from_its_acceptance_to_its_last_fill():
    with wired() as (stream, desk):
        desk.buy("entry")
        desk.stop("stop", "39000")
        waiting = collected(stream, 3)[2].order
        assert (waiting.client_id, waiting.venue_order_id) == ("stop", "algo-1")
        assert (waiting.status, waiting.quantity) == (OrderStatus.ACCEPTED, D("0.01"))
        desk.do(lambda: desk.venue.trade(SYMBOL, D(38_900), D(1)))
        told = collected(stream, 4)
        assert {update.order.client_id for update in told} == {"stop"}
        assert [u.order.status for u in told if u.trade] == [OrderStatus.FILLED]
        became = next(u.order.venue_order_id for u in told if u.trade)
        assert told[-1].order.venue_order_id == became, "the conditional order names what it became"  # fmt: skip
        assert not told[-1].order.status.terminal, "how it ended the order it became tells"


def test_a_cancelled_stop_and_one_that_is_refused_at_its_trigger_have_ended():
    with wired() as (stream, desk):
        desk.buy("entry")
        desk.stop("a", "39000")
        algo = desk.stop("b", "38000")
        desk.do(lambda: desk.venue.algos.cancel(algo))
        assert collected(stream, 5)[-1].order.status is OrderStatus.CANCELED
        desk.do(lambda: desk.venue.exchange.place(desk.account, FuturesRequest(symbol=SYMBOL, side=Side.SELL, quantity=D("0.01"))))  # fmt: skip
        desk.do(lambda: desk.venue.trade(SYMBOL, D(38_900), D(1)))
        ended = collected(stream, 4)[-1].order
        assert (ended.client_id, ended.status) == ("a", OrderStatus.REJECTED)


def test_a_lost_line_is_told_and_found_again():
    with wired() as (stream, desk):
        stream.alive()
        assert stream.alive()
        desk.schedule(FaultRule(fault=Fault.EVENT_CUT, method="EVENT", times=1))
        desk.buy("mine")
        until(lambda: not stream.alive())
        until(stream.alive)
        desk.buy("other")
        assert [u.order.client_id for u in collected(stream, 2)] == ["other", "other"]


def test_a_line_that_brings_no_report_of_an_answered_order_is_left():
    with wired(report_s=0.1) as (stream, desk):
        desk.schedule(FaultRule(fault=Fault.EVENT_STALL, method="EVENT", times=1))
        desk.buy("mine")
        stream.expect("mine")
        until(lambda: not stream.alive() and stream.counts["deaf"] == 1)
        until(stream.alive)
        desk.stop("heard", "39000")
        collected(stream, 1)
        stream.expect("heard")
        assert stream.alive()
        assert not stream._expected


# --------------------------------------------------------------------------- the key
def test_a_key_is_kept_alive_and_asked_for_anew_when_the_venue_forgot_it():
    with wired(keep_s=0.05) as (stream, desk):
        keys = desk.venue.keys
        first = desk.do(lambda: keys.of(desk.account))
        given = desk.do(lambda: keys._keys[first][1])
        until(lambda: desk.do(lambda: keys._keys[first][1]) > given)
        stream.alive()
        assert stream.alive()
        desk.do(lambda: keys.drop(desk.account))
        until(lambda: stream.counts["key not kept"] == 1)
        until(lambda: desk.do(lambda: keys.of(desk.account)) not in {None, first})
        until(stream.alive)
        desk.buy("mine")
        assert collected(stream, 2)[1].trade is not None


def test_a_key_that_could_not_be_kept_is_tried_again_and_the_line_stays():
    with wired(keep_s=0.02) as (stream, desk):
        lost = FaultRule(
            fault=Fault.GATEWAY_AFTER, method="PUT", path="/fapi/v1/listenKey", times=3
        )
        desk.schedule(lost)
        until(lambda: stream.counts["key not kept"] == 3)
        assert stream.counts["reconnects"] == 0


def test_a_key_that_expired_ends_the_line_and_the_next_one_has_a_new_key():
    clock = ManualClock(10**18)
    with wired(clock) as (stream, desk):
        stream.alive()
        assert stream.alive()
        to_ms = (10**18 + HOUR_NS) // 10**6
        desk.do(lambda: desk.venue.advance(to_ms))
        until(lambda: stream.counts["reconnects"] == 1)
        until(lambda: stream.connected)
        assert (stream.alive(), stream.alive()) == (False, True)
        desk.buy("mine")
        collected(stream, 2)


def test_without_a_key_there_is_no_stream_and_nobody_learns_one():
    with structlog.testing.capture_logs() as logs, wired(key="nobody's") as (stream, _desk):
        until(lambda: stream.counts["no key"] >= 1)
        assert not stream.alive()
    assert logs
    with structlog.testing.capture_logs() as logs, wired() as (stream, desk):
        key = desk.do(lambda: desk.venue.keys.of(desk.account))
        desk.schedule(FaultRule(fault=Fault.REFUSE_CONNECT, method="POST", times=1, seconds=0.1))
        desk.say({"e": "listenKeyExpired", "listenKey": key})
        until(lambda: stream.counts["reconnects"] >= 2)
    assert key not in str(logs)


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.NOT_JSON, Fault.WRONG_TYPE])
def test_an_answer_without_a_readable_key_is_asked_for_again(fault):
    with wired() as (stream, desk):
        desk.schedule(FaultRule(fault=fault, method="POST", path="/fapi/v1/listenKey", times=1))
        desk.say({"e": "listenKeyExpired"})
        until(lambda: stream.counts["no key"] == 1)
        until(lambda: stream.connected)


def test_a_firewall_before_the_key_is_given_the_silence_it_wants():
    budget = RequestBudget(None, Market.USDM)
    with wired(budget=budget) as (stream, desk):
        desk.schedule(FaultRule(fault=Fault.FORBIDDEN, method="POST", times=1))
        desk.say({"e": "listenKeyExpired"})
        until(lambda: stream.counts["no key"] == 1)
        assert budget.take(Lane.CANCEL) > 0


def test_a_venue_that_wants_silence_is_not_asked_to_keep_the_key():
    """Who goes on asking while banned is banned for longer."""
    budget = RequestBudget(None, Market.USDM)
    with wired(budget=budget, keep_s=0.02) as (stream, desk):
        keys = desk.venue.keys
        name = desk.do(lambda: keys.of(desk.account))
        budget.stay_away(60_000)
        before = stream.counts["key not kept"]
        until(lambda: stream.counts["key not kept"] > before + 2)
        kept = desk.do(lambda: keys._keys[name][1])
        until(lambda: stream.counts["key not kept"] > before + 5)
        assert desk.do(lambda: keys._keys[name][1]) == kept
        assert stream.counts["reconnects"] == 0


# --------------------------------------------------------------------------- handovers
def test_a_line_that_is_about_to_end_is_left_when_the_next_one_stands():
    with wired() as (stream, desk):
        stream.alive()
        assert stream.alive()
        desk.say({"e": "serverShutdown", "E": 1})
        until(lambda: stream.counts["handovers"] == 1)
        until(lambda: desk.lines() == 1)
        assert stream.alive(), "no gap"
        desk.buy("mine")
        collected(stream, 2)


def test_a_line_is_asked_for_a_pong_when_the_venue_says_nothing():
    with wired(ping_s=0.05, silence_s=0.5) as (stream, _desk):
        heard = stream._heard_s
        until(lambda: stream._heard_s > heard + 0.2)
        assert stream.counts["reconnects"] == 0


# ------------------------------------------------------------------------- what it says
def silent():
    return FuturesStream("ws://127.0.0.1:9/private", "http://127.0.0.1:9", Signer(Secret("k"), Secret("s")), VenueClock(LiveClock()))  # fmt: skip


def test_what_is_new_or_nobody_knows_is_counted_and_passed_over():
    stream = silent()
    for message in ({"e": "STRATEGY_UPDATE"}, {"e": "TRADE_LITE"}, {"no": "event"}, {"stream": "k", "data": {"e": "GRID_UPDATE"}}):  # fmt: skip
        stream._take(msgspec.json.encode(message).decode())
    assert dict(stream.counts) == {"STRATEGY_UPDATE": 1, "TRADE_LITE": 1, "nameless": 1, "GRID_UPDATE": 1}  # fmt: skip


@pytest.mark.parametrize("frame", ["{", "[]", '{"e":"ORDER_TRADE_UPDATE"}', '{"e":"ALGO_UPDATE","T":1,"o":{}}', '{"e":"ACCOUNT_UPDATE","a":{}}', '{"e":"MARGIN_CALL"}'])  # fmt: skip
def test_what_cannot_be_read_is_a_gap(frame):
    stream = silent()
    before = stream._gaps
    assert stream._take(frame) is False
    assert (stream._gaps, stream.counts["unreadable"]) == (before + 1, 1)


UPDATE = {"s": SYMBOL, "c": "b4-1-1", "S": "BUY", "x": "TRADE", "X": "FILLED", "i": 5, "q": "1", "z": "1", "ap": "2", "T": 1, "l": "1", "L": "2", "n": "-0.01", "N": "USDT", "t": 3, "m": True, "si": 0, "er": "0"}  # fmt: skip


def meant(**changed):
    return msgspec.convert({"o": UPDATE | changed}, OrderTradeUpdate, strict=False).meaning()


def test_an_update_says_what_the_venue_says():
    told = meant()
    assert (told.order.spent, told.order.filled) == (D(2), D(1))
    assert (told.trade.fee, told.trade.liquidity) == (D("-0.01"), Liquidity.MAKER)
    assert meant(x="NEW", X="NEW", l="0", t=0, N=None).trade is None
    assert meant(x="CALCULATED", X="FILLED").trade is not None, "a liquidation fills too"
    assert meant(x="NEW", X="NEW_ADL", l="0").order.status is OrderStatus.ACCEPTED


@pytest.mark.parametrize(
    "changed",
    [
        {"X": "DREAMING"},
        {"S": "HOLD"},
        {"z": "NaN"},
        {"q": "-1"},
        {"L": "0"},
        {"n": "NaN"},
        {"t": 0},
        {"N": None},
    ],
)
def test_an_update_that_cannot_be_true_is_not_believed(changed):
    with pytest.raises(DataError):
        meant(**changed)


@pytest.mark.parametrize(
    ("status", "became"),
    [("NEW", ""), ("TRIGGERING", ""), ("TRIGGERED", "77"), ("FINISHED", 77)],
)
def test_a_conditional_order_lives_until_what_it_became_has_ended(status, became):
    change = {"caid": "s", "aid": 9, "s": SYMBOL, "S": "SELL", "X": status, "q": "1", "ai": became}
    told = msgspec.convert({"T": 4, "o": change}, AlgoUpdate, strict=False).meaning().order
    assert told.status is OrderStatus.ACCEPTED
    assert told.venue_order_id == ("77" if became else "algo-9")


def test_funding_and_calls_for_margin_are_told():
    stream = silent()
    funding = {"e": "ACCOUNT_UPDATE", "a": {"m": "FUNDING_FEE", "B": [{"a": "USDT", "wb": "9", "bc": "-1.5"}], "P": []}}  # fmt: skip
    call = {"e": "MARGIN_CALL", "p": [{"s": SYMBOL, "mm": "3"}]}
    with structlog.testing.capture_logs() as logs:
        for message in (funding, call):
            stream._take(msgspec.json.encode(message).decode())
    assert stream.counts["ACCOUNT_UPDATE:FUNDING_FEE"] == stream.counts["MARGIN_CALL"] == 1
    assert [entry["event"] for entry in logs] == ["account changed", "the venue calls for margin"]
    assert logs[0]["moved"] == {"USDT": "-1.5"}


def test_nobody_who_takes_them_ends_the_stream_that_brings_updates():
    with wired(queue=1) as (stream, desk):
        desk.buy("mine")
        until(lambda: stream.counts["overflow"] == 1)
        until(lambda: not stream.alive())
