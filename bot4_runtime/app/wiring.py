"""Settings become a session ready to run: source, store, models, engine and gate."""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bot4_runtime.app.accepted import changes_since, keep_settings
from bot4_runtime.app.costs import account_fees, catch_up, round_trip_costs
from bot4_runtime.app.live import at_stake
from bot4_runtime.app.notices import model_notices, source_notices, standing_notices
from bot4_runtime.app.options import RunOptions
from bot4_runtime.app.promoted import PromotedModels, describe
from bot4_runtime.app.remote import Remote, connect
from bot4_runtime.app.run import Run
from bot4_runtime.app.source import build_source
from bot4_runtime.app.store import open_series, open_store
from bot4_runtime.bridge import RedisBridge
from bot4_runtime.clock import NS_PER_MS, Clock, LiveClock, ManualClock
from bot4_runtime.commands import CommandReader, JournaledOrders
from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.order import Book
from bot4_runtime.engine import Engine, EngineParts, untold
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.account_claim import AccountClaim
from bot4_runtime.exchange.binance.streamed import StreamedSource
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.exchange.keeper import AccountKeeper
from bot4_runtime.exchange.paper import PaperVenue
from bot4_runtime.exchange.protocols import Venue
from bot4_runtime.fees.calculator import BNB, FeeCalculator
from bot4_runtime.identity import Identity
from bot4_runtime.market import MarketMemory
from bot4_runtime.protection.guard import LiquidationGuard
from bot4_runtime.regime.evidence import synthetic_evidence
from bot4_runtime.regime.notice import PromotionNotice
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.correlation import CorrelationTable
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.session import Ledger, Session
from bot4_runtime.settings import Settings
from bot4_runtime.signals.validator import SignalValidator, ValidatorSettings
from bot4_runtime.sources import CandleSource, RecordedSource, wall_ms
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.store import StateStore
from bot4_runtime.strategy.protocol import load_strategy
from bot4_runtime.telemetry import Metrics

PAPER_BOOKS: Final = (Book.VALIDATED, Book.SHADOW)
Decides = tuple[PromotedModels | None, PromotionNotice | None, str]
"""Models, what hears of newer ones, and why no entry may be sent without them."""
REMOTE_MODES: Final = ("testnet", "live")
REMOTE_BOOKS: Final = (Book.VALIDATED,)
"""What is traded at a venue outside the process is what was validated, and nothing else."""


def build(
    settings: Settings,
    options: RunOptions,
    *,
    mode: str,
    folder: Path,
    on_progress: Callable[[int, Candle], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    metrics: Metrics | None = None,
    remote: Remote | None = None,
) -> Run:
    """Wire a session: source, journal, models, engine, gate, and the venue outside the process.

    Args:
        settings: of the runtime.
        options: what the command adds.
        mode: ``paper``, ``testnet`` and ``live`` watch for promotions; ``replay`` keeps the pair
            it began with.
        folder: where journal and snapshots lie.
        on_progress: called with (candles done, the candle) after each.
        on_wait: told why nothing begins yet.
        metrics: counts the events; its own when None.
        remote: of modes ``testnet`` and ``live``; the one that the settings name when None.

    Raises:
        Bot4Error: anything is missing, impossible or held by another process.
    """
    strategy = load_strategy(settings.runtime.strategy)
    if mode in REMOTE_MODES and remote is None:
        remote = connect(settings, options, strategy)
    registry = ModelRegistry(settings.models)
    source = (remote.source if remote is not None else None) or build_source(
        settings,
        options,
        registry if strategy.needs_models else None,
        remote.budget if remote is not None else None,
    )
    start_ms = source.start_ms if source.start_ms is not None else wall_ms()
    clock = _clock(options, remote, start_ms)
    books = PAPER_BOOKS if remote is None else REMOTE_BOOKS
    notices = source_notices(source)
    decides: Decides = (None, None, options.held)
    if strategy.needs_models:
        promoted = partial(_models, settings, registry, clock, source, mode, remote)
        decides = _decides(promoted, options, lambda: bool(remote) and at_stake(settings, folder))
    models, notice, held = decides
    in_bnb = settings.fees.bnb_discount and BNB + settings.runtime.quote in source.symbols
    if settings.fees.bnb_discount and not in_bnb:
        notices.append(
            f"fees.bnb_discount is on, but {BNB}{settings.runtime.quote} is not among the "
            "symbols: without its price fees are the full rate, in the asset received."
        )
    limits = settings.risk.limits()
    store = open_store(settings, mode, folder)
    try:
        recovery = store.recover()
        if models is not None and mode != "replay":
            models.go_on(store.state)
        notices += model_notices(models, source, start_ms)
        evidence = dict(models.evidence() if models is not None else {}) | {
            rule: synthetic_evidence(rule, now_ms=start_ms, interval=settings.runtime.interval)
            for rule in strategy.synthetic_rules
        }
        first = store.state.first_session
        fees, tier = account_fees(
            settings, source.market, start_ms if first is None else first.start_ms, in_bnb=in_bnb
        )
        if tier is not None and recovery.last_seq > 0:
            catch_up(tier, folder)
        paper = PaperVenue(settings.paper.model(), fees, store.state.marks.get if in_bnb else None)
        venue: Venue = remote.venue if remote is not None else paper
        claim = _claim(remote, store, f"{settings.runtime.account!r} in {folder.resolve()}")
        if mode != "replay":
            keep_settings(folder, settings)
        metrics = metrics or Metrics()
        bus = EventBus()
        _count(metrics, bus, fees, source)
        bridge = _bridge(settings, bus, metrics) if mode != "replay" else None
        series = open_series(settings, store, bus, metrics) if mode != "replay" else None
        ledger = Ledger(store, bus, tier)
        engine = Engine(
            EngineParts(
                strategy=strategy,
                validator=SignalValidator(ValidatorSettings()),
                risk=RiskManager(limits),
                breaker=CircuitBreaker(limits),
                venue=venue,
                memory=MarketMemory(
                    with_features=strategy.needs_models,
                    depth_share=settings.paper.depth_share,
                    correlations=CorrelationTable(
                        limits.correlation_half_life_hours, limits.correlation_min_observations
                    ),
                ),
                detector=models.detector if models is not None else None,
                evidence=evidence,
                costs=round_trip_costs(settings, fees, source.market),
                fees=fees,
                half_spread=settings.paper.spread_bps / 2 / 10_000,
                market=source.market,
                epoch=store.epoch,
                told=remote.told if remote is not None else untold,
            ),
            ledger,
            books,
        )
        session = Session(
            identity=Identity(
                mode=mode,
                strategy=settings.runtime.strategy,
                config_hash=settings.trading_hash(),
                quote=settings.runtime.quote,
                initial_cash=settings.initial_cash,
                books=books,
                accepted=options.accept,
                changes=lambda before: changes_since(folder, before, settings),
            ),
            source=source,
            ledger=ledger,
            engine=engine,
            gate=(gate := Gate(venue, settings.gate_limits(), store.epoch)),
            clock=clock,
            watcher=models if mode != "replay" else None,
            keeper=_keeper(remote, ledger, gate, source, claim) if remote is not None else None,
            guard=_guard(remote, ledger, engine, source, settings),
            lease=remote.lease if remote is not None else None,
            commands=_commands(folder, clock, limits) if mode != "replay" else None,
            timer=remote.timer if remote is not None else time.monotonic_ns,
            wait=remote.wait if remote is not None else time.sleep,
            withdraw_ms=round(settings.binance.withdraw_s * 1000),
            held=held,
            on_progress=on_progress,
            on_wait=on_wait,
        )
    except BaseException:
        store.close()
        raise
    notices += standing_notices(store, first, options, held)
    total = None
    if isinstance(source, RecordedSource):
        total = source.remaining(start_ms, store.state.cursor)
    return Run(
        session=session,
        store=store,
        recovery=recovery,
        source=source,
        metrics=metrics,
        total=total,
        notices=notices,
        models=describe(models.pair) if models is not None else None,
        bridge=bridge,
        series=series,
        notice=notice,
        claim=claim,
        remote=remote,
    )


def _clock(options: RunOptions, remote: Remote | None, start_ms: int) -> Clock:
    if remote is not None:
        return remote.clock
    return LiveClock() if options.source == "binance" else ManualClock(start_ms * NS_PER_MS)


def _bridge(settings: Settings, bus: EventBus, metrics: Metrics) -> RedisBridge | None:
    if not settings.bridge.redis_url:
        return None
    bridge = RedisBridge(bus, settings.bridge.redis_url, settings.runtime.account)
    metrics.watch("bridge", bridge.counters)
    return bridge


def _claim(remote: Remote | None, store: StateStore, journal: str) -> AccountClaim | None:
    if remote is None or remote.claim is None:
        return None
    return remote.claim(store, f"the journal of {journal}")


def _keeper(
    remote: Remote, ledger: Ledger, gate: Gate, source: CandleSource, claim: AccountClaim | None
) -> AccountKeeper:
    return AccountKeeper(
        remote.venue,
        ledger,
        epoch=ledger.store.epoch,
        symbols=source.symbols,
        cancel=gate.cancel,
        clock=remote.clock,
        timer=remote.timer,
        confirm=claim.confirm if claim is not None else lambda: None,
        dead_man=remote.dead_man(),
    )


def _guard(
    remote: Remote | None, ledger: Ledger, engine: Engine, source: CandleSource, settings: Settings
) -> LiquidationGuard | None:
    """Return what keeps positions from liquidation; None where there are none to liquidate."""
    if remote is None or remote.margin is None or remote.marks is None:
        return None
    return LiquidationGuard(
        limits=settings.liquidation.limits(),
        symbols=source.symbols,
        ledger=ledger,
        engine=engine,
        book=remote.margin,
        marks=remote.marks,
    )


def _count(metrics: Metrics, bus: EventBus, fees: FeeCalculator, source: CandleSource) -> None:
    """Let the metrics tell what the rooms count themselves."""
    metrics.follow(bus)
    metrics.watch("bus", bus.counters)
    metrics.watch("fees", fees.counters)
    if isinstance(source, StreamedSource):
        metrics.watch("candles", source.counters)


def _models(
    settings: Settings,
    registry: ModelRegistry,
    clock: Clock,
    source: CandleSource,
    mode: str,
    remote: Remote | None,
) -> tuple[PromotedModels, PromotionNotice | None]:
    """Return the promoted models, and what hears of newer ones where there is a Redis."""
    heard, notice = threading.Event(), None
    if settings.bridge.redis_url and mode != "replay":
        notice = PromotionNotice(settings.bridge.redis_url, heard)
    models = PromotedModels(
        registry,
        settings.runtime.interval,
        clock,
        source.symbols,
        mode=settings.runtime.hmm_mode,
        market=source.market,
        simulated=remote is None or remote.local,
        bounds=settings.promotion.bounds(),
        notice=heard,
    )
    return models, notice


def _decides(
    promoted: Callable[[], tuple[PromotedModels, PromotionNotice | None]],
    options: RunOptions,
    something_open: Callable[[], bool],
) -> Decides:
    """Return the promoted models; with something open at a venue it may be none, which holds."""
    try:
        return *promoted(), options.held
    except ModelError as error:
        if not something_open():
            raise
        return None, None, "; ".join(filter(None, (options.held, f"no models decide: {error}")))


def _commands(folder: Path, clock: Clock, limits: RiskLimits) -> CommandReader:
    journal = folder / JOURNAL
    journaled = JournaledOrders(lambda: JournalReader.open(journal))
    return CommandReader(folder, clock, limits, journaled)
