"""Where candles come from, and the way from there into the store.

A folder (``BOT4_CANDLES_DIR``), else Binance, else the simulated market; when told so, candles of
a shorter interval that are stored already. A series with an ERROR
is not written; what was written before stays.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np

from bot4_pipelines.ingest.archive import ARCHIVE_URL, Archive
from bot4_pipelines.ingest.download import OVERLAP, download
from bot4_pipelines.ingest.markets import MarketList
from bot4_pipelines.ingest.plan import Budget, DownloadPlan, Progress, plan_download
from bot4_pipelines.ingest.quality import (
    Finding,
    errors,
    judge,
    order_findings,
    same_series,
)
from bot4_pipelines.ingest.quality.stored import reach_ms
from bot4_pipelines.ingest.rate import machine_rate
from bot4_pipelines.ingest.reach import Reach, reach_binance
from bot4_pipelines.ingest.simulated import SYMBOLS, simulated_series
from bot4_pipelines.ingest.wanted import (
    DEFAULT_BUDGET_S,
    DEFAULT_INTERVAL,
    DEFAULT_YEARS,
    interval_name,
    wanted,
)
from bot4_runtime.candles.files import (
    RawCandles,
    common_interval,
    concatenate,
    merge,
    read_raw_folder,
    to_series,
)
from bot4_runtime.candles.gaps import Gap, find_gaps
from bot4_runtime.candles.resample import finer, resample
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import DEFAULT_SEED
from bot4_runtime.candles.store import CandleStore, WriteReport
from bot4_runtime.domain.candle import Market, Origin, SeriesId, interval_ms
from bot4_runtime.domain.errors import (
    ConfigError,
    DataError,
    LocationRefused,
    VenueUnreachable,
)

Kind = TypeVar("Kind", bound=StrEnum)


class SourceKind(StrEnum):
    """The sources; ``stored`` makes candles of shorter ones that are in the store."""

    FOLDER = "folder"
    BINANCE = "binance"
    SIMULATED = "simulated"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class Source:
    """A chosen source.

    Attributes:
        label: shown in every output.
        reason: why this one, where that needs saying.
        interval: of the candles that are stored; a folder's own when empty.
        symbols: empty for all there are.
        folder: set for FOLDER.
        reach: what of Binance answers; set for BINANCE.
        years: of history that are downloaded or simulated.
        budget_s: seconds a download may take.
        from_ms: open times before it are left out; None for none.
        to_ms: open times from it on are left out; None for none.
        mark: mark prices of perpetuals instead of those that were traded.
    """

    kind: SourceKind
    label: str
    market: Market
    interval: str
    symbols: tuple[str, ...] = ()
    reason: str = ""
    folder: Path | None = None
    reach: Reach | None = None
    archive_url: str = ARCHIVE_URL
    rest_url: str | None = None
    years: float = DEFAULT_YEARS
    budget_s: float = DEFAULT_BUDGET_S
    from_ms: int | None = None
    to_ms: int | None = None
    mark: bool = False

    @property
    def origin(self) -> Origin:
        """Whether its prices come from a real market."""
        return Origin.SIMULATED if self.kind is SourceKind.SIMULATED else Origin.REAL


@dataclass(frozen=True, slots=True, eq=False)
class SeriesReport:
    """What became of one series.

    Attributes:
        inserted: candles that were not there, as `unchanged` and `restated` the others.
        conflicts: open times at which files disagreed; the later file won.
        written: False when an ERROR blocks it.
        restatements: (open_time_ms, column, old, new) of the candles that were restated.
    """

    id: SeriesId
    rows: int
    first_ms: int
    last_ms: int
    inserted: int
    unchanged: int
    restated: int
    gaps: tuple[Gap, ...]
    findings: tuple[Finding, ...]
    conflicts: int
    written: bool
    restatements: tuple[tuple[int, str, float, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class IngestReport:
    """What an ingestion did.

    Attributes:
        complete: False when the time budget cut a download short; run again to go on.
        notes: what a user should know, one sentence each.
    """

    source: Source
    series: tuple[SeriesReport, ...]
    complete: bool
    notes: tuple[str, ...]

    @property
    def errors(self) -> list[Finding]:
        """All findings that block."""
        return [finding for report in self.series for finding in errors(report.findings)]

    def refuse_errors(self) -> None:
        """Raise when a series is blocked.

        Raises:
            DataError: naming each code and what it means.
        """
        if self.errors:
            listed = "; ".join(f"{found.code}: {found.message}" for found in self.errors)
            raise DataError(f"candles were refused: {listed}")


def choose_source(
    env: Mapping[str, str] | None = None,
    *,
    symbols: Sequence[str] = (),
    interval: str | None = None,
    reach: Callable[..., Reach] = reach_binance,
) -> Source:
    """Choose: the folder that is named, else Binance when it answers, else the simulated market.

    Args:
        env: ``BOT4_CANDLES_DIR``, ``BOT4_CANDLES_MARKET`` (spot, usdm), ``BOT4_CANDLES_SOURCE``
            (folder, binance, simulated, stored: no choosing), ``BOT4_ARCHIVE_URL``,
            ``BOT4_REST_URL``, and what is wanted (`ingest.wanted`); the process's when None.
        symbols: only these; those of the environment when empty, else all of a folder or of the
            simulated market, and three to download.
        interval: of the candles; the environment's when None, else a folder's own, else 1h.
            A folder of a shorter one is resampled.
        reach: asks whether Binance answers; within 10 seconds.

    Raises:
        ConfigError: a setting has an impossible value.
        VenueUnreachable: Binance was demanded and does not answer.
        LocationRefused: ... or refuses this location.
    """
    env = os.environ if env is None else env
    market = chosen_market(env)
    folder = env.get("BOT4_CANDLES_DIR")
    asked = env.get("BOT4_CANDLES_SOURCE")
    kind = _member(SourceKind, asked, "BOT4_CANDLES_SOURCE") if asked else None
    want = wanted(env)
    interval = interval_name(interval, "interval") if interval else want.interval
    chosen = tuple(dict.fromkeys(symbol.upper() for symbol in symbols)) or want.symbols
    if kind is SourceKind.FOLDER and not folder:
        raise ConfigError("BOT4_CANDLES_SOURCE is folder, but BOT4_CANDLES_DIR names none")
    if folder and kind in {None, SourceKind.FOLDER}:
        path = Path(folder)
        return Source(
            SourceKind.FOLDER, f"folder {path.name}", market, interval or "", chosen, folder=path
        )
    interval = interval or DEFAULT_INTERVAL
    if kind is SourceKind.STORED:
        return stored_source(market, interval, chosen)
    simulated = Source(
        SourceKind.SIMULATED,
        f"SIMULATED market (seed {DEFAULT_SEED}), no real prices",
        Market.SPOT,
        interval,
        chosen or SYMBOLS,
        years=want.years,
        budget_s=want.budget_s,
    )
    if kind is SourceKind.SIMULATED:
        return replace(simulated, reason="as BOT4_CANDLES_SOURCE says")
    urls = env.get("BOT4_ARCHIVE_URL") or ARCHIVE_URL, env.get("BOT4_REST_URL") or None
    found = reach(market, archive_url=urls[0], rest_url=urls[1])
    if not found.any:
        if kind is SourceKind.BINANCE:
            refused = "refuses this location" in found.reason
            raise (LocationRefused if refused else VenueUnreachable)(
                f"Binance cannot be reached ({found.reason}); name a folder of candles in "
                "BOT4_CANDLES_DIR, or set BOT4_CANDLES_SOURCE=simulated"
            )
        return replace(simulated, reason=f"Binance cannot be reached ({found.reason})")
    return Source(
        SourceKind.BINANCE,
        f"Binance {market.value}",
        market,
        interval,
        chosen,
        reason=found.reason,
        reach=found,
        archive_url=urls[0],
        rest_url=urls[1],
        years=want.years,
        budget_s=want.budget_s,
    )


def chosen_market(env: Mapping[str, str]) -> Market:
    """Return the market that ``BOT4_CANDLES_MARKET`` names; spot when it is not set.

    Raises:
        ConfigError: it is no market.
    """
    return _member(Market, env.get("BOT4_CANDLES_MARKET") or "spot", "BOT4_CANDLES_MARKET")


def stored_source(market: Market, interval: str, symbols: tuple[str, ...] = ()) -> Source:
    """Return the source that makes candles of shorter ones in the store."""
    return Source(
        SourceKind.STORED, "stored candles of a shorter interval", market, interval, symbols
    )


def shorter_stored(
    store: CandleStore, market: Market, symbol: str, interval: str
) -> SeriesId | None:
    """Return the stored real series of the longest interval that an interval can be made of."""
    held = set(store.list_series(symbol))
    shorter = (SeriesId(Origin.REAL, market, symbol, name) for name in finer(interval))
    return next((one for one in shorter if one in held), None)


def ingest(
    source: Source,
    store: CandleStore,
    progress: Callable[[Progress], None] = lambda _: None,
    budget_s: float | None = None,
    now_ms: int | None = None,
) -> IngestReport:
    """Bring a source's candles into the store.

    Args:
        source: from `choose_source`.
        store: where good series go.
        progress: called before each step.
        budget_s: seconds a download may take, the source's own when None; a folder is read to
            its end.
        now_ms: the present, UTC; the machine's when None.

    Raises:
        DataError: unreadable or missing files, an unknown symbol.
        VenueError: Binance stopped answering and nothing was downloaded.
    """
    if now_ms is None:
        now_ms = time.time_ns() // 1_000_000
    if source.kind is SourceKind.FOLDER:
        return _ingest_folder(source, store, progress, now_ms)
    if source.kind is SourceKind.SIMULATED:
        return _ingest_simulated(source, store, progress)
    if source.kind is SourceKind.STORED:
        return _ingest_stored(source, store, progress, now_ms)
    budget = Budget(source.budget_s if budget_s is None else budget_s)
    return _ingest_binance(source, store, progress, budget, now_ms)


def _ingest_folder(
    source: Source, store: CandleStore, progress: Callable[[Progress], None], now_ms: int
) -> IngestReport:
    if source.folder is None:
        raise ConfigError("a folder source names no folder")
    progress(Progress(0, 1, f"reading {source.folder.name}"))
    files = read_raw_folder(source.folder, source.symbols or None)
    own = common_interval(files)
    interval = source.interval or own
    notes = () if interval == own else (f"{interval} candles were made of {own} ones",)
    source = replace(source, interval=interval)
    twins = same_series(
        {symbol: concatenate(raws) for symbol, raws in files.items()}, interval_ms(own)
    )
    reports = []
    for done, (symbol, raws) in enumerate(sorted(files.items())):
        progress(Progress(done, len(files), f"checking {symbol}"))
        identity = SeriesId(Origin.REAL, source.market, symbol, interval)
        ahead_ms = interval_ms(interval) - interval_ms(own)
        held = [part for raw in raws if len(part := _within(raw, source, ahead_ms))]
        if held:
            found = twins.get(symbol, ())
            reports.append(_write(store, identity, held, now_ms, source, own, found))
    progress(Progress(len(files), len(files), "candles are in the store"))
    return IngestReport(source, tuple(reports), complete=True, notes=notes)


def _ingest_simulated(
    source: Source, store: CandleStore, progress: Callable[[Progress], None]
) -> IngestReport:
    reports = []
    for done, symbol in enumerate(source.symbols):
        progress(Progress(done, len(source.symbols), f"simulating {symbol}"))
        series = simulated_series(
            symbol,
            source.interval,
            years=source.years,
            from_ms=source.from_ms,
            to_ms=source.to_ms,
        )
        if series is not None:
            reports.append(_write(store, series.id, [_raw(series)], None, source))
    progress(Progress(len(reports), len(reports), "simulated candles are in the store"))
    notes = ("prices are simulated: they are no market's",)
    return IngestReport(source, tuple(reports), complete=True, notes=notes)


def _ingest_stored(
    source: Source, store: CandleStore, progress: Callable[[Progress], None], now_ms: int
) -> IngestReport:
    symbols = source.symbols or tuple(
        sorted({one.symbol for one in store.list_series() if one.market is source.market})
    )
    reports: list[SeriesReport] = []
    notes: list[str] = []
    for symbol in symbols:
        fine = shorter_stored(store, source.market, symbol, source.interval)
        if fine is None:
            notes.append(f"no candles of {symbol} shorter than {source.interval} are stored")
            continue
        progress(Progress(len(reports), len(symbols), f"making {symbol} of {fine.interval}"))
        ahead_ms = interval_ms(source.interval) - interval_ms(fine.interval)
        to_ms = None if source.to_ms is None else source.to_ms + ahead_ms
        if rows := store.find(fine, source.from_ms, to_ms):
            identity = SeriesId(Origin.REAL, source.market, symbol, source.interval)
            reports.append(_write(store, identity, [_raw(rows)], now_ms, source, fine.interval))
    if not reports and source.from_ms is None:
        raise DataError("; ".join(notes) or "the store holds no candles")
    return IngestReport(source, tuple(reports), complete=True, notes=tuple(notes))


def _ingest_binance(
    source: Source,
    store: CandleStore,
    progress: Callable[[Progress], None],
    budget: Budget,
    now_ms: int,
) -> IngestReport:
    plan = plan_download(
        source.market,
        source.symbols,
        source.interval,
        now_ms,
        years=source.years,
        from_ms=source.from_ms,
        to_ms=source.to_ms,
    )
    plan = replace(plan, mark=source.mark)
    reach = source.reach or Reach(archive=True, rest=True)
    held = {symbol: found for symbol in plan.symbols if (found := _held(store, plan, symbol))}
    archive = Archive(store.root / ".archive", source.archive_url) if reach.archive else None
    got = download(
        plan,
        archive,
        rest=reach.rest,
        rest_url=source.rest_url,
        progress=progress,
        budget=budget,
        rate=machine_rate(plan.market, source.rest_url, store.root),
        markets=MarketList(store.root, plan.market, source.rest_url),
        held=held,
    )
    reports = [
        _write(
            store, SeriesId(Origin.REAL, plan.market, symbol, plan.interval), rows, now_ms, source
        )
        for symbol, raws in got.parts.items()
        if (rows := [part for raw in raws if len(part := _within(raw, source))])
    ]
    if not reports and source.from_ms is None:
        raise DataError(f"{source.label} has no candles of {' '.join(plan.symbols)}")
    return IngestReport(source, tuple(reports), got.complete, got.notes)


def _held(store: CandleStore, plan: DownloadPlan, symbol: str) -> tuple[int, int] | None:
    """Return first and last open time that are stored of a plan's range, up to a long hole."""
    one = SeriesId(Origin.REAL, plan.market, symbol, plan.interval)
    if store.range(one) is None:
        return None
    try:
        times = store.read(one, plan.from_ms, plan.to_ms).open_time_ms
    except DataError:
        return None
    holes = np.flatnonzero(np.diff(times) > OVERLAP * interval_ms(plan.interval))
    return int(times[0]), int(times[holes[0] if holes.size else -1])


def _within(raw: RawCandles, source: Source, ahead_ms: int = 0) -> RawCandles:
    """Keep the rows of a source's range, and `ahead_ms` more of which its last bar is made."""
    if source.from_ms is None and source.to_ms is None:
        return raw
    times = raw.open_time_ms
    keep = np.ones(len(raw), dtype=bool)
    if source.from_ms is not None:
        keep &= times >= source.from_ms
    if source.to_ms is not None:
        keep &= times < source.to_ms + ahead_ms
    return raw.take(keep)


def _write(
    store: CandleStore,
    identity: SeriesId,
    raws: Sequence[RawCandles],
    now_ms: int | None,
    source: Source,
    interval: str = "",
    twins: Sequence[Finding] = (),
) -> SeriesReport:
    """Judge the rows and, without an ERROR, write them, resampled if they are of a shorter one."""
    merged = merge(raws)
    interval = interval or identity.interval
    raw, step = merged.candles, interval_ms(interval)
    judged = SeriesId(identity.origin, identity.market, identity.symbol, interval)
    at_ms = now_ms
    if now_ms is not None and source.to_ms is not None:  # a past year is judged as of its end
        now_ms = min(now_ms, max(source.to_ms, int(raw.open_time_ms[-1]) + step))
    findings = [found for one in raws for found in order_findings(one, step)]
    findings += [
        *twins,
        *judge(
            raw,
            step,
            origin=identity.origin,
            market=identity.market,
            now_ms=now_ms,
            stored=_trusted(store, judged, int(raw.open_time_ms[0]), int(raw.open_time_ms[-1])),
            finer=finer_series(
                store, judged, int(raw.open_time_ms[0]), int(raw.open_time_ms[-1]) + step
            ),
        ),
    ]
    blocked = bool(errors(findings))
    done = WriteReport(0, 0, 0, ())
    if not blocked:
        rows = to_series(raw, identity.market, interval, identity.origin)
        series = resample(rows, identity.interval).between(source.from_ms, source.to_ms)
        blocked = not len(series)
        done = store.write(series, source=source.label, now_ms=at_ms)
    return SeriesReport(
        id=identity,
        rows=len(raw),
        first_ms=int(raw.open_time_ms[0]),
        last_ms=int(raw.open_time_ms[-1]),
        inserted=done.inserted,
        unchanged=done.unchanged,
        restated=done.restated,
        gaps=tuple(find_gaps(raw.open_time_ms, step)),
        findings=tuple(findings),
        conflicts=len(merged.conflicts),
        written=not blocked,
        restatements=done.restatements,
    )


def _trusted(
    store: CandleStore, identity: SeriesId, first_ms: int, last_ms: int
) -> CandleSeries | None:
    """Return a stored real series of the same market and symbol, of the same interval if any.

    Of it, what rows from `first_ms` to `last_ms` are compared with: as far as they may be shifted.
    """
    if identity.origin is not Origin.REAL:
        return None
    kin = [
        other
        for other in store.list_series(identity.symbol)
        if (other.origin, other.market, other.symbol)
        == (identity.origin, identity.market, identity.symbol)
    ]
    kin.sort(key=lambda other: other.interval != identity.interval)
    if not kin:
        return None
    reach = reach_ms(interval_ms(identity.interval))
    return store.find(kin[0], first_ms - reach, last_ms + reach + 1)


def finer_series(
    store: CandleStore, identity: SeriesId, from_ms: int, to_ms: int | None = None
) -> CandleSeries | None:
    """Return the stored series of the longest shorter interval its candles are made of.

    Of it, the candles that open in [from_ms, to_ms).
    """
    length = interval_ms(identity.interval)
    kin = [
        other
        for other in store.list_series(identity.symbol)
        if other.symbol == identity.symbol
        and (other.origin, other.market) == (identity.origin, identity.market)
        and interval_ms(other.interval) < length
        and length % interval_ms(other.interval) == 0
    ]
    for other in sorted(kin, key=lambda other: -interval_ms(other.interval)):
        if held := store.find(other, from_ms, to_ms):
            return held
    return None


def _raw(series: CandleSeries) -> RawCandles:
    columns = (series.open, series.high, series.low, series.close, series.volume)
    return RawCandles(series.id.symbol, series.id.key, series.open_time_ms, *columns)


def _member(kind: type[Kind], text: str, name: str) -> Kind:
    try:
        return kind(text.strip().lower())
    except ValueError:
        known = " ".join(kind)
        raise ConfigError(f"{name} is {text!r}; expected one of: {known}") from None
