"""Candle files of every layout give the same series; anything else is named."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_runtime.candles.files import (
    concatenate,
    merge,
    read_candle_file,
    read_candle_folder,
    symbol_of,
)
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError

HOUR = 3_600_000
START = 1_704_067_200_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)


@pytest.fixture(scope="module")
def series() -> CandleSeries:
    return SimulatedMarket(1).series("BTCUSDT", "1h", START, START + 48 * HOUR)


def klines(series: CandleSeries, *, header: bool = False, scale: int = 1) -> str:
    lines = [HEADER] if header else []
    for c in series:
        lines.append(
            f"{c.open_time_ms * scale},{c.open},{c.high},{c.low},{c.close},{c.volume},"
            f"{(c.open_time_ms + HOUR) * scale - 1},1.0,5,0.5,0.5,0"
        )
    return "\n".join(lines) + "\n"


def zipped(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return buffer.getvalue()


def frame(series: CandleSeries) -> pl.DataFrame:
    return pl.DataFrame(
        {"timestamp": series.open_time_ms} | {n: getattr(series, n) for n in COLUMNS}
    )


def columns_of(series: CandleSeries) -> list[list[float]]:
    return [series.open_time_ms.tolist(), *(getattr(series, n).tolist() for n in COLUMNS)]


def test_every_layout_reads_the_same(tmp_path: Path, series: CandleSeries) -> None:
    f = frame(series)
    aware = f.with_columns(pl.from_epoch("timestamp", "ms").dt.replace_time_zone("UTC"))
    layouts = {
        "parquet": ("BTCUSDT.parquet", aware.write_parquet),
        "naive": (
            "BTCUSDT.parquet",
            lambda p: f.with_columns(pl.from_epoch("timestamp", "ms")).write_parquet(p),
        ),
        "csv": ("BTC_USDT-1h.csv", lambda p: f.rename({"timestamp": "Open_Time"}).write_csv(p)),
        "seconds": (
            "BTCUSDT.csv",
            lambda p: f.with_columns(pl.col("timestamp") // 1000).write_csv(p),
        ),
        "iso": (
            "BTCUSDT.csv",
            lambda p: aware.with_columns(pl.col("timestamp").dt.to_string("iso")).write_csv(p),
        ),
        "nanoseconds": (
            "BTCUSDT.csv",
            lambda p: f.with_columns(pl.col("timestamp") * 10**6).write_csv(p),
        ),
        "gz": (
            "BTCUSDT.csv.gz",
            lambda p: p.write_bytes(gzip.compress(klines(series, header=True).encode())),
        ),
        "zip": (
            "BTCUSDT-1h-2024-01.zip",
            lambda p: p.write_bytes(zipped("a.csv", klines(series))),
        ),
        "zip µs": (
            "spot-klines-BTCUSDT-1h-2024-01-01.zip",
            lambda p: p.write_bytes(zipped("a.csv", klines(series, header=True, scale=1000))),
        ),
    }
    for layout, (name, write) in layouts.items():
        folder = tmp_path / layout
        folder.mkdir()
        write(folder / name)
        (folder / "README.md").write_text("not a candle")
        (got,) = read_candle_folder(folder, Market.SPOT)
        assert columns_of(got) == columns_of(series), layout
        assert (got.id.symbol, got.id.interval) == ("BTCUSDT", "1h"), layout


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT.parquet", "BTCUSDT"),
        ("BTCUSDT-1h-2024-10.zip", "BTCUSDT"),
        ("spot-klines-BTCUSDT-1h-2024-10-28.zip", "BTCUSDT"),
        ("BTCUSDT-20210420-20210520.parquet", "BTCUSDT"),
        ("BTC_USDT-1h.csv", "BTCUSDT"),
        ("binance_1000PEPEUSDT_1h.csv.gz", "1000PEPEUSDT"),
        ("ethbtc.csv", "ETHBTC"),
        ("BTCPLN.csv", "BTCPLN"),
    ],
)
def test_the_symbol_comes_from_the_name(name: str, symbol: str) -> None:
    assert symbol_of(Path(name)) == symbol


def test_a_name_without_a_symbol_is_refused() -> None:
    with pytest.raises(DataError, match=r"cannot tell the symbol of prices-1h\.csv"):
        symbol_of(Path("prices-1h.csv"))


def test_files_of_a_symbol_are_merged_and_the_later_wins(
    tmp_path: Path, series: CandleSeries
) -> None:
    frame(series.rows(slice(0, 30))).write_csv(tmp_path / "BTCUSDT-a.csv")
    late = frame(series.rows(slice(20, 48)))
    late = late.with_columns(
        volume=pl.when(pl.int_range(pl.len()) == 3).then(9.0).otherwise("volume")
    )
    late.write_csv(tmp_path / "BTCUSDT-b.csv")
    (got,) = read_candle_folder(tmp_path, Market.USDM)
    assert len(got) == 48
    assert got.volume[23] == 9.0
    both = merge([read_candle_file(p) for p in sorted(tmp_path.iterdir())])
    assert both.repeated == 9
    assert both.conflicts == (START + 23 * HOUR,)


def test_a_folder_of_two_intervals_lists_them(tmp_path: Path, series: CandleSeries) -> None:
    frame(series).write_csv(tmp_path / "BTCUSDT.csv")
    daily = SimulatedMarket(1).series("ETHUSDT", "1d", START, START + 20 * 24 * HOUR)
    frame(daily).write_csv(tmp_path / "ETHUSDT.csv")
    with pytest.raises(DataError, match=r"1h: BTCUSDT\.csv; 1d: ETHUSDT\.csv"):
        read_candle_folder(tmp_path, Market.SPOT)
    assert len(read_candle_folder(tmp_path, Market.SPOT, ["ETHUSDT"])) == 1
    with pytest.raises(DataError, match="no file of XRPUSDT"):
        read_candle_folder(tmp_path, Market.SPOT, ["XRPUSDT"])


def test_a_single_candle_needs_its_interval_in_the_name(
    tmp_path: Path, series: CandleSeries
) -> None:
    one = frame(series.rows(slice(0, 1)))
    one.write_csv(tmp_path / "BTCUSDT.csv")
    with pytest.raises(DataError, match="cannot tell the interval"):
        read_candle_folder(tmp_path, Market.SPOT)
    (tmp_path / "BTCUSDT.csv").unlink()
    one.write_csv(tmp_path / "BTCUSDT-1h.csv")
    assert read_candle_folder(tmp_path, Market.SPOT)[0].id.interval == "1h"


def test_a_step_that_is_no_interval_is_refused(tmp_path: Path, series: CandleSeries) -> None:
    frame(series).with_columns(pl.col("timestamp") * 7 // 6).write_csv(tmp_path / "BTCUSDT.csv")
    with pytest.raises(DataError, match=r"BTCUSDT\.csv: candles are"):
        read_candle_folder(tmp_path, Market.SPOT)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("BTCUSDT.parquet", b"nothing", "cannot read candles from .*BTCUSDT.parquet"),
        ("BTCUSDT.zip", b"nothing", "cannot read candles from BTCUSDT.zip"),
        ("BTCUSDT.zip", zipped("a.txt", "x"), "holds no .csv"),
        ("BTCUSDT.csv.gz", b"nothing", "cannot read candles from .*BTCUSDT.csv.gz"),
        ("BTCUSDT.csv", b"", "cannot read candles from BTCUSDT.csv"),
        ("BTCUSDT.csv", b"timestamp,funding_rate\n1,2\n", "holds no candles but columns"),
        ("BTCUSDT.csv", b"1,2,3\n", "holds no candles but columns"),
        ("BTCUSDT.csv", b"open_time,open,high,low,close\n", "holds no rows"),
        ("BTCUSDT.csv", b"open_time,open,high,low,close\nx,1,1,1,1\n", "cannot read candles"),
        (
            "BTCUSDT.csv",
            b"open_time,open,high,low,close\n3600000,1,1,x,1\n",
            "cannot read candles",
        ),
        ("BTCUSDT.csv", b"7,0.1,5,1,1,1704067200000,True,True\n", "aggregated trades"),
        ("BTCUSDT.csv", b"agg_trade_id,price,open\n7,0.1,5\n", "aggregated trades"),
    ],
)
def test_what_is_no_candle_file_is_named(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_candle_folder(tmp_path, Market.SPOT)


def test_no_open_time_is_refused(tmp_path: Path, series: CandleSeries) -> None:
    frame(series).with_columns(timestamp=pl.lit(None, pl.Int64)).write_parquet(
        tmp_path / "BTCUSDT.parquet"
    )
    with pytest.raises(DataError, match="no open time"):
        read_candle_folder(tmp_path, Market.SPOT)


def test_dates_without_hours_are_days(tmp_path: Path) -> None:
    days = SimulatedMarket(1).series("BTCUSDT", "1d", START, START + 9 * 24 * HOUR)
    dated = frame(days).with_columns(pl.from_epoch("timestamp", "ms").dt.date())
    dated.write_parquet(tmp_path / "BTCUSDT.parquet")
    assert read_candle_folder(tmp_path, Market.SPOT)[0].id.interval == "1d"


def test_no_folder_or_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no candle files"):
        read_candle_folder(tmp_path, Market.SPOT)
    with pytest.raises(DataError, match="is no folder"):
        read_candle_folder(tmp_path / "absent", Market.SPOT)


def test_repeated_or_torn_rows_in_a_file_are_refused(tmp_path: Path, series: CandleSeries) -> None:
    f = frame(series)
    pl.concat([f, f.head(1)]).write_csv(tmp_path / "BTCUSDT.csv")
    with pytest.raises(DataError, match=r"BTCUSDT\.csv: rows are not in order"):
        read_candle_folder(tmp_path, Market.SPOT)
    f.with_columns(low=pl.col("high") + 1).write_csv(tmp_path / "BTCUSDT.csv")
    with pytest.raises(DataError, match=r"BTCUSDT\.csv: 48 of 48 candles"):
        read_candle_folder(tmp_path, Market.SPOT)


def test_a_zip_of_two_files_is_laid_end_to_end(tmp_path: Path, series: CandleSeries) -> None:
    path = tmp_path / "BTCUSDT.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", klines(series.rows(slice(0, 20))))
        archive.writestr("2.csv", klines(series.rows(slice(20, 48))))
    raw = read_candle_file(path)
    assert len(raw) == 48
    assert len(concatenate([raw, raw])) == 96


@pytest.mark.data
def test_real_folders_are_read_whole(test_data: Path) -> None:
    spot = read_candle_folder(test_data / "spot" / "1h", Market.SPOT)
    assert [s.id.symbol for s in spot] == sorted(s.id.symbol for s in spot)
    assert min(len(s) for s in spot) > 20_000
    one_minute = read_candle_folder(test_data / "spot" / "1m", Market.SPOT, ["BTCUSDT"])
    assert one_minute[0].id.interval == "1m"
    for mark in read_candle_folder(test_data / "usdm" / "mark-1h", Market.USDM):
        assert not np.any(mark.volume)
    with pytest.raises(DataError, match="aggregated trades"):
        read_candle_folder(test_data / "archive", Market.SPOT, ["PEPEUSDT"])
