"""The simulated market as a source of history: its end is fixed, so that every run is the same."""

from typing import Final

from bot4_pipelines.ingest.wanted import DEFAULT_YEARS
from bot4_runtime.candles.series import WEEK_ORIGIN_MS, CandleSeries
from bot4_runtime.candles.simulated import DEFAULT_SEED, SimulatedMarket
from bot4_runtime.domain.candle import interval_ms

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT", "LTCUSDT")
FROM_MS: Final = 1_609_459_200_000
"""2021-01-01."""
TO_MS: Final = 1_735_689_600_000
"""2025-01-01: four years of history."""


def simulated_series(
    symbol: str,
    interval: str,
    *,
    years: float = DEFAULT_YEARS,
    from_ms: int | None = None,
    to_ms: int | None = None,
    seed: int = DEFAULT_SEED,
) -> CandleSeries | None:
    """Return what of a symbol's simulated history opens in [from_ms, to_ms), origin simulated.

    The history is the last `years` before `TO_MS`. Only what is asked for is made; None when that
    is nothing.
    """
    begins = FROM_MS + round((DEFAULT_YEARS - years) * (TO_MS - FROM_MS) / DEFAULT_YEARS)
    step, origin = interval_ms(interval), WEEK_ORIGIN_MS if interval == "1w" else 0
    first, stop = (
        origin - (origin - edge) // step * step
        for edge in (
            begins if from_ms is None else max(begins, from_ms),
            TO_MS if to_ms is None else min(TO_MS, to_ms),
        )
    )
    return SimulatedMarket(seed).series(symbol, interval, first, stop) if first < stop else None
