"""Quality findings: none on good candles, and each defect found where it was planted."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.planted import counts
from bot4_pipelines.ingest.quality import (
    Code,
    Severity,
    errors,
    judge,
    judge_series,
    training_mask,
)
from bot4_runtime.candles.files import RawCandles, interval_of, read_candle_file
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Origin, interval_ms

HOUR = 3_600_000
MINUTE = 60_000
START = 1_704_067_200_000


def raw_of(series: CandleSeries) -> RawCandles:
    columns = [getattr(series, n).copy() for n in COLUMNS]
    return RawCandles(series.id.symbol, "made", series.open_time_ms.copy(), *columns)


def good(rows: int = 1200, interval: str = "1h") -> RawCandles:
    step = interval_ms(interval)
    market = SimulatedMarket(11)
    return raw_of(market.series("BTCUSDT", interval, START, START + rows * step))


def codes(raw: RawCandles, step: int = HOUR, **options: object) -> set[str]:
    return {finding.code.value for finding in judge(raw, step, **options)}


def forming(raw: RawCandles, step: int, share: float, seed: int) -> RawCandles:
    """Resample to `step`, a share of the candles cut off after 3 to 65 % of their time."""
    generator = np.random.default_rng(seed)
    bucket = raw.open_time_ms // step
    starts = np.flatnonzero(np.append(True, np.diff(bucket) > 0))
    rows = []
    for start, stop in zip(starts, np.append(starts[1:], len(raw)), strict=True):
        end = stop
        if generator.random() < share and stop - start > 1:
            end = start + max(1, int((stop - start) * generator.uniform(0.03, 0.65)))
        part = slice(start, end)
        rows.append(
            (
                raw.open[start],
                raw.high[part].max(),
                raw.low[part].min(),
                raw.close[end - 1],
                raw.volume[part].sum(),
            )
        )
    return RawCandles(raw.symbol, "forming", bucket[starts] * step, *np.array(rows).T.copy())


def walk(
    rows: int, seed: int, *, digits: int = 2, joined: bool = False, follow: bool = False
) -> RawCandles:
    """A geometric random walk that has been dressed up as candles."""
    g = np.random.default_rng(seed)
    close = 50_000 * np.exp(np.cumsum(g.normal(0, 1e-3, rows)))
    before = np.append(50_000.0, close[:-1])
    open_ = before if joined else before + g.integers(-1, 2, rows) * 0.01
    size = np.abs(close - open_)
    high = np.maximum(open_, close) + np.abs(g.normal(0, 20, rows))
    low = np.minimum(open_, close) - np.abs(g.normal(0, 20, rows))
    volume = g.lognormal(2, 0.4, rows) + (size if follow else 0)
    prices = [np.round(x, digits) for x in (open_, high, low, close)]
    times = START + MINUTE * np.arange(rows, dtype=np.int64)
    return RawCandles("BTCUSDT", "walk", times, *prices, np.round(volume, 5))


def test_good_candles_have_no_findings() -> None:
    series = SimulatedMarket(2).series("ETHUSDT", "15m", START, START + 3000 * 15 * MINUTE)
    assert judge_series(series) == []
    assert codes(raw_of(series), 15 * MINUTE) == set()


def test_duplicates_and_disorder_are_errors_at_their_rows() -> None:
    raw = good(100)
    rows = np.arange(100)
    found = judge(raw.take(np.insert(rows, 8, 7)), HOUR)
    assert [(f.code, f.rows.tolist()) for f in found] == [(Code.DUPLICATE, [8])]
    assert found[0].severity is Severity.ERROR
    assert found[0].first_ms == START + 7 * HOUR
    rows[[4, 5]] = 5, 4
    assert [(f.code, f.rows.tolist()) for f in judge(raw.take(rows), HOUR)] == [
        (Code.TIME_ORDER, [5])
    ]
    raw.open_time_ms[9] += 1
    assert [(f.code, f.rows.tolist()) for f in errors(judge(raw, HOUR))] == [
        (Code.TIME_ORDER, [9])
    ]


@pytest.mark.parametrize("column", COLUMNS)
def test_impossible_rows_are_an_error(column: str) -> None:
    raw = good(60)
    getattr(raw, column)[30] = np.nan
    assert codes(raw) == {"OHLC"}
    getattr(raw, column)[30] = -1.0
    assert codes(raw) == {"OHLC"}


def test_gaps_are_counted_and_do_not_block() -> None:
    raw = good(100).take(np.delete(np.arange(100), [20, 21, 50]))
    (found,) = judge(raw, HOUR)
    assert (found.code, found.count, found.severity) == (Code.GAP, 3, Severity.WARN)
    assert (found.first_ms, found.last_ms) == (START + 20 * HOUR, START + 50 * HOUR)


def test_flat_zero_volume_is_masked_from_training() -> None:
    raw = good(100)
    for name in ("open", "high", "low"):
        getattr(raw, name)[40:43] = raw.close[40:43]
    raw.volume[40:43] = 0.0
    (found,) = judge(raw, HOUR)
    assert found.code is Code.FLAT_ZERO_VOLUME
    mask = training_mask([found], 100)
    assert np.flatnonzero(~mask).tolist() == [40, 41, 42]


def test_a_last_row_is_unconfirmed_by_its_volume_or_by_the_clock() -> None:
    raw = good(200)
    raw.volume[-1] = 0.05 * np.median(raw.volume)
    (found,) = judge(raw, HOUR)
    assert (found.code, found.rows.tolist()) == (Code.UNCONFIRMED_LAST, [199])
    last = START + 199 * HOUR
    assert codes(good(200), now_ms=last + HOUR) == set()
    assert codes(good(200), now_ms=last + HOUR - 1) == {"UNCONFIRMED_LAST"}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_candles_stored_while_open_are_found(share: float, seed: int) -> None:
    minutes = good(40_000, "1m")
    assert "FORMING_PERSISTED" not in codes(forming(minutes, HOUR, 0.0, seed))
    assert "FORMING_PERSISTED" in codes(forming(minutes, HOUR, share, seed))


def test_without_volume_only_mostly_torn_candles_are_found() -> None:
    torn = forming(good(20_000, "1m"), HOUR, 1.0, 1)
    whole = forming(good(20_000, "1m"), HOUR, 0.0, 1)
    torn.volume[:] = np.nan
    whole.volume[:] = 0.0
    assert codes(torn) == {"FORMING_PERSISTED"}
    assert codes(whole) == set()


def traded(rows: int, seed: int, *, tick: float, price: float, volatility: float) -> RawCandles:
    """Candles of 60 trades each at the bid or the ask of a reverting market, one tick apart."""
    g = np.random.default_rng(seed)
    level = np.zeros(rows)
    for row in range(1, rows):
        level[row] = 0.97 * level[row - 1] + 0.2 * g.normal()
    steps = (
        np.repeat(np.exp(level), 60) * volatility / 60**0.5 * g.normal(size=60 * rows)
    ).tolist()
    middle, path = 0.0, []
    for step in steps:
        middle = 0.999 * middle + step
        path.append(middle)
    bid = np.floor(price * np.exp(path) / tick)
    trades = np.round((bid + (g.random(60 * rows) < 0.5)) * tick, 8).reshape(rows, 60)
    volume = np.round(1_000 * np.exp(0.8 * level + g.normal(0, 0.4, rows)), 1)
    prices = (trades[:, 0], trades.max(axis=1), trades.min(axis=1), trades[:, -1])
    return RawCandles("COINUSDT", "traded", START + HOUR * np.arange(rows), *prices, volume)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "market",
    [
        {"tick": 1e-4, "price": 1.0002, "volatility": 1e-4},
        {"tick": 1e-8, "price": 1e-6, "volatility": 8e-3},
        {"tick": 5e-4, "price": 0.2, "volatility": 5e-3},
        {"tick": 1e-2, "price": 3e4, "volatility": 8e-3},
    ],
    ids=["stablecoin", "coarse ticks", "ticks of a half", "fine ticks"],
)
def test_a_spread_of_coarse_ticks_is_no_tear(market: dict[str, float], seed: int) -> None:
    assert errors(judge(traded(3_000, seed, **market), HOUR)) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [{"digits": 12}, {"joined": True}, {}, {"follow": True}, {"follow": True, "joined": True}],
)
def test_invented_markets_are_not_this_market(seed: int, options: dict[str, bool]) -> None:
    found = errors(judge(walk(2000, seed, **options), MINUTE))
    assert [f.code for f in found] == [Code.NOT_THIS_MARKET]


def test_the_built_in_market_may_be_simulated_but_prices_of_another_may_not() -> None:
    raw = walk(2000, 1)
    assert codes(raw, MINUTE, origin=Origin.SIMULATED) == set()
    mine = SimulatedMarket(1).series("BTCUSDT", "1h", START, START + 300 * HOUR)
    assert codes(raw_of(mine), stored=mine) == set()
    dear = RawCandles(
        "BTCUSDT", "dear", mine.open_time_ms, *(getattr(mine, n) * 1.5 for n in COLUMNS)
    )
    (found,) = [f for f in judge(dear, HOUR, stored=mine) if f.severity is Severity.ERROR]
    assert "away from the stored series" in found.message
    later = SimulatedMarket(1).series("BTCUSDT", "1h", START + 900 * HOUR, START + 950 * HOUR)
    assert codes(raw_of(mine), stored=later) == set()


def test_few_rows_are_judged_only_by_what_few_rows_can_show() -> None:
    assert judge(walk(20, 1, joined=True), MINUTE) == []
    assert judge(good(0 + 1), HOUR) == []
    assert judge(good(1).take(slice(0, 0)), HOUR) == []


GOOD = ["spot/1h", "spot/1m", "usdm/1h", "usdm/mark-1h"]


@pytest.mark.data
@pytest.mark.parametrize("folder", GOOD)
def test_good_real_files_have_no_error(test_data: Path, folder: str) -> None:
    for path in sorted((test_data / folder).iterdir()):
        raw = read_candle_file(path)
        step = interval_ms(interval_of(raw) or "")
        assert errors(judge(raw, step)) == [], path.name
        for start in range(0, len(raw) - 700, max(700, len(raw) // 12)):
            part = raw.take(slice(start, start + 700))
            assert errors(judge(part, step)) == [], (path.name, start)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("REJECTED-synthetic-1m.parquet", Code.NOT_THIS_MARKET),
        ("perp-1h-partial-candles-persisted.parquet", Code.FORMING_PERSISTED),
        ("perp-15m-flat-zero-volume-20241028.parquet", Code.FLAT_ZERO_VOLUME),
        ("spot-1h-last-row-unclosed.parquet", Code.UNCONFIRMED_LAST),
    ],
)
def test_real_defects_are_found_under_any_name(test_data: Path, name: str, code: Code) -> None:
    raw = read_candle_file(test_data / "quirks" / name, "BTCUSDT")
    found = judge(raw, interval_ms(interval_of(raw) or ""))
    assert code in {f.code for f in found}
    assert {f.code for f in errors(found)} == ({code} if code in list(Code)[:5] else set())


HARD = {"a close off by 10%", "a close off by 30%", "a GARCH walk, volumes follow it"}
"""Defects that are not always found: docs/pipeline.md, "Defects planted"."""


@pytest.mark.data
def test_defects_planted_in_real_candles_are_found(test_data: Path) -> None:
    for name, (hit, of) in counts(test_data, every=10).items():
        assert of == 4, name
        assert hit >= (1 if name in HARD else of), name


@pytest.mark.data
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_real_minutes_stored_as_forming_quarters_are_found(test_data: Path, share: float) -> None:
    for path in sorted((test_data / "spot" / "1m").iterdir()):
        raw = read_candle_file(path)
        assert "FORMING_PERSISTED" in codes(forming(raw, 15 * MINUTE, share, 3), 15 * MINUTE)
