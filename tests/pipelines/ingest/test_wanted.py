"""Symbols, intervals and years come from settings; a shorter interval is resampled."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_pipelines.ingest.simulated import simulated_series
from bot4_pipelines.ingest.source import SourceKind, choose_source, ingest
from bot4_pipelines.ingest.wanted import Wanted, wanted
from bot4_pipelines.records import Folders
from bot4_runtime.candles.resample import resample
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.errors import ConfigError, DataError

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01
NOW = START + 500 * HOUR


@pytest.fixture
def hours(tmp_path: Path) -> tuple[Path, CandleSeries]:
    folder = tmp_path / "hours"
    folder.mkdir()
    series = SimulatedMarket(5).series("SOLUSDT", "1h", START - 100 * HOUR, START + 300 * HOUR)
    columns = {name: getattr(series, name) for name in COLUMNS}
    pl.DataFrame({"timestamp": series.open_time_ms, **columns}).write_parquet(
        folder / "SOLUSDT.parquet"
    )
    return folder, series


def test_nothing_said_is_one_hour_four_years_ninety_seconds():
    assert wanted({}) == Wanted((), None, ("1h",), 4.0, 90.0)


def test_what_is_said_is_read():
    told = wanted(
        {
            "BOT4_SYMBOLS": "solusdt, XRPUSDT solusdt",
            "BOT4_INTERVAL": "4h",
            "BOT4_YEARS": "6.5",
            "BOT4_DOWNLOAD_SECONDS": "600",
        }
    )
    assert told == Wanted(("SOLUSDT", "XRPUSDT"), "4h", ("4h",), 6.5, 600.0)
    assert wanted({"BOT4_INTERVALS": "1h,1d,1h"}).intervals == ("1h", "1d")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("BOT4_SYMBOLS", "BTC-USDT", "is no symbol"),
        ("BOT4_INTERVAL", "7m", "is no interval"),
        ("BOT4_INTERVALS", "1h,1month", "is no interval"),
        ("BOT4_YEARS", "0", "above 0, at most 20"),
        ("BOT4_YEARS", "many", "above 0, at most 20"),
        ("BOT4_DOWNLOAD_SECONDS", "nan", "above 0"),
    ],
)
def test_an_impossible_wish_is_refused_by_its_name(name, value, says):
    with pytest.raises(ConfigError, match=f"{name}.*{says}"):
        wanted({name: value})


def test_the_source_follows_the_environment():
    source = choose_source(
        {
            "BOT4_CANDLES_SOURCE": "simulated",
            "BOT4_SYMBOLS": "SOLUSDT",
            "BOT4_INTERVAL": "2h",
            "BOT4_YEARS": "2",
        }
    )
    assert (source.symbols, source.interval, source.years) == (("SOLUSDT",), "2h", 2.0)
    assert choose_source({"BOT4_CANDLES_SOURCE": "simulated"}, symbols=["A"]).symbols == ("A",)


def test_a_folder_of_hours_serves_whoever_wants_four(tmp_path: Path, hours):
    folder, series = hours
    source = choose_source({"BOT4_CANDLES_DIR": str(folder), "BOT4_INTERVAL": "4h"})
    store = CandleStore(tmp_path / "store")
    report = ingest(source, store, now_ms=NOW)
    report.refuse_errors()
    assert report.notes == ("4h candles were made of 1h ones",)
    stored = store.read(report.series[0].id)
    assert stored.id.key == "real/spot/SOLUSDT/4h"
    np.testing.assert_array_equal(stored.close, resample(series, "4h").close)
    own = choose_source({"BOT4_CANDLES_DIR": str(folder)})
    assert ingest(own, store, now_ms=NOW).series[0].id.interval == "1h"
    minutes = choose_source({"BOT4_CANDLES_DIR": str(folder), "BOT4_INTERVAL": "5m"})
    with pytest.raises(DataError, match="5m candles cannot be made of 1h ones"):
        ingest(minutes, store, now_ms=NOW)


def test_years_of_three_day_bars_lose_no_bar_at_new_year(tmp_path: Path, hours):
    import dataclasses

    folder, series = hours
    env = {"BOT4_CANDLES_DIR": str(folder), "BOT4_INTERVAL": "3d"}
    source, store = choose_source(env), CandleStore(tmp_path / "store")
    for edge in ({"to_ms": START}, {"from_ms": START}):
        ingest(dataclasses.replace(source, **edge), store, now_ms=NOW)
    (held,) = store.list_series()
    whole = resample(series, "3d")
    assert store.read(held).open_time_ms.tolist() == whole.open_time_ms.tolist()


def test_the_store_serves_whoever_wants_longer_candles(tmp_path: Path, hours):
    folder, series = hours
    store = CandleStore(tmp_path / "store")
    env = {"BOT4_CANDLES_SOURCE": "stored", "BOT4_INTERVAL": "8h"}
    with pytest.raises(DataError, match="the store holds no candles"):
        ingest(choose_source(env), store, now_ms=NOW)
    ingest(choose_source({"BOT4_CANDLES_DIR": str(folder)}), store, now_ms=NOW)
    report = ingest(choose_source(env), store, now_ms=NOW)
    assert [one.id.key for one in report.series] == ["real/spot/SOLUSDT/8h"]
    assert store.read(report.series[0].id).close.tolist() == resample(series, "8h").close.tolist()
    with pytest.raises(DataError, match="no candles of BTCUSDT shorter than 8h are stored"):
        ingest(choose_source(env, symbols=["BTCUSDT"]), store, now_ms=NOW)


def test_a_shorter_simulated_history_is_the_end_of_the_long_one(tmp_path: Path):
    env = {"BOT4_CANDLES_SOURCE": "simulated", "BOT4_SYMBOLS": "SOLUSDT", "BOT4_INTERVAL": "1d"}
    lasts = []
    for years in ("1", "4"):
        report = ingest(choose_source(env | {"BOT4_YEARS": years}), CandleStore(tmp_path / years))
        assert report.source.kind is SourceKind.SIMULATED
        lasts.append((report.series[0].rows, report.series[0].last_ms))
    assert [rows for rows, _ in lasts] == [365, 1461]
    assert lasts[0][1] == lasts[1][1]


@pytest.mark.parametrize("interval", ["6h", "3d", "1w"])
def test_parts_of_the_simulated_history_are_slices_of_the_whole(interval: str):
    whole = simulated_series("SOLUSDT", interval)
    assert whole is not None
    edges = [None, *range(1_577_836_800_000, 1_767_225_600_000, 11_111_111_111), None]
    parts = [
        part
        for first, stop in pairwise(edges)
        if (part := simulated_series("SOLUSDT", interval, from_ms=first, to_ms=stop))
    ]
    times = np.concatenate([part.open_time_ms for part in parts])
    np.testing.assert_array_equal(times, whole.open_time_ms)
    np.testing.assert_array_equal(np.concatenate([part.close for part in parts]), whole.close)
    assert simulated_series("SOLUSDT", interval, from_ms=whole.open_time_ms[-1] + 1) is None


def test_work_of_other_intervals_lies_beside_that_of_1h():
    base = {"BOT4_HOME": "/h", "BOT4_MODELS": "/m"}
    plain = Folders.from_environment(base)
    assert plain.work == Path("/h/pipelines")
    assert Folders.from_environment(base | {"BOT4_INTERVAL": "1h"}) == plain
    four = Folders.from_environment(base | {"BOT4_INTERVAL": "4h"})
    assert four.work == Path("/h/pipelines/4h")
    assert (four.candles, four.models, four.dagster) == (
        plain.candles,
        plain.models,
        plain.dagster,
    )
    assert plain.scoped("fleet/4h").work == Path("/h/pipelines/fleet/4h")
    assert plain.of_interval("4h") == plain
    with pytest.raises(ConfigError, match="BOT4_INTERVAL"):
        Folders.from_environment(base | {"BOT4_INTERVAL": "soon"})


def test_an_interval_with_work_of_its_own_is_found(tmp_path: Path):
    plain = Folders(home=tmp_path, models=tmp_path)
    plain.scoped("4h").work.mkdir(parents=True)
    assert plain.of_interval("4h").scope == "4h"
    assert plain.of_interval("2h") == plain
    # Whatever BOT4_INTERVAL says: 4h is not where work of 1h or 2h is looked for.
    four = Folders.from_environment({"BOT4_HOME": str(tmp_path), "BOT4_INTERVAL": "4h"})
    assert four.scope == four.of_interval("4h").scope == "4h"
    assert four.of_interval("1h").scope == four.of_interval("2h").scope == ""
