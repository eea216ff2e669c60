"""The regime follower follows its rule and nothing else; the drill keeps its schedule."""

import itertools

import pytest

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import EstimateSource, Regime, RegimeEstimate
from bot4_runtime.domain.signal import SignalAction
from bot4_runtime.strategy.drill import CYCLE, HOLD, Drill
from bot4_runtime.strategy.regime_follower import RegimeFollower
from bot4_runtime.strategy.rules import stop_distance

HOUR = 3_600_000


def candle(number: int, symbol: str = "BTCUSDT") -> Candle:
    return Candle(
        symbol=symbol, interval="1h", open_time_ms=number * HOUR,
        open=100.0, high=103.0, low=99.0, close=101.0, volume=5.0,
    )  # fmt: skip


def estimate(regime: Regime, volatility: float = 0.005) -> RegimeEstimate:
    probabilities = [0.05] * 5
    probabilities[regime] = 0.8
    return RegimeEstimate(
        symbol="BTCUSDT", interval="1h", open_time_ms=7 * HOUR, regime=regime,
        probabilities=tuple(probabilities), confidence=0.8, source=EstimateSource.LSTM,
        hmm_regime=regime, hmm_confidence=0.7, volatility=volatility,
        model_sha256="0" * 64, schema_id="s",
    )  # fmt: skip


@pytest.mark.parametrize("previous", [None, *Regime])
@pytest.mark.parametrize("current", list(Regime))
def test_the_regime_follower_enters_and_leaves_by_its_rule(
    previous: Regime | None, current: Regime
) -> None:
    signals = RegimeFollower().on_regime(estimate(current), previous, candle(7))
    if current <= Regime.BEAR:
        expected = [SignalAction.EXIT]
    elif current is Regime.STRONG_BULL and previous not in {None, Regime.STRONG_BULL}:
        expected = [SignalAction.ENTER]
    else:
        expected = []
    assert [s.action for s in signals] == expected


def test_a_signal_carries_what_it_was_decided_on() -> None:
    (signal,) = RegimeFollower().on_regime(
        estimate(Regime.STRONG_BULL, 0.006), Regime.BULL, candle(7)
    )
    assert signal.signal_id == f"regime_follower:BTCUSDT:{7 * HOUR}"
    assert (signal.side, signal.price, signal.confidence) == (Side.BUY, 101.0, 0.8)
    assert signal.stop_distance == stop_distance(0.006)
    assert signal.ts_ns == 8 * HOUR * 1_000_000
    assert signal.reason == "regime StrongBull"
    (leave,) = RegimeFollower().on_regime(estimate(Regime.BEAR), Regime.BULL, candle(7))
    assert leave.side is Side.SELL


def test_the_regime_follower_decides_on_estimates_alone() -> None:
    follower = RegimeFollower()
    follower.warm(candle(1))
    assert list(follower.on_candle(candle(2))) == []


def test_the_drill_enters_every_cycle_and_leaves_after_its_hold() -> None:
    drill = Drill()
    drill.warm(candle(0))
    signals = [
        (number, signal)
        for number in range(1000, 1000 + 10 * CYCLE)
        for signal in drill.on_candle(candle(number))
    ]
    entries = [n for n, s in signals if s.action is SignalAction.ENTER]
    exits = [n for n, s in signals if s.action is SignalAction.EXIT]
    assert len(entries) == len(exits) == 10
    assert {b - a for a, b in itertools.pairwise(entries)} == {CYCLE}
    assert {n % CYCLE for n in exits} == {(entries[0] + HOLD) % CYCLE}
    assert all(
        s.limit_price == pytest.approx(s.price * 0.999)
        for _, s in signals
        if s.action is SignalAction.ENTER
    )
    assert drill.on_regime(estimate(Regime.BULL), None, candle(1)) == ()


def test_the_drill_keeps_symbols_out_of_step() -> None:
    names = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT", "LTCUSDT", "SOLUSDT"]
    phases = {
        name: next(n for n in range(CYCLE) if Drill().on_candle(candle(n, name))[:1])
        for name in names
    }
    assert len(set(phases.values())) > 1
