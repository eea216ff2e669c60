"""The page that says which test stands for which row of the fault catalogue names what is there."""

import re
from itertools import chain
from pathlib import Path

from bot4_runtime.venue import faults

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "rehearsals.md"
CATALOGUE = {
    *(f"N{n}" for n in range(1, 13)),
    *(f"A{n}" for n in range(1, 3)),
    *(f"S{n}" for n in range(1, 15)),
    *(f"O{n}" for n in range(1, 8)),
    *(f"M{n}" for n in range(1, 3)),
    "P1",
}


def rows() -> dict[str, list[str]]:
    """Return the tests named on the page by row."""
    named = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"[NASOMP]\d+(, [NASOMP]\d+)*", cells[0]):
            for row in cells[0].split(", "):
                assert row not in named, f"{row} has two lines"
                named[row] = re.findall(r"`(test_\w+)`", cells[2])
    return named


def test_every_row_is_named_by_tests_that_are_there() -> None:
    named = rows()
    assert set(named) == CATALOGUE
    there = set(
        chain.from_iterable(
            re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
            for file in (ROOT / "tests").rglob("test_*.py")
        )
    )
    assert {name for names in named.values() for name in names} <= there
    assert all(named.values())


def test_every_fault_of_the_venue_belongs_to_a_row() -> None:
    text = Path(faults.__file__).read_text()
    told = dict(re.findall(r'^    [A-Z_]+ = "(\w+)"  # ([NASOM]\d+)', text, re.MULTILINE))
    assert set(told) == {fault.value for fault in faults.Fault}
    assert set(told.values()) <= CATALOGUE
