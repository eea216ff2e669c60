"""Makes the modules of this folder importable, as `python -m tests.fuzz` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
