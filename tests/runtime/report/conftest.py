"""One run of the drill over a small market, its journal, and what was written of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from bot4_runtime import app
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.report.files import WrittenReport, write_report
from bot4_runtime.session import SessionResult
from bot4_runtime.settings import Settings, load_settings
from bot4_runtime.state.reader import JournalReader

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
SYMBOLS = ("AAAUSDT", "BBBUSDT")


@dataclass
class Run:
    folder: Path
    settings: Settings
    result: SessionResult
    events: list[JournaledEvent]

    def write(self, result: SessionResult | None = None) -> WrittenReport:
        return write_report(
            self.folder,
            models=None,
            paper=self.settings.paper.model(),
            result=result or self.result,
            started=datetime(2026, 1, 1, tzinfo=UTC),
            account="replay",
        )


def run_drill(market: Path, folder: Path) -> Run:
    settings = load_settings(
        environment={
            "BOT4_HOME": str(folder / "home"),
            "BOT4_RUNTIME__STRATEGY": "drill",
            "BOT4_RISK__MAX_CORRELATION": "1.0",
            "BOT4_RISK__MAX_LOSS_STREAK": "2",
            "BOT4_RISK__COOLDOWN_S": "86400",
        }
    )
    options = app.RunOptions(source=f"recorded:{market}")
    built = app.build(settings, options, mode="replay", folder=folder)
    result = built.execute(threading.Event())
    with JournalReader.open(folder / "journal.sqlite") as journal:
        events = [event for _, event in journal.events()]
    return Run(folder, settings, result, events)


@pytest.fixture(scope="session")
def report_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    for symbol in SYMBOLS:
        series = SimulatedMarket(3).series(symbol, "1h", START, START + 1200 * HOUR)
        columns = ("open", "high", "low", "close", "volume")
        frame = {"timestamp": series.open_time_ms} | {n: getattr(series, n) for n in columns}
        whole = pl.DataFrame(frame)
        pl.concat([whole[:900], whole[910:]]).write_parquet(folder / f"{symbol}.parquet")
    return folder


@pytest.fixture(scope="session")
def run(report_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_drill(report_market, tmp_path_factory.mktemp("run"))


@pytest.fixture
def run_again(report_market: Path) -> Callable[[Path], Run]:
    return lambda folder: run_drill(report_market, folder)
