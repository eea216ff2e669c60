"""Is this what it claims to be: closed candles of a Binance market, each once, in order?

Pure functions on rows as they were read. An ERROR blocks a series; rows of a WARN are kept and
masked from training. The two judgements by statistics have thresholds far from what good Binance
candles show (spot and USD-M, 1m to 1d, 2018 to 2025; beside each constant):

FORMING_PERSISTED: candles stored while still open are torn from what follows: the close is far
from the next open, measured in ranges, in a row with little volume, while its neighbours join.
NOT_THIS_MARKET: prices off any tick grid, opens that always repeat the close before, or several
habits of markets missing: clustered volatility, clustered volume, volume that follows the
range, fat tails.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.gaps import find_gaps
from bot4_runtime.candles.series import COLUMNS, PRICE_COLUMNS, CandleSeries, possible_rows
from bot4_runtime.domain.candle import Origin

SPREAD_TICKS: Final = 2.0
"""Ticks between a close and the next open that the spread explains: coarse ticks, stablecoins."""
TORN: Final = 0.15
"""Ranges between a close and the next open from which a row may be torn."""
TORN_OVER_USUAL: Final = 5.0
"""... and how many times the 80 % quantile of its surroundings that must be."""
QUIET: Final = 0.65
"""... and the share of the usual volume it must be below."""
TORN_IN_48: Final = 3
"""Torn rows within 48 rows that are an error; good data: at most 2, in an outage."""
TORN_SHARE: Final = 0.004
"""Torn rows over all rows that are an error from 6 on; good data: at most 0.0001."""
WIDE: Final = 0.4
"""Ranges between close and next open in a file whose candles are mostly torn."""
WIDE_IN_100: Final = 0.3
"""Their share in 100 rows that is an error; good data: at most 0.23, in a crash."""
WIDE_SHARE: Final = 0.05
"""Their share of all rows that is an error; good data: at most 0.001 ..."""
WIDE_LEAST: Final = 60
"""... and that many of them; good data: about 43 in a month of minutes with a crash."""
GRID_DECIMALS: Final = 8
"""Binance quotes prices and volumes with at most this many decimals."""
JOINED: Final = 0.97
"""Share of opens equal to the close before, where prices are fine; good data: at most 0.80."""
FINE_TICKS: Final = 20
"""Ticks in the median range from which prices count as fine."""
ENOUGH_ROWS: Final = 500
"""Rows from which habits can be told from chance."""
HABITS: Final = {"volume follows range": 0.15, "clustered range": 0.1, "clustered volume": 0.1}
"""Least rank correlations; good data from 1,000 rows on: at least 0.26, 0.22 and 0.19."""
THIN_TAILS: Final = 3.3
"""Kurtosis of returns; good data from 1,000 rows on: at least 3.37."""
OTHER_PRICE: Final = 0.02
"""Median distance from a stored series of the same symbol that no two copies of it have."""
UNCLOSED_VOLUME: Final = 0.3
"""Share of the usual volume below which a last row is taken to be open still."""


class Code(StrEnum):
    """What can be wrong."""

    DUPLICATE = "DUPLICATE"
    TIME_ORDER = "TIME_ORDER"
    OHLC = "OHLC"
    FORMING_PERSISTED = "FORMING_PERSISTED"
    NOT_THIS_MARKET = "NOT_THIS_MARKET"
    GAP = "GAP"
    FLAT_ZERO_VOLUME = "FLAT_ZERO_VOLUME"
    UNCONFIRMED_LAST = "UNCONFIRMED_LAST"


class Severity(StrEnum):
    """ERROR blocks, WARN is listed and masked."""

    ERROR = "ERROR"
    WARN = "WARN"


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing that is wrong with a series.

    Attributes:
        count: rows concerned; missing candles for GAP.
        first_ms: open time of the first of them, as `last_ms` of the last.
        rows: int64[k], their places among the rows judged; empty for GAP.
    """

    code: Code
    severity: Severity
    message: str
    count: int
    first_ms: int
    last_ms: int
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def judge(
    raw: RawCandles,
    interval_ms: int,
    *,
    origin: Origin = Origin.REAL,
    now_ms: int | None = None,
    stored: CandleSeries | None = None,
) -> list[Finding]:
    """Judge rows as they were read.

    Args:
        raw: one file's rows, or the merged rows of several.
        interval_ms: length of a candle.
        origin: simulated candles are not asked whether they are Binance's.
        now_ms: the present, when known; a last candle that ends after it is open still.
        stored: candles of the same symbol that are trusted, of any interval.

    Returns:
        Findings, errors first; none when all is well. Statistics are judged only on rows that are
        in order and possible.
    """
    findings = order_findings(raw, interval_ms)
    columns = [getattr(raw, name) for name in COLUMNS]
    measured = bool((raw.volume > 0).any())
    if np.isnan(raw.volume).all():
        columns[-1] = np.zeros(len(raw))
    bad = np.flatnonzero(~possible_rows(*columns))
    if bad.size:
        message = "rows no market can print; expected 0 < low <= open, close <= high, volume >= 0"
        findings.append(_finding(raw, Code.OHLC, Severity.ERROR, message, bad))
    if not findings:
        findings += _forming(raw, interval_ms, measured=measured)
        if origin is Origin.REAL:
            findings += _foreign(raw, measured=measured, stored=stored)
    if not any(finding.code in {Code.DUPLICATE, Code.TIME_ORDER} for finding in findings):
        findings += _gaps(raw, interval_ms)
    if measured:
        flat = np.flatnonzero(raw.volume == 0)
        if flat.size:
            message = "candles without a trade: an outage, or a download before it was filled in"
            findings.append(_finding(raw, Code.FLAT_ZERO_VOLUME, Severity.WARN, message, flat))
    return findings + _unconfirmed(raw, interval_ms, now_ms, measured=measured)


def judge_series(
    series: CandleSeries, *, now_ms: int | None = None, stored: CandleSeries | None = None
) -> list[Finding]:
    """Judge a series that is already in the store."""
    columns = [getattr(series, name) for name in COLUMNS]
    raw = RawCandles(series.id.symbol, series.id.key, series.open_time_ms, *columns)
    step, origin = series.interval_ms, series.id.origin
    return judge(raw, step, origin=origin, now_ms=now_ms, stored=stored)


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that block."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def training_mask(findings: Sequence[Finding], rows: int) -> NDArray[np.bool_]:
    """Return bool[rows]: True where a row may be trained on."""
    mask = np.ones(rows, dtype=bool)
    for finding in findings:
        mask[finding.rows] = False
    return mask


def order_findings(raw: RawCandles, interval_ms: int) -> list[Finding]:
    """Judge the order of one file's rows: DUPLICATE and TIME_ORDER."""
    times = raw.open_time_ms
    findings = []
    _, first = np.unique(times, return_index=True)
    repeated = np.setdiff1d(np.arange(len(raw)), first)
    if repeated.size:
        message = "open times that are there already; expected each once"
        findings.append(_finding(raw, Code.DUPLICATE, Severity.ERROR, message, repeated))
    back = np.flatnonzero(np.diff(times) < 0) + 1
    if back.size:
        message = "rows earlier than the row before; expected ascending open times"
        findings.append(_finding(raw, Code.TIME_ORDER, Severity.ERROR, message, back))
    week = 345_600_000 if interval_ms == 604_800_000 else 0
    off = np.flatnonzero((times - week) % interval_ms)
    if off.size:
        message = f"open times off the grid of {interval_ms} ms; expected UTC open times"
        findings.append(_finding(raw, Code.TIME_ORDER, Severity.ERROR, message, off))
    return findings


def _finding(
    raw: RawCandles, code: Code, severity: Severity, message: str, rows: NDArray[np.intp]
) -> Finding:
    times = raw.open_time_ms[rows]
    return Finding(
        code=code,
        severity=severity,
        message=f"{raw.symbol} ({raw.source}): {rows.size} {message}",
        count=int(rows.size),
        first_ms=int(times.min()),
        last_ms=int(times.max()),
        rows=rows.astype(np.int64),
    )


def _gaps(raw: RawCandles, interval_ms: int) -> list[Finding]:
    gaps = find_gaps(raw.open_time_ms, interval_ms)
    if not gaps:
        return []
    missing = sum(gap.missing for gap in gaps)
    longest = max(gap.missing for gap in gaps)
    message = f"{missing} candles missing in {len(gaps)} gaps, the longest {longest}; kept as gaps"
    return [
        Finding(
            code=Code.GAP,
            severity=Severity.WARN,
            message=f"{raw.symbol} ({raw.source}): {message}",
            count=missing,
            first_ms=gaps[0].from_ms,
            last_ms=gaps[-1].to_ms - interval_ms,
        )
    ]


def _forming(raw: RawCandles, interval_ms: int, *, measured: bool) -> list[Finding]:
    rows = len(raw)
    if rows < 24:
        return []
    span = raw.high - raw.low
    relative = span / raw.close
    usual = np.maximum(_around(relative, 0.5, 48), 0.5 * np.median(relative))[:-1]
    apart_by = np.abs(raw.close[:-1] - raw.open[1:]) - SPREAD_TICKS * _ticks(raw)[:-1]
    torn = np.maximum(apart_by, 0.0) / raw.close[:-1]
    judged = (np.diff(raw.open_time_ms) == interval_ms) & (span[:-1] > 0)
    distance = np.where(judged & (usual > 0), torn / np.maximum(usual, 1e-12), 0.0)
    wide = np.flatnonzero(distance > WIDE)
    most = _most_within(distance > WIDE, 100) / min(100, rows - 1)
    if most > WIDE_IN_100 or wide.size > max(WIDE_LEAST, WIDE_SHARE * rows):
        found = wide
    elif measured:
        quiet = raw.volume[:-1] < QUIET * _around(raw.volume, 0.5, 48)[:-1]
        apart = distance > np.maximum(TORN, TORN_OVER_USUAL * _around(distance, 0.8, 96))
        suspect = apart & quiet & (raw.volume[:-1] > 0)
        found = np.flatnonzero(suspect)
        many = found.size >= 6 and found.size >= TORN_SHARE * rows
        if _most_within(suspect, 48) < TORN_IN_48 and not many:
            return []
    else:
        return []
    message = (
        "candles were stored while still open: their close is far from the next open and their "
        "volume is too low; fetch them again after they closed"
    )
    return [_finding(raw, Code.FORMING_PERSISTED, Severity.ERROR, message, found)]


def _foreign(raw: RawCandles, *, measured: bool, stored: CandleSeries | None) -> list[Finding]:
    signs = [] if stored is None else _other_prices(raw, stored)
    if measured:
        signs += _off_grid(raw) + _always_joined(raw)
        habits = _missing_habits(raw)
        signs += habits if len(habits) > 1 else []
    if not signs:
        return []
    message = f"rows are not Binance's {raw.symbol}: {'; '.join(signs)}"
    every = np.arange(len(raw))
    return [_finding(raw, Code.NOT_THIS_MARKET, Severity.ERROR, message, every)]


def _other_prices(raw: RawCandles, stored: CandleSeries) -> list[str]:
    """Compare opens at equal times; series of different intervals share open times too."""
    times, mine, theirs = np.intersect1d(
        raw.open_time_ms, stored.open_time_ms, assume_unique=True, return_indices=True
    )
    if not times.size:
        return []
    distance = float(np.median(np.abs(raw.open[mine] / stored.open[theirs] - 1.0)))
    if distance <= OTHER_PRICE:
        return []
    return [f"opens are {distance:.1%} away from the stored series of the same symbol"]


def _off_grid(raw: RawCandles) -> list[str]:
    prices = np.concatenate([getattr(raw, name) for name in PRICE_COLUMNS])
    off = np.abs(prices - np.round(prices, GRID_DECIMALS)) > 1e-12 * prices
    share = float(off.mean())
    return [f"{share:.0%} of the prices have over 8 decimals"] if share > 0.01 else []


def _ticks(raw: RawCandles, block: int = 480) -> NDArray[np.float64]:
    """Return the least step between prices around each row: ticks change over the years."""
    ticks = np.zeros(len(raw))
    for start in range(0, len(raw), block):
        rows = slice(start, start + block)
        prices = np.unique([getattr(raw, name)[rows] for name in PRICE_COLUMNS])
        steps = np.diff(prices)
        ticks[rows] = steps.min(initial=np.inf, where=steps > 1e-9 * prices[1:])
    return np.where(np.isfinite(ticks), ticks, 0.0)


def _always_joined(raw: RawCandles) -> list[str]:
    traded = raw.volume[1:] > 0
    if np.count_nonzero(traded) < 100:
        return []
    joined = float(np.mean((raw.open[1:] == raw.close[:-1])[traded]))
    fine = np.median(raw.high - raw.low) >= FINE_TICKS * np.median(_ticks(raw))
    if joined < JOINED or not fine:
        return []
    return [f"{joined:.0%} of the opens repeat the close before, where trades would differ"]


def _missing_habits(raw: RawCandles) -> list[str]:
    moved = (raw.volume > 0) & (raw.high > raw.low)
    if np.count_nonzero(moved) < ENOUGH_ROWS:
        return []
    volume = _ranks(raw.volume[moved])
    span = _ranks(((raw.high - raw.low) / raw.close)[moved])
    found = {
        "volume follows range": _correlation(volume, span),
        "clustered range": _correlation(span[1:], span[:-1]),
        "clustered volume": _correlation(volume[1:], volume[:-1]),
    }
    signs = [
        f"no {name} (rank correlation {value:.2f})"
        for name, value in found.items()
        if not value >= HABITS[name]
    ]
    returns = np.diff(np.log(raw.close))
    centred = returns - returns.mean()
    kurtosis = float(np.mean(centred**4) / np.maximum(np.mean(centred**2) ** 2, 1e-300))
    if len(raw) >= 1_000 and not kurtosis >= THIN_TAILS:
        signs.append(f"no fat tails (kurtosis {kurtosis:.1f})")
    return signs


def _unconfirmed(
    raw: RawCandles, interval_ms: int, now_ms: int | None, *, measured: bool
) -> list[Finding]:
    if not len(raw):
        return []
    last = int(np.argmax(raw.open_time_ms))
    open_still = now_ms is not None and int(raw.open_time_ms[last]) + interval_ms > now_ms
    if measured and not open_still and len(raw) >= 25:
        before = np.lib.stride_tricks.sliding_window_view(raw.volume, 24)[:-1]
        share = raw.volume[24:] / np.maximum(np.median(before, axis=1), 1e-12)
        usual_low = float(np.quantile(share[-500:], 0.02)) if share.size >= 100 else np.inf
        open_still = share[-1] < min(UNCLOSED_VOLUME, max(usual_low, 0.5 * UNCLOSED_VOLUME))
    if not open_still:
        return []
    message = (
        "last candle looks unclosed; it is kept and masked until a later download confirms it"
    )
    row = np.array([last])
    return [_finding(raw, Code.UNCONFIRMED_LAST, Severity.WARN, message, row)]


def _around(values: NDArray[np.float64], quantile: float, width: int) -> NDArray[np.float64]:
    """Rolling quantile over `width` + 1 rows centred on each; reflected at the ends."""
    half = min(width, (len(values) - 1) // 2 * 2) // 2
    padded = np.pad(values, half, mode="reflect") if half else values
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    place = round(quantile * 2 * half)
    return np.concatenate(
        [
            np.partition(windows[start : start + 8_192], place, axis=1)[:, place]
            for start in range(0, len(windows), 8_192)
        ]
    )


def _most_within(flags: NDArray[np.bool_], width: int) -> int:
    sums = np.concatenate(([0], np.cumsum(flags)))
    width = min(width, len(flags))
    return int((sums[width:] - sums[:-width]).max())


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(np.argsort(values)).astype(np.float64)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1])
