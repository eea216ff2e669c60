"""Funding rates: read from every kind of file, kept once, restated, refused when impossible."""

import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_runtime.candles.funding import (
    FundingRates,
    FundingStore,
    funding_from_zip,
    funding_of,
    read_funding_file,
    read_funding_folder,
)
from bot4_runtime.domain.errors import DataError

DAY = 86_400_000
START = 1_704_067_200_000  # 2024-01-01
HEADER = "calc_time,funding_interval_hours,last_funding_rate"


def rates(n: int = 6, symbol: str = "BTCUSDT") -> FundingRates:
    return funding_of(
        symbol, [START + k * DAY // 3 for k in range(n)], [1e-4 * k for k in range(n)]
    )


def zipped(text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("BTCUSDT-fundingRate-2024-01.csv", text)
    return buffer.getvalue()


def test_jitter_order_and_repeats_do_not_matter():
    made = funding_of(
        "BTCUSDT", [START + DAY + 7, START + 3, START + 12], [0.3e-3, 0.1e-3, 0.2e-3]
    )
    assert made.time_ms.tolist() == [START, START + DAY]
    assert made.rate.tolist() == [0.2e-3, 0.3e-3]
    assert len(funding_of("BTCUSDT", [], [])) == 0


def test_the_archives_zip_and_other_files_say_the_same(tmp_path: Path):
    lines = [f"{START + 5},8,0.0001", f"{START + DAY // 3},8,-0.0002"]
    made = funding_from_zip(zipped("\n".join([HEADER, *lines])), "BTCUSDT", "x.zip")
    assert made.rate.tolist() == [1e-4, -2e-4]
    frame = pl.DataFrame({"timestamp": made.time_ms, "funding_rate": made.rate})
    frame.with_columns(pl.col("timestamp").cast(pl.Datetime("ms", "UTC"))).write_parquet(
        tmp_path / "BTCUSDT.parquet"
    )
    frame.rename({"timestamp": "fundingTime", "funding_rate": "fundingRate"}).write_csv(
        tmp_path / "ETHUSDT.csv"
    )
    (tmp_path / "LTCUSDT-fundingRate-2024-01.zip").write_bytes(zipped("\n".join([HEADER, *lines])))
    found = read_funding_folder(tmp_path)
    assert sorted(found) == ["BTCUSDT", "ETHUSDT", "LTCUSDT"]
    for one in found.values():
        np.testing.assert_array_equal(one.time_ms, made.time_ms)
        np.testing.assert_array_equal(one.rate, made.rate)


def test_the_store_keeps_each_once_and_takes_restatements(tmp_path: Path):
    store = FundingStore(tmp_path)
    assert store.read("BTCUSDT") is None
    assert store.write(rates(4)) == (4, 0)
    assert store.write(rates(6)) == (2, 0)
    assert store.write(rates(6)) == (0, 0)
    changed = FundingRates("BTCUSDT", rates(6).time_ms, rates(6).rate + np.eye(6)[2] * 1e-3)
    assert store.write(changed) == (0, 1)
    held = store.read("BTCUSDT")
    assert held is not None
    np.testing.assert_array_equal(held.rate, changed.rate)
    assert (tmp_path / "usdm" / "BTCUSDT.parquet").is_file()


def test_the_impossible_is_refused_with_words(tmp_path: Path):
    for bad in (float("nan"), 1.0, float("inf")):
        with pytest.raises(DataError, match="funding rates of BTCUSDT are impossible"):
            funding_of("BTCUSDT", [START], [bad])
    with pytest.raises(DataError, match="not in order"):
        FundingRates("BTCUSDT", np.array([2, 1]) * DAY, np.zeros(2))
    with pytest.raises(DataError, match="differ in length"):
        FundingRates("BTCUSDT", np.array([DAY]), np.zeros(2))
    with pytest.raises(DataError, match=r"cannot read funding rates from x\.zip"):
        funding_from_zip(b"no zip", "BTCUSDT", "x.zip")
    with pytest.raises(DataError, match=r"holds no \.csv file"):
        buffer = io.BytesIO()
        zipfile.ZipFile(buffer, "w").close()
        funding_from_zip(buffer.getvalue(), "BTCUSDT", "x.zip")
    pl.DataFrame({"timestamp": [1], "close": [2.0]}).write_parquet(tmp_path / "BTCUSDT.parquet")
    with pytest.raises(DataError, match="holds no funding rates but columns timestamp close"):
        read_funding_file(tmp_path / "BTCUSDT.parquet")
    (tmp_path / "BTCUSDT.parquet").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot read funding rates"):
        read_funding_file(tmp_path / "BTCUSDT.parquet")
    with pytest.raises(DataError, match="no funding rates in"):
        read_funding_folder(tmp_path / "absent")
    (tmp_path / "usdm").mkdir()
    path = tmp_path / "usdm" / "BTCUSDT.parquet"
    path.write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot read stored funding"):
        FundingStore(tmp_path).read("BTCUSDT")
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(DataError, match="has columns"):
        FundingStore(tmp_path).read("BTCUSDT")
    pl.DataFrame({"timestamp": ["soon"], "funding_rate": [0.0]}).write_csv(
        tmp_path / "ADAUSDT.csv"
    )
    with pytest.raises(DataError, match=r"cannot read funding rates from ADAUSDT\.csv"):
        read_funding_file(tmp_path / "ADAUSDT.csv")


@pytest.mark.data
def test_real_funding_is_read_whole(test_data: Path):
    found = read_funding_folder(test_data / "usdm" / "funding")
    assert sorted(found) == ["ADAUSDT", "BTCUSDT", "ETHUSDT"]
    for one in found.values():
        assert len(one) > 5_000
        assert np.abs(one.rate).max() < 0.01
