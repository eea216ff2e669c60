"""The built-in market: invented candles with the manners of real ones. It is no market.

Returns are Student t with clustered volatility, slow trends and one factor that all symbols
share; volume follows the range. Time is cut into blocks of `BLOCK` candles from `EPOCH_MS` on;
each block has its own generators, so any range equals the same slice of a longer one. Different
intervals of one symbol are different markets.
"""

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market, Origin, SeriesId, interval_ms
from bot4_runtime.domain.errors import DataError

EPOCH_MS: Final = 1_483_228_800_000
"""2017-01-01 UTC, where the simulated market begins."""

DEFAULT_SEED: Final = 4
"""Of the history the pipeline learns from and of the market a session trades after it."""
BLOCK: Final = 8_192
MEMORY: Final = 400
YEAR_MS: Final = 31_557_600_000
VOLATILITY: Final = 0.65
MARKET_SHARE: Final = 0.8
FIRST_PRICES: Final = {
    "BTCUSDT": 40_000.0,
    "ETHUSDT": 2_400.0,
    "BNBUSDT": 320.0,
    "LTCUSDT": 90.0,
    "ADAUSDT": 0.5,
    "SOLUSDT": 90.0,
    "XRPUSDT": 0.6,
}
Columns = tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
]


class SimulatedMarket:
    """Candles of any symbol and interval, the same for the same seed on every machine.

    Args:
        seed: names the market.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def series(self, symbol: str, interval: str, from_ms: int, to_ms: int) -> CandleSeries:
        """Return the candles that open in [from_ms, to_ms), without gaps.

        Raises:
            DataError: the interval is unknown, or the range is empty or before `EPOCH_MS`.
        """
        step = interval_ms(interval)
        origin = -(-EPOCH_MS // step) * step if interval != "1w" else EPOCH_MS + 86_400_000
        first, last = -(-(from_ms - origin) // step), -(-(to_ms - origin) // step)
        if first < 0 or last <= first:
            raise DataError(
                f"the simulated market has no {interval} candles in [{from_ms}, {to_ms}) ms; "
                f"expected a range that is not empty and begins at or after {origin} ms"
            )
        blocks = range(first // BLOCK, (last - 1) // BLOCK + 1)
        parts = [_block(self.seed, symbol, step, block) for block in blocks]
        rows = slice(first - blocks[0] * BLOCK, last - blocks[0] * BLOCK)
        columns = [np.concatenate(column)[rows] for column in zip(*parts, strict=True)]
        times = origin + step * np.arange(first, last, dtype=np.int64)
        identity = SeriesId(Origin.SIMULATED, Market.SPOT, symbol, interval)
        return CandleSeries(identity, times, *columns)


@lru_cache(maxsize=64)
def _block(seed: int, symbol: str, step: int, block: int) -> Columns:
    """Make one block: open, high, low, close, volume, each float64[BLOCK]."""
    scale = VOLATILITY * np.sqrt(step / YEAR_MS)
    market_vol, market_shock = _factor(seed, "", step, block)
    own_vol, own_shock = _factor(seed, symbol, step, block)
    log_vol = 0.35 * (0.8 * market_vol + 0.6 * own_vol)
    shock = MARKET_SHARE * market_shock + np.sqrt(1 - MARKET_SHARE**2) * own_shock
    returns = scale * np.exp(log_vol) * shock
    start, end = _anchor(seed, symbol, step, block), _anchor(seed, symbol, step, block + 1)
    returns += (end - start - returns.sum()) / BLOCK

    generator = _generator(seed, symbol, step, "shape", block)
    first_price = _first_price(symbol)
    tick = 10.0 ** -float(np.clip(6 - np.floor(np.log10(first_price)), 2, 8))
    close = first_price * np.exp(start + np.cumsum(returns))
    before = np.concatenate(([first_price * np.exp(start)], close[:-1]))
    ticks_before, ticks_close = np.rint(before / tick), np.rint(close / tick)
    ticks_open = np.maximum(ticks_before + generator.integers(-1, 2, BLOCK), 1.0)
    ticks_open[0] = ticks_before[0]
    ticks_close = np.maximum(ticks_close, 1.0)
    wick = generator.exponential(0.45, (2, BLOCK)) * scale * np.exp(log_vol) * close / tick
    top = np.maximum(ticks_open, ticks_close) + np.rint(wick[0])
    bottom = np.minimum(ticks_open, ticks_close)
    bottom = np.maximum(bottom - np.rint(wick[1]), np.minimum(bottom, 1.0))

    span = np.log1p((top - bottom) * tick / (close * scale))
    busy = 1.4 * span + generator.normal(0.0, 0.3, BLOCK) + 0.5 * log_vol
    quote_volume = 4e7 * (step / 3_600_000) * np.exp(busy)
    volume = np.maximum(np.round(quote_volume / close, 5), 1e-5)
    columns = (ticks_open * tick, top * tick, bottom * tick, ticks_close * tick, volume)
    digits = int(-np.log10(tick) + 0.5)
    open_, high, low, close = (np.round(column, digits) for column in columns[:4])
    return open_, high, low, close, volume


def _factor(
    seed: int, symbol: str, step: int, block: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log volatility (mean 0, standard deviation about 1) and unit shocks of a block."""
    volatility = _remembering(seed, symbol, step, "volatility", block, decay=0.985)
    trend = _remembering(seed, symbol, step, "trend", block, decay=0.97)
    tails = _generator(seed, symbol, step, "shock", block).standard_t(4, BLOCK)
    return volatility, np.clip(tails, -12.0, 12.0) / np.sqrt(2.0) + 0.05 * trend


def _remembering(
    seed: int, symbol: str, step: int, name: str, block: int, *, decay: float
) -> NDArray[np.float64]:
    """First-order memory over unit normals, cut off after `MEMORY`; it runs on across blocks."""
    draws = [
        _generator(seed, symbol, step, name, number).standard_normal(BLOCK)
        for number in (block - 1, block)
    ]
    noise = np.concatenate((draws[0][-(MEMORY - 1) :], draws[1]))
    kernel = decay ** np.arange(MEMORY)
    return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), mode="valid")


@lru_cache(maxsize=256)
def _anchor(seed: int, symbol: str, step: int, block: int) -> float:
    """Return the log price a block starts from, over the first price; it reverts to 0 slowly."""
    years = BLOCK * step / YEAR_MS
    market = _generator(seed, "", step, "anchor", 0).standard_normal(block + 1)
    own = _generator(seed, symbol, step, "anchor", 0).standard_normal(block + 1)
    pull = np.exp(-years / 1.5)
    level = 0.0
    for common, alone in zip(market[1:], own[1:], strict=True):
        level = pull * level + np.sqrt(years) * (0.5 * common + 0.35 * alone)
    return float(np.clip(level, -2.5, 2.5))


def _first_price(symbol: str) -> float:
    if symbol in FIRST_PRICES:
        return FIRST_PRICES[symbol]
    share = hashlib.sha256(symbol.encode()).digest()[0] / 255
    return float(np.round(10.0 ** (3.0 * share - 1.0), 4))


def _generator(seed: int, symbol: str, step: int, name: str, block: int) -> np.random.Generator:
    """Seed a generator from what it is for; names are hashed, so that no two are alike."""
    digest = hashlib.sha256(f"{seed}/{symbol}/{step}/{name}/{block}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
