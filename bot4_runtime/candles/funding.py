"""Funding of USD-M perpetuals: what was paid every few hours, read from files and kept.

Times are when it was due, UTC, rounded to the minute, since Binance's own jitter by milliseconds.
A positive rate is paid by longs to shorts, as a share of the position's value at the mark price.
Layout of the store: ``<root>/<market>/<symbol>.parquet``; restated rates replace the old ones.
Source: github.com/binance/binance-public-data (fundingRate), GET /fapi/v1/fundingRate.
"""

import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bot4_runtime.candles.files import DAMAGED_ZIP, SUFFIXES, symbol_of
from bot4_runtime.candles.store import LOCK_WAIT_S, locked, replace_file
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError

MINUTE_MS: Final = 60_000
TIME_NAMES: Final = ("timestamp", "calc_time", "funding_time", "fundingtime")
RATE_NAMES: Final = ("funding_rate", "last_funding_rate", "fundingrate")
MOST: Final = 0.1
"""A larger share than Binance lets be paid at once; more is no rate but a percentage."""
SCHEMA: Final = {"time_ms": pl.Int64, "rate": pl.Float64}


@dataclass(frozen=True, slots=True, eq=False)
class FundingRates:
    """What one symbol's positions paid.

    Attributes:
        time_ms: int64[n], UTC, whole minutes, strictly increasing.
        rate: float64[n], share of the position's value; positive is paid by longs.

    Raises:
        DataError: columns differ in length, times are not increasing, or a rate is impossible.
    """

    symbol: str
    time_ms: NDArray[np.int64]
    rate: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.time_ms.shape != self.rate.shape or self.time_ms.ndim != 1:
            raise DataError(f"funding of {self.symbol}: columns differ in length")
        if np.any(np.diff(self.time_ms) <= 0) or np.any(self.time_ms % MINUTE_MS):
            raise DataError(
                f"funding of {self.symbol} is not in order; expected whole minutes, each once"
            )
        bad = np.flatnonzero(~(np.abs(self.rate) < MOST))
        if bad.size:
            raise DataError(
                f"{bad.size} funding rates of {self.symbol} are impossible, first "
                f"{float(self.rate[bad[0]])}; expected shares below {MOST}"
            )

    def __len__(self) -> int:
        return len(self.time_ms)


def funding_of(symbol: str, times_ms: Sequence[int], rates: Sequence[float]) -> FundingRates:
    """Make funding rates of rows in any order; of the same minute the last one counts.

    Raises:
        DataError: a rate is impossible.
    """
    times = np.asarray(times_ms, dtype=np.int64)
    times = (times + MINUTE_MS // 2) // MINUTE_MS * MINUTE_MS
    order = np.argsort(times, kind="stable")
    rows = order[np.diff(times[order], append=np.iinfo(np.int64).max) != 0]
    return FundingRates(symbol, times[rows], np.asarray(rates, dtype=np.float64)[rows])


def read_funding_file(path: Path, symbol: str | None = None) -> FundingRates:
    """Read a Parquet, CSV, CSV.gz or archive zip of funding rates.

    Raises:
        DataError: the file cannot be read or holds no funding rates; the message names it.
    """
    name = symbol or symbol_of(path)
    try:
        if path.suffix == ".parquet":
            return funding_from_frame(pl.read_parquet(path), name, path.name)
        if path.suffix == ".zip":
            return funding_from_zip(path.read_bytes(), name, path.name)
        return funding_from_frame(pl.read_csv(path), name, path.name)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"cannot read funding rates from {path}: {error}") from error


def read_funding_folder(folder: Path) -> dict[str, FundingRates]:
    """Read all files of a folder: symbol → rates; the later file wins.

    Raises:
        DataError: no folder, nothing in it, or an unreadable file.
    """
    paths = sorted(path for path in folder.glob("*") if path.name.endswith(SUFFIXES))
    if not paths:
        raise DataError(f"no funding rates in {folder}; expected files like BTCUSDT.parquet")
    found: dict[str, FundingRates] = {}
    for path in paths:
        new = read_funding_file(path)
        old = found.get(new.symbol)
        found[new.symbol] = new if old is None else _laid_over(old, new)
    return found


def funding_from_zip(data: bytes, symbol: str, source: str) -> FundingRates:
    """Read the CSV files inside an archive zip.

    Raises:
        DataError: no zip, a damaged one, or one without funding rates.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            texts = [archive.read(one) for one in archive.namelist() if one.endswith(".csv")]
        frames = [pl.read_csv(text, has_header=not re.match(rb"\d", text)) for text in texts]
    except (*DAMAGED_ZIP, pl.exceptions.PolarsError) as error:
        raise DataError(f"cannot read funding rates from {source}: {error}") from error
    if not frames:
        raise DataError(f"cannot read funding rates from {source}: the zip holds no .csv file")
    return funding_from_frame(pl.concat(frames), symbol, source)


def funding_from_frame(frame: pl.DataFrame, symbol: str, source: str) -> FundingRates:
    """Find time and rate in a table, by the names of the archive, the API or our own files.

    Raises:
        DataError: they are not there.
    """
    names = {name.strip().lower(): name for name in frame.columns}
    time = next((names[name] for name in TIME_NAMES if name in names), None)
    rate = next((names[name] for name in RATE_NAMES if name in names), None)
    if time is None or rate is None:
        raise DataError(
            f"{source} holds no funding rates but columns {' '.join(frame.columns)}; expected "
            f"one of {' '.join(TIME_NAMES)} and one of {' '.join(RATE_NAMES)}"
        )
    times = frame[time]
    if isinstance(times.dtype, pl.Datetime):
        times = times.dt.epoch("ms")
    try:
        return funding_of(
            symbol, times.cast(pl.Int64).to_list(), frame[rate].cast(pl.Float64).to_list()
        )
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise DataError(f"cannot read funding rates from {source}: {error}") from error


class FundingStore:
    """Funding rates on disk.

    Args:
        root: folder of the store; made when first written to.
        market: they belong to.
    """

    def __init__(
        self, root: Path, market: Market = Market.USDM, lock_wait_s: float = LOCK_WAIT_S
    ) -> None:
        self._root = root / market.value
        self._lock_wait_s = lock_wait_s

    def write(self, new: FundingRates) -> tuple[int, int]:
        """Insert new rates and replace restated ones; return how many of each.

        Raises:
            DataError: the stored file is unreadable, or another process kept writing it.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._root, self._lock_wait_s):
            old = self.read(new.symbol)
            if old is None:
                inserted, restated, whole = len(new), 0, new
            else:
                at = np.searchsorted(old.time_ms, new.time_ms)
                known = np.append(old.time_ms, -1)[at] == new.time_ms
                restated = int(np.count_nonzero(old.rate[at[known]] != new.rate[known]))
                inserted, whole = int(np.count_nonzero(~known)), _laid_over(old, new)
            if inserted or restated:
                frame = pl.DataFrame({"time_ms": whole.time_ms, "rate": whole.rate}, schema=SCHEMA)
                replace_file(self._path(new.symbol), frame)
        return inserted, restated

    def read(self, symbol: str) -> FundingRates | None:
        """Return a symbol's rates; None when none are stored.

        Raises:
            DataError: the file is unreadable.
        """
        path = self._path(symbol)
        if not path.exists():
            return None
        try:
            frame = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"cannot read stored funding from {path}: {error}") from error
        if dict(frame.schema) != SCHEMA:
            raise DataError(f"{path} has columns {frame.schema}; expected {SCHEMA}")
        return FundingRates(symbol, frame["time_ms"].to_numpy(), frame["rate"].to_numpy())

    def _path(self, symbol: str) -> Path:
        return self._root / f"{symbol}.parquet"


def _laid_over(old: FundingRates, new: FundingRates) -> FundingRates:
    return funding_of(
        new.symbol,
        [*old.time_ms.tolist(), *new.time_ms.tolist()],
        [*old.rate.tolist(), *new.rate.tolist()],
    )
