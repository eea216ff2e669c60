"""M1 and M3: the order path simulated from seeds, and the planted bugs that must be caught."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

from paper_simulation import PaperOutcome, explore_paper
from planted_bugs import BUGS, Verdict, caught
from simulation import Outcome, evidence, explore, quiet

TITLE = "Simulation: every crash point of the order path (M1), planted bugs (M3)"
GOALS = {
    "seeds": (">=", 1_000),
    "runs": (">=", 50_000),
    "seconds": ("<=", 240),
    "bugs_planted": (">=", 20),
    "bugs_caught": ("==", "bugs_planted"),
}
SEEDS = {False: 12, True: 1_000}
PAPER_SEEDS = {False: 4, True: 100}
BUG_SEEDS = 20
"""How many seeds a bug may hide in before it has survived."""

Progress = Callable[[float, str], None]


def run(full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Explore seeds and hunt bugs; `violations` of the result is empty when all held."""
    evidence()
    seeds = SEEDS[full]
    started = time.perf_counter()
    totals: dict[str, int] = {"boundaries": 0, "runs": 0, "orders": 0, "fills": 0}
    violations: list[str] = []
    for done, outcome in enumerate(spread(_explored, range(1, seeds + 1), jobs), 1):
        for name in totals:
            totals[name] += getattr(outcome, name)
        violations += told(outcome)
        progress(0.75 * done / seeds, f"{totals['runs']:,} runs of {done} seeds")
    simulated_s = time.perf_counter() - started
    paper_runs = 0
    for paper in spread(_explored_on_paper, range(1, PAPER_SEEDS[full] + 1), jobs):
        paper_runs += paper.runs
        violations += [f"paper seed {paper.seed} at {at}: {text}" for at, text in paper.failures]
        progress(0.78, f"{paper_runs:,} runs on paper")
    bugs: dict[str, str] = {}
    for number, (name, verdict) in enumerate(spread(_hunted, range(len(BUGS)), jobs), 1):
        if verdict is None:
            violations.append(f"planted bug {name} survived {BUG_SEEDS} seeds")
        else:
            bugs[name] = f"{verdict.by[:100]} (seed {verdict.seed}, {verdict.runs} runs)"
        progress(0.8 + 0.2 * number / len(BUGS), f"planted bug {name}")
    return {
        "seeds": seeds,
        **totals,
        "seconds": round(simulated_s, 1),
        "runs_per_second": round(totals["runs"] / simulated_s),
        "paper_runs": paper_runs,
        "bugs_planted": len(BUGS),
        "bugs_caught": len(bugs),
        "caught_by": bugs,
        "violations": violations,
    }


def told(outcome: Outcome) -> list[str]:
    """What was violated, each with the command that shows it again."""
    return [
        f"{found[0]} at {name}: python -m tests.crash simulation --seed {outcome.seed}"
        + (f" --crash {number}" if number else "")
        for number, name, found in outcome.failures
    ]


def spread(work: Callable[[int], Any], tasks: range, jobs: int) -> Iterator[Any]:
    """Do the tasks, in `jobs` processes; results come as they are ready."""
    if jobs <= 1:
        quiet()
        yield from map(work, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs, quiet) as pool:
        yield from pool.imap_unordered(work, tasks)


def _explored(seed: int) -> Outcome:
    return explore(seed)


def _explored_on_paper(seed: int) -> PaperOutcome:
    return explore_paper(seed)


def _hunted(number: int) -> tuple[str, Verdict | None]:
    bug = BUGS[number]
    return bug.name, caught(bug, [bug.seed, *range(BUG_SEEDS)])
