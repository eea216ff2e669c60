"""The composition root: the only module, beside the command line, that names adapters.

It turns settings into a runnable session and keeps nothing of its own.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from bot4_runtime.bridge import RedisBridge
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import DEFAULT_SEED, EPOCH_MS
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.clock import Clock, LiveClock, ManualClock
from bot4_runtime.commands import CommandReader, JournaledOrders
from bot4_runtime.domain.candle import Candle, Market, Origin, interval_ms
from bot4_runtime.domain.errors import ConfigError, DataError, ModelError
from bot4_runtime.domain.events import (
    AnyEvent,
    CandleClosed,
    ModelPromoted,
    OrderFilled,
    SessionStarted,
)
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.instrument import split_symbol
from bot4_runtime.domain.order import Book, Liquidity
from bot4_runtime.engine import Engine, EngineParts
from bot4_runtime.event_bus import EventBus
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.gate import Gate
from bot4_runtime.exchange.paper import PaperVenue
from bot4_runtime.fees.calculator import BNB, FeeCalculator
from bot4_runtime.fees.schedules import binance_schedules
from bot4_runtime.fees.tier import TierFold
from bot4_runtime.market import MarketMemory
from bot4_runtime.regime.detector import RegimeDetector
from bot4_runtime.regime.evidence import evidence_path, read_evidence, synthetic_evidence
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.risk.circuit_breaker import CircuitBreaker
from bot4_runtime.risk.correlation import CorrelationTable
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import RiskManager
from bot4_runtime.session import WARM_CANDLES, Identity, Ledger, Session, SessionResult
from bot4_runtime.settings import RuntimeSection, Settings, changes
from bot4_runtime.signals.validator import SignalValidator, TradeCosts, ValidatorSettings
from bot4_runtime.sources import (
    SIMULATED_START_MS,
    CandleSource,
    RecordedSource,
    SimulatedSource,
    utc,
    wall_ms,
)
from bot4_runtime.state.disk import Disk
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.place import JOURNAL, Elsewhere, read_note, write_note
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.store import RecoveryReport, StateStore
from bot4_runtime.strategy.protocol import load_strategy
from bot4_runtime.telemetry import Metrics

POLL_SECONDS: Final = 1.0
"""How often the pointer of promoted models is looked at."""
PAPER_BOOKS: Final = (Book.VALIDATED, Book.SHADOW)
NS_PER_MS: Final = 1_000_000
SETTINGS: Final = "settings"
"""Folder, beside a journal, of the settings it ran with, each named by its hash."""
SERVER_PATIENCE_S: Final = 0.5
"""How long an order may wait for a journal on a server; then it is never sent."""
DEFAULT_BINANCE_SYMBOLS: Final = ("BNBUSDT", "BTCUSDT", "ETHUSDT")
DEFAULT_SIMULATED_SPEED: Final = 3600.0
"""One hour of simulated market a second."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a command adds to the settings.

    Attributes:
        source: ``simulated[:SEED]``, ``recorded:DIR``, ``store`` or ``binance``.
        from_ms: open time of the first candle decided on; None for the source's own start.
        to_ms: open times from here on are left out; None for all.
        speed: candle time over wall time; None for as fast as possible.
        accept: trading hash of changed settings the user agrees to, or its first 12 digits.
    """

    source: str
    from_ms: int | None = None
    to_ms: int | None = None
    speed: float | None = None
    accept: str = ""


class Service(Protocol):
    """What runs beside a session."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, in bounded time."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """A session ready to run.

    Attributes:
        total: candles to come where that is known, for progress bars.
        notices: what the user should know before it starts.
        models: what the manifests say of the models that trade; None when none do.
        bridge: forwards the events to other processes; None when it is off.
        series: writes tables for dashboards; None when it is off.
    """

    session: Session
    store: StateStore
    recovery: RecoveryReport
    source: CandleSource
    metrics: Metrics
    total: int | None
    notices: list[str]
    models: dict[str, Any] | None
    bridge: RedisBridge | None = None
    series: Service | None = None

    def execute(self, stop: threading.Event) -> SessionResult:
        """Run to the end, or until `stop` is set; the journal is closed in any case."""
        try:
            if self.bridge is not None:
                self.bridge.start()
            if self.series is not None:
                self.series.start()
            return self.session.run(stop, self.recovery)
        finally:
            self.store.close()
            if self.bridge is not None:
                self.bridge.stop()
            if self.series is not None:
                self.series.stop()


class PromotedModels:
    """The promoted pair and its evidence, watched for a newer promotion.

    A pair that is refused is reported and the last good one kept. Evidence is gathered after
    a promotion, so its file is watched too.

    Args:
        symbols: what is traded: a pair that may not be used on them is refused.
    """

    def __init__(
        self, registry: ModelRegistry, interval: str, clock: Clock, symbols: Sequence[str] = ()
    ) -> None:
        self._registry = registry
        self._symbols = tuple(symbols)
        self._interval = interval
        self._clock = clock
        self._stamp = self._look()
        self._next_look = time.monotonic() + POLL_SECONDS
        self.pair = self._load()
        self._log = structlog.get_logger("models")

    def evidence(self) -> Mapping[str, EvidenceRecord]:
        """Return the records made with the pair, by rule id."""
        return self._evidence_of(self.pair)

    def _evidence_of(self, pair: ModelPair) -> Mapping[str, EvidenceRecord]:
        return read_evidence(self._evidence_path, pair.hmm_sha256, pair.lstm_sha256)

    @property
    def _evidence_path(self) -> Path:
        return evidence_path(self._registry.root, self._interval)

    def _look(self) -> tuple[object, int]:
        """Return what changes when a pair is promoted or evidence is written."""
        try:
            written_ns = self._evidence_path.stat().st_mtime_ns
        except FileNotFoundError:
            written_ns = 0
        return self._registry.pointer_stamp(), written_ns

    def _load(self) -> ModelPair:
        pair = self._registry.load(self._interval, wall_ms())
        for symbol in self._symbols:
            pair.require(symbol)
        return pair

    def poll(self, engine: Engine) -> ModelPromoted | None:
        """Swap the engine's models when the pointer moved; return what was promoted."""
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + POLL_SECONDS
        stamp = self._look()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        now_ns = self._clock.now_ns()
        try:
            pair = self._load()
            evidence = self._evidence_of(pair)
        except ModelError as error:
            self._log.error("promoted models refused, keeping the last good pair", why=str(error))
            return None
        before = (self.pair.hmm_sha256, self.pair.lstm_sha256)
        if before == (pair.hmm_sha256, pair.lstm_sha256):
            engine.believe(evidence)
            self._log.info("evidence read again", rules=sorted(evidence))
            return None
        self.pair = pair
        engine.swap(pair, evidence)
        self._log.info("models swapped", hmm=pair.hmm_sha256[:12], lstm=pair.lstm_sha256[:12])
        return ModelPromoted(
            ts_event_ns=now_ns,
            interval=self._interval,
            hmm_sha256=pair.hmm_sha256,
            lstm_sha256=pair.lstm_sha256,
            schema_id=pair.schema_id,
        )


def build(
    settings: Settings,
    options: RunOptions,
    *,
    mode: str,
    folder: Path,
    on_progress: Callable[[int, Candle], None] | None = None,
    metrics: Metrics | None = None,
) -> Run:
    """Wire a session: source, journal, models, engine, gate.

    Args:
        settings: of the runtime.
        options: what the command adds.
        mode: ``paper`` watches for promotions; ``replay`` keeps the pair it began with.
        folder: where journal and snapshots lie.
        on_progress: called with (candles done, the candle) after each.
        metrics: counts the events; its own when None.

    Raises:
        Bot4Error: anything is missing, impossible or held by another process.
    """
    strategy = load_strategy(settings.runtime.strategy)
    live = options.source == "binance"
    registry = ModelRegistry(settings.models)
    source = build_source(settings, options, registry if strategy.needs_models else None)
    start_ms = source.start_ms if source.start_ms is not None else wall_ms()
    clock: Clock = LiveClock() if live else ManualClock(start_ms * NS_PER_MS)
    notices = _notices(source)
    models: PromotedModels | None = None
    evidence: Mapping[str, EvidenceRecord] = {}
    if strategy.needs_models:
        models = PromotedModels(registry, settings.runtime.interval, clock, source.symbols)
        evidence = models.evidence()
        notices += _model_notices(models, source, start_ms)
    evidence = dict(evidence) | {
        rule: synthetic_evidence(rule, now_ms=start_ms, interval=settings.runtime.interval)
        for rule in strategy.synthetic_rules
    }
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
        first = store.state.first_session
        fees, tier = _fees(
            settings, source.market, start_ms if first is None else first.start_ms, in_bnb=in_bnb
        )
        if tier is not None and recovery.last_seq > 0:
            _catch_up(tier, folder)
        venue = PaperVenue(settings.paper.model(), fees, store.state.marks.get if in_bnb else None)
        if mode != "replay":
            _keep_settings(folder, settings)
        metrics = metrics or Metrics()
        bus = EventBus()
        metrics.follow(bus)
        metrics.watch("bus", bus.counters)
        metrics.watch("fees", fees.counters)
        bridge = None
        if settings.bridge.redis_url and mode == "paper":
            bridge = RedisBridge(bus, settings.bridge.redis_url, settings.runtime.account)
            metrics.watch("bridge", bridge.counters)
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
                detector=RegimeDetector(models.pair) if models is not None else None,
                evidence=evidence,
                costs=_costs(settings, fees, source.market),
                fees=fees,
                half_spread=settings.paper.spread_bps / 2 / 10_000,
                market=source.market,
                epoch=store.epoch,
            ),
            ledger,
            PAPER_BOOKS,
        )
        session = Session(
            identity=Identity(
                mode=mode,
                strategy=settings.runtime.strategy,
                config_hash=settings.trading_hash(),
                quote=settings.runtime.quote,
                initial_cash=settings.initial_cash,
                books=PAPER_BOOKS,
                accepted=options.accept,
                changes=lambda before: _changes(folder, before, settings),
            ),
            source=source,
            ledger=ledger,
            engine=engine,
            gate=Gate(venue, settings.risk.max_orders_per_minute, store.epoch),
            clock=clock,
            watcher=models if mode == "paper" else None,
            commands=_commands(folder, clock, limits) if mode == "paper" else None,
            on_progress=on_progress,
        )
    except BaseException:
        store.close()
        raise
    notices += _standing_notices(store, first, options)
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
    )


def _standing_notices(
    store: StateStore, first: SessionStarted | None, options: RunOptions
) -> list[str]:
    """Return what the state of an account has to say about going on with it."""
    notices = []
    if store.distress:
        notices.append(f"No entry will be sent, exits and stops will: {store.distress}")
    if first is not None and options.from_ms not in {None, first.start_ms}:
        notices.append(
            f"This account decides from {utc(first.start_ms)} on and goes on where it stopped: "
            "--from is ignored. Another --account begins anew."
        )
    stands_ms = max(store.state.cursor.values(), default=0)
    if options.to_ms is not None and options.to_ms <= stands_ms:
        notices.append(
            f"This account's last candle opened at {utc(stands_ms)}, past --to "
            f"{utc(options.to_ms)}: there is nothing left to trade before it."
        )
    return notices


def _catch_up(tier: TierFold, folder: Path) -> None:
    """Fold what the journal holds into the fee tier."""
    with JournalReader.open(folder / JOURNAL) as journal:
        for _, event in journal.events(kinds=(CandleClosed, OrderFilled)):
            tier.apply(event)


def _keep_settings(folder: Path, settings: Settings) -> None:
    """Keep what shapes trading under its hash, so that a later change of it can be named."""
    kept = folder / SETTINGS / f"{settings.trading_hash()}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(settings.shaping(), encoding="utf-8")


def _changes(folder: Path, before: str, settings: Settings) -> Sequence[str]:
    try:
        text = (folder / SETTINGS / f"{before}.json").read_text(encoding="utf-8")
        return changes(text, settings.shaping())
    except (OSError, ValueError):
        return ()  # begun by an older release, or the file was lost


def _commands(folder: Path, clock: Clock, limits: RiskLimits) -> CommandReader:
    journal = folder / "journal.sqlite"
    journaled = JournaledOrders(lambda: JournalReader.open(journal))
    return CommandReader(folder, clock, limits, journaled)


def open_store(settings: Settings, mode: str, folder: Path) -> StateStore:
    """Open the journal of an account, or of a replay, for writing.

    A replay's journal is thrown away with its run, so the system may write it when it likes.

    Raises:
        ConfigError: the account was begun in another store, or a package is missing.
        JournalError: it is held by another runtime, damaged, or cannot be reached.
    """
    account, chosen = settings.runtime.account, settings.state
    begun = read_note(folder)
    if mode == "replay" or chosen.journal == "sqlite":
        if begun is not None:
            raise ConfigError(
                f"the journal of account {account!r} is at {begun.url}; set state.journal to "
                "that, or name another account with --account"
            )
        durable = mode != "replay"
        disk: Disk = SqliteDisk.open(
            folder / JOURNAL,
            account,
            settings.home / "locks" if durable else folder,
            durable=durable,
            archives=durable and chosen.history == "archive",
            reserve_bytes=chosen.reserve_mb << 20 if durable else 0,
        )
        return StateStore(Journal(disk), folder / "snapshots", disposable=not durable)
    if (folder / JOURNAL).exists():
        raise ConfigError(
            f"the journal of account {account!r} is the file {folder / JOURNAL}; set "
            "state.journal to 'sqlite', or name another account with --account"
        )
    try:
        from bot4_runtime.state.postgres import PostgresDisk
    except ImportError as error:
        raise ConfigError(
            f"a journal in PostgreSQL needs {error.name}; install Bot4 with its extra: pip "
            "install 'bot4[postgres]'"
        ) from None
    disk = PostgresDisk.open(chosen.journal, account, settings.home / "locks")
    write_note(folder, Elsewhere(url=chosen.journal, account=account))
    return StateStore(Journal(disk), folder / "snapshots", patience_s=SERVER_PATIENCE_S)


def open_series(
    settings: Settings, store: StateStore, bus: EventBus, metrics: Metrics
) -> Service | None:
    """Return what writes series to the journal's database; None when that is off.

    Raises:
        ConfigError: it is on, and the journal is no database.
    """
    if not settings.state.series:
        return None
    if settings.state.journal == "sqlite":
        raise ConfigError(
            "state.series writes tables into the database of the journal; set state.journal to a "
            "PostgreSQL URL, or state.series to false"
        )
    from bot4_runtime.state.series import SeriesWriter

    series = SeriesWriter(settings.state.journal, settings.runtime.account, lambda: store.state)
    bus.subscribe(AnyEvent, series.offer)
    metrics.watch("series", series.counters)
    return series


def build_source(
    settings: Settings, options: RunOptions, registry: ModelRegistry | None
) -> CandleSource:
    """Build the source a command names.

    Without a start of its own, recorded candles begin where the models' training and
    validation end; for strategies without models, once the windows are warm.

    Raises:
        ConfigError: the source is unknown, an option does not fit it, or a symbol is quoted in
            another asset than money is counted in.
        DataError: there are no candles, or none in the range.
    """
    from_ms, to_ms = options.from_ms, options.to_ms
    if from_ms is not None and to_ms is not None and not from_ms < to_ms:
        raise ConfigError(
            f"--from {utc(from_ms)} is not before --to {utc(to_ms)}; the end is exclusive: "
            "choose a later --to or an earlier --from"
        )
    _require_quote(settings.runtime.symbols, settings.runtime)
    source = _source(settings, options, registry)
    _require_quote(source.symbols, settings.runtime)
    return source


def _require_quote(symbols: Sequence[str], runtime: RuntimeSection) -> None:
    """Refuse what is quoted in another asset: its prices would be booked as if they were ours."""
    foreign = sorted(symbol for symbol in symbols if split_symbol(symbol)[1] != runtime.quote)
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} not quoted in {runtime.quote} (runtime.quote), in which money "
            "is counted; name symbols that are, with --symbols, or set runtime.quote to theirs"
        )


def _source(
    settings: Settings, options: RunOptions, registry: ModelRegistry | None
) -> CandleSource:
    kind, _, argument = options.source.partition(":")
    runtime = settings.runtime
    if kind == "simulated":
        if runtime.market != SimulatedSource.market.value:
            raise ConfigError(
                f"runtime.market is {runtime.market!r}, and the simulated market is spot; set it "
                "to 'spot', or choose another --source"
            )
        return _simulated(options, argument, runtime, _trained_symbols(registry, runtime.interval))
    if kind == "binance":
        if (options.from_ms, options.to_ms, options.speed) != (None, None, None):
            raise ConfigError(
                "source binance begins now and runs at its own pace; leave out "
                "--from, --to and --speed, or choose another source"
            )
        polled = BinanceSource(
            symbols=runtime.symbols or DEFAULT_BINANCE_SYMBOLS,
            interval=runtime.interval,
            market=Market(runtime.market),
            clock=LiveClock(),
        )
        polled.check()
        return polled
    if kind == "recorded" and argument:
        series = read_candle_folder(
            Path(argument), Market(runtime.market), set(runtime.symbols) or None
        )
    elif kind == "store":
        series = _stored(settings, registry)
    else:
        raise ConfigError(
            f"unknown source {options.source!r}; expected simulated[:SEED], recorded:DIR, store "
            "or binance"
        )
    wrong = sorted({s.id.interval for s in series} - {runtime.interval})
    if wrong:
        raise DataError(
            f"{options.source} holds {', '.join(wrong)} candles, and runtime.interval is "
            f"{runtime.interval}; set BOT4_RUNTIME__INTERVAL or choose other candles"
        )
    recorded = RecordedSource(
        series,
        label=options.source,
        speed=options.speed,
        from_ms=options.from_ms,
        to_ms=options.to_ms,
    )
    if recorded.start_ms is None:
        recorded.start_ms = _first_decision(recorded, registry)
    if recorded.start_ms > recorded.last_ms:
        raise DataError(
            f"{options.source} ends at {utc(recorded.last_ms)}, before the first candle to decide "
            f"on, {utc(recorded.start_ms)}; choose an earlier --from, or train on earlier candles"
        )
    return recorded


def _simulated(
    options: RunOptions, seed: str, runtime: RuntimeSection, trained: Sequence[str]
) -> SimulatedSource:
    try:
        number = int(seed) if seed else DEFAULT_SEED
    except ValueError:
        raise ConfigError(f"source {options.source!r}: the seed must be a number") from None
    source = SimulatedSource(
        seed=number,
        interval=runtime.interval,
        symbols=runtime.symbols or trained,
        speed=options.speed,
        to_ms=options.to_ms,
    )
    start_ms = SIMULATED_START_MS if options.from_ms is None else options.from_ms
    least_ms = EPOCH_MS + (WARM_CANDLES + 1) * interval_ms(runtime.interval)
    if start_ms < least_ms:
        raise ConfigError(
            f"{source.label} cannot begin at {utc(start_ms)}; expected {utc(least_ms)} or later"
        )
    if options.to_ms is not None and options.to_ms <= start_ms:
        raise ConfigError(
            f"{source.label} would end at {utc(options.to_ms)}, before the first candle to decide "
            f"on, {utc(start_ms)}; choose a later --to or an earlier --from"
        )
    source.start_ms = start_ms
    return source


def _stored(settings: Settings, registry: ModelRegistry | None) -> list[CandleSeries]:
    store = CandleStore(settings.home / "candles")
    runtime = settings.runtime
    origins = {s.origin for s in store.list_series() if s.interval == runtime.interval}
    pair = registry.current(runtime.interval) if registry is not None else None
    if registry is not None and pair is not None:
        origins &= {registry.manifest(pair.hmm_sha256).origin}
    origin = Origin.REAL if Origin.REAL in origins else Origin.SIMULATED
    found = [
        identity
        for identity in store.list_series()
        if identity.origin is origin
        and identity.market.value == runtime.market
        and identity.interval == runtime.interval
        and (not runtime.symbols or identity.symbol in runtime.symbols)
    ]
    unknown = set(runtime.symbols) - {identity.symbol for identity in found}
    if unknown or not found:
        raise DataError(
            f"the candle store {settings.home / 'candles'} has no {runtime.interval} candles of "
            f"{', '.join(sorted(unknown)) or 'any symbol'}; run `make demo` or "
            "`bot4-pipelines run` to ingest some"
        )
    return [store.read(identity) for identity in found]


def _trained_symbols(registry: ModelRegistry | None, interval: str) -> tuple[str, ...]:
    """Return the symbols the promoted models were trained on; empty when none are wanted."""
    if registry is None:
        return ()
    current = registry.current(interval)
    return registry.manifest(current.hmm_sha256).symbols if current is not None else ()


def _first_decision(source: RecordedSource, registry: ModelRegistry | None) -> int:
    pair = registry.current(source.interval) if registry is not None else None
    if registry is not None and pair is not None:
        manifest = registry.manifest(pair.lstm_sha256 or pair.hmm_sha256)
        if manifest.origin is source.origin:
            return manifest.cuts.test_start_ms
    return source.first_ms + WARM_CANDLES * interval_ms(source.interval)


def describe(pair: ModelPair) -> dict[str, Any]:
    """What the manifests say of a pair: names, dates, accuracies and their baselines."""
    manifest = pair.deciding
    return {
        "hmm_sha256": pair.hmm_sha256,
        "lstm_sha256": pair.lstm_sha256,
        "schema_id": manifest.schema_id,
        "interval": manifest.interval,
        "origin": manifest.origin.value,
        "training_symbols": list(manifest.symbols),
        "test_start": utc(manifest.cuts.test_start_ms),
        "hmm_filter": _told(pair.hmm_manifest.metrics),
        "lstm": _told(pair.lstm_manifest.metrics) if pair.lstm_manifest is not None else None,
        "baselines_test": manifest.metrics.get("baselines_test", {}),
    }


def _told(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    return {split: metrics[split] for split in ("validation", "test") if split in metrics}


def _fees(
    settings: Settings, market: Market, first_ms: int, *, in_bnb: bool
) -> tuple[FeeCalculator, TierFold | None]:
    """Return what trades cost from the account's first day on, and what moves it.

    The fold is None where nothing can: no newer schedule, no tier within reach of the BNB held.
    """
    day = datetime.fromtimestamp(first_ms / 1000, UTC).date()
    schedule, *later = binance_schedules(market, day)
    fees = FeeCalculator(schedule, settings.fees.vip_tier, in_bnb, later=later)
    held = Decimal(repr(settings.fees.bnb_held))
    moves = fees.moves(held)
    return fees, TierFold(fees, settings.runtime.quote, held) if moves else None


def _costs(settings: Settings, fees: FeeCalculator, market: Market) -> TradeCosts:
    """Return what a round trip is expected to cost now; only perpetuals pay funding."""
    funding_bps = settings.fees.funding_bps_per_day if market is Market.USDM else 0.0
    return TradeCosts(
        fee_rate_round_trip=2 * fees.rate(fees.venue, "", Liquidity.TAKER),
        slippage_round_trip=2 * settings.paper.model().slippage,
        funding_per_day=funding_bps / 10_000,
    )


def _notices(source: CandleSource) -> list[str]:
    if source.origin is Origin.SIMULATED:
        return ["The market is SIMULATED: prices are made up, results mean nothing for real ones."]
    return []


def _model_notices(models: PromotedModels, source: CandleSource, start_ms: int) -> list[str]:
    notices = []
    manifest = models.pair.deciding
    if manifest.origin is not source.origin:
        notices.append(
            f"The models were trained on {manifest.origin.value} candles, the source is "
            f"{source.origin.value}."
        )
    elif start_ms < manifest.cuts.test_start_ms:
        notices.append(
            f"Candles before {utc(manifest.cuts.test_start_ms)} were seen in training or "
            "validation: results on them are in sample."
        )
    if not models.evidence():
        notices.append(
            "There is no evidence record of these models: every entry will be rejected "
            "(NO_EVIDENCE). `bot4-pipelines run` writes it."
        )
    return notices
