"""What the engine remembers of the market: features, correlations, depth, recent returns.

Nothing here is journaled. It is a pure function of the candles shown, so that showing the
session's candles again after a restart rebuilds it bit for bit.
"""

import math
from collections import deque
from statistics import median
from typing import Final

from bot4_runtime.domain.candle import Candle
from bot4_runtime.features.incremental import FeatureRow, FeatureState
from bot4_runtime.risk.correlation import Correlations

DEPTH_CANDLES: Final = 24
"""Candles over whose median quote volume the stated depth is a share."""
RECENT_CANDLES: Final = 24
"""Candles over which the recent return is measured."""
VOLATILITY_CANDLES: Final = 72
"""Candles over which volatility is measured where no models run."""


_ROOT_CANDLES: Final = math.sqrt(VOLATILITY_CANDLES)


class _SymbolMemory:
    """One symbol's windows; they restart after a gap."""

    __slots__ = ("closes", "features", "next_open_ms", "quote_volumes", "returns")

    def __init__(self, features: FeatureState | None) -> None:
        self.features = features
        self.next_open_ms = -1
        self.closes: deque[float] = deque(maxlen=RECENT_CANDLES + 1)
        self.quote_volumes: deque[float] = deque(maxlen=DEPTH_CANDLES)
        self.returns: deque[float] = deque(maxlen=VOLATILITY_CANDLES)


class MarketMemory:
    """Feeds candles to everything that remembers them.

    Args:
        with_features: whether the strategy declared models; features run only then.
        depth_share: depth within 10 bps as a share of the median quote volume of 24 candles.
        correlations: fed with every log return.
    """

    def __init__(
        self, *, with_features: bool, depth_share: float, correlations: Correlations
    ) -> None:
        self.correlations = correlations
        self._with_features = with_features
        self._depth_share = depth_share
        self._symbols: dict[str, _SymbolMemory] = {}

    def update(self, candle: Candle) -> FeatureRow | None:
        """Remember a candle; return its feature row when features run."""
        memory = self._symbols.get(candle.symbol)
        if memory is None:
            features = (
                FeatureState(candle.symbol, candle.interval) if self._with_features else None
            )
            memory = self._symbols[candle.symbol] = _SymbolMemory(features)
        closes, close = memory.closes, candle.close
        if memory.next_open_ms == candle.open_time_ms:
            log_return = math.log(close / closes[-1])
            memory.returns.append(log_return)
            self.correlations.update(candle.symbol, candle.open_time_ms, log_return)
        else:
            closes.clear()
            memory.returns.clear()
        memory.next_open_ms = candle.close_time_ms
        closes.append(close)
        memory.quote_volumes.append(candle.volume * close)
        return memory.features.update(candle) if memory.features is not None else None

    def gap_before(self, candle: Candle) -> int | None:
        """Open time, ms, of the first candle missing before this one; None when none is."""
        memory = self._symbols.get(candle.symbol)
        if memory is None:
            return None
        expected = memory.next_open_ms
        return expected if candle.open_time_ms > expected else None

    def depth_quote(self, symbol: str) -> float:
        """Stated depth within 10 bps, in quote; NaN (which risk refuses) before 24 candles."""
        memory = self._symbols[symbol]
        if len(memory.quote_volumes) < DEPTH_CANDLES:
            return math.nan
        return self._depth_share * median(memory.quote_volumes)

    def recent_return(self, symbol: str) -> float | None:
        """Return over the last 24 candles as a share; None until they are there."""
        closes = self._symbols[symbol].closes
        return closes[-1] / closes[0] - 1.0 if len(closes) > RECENT_CANDLES else None

    def volatility(self, symbol: str) -> float | None:
        """Root mean square of the last 72 log returns; None until they are there."""
        returns = self._symbols[symbol].returns
        if len(returns) < VOLATILITY_CANDLES:
            return None
        return math.hypot(*returns) / _ROOT_CANDLES
