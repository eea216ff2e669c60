"""Mark prices and funding rates: archive, REST, folders, and what is refused."""

import dataclasses
from pathlib import Path

import polars as pl
import pytest

from bot4_pipelines.ingest.perpetual import ingest_funding, mark_source
from bot4_pipelines.ingest.reach import Reach
from bot4_pipelines.ingest.source import SourceKind, ingest
from bot4_runtime.candles.funding import FundingStore
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.domain.errors import DataError, VenueUnreachable

HOUR = 3_600_000
START = 1_704_067_200_000
NOW = START + 75 * 24 * HOUR + HOUR // 2
CLOSED = 75 * 24
YEARS = 75 / 365.25


def urls(url: str) -> dict[str, str]:
    return {"BOT4_ARCHIVE_URL": url, "BOT4_REST_URL": url}


def answering(*, archive: bool = True, rest: bool = True, reason: str = ""):
    return lambda *_, **__: Reach(archive=archive, rest=rest, reason=reason)


def test_mark_prices_come_from_the_archive_or_by_rest(binance, tmp_path: Path) -> None:
    fake, url = binance
    source = mark_source("1h", urls(url), reach=answering())
    source = dataclasses.replace(source, symbols=("BTCUSDT",), years=YEARS)
    store = CandleStore(tmp_path)
    (one,) = ingest(source, store, now_ms=NOW).series
    assert one.id == SeriesId(Origin.REAL, Market.USDM, "BTCUSDT", "1h")
    assert (one.rows, one.inserted) == (CLOSED, CLOSED)
    assert store.read(one.id).close.tolist() == [r[4] for r in fake.rows["BTCUSDT"][:CLOSED]]
    asked = {path.split("/")[-4] for path in fake.asked if path.endswith(".zip")}
    assert asked == {"markPriceKlines"}
    alone = dataclasses.replace(source, reach=Reach(archive=False, rest=True))
    (rest,) = ingest(alone, CandleStore(tmp_path / "rest"), now_ms=NOW).series
    assert rest.inserted == CLOSED
    assert "/fapi/v1/markPriceKlines" in fake.asked
    assert "/fapi/v1/klines" not in fake.asked


@pytest.mark.data
def test_real_mark_prices_are_taken_from_a_folder(test_data: Path, tmp_path: Path) -> None:
    source = mark_source("1h", {"BOT4_MARK_DIR": str(test_data / "usdm" / "mark-1h")})
    assert source.kind is SourceKind.FOLDER
    report = ingest(source, CandleStore(tmp_path), now_ms=NOW * 2)
    report.refuse_errors()
    assert [one.id.symbol for one in report.series] == ["BTCUSDT", "ETHUSDT"]
    assert all(one.inserted > 40_000 for one in report.series)


def test_mark_prices_are_never_simulated() -> None:
    with pytest.raises(VenueUnreachable):
        mark_source("1h", {}, reach=answering(archive=False, rest=False, reason="no answer"))


def test_funding_comes_once_whichever_way(binance, tmp_path: Path) -> None:
    fake, url = binance
    store = FundingStore(tmp_path / "funding")

    def take(**ways: bool):
        return ingest_funding(
            "BTCUSDT", store, tmp_path, NOW, urls(url), years=YEARS, reach=answering(**ways)
        )

    first = take(rest=False)
    # the archive has whole months: January and February of 2024
    assert (first.inserted, first.complete) == (60 * 3, True)
    whole = take()
    assert (whole.inserted, whole.restated, whole.rates) == (226 - 180, 0, 226)
    held = store.read("BTCUSDT")
    assert held is not None
    assert list(zip(held.time_ms.tolist(), held.rate.tolist(), strict=True)) == fake.funding
    fake.asked.clear()
    again = take(archive=False)
    assert (again.inserted, again.restated) == (0, 0)
    fake.funding[-1] = (fake.funding[-1][0], 0.002)
    other = FundingStore(tmp_path / "other")
    rest = ingest_funding(
        "BTCUSDT", other, tmp_path, NOW, urls(url), years=YEARS, reach=answering(archive=False)
    )
    assert rest.rates == 226
    assert take().restated == 1


def test_a_funding_download_that_breaks_keeps_what_came(binance, tmp_path: Path) -> None:
    fake, url = binance
    store = FundingStore(tmp_path)

    def cut(step) -> None:
        if step.message == "latest funding of BTCUSDT":
            fake.rest_status = 403

    got = ingest_funding(
        "BTCUSDT", store, tmp_path, NOW, urls(url), years=YEARS, progress=cut, reach=answering()
    )
    assert (got.inserted, got.complete) == (180, False)
    assert "a part of the download failed" in got.notes[0]
    with pytest.raises(
        VenueUnreachable, match="name a folder of funding rates in BOT4_FUNDING_DIR"
    ):
        ingest_funding(
            "BTCUSDT",
            store,
            tmp_path,
            NOW,
            {},
            years=1.0,
            reach=answering(archive=False, rest=False),
        )
    fake.rest_status = None
    with pytest.raises(DataError, match="no symbol BTCUSD"):
        ingest_funding("BTCUSD", store, tmp_path, NOW, urls(url), years=YEARS, reach=answering())


def test_funding_of_a_folder_is_taken_and_a_missing_symbol_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pl.DataFrame({"timestamp": [START], "funding_rate": [1e-4]}).write_parquet(
        folder / "BTCUSDT.parquet"
    )
    store, env = FundingStore(tmp_path / "out"), {"BOT4_FUNDING_DIR": str(folder)}
    got = ingest_funding("BTCUSDT", store, tmp_path, NOW, env, years=1.0)
    assert (got.source, got.inserted, got.rates) == ("folder in", 1, 1)
    with pytest.raises(DataError, match="no funding of ETHUSDT"):
        ingest_funding("ETHUSDT", store, tmp_path, NOW, env, years=1.0)
