"""Defects planted in good candles, and how many of them the quality rules find.

``python -m benchmarks.planted DATA`` prints the rows of docs/pipeline.md, "Defects
planted"; ``DATA`` is the folder of real candles that the tests use. Each defect is planted at a
place of its own in every series; found is a finding of its code, not INFO, that names a planted
row where the defect has a place.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bot4_pipelines.ingest.quality import Code, Severity, judge
from bot4_runtime.candles.files import RawCandles, interval_of, read_candle_file, to_series
from bot4_runtime.candles.resample import resample
from bot4_runtime.candles.series import COLUMNS, PRICE_COLUMNS
from bot4_runtime.domain.candle import Market, Origin, interval_ms

ROWS = 20_000
LONGER = {"1h": ("2h", "4h"), "1m": ("5m", "15m")}
SEED = 11

Planter = Callable[[RawCandles, int, np.random.Generator], RawCandles]


@dataclass(frozen=True)
class Defect:
    """A defect, how it is planted, and the code that must be found.

    Attributes:
        plant: makes it of a copy of good rows, from a place on.
        rows: how many rows are wrong from the place on; 0 for the whole series.
    """

    name: str
    code: Code
    plant: Planter
    rows: int = 0


def scaled(columns: tuple[str, ...], factor: float, rows: int | None) -> Planter:
    """Multiply columns of some rows, or of all from the place on."""

    def plant(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
        for name in columns:
            getattr(raw, name)[at : None if rows is None else at + rows] *= factor
        return raw

    return plant


def close_off(share: float) -> Planter:
    """Move one close, and what the row needs to stay possible."""

    def plant(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
        raw.close[at] *= 1.0 + share
        raw.high[at] = max(raw.high[at], raw.close[at])
        return raw

    return plant


def copied(rows: int, lag: int) -> Planter:
    """Repeat the row before, or the block before."""

    def plant(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
        for name in COLUMNS:
            column = getattr(raw, name)
            for row in range(at, at + rows):
                column[row] = column[row - lag]
        return raw

    return plant


def one_volume(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
    """Give 48 rows the volume of the first."""
    raw.volume[at : at + 48] = raw.volume[at]
    return raw


def filled(rows: int) -> Planter:
    """Fill prices forward; volumes go on."""

    def plant(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
        for name in PRICE_COLUMNS:
            getattr(raw, name)[at : at + rows] = raw.close[at - 1]
        return raw

    return plant


def interpolated(rows: int) -> Planter:
    """Draw a line from the close before to the open after, which need not be the same."""

    def plant(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
        to = raw.open[at + rows]
        line = np.linspace(
            raw.close[at - 1], to if to != raw.close[at - 1] else to * 1.001, rows + 1
        )
        raw.open[at : at + rows], raw.close[at : at + rows] = line[:-1], line[1:]
        raw.high[at : at + rows] = np.maximum(line[:-1], line[1:])
        raw.low[at : at + rows] = np.minimum(line[:-1], line[1:])
        return raw

    return plant


def in_quote(*, whole: bool) -> Planter:
    """Give the volume in quote, all of it or from the place on."""

    def plant(raw: RawCandles, at: int, _: np.random.Generator) -> RawCandles:
        rows = slice(None) if whole else slice(at, None)
        raw.volume[rows] *= raw.close[rows]
        return raw

    return plant


def backwards(raw: RawCandles, _: int, __: np.random.Generator) -> RawCandles:
    """Turn time round: opens are closes."""
    turned = {name: getattr(raw, name)[::-1].copy() for name in COLUMNS}
    turned["open"], turned["close"] = turned["close"], turned["open"]
    return replace(raw, **turned)


def invented(raw: RawCandles, _: int, generator: np.random.Generator) -> RawCandles:
    """Draw a random walk of the same size, with ticks, and volumes that follow nothing."""
    n, size = len(raw), float(np.std(np.diff(np.log(raw.close))))
    close = raw.close[0] * np.exp(np.cumsum(generator.normal(0.0, size, n)))
    opened = np.append(close[0], close[:-1])
    wick = np.abs(generator.normal(0.0, size, (2, n))) * close
    digits = max(2, int(4 - np.floor(np.log10(raw.close[0]))))
    made = {
        "open": opened,
        "high": np.maximum(opened, close) + wick[0],
        "low": np.minimum(opened, close) - wick[1],
        "close": close,
    }
    rounded = {name: np.round(column, digits) for name, column in made.items()}
    return replace(raw, **rounded, volume=np.round(generator.lognormal(5.0, 0.5, n), 3))


def garch(raw: RawCandles, _: int, generator: np.random.Generator) -> RawCandles:
    """Draw returns of clustered volatility with fat tails, ticks, and volumes that follow it."""
    n, size = len(raw), float(np.std(np.diff(np.log(raw.close))))
    shocks, variance, steps = generator.standard_t(5, n) / (5 / 3) ** 0.5, size**2, np.empty(n)
    level = np.empty(n)
    for row, shock in enumerate(shocks):
        level[row] = variance**0.5
        steps[row] = level[row] * shock
        variance = 0.03 * size**2 + 0.12 * steps[row] ** 2 + 0.85 * variance
    close = raw.close[0] * np.exp(np.cumsum(steps))
    tick = 10.0 ** (np.floor(np.log10(raw.close[0])) - 5)
    opened = np.append(close[0], close[:-1]) + tick * generator.integers(-1, 2, n)
    wick = np.abs(generator.normal(0.0, 0.5, (2, n))) * level * close
    made = {
        "open": opened,
        "high": np.maximum(opened, close) + wick[0],
        "low": np.minimum(opened, close) - wick[1],
        "close": close,
    }
    rounded = {name: np.round(column / tick) * tick for name, column in made.items()}
    reach = np.log(made["high"] / made["low"]) / size
    volume = np.round(1e3 * reach * generator.lognormal(0.0, 0.3, n), 3)
    return replace(raw, **rounded, volume=volume)


DEFECTS = (
    *(Defect(f"a row x{factor:g}", Code.SPIKE, scaled(PRICE_COLUMNS, factor, 1), 1)
      for factor in (10.0, 0.1, 1.5)),
    Defect("a high x10", Code.SPIKE, scaled(("high",), 10.0, 1), 1),
    Defect("a low /10", Code.SPIKE, scaled(("low",), 0.1, 1), 1),
    *(Defect(f"all from a row on x{factor:g}", Code.UNIT_CHANGE,
             scaled(PRICE_COLUMNS, factor, None), 1) for factor in (1000.0, 0.01)),
    *(Defect(f"a close off by {share:.0%}", Code.SPIKE, close_off(share), 1)
      for share in (0.5, 0.3, 0.1)),
    Defect("48 rows repeat the row before", Code.STALE, copied(48, 1), 48),
    Defect("48 rows repeat the 48 before", Code.STALE, copied(48, 48), 48),
    Defect("48 rows with one volume", Code.STALE, one_volume, 48),
    Defect("48 rows filled forward, volumes kept", Code.STALE, filled(48), 48),
    Defect("12 rows filled forward, volumes kept", Code.STALE, filled(12), 12),
    Defect("100 rows interpolated", Code.INTERPOLATED, interpolated(100), 100),
    Defect("10 rows interpolated", Code.INTERPOLATED, interpolated(10), 10),
    Defect("volume in quote throughout", Code.VOLUME_UNIT, in_quote(whole=True)),
    Defect("volume in quote from a row on", Code.VOLUME_UNIT, in_quote(whole=False)),
    Defect("reversed in time", Code.NOT_THIS_MARKET, backwards),
    Defect("a random walk with ticks", Code.NOT_THIS_MARKET, invented),
    Defect("a GARCH walk, volumes follow it", Code.NOT_THIS_MARKET, garch),
)  # fmt: skip


def good_series(data: Path, *, every: int = 1) -> Iterator[tuple[RawCandles, int]]:
    """Return good rows and their interval in ms: files with volumes, and longer candles of them.

    Args:
        data: the folder of real candles.
        every: leave out all but every so-many-th.
    """
    files = [
        path for part in ("spot/1h", "usdm/1h", "spot/1m") for path in (data / part).iterdir()
    ]
    number = 0
    for path in sorted(files):
        raw = read_candle_file(path)
        interval = interval_of(raw) or ""
        series = to_series(raw, Market.SPOT, interval, Origin.REAL)
        for name in (interval, *LONGER[interval]):
            number += 1
            if number % every:
                continue
            one = resample(series, name)
            columns = {column: getattr(one, column)[-ROWS:].copy() for column in COLUMNS}
            times = one.open_time_ms[-ROWS:].copy()
            yield (
                RawCandles(raw.symbol, f"{path.stem} {name}", times, **columns),
                interval_ms(name),
            )


def found(defect: Defect, good: RawCandles, step_ms: int, generator: np.random.Generator) -> bool:
    """Plant a defect in a copy of good rows and say whether it is found where it is."""
    columns = {name: getattr(good, name).copy() for name in COLUMNS}
    raw = replace(good, open_time_ms=good.open_time_ms.copy(), **columns)
    at = int(generator.integers(len(raw) // 3, 2 * len(raw) // 3))
    planted = range(at - 1, at + defect.rows + 1)
    for finding in judge(defect.plant(raw, at, generator), step_ms):
        told = finding.code is defect.code and finding.severity is not Severity.INFO
        if told and (not defect.rows or any(row in planted for row in finding.rows.tolist())):
            return True
    return False


def counts(data: Path, *, every: int = 1) -> dict[str, tuple[int, int]]:
    """Return how many of how many were found, by name of the defect."""
    told = dict.fromkeys((defect.name for defect in DEFECTS), (0, 0))
    generator = np.random.default_rng(SEED)
    for raw, step_ms in good_series(data, every=every):
        for defect in DEFECTS:
            hit, of = told[defect.name]
            told[defect.name] = (hit + found(defect, raw, step_ms, generator), of + 1)
    return told


if __name__ == "__main__":
    for name, (hit, of) in counts(Path(sys.argv[1])).items():
        sys.stdout.write(f"| {name} | {hit} of {of} |\n")
