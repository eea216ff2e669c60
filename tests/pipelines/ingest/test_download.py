"""Archive, REST and the choice of a source against a server on loopback."""

import dataclasses
import socket
import time
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from bot4_pipelines.ingest.archive import Archive, fetch
from bot4_pipelines.ingest.download import OVERLAP
from bot4_pipelines.ingest.plan import Budget, Progress, plan_download
from bot4_pipelines.ingest.rate import SharedRate
from bot4_pipelines.ingest.reach import Reach, reach_binance
from bot4_pipelines.ingest.rest import RestCandles
from bot4_pipelines.ingest.source import SourceKind, choose_source, ingest
from bot4_runtime.candles.series import COLUMNS
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import (
    ConfigError,
    DataError,
    LocationRefused,
    VenueRefused,
    VenueUnreachable,
)
from bot4_runtime.exchange.binance.limits import RequestBudget

HOUR = 3_600_000
START = 1_704_067_200_000
NOW = START + 75 * 24 * HOUR + HOUR // 2
CLOSED = 75 * 24  # candles that closed before NOW


def env_of(url: str, **more: str) -> dict[str, str]:
    return {"BOT4_ARCHIVE_URL": url, "BOT4_REST_URL": url} | more


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_download_is_whole_closed_and_resumed(binance, tmp_path: Path) -> None:
    fake, url = binance
    source = choose_source(env_of(url))
    assert source.kind is SourceKind.BINANCE
    assert source.origin is Origin.REAL
    source = dataclasses.replace(source, reach=Reach(archive=True, rest=True))
    store, seen = CandleStore(tmp_path), []
    report = ingest(source, store, seen.append, now_ms=NOW)
    # the server's market is the built-in one, which opens where the candle before closed
    assert {s.id.symbol for s in report.series} == {"BTCUSDT", "ETHUSDT", "BNBUSDT"}
    assert all(isinstance(step, Progress) for step in seen)
    assert report.complete
    assert report.notes == ()
    report.refuse_errors()
    for one in report.series:
        assert (one.rows, one.inserted, one.gaps) == (CLOSED, CLOSED, ())
        assert one.last_ms == START + (CLOSED - 1) * HOUR
    stored = store.read(report.series[0].id)
    assert stored.close.tolist() == [row[4] for row in fake.rows["BTCUSDT"][:CLOSED]]
    fake.asked.clear()
    again = ingest(source, store, now_ms=NOW)
    assert [(s.inserted, s.unchanged, s.restated) for s in again.series] == [(0, CLOSED, 0)] * 3
    assert not [path for path in fake.asked if "2024-02" in path]


def test_a_restated_history_replaces_the_old(binance, tmp_path: Path) -> None:
    fake, url = binance
    source = dataclasses.replace(
        choose_source(env_of(url), symbols=["btcusdt"]), reach=Reach(archive=False, rest=True)
    )
    source = dataclasses.replace(source, years=75 / 365.25)
    store = CandleStore(tmp_path)
    ingest(source, store, now_ms=NOW)
    fake.rows["BTCUSDT"][CLOSED - 5][5] += 1
    fake.serve_time = False
    (one,) = ingest(source, store, now_ms=NOW).series
    assert (one.inserted, one.restated, one.unchanged) == (0, 1, OVERLAP - 1)
    (told,) = store.restatements(one.id)
    assert (told.at_ms, told.source) == (NOW, "Binance spot")


def test_the_rest_goes_on_from_the_stored_end_and_fills_a_hole(binance, tmp_path: Path) -> None:
    fake, url = binance
    source = dataclasses.replace(
        choose_source(env_of(url), symbols=["BTCUSDT"]), reach=Reach(archive=False, rest=True)
    )
    store = CandleStore(tmp_path)
    source = dataclasses.replace(source, years=75 / 365.25)
    whole = fake.rows["BTCUSDT"]
    for first, last in ((0, 300), (900, 1_200)):
        fake.rows["BTCUSDT"] = whole[first:last]
        ingest(source, store, now_ms=NOW)
    fake.rows["BTCUSDT"] = whole
    fake.starts.clear()
    (one,) = ingest(source, store, now_ms=NOW).series
    assert min(fake.starts) == START + 200 * HOUR
    assert len(store.read(one.id)) == CLOSED
    fake.starts.clear()
    ingest(source, store, now_ms=NOW)
    assert fake.starts == [START + (CLOSED - OVERLAP) * HOUR]


def test_too_many_requests_are_answered_by_the_pause_that_is_asked_for(binance) -> None:
    fake, url = binance
    fake.answers = [(429, "0.2"), (418, "0.1")]
    began = time.monotonic()
    assert fetch(f"{url}/data/spot/BTCUSDT-1h-2024-01.zip", Budget(20)) is not None
    assert time.monotonic() - began > 0.28
    fake.answers = [(418, "3600")]
    with pytest.raises(VenueUnreachable, match="the next try is due in 3600 s"):
        fetch(f"{url}/data/spot/BTCUSDT-1h-2024-01.zip", Budget(20))
    fake.answers = [(503, None), (503, None), (503, None), (503, None)]
    with pytest.raises(VenueUnreachable, match="503"):
        fetch(f"{url}/data/spot/BTCUSDT-1h-2024-01.zip", Budget(20))
    assert len(fake.answers) == 1


def test_a_ban_by_rest_holds_back_every_process_of_the_machine(binance, tmp_path: Path) -> None:
    fake, url = binance
    rate = SharedRate(RequestBudget(tmp_path / "rate.json"))
    client = RestCandles(Market.SPOT, url, budget=Budget(20), rate=rate)
    client.check(("BTCUSDT",))
    fake.answers = [(429, "0.2")]
    began = time.monotonic()
    assert client._call("time") == {"serverTime": NOW}
    assert time.monotonic() - began > 0.18
    fake.answers = [(418, "900")]
    with pytest.raises(VenueUnreachable, match="the next try is due in 900 s"):
        client._call("time")
    client.close()
    other = SharedRate(RequestBudget(tmp_path / "rate.json"))
    with pytest.raises(VenueUnreachable, match=r"banned us; the next try is due in [89]"):
        other.take(1, Budget(5))


def test_a_bad_checksum_keeps_nothing(binance, tmp_path: Path) -> None:
    fake, url = binance
    archive = Archive(tmp_path, url)
    fake.bad_checksum = {"BTCUSDT-1h-2024-01.zip"}
    with pytest.raises(DataError, match="its CHECKSUM file says 0000"):
        archive.month(Market.SPOT, "BTCUSDT", "1h", date(2024, 1, 1), Budget(20))
    fake.bad_checksum, fake.no_checksum = set(), True
    with pytest.raises(DataError, match="holds no SHA-256"):
        archive.month(Market.SPOT, "BTCUSDT", "1h", date(2024, 1, 1), Budget(20))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    fake.no_checksum = False
    month = archive.month(Market.SPOT, "BTCUSDT", "1h", date(2024, 1, 1), Budget(20))
    assert month is not None
    assert len(month) == 31 * 24
    assert archive.month(Market.SPOT, "BTCUSDT", "1h", date(2023, 1, 1), Budget(20)) is None
    fake.status = 500
    kept = archive.month(Market.SPOT, "BTCUSDT", "1h", date(2024, 1, 1), Budget(20))
    assert kept is not None


def test_http_answers_are_mapped_once(binance) -> None:
    fake, url = binance
    for status, kind in ((451, LocationRefused), (403, VenueRefused), (500, VenueUnreachable)):
        fake.status = status
        with pytest.raises(kind):
            fetch(f"{url}/data/x.zip", Budget(5))
    fake.status = None
    fake.short = True
    with pytest.raises(VenueUnreachable):
        fetch(f"{url}/data/spot/BTCUSDT-1h-2024-01.zip", Budget(5))
    with pytest.raises(VenueUnreachable, match="budget is spent"):
        fetch(url, Budget(0))
    with pytest.raises(VenueUnreachable):
        fetch(closed_port(), Budget(5))


def test_a_stalled_server_is_given_up_in_time(binance) -> None:
    fake, url = binance
    fake.stall = True
    start = time.monotonic()
    found = reach_binance(archive_url=url, rest_url=url, within_s=0.6)
    assert time.monotonic() - start < 2
    assert not found.any
    with pytest.raises(VenueUnreachable):
        fetch(url, Budget(0.3), timeout_s=0.2)


def test_reach_says_what_answers(binance) -> None:
    fake, url = binance
    assert reach_binance(archive_url=url, rest_url=url) == Reach(archive=True, rest=True)
    fake.rest_status = 451
    found = reach_binance(archive_url=url, rest_url=url)
    assert (found.archive, found.rest, found.any) == (True, False, True)
    assert "refuses this location" in found.reason


def test_rest_errors_are_mapped_once(binance) -> None:
    fake, url = binance
    client = RestCandles(Market.SPOT, url, timeout_ms=2_000)
    with pytest.raises(DataError, match="no symbol BTCUSD; nearest: BTCUSDT"):
        client.check(("BTCUSD",))
    fake.rest_status = 451
    with pytest.raises(LocationRefused, match="refuses this location"):
        client.fetch("BTCUSDT", "1h", START, NOW, Budget(5))
    fake.rest_status = 500
    assert client._venue_ms(7) == 7
    with pytest.raises(VenueUnreachable):
        client._call("time")
    fake.rest_status = 400
    with pytest.raises(VenueRefused):
        client._call("candles", symbol="BTCUSDT", interval="1h")
    fake.rest_status = None
    fake.rows["BTCUSDT"] = fake.rows["BTCUSDT"][:3]
    assert len(client.fetch("BTCUSDT", "1h", START, NOW, Budget(5))) == 3
    client.close()


def test_a_broken_way_keeps_what_arrived(binance, tmp_path: Path) -> None:
    fake, url = binance
    source = dataclasses.replace(
        choose_source(env_of(url), symbols=["BTCUSDT", "ETHUSDT"]),
        reach=Reach(archive=True, rest=False),
    )

    def cut(step: Progress) -> None:
        if step.message == "BTCUSDT 2024-02":
            fake.status = 403

    report = ingest(source, CandleStore(tmp_path), cut, now_ms=NOW)
    assert not report.complete
    assert "run again" in report.notes[-1]
    assert report.series[0].rows == 15 * 24
    fake.status = None
    rest = dataclasses.replace(source, reach=Reach(archive=True, rest=True))

    def cut_rest(step: Progress) -> None:
        fake.rest_status = 500 if step.message == "latest candles of ETHUSDT" else None

    alone = dataclasses.replace(source, reach=Reach(archive=False, rest=True))
    half = ingest(alone, CandleStore(tmp_path), cut_rest, now_ms=NOW)
    assert not half.complete
    assert [one.id.symbol for one in half.series] == ["BTCUSDT"]
    assert "had no candles of ETHUSDT" in half.notes[1]
    fake.rest_status, fake.status = None, 403
    with pytest.raises(VenueRefused):
        ingest(source, CandleStore(tmp_path / "b"), now_ms=NOW)
    spent = ingest(rest, CandleStore(tmp_path), budget_s=600, now_ms=NOW)
    assert spent.series
    with pytest.raises(DataError, match="has no candles"):
        ingest(source, CandleStore(tmp_path / "c"), budget_s=0, now_ms=NOW)


def test_an_unknown_symbol_and_too_much_are_refused(binance, tmp_path: Path) -> None:
    _, url = binance
    source = choose_source(env_of(url), symbols=["BTCUSDX"])
    with pytest.raises(DataError, match="nearest: BTCUSDT"):
        ingest(source, CandleStore(tmp_path), now_ms=NOW)
    assert len(plan_download(Market.SPOT, ["A", "B", "C", "D"], "1h", NOW).symbols) == 4
    with pytest.raises(ConfigError, match="years"):
        plan_download(Market.SPOT, [], "1h", NOW, years=21)
    with pytest.raises(ConfigError, match="are not there yet"):
        plan_download(Market.SPOT, [], "1h", NOW, from_ms=NOW + 1)
    plan = plan_download(Market.SPOT, [], "1h", NOW)
    assert plan.symbols == ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    assert len(plan.months()) == 49


def test_the_source_is_chosen_as_told(tmp_path: Path) -> None:
    def nowhere(*_: object, **__: object) -> Reach:
        return Reach(archive=False, rest=False, reason="REST: Binance refuses this location")

    def mute(*_: object, **__: object) -> Reach:
        return Reach(archive=False, rest=False, reason="no answer")

    fallback = choose_source({}, reach=nowhere)
    assert fallback.kind is SourceKind.SIMULATED
    assert "SIMULATED" in fallback.label
    assert "refuses this location" in fallback.reason
    assert choose_source({"BOT4_CANDLES_SOURCE": "simulated"}).origin is Origin.SIMULATED
    folder = choose_source({"BOT4_CANDLES_DIR": str(tmp_path), "BOT4_CANDLES_MARKET": "usdm"})
    assert (folder.kind, folder.folder, folder.market) == (
        SourceKind.FOLDER,
        tmp_path,
        Market.USDM,
    )
    with pytest.raises(LocationRefused):
        choose_source({"BOT4_CANDLES_SOURCE": "binance"}, reach=nowhere)
    with pytest.raises(VenueUnreachable):
        choose_source({"BOT4_CANDLES_SOURCE": "binance"}, reach=mute)
    with pytest.raises(ConfigError, match="names none"):
        choose_source({"BOT4_CANDLES_SOURCE": "folder"})
    with pytest.raises(ConfigError, match="expected one of: spot usdm"):
        choose_source({"BOT4_CANDLES_MARKET": "margin"})
    with pytest.raises(ConfigError, match="is no interval"):
        choose_source({}, interval="7m", reach=mute)
    with pytest.raises(ConfigError, match="names no folder"):
        ingest(dataclasses.replace(folder, folder=None), CandleStore(tmp_path))


def test_the_simulated_market_is_ingested_the_same_every_time(tmp_path: Path) -> None:
    source = choose_source({"BOT4_CANDLES_SOURCE": "simulated"}, symbols=["BTCUSDT"])
    report = ingest(source, CandleStore(tmp_path))
    (one,) = report.series
    assert one.id.key == "simulated/spot/BTCUSDT/1h"
    assert one.rows > 3.5 * 365 * 24
    assert one.findings == ()
    assert "simulated" in report.notes[0]
    assert ingest(source, CandleStore(tmp_path)).series[0].inserted == 0


def test_a_bad_file_blocks_its_series_and_leaves_the_store(tmp_path: Path) -> None:
    import polars as pl

    folder = tmp_path / "in"
    folder.mkdir()
    series = SimulatedMarket(5).series("BTCUSDT", "1h", START, START + 90 * HOUR)
    frame = pl.DataFrame(
        {"timestamp": series.open_time_ms} | {n: getattr(series, n) for n in COLUMNS}
    )
    frame.write_parquet(folder / "BTCUSDT.parquet")
    source = choose_source({"BOT4_CANDLES_DIR": str(folder)})
    store = CandleStore(tmp_path / "store")
    first = ingest(source, store)
    assert first.source.interval == "1h"
    assert first.series[0].inserted == 90
    pl.concat([frame, frame.head(2)]).write_parquet(folder / "BTCUSDT.parquet")
    report = ingest(source, store)
    assert not report.series[0].written
    with pytest.raises(DataError, match="DUPLICATE"):
        report.refuse_errors()
    dear = frame.with_columns(*(pl.col(n) * 2 for n in ("open", "high", "low", "close")))
    dear.write_parquet(folder / "BTCUSDT.parquet")
    with pytest.raises(DataError, match="away from the stored series"):
        ingest(source, store).refuse_errors()
    assert np.array_equal(store.read(first.series[0].id).close, series.close)
