"""Has carried out what the liquidation monitor and its ladder decide, and knows when it is over.

The order of things is the engine's own: an action is approved by the risk manager as a
reduce-only emergency, its plan is journaled and durable, then the gate sends it, once. Whose
hands do that is told: the engine's beside a session (`guard`), or `hands.GateHands`. It stays
in flight until its order is terminal and the account has been read after that; until then its
symbol gets no other. What a lost answer leaves unknown stays in flight until it is known.

A stop reduces nothing while it rests, so it blocks no action; but no other one is asked for on
its leg until it is known what became of it: the venue tells, or a reading of the account shows it
resting, or the queries of `bot4_runtime.exchange.unknown` end it as never placed.

Events come in by `on_mark`, `on_mid`, `on_trade`, `on_time` (every 100 ms), `on_order` and
`hold`, all from one thread; alarms and plans go out as events through the ledger. `see` takes
prices that the next of them looks at.
"""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Protocol

from bot4_runtime.domain.errors import OutcomeUnknown, VenueError
from bot4_runtime.domain.events import (
    JournaledEvent,
    OrderAccepted,
    OrderClosed,
    OrderEvent,
    OrderFilled,
    OrderIntended,
    OrderOutcomeUnknown,
    OrderRejected,
    ProtectionAlarm,
    ProtectionPlanned,
)
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.protection.action import Action
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.orders import (
    PLACE_STOP,
    asked_stop,
    known,
    planned_event,
    protects,
    resting_stops,
    stop_event,
)
from bot4_runtime.risk.alarm import (
    ACTION_IMPOSSIBLE,
    ACTION_REFUSED,
    ACTION_UNKNOWN,
    BRACKETS_UNKNOWN,
    CRITICAL,
    Alarm,
)
from bot4_runtime.risk.brackets import UNKNOWN_RATE, Brackets, assumed_brackets
from bot4_runtime.risk.ladder import ActionLadder, LotRules, Plan
from bot4_runtime.risk.liquidation import LiquidationLimits, LiquidationMonitor
from bot4_runtime.risk.margin import Leg, Wallet
from bot4_runtime.risk.stop_watchdog import StopWatchdog

CROSS: Final = "cross"
UNKNOWN_AFTER_NS: Final = 10_000_000_000
"""Time in flight from which people are told, and after which a margin move is looked up."""

_ZERO: Final = Decimal(0)
Price = tuple[float, int]
"""A price in quote, and when it was made (UTC, ns)."""


class ProtectionLedger(Protocol):
    """Where alarms and plans go."""

    def emit(self, event: JournaledEvent) -> None:
        """Fold, journal and publish an event."""
        ...

    def make_durable(self) -> None:
        """Return once everything emitted is durable."""
        ...


class Hands(Protocol):
    """Carries out actions."""

    def busy(self, symbol: str) -> bool:
        """Whether something else sells a symbol, so that no step begins there."""
        ...

    def make(
        self, number: int, action: str, wallet: Wallet, leg: Leg, quantity: Decimal, ts_ns: int
    ) -> OrderIntended | str:
        """Have a reduce-only order of a leg approved; return it as it will be sent, or why not.

        What need not be told is empty: it is done by somebody else, or there is nothing to do.
        """
        ...

    def send(self, intended: OrderIntended) -> Iterable[OrderEvent]:
        """Send what was made, once, now that its plan is durable; return what is told at once."""
        ...

    def add_margin(self, number: int, symbol: str, side: int, amount: Decimal, now_ns: int) -> int:
        """Move quote to an isolated position; return the venue's time from which it counts.

        Raises VenueRefused, VenueUnreachable or OutcomeUnknown.
        """
        ...


class ProtectionMonitor:
    """Watches one account's margin positions and acts on them.

    Args:
        limits: thresholds and allowed steps.
        rules: lot rules by symbol, as they are when they are needed.
        brackets: by symbol, likewise; a position without is measured by a ladder that errs towards
            liquidation (`assumed_brackets`), alarms, and stops entries.
        hands: carry out what is decided.
        ledger: takes events.
        first_number: `TradingState.next_protection_no`.

    Attributes:
        entries_allowed: whether the engine may open anything.
    """

    def __init__(
        self,
        *,
        limits: LiquidationLimits,
        rules: Mapping[str, LotRules],
        brackets: Mapping[str, Brackets],
        hands: Hands,
        ledger: ProtectionLedger,
        first_number: int = 1,
    ) -> None:
        self._act = limits.act
        self._brackets = brackets
        self._hands = hands
        self._ledger = ledger
        self._monitor = LiquidationMonitor(limits)
        self._ladder = ActionLadder(limits, rules, first_number)
        self._watchdog = StopWatchdog(limits.stop_watchdog_s)
        self._free = _ZERO
        self._as_of_ns = -1
        self._open: dict[int, Action] = {}
        self._stuck: set[str] = set()
        self._differs: set[str] = set()
        self._assumed: set[str] = set()
        self._stops_asked: dict[str, int] = {}

    @property
    def entries_allowed(self) -> bool:
        """Whether nothing is unknown, assumed, stale or in danger."""
        return self._monitor.entries_allowed and not self._assumed

    @property
    def wallets(self) -> list[Wallet]:
        """What is watched, as measured last."""
        return self._monitor.wallets

    @property
    def busy(self) -> bool:
        """Whether an action is in flight."""
        return bool(self._open)

    @property
    def unread(self) -> bool:
        """Whether an action ended of which no reading of the account tells yet."""
        ends = (action.settled() for action in self._open.values())
        return any(end is not None and end.ts_event_ns > self._as_of_ns for end in ends)

    # ----------------------------------------------------------------- what comes in
    def resume(self, planned: Iterable[ProtectionPlanned]) -> None:
        """Take over actions that an earlier process left open: their symbols wait for them.

        A stop that was left open may rest or not: it is unknown as if its answer had been lost.
        """
        for plan in planned:
            self._open[plan.number] = action = Action(plan)
            self._ladder.resume(plan.number, plan.symbol, plan.wallet, plan.action)
            if plan.intent is None:
                action.end(OrderStatus.UNKNOWN, plan.ts_event_ns + UNKNOWN_AFTER_NS)

    def hold(self, holdings: Holdings, now_ns: int) -> None:
        """Take the account as it was read; an older reading than the last is left aside.

        Actions that ended before the reading are over with it.
        """
        if holdings.as_of_ns < self._as_of_ns:
            return
        self._as_of_ns = holdings.as_of_ns
        self._free = holdings.free
        resting = resting_stops(holdings)
        for number, action in list(self._open.items()):
            if asked_stop(action) in resting:
                action.end(OrderStatus.ACCEPTED, holdings.as_of_ns)
            settled = action.settled()
            if settled is not None and settled.ts_event_ns <= holdings.as_of_ns:
                del self._open[number]
                self._ladder.settle(number)
                self._ledger.emit(settled)
        self._monitor.hold(_wallets(holdings, self._brackets))
        self._tell_assumed(holdings, now_ns)
        differing = self._monitor.check_venue()
        for alarm in differing:
            if alarm.subject not in self._differs:
                self.tell(alarm, now_ns)
        self._differs = {alarm.subject for alarm in differing}
        self._look(now_ns)

    def see(self, marks: Mapping[str, Price], mids: Mapping[str, Price], now_ns: int) -> None:
        """Take marks, and other prices of now, without a look."""
        for symbol, (price, ts_ns) in marks.items():
            self._monitor.on_mark(symbol, price, ts_ns, now_ns)
        for symbol, (price, ts_ns) in mids.items():
            self._monitor.on_mid(symbol, price, ts_ns, now_ns)

    def on_mark(self, symbol: str, price: float, ts_ns: int, now_ns: int) -> None:
        """Take a mark price and look."""
        self._monitor.on_mark(symbol, price, ts_ns, now_ns)
        self._look(now_ns)

    def on_marks(self, prices: Mapping[str, float], ts_ns: int, now_ns: int) -> None:
        """Take the marks of many symbols that were made together, and look once."""
        for symbol, price in prices.items():
            self._monitor.on_mark(symbol, price, ts_ns, now_ns)
        self._look(now_ns)

    def on_mid(self, symbol: str, price: float, ts_ns: int, now_ns: int) -> None:
        """Take the middle of a book and look."""
        self._monitor.on_mid(symbol, price, ts_ns, now_ns)
        self._look(now_ns)

    def on_trade(self, now_ns: int) -> None:
        """A trade was printed: look."""
        self._look(now_ns)

    def on_time(self, now_ns: int) -> None:
        """A tenth of a second went by: look."""
        self._look(now_ns)

    def on_order(self, event: OrderEvent) -> None:
        """Take what became of an order; events of orders that are not ours are left aside."""
        action = self._action_of(_number(event))
        if action is None:
            return
        if isinstance(event, OrderFilled):
            action.fill(event.fill, event.ts_event_ns)
        elif isinstance(event, OrderAccepted):
            if action.planned.action == PLACE_STOP:  # it rests: nothing more to wait for
                action.end(OrderStatus.ACCEPTED, event.ts_event_ns)
        elif isinstance(event, OrderRejected):
            if action.end(OrderStatus.REJECTED, event.ts_event_ns, event.reason):
                self._failed(action.planned, ACTION_REFUSED, event.reason, event.ts_event_ns)
        elif isinstance(event, OrderClosed):
            action.end(OrderStatus(event.status), event.ts_event_ns, event.reason)
        elif isinstance(event, OrderOutcomeUnknown) and not action.told:
            action.told = True
            self._failed(action.planned, ACTION_UNKNOWN, event.reason, event.ts_event_ns)

    def _action_of(self, intent_no: int) -> Action | None:
        for action in self._open.values():
            intent = action.planned.intent
            if intent is not None and intent.intent_no == intent_no:
                return action
        return None

    # ----------------------------------------------------------------- what goes out
    def _look(self, now_ns: int) -> None:
        wallets = self._monitor.wallets
        for alarm in self._monitor.look(now_ns):
            self.tell(alarm, now_ns)
        watch = self._watchdog.look(wallets, now_ns)
        for alarm in watch.alarms:
            self.tell(alarm, now_ns)
        for wallet, leg in watch.overdue:
            closing = self._ladder.close(wallet, leg, f"{leg.stop_name} is not done", now_ns)
            if closing is not None:
                self._carry_out(closing, wallet, leg)
        for wallet, leg in watch.missing:
            self._place_stop(wallet, leg, now_ns)
        free = [one for one in wallets if one.worst < self._act or not self._taken(one)]
        for plan in self._ladder.plan(free, self._free, now_ns):
            wallet = next(one for one in wallets if one.name == plan.wallet)
            legs = (
                leg for leg in wallet.legs if (leg.symbol, leg.side) == (plan.symbol, plan.side)
            )
            self._carry_out(plan, wallet, next(legs))
        if self._ladder.stuck != self._stuck:
            self._tell_stuck(now_ns)
        if self._open:
            self._tell_slow(now_ns)

    def _taken(self, wallet: Wallet) -> bool:
        return any(self._hands.busy(leg.symbol) for leg in wallet.legs)

    def _carry_out(self, plan: Plan, wallet: Wallet, leg: Leg) -> None:
        if plan.amount > 0:
            self._add_margin(plan, wallet, leg)
            return
        made = self._made(plan.number, plan.action, wallet, leg, plan.quantity, plan.ts_ns)
        if made is None:
            self._ladder.settle(plan.number)
            return
        self._send(made, planned_event(plan, made))

    def _made(
        self, number: int, action: str, wallet: Wallet, leg: Leg, quantity: Decimal, ts_ns: int
    ) -> OrderIntended | None:
        made = self._hands.make(number, action, wallet, leg, quantity, ts_ns)
        if isinstance(made, OrderIntended):
            return made
        if made:
            text = f"{leg.name}: risk refused to cut {quantity}: {made}"
            numbers = {"quantity": float(quantity), "held": leg.quantity}
            self.tell(Alarm(CRITICAL, ACTION_REFUSED, leg.symbol, text, numbers), ts_ns)
        return None

    def _send(self, made: OrderIntended, planned: ProtectionPlanned) -> None:
        self._open[planned.number] = Action(planned)
        self._ledger.emit(planned)
        self._ledger.make_durable()
        for event in self._hands.send(made):
            self.on_order(event)

    def _add_margin(self, plan: Plan, wallet: Wallet, leg: Leg) -> None:
        planned = planned_event(plan, None)
        self._open[plan.number] = action = Action(planned)
        self._ledger.emit(planned)
        self._ledger.make_durable()
        try:
            at_ns = self._hands.add_margin(
                plan.number, leg.symbol, leg.side, plan.amount, plan.ts_ns
            )
        except OutcomeUnknown as error:
            action.told = True
            self._failed(planned, ACTION_UNKNOWN, str(error), plan.ts_ns)
            action.end(OrderStatus.UNKNOWN, plan.ts_ns + UNKNOWN_AFTER_NS, str(error))
        except VenueError as error:
            self._failed(planned, ACTION_REFUSED, str(error), plan.ts_ns)
            action.end(OrderStatus.REJECTED, plan.ts_ns, str(error))
        else:
            action.end(OrderStatus.FILLED, at_ns)

    def _place_stop(self, wallet: Wallet, leg: Leg, now_ns: int) -> None:
        """Ask for a missing stop again, once for every reading of the account that lacks it.

        Not while one of its leg is open: F9, what may have been placed is never sent again.
        """
        if not leg.stop_price > 0.0 or self._stops_asked.get(leg.stop_name, -1) >= self._as_of_ns:
            return
        if any(protects(action, leg) for action in self._open.values()):
            return
        self._stops_asked[leg.stop_name] = self._as_of_ns
        number = self._ladder.take_number()
        made = self._made(number, PLACE_STOP, wallet, leg, leg.size, now_ns)
        if made is not None:
            self._send(made, stop_event(number, wallet, leg, made))

    def _failed(self, planned: ProtectionPlanned, code: str, reason: str, ts_ns: int) -> None:
        text = f"{planned.action} {planned.symbol} ({planned.number}): {reason}"
        self.tell(Alarm(CRITICAL, code, planned.symbol, text, {}), ts_ns)

    def _tell_assumed(self, holdings: Holdings, now_ns: int) -> None:
        assumed = {held.symbol for held in holdings.positions} - self._brackets.keys()
        for symbol in sorted(assumed - self._assumed):
            text = (
                f"{symbol}: its leverage brackets are not known, so its margin is measured by "
                "stricter ones than it may have; entries stop; ask the venue for leverageBracket"
            )
            numbers = {"least_rate": UNKNOWN_RATE}
            self.tell(Alarm(CRITICAL, BRACKETS_UNKNOWN, symbol, text, numbers), now_ns)
        self._assumed = assumed

    def _tell_stuck(self, now_ns: int) -> None:
        stuck = set(self._ladder.stuck)
        for name in sorted(stuck - self._stuck):
            text = f"{name}: no allowed step is possible; act by hand, or allow more steps"
            self.tell(Alarm(CRITICAL, ACTION_IMPOSSIBLE, name, text, {}), now_ns)
        self._stuck = stuck

    def _tell_slow(self, now_ns: int) -> None:
        for action in self._open.values():
            if not action.told and now_ns - action.planned.ts_event_ns >= UNKNOWN_AFTER_NS:
                action.told = True
                waits = "stop" if action.planned.action == PLACE_STOP else "action"
                reason = f"not over for 10 s; no other {waits} on its symbol until it is"
                self._failed(action.planned, ACTION_UNKNOWN, reason, now_ns)

    def tell(self, alarm: Alarm, now_ns: int) -> None:
        """Let people know."""
        self._ledger.emit(
            ProtectionAlarm(
                ts_event_ns=now_ns,
                severity=alarm.severity,
                code=alarm.code,
                subject=alarm.subject,
                text=alarm.text,
                numbers={name: known(number) for name, number in alarm.numbers.items()},
            )
        )


def _wallets(holdings: Holdings, brackets: Mapping[str, Brackets]) -> list[Wallet]:
    """Return the account's wallets; positions without brackets get assumed ones."""
    wallets: list[Wallet] = []
    cross: list[Leg] = []
    for position in holdings.positions:
        leg = _leg(position, brackets.get(position.symbol))
        if position.isolated_wallet is None:
            cross.append(leg)
        else:
            own = float(position.isolated_wallet)
            wallets.append(Wallet(leg.name, own, [leg], isolated=True))
    if cross:
        wallets.append(Wallet(CROSS, float(holdings.cross_balance), cross, isolated=False))
    return wallets


def _leg(position: MarginPosition, brackets: Brackets | None) -> Leg:
    venue = position.liquidation_price
    stop = position.stop_price
    return Leg(
        position.symbol,
        1 if position.side == "long" else -1,
        position.size,
        float(position.entry_price),
        brackets or assumed_brackets(position.symbol, UNKNOWN_RATE),
        stop_price=math.nan if stop is None else float(stop),
        stop_live=position.stop_live,
        venue_liquidation_price=math.nan if venue is None else float(venue),
        foreign=position.foreign,
    )


def _number(event: OrderEvent) -> int:
    if isinstance(event, OrderIntended):
        return event.intent.intent_no
    return event.fill.intent_no if isinstance(event, OrderFilled) else event.intent_no
