"""What the replay benchmark replays: a random walk, of which every cross trades."""

import numpy as np
import pytest

pytest.importorskip("benchmarks.replay")  # mutation testing copies the tests alone
from benchmarks.replay import WARM, any_loss_streak, crosses, random_walk, replay, settings
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.risk.limits import RiskLimits

YEAR = 525_600


@pytest.fixture(scope="module")
def year():
    return random_walk(YEAR)


def test_the_walk_has_neither_momentum_nor_a_pull(year):
    steps = np.diff(np.log(year["close"].to_numpy()))
    noise = 1 / np.sqrt(len(steps))
    for lag in (1, 2, 10, 60):
        assert abs(np.corrcoef(steps[:-lag], steps[lag:])[0, 1]) < 4 * noise
    days = np.log(year["close"].to_numpy())[::1440]
    ratio = np.var(np.diff(days)) / (1440 * np.var(steps))
    assert abs(ratio - 1) < 4 * np.sqrt(2 / len(days))  # variance grows with time


def test_its_candles_are_possible_and_its_seed_says_which(year):
    low, high = year["low"].to_numpy(), year["high"].to_numpy()
    for name in ("open", "close"):
        assert np.all((low <= year[name].to_numpy()) & (year[name].to_numpy() <= high))
    assert random_walk(10, seed=7).equals(random_walk(10, seed=7))
    assert not random_walk(10, seed=7).equals(random_walk(10, seed=8))


def test_a_year_has_about_the_crosses_that_backtesters_are_compared_by(year):
    assert crosses(year, YEAR) == pytest.approx(11_700, rel=0.02)


def trips(folder, frame):
    candles = folder / "candles"
    candles.mkdir(parents=True)
    frame.write_parquet(candles / "BTCUSDT.parquet")
    with_ = settings(folder / "home", "benchmarks.ema_cross:EmaCross")
    return replay(candles, folder / "journal", with_).trips


def test_every_cross_trades_once_streaks_of_losses_are_let_be(tmp_path):
    frame = random_walk(6_000)
    expected, fast, slow, above = 0, None, None, False
    for number, close in enumerate(frame["close"].to_list()):
        fast = close if fast is None else fast + 2 / 11 * (close - fast)
        slow = close if slow is None else slow + 2 / 21 * (close - slow)
        expected += number >= WARM and fast > slow and not above
        above = fast > slow
    assert crosses(frame, 6_000) == expected
    with any_loss_streak():
        found = trips(tmp_path / "lifted", frame)
    assert expected - 1 <= found <= expected  # the last may still be held
    assert trips(tmp_path / "hard", frame) < 0.9 * expected


def test_the_hard_limit_is_back_afterwards():
    with any_loss_streak():
        RiskLimits(max_loss_streak=11)
    with pytest.raises(ConfigError, match="hard limit is 10"):
        RiskLimits(max_loss_streak=11)
