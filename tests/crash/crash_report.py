"""The numbers of crash campaigns beside their goals, and docs/crash.md.

A campaign's GOALS name what it measured, how it must compare, and with what: a number, or the
name of another thing measured. They are of the whole campaign, not of its sample.
"""

import operator
import os
import platform
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

Goal = tuple[str, float | str]
Result = Mapping[str, object]

ALWAYS: Final[dict[str, Goal]] = {"violations": ("==", 0)}
_HOLDS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
}


class Row(NamedTuple):
    """One number of a campaign; goal and verdict are empty where there is no goal."""

    what: str
    measured: str
    goal: str
    verdict: str


def violations_of(result: Result) -> list[str]:
    """What was violated, as texts."""
    found = result.get("violations", [])
    return [str(text) for text in found] if isinstance(found, list) else [str(found)]


def rows_of(result: Result, goals: Mapping[str, Goal]) -> list[Row]:
    """Every number measured, and every goal though nothing was measured for it."""
    numbers: dict[str, object] = {
        name: value for name, value in result.items() if isinstance(value, int | float | str)
    }
    numbers["violations"] = len(violations_of(result))
    goals = {**goals, **ALWAYS}
    rows = []
    for what in [*numbers, *(name for name in goals if name not in numbers)]:
        value = numbers.get(what)
        goal = verdict = ""
        if what in goals:
            sign, wanted = goals[what]
            goal = f"{sign} {_shown(wanted)}"
            verdict = "met" if _holds(value, sign, numbers.get(str(wanted), wanted)) else "MISSED"
        rows.append(Row(what, "not measured" if value is None else _shown(value), goal, verdict))
    return rows


def _holds(value: object, sign: str, wanted: object) -> bool:
    numbers = isinstance(value, int | float) and isinstance(wanted, int | float)
    return numbers and _HOLDS[sign](value, wanted)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def goals_of(campaign: ModuleType) -> dict[str, Goal]:
    """The campaign's own goals."""
    goals: dict[str, Goal] = campaign.GOALS
    return goals


def write_report(
    path: Path, chosen: Mapping[str, ModuleType], results: Mapping[str, Result]
) -> None:
    """Write the report; campaigns that did not run keep their section."""
    path.parent.mkdir(exist_ok=True)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    machine = (
        f"{date}, {_cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}"
    )
    kept: dict[str, str] = {}
    if path.exists():
        for part in path.read_text().split("\n## ")[1:]:
            kept[part.partition("\n")[0]] = part.partition("\n")[2].strip()
    for name, result in results.items():
        campaign = chosen[name]
        lines = [f"Measured {machine}.", "", "| what | measured | goal | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows_of(result, goals_of(campaign))]
        for title, value in result.items():
            if isinstance(value, dict):
                lines += ["", f"| {title} | |", "|---|---|"]
                lines += [f"| {key} | {text} |" for key, text in sorted(value.items())]
        kept[str(campaign.TITLE)] = "\n".join(lines)
    head = (
        "# Crash campaigns\n\nWritten by `make crash`; `python -m tests.crash` runs a sample. "
        "What each invariant says is in `tests/crash/invariants.py`.\n"
    )
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sorted(kept.items()))
    path.write_text(head + body)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
