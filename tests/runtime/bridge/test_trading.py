"""A paper session ends the same with the bridge on, with Redis killed under it, and with none."""

import itertools
import threading
from decimal import Decimal

import pytest

from bot4_runtime.app import RunOptions, build
from bot4_runtime.bridge import read_stream
from bot4_runtime.domain.events import CandleClosed, OrderFilled
from bot4_runtime.settings import load_settings

pytestmark = [pytest.mark.redis, pytest.mark.timeout(120)]

HOUR = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01
CANDLES = 300


@pytest.fixture
def trade(tmp_path):
    """Run the drill over the same simulated candles; return its hash, counters and metrics."""
    numbers = itertools.count()

    def run(redis_url, at_half=None):
        home = tmp_path / f"home{next(numbers)}"
        overrides = {
            "runtime": {"strategy": "drill", "symbols": ["BTCUSDT"], "account": "bridged"},
            "bridge": {"redis_url": redis_url},
        }
        settings = load_settings(environment={"BOT4_HOME": str(home)}, overrides=overrides)

        def on_progress(done, _candle):
            if done == CANDLES // 2 and at_half is not None:
                at_half()

        options = RunOptions(
            source="simulated:5", from_ms=START_MS, to_ms=START_MS + CANDLES * HOUR
        )
        made = build(
            settings, options, mode="paper", folder=home / "state", on_progress=on_progress
        )
        result = made.execute(threading.Event())
        assert result.candles == CANDLES
        return result.state_hash, made

    return run


def test_trading_is_the_same_whatever_redis_does(trade, own_redis):
    plain, made = trade("")
    assert made.bridge is None
    without, made = trade(own_redis.url)
    assert made.bridge.counters()["forwarded"] == 0
    own_redis.start()
    bridged, made = trade(own_redis.url)
    assert made.bridge.counters()["dropped"] == 0
    assert made.metrics.registry.get_sample_value("bot4_bridge_forwarded_total") > CANDLES
    assert made.metrics.registry.get_sample_value("bot4_bus_handler_errors_total") == 0
    stop, fills, candles = threading.Event(), [], 0
    for item in read_stream(own_redis.url, "bridged", ("orders", "market"), stop=stop):
        fills += [item.event.fill] if isinstance(item.event, OrderFilled) else []
        candles += isinstance(item.event, CandleClosed)
        if candles == CANDLES:
            stop.set()
    state = made.store.state
    assert sum(fill.fee for fill in fills if fill.fee_asset == "USDT") > Decimal(0)
    assert len(fills) > 5
    assert {fill.intent_no for fill in fills} <= set(range(1, state.next_intent_no))
    killed, made = trade(own_redis.url, at_half=own_redis.kill)
    own_redis.start()
    flushed, made = trade(own_redis.url, at_half=lambda: own_redis.client().flushall())
    assert plain == without == bridged == killed == flushed
