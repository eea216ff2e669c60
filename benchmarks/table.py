"""One table of all targets: measured, specified, goal, floor, peer, met or missed."""

from collections.abc import Sequence

from benchmarks.harness import Result, amount, machine

HEADS = ("benchmark", "unit", "best", "median", "specified", "goal", "floor", "peer", "verdict")
Group = tuple[str, Sequence[Result]]


def rows(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """Return the cells of every row that has a target."""
    found = []
    for title, results in groups:
        room = title.split(":", maxsplit=1)[0]
        for row in results:
            if row.targets and row.kind == "ours":
                floor = _beside(row, results, "floor")
                peer = _beside(row, results, "peer")
                found.append(
                    (
                        f"{room}: {row.name}",
                        row.unit,
                        amount(row.min),
                        amount(row.median),
                        _wanted(row, row.specified),
                        _wanted(row, row.goal),
                        f"{floor.name} {amount(floor.median)}" if floor else "",
                        f"{peer.name} {amount(peer.median)} ({_ratio(row, peer)})" if peer else "",
                        "met" if row.met else "MISSED",
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


def page(groups: Sequence[Group]) -> str:
    """Return docs/benchmarks.md: the table of targets, then every row."""
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
        *_markdown(HEADS, rows(groups)),
    ]
    for title, results in groups:
        cells = [
            (row.kind, row.name, row.unit, amount(row.min), amount(row.median), amount(row.p99),
             row.note)
            for row in results
        ]  # fmt: skip
        heads = ("kind", "row", "unit", "best", "median", "p99", "note")
        lines += ["", f"## {title}", "", *_markdown(heads, cells)]
    return "\n".join(lines) + "\n"


def _markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'|'.join(['---'] * len(heads))}|",
        *(f"| {' | '.join(line)} |" for line in cells),
    ]


def _beside(row: Result, results: Sequence[Result], kind: str) -> Result | None:
    """Return the best row of a kind in the same unit."""
    beside = [other for other in results if other.kind == kind and other.unit == row.unit]
    if not beside:
        return None
    best = max if row.better == "higher" else min
    return best(beside, key=lambda other: other.median)


def _ratio(row: Result, peer: Result) -> str:
    high, low = (row, peer) if row.better == "higher" else (peer, row)
    return f"{high.median / low.median:.1f} x" if low.median else "-"


def _wanted(row: Result, number: float | None) -> str:
    return "" if number is None else f"{'<' if row.better == 'lower' else '>'} {amount(number)}"
