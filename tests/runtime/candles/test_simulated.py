"""The simulated market is the same everywhere and looks like one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot4_runtime.candles.simulated import BLOCK, EPOCH_MS, SimulatedMarket
from bot4_runtime.domain.candle import Origin, interval_ms
from bot4_runtime.domain.errors import DataError

HOUR = 3_600_000


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 3 * BLOCK), st.integers(1, 600), st.sampled_from(["1m", "1h", "1w"]))
def test_any_range_is_a_slice_of_a_longer_one(start: int, length: int, interval: str) -> None:
    market, step = SimulatedMarket(9), interval_ms(interval)
    origin = EPOCH_MS + (86_400_000 if interval == "1w" else 0)
    begin = origin + start * step
    if interval == "1w":
        begin, length = origin + (start % 300) * step, length % 100 + 1
    part = market.series("ETHUSDT", interval, begin, begin + length * step)
    whole = market.series("ETHUSDT", interval, origin, begin + (length + 5) * step)
    same = whole.between(begin, begin + length * step)
    assert part.content_sha256() == same.content_sha256()
    assert len(part) == length
    assert part.id.origin is Origin.SIMULATED


def test_seeds_and_symbols_differ_and_names_need_no_table() -> None:
    end = EPOCH_MS + 50 * HOUR
    hashes = {
        SimulatedMarket(seed).series(symbol, "1h", EPOCH_MS, end).close.tobytes()
        for seed in (1, 2)
        for symbol in ("BTCUSDT", "ETHUSDT", "NEWUSDT")
    }
    assert len(hashes) == 6


def test_it_has_the_manners_of_a_market() -> None:
    market = SimulatedMarket(3)
    end = EPOCH_MS + 20_000 * HOUR
    one, other = (market.series(s, "1h", EPOCH_MS, end) for s in ("BTCUSDT", "ETHUSDT"))
    returns = np.diff(np.log(one.close))
    centred = returns - returns.mean()
    assert (centred**4).mean() / returns.var() ** 2 > 6
    size = np.abs(returns)
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.1
    assert np.corrcoef(returns, np.diff(np.log(other.close)))[0, 1] > 0.5
    assert 0.004 < returns.std() < 0.012
    assert len(one.runs()) == 1


def test_ranges_before_the_beginning_or_empty_are_refused() -> None:
    with pytest.raises(DataError, match="no 1h candles"):
        SimulatedMarket(1).series("BTCUSDT", "1h", 0, HOUR)
    with pytest.raises(DataError, match="no 1h candles"):
        SimulatedMarket(1).series("BTCUSDT", "1h", EPOCH_MS + HOUR, EPOCH_MS + HOUR)
