"""Goals stand beside what was measured, and a missed one is called so."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import campaign_simulation
import pytest
from crash_report import Row, goals_of, rows_of, write_report
from planted_bugs import BUGS

HERE = Path(__file__).parent
REPORT = HERE.parents[1] / "docs" / "crash.md"
NAMES = sorted(path.stem for path in HERE.glob("campaign_*.py"))


@pytest.mark.parametrize(
    ("measured", "goal", "verdict"),
    [
        (240.0, ("<=", 240), "met"),
        (240.1, ("<=", 240), "MISSED"),
        (5_000, (">=", 5_000), "met"),
        (4_999, (">=", 5_000), "MISSED"),
        (0, ("==", 0), "met"),
        (1, ("==", 0), "MISSED"),
        (float("nan"), ("<=", 240), "MISSED"),
        ("fast", ("<=", 240), "MISSED"),
    ],
)
def test_a_goal_is_met_or_missed(measured, goal, verdict):
    row, _ = rows_of({"it": measured}, {"it": goal})
    assert (row.goal, row.verdict) == (f"{goal[0]} {goal[1]:,}", verdict)


def test_a_goal_may_be_another_number_and_without_a_number_it_is_missed():
    goals = {"caught": ("==", "planted"), "seconds": ("<=", 240)}
    assert rows_of({"planted": 20, "caught": 19, "violations": ["a", "b"]}, goals) == [
        Row("planted", "20", "", ""),
        Row("caught", "19", "== planted", "MISSED"),
        Row("violations", "2", "== 0", "MISSED"),
        Row("seconds", "not measured", "<= 240", "MISSED"),
    ]
    assert rows_of({"planted": 20, "caught": 20}, goals)[1].verdict == "met"


def test_every_campaign_has_a_section_of_its_own_and_keeps_it(tmp_path):
    path = tmp_path / "docs" / "crash.md"
    chosen = {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        write_report(path, chosen, {name: {"of": name, "seconds": 1.0, "by": {"a": "b"}}})
    report = path.read_text()
    for campaign in chosen.values():
        assert report.count(f"\n## {campaign.TITLE}\n") == 1
        assert goals_of(campaign)
    assert report.count("| what | measured | goal | |") == len(NAMES) >= 4
    assert "| seconds | 1.0 | <= 240 | met |" in report
    assert "| missing_fills | not measured | == 0 | MISSED |" in report


def test_the_report_of_this_project_tells_every_bug_that_is_planted():
    """A bug that was added, renamed or removed asks for `make crash` again."""
    section = REPORT.read_text().partition(f"\n## {campaign_simulation.TITLE}\n")[2]
    numbers, _, caught = section.partition("\n## ")[0].partition("| caught_by | |\n|---|---|\n")
    told = [row.split(" | ")[0].removeprefix("| ") for row in caught.strip().splitlines()]
    assert told == sorted(bug.name for bug in BUGS)
    for what in ("bugs_planted", "bugs_caught"):
        assert f"| {what} | {len(BUGS)} | " in numbers


def test_a_broken_campaign_fails_the_command_and_the_others_go_on(monkeypatch, capsys):
    main = importlib.import_module("tests.crash.__main__")

    def broken(full, jobs, progress):
        raise AssertionError("an order was lost")

    whole = SimpleNamespace(run=lambda *_: {"kills": 1}, TITLE="b", GOALS={})
    campaigns = {"a": SimpleNamespace(run=broken, TITLE="a", GOALS={}), "b": whole}
    monkeypatch.setattr(main, "campaigns", lambda: campaigns)
    assert main.main([]) == 1
    told = capsys.readouterr().out
    assert "a: an order was lost" in told
    assert "kills" in told
    assert main.main(["b"]) == 0


@pytest.mark.crash
def test_the_campaign_of_frames_runs_by_its_name():
    told = subprocess.run(
        [sys.executable, "-m", "tests.crash", "frames"],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "silent_wrong_states" in told.stdout
