"""Candle files of others: Parquet, CSV, CSV.gz, and the zips of Binance's public archive.

A file is read as it is (`RawCandles`); whether its candles are good is judged elsewhere on these
raw rows. The strict way (`read_candle_folder`) refuses what a `CandleSeries` cannot hold.
Archive layout: github.com/binance/binance-public-data: 12 columns, header or none, milliseconds
or (spot since 2025) microseconds.
"""

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.domain.candle import INTERVALS_MS, Market, Origin, SeriesId, interval_of_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.instrument import QUOTE_ASSETS

SUFFIXES: Final = (".parquet", ".csv", ".csv.gz", ".zip")
DAMAGED_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""What `zipfile` raises for one that is damaged, by where the damage lies."""
TIME_NAMES: Final = (
    "open_time",
    "timestamp",
    "opentime",
    "open_time_ms",
    "datetime",
    "date",
    "time",
)
ARCHIVE_COLUMNS: Final = ("open_time", *COLUMNS)
AGG_TRADE_NAMES: Final = frozenset({"agg_trade_id", "first_trade_id", "is_buyer_maker"})


@dataclass(frozen=True, slots=True, eq=False)
class RawCandles:
    """Rows of one symbol as a file holds them: perhaps unsorted, repeated or impossible.

    Attributes:
        source: file name or address they came from.
        open_time_ms: int64[n], UTC.
        open: float64[n], in quote, as `high`, `low` and `close`.
        volume: float64[n], in base; NaN where the file has none (mark prices).
    """

    symbol: str
    source: str
    open_time_ms: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.open_time_ms)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "RawCandles":
        """Return some of the rows."""
        columns = [getattr(self, name)[rows] for name in COLUMNS]
        return RawCandles(self.symbol, self.source, self.open_time_ms[rows], *columns)


@dataclass(frozen=True, slots=True)
class Merged:
    """Files of one symbol laid over each other.

    Attributes:
        candles: sorted, one row an open time.
        repeated: rows that were there before, equal.
        conflicts: open times (ms) at which files disagreed; the later file won.
    """

    candles: RawCandles
    repeated: int
    conflicts: tuple[int, ...]


def read_candle_folder(
    folder: Path, market: Market, symbols: Collection[str] | None = None
) -> list[CandleSeries]:
    """Read a folder strictly, one series a symbol, sorted by symbol.

    Args:
        folder: holds Parquet, CSV, CSV.gz or archive zips; other files are left alone.
        market: the market the files are of; files do not say it themselves.
        symbols: leave out all others; None for all.

    Raises:
        DataError: no candles, an unreadable file, more than one interval, a symbol that is not
            there, or rows that a series cannot hold.
    """
    files = read_raw_folder(folder, symbols)
    interval = common_interval(files)
    series = []
    for raws in files.values():
        for raw in raws:
            back = np.flatnonzero(np.diff(raw.open_time_ms) <= 0)
            if back.size:
                raise DataError(
                    f"{raw.source}: rows are not in order of time or repeat, first after "
                    f"{int(raw.open_time_ms[back[0]])} ms; expected each open time once, ascending"
                )
        series.append(to_series(merge(raws).candles, market, interval, Origin.REAL))
    return series


def read_raw_folder(
    folder: Path, symbols: Collection[str] | None = None
) -> dict[str, list[RawCandles]]:
    """Read a folder as it is: symbol → its files in order of name.

    Raises:
        DataError: no folder, no candle file in it, an unreadable file, or a symbol not there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected a folder of candle files")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and _suffix(path)
    )
    if not paths:
        raise DataError(
            f"no candle files in {folder}; expected files ending in {' '.join(SUFFIXES)}, "
            "named after their symbol as in BTCUSDT.parquet"
        )
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(symbol_of(path), []).append(path)
    for symbol in symbols or ():
        if symbol not in found:
            raise DataError(f"no file of {symbol} in {folder}; it holds {' '.join(sorted(found))}")
    wanted = set(found if symbols is None else symbols)
    return {
        symbol: [read_candle_file(path) for path in files]
        for symbol, files in sorted(found.items())
        if symbol in wanted
    }


def read_candle_file(path: Path, symbol: str | None = None) -> RawCandles:
    """Read one file as it is.

    Args:
        path: a Parquet, CSV, CSV.gz or archive zip.
        symbol: taken from the file's name when None.

    Raises:
        DataError: the file cannot be read, is empty, or holds no candles; the message names it.
    """
    name = symbol or symbol_of(path)
    try:
        if path.suffix == ".parquet":
            return _from_frame(pl.read_parquet(path), name, path.name)
        if path.suffix == ".zip":
            return from_zip(path.read_bytes(), name, path.name)
        data = path.read_bytes()
        return from_csv(gzip.decompress(data) if path.suffix == ".gz" else data, name, path.name)
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(f"cannot read candles from {path}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Return the reason in one line; readers add advice that is for programmers."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def from_zip(data: bytes, symbol: str, source: str) -> RawCandles:
    """Read the CSV files inside an archive zip.

    Raises:
        DataError: no zip, a damaged one, or one without a CSV file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = sorted(name for name in archive.namelist() if name.endswith(".csv"))
            parts = [from_csv(archive.read(member), symbol, source) for member in members]
    except DAMAGED_ZIP as error:
        raise DataError(f"cannot read candles from {source}: {_said(error)}") from error
    if not parts:
        raise DataError(f"cannot read candles from {source}: the zip holds no .csv file")
    return parts[0] if len(parts) == 1 else concatenate(parts)


def from_csv(data: bytes, symbol: str, source: str) -> RawCandles:
    """Read CSV text, with a header or in the archive's order of columns.

    Raises:
        DataError: the text is no table of candles.
    """
    headed = not re.match(rb"\s*\"?-?\d", data[:64])
    try:
        frame = pl.read_csv(data, has_header=headed, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"cannot read candles from {source}: {_said(error)}") from error
    if not headed:
        if frame.width < len(ARCHIVE_COLUMNS) or _is_agg_trades(frame):
            raise DataError(_not_candles(source, [*map(str, frame.row(0))], frame))
        names = dict(zip(frame.columns, ARCHIVE_COLUMNS, strict=False))
        frame = frame.select(frame.columns[: len(ARCHIVE_COLUMNS)]).rename(names)
    return _from_frame(frame, symbol, source)


def concatenate(parts: Sequence[RawCandles]) -> RawCandles:
    """Lay parts of one symbol one after the other, as they are."""
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS]
    times = np.concatenate([part.open_time_ms for part in parts])
    return RawCandles(parts[0].symbol, parts[0].source, times, *columns)


def merge(parts: Sequence[RawCandles]) -> Merged:
    """Lay a symbol's files over each other: sorted, equal rows once, the later file wins."""
    whole = concatenate(parts)
    order = np.argsort(whole.open_time_ms, kind="stable")
    rows = whole.take(order)
    last = np.append(np.diff(rows.open_time_ms) != 0, True)
    same = ~last[:-1]
    for name in COLUMNS:
        column = getattr(rows, name)
        same &= (column[:-1] == column[1:]) | (np.isnan(column[:-1]) & np.isnan(column[1:]))
    conflicts = rows.open_time_ms[:-1][~last[:-1] & ~same]
    return Merged(
        candles=rows.take(last),
        repeated=int(np.count_nonzero(same)),
        conflicts=tuple(sorted({int(time) for time in conflicts})),
    )


def to_series(raw: RawCandles, market: Market, interval: str, origin: Origin) -> CandleSeries:
    """Make a series of rows that are sorted and unique.

    A missing volume becomes 0, as in Binance's own mark price klines.

    Raises:
        DataError: the rows are not what a series holds.
    """
    volume = np.zeros(len(raw)) if np.isnan(raw.volume).all() else raw.volume
    identity = SeriesId(origin, market, raw.symbol, interval)
    try:
        return CandleSeries(
            identity, raw.open_time_ms, raw.open, raw.high, raw.low, raw.close, volume
        )
    except DataError as error:
        raise DataError(f"{raw.source}: {error}") from error


def common_interval(files: dict[str, list[RawCandles]]) -> str:
    """Return the one interval of all files.

    Raises:
        DataError: more than one interval (the files are listed by it), or none can be told.
    """
    by_interval: dict[str, list[str]] = {}
    unknown: list[str] = []
    for raws in files.values():
        for raw in raws:
            name = interval_of(raw)
            if name is None:
                unknown.append(raw.source)
            else:
                by_interval.setdefault(name, []).append(raw.source)
    if len(by_interval) > 1:
        listed = "; ".join(f"{name}: {' '.join(by_interval[name])}" for name in by_interval)
        raise DataError(
            f"the folder mixes intervals ({listed}); expected one interval a folder: "
            "move the others to folders of their own"
        )
    if not by_interval:
        raise DataError(
            f"cannot tell the interval of {' '.join(unknown)} from a single candle; "
            "expected two or more candles, or an interval in the name as in BTCUSDT-1h.csv"
        )
    return next(iter(by_interval))


def interval_of(raw: RawCandles) -> str | None:
    """Return the interval of the commonest step, else the one the file's name says, else None.

    Raises:
        DataError: the commonest step is no Binance interval.
    """
    steps = np.diff(np.unique(raw.open_time_ms))
    if steps.size:
        lengths, counts = np.unique(steps, return_counts=True)
        try:
            return interval_of_ms(int(lengths[np.argmax(counts)]))
        except DataError as error:
            raise DataError(f"{raw.source}: {error}") from error
    tokens = re.split(r"[-_.]", raw.source)
    return next((token for token in tokens if token in INTERVALS_MS), None)


def symbol_of(path: Path) -> str:
    """Read the symbol from a file's name: BTCUSDT.parquet, spot-klines-BTCUSDT-1h-2024-10.zip.

    Raises:
        DataError: no part of the name is a symbol.
    """
    stem = path.name[: -len(_suffix(path) or "")] if _suffix(path) else path.stem
    tokens = [token for token in re.split(r"[-_ .]", stem) if token]
    for token in tokens:
        if token.isalnum() and token.upper().endswith(QUOTE_ASSETS) and _base(token):
            return token.upper()
    for base, quote in pairwise(tokens):
        if quote.upper() in QUOTE_ASSETS and base.isalnum():
            return (base + quote).upper()
    if len(tokens) == 1 and re.fullmatch(r"[A-Z0-9]{5,20}", tokens[0]):
        return tokens[0]
    raise DataError(
        f"cannot tell the symbol of {path.name}; expected it in the file's name, "
        "as in BTCUSDT.parquet or BTC_USDT-1h.csv"
    )


def _base(token: str) -> str:
    quote = next(quote for quote in QUOTE_ASSETS if token.upper().endswith(quote))
    return token[: -len(quote)]


def _suffix(path: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _is_agg_trades(frame: pl.DataFrame) -> bool:
    if AGG_TRADE_NAMES & {name.lower() for name in frame.columns}:
        return True
    if frame.width not in (7, 8) or not frame.height:
        return False
    return str(frame.row(0)[6]).lower() in {"true", "false"}


def _not_candles(source: str, seen: list[str], frame: pl.DataFrame) -> str:
    what = "aggregated trades" if _is_agg_trades(frame) else f"columns {' '.join(seen)}"
    return (
        f"{source} holds no candles but {what}; expected an open time and "
        f"{' '.join(COLUMNS)} (klines)"
    )


def _from_frame(frame: pl.DataFrame, symbol: str, source: str) -> RawCandles:
    try:
        frame = frame.rename({name: name.strip().lower() for name in frame.columns})
    except pl.exceptions.PolarsError as error:  # two columns of one name
        raise DataError(f"cannot read candles from {source}: {_said(error)}") from error
    time_name = next((name for name in TIME_NAMES if name in frame.columns), None)
    if time_name is None or _is_agg_trades(frame) or not {*COLUMNS[:4]} <= {*frame.columns}:
        raise DataError(_not_candles(source, frame.columns, frame))
    if not frame.height:
        raise DataError(f"{source} holds no rows")
    try:
        times = _milliseconds(frame[time_name])
        prices = [
            frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in COLUMNS[:4]
        ]
        if "volume" in frame.columns:
            volume = frame["volume"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        else:
            volume = np.full(frame.height, np.nan)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"cannot read candles from {source}: {_said(error)}") from error
    columns = [np.array(column, dtype=np.float64) for column in (*prices, volume)]
    return RawCandles(symbol, source, times, *columns)


def _milliseconds(column: pl.Series) -> NDArray[np.int64]:
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Int64, strict=False)
        column = column.str.to_datetime(time_zone="UTC") if numbers.null_count() else numbers
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("ms"))
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.epoch("ms")
    if column.null_count():
        raise pl.exceptions.ComputeError(f"{column.null_count()} rows have no open time")
    times = column.cast(pl.Int64).to_numpy().astype(np.int64)
    scale = np.abs(times).max()
    for limit, multiply, divide in ((10**11, 1000, 1), (10**14, 1, 1), (10**17, 1, 1000)):
        if scale < limit:
            return np.asarray(times * multiply // divide, dtype=np.int64)
    return np.asarray(times // 1_000_000, dtype=np.int64)
