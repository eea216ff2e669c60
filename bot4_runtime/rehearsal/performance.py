"""Performs a rehearsal: venue, engine, faults and time put together, and the verdict read."""

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

from bot4_runtime.app import RunOptions, build
from bot4_runtime.app.remote import Remote, holding_of
from bot4_runtime.app.source import build_source
from bot4_runtime.clock import NS_PER_MS, ManualClock
from bot4_runtime.domain.candle import Candle, Market, interval_ms
from bot4_runtime.domain.errors import Bot4Error
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.exchange.lease import Lease
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.rehearsal.course import Course
from bot4_runtime.rehearsal.exposure import overdue, unprotected
from bot4_runtime.rehearsal.oracles import Findings
from bot4_runtime.rehearsal.stages import (
    ContractLineClient,
    ContractStage,
    MakesClient,
    SpotLineClient,
    SpotStage,
    Stage,
    Venue,
)
from bot4_runtime.rehearsal.verdict import Verdict
from bot4_runtime.risk.limits import BOUNDS
from bot4_runtime.settings import BridgeSection, Settings, StateSection
from bot4_runtime.sources import SIMULATED_START_MS, SimulatedSource
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.store import StateStore
from bot4_runtime.strategy.protocol import load_strategy
from bot4_runtime.venue.account import BNB
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.faults import Fault, FaultRule, FaultSchedule
from bot4_runtime.venue.hosting import hosted
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.server import VenueServer

PING_S: Final = 0.4
MARKET_SEED: Final = 4
MARKET_SEEDS: Final = {Market.SPOT: MARKET_SEED, Market.USDM: 94}
"""Markets of the command: of perpetuals one in which the drill gains, since a record of losses
before five wins in a row ends its entries for good (``BIAS_RECENCY``)."""
LOOSE: Final = {
    name: BOUNDS[name].loosest for name in ("max_correlation", "min_liquidity_ratio")
} | {
    name: int(BOUNDS[name].loosest) for name in ("max_loss_streak", "cooldown_s", "max_cooldown_s")
}
"""What keeps an exercise from trading often, as far as the hard limits of risk let it go."""
LIVES: Final = 2
"""After the market's last hour the engine is started once more, and reads what it left."""


class Killed(BaseException):
    """The engine's life ends here by plan, as a kill would end it; another one follows."""


class Rehearsal:
    """One rehearsal.

    Args:
        settings: the user's, `runtime.market` too; home, journal and bridge are replaced, and
            for an exercise such as the drill the limits that pause it are those of `LOOSE`.
        folder: of the account's journal; thrown away by who made it.
        rules: what goes wrong.
        seed: of the faults.
        hours: of the market.
        market_seed: names the market.
        client: the connector; tests plant bugs in it. None is that of ``start --mode testnet``,
            which sends orders over the WebSocket API.
        depth: what the rest of the market offers.
        bnb: that a spot account holds, and pays commissions in while there is any.
        on_progress: called with (candles done, the candle) after each.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        rules: Sequence[FaultRule],
        seed: int,
        hours: float,
        market_seed: int = MARKET_SEED,
        client: MakesClient | None = None,
        depth: Depth | None = None,
        bnb: Decimal = Decimal(0),
        on_progress: Callable[[int, Candle], None] | None = None,
    ) -> None:
        runtime = settings.runtime.model_copy(update={"mode": "testnet", "account": "rehearsal"})
        exercise = bool(load_strategy(runtime.strategy).synthetic_rules)
        self._settings = settings.model_copy(
            update={
                "home": folder,
                "risk": settings.risk.model_copy(update=LOOSE if exercise else {}),
                "runtime": runtime,
                "state": StateSection(reserve_mb=0),
                "bridge": BridgeSection(),
            }
        )
        self._folder = folder / "state" / "rehearsal"
        self._rules = tuple(rules)
        self._seed = seed
        self._hours = hours
        self._client = client or self._default_client()
        self._on_progress = on_progress
        self._sink = MemorySink()
        self._clock = ManualClock(SIMULATED_START_MS * NS_PER_MS)
        self._source = self._market(market_seed)
        self.stage = self._stage(bnb)
        end_ms = SIMULATED_START_MS + round((hours + 24) * 3_600_000)
        self.made_venue = self.stage.open(
            self._clock,
            self._source.history(SIMULATED_START_MS, end_ms),
            depth or Depth(level_quantity=Decimal(1_000_000)),
            self._sink,
        )
        self._store: StateStore | None = None
        self._unknown: dict[int, int] = {}
        self._looks: list[int] = []
        self._unknown_s: list[float] = []
        self._counts: Counter[str] = Counter()
        self._seen = 0
        self.kills = 0
        """Lives that ended by plan."""
        self.total = round(hours * 3_600_000 / interval_ms(runtime.interval)) * len(
            self._source.symbols
        )

    def perform(self) -> Verdict:
        """Go through it, and judge."""
        venue = self.made_venue
        ended = ""
        with hosted(venue, ping_s=PING_S) as server:
            self.server = server
            server.do(lambda: venue.schedule(FaultSchedule(self._rules, self._seed)))
            course = self._course(venue, server)
            lives = LIVES
            while lives and not ended:
                try:
                    ended = self._live(server, course)
                    lives -= 1
                except Killed:
                    self.kills += 1
        return self._judge(ended)

    @property
    def stream_counts(self) -> Counter[str]:
        """What the client's user stream passed over or lost, by name, over all lives."""
        return self._counts

    @property
    def venue_entries(self) -> Sequence[Any]:
        """The venue's journal."""
        return self._sink.entries

    # ------------------------------------------------------------------- what is there
    def _market(self, seed: int) -> SimulatedSource:
        settings = self._settings
        strategy = load_strategy(settings.runtime.strategy)
        registry = ModelRegistry(settings.models) if strategy.needs_models else None
        runtime = settings.runtime.model_copy(update={"market": SimulatedSource.market.value})
        settings = settings.model_copy(update={"runtime": runtime})  # its prices are everyone's
        source = build_source(settings, RunOptions(source=f"simulated:{seed}"), registry)
        assert isinstance(source, SimulatedSource)  # noqa: S101 - named by its label
        return source

    def _stage(self, bnb: Decimal) -> Stage:
        step_ms = interval_ms(self._source.interval)
        firsts = self._source.history(SIMULATED_START_MS, SIMULATED_START_MS + step_ms)
        held = {self._settings.runtime.quote: self._settings.initial_cash}
        if self.market is Market.SPOT:
            return SpotStage(firsts, held | {BNB: bnb})
        return ContractStage(firsts, held, countdown_takes_algos=bool(self._seed % 2))

    def _default_client(self) -> MakesClient:
        if self.market is Market.SPOT:
            return SpotLineClient
        return partial(ContractLineClient, holding=holding_of(self._settings))

    @property
    def market(self) -> Market:
        """What is traded."""
        return Market(self._settings.runtime.market)

    @property
    def _dead_man_s(self) -> int:
        """Length of the dead-man switch, where settings or a fault want one.

        It is no shorter than a candle: what would be a look every moment by the clock is one
        every third of a candle in the venue's time, at worst.
        """
        wanted = self._settings.binance.dead_man_s if self.market is Market.USDM else 0
        if not wanted and Fault.COUNTDOWN not in {rule.fault for rule in self._rules}:
            return 0
        return max(wanted, interval_ms(self._source.interval) // 1_000)

    def _course(self, venue: Venue, server: VenueServer) -> Course:
        def advance(to_ms: int) -> bool:
            before = len(self._sink.entries)
            server.do(lambda: self.stage.move(to_ms))
            return any(entry.kind == "event" for entry in self._sink.entries[before:])

        def stirred() -> bool:
            before, self._seen = self._seen, len(self._sink.entries)
            return any(entry.kind == "report" for entry in self._sink.entries[before:])

        return Course(
            self._source,
            self._hours,
            market=self.market,
            advance=advance,
            stirred=stirred,
            connected=lambda: self._remote is not None and self._remote.venue.following,
            calm=lambda: server.do(lambda: venue.schedule(FaultSchedule())),
            noted=self._note,
        )

    # -------------------------------------------------------------------------- lives
    _remote: Remote | None = None
    server: VenueServer | None = None
    """Serves the venue while it is performed."""

    def _live(self, server: VenueServer, course: Course) -> str:
        """Let the engine live once; return why it ended before its time."""
        lease = Lease(self._clock.now_ns)
        client = self._client(server, self._clock, lease, self._source.symbols)
        self._remote = Remote(
            client,
            self._clock,
            self._clock.now_ns,
            lease,
            course,
            local=True,
            wait=course.pass_time,
            dead_man_s=self._dead_man_s,
        )
        try:
            run = build(
                self._settings,
                RunOptions(source=course.label),
                mode="testnet",
                folder=self._folder,
                on_progress=self._on_progress,
                remote=self._remote,
            )
            self._store = run.store
            run.execute(threading.Event())
        except Killed:
            raise
        except Bot4Error as error:
            return f"{type(error).__name__}: {error}"
        except Exception:  # noqa: BLE001 - whatever it is, it is what the verdict is about
            return traceback.format_exc()
        finally:
            self._counts += client.stream_counts
        return ""

    def _note(self, now_ms: int) -> None:
        """Take note that the engine had a turn, and which orders have no known outcome now."""
        self._looks.append(self.made_venue.exchange.now_ms())
        if self._store is None:
            return
        unknown = {
            order.intent.intent_no
            for order in self._store.state.all_live_orders()
            if order.status is OrderStatus.UNKNOWN
        }
        for intent_no in unknown - self._unknown.keys():
            self._unknown[intent_no] = now_ms
        for intent_no in self._unknown.keys() - unknown:
            self._unknown_s.append((now_ms - self._unknown.pop(intent_no)) / 1000)

    # ----------------------------------------------------------------------- judgement
    def _judge(self, ended: str) -> Verdict:
        entries = self._sink.entries
        journal = self._folder / JOURNAL
        findings = Findings()
        if journal.exists():
            with JournalReader.open(journal) as reader:
                findings = self.stage.judge(
                    entries,
                    (event for _, event in reader.events()),
                    reader.state(self._folder / "snapshots"),
                )
        spans, bare = unprotected(entries, self.stage.least())
        for symbol in sorted(bare):
            findings.violated(f"what is held of {symbol} has no stop at the end")
        for span in overdue(spans, entries, self._looks):
            findings.violated(
                f"what was held of {span.symbol} had no stop for {span.length_s:,.0f} s "
                f"from {span.from_ms} on"
            )
        return Verdict(
            findings=findings,
            faults=Counter(e.body["fault"] for e in entries if e.kind == "fault"),
            scheduled=frozenset(rule.fault.value for rule in self._rules),
            unprotected_s=[span.length_s for span in spans],
            unknown_s=self._unknown_s,
            hours=self._hours,
            seed=self._seed,
            strategy=self._settings.runtime.strategy,
            market=self.market,
            simulated=self._source.label,
            ended=ended,
        )
