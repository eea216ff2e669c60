"""Orders against liquidation beside the engine's own: stops go and come back, exits take the rest."""

import threading
from decimal import Decimal

import pytest
from msgspec.structs import replace

from bot4_runtime import app
from bot4_runtime.clock import NS_PER_MS
from bot4_runtime.domain.events import (
    CancelRequested,
    OperatorCommand,
    OrderClosed,
    OrderIntended,
    RiskDecided,
)
from bot4_runtime.domain.order import Book, Purpose
from bot4_runtime.engine import Cancel, Submit
from bot4_runtime.intents import RELIEF, relieves
from bot4_runtime.risk.manager import RiskManager, RiskRefused


class Relief:
    """A session that is asked, once a position is held and stopped, to do what a test says."""

    def __init__(self, market, settings, act):
        self.market, self.settings, self.act, self.done = market, settings, act, None
        self.stop = threading.Event()

    def run(self, folder, more=5):
        options = app.RunOptions(source=f"recorded:{self.market}")
        built = app.build(self.settings, options, mode="paper", folder=folder, on_progress=self)
        self.session, self.engine, self.more = built.session, built.session._engine, more
        self.state = built.store.state
        built.execute(self.stop)
        return self

    def __call__(self, _done, candle):
        if self.done is not None:
            self.more -= 1
            if not self.more:
                self.stop.set()
            return
        position = self.state.books[Book.VALIDATED].positions.get(candle.symbol)
        live = self.state.live_orders(candle.symbol, Book.VALIDATED)
        if position is not None and [o.intent.purpose for o in live] == [Purpose.STOP]:
            self.done, self.now_ns = position, candle.close_time_ms * NS_PER_MS
            self.act(self, position, candle)

    def relieve(self, quantity, candle, number=1):
        cause = f"{RELIEF}{candle.symbol}:{number}"
        return self.engine.relieve(candle.symbol, quantity, candle.close, cause, self.now_ns)

    def perform(self, *commands):
        self.session._carry_out(commands, self.now_ns)


def of(events, kind, purpose=None):
    found = [event for event in events if isinstance(event, kind)]
    return [e for e in found if purpose is None or e.intent.purpose is purpose]


def test_some_is_sold_and_the_rest_is_stopped_again(tmp_path, market, settings, journal_of):
    def act(relief, position, candle):
        first = relief.relieve(position.quantity / 5, candle)
        assert [type(command) for command in first] == [Cancel, Submit]
        assert relief.engine.leaving(candle.symbol)
        assert relief.relieve(position.quantity, candle, 2) == [], "it is being sold"
        relief.perform(*first)
        relief.session._protect([candle.symbol])

    relief = Relief(market, settings, act).run(tmp_path)
    events = journal_of(tmp_path)
    [sold] = of(events, OrderIntended, Purpose.EMERGENCY)
    intent, held = sold.intent, relief.done.quantity
    assert relieves(intent)
    assert (intent.reduce_only, intent.rule_id) == (True, relief.done.rule_id)
    assert Decimal("0.19") * held < intent.quantity <= held / 5
    at = events.index(sold)
    [cancelled] = [e for e in events[:at] if isinstance(e, CancelRequested) and e.reason == intent.signal_id]  # fmt: skip
    stop = next(e.intent for e in events[at + 1 :] if isinstance(e, OrderIntended))
    assert (stop.purpose, stop.symbol) == (Purpose.STOP, intent.symbol)
    assert stop.stop_price == relief.done.stop_price
    assert 0 <= held - intent.quantity - stop.quantity < Decimal("0.01") * held
    assert cancelled.intent_no < intent.intent_no < stop.intent_no


def test_no_more_is_sold_at_once_than_one_order_takes(tmp_path, market, settings):
    def act(relief, position, candle):
        known = relief.state.instruments[candle.symbol]
        most = known.floor_quantity(position.quantity / 3)
        limited = replace(known, max_market_quantity=most)
        relief.state.instruments[candle.symbol] = limited
        submit = relief.relieve(position.quantity, candle)[-1]
        assert submit.intended.intent.quantity == most > 0
        relief.state.instruments[candle.symbol] = known

    Relief(market, settings, act).run(tmp_path)


def test_what_is_not_held_is_not_sold(tmp_path, market, settings, journal_of):
    def act(relief, position, candle):
        free = next(s for s in ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT") if s not in relief.state.books[Book.VALIDATED].positions)  # fmt: skip
        assert relief.engine.relieve(free, Decimal(1), 1.0, f"{RELIEF}x", relief.now_ns) == []
        assert not relief.engine.leaving(free)
        [cancel] = relief.relieve(Decimal("1e-9"), candle)
        assert isinstance(cancel, Cancel), "less than can be sold"
        relief.perform(cancel)

    Relief(market, settings, act).run(tmp_path)
    assert not of(journal_of(tmp_path), OrderIntended, Purpose.EMERGENCY)


def test_an_exit_meanwhile_sells_the_rest_and_leaves_the_relief_at_work(tmp_path, market, settings, journal_of):  # fmt: skip
    def act(relief, position, candle):
        first = relief.relieve(position.quantity / 2, candle)
        order = OperatorCommand(ts_event_ns=relief.now_ns, verb="flatten", reason="enough", command_id="1")  # fmt: skip
        rest = relief.engine.obey(order)
        relief.perform(*first, *rest)

    relief = Relief(market, settings, act).run(tmp_path)
    events = journal_of(tmp_path)
    symbol = relief.done.symbol
    assert symbol not in relief.state.books[Book.VALIDATED].positions
    emergencies = [e.intent for e in of(events, OrderIntended, Purpose.EMERGENCY) if e.intent.symbol == symbol]  # fmt: skip
    assert [relieves(intent) for intent in emergencies] == [True, False]
    assert sum(intent.quantity for intent in emergencies) <= relief.done.quantity
    numbers = {intent.intent_no for intent in emergencies}
    asked = {e.intent_no for e in of(events, CancelRequested)}
    assert not numbers & asked


@pytest.mark.parametrize("whole", [True, False])
def test_one_that_failed_is_not_owed_as_an_exit_is(tmp_path, market, settings, journal_of, whole):
    """Who asked for it repeats it: the engine puts the stop back and sells nothing."""

    def act(relief, position, candle):
        cancel, submit = relief.relieve(position.quantity if whole else position.quantity / 5, candle)  # fmt: skip
        number = submit.intended.intent.intent_no
        closed = OrderClosed(ts_event_ns=relief.now_ns, intent_no=number, status="never_placed", reason="away")  # fmt: skip
        relief.session._ledger.emit(closed)
        relief.perform(cancel)
        relief.session._protect([candle.symbol])

    Relief(market, settings, act).run(tmp_path)
    events = journal_of(tmp_path)
    [failed] = of(events, OrderIntended, Purpose.EMERGENCY)
    after = [e.intent for e in events[events.index(failed) + 1 :] if isinstance(e, OrderIntended)]
    mine = [i for i in after if i.symbol == failed.intent.symbol and i.book is Book.VALIDATED]
    assert mine[0].purpose is Purpose.STOP
    assert Purpose.EXIT not in {i.purpose for i in mine[:1]}


def test_after_a_restart_one_that_failed_is_not_owed_either(
    tmp_path, market, settings, journal_of
):
    def act(relief, position, candle):
        cancel, submit = relief.relieve(position.quantity, candle)
        number = submit.intended.intent.intent_no
        closed = OrderClosed(ts_event_ns=relief.now_ns, intent_no=number, status="never_placed", reason="away")  # fmt: skip
        relief.session._ledger.emit(closed)
        relief.perform(cancel)

    Relief(market, settings, act).run(tmp_path, more=1)
    before = len(journal_of(tmp_path))
    again = Relief(market, settings, lambda *_: None)
    again.run(tmp_path, more=2)
    later = [e for e in journal_of(tmp_path)[before:] if isinstance(e, OrderIntended)]
    assert Purpose.EMERGENCY not in {e.intent.purpose for e in later}


def test_entries_that_wait_are_called_back(tmp_path, market, settings, journal_of):
    def act(relief, position, candle):
        waiting = [
            order.intent.intent_no
            for order in relief.state.all_live_orders(Book.VALIDATED)
            if order.intent.purpose is Purpose.ENTRY
        ]
        if not waiting:
            relief.done = None  # later
            return
        called.extend(waiting)
        relief.perform(*relief.relieve(position.quantity / 5, candle))

    called = []
    Relief(market, settings, act).run(tmp_path)
    assert called
    asked = [e.intent_no for e in of(journal_of(tmp_path), CancelRequested)]
    assert set(called) <= set(asked)


def test_what_risk_refuses_is_told(tmp_path, market, settings, journal_of, monkeypatch):
    judged = RiskManager.validate

    def validate(self, intent, view):
        if relieves(intent):
            return RiskRefused("REDUCE_ONLY", 0.0, float(intent.quantity), Decimal(0))
        return judged(self, intent, view)

    monkeypatch.setattr(RiskManager, "validate", validate)

    def act(relief, position, candle):
        commands = relief.relieve(position.quantity / 5, candle)
        assert [type(command) for command in commands] == [Cancel]
        relief.perform(*commands)

    Relief(market, settings, act).run(tmp_path)
    events = journal_of(tmp_path)
    [told] = [e for e in of(events, RiskDecided) if e.signal_id.startswith(RELIEF)]
    assert (told.approved, told.code) == (False, "REDUCE_ONLY")
