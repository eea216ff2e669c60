"""One run of the engine: recover, warm, then candle by candle until told to stop.

The order of things is the whole point here: a batch is folded, journaled and, when it holds
intents, durable before anything is sent; outcomes are journaled as the next batch. After a
kill the same steps continue where the journal ends.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

import structlog

from bot4_runtime.clock import Clock, ManualClock
from bot4_runtime.domain.candle import Candle, interval_ms
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.events import (
    SCHEMA_VERSION,
    JournaledEvent,
    ModelPromoted,
    OrderIntended,
    SessionEnded,
    SessionStarted,
)
from bot4_runtime.domain.order import Book, OrderStatus, payload_hash
from bot4_runtime.engine import Cancel, Command, Engine, Submit
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.sources import CandleSource
from bot4_runtime.state.store import RecoveryReport, StateStore
from bot4_runtime.state.trading_state import TradingState

WARM_CANDLES: Final = 700
"""Candles shown before the first decision: LOOKBACK 512, the LSTM's 50, and some."""
NS_PER_MS: Final = 1_000_000
ACCEPTED_DIGITS: Final = 12
"""How much of a settings hash must be named to agree to it."""


class Ledger:
    """Folds each event at once, keeps it for the open batch, and publishes it.

    Args:
        store: recovered state and journal.
        bus: told after the fold; a subscriber cannot change what happens.
    """

    def __init__(self, store: StateStore, bus: EventBus) -> None:
        self.store = store
        self._bus = bus

    @property
    def state(self) -> TradingState:
        """The state all emitted events were folded into."""
        return self.store.state

    def emit(self, event: JournaledEvent) -> None:
        """Fold and publish an event, unless it is a fill that was booked before."""
        if self.store.stage(event):
            self._bus.publish(event)

    def commit(self) -> int:
        """Close the batch; return its last sequence number."""
        return self.store.commit()


class ModelWatcher(Protocol):
    """Notices a newly promoted pair of models."""

    def poll(self, engine: Engine) -> ModelPromoted | None:
        """Swap the engine's models when the pointer moved; return what was promoted."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """What a session is, journaled at its start.

    Attributes:
        config_hash: sha256 of the settings that shape trading.
        initial_cash: quote each book starts with.
        accepted: hash, or its beginning, of changed settings the user agrees to.
    """

    mode: str
    strategy: str
    config_hash: str
    quote: str
    initial_cash: Decimal
    books: tuple[Book, ...]
    accepted: str = ""


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
        on_progress: called with (candles done, the candle) after each.
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
        on_progress: Callable[[int, Candle], None] | None = None,
    ) -> None:
        self._identity = identity
        self._source = source
        self._ledger = ledger
        self._store = ledger.store
        self._engine = engine
        self._gate = gate
        self._clock = clock
        self._watcher = watcher
        self._on_progress = on_progress
        self._log = structlog.get_logger("session")

    def run(self, stop: threading.Event, recovery: RecoveryReport) -> SessionResult:
        """Run until the source ends or `stop` is set; snapshot and close in order.

        Raises:
            ConfigError: the journal belongs to another source, strategy or mode, or settings
                changed that the user did not accept.
        """
        state = self._store.state
        fresh = state.inputs == 0
        start_ms = self._start_ms()
        warm_from_ms = start_ms - WARM_CANDLES * interval_ms(self._source.interval)
        self._check_same()
        self._begin(warm_from_ms, start_ms)
        self._warm(warm_from_ms, start_ms, stop, fresh=fresh)
        self._gate.remember(state.orders.values())
        self._replay_unanswered()
        candles = refused = 0
        for candle in self._source.stream(start_ms, dict(state.cursor), stop):
            if not self._admitted(candle):
                refused += 1
                continue
            if isinstance(self._clock, ManualClock):
                self._clock.advance_to(candle.close_time_ms * NS_PER_MS)
            if self._watcher is not None:
                promoted = self._watcher.poll(self._engine)
                if promoted is not None:
                    self._ledger.emit(promoted)
            self._step(candle)
            candles += 1
            if self._on_progress is not None:
                self._on_progress(candles, candle)
            if stop.is_set():
                break
        self._ledger.emit(
            SessionEnded(
                ts_event_ns=self._clock.now_ns(),
                epoch=state.epoch,
                reason="stopped" if stop.is_set() else "source ended",
            )
        )
        self._store.wait_durable(self._ledger.commit())
        self._store.create_snapshot()
        return SessionResult(candles, state.state_hash(), recovery, stop.is_set(), refused)

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

    def _step(self, candle: Candle) -> None:
        commands = self._engine.process(candle)
        seq = self._ledger.commit()
        if commands:
            self._store.wait_durable(seq)
            for command in commands:
                self._perform(command, candle.close_time_ms * NS_PER_MS)
            self._ledger.commit()
        self._store.tick(time.time_ns())

    def _perform(self, command: Command, now_ns: int) -> None:
        state = self._store.state
        if isinstance(command, Submit):
            intent = command.intended.intent
            events = self._gate.send(
                command.approved,
                command.intended,
                durable=True,
                cash_free=self._engine.cash_free(intent.book, without=intent.intent_no),
            )
        else:
            events = self._gate.cancel(state.orders[command.intent_no], now_ns)
        for event in events:
            self._ledger.emit(event)

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

    def _check_same(self) -> None:
        before = self._store.state.session
        if before is None:
            return
        now = (self._identity.mode, self._source.label, self._identity.strategy)
        was = (before.mode, before.source, before.strategy)
        if now != was:
            raise ConfigError(
                f"this account's journal was begun with {_told(*was)}, and now it would go on "
                f"with {_told(*now)}; name another account with --account, or start as before"
            )
        self._check_same_settings(before)

    def _check_same_settings(self, before: SessionStarted) -> None:
        """Nothing that shapes trading changes by a restart unless the user says so."""
        identity, state = self._identity, self._store.state
        now, accepted = identity.config_hash, identity.accepted
        agreed = len(accepted) >= ACCEPTED_DIGITS and now.startswith(accepted)
        if now != before.config_hash and not agreed:
            raise ConfigError(
                "the settings that shape trading (runtime, paper, risk, fees) are not those this "
                f"account last ran with ({before.config_hash[:12]}, now {now[:12]}); start as "
                "before, name another account with --account, or agree to the new ones with "
                f"--accept {now[:12]}"
            )
        held = {symbol for book in state.books.values() for symbol in book.positions}
        held |= {order.intent.symbol for order in state.all_live_orders()}
        left = sorted(held - set(self._source.symbols))
        if left:
            raise ConfigError(
                f"the account holds positions or orders in {', '.join(left)}, and "
                f"{self._source.label} has no candles of them, so that nothing would watch their "
                f"stops; expected all of them among {', '.join(self._source.symbols)}"
            )

    def _warm(
        self, warm_from_ms: int, start_ms: int, stop: threading.Event, *, fresh: bool
    ) -> None:
        """Show the engine what came before: up to the start, or to each symbol's cursor."""
        cursor = self._store.state.cursor
        to_ms = start_ms if fresh else max(cursor.values()) + 1
        for candle in self._source.history(warm_from_ms, to_ms):
            if stop.is_set():
                return  # half warm; a stopped source yields nothing to decide on
            if fresh or candle.open_time_ms <= max(cursor.get(candle.symbol, -1), start_ms - 1):
                self._engine.warm(candle)


def _told(mode: str, source: str, strategy: str) -> str:
    return f"mode {mode}, source {source}, strategy {strategy}"
