"""One run of the engine: recover, reconcile, warm, then candle by candle until told to stop.

The order of things is the whole point here: a batch is folded, journaled and, when it holds
intents, durable before anything is sent; outcomes are journaled as the next batch. After a
kill the same steps continue where the journal ends.

A run comes up in this order, and what fails leads to reducing only, or to the end: the
account's lock, settings and limits, the journal's checks, replay, models (all in `app`), then
the venue's clock and reconciliation (`exchange.keeper`), warm windows, trading. With a venue
outside the process every turn, between candles too, first reads what the venue says; entries
wait while anything of it is unclear, exits and stops never do.

Exits do wait for the journal, as all orders: nothing is sent that a restart would not know. When
it stalls for longer than the store's patience (30 s) the run ends, entries at a venue outside the
process are called back, and the stops that rest there protect what is held. There is no spool
beside the journal.

However a run ends, entries at a venue outside the process are called back first, until the venue
says that they ended (`withdrawal`).
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from bot4_runtime.clock import Clock, ManualClock
from bot4_runtime.domain.candle import Candle, interval_ms
from bot4_runtime.domain.errors import DataError, OrdersMayRest
from bot4_runtime.domain.events import (
    SCHEMA_VERSION,
    JournaledEvent,
    ModelPromoted,
    ModelTrial,
    OperatorCommand,
    OrderClosed,
    OrderEvent,
    OrderIntended,
    OrderOutcomeUnknown,
    OverrideSet,
    SessionEnded,
    SessionStarted,
)
from bot4_runtime.domain.order import (
    OrderIntent,
    OrderStatus,
    payload_hash,
)
from bot4_runtime.engine import Cancel, Command, Engine, Submit
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.exchange.keeper import AccountKeeper
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.fees.tier import TierFold
from bot4_runtime.identity import WARM_CANDLES, Identity
from bot4_runtime.patience import patiently
from bot4_runtime.sources import CandleSource
from bot4_runtime.state.store import RecoveryReport, StateStore
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.withdrawal import WITHIN_MS, Withdrawal, held_symbols

MAX_LAG_MS: Final = 120_000
"""How old a candle may be when it is decided on at a venue outside the process."""
MAX_WAIT_MS: Final = 500
"""How long an entry may wait for the disk there before it is not sent any more."""
NS_PER_MS: Final = 1_000_000


class Ledger:
    """Folds each event at once, keeps it for the open batch, and publishes it.

    Args:
        store: recovered state and journal.
        bus: told after the fold; a subscriber cannot change what happens.
        tier: moved by each event; None where fees stay what they are.
    """

    def __init__(self, store: StateStore, bus: EventBus, tier: TierFold | None = None) -> None:
        self.store = store
        self._bus = bus
        self._tier = tier
        self._followers: list[Callable[[JournaledEvent], None]] = []

    @property
    def state(self) -> TradingState:
        """The state all emitted events were folded into."""
        return self.store.state

    def follow(self, hear: Callable[[JournaledEvent], None]) -> None:
        """Tell somebody of each event once it is folded; what hears it must not emit."""
        self._followers.append(hear)

    def emit(self, event: JournaledEvent) -> None:
        """Fold and publish an event, unless it is a fill that was booked before."""
        if self.store.stage(event):
            if self._tier is not None:
                self._tier.apply(event)
            for hear in self._followers:
                hear(event)
            self._bus.publish(event)

    def commit(self) -> int:
        """Close the batch; return its last sequence number."""
        return self.store.commit()


class ModelWatcher(Protocol):
    """Tries out a newly promoted pair of models, and goes back from a bad one."""

    def poll(self, engine: Engine) -> Sequence[ModelPromoted | ModelTrial]:
        """Swap the engine's models when one must; return what happened."""
        ...


class Guard(Protocol):
    """Keeps margin positions from liquidation."""

    @property
    def hold(self) -> str:
        """Why entries wait; empty when they need not."""
        ...

    @property
    def unread(self) -> bool:
        """Whether the account should be read soon."""
        ...

    def turn(self, now_ns: int) -> Sequence[Command]:
        """Look at marks and positions; return what must be done once its batch is durable."""
        ...


class CommandSource(Protocol):
    """Where an operator's orders come from."""

    def poll(self) -> Sequence[OperatorCommand | OverrideSet]:
        """Return the orders given since the last call, each once; never waits."""
        ...


@dataclass(frozen=True, slots=True)
class SessionResult:
    """How a run ended.

    Attributes:
        candles: of this run only.
        refused: those a live source got wrong, passed over.
    """

    candles: int
    state_hash: str
    recovery: RecoveryReport
    stopped: bool
    refused: int = 0


class Session:
    """Runs an engine over a source.

    Args:
        ledger: recovered state and journal.
        clock: a `ManualClock` is moved to each candle's close.
        watcher: None when models must not change, as in a replay.
        keeper: reads the account at a venue outside the process; None for one inside.
        guard: of margin positions there; None where there are none.
        lease: renewed by each commit that orders wait for; the venue asks it before it sends.
        commands: an operator's orders, looked for between candles.
        timer: nanoseconds of a clock that never jumps.
        wait: lets that many seconds pass.
        withdraw_ms: how long the end of entries may be waited for when the run ends.
        held: why no entry may be sent in this run, which calls back those that rest; empty when
            some may.
        on_progress: called with (candles done, the candle) after each.
        on_wait: told why nothing begins yet.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        source: CandleSource,
        ledger: Ledger,
        engine: Engine,
        gate: Gate,
        clock: Clock,
        watcher: ModelWatcher | None = None,
        keeper: AccountKeeper | None = None,
        guard: Guard | None = None,
        lease: Lease | None = None,
        commands: CommandSource | None = None,
        timer: Callable[[], int] = time.monotonic_ns,
        wait: Callable[[float], object] = time.sleep,
        withdraw_ms: int = WITHIN_MS,
        held: str = "",
        on_progress: Callable[[int, Candle], None] | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self._identity = identity
        self._source = source
        self._ledger = ledger
        self._store = ledger.store
        self._engine = engine
        self._gate = gate
        self._clock = clock
        self._watcher = watcher
        self._keeper = keeper
        self._guard = guard
        self._lease = lease
        self._commands = commands
        self._timer = timer
        self._newest_ms = 0
        self._held = held
        self._hold = ""
        self._on_progress = on_progress
        self._on_wait = on_wait
        self._log = structlog.get_logger("session")
        self._withdrawal = (
            Withdrawal(
                ledger,
                gate,
                keeper,
                protect=self._protect,
                clock=clock,
                timer=timer,
                wait=wait,
                within_ms=withdraw_ms,
            )
            if keeper is not None
            else None
        )

    def run(self, stop: threading.Event, recovery: RecoveryReport) -> SessionResult:
        """Run until the source ends or `stop` is set; snapshot and close in order.

        Raises:
            ConfigError: the journal belongs to another source, strategy or mode, or settings
                changed that the user did not accept.
            OrdersMayRest: it ended in order, but for orders whose end the venue did not confirm.
        """
        state = self._store.state
        left: list[str] = []
        fresh = state.inputs == 0
        start_ms = self._start_ms()
        warm_from_ms = start_ms - WARM_CANDLES * interval_ms(self._source.interval)
        self._identity.check(state, self._source)
        self._begin(warm_from_ms, start_ms)
        self._gate.remember(state.orders.values())
        try:
            if self._keeper is not None:
                self._keeper.start()
                self._keeper.turn()
                self._ledger.commit()
            if self._held:
                now_ns = self._clock.now_ns()
                self._carry_out(self._engine.withhold(now_ns, self._held), now_ns)
            self._relieve()
            self._warm(warm_from_ms, start_ms, stop, fresh=fresh)
            if self._keeper is None:
                self._replay_unanswered()
            else:
                self._protect(sorted(held_symbols(state)))
            candles, refused = self._trade(start_ms, stop)
            if self._withdrawal is not None:
                left = self._withdrawal.in_order("the session ends")
        except Exception as error:  # of others' code too, such as a strategy's mistake
            if self._withdrawal is not None:
                self._withdrawal.after(error)
            raise
        self._ledger.emit(
            SessionEnded(
                ts_event_ns=self._clock.now_ns(),
                epoch=state.epoch,
                reason="; ".join(["stopped" if stop.is_set() else "source ended", *left]),
            )
        )
        self._store.wait_durable(self._ledger.commit())
        self._store.create_snapshot()
        if left:
            raise OrdersMayRest(
                f"the session has ended, but {'; '.join(left)}. Look at the venue and cancel or "
                "sell by hand, or start again with the same command: it looks for them first"
            )
        return SessionResult(candles, state.state_hash(), recovery, stop.is_set(), refused)

    def _trade(self, start_ms: int, stop: threading.Event) -> tuple[int, int]:
        """Go through the source; return how many candles were traded and refused."""
        candles = refused = 0
        cursor = dict(self._store.state.cursor)
        manual = self._clock if isinstance(self._clock, ManualClock) else None
        alone = self._keeper is None and self._watcher is None and self._commands is None
        for candle in self._source.stream(start_ms, cursor, stop):
            if candle is None:
                self._look_around()
            elif self._admitted(candle):
                self._newest_ms = candle.close_time_ms
                now_ns = self._newest_ms * NS_PER_MS
                if manual is not None:
                    manual.advance_to(now_ns)
                if not alone:
                    self._look_around()
                self._carry_out(self._engine.process(candle), now_ns)
                candles += 1
                if self._on_progress is not None:
                    self._on_progress(candles, candle)
            else:
                refused += 1
                continue
            self._store.tick(self._timer())
            if stop.is_set():
                break
        return candles, refused

    # ------------------------------------------------------------------- steps
    def _admitted(self, candle: Candle) -> bool:
        """Tell whether a candle may be traded on; one bad candle does not end a live source."""
        try:
            self._engine.admit(candle)
        except DataError as error:
            if self._source.start_ms is not None:
                raise
            self._log.error("candle refused", why=str(error))
            return False
        return True

    def _look_around(self) -> None:
        """Do what is due besides candles: the venue, promoted models, the operator."""
        if self._keeper is not None:
            self._protect(self._keeper.turn())
        self._relieve()
        if self._watcher is not None:
            happened = self._watcher.poll(self._engine)
            for event in happened:
                self._ledger.emit(event)
            if happened:
                self._ledger.commit()
        if self._commands is not None:
            for command in self._commands.poll():
                self._carry_out(self._engine.obey(command), command.ts_event_ns)

    def _relieve(self) -> None:
        """Carry out what liquidation prevention decides, and stop what is left."""
        if self._guard is None:
            return
        now_ns = self._clock.now_ns()
        commands = self._guard.turn(now_ns)
        if self._keeper is not None and self._guard.unread:
            self._keeper.hurry()
        self._carry_out(commands, now_ns)
        sold = {c.intended.intent.symbol for c in commands if isinstance(c, Submit)}
        self._protect(sorted(sold))

    def _protect(self, symbols: Sequence[str]) -> bool:
        """Give what filled between two candles its stop; return whether anything was ordered."""
        commands = [command for symbol in symbols for command in self._engine.protect(symbol)]
        self._carry_out(commands, self._clock.now_ns())
        return bool(commands)

    def _carry_out(self, commands: Sequence[Command], now_ns: int) -> None:
        """Close the batch and, once it is durable, do what was decided in it."""
        lease_ns = self._lease.now_ns() if self._lease is not None else 0
        seq = self._ledger.commit()
        if not commands:
            return
        asked_ns = self._timer()
        self._store.wait_durable(seq)
        if self._lease is not None:
            self._lease.renewed(lease_ns)
        self._hold_entries(self._why_entries_wait(self._timer() - asked_ns))
        for command in commands:
            self._perform(command, now_ns)
        self._ledger.commit()

    def _hold_entries(self, reason: str) -> None:
        self._gate.hold(reason)
        if reason and reason != self._hold:
            self._log.warning("entries wait", why=reason)
        elif self._hold and not reason:
            self._log.info("entries wait no longer")
        self._hold = reason

    def _why_entries_wait(self, waited_ns: int) -> str:
        if self._keeper is None or self._held or self._store.distress:
            return self._held or self._store.distress
        lag_ms = self._clock.now_ns() // NS_PER_MS - self._newest_ms
        if not abs(lag_ms) <= MAX_LAG_MS:
            return f"the candle closed {lag_ms} ms ago, more than {MAX_LAG_MS}"
        if not waited_ns <= MAX_WAIT_MS * NS_PER_MS:
            return f"the journal took {waited_ns // NS_PER_MS} ms, more than {MAX_WAIT_MS}"
        return self._keeper.hold or (self._guard.hold if self._guard is not None else "")

    def _perform(self, command: Command, now_ns: int) -> None:
        state = self._store.state
        events: list[OrderEvent]
        if isinstance(command, Submit):
            intent = command.intended.intent
            unsure = "" if self._keeper is None else self._keeper.unsure(intent)
            if unsure:
                events = [_withheld(intent, now_ns, unsure)]
            else:
                events = self._gate.send(
                    command.approved,
                    command.intended,
                    durable=self._store.durable_seq >= state.seq,
                    cash_free=self._engine.cash_free(intent.book, without=intent.intent_no),
                )
        else:
            events = self._gate.cancel(state.orders[command.intent_no], now_ns)
        for event in events:
            self._ledger.emit(event)
            if self._keeper is not None and isinstance(event, OrderOutcomeUnknown):
                self._keeper.sent(event.intent_no)
        if self._keeper is not None and isinstance(command, Cancel):
            self._keeper.hurry()

    def _replay_unanswered(self) -> None:
        """Hand intents whose outcome was lost with the process to the venue again."""
        state = self._store.state
        length_ms = interval_ms(self._source.interval)
        now_ns = (max(state.cursor.values(), default=0) + length_ms) * NS_PER_MS
        for order in state.all_live_orders():
            intent = order.intent
            if order.cancel_requested:
                self._perform(Cancel(intent.intent_no), now_ns)
            elif order.status is OrderStatus.INTENDED:
                intended = OrderIntended(
                    ts_event_ns=intent.ts_ns,
                    intent=intent,
                    client_id=order.client_id,
                    payload_hash=payload_hash(intent),
                )
                free = self._engine.cash_free(intent.book, without=intent.intent_no)
                for event in self._gate.replay(intended, cash_free=free):
                    self._ledger.emit(event)
        self._ledger.commit()

    def _start_ms(self) -> int:
        state = self._store.state
        if state.first_session is not None:
            return state.first_session.start_ms
        if self._source.start_ms is not None:
            return self._source.start_ms
        step_ms = interval_ms(self._source.interval)
        return self._clock.now_ns() // NS_PER_MS // step_ms * step_ms

    def _begin(self, warm_from_ms: int, start_ms: int) -> None:
        identity = self._identity
        started = SessionStarted(
            ts_event_ns=self._clock.now_ns(),
            epoch=self._store.epoch,
            mode=identity.mode,
            source=self._source.label,
            origin=self._source.origin,
            strategy=identity.strategy,
            config_hash=identity.config_hash,
            schema_version=SCHEMA_VERSION,
            warm_from_ms=warm_from_ms,
            start_ms=start_ms,
            quote=identity.quote,
            initial_cash=identity.initial_cash,
            books=identity.books,
        )
        self._ledger.emit(started)
        self._store.wait_durable(self._ledger.commit())

    def _warm(
        self, warm_from_ms: int, start_ms: int, stop: threading.Event, *, fresh: bool
    ) -> None:
        """Show the engine what came before: up to the start, or to each symbol's cursor."""
        cursor = self._store.state.cursor
        to_ms = start_ms if fresh else max(cursor.values()) + 1
        history = patiently(lambda: self._source.history(warm_from_ms, to_ms), stop, self._on_wait)
        for candle in history or ():
            if stop.is_set():
                return  # half warm; a stopped source yields nothing to decide on
            if fresh or candle.open_time_ms <= max(cursor.get(candle.symbol, -1), start_ms - 1):
                self._engine.warm(candle)


def _withheld(intent: OrderIntent, now_ns: int, reason: str) -> OrderClosed:
    return OrderClosed(
        ts_event_ns=now_ns,
        intent_no=intent.intent_no,
        status=OrderStatus.NEVER_PLACED.value,
        reason=f"not sent: {reason}",
    )
