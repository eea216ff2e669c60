"""Liquidation prevention of a session at the loopback venue: live marks, positions, orders."""

import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec
import pytest
from test_futures_drill import HOURS_KILLED, SYMBOLS, Drill, MortalClient

from bot4_runtime.app import RunOptions, build
from bot4_runtime.app.remote import Remote
from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import (
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    ProtectionAlarm,
    ProtectionPlanned,
    ProtectionSettled,
)
from bot4_runtime.domain.order import Book, Purpose, Side
from bot4_runtime.exchange.binance.futures import Holding
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.mark_feed import MarkFeed, mark_streams
from bot4_runtime.exchange.binance.market_line import routes
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.exchange.stream_hosts import StreamHosts
from bot4_runtime.protection.margin_book import MarginBook
from bot4_runtime.rehearsal.performance import PING_S
from bot4_runtime.rehearsal.stages import REPLY_S, REPORT_S, SILENCE_S
from bot4_runtime.venue import listen_keys
from bot4_runtime.venue.brackets import Ladder
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_events import AccountChanged
from bot4_runtime.venue.hosting import hosted

D = Decimal
ARRIVES_S = 2.0
"""How long, by the machine's clock, a mark is waited for."""


class Guarded(Drill):
    """The drill, of a session that hears the marks and guards what it holds."""

    marked = True
    feed = None
    looked = staticmethod(lambda _drill: None)

    def _course(self, server):
        course = super()._course(server)
        course._noted = lambda _ms: self.looked(self)
        move = course._advance

        def advance(to_ms):
            stirred = move(to_ms)
            self.wait_for_marks(to_ms)
            return stirred

        course._advance = advance
        return course

    def wait_for_marks(self, at_ms):
        """Let the marks arrive that the venue tells every second: the clock of both jumps."""
        until = time.monotonic() + ARRIVES_S
        while self.marked and self.feed is not None and time.monotonic() < until:
            known = self.feed.latest()
            if all(s in known and known[s][1] > (at_ms - 1_000) * NS_PER_MS for s in SYMBOLS):
                return
            time.sleep(0.001)

    def live(self, port):
        at, lease = f"127.0.0.1:{port}", Lease(self.clock.now_ns)
        self.book = MarginBook("USDT")
        hosts = StreamHosts(usdm_market=f"ws://{at}/market")
        self.feed = MarkFeed(routes(Market.USDM, hosts, mark_streams(SYMBOLS)))
        client = self.client = MortalClient(
            f"http://{at}",
            f"ws://{at}/private",
            Signer(Secret("key"), Secret("secret")),
            self.clock,
            holding=self.holding,
            reply_s=REPLY_S,
            silence_s=SILENCE_S,
            report_s=REPORT_S,
            may_send=lease.holds,
            budget=RequestBudget(None, Market.USDM, lambda: self.clock.now_ns() // NS_PER_MS),
            order_url=f"ws://{at}/ws-fapi/v1" if self.by_line else None,
            symbols=SYMBOLS,
            margin=self.book,
        )
        if self.dies is not None:
            client.dies = self.dies
        marks = self.feed if self.marked else MarkFeed([])
        remote = Remote(
            client,
            self.clock,
            self.clock.now_ns,
            lease,
            self.course,
            local=True,
            margin=self.book,
            marks=marks,
        )
        run = build(
            self.settings,
            RunOptions(source=self.course.label),
            mode="testnet",
            folder=self.folder,
            remote=remote,
            on_progress=lambda number, _candle: self.script(self, number),
        )
        self.guard = run.session._guard
        try:
            run.execute(threading.Event())
        finally:
            self.counts += client.stream_counts

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def alarms(self):
        return [alarm.code for alarm in self.of(ProtectionAlarm)]

    def held(self):
        return self.server.do(lambda: list(self.account.positions()))


class Dive:
    """Lets the mark of what is held first fall, by a share of its way to liquidation, once."""

    def __init__(self, share, also=lambda _drill: None):
        self.share, self.also, self.symbol, self.at_ns = D(share), also, "", 0

    def __call__(self, drill, _number):
        held = drill.held()
        if held and not self.symbol:
            self.symbol, self.at_ns = held[0].symbol, drill.clock.now_ns()
            self.also(drill)
            drill.server.do(lambda: self.fall(drill, held[0]))

    def fall(self, drill, leg):
        gone = drill.venue.exchange.margins.liquidation_price(drill.account, leg)
        mark = round(leg.entry - (leg.entry - gone) * self.share, 2)
        drill.venue.set_mark(leg.symbol, mark)


def forced(drill):
    """Orders by which the venue closed what was held."""
    return [o for o in drill.venue.exchange.orders(drill.account) if o.venue_kind]


def sold_by(drill, planned):
    """What the venue sold by the order of a plan, and how often it knows that order."""
    orders = [o for o in drill.venue.exchange.orders(drill.account) if o.client_id == planned.client_id]  # fmt: skip
    return len(orders), sum((o.filled for o in orders), D(0))


def orderly(drill):
    """Each plan is an order of the engine, there at most once, and over as the venue has it."""
    intended = {e.client_id: e.intent for e in drill.of(OrderIntended)}
    settled = {e.number: e for e in drill.of(ProtectionSettled)}
    assert not drill.state.protection
    for planned in drill.of(ProtectionPlanned):
        assert intended[planned.client_id] == planned.intent
        assert planned.intent.purpose is Purpose.EMERGENCY
        assert planned.intent.reduce_only
        number, sold = sold_by(drill, planned)
        assert number <= 1
        assert settled[planned.number].filled == sold
    return drill


@pytest.mark.parametrize("hedge", [False, True], ids=["one-way", "hedge"])
def test_a_mark_near_liquidation_has_the_position_reduced_before_the_venue_acts(tmp_path, hedge):
    drill = Guarded(tmp_path, hours=40, holding=Holding(hedge=hedge), script=Dive("0.92"))
    orderly(drill.perform().judge())
    planned = drill.of(ProtectionPlanned)
    first, *_ = planned
    assert (first.action, first.reason) == ("reduce", "margin consumed reached 90%")
    assert planned[-1].action == "close"  # its stop was crossed, and did not trade
    whole = next(e.intent for e in drill.of(OrderIntended) if e.intent.purpose is Purpose.STOP)
    assert first.intent.quantity <= whole.quantity / 5
    assert sold_by(drill, first) == (1, first.intent.quantity)
    assert drill.alarms().count("MARGIN_ACT") == 1
    assert not forced(drill)
    assert not drill.state.account.differences
    reasons = [t.exit_reason for t in drill.state.books[Book.VALIDATED].closed_trades]
    assert "emergency" in reasons


def drained(drill):
    """Have most of the money withdrawn, so that what is left carries a cross position barely."""

    def withdraw():
        [leg] = drill.account.positions()
        amount = drill.account.cross["USDT"] - leg.cost / 3
        now_ms = drill.venue.exchange.now_ms()
        drill.account.earn("TRANSFER", "", "USDT", -amount, now_ms)
        told = AccountChanged(drill.account, "WITHDRAW", "USDT", -amount, (), now_ms)
        drill.venue.exchange.tell(told)

    drill.server.do(withdraw)


def moved_by(drill, kind):
    """Return what the wallet was moved by of one kind; opening the account is a transfer too."""
    return sum(income.amount for income in drill.account.incomes if income.kind == kind)


def stops_of(drill, symbol):
    """How much of a symbol is held, and how much of it is in stops that rest."""
    waiting = drill.server.do(lambda: drill.venue.algos.open(drill.account, None))
    held = [leg.quantity for leg in drill.held() if leg.symbol == symbol]
    rests = [a.request.order.quantity for a in waiting if a.symbol == symbol]
    return sum(held, D(0)), sum(rests, D(0))


def test_what_is_left_on_cross_margin_has_a_stop_of_its_size_and_the_alarm_ends(tmp_path):
    dive, seen = Dive("0.905", drained), []
    drill = Guarded(tmp_path, hours=12, holding=Holding(isolated=False), script=dive)
    drill.looked = lambda drill: seen.append(stops_of(drill, dive.symbol))
    limits = drill.settings.liquidation.model_copy(update={"stop_watchdog_s": 300.0})
    drill.settings = drill.settings.model_copy(update={"liquidation": limits})
    orderly(drill.perform().judge())
    reduce, close = drill.of(ProtectionPlanned)
    assert (reduce.wallet, reduce.action, close.action) == ("cross", "reduce", "close")
    assert close.reason.endswith("is not done")  # long after the measures are calm again
    left = close.intent.quantity
    assert D("0.19") < reduce.intent.quantity / (left + reduce.intent.quantity) <= D("0.2")
    assert seen.count((left, left)) > 3, "what is left is stopped, and nothing else"
    assert drill.alarms() == ["MARGIN_ACT", "MARGIN_CLEARED", "STOP_NOT_DONE"]
    assert not forced(drill)
    [withdrawn] = drill.state.account.differences
    assert withdrawn.venue - withdrawn.ours == moved_by(drill, "TRANSFER") - 100_000


def test_a_step_through_the_liquidation_price_is_told_as_one_that_left_no_room(tmp_path):
    drill = Guarded(tmp_path, hours=40, script=Dive("1.05")).perform().judge()
    [alarm] = [a for a in drill.of(ProtectionAlarm) if a.code == "LIQUIDATED"]
    assert alarm.text.endswith("one step of the mark left no room to act")
    assert alarm.numbers["worst_before"] < 0.8
    assert not drill.of(ProtectionPlanned)
    assert len(forced(drill)) == 1
    fee, found = sorted(drill.state.account.differences, key=lambda told: told.kind)
    assert found.name.startswith("autoclose-")
    assert fee.venue - fee.ours == moved_by(drill, "INSURANCE_CLEAR") < 0


def test_a_bracket_that_the_venue_changes_is_measured_by_at_once(tmp_path):
    """The mark rests far from liquidation, until the venue asks for more maintenance margin."""

    def stricter(drill):
        market = drill.venue.exchange.market(dive.symbol)
        steps = [
            (str(b.floor), str(b.rate + D("0.12")), b.leverage)
            for b in market.contract.ladder.brackets
        ]
        changed.append(drill.venue.exchange.now_ms())
        market.contract = msgspec.structs.replace(
            market.contract, ladder=Ladder(steps, "1000000000")
        )

    def looked(drill):
        if dive.symbol and not changed and drill.clock.now_ns() > dive.at_ns + 9_000_000_000:
            drill.server.do(lambda: stricter(drill))

    dive, changed = Dive("0.7"), []
    drill = Guarded(tmp_path, hours=40, script=dive)
    drill.looked = looked
    limits = drill.settings.liquidation.model_copy(update={"stop_watchdog_s": 300.0})
    drill.settings = drill.settings.model_copy(update={"liquidation": limits})
    orderly(drill.perform().judge())
    first = drill.of(ProtectionPlanned)[0]
    assert first.action == "reduce"
    assert 0 < first.ts_event_ns // NS_PER_MS - changed[0] <= 60_000
    assert not forced(drill)


def test_a_leverage_that_the_venue_lowers_is_put_back_and_measured_by(tmp_path):
    """What it allows is measured by what it asks for: brackets are read again with it."""

    def lower(drill, _number):
        held = drill.held()
        if held and not lowered:
            lowered.append(held[0].symbol)
            drill.server.do(lambda: drill.venue.settings.set_leverage(drill.account, held[0].symbol, 2))  # fmt: skip
            asked.append(len(drill.sink.entries))

    lowered, asked = [], []
    drill = Guarded(tmp_path, hours=12, holding=Holding(isolated=False), script=lower)
    drill.perform().judge()
    later = [e.body["call"] for e in drill.sink.entries[asked[0] :] if e.kind == "request"]
    assert "POST /fapi/v1/leverage" in later
    assert "GET /fapi/v1/leverageBracket" in later[later.index("POST /fapi/v1/leverage") :]
    assert drill.account.settings(lowered[0]).leverage == 3
    assert not drill.alarms()
    assert not drill.state.account.differences


def test_margin_calls_are_told(tmp_path):
    drill = Guarded(tmp_path, hours=20, script=Dive("0.9995")).perform().judge()
    [alarm] = [a for a in drill.of(ProtectionAlarm) if a.code == "MARGIN_CALL"]
    assert alarm.severity == "critical"
    assert alarm.subject in SYMBOLS
    assert drill.of(ProtectionPlanned)[0].numbers["worst"] > 0.99
    assert not forced(drill)


def test_a_deleveraging_is_told_as_that(tmp_path):
    def deleverage(drill, _number):
        held = drill.held()
        if not held or done:
            return
        done.append(held[0])

        def close():
            liquidator, market = (
                drill.venue.liquidator,
                drill.venue.exchange.market(held[0].symbol),
            )
            liquidator._cancel_orders(drill.account, held[0].symbol)
            order = liquidator._forced(drill.account, held[0], market.mark, "adl_autoclose", "ADL")
            liquidator._fill_rest(market, order, order.quantity)

        drill.server.do(close)

    done = []
    drill = Guarded(tmp_path, hours=20, script=deleverage).perform().judge()
    [alarm] = [a for a in drill.of(ProtectionAlarm) if a.code == "DELEVERAGED"]
    assert alarm.subject == done[0].symbol
    assert "auto-deleveraging" in alarm.text
    assert "LIQUIDATED" not in drill.alarms()
    [found] = drill.state.account.differences
    assert found.name == "adl_autoclose"


def test_without_streamed_marks_no_entry_leaves_and_it_is_told_why(tmp_path):
    drill = Guarded(tmp_path, hours=20)
    drill.marked = False
    drill.perform().judge()
    waited = [e for e in drill.of(OrderRejected) if e.code == "ENTRIES_WAIT"]
    assert waited
    assert all("is not streamed" in e.reason for e in waited)
    assert not drill.of(OrderFilled)


def test_a_stream_of_marks_that_falls_silent_is_told_and_marks_that_are_asked_for_act(tmp_path):
    def silence(drill):
        drill.feed.close()
        drill.marked = False

    drill = Guarded(tmp_path, hours=20, script=Dive("0.93", silence))
    orderly(drill.perform().judge())
    assert drill.of(ProtectionPlanned)[0].action == "reduce"
    assert drill.alarms()[:2] == ["MARK_STALE", "MARGIN_ACT"]
    assert drill.alarms().count("MARK_STALE") == 1
    assert not forced(drill)
    sold = drill.of(ProtectionPlanned)[0].ts_event_ns
    bought = [e for e in drill.of(OrderFilled) if e.fill.side is Side.BUY]
    assert not [e for e in bought if e.ts_event_ns > sold], "no entry on marks that are not alive"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_kill_between_plan_and_answer_neither_doubles_nor_loses_it(tmp_path, when, times):
    deaths = []

    def dies(moment, action):
        if (moment, action) == (when, "submit emergency") and len(deaths) < times:
            deaths.append(action)
            return True
        return False

    drill = Guarded(tmp_path, hours=30, script=Dive("0.92"), dies=dies)
    orderly(drill.perform().judge())
    assert len(deaths) == times
    first = drill.of(ProtectionPlanned)[0]
    number, sold = sold_by(drill, first)
    assert (number, sold) == ((1, first.intent.quantity) if when == "after" else (0, D(0)))
    assert not forced(drill)
    assert not drill.state.account.differences


@pytest.mark.crash
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_is_killed_between_plan_and_answer_doubles_and_loses_nothing(tmp_path, monkeypatch, when):  # fmt: skip
    # The client keeps its key by the machine's minutes, and an hour here is less than a second.
    monkeypatch.setattr(listen_keys, "LIFE_MS", HOURS_KILLED * 3_600_000)
    drill = Guarded(tmp_path, hours=HOURS_KILLED)
    script = str(Path(__file__).with_name("guard_life.py"))
    ended = []
    with hosted(drill.venue, admin=True, ping_s=PING_S) as server:
        for kill in ("kill", "", ""):
            words = [tmp_path, server.port, server.admin_port, when, kill]
            life = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
            assert life.returncode in {0, -signal.SIGKILL}, life.stderr[-3000:]
            ended.append(life.returncode)
    assert ended == [-signal.SIGKILL, 0, 0]
    orderly(drill.judge())
    first = drill.of(ProtectionPlanned)[0]
    number, sold = sold_by(drill, first)
    assert (number, sold) == ((1, first.intent.quantity) if when == "after" else (0, D(0)))
    assert len(drill.of(ProtectionPlanned)) > 1, "it goes on after the kill"
    assert not forced(drill)
    assert not drill.state.account.differences


LOST = [Fault.DROP_REPLY, Fault.GATEWAY_AFTER, Fault.TRUNCATED, Fault.ERROR_BEFORE, Fault.DROP_REQUEST]  # fmt: skip


@pytest.mark.parametrize("fault", LOST)
def test_an_answer_that_is_lost_leaves_one_order_at_the_venue(tmp_path, fault):
    def lose(drill):
        rule = FaultRule(fault=fault, method="POST", path="/fapi/v1/order", times=2)
        drill.server.do(lambda: drill.venue.schedule(FaultSchedule([rule], 1)))

    drill = Guarded(tmp_path, hours=30, script=Dive("0.92", lose), by_line=False)
    orderly(drill.perform().judge())
    lost = {e.intent_no for e in drill.of(OrderOutcomeUnknown)}
    planned = [p for p in drill.of(ProtectionPlanned) if p.intent.intent_no in lost]
    assert planned, "an order of protection lost its answer"
    assert "ACTION_UNKNOWN" in drill.alarms()
    assert not forced(drill)
    assert not drill.state.account.differences


def test_changes_of_the_account_that_are_lost_are_made_up_for_by_readings(tmp_path):
    lost = FaultRule(
        fault=Fault.EVENT_LOST, method="EVENT", path="ACCOUNT_UPDATE", probability=0.7
    )
    drill = Guarded(tmp_path, hours=20, script=Dive("0.92"), rules=[lost])
    orderly(drill.perform().judge())
    assert len(drill.of(ProtectionPlanned)) > 2
    assert sum(p.intent.quantity for p in drill.of(ProtectionPlanned)) <= max(
        e.intent.quantity for e in drill.of(OrderIntended) if e.intent.purpose is Purpose.STOP
    )
    assert not forced(drill)
    assert not drill.state.account.differences


def test_what_is_measured_is_what_the_venue_measures(tmp_path):
    """Marks that jump anywhere above liquidation, on cross margin and with funding beside."""

    def wander(drill, _number):
        for leg in drill.held():
            share = D(str(round(rng.uniform(-1.0, 0.85), 3)))
            drill.server.do(lambda leg=leg, share=share: Dive(share).fall(drill, leg))

    def compare(drill):
        margins = drill.venue.exchange.margins
        told = drill.server.do(
            lambda: {
                leg.symbol: (leg.quantity, margins.of(drill.account, leg))
                for leg in drill.account.positions()
            }
        )
        for wallet in drill.guard._monitor.wallets:
            sizes = {leg.symbol: leg.size for leg in wallet.legs}
            there = {s: told[s][0] for s in sizes if s in told}
            if sizes == there:
                margin = told[wallet.legs[0].symbol][1]
                assert wallet.margin_balance == pytest.approx(float(margin.balance), rel=1e-6)
                assert wallet.maintenance == pytest.approx(float(margin.maintenance), rel=1e-6)
                compared.append(wallet.name)

    rng, compared = Random(7), []
    for isolated in (True, False):
        folder = tmp_path / str(isolated)
        drill = Guarded(folder, hours=30, holding=Holding(isolated=isolated), script=wander)
        drill.looked = compare
        drill.perform().judge()
        assert "VENUE_DIFFERS" not in drill.alarms()
    assert compared.count("cross") > 50
    assert len(compared) > 2 * compared.count("cross") / 2 + 50
