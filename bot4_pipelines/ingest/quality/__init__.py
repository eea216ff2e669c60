"""Is this what it claims to be: closed candles of a Binance market, each once, in order?

Pure functions on rows as they were read, one purpose a module; each says its threshold beside
what good Binance candles show. An ERROR blocks a series, and is raised only for what good candles
never show; rows of a WARN are kept and masked from training; an INFO is only told.
"""

from bot4_pipelines.ingest.quality.filled import filled_findings
from bot4_pipelines.ingest.quality.finding import (
    Finding,
    Severity,
    errors,
    training_mask,
)
from bot4_pipelines.ingest.quality.forming import forming_findings, unconfirmed_last
from bot4_pipelines.ingest.quality.freshness import freshness_findings
from bot4_pipelines.ingest.quality.habits import habit_findings
from bot4_pipelines.ingest.quality.intervals import interval_findings
from bot4_pipelines.ingest.quality.measures import Measured
from bot4_pipelines.ingest.quality.order import impossible_rows, order_findings
from bot4_pipelines.ingest.quality.outages import empty_rows, gap_findings
from bot4_pipelines.ingest.quality.spikes import spike_findings
from bot4_pipelines.ingest.quality.stored import stored_findings
from bot4_pipelines.ingest.quality.twins import same_series
from bot4_pipelines.ingest.quality.volume import volume_findings
from bot4_pipelines.ingest.quality_codes import BLOCKING, RULES, Code
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.domain.candle import Market, Origin

__all__ = [
    "BLOCKING",
    "RULES",
    "Code",
    "Finding",
    "Severity",
    "errors",
    "judge",
    "judge_series",
    "order_findings",
    "same_series",
    "training_mask",
]

_ORDER = list(Severity)


def judge(
    raw: RawCandles,
    interval_ms: int,
    *,
    origin: Origin = Origin.REAL,
    market: Market | None = None,
    now_ms: int | None = None,
    stored: CandleSeries | None = None,
    finer: CandleSeries | None = None,
) -> list[Finding]:
    """Judge rows as they were read.

    Args:
        raw: one file's rows, or the merged rows of several.
        interval_ms: length of a candle.
        origin: simulated candles are not asked whether they are Binance's.
        market: whose outages are known; spot when None.
        now_ms: the present, when known; a last candle that ends after it is open still.
        stored: candles of the same symbol that are trusted, of any interval.
        finer: candles of the same symbol that are trusted, of a shorter interval.

    Returns:
        Findings, errors first; none when all is well. Statistics are judged only on rows that are
        in order and possible.
    """
    findings = order_findings(raw, interval_ms)
    in_order = not findings
    findings += impossible_rows(raw)
    traded = bool((raw.volume > 0).any())
    if not findings and len(raw):
        rows = Measured(raw, interval_ms, traded)
        findings += _statistics(rows, origin)
        if origin is Origin.REAL:
            findings += _against_others(rows, stored, finer)
    if in_order:
        findings += gap_findings(raw, interval_ms, market)
    if traded:
        findings += empty_rows(raw)
    findings += unconfirmed_last(raw, interval_ms, now_ms, traded=traded)
    if now_ms is not None and origin is Origin.REAL and len(raw):
        findings += freshness_findings(raw, interval_ms, now_ms)
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def _statistics(rows: Measured, origin: Origin) -> list[Finding]:
    findings = forming_findings(rows) + spike_findings(rows) + filled_findings(rows)
    if rows.traded:
        findings += volume_findings(rows)
        findings += habit_findings(rows) if origin is Origin.REAL else []
    return findings


def _against_others(
    rows: Measured, stored: CandleSeries | None, finer: CandleSeries | None
) -> list[Finding]:
    findings = []
    if stored is not None:
        findings += stored_findings(rows.raw, rows.interval_ms, stored, traded=rows.traded)
    if finer is not None:
        findings += interval_findings(rows.raw, rows.interval_ms, finer, traded=rows.traded)
    return findings


def judge_series(
    series: CandleSeries,
    *,
    now_ms: int | None = None,
    stored: CandleSeries | None = None,
    finer: CandleSeries | None = None,
) -> list[Finding]:
    """Judge a series that is already in the store."""
    columns = [getattr(series, name) for name in COLUMNS]
    raw = RawCandles(series.id.symbol, series.id.key, series.open_time_ms, *columns)
    return judge(
        raw,
        series.interval_ms,
        origin=series.id.origin,
        market=series.id.market,
        now_ms=now_ms,
        stored=stored,
        finer=finer,
    )
