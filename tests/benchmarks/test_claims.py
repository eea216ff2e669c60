"""What the table of targets says: beside what a row stands, and what it says of no number."""

import json
import math
import sys
from pathlib import Path

import pytest

pytest.importorskip("benchmarks.harness")  # mutation testing copies the tests alone
from benchmarks import harness, table
from benchmarks.bench_event_bus import HANDLERS, NAUTILUS, ONE, compared
from benchmarks.harness import Result, of_rounds
from benchmarks.missed import WHY, reasons


def row(name, median, kind="ours", **fields):
    return of_rounds(name, [median], kind=kind, **fields)


def cells(*results):
    """The cells of the table by its heads, of its only row."""
    (found,) = table.rows([("Fees: Binance", results)])
    return dict(zip(table.HEADS, found, strict=True))


def test_a_row_stands_beside_the_floor_and_the_peer_it_names_not_the_cheapest_of_its_unit():
    found = cells(
        row("deque.append", 12, "floor"),
        row("empty Python call", 20, "floor"),
        row("estimate", 30, goal=50, floor="empty Python call", peers=("ccxt", "other")),
        row("queue", 90, "peer"),
        row("ccxt", 6000, "peer"),
        row("other", 15, "peer"),
    )
    assert found["floor"] == "empty Python call 20"
    assert found["peer"] == "ccxt 6,000 (200 x); other 15 (0.5 x)"


def test_a_row_that_names_nothing_stands_alone():
    found = cells(
        row("empty Python call", 20, "floor"), row("route", 9, goal=50), row("p", 1, "peer")
    )
    assert (found["floor"], found["peer"]) == ("", "")


def test_more_is_better_turns_the_ratio_round():
    found = cells(
        row("ours", 100, goal=50, better="higher", peers=("theirs",)),
        row("theirs", 400, "peer", better="higher"),
    )
    assert found["peer"] == "theirs 400 (0.25 x)"


def test_a_floor_or_peer_that_is_not_there_or_in_another_unit_is_refused():
    with pytest.raises(LookupError, match="lacks"):
        cells(row("ours", 1, goal=2, floor="gone"))
    with pytest.raises(ValueError, match="in ms"):
        cells(row("ours", 1, goal=2, peers=("p",)), row("p", 1, "peer", unit="ms"))


def test_what_was_not_measured_is_said_and_is_not_met():
    found = cells(
        of_rounds("ours", [], goal=2, peers=("theirs",)), of_rounds("theirs", [], kind="peer")
    )
    assert found["verdict"] == "not measured"
    assert found["median"] == "-"
    assert found["peer"] == "theirs: not measured"


@pytest.mark.parametrize(("median", "verdict"), [(50.0, "met"), (50.1, "MISSED")])
def test_a_verdict_is_of_the_median(median, verdict):
    assert cells(row("ours", median, specified=100, goal=50))["verdict"] == verdict


def test_without_its_library_every_expected_peer_is_a_row_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "PEER_PYTHON", tmp_path / "none")
    found = harness.peers("bus", ("one", "two"))
    assert [(each.name, each.kind, math.isnan(each.median)) for each in found] == [
        ("one", "peer", True),
        ("two", "peer", True),
    ]
    assert "not installed" in found[0].note


def test_a_peer_that_fails_is_a_row_with_its_last_words(monkeypatch):
    monkeypatch.setattr(harness, "PEER_PYTHON", Path(sys.executable))
    (found,) = harness.peers("no_such_peer", ("one",), unit="bars/CPU-s")
    assert math.isnan(found.median)
    assert "no_such_peer" in found.note
    assert found.unit == "bars/CPU-s"


def test_what_a_peer_tells_is_read_back(capsys):
    harness.tell([of_rounds("one", [3.0, 1.0, 2.0])])
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["name"], told["kind"], told["median"]) == ("one", "peer", 2.0)


def bus(theirs):
    return compared(
        [
            Result(name=ONE, kind="ours", min=10, median=50, p99=90),
            Result(name=NAUTILUS.format(HANDLERS[1]), kind="peer", min=1, median=theirs, p99=9e9),
        ]
    )


@pytest.mark.parametrize(
    ("theirs", "ratio", "verdict"), [(1300.0, 26.0, "met"), (1200.0, 24.0, "MISSED")]
)
def test_the_bus_is_compared_by_medians(theirs, ratio, verdict):
    assert (bus(theirs).median, bus(theirs).verdict) == (ratio, verdict)


def test_without_the_peer_the_comparison_stays_in_the_table_not_measured():
    assert bus(math.nan).verdict == "not measured"


def test_the_report_on_disk_is_json_without_nan(tmp_path, capsys):
    harness.report("Bus: publish", [of_rounds("peer", [], kind="peer")], tmp_path)
    text = (tmp_path / "bus.json").read_text(encoding="utf-8")

    def refuse(word):
        raise AssertionError(word)

    (found,) = json.loads(text, parse_constant=refuse)["results"]
    assert found["median"] is None


def test_the_page_tells_why_each_missed_row_is_missed_and_admits_when_nobody_knows():
    slow = row("validate, approves, 8 + 8", 4_000, goal=50)
    slower = row("validate, refuses, 8 + 8", 5_000, goal=50)
    odd = row("something new", 100, goal=50)
    fast = row("whole engine, random walk", 40, goal=50)
    unknown = row("durable intent, PostgreSQL", math.nan, goal=50)
    peer = row("validate, theirs", 9_000, kind="peer", goal=50)
    lines = reasons([("Risk: 7 limits", [slow, slower, odd, fast, unknown, peer])])
    assert len(lines) == 2
    assert lines[0].startswith(
        "- **Risk: validate, approves, 8 + 8; Risk: validate, refuses, 8 + 8**: an intent nobody"
    )
    assert lines[1] == "- **Risk: something new**: nobody knows yet."
    assert reasons([("Risk", [fast])]) == []


def test_every_reason_is_of_a_row_that_some_benchmark_makes():
    sources = "".join(
        path.read_text() for path in Path(harness.__file__).parent.glob("bench_*.py")
    )
    for start in WHY:
        assert start.split(",")[0] in sources, start
