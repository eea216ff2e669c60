"""The keeper reads a scripted venue; each test names what the venue says and what follows.

Named regressions: fills invented from quantities (NautilusTrader #4736, #3493), a missing
balance believed (freqtrade #13399), a failed request taken for a failed order (hummingbot #493).
"""

from collections.abc import Callable, Iterator
from decimal import Decimal

import msgspec
import pytest

from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.account import DifferenceKind
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.errors import (
    ConfigError,
    LocationRefused,
    OutcomeUnknown,
    VenueUnreachable,
)
from bot4_runtime.domain.events import (
    JournaledEvent,
    OperatorCommand,
    OrderAccepted,
    OrderClosed,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    Reconciled,
    SessionStarted,
)
from bot4_runtime.domain.order import (
    Book,
    Liquidity,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Purpose,
    Side,
    TimeInForce,
    payload_hash,
)
from bot4_runtime.exchange.keeper import FRESH_MS, INTERVAL_MS, AccountKeeper
from bot4_runtime.exchange.protocols import UserUpdate, VenueOrder, VenueTrade
from bot4_runtime.state.trading_state import TradingState

MS = 1_000_000
SYMBOL = "BTCUSDT"


class Venue:
    """Says what a test put into it."""

    name = "scripted"

    def __init__(self) -> None:
        self.orders: dict[str, VenueOrder] = {}
        self.open: list[VenueOrder] = []
        self.done: list[VenueTrade] = []
        self.held = {"USDT": Decimal(10_000)}
        self.contracts: dict[str, Decimal] | None = None
        self.names: dict[str, str] = {}
        self.updates: list[UserUpdate] = []
        self.alive = True
        self.skew_ms = 0
        self.fails: Exception | None = None
        self.clock: ManualClock

    def poll(self) -> list[UserUpdate]:
        told, self.updates = self.updates, []
        return told

    def stream_alive(self) -> bool:
        return self.alive

    def query(self, symbol: str, client_id: str) -> VenueOrder | None:
        return self.orders.get(client_id)

    def open_orders(self) -> list[VenueOrder]:
        return self.open

    def trades(self, symbol: str, after_trade_id: int) -> list[VenueTrade]:
        return [t for t in self.done if t.symbol == symbol and t.trade_id > after_trade_id]

    def balances(self) -> dict[str, Decimal]:
        if self.fails is not None:
            raise self.fails
        return dict(self.held)

    def positions(self) -> dict[str, Decimal] | None:
        return self.contracts

    def name_of(self, trade: VenueTrade) -> str:
        return self.names.get(trade.venue_order_id, "")

    def server_time_ms(self) -> int:
        return self.clock.now_ns() // MS + self.skew_ms


class Desk:
    """A keeper, its venue, and the journal it tells."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_000_000 * MS)
        self.venue = Venue()
        self.venue.clock = self.clock
        self.state = TradingState()
        self.events: list[JournaledEvent] = []
        self.canceled: list[int] = []
        self.emit(
            SessionStarted(
                ts_event_ns=0,
                epoch=2,
                mode="testnet",
                source="s",
                origin=Origin.REAL,
                strategy="s",
                config_hash="c",
                schema_version=1,
                warm_from_ms=0,
                start_ms=0,
                quote="USDT",
                initial_cash=Decimal(1_000),
                books=(Book.VALIDATED,),
            )
        )
        self.keeper = AccountKeeper(
            self.venue,  # type: ignore[arg-type]
            self,
            epoch=2,
            symbols=(SYMBOL,),
            cancel=lambda order, _: self.canceled.append(order.intent.intent_no),
            clock=self.clock,
            timer=self.clock.now_ns,
        )

    def emit(self, event: JournaledEvent) -> None:
        if self.state.apply(event):
            self.events.append(event)

    def after(self, ms: int) -> list[str]:
        self.clock.advance_to(self.clock.now_ns() + ms * MS)
        return self.keeper.turn()

    def ready(self) -> None:
        """Read twice, so that the opening is known."""
        self.after(0)
        self.after(2_000)
        assert self.keeper.hold == ""

    def intend(
        self,
        *,
        side: Side = Side.BUY,
        quantity: str = "1",
        epoch: int = 2,
        answered: bool = True,
        ts_ns: int = 0,
    ) -> str:
        number = self.state.next_intent_no
        intent = OrderIntent(
            intent_no=number,
            book=Book.VALIDATED,
            purpose=Purpose.ENTRY if side is Side.BUY else Purpose.EXIT,
            symbol=SYMBOL,
            side=side,
            order_type=OrderType.MARKET,
            quantity=Decimal(quantity),
            price=None,
            stop_price=None,
            time_in_force=TimeInForce.GTC,
            reduce_only=side is Side.SELL,
            reference_price=Decimal(100),
            stop_loss=Decimal(90),
            expires_after=0,
            signal_id="s",
            rule_id="r",
            ts_ns=ts_ns,
        )
        name = client_id(epoch, number)
        self.emit(
            OrderIntended(
                ts_event_ns=0, intent=intent, client_id=name, payload_hash=payload_hash(intent)
            )
        )
        if answered:
            self.emit(
                OrderAccepted(ts_event_ns=0, intent_no=number, venue_order_id=str(100 + number))
            )
        return name

    def order(self, number: int) -> Order:
        return self.state.orders[number]

    def told(
        self, name: str, status: OrderStatus = OrderStatus.ACCEPTED, filled: str = "0", **changed
    ) -> VenueOrder:
        number = int(name.rpartition("-")[2], 32) if name.startswith("b4-") else 77
        order = VenueOrder(
            client_id=name,
            venue_order_id=str(100 + number),
            symbol=SYMBOL,
            side=Side.BUY,
            status=status,
            quantity=Decimal(1),
            filled=Decimal(filled),
            spent=Decimal(filled) * 100,
            updated_ms=1_000_001,
        )
        return msgspec.structs.replace(order, **changed)

    def trade(self, number: int, trade_id: int, quantity: str = "1", **changed) -> VenueTrade:
        trade = VenueTrade(
            symbol=SYMBOL,
            trade_id=trade_id,
            venue_order_id=str(100 + number),
            side=Side.BUY,
            price=Decimal(100),
            quantity=Decimal(quantity),
            fee=Decimal(0),
            fee_asset="USDT",
            liquidity=Liquidity.TAKER,
            time_ms=1_000_001,
        )
        return msgspec.structs.replace(trade, **changed)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def differences(self) -> list[str]:
        return [d.key for d in self.state.account.differences]


@pytest.fixture
def desk() -> Iterator[Desk]:
    yield Desk()


@pytest.fixture
def ready(desk: Desk) -> Desk:
    desk.ready()
    return desk


# ----------------------------------------------------------------------- start
def test_entries_wait_until_the_account_was_read_twice_alike(desk: Desk) -> None:
    assert "not read twice" in desk.keeper.hold
    desk.after(0)
    assert "not read twice" in desk.keeper.hold
    desk.venue.held["USDT"] += 1
    desk.after(2_000)
    assert "not read twice" in desk.keeper.hold
    desk.after(2_000)
    assert desk.keeper.hold == ""
    assert desk.state.account.opening == {"USDT": Decimal(10_001)}


def test_a_location_refused_ends_a_run_that_was_never_answered_and_no_other(desk: Desk) -> None:
    desk.venue.fails = VenueUnreachable("no route")
    desk.after(0)
    desk.venue.fails = LocationRefused("451")
    with pytest.raises(LocationRefused):
        desk.after(2_000)
    desk.venue.fails = None
    desk.after(2_000)
    desk.venue.fails = LocationRefused("451")
    desk.after(INTERVAL_MS)
    assert "451" in desk.keeper.hold


def test_an_unreachable_venue_is_asked_again_for_ever(desk: Desk) -> None:
    desk.venue.fails = VenueUnreachable("no route")
    for _ in range(5):
        desk.after(2_000)
        assert "no route" in desk.keeper.hold
    desk.venue.fails = None
    desk.after(2_000)
    desk.after(2_000)
    assert desk.keeper.hold == ""


def test_an_account_with_too_little_money_ends_the_run_after_two_looks(desk: Desk) -> None:
    desk.venue.held = {"USDT": Decimal(999)}
    desk.after(0)
    with pytest.raises(ConfigError, match="holds 999 USDT, and initial_cash is 1000"):
        desk.after(2_000)


def test_an_empty_answer_is_not_the_opening(desk: Desk) -> None:
    full, desk.venue.held = desk.venue.held, {}
    desk.after(0)
    desk.venue.held = full
    desk.after(2_000)
    desk.after(2_000)
    assert desk.state.account.opening == full


def test_trades_from_before_are_nobodys_business(desk: Desk) -> None:
    desk.venue.done = [desk.trade(50, 900)]
    desk.ready()
    assert desk.state.account.trades_through == {SYMBOL: 900}
    assert desk.differences == []
    assert desk.of(OrderFilled) == []


def test_what_was_never_answered_is_unknown_after_a_restart(ready: Desk) -> None:
    ready.intend(epoch=1, answered=False)
    ready.intend(epoch=1)
    ready.keeper.start()
    assert [order.status for order in ready.state.all_live_orders()] == [
        OrderStatus.UNKNOWN,
        OrderStatus.ACCEPTED,
    ]


# --------------------------------------------------------------------- unknown
def test_an_unknown_order_is_never_placed_only_late_and_adopted_later(ready: Desk) -> None:
    name = ready.intend(answered=False)
    ready.emit(OrderOutcomeUnknown(ts_event_ns=0, intent_no=1, reason="timeout"))
    ready.keeper.sent(1)
    for _ in range(6):
        ready.after(2_000)
        assert ready.order(1).status is OrderStatus.UNKNOWN
    ready.after(2_000)
    ready.after(2_000)
    assert ready.order(1).status is OrderStatus.NEVER_PLACED
    ready.venue.open = [ready.told(name)]
    ready.venue.orders[name] = ready.told(name)
    ready.after(INTERVAL_MS)
    assert ready.order(1).status is OrderStatus.ACCEPTED
    assert ready.differences == []


def test_a_trade_of_an_order_taken_for_never_placed_finds_it(ready: Desk) -> None:
    name = ready.intend(answered=False)
    ready.emit(OrderClosed(ts_event_ns=0, intent_no=1, status="never_placed", reason="late"))
    ready.venue.orders[name] = ready.told(name, OrderStatus.FILLED, "1")
    ready.venue.done = [ready.trade(1, 5)]
    ready.after(INTERVAL_MS)
    assert ready.order(1).status is OrderStatus.FILLED
    assert ready.differences == []


def test_a_trade_that_no_order_of_ours_explains_is_foreign(ready: Desk) -> None:
    ready.intend(answered=False)
    ready.emit(OrderClosed(ts_event_ns=0, intent_no=1, status="never_placed", reason="late"))
    ready.venue.done = [ready.trade(1, 5)]
    ready.after(INTERVAL_MS)
    ready.after(2_000)
    assert ready.differences == [f"trade {SYMBOL}:5"]
    assert ready.order(1).status is OrderStatus.NEVER_PLACED


def test_a_trade_of_no_known_order_waits_for_the_unknown_one(ready: Desk) -> None:
    name = ready.intend(answered=False)
    ready.emit(OrderOutcomeUnknown(ts_event_ns=0, intent_no=1, reason="timeout"))
    ready.keeper.sent(1)
    ready.venue.done = [ready.trade(1, 5)]
    ready.after(2_000)
    assert "outcome is not known" in ready.keeper.hold
    assert ready.differences == []
    ready.venue.orders[name] = ready.told(name, OrderStatus.FILLED, "1")
    ready.venue.held = {"USDT": Decimal(9_900), "BTC": Decimal(1)}
    ready.after(2_000)
    assert ready.order(1).status is OrderStatus.FILLED
    assert ready.keeper.hold == ""


# ---------------------------------------------------------------------- orders
def test_fills_come_from_trades_and_never_from_quantities(ready: Desk) -> None:
    name = ready.intend()
    ready.venue.orders[name] = ready.told(name, OrderStatus.FILLED, "1")
    ready.venue.updates = [UserUpdate(order=ready.venue.orders[name], trade=None)]
    ready.after(2_000)
    assert ready.of(OrderFilled) == []
    assert ready.order(1).status is OrderStatus.ACCEPTED
    ready.venue.done = [ready.trade(1, 5, "0.4"), ready.trade(1, 6, "0.6")]
    assert ready.after(2_000) == [SYMBOL]
    assert [e.fill.trade_id for e in ready.of(OrderFilled)] == ["5", "6"]
    assert ready.order(1).status is OrderStatus.FILLED


def test_updates_may_come_twice_and_in_any_order(ready: Desk) -> None:
    name = ready.intend(answered=False)
    part = UserUpdate(
        order=ready.told(name, OrderStatus.PARTIALLY_FILLED, "0.4"), trade=ready.trade(1, 5, "0.4")
    )
    whole = UserUpdate(
        order=ready.told(name, OrderStatus.FILLED, "1"), trade=ready.trade(1, 6, "0.6")
    )
    new = UserUpdate(order=ready.told(name), trade=None)
    ready.venue.updates = [whole, part, new, whole, part]
    ready.after(1)
    assert ready.order(1).status is OrderStatus.FILLED
    assert ready.state.books[Book.VALIDATED].positions[SYMBOL].quantity == 1
    assert len(ready.of(OrderFilled)) == 2


def test_an_order_ends_only_when_its_trades_are_booked(ready: Desk) -> None:
    name = ready.intend()
    ready.venue.orders[name] = ready.told(name, OrderStatus.CANCELED, "0.4")
    ready.venue.updates = [UserUpdate(order=ready.venue.orders[name], trade=None)]
    ready.after(1)
    assert ready.order(1).status is OrderStatus.ACCEPTED
    ready.venue.done = [ready.trade(1, 5, "0.4")]
    ready.after(2_000)
    assert ready.order(1).status is OrderStatus.CANCELED
    assert ready.order(1).filled == Decimal("0.4")


def test_a_rejection_told_by_the_venue_ends_the_order(ready: Desk) -> None:
    name = ready.intend(answered=False)
    ready.venue.updates = [UserUpdate(order=ready.told(name, OrderStatus.REJECTED), trade=None)]
    ready.after(1)
    assert ready.of(OrderAccepted) == []
    (rejected,) = ready.of(OrderRejected)
    assert rejected.code == "VENUE"


def test_a_cancel_without_effect_is_repeated(ready: Desk) -> None:
    from bot4_runtime.domain.events import CancelRequested

    name = ready.intend()
    ready.emit(CancelRequested(ts_event_ns=0, intent_no=1, reason="r"))
    ready.venue.orders[name] = ready.told(name)
    ready.keeper.hurry()
    ready.after(2_000)
    ready.after(2_000)
    assert ready.canceled == [1, 1]


def test_the_newer_of_two_answers_counts(ready: Desk) -> None:
    name = ready.intend()
    ready.venue.open = [ready.told(name, OrderStatus.PARTIALLY_FILLED, "0.4")]
    ready.venue.orders[name] = ready.told(name)
    ready.venue.done = [ready.trade(1, 5, "0.4")]
    ready.venue.held = {"USDT": Decimal(9_960), "BTC": Decimal("0.4")}
    ready.after(INTERVAL_MS)
    assert ready.order(1).filled == Decimal("0.4")
    assert ready.keeper.hold == ""


def test_an_accepted_order_that_is_gone_is_a_difference_after_two_looks(ready: Desk) -> None:
    name = ready.intend()
    ready.after(INTERVAL_MS)
    assert ready.differences == []
    assert "to be confirmed" in ready.keeper.hold
    ready.after(2_000)
    assert ready.differences == [f"order {name}"]
    assert ready.order(1).status is OrderStatus.ACCEPTED
    ready.emit(OperatorCommand(ts_event_ns=0, verb="accept", reason="r", command_id="1"))
    ready.after(2_000)
    assert ready.order(1).status is OrderStatus.CANCELED


def test_an_order_that_ended_here_and_lives_there_is_a_difference(ready: Desk) -> None:
    name = ready.intend()
    ready.emit(OrderClosed(ts_event_ns=0, intent_no=1, status="canceled", reason="r"))
    ready.venue.open = [ready.told(name)]
    ready.after(INTERVAL_MS)
    ready.after(2_000)
    assert ready.differences == [f"order {name}"]


# ----------------------------------------------------------------- differences
def accept(desk: Desk) -> None:
    desk.emit(OperatorCommand(ts_event_ns=0, verb="accept", reason="known", command_id="1"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("web_7Kx", "not sent by Bot4"),
        ("b4-3-1", "runtime 3 trades this account"),
        ("b4-2-9", "no such intent"),
        ("b4-1-1-aaaaa", "another journal (aaaaa) trades this account"),
    ],
)
def test_an_order_that_is_not_ours_stops_entries_at_once(ready: Desk, name: str, why: str) -> None:
    ready.venue.updates = [UserUpdate(order=ready.told(name), trade=ready.trade(77, 5))]
    ready.after(1)
    assert why in ready.keeper.hold
    assert ready.of(OrderFilled) == []
    ready.venue.open = [ready.told(name)]
    ready.after(INTERVAL_MS)
    assert ready.differences == [f"order {name}"]
    accept(ready)
    ready.after(INTERVAL_MS)
    assert ready.keeper.hold == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"quantity": Decimal(2)},
        {"side": Side.SELL},
        {"symbol": "ETHUSDT"},
        {"client_id": "b4-1-1"},
    ],
)
def test_an_order_unlike_its_intent_is_not_ours(ready: Desk, changed: dict[str, object]) -> None:
    name = ready.intend()
    ready.venue.orders[name] = ready.told(name)
    ready.venue.updates = [UserUpdate(order=ready.told(name, **changed), trade=None)]
    ready.after(1)
    assert len(ready.differences) == 1


def test_an_order_forgotten_long_ago_is_no_stranger(ready: Desk) -> None:
    name = ready.intend()
    del ready.state.orders[1]
    ready.state._live.clear()
    ready.venue.updates = [UserUpdate(order=ready.told(name), trade=ready.trade(1, 5))]
    ready.after(1)
    assert ready.differences == []
    assert ready.of(OrderFilled) == []


def test_a_foreign_trade_is_a_difference_after_two_looks_and_read_past_once_accepted(
    ready: Desk,
) -> None:
    ready.venue.done = [ready.trade(66, 5)]
    ready.after(INTERVAL_MS)
    assert ready.differences == []
    ready.after(2_000)
    assert ready.differences == [f"trade {SYMBOL}:5"]
    assert ready.state.account.trades_through[SYMBOL] == 0
    accept(ready)
    ready.after(INTERVAL_MS)
    assert ready.state.account.trades_through[SYMBOL] == 5
    assert ready.keeper.hold == ""


def test_a_deposit_waits_for_the_operator(ready: Desk) -> None:
    ready.venue.held["USDT"] += 250
    ready.after(INTERVAL_MS)
    ready.after(2_000)
    assert ready.differences == ["balance USDT"]
    assert "ours 10000, the venue's 10250" in ready.keeper.hold
    ready.after(INTERVAL_MS)
    assert len(ready.of(Reconciled)) == 3
    accept(ready)
    ready.after(INTERVAL_MS)
    assert ready.keeper.hold == ""
    assert ready.state.account.expected("USDT") == 10_250


def test_a_difference_that_went_away_is_accepted_as_it_is_now(ready: Desk) -> None:
    ready.venue.held["USDT"] += 250
    ready.venue.held["BNB"] = Decimal(1)
    ready.after(INTERVAL_MS)
    ready.after(2_000)
    assert "and 1 more" in ready.keeper.hold
    ready.venue.held["USDT"] -= 250
    ready.after(INTERVAL_MS)
    ready.after(2_000)
    assert ready.keeper.hold != ""
    accept(ready)
    ready.after(INTERVAL_MS)
    assert ready.keeper.hold == ""
    assert ready.state.account.expected("USDT") == 10_000
    assert {d.kind for d in ready.of(Reconciled)[-1].differences} <= {DifferenceKind.BALANCE}


@pytest.mark.parametrize("error", [VenueUnreachable("gone"), OutcomeUnknown("cut short")])
def test_a_missing_balance_is_never_believed_and_a_failed_reading_forgets_its_doubts(
    ready: Desk, error: Exception
) -> None:
    full, ready.venue.held = ready.venue.held, {}
    ready.after(INTERVAL_MS)
    assert "to be confirmed" in ready.keeper.hold
    ready.venue.held, ready.venue.fails = full, error
    ready.after(2_000)
    assert str(error) in ready.keeper.hold
    ready.venue.held, ready.venue.fails = {}, None
    ready.after(2_000)
    assert ready.differences == []
    ready.venue.held = full
    ready.after(2_000)
    assert ready.keeper.hold == ""


def test_balances_that_differed_hold_entries_until_they_are_compared_again(ready: Desk) -> None:
    """A reading that cannot compare them does not make them agree."""
    ready.venue.held["USDT"] += 250
    ready.after(INTERVAL_MS)
    assert "to be confirmed" in ready.keeper.hold
    unclear = ready.intend()
    ready.venue.orders[unclear] = ready.told(unclear, filled="1")  # its trade is not told yet
    ready.after(2_000)
    assert "differed when they were last compared" in ready.keeper.hold
    ready.venue.fails = VenueUnreachable("gone")
    ready.after(2_000)
    ready.venue.fails = None
    ready.after(2_000)
    assert "differed when they were last compared" in ready.keeper.hold
    ready.venue.orders[unclear] = ready.told(unclear, OrderStatus.FILLED, "1")
    ready.venue.done = [ready.trade(1, 5)]
    ready.venue.held = {"USDT": Decimal(9_900), "BTC": Decimal(1)}  # the 250 were withdrawn again
    ready.after(2_000)
    assert ready.keeper.hold == ""
    assert ready.differences == []


# ------------------------------------------------------------- stream and time
def test_a_dead_stream_holds_entries_and_its_return_reads_the_account(ready: Desk) -> None:
    ready.venue.alive = False
    ready.after(1)
    assert "user stream" in ready.keeper.hold
    name = ready.intend()
    ready.venue.orders[name] = ready.told(name, OrderStatus.FILLED, "1")
    ready.venue.done = [ready.trade(1, 5)]
    ready.venue.held = {"USDT": Decimal(9_900), "BTC": Decimal(1)}
    ready.venue.alive = True
    ready.after(1)
    assert ready.order(1).status is OrderStatus.FILLED
    assert ready.keeper.hold == ""


@pytest.mark.parametrize("skew_ms", [501, -501, 120_000])
def test_a_wrong_clock_holds_entries(ready: Desk, skew_ms: int) -> None:
    ready.venue.skew_ms = skew_ms
    ready.after(INTERVAL_MS)
    assert "ms apart" in ready.keeper.hold
    ready.venue.skew_ms = 500
    ready.after(INTERVAL_MS)
    assert ready.keeper.hold == ""


def test_a_comparison_does_not_last(ready: Desk) -> None:
    ready.clock.advance_to(ready.clock.now_ns() + (FRESH_MS + 1) * MS)
    assert "too old" in ready.keeper.hold


def test_balances_are_not_compared_while_trades_come_in(ready: Desk) -> None:
    name = ready.intend()
    ready.venue.orders[name] = ready.told(name)

    def trades_while_asked(kept: Callable[[], dict[str, Decimal]]) -> dict[str, Decimal]:
        ready.venue.done = [ready.trade(1, 5)]
        return {**kept(), "USDT": Decimal(9_900), "BTC": Decimal(1)}

    kept = ready.venue.balances
    ready.venue.balances = lambda: trades_while_asked(kept)  # type: ignore[method-assign]
    ready.after(INTERVAL_MS)
    assert ready.differences == []
    assert "to be confirmed" not in ready.keeper.hold
    assert ready.order(1).filled == 1


@pytest.fixture
def holding(ready: Desk) -> Desk:
    """1 bought; a sale of it (intent 2) is open at the venue; intent 3 is to sell next."""
    bought = ready.intend()
    ready.venue.orders[bought] = ready.told(bought, OrderStatus.FILLED, "1")
    ready.venue.done = [ready.trade(1, 5)]
    ready.keeper.hurry()
    ready.after(2_000)
    selling(ready, ready.intend(side=Side.SELL))
    return ready


def selling(
    desk: Desk, name: str, status=OrderStatus.ACCEPTED, filled: str = "0", **changed
) -> None:
    desk.venue.orders[name] = desk.told(name, status, filled, side=Side.SELL, **changed)


def test_nothing_is_asked_before_the_only_order_that_reduces_and_before_entries(
    holding: Desk,
) -> None:
    first = holding.order(2).intent
    holding.venue.orders.clear()  # whoever asks gets no answer
    assert holding.keeper.unsure(first) == ""
    holding.intend()
    assert holding.keeper.unsure(holding.order(3).intent) == ""


def test_a_stop_that_the_venue_ends_is_told_at_once_so_that_another_is_put(holding: Desk) -> None:
    holding.keeper.turn()
    ended = holding.told(client_id(2, 2), OrderStatus.CANCELED, side=Side.SELL)
    holding.venue.updates = [UserUpdate(order=ended, trade=None)]
    assert holding.keeper.turn() == [SYMBOL]
    assert holding.keeper.turn() == []


def test_an_exit_waits_while_another_order_may_sell_the_same(holding: Desk) -> None:
    holding.intend(side=Side.SELL, answered=False)
    exit_ = holding.order(3).intent
    assert holding.keeper.unsure(exit_) == "0 BTCUSDT are left to reduce, not 1"
    selling(holding, client_id(2, 2), OrderStatus.CANCELED)
    holding.keeper.turn()
    assert holding.keeper.unsure(exit_) == ""
    assert holding.order(2).status is OrderStatus.CANCELED


def test_a_fill_the_stream_lost_is_booked_before_an_exit_is_sent(holding: Desk) -> None:
    """Found by seed 899: with coins of somebody else beside ours, the venue sells those too."""
    holding.intend(side=Side.SELL, quantity="1", answered=False)
    selling(holding, client_id(2, 2), OrderStatus.CANCELED, "0.4")
    exit_ = holding.order(3).intent
    assert holding.keeper.unsure(exit_) == "what was sold of BTCUSDT is not known yet"
    holding.venue.done.append(holding.trade(2, 6, "0.4", side=Side.SELL))
    assert holding.keeper.unsure(exit_) == "0.6 BTCUSDT are left to reduce, not 1"
    holding.intend(side=Side.SELL, quantity="0.6", answered=False)
    holding.emit(OrderClosed(ts_event_ns=0, intent_no=3, status="never_placed", reason="not sent"))
    assert holding.keeper.unsure(holding.order(4).intent) == ""


def test_an_exit_waits_for_an_order_the_venue_does_not_find_or_cannot_be_asked_for(
    holding: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding.intend(side=Side.SELL, answered=False)
    exit_ = holding.order(3).intent
    del holding.venue.orders[client_id(2, 2)]
    assert holding.keeper.unsure(exit_) == "what was sold of BTCUSDT is not known yet"

    def gone(*_: object) -> None:
        raise VenueUnreachable("connection refused")

    monkeypatch.setattr(holding.venue, "query", gone)
    assert holding.keeper.unsure(exit_) == (
        "what is left of BTCUSDT could not be read: connection refused"
    )


def test_nothing_is_left_to_reduce_of_what_was_sold(holding: Desk) -> None:
    holding.intend(side=Side.SELL, answered=False)
    selling(holding, client_id(2, 2), OrderStatus.FILLED, "1")
    holding.venue.done.append(holding.trade(2, 6, side=Side.SELL))
    unsure = holding.keeper.unsure(holding.order(3).intent)
    assert unsure == "0 BTCUSDT are left to reduce, not 1"


@pytest.fixture
def parts(ready: Desk) -> Desk:
    """1 bought, ten stops of 0.1 that rest (2 to 11), ten exits of 0.1 that are to go (12 to 21).

    `asked` and `read` tell which orders were asked for, and how often trades were read.
    """
    bought = ready.intend()
    ready.venue.orders[bought] = ready.told(bought, OrderStatus.FILLED, "1")
    ready.venue.done = [ready.trade(1, 5)]
    ready.keeper.hurry()
    ready.after(2_000)
    for _ in range(10):
        name = ready.intend(side=Side.SELL, quantity="0.1")
        selling(ready, name, OrderStatus.CANCELED, quantity=Decimal("0.1"))
    for _ in range(10):
        ready.intend(side=Side.SELL, quantity="0.1", answered=False, ts_ns=7)
    ready.asked, ready.read = [], []
    query, trades = ready.venue.query, ready.venue.trades
    ready.venue.query = lambda symbol, name: [ready.asked.append(name), query(symbol, name)][1]
    ready.venue.trades = lambda symbol, after: [ready.read.append(after), trades(symbol, after)][1]
    return ready


def taken(desk: Desk, number: int) -> None:
    """Have a sale taken by the venue."""
    desk.emit(OrderAccepted(ts_event_ns=0, intent_no=number, venue_order_id=str(100 + number)))
    selling(desk, client_id(2, number), quantity=desk.order(number).intent.quantity)


def names(*numbers: int) -> list[str]:
    return [client_id(2, number) for number in numbers]


def test_parts_decided_together_ask_for_each_other_order_once(parts: Desk) -> None:
    for number in range(12, 22):
        assert parts.keeper.unsure(parts.order(number).intent) == ""
        taken(parts, number)
    assert parts.asked == names(*range(2, 21)), "ten stops, and nine parts before the last one"
    assert len(parts.read) == 10


def test_what_a_part_sold_since_is_not_sold_again(parts: Desk) -> None:
    for number in range(12, 21):
        assert parts.keeper.unsure(parts.order(number).intent) == ""
        taken(parts, number)
    parts.intend(side=Side.SELL, quantity="0.2", answered=False, ts_ns=7)
    assert parts.keeper.unsure(parts.order(22).intent) == "0.0 BTCUSDT are left to reduce, not 0.2"


def test_a_part_whose_outcome_is_not_known_holds_the_others_back(parts: Desk) -> None:
    assert parts.keeper.unsure(parts.order(12).intent) == ""
    parts.emit(OrderOutcomeUnknown(ts_event_ns=0, intent_no=12, reason="timeout"))
    parts.asked.clear()
    for number in range(13, 21):
        unsure = parts.keeper.unsure(parts.order(number).intent)
        assert unsure == "what was sold of BTCUSDT is not known yet"
    assert parts.asked == names(*[12] * 8)
    taken(parts, 12)
    assert parts.keeper.unsure(parts.order(21).intent) == ""


def test_while_orders_are_in_doubt_each_part_asks_for_one_of_them_alone(parts: Desk) -> None:
    for number in (5, 7):
        late = client_id(2, number)
        selling(parts, late, OrderStatus.CANCELED, "0.05", quantity=Decimal("0.1"))

    def withheld(number: int) -> None:
        unsure = parts.keeper.unsure(parts.order(number).intent)
        assert unsure == "what was sold of BTCUSDT is not known yet"
        parts.emit(
            OrderClosed(ts_event_ns=0, intent_no=number, status="never_placed", reason=unsure)
        )

    for number in (12, 13, 14):
        withheld(number)
    assert parts.asked == names(*range(2, 12), 5, 5)
    parts.venue.done.append(parts.trade(5, 6, "0.05", side=Side.SELL))
    withheld(15)
    assert parts.asked[12:] == names(5, 7)
    parts.venue.done.append(parts.trade(7, 7, "0.05", side=Side.SELL))
    for number in range(16, 22):
        assert parts.keeper.unsure(parts.order(number).intent) == ""
    assert parts.asked[14:] == names(7)
    assert parts.state.books[Book.VALIDATED].positions[SYMBOL].quantity == Decimal("0.9")


def test_a_venue_that_is_away_is_asked_once_a_part(
    parts: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_symbol: str, name: str) -> None:
        parts.asked.append(name)
        raise VenueUnreachable("connection refused")

    monkeypatch.setattr(parts.venue, "query", gone)
    for number in range(12, 22):
        assert "connection refused" in parts.keeper.unsure(parts.order(number).intent)
    assert len(parts.asked) == 10


def test_what_was_certain_is_asked_for_again_after_the_next_look(parts: Desk) -> None:
    selling(parts, client_id(2, 2), quantity=Decimal("0.1"))  # its cancel failed
    for number in (12, 13):
        unsure = parts.keeper.unsure(parts.order(number).intent)
        assert unsure == "0.0 BTCUSDT are left to reduce, not 0.1"
        assert parts.asked.count(client_id(2, 2)) == 1
    parts.keeper.turn()
    parts.keeper.unsure(parts.order(14).intent)
    assert parts.asked.count(client_id(2, 2)) == 2


def test_what_was_decided_otherwise_has_a_reading_of_its_own(parts: Desk) -> None:
    assert parts.keeper.unsure(parts.order(12).intent) == ""
    taken(parts, 12)
    parts.intend(side=Side.SELL, quantity="0.1", answered=False, ts_ns=8)
    parts.asked.clear()
    parts.keeper.unsure(parts.order(22).intent)
    assert parts.asked == [client_id(2, 12)]


@pytest.mark.parametrize("count", [3, 30])
def test_stops_in_parts_ask_for_each_other_once(ready: Desk, count: int) -> None:
    bought = ready.intend()
    ready.venue.orders[bought] = ready.told(bought, OrderStatus.FILLED, "1")
    ready.venue.done = [ready.trade(1, 5)]
    ready.keeper.hurry()
    ready.after(2_000)
    asked, query = [], ready.venue.query
    ready.venue.query = lambda symbol, name: [asked.append(name), query(symbol, name)][1]
    for number in range(2, 2 + count):
        ready.intend(side=Side.SELL, quantity="0.01", answered=False, ts_ns=7)
        assert ready.keeper.unsure(ready.order(number).intent) == ""
        taken(ready, number)
    assert asked == names(*range(2, 1 + count))


# ------------------------------------------------------------------ boundaries
def test_the_next_intent_that_the_journal_does_not_hold_yet_is_not_ours(ready: Desk) -> None:
    name = client_id(2, ready.state.next_intent_no)
    ready.venue.updates = [UserUpdate(order=ready.told(name), trade=None)]
    ready.after(1)
    assert ready.differences == [f"order {name}"]
    assert "no such intent" in ready.keeper.hold


@pytest.mark.parametrize(("by", "differs"), [("1e-8", False), ("1.1e-8", True), ("2e-8", True)])
def test_balances_differ_beyond_the_least_amount_of_the_venue(
    ready: Desk, by: str, differs: bool
) -> None:
    ready.venue.held["USDT"] += Decimal(by)
    ready.after(INTERVAL_MS)
    ready.after(2_000)
    assert ready.differences == (["balance USDT"] if differs else [])


def test_a_comparison_holds_for_forty_seconds(ready: Desk) -> None:
    compared_ns = ready.clock.now_ns()
    ready.clock.advance_to(compared_ns + 40_000 * MS)
    assert ready.keeper.hold == ""
    ready.clock.advance_to(compared_ns + 40_001 * MS)
    assert "too old" in ready.keeper.hold


def test_balances_from_before_a_trade_are_not_held_against_it(ready: Desk) -> None:
    """The trade is booked after the balances were read, which do not have it yet."""
    name = ready.intend()
    ready.venue.orders[name] = ready.told(name)
    kept = ready.venue.balances

    def balances() -> dict[str, Decimal]:
        ready.venue.done = [ready.trade(1, 5)]
        return kept()

    ready.venue.balances = balances  # type: ignore[method-assign]
    ready.after(INTERVAL_MS)
    assert ready.order(1).filled == 1
    assert "to be confirmed" not in ready.keeper.hold
