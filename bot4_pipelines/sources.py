"""From `ingest` to the pipeline's first step: which source, what came, and when to ask again.

A folder that was named is taken or refused, never replaced by something else. Where Binance
cannot be reached any more, the candles it gave before are used if all that is wanted is among
them, else it is refused; without any, the simulated market is taken, which every output calls
simulated.
"""

import math
import os
from typing import Any, Final

import numpy as np

from bot4_pipelines.ingest.wanted import DEFAULT_INTERVAL, DEFAULT_YEARS, wanted
from bot4_pipelines.progress import Report
from bot4_pipelines.records import Record, now_ms
from bot4_runtime.candles.series import COLUMNS
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.domain.errors import VenueError, VenueUnreachable

BINANCE, SIMULATED = "binance", "simulated"
SHOWN = 100
"""Restated values that a record lists; the store's history has all."""
LISTED: Final = 20
"""Open times that a finding lists."""


def series_id(key: str) -> SeriesId:
    """Read a store key like ``real/spot/BTCUSDT/1h`` back."""
    origin, market, symbol, interval = key.split("/")
    return SeriesId(Origin(origin), Market(market), symbol, interval)


def still_fresh(before: Record | None, max_age_hours: float) -> bool:
    """Whether the candles of an earlier download need not be asked for again.

    Only a whole download from Binance ages; folders and the simulated market are cheap to read.
    """
    if before is None or os.environ.get("BOT4_CANDLES_DIR"):
        return False
    asked = os.environ.get("BOT4_CANDLES_SOURCE") or BINANCE
    whole = before.numbers["source"] == asked == BINANCE and before.numbers["complete"]
    return (
        bool(whole)
        and _has_what_is_wanted(before)
        and before.finished_ms >= now_ms() - max_age_hours * 3_600_000
    )


def take_candles(store: CandleStore, before: Record | None, report: Report) -> dict[str, Any]:
    """Bring candles into the store and say what came.

    Args:
        store: written to.
        before: what came the last time; None at first.
        report: told of the progress.

    Returns:
        ``source`` (``folder``, ``binance`` or ``simulated``), ``label``, ``why``, ``complete``,
        ``notes``, ``series`` (keys of the store), ``findings``, ``inserted``, ``unchanged``,
        ``restated``, ``restatements``, ``interval``, ``market``, ``origin``.

    Raises:
        DataError: the folder's files are unreadable or of several intervals.
        ConfigError: a variable has an impossible value.
        VenueError: Binance cannot be reached, and was demanded or never gave all that is wanted.
    """
    from bot4_pipelines.ingest.plan import Progress
    from bot4_pipelines.ingest.source import SourceKind, choose_source, ingest

    def tell(progress: Progress) -> None:
        report(progress.message, 0.9 * progress.done / max(progress.total, 1))

    source = choose_source()
    if source.kind is SourceKind.SIMULATED and before is not None and _usable(before):
        return _as_before(before, source.reason)
    try:
        return report_numbers(ingest(source, store, tell))
    except VenueError as error:
        if os.environ.get("BOT4_CANDLES_SOURCE"):
            raise
        if before is not None and _usable(before):
            return _as_before(before, str(error))
        other = choose_source({**os.environ, "BOT4_CANDLES_SOURCE": SIMULATED})
        return report_numbers(ingest(other, store, tell)) | {"why": str(error)}


def _has_what_is_wanted(before: Record) -> bool:
    """Whether an earlier download was of what is wanted now: market, symbols, interval, years."""
    from bot4_pipelines.ingest.source import chosen_market

    want, got, market = wanted(), before.numbers, chosen_market(os.environ).value
    return (market, want.interval or DEFAULT_INTERVAL, want.years, list(want.symbols)) == (
        got.get("market", Market.SPOT.value),
        got.get("interval", DEFAULT_INTERVAL),
        got.get("years", DEFAULT_YEARS),
        got.get("asked", []),
    )


def _usable(before: Record) -> bool:
    """Whether candles of Binance are there, and nobody asked for something else."""
    return before.numbers["source"] == BINANCE and not os.environ.get("BOT4_CANDLES_SOURCE")


def _as_before(before: Record, why: str) -> dict[str, Any]:
    """Return what an earlier download told, of what is wanted; nothing came this time.

    Raises:
        VenueUnreachable: it was not of all that is wanted.
    """
    from bot4_pipelines.ingest.source import chosen_market

    got, want = before.numbers, wanted()
    ids = [series_id(key) for key in got["series"]]
    have = [one.symbol for one in ids]
    market, interval = chosen_market(os.environ), want.interval or DEFAULT_INTERVAL
    missing = [symbol for symbol in want.symbols if symbol not in have]
    if missing or any((one.market, one.interval) != (market, interval) for one in ids):
        raise VenueUnreachable(
            f"{why}, and what was downloaded before ({' '.join(got['series'])}) is not all that "
            f"is wanted ({' '.join(want.symbols or have)}, {market} {interval}"
            f"{'; missing: ' * bool(missing)}{' '.join(missing)}); try again later, leave out of "
            "BOT4_SYMBOLS what is missing, or set BOT4_CANDLES_SOURCE=simulated"
        )
    kept = set(want.symbols or have)
    return {
        **got,
        "why": f"{why}; the candles downloaded before are used",
        "series": [one.key for one in ids if one.symbol in kept],
        "findings": [one for one in got.get("findings", []) if one["symbol"] in kept],
        "excerpts": [one for one in got.get("excerpts", []) if one["symbol"] in kept],
        "complete": False,
        "restatements": [],
        **dict.fromkeys(("conflicts", "inserted", "unchanged", "restated"), 0),
    }


def _times(finding: Any) -> list[int]:
    """Return the open times of the first rows of a finding that are shown."""
    if finding.shown is None:
        return []
    first = finding.worst - _place(finding)
    places = finding.rows - first
    inside = places[(places >= 0) & (places < len(finding.shown))]
    return [int(time) for time in finding.shown.open_time_ms[inside][:LISTED]]


def _place(finding: Any) -> int:
    """Return the place of the worst row among those shown."""
    from bot4_pipelines.ingest.quality.finding import SHOWN as AROUND

    return int(min(finding.worst, AROUND))


def _worst(finding: Any) -> dict[str, float]:
    """Return the values of the worst row, its open time among them."""
    if finding.shown is None or _place(finding) >= len(finding.shown):
        return {}
    row, place = finding.shown, _place(finding)
    values = {name: float(getattr(row, name)[place]) for name in COLUMNS}
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    return {"open_time_ms": int(row.open_time_ms[place])} | known


def _excerpts(done: Any) -> list[dict[str, Any]]:
    """Return the candles around the worst of each code, for plots; the largest finding's."""
    largest: dict[str, Any] = {}
    for one in done.series:
        for finding in one.findings:
            code = finding.code.value
            if finding.shown is not None and (
                code not in largest or finding.count > largest[code].count
            ):
                largest[code] = finding
    return [
        {
            "code": code,
            "symbol": finding.shown.symbol,
            "marked": _place(finding),
            "open_time_ms": finding.shown.open_time_ms.tolist(),
        }
        | {name: np.nan_to_num(getattr(finding.shown, name)).tolist() for name in COLUMNS}
        for code, finding in largest.items()
    ]


def report_numbers(done: Any) -> dict[str, Any]:
    """Return an `ingest.source.IngestReport` as JSON has it; keys as `take_candles` has them."""
    source = done.source
    findings = [
        {
            "severity": finding.severity.value,
            "code": finding.code.value,
            "symbol": one.id.symbol,
            "count": finding.count,
            "first_ms": finding.first_ms,
            "last_ms": finding.last_ms,
            "times_ms": _times(finding),
            "worst": _worst(finding),
            "message": finding.message,
        }
        for one in done.series
        for finding in one.findings
    ]
    return {
        "source": source.kind.value,
        "label": source.label,
        "why": source.reason,
        "complete": done.complete,
        "notes": list(done.notes),
        "interval": source.interval,
        "years": source.years,
        "asked": list(source.symbols),
        "market": source.market.value,
        "origin": source.origin.value,
        "series": [one.id.key for one in done.series if one.written],
        "findings": findings,
        "restatements": [
            {"symbol": one.id.symbol, "open_time_ms": time_ms, "column": column}
            | {"old": old, "new": new}
            for one in done.series
            for time_ms, column, old, new in one.restatements
        ][:SHOWN],
        "excerpts": _excerpts(done),
        "conflicts": sum(one.conflicts for one in done.series),
        **{
            name: sum(getattr(one, name) for one in done.series)
            for name in ("inserted", "unchanged", "restated")
        },
    }
