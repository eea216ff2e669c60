"""From a bad candle in a folder to the check, its picture, and what is not learnt from."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_pipelines.defs.checks import candle_results
from bot4_pipelines.finding_plot import finding_plot
from bot4_pipelines.records import Folders
from bot4_pipelines.steps import Outcome
from bot4_pipelines.workflow import Workflow
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket

HOUR = 3_600_000
START = 1_704_067_200_000
ROWS = 1_200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "candles"
    made.mkdir()
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("BOT4_CANDLES_DIR", str(made))
    monkeypatch.delenv("BOT4_CANDLES_SOURCE", raising=False)
    return made


def series(symbol: str = "BTCUSDT") -> CandleSeries:
    return SimulatedMarket(11).series(symbol, "1h", START, START + ROWS * HOUR)


def put(folder: Path, symbol: str, made: CandleSeries, **changed: np.ndarray) -> None:
    columns = {name: getattr(made, name) for name in COLUMNS} | changed
    pl.DataFrame({"timestamp": made.open_time_ms} | columns).write_parquet(
        folder / f"{symbol}.parquet"
    )


def candles() -> tuple[Workflow, Outcome]:
    flow = Workflow(Folders.from_environment(), lambda _message, _share: None)
    return flow, flow.candles()


def test_a_bad_row_blocks_its_series_and_is_shown(folder: Path) -> None:
    made = series()
    high, close = made.high.copy(), made.close.copy()
    close[600] *= 1.5
    high[600] = max(high[600], close[600])
    put(folder, "BTCUSDT", made, high=high, close=close)
    put(folder, "ETHUSDT", series("ETHUSDT"))
    _, outcome = candles()
    assert outcome.record.numbers["series"] == ["real/spot/ETHUSDT/1h"]
    spike = {result.check_name: result for result in candle_results(outcome)}["spike"]
    assert not spike.passed
    assert spike.metadata["symbols"].value == ["BTCUSDT"]
    (row,) = spike.metadata["found"].records
    assert row.data["times_ms"] == f"[{START + 600 * HOUR}]"
    assert f"'close': {close[600]}" in str(row.data["worst"])
    assert "data:image/png;base64" in spike.metadata["worst"].value


def test_rows_of_a_warning_are_not_learnt_from(folder: Path) -> None:
    made = series()
    high = made.high.copy()
    high[600] *= 10.0
    put(folder, "BTCUSDT", made, high=high)
    flow, outcome = candles()
    (stored,) = flow._series(outcome.record.numbers["series"])
    masked = flow._masked(stored)
    assert np.flatnonzero(masked).tolist() == list(range(600, 673))


def test_one_market_under_two_names_is_not_stored(folder: Path) -> None:
    put(folder, "BTCUSDT", series())
    put(folder, "ETHUSDT", series())
    _, outcome = candles()
    assert outcome.record.numbers["series"] == []
    same = {result.check_name: result for result in candle_results(outcome)}["same_series"]
    assert not same.passed
    assert same.metadata["symbols"].value == ["BTCUSDT", "ETHUSDT"]


def test_hours_are_compared_with_the_minutes_that_are_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = SimulatedMarket(11).series("BTCUSDT", "1m", START, START + 2_400 * 60_000)
    put(folder, "BTCUSDT", minutes)
    _, outcome = candles()
    assert outcome.record.numbers["series"] == ["real/spot/BTCUSDT/1m"]
    hours = folder.parent / "hours"
    hours.mkdir()
    monkeypatch.setenv("BOT4_CANDLES_DIR", str(hours))
    starts = np.arange(0, 2_400, 60)
    columns = {
        "open": minutes.open[starts],
        "high": np.maximum.reduceat(minutes.high, starts),
        "low": np.minimum.reduceat(minutes.low, starts),
        "close": minutes.close[starts + 59],
        "volume": np.add.reduceat(minutes.volume, starts),
    }
    columns["volume"][20] *= 0.4
    pl.DataFrame({"timestamp": minutes.open_time_ms[starts]} | columns).write_parquet(
        hours / "BTCUSDT.parquet"
    )
    _, outcome = candles()
    (finding,) = [
        one for one in outcome.record.numbers["findings"] if one["code"] == "FORMING_PERSISTED"
    ]
    assert finding["severity"] == "ERROR"
    assert finding["times_ms"] == [START + 20 * HOUR]


def test_a_picture_is_drawn_where_candles_end_and_where_they_have_no_volume() -> None:
    columns = {name: [1.0, 2.0, 9.0] for name in COLUMNS}
    for marked in (0, 3):
        excerpt = {"code": "GAP", "symbol": "BTCUSDT", "marked": marked, "open_time_ms": [0, 1, 2]}
        assert finding_plot(excerpt | columns).startswith(b"\x89PNG")
