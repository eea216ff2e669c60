"""Runs every ``bench_*.py`` beside it: ``python -m benchmarks [NAME …]``, or ``--write``.

A benchmark module has a ``TITLE`` and a ``run()`` that returns results. JSON goes to
``$BOT4_HOME/bench``, one file a benchmark; one table of all targets is printed at the end,
and with ``--write``, of all of them, also becomes ``docs/benchmarks.md``, beside a new flame
graph of a replay. A missed target is no error. `bench_pipeline` is run by itself: it has a page of
its own.
"""

import importlib
import os
import sys
from pathlib import Path

from benchmarks import flamegraph, table
from benchmarks.harness import ROOT, report

APART = {"pipeline"}


def main() -> None:
    """Run all, or those named."""
    here = Path(__file__).parent
    found = {path.stem.removeprefix("bench_") for path in here.glob("bench_*.py")}
    known = sorted(found - APART)
    write = "--write" in sys.argv
    wanted = [name for name in sys.argv[1:] if name != "--write"] or known
    unknown = [name for name in wanted if name not in known]
    if write and wanted != known:
        sys.stderr.write("--write makes the page of all benchmarks; leave the names out\n")
        sys.exit(2)
    if unknown:
        sys.stderr.write(f"unknown benchmark {unknown[0]!r}; known: {' '.join(known)}\n")
        sys.exit(2)
    folder = Path(os.environ.get("BOT4_HOME", ".bot4")) / "bench"
    groups = []
    for name in wanted:
        module = importlib.import_module(f"benchmarks.bench_{name}")
        results = module.run()
        report(module.TITLE, results, folder)
        groups.append((module.TITLE, results))
    print("\n" + table.text(groups))
    print(f"\nJSON in {folder}")
    if write:
        page = table.page(groups, flamegraph.write())
        (ROOT / "docs" / "benchmarks.md").write_text(page, encoding="utf-8")


main()
