"""Why goals are missed, told beneath the table of targets for rows that miss theirs."""

import math
from collections.abc import Sequence
from typing import Final

from benchmarks.harness import Result

WHY: Final = {
    "NautilusTrader's time over ours": "its bus publishes faster on this machine than where the "
    "goal was set (1,280 to 1,360 ns there). Ours is two thirds above what C needs to call the "
    "subscriber at all, which leaves little to win.",
    "validate in batch, ": "to read three Decimals of an exact intent as floats, which is done "
    "once for each, takes more than a batch has for one (the floor of `validate`).",
    "validate, ": "an intent nobody has judged has three Decimals to read as floats, which costs "
    "more than the goal by itself (the floor beside it), and a view nobody has judged by has "
    "positions, open orders and correlations to lay out (`prepare the flat check`). Both are done "
    "once and kept; the engine makes a view for each signal, since limits are passed on layouts "
    "gone stale. An intent waits a hundred times longer for its flushed commit. A layout kept by "
    "the fold would take most of it away. What is left when both are kept is the call, the "
    "verdict it returns, and the check itself.",
    "whole engine, both": "ONNX Runtime takes 64 % of the CPU time of a bar: one LSTM of 50 steps "
    "and one step of the HMM, on one thread. Batches of symbols, which share a run, are the way.",
    "whole engine, ": "a candle passes some 100 calls, its share of orders included, which by a "
    "profile take a fifth of the time: source, session, fold, journal, two books' breakers, "
    "strategy. Only risk, signals, fees and the bus are compiled. Compiling engine, session, "
    "market, paper venue, gate, fold, store and journal too made it about 1.3 times as fast in "
    "one trial on a busy machine, with the same events in the journal. It is not shown that the "
    "goal cannot be met.",
    "durable intent": "the bare flushed commit beside it takes the most. The larger part of the "
    "rest is the hand-over to the journal's thread and back (`intent, no disk`, of which folding "
    "and encoding take 16 µs): two threads wake each other across CPUs, which costs four times "
    "what it does on one. The thread that waits could write itself, but then it could no longer "
    "give up on a disk or a server that does not answer. What is left is the second table and "
    "the epoch in the same commit.",
    "update at 5,000/s": "back to back an update takes 1.3 µs. At this pace nearly each finds the "
    "journal's thread asleep, wakes it, and shares the interpreter's lock with it; without a disk "
    "it takes three quarters as long (2026-11-29, SQLite 5.6 µs, memory 4.2 µs).",
    "snapshot durable": "the loop is not kept waiting (the row below); encoding takes a few "
    "milliseconds of it, the rest is a file of megabytes written and flushed, and differs by a "
    "third from machine to machine.",
}
"""By how a row's name begins; the first that fits speaks."""


def reasons(groups: Sequence[tuple[str, Sequence[Result]]]) -> list[str]:
    """Return a Markdown line for each row that was measured and misses what is asked of it."""
    lines: dict[str, list[str]] = {}
    for title, results in groups:
        room = title.split(":", maxsplit=1)[0]
        for row in results:
            unmet = row.kind == "ours" and row.targets and not row.met
            if unmet and not math.isnan(row.median):
                why = next((w for start, w in WHY.items() if row.name.startswith(start)), "")
                lines.setdefault(why or "nobody knows yet.", []).append(f"{room}: {row.name}")
    return [f"- **{'; '.join(names)}**: {why}" for why, names in lines.items()]
