"""NOT_THIS_MARKET: prices without the habits of a Binance market.

Prices off any tick grid, or opens that always repeat the close before, are enough alone; of the
statistical habits two must be missing: volume follows range, ranges and volumes cluster, returns
have fat tails, volume has a daily rhythm, highs and lows prefer round prices; one alone may be
missing by chance or by a market's nature. Candles in reversed order are told by their arrows of
time: activity rises at once and fades slowly.

Good candles: beside each constant, the worst of spot and USD-M, 1m to 4h, 2018 to 2025.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_pipelines.ingest.quality.finding import Finding, Severity, found
from bot4_pipelines.ingest.quality.measures import Measured
from bot4_pipelines.ingest.quality_codes import Code
from bot4_runtime.candles.files import RawCandles
from bot4_runtime.candles.series import PRICE_COLUMNS

GRID_DECIMALS: Final = 8
"""Binance quotes prices and volumes with at most this many decimals."""
JOINED: Final = 0.97
"""Share of opens equal to the close before, where prices are fine; good data: at most 0.80."""
ENOUGH_ROWS: Final = 500
"""Rows from which habits can be told from chance."""
HABITS: Final = {"volume follows range": 0.15, "clustered range": 0.1, "clustered volume": 0.1}
"""Least rank correlations; good data from 1,000 rows on: at least 0.26, 0.22 and 0.19."""
THIN_TAILS: Final = 3.3
"""Kurtosis of returns; good data from 1,000 rows on: at least 3.37."""
LONG_ENOUGH: Final = 4_000
"""Rows from which rhythm, round prices and the arrow of time are judged, below a day."""
RHYTHM_F: Final = 2.0
"""F ratio of hours of the day in detrended log volume; good data: at least 4.2."""
ROUND_Z: Final = 3.0
"""Standard errors by which highs and lows at every tenth tick exceed a tenth; good data: 8.8 in
minutes, but down to 1.8 in 4,500 hours of a market with coarse ticks."""
BACKWARDS: Final = -0.01
"""Tail asymmetry of changes of log volume and log range, the larger, from which order is
reversed; good data: at least +0.04."""
BACKWARDS_SHORT: Final = -0.03
"""... below `ARROW_LONG` rows; good data from `ARROW_ROWS` on: at least +0.02."""
LEAST_DAYS: Final = 20
"""Days from which the rhythm of a day is judged."""
ARROW_MS: Final = 900_000
"""Candles shorter than this are put together before the arrow of time is measured."""
ARROW_ROWS: Final = 1_000
"""Such rows needed ..."""
ALIVE: Final = 0.8
"""Share of rows with a range below which time has no arrow that could be told."""
ARROW_LONG: Final = 2_000
"""... and those from which `BACKWARDS` is the limit."""
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000


def habit_findings(rows: Measured) -> list[Finding]:
    """Find signs that no Binance market made these rows."""
    raw = rows.raw
    missing = _missing_habits(rows)
    signs = _off_grid(raw) + _always_joined(rows) + _backwards(rows)
    signs += missing if len(missing) > 1 else []
    return [not_this_market(raw, signs)] if signs else []


def not_this_market(raw: RawCandles, signs: list[str]) -> Finding:
    """Make the finding of all rows."""
    message = f"rows are not Binance's {raw.symbol}: {'; '.join(signs)}"
    every = np.arange(len(raw))
    return found(raw, Code.NOT_THIS_MARKET, Severity.ERROR, message, every)


def _off_grid(raw: RawCandles) -> list[str]:
    prices = np.concatenate([getattr(raw, name) for name in PRICE_COLUMNS])
    off = np.abs(prices - np.round(prices, GRID_DECIMALS)) > 1e-12 * prices
    share = float(off.mean())
    return [f"{share:.0%} of the prices have over 8 decimals"] if share > 0.01 else []


def _always_joined(rows: Measured) -> list[str]:
    raw = rows.raw
    traded = raw.volume[1:] > 0
    if np.count_nonzero(traded) < 100 or not rows.fine:
        return []
    joined = float(np.mean((raw.open[1:] == raw.close[:-1])[traded]))
    if joined < JOINED:
        return []
    return [f"{joined:.0%} of the opens repeat the close before, where trades would differ"]


def _missing_habits(rows: Measured) -> list[str]:
    raw = rows.raw
    moved = (raw.volume > 0) & (raw.high > raw.low)
    if np.count_nonzero(moved) < ENOUGH_ROWS:
        return []
    volume = _ranks(raw.volume[moved])
    span = _ranks(((raw.high - raw.low) / raw.close)[moved])
    measured = {
        "volume follows range": _correlation(volume, span),
        "clustered range": _correlation(span[1:], span[:-1]),
        "clustered volume": _correlation(volume[1:], volume[:-1]),
    }
    signs = [
        f"no {name} (rank correlation {value:.2f})"
        for name, value in measured.items()
        if not value >= HABITS[name]
    ]
    returns = np.diff(np.log(raw.close))
    centred = returns - returns.mean()
    kurtosis = float(np.mean(centred**4) / np.maximum(np.mean(centred**2) ** 2, 1e-300))
    if len(raw) >= 1_000 and not kurtosis >= THIN_TAILS:
        signs.append(f"no fat tails (kurtosis {kurtosis:.1f})")
    if len(raw) >= LONG_ENOUGH and rows.interval_ms < DAY_MS // 2:
        signs += _no_rhythm(rows, moved) + _no_round_prices(rows, moved)
    return signs


def _no_rhythm(rows: Measured, moved: NDArray[np.bool_]) -> list[str]:
    """Ask whether volume knows the hour of the day."""
    ratio = rhythm(rows.raw.open_time_ms[moved], rows.raw.volume[moved], rows.interval_ms)
    return [] if ratio >= RHYTHM_F else [f"volume knows no hour of the day (F {ratio:.1f})"]


def rhythm(time_ms: NDArray[np.int64], volume: NDArray[np.float64], interval_ms: int) -> float:
    """Return the F ratio of the hour of the day in log volume less its mean of a day.

    Hours are the observations, whatever the interval: shorter candles of one hour are alike.
    Infinite below `LEAST_DAYS`.
    """
    logs = np.log(volume)
    days = time_ms // DAY_MS
    if len(logs) < 2 or days[-1] - days[0] < LEAST_DAYS:
        return np.inf
    width = min(DAY_MS // interval_ms, len(logs) - 1)
    sums = np.cumsum(np.pad(logs, (width // 2 + 1, width - width // 2 - 1), mode="reflect"))
    detrended = logs[: len(sums) - width] - (sums[width:] - sums[:-width]) / width
    cells = time_ms[: len(detrended)] // HOUR_MS
    cells, place, sizes = np.unique(cells, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=detrended) / sizes
    hours = cells % 24
    counts = np.bincount(hours, minlength=24)
    totals = np.bincount(hours, weights=means, minlength=24)
    there = counts > 0
    explained = float((totals[there] ** 2 / counts[there]).sum())
    between = explained - float(means.sum() ** 2 / len(means))
    within = float((means**2).sum()) - explained
    groups = int(there.sum())
    return (between / max(groups - 1, 1)) / max(within / (len(means) - groups), 1e-300)


def _no_round_prices(rows: Measured, moved: NDArray[np.bool_]) -> list[str]:
    """Ask whether highs and lows prefer every tenth tick, as orders of people do."""
    excess = roundness(rows, moved)
    if excess >= ROUND_Z or not rows.fine:
        return []
    return [f"highs and lows do not prefer round prices ({excess:+.1f} standard errors)"]


def roundness(rows: Measured, moved: NDArray[np.bool_]) -> float:
    """Return the excess of highs and lows at every tenth tick, in standard errors of chance."""
    tick = rows.ticks[moved]
    tick = np.where(tick > 0.0, 10.0 ** np.round(np.log10(np.maximum(tick, 1e-12))), 1e-8)
    prices = np.concatenate([rows.raw.high[moved] / tick, rows.raw.low[moved] / tick])
    places = np.round(prices).astype(np.int64)
    share = float((places % 10 == 0).mean())
    return float((share - 0.1) / np.sqrt(0.09 / len(places)))


def _backwards(rows: Measured) -> list[str]:
    """Ask whether activity fades at once and rises slowly, which only reversed candles do."""
    count = len(rows) * rows.interval_ms // max(rows.interval_ms, ARROW_MS)
    if count < ARROW_ROWS or rows.interval_ms >= DAY_MS // 2 or rows.moving < ALIVE:
        return []
    volume, span = arrows(rows)
    limit = BACKWARDS if count >= ARROW_LONG else BACKWARDS_SHORT
    if volume >= limit or span >= limit:
        return []
    return [
        f"activity fades at once and rises slowly ({volume:.2f}, {span:.2f}): reversed in time"
    ]


def arrows(rows: Measured) -> tuple[float, float]:
    """Return the tail asymmetry of changes of log volume and of log range; above 0 is forward."""
    raw = rows.raw
    block = raw.open_time_ms // max(rows.interval_ms, ARROW_MS)
    starts = np.flatnonzero(np.append(True, np.diff(block) > 0))
    volume = np.add.reduceat(raw.volume, starts)
    span = np.maximum.reduceat(raw.high, starts) / np.minimum.reduceat(raw.low, starts)
    moved = (volume > 0.0) & (span > 1.0)
    return (
        _asymmetry(np.diff(np.log(volume[moved]))),
        _asymmetry(np.diff(np.log(np.log(span[moved])))),
    )


def _asymmetry(changes: NDArray[np.float64]) -> float:
    if not changes.size:
        return 0.0
    low, high = np.quantile(changes, [0.01, 0.99])
    return float((high + low) / max(high - low, 1e-300))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(np.argsort(values)).astype(np.float64)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1])
