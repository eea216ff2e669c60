"""Each quality rule finds its defect, planted in good candles, where it was planted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bot4_pipelines.ingest.quality import (
    Code,
    Finding,
    Severity,
    errors,
    judge,
    same_series,
    training_mask,
)
from bot4_pipelines.ingest.quality.measures import decimals, largest_before, long_runs
from bot4_pipelines.ingest.quality.outages import SPOT_OUTAGES, is_known
from bot4_runtime.candles.files import RawCandles, read_candle_file, to_series
from bot4_runtime.candles.gaps import Gap
from bot4_runtime.candles.series import COLUMNS, PRICE_COLUMNS
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Market, Origin, interval_ms

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_704_067_200_000
AT = 700


def made(symbol: str = "BTCUSDT", interval: str = "1h", rows: int = 1_500) -> RawCandles:
    step = interval_ms(interval)
    series = SimulatedMarket(11).series(symbol, interval, START, START + rows * step)
    columns = [getattr(series, name).copy() for name in COLUMNS]
    return RawCandles(symbol, "made", series.open_time_ms.copy(), *columns)


def found(raw: RawCandles, code: Code, step: int = HOUR, **options: object) -> Finding:
    (one,) = [finding for finding in judge(raw, step, **options) if finding.code is code]
    return one


def scaled(raw: RawCandles, rows: slice, factor: float) -> RawCandles:
    for name in PRICE_COLUMNS:
        getattr(raw, name)[rows] *= factor
    return raw


def stored(raw: RawCandles, interval: str = "1h"):
    return to_series(
        RawCandles(
            raw.symbol,
            raw.source,
            raw.open_time_ms.copy(),
            *(getattr(raw, n).copy() for n in COLUMNS),
        ),
        Market.SPOT,
        interval,
        Origin.REAL,
    )


@pytest.mark.parametrize("factor", [10.0, 0.1, 1.5])
def test_one_row_on_another_scale_is_a_spike(factor: float) -> None:
    spike = found(scaled(made(), slice(AT, AT + 1), factor), Code.SPIKE)
    assert spike.severity is Severity.ERROR
    assert spike.rows.tolist() == [AT]


@pytest.mark.parametrize("column", ["open", "close"])
def test_a_single_price_far_off_is_a_spike_at_its_row(column: str) -> None:
    raw = made()
    getattr(raw, column)[AT] *= 1.5
    raw.high[AT] = max(raw.high[AT], getattr(raw, column)[AT])
    spike = next(f for f in judge(raw, HOUR) if f.code is Code.SPIKE)
    assert (spike.severity, spike.rows.tolist()) == (Severity.ERROR, [AT])


def test_a_long_wick_is_masked_and_does_not_block() -> None:
    for column, factor in (("high", 10.0), ("low", 0.1)):
        raw = made()
        getattr(raw, column)[AT] *= factor
        spike = found(raw, Code.SPIKE)
        assert (spike.severity, spike.rows.tolist()) == (Severity.WARN, [AT])


@pytest.mark.parametrize("factor", [1_000.0, 0.01, 2.0])
def test_prices_that_stay_on_another_scale_are_a_change_of_unit(factor: float) -> None:
    change = found(scaled(made(), slice(AT, None), factor), Code.UNIT_CHANGE)
    assert (change.severity, change.rows.tolist()) == (Severity.ERROR, [AT])


def test_a_redenomination_after_a_halt_is_a_warning() -> None:
    raw = scaled(made(), slice(AT, None), 1_000.0)
    halted = raw.take(np.delete(np.arange(len(raw)), np.arange(AT - 20, AT)))
    change = found(halted, Code.UNIT_CHANGE)
    assert (change.severity, change.rows.tolist()) == (Severity.WARN, [AT - 20])
    raw.volume[AT - 3 : AT] = 0.0
    assert found(raw, Code.UNIT_CHANGE).severity is Severity.WARN


def test_a_crash_is_neither_spike_nor_change_of_unit() -> None:
    raw = made()
    path = np.exp(np.linspace(0.0, np.log(0.4), 6))
    for step, factor in enumerate(path):
        scaled(raw, slice(AT + step, AT + step + 1), factor)
        raw.open[AT + step] = raw.close[AT + step - 1]
        raw.high[AT + step] = max(raw.high[AT + step], raw.open[AT + step])
        raw.low[AT + step] = min(raw.low[AT + step], raw.close[AT + step])
    scaled(raw, slice(AT + 6, None), 0.4)
    assert not {f.code for f in judge(raw, HOUR)} & {Code.SPIKE, Code.UNIT_CHANGE}


@pytest.mark.parametrize("lag", [1, 24])
def test_copied_rows_are_stale(lag: int) -> None:
    raw = made()
    for name in COLUMNS:
        for row in range(AT, AT + 48):
            getattr(raw, name)[row] = getattr(raw, name)[row - lag]
    stale = next(f for f in judge(raw, HOUR) if f.code is Code.STALE)
    assert stale.severity is Severity.ERROR
    assert set(stale.rows.tolist()) >= set(range(AT + 1, AT + 48))
    assert set(stale.rows.tolist()) <= set(range(AT, AT + 48))


def test_prices_filled_forward_are_stale_though_volume_went_on() -> None:
    raw = made()
    for name in PRICE_COLUMNS:
        getattr(raw, name)[AT : AT + 48] = raw.close[AT - 1]
    stale = found(raw, Code.STALE)
    assert stale.severity is Severity.ERROR
    assert stale.first_ms >= START + AT * HOUR


@pytest.mark.parametrize("rows", [slice(None), slice(AT, AT + 30)])
def test_a_volume_that_repeats_is_stale(rows: slice) -> None:
    raw = made()
    raw.volume[rows] = 1_234.5
    stale = found(raw, Code.STALE)
    assert stale.severity is Severity.ERROR
    assert set(np.arange(len(raw))[rows].tolist()) - set(stale.rows.tolist()) <= {AT, AT + 1}


def test_interpolated_rows_are_found() -> None:
    raw = made()
    line = np.linspace(raw.close[AT - 1], raw.open[AT + 100] * 1.02, 101)
    raw.open[AT : AT + 100], raw.close[AT : AT + 100] = line[:-1], line[1:]
    raw.high[AT : AT + 100] = np.maximum(line[:-1], line[1:])
    raw.low[AT : AT + 100] = np.minimum(line[:-1], line[1:])
    line_found = found(raw, Code.INTERPOLATED)
    assert line_found.severity is Severity.ERROR
    assert set(line_found.rows.tolist()) == set(range(AT, AT + 100))


def test_filled_rows_of_a_market_with_coarse_ticks_are_no_error() -> None:
    raw = made()
    for name in PRICE_COLUMNS:
        getattr(raw, name)[:] = np.round(getattr(raw, name) / raw.close[0], 2)
    raw.high[:] = np.maximum(raw.high, np.maximum(raw.open, raw.close))
    raw.low[:] = np.minimum(raw.low, np.minimum(raw.open, raw.close))
    assert {f.code for f in errors(judge(raw, HOUR))} <= {Code.NOT_THIS_MARKET}


def test_volume_in_quote_from_some_row_on_is_found() -> None:
    raw = made()
    raw.volume[AT:] *= raw.close[AT:]
    unit = found(raw, Code.VOLUME_UNIT)
    assert unit.severity is Severity.ERROR
    assert unit.rows[0] == pytest.approx(AT, abs=12)
    assert "counted in quote" in unit.message


def test_volume_of_another_level_is_a_warning() -> None:
    raw = made()
    raw.volume[AT:] *= 900.0
    assert found(raw, Code.VOLUME_UNIT).severity is Severity.WARN


def test_volume_in_quote_throughout_is_known_by_its_decimals() -> None:
    raw = made()
    raw.volume[:] = np.round(raw.volume, 4)
    assert judge(raw, HOUR) == []
    raw.volume[:] *= raw.close
    unit = found(raw, Code.VOLUME_UNIT)
    assert unit.severity is Severity.ERROR
    assert "amounts times prices" in unit.message


def test_candles_stored_before_agree_or_are_another_market() -> None:
    raw = made()
    before = stored(raw)
    assert judge(made(), HOUR, stored=before) == []
    off = scaled(made(), slice(None), 1.01)
    message = found(off, Code.NOT_THIS_MARKET, stored=before).message
    assert "by a factor of 1.01" in message
    few = scaled(made(), slice(None), 1.01).take(slice(0, 20))
    assert errors(judge(few, HOUR, stored=before)) == []


def test_candles_at_other_times_are_shifted() -> None:
    before = stored(made())
    for by in (3 * HOUR, -8 * HOUR):
        raw = made()
        raw.open_time_ms[:] += by
        shifted = found(raw, Code.SHIFTED, stored=before)
        assert shifted.severity is Severity.ERROR
        assert f"{by / HOUR:+g} h" in shifted.message


def test_volumes_unlike_the_stored_ones_are_found() -> None:
    before = stored(made())
    raw = made()
    raw.volume[:] = np.round(raw.volume * raw.close, 2)
    assert "counted in quote" in found(raw, Code.VOLUME_UNIT, stored=before).message
    raw = made()
    raw.volume[:] *= 2.0
    assert "a factor of 2" in found(raw, Code.VOLUME_UNIT, stored=before).message


def test_restated_candles_are_told_and_not_masked() -> None:
    before = stored(made())
    raw = made()
    raw.volume[AT] *= 1.001
    raw.close[AT + 1] = 0.5 * (raw.high[AT + 1] + raw.low[AT + 1])
    restated = found(raw, Code.RESTATED, stored=before)
    assert (restated.severity, restated.rows.tolist()) == (Severity.INFO, [AT, AT + 1])
    assert training_mask([restated], len(raw)).all()


def test_a_single_candle_stored_while_open_is_found_by_its_minutes() -> None:
    minutes = made(interval="1m", rows=60 * 40)
    hours = made_of(minutes, HOUR)
    assert judge(hours, HOUR, finer=stored(minutes, "1m")) == []
    part = minutes.take(slice(60 * 20, 60 * 20 + 25))
    hours.close[20], hours.volume[20] = part.close[-1], part.volume.sum()
    hours.high[20], hours.low[20] = part.high.max(), part.low.min()
    forming = found(hours, Code.FORMING_PERSISTED, finer=stored(minutes, "1m"))
    assert (forming.severity, forming.rows.tolist()) == (Severity.ERROR, [20])


def test_candles_unlike_their_minutes_are_found() -> None:
    minutes = made(interval="1m", rows=60 * 40)
    hours = made_of(minutes, HOUR)
    hours.high[7] *= 1.001
    cross = found(hours, Code.CROSS_INTERVAL, finer=stored(minutes, "1m"))
    assert (cross.severity, cross.rows.tolist()) == (Severity.WARN, [7])
    hours.high[:] *= 1.001
    assert (
        found(hours, Code.CROSS_INTERVAL, finer=stored(minutes, "1m")).severity is Severity.ERROR
    )
    hours.volume[:] = np.nan
    assert Code.CROSS_INTERVAL in {f.code for f in judge(hours, HOUR, finer=stored(minutes, "1m"))}
    assert Code.CROSS_INTERVAL not in {
        f.code for f in judge(minutes, 60_000, finer=stored(minutes, "1m"))
    }


def made_of(raw: RawCandles, step: int) -> RawCandles:
    bucket = raw.open_time_ms // step
    starts = np.flatnonzero(np.append(True, np.diff(bucket) > 0))
    stops = np.append(starts[1:], len(raw))
    return RawCandles(
        raw.symbol,
        "made of shorter ones",
        bucket[starts] * step,
        raw.open[starts].copy(),
        np.maximum.reduceat(raw.high, starts),
        np.minimum.reduceat(raw.low, starts),
        raw.close[stops - 1].copy(),
        np.add.reduceat(raw.volume, starts),
    )


def test_one_market_under_two_names_blocks_both() -> None:
    bitcoin, ether = made(), made("ETHUSDT")
    assert same_series({"BTCUSDT": bitcoin, "ETHUSDT": ether}, HOUR) == {}
    twins = same_series({"BTCUSDT": bitcoin, "ETHUSDT": ether, "LTCUSDT": made()}, HOUR)
    assert set(twins) == {"BTCUSDT", "LTCUSDT"}
    assert "those of LTCUSDT" in twins["BTCUSDT"][0].message
    assert twins["LTCUSDT"][0].severity is Severity.ERROR


def test_a_scaled_copy_without_its_volume_is_a_twin_too() -> None:
    copy = scaled(made(), slice(None), 0.0137)
    copy.volume[:] = np.nan
    assert set(same_series({"BTCUSDT": made(), "XYZUSDT": copy}, HOUR)) == {"BTCUSDT", "XYZUSDT"}
    later = scaled(made(), slice(None), 0.0137)
    later.open_time_ms[:] += 9_000 * HOUR
    assert same_series({"BTCUSDT": made(), "XYZUSDT": later}, HOUR) == {}


def test_a_series_that_ends_long_before_now_is_outdated() -> None:
    raw = made()
    end = int(raw.open_time_ms[-1]) + HOUR
    assert judge(raw, HOUR, now_ms=end + 48 * HOUR) == []
    outdated = found(raw, Code.OUTDATED, now_ms=end + 400 * DAY)
    assert outdated.severity is Severity.WARN
    assert "400.0 days" in outdated.message
    assert training_mask([outdated], len(raw)).all()
    assert judge(raw, HOUR, origin=Origin.SIMULATED, now_ms=end + 400 * DAY) == []


def test_outages_of_the_venue_are_told_apart_from_other_gaps() -> None:
    outage = 1_619_323_260_000  # 2021-04-25 04:01
    start = outage - outage % HOUR - 100 * HOUR
    raw = made(rows=400)
    raw.open_time_ms[:] = start + HOUR * np.arange(400)
    keep = np.delete(np.arange(400), [101, 102, 103, 300])
    by_severity = {
        f.severity: f
        for f in judge(raw.take(keep), HOUR, market=Market.SPOT)
        if f.code is Code.GAP
    }
    assert by_severity[Severity.INFO].count == 3
    assert by_severity[Severity.WARN].count == 1
    assert [f.count for f in judge(raw.take(keep), HOUR, market=Market.USDM)] == [4]


def test_the_table_of_outages_is_in_order_and_disjoint() -> None:
    edges = [edge for outage in SPOT_OUTAGES for edge in outage]
    assert edges == sorted(edges)
    assert len(set(edges)) == len(edges)
    assert not is_known(Gap(START, START + HOUR, 1), None)


def test_masks_reach_as_far_as_what_is_computed_from_doubtful_prices() -> None:
    raw = made()
    raw.high[AT] *= 10.0
    (spike,) = judge(raw, HOUR)
    assert np.flatnonzero(~training_mask([spike], len(raw))).tolist() == [AT]
    masked = ~training_mask([spike], len(raw), memory=72)
    assert np.flatnonzero(masked).tolist() == list(range(AT, AT + 73))
    raw = made()
    raw.volume[AT] = 0.0
    empty = found(raw, Code.FLAT_ZERO_VOLUME)
    masked = ~training_mask([empty], len(raw), memory=72)
    assert np.flatnonzero(masked).tolist() == [AT]


def test_a_finding_shows_the_rows_around_its_worst() -> None:
    spike = found(scaled(made(), slice(AT, AT + 1), 10.0), Code.SPIKE)
    assert spike.shown is not None
    assert len(spike.shown) == 61
    assert spike.shown.open_time_ms[30] == START + AT * HOUR
    early = found(scaled(made(), slice(9, 10), 10.0), Code.SPIKE)
    assert early.shown is not None
    assert early.shown.open_time_ms[early.worst] == START + 9 * HOUR


def test_decimals_are_those_that_nearly_all_values_need() -> None:
    generator = np.random.default_rng(1)
    for places in (0, 2, 5, 8):
        values = np.round(generator.uniform(1, 9_000, 300), places)
        assert decimals(values) == places
    assert decimals(np.sqrt(np.arange(2.0, 400.0))) == 11


def test_long_runs_are_told_from_frequent_ones() -> None:
    flags = np.zeros(1_000, dtype=bool)
    flags[100:110] = True
    assert long_runs(flags, 8, 0.05).tolist() == list(range(100, 110))
    assert long_runs(flags, 11, 0.05).size == 0
    flags[::3] = True
    assert long_runs(flags, 8, 0.05).size == 0


def test_the_largest_of_the_values_before_is_found() -> None:
    values = np.array([1.0, 5.0, 2.0, 3.0])
    assert largest_before(values, 2).tolist() == [0.0, 1.0, 5.0, 5.0, 3.0]


# ------------------------------------------------------------------ real candles
TWO_YEARS = 17_520


def real(folder: Path, symbol: str = "ETHUSDT", rows: int = TWO_YEARS) -> RawCandles:
    raw = read_candle_file(folder / "spot/1h" / f"{symbol}.parquet")
    return raw.take(slice(len(raw) - rows, len(raw)))


def reversed_in_time(raw: RawCandles) -> RawCandles:
    columns = [getattr(raw, n)[::-1].copy() for n in ("close", "high", "low", "open", "volume")]
    return RawCandles(raw.symbol, "reversed", raw.open_time_ms, *columns)


def clustered(raw: RawCandles) -> RawCandles:
    """A GARCH walk with fat tails, dressed up with ticks and volumes that follow it."""
    g, n = np.random.default_rng(4), len(raw)
    shocks, spread, moves = g.standard_t(4, n) / 2**0.5, 0.006, np.empty(n)
    spreads = np.empty(n)
    for row in range(n):
        spreads[row] = spread
        moves[row] = spread * shocks[row]
        spread = (1e-6 + 0.1 * moves[row] ** 2 + 0.88 * spread**2) ** 0.5
    close = 3_000.0 * np.exp(np.cumsum(moves - moves.mean()))
    open_ = np.append(3_000.0, close[:-1]) + g.choice([-0.01, 0.0, 0.01], n)
    high = np.maximum(open_, close) * (1.0 + np.abs(g.normal(0, 0.3, n)) * spreads)
    low = np.minimum(open_, close) * (1.0 - np.abs(g.normal(0, 0.3, n)) * spreads)
    volume = np.exp(8.0 + 80.0 * spreads + 0.4 * g.normal(size=n) + 20.0 * np.abs(moves))
    columns = [np.round(column, 2) for column in (open_, high, low, close)]
    return RawCandles("ETHUSDT", "garch", raw.open_time_ms, *columns, np.round(volume, 4))


@pytest.mark.data
@pytest.mark.parametrize("invent", [reversed_in_time, clustered])
def test_invented_and_reversed_years_are_not_this_market(
    test_data: Path, invent: Callable[[RawCandles], RawCandles]
) -> None:
    raw = real(test_data)
    assert judge(raw, HOUR) == []
    assert [f.code for f in errors(judge(invent(raw), HOUR))] == [Code.NOT_THIS_MARKET]


@pytest.mark.data
def test_another_market_of_the_same_symbol_is_told_by_the_stored_one(test_data: Path) -> None:
    spot = real(test_data)
    futures = read_candle_file(test_data / "usdm/1h/ETHUSDT.parquet")
    assert Code.NOT_THIS_MARKET in {f.code for f in judge(futures, HOUR, stored=stored(spot))}
    assert errors(judge(futures, HOUR)) == []


@pytest.mark.data
def test_real_symbols_have_no_twins(test_data: Path) -> None:
    files = {p.stem: read_candle_file(p) for p in sorted((test_data / "spot/1h").iterdir())}
    assert same_series(files, HOUR) == {}


@pytest.mark.data
def test_real_hours_equal_their_minutes(test_data: Path) -> None:
    minutes = read_candle_file(test_data / "spot/1m/BTCUSDT-20250520-20250630.parquet")
    hours = real(test_data, "BTCUSDT")
    assert judge(hours, HOUR, finer=stored(minutes, "1m")) == []
    row = int(np.searchsorted(hours.open_time_ms, minutes.open_time_ms[0])) + 500
    hours.volume[row] *= 0.8
    forming = found(hours, Code.FORMING_PERSISTED, finer=stored(minutes, "1m"))
    assert forming.rows.tolist() == [row]
