"""Simulated time at ten looks a second, with faults: the same in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot4_runtime.protection.day import TICKS_A_DAY, simulate_day

TICKS = 12_000


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


def test_twenty_minutes_have_the_same_state_hash_in_two_processes():
    assert simulate_day(1, TICKS).state_hash == elsewhere(1, TICKS)


def test_other_seeds_are_other_days():
    assert len({simulate_day(seed, 1_000).state_hash for seed in range(3)}) == 3


@pytest.mark.slow
def test_a_whole_day_has_the_same_state_hash_in_two_processes():
    here = simulate_day(7)
    assert here.ticks == TICKS_A_DAY
    assert here.plans > 0
    assert here.state_hash == elsewhere(7, TICKS_A_DAY)
