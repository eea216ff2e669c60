"""Where the first step's candles come from when Binance does not answer."""

from pathlib import Path

import pytest

from bot4_pipelines.records import Record, now_ms
from bot4_pipelines.sources import still_fresh, take_candles
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.errors import VenueError, VenueUnreachable

NOWHERE = "http://127.0.0.1:1"
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _no_binance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT4_ARCHIVE_URL", NOWHERE)
    monkeypatch.setenv("BOT4_REST_URL", NOWHERE)


def said(message: str, share: float) -> None:
    assert message
    assert 0.0 <= share <= 1.0


def downloaded(age_hours: float = 0.0, *, complete: bool = True) -> Record:
    return Record(
        step="candles",
        stamp="s",
        content="c",
        finished_ms=now_ms() - round(age_hours * HOUR_MS),
        seconds=1.0,
        numbers={"source": "binance", "complete": complete, "series": ["real/spot/BTCUSDT/1h"]},
    )


def test_without_binance_the_simulated_market_is_taken_and_called_so(tmp_path: Path) -> None:
    told = take_candles(CandleStore(tmp_path), None, said)
    assert told["source"] == told["origin"] == "simulated"
    assert "SIMULATED" in told["label"]
    assert told["why"]
    assert told["series"]
    assert all(key.startswith("simulated/") for key in told["series"])


def test_candles_that_were_downloaded_before_go_before_simulated_ones(tmp_path: Path) -> None:
    told = take_candles(CandleStore(tmp_path), downloaded(), said)
    assert told["source"] == "binance"
    assert "downloaded before are used" in told["why"]
    assert not list(tmp_path.iterdir())


def test_of_what_was_downloaded_before_what_is_wanted_is_taken_and_nothing_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT4_SYMBOLS", "ETHUSDT")
    before = downloaded(25.0)
    series = ["real/spot/BTCUSDT/1h", "real/spot/ETHUSDT/1h"]
    findings = [{"symbol": symbol, "code": "GAP"} for symbol in ("BTCUSDT", "ETHUSDT")]
    before.numbers.update(series=series, findings=findings, restated=7, inserted=9, unchanged=3)
    before.numbers["restatements"] = [{"symbol": "ETHUSDT"}]
    told = take_candles(CandleStore(tmp_path), before, said)
    assert told["series"] == series[1:]
    assert told["findings"] == findings[1:]
    assert told["restatements"] == []
    assert [told[name] for name in ("restated", "inserted", "unchanged", "conflicts")] == [0] * 4
    # Nothing came, so the next run asks Binance again.
    assert not told["complete"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("BOT4_SYMBOLS", "BTCUSDT,SOLUSDT,XRPUSDT", "missing: SOLUSDT XRPUSDT"),
        ("BOT4_INTERVAL", "4h", "BTCUSDT, spot 4h"),
        ("BOT4_CANDLES_MARKET", "usdm", "BTCUSDT, usdm 1h"),
    ],
)
def test_other_candles_than_those_that_are_wanted_are_not_taken_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(VenueUnreachable, match=says):
        take_candles(CandleStore(tmp_path), downloaded(), said)
    assert not list(tmp_path.iterdir())


def test_binance_that_was_demanded_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "binance")
    with pytest.raises(VenueError):
        take_candles(CandleStore(tmp_path), downloaded(), said)


def test_a_whole_download_is_fresh_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    assert still_fresh(downloaded(2.0), 24.0)
    assert not still_fresh(downloaded(25.0), 24.0)
    assert not still_fresh(downloaded(2.0, complete=False), 24.0)
    assert not still_fresh(None, 24.0)
    for name, value in (
        ("SYMBOLS", "SOLUSDT"),
        ("INTERVAL", "4h"),
        ("YEARS", "6"),
        ("CANDLES_MARKET", "usdm"),
    ):
        with monkeypatch.context() as wish:
            wish.setenv(f"BOT4_{name}", value)
            assert not still_fresh(downloaded(2.0), 24.0)
            if name == "CANDLES_MARKET":
                perpetual = downloaded(2.0)
                perpetual.numbers["market"] = "usdm"
                assert still_fresh(perpetual, 24.0)
    monkeypatch.setenv("BOT4_CANDLES_DIR", "somewhere")
    assert not still_fresh(downloaded(2.0), 24.0)
