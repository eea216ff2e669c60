"""Simulated time at ten looks a second, with faults: the same in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot4_runtime.protection.day import TICKS_A_DAY, simulate_day

TICKS = 50_000
SEED = 40
"""Falls far enough within `TICKS` for protection to act."""


def elsewhere(seed: int, ticks: int) -> str:
    code = (
        "from bot4_runtime.protection.day import simulate_day\n"
        f"print(simulate_day({seed}, {ticks}).state_hash)"
    )
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONHASHSEED": "11", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def test_a_fall_that_protection_acts_in_has_the_same_state_hash_in_two_processes():
    here = simulate_day(SEED, TICKS)
    assert here.plans > 0
    assert here.state_hash == elsewhere(SEED, TICKS)


def test_other_seeds_are_other_days():
    assert len({simulate_day(seed, 1_000).state_hash for seed in range(3)}) == 3


@pytest.mark.slow
def test_a_whole_day_has_the_same_state_hash_in_two_processes():
    here = simulate_day(7)
    assert here.ticks == TICKS_A_DAY
    assert here.plans > 0
    assert here.state_hash == elsewhere(7, TICKS_A_DAY)
