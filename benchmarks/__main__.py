"""Runs every ``bench_*.py`` beside it: ``python -m benchmarks [NAME …]``.

A benchmark module has a ``TITLE`` and a ``run()`` that returns results. JSON goes to
``$BOT4_HOME/bench``, one file a benchmark. A missed target is printed, not an error.
"""

import importlib
import os
import sys
from pathlib import Path

from benchmarks.harness import report


def main() -> None:
    """Run all, or those named."""
    here = Path(__file__).parent
    known = sorted(path.stem.removeprefix("bench_") for path in here.glob("bench_*.py"))
    wanted = sys.argv[1:] or known
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.stderr.write(f"unknown benchmark {unknown[0]!r}; known: {' '.join(known)}\n")
        sys.exit(2)
    folder = Path(os.environ.get("BOT4_HOME", ".bot4")) / "bench"
    for name in wanted:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        report(module.TITLE, module.run(), folder)
    print(f"\nJSON in {folder}")


main()
