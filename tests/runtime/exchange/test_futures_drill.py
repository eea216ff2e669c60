"""A session of contracts at the loopback venue, in its time: traded, killed, and gone on with."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.app import RunOptions, build
from bot4_runtime.app.remote import Remote
from bot4_runtime.clock import NS_PER_MS, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import (
    CancelRequested,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    ProtectionAlarm,
    Reconciled,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, OrderType, Purpose
from bot4_runtime.exchange.binance.futures import BinanceFutures, Holding
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.rehearsal.course import Course
from bot4_runtime.rehearsal.performance import LOOSE, PING_S
from bot4_runtime.rehearsal.stages import REPLY_S, REPORT_S, SILENCE_S
from bot4_runtime.settings import StateSection, load_settings
from bot4_runtime.sources import SIMULATED_START_MS, SimulatedSource
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue import listen_keys
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.futures_algo import AlgoStatus
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.tape import candle_prints

SYMBOLS = ("BTCUSDT", "ETHUSDT")
D = Decimal
HOURS_KILLED = 40


class Killed(BaseException):
    """The session's life ends here, as a kill would end it."""


class Contracts(Course):
    """The course of a rehearsal, of perpetuals."""

    market = Market.USDM


class MortalClient(BinanceFutures):
    """The connector; `dies` tells before and after what is sent whether the session dies there."""

    dies = staticmethod(lambda _when, _what: False)

    def _mortal(self, what, call, *args):
        if self.dies("before", what):
            raise Killed
        try:
            return call(*args)
        finally:
            if self.dies("after", what):
                raise Killed

    def submit(self, intent, client_id, cash_free):
        return self._mortal(f"submit {intent.purpose}", super().submit, intent, client_id, cash_free)  # fmt: skip

    def cancel(self, order, now_ns):
        return self._mortal("cancel", super().cancel, order, now_ns)

    def fundings(self, from_ms, to_ms):
        return self._mortal("fundings", super().fundings, from_ms, to_ms)


class Drill:
    """Performs the drill at a venue of contracts, life after life, and judges by the venue."""

    def __init__(self, folder, hours=30, rules=(), dies=None, by_line=True, holding=Holding(), script=None, keeps_key=True, dead_man_s=0, takes_algos=False):  # noqa: B008  # fmt: skip
        self.settings = load_settings(
            environment={
                "BOT4_MODELS": str(folder / "models"),
                "BOT4_RUNTIME__MODE": "testnet",
                "BOT4_RUNTIME__MARKET": "usdm",
                "BOT4_RUNTIME__STRATEGY": "drill",
                "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
            }
        )
        self.settings = self.settings.model_copy(
            update={
                "home": folder,
                "risk": self.settings.risk.model_copy(update=LOOSE),
                "state": StateSection(reserve_mb=0),
            }
        )
        self.folder = folder / "state" / "drill"
        self.rules, self.dies, self.by_line, self.holding = rules, dies, by_line, holding
        self.script = script or (lambda _drill, _number: None)
        self.sink = MemorySink()
        self.clock = ManualClock(SIMULATED_START_MS * NS_PER_MS)
        self.source = SimulatedSource(seed=4, interval="1h", symbols=SYMBOLS, speed=None)
        self.source.start_ms = SIMULATED_START_MS
        self.keeps_key, self.dead_man_s, self.takes_algos = keeps_key, dead_man_s, takes_algos
        self.hours, self.lives, self.seen, self.counts = hours, 0, 0, Counter()
        self.venue = self._venue()

    def _venue(self):
        end_ms = SIMULATED_START_MS + (self.hours + 24) * 3_600_000
        firsts = list(self.source.history(SIMULATED_START_MS, SIMULATED_START_MS + 3_600_000))
        instruments = [Instrument.assume(c.symbol, Market.USDM, c.open) for c in firsts]
        rules = {i.symbol: SymbolRules.of(i) for i in instruments}
        venue = FuturesLoopback(
            self.clock,
            [
                (Contract.of(i), D(repr(c.open)) // i.tick_size * i.tick_size)
                for i, c in zip(instruments, firsts, strict=True)
            ],
            prints=candle_prints(self.source.history(SIMULATED_START_MS, end_ms), rules),
            depth=Depth(level_quantity=D(1_000_000)),
            sink=self.sink,
            countdown_takes_algos=self.takes_algos,
        )
        venue.open_account(1, "key", "secret", [("USDT", self.settings.initial_cash)])
        return venue

    @property
    def account(self):
        return self.venue.exchange.account("key")

    def perform(self):
        with hosted(self.venue, ping_s=PING_S) as server:
            self.server = server
            server.do(lambda: self.venue.schedule(FaultSchedule(self.rules, 1)))
            self.course = self._course(server)
            alive = 2
            while alive:
                self.lives += 1
                assert self.lives < 20
                try:
                    self.live(server.port)
                    alive -= 1
                except Killed:
                    continue
        return self

    def _course(self, server):
        def advance(to_ms):
            before = len(self.sink.entries)
            if self.keeps_key:  # the client counts the machine's minutes
                far_ms = to_ms + 10 * 365 * 86_400_000
                server.do(lambda: self.venue.keys.keep(self.account, far_ms))
            server.do(lambda: self.venue.advance(to_ms))
            return any(entry.kind == "event" for entry in self.sink.entries[before:])

        def stirred():
            before, self.seen = self.seen, len(self.sink.entries)
            return any(entry.kind == "report" for entry in self.sink.entries[before:])

        return Contracts(
            self.source,
            self.hours,
            advance=advance,
            stirred=stirred,
            connected=lambda: self.client.following,
            calm=lambda: server.do(lambda: self.venue.schedule(FaultSchedule())),
            noted=lambda _: None,
        )

    def live(self, port):
        """Live once, to the course's end."""
        at, lease = f"127.0.0.1:{port}", Lease(self.clock.now_ns)
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
        )
        if self.dies is not None:
            client.dies = self.dies
        remote = Remote(client, self.clock, self.clock.now_ns, lease, self.course, local=True, dead_man_s=self.dead_man_s)  # fmt: skip
        run = build(
            self.settings,
            RunOptions(source=self.course.label),
            mode="testnet",
            folder=self.folder,
            remote=remote,
            on_progress=lambda number, _candle: self.script(self, number),
        )
        try:
            run.execute(threading.Event())
        finally:
            self.counts += client.stream_counts

    # ------------------------------------------------------------------------- the judge
    def judge(self):
        """Hold the journal against the venue: no order twice, no trade lost, all is stopped."""
        with JournalReader.open(self.folder / JOURNAL) as reader:
            self.events = [event for _, event in reader.events()]
            self.state = reader.state(self.folder / "snapshots")
        intents = {e.client_id: e.intent for e in self.events if isinstance(e, OrderIntended)}
        orders = self.venue.exchange.orders(self.account)
        algos = self.venue.algos.all(self.account)
        plain = [o.client_id for o in orders if o.algo is None]
        named = plain + [algo.client_id for algo in algos]
        assert len(named) == len(set(named)), "each order is there once"
        for algo in algos:
            assert intents[algo.client_id].order_type is OrderType.STOP_MARKET
        forced = {o.client_id for o in orders if o.venue_kind}
        assert set(named) - forced <= set(intents)
        trades = {(t.symbol, str(t.trade_id)): t for o in orders for t in o.trades}
        fills = [e.fill for e in self.events if isinstance(e, OrderFilled)]
        booked = {(f.symbol, f.trade_id): f for f in fills}
        assert len(booked) == len(fills), "each trade is booked once"
        assert booked.keys() == trades.keys(), "each trade is booked"
        for key, fill in booked.items():
            there = trades[key]
            assert (fill.price, fill.quantity, fill.fee) == (there.price, there.quantity, there.commission)  # fmt: skip
        held = {p.symbol: p.quantity for p in self.account.positions()}
        positions = self.state.books[Book.VALIDATED].positions
        assert {s: p.quantity for s, p in positions.items()} == held
        stopped = {}
        for algo in self.venue.algos.open(self.account, None):
            assert algo.status is AlgoStatus.NEW
            stopped[algo.symbol] = stopped.get(algo.symbol, D(0)) + algo.request.order.quantity
        assert stopped == held, "what is held is stopped, and nothing else"
        return self

    def purposes(self):
        """What the trades were for."""
        intents = {e.intent.intent_no: e.intent for e in self.events if isinstance(e, OrderIntended)}  # fmt: skip
        fills = [e.fill for e in self.events if isinstance(e, OrderFilled)]
        return {intents[f.intent_no].purpose for f in fills if f.intent_no}


@pytest.mark.parametrize("by_line", [True, False], ids=["line", "REST"])
def test_it_trades_stops_and_leaves(tmp_path, by_line):
    drill = Drill(tmp_path, hours=60, by_line=by_line).perform().judge()
    assert {Purpose.ENTRY, Purpose.EXIT} <= drill.purposes()
    assert drill.account.settings("BTCUSDT").leverage == 3
    assert not drill.state.account.differences


def test_in_hedge_mode_it_trades_the_same(tmp_path):
    drill = Drill(tmp_path, hours=60, holding=Holding(hedge=True)).perform().judge()
    assert {Purpose.ENTRY, Purpose.EXIT} <= drill.purposes()


def test_a_key_that_runs_out_again_and_again_costs_no_trade(tmp_path, monkeypatch):
    # Not at every candle: where the machine is slow, the stream would never stand at one.
    monkeypatch.setattr(listen_keys, "LIFE_MS", 5 * 3_600_000)
    drill = Drill(tmp_path, hours=30, keeps_key=False).perform().judge()
    assert Purpose.ENTRY in drill.purposes()
    assert drill.counts["reconnects"] > 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["submit entry", "submit stop", "submit exit", "cancel"])
def test_a_kill_around_what_is_sent_doubles_and_loses_nothing(tmp_path, when, what):
    deaths = []

    def dies(moment, action):
        if (moment, action) == (when, what) and len(deaths) < 2:
            deaths.append(action)
            return True
        return False

    drill = Drill(tmp_path, dies=dies).perform().judge()
    assert len(deaths) == 2
    assert drill.lives == 4
    assert not drill.state.account.differences


@pytest.mark.crash
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_is_killed_again_and_again_doubles_and_loses_nothing(
    tmp_path, monkeypatch, when
):
    # The client keeps its key by the machine's minutes, and an hour here is less than a second.
    monkeypatch.setattr(listen_keys, "LIFE_MS", HOURS_KILLED * 3_600_000)
    drill = Drill(tmp_path, hours=HOURS_KILLED)
    kills = [("submit entry", 0), ("submit stop", 0), ("cancel", 0), ("submit entry", 0)]
    script = str(Path(__file__).with_name("futures_life.py"))
    ended = []
    with hosted(drill.venue, admin=True, ping_s=PING_S) as server:
        drill.server = server
        for what, number in [*kills, ("", 0), ("", 0)]:
            words = [tmp_path, server.port, server.admin_port, what, when, number]
            life = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
            assert life.returncode in {0, -signal.SIGKILL}, life.stderr[-3000:]
            ended.append(life.returncode)
    drill.judge()
    assert ended.count(-signal.SIGKILL) >= 3
    assert ended[-2:] == [0, 0]
    assert not drill.state.account.differences


LOST = [Fault.DROP_REPLY, Fault.ERROR_AFTER, Fault.GATEWAY_AFTER, Fault.TRUNCATED, Fault.ERROR_BEFORE, Fault.DROP_REQUEST]  # fmt: skip


@pytest.mark.parametrize("fault", LOST)
def test_lost_answers_double_and_lose_nothing(tmp_path, fault):
    rules = [
        FaultRule(fault=fault, method="POST", path="/fapi/v1/order", probability=0.4),
        FaultRule(fault=fault, method="POST", path="/fapi/v1/algoOrder", probability=0.4),
        FaultRule(fault=Fault.EVENT_LOST, method="EVENT", path="ORDER_TRADE_UPDATE", probability=0.2),
    ]  # fmt: skip
    drill = Drill(tmp_path, rules=rules, by_line=False).perform().judge()
    assert Purpose.ENTRY in drill.purposes()
    assert not drill.state.account.differences


def test_a_stop_that_triggers_closes_the_position_it_was_for(tmp_path):
    def crash(drill, _number):
        """Let the price fall through a stop between two candles."""
        waiting = drill.server.do(lambda: drill.venue.algos.open(drill.account, None))
        if waiting and not fallen:
            fallen.append(waiting[0].client_id)
            low = waiting[0].request.trigger - waiting[0].request.trigger % 1 - 1
            drill.server.do(lambda: drill.venue.trade(waiting[0].symbol, low, D(1)))

    fallen = []
    drill = Drill(tmp_path, hours=40, script=crash).perform().judge()
    assert Purpose.STOP in drill.purposes()
    assert [t.exit_reason for t in drill.state.books[Book.VALIDATED].closed_trades].count("stop") >= 1  # fmt: skip
    assert not drill.state.account.differences


def test_a_liquidation_is_booked_told_and_stops_entries(tmp_path):
    def gap(drill, _number):
        """Let the mark fall far below what is held, with no trade that a stop could hear."""
        held = drill.server.do(lambda: list(drill.account.positions()))
        if held and not fallen:
            symbol = held[0].symbol
            fallen.append(symbol)
            mark = drill.venue.exchange.market(symbol).mark
            drill.server.do(lambda: drill.venue.set_mark(symbol, mark / 2))
            drill.server.do(lambda: drill.venue.set_mark(symbol, None))

    fallen = []
    drill = Drill(tmp_path, hours=40, script=gap).perform().judge()
    assert fallen
    found, fee = drill.state.account.differences
    assert found.name.startswith("autoclose-")
    assert "liquidated" in found.reason
    assert fee.name == "USDT"
    assert fee.venue - fee.ours == sum(i.amount for i in drill.account.incomes if i.kind == "INSURANCE_CLEAR")  # fmt: skip
    assert "clearance fee" in fee.reason
    reasons = [t.exit_reason for t in drill.state.books[Book.VALIDATED].closed_trades]
    assert "liquidation" in reasons
    told = next(n for n, e in enumerate(drill.events) if isinstance(e, Reconciled) and e.differences)  # fmt: skip
    entered = [e for e in drill.events[told:] if isinstance(e, OrderFilled) and e.fill.side == "buy" and e.fill.intent_no > 2]  # fmt: skip
    sent = {entry.body["id"] for entry in drill.sink.entries if entry.kind == "sent"}
    later = [e for e in drill.events[told:] if isinstance(e, OrderIntended) and e.intent.purpose is Purpose.ENTRY]  # fmt: skip
    assert not entered
    assert not [e for e in later if e.client_id in sent], "no entry leaves until it is accepted"
    assert not [e for e in drill.events if isinstance(e, ProtectionAlarm)]


# ------------------------------------------------------------------- the dead-man switch
def ended(drill, purpose):
    """Orders that the venue cancelled and nobody here had asked it to."""
    asked = {e.intent_no for e in drill.events if isinstance(e, CancelRequested)}
    meant = {e.intent.intent_no for e in drill.events if isinstance(e, OrderIntended) and e.intent.purpose is purpose}  # fmt: skip
    closed = {e.intent_no for e in drill.events if isinstance(e, OrderClosed) and e.status == "canceled"}  # fmt: skip
    return (closed & meant) - asked


def countdowns(drill):
    asked = [e.body["with"] for e in drill.sink.entries if e.kind == "request" and "countdown" in e.body["call"]]  # fmt: skip
    return [int(values["countdownTime"]) for values in asked]


@pytest.mark.parametrize("takes_algos", [False, True], ids=["stops stay", "stops go too"])
def test_a_session_that_stood_still_finds_its_entries_ended_and_has_its_stops_in_place(tmp_path, takes_algos):  # fmt: skip
    """Between two looks the market goes on for minutes: the switch goes off each time.

    An entry is filled by half, so that a stop is there beside what is left of it.
    """

    def half(drill, _number):
        for order in drill.server.do(lambda: drill.venue.exchange.open_orders(drill.account, None)):  # fmt: skip
            contract = drill.venue.exchange.market(order.symbol).contract
            amount = order.left / 2 // contract.step_size * contract.step_size
            drill.server.do(lambda o=order, a=amount, t=contract.tick_size: drill.venue.trade(o.symbol, o.price - t, a))  # fmt: skip

    drill = Drill(tmp_path, hours=60, dead_man_s=120, takes_algos=takes_algos, script=half)
    drill.perform().judge()
    assert len(ended(drill, Purpose.ENTRY)) > 1
    assert Purpose.ENTRY in drill.purposes()
    assert not drill.state.account.differences
    lost = ended(drill, Purpose.STOP)
    assert bool(lost) is takes_algos
    stops = [e.intent.intent_no for e in drill.events if isinstance(e, OrderIntended) and e.intent.purpose is Purpose.STOP]  # fmt: skip
    assert all(any(number > gone for number in stops) for gone in lost), "they are put back"


def test_a_session_that_looks_in_time_keeps_its_entries(tmp_path):
    drill = Drill(tmp_path, hours=60, dead_man_s=3_600).perform().judge()
    assert not ended(drill, Purpose.ENTRY)
    set_, stopped = (countdowns(drill).count(ms) for ms in (3_600_000, 0))
    assert set_ > stopped > 0


def test_without_the_setting_no_countdown_is_asked_for(tmp_path):
    assert countdowns(Drill(tmp_path, hours=16).perform().judge()) == []
