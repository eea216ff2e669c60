"""Crash campaigns: `python -m tests.crash [NAME...] [--full] [--jobs N] [--json FILE]`.

Every `campaign_<name>.py` beside this file has a TITLE, GOALS (see `crash_report`) and
`run(full, jobs, progress) -> dict`; a non-empty `violations` in what it returns, or an
AssertionError, fails the command. With --full the numbers go to docs/crash.md beside their
goals, with date and machine; a goal of speed that was missed fails nothing.

`python -m tests.crash simulation --seed N [--crash K]` shows one simulated run again and
tells its story.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPORT = ROOT / "docs" / "crash.md"
sys.path[:0] = [str(HERE), str(HERE.parent / "runtime" / "state"), str(ROOT)]

from crash_report import goals_of, rows_of, violations_of, write_report  # noqa: E402


def campaigns() -> dict[str, ModuleType]:
    """All campaigns by name."""
    found = sorted(path.stem for path in HERE.glob("campaign_*.py"))
    return {name.removeprefix("campaign_"): importlib.import_module(name) for name in found}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="campaigns; all by default")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--sample", action="store_true", help="a small sample (default)")
    size.add_argument("--full", action="store_true", help="the whole; writes docs/crash.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, help="tell the story of one simulated run")
    parser.add_argument("--crash", type=int, help="the boundary it is cut at")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return tell(options.seed, options.crash)
    known = campaigns()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no campaign {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = {name: known[name] for name in options.names or known}
    results = {name: _run(name, kind, options) for name, kind in chosen.items()}
    Console().print(_table(chosen, results, full=options.full))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2, default=str) + "\n")
    if options.full:
        write_report(REPORT, chosen, results)
    violated = [text for result in results.values() for text in violations_of(result)]
    for text in violated[:50]:
        print(text)
    return 1 if violated else 0


def tell(seed: int, crash: int | None) -> int:
    """Show one run of the simulation again."""
    from simulation import quiet
    from story import story

    quiet()
    try:
        lines, violations = story(seed, crash)
    except ValueError as error:
        print(error)
        return 2
    print("\n".join([*lines, "", *(violations or ["nothing was violated"])]))
    return 1 if violations else 0


def _run(name: str, kind: ModuleType, options: argparse.Namespace) -> dict[str, object]:
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started = time.perf_counter()
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=1.0, note="")

        def progress(share: float, note: str) -> None:
            bar.update(task, completed=share, note=note)

        try:
            result: dict[str, object] = kind.run(options.full, options.jobs, progress)
        except AssertionError as error:  # the other campaigns go on
            result = {"violations": [f"{name}: {error}"]}
        bar.update(task, completed=1.0)
    return {**result, "wall_s": round(time.perf_counter() - started, 1), "jobs": options.jobs}


def _table(
    chosen: dict[str, ModuleType], results: dict[str, dict[str, object]], *, full: bool
) -> Table:
    table = Table("campaign", "what", "measured", "goal", "", title="Crash campaigns")
    for name, result in results.items():
        goals = goals_of(chosen[name]) if full else {}
        for number, row in enumerate(rows_of(result, goals)):
            table.add_row(name if number == 0 else "", *row)
        table.add_section()
    return table


if __name__ == "__main__":
    sys.exit(main())
