"""Where Binance streams market data, as of 2026: each address is a setting."""

from dataclasses import dataclass
from typing import Final

TESTNET_SPOT: Final = "wss://stream.testnet.binance.vision"
"""Of the spot testnet."""
TESTNET_USDM: Final = "wss://fstream.binancefuture.com"
"""Of the USD-M testnet, before the route."""


@dataclass(frozen=True, slots=True)
class StreamHosts:
    """Where market streams are, without the ``/stream`` at the end.

    Attributes:
        spot: of the spot market.
        usdm_public: of USD-M's books and best prices.
        usdm_market: of all else of USD-M.
    """

    spot: str = "wss://stream.binance.com:9443"
    usdm_public: str = "wss://fstream.binance.com/public"
    usdm_market: str = "wss://fstream.binance.com/market"
