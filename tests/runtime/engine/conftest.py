"""A random market on disk, and sessions over it."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bot4_runtime import app
from bot4_runtime.domain.events import JournaledEvent
from bot4_runtime.session import SessionResult
from bot4_runtime.settings import Settings, load_settings
from bot4_runtime.state.reader import JournalReader

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def write_market(folder: Path, symbols: tuple[str, ...], candles: int, seed: int = 5) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for place, symbol in enumerate(symbols):
        returns = generator.standard_t(4, candles) * 0.006
        close = 100.0 * 5.0**place * np.exp(np.cumsum(returns))
        open_ = np.concatenate([[close[0]], close[:-1]])
        wick = np.abs(generator.normal(0, 0.003, (2, candles)))
        pl.DataFrame(
            {
                "timestamp": START_MS + HOUR_MS * np.arange(candles),
                "open": open_.round(6),
                "high": (np.maximum(open_, close) * (1 + wick[0])).round(6),
                "low": (np.minimum(open_, close) * (1 - wick[1])).round(6),
                "close": close.round(6),
                "volume": generator.lognormal(9, 0.6, candles).round(3),
            }
        ).write_parquet(folder / f"{symbol}.parquet")
    return folder


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    return write_market(folder, ("AAAUSDT", "BBBUSDT", "CCCUSDT"), 1500)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        environment={
            "BOT4_HOME": str(tmp_path / "home"),
            "BOT4_MODELS": str(tmp_path / "models"),
            "BOT4_RUNTIME__STRATEGY": "drill",
            "BOT4_RISK__MAX_CORRELATION": "1.0",
        }
    )


RunIt = Callable[..., SessionResult]


@pytest.fixture
def run_it(market: Path, settings: Settings) -> RunIt:
    """Run a session over the market; `stop_after` candles asks it to stop."""

    def run(
        folder: Path, *, stop_after: int = 0, source: Path = market, with_: Settings = settings
    ) -> SessionResult:
        stop = threading.Event()

        def progress(done: int, _: object) -> None:
            if done == stop_after:
                stop.set()

        options = app.RunOptions(source=f"recorded:{source}")
        built = app.build(with_, options, mode="paper", folder=folder, on_progress=progress)
        return built.execute(stop)

    return run


@pytest.fixture
def journal_of() -> Callable[[Path], list[JournaledEvent]]:
    """Read a run's journal."""

    def read(folder: Path) -> list[JournaledEvent]:
        with JournalReader.open(folder / "journal.sqlite") as journal:
            return [event for _, event in journal.events()]

    return read


@pytest.fixture
def make_market() -> Callable[..., Path]:
    """Write another random market."""
    return write_market
