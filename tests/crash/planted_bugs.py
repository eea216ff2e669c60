"""Bugs as people write them, each put into the one part it would live in.

A bug is the real part with one decision wrong. `caught` explores seeds with it until an
invariant, or an assertion in production code, speaks. A campaign that lets one of them pass
is itself broken.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from simulated_wire import SimulatedWire
from simulation import REAL, Parts, VirtualLedger, VirtualStore, explore
from virtual_world import VirtualDisk

from bot4_runtime.domain.client_id import client_id
from bot4_runtime.domain.errors import InvariantViolated, VenueError
from bot4_runtime.domain.events import (
    OperatorCommand,
    OrderClosed,
    OrderFilled,
    OrderOutcomeUnknown,
    RegimeNamed,
)
from bot4_runtime.domain.order import OrderStatus, Purpose
from bot4_runtime.domain.portfolio import BreakerState
from bot4_runtime.domain.regime import EstimateSource, Regime, RegimeEstimate
from bot4_runtime.engine import Engine, Submit
from bot4_runtime.exchange import keeper as keeper_module
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.exchange.keeper import AccountKeeper
from bot4_runtime.exchange.reconcile import Claim, claim, fill_event
from bot4_runtime.exchange.unknown import UnknownOrders
from bot4_runtime.risk.exposure import OpenOrder, RiskView
from bot4_runtime.session import Session
from bot4_runtime.state.trading_state import TradingState

_replace = msgspec.structs.replace


@dataclass(frozen=True)
class Bug:
    """One bug.

    Attributes:
        seed: one it is known to show itself in soon; others follow.
        parts: those of a process, with the bug inside.
        breaks: the invariant that must speak, by its number; any may when it is empty.
    """

    name: str
    wrong: str
    seed: int
    parts: Parts
    breaks: str = ""


BUGS: list[Bug] = []


def planted(wrong: str, part: str, seed: int = 0, *, breaks: str = "") -> Callable[[type], type]:
    """Register a class as a bug in the part it replaces."""

    def register(kind: type) -> type:
        parts = dataclasses.replace(REAL, **{part: kind})
        BUGS.append(Bug(kind.__name__, wrong, seed, parts, breaks))
        return kind

    return register


# --------------------------------------------------------------------- the disk
@planted("a write returns without fsync", "disk")
class NoFsync(VirtualDisk):
    def _sync(self, frames, unique):
        synced = self._world.medium.synced
        super()._sync(frames, unique)
        self._world.medium.synced = synced


@planted("a batch is written in two halves", "disk")
class HalfBatch(VirtualDisk):
    def write(self, frames, keys):
        from bot4_runtime.state.frames import Keys, decode_frame, encode_frames

        for frame in frames:
            events = decode_frame(frame)
            half = max(len(events) // 2, 1)
            for at, part in ((0, events[:half]), (half, events[half:])):
                if part:
                    super().write(
                        encode_frames(frame.first_seq + at, frame.epoch, part), Keys([], [])
                    )


@planted("a writer that was passed over goes on in its old epoch", "disk")
class StaleEpoch(VirtualDisk):
    def __init__(self, world):
        super().__init__(world)
        if len(world.medium.epochs) > 2:
            self.epoch = 1

    def write(self, frames, keys):
        newest = self._world.medium.epochs[-1]
        self._world.medium.epochs.append(self.epoch)
        try:
            super().write(frames, keys)
        finally:
            self._world.medium.epochs.remove(self.epoch)
            self._world.medium.epochs.append(newest) if newest not in (
                self._world.medium.epochs
            ) else None


# -------------------------------------------------------------------- the store
@planted("what is waited for is not written yet", "store")
class NoWait(VirtualStore):
    def wait_durable(self, seq, timeout_s=30.0):
        self._claimed = seq

    @property
    def durable_seq(self):
        return self._state.seq


@planted("a snapshot is restored without the events after it", "store")
class SnapshotWithoutTail(VirtualStore):
    def recover(self, version=None):
        report = super().recover(version)
        if self._world.snapshots:
            state, _, _ = self._from_snapshot(None)
            state.seq = self._state.seq
            self._state = state
        return report


@planted("recovery reads the events after the snapshot's time, not its number", "store")
class TimestampCut(VirtualStore):
    def recover(self, version=None):
        report = super().recover(version)
        if not self._world.snapshots:
            return report
        state, _, _ = self._from_snapshot(None)
        kept = list(self._journal.read(0))
        since_ns = next((e.ts_event_ns for seq, e in reversed(kept) if seq <= state.seq), 0)
        for seq, event in kept:
            if seq > state.seq and event.ts_event_ns > since_ns:
                state.apply(event)
        state.seq = self._state.seq
        self._state = state
        return report


@planted("intent numbers begin again after a restart", "store")
class NumbersAgain(VirtualStore):
    def recover(self, version=None):
        report = super().recover(version)
        self._state.next_intent_no = max(self._state.next_intent_no - 1, 1)
        return report


@planted("the breaker is closed by a restart", "store", seed=1)
class BreakerReset(VirtualStore):
    def recover(self, version=None):
        report = super().recover(version)
        for book in self._state.books.values():
            book.breaker = BreakerState()
        return report


@planted("fills are not told apart by their trade ids", "store")
class NoDedupe(VirtualStore):
    def recover(self, version=None):
        report = super().recover(version)
        self._state._remember = lambda intent_no, key, order: True
        return report


# ------------------------------------------------------------------ the session
@planted("orders are sent before their batch is committed", "session")
class SendFirst(Session):
    def _carry_out(self, commands, now_ns):
        if self._keeper is not None:
            self._gate.hold(self._why_entries_wait(0))
        for command in commands:
            self._perform(command, now_ns)
        self._ledger.commit()

    def _perform(self, command, now_ns):
        if not isinstance(command, Submit):
            return super()._perform(command, now_ns)
        approved, intended = command.approved, command.intended
        for event in self._gate.send(approved, intended, durable=True, cash_free=0.0):
            self._ledger.emit(event)
            if isinstance(event, OrderOutcomeUnknown):
                self._keeper.sent(event.intent_no)
        return None


@planted("cancels are decided and never sent", "gate")
class CancelDropped(Gate):
    def cancel(self, order, now_ns):
        return []


@planted("what was never answered is sent again after a restart", "session")
class ResendAfterRestart(Session):
    def _warm(self, *arguments, **named):
        super()._warm(*arguments, **named)
        for order in self._store.state.all_live_orders():
            if order.status is OrderStatus.UNKNOWN:
                for event in self._gate.venue.submit(order.intent, order.client_id, 0.0):
                    self._ledger.emit(event)
        self._ledger.commit()


@planted("entries are sent however old their candle is", "session", seed=1)
class OldData(Session):
    def _why_entries_wait(self, waited_ns):
        return self._keeper.hold


# --------------------------------------------------------------------- the gate
@planted("an order without an answer is sent a second time", "gate")
class Resend(Gate):
    def _submit(self, intended, *, durable, cash_free):
        events = super()._submit(intended, durable=durable, cash_free=cash_free)
        if any(isinstance(event, OrderOutcomeUnknown) for event in events):
            try:
                return self._venue.submit(intended.intent, intended.client_id, cash_free)
            except VenueError:
                return events
        return events


@planted("a timeout counts as failed", "gate")
class TimeoutIsFailed(Gate):
    def _submit(self, intended, *, durable, cash_free):
        events = super()._submit(intended, durable=durable, cash_free=cash_free)
        return [
            OrderClosed(
                ts_event_ns=event.ts_event_ns,
                intent_no=event.intent_no,
                status="never_placed",
                reason="timeout",
            )
            if isinstance(event, OrderOutcomeUnknown)
            else event
            for event in events
        ]


@planted("an order that was not sent is tried again under a new name", "gate")
class RetryUnderNewName(Gate):
    def _submit(self, intended, *, durable, cash_free):
        events = super()._submit(intended, durable=durable, cash_free=cash_free)
        if any(isinstance(event, OrderOutcomeUnknown) for event in events):
            name = client_id(self._epoch, intended.intent.intent_no + 1_000)
            try:
                self._venue.submit(intended.intent, name, cash_free)
            except VenueError:
                return events
        return events


@planted("the gate forgets by a restart what it sent, and has no ceiling", "gate")
class ForgetfulGate(Gate):
    def remember(self, orders):
        super().remember(())

    def _refusal(self, intent):
        return super()._refusal(intent) if self._hold else None

    def _submit(self, intended, *, durable, cash_free):
        self._highest_sent = 0
        events = super()._submit(intended, durable=durable, cash_free=cash_free)
        if intended.intent.reduce_only:
            return events
        try:
            for number in range(1, 9):
                name = client_id(self._epoch, intended.intent.intent_no + 10_000 * number)
                self._venue.submit(intended.intent, name, cash_free)
        except VenueError:
            return events
        return events


@planted("entries pass though they should wait", "gate")
class DeafGate(Gate):
    def hold(self, reason):
        super().hold("")


# ------------------------------------------------------------------- the engine
@planted("an order to sell is not marked reduce-only, and sells twice", "engine")
class ReduceFlipped(Engine):
    def _cover(self, book, instrument, candle):
        super()._cover(book, instrument, candle)
        position = self._state.books[book].positions.get(instrument.symbol)
        if position is not None:
            quantity = instrument.floor_quantity(position.quantity)
            if instrument.tradable(quantity, position.stop_price):
                self._reduce(position, instrument, candle, quantity, Purpose.STOP, "again")


@planted("orders of unknown outcome reserve nothing", "engine", seed=1)
class UnknownNotReserved(Engine):
    def _risk_view(self, book, symbol, now_ns):
        view = super()._risk_view(book, symbol, now_ns)
        known = [
            OpenOrder(
                order.intent.symbol,
                order.intent.side.sign,
                float(order.open_quantity),
                float(order.intent.worst_price),
                reduce_only=order.intent.reduce_only,
            )
            for order in self._state.all_live_orders(book)
            if order.status is not OrderStatus.UNKNOWN
        ]
        return RiskView(
            equity=view.equity,
            cash_free=view.cash_free,
            marks=view.marks,
            positions=view.positions,
            open_orders=known,
            correlations=view.correlations,
            depth_quote=view.depth_quote,
            breaker=view.breaker,
            metrics=view.metrics,
            now_ns=view.now_ns,
            overrides=view.overrides,
        )

    def _engaged(self, book, symbol):
        held = self._state.books[book]
        return symbol in held.positions or any(
            order.intent.purpose is Purpose.ENTRY and order.status is not OrderStatus.UNKNOWN
            for order in self._state.live_orders(symbol, book)
        )


@planted("nobody puts the stop back after it was lost or a restart came between", "engine")
class StopNotReplaced(Engine):
    def protect(self, symbol):
        return []

    def _cover(self, book, instrument, candle):
        position = self._state.books[book].positions.get(instrument.symbol)
        if position is not None and position.opened_ts_ns // 1_000_000 >= candle.open_time_ms:
            super()._cover(book, instrument, candle)


# ------------------------------------------------------------------- the keeper
class Impatient(UnknownOrders):
    def missed(self, intent_no, now_ms, clock_error_ms):
        return True


@planted("an order counts as never placed at the first look", "keeper", seed=64)
class EarlyNeverPlaced(AccountKeeper):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._unknown = Impatient()


@planted("a filled quantity is booked without its trades", "keeper")
class SyntheticFill(AccountKeeper):
    def _settle(self, order, told):
        if told.filled > order.filled:
            self._invent(order, told)
        super()._settle(self._ledger.state.orders[order.intent.intent_no], told)

    def _hear(self, told, trade):
        order = super()._hear(told, trade)
        if order is not None and told.filled > order.filled:
            self._invent(order, told)
        return order

    def _invent(self, order, told):
        from bot4_runtime.domain.order import Liquidity
        from bot4_runtime.exchange.protocols import VenueTrade

        trade = VenueTrade(
            symbol=told.symbol,
            trade_id=10_000_000 + order.intent.intent_no,
            venue_order_id=told.venue_order_id,
            side=told.side,
            price=told.spent / told.filled,
            quantity=told.filled - order.filled,
            fee=Decimal(0),
            fee_asset="USDT",
            liquidity=Liquidity.TAKER,
            time_ms=told.updated_ms,
        )
        self._ledger.emit(fill_event(order, trade))


@planted("a sale is sent whatever else may sell the same", "keeper", seed=899)
class SureOfWhatIsLeft(AccountKeeper):
    def unsure(self, intent):
        return ""


@planted("reconciliation looks at orders and leaves trades out", "keeper")
class NoTradesRead(AccountKeeper):
    def _book_trades(self, through):
        return {symbol: through.get(symbol, 0) for symbol in self._symbols}


@planted("trades are read from the last one heard of, past those that were lost", "keeper")
class CursorOfTheStream(AccountKeeper):
    def _book(self, order, trade):
        super()._book(order, trade)
        through = self._ledger.state.account.trades_through
        through[trade.symbol] = max(through.get(trade.symbol, 0), trade.trade_id)

    def _settle(self, order, told):
        if told.filled != order.filled and told.status.terminal:
            self._close(order, OrderStatus.CANCELED, "ended at the venue")
        super()._settle(order, told)


def adopts(state: TradingState, epoch: int, told: Any) -> Claim:
    found = claim(state, epoch, told)
    if found.foreign:
        alike = [o for o in state.orders.values() if o.intent.symbol == told.symbol]
        return Claim(alike[-1], "") if alike else Claim(None, "")
    return found


@planted("an order of somebody else is taken for ours", "keeper", seed=11)
class ForeignAdopted(AccountKeeper):
    def _hear(self, told, trade):
        kept = keeper_module.claim
        keeper_module.claim = adopts
        try:
            return super()._hear(told, trade)
        finally:
            keeper_module.claim = kept


@planted("an answer without balances means that there is no money", "keeper")
class ZeroBelieved(AccountKeeper):
    def _conclude(self, through, opening):
        differences = list(self._found.values())
        account = self._ledger.state.account
        known = {d.key for d in account.differences}
        fresh = [d for d in differences if d.key not in known and d.ours != d.venue]
        self._found.clear()
        if fresh:
            self._tell(through, opening, (*account.differences, *fresh))
        super()._conclude(through, opening)


@planted("a reading that compares nothing forgets that balances differed", "keeper", seed=174)
class DoubtForgotten(AccountKeeper):
    def _conclude(self, through, opening):
        super()._conclude(through, opening)
        self._apart = False


@planted("a missing order is taken for canceled at the first look", "keeper", seed=3)
class MissingIsCanceled(AccountKeeper):
    def _on_missed(self, order):
        if order.intent.intent_no not in self._told and not order.status.terminal:
            self._close(order, OrderStatus.CANCELED, "not there")


@planted("an order ends although trades of it are missing", "keeper")
class EndsTooEarly(AccountKeeper):
    def _hear(self, told, trade):
        order = super()._hear(told, trade)
        if order is not None and told.status.terminal and not order.status.terminal:
            self._close(order, OrderStatus.CANCELED, "ended")
            self._book_trades = lambda through: through
        return order


@planted("differences are found and told to nobody", "keeper", seed=4)
class DifferencesIgnored(AccountKeeper):
    def _tell(self, through, opening, differences):
        super()._tell(through, opening, ())


@planted("the venue's clock is not looked at", "keeper", seed=5)
class ClockIgnored(AccountKeeper):
    def _measure_clock(self):
        pass


@planted("after a restart unknown orders are forgotten", "keeper", seed=4)
class UnknownForgotten(AccountKeeper):
    def start(self):
        for order in self._ledger.state.all_live_orders():
            if order.status in {OrderStatus.INTENDED, OrderStatus.UNKNOWN}:
                self._close(order, OrderStatus.NEVER_PLACED, "the process ended")


# --------------------------------------------------------------------- the wire
@planted("a fill of the stream is booked a second time under another id", "ledger")
class TwiceUnderTwoNames(VirtualLedger):
    def emit(self, event):
        super().emit(event)
        if type(event) is OrderFilled and int(event.fill.trade_id) % 2 == 0:
            again = _replace(event.fill, trade_id=f"{event.fill.trade_id}0")
            super().emit(_replace(event, fill=again))


@planted("a lost reply is read as a rejection", "wire")
class LostIsRejected(SimulatedWire):
    def submit(self, intent, client_id, cash_free):
        from bot4_runtime.domain.errors import OutcomeUnknown, VenueRefused

        try:
            return super().submit(intent, client_id, cash_free)
        except OutcomeUnknown as error:
            raise VenueRefused(str(error)) from error


# ------------------------------------------------- one for each invariant few bugs break
@planted("a fee taken in the asset bought is not taken off the position", "ledger", breaks="I4")
class FeeForgotten(VirtualLedger):
    def emit(self, event):
        super().emit(event)
        if type(event) is OrderFilled and event.fill.symbol == (event.fill.fee_asset + "USDT"):
            positions = self.state.books[event.fill.book].positions
            held = positions[event.fill.symbol]
            positions[event.fill.symbol] = _replace(held, quantity=held.quantity + event.fill.fee)


@planted("the account is read over and over", "keeper", breaks="I12")
class AsksWithoutEnd(AccountKeeper):
    def _reconcile(self):
        for _ in range(60):
            super()._reconcile()


@planted("a regime is named that no model made", "engine", breaks="I13")
class RegimeInvented(Engine):
    def process(self, candle):
        estimate = RegimeEstimate(
            symbol=candle.symbol,
            interval=candle.interval,
            open_time_ms=candle.open_time_ms,
            regime=Regime.NEUTRAL,
            probabilities=(0.2, 0.2, 0.2, 0.2, 0.2),
            confidence=0.2,
            source=EstimateSource.LSTM,
            hmm_regime=Regime.NEUTRAL,
            hmm_confidence=0.2,
            volatility=0.01,
            model_sha256="",
            schema_id="",
        )
        self._ledger.emit(RegimeNamed(ts_event_ns=candle.close_time_ms, estimate=estimate))
        return super().process(candle)


@planted("what differs is accepted without the operator", "keeper", seed=27, breaks="I14")
class AcceptsItself(AccountKeeper):
    def _tell(self, through, opening, differences):
        super()._tell(through, opening, differences)
        if differences:
            self._ledger.emit(
                OperatorCommand(ts_event_ns=0, verb="accept", reason="sure", command_id="0")
            )


@planted("an error shows the whole request it is of", "wire", breaks="I15")
class ShowsTheKey(SimulatedWire):
    def _shown(self, name):
        return f"{name}?{self._signer.query({'apiKey': self._signer.api_key})}"


@dataclass(frozen=True)
class Verdict:
    """How a bug was found: after how many runs, in which seed, by what."""

    bug: Bug
    runs: int
    seed: int
    by: str


def caught(bug: Bug, seeds: Sequence[int]) -> Verdict | None:
    """Explore seeds with a bug inside until what must speak does; None when it never does."""
    runs = 0
    for seed in seeds:
        try:
            outcome = explore(seed, bug.parts, stop_at_first=not bug.breaks)
        except (AssertionError, InvariantViolated, LookupError, ArithmeticError) as error:
            if bug.breaks:
                continue
            return Verdict(bug, runs + 1, seed, f"{type(error).__name__}: {error}")
        runs += outcome.runs
        for _, _, violations in outcome.failures:
            for text in violations:
                if text.startswith(f"{bug.breaks} " if bug.breaks else ""):
                    return Verdict(bug, runs, seed, text)
    return None
