"""Liquidation prevention beside a session: live marks and positions in, the engine's orders out.

Marks come from the venue's stream; those it tells when it is asked are the second price, so that
they value a position between marks and take over when these are gone, and never make the stream
count as alive. Positions are the account's own word (`MarginBook`), stops and what is sold
already are the engine's live orders.

What the ladder decides becomes an order of the engine: numbered, approved, journaled with its
plan in one batch, sent once, asked for when its answer is lost, booked and found again after a
kill like every other. What became of it is learnt from the journal's events. Margin is not added:
a transfer has no name by which to ask whether it arrived.

Wallets that hold nothing of this journal's are left alone; in one that is shared, what somebody
else opened is measured and never sold. Entries wait while anything of this is stale, unknown or
in danger. Look it up from one thread, between candles.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from bot4_runtime.domain.errors import InvariantViolated
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
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Fill, Liquidity, OrderStatus, Purpose
from bot4_runtime.domain.position import Position
from bot4_runtime.engine import Command, Engine, Submit
from bot4_runtime.exchange.reconcile import BY_THE_VENUE, forced
from bot4_runtime.protection.holdings import Holdings, MarginPosition
from bot4_runtime.protection.margin_book import MarginBook
from bot4_runtime.protection.monitor import Price, ProtectionMonitor
from bot4_runtime.protection.orders import PLACE_STOP, cause
from bot4_runtime.risk.alarm import (
    BRACKETS_UNKNOWN,
    CRITICAL,
    DELEVERAGED,
    INFO,
    LIQUIDATED,
    MARGIN_ACT,
    MARGIN_CALL,
    MARGIN_CRITICAL,
    MARGIN_UNKNOWN,
    MARK_STALE,
    Alarm,
)
from bot4_runtime.risk.brackets import Brackets
from bot4_runtime.risk.ladder import LotRules
from bot4_runtime.risk.liquidation import ADD_MARGIN, CLOCK_ERROR_MS, LiquidationLimits
from bot4_runtime.risk.margin import Leg, Wallet
from bot4_runtime.session import Ledger

ADL: Final = "adl_"
"""How the orders begin by which a venue closes gainers against the bankrupt."""
NS_PER_MS: Final = 1_000_000
_NO_LIMIT: Final = Decimal("Infinity")
_ANSWERS: Final = (OrderAccepted, OrderFilled, OrderRejected, OrderClosed, OrderOutcomeUnknown)
_HOLDS: Final = (MARGIN_ACT, MARGIN_CRITICAL, MARGIN_UNKNOWN, MARK_STALE, BRACKETS_UNKNOWN)
_RESTING: Final = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)


class MarkSource(Protocol):
    """Where streamed marks come from."""

    def latest(self) -> Mapping[str, Price]:
        """Return the last mark of each symbol."""
        ...


class EngineHands:
    """Has an engine make what is decided; what must be done then waits to be given to a session.

    Args:
        engine: whose orders they become.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commands: list[Command] = []

    def busy(self, symbol: str) -> bool:
        """Whether the engine sells a symbol already."""
        return self._engine.leaving(symbol)

    def make(
        self, number: int, action: str, wallet: Wallet, leg: Leg, quantity: Decimal, ts_ns: int
    ) -> OrderIntended | str:
        """Have the engine order it; empty where it does not, or where it looks after a stop."""
        if action == PLACE_STOP:
            self._commands += self._engine.protect(leg.symbol)
            return ""
        commands = self._engine.relieve(
            leg.symbol, quantity, leg.known_price, cause(leg.symbol, number), ts_ns
        )
        self._commands += commands
        made = [command.intended for command in commands if isinstance(command, Submit)]
        return made[0] if made else ""

    def send(self, intended: OrderIntended) -> Iterable[OrderEvent]:
        """Return nothing: the session sends it, and what comes of it is journaled."""
        return ()

    def add_margin(self, number: int, symbol: str, side: int, amount: Decimal, now_ns: int) -> int:
        """Refuse; the ladder is not allowed this step.

        Raises:
            InvariantViolated: always.
        """
        raise InvariantViolated(f"plan {number} adds margin to {symbol}, and a session never does")

    def given(self) -> list[Command]:
        """Return what must be done, once."""
        commands, self._commands = self._commands, []
        return commands


class LiquidationGuard:
    """Watches the margin positions of one session.

    Args:
        limits: thresholds and allowed steps; adding margin is left out.
        symbols: that are traded; entries wait for fresh marks of each.
        ledger: the session's.
        engine: the session's.
        book: what the account's positions rest on.
        marks: as they are streamed.
    """

    def __init__(
        self,
        *,
        limits: LiquidationLimits,
        symbols: Sequence[str],
        ledger: Ledger,
        engine: Engine,
        book: MarginBook,
        marks: MarkSource,
    ) -> None:
        steps = tuple(step for step in limits.actions if step != ADD_MARGIN)
        self._limits = dataclasses.replace(limits, actions=steps)
        self._symbols = tuple(symbols)
        self._ledger = ledger
        self._state = ledger.state
        self._book = book
        self._marks = marks
        self._hands = EngineHands(engine)
        self._rules: dict[str, LotRules] = {}
        self._brackets: dict[str, Brackets] = {}
        self._monitor = ProtectionMonitor(
            limits=self._limits,
            rules=self._rules,
            brackets=self._brackets,
            hands=self._hands,
            ledger=self,
            first_number=self._state.next_protection_no,
        )
        self._heard: deque[OrderEvent] = deque()
        self._held_at: tuple[int, int] | None = None
        self._before: dict[str, tuple[float, float]] = {}
        self._begun: set[str] = set()
        self._forced: set[tuple[str, str]] = set()
        self._apart: list[str] = []
        self._danger = ""
        self._hold = book.doubt
        self._resume()
        ledger.follow(self._hear)

    @property
    def hold(self) -> str:
        """Why entries wait, as of the last turn; empty when they need not."""
        return self._hold

    @property
    def unread(self) -> bool:
        """Whether the account should be read soon: of an order that ended no reading tells yet."""
        return self._monitor.unread

    def turn(self, now_ns: int) -> list[Command]:
        """Look at marks and positions; return what must be done once its batch is durable."""
        self._take_answers(now_ns)
        for symbols in self._book.settle():
            text = f"{', '.join(symbols)}: the venue calls for margin"
            self._monitor.tell(Alarm(CRITICAL, MARGIN_CALL, ", ".join(symbols), text, {}), now_ns)
        marks = self._marks.latest()
        self._see(marks, now_ns)
        at = (self._book.version, self._state.moves)
        if self._book.as_of_ns >= 0 and at != self._held_at:
            self._held_at = at
            self._monitor.hold(self._holdings(), now_ns)
        else:
            self._monitor.on_time(now_ns)
        self._remember()
        self._hold = self._why_entries_wait(marks, now_ns)
        return self._hands.given()

    def _see(self, marks: Mapping[str, Price], now_ns: int) -> None:
        """Value positions; the first mark that is asked for stands in until one is streamed."""
        watched = {*self._symbols, *(leg.symbol for leg in self._book.positions())}
        asked = {s: price for s, price in self._book.asked.items() if s in watched}
        first = {s: price for s, price in asked.items() if s not in self._begun}
        self._begun.update(first)
        self._monitor.see({**first, **marks}, asked, now_ns)

    # ------------------------------------------------------------- the monitor's ledger
    def emit(self, event: JournaledEvent) -> None:
        """Fold and publish what protection tells, and add it to the open batch."""
        if isinstance(event, ProtectionAlarm) and event.severity != INFO and event.code in _HOLDS:
            self._danger = event.text
        self._ledger.emit(event)

    def make_durable(self) -> None:
        """Do nothing: the session closes the batch before it sends what it holds."""

    # ------------------------------------------------------------------ what is heard
    def _hear(self, event: JournaledEvent) -> None:
        if isinstance(event, _ANSWERS):
            self._heard.append(event)

    def _take_answers(self, now_ns: int) -> None:
        while self._heard:
            event = self._heard.popleft()
            if isinstance(event, OrderFilled) and event.fill.intent_no == BY_THE_VENUE:
                self._tell_forced(event.fill, now_ns)
            else:
                self._monitor.on_order(event)

    def _resume(self) -> None:
        """Take over plans that an earlier process left open, with what is booked of them."""
        planned = list(self._state.protection.values())
        self._monitor.resume(planned)
        for plan in planned:
            if plan.intent is None:
                continue
            number, ts_ns = plan.intent.intent_no, plan.ts_event_ns
            order = self._state.orders.get(number)
            if order is not None and order.filled:
                fill = Fill(
                    trade_id="booked before",
                    intent_no=number,
                    book=plan.intent.book,
                    symbol=plan.symbol,
                    side=plan.intent.side,
                    price=order.spent / order.filled,
                    quantity=order.filled,
                    fee=Decimal(0),
                    fee_asset="",
                    liquidity=Liquidity.TAKER,
                    ts_event_ns=ts_ns,
                )
                self._monitor.on_order(OrderFilled(ts_event_ns=ts_ns, fill=fill))
            if order is None or order.status.terminal:
                status = OrderStatus.UNKNOWN if order is None else order.status
                reason = "forgotten" if order is None else order.reason
                self._monitor.on_order(
                    OrderClosed(
                        ts_event_ns=ts_ns, intent_no=number, status=status.value, reason=reason
                    )
                )

    def _tell_forced(self, fill: Fill, now_ns: int) -> None:
        """Tell what the venue closed itself, and whether there was room to act before."""
        names = [d.name for d in self._state.account.differences if forced(d.name)]
        name = names[-1] if names else ""
        if (name, fill.symbol) in self._forced:
            return
        self._forced.add((name, fill.symbol))
        worst, price = self._before.get(fill.symbol, (math.nan, math.nan))
        numbers = {"price": float(fill.price), "worst_before": worst, "price_before": price}
        text = f"{fill.symbol}: {forced(name) or 'the venue closed it'}, at {fill.price}"
        if name.startswith(ADL):
            self._monitor.tell(Alarm(CRITICAL, DELEVERAGED, fill.symbol, text, numbers), now_ns)
            return
        why = "its margin was not known before"
        if worst < self._limits.act:
            why = (
                f"{worst:.0%} of its margin were used at {price:g} when it was last seen alive: "
                "one step of the mark left no room to act"
            )
        elif worst >= self._limits.act:
            why = f"{worst:.0%} of its margin were used at {price:g}, and acting did not suffice"
        self._monitor.tell(
            Alarm(CRITICAL, LIQUIDATED, fill.symbol, f"{text}; {why}", numbers), now_ns
        )

    def _remember(self) -> None:
        """Keep how what is held stood while it was alive."""
        for wallet in self._monitor.wallets:
            for leg in wallet.legs:
                if wallet.worst < 1.0 or leg.symbol not in self._before:
                    self._before[leg.symbol] = (wallet.worst, leg.price)

    # ------------------------------------------------------------------- what is held
    def _holdings(self) -> Holdings:
        """Return the account as it is known, with our stops; take over brackets and rules."""
        self._brackets.clear()
        self._brackets.update(self._book.ladders)
        held = self._state.books[Book.VALIDATED].positions
        told = self._book.positions()
        ours = {leg.symbol for leg in told if _is_ours(leg, held)}
        shared = any(leg.symbol in ours and leg.isolated_wallet is None for leg in told)
        legs: list[MarginPosition] = []
        for leg in told:
            if _is_ours(leg, held):
                legs.append(self._with_stop(leg, held[leg.symbol]))
            elif shared and leg.isolated_wallet is None:
                legs.append(msgspec.structs.replace(leg, foreign=True))
        sizes = {leg.symbol: leg.size for leg in told if _is_ours(leg, held)}
        self._apart = sorted(s for s in held if sizes.get(s) != held[s].quantity)
        for symbol in ours:
            self._rules[symbol] = _lot_rules(self._state.instruments[symbol], held[symbol])
        return Holdings(
            cross_balance=self._book.cross,
            free=self._book.free,
            positions=tuple(legs),
            as_of_ns=self._book.as_of_ns,
        )

    def _with_stop(self, leg: MarginPosition, position: Position) -> MarginPosition:
        """Return a leg with its stop, which counts as live while what is held is sold."""
        resting = sum(
            (
                order.open_quantity
                for order in self._state.live_orders(leg.symbol, Book.VALIDATED)
                if order.intent.purpose is Purpose.STOP and order.status in _RESTING
            ),
            Decimal(0),
        )
        bare = position.quantity - resting
        covered = bare < self._state.instruments[leg.symbol].min_quantity
        return msgspec.structs.replace(
            leg,
            stop_price=position.stop_price or None,
            stop_live=covered or self._hands.busy(leg.symbol),
        )

    def _why_entries_wait(self, marks: Mapping[str, Price], now_ns: int) -> str:
        if self._book.doubt:
            return self._book.doubt
        for symbol in self._symbols:
            age_ms = (now_ns - marks[symbol][1]) // NS_PER_MS if symbol in marks else None
            if age_ms is None or not -CLOCK_ERROR_MS <= age_ms <= self._limits.mark_stale_ms:
                told = "not streamed" if age_ms is None else f"{age_ms} ms old"
                return f"the mark of {symbol} is {told}"
        if self._apart:
            return f"the venue does not tell the margin of what is held: {', '.join(self._apart)}"
        if not self._monitor.entries_allowed:
            return f"liquidation prevention: {self._danger}"
        return ""


def _is_ours(leg: MarginPosition, held: Mapping[str, Position]) -> bool:
    return leg.side == "long" and leg.symbol in held


def _lot_rules(instrument: Instrument, position: Position) -> LotRules:
    """Return what a market order of a symbol may be; what only reduces has no least notional."""
    most = instrument.largest(position.entry_price, at_market=True)
    return LotRules(
        instrument.step_size,
        instrument.min_quantity,
        _NO_LIMIT if most is None else most,
        Decimal(0),
    )
