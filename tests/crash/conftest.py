"""Makes the simulation, the campaigns and `state_scenario` importable for these tests."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "runtime" / "state")]
