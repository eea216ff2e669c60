"""A planned download: months and days from the archive, the rest by REST, within a budget.

What arrived is kept when the way breaks; only a refused location and an unknown symbol end it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bot4_pipelines.ingest.archive import KLINES, MARK, Archive
from bot4_pipelines.ingest.markets import MarketList
from bot4_pipelines.ingest.plan import Budget, DownloadPlan, Progress
from bot4_pipelines.ingest.rate import SharedRate
from bot4_pipelines.ingest.rest import RestCandles
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import VenueError

RECENT_MONTHS: Final = 2
"""Months, from the newest, that the archive may not have published whole yet."""

OVERLAP: Final = 100
"""Stored candles that REST is asked for again."""


@dataclass(frozen=True, slots=True, eq=False)
class Downloaded:
    """What a download brought.

    Attributes:
        parts: symbol to its pieces, none of them empty.
        complete: False when the budget or the way ended first; run again to go on.
        notes: what a user should know, one sentence each.
    """

    parts: dict[str, list[RawCandles]]
    complete: bool
    notes: tuple[str, ...]


def download(
    plan: DownloadPlan,
    archive: Archive | None,
    *,
    rest: bool,
    rest_url: str | None,
    progress: Callable[[Progress], None],
    budget: Budget,
    rate: SharedRate | None = None,
    markets: MarketList | None = None,
    held: Mapping[str, tuple[int, int]] | None = None,
) -> Downloaded:
    """Download what the plan asks for.

    Args:
        plan: what.
        archive: None when it does not answer.
        rest: whether the REST API answers.
        rest_url: replaces Binance's host.
        progress: called before each step.
        budget: seconds left for all of it.
        rate: of REST requests, shared by the machine's processes.
        markets: the symbols that Binance has, as they are kept; None asks.
        held: first and last open time (ms) of what is stored, by symbol: where REST goes on.

    Raises:
        VenueError: nothing arrived.
        DataError: an unknown symbol, or a file that is not what was published.
    """
    parts: dict[str, list[RawCandles]] = {symbol: [] for symbol in plan.symbols}
    faults: list[VenueError] = []
    with contextlib.ExitStack() as stack:
        client = None
        if rest:
            client = RestCandles(plan.market, rest_url, budget=budget, rate=rate, markets=markets)
            stack.callback(client.close)
        try:
            if client is not None:
                client.check(plan.symbols)
            if archive is not None:
                for symbol, raw in _archived(archive, plan, progress, budget):
                    parts[symbol].append(raw)
        except VenueError as error:
            faults.append(error)
        try:
            if client is not None:
                _latest(client, plan, parts, progress, budget, held or {})
        except VenueError as error:
            faults.append(error)
    if faults and not any(parts.values()):
        raise faults[0]
    notes = [f"a part of the download failed: {fault}" for fault in faults]
    notes += [
        f"Binance {plan.market.value} had no candles of {symbol}"
        for symbol, raws in parts.items()
        if not raws
    ]
    complete = not faults and not budget.spent
    if not complete:
        notes.append("not everything was downloaded; run again to go on where it stopped")
    return Downloaded(parts, complete, tuple(notes))


def _archived(
    archive: Archive,
    plan: DownloadPlan,
    progress: Callable[[Progress], None],
    budget: Budget,
) -> Iterator[tuple[str, RawCandles]]:
    """Months newest first, days where a month is not published; ends when the budget is spent."""
    months = plan.months()[::-1]
    steps = [(month, symbol) for month in months for symbol in plan.symbols]
    listed: set[str] = set()
    unlisted: set[str] = set()
    kind = MARK if plan.mark else KLINES
    for done, (month, symbol) in enumerate(steps):
        if budget.spent:
            return
        if symbol in unlisted:
            continue
        progress(Progress(done, len(steps), f"{symbol} {month:%Y-%m}"))
        raw = archive.month(plan.market, symbol, plan.interval, month, budget, kind)
        if raw is not None:
            listed.add(symbol)
            yield symbol, raw
        elif plan.age(month) >= RECENT_MONTHS:
            if symbol in listed:  # before that it may have been delisted
                unlisted.add(symbol)
        else:
            for day in plan.days(month):
                one = archive.day(plan.market, symbol, plan.interval, day, budget, kind)
                if one is not None:
                    yield symbol, one
    progress(Progress(len(steps), len(steps), "archive read"))


def _latest(
    client: RestCandles,
    plan: DownloadPlan,
    parts: dict[str, list[RawCandles]],
    progress: Callable[[Progress], None],
    budget: Budget,
    held: Mapping[str, tuple[int, int]],
) -> None:
    for done, (symbol, raws) in enumerate(parts.items()):
        progress(Progress(done, len(parts), f"latest candles of {symbol}"))
        start = _after(raws, plan, held.get(symbol))
        raw = client.fetch(symbol, plan.interval, start, plan.to_ms, budget, mark=plan.mark)
        if len(raw):
            raws.append(raw)


def _after(raws: Sequence[RawCandles], plan: DownloadPlan, held: tuple[int, int] | None) -> int:
    """Return where REST begins: after the archive's last candle, or near the stored one's end.

    The last `OVERLAP` stored candles are asked for again, since recent ones are restated.
    """
    step = interval_ms(plan.interval)
    lasts = [int(raw.open_time_ms.max()) for raw in raws]
    start = max(lasts) + step if lasts else plan.from_ms
    if held is None or (not lasts and held[0] > plan.from_ms + step):
        return start
    return max(start, held[1] + step - OVERLAP * step)
