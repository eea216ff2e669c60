import pytest

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.events import CandleClosed


@pytest.fixture
def candle_closed() -> CandleClosed:
    candle = Candle(
        symbol="BTCUSDT", interval="1h", open_time_ms=0,
        open=1.0, high=2.0, low=0.5, close=1.5, volume=3.0,
    )  # fmt: skip
    return CandleClosed(ts_event_ns=candle.close_time_ms * 1_000_000, candle=candle)
