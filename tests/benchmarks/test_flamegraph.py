"""Where a replay's time goes: the paragraph is of the samples, the page links the picture."""

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("benchmarks.flamegraph")  # mutation testing copies the tests alone
from benchmarks import table
from benchmarks.flamegraph import TARGET, where
from benchmarks.harness import of_rounds

STACKS = Counter(
    {
        ("bot4_runtime/app:Run.execute", "bot4_runtime/engine:Engine.on_candle"): 50,
        (
            "bot4_runtime/app:Run.execute",
            "bot4_runtime/engine:Engine.step",
            "decimal:quantize",
        ): 10,
        ("bot4_runtime/app:Run.execute",): 15,
        ("thread journal", "threading:Thread.run", "bot4_runtime/state/sqlite:write"): 25,
    }
)


def test_the_paragraph_counts_samples_by_thread_and_by_our_innermost_module():
    told = where(STACKS)
    assert "Of 100 samples" in told
    assert "the engine's own 75%, journal 25%." in told
    parts = "`bot4_runtime.engine` 60%, `bot4_runtime.state.sqlite` 25%, `bot4_runtime.app` 15%."
    assert parts in told


def test_the_page_says_where_time_goes_and_links_the_picture_that_is_written():
    page = table.page([("Fees: x", [of_rounds("estimate", [1.0], goal=2)])], "It goes there.")
    assert "\nIt goes there.\n" in page
    link = page.split("](", maxsplit=1)[1].split(")", maxsplit=1)[0]
    docs = Path(__file__).parents[2] / "docs"
    assert docs / link == TARGET
    assert TARGET.exists()
