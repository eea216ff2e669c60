"""The simulated market as a source of history: a fixed range, so that every run is the same."""

from typing import Final

from bot4_pipelines.ingest.wanted import DEFAULT_YEARS
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import DEFAULT_SEED, SimulatedMarket

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT", "LTCUSDT")
FROM_MS: Final = 1_609_459_200_000
"""2021-01-01."""
TO_MS: Final = 1_735_689_600_000
"""2025-01-01: four years of history."""


def simulated_history(
    symbols: tuple[str, ...] = SYMBOLS,
    interval: str = "1h",
    seed: int = DEFAULT_SEED,
    years: float = DEFAULT_YEARS,
) -> list[CandleSeries]:
    """Return the simulated history, one series a symbol, origin simulated; `years` of it."""
    market = SimulatedMarket(seed)
    from_ms = FROM_MS + round((DEFAULT_YEARS - years) * (TO_MS - FROM_MS) / DEFAULT_YEARS)
    return [market.series(symbol, interval, from_ms, TO_MS) for symbol in symbols]
