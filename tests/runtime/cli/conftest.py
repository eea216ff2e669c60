"""The command line called in this process, as a shell would call it."""

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import structlog

from bot4_runtime.candles.simulated import SimulatedMarket

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # typer takes names that click renames
    from bot4_runtime import cli

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
SYMBOLS = ("AAAUSDT", "BBBUSDT")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Stderr on one line, as wrapped lines of a terminal read."""
        return " ".join(self.err.split())


Command = Callable[..., Ended]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("BOT4_RISK__MAX_CORRELATION", "1.0")
    return tmp_path / "home"


@pytest.fixture
def command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run ``bot4-runtime`` with these words."""

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bot4-runtime", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        log = getattr(structlog.get_config()["logger_factory"], "_file", None)
        if log not in {None, sys.stderr}:
            log.close()
        structlog.reset_defaults()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 1h candles of two symbols, 900 each."""
    folder = tmp_path_factory.mktemp("market")
    for symbol in SYMBOLS:
        series = SimulatedMarket(3).series(symbol, "1h", START, START + 900 * HOUR)
        columns = ("open", "high", "low", "close", "volume")
        frame = {"timestamp": series.open_time_ms} | {n: getattr(series, n) for n in columns}
        pl.DataFrame(frame).write_parquet(folder / f"{symbol}.parquet")
    return folder


@pytest.fixture
def files_under() -> Callable[[Path], list[str]]:
    """Names of all files below a folder, logs aside."""

    def listed(folder: Path) -> list[str]:
        return sorted(
            os.path.relpath(Path(where) / name, folder)
            for where, _, names in os.walk(folder)
            for name in names
            if name != "runtime.jsonl"
        )

    return listed
