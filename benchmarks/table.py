"""One table of all targets: measured, specified, goal, floor, peer, met or missed."""

import math
from collections.abc import Sequence

from benchmarks.harness import Result, amount, machine
from benchmarks.missed import reasons

HEADS = ("benchmark", "unit", "best", "median", "specified", "goal", "floor", "peer", "verdict")
Group = tuple[str, Sequence[Result]]


def rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """Return the cells of every row that has a target.

    Raises:
        LookupError: a floor or a peer that a row names is not in its group.
        ValueError: it is measured in another unit.
    """
    found = []
    for title, results in groups:
        room = title.split(":", maxsplit=1)[0]
        for row in results:
            if row.targets and row.kind == "ours":
                floor = _named(row.floor, row, results) if row.floor else None
                peers = [_named(name, row, results) for name in row.peers]
                found.append(
                    (
                        f"{room}: {row.name}",
                        row.unit,
                        amount(row.min),
                        amount(row.median),
                        _wanted(row, row.specified),
                        _wanted(row, row.goal),
                        f"{floor.name} {amount(floor.median)}" if floor else "",
                        "; ".join(_beside(row, peer) for peer in peers),
                        row.verdict,
                    )
                )
    return found


def text(groups: Sequence[Group]) -> str:
    """Return the table for a terminal."""
    lines = [HEADS, *rows(groups)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def page(groups: Sequence[Group], where: str) -> str:
    """Return docs/benchmarks.md: the table of targets, where time goes, then every row.

    Args:
        groups: the title and the rows of every benchmark.
        where: what `benchmarks.flamegraph` says of a replay.
    """
    facts = machine()
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Minimum and median of many rounds on "
        f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']} at the end, "
        f"{facts['system']}, CPython {facts['python']}, {facts['date']}; {facts['bot4']}. "
        "The machine is shared and noisy: the best round says what the code costs, the median "
        "what it costs here. A verdict is of the median.",
        "",
        "## Targets",
        "",
        *markdown(HEADS, rows(groups)),
        "",
        "## What is missed, and why",
        "",
        *(reasons(groups) or ["Nothing."]),
        "",
        "## Where a replay's time goes",
        "",
        where,
        "",
        "[![Flame graph of a replay](images/replay-flamegraph.svg)](images/replay-flamegraph.svg)",
    ]
    for title, results in groups:
        cells = [
            (row.kind, row.name, row.unit, amount(row.min), amount(row.median), amount(row.p99),
             row.note)
            for row in results
        ]  # fmt: skip
        heads = ("kind", "row", "unit", "best", "median", "p99", "note")
        lines += ["", f"## {title}", "", *markdown(heads, cells)]
    return "\n".join(lines) + "\n"


def markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'|'.join(['---'] * len(heads))}|",
        *(f"| {' | '.join(line)} |" for line in cells),
    ]


def _named(name: str, row: Result, results: Sequence[Result]) -> Result:
    other = next((other for other in results if other.name == name), None)
    if other is None:
        raise LookupError(f"{row.name!r} is held beside {name!r}, which its benchmark lacks")
    if other.unit != row.unit:
        raise ValueError(
            f"{row.name!r} is measured in {row.unit}, {name!r} beside it in {other.unit}"
        )
    return other


def _beside(row: Result, peer: Result) -> str:
    if math.isnan(peer.median):
        return f"{peer.name}: not measured"
    return f"{peer.name} {amount(peer.median)} ({_ratio(row, peer)})"


def _ratio(row: Result, peer: Result) -> str:
    """How many times as good as the peer; under 1 where the peer is better."""
    high, low = (row, peer) if row.better == "higher" else (peer, row)
    ratio = high.median / low.median if low.median else math.nan
    return "-" if math.isnan(ratio) else f"{ratio:.3g} x"


def _wanted(row: Result, number: float | None) -> str:
    return "" if number is None else f"{'<' if row.better == 'lower' else '>'} {amount(number)}"
