"""What only USD-M perpetuals have: mark prices as candles, and funding rates, into their stores.

Mark prices go the same way as candles (archive, REST, folder, quality rules), into a store of
their own, ``mark`` below BOT4_HOME; funding rates into ``funding``. No model reads them yet.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bot4_pipelines.ingest.archive import ARCHIVE_URL, Archive
from bot4_pipelines.ingest.markets import MarketList
from bot4_pipelines.ingest.plan import Budget, DownloadPlan, Progress, plan_download
from bot4_pipelines.ingest.rate import machine_rate
from bot4_pipelines.ingest.reach import Reach, reach_binance
from bot4_pipelines.ingest.rest import RestCandles
from bot4_pipelines.ingest.source import Source, SourceKind, choose_source
from bot4_pipelines.ingest.wanted import DEFAULT_BUDGET_S
from bot4_runtime.candles.funding import FundingRates, FundingStore, read_funding_folder
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, DataError, VenueError, VenueUnreachable

MARK_DIR: Final = "BOT4_MARK_DIR"
FUNDING_DIR: Final = "BOT4_FUNDING_DIR"


@dataclass(frozen=True, slots=True)
class FundingReport:
    """What an ingestion of funding rates did.

    Attributes:
        source: where they came from.
        rates: that are stored now.
        complete: False when the way or the time ended first; run again to go on.
        notes: what a user should know.
    """

    symbol: str
    source: str
    inserted: int
    restated: int
    rates: int
    complete: bool
    notes: tuple[str, ...] = ()


def mark_source(
    interval: str,
    env: Mapping[str, str] | None = None,
    *,
    reach: Callable[..., Reach] = reach_binance,
) -> Source:
    """Choose where mark prices come from: ``BOT4_MARK_DIR``, else Binance.

    Raises:
        VenueUnreachable: no folder is named and Binance does not answer.
    """
    env = dict(os.environ if env is None else env)
    env |= {"BOT4_CANDLES_MARKET": Market.USDM.value, "BOT4_CANDLES_DIR": env.get(MARK_DIR, "")}
    kind = SourceKind.FOLDER if env["BOT4_CANDLES_DIR"] else SourceKind.BINANCE
    env["BOT4_CANDLES_SOURCE"] = kind.value
    source = choose_source(env, interval=interval, reach=reach)
    return replace(source, mark=True, label=f"{source.label} mark prices")


def ingest_funding(
    symbol: str,
    store: FundingStore,
    cache: Path,
    now_ms: int,
    env: Mapping[str, str] | None = None,
    *,
    years: float,
    progress: Callable[[Progress], None] = lambda _: None,
    budget_s: float = DEFAULT_BUDGET_S,
    reach: Callable[..., Reach] = reach_binance,
) -> FundingReport:
    """Bring a symbol's funding rates into the store.

    Args:
        symbol: of a USD-M perpetual.
        store: written to.
        cache: root below which the archive's zips are kept.
        now_ms: the present, UTC.
        env: ``BOT4_FUNDING_DIR`` names a folder; else Binance (``BOT4_ARCHIVE_URL``,
            ``BOT4_REST_URL``); the process's when None.
        years: of history to download.
        progress: called before each step.
        budget_s: seconds a download may take.
        reach: asks whether Binance answers.

    Raises:
        DataError: the folder has no rates of the symbol, or a file is damaged.
        VenueError: Binance does not answer and nothing came.
    """
    env = os.environ if env is None else env
    folder = env.get(FUNDING_DIR)
    if folder:
        progress(Progress(0, 1, f"reading {Path(folder).name}"))
        found = read_funding_folder(Path(folder))
        if symbol not in found:
            raise DataError(f"no funding of {symbol} in {folder}; it holds {' '.join(found)}")
        return _kept(store, [found[symbol]], f"folder {Path(folder).name}", complete=True)
    url, rest_url = env.get("BOT4_ARCHIVE_URL") or ARCHIVE_URL, env.get("BOT4_REST_URL") or None
    reached = reach(Market.USDM, archive_url=url, rest_url=rest_url)
    if not reached.any:
        raise VenueUnreachable(
            f"Binance cannot be reached ({reached.reason}); name a folder of funding rates in "
            f"{FUNDING_DIR}"
        )
    plan = plan_download(Market.USDM, (symbol,), "8h", now_ms, years=years)
    budget = Budget(budget_s)
    parts: list[FundingRates] = []
    faults: list[VenueError] = []
    archive = Archive(cache / ".archive", url) if reached.archive else None
    rate = machine_rate(Market.USDM, rest_url, cache)
    markets = MarketList(cache, Market.USDM, rest_url)
    with contextlib.ExitStack() as stack:
        client = None
        if reached.rest:
            client = RestCandles(Market.USDM, rest_url, budget=budget, rate=rate, markets=markets)
            stack.callback(client.close)
        try:
            if client is not None:
                client.check((symbol,))
            if archive is not None:
                _archived(archive, plan, symbol, parts, progress, budget)
            if client is not None:
                start = _after(parts, store.read(symbol), plan)
                progress(Progress(1, 1, f"latest funding of {symbol}"))
                parts.append(client.funding(symbol, start, plan.to_ms, budget))
        except VenueError as error:
            faults.append(error)
    if faults and not any(map(len, parts)):
        raise faults[0]
    notes = tuple(f"a part of the download failed: {fault}" for fault in faults)
    complete = not faults and not budget.spent
    return _kept(store, parts, "Binance usdm funding", complete=complete, notes=notes)


def _archived(
    archive: Archive,
    plan: DownloadPlan,
    symbol: str,
    parts: list[FundingRates],
    progress: Callable[[Progress], None],
    budget: Budget,
) -> None:
    """Read the archive's months, newest first, until it has no older ones."""
    months = plan.months()[::-1]
    for done, month in enumerate(months):
        if budget.spent:
            return
        progress(Progress(done, len(months), f"funding of {symbol} {month:%Y-%m}"))
        part = archive.funding(symbol, month, budget)
        if part is not None:
            parts.append(part)
        elif plan.age(month) > 1:
            return


def _after(parts: list[FundingRates], held: FundingRates | None, plan: DownloadPlan) -> int:
    """Return where REST begins: after the archive, or after what is stored of a whole history."""
    lasts = [int(part.time_ms[-1]) for part in parts if len(part)]
    if lasts:
        return max(lasts) + 1
    return plan.from_ms if held is None or not len(held) else int(held.time_ms[-1]) + 1


def _kept(
    store: FundingStore,
    parts: list[FundingRates],
    source: str,
    *,
    complete: bool,
    notes: tuple[str, ...] = (),
) -> FundingReport:
    symbols = {part.symbol for part in parts}
    if len(symbols) != 1:
        raise ConfigError("funding is kept symbol by symbol")
    symbol = symbols.pop()
    inserted = restated = 0
    for part in parts:
        new, changed = store.write(part)
        inserted, restated = inserted + new, restated + changed
    held = store.read(symbol)
    rates = 0 if held is None else len(held)
    return FundingReport(symbol, source, inserted, restated, rates, complete, notes)
