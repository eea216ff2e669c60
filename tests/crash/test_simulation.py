"""A sample of the simulation, and proof that it is one: repeatable, and able to fail."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from campaign_simulation import BUG_SEEDS, run
from invariants import events_of
from paper_simulation import explore_paper
from planted_bugs import BUGS, caught
from simulation import CANDLES, explore, from_picture, pictures, script
from story import story

from bot4_runtime.domain.events import OrderFilled, SessionEnded

pytestmark = pytest.mark.crash
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_invariant_breaks_at_any_crash_point(seed):
    outcome = explore(seed)
    assert outcome.failures == []
    assert outcome.runs > 40
    assert outcome.boundaries > 200


def test_what_fills_while_a_process_ends_is_booked_by_the_next_one():
    seed, cut = 711, 87  # the market trades during the last commit of the life before the last
    _, taken = pictures(seed)
    world = from_picture(seed, next(one for one in taken if one.number == cut))
    assert world.violations == []
    events = [event for _, event in events_of(world)]
    ends = [number for number, event in enumerate(events) if type(event) is SessionEnded]
    assert len(ends) == 2
    assert any(type(event) is OrderFilled for event in events[ends[0] : ends[1]])


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_killed_run_on_paper_ends_as_the_whole_one(seed):
    outcome = explore_paper(seed)
    assert outcome.failures == []
    assert outcome.runs > 40
    assert outcome.fills > 0


def test_the_sample_meets_what_it_is_about():
    kinds = set()
    for seed in range(1, 40):
        plan = script(seed)
        kinds |= {"outage"} if plan.outages else set()
        kinds |= {"silence"} if plan.silences else set()
        kinds |= {"skew"} if plan.skews else set()
        kinds |= {kind for _, kind in plan.meddling}
        kinds |= {"disk"} if plan.disk_fails_at else set()
        kinds |= set(plan.signals.values())
    assert kinds == {
        "outage", "silence", "skew", "order", "epoch", "deposit", "disk", "enter", "rest", "exit"
    }  # fmt: skip
    assert CANDLES >= 5


def test_a_seed_gives_the_same_bytes_in_another_process():
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); from simulation import *; quiet(); "
        "print(explore(5).digest)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PATH": "/usr/bin:/bin"},
        cwd=HERE.parents[1],
    )
    assert told.stdout.strip() == explore(5).digest


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug):
    verdict = caught(bug, [bug.seed, *range(BUG_SEEDS)])
    assert verdict is not None, f"{bug.name} ({bug.wrong}) survived {BUG_SEEDS} seeds"
    print(f"{bug.name}: {verdict.by} (seed {verdict.seed}, {verdict.runs} runs)")


def test_there_are_more_than_twenty_bugs():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20


def test_a_run_is_told_again_as_it_was():
    _, taken = pictures(3)
    middle = taken[len(taken) // 2]
    lines, violations = story(3, middle.number)
    again, _ = story(3, middle.number)
    assert lines == again
    assert violations == []
    assert any(f"killed at boundary {middle.number}" in line for line in lines)
    with pytest.raises(ValueError, match="no picture"):
        story(3, 10**9)


def test_the_campaign_reports_what_it_did(monkeypatch):
    monkeypatch.setattr("campaign_simulation.SEEDS", {False: 1})
    monkeypatch.setattr("campaign_simulation.PAPER_SEEDS", {False: 1})
    monkeypatch.setattr("campaign_simulation.BUGS", BUGS[:1])
    notes = []
    result = run(False, 1, lambda share, note: notes.append((share, note)))
    assert result["violations"] == []
    assert result["bugs_caught"] == 1
    assert notes[-1][0] == 1.0
    assert json.dumps(result)


def test_the_runner_names_unknown_campaigns_and_tells_stories():
    command = [sys.executable, "-m", "tests.crash"]
    root = HERE.parents[1]
    wrong = subprocess.run([*command, "nothing"], capture_output=True, text=True, cwd=root)
    assert wrong.returncode == 2
    assert "no campaign nothing; there are" in wrong.stderr
    lines, _ = story(3, None)
    assert len(lines) > 20
    told = subprocess.run(
        [*command, "simulation", "--seed", "3"], capture_output=True, text=True, cwd=root
    )
    assert told.returncode == 0
    assert "nothing was violated" in told.stdout
    assert told.stdout.splitlines()[: len(lines)] == lines
