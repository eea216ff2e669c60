"""The guard beside a session: what it measures and leaves alone, and why entries wait."""

import math
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.domain.account import Difference, DifferenceKind
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.domain.events import (
    InstrumentDefined,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    ProtectionAlarm,
    ProtectionPlanned,
    ProtectionSettled,
    Reconciled,
    SessionStarted,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import (
    Book,
    Fill,
    Liquidity,
    OrderIntent,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.engine import Submit
from bot4_runtime.protection.guard import LiquidationGuard
from bot4_runtime.protection.margin_book import MarginBook
from bot4_runtime.risk.liquidation import LiquidationLimits
from bot4_runtime.state.trading_state import TradingState

D = Decimal
S = 1_000_000_000
SAFE, DANGER = 100.0, 77.3  # of an isolated 4x long from 100; 92 % of its margin are used


class Room:
    """A session's ledger and engine, as far as the guard needs them, over a real state."""

    def __init__(self, symbols=("BTCUSDT",), most=None):
        self.state, self.events, self.followers = TradingState(), [], []
        self.selling, self.protected, self.refuses, self.relieved = set(), [], False, []
        self.emit(
            SessionStarted(
                ts_event_ns=0,
                epoch=1,
                mode="testnet",
                source="binance",
                origin=Origin.REAL,
                strategy="drill",
                config_hash="",
                schema_version=1,
                warm_from_ms=0,
                start_ms=0,
                quote="USDT",
                initial_cash=D(10_000),
                books=(Book.VALIDATED,),
            )
        )
        for symbol in symbols:
            rules = Instrument.assume(symbol, Market.USDM, 100.0)
            rules = msgspec.structs.replace(rules, max_market_quantity=most)
            self.emit(InstrumentDefined(ts_event_ns=0, instrument=rules))

    # the ledger
    def emit(self, event):
        self.state.apply(event)
        self.events.append(event)
        for hear in self.followers:
            hear(event)

    def follow(self, hear):
        self.followers.append(hear)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def alarms(self):
        return [alarm.code for alarm in self.of(ProtectionAlarm)]

    # the engine
    def leaving(self, symbol):
        return symbol in self.selling

    def protect(self, symbol):
        self.protected.append(symbol)
        return []

    def relieve(self, symbol, quantity, price, cause, now_ns):
        if self.refuses:
            return []
        self.relieved.append((symbol, quantity, price))
        intended = self.intend(symbol, Side.SELL, quantity, Purpose.EMERGENCY, cause, now_ns)
        return [Submit(None, intended)]

    # what happens
    def intend(self, symbol, side, quantity, purpose, signal="s", now_ns=0, stop=None):
        intent = OrderIntent(
            intent_no=self.state.next_intent_no,
            book=Book.VALIDATED,
            purpose=purpose,
            symbol=symbol,
            side=side,
            order_type=OrderType.STOP_MARKET if purpose is Purpose.STOP else OrderType.MARKET,
            quantity=quantity,
            price=None,
            stop_price=stop if purpose is Purpose.STOP else None,
            time_in_force=TimeInForce.GTC,
            reduce_only=side is Side.SELL,
            reference_price=D(100),
            stop_loss=stop if purpose is Purpose.ENTRY else None,
            expires_after=0,
            signal_id=signal,
            rule_id="drill",
            ts_ns=now_ns,
        )
        name, told = f"c{intent.intent_no}", payload_hash(intent)
        event = OrderIntended(ts_event_ns=now_ns, intent=intent, client_id=name, payload_hash=told)
        self.emit(event)
        return event

    def fill(self, intended, quantity, now_ns=0, price="100"):
        self.filled(intended.intent.intent_no, intended.intent.symbol, intended.intent.side, quantity, now_ns, price)  # fmt: skip

    def filled(self, number, symbol, side, quantity, now_ns=0, price="100"):
        fill = Fill(
            trade_id=f"{number}-{quantity}-{now_ns}",
            intent_no=number,
            book=Book.VALIDATED,
            symbol=symbol,
            side=side,
            price=D(price),
            quantity=quantity,
            fee=D(0),
            fee_asset="USDT",
            liquidity=Liquidity.TAKER,
            ts_event_ns=now_ns,
        )
        self.emit(OrderFilled(ts_event_ns=now_ns, fill=fill))

    def hold(self, symbol="BTCUSDT", quantity="10", stopped=True, stop="50"):
        entry = self.intend(symbol, Side.BUY, D(quantity), Purpose.ENTRY, stop=D(stop))
        self.fill(entry, D(quantity))
        if stopped:
            stop = self.intend(symbol, Side.SELL, D(quantity), Purpose.STOP, stop=D(stop))
            self.emit(OrderAccepted(ts_event_ns=0, intent_no=stop.intent.intent_no, venue_order_id="1"))  # fmt: skip


class Marks:
    def __init__(self):
        self.told = {}

    def latest(self):
        return dict(self.told)


class Desk:
    def __init__(self, room, symbols=("BTCUSDT",), **limits):
        self.room, self.book, self.marks, self.now = room, MarginBook("USDT"), Marks(), 0
        self.guard = LiquidationGuard(
            limits=LiquidationLimits(**limits),
            symbols=symbols,
            ledger=room,
            engine=room,
            book=self.book,
            marks=self.marks,
        )
        self.symbols = symbols

    def read(self, *rows, cross="1000", brackets=("BTCUSDT", "ETHUSDT", "SOLUSDT")):
        step = {"notionalFloor": 0, "maintMarginRatio": 0.004, "cum": 0.0}
        self.book.brackets([{"symbol": symbol, "brackets": [step]} for symbol in brackets])
        wallet = {"asset": "USDT", "crossWalletBalance": cross, "availableBalance": "500"}
        self.book.read(rows, {"assets": [wallet]}, self.now)

    def turn(self, price=SAFE, after_s=1, marked=True):
        self.now += after_s * S
        if marked:
            self.marks.told = dict.fromkeys(self.symbols, (price, self.now))
        return self.guard.turn(self.now)


def row(symbol="BTCUSDT", size="10", wallet="250", side="BOTH"):
    dies = (100 * D(size) - D(wallet)) / (D(size) * D("0.996")) if D(wallet) else D(0)
    return {
        "symbol": symbol,
        "positionSide": side,
        "positionAmt": size,
        "entryPrice": "100",
        "isolatedWallet": wallet,
        "isolatedMargin": wallet,
        "liquidationPrice": str(max(dies, D(0))),
    }


def held(most=None, **limits) -> Desk:
    room = Room(most=most)
    room.hold()
    desk = Desk(room, **limits)
    desk.read(row())
    return desk


# ----------------------------------------------------------------------- why entries wait
def test_entries_wait_until_the_account_and_the_marks_are_known():
    desk = Desk(Room())
    assert "not read yet" in desk.guard.hold
    assert desk.turn() == []
    assert "not read yet" in desk.guard.hold
    desk.read()
    desk.turn()
    assert desk.guard.hold == ""
    desk.turn(marked=False, after_s=3)
    assert desk.guard.hold == ""
    desk.turn(marked=False, after_s=1)
    assert desk.guard.hold == "the mark of BTCUSDT is 4000 ms old"
    desk.marks.told = {}
    desk.turn(marked=False)
    assert desk.guard.hold == "the mark of BTCUSDT is not streamed"
    desk.marks.told = {"BTCUSDT": (SAFE, desk.now + S + 501_000_000)}
    desk.turn(marked=False)
    assert "-501 ms old" in desk.guard.hold
    assert not desk.room.alarms(), "nothing is held"


def test_entries_wait_while_what_is_held_is_not_told_with_its_margin():
    desk = held()
    desk.turn()
    assert desk.guard.hold == ""
    desk.read(row(size="9"))
    desk.turn()
    assert desk.guard.hold == "the venue does not tell the margin of what is held: BTCUSDT"
    desk.read()
    desk.turn()
    assert "does not tell the margin" in desk.guard.hold


def test_entries_wait_in_danger_and_it_is_said_why():
    desk = held()
    desk.turn(DANGER)
    assert desk.guard.hold.startswith("liquidation prevention: BTCUSDT long: margin ratio")
    assert desk.room.alarms() == ["MARGIN_ACT"]


def test_entries_wait_while_a_change_could_not_be_read():
    desk = held()
    desk.book.changed({"T": 1})
    desk.turn()
    assert "cannot be read" in desk.guard.hold


@pytest.mark.parametrize("price", [math.nan, math.inf, 0.0])
def test_a_mark_that_is_no_price_is_unknown_and_entries_wait(price):
    desk = held()
    desk.turn(price)
    assert desk.room.alarms() == ["MARGIN_UNKNOWN"]
    assert "not known" in desk.guard.hold


def test_without_brackets_it_assumes_the_strictest_and_entries_wait():
    desk = held()
    desk.read(row(), brackets=())
    desk.turn()
    assert desk.room.alarms() == ["BRACKETS_UNKNOWN", "VENUE_DIFFERS"]
    assert "leverage brackets are not known" in desk.guard.hold


# ---------------------------------------------------------------------------- what is done
def test_a_plan_is_journaled_with_its_order_in_one_batch_and_given_once():
    desk = held()
    before = len(desk.room.events)
    [submit] = desk.turn(DANGER)
    kinds = [type(event) for event in desk.room.events[before:]]
    assert kinds == [ProtectionAlarm, OrderIntended, ProtectionPlanned]
    [planned] = desk.room.of(ProtectionPlanned)
    assert planned.intent == submit.intended.intent
    assert planned.client_id == submit.intended.client_id
    assert planned.payload_hash == submit.intended.payload_hash
    assert desk.room.relieved == [("BTCUSDT", D(2), DANGER)]
    assert desk.turn(DANGER) == []


def test_it_is_over_with_the_order_and_a_change_of_the_account_since():
    desk = held()
    [submit] = desk.turn(DANGER)
    desk.room.fill(submit.intended, D(2), desk.now + S, "77")
    desk.turn(DANGER)
    assert desk.guard.unread
    position = {
        "s": "BTCUSDT",
        "pa": "8",
        "ep": "100",
        "mt": "isolated",
        "iw": "200",
        "ps": "BOTH",
    }
    change = {"T": desk.now // 1_000_000, "a": {"B": [], "P": [position]}}
    desk.book.changed(change)
    desk.turn(SAFE)
    assert not desk.guard.unread
    [settled] = desk.room.of(ProtectionSettled)
    assert (settled.status, settled.filled, settled.spent) == ("filled", D(2), D(154))
    assert desk.room.alarms() == ["MARGIN_ACT", "MARGIN_CLEARED"]


def test_no_step_begins_while_the_engine_sells_already():
    desk = held()
    desk.room.selling.add("BTCUSDT")
    assert desk.turn(DANGER) == []
    assert not desk.room.relieved
    desk.room.selling.clear()
    assert len(desk.turn(DANGER)) == 1


def test_what_the_engine_does_not_order_is_not_journaled_and_tried_again():
    desk = held()
    desk.room.refuses = True
    assert desk.turn(DANGER) == []
    assert not desk.room.of(ProtectionPlanned)
    desk.room.refuses = False
    assert len(desk.turn(DANGER)) == 1


def test_margin_is_never_added():
    desk = held(actions=("add_margin",))
    assert desk.turn(DANGER) == []
    assert desk.room.alarms() == ["MARGIN_ACT", "ACTION_IMPOSSIBLE"]
    with pytest.raises(InvariantViolated, match="never does"):
        desk.guard._hands.add_margin(1, "BTCUSDT", 1, D(5), 0)


def test_one_order_sells_no_more_than_the_venue_takes():
    desk = held(most=D("1.5"))
    desk.turn(DANGER)
    assert desk.room.relieved == [("BTCUSDT", D("1.5"), DANGER)]


@pytest.mark.parametrize("told", [True, False])
def test_a_missing_stop_is_told_and_the_engine_asked_for_it(told):
    room = Room()
    room.hold(stopped=False)
    if told:  # and one that covers half of it is not enough
        stop = room.intend("BTCUSDT", Side.SELL, D(5), Purpose.STOP, stop=D(50))
        room.emit(
            OrderAccepted(ts_event_ns=0, intent_no=stop.intent.intent_no, venue_order_id="1")
        )
    desk = Desk(room)
    desk.read(row())
    desk.turn()
    assert desk.room.alarms() == ["STOP_MISSING"]
    assert room.protected == ["BTCUSDT"]
    assert not room.of(ProtectionPlanned)


def test_a_position_without_a_stop_price_is_told_as_bare():
    room = Room()
    entry = room.intend("BTCUSDT", Side.BUY, D(10), Purpose.ENTRY)
    room.fill(entry, D(10))
    desk = Desk(room)
    desk.read(row())
    desk.turn()
    assert "STOP_MISSING" in room.alarms()
    assert not room.protected, "there is no price to put it at"


def test_a_stop_that_is_crossed_and_not_done_has_the_position_closed():
    room = Room()
    room.hold(stop="95")
    desk = Desk(room)
    desk.read(row())
    desk.turn(94.0)
    desk.turn(94.0, after_s=4)
    assert not room.relieved
    desk.turn(94.0)
    assert room.relieved == [("BTCUSDT", D(10), 94.0)]


# ------------------------------------------------------------------- what is left alone
def test_wallets_that_hold_nothing_of_ours_are_left_alone():
    desk = held()
    desk.read(
        row(),
        row("ETHUSDT", "-50", "0", "SHORT"),
        row("SOLUSDT", "7", "1"),
        row("BTCUSDT", "-3", "5", "SHORT"),
    )
    desk.turn()
    assert [wallet.name for wallet in desk.guard._monitor.wallets] == ["BTCUSDT long"]
    assert desk.guard.hold == ""


def test_on_a_shared_wallet_what_is_not_ours_is_measured_and_never_sold():
    room = Room(("BTCUSDT", "ETHUSDT"))
    room.hold()
    desk = Desk(room)
    desk.read(row(wallet="0"), row("ETHUSDT", "-50", "0", "BOTH"), cross="700")
    desk.book.marks({"ETHUSDT": (108.0, 1), "BTCUSDT": (100.0, 1), "XRPUSDT": (1.0, 1)})
    desk.turn()
    [wallet] = desk.guard._monitor.wallets
    assert [leg.foreign for leg in wallet.legs] == [False, True]
    desk.book.marks({"ETHUSDT": (113.5, desk.now)})
    desk.turn()
    [wallet] = desk.guard._monitor.wallets
    assert wallet.margin_balance == pytest.approx(700 - 50 * 13.5)
    assert {symbol for symbol, _, _ in room.relieved} == {"BTCUSDT"}
    assert "STOP_MISSING" not in room.alarms()
    assert "MARGIN_UNKNOWN" not in room.alarms()


# ----------------------------------------------------------------------------- the marks
def test_the_first_mark_that_is_asked_for_stands_in_until_one_is_streamed():
    desk = held()
    desk.book.marks({"BTCUSDT": (DANGER, S)})
    desk.turn(marked=False)
    assert desk.room.alarms() == ["MARGIN_ACT"]
    assert desk.guard.hold == "the mark of BTCUSDT is not streamed"


def test_where_none_is_ever_streamed_that_is_told_once():
    desk = held()
    for _ in range(8):
        desk.book.marks({"BTCUSDT": (SAFE, desk.now)})
        desk.turn(marked=False)
    assert desk.room.alarms() == ["MARK_STALE"]


def test_later_ones_value_it_and_do_not_make_the_stream_count_as_alive():
    desk = held()
    desk.turn()
    for _ in range(8):
        desk.book.marks({"BTCUSDT": (DANGER, desk.now)})
        desk.turn(marked=False)
    assert desk.room.alarms() == ["MARGIN_ACT", "MARK_STALE"]
    assert len(desk.room.relieved) == 1


# ------------------------------------------------------------------------ after a restart
@pytest.mark.parametrize(
    ("became", "status", "filled"),
    [
        ("filled", "filled", D(2)),
        ("canceled", "canceled", D("0.5")),
        ("never_placed", "never_placed", D(0)),
    ],
)
def test_after_a_restart_it_knows_what_was_booked_of_an_open_plan(became, status, filled):
    desk = held()
    [submit] = desk.turn(DANGER)
    room, number = desk.room, submit.intended.intent.intent_no
    if filled:
        room.fill(submit.intended, filled, desk.now, "77")
    if became != "filled":
        room.emit(OrderClosed(ts_event_ns=desk.now, intent_no=number, status=became, reason=""))
    room.followers.clear()
    again = Desk(room)
    again.now = desk.now + S
    again.read(row(size=str(10 - filled), wallet=str((10 - filled) * 25)))
    again.turn(SAFE)
    [settled] = room.of(ProtectionSettled)
    assert (settled.number, settled.status, settled.filled) == (1, status, filled)
    assert again.turn(DANGER)
    assert room.of(ProtectionPlanned)[-1].number == 2


def test_after_a_restart_an_open_order_keeps_its_symbol_waiting_until_it_ends():
    desk = held()
    [submit] = desk.turn(DANGER)
    room = desk.room
    room.followers.clear()
    again = Desk(room)
    again.now = desk.now
    again.read(row())
    assert again.turn(DANGER) == []
    assert again.turn(DANGER) == []
    room.fill(submit.intended, D(2), again.now, "77")
    again.turn(DANGER)
    assert again.guard.unread
    again.read(row(size="8", wallet="200"))
    again.turn(DANGER)
    assert [settled.filled for settled in room.of(ProtectionSettled)] == [D(2)]


def test_a_plan_whose_order_is_forgotten_is_over_and_its_end_unknown():
    desk = held()
    [submit] = desk.turn(DANGER)
    room = desk.room
    del room.state.orders[submit.intended.intent.intent_no]
    again = Desk(room)
    again.now = desk.now + S
    again.read(row())
    again.turn(SAFE)
    [settled] = room.of(ProtectionSettled)
    assert (settled.status, settled.text) == ("unknown", "forgotten")


def test_a_plan_to_move_margin_of_another_time_is_over_with_a_reading():
    room = Room()
    room.hold()
    room.emit(
        ProtectionPlanned(
            ts_event_ns=0,
            number=1,
            action="add_margin",
            wallet="BTCUSDT long",
            symbol="BTCUSDT",
            intent=None,
            client_id="",
            payload_hash="",
            amount=D(5),
            reason="",
            numbers={},
        )
    )
    desk = Desk(room)
    desk.now = 20 * S
    desk.read(row())
    desk.turn()
    assert [settled.status for settled in room.of(ProtectionSettled)] == ["unknown"]


# ----------------------------------------------------------------- what the venue does itself
def forced(desk, name, quantity="10"):
    difference = Difference(kind=DifferenceKind.ORDER, name=name, ours=D(0), venue=D(quantity), reason="")  # fmt: skip
    if name:
        desk.room.emit(Reconciled(ts_event_ns=0, trades_through={}, opening=None, differences=(difference,)))  # fmt: skip
    desk.room.filled(0, "BTCUSDT", Side.SELL, D(quantity), desk.now, "70")
    desk.read()
    desk.turn()
    return [a for a in desk.room.of(ProtectionAlarm) if a.code in ("LIQUIDATED", "DELEVERAGED")]


def test_a_step_through_the_liquidation_price_left_no_room():
    desk = held()
    desk.turn(90.0)
    [alarm] = forced(desk, "autoclose-1")
    assert alarm.text == (
        "BTCUSDT: the venue liquidated what was held, at 70; 40% of its margin were used at 90 "
        "when it was last seen alive: one step of the mark left no room to act"
    )
    assert alarm.numbers["worst_before"] == pytest.approx(1 - (250 - 100 - 3.6) / 246)


def test_the_mark_of_the_step_itself_does_not_count_as_room():
    desk = held()
    desk.turn(90.0)
    desk.turn(60.0)
    [alarm] = forced(desk, "autoclose-1")
    assert alarm.text.endswith("no room to act")


def test_where_there_was_room_it_is_told_that_acting_did_not_suffice():
    desk = held()
    desk.turn(DANGER)
    [alarm] = forced(desk, "autoclose-1")
    assert alarm.text.endswith("92% of its margin were used at 77.3, and acting did not suffice")


def test_where_nothing_was_known_that_is_told():
    desk = held()
    [alarm] = forced(desk, "")
    assert "the venue closed it, at 70; its margin was not known before" in alarm.text


def test_what_is_forced_in_parts_is_told_once_and_a_deleveraging_as_that():
    desk = held()
    desk.turn()
    forced(desk, "adl_autoclose", "4")
    [alarm] = forced(desk, "adl_autoclose", "6")
    assert alarm.code == "DELEVERAGED"
    assert alarm.text.endswith("(auto-deleveraging), at 70")


def test_a_margin_call_is_told():
    desk = held()
    desk.book.called(["BTCUSDT", "ETHUSDT"])
    desk.turn()
    [alarm] = desk.room.of(ProtectionAlarm)
    assert (alarm.code, alarm.subject) == ("MARGIN_CALL", "BTCUSDT, ETHUSDT")
